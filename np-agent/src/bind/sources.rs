//! What pods may send from beside their own addresses: what they name, within what is granted.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use np_common::endpoint::EndpointId;

use super::{Bindings, Settings};
use crate::model::{Pod, PodKey, RefusedPrefix, SOURCE_PREFIXES};

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

/// What the endpoints of the node may have.
pub fn sources(bindings: &Bindings, settings: &Settings) -> BTreeSet<(EndpointId, IpNet)> {
    let of = |id, pod| granted(pod, settings).map(move |prefix| (id, prefix));
    bindings.iter().flat_map(|(_, bound)| of(bound.id, &bound.pod)).collect()
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
