//! Where objects come from: one border, and two readers behind it.
//!
//! ```text
//! manifests ─ a directory, read strictly ──┐
//!                                          ├─▶ Batch ─▶ the agent
//! api ─────── an API server, read totally ─┘
//! ```
//!
//! Wire shapes end here: what leaves is a [`model`](np_policy::model) value and a word about what was
//! not taken. A manifest with a mistake is refused with its place and remedy ([`Invalid`]), and the
//! last good version of its object stays. An object of the API server is never refused, because a
//! refused policy is an open pod: what is not understood of it matches nobody ([`Narrowed`]).

pub mod api;
mod batch;
mod cidr;
mod invalid;
mod kind;
mod manifests;
mod names;
mod narrowed;
mod prefixes;
mod time;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use batch::Batch;
pub use invalid::Invalid;
pub use manifests::{MEMORY, Manifests, read, remembered, run};
pub use narrowed::Narrowed;
pub use prefixes::prefix;

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
