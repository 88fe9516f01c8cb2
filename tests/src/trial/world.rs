//! A client and a server on two nodes, a host outside, policies that name ports.

use std::net::IpAddr;

use crate::address::Family;
use crate::agent::{Agents, POLICIES};
use crate::probe::server::Listen;
use crate::proxy::{ExternalTrafficPolicy, Mode, Service};
use crate::topology::plan::{address, pod, two_nodes};
use crate::topology::{Cluster, OutsideSpec, Shape, Spec};
use anyhow::{Context, Result};

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

/// [`RULES`], but the servers may talk to whom they like.
pub fn ingress_only() -> String {
    RULES.replace(
        "app: server}}\n  policyTypes: [Ingress, Egress]",
        "app: server}}\n  policyTypes: [Ingress]",
    )
}

pub const ALLOWED: u16 = 8443;
pub const DENIED: u16 = 9443;
/// The server's Service: a port of every node that shows the server its client.
pub const NODE_PORT: u16 = 30443;

fn spec() -> Spec {
    let pods = vec![
        pod("client", "node-1", "100.68.1.10", &[("app", "client")]),
        pod("near", "node-1", "100.68.1.20", &[("app", "server")]),
        pod("far", "node-2", "100.68.2.20", &[("app", "server")]),
    ];
    let far = Service::new("far", "default", address("100.64.5.20"), (443, ALLOWED), &["far"]);
    let both = Listen { tcp: &[ALLOWED, DENIED], udp: &[ALLOWED, DENIED], dns: false };
    Spec {
        outside: vec![OutsideSpec { name: "internet", address: address("203.0.113.50") }],
        services: vec![Service {
            external_traffic_policy: ExternalTrafficPolicy::Local,
            ..far.with_node_port(NODE_PORT)
        }],
        pod_ports: both,
        outside_ports: both,
        ..two_nodes(pods)
    }
}

/// A cluster, and agents once they are started.
#[derive(Debug)]
pub struct World {
    // Dropped in this order: agents go before the namespaces they run in.
    pub agents: Option<Agents>,
    pub cluster: Cluster,
}

impl World {
    pub fn new() -> Result<Self> {
        Self::in_shape(Shape::PTP)
    }

    pub fn in_shape(shape: Shape) -> Result<Self> {
        let spec = Spec { shape, ..spec() };
        Ok(Self { agents: None, cluster: Cluster::build(spec, Mode::Iptables)? })
    }

    /// Puts the policies in force; the block is in one family.
    pub fn police(&mut self, family: Family) -> Result<()> {
        self.police_by(RULES, family)
    }

    pub fn police_by(&mut self, rules: &str, family: Family) -> Result<()> {
        if self.agents.is_none() {
            self.agents = Some(Agents::start(&self.cluster)?);
        }
        let agents = self.agents.as_mut().context("they have been started")?;
        agents.apply(POLICIES, Some(&family.manifest(rules))).map(drop)
    }

    pub fn address(&self, name: &str, family: Family) -> Result<IpAddr> {
        self.cluster.address(name, family)
    }

    pub fn counted(&mut self, reason: &str) -> Result<u64> {
        self.agents.as_mut().map_or(Ok(0), |agents| agents.counted(reason))
    }
}
