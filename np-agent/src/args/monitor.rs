//! What `np-agent monitor` takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use np_common::event::Report;

use super::Output;
use crate::events::{Filter, Party, Verdict};

pub const EXAMPLES: &str = "\
Examples:
  np-agent monitor --last 5m
  np-agent monitor -f --pod shop/web-0
  np-agent monitor -f --to 10.0.0.7 --reason egress-denied
  np-agent monitor -f --verdict allowed --from shop/web-0
  np-agent monitor --policy shop/default-deny -o json";

#[derive(Debug, Args)]
pub struct MonitorArgs {
    /// Only what concerns this pod, at either end.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub pod: Option<Party>,

    /// Only connections that this pod or address opens.
    #[arg(long, value_name = "NAMESPACE/NAME|IP")]
    pub from: Option<Party>,

    /// Only connections to this pod or address, after service DNAT.
    #[arg(long, value_name = "NAMESPACE/NAME|IP")]
    pub to: Option<Party>,

    /// Only what was denied, or only what was allowed. Connections that are allowed make events only
    /// while somebody follows them with this, or if the agent runs with --events all.
    #[arg(long, value_enum)]
    pub verdict: Option<Verdict>,

    /// Only packets with this reason, such as egress-denied; docs/REASONS.md has them all.
    #[arg(long, value_name = "NAME")]
    pub reason: Option<String>,

    /// Only verdicts that rest on this NetworkPolicy.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub policy: Option<String>,

    /// Show the last 30s, 5m or 1h. By default, everything that the agent remembers, or with --follow
    /// nothing of the past.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub last: Option<Duration>,

    /// Go on with what happens from now on.
    #[arg(short, long)]
    pub follow: bool,

    /// The directory of the agent's socket.
    #[arg(long, default_value = "/run/np-agent", value_name = "DIR")]
    pub run_dir: PathBuf,

    /// The format of the output; JSON is one object per line.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

impl MonitorArgs {
    /// What the agent is asked.
    pub fn filter(&self) -> Filter {
        Filter {
            pod: self.pod.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            verdict: self.verdict,
            reason: self.reason.clone(),
            policy: self.policy.clone(),
            last: self.last.map(|last| last.as_secs()),
            follow: self.follow,
        }
    }
}

/// Which packets make events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Tell {
    /// None.
    None,
    /// Those that are dropped.
    Denied,
    /// Also those that open a connection which is allowed.
    All,
}

impl Tell {
    pub fn report(self) -> Report {
        match self {
            Tell::None => Report::Nothing,
            Tell::Denied => Report::Denied,
            Tell::All => Report::All,
        }
    }
}

/// Reads a number with a unit.
fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is not a duration: give a number and s, m or h, such as 5m");
    let unit = text.chars().last().ok_or_else(problem)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(problem()),
    };
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| problem())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_number_and_one_unit() {
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "5", "m", "-5m", "5 m", "5d", "1h5m", "99999999999999999999h", "5é"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
