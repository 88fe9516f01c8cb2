//! The benchmarks: run, shown, and drawn.

mod chart;
pub mod datapath;
mod reconcile;

use anyhow::Result;
use clap::ValueEnum;

/// Measure what changes cost the agent and what packets cost, and draw both
///
/// `reconcile`: medians and live memory by the size of the cluster, drawn into docs/reconcile.svg.
/// `datapath`: the programs alone, attachment, memory, edits, and connections between pods next to
/// nftables, ipset and iptables, into docs/datapath.json and docs/datapath.svg; needs root. Run it on
/// a machine that does nothing else.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only one of the two
    #[arg(value_enum)]
    suite: Option<Suite>,

    /// Run only benchmarks whose name contains this, and write no file
    filter: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    Reconcile,
    Datapath,
}

pub fn run(Args { suite, filter }: &Args) -> Result<()> {
    let runs = |which| suite.is_none_or(|suite| suite == which);
    if runs(Suite::Reconcile) {
        reconcile::run(filter.as_deref())?;
    }
    if runs(Suite::Datapath) {
        datapath::run(filter.as_deref())?;
    }
    Ok(())
}
