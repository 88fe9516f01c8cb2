//! A Pod, as far as policy is concerned.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ids::{NodeName, PodKey, PodUid};
use super::policy::Protocol;
use super::sources::SourcePrefixes;

pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pod {
    pub key: PodKey,
    pub uid: PodUid,
    /// `spec.nodeName`; none until the pod is scheduled.
    pub node: Option<NodeName>,
    /// Replicas have the same: the index holds equal ones once.
    pub labels: Arc<Labels>,
    /// `status.podIPs`, or the one `status.podIP`: at most one per family, first is primary.
    pub addresses: Box<[IpAddr]>,
    /// What it asks to send from besides; none for nearly all pods.
    #[serde(default)]
    pub source_prefixes: Option<Box<SourcePrefixes>>,
    /// Named ports of containers and of restartable init containers (sidecars).
    pub named_ports: Arc<[ContainerPort]>,
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

    /// Of two pods that show the same address, the greater has it: an address goes back to the
    /// pool before its old pod's object is gone. Not terminating over terminating, then the
    /// younger; the uid only makes the order total.
    pub fn claim_to_address(&self) -> impl Ord + use<> {
        (!self.terminating, self.created, self.uid.clone())
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Pending, Running, Unknown, or absent.
    Active,
    /// Succeeded or Failed.
    Finished,
}
