//! The benchmarks.

use anyhow::Result;

use crate::shell;
use crate::workspace;

/// Measure what changes cost the agent by the size of the cluster; prints medians and live memory
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only benchmarks whose name contains this
    filter: Option<String>,
}

pub fn run(Args { filter }: &Args) -> Result<()> {
    let mut command = shell::cargo();
    command
        .args(["bench", "--package", "np-tests", "--bench", "reconcile", "--"])
        .args(filter)
        .current_dir(workspace::root());
    shell::run(&mut command)
}
