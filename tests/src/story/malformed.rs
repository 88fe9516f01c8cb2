//! The mistakes people really paste: what the agent says to them, and that nothing changes.
//!
//! A good policy is in force. Each malformed file is put next to it; the agents must name it, with
//! the line, the problem and the remedy, and enforce exactly what they did before.

use std::ops::RangeInclusive;

use anyhow::{Context, Result};

use super::matrix::{Matrix, Table};
use super::play::Stage;
use crate::address::Family;
use crate::agent::InvalidObject;

/// A malformed file and where its fault is.
#[derive(Clone, Copy, Debug)]
pub struct Mistake {
    pub title: &'static str,
    pub text: &'static str,
    /// Where the message must point to. Some faults may be put down to either of two lines.
    pub lines: Lines,
    /// A word the message must contain: it names what is wrong.
    pub names: &'static str,
}

/// First and last line, counted from one.
pub type Lines = (u32, u32);

#[derive(Debug)]
pub struct PlayedMistake {
    pub mistake: &'static Mistake,
    pub messages: Vec<InvalidObject>,
    /// True when the messages point to the fault, name it and tell the remedy.
    pub explained: bool,
    pub matrix: Matrix,
}

impl PlayedMistake {
    pub fn checks(&self) -> usize {
        1 + self.matrix.probed()
    }

    pub fn differing(&self) -> usize {
        usize::from(!self.explained) + self.matrix.differing()
    }
}

/// The policy in force all the time.
pub const GOOD: &str = include_str!("../../fixtures/stories/a7-ingress-from-namespace.yaml");

/// What [`GOOD`] means. `other` is who every malformed file would let in, were it guessed at.
const UNCHANGED: &str = "
            pod-b-1:8443  pod-b-3:8443
    pod-a   yes@pod-a     yes@pod-a
    other   no            no
";

const PASTED: &str = "pasted.yaml";

/// Plays every mistake, and last the edit that breaks the good file itself.
pub fn play(stage: &mut Stage, mut done: impl FnMut(&PlayedMistake)) -> Result<Vec<PlayedMistake>> {
    stage.policies(GOOD)?;
    let mut played = Vec::new();
    for mistake in MISTAKES {
        stage.agents.apply(PASTED, Some(mistake.text))?;
        played.push(look(stage, mistake, PASTED)?);
        stage.agents.apply(PASTED, None)?;
        played.last().map(&mut done);
    }
    stage.policies(BROKEN_EDIT.text)?;
    played.push(look(stage, &BROKEN_EDIT, crate::agent::POLICIES)?);
    played.last().map(&mut done);
    // The good file again, so that its removal removes a policy.
    stage.policies(GOOD)?;
    stage.policies("")?;
    Ok(played)
}

fn look(stage: &mut Stage, mistake: &'static Mistake, file: &str) -> Result<PlayedMistake> {
    let matrix = Table::parse(UNCHANGED)?.play(&stage.cluster, &Family::BOTH)?;
    // Every node's agent reads the file and says the same; the first one's words are shown.
    let agent = stage.agents.on("node-1")?;
    let status = agent.status().with_context(|| format!("after {:?}", mistake.title))?;
    let messages: Vec<_> = status.invalid.into_iter().filter(|m| m.file.ends_with(file)).collect();
    let (first, last) = mistake.lines;
    let explained = messages.iter().any(|message| explains(message, mistake, first..=last));
    Ok(PlayedMistake { mistake, messages, explained, matrix })
}

fn explains(message: &InvalidObject, mistake: &Mistake, lines: RangeInclusive<u32>) -> bool {
    let InvalidObject { line, column, object, field, value, problem, remedy, .. } = message;
    let object = object.as_deref().unwrap_or_default();
    let said = [object, field, value, problem, remedy].join(" ");
    lines.contains(line)
        && *column > 0
        && !problem.is_empty()
        && !remedy.is_empty()
        && said.contains(mistake.names)
}

macro_rules! mistake {
    ($title:literal, $file:literal, $lines:expr, $names:literal) => {
        Mistake {
            title: $title,
            text: include_str!(concat!("../../fixtures/malformed/", $file, ".yaml")),
            lines: $lines,
            names: $names,
        }
    };
}

pub const MISTAKES: &[Mistake] = &[
    mistake!("A misspelt kind", "kind", (2, 2), "NetworPolicy"),
    mistake!("Ingress with a capital, beside policyTypes", "capital-ingress", (10, 10), "Ingress"),
    mistake!("Egress with a capital", "capital-egress", (10, 10), "Egress"),
    mistake!("name twice, where the second was meant as namespace", "name-twice", (5, 5), "name"),
    mistake!("cidr at the indent of ipBlock", "cidr-indent", (12, 13), "cidr"),
    mistake!(
        "matchLabels at the indent of podSelector",
        "matchlabels-indent",
        (7, 8),
        "matchLabels"
    ),
    mistake!("port one column off", "port-indent", (15, 16), "port"),
    mistake!("ports beside the rule", "ports-beside", (14, 14), "ports"),
    mistake!("An API version of long ago", "old-version", (1, 1), "extensions/v1beta1"),
    mistake!("protocol in lower case", "protocol-case", (14, 14), "tcp"),
    mistake!("podSelector inside namespaceSelector", "nested-selector", (15, 15), "podSelector"),
    mistake!("Text after the document", "trailing-text", (14, 16), ""),
    mistake!("A selector given as a string", "selector-string", (7, 7), "app=db"),
    mistake!("except outside its cidr", "except-outside", (15, 15), "10.1.0.0/16"),
    mistake!("endPort below port", "endport-below", (14, 15), "endPort"),
    mistake!("A tab", "tab", (7, 8), ""),
];

/// A good policy, edited into a malformed one: its last good version stays in force.
pub const BROKEN_EDIT: Mistake =
    mistake!("A good file edited into a broken one", "broken-edit", (11, 11), "namespaceSelektor");
