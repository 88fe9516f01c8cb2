//! What must be green before a change goes in; `.ci/run` calls this and nothing else.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::{bench, lint, test};

/// Run everything that must pass: lint, `cargo xtask test`, and a benchmark to see that it runs
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(Args {}: &Args) -> Result<()> {
    let start = Instant::now();
    lint::run(&lint::Args::default()).context("lint")?;
    test::run(&test::Args::default()).context("test")?;
    bench::datapath::check().context("bench")?;
    println!("ci: all passed in {:.0} s", start.elapsed().as_secs_f32());
    Ok(())
}
