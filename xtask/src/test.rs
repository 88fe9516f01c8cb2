//! Runs the tests in tiers and sums them up. A tier is known by the name of the test file: `prog_*`
//! and `verifier` load programs into the kernel, `netns_*` send real traffic, `vm_*` need what only
//! other kernels have, `cluster_*` a real cluster or Helm, all else needs no root.

mod again;

use std::fmt;
use std::io::{BufRead as _, BufReader, IsTerminal as _, PipeReader, pipe, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build_ebpf;
use crate::cluster::tier;
use crate::conformance::Run;
use crate::matrix::Cell;
use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::soak;
use crate::workspace::{self, Workspace};

/// Set up, build, and run all tests; prog and netns need root and fail without it
///
/// Every tier uses plain `cargo test`, so what it prints is cargo's own; at the end a table gives the
/// numbers per tier, and a tier that ran no test is a failure. In the tier netns, where time matters,
/// up to three failed tests run a second time, alone. One that passes then is unsteady: it is named at
/// the end and does not fail the run.
#[derive(Debug, Default, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    longer: Option<Longer>,

    /// Run only tests whose name contains this
    filter: Option<String>,

    /// Run only this tier (may be repeated)
    #[arg(long = "tier", value_enum)]
    tiers: Vec<Tier>,
}

/// What takes longer than a test run may.
#[derive(Debug, clap::Subcommand)]
enum Longer {
    Soak(soak::Args),
}

/// From the least powerful to the most; a test belongs in the first that can show its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// Pure logic, properties against the oracle; no root
    Unit,
    /// The programs in the kernel, run on packets by BPF_PROG_TEST_RUN
    Prog,
    /// Real agents and real traffic between network namespaces
    Netns,
    /// What needs a kernel with modules this machine may lack; run by `cargo xtask vm`
    Vm,
    /// The DaemonSet in a real Kubernetes, with Kubernetes' own tests of policies; root, some minutes
    Cluster,
}

impl Tier {
    const HERE: [Tier; 3] = [Tier::Unit, Tier::Prog, Tier::Netns];

    pub fn of(target: &str) -> Self {
        if target.starts_with("netns_") {
            Tier::Netns
        } else if target.starts_with("vm_") {
            Tier::Vm
        } else if target.starts_with("cluster_") {
            Tier::Cluster
        } else if target.starts_with("prog_") || target == "verifier" {
            Tier::Prog
        } else {
            Tier::Unit
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Tier::Unit => "unit",
            Tier::Prog => "prog",
            Tier::Netns => "netns",
            Tier::Vm => "vm",
            Tier::Cluster => "cluster",
        })
    }
}

pub fn run(Args { longer, filter, tiers }: &Args) -> Result<()> {
    if let Some(Longer::Soak(args)) = longer {
        return soak::run(args);
    }
    if tiers.contains(&Tier::Vm) {
        bail!("the tests of the tier vm run in virtual machines: `cargo xtask vm --tier vm`");
    }
    if tiers.contains(&Tier::Cluster) {
        if tiers.len() > 1 {
            bail!("the tier cluster runs alone: `cargo xtask test --tier cluster`");
        }
        return tier::run(filter.as_deref());
    }
    let tiers: Vec<Tier> =
        Tier::HERE.into_iter().filter(|tier| tiers.is_empty() || tiers.contains(tier)).collect();
    run_tiers(&tiers, filter.as_deref())?.verdict()
}

/// Builds and runs tiers, and sums them up.
///
/// # Errors
/// If tests cannot be built or started. What fails of them, and a tier without any, is a problem told.
pub fn run_tiers(tiers: &[Tier], filter: Option<&str>) -> Result<Told> {
    if tiers.iter().any(|tier| *tier != Tier::Unit) {
        if !shell::is_root() {
            bail!(
                "the tiers prog and netns need root; run `sudo -E env \"PATH=$PATH\" cargo xtask \
                 test`, or only `cargo xtask test --tier unit`"
            );
        }
        let toolchain = setup::ensure(Needs::Run)?;
        build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    }
    let workspace = Workspace::read(false)?;
    build()?;
    let agent = workspace.target_dir.join("debug/np-agent");
    let mut rows = Vec::new();
    let mut all = Told::default();
    for tier in tiers {
        println!("==> tier {tier}");
        let start = Instant::now();
        let mut told = Told::default();
        for command in commands(*tier, &workspace) {
            told.add(
                stream(command, &agent, filter).with_context(|| format!("running tier {tier}"))?,
            );
        }
        again::run(&mut told, &agent)?;
        rows.push(Row { tier: *tier, tally: told.tally, took: start.elapsed() });
        all.add(told);
    }
    let report = report(&rows, filter);
    print!("\n{}", report.text);
    shell::flush();
    for Failure { target, name } in &all.unsteady {
        println!("unsteady: {target} {name} failed, and passed when it ran alone");
    }
    all.problems = report.problems;
    Ok(all)
}

/// Builds all tests and the agent. The same packages in every cargo command, hence the same features:
/// nothing is built twice.
pub fn build() -> Result<()> {
    step("building the tests and the agent", || {
        shell::run(cargo("build").args(["--lib", "--bins", "--tests"]))
    })
}

/// The cargo commands of a tier: np-tests' files by name, and for `unit` also what is in the crates.
fn commands(tier: Tier, workspace: &Workspace) -> Vec<Command> {
    let mut selected = cargo_test();
    let mut any = tier == Tier::Unit;
    if tier == Tier::Unit {
        selected.args(["--lib", "--bins"]);
    }
    for target in workspace.test_targets().into_iter().filter(|target| Tier::of(target) == tier) {
        selected.args(["--test", target]);
        any = true;
    }
    let mut commands = Vec::new();
    if any {
        commands.push(selected);
    }
    if tier == Tier::Unit {
        // cargo runs examples in documentation only by themselves.
        let mut examples = cargo_test();
        examples.arg("--doc");
        commands.push(examples);
    }
    commands
}

fn cargo_test() -> Command {
    let mut command = cargo("test");
    command.arg("--no-fail-fast");
    command
}

pub fn cargo(verb: &str) -> Command {
    let mut command = shell::cargo();
    command.args([verb, "--workspace", "--exclude", "np-ebpf"]).current_dir(workspace::root());
    command
}

/// One `cargo test` of one test.
fn alone(Failure { target, name }: &Failure) -> Command {
    let mut command = cargo_test();
    command.args(["--test", target, name]);
    command
}

/// Runs one `cargo test`, passing on what it prints while counting it.
fn stream(mut command: Command, agent: &Path, filter: Option<&str>) -> Result<Told> {
    // What a test prints is its figures: how many cases it ran, what a program costs.
    command.args(filter).args(["--", "--show-output"]).env("NP_AGENT", agent);
    listen(command)
}

/// Runs the wanted files of the tier cluster, one test after another: some disturb the whole cluster.
pub fn run_in_cluster(
    cluster: &Path,
    wanted: impl Fn(&str) -> bool,
    filter: Option<&str>,
) -> Result<Told> {
    let mut command = cargo_test();
    let workspace = Workspace::read(false)?;
    for target in workspace.test_targets() {
        if Tier::of(target) == Tier::Cluster && wanted(target) {
            command.args(["--test", target]);
        }
    }
    command.args(filter).args(["--", "--show-output", "--test-threads=1"]);
    command.env("NP_CLUSTER", cluster);
    listen(command)
}

/// Passes on what a test run prints, and hears it.
fn listen(mut command: Command) -> Result<Told> {
    println!("    $ {}", shell::line(&command));
    shell::flush();
    if stdout().is_terminal() {
        command.args(["--color", "always"]).env("CARGO_TERM_COLOR", "always");
    }
    // One pipe for both, so that what cargo says and what the tests say keeps its order.
    let (reader, writer) = pipe().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("copying a pipe")?)
        .stderr(writer)
        .spawn()
        .context("cannot start cargo")?;
    // It holds the pipe's other end.
    drop(command);
    let (sender, results) = channel();
    thread::spawn(move || pass_on(reader, &sender));
    let status = child.wait().context("waiting for cargo test")?;
    let mut told = Told::default();
    loop {
        match results.recv_timeout(OUTLIVED) {
            Ok(line) => told.hear(&line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!("a process that a test started outlived it and holds its output");
                told.tally.broken = true;
                break;
            }
        }
    }
    // Also when no summary line tells: a test that did not compile, or a crash of the whole binary.
    told.tally.broken |= !status.success() && told.tally.failed == 0;
    Ok(told)
}

/// How long the output may stay open after cargo has ended.
const OUTLIVED: Duration = Duration::from_secs(5);

fn pass_on(reader: PipeReader, lines: &Sender<String>) {
    for line in BufReader::new(reader).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{line}");
        if lines.send(line).is_err() {
            return;
        }
    }
}

/// What tests said of themselves.
#[derive(Debug, Default)]
pub struct Told {
    pub tally: Tally,
    pub cells: Vec<Cell>,
    pub conformance: Vec<Run>,
    /// Why the run is a failure; nothing for a success.
    pub problems: Vec<String>,
    /// The file whose tests are running.
    pub target: String,
    pub failures: Vec<Failure>,
    /// What failed among the others and passed alone.
    pub unsteady: Vec<Failure>,
}

/// A test that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    target: String,
    name: String,
}

impl Told {
    pub fn hear(&mut self, line: &str) {
        self.tally.add(Tally::parse(line).unwrap_or_default());
        self.cells.extend(Cell::parse(line));
        if let Some(target) = again::target(line) {
            self.target = target;
        }
        if let Some(name) = again::failed(line) {
            self.failures.push(Failure { target: self.target.clone(), name });
        }
    }

    pub fn add(&mut self, told: Told) {
        let Told { tally, cells, conformance, problems, target: _, failures, unsteady } = told;
        self.tally.add(tally);
        self.cells.extend(cells);
        self.conformance.extend(conformance);
        self.problems.extend(problems);
        self.failures.extend(failures);
        self.unsteady.extend(unsteady);
    }

    pub fn verdict(&self) -> Result<()> {
        if self.problems.is_empty() { Ok(()) } else { bail!("{}", self.problems.join("; ")) }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    ignored: u64,
    /// cargo failed without counting a failed test.
    broken: bool,
}

impl Tally {
    fn add(&mut self, Tally { passed, failed, ignored, broken }: Tally) {
        self.passed += passed;
        self.failed += failed;
        self.ignored += ignored;
        self.broken |= broken;
    }

    /// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; …`, coloured or not.
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let mut tally = Self::default();
        for part in counts.split(';') {
            match part.trim().split_once(' ') {
                Some((count, "passed")) => tally.passed = count.parse().ok()?,
                Some((count, "failed")) => tally.failed = count.parse().ok()?,
                Some((count, "ignored")) => tally.ignored = count.parse().ok()?,
                Some(_) | None => {}
            }
        }
        Some(tally)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub tier: Tier,
    pub tally: Tally,
    pub took: Duration,
}

#[derive(Debug)]
pub struct Report {
    pub text: String,
    pub problems: Vec<String>,
}

pub fn report(rows: &[Row], filter: Option<&str>) -> Report {
    let mut text = String::from("tier     tests run   failed  ignored   seconds\n");
    let mut problems = Vec::new();
    let mut total = Tally::default();
    for Row { tier, tally, took } in rows {
        let run = tally.passed + tally.failed;
        text += &format!(
            "{tier:<7} {run:>10} {:>8} {:>8} {:>9.1}\n",
            tally.failed,
            tally.ignored,
            took.as_secs_f32()
        );
        if tally.broken {
            problems.push(format!("tier {tier}: a test binary did not build or did not finish"));
        }
        if tally.failed > 0 {
            problems.push(format!("tier {tier}: {} failed", tally.failed));
        }
        if run == 0 && filter.is_none() {
            problems.push(format!("tier {tier} ran no test"));
        }
        total.add(*tally);
    }
    if let Some(filter) = filter
        && total.passed + total.failed == 0
    {
        problems.push(format!("no test has `{filter}` in its name"));
    }
    text += &format!("{} passed, {} failed\n", total.passed, total.failed);
    Report { text, problems }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(tier: Tier, passed: u64, failed: u64) -> Row {
        let tally = Tally { passed, failed, ..Tally::default() };
        Row { tier, tally, took: Duration::from_millis(1500) }
    }

    #[test]
    fn cargo_s_summary_line_is_read_coloured_or_not() {
        let want = Tally { passed: 3, failed: 1, ignored: 2, broken: false };
        let plain =
            "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out";
        assert_eq!(Tally::parse(plain), Some(want));
        let colour = "test result: \x1b[31mFAILED\x1b[m. 3 passed; 1 failed; 2 ignored; 0 measured";
        assert_eq!(Tally::parse(colour), Some(want));
        assert_eq!(Tally::parse("test unit::result ... ok"), None);
    }

    #[test]
    fn the_closing_line_sums_all_tiers() {
        let report = report(&[row(Tier::Unit, 10, 0), row(Tier::Netns, 4, 0)], None);
        assert!(report.text.ends_with("\n14 passed, 0 failed\n"), "{}", report.text);
        assert_eq!(report.problems, Vec::<String>::new());
    }

    #[test]
    fn a_tier_without_tests_is_a_failure_unless_a_filter_left_it_empty() {
        let rows = [row(Tier::Unit, 10, 0), row(Tier::Prog, 0, 0)];
        assert_eq!(report(&rows, None).problems, ["tier prog ran no test"]);
        assert_eq!(report(&rows, Some("name")).problems, Vec::<String>::new());
        let nothing = report(&[row(Tier::Unit, 0, 0)], Some("name"));
        assert_eq!(nothing.problems, ["no test has `name` in its name"]);
    }

    #[test]
    fn a_failed_test_or_a_crashed_binary_fails_the_run() {
        assert_eq!(report(&[row(Tier::Unit, 9, 1)], None).problems, ["tier unit: 1 failed"]);
        let mut crashed = row(Tier::Unit, 9, 0);
        crashed.tally.broken = true;
        assert_eq!(report(&[crashed], None).problems.len(), 1);
    }

    #[test]
    fn the_file_name_tells_the_tier() {
        assert_eq!(Tier::of("netns_links"), Tier::Netns);
        assert_eq!(Tier::of("prog_verdict"), Tier::Prog);
        assert_eq!(Tier::of("verifier"), Tier::Prog);
        assert_eq!(Tier::of("vm_topologies"), Tier::Vm);
        assert_eq!(Tier::of("cluster_policies"), Tier::Cluster);
        assert_eq!(Tier::of("oracle_decide"), Tier::Unit);
    }
}
