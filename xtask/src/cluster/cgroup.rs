//! The cgroups of the cluster's containers: below one of our own, in each hierarchy that this machine
//! has, so that they are found again. A container whose runtime was killed leaves its own behind.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::config::CGROUP;

const ROOT: &str = "/sys/fs/cgroup";

/// What a cgroup of this hierarchy must be given before processes can be put into it.
const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// How long a cgroup may be busy after its last process has ended.
const PATIENCE: Duration = Duration::from_secs(15);

/// Makes the cgroup that is above all of a node's containers.
pub fn make(node: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let mut parent = hierarchy.clone();
        for name in [CGROUP.trim_start_matches('/'), node] {
            let cgroup = parent.join(name);
            fs::create_dir_all(&cgroup).with_context(|| format!("making {}", cgroup.display()))?;
            inherit(&parent, &cgroup)?;
            parent = cgroup;
        }
    }
    Ok(())
}

/// A new cpuset of cgroup v1 is empty.
fn inherit(parent: &Path, cgroup: &Path) -> Result<()> {
    for file in CPUSET {
        let own = cgroup.join(file);
        let Ok(value) = fs::read_to_string(parent.join(file)) else { continue };
        if fs::read_to_string(&own).is_ok_and(|own| own.trim().is_empty()) {
            fs::write(&own, value).with_context(|| format!("writing {}", own.display()))?;
        }
    }
    Ok(())
}

/// Removes all of them.
///
/// # Errors
/// If one stays busy.
pub fn clear() -> Result<()> {
    for hierarchy in hierarchies()? {
        let cgroup = hierarchy.join(CGROUP.trim_start_matches('/'));
        if cgroup.is_dir() {
            remove(&cgroup)?;
        }
    }
    Ok(())
}

/// The one hierarchy of cgroup v2, or those of v1.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("reading {ROOT}"))?;
    // Some have a second name, which is a link.
    let directories =
        entries.into_iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(|entry| entry.path()).collect())
}

/// The deepest first.
fn remove(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup).with_context(|| format!("reading {}", cgroup.display()))? {
        let entry = entry.with_context(|| format!("reading {}", cgroup.display()))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    let start = Instant::now();
    loop {
        match fs::remove_dir(cgroup) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Ok(()) => return Ok(()),
            Err(error) if start.elapsed() > PATIENCE => {
                return Err(error).with_context(|| format!("removing {}", cgroup.display()));
            }
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
