//! The table of tricky cases, against the oracle and against the agent.
//!
//! `fixtures/tricky-cases.yaml` is the table: what it says is the specification, read by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ContainerPort, Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use np_tests::generate::{Answer, Cluster, changes};
use np_tests::oracle::{Conn, End, Protocol};
use np_tests::simulation::Simulation;
use serde::Deserialize;
use serde_json::json;

const TABLE: &str = include_str!("../fixtures/tricky-cases.yaml");

/// Neighbour discovery, and the way of a "fragmentation needed": no connections.
const NEED_TRAFFIC: [u32; 2] = [54, 55];
/// A spelling that only the agent's own reading of manifests takes.
const NEED_MANIFESTS: [u32; 1] = [23];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    case: u32,
    what: String,
    policies: Vec<NetworkPolicySpec>,
    #[serde(default)]
    pods: BTreeMap<String, PodChange>,
    /// Labels to add.
    #[serde(default)]
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    probes: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
struct PodChange {
    labels: BTreeMap<String, String>,
    addresses: Vec<IpAddr>,
    node: Option<String>,
    host_network: bool,
    phase: Option<String>,
    terminating: bool,
    ports: Vec<ContainerPort>,
    second_container: Vec<ContainerPort>,
    sidecar: Vec<ContainerPort>,
    init_container: Vec<ContainerPort>,
}

#[derive(Deserialize, PartialEq, Debug)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
}

fn table() -> Vec<Row> {
    serde_saphyr::from_str(TABLE).expect("the table is well-formed")
}

fn node_address(node: &str) -> IpAddr {
    match node {
        "n1" => [192, 168, 65, 10].into(),
        "n2" => [192, 168, 65, 11].into(),
        other => panic!("no node is called {other}"),
    }
}

fn namespace(name: &str, more: Option<&BTreeMap<String, String>>) -> Namespace {
    let own = [("ns", name), ("kubernetes.io/metadata.name", name)];
    let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let labels = own.into_iter().chain(more.cloned().unwrap_or_default()).collect();
    let metadata =
        ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

fn pod(namespace: (usize, &str), name: (usize, &str), change: &PodChange) -> Pod {
    let ((i, namespace), (j, name)) = (namespace, name);
    let node = change.node.as_deref().unwrap_or(if name == "b" { "n2" } else { "n1" });
    let addresses: Vec<String> = if change.host_network {
        vec![node_address(node).to_string()]
    } else if change.addresses.is_empty() {
        vec![format!("10.{i}.0.{j}"), format!("fd00::{i}:{j}")]
    } else {
        change.addresses.iter().map(IpAddr::to_string).collect()
    };
    let addresses: Vec<_> = addresses.into_iter().map(|ip| json!({"ip": ip})).collect();
    let mut labels = change.labels.clone();
    labels.insert("pod".into(), name.into());
    let always = (!change.sidecar.is_empty()).then_some("Always");
    let terminating = change.terminating.then_some("2026-01-02T03:04:05Z");
    serde_json::from_value(json!({
        "metadata": {
            "namespace": namespace, "name": name, "uid": format!("uid-{namespace}-{name}"),
            "labels": labels,
            "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": terminating,
        },
        "spec": {
            "nodeName": node,
            "hostNetwork": change.host_network,
            "containers": [
                {"name": "one", "ports": change.ports},
                {"name": "two", "ports": change.second_container},
            ],
            "initContainers": [
                {"name": "sidecar", "restartPolicy": always, "ports": change.sidecar},
                {"name": "init", "ports": change.init_container},
            ],
        },
        "status": {
            "phase": change.phase.as_deref().unwrap_or("Running"),
            "podIPs": addresses,
        },
    }))
    .expect("a pod")
}

impl Row {
    fn cluster(&self) -> Cluster {
        let (namespaces, pods) = ([(1, "x"), (2, "y"), (3, "z")], [(1, "a"), (2, "b"), (3, "c")]);
        let no_change = PodChange::default();
        let change =
            |ns: &str, name: &str| self.pods.get(&format!("{ns}/{name}")).unwrap_or(&no_change);
        let policy = |(i, spec): (usize, &NetworkPolicySpec)| NetworkPolicy {
            metadata: ObjectMeta {
                namespace: Some("x".into()),
                name: Some(i.to_string()),
                ..ObjectMeta::default()
            },
            spec: Some(spec.clone()),
        };
        Cluster {
            namespaces: namespaces
                .iter()
                .map(|(_, name)| namespace(name, self.namespaces.get(*name)))
                .collect(),
            pods: namespaces
                .iter()
                .flat_map(|ns| pods.iter().map(|name| pod(*ns, *name, change(ns.1, name.1))))
                .collect(),
            policies: self.policies.iter().enumerate().map(policy).collect(),
        }
    }

    fn probes(&self, cluster: &Cluster) -> impl Iterator<Item = (Conn, &Expected)> {
        self.probes.iter().map(|(text, expected)| (conn(text, cluster), expected))
    }
}

/// "source -> destination:port/PROTOCOL"; the family is that of whichever end is an address.
fn conn(text: &str, cluster: &Cluster) -> Conn {
    let (src, dst) = text.split_once(" -> ").expect("a probe has an arrow");
    let (dst, protocol) = match dst.rsplit_once('/') {
        Some((rest, "TCP")) => (rest, Protocol::Tcp),
        Some((rest, "UDP")) => (rest, Protocol::Udp),
        Some((rest, "SCTP")) => (rest, Protocol::Sctp),
        Some((rest, "ICMP")) => (rest, Protocol::IcmpEcho),
        Some((rest, number)) if rest.contains('/') || rest.contains('.') => {
            (rest, Protocol::Other(number.parse().expect("a protocol number")))
        }
        _ => (dst, Protocol::Tcp),
    };
    let default = if protocol.name().is_some() { 80 } else { 0 };
    let (dst, port) = match dst.rsplit_once(':') {
        Some((rest, port)) if !rest.contains(':') => (rest, port.parse().expect("a port")),
        _ => (dst, default),
    };
    let v6 = src.contains(':') || dst.contains(':');
    Conn { src: end(src, v6, cluster), dst: end(dst, v6, cluster), protocol, port }
}

fn end(text: &str, v6: bool, cluster: &Cluster) -> End {
    if let Ok(address) = text.parse() {
        return End::Address(address);
    }
    let Some((namespace, name)) = text.split_once('/') else {
        return End::Node { node: text.into(), address: node_address(text) };
    };
    let named = |pod: &&Pod| {
        pod.metadata.namespace.as_deref() == Some(namespace)
            && pod.metadata.name.as_deref() == Some(name)
    };
    let pod = cluster.pods.iter().find(named).unwrap_or_else(|| panic!("no pod {text}"));
    let ips = pod.status.iter().flat_map(|status| &status.pod_ips).flatten();
    let address = ips
        .filter_map(|one| one.ip.parse::<IpAddr>().ok())
        .find(|address| address.is_ipv6() == v6)
        .unwrap_or_else(|| panic!("{text} has no address of that family"));
    End::pod(text, address)
}

#[test]
fn every_case_is_in_the_table_or_needs_traffic() {
    let cases: BTreeSet<u32> = table().iter().map(|row| row.case).chain(NEED_TRAFFIC).collect();
    assert_eq!(cases, (1..=55).collect());
}

#[test]
fn the_oracle_gives_the_expected_verdicts() {
    let mut wrong = Vec::new();
    for row in table() {
        let cluster = row.cluster();
        let oracle = cluster.oracle();
        for (conn, expected) in row.probes(&cluster) {
            let verdict = oracle.verdict(&conn);
            if verdict.allowed() != (*expected == Expected::Allow) {
                wrong.push(format!("{} {}: {conn}: {verdict:?}", row.case, row.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_agent_gives_the_expected_verdicts() {
    let mut wrong = Vec::new();
    let mut unreadable = BTreeSet::new();
    for row in table() {
        let cluster = row.cluster();
        let Ok(changes) = changes(&cluster) else {
            unreadable.insert(row.case);
            continue;
        };
        let simulation = Simulation::new(changes);
        for (conn, expected) in row.probes(&cluster) {
            let answer = simulation.answer(&conn);
            let right = match expected {
                Expected::Allow => answer == Answer::Allowed,
                Expected::Deny => matches!(answer, Answer::EgressDenied | Answer::IngressDenied),
            };
            if !right {
                wrong.push(format!("{} {}: {conn}: {answer:?}", row.case, row.what));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(unreadable, NEED_MANIFESTS.into());
}
