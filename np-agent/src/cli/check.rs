//! `np-agent check`: tries what the agent needs of this node, and says what else is on its
//! devices.

use std::fs;
use std::io::IsTerminal;
use std::process::ExitCode;

use super::out;
use crate::admin;
use crate::args::PlaceArgs;
use crate::dataplane::{Chain, probe};
use crate::links::{self, Monitor};
use np_policy::model::{Device, IfIndex};

/// One line of the result.
struct Line {
    level: Level,
    subject: &'static str,
    text: String,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

pub fn run(place: &PlaceArgs) -> anyhow::Result<ExitCode> {
    let mut lines = vec![kernel()];
    let tried = |subject, good: &str, result: Result<(), String>| match result {
        Ok(()) => Line { level: Level::Ok, subject, text: good.to_owned() },
        Err(text) => Line { level: Level::Fail, subject, text },
    };
    let (capabilities, names) = match probe::capabilities() {
        Ok(names) => (Ok(()), names),
        Err(error) => (Err(in_full(&error)), String::new()),
    };
    lines.push(tried("capabilities", &names, capabilities));
    let pins = probe::pin_directory(&place.pin_dir).map_err(|error| in_full(&error));
    lines.push(tried("bpffs", &place.pin_dir.display().to_string(), pins));

    let devices = Monitor::open().and_then(|mut monitor| monitor.devices());
    match devices {
        Ok(devices) => {
            let found = format!(
                "{} devices, {} of them veths into other namespaces",
                devices.len(),
                devices.iter().filter(|device| device.peer.is_some()).count()
            );
            lines.push(Line { level: Level::Ok, subject: "netlink", text: found });
            let loopback = devices.iter().find(|device| device.loopback);
            let programs = match loopback {
                Some(device) => probe::programs(device.index).map_err(|error| in_full(&error)),
                None => Err("there is no loopback device to try them on".to_owned()),
            };
            let (programs, by) = match programs {
                Ok(mechanism) => (Ok(()), mechanism.name()),
                Err(text) => (Err(text), ""),
            };
            let good = format!("the kernel loads and attaches them by {by}");
            lines.push(tried("programs", &good, programs));
            lines.extend(devices.iter().flat_map(|device| neighbours(place, device)));
        }
        Err(error) => {
            lines.push(Line { level: Level::Fail, subject: "netlink", text: in_full(&error) });
        }
    }

    lines.push(ipsec());
    lines.extend(agent(place));

    for Line { level, subject, text } in &lines {
        out::line(format_args!("{} {subject:<13} {text}", level.label()))?;
    }
    let worst = lines.iter().map(|line| line.level).max().unwrap_or(Level::Ok);
    Ok(if worst == Level::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn kernel() -> Line {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Line { level: Level::Ok, subject: "kernel", text: format!("Linux {}", release.trim()) }
}

/// What policy-based IPsec wraps is hidden from us.
fn ipsec() -> Line {
    let (level, text) = match links::wrapping_policies() {
        Ok(0) => (Level::Ok, "no policy wraps what pods send".to_owned()),
        Ok(count) => (
            Level::Warn,
            format!(
                "policies of the kernel (`ip xfrm policy`, {count} of them) wrap packets before they can be judged: \
                 what pods isolated for egress send there is dropped (reason unjudgeable), and pods isolated \
                 for ingress get no replies from there; use WireGuard or xfrm interfaces between nodes"
            ),
        ),
        Err(error) => (Level::Warn, in_full(&error)),
    };
    Line { level, subject: "ipsec", text }
}

/// What a running agent has found: it knows its programs and what may stand around them.
fn agent(place: &PlaceArgs) -> Vec<Line> {
    let Some(status) = admin::ask(&place.run_dir) else { return Vec::new() };
    let line = |subject| move |text| Line { level: Level::Warn, subject, text };
    let diagnostics = status.diagnostics.into_iter().map(line("not ready"));
    diagnostics.chain(status.warnings.into_iter().map(line("neighbours"))).collect()
}

/// Programs of others in front of ours: an OK of theirs hides a packet from policy.
fn neighbours(place: &PlaceArgs, device: &Device) -> Vec<Line> {
    let Device { index, name, .. } = device;
    let chains = match probe::chains(&place.pin_dir, IfIndex(index.0)) {
        Ok(chains) => chains,
        Err(error) => {
            let text = format!("{name}: {}", in_full(&error));
            return vec![Line { level: Level::Warn, subject: "neighbours", text }];
        }
    };
    let foreign = |chain: &Chain| {
        let Chain { side, programs, ours } = chain;
        let (before, what) = match ours {
            Some(_) => (chain.before_ours(), "run before ours"),
            None => (programs.as_slice(), "are there, and nothing of ours"),
        };
        if before.is_empty() {
            return None;
        }
        let ids: Vec<String> = before.iter().map(ToString::to_string).collect();
        Some(Line {
            level: Level::Warn,
            subject: "neighbours",
            text: format!(
                "{name} {}: programs {} {what}: if one of them answers OK instead of going on \
                 (TCX_NEXT, TC_ACT_UNSPEC), policy does not see the packet; look at them with `bpftool prog show \
                 id ID`",
                side.name(),
                ids.join(", ")
            ),
        })
    };
    chains.iter().filter_map(foreign).collect()
}

impl Level {
    fn label(self) -> &'static str {
        let colour = std::io::stdout().is_terminal();
        match (self, colour) {
            (Level::Ok, false) => "ok  ",
            (Level::Warn, false) => "warn",
            (Level::Fail, false) => "fail",
            (Level::Ok, true) => "\x1b[32mok\x1b[0m  ",
            (Level::Warn, true) => "\x1b[33mwarn\x1b[0m",
            (Level::Fail, true) => "\x1b[31mfail\x1b[0m",
        }
    }
}

/// An error with its causes, on one line.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
