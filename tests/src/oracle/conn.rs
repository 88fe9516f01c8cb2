//! What the oracle is asked, and what it answers.

use std::fmt;
use std::net::IpAddr;

/// A connection as its destination sees it: after Service DNAT, before any reply.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn {
    pub src: End,
    /// Of the family of `src`.
    pub dst: End,
    pub protocol: Protocol,
    /// The destination port; 0 for protocols without ports.
    pub port: u16,
}

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// A pod, named "namespace/name", by one of its addresses. A hostNetwork pod is a process of
    /// its node.
    Pod { pod: String, address: IpAddr },
    /// A process of a node itself, like the kubelet. Who merely bears a node's address, like a
    /// masqueraded client, is an [`End::Address`].
    Node { node: String, address: IpAddr },
    /// The holder of this address: a pod, or a host off the cluster.
    Address(IpAddr),
}

/// What can be named in a policy, and what cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// An echo request, of ICMP or ICMPv6.
    IcmpEcho,
    /// A number of the IP header: only rules without `ports` can match it.
    Other(u8),
}

/// The two sides' answers; the connection needs both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub egress: Side,
    pub ingress: Side,
}

/// Why one side allows or denies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// No pod that policy knows is at this end.
    NotSubject,
    /// A pod that talks to itself.
    SamePod,
    /// The other end is a process of the pod's own node.
    OwnNode,
    /// No policy selects the pod in this direction.
    NotIsolated,
    /// The first rule found that matches.
    Allowed {
        policy: String,
        rule: usize,
    },
    Denied,
}

impl Verdict {
    pub fn allowed(&self) -> bool {
        self.egress.allows() && self.ingress.allows()
    }
}

impl Side {
    pub fn allows(&self) -> bool {
        *self != Side::Denied
    }

    /// Whether some policy isolates the pod, with whatever outcome.
    pub fn isolated(&self) -> bool {
        matches!(self, Side::Allowed { .. } | Side::Denied)
    }
}

impl End {
    pub fn pod(pod: impl Into<String>, address: IpAddr) -> Self {
        End::Pod { pod: pod.into(), address }
    }

    pub fn address(&self) -> IpAddr {
        match self {
            End::Pod { address, .. } | End::Node { address, .. } | End::Address(address) => {
                *address
            }
        }
    }
}

impl Protocol {
    /// The name in a policy's `protocol`, for those that have one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Protocol::Tcp => Some("TCP"),
            Protocol::Udp => Some("UDP"),
            Protocol::Sctp => Some("SCTP"),
            Protocol::IcmpEcho | Protocol::Other(_) => None,
        }
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {} ", self.src, self.dst)?;
        match self.protocol {
            Protocol::IcmpEcho => f.write_str("ICMP echo"),
            Protocol::Other(number) => write!(f, "protocol {number}"),
            protocol => write!(f, "{} {}", protocol.name().unwrap_or_default(), self.port),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Pod { pod, address } => write!(f, "pod {pod} ({address})"),
            End::Node { node, address } => write!(f, "node {node} ({address})"),
            End::Address(address) => write!(f, "{address}"),
        }
    }
}
