//! Flags: what they are called and what they say of themselves.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::explain::Protocol;
use crate::source;

/// Kubernetes NetworkPolicy for the pods of one node, enforced after service DNAT by TC programs
/// on each pod's host veth and on the uplinks, next to any CNI and kube-proxy.
///
/// Without a subcommand the agent runs in the foreground until SIGTERM. Its programs and maps are
/// pinned: enforcement goes on while the agent is down, and the next run takes them up. `cleanup`
/// removes them.
#[derive(Debug, Parser)]
#[command(name = "np-agent", version, args_conflicts_with_subcommands = true)]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub run: RunArgs,
}

const EXAMPLES: &str = "\
Examples:
  np-agent --node node-1 --manifests /etc/np-agent/manifests
  np-agent check
  np-agent status
  np-agent endpoints -o json
  np-agent explain --manifests policies/ --from shop/web-0 --to shop/db-0 --port 5432
  np-agent lint policies/
  np-agent cleanup";

const EXPLAIN_EXAMPLES: &str = "\
Ends are namespace/pod, an address, or node:NAME for what a node itself sends. Give a pod and its
targetPort, never a Service: policy is judged after DNAT.

Examples:
  np-agent explain --manifests policies/ --from shop/web-0 --to shop/db-0 --port 5432
  np-agent explain --from 203.0.113.7 --to shop/web-0 --port https --expect deny
  np-agent explain --manifests policies/ --probes probes.jsonl
  echo '{\"from\":\"shop/web-0\",\"to\":\"shop/db-0\",\"port\":5432,\"expect\":\"allow\"}' |
    np-agent explain --manifests policies/ --probes -";

const LINT_EXAMPLES: &str = "\
Examples:
  np-agent lint policies/
  np-agent lint policies/ cluster.yaml --service-cidr 10.96.0.0/12
  np-agent lint policies/ -o json --fail-on error
  np-agent lint --codes
  np-agent lint --explain NP101

A cluster.yaml:
  kubectl get pods,namespaces,services,nodes -A -o yaml > cluster.yaml";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Try what the agent needs of this node: kernel features, capabilities, mounts, neighbours.
    Check(PlaceArgs),
    /// Show what is enforced: devices, endpoints, counters, refused manifests.
    ///
    /// Asks the running agent; when it is down, reads the pinned maps. Exits with 0 when an agent
    /// runs and is ready, 1 otherwise.
    Status(ShowArgs),
    /// Show the pods of this node and the policies that isolate them.
    ///
    /// Asks the running agent; when it is down, reads the pinned maps.
    Endpoints(ShowArgs),
    /// Say whether policy lets a connection pass, and which policies and rules make it so.
    ///
    /// Runs the verdict function of the kernel programs on the tables that the agents would write,
    /// and reads the explanation from the policies. Needs no root and no kernel. Exits with 0; with
    /// 1 when --expect, or a probe's "expect", says otherwise; with 2 when the input is bad.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Tell which manifests are malformed, and which policies probably do not say what was meant.
    ///
    /// Reads files only: needs no cluster, no agent and no root. The more it is given besides
    /// policies (Pods or Deployments and the like, Namespaces, Services, Nodes), the more it can
    /// tell. Exits with 0 when nothing reaches the severity of --fail-on, 1 when something does, 2
    /// when the input cannot be read.
    #[command(after_help = LINT_EXAMPLES)]
    Lint(LintArgs),
    /// Remove every program, map, link and pin. Enforcement ends.
    Cleanup(PlaceArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The name of this node, as in the pods' spec.nodeName.
    #[arg(long, env = "NODE_NAME", required = true)]
    pub node: Option<String>,

    /// A directory of manifests to read and watch: Pods, Namespaces, NetworkPolicies, Nodes and
    /// Lists of them, in YAML or JSON.
    #[arg(long, value_name = "DIR", required = true)]
    pub manifests: Option<PathBuf>,

    #[command(flatten)]
    pub place: PlaceArgs,

    /// A veth that is an uplink and no pod's, although its other end is in another namespace. May
    /// be given several times.
    #[arg(long, value_name = "DEVICE")]
    pub uplink: Vec<String>,

    /// A UDP port to which the nodes' packets to each other go, wrapped by a process and no device
    /// of the kernel, as with flannel's udp backend (8285): pods may not send there. May be given
    /// several times; VXLAN, Geneve and the like need none.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub tunnel_port: Vec<u16>,

    /// A range that pods which forward for others may send from, such as a VPN's clients: a pod gets
    /// what it names in its annotation np-agent.io/source-prefixes as far as it lies in one of these
    /// ranges. Whoever may annotate a pod of this node may then send from there, so name none that
    /// holds addresses of nodes, Services or pods. May be given several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = source_prefix)]
    pub source_prefixes: Vec<IpNet>,

    /// What a veth may do before it is known whose it is.
    #[arg(long, value_enum, default_value_t = Pending::Deny)]
    pub pending: Pending,

    /// Which log lines to print, as a tracing filter: "info", "np_agent=debug".
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Where an agent keeps what outlives it.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Where programs, maps and links are pinned; must lie on a bpffs.
    #[arg(long, default_value = "/sys/fs/bpf/np-agent", value_name = "DIR")]
    pub pin_dir: PathBuf,

    /// Where the agent's lock and socket lie.
    #[arg(long, default_value = "/run/np-agent", value_name = "DIR")]
    pub run_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub place: PlaceArgs,

    /// A table to read, or JSON to work with.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who opens the connection: namespace/pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub from: Option<String>,

    /// Whom it goes to, after DNAT: namespace/pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub to: Option<String>,

    /// The destination port, or the name that the destination pod gives it; none with ICMP.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// TCP, UDP, SCTP, or ICMP for an echo request.
    #[arg(long, value_name = "NAME", default_value = "TCP", value_parser = protocol)]
    pub protocol: Protocol,

    /// By which of the pods' addresses; else the first family that both ends have.
    #[arg(long, value_enum)]
    pub family: Option<Family>,

    /// A directory of manifests to judge by; else the objects that the agent with --run-dir has in
    /// force.
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// Where the agent's record of objects lies.
    #[arg(long, default_value = "/run/np-agent", value_name = "DIR", conflicts_with = "manifests")]
    pub run_dir: PathBuf,

    /// Exit with 1 if the verdict is another.
    #[arg(long, value_enum)]
    pub expect: Option<Expect>,

    /// A file of probes, or - for stdin: one JSON object a line, as {"from":"shop/web-0",
    /// "to":"10.0.0.7","port":53,"protocol":"UDP","expect":"allow"}. Answers one object a line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port", "protocol", "family", "output"])]
    pub probes: Option<PathBuf>,

    /// A text to read, or JSON to work with.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

fn source_prefix(text: &str) -> Result<IpNet, String> {
    source::prefix(text).map_err(|(problem, remedy)| format!("{problem}; {remedy}"))
}

fn protocol(text: &str) -> Result<Protocol, &'static str> {
    Protocol::parse(text).ok_or("not one of TCP, UDP, SCTP, ICMP")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    #[value(name = "4")]
    V4,
    #[value(name = "6")]
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    Allow,
    Deny,
}

#[derive(Debug, Args)]
pub struct LintArgs {
    /// Manifests, and directories of them: YAML or JSON.
    #[arg(value_name = "FILE|DIR", required_unless_present_any = ["codes", "explain"])]
    pub paths: Vec<PathBuf>,

    /// A range that Services get their addresses from; may be given several times. ServiceCIDR
    /// objects and Services among the manifests count as well.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<IpNet>,

    /// Which findings make the exit code 1: these and more severe ones.
    #[arg(long, value_enum, default_value_t = FailOn::Warning, value_name = "SEVERITY")]
    pub fail_on: FailOn,

    /// A table to read, or JSON to work with.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// List all codes.
    #[arg(long, conflicts_with_all = ["paths", "explain"])]
    pub codes: bool,

    /// Print what a code means, with an example and the remedy; "all" prints every one.
    #[arg(long, value_name = "CODE", conflicts_with = "paths")]
    pub explain: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    Error,
    Warning,
    Info,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pending {
    /// Nothing but what the node itself sends passes.
    Deny,
    /// Everything passes.
    Allow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}
