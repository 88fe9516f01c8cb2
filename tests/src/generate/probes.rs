//! Connections worth trying in a cluster: at borders of blocks and port ranges, and with at least
//! one pod that policy knows.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicyPort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Cluster;
use super::dice::Dice;
use super::objects::{NODES, PORT_NUMBERS, node_addresses};
use super::policies::OUTSIDE;
use crate::oracle::{Conn, End, Protocol};

/// None when there is no pod that policy knows.
pub fn generate(dice: &mut Dice<'_>, cluster: &Cluster, count: usize) -> Vec<Conn> {
    let ends = Ends::of(cluster);
    if ends.pods.is_empty() {
        return Vec::new();
    }
    let entries: Vec<&NetworkPolicyPort> = entries(cluster);
    (0..count)
        .map(|_| {
            let a = dice.pick(&ends.pods);
            let among = dice.weighted(&[(60, &ends.pods), (8, &ends.nodes), (32, &ends.others)]);
            let same_family: Vec<&End> =
                among.iter().filter(|b| b.address().is_ipv4() == a.address().is_ipv4()).collect();
            let b = if same_family.is_empty() { a } else { *dice.pick(&same_family) };
            let (src, dst) = if dice.chance(50) { (a, b) } else { (b, a) };
            let (protocol, port) = destination_port(dice, cluster, &entries);
            Conn { src: src.clone(), dst: dst.clone(), protocol, port }
        })
        .collect()
}

struct Ends {
    /// Pods that policy knows, by each of the addresses that belong to them.
    pods: Vec<End>,
    /// Processes of nodes, hostNetwork pods among them.
    nodes: Vec<End>,
    /// Addresses that belong to no pod.
    others: Vec<End>,
}

impl Ends {
    fn of(cluster: &Cluster) -> Self {
        let oracle = cluster.oracle();
        let mut shown_by: Vec<(&Pod, IpAddr)> = Vec::new();
        for pod in &cluster.pods {
            shown_by.extend(shown(pod).map(|address| (pod, address)));
        }
        let is_owner = |pod: &Pod, address: IpAddr| {
            oracle.owner(address).is_some_and(|owner| owner.metadata.uid == pod.metadata.uid)
        };
        let host_network =
            |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        let end = |(pod, address): &(&Pod, IpAddr)| End::pod(key(pod), *address);

        let pods = shown_by.iter().filter(|(pod, address)| is_owner(pod, *address)).map(end);
        let host_pods = shown_by.iter().filter(|(pod, _)| host_network(pod)).map(end);
        let nodes = NODES.iter().enumerate().flat_map(|(i, node)| {
            node_addresses(i).map(|address| End::Node { node: (*node).into(), address })
        });
        let others = (0..NODES.len())
            .flat_map(node_addresses)
            .chain(OUTSIDE.iter().filter_map(|address| address.parse().ok()))
            .chain(shown_by.iter().map(|(_, address)| *address))
            .chain(block_borders(cluster))
            .filter(|address| routable(*address) && oracle.owner(*address).is_none())
            .map(End::Address);
        Self {
            pods: pods.collect(),
            nodes: nodes.chain(host_pods).collect(),
            others: others.collect(),
        }
    }
}

/// The first and last addresses of all blocks and excepts, and their neighbours outside.
fn block_borders(cluster: &Cluster) -> Vec<IpAddr> {
    let mut borders = Vec::new();
    for block in super::coverage::blocks(cluster) {
        for net in block.except.iter().chain([&block.cidr]) {
            borders.extend([net.network(), net.broadcast()]);
            borders.extend(before(net.network()));
            borders.extend(after(net.broadcast()));
        }
    }
    borders
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

/// Whether a packet can bear the address as source and as destination; in IPv6 also that it is
/// no IPv4 address in disguise.
fn routable(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && address.to_canonical() == address
}

fn entries(cluster: &Cluster) -> Vec<&NetworkPolicyPort> {
    let specs = cluster.policies.iter().filter_map(|policy| policy.spec.as_ref());
    specs
        .flat_map(|spec| {
            let ingress = spec.ingress.iter().flatten().flat_map(|rule| &rule.ports);
            ingress.chain(spec.egress.iter().flatten().flat_map(|rule| &rule.ports)).flatten()
        })
        .collect()
}

fn destination_port(
    dice: &mut Dice<'_>,
    cluster: &Cluster,
    entries: &[&NetworkPolicyPort],
) -> (Protocol, u16) {
    let any = dice.weighted(&[
        (50, Protocol::Tcp),
        (15, Protocol::Udp),
        (10, Protocol::Sctp),
        (10, Protocol::IcmpEcho),
        (5, Protocol::Other(47)),
    ]);
    if entries.is_empty() || dice.chance(35) {
        let port = if dice.chance(10) { 0 } else { *dice.pick(&PORT_NUMBERS) };
        return (any, if any.name().is_some() { port } else { 0 });
    }
    let entry = *dice.pick(entries);
    let protocol = match entry.protocol.as_deref() {
        _ if dice.chance(20) => any,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    };
    if protocol.name().is_none() {
        return (protocol, 0);
    }
    let port = match &entry.port {
        None => i32::from(*dice.pick(&PORT_NUMBERS)),
        Some(IntOrString::Int(first)) => {
            let last = entry.end_port.unwrap_or(*first);
            *dice.pick(&[*first - 1, *first, last, last + 1])
        }
        Some(IntOrString::String(name)) => {
            let numbers = numbers(cluster, name);
            if numbers.is_empty() { 80 } else { *dice.pick(&numbers) }
        }
    };
    (protocol, port.clamp(0, i32::from(u16::MAX)) as u16)
}

/// What containers of any kind call by this name.
fn numbers(cluster: &Cluster, name: &str) -> Vec<i32> {
    let specs = cluster.pods.iter().filter_map(|pod| pod.spec.as_ref());
    specs
        .flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()))
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| port.name.as_deref() == Some(name))
        .map(|port| port.container_port)
        .collect()
}

/// The addresses in a pod's status.
pub fn shown(pod: &Pod) -> impl Iterator<Item = IpAddr> {
    let status = pod.status.iter();
    let first = status.clone().flat_map(|status| &status.pod_ip);
    let others = status.flat_map(|status| status.pod_ips.iter().flatten()).map(|one| &one.ip);
    let mut all: Vec<IpAddr> =
        first.chain(others).filter_map(|address| address.parse().ok()).collect();
    all.sort_unstable();
    all.dedup();
    all.into_iter()
}

pub fn key(pod: &Pod) -> String {
    let metadata = &pod.metadata;
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}
