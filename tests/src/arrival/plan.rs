//! The plan of the world, and what its hosts need to be hard to live in: node-1 and node-2 differ in all
//! they can, connections are soon forgotten, kernels keep quiet about what the adversary says in their
//! name.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::address::twin_block;
use crate::netns::Namespace;
use crate::proxy::{self, ExternalTrafficPolicy, Mode, Protocol, Service, ServicePort};
use crate::topology::plan::{address, pod, two_nodes};
use crate::topology::{Cluster, OutsideSpec, PodSpec, Shape, Spec, Wiring};
use crate::wire;

/// The shapes of node 0 and node 1.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    /// The node whose pods are on a bridge; the other's are behind routes.
    pub bridged: usize,
    /// By node.
    pub proxies: [Mode; 2],
}

fn routed_then_bridged(wiring: &Wiring<'_>) -> Result<()> {
    by_block(wiring, 2)
}

fn bridged_then_routed(wiring: &Wiring<'_>) -> Result<()> {
    by_block(wiring, 1)
}

fn by_block(wiring: &Wiring<'_>, bridged: u8) -> Result<()> {
    let is_bridged = wiring.block.network().octets()[2] == bridged;
    let shape = if is_bridged { Shape::BRIDGE } else { Shape::PTP };
    (shape.attach)(wiring)
}

fn service(name: &'static str, last: u8, node_ports: [u16; 2], local: bool) -> Service {
    let [tcp, udp] = node_ports.map(Some);
    let port = |name, protocol, port, target_port, node_port| ServicePort {
        name,
        protocol,
        port,
        target_port,
        node_port,
    };
    let endpoints: &[&'static str] = match name {
        "web" => &["web-1", "web-2"],
        "closed" => &["closed-1", "closed-2"],
        _ => &["choosy-1", "choosy-2"],
    };
    let mut service =
        Service::new(name, "default", Ipv4Addr::new(100, 64, 5, last), (80, 8080), endpoints);
    service.ports =
        vec![port("tcp", Protocol::Tcp, 80, 8080, tcp), port("udp", Protocol::Udp, 53, 5353, udp)];
    if local {
        service.external_traffic_policy = ExternalTrafficPolicy::Local;
    }
    service
}

pub fn spec(make: Make) -> Spec {
    let pods: Vec<PodSpec> = vec![
        pod("open-1", "node-1", "100.68.1.10", &[("app", "open")]),
        pod("web-1", "node-1", "100.68.1.11", &[("app", "web")]),
        pod("closed-1", "node-1", "100.68.1.12", &[("app", "closed")]),
        pod("jailed-1", "node-1", "100.68.1.13", &[("app", "jailed")]),
        pod("choosy-1", "node-1", "100.68.1.14", &[("app", "choosy")]),
        pod("open-2", "node-2", "100.68.2.10", &[("app", "open")]),
        pod("web-2", "node-2", "100.68.2.11", &[("app", "web")]),
        pod("closed-2", "node-2", "100.68.2.12", &[("app", "closed")]),
        pod("jailed-2", "node-2", "100.68.2.13", &[("app", "jailed")]),
        pod("choosy-2", "node-2", "100.68.2.14", &[("app", "choosy")]),
    ];
    let attach = if make.bridged == 1 { routed_then_bridged } else { bridged_then_routed };
    Spec {
        outside: vec![
            OutsideSpec { name: "internet", address: address("203.0.113.50") },
            OutsideSpec { name: "elsewhere", address: address("203.0.113.60") },
        ],
        services: vec![
            service("web", 10, [30080, 30053], false),
            service("closed", 11, [30081, 30054], true),
            service("choosy", 12, [30082, 30055], true),
        ],
        shape: Shape { name: "one node routed, one bridged", attach, ..Shape::PTP },
        ..two_nodes(pods)
    }
}

/// Writes each node's own proxy rules, and opens what would hide a wrong verdict.
pub fn prepare(cluster: &Cluster, make: Make) -> Result<()> {
    for (index, node) in cluster.spec.nodes.iter().enumerate() {
        let inside = cluster.namespace(node.name)?;
        if make.proxies[index] != Mode::Iptables {
            inside.call("nft flush ruleset")?;
            proxy::install(&cluster.spec, node, make.proxies[index], inside)?;
        }
        let block = node.pod_block;
        for (program, from, to) in [
            ("iptables", block.to_string(), "203.0.113.0/24"),
            ("ip6tables", twin_block(block).to_string(), "fd00:203:0:113::/64"),
        ] {
            // The agent judges also what is not a valid part of a connection.
            inside.call(&format!("{program} -I FORWARD -j ACCEPT"))?;
            // Where the kernel need not find another port it keeps the pod's.
            inside.call(&format!(
                "{program} -t nat -I POSTROUTING -s {from} -d {to} -j MASQUERADE"
            ))?;
        }
        inside.sysctls(NODE)?;
    }
    Ok(())
}

/// What a pod's kernel says of packets that it does not know is in the way of what the adversary says
/// in its name.
pub fn silence(inside: &Namespace) -> Result<()> {
    inside.nft(
        "table inet silence {\n chain output {\n  type filter hook output priority 0;\n  \
         tcp flags & rst == rst drop\n }\n}\n",
    )
}

/// The hardware address of an outside host's router, which it learns by asking: any route leads there.
pub fn router_of(inside: &Namespace) -> Result<[u8; 6]> {
    inside.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        Ok(socket.send_to(b"?", "192.168.64.1:9").map(drop)?)
    })?;
    thread::sleep(Duration::from_millis(100));
    let known = inside.feed("ip", &["neigh", "show", "169.254.1.1"], "")?;
    let word = known.split("lladdr ").nth(1).and_then(|rest| rest.split(' ').next());
    word.and_then(wire::hardware_address)
        .with_context(|| format!("the router's hardware address: {known}"))
}

/// Connections are forgotten soon, so that tuples come again; errors are not rationed.
const NODE: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/accept_local", "1"),
    ("net/netfilter/nf_conntrack_udp_timeout", "1"),
    ("net/netfilter/nf_conntrack_udp_timeout_stream", "1"),
    ("net/netfilter/nf_conntrack_icmp_timeout", "1"),
    ("net/netfilter/nf_conntrack_icmpv6_timeout", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_sent", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "1"),
    ("net/netfilter/nf_conntrack_tcp_timeout_unacknowledged", "1"),
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
];

pub const LEAF: &[(&str, &str)] =
    &[("net/ipv4/icmp_ratelimit", "0"), ("net/ipv6/icmp/ratelimit", "0")];
