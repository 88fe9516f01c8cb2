//! `np-agent mount`.

use std::process::ExitCode;

use super::out;
use crate::args::MountArgs;
use crate::dataplane::{Bpffs, mount_bpffs};

pub fn run(MountArgs { dir }: &MountArgs) -> anyhow::Result<ExitCode> {
    let said = match mount_bpffs(dir)? {
        Bpffs::Found => "a BPF file system is there already:",
        Bpffs::Mounted => "mounted a BPF file system at",
    };
    out::line(format_args!("{said} {}", dir.display()))?;
    Ok(ExitCode::SUCCESS)
}
