//! How properties are run: so many cases, from a seed that is printed.

use proptest::test_runner::{Config, RngSeed, TestRunner};

/// A runner of `PROPTEST_CASES` cases, or so many if that is not set, from `PROPTEST_RNG_SEED` or a
/// seed of its own. Prints both: with them a run can be had again.
pub fn runner(name: &str, cases: u32) -> TestRunner {
    let cases = number("PROPTEST_CASES").map_or(cases, |cases| cases as u32);
    let seed = number("PROPTEST_RNG_SEED").unwrap_or_else(random);
    println!("{name}: {cases} cases, PROPTEST_RNG_SEED={seed}");
    TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 20_000,
        max_global_rejects: cases.max(1024),
        failure_persistence: None,
        ..Config::default()
    })
}

/// An answer for each question, over and over: it shrinks with the case.
#[derive(Debug)]
pub struct Choices<'a> {
    all: &'a [u32],
    next: usize,
}

impl<'a> Choices<'a> {
    pub fn new(all: &'a [u32]) -> Self {
        Self { all, next: 0 }
    }

    /// How many answers there have been.
    pub fn asked(&self) -> usize {
        self.next
    }

    pub fn below(&mut self, count: usize) -> usize {
        self.next += 1;
        self.all[self.next % self.all.len()] as usize % count.max(1)
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0)
}
