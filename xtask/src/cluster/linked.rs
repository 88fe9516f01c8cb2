//! Programs of this machine for an image: each with the libraries that it is linked to, at the places
//! where it looks for them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::archive::Entry;
use crate::ldd;
use crate::shell::{self, find_program};

/// The entries of some programs, each as (its name here, its name in the image's /bin).
///
/// # Errors
/// If one is not there, or cannot be asked for its libraries.
pub fn entries(programs: &[(&str, &str)]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut libraries = BTreeSet::new();
    for (program, name) in programs {
        let path = find_program(program).with_context(|| format!("there is no {program}"))?;
        let said = shell::capture(Command::new("ldd").arg(&path))?;
        libraries.extend(ldd::paths(&said).map(str::to_owned));
        entries.push(Entry::program(&format!("bin/{name}"), path));
    }
    let mut directories = BTreeSet::new();
    for library in &libraries {
        directories.extend(Path::new(library).ancestors().skip(1).map(Path::to_owned));
    }
    // Each after the one that it is in.
    let directories = directories.iter().map(|path| path.display().to_string());
    let directories = directories.filter(|path| path.len() > 1);
    let mut all: Vec<Entry> =
        directories.map(|path| Entry::directory(path.trim_start_matches('/'), 0o755)).collect();
    all.extend(libraries.iter().map(|path| Entry::program(path.trim_start_matches('/'), path)));
    all.extend(entries);
    Ok(all)
}
