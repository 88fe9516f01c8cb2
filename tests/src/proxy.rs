//! Services as kube-proxy makes them: the same chains, marks and masquerading, so that whatever the
//! agent sees here it sees on a real node.
//!
//! [`iptables`], [`nftables`] and [`ipvs`] write kube-proxy's three modes from one [`Service`]; the
//! last needs a kernel that has IPVS.
//! Host ports and the masquerading of pods towards the internet are not kube-proxy's: the portmap
//! plugin and ip-masq-agent write them, with iptables in either mode ([`node`]).

mod iptables;
mod ipvs;
mod nftables;
mod node;

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Result, bail};
use ipnet::IpNet;

use crate::address::Family;
use crate::netns::Namespace;
use crate::topology::{NodeSpec, Spec};

/// kube-proxy's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Iptables,
    Nftables,
    Ipvs,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Iptables => "iptables",
            Mode::Nftables => "nftables",
            Mode::Ipvs => "ipvs",
        })
    }
}

impl FromStr for Mode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "iptables" => Ok(Mode::Iptables),
            "nftables" => Ok(Mode::Nftables),
            "ipvs" => Ok(Mode::Ipvs),
            other => bail!("no proxy mode is named {other}: use iptables, nftables or ipvs"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    fn lower(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExternalTrafficPolicy {
    /// Every node forwards to any endpoint, with its own address as the source.
    Cluster,
    /// A node forwards to its own endpoints only and keeps the client's address.
    Local,
}

#[derive(Clone, Debug)]
pub struct ServicePort {
    pub name: &'static str,
    pub protocol: Protocol,
    pub port: u16,
    pub target_port: u16,
    pub node_port: Option<u16>,
}

/// A Service with a cluster address in both families.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: &'static str,
    pub namespace: &'static str,
    pub address: Ipv4Addr,
    pub ports: Vec<ServicePort>,
    pub external_traffic_policy: ExternalTrafficPolicy,
    /// A load balancer's address or an external IP: to kube-proxy they are the same. The network
    /// leads it to the node of the first endpoint.
    pub external: Option<Ipv4Addr>,
    /// `sessionAffinity: ClientIP`.
    pub affinity: bool,
    /// Names of the pods behind it; of hosts outside for a Service without selector.
    pub endpoints: Vec<&'static str>,
}

impl Service {
    /// One TCP port and another behind it, from within the cluster only.
    pub fn new(
        name: &'static str,
        namespace: &'static str,
        address: Ipv4Addr,
        (port, target_port): (u16, u16),
        endpoints: &[&'static str],
    ) -> Self {
        let protocol = Protocol::Tcp;
        Self {
            name,
            namespace,
            address,
            ports: vec![ServicePort { name: "port", protocol, port, target_port, node_port: None }],
            external_traffic_policy: ExternalTrafficPolicy::Cluster,
            external: None,
            affinity: false,
            endpoints: endpoints.to_vec(),
        }
    }

    pub fn with_node_port(mut self, node_port: u16) -> Self {
        for port in &mut self.ports {
            port.node_port = Some(node_port);
        }
        self
    }
}

/// Seconds for which kube-proxy sends a client to the same endpoint, by default.
const AFFINITY: u32 = 10_800;

/// Writes all rules of a node.
pub fn install(spec: &Spec, node: &NodeSpec, mode: Mode, inside: &Namespace) -> Result<()> {
    if mode == Mode::Ipvs {
        ipvs::prepare(inside)?;
    }
    for family in Family::BOTH {
        let view = View::new(spec, node, family);
        match mode {
            Mode::Iptables => {
                restore(inside, family, &iptables::rules(&view))?;
            }
            Mode::Nftables => inside.nft(&nftables::rules(&view))?,
            Mode::Ipvs => ipvs::install(&view, inside)?,
        }
        restore(inside, family, &node::rules(spec, node, family))?;
    }
    Ok(())
}

/// The names the cluster's DNS answers for, with their IPv4 addresses.
pub fn zone(spec: &Spec) -> Vec<(String, Ipv4Addr)> {
    spec.services
        .iter()
        .map(|s| (format!("{}.{}.svc.cluster.local", s.name, s.namespace), s.address))
        .collect()
}

fn restore(inside: &Namespace, family: Family, rules: &str) -> Result<()> {
    let program = match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    };
    inside.feed(program, &["--noflush"], rules).map(drop)
}

/// Appends one line. Writing to a string cannot fail.
fn put(text: &mut String, line: fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a string takes every write");
}

/// What kube-proxy on one node knows, in one family, resolved to addresses.
struct View {
    family: Family,
    cluster_block: IpNet,
    node_address: String,
    ports: Vec<PortView>,
}

/// One port of one Service.
struct PortView {
    /// `namespace/name:port`, as kube-proxy's comments have it.
    title: String,
    /// `namespace/name/protocol/port`, as the names of its nftables chains have it.
    path: String,
    /// The 16 letters that stand for the port in names of chains.
    hash: String,
    protocol: &'static str,
    cluster_ip: String,
    external_ip: Option<String>,
    port: u16,
    node_port: Option<u16>,
    local_only: bool,
    affinity: bool,
    endpoints: Vec<EndpointView>,
}

struct EndpointView {
    hash: String,
    ip: String,
    /// With brackets around an IPv6 address.
    ip_port: String,
    port: u16,
    local: bool,
}

impl View {
    fn new(spec: &Spec, node: &NodeSpec, family: Family) -> Self {
        let ports = spec.services.iter().flat_map(|service| {
            service.ports.iter().map(|port| PortView::new(spec, node, family, service, port))
        });
        Self {
            family,
            cluster_block: family.block(spec.pod_range),
            node_address: family.address(node.address).to_string(),
            ports: ports.collect(),
        }
    }
}

impl PortView {
    fn new(
        spec: &Spec,
        node: &NodeSpec,
        family: Family,
        service: &Service,
        port: &ServicePort,
    ) -> Self {
        let title = format!("{}/{}:{}", service.namespace, service.name, port.name);
        let protocol = port.protocol.lower();
        let endpoints = service.endpoints.iter().filter_map(|name| {
            let local = spec.pod(name).is_some_and(|pod| pod.node == node.name);
            let ip = family.address(spec.address(name)?);
            let ip_port = std::net::SocketAddr::new(ip, port.target_port).to_string();
            Some(EndpointView {
                hash: hash(&format!("{title}{protocol}{ip_port}")),
                ip: ip.to_string(),
                ip_port,
                port: port.target_port,
                local,
            })
        });
        Self {
            path: format!("{}/{}/{protocol}/{}", service.namespace, service.name, port.name),
            hash: hash(&format!("{title}{protocol}")),
            protocol,
            cluster_ip: family.address(service.address).to_string(),
            external_ip: service.external.map(|ip| family.address(ip).to_string()),
            port: port.port,
            node_port: port.node_port,
            local_only: service.external_traffic_policy == ExternalTrafficPolicy::Local,
            affinity: service.affinity,
            endpoints: endpoints.collect(),
            title,
        }
    }

    /// Whether anyone comes to it by other ways than the cluster IP.
    fn is_external(&self) -> bool {
        self.node_port.is_some() || self.external_ip.is_some()
    }

    fn local_endpoints(&self) -> Vec<&EndpointView> {
        self.endpoints.iter().filter(|endpoint| endpoint.local).collect()
    }
}

/// Sixteen letters of base 32, as in kube-proxy's names; which hash they come from shows nowhere.
fn hash(text: &str) -> String {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut letters = String::new();
    for round in 0..2_u8 {
        for byte in text.bytes().chain([round]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        for digit in 0..8 {
            let index = (state >> (20 + 5 * digit)) & 31;
            letters.push(char::from(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"[index as usize]));
        }
    }
    letters
}
