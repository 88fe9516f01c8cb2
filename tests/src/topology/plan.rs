//! The plan of small clusters: addresses as literals, two nodes, pods in one namespace.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Labels, NamespaceSpec, NodeSpec, PodSpec, Shape, Spec};
use crate::probe::server::Listen;

pub fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("the addresses of a cluster are literals")
}

pub fn block(text: &str) -> Ipv4Net {
    text.parse().expect("the blocks of a cluster are literals")
}

pub fn node(name: &'static str, ip: &str, pods: &str) -> NodeSpec {
    NodeSpec { name, address: address(ip), pod_block: block(pods) }
}

/// A pod of the namespace `default`.
pub fn pod(name: &'static str, node: &'static str, ip: &str, labels: Labels) -> PodSpec {
    let address = Some(address(ip));
    PodSpec { name, namespace: "default", node, labels, address, host_ports: &[] }
}

/// Two nodes with these pods, wired by ptp, of which nobody listens to anything.
pub fn two_nodes(pods: Vec<PodSpec>) -> Spec {
    Spec {
        node_network: block("192.168.64.0/19"),
        router: address("192.168.64.1"),
        pod_range: block("100.68.0.0/14"),
        unmasqueraded: ["100.64.0.0/10", "192.168.0.0/16"].map(block).to_vec(),
        namespaces: vec![NamespaceSpec { name: "default", labels: &[] }],
        nodes: vec![
            node("node-1", "192.168.65.10", "100.68.1.0/24"),
            node("node-2", "192.168.65.11", "100.68.2.0/24"),
        ],
        pods,
        outside: Vec::new(),
        services: Vec::new(),
        pod_ports: Listen::NOTHING,
        node_ports: Listen::NOTHING,
        outside_ports: Listen::NOTHING,
        shape: Shape::PTP,
    }
}
