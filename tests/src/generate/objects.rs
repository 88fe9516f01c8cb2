//! Namespaces and pods.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, Namespace, Pod, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

use super::dice::Dice;

/// Keys and their values. Some keys occur only in selectors.
pub type Vocabulary = &'static [(&'static str, &'static [&'static str])];

pub const NODES: [&str; 2] = ["n1", "n2"];
pub const POD_LABELS: Vocabulary =
    &[("app", &["a", "b", ""]), ("role", &["db", "web"]), ("tier", &["", "back"])];
pub const NAMESPACE_LABELS: Vocabulary = &[("team", &["red", "blue", ""]), ("env", &["prod"])];
/// The label that the API server gives every namespace.
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
pub const NAMESPACES: [&str; 4] = ["w", "x", "y", "z"];
pub const PORT_NAMES: [&str; 3] = ["dns", "metrics", "web"];
pub const PORT_NUMBERS: [u16; 6] = [53, 80, 81, 443, 8080, 65535];

const CREATED: i64 = 1_700_000_000;

pub fn node_addresses(node: usize) -> [IpAddr; 2] {
    let host = 10 + node as u16;
    [
        Ipv4Addr::new(192, 168, 65, host as u8).into(),
        Ipv6Addr::new(0xfd00, 0x65, 0, 0, 0, 0, 0, host).into(),
    ]
}

/// The namespaces that have objects, and the pods of these and of others.
pub fn generate(dice: &mut Dice<'_>) -> (Vec<Namespace>, Vec<Pod>) {
    let names = &NAMESPACES[..dice.between(2, 4)];
    let namespaces = dice.some(88, names, |dice, name| namespace(dice, name));
    let count = dice.between(3, 12);
    let mut pods: Vec<Pod> = (0..count).map(|i| pod(dice, i, names)).collect();
    if dice.chance(40) {
        let heir = dice.below(count);
        let ancestor = dice.below(count);
        if heir != ancestor {
            inherit_address(dice, &mut pods, ancestor, heir);
        }
    }
    (namespaces, pods)
}

fn namespace(dice: &mut Dice<'_>, name: &str) -> Namespace {
    let mut labels = labels(dice, NAMESPACE_LABELS);
    labels.insert(NAMESPACE_NAME.into(), name.into());
    let metadata =
        ObjectMeta { name: Some(name.into()), labels: Some(labels), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

fn labels(dice: &mut Dice<'_>, vocabulary: Vocabulary) -> BTreeMap<String, String> {
    let labels = dice
        .some(55, vocabulary, |dice, (key, values)| ((*key).into(), (*dice.pick(values)).into()));
    labels.into_iter().collect()
}

fn pod(dice: &mut Dice<'_>, i: usize, namespaces: &[&str]) -> Pod {
    let node = dice.below(NODES.len());
    let host_network = dice.chance(8);
    let addresses = match (host_network, node_addresses(node)) {
        (true, addresses) => addresses,
        (false, _) => {
            let host = i as u16 + 1;
            [
                Ipv4Addr::new(10, 1, node as u8, host as u8).into(),
                Ipv6Addr::new(0xfd00, 1, node as u16, 0, 0, 0, 0, host).into(),
            ]
        }
    };
    let [v4, v6] = addresses;
    let addresses: Vec<IpAddr> = dice
        .weighted(&[(60, &[v4, v6][..]), (20, &[v6, v4]), (10, &[v4]), (7, &[v6]), (3, &[])])
        .to_vec();
    let time = |second| Time(Timestamp::from_second(second).expect("a time in this century"));
    // Ages are a permutation of 0..13 times some seconds: no two pods are of the same one.
    let created = CREATED + (i as i64 * 5 % 13) * 10;
    let labels = (!dice.chance(8)).then(|| labels(dice, POD_LABELS));
    Pod {
        metadata: ObjectMeta {
            namespace: Some((*dice.pick(namespaces)).into()),
            name: Some(format!("p{i}")),
            uid: Some(format!("uid-{i}")),
            labels,
            creation_timestamp: Some(time(created)),
            deletion_timestamp: dice.chance(12).then(|| time(CREATED + 1000)),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: (!addresses.is_empty()).then(|| NODES[node].into()),
            host_network: dice
                .weighted(&[(1, Some(false)), (9, None)])
                .filter(|_| !host_network)
                .or(host_network.then_some(true)),
            containers: containers(dice, "main", 1, 2),
            init_containers: dice.chance(25).then(|| init_containers(dice)),
            ..PodSpec::default()
        }),
        status: Some(status(dice, &addresses)),
    }
}

fn status(dice: &mut Dice<'_>, addresses: &[IpAddr]) -> PodStatus {
    let phase = dice.weighted(&[
        (70, Some("Running")),
        (10, Some("Pending")),
        (6, Some("Succeeded")),
        (5, Some("Failed")),
        (4, Some("Unknown")),
        (5, None),
    ]);
    // Objects from old servers have the one address only.
    let only_first = dice.chance(6);
    PodStatus {
        phase: phase.map(Into::into),
        pod_ip: addresses.first().map(IpAddr::to_string),
        pod_ips: (!only_first && !addresses.is_empty())
            .then(|| addresses.iter().map(|address| PodIP { ip: address.to_string() }).collect()),
        ..PodStatus::default()
    }
}

/// Gives one pod the addresses of another, all or the first.
fn inherit_address(dice: &mut Dice<'_>, pods: &mut [Pod], ancestor: usize, heir: usize) {
    let host = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    if host(&pods[ancestor]) || host(&pods[heir]) {
        return;
    }
    let Some(inherited) = pods[ancestor].status.clone() else { return };
    let node = pods[ancestor].spec.as_ref().and_then(|spec| spec.node_name.clone());
    if let Some(status) = &mut pods[heir].status {
        status.pod_ip = inherited.pod_ip;
        status.pod_ips = inherited.pod_ips;
        if dice.chance(30)
            && let Some(ips) = &mut status.pod_ips
        {
            ips.truncate(1);
        }
    }
    if let Some(spec) = &mut pods[heir].spec {
        spec.node_name = node;
    }
    // Most ancestors are on their way out: else nothing but age could tell.
    if dice.chance(70) {
        if dice.chance(50) {
            pods[ancestor].metadata.deletion_timestamp =
                pods[ancestor].metadata.creation_timestamp.clone();
        } else if let Some(status) = &mut pods[ancestor].status {
            status.phase = Some("Succeeded".into());
        }
    }
}

fn containers(dice: &mut Dice<'_>, name: &str, first: usize, last: usize) -> Vec<Container> {
    let count = dice.between(first, last);
    (0..count)
        .map(|i| Container {
            name: format!("{name}{i}"),
            ports: (!dice.chance(15)).then(|| ports(dice)),
            ..Container::default()
        })
        .collect()
}

/// Sidecars, whose ports count, and ordinary ones, whose ports do not.
fn init_containers(dice: &mut Dice<'_>) -> Vec<Container> {
    let mut containers = containers(dice, "init", 1, 2);
    for container in &mut containers {
        container.restart_policy = dice.chance(60).then(|| "Always".into());
    }
    containers
}

/// Names are unique in a container, not in a pod.
fn ports(dice: &mut Dice<'_>) -> Vec<ContainerPort> {
    dice.some(50, &PORT_NAMES, |dice, name| ContainerPort {
        name: (!dice.chance(8)).then(|| (*name).into()),
        container_port: i32::from(*dice.pick(&PORT_NUMBERS)),
        protocol: dice
            .weighted(&[(4, None), (3, Some("TCP")), (3, Some("UDP")), (1, Some("SCTP"))])
            .map(Into::into),
        ..ContainerPort::default()
    })
}
