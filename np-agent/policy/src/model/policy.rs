//! A NetworkPolicy with defaults filled in and every field parsed.
//!
//! Source of the rules: `staging/src/k8s.io/api/networking/v1/types.go` and
//! `pkg/apis/networking/v1/defaults.go` of kubernetes/kubernetes.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Direction;
use super::ids::PolicyKey;
use super::selector::Selector;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Policy {
    pub key: PolicyKey,
    /// `spec.podSelector`: the subjects, pods of the policy's own namespace.
    pub subjects: Selector,
    /// The rules for ingress when the effective `policyTypes` have Ingress, else none. An empty
    /// list isolates and allows nothing.
    pub ingress: Option<Box<[Rule]>>,
    /// The same for egress.
    pub egress: Option<Box<[Rule]>>,
}

impl Policy {
    /// The rules of one direction; none when the policy does not isolate it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One element of `ingress` or `egress`: matches when its peers and its ports match.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// `from` or `to`; none means everyone, also off the cluster. `Some` of nothing matches
    /// nobody: reserved for a source that leaves out peers that it cannot read.
    pub peers: Option<Box<[Peer]>>,
    /// `ports`; none means every port of every protocol.
    pub ports: Option<Box<[PortMatch]>>,
}

/// One element of `from` or `to`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Peer {
    Pods {
        /// None: the policy's own namespace.
        namespaces: Option<Selector>,
        pods: Selector,
    },
    IpBlock(IpBlock),
}

/// `ipBlock`: an address in `cidr` and in none of `except`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IpBlock {
    /// Truncated: no host bits. IPv4-mapped blocks are IPv4 blocks.
    pub cidr: IpNet,
    /// Truncated, of the family of `cidr`, inside it, sorted.
    pub except: Box<[IpNet]>,
}

/// One element of `ports`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortMatch {
    pub protocol: Protocol,
    pub ports: Ports,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ports {
    /// Every port of the protocol.
    All,
    /// `port` to `endPort`, both included; `port` is at least 1.
    Range(u16, u16),
    /// The numbers that the destination pod's containers give to this name.
    Named(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
    #[serde(rename = "SCTP")]
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => np_common::packet::TCP,
            Protocol::Udp => np_common::packet::UDP,
            Protocol::Sctp => np_common::packet::SCTP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}
