//! Pods of the node that no device leads to: their policies are not enforced here.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use super::{Bindings, Facts};
use crate::model::{Direction, Pod, PodKey, PodUid, PolicyKey};

/// A pod of this node that has an address and no device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub pod: PodKey,
    pub addresses: Vec<IpAddr>,
    /// The policies that select it, ascending.
    pub policies: Vec<PolicyKey>,
}

/// All of them, ascending.
pub fn missing(bindings: &Bindings, facts: &Facts<'_>) -> Vec<Missing> {
    let all = pods(bindings, facts).map(|pod| {
        let selecting = |direction| facts.index.selecting(pod, direction);
        let policies = selecting(Direction::Ingress).chain(selecting(Direction::Egress));
        let policies: BTreeSet<PolicyKey> = policies.map(|policy| policy.key.clone()).collect();
        Missing {
            pod: pod.key.clone(),
            addresses: pod.addresses.to_vec(),
            policies: policies.into_iter().collect(),
        }
    });
    all.collect()
}

/// A pod that is terminating may have lost its device before its object is gone.
pub(super) fn pods<'a>(
    bindings: &Bindings,
    facts: &Facts<'a>,
) -> impl Iterator<Item = &'a Pod> + use<'a> {
    let bound: BTreeSet<PodUid> = bindings.iter().map(|(_, bound)| bound.pod.uid.clone()).collect();
    let local = facts.local.iter().filter_map(|key| facts.index.pod(key)).map(AsRef::as_ref);
    local.filter(move |pod| pod.enforceable() && !pod.terminating && !bound.contains(&pod.uid))
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pod, addresses, policies } = self;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        write!(f, "Pod {pod}: status.podIPs: {}: no device leads to it, ", addresses.join(", "))?;
        if policies.is_empty() {
            f.write_str("and no NetworkPolicy selects it")?;
        } else {
            let names: Vec<String> = policies.iter().take(3).map(PolicyKey::to_string).collect();
            write!(f, "not enforced: NetworkPolicy {}", names.join(", "))?;
            let more = policies.len().saturating_sub(names.len());
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        f.write_str(
            "; see why its veth is pending with `np-agent status`, or give it a network with a \
             veth: pods on ipvlan, macvlan or SR-IOV devices cannot be policed",
        )
    }
}
