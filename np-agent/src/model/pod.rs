//! A Pod, as far as policy is concerned.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ids::{NodeName, PodKey, PodUid};
use super::policy::Protocol;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    pub key: PodKey,
    pub uid: PodUid,
    /// `spec.nodeName`; none until the pod is scheduled.
    pub node: Option<NodeName>,
    pub labels: BTreeMap<String, String>,
    /// `status.podIPs`, or the one `status.podIP`: at most one per family, first is primary.
    pub addresses: Vec<IpAddr>,
    /// Named ports of containers and of restartable init containers (sidecars).
    pub named_ports: Vec<ContainerPort>,
    pub host_network: bool,
    pub phase: Phase,
    /// `metadata.deletionTimestamp` is set: terminating, still enforced and still a peer.
    pub terminating: bool,
    /// `metadata.creationTimestamp` in seconds since 1970, 0 when absent: the younger pod owns a
    /// reused address.
    pub created: i64,
}

impl Pod {
    /// Whether policy knows this pod, as subject and as peer: it has an address of its own that
    /// has not gone back to the pool.
    pub fn enforceable(&self) -> bool {
        !self.host_network && self.phase != Phase::Finished && !self.addresses.is_empty()
    }
}

/// A port with a name: `containers[*].ports[*]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// `status.phase`, as far as it matters: a finished pod's address goes back to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Pending, Running, Unknown, or absent.
    Active,
    /// Succeeded or Failed.
    Finished,
}
