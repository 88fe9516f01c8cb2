//! A client and a server on two nodes, a host outside, policies that name ports.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use np_tests::address::{Family, twin_manifest};
use np_tests::agent::{Agents, POLICIES};
use np_tests::probe::server::Listen;
use np_tests::proxy::{ExternalTrafficPolicy, Mode, Protocol, Service, ServicePort};
use np_tests::topology::{
    Cluster, Labels, NamespaceSpec, NodeSpec, OutsideSpec, PodSpec, Shape, Spec,
};

/// The client may talk to the server and to the host outside, the server may be asked by both: all
/// of it at one port.
pub const RULES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress:
    - to:
        - podSelector: {matchLabels: {app: server}}
        - ipBlock: {cidr: 203.0.113.50/32}
      ports: [{port: 8443}, {port: 8443, protocol: UDP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {matchLabels: {app: client}}
        - ipBlock: {cidr: 203.0.113.50/32}
      ports: [{port: 8443}, {port: 8443, protocol: UDP}]
"#;

pub const ALLOWED: u16 = 8443;
pub const DENIED: u16 = 9443;
/// The server's Service: a port of every node that shows the server its client.
pub const NODE_PORT: u16 = 30443;

fn address(text: &str) -> Ipv4Addr {
    text.parse().expect("a valid address")
}

fn spec() -> Spec {
    let block = |text: &str| text.parse().expect("a valid block");
    let node = |name, ip, pods| NodeSpec { name, address: address(ip), pod_block: block(pods) };
    let pod = |name, node, ip, labels: Labels| PodSpec {
        name,
        namespace: "default",
        node,
        labels,
        address: Some(address(ip)),
        host_ports: &[],
    };
    let both = Listen { tcp: &[ALLOWED, DENIED], udp: &[ALLOWED, DENIED], dns: false };
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
        pods: vec![
            pod("client", "node-1", "100.68.1.10", &[("app", "client")]),
            pod("near", "node-1", "100.68.1.20", &[("app", "server")]),
            pod("far", "node-2", "100.68.2.20", &[("app", "server")]),
        ],
        outside: vec![OutsideSpec { name: "internet", address: address("203.0.113.50") }],
        services: vec![Service {
            name: "far",
            namespace: "default",
            address: address("100.64.5.20"),
            ports: vec![ServicePort {
                name: "https",
                protocol: Protocol::Tcp,
                port: 443,
                target_port: ALLOWED,
                node_port: Some(NODE_PORT),
            }],
            external_traffic_policy: ExternalTrafficPolicy::Local,
            external: None,
            affinity: false,
            endpoints: vec!["far"],
        }],
        pod_ports: both,
        node_ports: Listen { tcp: &[], udp: &[], dns: false },
        outside_ports: both,
        shape: Shape::PTP,
    }
}

/// A cluster, and agents once they are started.
pub struct World {
    // Dropped in this order: agents go before the namespaces they run in.
    pub agents: Option<Agents>,
    pub cluster: Cluster,
}

impl World {
    pub fn new() -> Result<Self> {
        Ok(Self { agents: None, cluster: Cluster::build(spec(), Mode::Iptables)? })
    }

    /// Puts the policies in force; the block is in one family.
    pub fn police(&mut self, family: Family) -> Result<()> {
        self.police_by(RULES, family)
    }

    pub fn police_by(&mut self, rules: &str, family: Family) -> Result<()> {
        if self.agents.is_none() {
            self.agents = Some(Agents::start(&self.cluster)?);
        }
        let policies = match family {
            Family::V4 => rules.to_string(),
            Family::V6 => twin_manifest(rules),
        };
        let agents = self.agents.as_mut().context("they have been started")?;
        agents.apply(POLICIES, Some(&policies)).map(drop)
    }

    pub fn address(&self, name: &str, family: Family) -> Result<IpAddr> {
        self.cluster.address(name, family)
    }

    pub fn counted(&mut self, reason: &str) -> Result<u64> {
        self.agents.as_mut().map_or(Ok(0), |agents| agents.counted(reason))
    }
}
