//! Builds what a node runs: the agent, with the kernel programs inside.

use anyhow::Result;

use crate::build_ebpf;
use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::workspace::{self, Workspace};

/// Build the release agent with the eBPF programs inside
///
/// The result is one file, target/release/np-agent.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<()> {
    let toolchain = setup::ensure(Needs::Build)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    step("building the agent", || {
        let mut command = shell::cargo();
        command.args(["build", "--release", "--package", "np-agent"]);
        shell::run(command.current_dir(workspace::root()))
    })?;
    let agent = Workspace::read(false)?.target_dir.join("release/np-agent");
    println!("build: {}", agent.display());
    Ok(())
}
