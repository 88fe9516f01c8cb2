//! Whatever arrives at a pod is explained: policy allowed it at that moment, or the receiver asked for
//! it. A minute of a world that lives, with an adversary in it; hours by `cargo xtask test soak`.

use std::time::Duration;

use anyhow::{Context, Result};
use np_tests::arrival::{self, Run};
use np_tests::matrix;

/// `NP_TEST_SEED` has a run again, `NP_ARRIVAL_SECONDS` makes it longer, and `NP_ARRIVAL_SURVEY` has it
/// go on after a finding; `NP_ARRIVAL_ONLY` names plots of the adversary, with commas between.
#[test]
fn every_arrival_at_a_pod_is_explained() -> Result<()> {
    let row =
        matrix::row("Attacks", "every arrival at a pod is explained, a minute of random ones");
    let seed = number("NP_TEST_SEED")?.unwrap_or_else(random);
    let seconds = number("NP_ARRIVAL_SECONDS")?.unwrap_or(45);
    let survey = number("NP_ARRIVAL_SURVEY")?.is_some();
    let only = std::env::var("NP_ARRIVAL_ONLY").unwrap_or_default();
    let only = only.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    println!("arrival: NP_TEST_SEED={seed}");
    let report = arrival::run(Run { seed, length: Duration::from_secs(seconds), survey, only })
        .with_context(|| format!("NP_TEST_SEED={seed}"))?;
    println!("{report}");
    if survey {
        for (plot, text) in report.findings() {
            println!("\n\"{plot}\":\n{text}");
        }
    }
    report.verdict()?;
    row.holds();
    Ok(())
}

fn number(variable: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number = text.parse().with_context(|| format!("{variable}={text} is not a number"))?;
    Ok(Some(number))
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0) >> 32
}
