//! The parser and the verdict under random input, by libFuzzer: what must hold is in
//! `np-common/fuzz`. Any rustc will do: the coverage that libFuzzer steers by is a pass of LLVM's.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::shell::{self, find_program, step};
use crate::workspace::{self, Workspace};

/// Run the parser and the verdict on random input, a million times each
///
/// What is found to reach new code is kept in target/fuzz/corpus, and the next run starts from it.
/// Needs a C++ compiler, which builds libFuzzer. An input that breaks a rule is written to a file;
/// `cargo xtask fuzz TARGET --input FILE` runs it again.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this one
    #[arg(value_enum)]
    target: Option<Target>,

    /// Executions of each target
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    executions: u64,

    #[arg(long, value_name = "NUMBER")]
    seed: Option<u32>,

    /// Run one input and nothing else
    #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["executions", "seed"])]
    input: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// Any bytes as a packet
    Parse,
    /// Any sequence of packets and changes of policy, over any tables
    Decide,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Target::Parse => "parse",
            Target::Decide => "decide",
        }
    }

    /// The longest input in bytes: all extension headers and a quote, all steps of a scenario.
    const fn longest(self) -> u32 {
        match self {
            Target::Parse => 256,
            Target::Decide => 1024,
        }
    }
}

/// What `cargo fuzz` builds with, without the sanitizers: there is no unsafe code to watch.
const FLAGS: [&str; 7] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

pub fn run(Args { target, executions, seed, input }: &Args) -> Result<()> {
    if find_program("c++").is_none() {
        bail!("no C++ compiler, which builds libFuzzer; on Debian: apt-get install g++");
    }
    let dir = Workspace::read(false)?.target_dir.join("fuzz");
    let programs = step("building the fuzz targets", || build(&dir))?;
    if let (Some(target), Some(input)) = (target, input) {
        return shell::run(Command::new(programs.join(target.name())).arg(input));
    }
    let random = || (RandomState::new().hash_one(0) >> 32) as u32;
    // libFuzzer takes 0 for none.
    let seed = seed.unwrap_or_else(random).max(1);
    let targets = target.map_or(vec![Target::Parse, Target::Decide], |target| vec![target]);
    for target in targets {
        one_target(target, &programs, &dir, *executions, seed)?;
    }
    Ok(())
}

/// Returns the directory of the programs.
fn build(dir: &Path) -> Result<PathBuf> {
    // With a target named, the flags are not for build scripts.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = shell::cargo();
    command
        .args(["build", "--release", "--locked", "--bins", "--target", &triple, "--target-dir"])
        .arg(dir)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
        .current_dir(workspace::root().join("np-common/fuzz"));
    shell::run(&mut command)?;
    Ok(dir.join(triple).join("release"))
}

fn one_target(
    target: Target,
    programs: &Path,
    dir: &Path,
    executions: u64,
    seed: u32,
) -> Result<()> {
    let name = target.name();
    let corpus = dir.join("corpus").join(name);
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let mut command = Command::new(programs.join(name));
    command
        .arg(format!("-runs={executions}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-max_len={}", target.longest()))
        .arg(format!("-artifact_prefix={}/{name}-", dir.display()))
        .arg("-timeout=10")
        .arg(&corpus);
    let sources = workspace::root().join("np-common/fuzz");
    let regressions = sources.join("regressions").join(name);
    if regressions.is_dir() {
        command.arg(regressions);
    }
    let words = sources.join(name).with_extension("dict");
    if words.is_file() {
        command.arg(format!("-dict={}", words.display()));
    }
    println!("==> fuzzing {name}, seed {seed}");
    println!("    $ {}", shell::line(&command));
    shell::flush();
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let stderr = child.stderr.take().context("libFuzzer's output is a pipe")?;
    let heard = Heard::of(BufReader::new(stderr).split(b'\n').map_while(Result::ok));
    let status = child.wait().with_context(|| format!("waiting for {name}"))?;
    let seconds = start.elapsed().as_secs_f64();
    if !status.success() {
        println!("{}", heard.other.join("\n"));
        match heard.input() {
            Some(file) => bail!(
                "{name} broke a rule with seed {seed}; the input is {file}\n\
                 again: cargo xtask fuzz {name} --input {file}"
            ),
            None => bail!("{name} failed with seed {seed} ({status})"),
        }
    }
    let Progress { executions, edges, features } =
        heard.last.context("libFuzzer said nothing of its progress")?;
    let rate = executions as f64 / seconds;
    println!(
        "fuzz: {name}: seed {seed}: {executions} executions in {seconds:.0} s ({rate:.0}/s), \
         {edges} edges and {features} features covered"
    );
    shell::flush();
    Ok(())
}

/// What libFuzzer printed.
#[derive(Debug, Default)]
struct Heard {
    last: Option<Progress>,
    /// Everything else: what it says of a failure.
    other: Vec<String>,
}

impl Heard {
    fn of(lines: impl Iterator<Item = Vec<u8>>) -> Self {
        let mut heard = Self::default();
        for line in lines {
            let line = String::from_utf8_lossy(&line).into_owned();
            match Progress::parse(&line) {
                Some(progress) => {
                    if line.contains("pulse") {
                        println!("    {line}");
                        shell::flush();
                    }
                    heard.last = Some(progress);
                }
                None if line.starts_with('#') => {}
                None => heard.other.push(line),
            }
        }
        heard
    }

    /// The file of the input that failed.
    fn input(&self) -> Option<&str> {
        self.other.iter().find_map(|line| Some(line.split_once("Test unit written to ")?.1))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    executions: u64,
    edges: u64,
    features: u64,
}

impl Progress {
    /// Reads `#1048576 pulse  cov: 262 ft: 657 corp: 334/38Kb …`.
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix('#')?.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1)?.parse().ok()
        };
        let executions = words.first()?.parse().ok()?;
        Some(Self { executions, edges: after("cov:")?, features: after("ft:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzer_s_progress_is_read() {
        let line = "#3000000\tDONE   cov: 300 ft: 765 corp: 386/45Kb lim: 256 exec/s: 250000";
        let want = Progress { executions: 3_000_000, edges: 300, features: 765 };
        assert_eq!(Progress::parse(line), Some(want));
        assert_eq!(Progress::parse("#2\tINITED"), None);
        assert_eq!(Progress::parse("INFO: seed corpus: files: 1"), None);
    }

    #[test]
    fn the_input_of_a_failure_is_found() {
        let lines = ["SUMMARY: deadly signal", "artifact_prefix='/t/'; Test unit written to /t/c"];
        let heard = Heard::of(lines.iter().map(|line| line.as_bytes().to_vec()));
        assert_eq!(heard.input(), Some("/t/c"));
    }
}
