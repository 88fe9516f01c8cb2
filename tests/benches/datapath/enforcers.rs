//! The same policy by different means: so many peers may reach the server at four ports, the client is
//! the last of them, and nobody else may.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use np_tests::address::Family;
use np_tests::agent::{Agents, POLICIES};
use np_tests::bpf::{self, TcSide};
use np_tests::netns::Namespace;
use np_tests::proxy::Mode;
use np_tests::topology::plan::{pod, two_nodes};
use np_tests::topology::{Cluster, Spec, host_device};

use crate::load::{self, CONNECT, EXCHANGE, SINK, STREAM, Sample};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcer {
    None,
    Control,
    Hooks,
    NpAgent,
    NftSet,
    Ipset,
    Iptables,
}

impl Enforcer {
    /// The first is what the others are measured by.
    pub const ALL: [Enforcer; 7] = [
        Enforcer::None,
        Enforcer::Control,
        Enforcer::Hooks,
        Enforcer::NpAgent,
        Enforcer::NftSet,
        Enforcer::Ipset,
        Enforcer::Iptables,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Enforcer::None => "no policy",
            Enforcer::Control => "no policy (control)",
            Enforcer::Hooks => "programs that do nothing",
            Enforcer::NpAgent => "np-agent",
            Enforcer::NftSet => "nftables set",
            Enforcer::Ipset => "iptables + ipset (kube-router's shape)",
            Enforcer::Iptables => "iptables, a rule for each peer",
        }
    }
}

/// A node with a client and a server, under a policy.
pub struct Place {
    // Dropped in this order: the agent goes before the namespaces it runs in.
    _agents: Option<Agents>,
    _links: Vec<OwnedFd>,
    cluster: Cluster,
    server: IpAddr,
}

impl Place {
    pub fn build(enforcer: Enforcer, peers: usize) -> Result<Self> {
        let cluster = Cluster::build(spec(), Mode::Iptables)?;
        load::serve(cluster.namespace("server")?)?;
        let node = cluster.namespace("node-1")?;
        let client = cluster.spec.address("client").context("the client has an address")?;
        let server = cluster.spec.address("server").context("the server has an address")?;
        // Out of any range that means something here, the client at the end.
        let peers: Vec<Ipv4Addr> = (0..peers as u32 - 1)
            .map(|number| Ipv4Addr::from(u32::from(Ipv4Addr::new(11, 0, 0, 0)) + number))
            .chain([client])
            .collect();
        let (mut agents, mut links) = (None, Vec::new());
        match enforcer {
            Enforcer::None | Enforcer::Control => {}
            Enforcer::NpAgent => {
                let mut started = Agents::start(&cluster)?;
                started.apply(POLICIES, Some(&manifest(&peers)))?;
                agents = Some(started);
            }
            Enforcer::Hooks => links = node.run(hooks)?,
            Enforcer::NftSet => nft_set(node, server, &peers)?,
            Enforcer::Ipset => ipset(node, server, &peers)?,
            Enforcer::Iptables => iptables(node, server, &peers)?,
        }
        let server = cluster.address("server", Family::V4)?;
        Ok(Self { _agents: agents, _links: links, cluster, server })
    }

    pub fn sample(&self) -> Result<Sample> {
        load::sample(self.cluster.namespace("client")?, self.server)
    }
}

/// Where np-agent's programs would be.
fn hooks() -> Result<Vec<OwnedFd>> {
    let mut links = Vec::new();
    for device in ["client", "server"].map(host_device) {
        let ifindex = if_nametoindex(device.as_str())?;
        for side in [TcSide::Ingress, TcSide::Egress] {
            let program = bpf::load("empty", &bpf::returns(-1))?;
            links.push(bpf::attach(&program, ifindex, side, bpf::Place::Last)?);
        }
    }
    Ok(links)
}

pub fn spec() -> Spec {
    let server = pod("server", "node-1", "100.68.1.20", &[("app", "server")]);
    let mut spec = two_nodes(vec![pod("client", "node-1", "100.68.1.10", &[]), server]);
    spec.nodes.truncate(1);
    spec
}

/// The policy.
pub fn manifest(peers: &[Ipv4Addr]) -> String {
    let mut yaml = String::from(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n\
         metadata: {name: server, namespace: default}\nspec:\n  \
         podSelector: {matchLabels: {app: server}}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n",
    );
    for peer in peers {
        put(&mut yaml, format_args!("    - ipBlock: {{cidr: {peer}/32}}"));
    }
    yaml += "    ports:\n";
    for (protocol, port) in PORTS {
        put(&mut yaml, format_args!("    - {{protocol: {protocol}, port: {port}}}"));
    }
    yaml
}

const PORTS: [(&str, u16); 4] =
    [("TCP", CONNECT), ("TCP", STREAM), ("UDP", EXCHANGE), ("UDP", SINK)];

fn nft_set(node: &Namespace, server: Ipv4Addr, peers: &[Ipv4Addr]) -> Result<()> {
    let peers: Vec<String> = peers.iter().map(Ipv4Addr::to_string).collect();
    let rules = format!(
        "table ip pods {{
  set peers {{ type ipv4_addr; elements = {{ {} }} }}
  chain pod {{
    ip saddr @peers tcp dport {{ {CONNECT}, {STREAM} }} accept
    ip saddr @peers udp dport {{ {EXCHANGE}, {SINK} }} accept
    drop
  }}
  chain forward {{
    type filter hook forward priority 0;
    ct state established,related accept
    ip daddr {server} jump pod
  }}
}}
",
        peers.join(", ")
    );
    node.nft(&rules)
}

/// The chains that kube-router makes for a pod and a policy.
fn ipset(node: &Namespace, server: Ipv4Addr, peers: &[Ipv4Addr]) -> Result<()> {
    let mut set = String::from("create KUBE-SRC hash:ip maxelem 65536\n");
    for peer in peers {
        put(&mut set, format_args!("add KUBE-SRC {peer}"));
    }
    node.feed("ipset", &["restore"], &set)?;
    let from = "-m set --match-set KUBE-SRC src";
    restore(node, server, |rules| {
        for (protocol, port) in PORTS {
            let protocol = protocol.to_lowercase();
            put(
                rules,
                format_args!(
                    "-A KUBE-NWPLCY-SERVER -d {server} {from} -p {protocol} --dport {port} -j MARK --set-xmark 0x10000/0x10000"
                ),
            );
            put(
                rules,
                format_args!(
                    "-A KUBE-NWPLCY-SERVER -d {server} {from} -p {protocol} --dport {port} -m mark --mark 0x10000/0x10000 -j RETURN"
                ),
            );
        }
    })
}

fn iptables(node: &Namespace, server: Ipv4Addr, peers: &[Ipv4Addr]) -> Result<()> {
    restore(node, server, |rules| {
        for peer in peers {
            put(
                rules,
                format_args!(
                    "-A KUBE-NWPLCY-SERVER -s {peer} -d {server} -j MARK --set-xmark 0x10000/0x10000"
                ),
            );
        }
    })
}

fn restore(node: &Namespace, server: Ipv4Addr, policy: impl Fn(&mut String)) -> Result<()> {
    let mut rules = format!(
        "*filter\n:KUBE-POD-FW-SERVER - [0:0]\n:KUBE-NWPLCY-SERVER - [0:0]\n\
         -A KUBE-POD-FW-SERVER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -A KUBE-POD-FW-SERVER -m conntrack --ctstate INVALID -j DROP\n\
         -A KUBE-POD-FW-SERVER -m addrtype --src-type LOCAL -d {server} -j ACCEPT\n\
         -A KUBE-POD-FW-SERVER -d {server} -j KUBE-NWPLCY-SERVER\n\
         -A KUBE-POD-FW-SERVER -m mark ! --mark 0x10000/0x10000 -j REJECT\n\
         -A KUBE-POD-FW-SERVER -j MARK --set-xmark 0x0/0x10000\n\
         -I FORWARD -d {server} -j KUBE-POD-FW-SERVER\n"
    );
    policy(&mut rules);
    rules += "COMMIT\n";
    node.feed("iptables-restore", &["--noflush"], &rules).map(drop)
}

/// Appends one line. Writing to a string cannot fail.
fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every write");
}
