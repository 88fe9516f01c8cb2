//! `kubectl np` and np-agent, which know of each other only what is written and read: the words of
//! commands, the JSON of answers, the labels of the DaemonSet.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use clap::{CommandFactory as _, Parser as _};
use kubectl_np::status::{Standing, Told};
use kubectl_np::{agents, args as plugin, check, endpoints, explain, status};
use np_agent::args::Cli;
use np_agent::source::api::{FeedStatus, Resource};
use np_agent::source::{Invalid, Narrowed};
use np_agent::status::{AgentState, Counter, DeviceStatus, Objects, Status};
use np_policy::model::{IfIndex, PodKey, PodUid, PolicyKey};
use np_policy::plan::record::{EndpointRecord, SideRecord};
use np_tests::agent::agent_binary;
use np_tests::kubernetes;
use serde_json::{Value, json};

/// What the plugin sends to a pod for a command line of its own.
fn sent(words: &str) -> Vec<String> {
    let words = ["kubectl-np"].into_iter().chain(words.split_whitespace());
    let cli = plugin::Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{error}"));
    match cli.command {
        plugin::Command::Status(args) => status::words(&args),
        plugin::Command::Endpoints(args) => endpoints::words(&args),
        plugin::Command::Check(args) => check::words(&args),
        plugin::Command::Explain(args) if args.probes.is_some() => explain::probes_words(&args),
        plugin::Command::Explain(args) => explain::words("a/b", "c/d", &args),
    }
}

#[test]
fn np_agent_takes_every_command_line_that_it_is_sent() {
    let further = "-- --run-dir /run/x";
    for words in [
        "status",
        "status -o json",
        "status --node n",
        "status --node n -o json",
        "endpoints",
        "endpoints a/b -o json",
        "check",
        "check --node n",
        "explain --from a/b --to c/d",
        "explain --from b --to d --port http --protocol UDP --family 6 --expect deny -o json",
        "explain --probes - --expect allow",
    ] {
        for words in [words.to_owned(), format!("{words} {further}")] {
            let line = ["np-agent".to_owned()].into_iter().chain(sent(&words));
            Cli::try_parse_from(line).unwrap_or_else(|error| panic!("kubectl np {words}: {error}"));
        }
    }
}

/// The long flags of a command.
fn flags(command: &clap::Command, name: &str) -> BTreeSet<String> {
    let command = command.find_subcommand(name).expect(name);
    command.get_arguments().filter_map(|flag| flag.get_long().map(str::to_owned)).collect()
}

#[test]
fn a_flag_of_np_agent_is_one_of_the_plugin_s_or_left_out_on_purpose() {
    // Directories of the node: what follows `--` can name them.
    let directories = ["pin-dir", "run-dir"];
    for (name, left_out) in [
        ("status", &["probe"][..]),
        ("endpoints", &[]),
        ("check", &[]),
        // Manifests are files of this machine, where np-agent itself reads them.
        ("explain", &["manifests"]),
    ] {
        let left_out = left_out.iter().chain(&directories).map(|flag| (*flag).to_owned());
        let agents = flags(&Cli::command(), name);
        let plugins = flags(&plugin::Cli::command(), name);
        let missing: Vec<&String> = agents.difference(&plugins).collect();
        let left_out: BTreeSet<String> = left_out.collect();
        let missing: Vec<&&String> =
            missing.iter().filter(|flag| !left_out.contains(**flag)).collect();
        assert!(missing.is_empty(), "np-agent {name}: {missing:?}");
    }
}

fn side(policies: &[&str]) -> SideRecord {
    let policies = policies.iter().map(|name| PolicyKey::new("shop", *name)).collect::<Vec<_>>();
    SideRecord { isolated: !policies.is_empty(), policies }
}

fn endpoint(name: &str, ingress: &[&str], egress: &[&str]) -> EndpointRecord {
    EndpointRecord {
        id: 7,
        pod: PodKey::new("shop", name),
        uid: PodUid("u".into()),
        addresses: vec!["10.244.1.10".parse().expect("an address")],
        source_prefixes: vec!["10.8.0.0/24".parse().expect("a prefix")],
        labels: Arc::default(),
        named_ports: Arc::from([]),
        device: "veth1".to_owned(),
        ifindex: IfIndex(2),
        ingress: side(ingress),
        egress: side(egress),
    }
}

/// A status with something in every field that the plugin reads.
fn full() -> Status {
    let device = |role: &str| DeviceStatus {
        ifindex: 2,
        name: "veth1".to_owned(),
        role: role.to_owned(),
        attached: true,
        pod: None,
        why: String::new(),
    };
    let counter = |action: &str, packets| Counter {
        hook: "to_pod".to_owned(),
        reason: "ingress-denied".to_owned(),
        action: action.to_owned(),
        packets,
    };
    let text = String::new;
    Status {
        node: Some("n1".to_owned()),
        agent: AgentState::Running,
        ready: false,
        started: true,
        generation: 1,
        batches: 1,
        objects: Objects::default(),
        devices: ["pod", "pending", "uplink"].map(device).to_vec(),
        endpoints: vec![endpoint("a", &["x"], &[]), endpoint("b", &["x"], &["y"])],
        counters: vec![counter("drop", 3), counter("pass", 100), counter("drop", 4)],
        invalid: vec![Invalid {
            file: PathBuf::new(),
            line: 1,
            column: 1,
            object: None,
            field: text(),
            value: text(),
            problem: text(),
            remedy: text(),
        }],
        narrowed: vec![Narrowed {
            object: text(),
            resource_version: text(),
            field: text(),
            value: text(),
            problem: text(),
            counts: text(),
            remedy: text(),
        }],
        api: vec![FeedStatus {
            resource: Resource::Policies,
            state: "away".to_owned(),
            listed: true,
            resource_version: text(),
            last_byte: None,
            last_list: None,
            away: Some(34),
            problem: None,
            relists: Default::default(),
            removed: 0,
            requests: 0,
        }],
        refused_sources: Vec::new(),
        held: Vec::new(),
        not_recorded: Vec::new(),
        diagnostics: vec!["eth0: not attached yet".to_owned()],
        warnings: Vec::new(),
        repairs: 0,
    }
}

fn told(status: &Status) -> Told {
    let document = serde_json::to_value(status).expect("it is written");
    Told::read(document).expect("the plugin reads it")
}

#[test]
fn the_plugin_reads_np_agent_s_status() {
    let read = told(&full()).status;
    assert_eq!(read.cells(), ["no", "2", "2", "1", "1", "2", "7", "away 34 s"]);
    assert_eq!(read.diagnostics, full().diagnostics);
    for agent in [AgentState::Running, AgentState::Down] {
        for ready in [true, false] {
            let standing = told(&Status { agent, ready, ..full() }).status.standing();
            let want = match (agent, ready) {
                (AgentState::Running, true) => Standing::Ready,
                (AgentState::Running, false) => Standing::NotReady,
                (AgentState::Down, _) => Standing::Down,
            };
            assert_eq!(standing, want);
        }
    }
    let manifests = Status { api: Vec::new(), ..full() };
    assert_eq!(told(&manifests).status.cells()[7], "-");
}

/// The role and the action that the plugin counts are those that np-agent writes.
#[test]
fn the_plugin_counts_by_np_agent_s_names() {
    use np_common::direction::Hook;
    use np_common::verdict::Reason;
    let counters = Counter::of([(Hook::ToPod, Reason::IngressDenied, 5)].into_iter());
    let pending = np_agent::agent::role_name(Some(np_common::endpoint::Role::Pending));
    let mut status = Status { counters, ..full() };
    status.devices.truncate(1);
    status.devices[0].role = pending.to_owned();
    let cells = told(&status).status.cells();
    assert_eq!((cells[4].as_str(), cells[6].as_str()), ("1", "5"));
}

#[test]
fn the_plugin_reads_np_agent_s_endpoints() {
    let record = serde_json::to_value(endpoint("a", &["x", "y"], &[])).expect("it is written");
    let read: endpoints::Endpoint = serde_json::from_value(record).expect("the plugin reads it");
    assert_eq!((read.id, read.pod.as_str(), read.device.as_str()), (7, "shop/a", "veth1"));
    assert_eq!(
        (read.addresses, read.source_prefixes),
        (vec!["10.244.1.10".into()], vec!["10.8.0.0/24".into()])
    );
    assert_eq!((read.ingress.isolated, read.egress.isolated), (true, false));
    assert_eq!(read.ingress.policies, ["shop/x", "shop/y"]);
}

#[test]
fn the_plugin_looks_for_agents_where_deploy_puts_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/daemonset.yaml");
    let text = fs::read_to_string(path).expect("the DaemonSet is there");
    let daemon_set: Value = serde_saphyr::from_str(&text).expect("it is YAML");
    let pair = |selector: &str| {
        let (key, value) = selector.split_once('=').expect("key=value");
        (key.to_owned(), value.to_owned())
    };
    let template = &daemon_set["spec"]["template"];
    let (key, value) = pair(agents::SELECTOR);
    assert_eq!(template["metadata"]["labels"][key], value);
    let (key, value) = pair(agents::NODES);
    assert_eq!(template["spec"]["nodeSelector"], json!({key: value}));
    assert_eq!(template["spec"]["containers"][0]["name"], agents::CONTAINER);
    let cli = plugin::Cli::parse_from(["kubectl-np", "status"]);
    assert_eq!(daemon_set["metadata"]["namespace"], cli.common.agent_namespace);
}

#[test]
fn the_manual_shows_the_columns_of_today() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATING.md");
    let page = fs::read_to_string(path).expect("OPERATING.md");
    let shown = page.lines().find(|line| line.starts_with("NODE ") && line.contains("READY"));
    let cells = shown.expect("the table is shown").split("  ").map(str::trim);
    assert_eq!(cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>(), status::HEADER);
}

/// A kubectl that runs on this machine what would run in a pod, and otherwise answers from a table.
struct Kubectl {
    place: tempfile::TempDir,
}

impl Kubectl {
    /// The words that a call must have, and the answer; none means to run what is to run in a pod.
    fn new(rows: &[(&[&str], Option<String>)]) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        for (number, (words, answer)) in rows.iter().enumerate() {
            let row = place.path().join(format!("rows/{number:04}"));
            fs::create_dir_all(&row).expect("it is ours");
            let words: String = words.iter().map(|word| format!("{word}\n")).collect();
            let answer = answer.as_deref();
            let files = [
                ("words", words.as_str()),
                ("stdout", answer.unwrap_or("")),
                ("stderr", ""),
                ("code", "0"),
            ];
            let runs = answer.is_none().then_some(("runs", ""));
            for (name, text) in files.into_iter().chain(runs) {
                fs::write(row.join(name), text).expect("it is ours");
            }
        }
        Self { place }
    }

    fn run(&self, words: &[&str]) -> Output {
        let agent = agent_binary().expect("np-agent is built");
        let fake = Path::new(env!("CARGO_MANIFEST_DIR")).join("../np-agent/kubectl/tests/fake");
        let agent = agent.parent().expect("it is in a directory").to_owned();
        let path = [fake, agent, "/usr/bin".into(), "/bin".into()];
        let mut command = Command::new(kubernetes::plugin().expect("kubectl-np is built"));
        command.args(words).env("PATH", std::env::join_paths(path).expect("a path"));
        command.env("FAKE_KUBECTL", self.place.path()).stdin(Stdio::null());
        command.output().expect("it starts")
    }
}

/// The pod of a node's agent.
fn pod(node: &str) -> Value {
    json!({
        "metadata": {"name": format!("np-agent-{node}"), "namespace": "kube-system"},
        "spec": {"nodeName": node},
        "status": {"containerStatuses": [{"name": "np-agent", "ready": true, "state": {"running": {}}}]},
    })
}

#[test]
fn np_agent_s_verdicts_and_exit_codes_come_through() {
    let agents = json!({"items": [pod("n1")]}).to_string();
    let kubectl =
        Kubectl::new(&[(&["get", "pods"], Some(agents)), (&["exec", "np-agent-n1"], None)]);
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain");
    let manifests = manifests.to_str().expect("a path in UTF-8");
    for (to, port, expect, code, part) in [
        ("shop/api-0", "https", "allow", 0, "ALLOW"),
        ("shop/api-0", "https", "deny", 1, "ALLOW"),
        ("shop/db-0", "5432", "deny", 0, "DENY"),
        ("shop/db-0", "5432", "allow", 1, "DENY"),
        ("shop/nobody", "5432", "deny", 2, "there is no pod shop/nobody"),
    ] {
        let connection =
            ["explain", "--node", "n1", "--from", "shop/web-0", "--to", to, "--port", port];
        let judged = ["--expect", expect, "--", "--manifests", manifests];
        let output = kubectl.run(&[&connection[..], &judged].concat());
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part) && !said.contains("terminated"), "{said}");
    }
}
