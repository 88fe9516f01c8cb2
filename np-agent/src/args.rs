//! Flags: what they are called and what they say of themselves.

mod monitor;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::source;
pub use monitor::{MonitorArgs, Tell};
use np_policy::explain::Protocol;

/// Kubernetes NetworkPolicy for the pods of one node, enforced after service DNAT by TC programs
/// on each pod's host veth and on the uplinks, next to any CNI and kube-proxy.
///
/// Without a subcommand the agent runs in the foreground until SIGTERM. Its programs and maps are
/// pinned: enforcement continues while the agent is down, and the next run continues with them.
/// `cleanup` removes them.
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
  np-agent --node node-1 --kubeconfig /etc/np-agent/kubeconfig
  np-agent --node node-1 --manifests /etc/np-agent/manifests
  np-agent check
  np-agent status
  np-agent endpoints -o json
  np-agent explain --manifests policies/ --from shop/web-0 --to shop/db-0 --port 5432
  np-agent lint policies/
  np-agent monitor -f --pod shop/web-0
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
    /// Check that this node has what the agent needs: kernel features, capabilities, mounts; and
    /// list the programs of others that may hide packets from it.
    Check(PlaceArgs),
    /// Show what is enforced: devices, endpoints, counters, refused manifests, the API server.
    ///
    /// Asks the running agent; when it is down, reads the pinned maps. Exits with 0 when an agent
    /// runs and is ready, 1 otherwise.
    Status(StatusArgs),
    /// Show the pods of this node and the policies that isolate them.
    ///
    /// Asks the running agent; when it is down, reads the pinned maps.
    Endpoints(ShowArgs),
    /// Say whether policy lets a connection pass, and which policies and rules decide it.
    ///
    /// Runs the verdict function of the kernel programs on the tables that the agents would write,
    /// and reads the explanation from the policies. Needs neither root nor a kernel. Exits with 0;
    /// with 1 when the verdict is not the one of --expect or of a probe's "expect"; with 2 when the
    /// input is bad.
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainArgs),
    /// Report malformed manifests and policies that are probably mistakes.
    ///
    /// Reads files only: needs no cluster, no agent and no root. It finds more if it is given more
    /// than policies: Pods (or Deployments and the like), Namespaces, Services, Nodes. Exits with 0
    /// when no finding reaches the severity of --fail-on, 1 when one does, 2 when the input cannot
    /// be read.
    #[command(after_help = LINT_EXAMPLES)]
    Lint(LintArgs),
    /// Show which packets were dropped on this node, and which policies did it.
    ///
    /// Asks the running agent for what it remembers (the last 4,096 events), and with --follow goes on
    /// until it is interrupted. Each pod has a share of the events: what exceeds it is counted and shown
    /// as suppressed. Exits with 0, or with 1 when no agent answers. docs/MONITOR.md describes the output.
    #[command(after_help = monitor::EXAMPLES)]
    Monitor(MonitorArgs),
    /// Mount a BPF file system, unless one is there.
    ///
    /// For nodes whose init mounts none, such as those of kind. Needs CAP_SYS_ADMIN.
    Mount(MountArgs),
    /// Remove every program, map, link and pin. Enforcement ends.
    Cleanup(PlaceArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The name of this node, as in the pods' spec.nodeName.
    #[arg(long, env = "NODE_NAME", required = true)]
    pub node: Option<String>,

    /// A kubeconfig for the API server whose objects are enforced. Without this and without
    /// --manifests, an agent that runs in a pod uses the pod's ServiceAccount.
    #[arg(long, value_name = "FILE", conflicts_with = "manifests")]
    pub kubeconfig: Option<PathBuf>,

    /// A directory of manifests to read and watch in place of an API server: Pods, Namespaces,
    /// NetworkPolicies, Nodes and Lists of them, in YAML or JSON.
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    #[command(flatten)]
    pub place: PlaceArgs,

    /// Treat this veth as an uplink rather than a pod's interface, although its other end is in
    /// another namespace. Repeatable.
    #[arg(long, value_name = "DEVICE")]
    pub uplink: Vec<String>,

    /// A bridge or veth, such as docker0, that leads to containers that are not pods. No policy
    /// applies to them; policies of pods still apply to traffic between pods and these containers.
    /// Ignored where the node's own routes, a namespace or an address show that a pod is behind it,
    /// and while a pod of this node has no device. Repeatable.
    #[arg(long, value_name = "DEVICE")]
    pub foreign: Vec<String>,

    /// UDP port of a node-to-node tunnel that a user-space process runs, such as 8285 of flannel's
    /// udp backend. Pods may not send to it on other nodes. Tunnels that are devices of the kernel,
    /// such as VXLAN and Geneve, are found without it. Repeatable.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub tunnel_port: Vec<u16>,

    /// A range that pods which forward for others may send from, such as the clients of a VPN. What
    /// a pod names in its annotation np-agent.io/source-prefixes counts if it is within one of these
    /// ranges. Anyone who may annotate a pod of this node can then send from there, so do not name a
    /// range that contains addresses of nodes, Services or pods. Repeatable.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = source_prefix)]
    pub source_prefixes: Vec<IpNet>,

    /// What passes at a veth before it is known which pod it belongs to.
    #[arg(long, value_enum, default_value_t = Pending::Deny)]
    pub pending: Pending,

    /// How often programs at devices, and maps, are compared with what they should be, in seconds.
    /// Changes that the kernel announces are checked at once.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub check_every: u64,

    /// Remove the taint with this key from the node, such as np-agent.io/agent-not-ready, once policies
    /// are in force here for the first time since the agent started. A node that registers with such a
    /// taint gets no pods before. Needs the right to get and patch nodes.
    #[arg(long, value_name = "KEY", conflicts_with = "manifests")]
    pub startup_taint: Option<String>,

    /// Which packets the agent remembers for `np-agent monitor` while nobody follows them. A monitor that
    /// follows more than this gets more.
    #[arg(long, value_enum, default_value_t = Tell::Denied)]
    pub events: Tell,

    /// The ABI version to use, for tests of upgrades.
    #[arg(long, hide = true, default_value_t = np_common::ABI_VERSION)]
    pub abi: u32,

    /// Which log lines to print, as a tracing filter: "info", "np_agent=debug".
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,

    /// The format of log lines.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Where an agent keeps its pins, lock and socket.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Where programs, maps and links are pinned; must be on a BPF file system.
    #[arg(long, default_value = "/sys/fs/bpf/np-agent", value_name = "DIR")]
    pub pin_dir: PathBuf,

    /// The directory of the agent's lock and socket.
    #[arg(long, default_value = "/run/np-agent", value_name = "DIR")]
    pub run_dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct MountArgs {
    /// Where it is to be.
    #[arg(default_value = "/sys/fs/bpf", value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub place: PlaceArgs,

    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub show: ShowArgs,

    /// Print one line, and exit with 0 if the agent is alive, or ready: for the probes of a DaemonSet.
    #[arg(long, value_enum, conflicts_with = "output")]
    pub probe: Option<Probe>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// The agent's main loop answers, whatever it says.
    Live,
    /// Everything has been in force at least once since the agent started. What comes up later shows in
    /// the status, but does not make the agents of all nodes unavailable at once.
    Ready,
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Who opens the connection: namespace/pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub from: Option<String>,

    /// Where it goes, after DNAT: namespace/pod, an address, or node:NAME.
    #[arg(long, value_name = "END", required_unless_present = "probes")]
    pub to: Option<String>,

    /// The destination port, or its name in the destination pod; not with ICMP.
    #[arg(long, value_name = "PORT")]
    pub port: Option<String>,

    /// TCP, UDP, SCTP, or ICMP (an echo request).
    #[arg(long, value_name = "NAME", default_value = "TCP", value_parser = protocol)]
    pub protocol: Protocol,

    /// The address family; by default the first one that both ends have.
    #[arg(long, value_enum)]
    pub family: Option<Family>,

    /// A directory of manifests to judge by; by default the objects of the running agent, which is
    /// asked for them.
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,

    /// The directory of the agent's socket.
    #[arg(long, default_value = "/run/np-agent", value_name = "DIR", conflicts_with = "manifests")]
    pub run_dir: PathBuf,

    /// Exit with 1 if the verdict is not this one.
    #[arg(long, value_enum)]
    pub expect: Option<Expect>,

    /// A file of probes, or - for stdin: one JSON object per line, such as {"from":"shop/web-0",
    /// "to":"10.0.0.7","port":53,"protocol":"UDP","expect":"allow"}. Prints one object per line.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "to", "port", "protocol", "family", "output"])]
    pub probes: Option<PathBuf>,

    /// The format of the output.
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

    /// A range that Services get their addresses from. ServiceCIDR objects and Services among the
    /// manifests count as well. Repeatable.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub service_cidr: Vec<IpNet>,

    /// The least severity that makes the exit code 1.
    #[arg(long, value_enum, default_value_t = FailOn::Warning, value_name = "SEVERITY")]
    pub fail_on: FailOn,

    /// The format of the output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,

    /// List all codes.
    #[arg(long, conflicts_with_all = ["paths", "explain"])]
    pub codes: bool,

    /// Print what a code means, with the remedy and an example; "all" prints every code.
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
