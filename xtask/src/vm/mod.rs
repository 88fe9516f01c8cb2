//! The tests that load programs and send traffic, on kernels other than this machine's: each in a
//! virtual machine that lives for one run, with nothing in it but an init, the tests and their tools.

mod image;
mod kernel;
mod machine;

use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::build_ebpf;
use crate::setup::{self, Needs};
use crate::shell::{self, step};
use crate::test::{self, Tier, Told};
use crate::workspace::Workspace;
use kernel::Installed;
pub use kernel::Kernel;
use machine::Outcome;

/// Run the tests of the tiers prog, netns and vm on other kernels, in virtual machines
///
/// Kernels are Debian's cloud kernels, fetched once and checked against the archive's SHA-256.
/// Where KVM does not work QEMU emulates the machine, which takes some minutes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kernels to boot [default: all]
    #[arg(value_enum)]
    kernels: Vec<Kernel>,

    #[command(flatten)]
    order: Order,
}

/// What the machines are to do.
#[derive(Debug, clap::Args)]
pub struct Order {
    /// Run only this tier (may be repeated) [default: prog, netns, vm]
    #[arg(long = "tier", value_enum)]
    tiers: Vec<Tier>,

    /// End a machine after so many minutes
    #[arg(long, value_name = "MINUTES", default_value_t = LIMIT)]
    limit: u64,

    /// Run only tests whose name contains one of these
    #[arg(last = true)]
    filters: Vec<String>,
}

const LIMIT: u64 = 90;

impl Order {
    /// All tiers, of which a filter may leave some tests.
    pub fn of(filter: Option<String>) -> Self {
        Self { tiers: Vec::new(), limit: LIMIT, filters: filter.into_iter().collect() }
    }
}

/// The tiers whose outcome rests on the kernel.
const TIERS: [Tier; 3] = [Tier::Prog, Tier::Netns, Tier::Vm];

/// A kernel with all that it boots into.
#[derive(Debug)]
struct Machine {
    kernel: Kernel,
    installed: Installed,
    initramfs: PathBuf,
}

impl Machine {
    fn run(&self, limit: Duration) -> Result<Row> {
        let Self { kernel, installed: Installed { release, image, .. }, initramfs } = self;
        let start = Instant::now();
        let outcome = machine::run(&kernel.to_string(), image, initramfs, limit)
            .with_context(|| format!("running the tests on {release}"))?;
        Ok(Row { release: release.clone(), outcome, took: start.elapsed() })
    }
}

#[derive(Debug)]
struct Row {
    release: String,
    outcome: Outcome,
    took: Duration,
}

pub fn run(Args { kernels, order }: &Args) -> Result<()> {
    let kernels = if kernels.is_empty() { &Kernel::ALL[..] } else { kernels };
    run_on(kernels, order)?.verdict()
}

/// Boots the kernels side by side and gives each the same tests.
///
/// # Errors
/// If a machine cannot be made. What fails in one, or that it does not come to its end, is a problem told.
pub fn run_on(kernels: &[Kernel], Order { tiers, limit, filters }: &Order) -> Result<Told> {
    let toolchain = setup::ensure(Needs::Machines)?;
    build_ebpf::build(&build_ebpf::Args::default(), &toolchain)?;
    let workspace = Workspace::read(false)?;
    test::build()?;
    let tests: Vec<PathBuf> = executables()?
        .into_iter()
        .filter(|(name, _)| {
            let tier = Tier::of(name);
            TIERS.contains(&tier) && (tiers.is_empty() || tiers.contains(&tier))
        })
        .map(|(_, path)| path)
        .collect();
    if tests.is_empty() {
        bail!("no test file is of these tiers");
    }
    let dir = workspace.target_dir.join("vm");
    let userland = step("packing the tests and their tools", || {
        image::userland(&dir, &workspace.target_dir.join("debug"), &tests)
    })?;
    let order = image::order(&dir, &tests, filters)?;
    let mut machines = Vec::new();
    for kernel in kernels {
        let installed = kernel::fetch(*kernel, &dir)?;
        let modules = image::modules(&dir, &installed)?;
        let initramfs = dir.join(format!("initramfs-{kernel}"));
        image::join(&initramfs, &[&userland, &modules, &order])?;
        machines.push(Machine { kernel: *kernel, installed, initramfs });
    }
    let limit = Duration::from_secs(limit * 60);
    // Each has one processor, so together they are done sooner.
    let rows = thread::scope(|scope| {
        let started: Vec<_> =
            machines.iter().map(|machine| scope.spawn(move || machine.run(limit))).collect();
        let ended = started.into_iter().map(|machine| machine.join().expect("no panic"));
        ended.collect::<Result<Vec<Row>>>()
    })?;
    let mut all = Told { problems: report(&rows), ..Told::default() };
    for row in rows {
        all.add(row.outcome.told);
    }
    Ok(all)
}

/// The test files of np-tests as built, by name.
fn executables() -> Result<Vec<(String, PathBuf)>> {
    let mut command = test::cargo("test");
    command.args(["--tests", "--no-run", "--message-format=json"]).stderr(Stdio::inherit());
    let text = shell::capture(&mut command)?;
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let found = messages.filter_map(|message| {
        let target = &message["target"];
        let executable = message["executable"].as_str()?;
        (target["kind"][0] == "test")
            .then(|| Some((target["name"].as_str()?.to_owned(), executable.into())))?
    });
    Ok(found.collect())
}

/// Prints a line for each machine, and tells what went wrong.
fn report(rows: &[Row]) -> Vec<String> {
    let mut problems = Vec::new();
    println!("\nkernel                              passed   failed   seconds");
    for Row { release, outcome, took } in rows {
        let Outcome { told: Told { tally, .. }, ended, .. } = outcome;
        println!(
            "{release:<34} {:>7} {:>8} {:>9.0}",
            tally.passed,
            tally.failed,
            took.as_secs_f32()
        );
        if tally.failed > 0 {
            problems.push(format!("{release}: {} failed", tally.failed));
        } else if !ended {
            problems.push(format!("{release}: the machine did not end its work"));
        } else if tally.passed == 0 {
            problems.push(format!("{release}: no test ran"));
        }
    }
    problems
}
