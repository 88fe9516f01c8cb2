//! What routes and addresses say about the pods behind devices.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::Facts;
use crate::index::Index;
use crate::model::{Device, IfIndex, NodeName, Pod, PodKey, PodUid};

/// Whose pod's addresses host routes through a device lead to.
pub(super) enum Routed<'a> {
    Nowhere,
    To(&'a Arc<Pod>, IpAddr),
    /// Another device has a route that is as good or better.
    Contested(IpAddr),
    /// A device that leads on to several pods is none of theirs.
    Several(&'a PodKey, &'a PodKey),
}

/// Whose pod's addresses those inside a namespace claim.
pub(super) enum Claim<'a> {
    None,
    Alone(&'a Arc<Pod>, IpAddr),
    /// Another namespace claims the same pod.
    Contested(&'a Arc<Pod>, IpAddr),
    /// A device that claims several pods is wrong about all but one.
    Several(&'a PodKey, &'a PodKey),
}

/// The host routes of a node: which device each address is straight on.
pub(super) struct Routes<'a> {
    pods: Pods<'a>,
    /// The rank of the best route to an address, and how many devices have one.
    best: BTreeMap<IpAddr, (Rank, usize)>,
}

/// What is claimed inside namespaces that are not known to be a pod's.
pub(super) struct Claims<'a> {
    pods: Pods<'a>,
    inside: BTreeMap<i32, BTreeSet<IpAddr>>,
    /// How many namespaces claim an address of a pod.
    claimants: BTreeMap<PodUid, usize>,
}

/// Which of two routes is used: one of the main table, which every packet may take, before one of a
/// table that rules lead to; then the one with the lesser metric.
type Rank = (bool, u32);

/// Makes both kinds of evidence.
pub(super) struct Evidence;

impl Evidence {
    pub(super) fn of_routes<'a>(facts: &Facts<'a>) -> Routes<'a> {
        let mut best: BTreeMap<IpAddr, (Rank, usize)> = BTreeMap::new();
        for device in facts.devices.values() {
            for (to, rank) in ranks(device) {
                let known = best.entry(to).or_insert((rank, 0));
                match rank.cmp(&known.0) {
                    std::cmp::Ordering::Less => *known = (rank, 1),
                    std::cmp::Ordering::Equal => known.1 += 1,
                    std::cmp::Ordering::Greater => {}
                }
            }
        }
        Routes { pods: Pods::of(facts), best }
    }

    /// Of these devices, which lead into namespaces of nobody known.
    pub(super) fn of_claims<'a>(
        facts: &Facts<'a>,
        of_nobody: &[&Device],
        first: &BTreeMap<IfIndex, Vec<IpAddr>>,
    ) -> Claims<'a> {
        let mut inside: BTreeMap<i32, BTreeSet<IpAddr>> = BTreeMap::new();
        for device in of_nobody {
            let Some(peer) = device.peer.as_ref().filter(|peer| peer.netnsid >= 0) else {
                continue;
            };
            let claims = inside.entry(peer.netnsid).or_default();
            claims.extend(peer.claims.iter().chain(first.get(&device.index).into_iter().flatten()));
        }
        let pods = Pods::of(facts);
        let mut claimants = BTreeMap::new();
        for claims in inside.values() {
            let claimed = claims.iter().filter_map(|addr| pods.owner(*addr));
            for uid in claimed.map(|pod| &pod.uid).collect::<BTreeSet<_>>() {
                *claimants.entry(uid.clone()).or_insert(0) += 1;
            }
        }
        Claims { pods, inside, claimants }
    }
}

impl<'a> Routes<'a> {
    pub(super) fn by_route(&self, device: &Device) -> Routed<'a> {
        let mut found: Option<(&'a Arc<Pod>, IpAddr)> = None;
        let mut contested = None;
        for (to, rank) in ranks(device) {
            let Some(pod) = self.pods.owner(to) else { continue };
            match self.best.get(&to) {
                Some((best, 1)) if *best == rank => {}
                _ => {
                    contested = Some(to);
                    continue;
                }
            }
            match found {
                Some((other, _)) if other.uid != pod.uid => {
                    return Routed::Several(&other.key, &pod.key);
                }
                Some(_) => {}
                None => found = Some((pod, to)),
            }
        }
        match (found, contested) {
            (Some((pod, addr)), _) => Routed::To(pod, addr),
            (None, Some(addr)) => Routed::Contested(addr),
            (None, None) => Routed::Nowhere,
        }
    }
}

impl<'a> Claims<'a> {
    pub(super) fn by_claim(&self, device: &Device) -> Claim<'a> {
        let netnsid = device.peer.as_ref().map_or(-1, |peer| peer.netnsid);
        let claims = self.inside.get(&netnsid).into_iter().flatten();
        let mut found: Option<(&'a Arc<Pod>, IpAddr)> = None;
        for addr in claims {
            let Some(pod) = self.pods.owner(*addr) else { continue };
            match found {
                Some((other, _)) if other.uid != pod.uid => {
                    return Claim::Several(&other.key, &pod.key);
                }
                Some(_) => {}
                None => found = Some((pod, *addr)),
            }
        }
        let Some((pod, addr)) = found else { return Claim::None };
        match self.claimants.get(&pod.uid) {
            Some(1) => Claim::Alone(pod, addr),
            _ => Claim::Contested(pod, addr),
        }
    }
}

/// The best route of a device to each address.
fn ranks(device: &Device) -> BTreeMap<IpAddr, Rank> {
    let mut ranks = BTreeMap::new();
    for route in &device.host_routes {
        let rank = (route.by_rule, route.metric);
        let known = ranks.entry(route.to).or_insert(rank);
        *known = rank.min(*known);
    }
    ranks
}

/// Who has an address, among the pods of this node.
pub(super) struct Pods<'a> {
    index: &'a Index,
    node: &'a NodeName,
}

impl<'a> Pods<'a> {
    pub(super) fn of(facts: &Facts<'a>) -> Self {
        Self { index: facts.index, node: facts.node }
    }

    /// The pod of this node that an address belongs to.
    pub(super) fn owner(&self, addr: IpAddr) -> Option<&'a Arc<Pod>> {
        self.index.owner(addr).filter(|pod| pod.node.as_ref() == Some(self.node))
    }
}
