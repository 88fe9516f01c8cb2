//! The properties against the oracle on many more cases than a test run has time for.

mod arrival;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::shell::{self, step};
use crate::workspace;

/// Run the properties against the oracle on a million clusters and more, optimised
///
/// Each part has a seed of its own; a failing part prints its smallest case, and
/// `PROPTEST_RNG_SEED=… PROPTEST_CASES=…` with its test runs it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Random clusters, 16 connections each, on which decide is compared with the oracle
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    cases: u64,

    /// Random sequences of changes, in which every single write is judged
    #[arg(long, default_value_t = 20_000, value_name = "N")]
    sequences: u64,

    /// The first part's seed; each further part has the next number
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// Instead, for so many hours, worlds in which every arrival at a pod must be explained (root)
    #[arg(long, value_name = "HOURS")]
    arrival: Option<f64>,

    /// How many parts run at a time [default: one for each processor]
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// A property and the test that runs it.
struct Property {
    name: &'static str,
    file: &'static str,
    test: &'static str,
    /// Cases of one part: some minutes.
    part: u64,
}

const ORACLE: Property = Property {
    name: "decide against the oracle",
    file: "oracle_decide",
    test: "the_agent_says_what_the_oracle_says",
    part: 50_000,
};
const SEQUENCES: Property = Property {
    name: "sequences of changes",
    file: "sequences",
    test: "a_sequence_of_changes_is_hitless_and_ends_where_a_new_start_would",
    part: 5_000,
};

pub fn run(args: &Args) -> Result<()> {
    let seed = args.seed.unwrap_or_else(|| RandomState::new().hash_one(0) >> 32);
    if let Some(hours) = args.arrival {
        return arrival::run(hours, seed);
    }
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores).max(1);
    let built = step("building the properties, optimised", build)?;
    let start = Instant::now();
    let oracle = all_parts(&ORACLE, &built, args.cases, seed, jobs)?;
    let sequences = all_parts(&SEQUENCES, &built, args.sequences, seed, jobs)?;
    println!(
        "\nsoak: {} clusters in {:.0} s, {} sequences in {:.0} s, seeds from {seed}; {:.0} s in all",
        args.cases,
        oracle.as_secs_f32(),
        args.sequences,
        sequences.as_secs_f32(),
        start.elapsed().as_secs_f32()
    );
    Ok(())
}

/// Runs all parts, so many at a time.
fn all_parts(
    property: &Property,
    built: &Built,
    cases: u64,
    seed: u64,
    jobs: usize,
) -> Result<Duration> {
    let executable =
        built.get(property.file).context("cargo named no executable for a property")?;
    let start = Instant::now();
    let mut parts: Vec<(u64, u64)> = parts(cases, property.part).zip(seed..).collect();
    parts.reverse();
    let parts = Mutex::new(parts);
    let next = || parts.lock().map_or(None, |mut parts| parts.pop());
    let results: Vec<Result<()>> = thread::scope(|scope| {
        let work = || {
            while let Some((cases, seed)) = next() {
                one_part(property, executable, cases, seed)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, Result<()>>| {
            worker.join().unwrap_or_else(|_| bail!("a worker panicked"))
        };
        workers.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Result<Vec<()>>>()?;
    Ok(start.elapsed())
}

/// Whole parts, and what is left over.
fn parts(cases: u64, part: u64) -> impl Iterator<Item = u64> {
    let rest = cases % part;
    (0..cases / part).map(move |_| part).chain((rest > 0).then_some(rest))
}

fn one_part(property: &Property, executable: &Path, cases: u64, seed: u64) -> Result<()> {
    let start = Instant::now();
    let mut command = Command::new(executable);
    command
        .args(["--exact", "--nocapture", property.test])
        .env("PROPTEST_CASES", cases.to_string())
        .env("PROPTEST_RNG_SEED", seed.to_string())
        .current_dir(workspace::root())
        .stdin(Stdio::null());
    let output = command.output().with_context(|| shell::line(&command))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A name that no test has would pass.
    if !output.status.success() || !text.contains("test result: ok. 1 passed") {
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        bail!("{} failed with seed {seed}", property.name);
    }
    let seconds = start.elapsed().as_secs_f32();
    println!("    {}: seed {seed}: {cases} cases in {seconds:.0} s, all hold", property.name);
    shell::flush();
    Ok(())
}

/// The executables of test files, by name.
type Built = BTreeMap<String, PathBuf>;

/// The parts run the executables themselves: the sources may be edited while they run.
fn build() -> Result<Built> {
    let mut command = shell::cargo();
    command
        .args(["test", "--release", "--package", "np-tests", "--no-run"])
        .args(["--test", ORACLE.file, "--test", SEQUENCES.file])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(workspace::root())
        .stderr(Stdio::inherit());
    let messages = shell::capture(&mut command)?;
    Ok(messages.lines().filter_map(executable).collect())
}

/// The name and executable of a message that tells of one.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?;
    let executable = message["executable"].as_str()?;
    Some((name.to_owned(), PathBuf::from(executable)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_parts_are_all_the_cases() {
        assert_eq!(super::parts(100, 40).collect::<Vec<_>>(), [40, 40, 20]);
        assert_eq!(super::parts(80, 40).collect::<Vec<_>>(), [40, 40]);
        assert_eq!(super::parts(0, 40).count(), 0);
    }
}
