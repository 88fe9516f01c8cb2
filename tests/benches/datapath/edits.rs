//! How soon an edited policy is in force for a connection that talks.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use np_tests::address::Family;
use np_tests::agent::{Agents, POLICIES};
use np_tests::proxy::Mode;
use np_tests::topology::Cluster;

use crate::enforcers::{manifest, spec};
use crate::load::{self, EXCHANGE};
use crate::{Figure, median, quantile};

const EDITS: usize = 50;
/// Longer than any answer takes: then there is none.
const SILENCE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

pub fn measure() -> Result<()> {
    let cluster = Cluster::build(spec(), Mode::Iptables)?;
    load::serve(cluster.namespace("server")?)?;
    let server = SocketAddr::new(cluster.address("server", Family::V4)?, EXCHANGE);
    let client = cluster.spec.address("client").context("the client has an address")?;
    let [allows, denies] = [client, [11, 0, 0, 0].into()].map(|peer| manifest(&[peer]));
    let mut agents = Agents::start(&cluster)?;
    agents.apply(POLICIES, Some(&allows))?;
    let inside = cluster.namespace("client")?;
    let (answers, done) = (Mutex::new(Answers::default()), AtomicBool::new(false));
    let heard = || *answers.lock().expect("nobody panics with it");
    let (mut denied, mut allowed) = (Vec::new(), Vec::new());
    thread::scope(|scope| -> Result<()> {
        let talking = scope.spawn(|| inside.run(|| talk(server, &answers, &done)));
        let edited = (0..EDITS).try_for_each(|_| {
            let edit = edited_at(&mut agents, &denies)?;
            let last = until(|| heard().last.filter(|last| last.elapsed() > SILENCE))?;
            denied.push(last.saturating_duration_since(edit).as_secs_f64() * 1e3);
            let edit = edited_at(&mut agents, &allows)?;
            let first = until(|| heard().first.filter(|first| *first > edit))?;
            allowed.push(first.duration_since(edit).as_secs_f64() * 1e3);
            Ok(())
        });
        done.store(true, Ordering::Relaxed);
        talking.join().expect("it does not panic")?;
        edited
    })?;
    println!("\nfrom an edit to its effect on a connection that talks, in milliseconds");
    for (name, took) in [("denied", &mut denied), ("allowed again", &mut allowed)] {
        let (p50, p99) = (median(took), quantile(took, 0.99));
        println!("  {name}: p50 {p50:.1}, p99 {p99:.1}");
        for (share, value) in [("p50", p50), ("p99", p99)] {
            let (measure, variant) = ("edit in force".to_owned(), format!("{name}, {share}"));
            Figure { measure, variant, rules: EDITS, value, unit: "ms" }.tell();
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Default)]
struct Answers {
    /// After a silence.
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Asks again as soon as there is an answer, or none for a millisecond.
fn talk(to: SocketAddr, answers: &Mutex<Answers>, done: &AtomicBool) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_millis(1)))?;
    while !done.load(Ordering::Relaxed) {
        socket.send(&[1; 64])?;
        if socket.recv(&mut [0; 64]).is_err() {
            continue;
        }
        let now = Instant::now();
        let mut answers = answers.lock().expect("nobody panics with it");
        if answers.last.is_none_or(|last| now.duration_since(last) > SILENCE) {
            answers.first = Some(now);
        }
        answers.last = Some(now);
    }
    Ok(())
}

/// Writes the file; when that was.
fn edited_at(agents: &mut Agents, content: &str) -> Result<Instant> {
    let took = agents.apply(POLICIES, Some(content))?;
    Ok(Instant::now() - took)
}

fn until<T>(mut happened: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = happened() {
            return Ok(value);
        }
        ensure!(Instant::now() < end, "the edit has no effect");
        thread::sleep(Duration::from_millis(1));
    }
}
