//! A directory of manifests, read strictly and watched for changes.
//!
//! ```text
//! scan ─ files ─> documents ─ places ─> pieces ─ texts ─> tree ─ nodes ─> convert ─┬─> Object
//!                 block, brackets       bounded         json, settle      policy   ├─> Invalid
//!                                                                         objects  └─> Background
//! directory: this load against the last one ─> Batch      watch: when to load again
//! ```
//!
//! An [`Invalid`](super::Invalid) names file, line, column, object, field, value and remedy.
//! Whatever cannot be understood keeps the last good version of its object in force.

mod background;
mod block;
mod brackets;
mod convert;
mod directory;
mod documents;
mod fields;
mod guess;
mod hints;
mod identity;
mod json;
mod kinds;
mod memory;
mod metadata;
mod objects;
mod pieces;
mod plain;
mod policy;
mod scan;
mod selector;
mod settle;
mod tree;
mod watch;
mod written;

pub use directory::{Manifests, read};
pub use memory::{MEMORY, remembered};
pub use watch::run;
