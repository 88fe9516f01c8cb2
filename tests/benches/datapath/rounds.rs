//! Whole connections, round by round.

use anyhow::{Context, Result};

use crate::enforcers::{Enforcer, Place};
use crate::load::{MEASURES, Sample};
use crate::{Figure, median};

const PEERS: [usize; 3] = [10, 1_000, 10_000];
const ROUNDS: usize = 15;

pub fn measure() -> Result<()> {
    for peers in PEERS {
        let places = Enforcer::ALL
            .iter()
            .map(|enforcer| {
                let place = Place::build(*enforcer, peers);
                place.with_context(|| format!("{} with {peers} peers", enforcer.name()))
            })
            .collect::<Result<Vec<_>>>()?;
        // The first round warms caches and neighbour tables.
        let mut samples: Vec<Vec<Sample>> = Vec::new();
        for _ in 0..=ROUNDS {
            samples.push(places.iter().map(Place::sample).collect::<Result<_>>()?);
        }
        report(peers, &samples[1..]);
    }
    Ok(())
}

/// Ratios of a round to that round without policy, and of those the median.
fn report(peers: usize, rounds: &[Vec<Sample>]) {
    println!("\n{peers} peers; times without policy, then how many times that it takes with");
    for (number, (measure, unit)) in MEASURES.into_iter().enumerate() {
        let mut plain: Vec<f64> = rounds.iter().map(|round| round[0][number]).collect();
        let value = median(&mut plain);
        println!("  {measure}: {}", shown(value));
        let (rules, none) = (peers, Enforcer::None.name().to_owned());
        Figure { measure: measure.to_owned(), variant: none, rules, value, unit }.tell();
        for (place, enforcer) in Enforcer::ALL.iter().enumerate().skip(1) {
            let mut ratios: Vec<f64> =
                rounds.iter().map(|round| round[place][number] / round[0][number]).collect();
            let value = median(&mut ratios);
            println!("    {:<40} {value:.3}", enforcer.name());
            let (measure, variant) = (measure.to_owned(), enforcer.name().to_owned());
            Figure { measure, variant, rules, value, unit: "ratio" }.tell();
        }
    }
}

fn shown(seconds: f64) -> String {
    if seconds < 1e-8 {
        return format!("{:.1} GB/s", 1e-9 / seconds);
    }
    format!("{:.2} µs", seconds * 1e6)
}
