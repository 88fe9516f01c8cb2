//! `np-agent status`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use nix::net::if_::if_nameindex;

use super::out;
use super::table::table;
use crate::admin;
use crate::args::{Output, PlaceArgs, Probe, StatusArgs};
use crate::dataplane::Pinned;
use crate::source::api::FeedStatus;
use crate::status::{AgentState, Counter, DeviceStatus, Objects, Status};
use np_policy::plan::Record;

pub fn run(StatusArgs { show, probe }: &StatusArgs) -> anyhow::Result<ExitCode> {
    if let Some(probe) = probe {
        let (well, said) = judge(*probe, admin::ask(&show.place.run_dir).as_ref());
        out::line(said)?;
        return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let status = read(&show.place)?;
    match show.output {
        Output::Json => out::line(serde_json::to_string_pretty(&status)?)?,
        Output::Table => out::show(&render(&status))?,
    }
    let well = status.agent == AgentState::Running && status.ready;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Tells whether a probe passes, and what kubelet is to write about it.
fn judge(probe: Probe, status: Option<&Status>) -> (bool, String) {
    match (probe, status) {
        (_, None) => (false, "no agent answers".to_owned()),
        (Probe::Live, Some(_)) => (true, "the agent answers".to_owned()),
        (Probe::Ready, Some(Status { ready: true, .. })) => (true, "the agent is ready".to_owned()),
        (Probe::Ready, Some(Status { started, diagnostics, .. })) => {
            let diagnostics = diagnostics.join("; ");
            let since = if *started { "the agent has started, but is" } else { "the agent is" };
            (*started, format!("{since} not ready: {diagnostics}"))
        }
    }
}

/// Asks the agent; when none answers, reads what it left pinned.
pub fn read(place: &PlaceArgs) -> anyhow::Result<Status> {
    if let Some(status) = admin::ask(&place.run_dir) {
        return Ok(status);
    }
    read_pinned(place).with_context(|| {
        format!(
            "no agent answers in {} and nothing can be read from {}",
            place.run_dir.display(),
            place.pin_dir.display()
        )
    })
}

fn read_pinned(place: &PlaceArgs) -> anyhow::Result<Status> {
    let pinned = Pinned::open(&place.pin_dir)?;
    let tables = pinned.tables()?;
    let links = pinned.links()?;
    let record: Record = match pinned.record() {
        Some(bytes) => serde_json::from_slice(&bytes).context("the pinned record is not whole")?,
        None => Record::default(),
    };
    let names: BTreeMap<u32, String> = if_nameindex()
        .context("cannot list the node's devices")?
        .iter()
        .map(|device| (device.index(), device.name().to_string_lossy().into_owned()))
        .collect();
    let devices = tables
        .ifaces
        .values()
        .map(|iface| {
            let ifindex = iface.ifindex();
            let endpoint = record.endpoints.iter().find(|e| e.ifindex.0 == ifindex);
            DeviceStatus {
                ifindex,
                name: names.get(&ifindex).cloned().unwrap_or_else(|| "gone".to_owned()),
                role: crate::agent::role_name(iface.role()).to_owned(),
                attached: links.iter().any(|link| link.ifindex.0 == ifindex),
                pod: endpoint.map(|e| e.pod.to_string()),
                why: "pinned".to_owned(),
            }
        })
        .collect();
    Ok(Status {
        node: record.node.map(|node| node.to_string()),
        agent: AgentState::Down,
        ready: false,
        started: false,
        generation: tables.config.generation(),
        batches: 0,
        objects: Objects::default(),
        devices,
        endpoints: record.endpoints,
        counters: Counter::of(pinned.counters()?.iter()),
        invalid: Vec::new(),
        narrowed: Vec::new(),
        api: Vec::new(),
        refused_sources: Vec::new(),
        held: record.held.iter().map(|key| format!("NetworkPolicy {key}: too large")).collect(),
        not_recorded: Vec::new(),
        diagnostics: vec![
            "no agent runs: enforcement goes on by the pinned programs, changes do not".to_owned(),
        ],
        warnings: Vec::new(),
        repairs: 0,
    })
}

fn render(status: &Status) -> String {
    let Status {
        node,
        agent,
        ready,
        started: _,
        generation,
        batches: _,
        objects,
        devices,
        endpoints,
        counters,
        invalid,
        narrowed,
        api,
        refused_sources,
        // Among the diagnostics.
        held: _,
        not_recorded,
        diagnostics,
        warnings,
        repairs,
    } = status;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |label: &str, value: String| {
        writeln!(text, "{label:<12} {value}").ok();
    };
    line("Node:", node.clone().unwrap_or_else(|| "unknown".to_owned()));
    line(
        "Agent:",
        match (agent, ready) {
            (AgentState::Running, true) => "running, ready".to_owned(),
            (AgentState::Running, false) => "running, not ready".to_owned(),
            (AgentState::Down, _) => "down; enforcement goes on by what is pinned".to_owned(),
        },
    );
    line("Generation:", generation.to_string());
    if *agent == AgentState::Running {
        let Objects { pods, namespaces, policies } = objects;
        line("Objects:", format!("{pods} pods, {namespaces} namespaces, {policies} policies"));
    }
    let isolated = |of: fn(&np_policy::plan::record::EndpointRecord) -> bool| {
        endpoints.iter().filter(|endpoint| of(endpoint)).count()
    };
    line(
        "Endpoints:",
        format!(
            "{} pods on this node, {} isolated for ingress, {} for egress",
            endpoints.len(),
            isolated(|endpoint| endpoint.ingress.isolated),
            isolated(|endpoint| endpoint.egress.isolated),
        ),
    );
    if *repairs > 0 {
        line("Repairs:", format!("{repairs} at devices and in maps since the agent started"));
    }
    let rows: Vec<_> = devices
        .iter()
        .map(|device| {
            [
                device.name.clone(),
                device.ifindex.to_string(),
                device.role.clone(),
                if device.attached { "yes" } else { "no" }.to_owned(),
                device.pod.clone().unwrap_or_else(|| "-".to_owned()),
                device.why.clone(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(["DEVICE", "IFINDEX", "ROLE", "ATTACHED", "POD", "WHY"], &rows));
    let rows: Vec<_> = counters
        .iter()
        .map(|counter| {
            [
                counter.hook.clone(),
                counter.reason.clone(),
                counter.action.clone(),
                counter.packets.to_string(),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(["HOOK", "REASON", "ACTION", "PACKETS"], &rows));
    if !invalid.is_empty() {
        text.push_str("\nRefused manifests (the last good version of each object is in force):\n");
        for problem in invalid {
            writeln!(text, "  {problem}").ok();
        }
    }
    if !narrowed.is_empty() {
        text.push_str("\nObjects that are not fully understood (what is not allows nothing):\n");
        for part in narrowed {
            writeln!(text, "  {part}").ok();
        }
    }
    if !api.is_empty() {
        text.push_str(&api_server(api));
    }
    if !refused_sources.is_empty() {
        text.push_str("\nRefused source prefixes (the pods' other entries count):\n");
        for refused in refused_sources {
            writeln!(text, "  {refused}").ok();
        }
    }
    if !not_recorded.is_empty() {
        text.push_str("\nToo large for the record of bindings:\n");
        for left_out in not_recorded {
            writeln!(text, "  {left_out}").ok();
        }
    }
    if !diagnostics.is_empty() {
        text.push_str("\nNot ready:\n");
        for diagnostic in diagnostics {
            writeln!(text, "  {diagnostic}").ok();
        }
    }
    if !warnings.is_empty() {
        text.push_str("\nNeighbours worth a look:\n");
        for warning in warnings {
            writeln!(text, "  {warning}").ok();
        }
    }
    text
}

/// How far the agent is with each collection, and what is wrong where something is.
fn api_server(api: &[FeedStatus]) -> String {
    let ago = |seconds: Option<u64>| seconds.map_or("never".to_owned(), |s| format!("{s} s ago"));
    let rows: Vec<_> = api
        .iter()
        .map(|feed| {
            let relists = feed.relists.iter().map(|(cause, count)| format!("{count} {cause}"));
            let relists: Vec<String> = relists.collect();
            [
                feed.resource.to_string(),
                feed.state.clone(),
                ago(feed.last_byte),
                ago(feed.last_list),
                if relists.is_empty() { "-".to_owned() } else { relists.join(", ") },
            ]
        })
        .collect();
    let header = ["API SERVER", "STATE", "LAST BYTE", "LAST LIST", "RELISTS"];
    let mut text = format!("\n{}", table(header, &rows));
    for feed in api {
        if let (Some(away), Some(problem)) = (feed.away, &feed.problem) {
            let FeedStatus { resource, .. } = feed;
            writeln!(text, "  {resource}: away for {away} s: {problem}; what is in force stays")
                .ok();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ready: bool) -> Status {
        let diagnostics: &[&str] = if ready { &[] } else { &["eth0 has no programs"] };
        serde_json::from_value(serde_json::json!({
            "node": "n", "agent": "running", "ready": ready, "generation": 1, "batches": 1,
            "objects": {"pods": 0, "namespaces": 0, "policies": 0}, "devices": [], "endpoints": [],
            "counters": [], "invalid": [], "diagnostics": diagnostics,
        }))
        .expect("it is a status")
    }

    #[test]
    fn an_agent_that_answers_is_alive_also_when_it_is_not_ready() {
        assert!(judge(Probe::Live, Some(&status(false))).0);
        assert!(!judge(Probe::Live, None).0);
    }

    #[test]
    fn an_agent_that_is_not_ready_says_why() {
        assert!(judge(Probe::Ready, Some(&status(true))).0);
        let (well, said) = judge(Probe::Ready, Some(&status(false)));
        assert!(!well && said.contains("eth0 has no programs"), "{said}");
        assert!(!judge(Probe::Ready, None).0);
    }

    #[test]
    fn an_agent_that_has_started_is_available_and_still_says_what_is_wrong() {
        let started = Status { started: true, ..status(false) };
        let (well, said) = judge(Probe::Ready, Some(&started));
        assert!(well && said.contains("eth0 has no programs"), "{said}");
    }
}
