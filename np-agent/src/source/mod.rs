//! Where objects come from: a directory of manifests, read strictly and watched for changes.
//!
//! ```text
//! scan ─ files ─> documents ─ one text each ─> tree ─ nodes with places ─> convert ─┬─> Object
//!                                              (YAML, JSON)   policy, objects       └─> Invalid
//!                                                            └─> Background, for advice
//! manifests: this load against the last one ─> Batch        watch: when to load again
//! ```
//!
//! Wire shapes end here: what leaves is a [`model`](crate::model) value or an [`Invalid`] that
//! names file, line, column, object, field, value and remedy. Whatever cannot be understood keeps
//! the last good version of its object in force.

mod background;
mod cidr;
mod convert;
mod documents;
mod fields;
mod guess;
mod hints;
mod identity;
mod invalid;
mod kinds;
mod manifests;
mod memory;
mod metadata;
mod names;
mod objects;
mod policy;
mod prefixes;
mod scan;
mod selector;
mod time;
mod tree;
mod watch;
mod written;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use invalid::Invalid;
pub use manifests::{Batch, Manifests, read};
pub use memory::remembered;
pub use prefixes::prefix;
pub use watch::run;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("{}: {error}; name a file or a directory that this process may read", path.display())]
    Input { path: PathBuf, error: io::Error },
    #[error("--manifests {}: {error}; name a directory that this process may read", dir.display())]
    Unreadable { dir: PathBuf, error: io::Error },
    #[error("--manifests {}: not a directory; name the directory that holds the manifests", dir.display())]
    NotADirectory { dir: PathBuf },
    #[error(
        "--manifests {}: changes cannot be watched: {error}; raise fs.inotify.max_user_instances",
        dir.display()
    )]
    Watch { dir: PathBuf, error: io::Error },
    #[error(
        "{}: no objects can be read here: {error}; start an agent with this --run-dir, or give \
         --manifests DIR",
        file.display()
    )]
    Memory { file: PathBuf, error: io::Error },
    #[error("reading the manifests stopped: {0}")]
    Stopped(#[from] tokio::task::JoinError),
}
