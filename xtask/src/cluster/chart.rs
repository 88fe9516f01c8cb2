//! The Helm chart's tests alone: they need Helm and no cluster.

use std::time::Instant;

use anyhow::Result;

use super::places::Places;
use super::programs;
use crate::shell;
use crate::test::{self, Report, Row, Tier};

/// Test the Helm chart; needs Go, and neither root nor a cluster
///
/// Helm is built first, from nothing in about three minutes. The tier cluster runs these tests too.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
}

pub fn run(Args { filter }: &Args) -> Result<()> {
    let places = Places::find()?;
    programs::build_helm(&places)?;
    let start = Instant::now();
    let wanted = |target: &str| target == "cluster_chart";
    let mut told = test::run_in_cluster(places.root(), wanted, filter.as_deref())?;
    let row = Row { tier: Tier::Cluster, tally: told.tally, took: start.elapsed() };
    let Report { text, problems } = test::report(&[row], filter.as_deref());
    print!("\n{text}");
    shell::flush();
    told.problems.extend(problems);
    told.verdict()
}
