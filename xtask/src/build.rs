//! Builds what a node runs: the agent, with the kernel programs inside.

use std::path::PathBuf;

use anyhow::Result;

use crate::build_ebpf;
use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::toolchain::Toolchain;
use crate::workspace::{self, Workspace};

/// Build the release agent with the eBPF programs inside
///
/// The result is one file, target/release/np-agent.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<()> {
    let toolchain = setup::ensure(Needs::Build)?;
    let release = release(&toolchain, &["--package", "np-agent"])?;
    println!("build: {}", release.join("np-agent").display());
    Ok(())
}

/// Builds the programs and then the named packages, and returns the directory of the binaries.
///
/// # Errors
/// If something does not compile.
pub fn release(toolchain: &Toolchain, packages: &[&str]) -> Result<PathBuf> {
    build_ebpf::build(&build_ebpf::Args::default(), toolchain)?;
    step("building the release binaries", || {
        let mut command = shell::cargo();
        command.args(["build", "--release", "--bins"]).args(packages);
        shell::run(command.current_dir(workspace::root()))
    })?;
    Ok(Workspace::read(false)?.target_dir.join("release"))
}
