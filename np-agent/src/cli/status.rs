//! `np-agent status`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use nix::net::if_::if_nameindex;

use super::table::table;
use crate::admin;
use crate::args::{Output, PlaceArgs, ShowArgs};
use crate::dataplane::Pinned;
use crate::plan::Record;
use crate::status::{AgentState, Counter, DeviceStatus, Objects, Status};

pub fn run(args: &ShowArgs) -> anyhow::Result<ExitCode> {
    let status = read(&args.place)?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Table => print!("{}", render(&status)),
    }
    let well = status.agent == AgentState::Running && status.ready;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
        generation: tables.config.generation(),
        batches: 0,
        objects: Objects::default(),
        devices,
        endpoints: record.endpoints,
        counters: Counter::of(pinned.counters()?.iter()),
        invalid: Vec::new(),
        refused_sources: Vec::new(),
        diagnostics: vec![
            "no agent runs: enforcement goes on by the pinned programs, changes do not".to_owned(),
        ],
    })
}

fn render(status: &Status) -> String {
    let Status {
        node,
        agent,
        ready,
        generation,
        batches: _,
        objects,
        devices,
        endpoints,
        counters,
        invalid,
        refused_sources,
        diagnostics,
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
    let isolated = |of: fn(&crate::plan::record::EndpointRecord) -> bool| {
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
    if !refused_sources.is_empty() {
        text.push_str("\nRefused source prefixes (the pods' other entries count):\n");
        for refused in refused_sources {
            writeln!(text, "  {refused}").ok();
        }
    }
    if !diagnostics.is_empty() {
        text.push_str("\nNot ready:\n");
        for diagnostic in diagnostics {
            writeln!(text, "  {diagnostic}").ok();
        }
    }
    text
}
