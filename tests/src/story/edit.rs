//! A policy edited on disk while agents run: what new connections get, and what becomes of
//! established ones.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;

use super::play::Stage;
use crate::address::Family;
use crate::probe::conversation::Conversation;
use crate::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};

/// All pods of namespace-b are allowed.
pub const BEFORE: &str = include_str!("../../fixtures/stories/a3-egress-to-namespace.yaml");
/// Only those with a label are.
pub const AFTER: &str = include_str!("../../fixtures/stories/edit-egress-to-one-pod.yaml");

/// One thing that was to be seen, and what was seen.
#[derive(Clone, Debug)]
pub struct Fact {
    pub says: String,
    pub observed: String,
    pub agrees: bool,
}

impl Fact {
    pub fn new(says: impl Into<String>, observed: impl Display, agrees: bool) -> Self {
        Self { says: says.into(), observed: observed.to_string(), agrees }
    }
}

/// Edits the policy under two established connections per family: one stays allowed, one does not.
pub fn play(stage: &mut Stage) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    stage.policies(BEFORE)?;
    let mut pairs = Vec::new();
    for family in Family::BOTH {
        let talk = |to: &str| {
            let address = stage.cluster.address(to, family)?;
            Conversation::tcp(stage.cluster.namespace("pod-a")?, address, 8443)
        };
        let (kept, cut) = (talk("pod-b-1")?, talk("pod-b-3")?);
        for (to, conversation) in [("pod-b-1", &kept), ("pod-b-3", &cut)] {
            let on = conversation.goes_on(20, Duration::from_secs(2));
            facts.push(Fact::new(
                format!("{}: pod-a → {to} is allowed, and talks", family.name()),
                format!("{} lines answered", conversation.progress().answered),
                on,
            ));
        }
        pairs.push((family, kept, cut));
    }

    let took = stage.policies(AFTER)?;
    facts.push(Fact::new(
        "the edited file is in force on all nodes",
        format!("after {} ms", took.as_millis()),
        took < Duration::from_secs(1),
    ));
    for (family, kept, cut) in &pairs {
        let name = family.name();
        let stalled = cut.stalls(Duration::from_millis(500));
        facts.push(Fact::new(
            format!("{name}: the established connection to pod-b-3, allowed no longer, stalls"),
            if stalled { "no line answered for 500 ms" } else { "still answered" },
            stalled,
        ));
        let on = kept.goes_on(50, Duration::from_secs(2));
        let progress = kept.progress();
        facts.push(Fact::new(
            format!("{name}: the one to pod-b-1, still allowed, goes on without loss"),
            format!(
                "{} lines answered, longest wait {} ms",
                progress.answered,
                progress.longest_wait.as_millis()
            ),
            // A lost segment is sent again after 200 ms at the earliest.
            on && progress.ended.is_none() && progress.longest_wait < Duration::from_millis(200),
        ));
        for (to, allowed) in [("pod-b-1", true), ("pod-b-3", false)] {
            let patience = if allowed { PATIENCE } else { IMPATIENCE };
            let address = stage.cluster.address(to, *family)?;
            let from = stage.cluster.namespace("pod-a")?;
            let outcome = probe(from, address, Kind::Tcp(8443), patience);
            let as_expected = if allowed { outcome.replied() } else { outcome == Outcome::Timeout };
            facts.push(Fact::new(
                format!(
                    "{name}: a new connection to {to} {}",
                    if allowed { "works" } else { "does not work" }
                ),
                outcome,
                as_expected,
            ));
        }
    }

    stage.policies(BEFORE)?;
    for (family, _, cut) in &pairs {
        // What was sent into the stall is sent again, at growing intervals.
        let resumed = cut.goes_on(5, Duration::from_secs(6));
        facts.push(Fact::new(
            format!(
                "{}: allowed again, the stalled connection resumes: it was never reset",
                family.name()
            ),
            if resumed { "answered again" } else { "not answered" },
            resumed,
        ));
    }
    drop(pairs);
    stage.policies("")?;
    Ok(facts)
}
