//! The ways between the pods of different nodes that need no tunnel: routes.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;

use super::forwarder::Forwarder;
use super::{NodeSpec, Spec};
use crate::address::{twin, twin_block};
use crate::netns::Namespace;

/// A node that is to reach the pods of the others.
#[derive(Debug)]
pub struct Node<'a> {
    pub spec: &'a NodeSpec,
    pub all: &'a Spec,
    pub inside: &'a Namespace,
}

/// Gives a node its ways to the others' pods, and returns the process that forwards on them, where
/// the kernel does not do it alone.
pub type Connect = fn(&Node<'_>) -> Result<Option<Forwarder>>;

impl<'a> Node<'a> {
    /// The other nodes.
    pub(super) fn others(&self) -> impl Iterator<Item = &'a NodeSpec> {
        self.all.nodes.iter().filter(|other| other.name != self.spec.name)
    }
}

/// A route over each other node's address, as kindnet, flannel's host-gw and kube-router have them.
pub(super) fn routes_to_nodes(node: &Node<'_>) -> Result<Option<Forwarder>> {
    let batch: String =
        node.others().map(|other| route_via(other.pod_block, other.address)).collect();
    node.inside.ip(&batch).map(|()| None)
}

/// Nothing: what is not here is the network's to find.
pub(super) fn default_route(_: &Node<'_>) -> Result<Option<Forwarder>> {
    Ok(None)
}

/// BIRD's routes, and the blackhole for addresses of the node's own block that no pod has.
pub(super) fn calico_routes(node: &Node<'_>) -> Result<Option<Forwarder>> {
    node.inside.ip(&own_block_is_nowhere_else(node))?;
    routes_to_nodes(node)
}

pub(super) fn own_block_is_nowhere_else(node: &Node<'_>) -> String {
    let block = node.spec.pod_block;
    format!("route replace blackhole {block}\nroute replace blackhole {}\n", twin_block(block))
}

pub(super) fn route_via(block: Ipv4Net, gateway: Ipv4Addr) -> String {
    format!(
        "route add {block} via {gateway}\nroute add {} via {}\n",
        twin_block(block),
        twin(gateway)
    )
}

/// Says whether netfilter sees what the node's bridges switch. Each network namespace has its own
/// setting, which starts as "yes".
pub(super) fn set_bridge_netfilter(inside: &Namespace, seen: bool) -> Result<()> {
    let value = if seen { "1" } else { "0" };
    inside
        .sysctls(&[
            ("net/bridge/bridge-nf-call-iptables", value),
            ("net/bridge/bridge-nf-call-ip6tables", value),
        ])
        .context("this kernel has no br_netfilter: load it with `modprobe br_netfilter`")
}
