//! What a packet pays: each program alone, and whole connections between pods next to other ways to
//! enforce the same policy.
//!
//! All figures are of one run. Ratios are medians over rounds, in each of which every variant is
//! measured once, next to the same cluster without any policy; a second such cluster is the control: as
//! far as it is from 1, so far is any other figure noise.
//!
//! Prints tables for people and, for `cargo xtask bench`, lines of `json`, a tab, and one object.

mod attachment;
mod drive;
mod edits;
mod enforcers;
mod load;
mod memory;
mod programs;
mod rounds;

use anyhow::Result;
use serde::Serialize;

/// One figure.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    measure: String,
    variant: String,
    /// How many rules or peers there were.
    rules: usize,
    value: f64,
    unit: &'static str,
}

impl Figure {
    fn tell(&self) {
        println!("json\t{}", serde_json::to_string(self).expect("numbers and strings"));
    }
}

fn main() -> Result<()> {
    // What cargo passes to every benchmark is not ours; a word of ours is a filter.
    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let runs = |name: &str| wanted.as_deref().is_none_or(|wanted| name.contains(wanted));
    if runs("programs") {
        programs::measure()?;
    }
    if runs("attachment") {
        attachment::measure()?;
    }
    if runs("memory") {
        memory::measure()?;
    }
    if runs("edits") {
        edits::measure()?;
    }
    if runs("connections") {
        rounds::measure()?;
    }
    Ok(())
}

/// The middle of some values.
fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
