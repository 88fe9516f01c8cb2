//! Shows the product at work on this machine, with no cluster.

use std::process::Command;

use anyhow::Result;

use crate::build;
use crate::setup::{self, Needs};
use crate::shell::{self, as_root};
use crate::workspace;

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
    let release = build::release(&toolchain, &["--package", "np-agent", "--package", "np-tests"])?;
    let agent = release.join("np-agent");
    let demo = release.join("np-demo");
    // By way of env(1), so that the variable also passes a sudo that clears the environment.
    let mut command: Command = as_root("/usr/bin/env", "the demo makes network namespaces and")?;
    command
        .arg(format!("NP_AGENT={}", agent.display()))
        .arg(demo)
        .args(args)
        .current_dir(workspace::root());
    shell::run(&mut command)
}
