//! The last good versions, in a file that outlives the process.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::source::SourceError;
use np_policy::model::Object;

/// The file's name in an agent's run directory.
pub const MEMORY: &str = "manifests.json";

/// The last good version of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Good {
    pub object: Object,
    pub file: PathBuf,
}

/// What an earlier process left; nothing when it left nothing, or nothing that can be understood.
pub(super) fn read(file: &Path) -> Vec<Good> {
    let opened = match File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "cannot read the last good versions");
            return Vec::new();
        }
    };
    serde_json::from_reader(BufReader::new(opened)).unwrap_or_else(|error| {
        tracing::warn!(file = %file.display(), %error, "the last good versions are not readable");
        Vec::new()
    })
}

/// What an agent has put in force, for another process to read.
pub fn remembered(file: &Path) -> Result<Vec<Object>, SourceError> {
    let unreadable = |error| SourceError::Memory { file: file.to_owned(), error };
    let opened = File::open(file).map_err(unreadable)?;
    let good: Vec<Good> = serde_json::from_reader(BufReader::new(opened))
        .map_err(|error| unreadable(error.into()))?;
    Ok(good.into_iter().map(|good| good.object).collect())
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// All or nothing: a process that dies while it writes leaves the file as it was.
pub(super) fn write<'a>(file: &Path, good: impl Iterator<Item = &'a Good>) -> io::Result<()> {
    let draft = file.with_extension("draft");
    // What a cluster consists of is not for every user of the node, nor is a draft that a killed
    // process left open to others.
    fs::remove_file(&draft).or_else(absent_is_fine)?;
    let made = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    let mut output = BufWriter::new(made);
    serde_json::to_writer(&mut output, &good.collect::<Vec<_>>())?;
    output.flush()?;
    fs::rename(draft, file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_remembered_is_for_root_alone_also_over_files_that_were_not() {
        let place = tempfile::tempdir().expect("a directory");
        let file = place.path().join("manifests.json");
        for name in ["manifests.json", "manifests.draft"] {
            let path = place.path().join(name);
            fs::write(&path, "[]").expect("it is ours");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
        }
        write(&file, std::iter::empty()).expect("it is written");
        let mode = fs::metadata(&file).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
