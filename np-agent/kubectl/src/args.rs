//! Flags: what they are called and what they say of themselves.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::flags::Flags;

/// Ask the np-agents of a cluster's nodes: what they enforce, whether they are ready, and why a
/// connection passes or not.
///
/// Runs np-agent's own commands by `kubectl exec` in the agents' pods. Every command takes kubectl's
/// global flags, such as --context, --kubeconfig and --as; `kubectl options` lists them.
#[derive(Debug, Parser)]
#[command(name = "kubectl-np", bin_name = "kubectl np", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kubectl np status
  kubectl np status --node node-1
  kubectl np endpoints --namespace shop
  kubectl np explain --from shop/web-0 --to shop/db-0 --port 5432
  kubectl np check";

const EXPLAIN_EXAMPLES: &str = "\
Ends are namespace/pod, a pod of --namespace, an address, or node:NAME for what a node itself sends.
Give a pod and its targetPort, never a Service: policy is judged after DNAT.

Examples:
  kubectl np explain --from shop/web-0 --to shop/db-0 --port 5432
  kubectl np explain --namespace shop --from web-0 --to db-0 --port 5432 --expect deny
  kubectl np explain --from 203.0.113.7 --to shop/web-0 --port https -o json
  kubectl np explain --probes tests/reachability.jsonl";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which nodes enforce policy and which do not, and why not.
    ///
    /// Prints one line for each node; with --node, all that this node's np-agent says. Exits with 0
    /// when every agent is ready, 1 otherwise.
    Status(StatusArgs),
    /// Show the pods that are enforced and the policies that isolate them.
    ///
    /// Shows the pods of all namespaces unless --namespace names one.
    Endpoints(EndpointsArgs),
    /// Say whether policy lets a connection pass, and which policies and rules decide it.
    ///
    /// Asks the agent on the node of the destination pod, or else of the source, about the policies
    /// that it has in force. Exits as np-agent does: with 0; with 1 when the verdict is not the one of
    /// --expect or of a probe's "expect"; with 2 when there is no verdict: the input is bad, or no agent
    /// answers.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Check that nodes have what np-agent needs, and list programs of others that may hide packets
    /// from it.
    Check(CheckArgs),
}

const GLOBAL: &str = "Options of every command, besides kubectl's own";

/// What every command takes.
#[derive(Debug, Args)]
pub struct Common {
    /// The namespace of pods that are named without one. By default that of the kubeconfig's context.
    #[arg(short, long, global = true, value_name = "NAMESPACE", help_heading = GLOBAL)]
    pub namespace: Option<String>,

    /// The namespace of np-agent's own pods.
    #[arg(long, global = true, default_value = "kube-system", value_name = "NAMESPACE", help_heading = GLOBAL)]
    pub agent_namespace: String,

    /// How long a node may take to answer: 30s, 2m, or a number of seconds.
    #[arg(long, global = true, default_value = "30s", value_name = "TIME", value_parser = duration, help_heading = GLOBAL)]
    pub timeout: Duration,

    #[command(flatten)]
    pub flags: Flags,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub on: NodeArgs,

    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct EndpointsArgs {
    /// Show only this pod: its name, or namespace/name.
    pub pod: Option<String>,

    #[command(flatten)]
    pub on: NodeArgs,

    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub on: NodeArgs,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who opens the connection: namespace/pod, a pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub from: Option<String>,

    /// Where it goes, after DNAT: namespace/pod, a pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub to: Option<String>,

    #[command(flatten)]
    pub asked: AskedArgs,

    /// A file of probes on this machine, or - for stdin: one JSON object per line, as `np-agent
    /// explain --probes` reads it. Prints one object per line; --timeout does not count.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port", "protocol", "family", "output"])]
    pub probes: Option<PathBuf>,

    #[command(flatten)]
    pub on: NodeArgs,
}

/// What np-agent reads, and nobody before it.
#[derive(Debug, Args)]
pub struct AskedArgs {
    /// The destination port, or its name in the destination pod; not with ICMP.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// TCP, UDP, SCTP, or ICMP (an echo request). By default TCP.
    #[arg(long, value_name = "NAME")]
    pub protocol: Option<String>,

    /// The address family, 4 or 6; by default the first one that both ends have.
    #[arg(long)]
    pub family: Option<String>,

    /// Exit with 1 if the verdict is not this one: allow or deny.
    #[arg(long, value_name = "VERDICT")]
    pub expect: Option<String>,

    /// The format of the output: table or json.
    #[arg(short, long)]
    pub output: Option<String>,
}

/// Whom to ask.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Ask the np-agent of this node only.
    #[arg(long, value_name = "NAME", value_parser = node)]
    pub node: Option<String>,

    /// After --: arguments that np-agent's own command gets as they are, such as --run-dir.
    #[arg(last = true, value_name = "ARGS")]
    pub further: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, text.bytes().last()),
        None => (text, None),
    };
    let unit = match unit {
        Some(b'h') => 3600,
        Some(b'm') => 60,
        _ => 1,
    };
    match number.parse::<u32>() {
        Ok(number) if number > 0 => Ok(Duration::from_secs(u64::from(number) * unit)),
        _ => Err("give a time above zero, such as 30s, 2m or 30"),
    }
}

fn node(text: &str) -> Result<String, &'static str> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("not the name of a Node; `kubectl get nodes` lists them")
    }
}

/// Whether a text can be the name of a Pod or a Node (a DNS subdomain). Nothing else goes into the
/// words for kubectl, where it could be a flag or a second selector.
pub fn is_name(text: &str) -> bool {
    let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    let end = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.iter().copied().all(inner)
        && bytes.first().is_some_and(end)
        && bytes.last().is_some_and(end)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory as _;

    use super::*;
    use crate::flags::{FLAGS, Kind};

    fn parse(words: &[&str]) -> Cli {
        let words = ["kubectl-np"].iter().chain(words);
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_global_flag_of_kubectl_is_handed_on_wherever_it_is_written() {
        for (name, short, kind) in FLAGS {
            let want = |value: &str| vec![OsString::from(format!("--{name}={value}"))];
            let mut forms = vec![(vec![format!("--{name}=x")], "x")];
            match kind {
                Kind::Value => forms.push((vec![format!("--{name}"), "x".to_owned()], "x")),
                Kind::Switch => forms.push((vec![format!("--{name}")], "true")),
            }
            forms.extend(short.map(|short| (vec![format!("-{short}"), "x".to_owned()], "x")));
            for (form, value) in forms {
                let form: Vec<&str> = form.iter().map(String::as_str).collect();
                let before = parse(&[&form[..], &["status"]].concat());
                assert_eq!(before.common.flags.0, want(value), "{form:?} status");
                let after = parse(&[&["status"], &form[..], &["--node", "n"]].concat());
                assert_eq!(after.common.flags.0, want(value), "status {form:?}");
            }
        }
    }

    #[test]
    fn a_flag_that_may_be_repeated_is_handed_on_each_time() {
        let cli = parse(&["status", "--as-group", "a", "--as=me", "--as-group=b"]);
        assert_eq!(cli.common.flags.0, ["--as=me", "--as-group=a", "--as-group=b"]);
    }

    #[test]
    fn what_follows_two_dashes_is_np_agent_s() {
        let cli = parse(&["check", "--node", "n", "--", "--run-dir", "/run/x", "-n"]);
        let Command::Check(CheckArgs { on }) = cli.command else { panic!("check") };
        assert_eq!(on.further, ["--run-dir", "/run/x", "-n"]);
        assert_eq!((on.node.as_deref(), cli.common.namespace), (Some("n"), None));
    }

    #[test]
    fn times_are_written_as_kubectl_writes_them() {
        for (text, seconds) in [("30", 30), ("30s", 30), ("2m", 120), ("1h", 3600)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "0s", "-1s", "s", "1.5s", "30ms"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_one_that_kubernetes_gives() {
        for name in ["a", "node-1", "ip-10-0-0-1.eu.internal", "10.0.0.1"] {
            assert!(is_name(name), "{name}");
        }
        for text in ["", "-a", "a-", ".a", "Node", "a b", "a,b", "a=b", "a/b", "--all"] {
            assert!(!is_name(text), "{text}");
        }
        assert!(!is_name(&"a".repeat(254)));
    }
}
