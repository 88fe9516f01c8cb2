//! Explains every arrival once everything that could explain it is known, and keeps count.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::chronicle::Chronicle;
use super::explain::{Why, explain};
use super::host::{Host, Kind};
use super::mark::Mark;
use super::seen::{Form, Seen};
use super::stage::Stage;
use super::tap::{Frame, MILLISECOND, SECOND, Time, now};

/// An arrival is judged so much later.
const LATER: Time = 1500 * MILLISECOND;
/// What a finding shows of the past.
const EVENTS: usize = 30;
const SENDINGS: usize = 12;

#[derive(Debug, Default)]
pub struct Judge {
    count: Mutex<Count>,
    /// Whether the first unexplained arrival ends the run.
    pub strict: bool,
    pub start: Time,
}

/// What has come of the arrivals so far.
#[derive(Clone, Debug, Default)]
pub struct Count {
    pub arrivals: u64,
    pub explained: BTreeMap<Why, u64>,
    /// By plot: how many, and the first, with its second of the run.
    pub unexplained: BTreeMap<String, (u64, Time, String)>,
}

impl Judge {
    pub fn new(strict: bool) -> Self {
        Self { count: Mutex::default(), strict, start: now() }
    }

    /// Judges until it is stopped, then what is left.
    pub fn sit(&self, stage: &Stage, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            self.turn(stage, now().saturating_sub(LATER));
            thread::sleep(Duration::from_millis(30));
        }
        self.turn(stage, Time::MAX);
    }

    fn turn(&self, stage: &Stage, until: Time) {
        loop {
            let mut chronicle = stage.chronicle();
            if chronicle.arrivals.front().is_none_or(|frame| frame.time > until) {
                return;
            }
            let Some(frame) = chronicle.arrivals.pop_front() else { return };
            let explained = explain(&chronicle, &frame);
            let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
            count.arrivals += 1;
            match explained {
                Ok(why) => *count.explained.entry(why).or_default() += 1,
                Err(reason) => {
                    let mut plot = plot(&chronicle, &frame);
                    for (words, kind) in [
                        ("is not an address of", ", addressed to somebody else"),
                        ("has sent as", ", with somebody else's address"),
                    ] {
                        if reason.contains(words) {
                            plot += kind;
                        }
                    }
                    let start = self.start;
                    let entry = count.unexplained.entry(plot);
                    let (number, ..) = entry.or_insert_with(|| {
                        let text = finding(&chronicle, &frame, &reason, start);
                        (0, frame.time.saturating_sub(start), text)
                    });
                    *number += 1;
                }
            }
        }
    }

    pub fn count(&self) -> Count {
        self.count.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn has_seen_enough(&self) -> bool {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        self.strict && !count.unexplained.is_empty()
    }
}

/// What was played, and what was out of the ordinary when it arrived.
fn plot(chronicle: &Chronicle, frame: &Frame) -> String {
    let marks = Mark::find(&frame.bytes);
    let sent = marks.iter().find_map(|mark| chronicle.sent.get(mark));
    let mut plot = sent.map_or("no mark", |sent| sent.plot).to_owned();
    let receiver = chronicle.host(frame.host);
    let unbound = |host: &Host, time: Time| {
        host.kind == Kind::Pod && host.bound.is_none_or(|bound| time < bound)
    };
    if unbound(receiver, frame.time) {
        plot += ", to a pod not yet known";
    }
    if sent.is_some_and(|sent| unbound(chronicle.host(sent.author), sent.time)) {
        plot += ", from a pod not yet known";
    }
    if chronicle.strangers(frame.time) {
        plot += ", a stranger's program there";
    }
    plot
}

/// All that is known about an arrival that nothing explains.
fn finding(chronicle: &Chronicle, frame: &Frame, reason: &str, start: Time) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let put = |text: &mut String, line: fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a string takes every write");
    };
    let at = |time: Time| time.saturating_sub(start) as f64 / SECOND as f64;
    let receiver = chronicle.host(frame.host);
    put(&mut text, format_args!("unexplained: {reason}"));
    put(
        &mut text,
        format_args!(
            "{:9.3} it arrived at {} ({}, {}, node {})",
            at(frame.time),
            receiver.name,
            receiver.app(),
            receiver.v4,
            receiver.node
        ),
    );
    if let Some(seen) = Seen::read(&frame.bytes) {
        put(&mut text, format_args!("          {seen}"));
        let mut asked = chronicle.asked_by(frame.host);
        let reversed = seen.ip.map(|ip| ip.flow.reversed());
        let port = seen.ip.map(|ip| match ip.form {
            Form::Error(Some(quoted)) => quoted.sport,
            _ => ip.flow.dport,
        });
        asked.sort_by_key(|(_, flow)| Some(flow.sport) != port);
        match asked.iter().find(|(_, flow)| Some(*flow) == reversed) {
            Some((first, _)) => put(&mut text, format_args!("{:9.3} it asked that", at(*first))),
            None => put(&mut text, format_args!("          it has never asked that")),
        }
        put(
            &mut text,
            format_args!("what it has asked, {} times, the latest from this port:", asked.len()),
        );
        for (first, flow) in asked.iter().take(SENDINGS) {
            put(&mut text, format_args!("{:9.3} {flow}", at(*first)));
        }
    }
    let hex: String = frame.bytes.iter().take(160).map(|byte| format!("{byte:02x}")).collect();
    put(&mut text, format_args!("          {hex} ({} bytes)", frame.bytes.len()));
    let mut ends = vec![receiver.v4];
    for mark in Mark::find(&frame.bytes) {
        let Some(sent) = chronicle.sent.get(&mark) else { continue };
        let author = chronicle.host(sent.author);
        ends.push(author.v4);
        let flow = sent.flow.map(|flow| flow.to_string()).unwrap_or_default();
        put(
            &mut text,
            format_args!(
                "{:9.3} sent by {} ({}, {}, node {}) as \"{}\": {flow}, {:?}",
                at(sent.time),
                author.name,
                author.app(),
                author.v4,
                author.node,
                sent.plot,
                sent.form
            ),
        );
        for one in chronicle.carried.get(&mark).into_iter().flatten() {
            let by = &chronicle.host(one.host).name;
            put(
                &mut text,
                format_args!(
                    "{:9.3} handed on by {by}: {}, {:?}",
                    at(one.time),
                    one.flow,
                    one.form
                ),
            );
        }
    }
    put(&mut text, format_args!("policies that the receiver's node may have judged by:"));
    let node = if receiver.kind == Kind::Pod { receiver.node } else { 0 };
    let versions: Vec<_> =
        super::version::in_force(&chronicle.versions, node, frame.time, frame.time).collect();
    for version in versions {
        let listed = version.listed.contains(&frame.host);
        put(&mut text, format_args!("{:9.3} written; knows it: {listed}", at(version.written)));
        for policy in &version.policies {
            let spec = policy.spec.as_ref().and_then(|spec| serde_json::to_string(spec).ok());
            put(&mut text, format_args!("          {}", spec.unwrap_or_default()));
        }
    }
    put(&mut text, format_args!("the last sendings between the same addresses:"));
    let between = chronicle.sent.values().rev().filter(|sent| {
        sent.time <= frame.time
            && sent.flow.is_some_and(|flow| {
                let is_end = |address| ends.iter().any(|end| address == std::net::IpAddr::V4(*end));
                is_end(flow.src) || is_end(flow.dst)
            })
    });
    for sent in between.take(SENDINGS) {
        let author = chronicle.host(sent.author);
        let flow = sent.flow.map(|flow| flow.to_string()).unwrap_or_default();
        put(
            &mut text,
            format_args!("{:9.3} {} \"{}\": {flow}", at(sent.time), author.name, sent.plot),
        );
    }
    put(&mut text, format_args!("what has been sent to where it comes from, most recent first:"));
    let asked = chronicle.sent.values().rev().filter(|sent| {
        let to_author = sent.flow.is_some_and(|flow| {
            ends.get(1..).unwrap_or_default().iter().any(|end| {
                flow.dst == std::net::IpAddr::V4(*end)
                    || flow.dst == std::net::IpAddr::V6(crate::address::twin(*end))
            })
        });
        sent.time <= frame.time && to_author
    });
    for sent in asked.take(3 * SENDINGS) {
        let author = chronicle.host(sent.author);
        let flow = sent.flow.map(|flow| flow.to_string()).unwrap_or_default();
        put(
            &mut text,
            format_args!("{:9.3} {} \"{}\": {flow}", at(sent.time), author.name, sent.plot),
        );
    }
    put(&mut text, format_args!("what happened before:"));
    let before: Vec<_> = chronicle.story.iter().filter(|(time, _)| *time <= frame.time).collect();
    for (time, event) in &before[before.len().saturating_sub(EVENTS)..] {
        put(&mut text, format_args!("{:9.3} {event}", at(*time)));
    }
    text
}
