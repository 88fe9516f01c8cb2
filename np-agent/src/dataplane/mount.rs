//! The BPF file system itself, where the node's init has mounted none, as in the nodes of kind.

use std::path::Path;

use nix::mount::{MsFlags, mount};

use super::error::DataplaneError;
use super::sys;

/// Whether it was there, or was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bpffs {
    Found,
    Mounted,
}

/// Mounts a BPF file system unless one is there: pins below a second one would hide the first.
pub fn mount_bpffs(dir: &Path) -> Result<Bpffs, DataplaneError> {
    if sys::is_bpffs(dir).map_err(DataplaneError::file("look at", dir))? {
        return Ok(Bpffs::Found);
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), dir, Some("bpf"), flags, Some("mode=700"))
        .map_err(|error| DataplaneError::file("mount a BPF file system at", dir)(error.into()))?;
    Ok(Bpffs::Mounted)
}
