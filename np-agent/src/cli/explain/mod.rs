//! `np-agent explain`: one connection, or many of them.

mod hints;
mod objects;
mod probes;
mod text;

use std::fmt;
use std::process::ExitCode;

use serde::Serialize;

use super::out;
use crate::args::{Expect, ExplainArgs, Output};
use np_policy::explain::{EndError, Explain, Family, Judgement, Probe, Protocol};

/// What was asked cannot be answered.
const BAD_INPUT: u8 = 2;

pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    answer(args).or_else(|error| {
        eprintln!("np-agent: {error:#}");
        Ok(ExitCode::from(BAD_INPUT))
    })
}

fn answer(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let (index, hints) = objects::read(args)?;
    let explain = Explain::new(&index);
    if let Some(file) = &args.probes {
        return probes::run(&explain, &hints, file, args.expect);
    }
    let (Some(from), Some(to)) = (&args.from, &args.to) else {
        anyhow::bail!("--from and --to are required without --probes");
    };
    let family = args.family.map(|family| match family {
        crate::args::Family::V4 => Family::V4,
        crate::args::Family::V6 => Family::V6,
    });
    let asked = Asked { from, to, port: args.port.as_deref(), protocol: args.protocol, family };
    let probe = asked.probe(&explain).map_err(|error| hints.explained(error, &asked, &explain))?;
    if let Some(error) = hints.service(&probe, &explain) {
        anyhow::bail!(error);
    }
    let judgement = explain.judge(&probe);
    sound(&probe, &judgement)?;
    let notes = hints.notes(&probe, &judgement, &explain);
    let unless = explain.unless(&probe, &judgement);
    match args.output {
        Output::Json => {
            let shown = Shown {
                from: probe.from.to_string(),
                to: probe.to.to_string(),
                protocol: probe.protocol.name(),
                port: probe.port,
                judgement: &judgement,
                unless: unless.map(|_| OWN_NODE),
                notes: &notes,
            };
            out::line(serde_json::to_string_pretty(&shown)?)?;
        }
        Output::Table => out::show(&text::render(&probe, &judgement, unless, &notes))?,
    }
    Ok(match args.expect {
        Some(expect) if expect.allows() != judgement.allowed => {
            eprintln!("np-agent: expected {expect}, found {}", judgement.verdict());
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    })
}

/// A connection as a user names it.
struct Asked<'a> {
    from: &'a str,
    to: &'a str,
    port: Option<&'a str>,
    protocol: Protocol,
    family: Option<Family>,
}

impl Asked<'_> {
    fn probe<'e>(&self, explain: &'e Explain<'_>) -> Result<Probe<'e>, EndError> {
        let (from, to) = explain.ends(self.from, self.to, self.family)?;
        let port = explain.port(self.port, self.protocol, &to)?;
        Ok(Probe { from, to, protocol: self.protocol, port })
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    from: String,
    to: String,
    protocol: &'static str,
    port: u16,
    #[serde(flatten)]
    judgement: &'a Judgement<'a>,
    /// What would turn the verdict round.
    #[serde(skip_serializing_if = "Option::is_none")]
    unless: Option<&'static str>,
    notes: &'a [String],
}

/// The address is the pod's own node's.
const OWN_NODE: &str = "own-node";

/// An explanation that does not fit its verdict must not be believed.
fn sound(probe: &Probe<'_>, judgement: &Judgement<'_>) -> anyhow::Result<()> {
    if !judgement.is_consistent() {
        anyhow::bail!(
            "{} to {}, {} {}: the compiled tables and the policies disagree; \
             this is a fault of np-agent: please report it with these manifests",
            probe.from,
            probe.to,
            probe.protocol,
            probe.port
        );
    }
    Ok(())
}

impl Expect {
    fn allows(self) -> bool {
        self == Expect::Allow
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.allows() { "allow" } else { "deny" })
    }
}
