//! Shows the product at work on this machine, with no cluster.

use anyhow::Result;

use crate::build_ebpf;
use crate::setup::{self, Needs};
use crate::shell::{self, as_root, step};
use crate::workspace::{self, Workspace};

/// Set up, build, and show policies enforced on real traffic: no cluster needed
///
/// Nodes and pods are network namespaces, Services are rules as kube-proxy writes them, and one real
/// np-agent runs per node. Needs root (taken by sudo if you are not). What follows is passed to the
/// demo: `cargo xtask demo --proxy nftables`; `cargo xtask demo -- --help` lists what it knows.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments of the demo itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "DEMO ARGUMENTS")]
    args: Vec<String>,
}

pub fn run(Args { args }: &Args) -> Result<()> {
    let toolchain = setup::ensure(Needs::Run)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    // Not the release build: that would compile every dependency twice, once more for the tests. The
    // programs in the kernel are the same in both.
    step("building the agent and the demo", || {
        let mut command = shell::cargo();
        command.args(["build", "--package", "np-agent", "--package", "np-tests", "--bins"]);
        shell::run(command.current_dir(workspace::root()))
    })?;
    let built = Workspace::read(false)?.target_dir.join("debug");
    // By way of env(1), so that the variable also passes a sudo that clears the environment.
    let mut command = as_root("/usr/bin/env", "making network namespaces and loading programs")?;
    command
        .arg(format!("NP_AGENT={}", built.join("np-agent").display()))
        .arg(built.join("np-demo"))
        .args(args)
        .current_dir(workspace::root());
    shell::run(&mut command)
}
