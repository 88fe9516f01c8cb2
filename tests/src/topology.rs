//! A cluster of network namespaces: nodes on one link, pods behind veths, hosts outside.
//!
//! ```text
//!   outside hosts ──veth── fabric (router, bridge br0) ──eth0── node ──veth── pod
//!                          192.168.64.1/19
//! ```
//!
//! The fabric translates nothing. What is between eth0 and a pod is the CNI's, a [`Shape`]: how a
//! pod is attached, and by which way its packets reach the pods of other nodes.
//! All addresses are written in IPv4; [`crate::address`] gives each its IPv6 twin.

mod attach;
mod between;
mod forwarder;
pub mod plan;
pub mod plugin;
mod shape;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use ipnet::Ipv4Net;
use np_policy::model::IfIndex;

pub use attach::{Attach, Wiring, answer_for_gateway, host_device};
pub use between::{Connect, Node};
pub use shape::Shape;

use attach::ptp;
use between::route_via;
use forwarder::Forwarder;

use crate::address::{Family, twin, twin_block};
use crate::netns::Namespace;
use crate::probe::server::{Listen, Servers};
use crate::proxy::{self, Service};
use crate::wire::{Ip, send_frames};

/// Labels as `key=value` pairs.
pub type Labels = &'static [(&'static str, &'static str)];

#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: &'static str,
    pub address: Ipv4Addr,
    pub pod_block: Ipv4Net,
}

#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Unique in the whole cluster, so that a story can name a pod by one word.
    pub name: &'static str,
    pub namespace: &'static str,
    pub node: &'static str,
    pub labels: Labels,
    /// `None`: the pod has the host's network.
    pub address: Option<Ipv4Addr>,
    /// Host ports on the pod's node, each forwarded to a port of the pod.
    pub host_ports: &'static [(u16, u16)],
}

/// A host outside the cluster.
#[derive(Clone, Debug)]
pub struct OutsideSpec {
    pub name: &'static str,
    pub address: Ipv4Addr,
}

#[derive(Clone, Debug)]
pub struct NamespaceSpec {
    pub name: &'static str,
    pub labels: Labels,
}

/// Everything a cluster is made of.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The network of the nodes and the router's address in it.
    pub node_network: Ipv4Net,
    pub router: Ipv4Addr,
    /// All pod blocks lie in here.
    pub pod_range: Ipv4Net,
    /// Pods leave towards these blocks with their own address, elsewhere with their node's.
    pub unmasqueraded: Vec<Ipv4Net>,
    pub namespaces: Vec<NamespaceSpec>,
    pub nodes: Vec<NodeSpec>,
    pub pods: Vec<PodSpec>,
    pub outside: Vec<OutsideSpec>,
    pub services: Vec<Service>,
    /// What every pod, every node and every outside host listens on.
    pub pod_ports: Listen,
    pub node_ports: Listen,
    pub outside_ports: Listen,
    pub shape: Shape,
}

impl Spec {
    pub fn pod(&self, name: &str) -> Option<&PodSpec> {
        self.pods.iter().find(|pod| pod.name == name)
    }

    pub fn node(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The IPv4 address under which a pod, a node, an outside host or a Service is reached; a
    /// Service from outside as `NAME/external`.
    pub fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let pod = self.pod(name).map(|pod| match pod.address {
            Some(address) => Some(address),
            None => self.node(pod.node).map(|node| node.address),
        });
        pod.flatten()
            .or_else(|| self.node(name).map(|node| node.address))
            .or_else(|| self.outside.iter().find(|o| o.name == name).map(|o| o.address))
            .or_else(|| self.service(name).map(|service| service.address))
            .or_else(|| self.service(name.strip_suffix("/external")?)?.external)
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    pub spec: Spec,
    pub proxy: proxy::Mode,
    // Dropped in this order: servers and forwarders stop before their namespaces go.
    servers: Servers,
    forwarders: Vec<Forwarder>,
    hosts: Vec<Host>,
    fabric: Namespace,
}

#[derive(Debug)]
struct Host {
    name: &'static str,
    kind: Kind,
    inside: Namespace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Node,
    Pod,
    Outside,
}

impl Cluster {
    /// Builds the cluster: namespaces, links, routes, the proxy's rules, servers.
    pub fn build(spec: Spec, proxy: proxy::Mode) -> Result<Self> {
        let fabric = Namespace::new("fabric").context("make the network between the nodes")?;
        let mut hosts = Vec::new();
        let names = spec.nodes.iter().map(|n| (n.name, Kind::Node));
        let names = names
            .chain(spec.pods.iter().filter(|p| p.address.is_some()).map(|p| (p.name, Kind::Pod)));
        for (name, kind) in names.chain(spec.outside.iter().map(|o| (o.name, Kind::Outside))) {
            hosts.push(Host { name, kind, inside: Namespace::new(name)? });
        }
        let servers = Servers::new()?;
        let mut cluster = Self { spec, proxy, servers, forwarders: Vec::new(), hosts, fabric };
        cluster.wire_nodes()?;
        cluster.connect_nodes()?;
        cluster.in_parallel(|host| cluster.wire_leaf(host))?;
        cluster.in_parallel(|host| cluster.write_rules(host))?;
        cluster.listen()?;
        Ok(cluster)
    }

    /// The namespace of a pod, node or outside host; a pod with the host's network is in its
    /// node's.
    pub fn namespace(&self, name: &str) -> Result<&Namespace> {
        let name = match self.spec.pod(name) {
            Some(pod) if pod.address.is_none() => pod.node,
            _ => name,
        };
        self.hosts
            .iter()
            .find(|host| host.name == name)
            .map(|host| &host.inside)
            .with_context(|| format!("no pod, node or outside host is named {name}"))
    }

    /// The address under which `name` is reached in a family.
    pub fn address(&self, name: &str, family: Family) -> Result<IpAddr> {
        let v4 = self.spec.address(name).with_context(|| format!("{name} has no address"))?;
        Ok(family.address(v4))
    }

    /// Who has an address, for messages: a pod, a node, an outside host.
    pub fn owner(&self, address: IpAddr) -> Option<&'static str> {
        self.hosts.iter().map(|host| host.name).find(|name| {
            self.spec
                .address(name)
                .is_some_and(|v4| address == IpAddr::V4(v4) || address == IpAddr::V6(twin(v4)))
        })
    }

    /// The node that a pod is on.
    pub fn node_of(&self, pod: &str) -> Result<&Namespace> {
        let spec = self.spec.pod(pod).with_context(|| format!("no pod is named {pod}"))?;
        self.namespace(spec.node)
    }

    /// Makes frames of packets that a pod, attached by ptp, sends to its node.
    pub fn frame_from(&self, pod: &str) -> Result<impl Fn(&Ip) -> Vec<u8>> {
        let router = self.node_of(pod)?.hardware_address(&host_device(pod))?;
        let own = self.namespace(pod)?.hardware_address("eth0")?;
        Ok(move |packet: &Ip| packet.frame_between(router, own))
    }

    /// Sends packets as they are from a pod, attached by ptp, to its node.
    pub fn send_from(&self, pod: &str, packets: &[Ip]) -> Result<()> {
        let frames: Vec<_> = packets.iter().map(self.frame_from(pod)?).collect();
        self.namespace(pod)?
            .run(|| send_frames(IfIndex(nix::net::if_::if_nametoindex("eth0")?), &frames))
    }

    /// Makes the last hop to an outside host narrow; neither end of a connection sees that. By the route: a
    /// veth takes no more than its own MTU from the other end either.
    pub fn narrow(&self, outside: &str, mtu: u32) -> Result<()> {
        let route = |family| -> Result<String> {
            let address = self.address(outside, family)?;
            Ok(format!("route replace {address} dev v-{outside} mtu lock {mtu}\n"))
        };
        self.fabric.ip(&Family::BOTH.map(route).into_iter().collect::<Result<String>>()?)
    }

    /// Gives every link of a cluster attached by ptp this MTU.
    pub fn set_mtu(&self, mtu: u32) -> Result<()> {
        let mut fabric = String::new();
        for host in &self.hosts {
            let port = match host.kind {
                Kind::Node => format!("to-{}", host.name),
                Kind::Pod | Kind::Outside => host_device(host.name),
            };
            let port = format!("link set {port} mtu {mtu}\n");
            match host.kind {
                Kind::Node | Kind::Outside => fabric += &port,
                Kind::Pod => self.node_of(host.name)?.ip(&port)?,
            }
            host.inside.ip(&format!("link set eth0 mtu {mtu}"))?;
        }
        self.fabric.ip(&format!("{fabric}link set br0 mtu {mtu}"))
    }

    fn in_parallel(&self, work: impl Fn(&Host) -> Result<()> + Sync) -> Result<()> {
        thread::scope(|scope| {
            let work = &work;
            // A few lanes: every change of links takes the kernel's one lock anyway.
            let lanes: Vec<_> = self
                .hosts
                .chunks(self.hosts.len().div_ceil(4).max(1))
                .map(|lane| scope.spawn(move || lane.iter().try_for_each(work)))
                .collect();
            lanes.into_iter().try_for_each(|lane| {
                lane.join().map_err(|_| anyhow!("a thread of the cluster's set-up panicked"))?
            })
        })
    }

    /// The link between nodes, and their addresses.
    fn wire_nodes(&self) -> Result<()> {
        let Spec { node_network, router, nodes, .. } = &self.spec;
        let (length, length6) = (node_network.prefix_len(), twin_block(*node_network).prefix_len());
        self.fabric.sysctls(QUIET)?;
        // A router proxies ARP only for what it has a route to: the rest of the world is a void.
        let mut fabric = String::from(
            "link set lo up\nlink add world type veth peer name beyond\n\
             link set world up\nlink set beyond up\n\
             route add default dev world\nlink add br0 type bridge\n",
        );
        for node in nodes {
            let inside = self.namespace(node.name)?;
            inside.sysctls(QUIET)?;
            let port = format!("to-{}", node.name);
            fabric += &format!(
                "link add {port} type veth peer name eth0 netns {}\n\
                 link set {port} master br0 up\n",
                shown(&inside.path())
            );
        }
        fabric += &format!(
            "addr add {router}/{length} dev br0\n\
             addr add {}/{length6} dev br0 nodad\nlink set br0 up\n",
            twin(*router)
        );
        if self.spec.shape.fabric_knows_pods {
            for node in nodes {
                fabric += &route_via(node.pod_block, node.address);
            }
        }
        for service in &self.spec.services {
            let node = service.endpoints.first().and_then(|first| self.spec.pod(first));
            let node = node.and_then(|pod| self.spec.node(pod.node));
            if let (Some(external), Some(node)) = (service.external, node) {
                fabric += &route_via(external.into(), node.address);
            }
        }
        self.fabric.ip(&fabric)?;
        self.fabric.sysctls(ROUTER)?;

        for node in nodes {
            let batch = format!(
                "link set lo up\naddr add {address}/{length} dev eth0\n\
                 addr add {address6}/{length6} dev eth0 nodad\nlink set eth0 up\n\
                 route add default via {router}\nroute add default via {}\n",
                twin(*router),
                address = node.address,
                address6 = twin(node.address),
            );
            let inside = self.namespace(node.name)?;
            inside.ip(&batch)?;
            inside.sysctls(ROUTER)?;
        }
        Ok(())
    }

    /// The ways between the nodes' pods.
    fn connect_nodes(&mut self) -> Result<()> {
        let Shape { name, connect, bridge_netfilter, .. } = self.spec.shape;
        for spec in &self.spec.nodes {
            let inside = self.namespace(spec.name)?;
            between::set_bridge_netfilter(inside, bridge_netfilter)?;
            let forwarder = connect(&Node { spec, all: &self.spec, inside })
                .with_context(|| format!("connect {} in the shape of {name}", spec.name))?;
            self.forwarders.extend(forwarder);
        }
        Ok(())
    }

    fn wire_leaf(&self, host: &Host) -> Result<()> {
        host.inside.sysctls(QUIET)?;
        let (attach, wiring): (Attach, _) = match host.kind {
            Kind::Node => return Ok(()),
            Kind::Pod => (self.spec.shape.attach, self.wiring(host.name)?),
            Kind::Outside => {
                let address = self.spec.address(host.name).context("a host has an address")?;
                let (router, inside) = (&self.fabric, &host.inside);
                let block = address.into();
                (ptp, Wiring { name: host.name, router, inside, address, block, mtu: 1500 })
            }
        };
        attach(&wiring).with_context(|| format!("attach {} to {}", host.name, wiring.router.name()))
    }

    /// Takes a pod's device away and attaches the pod again, as when its sandbox is recreated.
    pub fn attach_again(&self, pod: &str) -> Result<()> {
        let host = self.hosts.iter().find(|host| host.name == pod && host.kind == Kind::Pod);
        let host = host.with_context(|| format!("no pod {pod} has a network of its own"))?;
        host.inside.ip("link del eth0")?;
        self.wire_leaf(host)?;
        // Its hardware address is another; a real pod has another address as well.
        self.hosts.iter().try_for_each(|host| host.inside.ip("neigh flush all"))
    }

    /// Takes tunnel devices away on every node and lets the shape make them again, as when a CNI's
    /// daemon starts again.
    pub fn connect_again(&mut self, devices: &[&str]) -> Result<()> {
        self.forwarders.clear();
        let batch: String = devices.iter().map(|device| format!("link del {device}\n")).collect();
        for node in &self.spec.nodes {
            self.namespace(node.name)?.ip(&batch)?;
        }
        self.connect_nodes()
    }

    /// What a pod is wired by, for plugins that come after the one that attaches it.
    pub fn wiring<'a>(&'a self, pod: &'a str) -> Result<Wiring<'a>> {
        let spec = self.spec.pod(pod).with_context(|| format!("no pod is named {pod}"))?;
        let node = self.spec.node(spec.node).context("a pod's node exists")?;
        Ok(Wiring {
            name: pod,
            router: self.namespace(node.name)?,
            inside: self.namespace(pod)?,
            address: spec.address.with_context(|| format!("{pod} has the host's network"))?,
            block: node.pod_block,
            mtu: self.spec.shape.mtu,
        })
    }

    fn write_rules(&self, host: &Host) -> Result<()> {
        let Some(node) = self.spec.node(host.name) else { return Ok(()) };
        proxy::install(&self.spec, node, self.proxy, &host.inside)
            .with_context(|| format!("write the proxy's rules in {}", node.name))
    }

    fn listen(&mut self) -> Result<()> {
        let zone = proxy::zone(&self.spec);
        for host in &self.hosts {
            let ports = match host.kind {
                Kind::Node => self.spec.node_ports,
                Kind::Pod => self.spec.pod_ports,
                Kind::Outside => self.spec.outside_ports,
            };
            self.servers.start(host.name, &host.inside, ports, &zone)?;
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Addresses are usable at once, and packets are not dropped for the way they came.
const QUIET: &[(&str, &str)] = &[
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
];

const ROUTER: &[(&str, &str)] =
    &[("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];
