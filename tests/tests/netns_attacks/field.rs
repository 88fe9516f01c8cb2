//! The field of the attacks: a cluster, its agents, and what sends and captures raw frames in it.

use std::net::{IpAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use np_common::packet::{ETH_P_IPV4, ETH_P_IPV6};
use np_tests::address::Family;
use np_tests::agent::{Agents, POLICIES};
use np_tests::probe::server::Listen;
use np_tests::proxy::Mode;
use np_tests::raw::Raw;
use np_tests::topology::plan::{address, pod, two_nodes};
use np_tests::topology::{Cluster, OutsideSpec, Shape, Spec};
use np_tests::wire;

pub const ARRIVES: Duration = Duration::from_secs(4);
pub const SILENT: Duration = Duration::from_millis(250);
/// The ports of `careful`: open to everyone, and to no one.
pub const ALLOWED: u16 = 8443;
pub const DENIED: u16 = 9443;

fn spec() -> Spec {
    let pods = vec![
        pod("attacker", "node-1", "100.68.1.10", &[("app", "attacker")]),
        pod("open", "node-1", "100.68.1.11", &[("app", "open")]),
        pod("closed", "node-1", "100.68.1.12", &[("app", "closed")]),
        pod("choosy", "node-1", "100.68.1.13", &[("app", "choosy")]),
        pod("jailed", "node-1", "100.68.1.14", &[("app", "jailed")]),
        pod("careful", "node-1", "100.68.1.15", &[("app", "careful")]),
        pod("sealed", "node-1", "100.68.1.16", &[("app", "sealed")]),
        pod("remote", "node-2", "100.68.2.20", &[("app", "remote")]),
    ];
    Spec {
        outside: vec![OutsideSpec { name: "internet", address: address("203.0.113.50") }],
        pod_ports: Listen { tcp: &[80, ALLOWED, DENIED], udp: &[ALLOWED, DENIED], dns: false },
        ..two_nodes(pods)
    }
}

const RULES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: default}
spec:
  podSelector: {matchLabels: {app: closed}}
  policyTypes: [Ingress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: choosy, namespace: default}
spec:
  podSelector: {matchLabels: {app: choosy}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: open}}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: jailed, namespace: default}
spec:
  podSelector: {matchLabels: {app: jailed}}
  policyTypes: [Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: sealed, namespace: default}
spec:
  podSelector: {matchLabels: {app: sealed}}
  policyTypes: [Ingress, Egress]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: careful, namespace: default}
spec:
  podSelector: {matchLabels: {app: careful}}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: 8443}, {port: 8443, protocol: UDP}]
"#;

/// One cluster and what sends and captures in it.
pub struct Field {
    // Dropped in this order: agents go before the namespaces they run in.
    pub agents: Option<Agents>,
    pub cluster: Cluster,
    marker: u32,
    failures: Vec<String>,
}

/// Frames from a leaf, for a victim, and what must be counted when they are dropped.
pub struct Attack {
    pub name: &'static str,
    pub from: &'static str,
    pub victim: &'static str,
    pub packets: Vec<Sent>,
    pub reason: &'static str,
    pub hook: &'static str,
    /// False where the kernel itself refuses the packet on every node.
    pub control: bool,
}

/// What follows the two hardware addresses of a frame.
pub struct Sent {
    pub ethertype: u16,
    pub bytes: Vec<u8>,
    pub short_linear: bool,
}

pub fn ip_packet(bytes: Vec<u8>) -> Sent {
    let ethertype = if bytes[0] >> 4 == 6 { ETH_P_IPV6 } else { ETH_P_IPV4 };
    Sent { ethertype, bytes, short_linear: false }
}

impl Field {
    pub fn new() -> Result<Self> {
        Self::shaped(Shape::PTP)
    }

    pub fn shaped(shape: Shape) -> Result<Self> {
        let cluster = Cluster::build(Spec { shape, ..spec() }, Mode::Iptables)?;
        let node = cluster.namespace("node-1")?;
        // What is not a valid part of a connection is for the agent to judge, not for the
        // proxy's rules to drop; nor does the kernel refuse its own address as a source.
        for program in ["iptables", "ip6tables"] {
            node.feed(program, &["-I", "FORWARD", "-j", "ACCEPT"], "")?;
        }
        node.sysctls(&[
            ("net/ipv4/conf/all/accept_local", "1"),
            ("net/netfilter/nf_conntrack_udp_timeout", "1"),
        ])?;
        for pod in ["attacker", "open"].iter().filter(|_| shape.name == Shape::PTP.name) {
            node.ip(&format!("link set v-{pod} mtu 9000"))?;
            cluster.namespace(pod)?.ip("link set eth0 mtu 9000")?;
        }
        Ok(Self { agents: None, cluster, marker: 0, failures: Vec::new() })
    }

    pub fn start_agents(&mut self) -> Result<()> {
        let mut agents = Agents::start(&self.cluster)?;
        agents.apply(POLICIES, Some(RULES))?;
        self.agents = Some(agents);
        Ok(())
    }

    pub fn v4(&self, name: &str) -> IpAddr {
        self.cluster.address(name, Family::V4).expect("a host of the cluster")
    }

    pub fn v6(&self, name: &str) -> IpAddr {
        self.cluster.address(name, Family::V6).expect("a host of the cluster")
    }

    /// Eight bytes that no other packet holds.
    pub fn marker(&mut self) -> [u8; 8] {
        self.marker += 1;
        let [a, b, c, d] = self.marker.to_be_bytes();
        [0xbe, 0xef, 0xca, 0xfe, a, b, c, d]
    }

    pub fn count(&mut self, node: &str, hook: &str, reason: &str) -> Result<u64> {
        let Some(agents) = &mut self.agents else { return Ok(0) };
        Ok(agents.on(node)?.status()?.count(hook, reason))
    }

    pub fn send(&self, from: &str, packets: &[Sent]) -> Result<()> {
        let own = self.cluster.namespace(from)?.hardware_address("eth0")?;
        self.send_as(from, own, packets)
    }

    /// As another hardware address.
    pub fn send_as(&self, from: &str, own: [u8; 6], packets: &[Sent]) -> Result<()> {
        let inside = self.cluster.namespace(from)?;
        let router = match self.cluster.spec.pod(from) {
            Some(pod) => {
                let bridged = self.cluster.spec.shape.name != Shape::PTP.name;
                let device = if bridged { "cni0".to_owned() } else { format!("v-{from}") };
                self.cluster.namespace(pod.node)?.hardware_address(&device)?
            }
            None => {
                // The outside host learns its router by asking: any route leads there.
                inside.run(|| {
                    let socket = UdpSocket::bind("0.0.0.0:0")?;
                    Ok(socket.send_to(b"?", "192.168.64.1:9").map(drop)?)
                })?;
                thread::sleep(Duration::from_millis(50));
                let known = inside.feed("ip", &["neigh", "show", "169.254.1.1"], "")?;
                let word = known.split("lladdr ").nth(1).and_then(|rest| rest.split(' ').next());
                word.and_then(wire::hardware_address)
                    .with_context(|| format!("the router's hardware address: {known}"))?
            }
        };
        for packet in packets {
            let mut raw = Raw::open(inside, "eth0")?;
            if packet.short_linear {
                raw = raw.with_short_linear_part()?;
            }
            let mut frame = [router, own].concat();
            frame.extend(packet.ethertype.to_be_bytes());
            frame.extend(&packet.bytes);
            raw.send(&frame)?;
        }
        Ok(())
    }

    /// Sends packets and returns what of them came to the victim.
    pub fn delivered(
        &self,
        from: &str,
        victim: &str,
        packets: &[Sent],
        marker: &[u8],
        within: Duration,
    ) -> Result<Vec<Vec<u8>>> {
        let capture = Raw::open(self.cluster.namespace(victim)?, "eth0")?;
        self.send(from, packets)?;
        let enough = if within == SILENT { usize::MAX } else { 1 };
        capture.capture(marker, enough, within)
    }

    pub fn expect(&mut self, what: &str, holds: bool, seen: impl std::fmt::Debug) {
        if !holds {
            self.failures.push(format!("{what}: {seen:?}"));
        }
    }

    /// A packet that must (or must not) arrive, whatever else is counted.
    pub fn check(
        &mut self,
        what: &str,
        from: &str,
        victim: &str,
        packets: &[Sent],
        marker: &[u8],
        arrives: bool,
    ) -> Result<()> {
        let within = if arrives { ARRIVES } else { SILENT };
        let got = self.delivered(from, victim, packets, marker, within)?.len();
        self.expect(what, (got > 0) == arrives, format_args!("{got} arrived"));
        Ok(())
    }

    pub fn run(&mut self, attack: &Attack, marker: &[u8]) -> Result<()> {
        let Attack { name, from, victim, packets, reason, hook, control } = attack;
        if self.agents.is_none() {
            return match control {
                true => {
                    self.check(&format!("{name} (no agent)"), from, victim, packets, marker, true)
                }
                false => Ok(()),
            };
        }
        let before = self.count("node-1", hook, reason)?;
        self.check(name, from, victim, packets, marker, false)?;
        let after = self.count("node-1", hook, reason)?;
        self.expect(
            &format!("{name}: {reason} is counted at {hook}"),
            after > before,
            (before, after),
        );
        Ok(())
    }

    pub fn report(self) {
        assert!(self.failures.is_empty(), "\n{}", self.failures.join("\n"));
    }
}
