//! What pods may send from in addition to their own addresses: what they name, within what is granted.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use np_common::endpoint::EndpointId;

use super::{Bindings, Facts, Settings};
use crate::model::{MOST_SOURCES, Pod, PodKey, RefusedPrefix, SOURCE_PREFIXES};

/// An entry of a pod's annotation that does not count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusedSource {
    pub pod: PodKey,
    pub refused: RefusedPrefix,
}

/// What a pod names and may have.
pub fn granted<'a>(pod: &'a Pod, settings: &'a Settings) -> impl Iterator<Item = IpNet> + 'a {
    named(pod).filter(|prefix| settings.grants(prefix))
}

/// What the endpoints of the node may have: what is granted, and what the node's own host routes say
/// is behind a pod, such as the address of a second device. Of the latter as many as there is room
/// for beside the former.
pub fn sources(bindings: &Bindings, facts: &Facts<'_>) -> BTreeSet<(EndpointId, IpNet)> {
    let mut sources = BTreeSet::new();
    for (ifindex, bound) in bindings.iter() {
        let named: Vec<IpNet> = granted(&bound.pod, facts.settings).collect();
        let routed = facts.devices.get(&ifindex).into_iter().flat_map(|device| &device.host_routes);
        let routed = routed.map(|route| route.to).filter(|to| is_of_no_pod(*to, bindings, facts));
        let room = MOST_SOURCES.saturating_sub(named.len());
        let all = named.into_iter().chain(routed.map(IpNet::from).take(room));
        sources.extend(all.map(|prefix| (bound.id, prefix)));
    }
    sources
}

fn is_of_no_pod(addr: IpAddr, bindings: &Bindings, facts: &Facts<'_>) -> bool {
    let mut bound = bindings.iter().flat_map(|(_, bound)| bound.pod.addresses.iter());
    facts.index.owner(addr).is_none() && bound.all(|own| *own != addr)
}

/// What pods of the node name and do not get.
pub fn refused_sources(bindings: &Bindings, settings: &Settings) -> BTreeSet<RefusedSource> {
    let of = |pod: &Pod| {
        let malformed = pod.source_prefixes.iter().flat_map(|named| &named.refused).cloned();
        let beyond = named(pod).filter(|prefix| !settings.grants(prefix)).map(not_granted);
        let all = malformed.chain(beyond);
        all.map(|refused| RefusedSource { pod: pod.key.clone(), refused }).collect::<Vec<_>>()
    };
    bindings.iter().flat_map(|(_, bound)| of(&bound.pod)).collect()
}

fn named(pod: &Pod) -> impl Iterator<Item = IpNet> {
    pod.source_prefixes.iter().flat_map(|named| &named.prefixes).copied()
}

fn not_granted(prefix: IpNet) -> RefusedPrefix {
    RefusedPrefix {
        value: prefix.to_string(),
        problem: "not granted on this node".to_owned(),
        remedy: "give its agent --source-prefixes with a range that covers it, or take it out of \
                 the annotation"
            .to_owned(),
    }
}

impl Settings {
    /// One range must cover it all.
    fn grants(&self, prefix: &IpNet) -> bool {
        self.source_prefixes.iter().any(|range| range.contains(prefix))
    }
}

impl fmt::Display for RefusedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, refused } = self;
        write!(f, "Pod {pod}: {SOURCE_PREFIXES}: {refused}")
    }
}
