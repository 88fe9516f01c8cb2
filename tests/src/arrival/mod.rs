//! The arrival oracle: a world that lives, an adversary that sends what it can, and a judge who wants
//! every arrival at a pod explained.
//!
//! ```text
//!  story ── edits, births, deaths, restarts, strangers ──▶ world ◀── frames ── adversary
//!                                                           │ taps                 │ marks
//!                                                           ▼                      ▼
//!                        judge ◀── arrivals, 1.5 s later ── chronicle: all that was sent and wished
//! ```
//!
//! Whatever is sent bears a mark. So an arrival is explained by who really sent it and when, by the
//! specification's own reading of the policies of that moment ([`crate::oracle`]), and by what the
//! receiver itself had asked for. The agent's code has no part in it.

mod adversary;
mod chronicle;
mod explain;
mod gates;
mod host;
mod judge;
mod mark;
mod plan;
mod seen;
mod stage;
mod story;
mod tap;
mod version;
mod wishes;
mod world;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::generate::dice::Dice;
use crate::proxy::Mode;
use explain::Why;
use judge::{Count, Judge};
use plan::Make;
use story::Story;
use tap::SECOND;
use world::{Figures, World};

/// Between two events.
const PAUSE: Duration = Duration::from_millis(150);

#[derive(Clone, Debug)]
pub struct Run {
    pub seed: u64,
    pub length: Duration,
    /// Continues after an unexplained arrival and prints what kinds there are.
    pub survey: bool,
    /// Only these plots of the adversary; all, if there are none.
    pub only: Vec<String>,
}

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    run: Run,
    make: Make,
    sent: u64,
    took: Duration,
    count: Count,
    figures: Figures,
}

/// Runs a world.
///
/// # Errors
/// What went wrong with the world itself. Unexplained arrivals are in the report.
pub fn run(run: Run) -> Result<Report> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&run.seed.to_le_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut dice = Dice::new(&mut rng);
    let proxies = [(); 2].map(|()| *dice.pick(&[Mode::Iptables, Mode::Nftables]));
    let make = Make { bridged: dice.below(2), proxies };
    let mut world = World::build(make)?;
    let stage = std::sync::Arc::clone(&world.stage);
    world.police(&mut dice)?;
    let judge = Judge::new(!run.survey);
    let (stop, end_of_judge) = (AtomicBool::new(false), AtomicBool::new(false));
    let start = Instant::now();
    let (lived, sent) = thread::scope(|scope| {
        let adversary = scope.spawn(|| adversary::play(&stage, run.seed, &run.only, &stop));
        let sitting = scope.spawn(|| judge.sit(&stage, &end_of_judge));
        let mut story = Story::new();
        let live = || -> Result<()> {
            while start.elapsed() < run.length && !judge.has_seen_enough() {
                story.go_on(&mut world, &mut dice)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        };
        let lived = { live }();
        stop.store(true, Ordering::Relaxed);
        let sent = adversary.join();
        thread::sleep(Duration::from_millis(300));
        end_of_judge.store(true, Ordering::Relaxed);
        let sat = sitting.join();
        let sent = sent.and_then(|sent| sat.map(|()| sent));
        (lived, sent.map_err(|_| anyhow!("a thread of the run panicked")))
    });
    lived?;
    let (count, figures) = (judge.count(), world.figures);
    Ok(Report { run, make, sent: sent?, took: start.elapsed(), count, figures })
}

impl Report {
    /// Whether every arrival was explained, and enough arrived for that to mean something.
    pub fn verdict(&self) -> Result<()> {
        if let Some((plot, (_, _, text))) = self.count.unexplained.first_key_value() {
            bail!("{self}\n\"{plot}\":\n{text}\nNP_TEST_SEED={} has it again", self.run.seed);
        }
        for why in [Why::Allowed, Why::Reply, Why::Own, Why::OwnNode] {
            let seen = self.count.explained.get(&why).copied().unwrap_or(0);
            if seen < 20 {
                bail!("{self}\nonly {seen} arrivals are explained as {why}: the run shows little");
            }
        }
        if self.figures.lost > 0 {
            bail!("{self}\nthe taps lost {} frames", self.figures.lost);
        }
        Ok(())
    }

    /// The first unexplained arrival of each kind.
    pub fn findings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.count.unexplained.iter().map(|(plot, (_, _, text))| (plot.as_str(), text.as_str()))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, make, sent, took, count, figures } = self;
        let Figures { edits, born, died, restarts, neighbours, lost, window } = figures;
        writeln!(
            f,
            "arrival: seed {}: {:.0} s, bridged node-{}, proxies {} and {}",
            run.seed,
            took.as_secs_f32(),
            make.bridged + 1,
            make.proxies[0],
            make.proxies[1]
        )?;
        writeln!(
            f,
            "arrival: {sent} packets sent; {edits} edits, {born} pods born, {died} gone, {restarts} \
             restarts, {neighbours} strangers; {lost} frames lost; longest time to attach {} ms",
            window / tap::MILLISECOND
        )?;
        write!(f, "arrival: {} arrivals:", count.arrivals)?;
        for (why, number) in &count.explained {
            write!(f, " {why} {number},")?;
        }
        let unexplained: u64 = count.unexplained.values().map(|(number, ..)| number).sum();
        write!(f, " unexplained {unexplained}")?;
        for (plot, (number, first, _)) in &count.unexplained {
            let second = *first as f64 / SECOND as f64;
            write!(f, "\narrival:   {number} of \"{plot}\", the first after {second:.1} s")?;
        }
        Ok(())
    }
}
