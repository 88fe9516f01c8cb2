//! Addresses that a node may have although its object does not name them: bridges, tunnel devices,
//! node-local services. Manifests cannot prove it, so a verdict only says what it depends on.

use std::net::IpAddr;

use super::{End, Explain, Family, Judgement, Probe, Standing};
use crate::model::NodeName;

/// What would make a denied connection pass: the address is the pod's own node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unless<'e> {
    pub address: IpAddr,
    pub node: &'e NodeName,
}

impl<'a> Explain<'a> {
    /// Whether a denial holds only if an address is not the pod's own node's.
    pub fn unless<'e>(
        &'e self,
        probe: &Probe<'e>,
        judgement: &Judgement<'_>,
    ) -> Option<Unless<'e>> {
        let (pod, address, standing) = match (probe.from, probe.to) {
            (End::Pod { subject, .. }, End::Outside(address)) => {
                (subject.pod, address, judgement.egress.standing)
            }
            (End::Outside(address), End::Pod { subject, .. }) => {
                (subject.pod, address, judgement.ingress.standing)
            }
            _ => return None,
        };
        let node = pod.node.as_ref().filter(|_| standing == Standing::Denied)?;
        let ranges = self.index.node(node).map_or(&[][..], |node| &node.pod_cidrs);
        let possible = link_local(address) || ranges.iter().any(|range| range.contains(&address));
        (possible && self.node_of(address).is_none()).then_some(Unless { address, node })
    }

    /// The address that an overlay gives to a node: the first of its pods' range.
    pub fn overlay_address(&self, node: &NodeName, family: Family) -> Option<IpAddr> {
        let ranges = &self.index.node(node)?.pod_cidrs;
        let first = ranges.iter().map(ipnet::IpNet::network);
        first.into_iter().find(|address| Family::of(*address) == family)
    }

    /// The node to which an overlay gives this address.
    pub fn overlay_node(&self, address: IpAddr) -> Option<&'a NodeName> {
        let has = |node: &&crate::model::Node| {
            node.pod_cidrs.iter().any(|range| range.network() == address)
        };
        self.index.nodes().find(has).map(|node| &node.name)
    }
}

fn link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
