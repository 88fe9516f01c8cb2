//! Flags: what they are called and what they say of themselves.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

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
  np-agent lint policies/
  np-agent cleanup";

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
