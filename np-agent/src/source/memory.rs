//! The last good versions, in a file that outlives the process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SourceError;
use crate::model::Object;

/// The last good version of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Good {
    pub object: Object,
    pub file: PathBuf,
}

/// What an earlier process left; nothing when it left nothing, or nothing that can be understood.
pub(super) fn read(file: &Path) -> Vec<Good> {
    let bytes = match fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read the last good versions");
            return Vec::new();
        }
    };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "the last good versions are not readable");
        Vec::new()
    })
}

/// What an agent has put in force, for another process to read.
pub fn remembered(file: &Path) -> Result<Vec<Object>, SourceError> {
    let unreadable = |error| SourceError::Memory { file: file.to_owned(), error };
    let bytes = fs::read(file).map_err(unreadable)?;
    let good: Vec<Good> =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into()))?;
    Ok(good.into_iter().map(|good| good.object).collect())
}

/// All or nothing: a process that dies meanwhile leaves the file as it was.
pub(super) fn write<'a>(file: &Path, good: impl Iterator<Item = &'a Good>) -> io::Result<()> {
    let draft = file.with_extension("draft");
    fs::write(&draft, serde_json::to_vec(&good.collect::<Vec<_>>())?)?;
    fs::rename(draft, file)
}
