//! The agent's record of what ids stand for.
//!
//! It lies in the pinned map RECORDS, so that `status` and `endpoints` can name pods and policies
//! while the agent is down, and a restarted agent keeps every binding it once made: the addresses
//! inside a pod are the pod's claim, and must not be trusted anew.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::model::{ContainerPort, IfIndex, Labels, NodeName, PodKey, PodUid, PolicyKey};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub node: Option<NodeName>,
    /// Ascending by id.
    pub endpoints: Vec<EndpointRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    pub id: u16,
    pub pod: PodKey,
    pub uid: PodUid,
    pub addresses: Vec<IpAddr>,
    /// What it may send from besides: named by the pod, and granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source_prefixes: Vec<IpNet>,
    /// Labels and named ports outlive the pod object: a pod deleted by force runs on, and stays
    /// policed until its device is gone.
    pub labels: Arc<Labels>,
    pub named_ports: Arc<[ContainerPort]>,
    pub device: String,
    pub ifindex: IfIndex,
    pub ingress: SideRecord,
    pub egress: SideRecord,
}

/// How one direction of a pod is policed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideRecord {
    pub isolated: bool,
    /// The policies that select the pod in this direction, ascending.
    pub policies: Vec<PolicyKey>,
}

impl fmt::Display for SideRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.isolated {
            return f.write_str("open");
        }
        let policies: Vec<String> = self.policies.iter().map(PolicyKey::to_string).collect();
        write!(f, "isolated by {}", policies.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_says_who_isolates_it() {
        let policies = ["a", "b"].map(|name| PolicyKey::new("default", name)).to_vec();
        let isolated = SideRecord { isolated: true, policies };
        assert_eq!(isolated.to_string(), "isolated by default/a, default/b");
        assert_eq!(SideRecord::default().to_string(), "open");
    }
}
