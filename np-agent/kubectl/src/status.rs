//! `kubectl np status`: one line for each node, and why agents are not ready.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny};
use serde_json::Value;

use crate::agents;
use crate::args::{Output, StatusArgs};
use crate::ask::{self, Answer};
use crate::error::{Error, Silence};
use crate::kubectl::Kubectl;
use crate::print::{self, table};

/// np-agent's status document, as far as it is shown here.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// "running", or "down" when it is read from pinned maps.
    pub agent: String,
    pub ready: bool,
    pub endpoints: Vec<Endpoint>,
    pub devices: Vec<Device>,
    pub counters: Vec<Counter>,
    /// What is not in force of the objects: refused manifests, and parts that are not understood.
    #[serde(default)]
    invalid: Vec<IgnoredAny>,
    #[serde(default)]
    narrowed: Vec<IgnoredAny>,
    /// What is followed of the API server; nothing by an agent that reads manifests.
    #[serde(default)]
    pub api: Vec<Feed>,
    pub diagnostics: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    pub ingress: Side,
    pub egress: Side,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Side {
    pub isolated: bool,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Device {
    pub role: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Counter {
    pub action: String,
    pub packets: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Feed {
    /// For how many seconds.
    pub away: Option<u64>,
}

/// What a node said, and what is read of it.
#[derive(Clone, Debug)]
pub struct Told {
    document: Value,
    pub status: Status,
}

/// How many reasons of one node are shown before the others are left to `--node`.
const REASONS: usize = 5;

/// Runs the command and returns its exit code.
///
/// # Errors
/// If kubectl does not list nodes and agents, or the answer cannot be written.
pub fn run(kubectl: &Kubectl, args: &StatusArgs) -> Result<u8, Error> {
    let words = words(args);
    if let Some(node) = &args.on.node {
        return ask::pass_on(kubectl, &agents::on(kubectl, node)?, &words);
    }
    let answers = ask::ask(kubectl, None, &words, |pod, said| {
        Told::read(ask::read_json(kubectl, pod, said)?)
            .map_err(|problem| Silence::Unreadable { pod: pod.to_owned(), problem })
    })?;
    match args.output {
        Output::Table => print::show(&render(&answers))?,
        Output::Json => {
            print::show(&ask::to_json(&answers, "status", |told| told.document.clone()))?;
        }
    }
    let silent = ask::complain_of_all(&answers);
    let ready = answers.iter().all(|answer| {
        answer.said.as_ref().is_ok_and(|told| told.status.standing() == Standing::Ready)
    });
    Ok(if ready { silent } else { 1 })
}

/// What np-agent is asked.
pub fn words(args: &StatusArgs) -> Vec<String> {
    // One node's answer is shown as it is; those of many are read.
    let json = args.output == Output::Json || args.on.node.is_none();
    let format = if json { "json" } else { "table" };
    ["status", "-o", format].map(str::to_owned).into_iter().chain(args.on.further.clone()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Ready,
    NotReady,
    Down,
}

impl Told {
    /// Reads np-agent's status document.
    ///
    /// # Errors
    /// If it is not one that is known here.
    pub fn read(document: Value) -> Result<Self, serde_json::Error> {
        let status = Status::deserialize(&document)?;
        match status.agent.as_str() {
            "running" | "down" => Ok(Self { status, document }),
            other => Err(serde_json::Error::custom(format!("agent: {other:?} is not known"))),
        }
    }
}

impl Status {
    pub fn standing(&self) -> Standing {
        match (self.agent.as_str(), self.ready) {
            ("running", true) => Standing::Ready,
            ("running", false) => Standing::NotReady,
            _ => Standing::Down,
        }
    }

    /// The cells of the table, without the node.
    pub fn cells(&self) -> [String; COLUMNS - 1] {
        let ready = match self.standing() {
            Standing::Ready => "yes",
            Standing::NotReady => "no",
            Standing::Down => "down",
        };
        let isolated = |side: fn(&Endpoint) -> &Side| {
            self.endpoints.iter().filter(|endpoint| side(endpoint).isolated).count()
        };
        let drops = self.counters.iter().filter(|counter| counter.action == "drop");
        let away = self.api.iter().filter_map(|feed| feed.away).max();
        [
            ready.to_owned(),
            self.endpoints.len().to_string(),
            isolated(|endpoint| &endpoint.ingress).to_string(),
            isolated(|endpoint| &endpoint.egress).to_string(),
            self.devices.iter().filter(|device| device.role == "pending").count().to_string(),
            (self.invalid.len() + self.narrowed.len()).to_string(),
            drops.map(|counter| counter.packets).sum::<u64>().to_string(),
            match (away, self.api.is_empty()) {
                (Some(seconds), _) => format!("away {seconds} s"),
                (None, false) => "ok".to_owned(),
                (None, true) => "-".to_owned(),
            },
        ]
    }
}

const COLUMNS: usize = 9;
pub const HEADER: [&str; COLUMNS] = [
    "NODE",
    "READY",
    "ENDPOINTS",
    "INGRESS ISOLATED",
    "EGRESS ISOLATED",
    "PENDING",
    "REFUSED",
    "DROPPED",
    "API SERVER",
];

/// The table of all nodes, also of those that are silent.
fn render(answers: &[Answer<Told>]) -> String {
    let mut reasons = String::new();
    let mut rows = Vec::new();
    for Answer { node, said, .. } in answers {
        let name = &node.name;
        let cells = match said {
            Ok(Told { status, .. }) => {
                reasons.push_str(&reasons_of(name, &status.diagnostics));
                status.cells()
            }
            Err(silence) => {
                let what = match silence {
                    Silence::NoAgent { .. } => "no agent",
                    _ => "no answer",
                };
                std::array::from_fn(|column| if column == 0 { what } else { "-" }.to_owned())
            }
        };
        let mut cells = cells.into_iter();
        rows.push(std::array::from_fn(|column| match column {
            0 => name.clone(),
            _ => cells.next().unwrap_or_default(),
        }));
    }
    let mut text = table(HEADER, &rows);
    if !reasons.is_empty() {
        // Writing to a String cannot fail.
        write!(text, "\nNot ready:\n{reasons}").ok();
    }
    text
}

fn reasons_of(node: &str, diagnostics: &[String]) -> String {
    let mut text = String::new();
    for diagnostic in diagnostics.iter().take(REASONS) {
        writeln!(text, "  {node}: {diagnostic}").ok();
    }
    let more = diagnostics.len().saturating_sub(REASONS);
    if more > 0 {
        writeln!(text, "  {node}: and {more} more: `kubectl np status --node {node}`").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reasons_of_a_node_are_shown_and_the_others_counted() {
        let diagnostics: Vec<String> = (1..=7).map(|number| format!("reason {number}")).collect();
        let text = reasons_of("n", &diagnostics);
        assert!(text.contains("  n: reason 5\n") && !text.contains("reason 6"), "{text}");
        assert!(text.ends_with("  n: and 2 more: `kubectl np status --node n`\n"), "{text}");
        assert_eq!(reasons_of("n", &diagnostics[..5]).lines().count(), 5);
    }

    #[test]
    fn a_status_of_another_make_is_refused() {
        let told = |agent: &str| {
            Told::read(serde_json::json!({
                "agent": agent, "ready": true, "endpoints": [], "devices": [], "counters": [],
                "diagnostics": [],
            }))
        };
        assert!(told("running").is_ok() && told("down").is_ok());
        assert!(told("asleep").is_err());
        assert!(Told::read(serde_json::json!({"ready": true})).is_err());
    }
}
