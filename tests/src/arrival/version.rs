//! What was wished for, and when: the cluster's objects as they were written one after the other, and
//! since when each node's agent says that they are in force.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::host::HostId;
use super::tap::{MILLISECOND, Time};
use crate::oracle::{Conn, End, Oracle, Protocol, Verdict};

/// How far two clocks and two threads may be apart.
pub const SLACK: Time = 60 * MILLISECOND;

#[derive(Clone, Debug)]
pub struct Version {
    pub written: Time,
    /// By node.
    pub in_force: [Option<Time>; 2],
    pub pods: Vec<Pod>,
    pub namespaces: Vec<Namespace>,
    pub policies: Vec<NetworkPolicy>,
    /// The pods whose objects have an address: the others are known to no policy.
    pub listed: BTreeSet<HostId>,
}

impl Version {
    pub fn verdict(&self, src: End, dst: End, protocol: Protocol, port: u16) -> Verdict {
        let oracle = Oracle::new(&self.pods, &self.namespaces, &self.policies);
        oracle.verdict(&Conn { src, dst, protocol, port })
    }
}

/// Those that a node may have judged by between two times: each that was written before the end and
/// not replaced by a later one before the start.
pub fn in_force(
    versions: &[Version],
    node: usize,
    from: Time,
    to: Time,
) -> impl Iterator<Item = &Version> {
    let replaced =
        move |version: &Version| version.in_force[node].is_some_and(|at| at + SLACK < from);
    let first = versions.iter().rposition(replaced).unwrap_or(0);
    versions[first..].iter().filter(move |version| version.written <= to + SLACK)
}

/// The protocol in the oracle's words.
pub fn protocol(number: u8) -> Protocol {
    match number {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => Protocol::Sctp,
        other => Protocol::Other(other),
    }
}
