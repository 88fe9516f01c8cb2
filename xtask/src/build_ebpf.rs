//! Builds the kernel programs and puts the object where np-agent's build script embeds it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::toolchain::Toolchain;
use crate::workspace::{self, Workspace};

/// Build the eBPF programs and place the object for np-agent to embed
///
/// The programs are built for bpfel-unknown-none in a target directory of their own and copied to
/// np-agent/object/np-ebpf.o, if they changed: np-agent is then rebuilt by the next cargo command.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Log every verdict through aya-log; for debugging on a lab node only.
    ///
    /// Shown by an agent built with the same feature:
    /// `cargo build --release -p np-agent --features debug-log`.
    #[arg(long)]
    pub debug_log: bool,
}

pub fn run(args: &Args) -> Result<()> {
    build(args, &setup::ensure(Needs::Build)?)
}

/// Builds with a toolchain that is known to be complete.
///
/// # Errors
/// If the programs do not compile or the object cannot be copied.
pub fn build(Args { debug_log }: &Args, toolchain: &Toolchain) -> Result<()> {
    let root = workspace::root();
    let target = Workspace::read(false)?.target_dir.join("ebpf");
    step("building the eBPF programs", || {
        let mut command = toolchain.cargo_build();
        command.args(["--package", "np-ebpf", "--target-dir"]).arg(&target).current_dir(&root);
        if *debug_log {
            command.args(["--features", "debug-log"]);
        }
        shell::run(&mut command).with_context(|| format!("with {toolchain}"))?;
        let built = target.join("bpfel-unknown-none/release/np-ebpf");
        place(&built, &root.join("np-agent/object/np-ebpf.o"))
    })
}

/// Copies only what differs: a new file time alone would rebuild np-agent.
fn place(built: &Path, object: &Path) -> Result<()> {
    let new = fs::read(built).with_context(|| format!("reading {}", built.display()))?;
    if fs::read(object).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(dir) = object.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    fs::write(object, &new).with_context(|| format!("writing {}", object.display()))?;
    println!("    {} bytes → {}", new.len(), object.display());
    Ok(())
}
