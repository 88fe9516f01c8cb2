//! One side of a connection as the objects tell it: who isolates the pod, which rules match, and
//! which nearly do.
//!
//! Read from the policies themselves, not from what was compiled of them: what names a policy and
//! a field must not have lost them on the way.

use std::fmt;

use super::{End, Explain, Probe, Protocol, Subject};
use crate::index::Index;
use crate::model::{Direction, IpBlock, Namespace, Peer, Pod, Policy, PortMatch, Ports, Rule};

/// One end's answer.
#[derive(Clone, Debug)]
pub struct Side<'e> {
    pub standing: Standing,
    /// The policies that select the pod and carry the direction.
    pub isolated_by: &'e [&'e Policy],
    /// Every rule that matches.
    pub allowed_by: Vec<RuleRef<'e>>,
    /// Of a denied side: the rules of which one half matches.
    pub near: Vec<Miss<'e>>,
}

/// Why one side allows or denies, as the tables have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No pod that policy knows is at this end.
    NotSubject,
    /// A pod that talks to itself.
    SamePod,
    /// The other end is the pod's own node.
    OwnNode,
    NotIsolated,
    Allowed,
    Denied,
}

/// A rule and where it stands.
#[derive(Clone, Copy, Debug)]
pub struct RuleRef<'e> {
    pub policy: &'e Policy,
    pub direction: Direction,
    pub number: usize,
    pub rule: &'e Rule,
}

/// A rule that would match if one half of it did.
#[derive(Clone, Copy, Debug)]
pub struct Miss<'e> {
    pub rule: RuleRef<'e>,
    pub wrong: Wrong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The peer is right.
    Port,
    /// The port is right.
    Peer,
}

impl Standing {
    pub fn allows(self) -> bool {
        self != Standing::Denied
    }

    pub fn name(self) -> &'static str {
        match self {
            Standing::NotSubject => "no-pod",
            Standing::SamePod => "same-pod",
            Standing::OwnNode => "own-node",
            Standing::NotIsolated => "not-isolated",
            Standing::Allowed => "allowed",
            Standing::Denied => "denied",
        }
    }
}

impl Side<'_> {
    /// Whether the objects give a reason for what the tables say.
    pub fn is_consistent(&self) -> bool {
        match self.standing {
            Standing::NotSubject | Standing::SamePod | Standing::OwnNode => true,
            Standing::NotIsolated => self.isolated_by.is_empty(),
            Standing::Allowed => !self.isolated_by.is_empty() && !self.allowed_by.is_empty(),
            Standing::Denied => !self.isolated_by.is_empty() && self.allowed_by.is_empty(),
        }
    }
}

/// The field's path in its policy.
impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = match self.direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        write!(f, "spec.{list}[{}]", self.number)
    }
}

/// The other end, as selectors and blocks see it.
struct Other<'e> {
    end: End<'e>,
    pod: Option<&'e Pod>,
    namespace: Option<&'e Namespace>,
}

impl<'e> Other<'e> {
    fn new(end: End<'e>, index: &'e Index) -> Self {
        let pod = match end {
            End::Pod { subject, .. } => Some(subject.pod),
            End::Node { .. } | End::Outside(_) => None,
        };
        let namespace = pod.and_then(|pod| index.namespace(&pod.key.namespace));
        Self { end, pod, namespace }
    }

    fn is(&self, peer: &Peer, policy: &Policy) -> bool {
        match peer {
            Peer::IpBlock(IpBlock { cidr, except }) => {
                let address = self.end.address();
                cidr.contains(&address) && !except.iter().any(|except| except.contains(&address))
            }
            Peer::Pods { namespaces, pods } => self.pod.is_some_and(|pod| {
                let right_namespace = match namespaces {
                    None => pod.key.namespace == policy.key.namespace,
                    Some(namespaces) => self
                        .namespace
                        .is_some_and(|namespace| namespaces.matches(&namespace.labels)),
                };
                right_namespace && pods.matches(&pod.labels)
            }),
        }
    }
}

impl Explain<'_> {
    pub(super) fn side<'e>(
        &'e self,
        probe: &Probe<'e>,
        direction: Direction,
        standing: Standing,
    ) -> Side<'e> {
        let (own, other) = match direction {
            Direction::Egress => (probe.from, probe.to),
            Direction::Ingress => (probe.to, probe.from),
        };
        let mut side =
            Side { standing, isolated_by: &[], allowed_by: Vec::new(), near: Vec::new() };
        let End::Pod { subject, .. } = own else { return side };
        match standing {
            Standing::NotSubject | Standing::SamePod | Standing::OwnNode => return side,
            Standing::NotIsolated | Standing::Allowed | Standing::Denied => {}
        }
        side.isolated_by = self.selecting(subject, direction);
        let other = Other::new(other, self.index);
        let destination = match probe.to {
            End::Pod { subject: Subject { pod, .. }, .. } => Some(*pod),
            End::Node { .. } | End::Outside(_) => None,
        };
        for policy in side.isolated_by {
            let rules = policy.rules(direction).unwrap_or_default();
            for (number, rule) in rules.iter().enumerate() {
                let Rule { peers, ports } = rule;
                let right_peer = peers
                    .as_ref()
                    .is_none_or(|peers| peers.iter().any(|peer| other.is(peer, policy)));
                // Only a denied side asks what was nearly right.
                if !right_peer && standing != Standing::Denied {
                    continue;
                }
                let right_port = ports.as_ref().is_none_or(|ports| {
                    ports.iter().any(|port| fits(port, probe.protocol, probe.port, destination))
                });
                let rule = RuleRef { policy, direction, number, rule };
                match (right_peer, right_port) {
                    (true, true) => side.allowed_by.push(rule),
                    (true, false) => side.near.push(Miss { rule, wrong: Wrong::Port }),
                    (false, true) => side.near.push(Miss { rule, wrong: Wrong::Peer }),
                    (false, false) => {}
                }
            }
        }
        if standing != Standing::Denied {
            side.near.clear();
        }
        // The right peer first: a port is what is mostly wrong, and a rule without ports is near
        // to everything.
        side.near.sort_by_key(|miss| miss.wrong != Wrong::Port);
        side
    }
}

/// Whether an element of `ports` matches; a name means the destination's number of it.
fn fits(port: &PortMatch, protocol: Protocol, number: u16, destination: Option<&Pod>) -> bool {
    if protocol.named() != Some(port.protocol) {
        return false;
    }
    match &port.ports {
        Ports::All => true,
        Ports::Range(first, last) => (*first..=*last).contains(&number),
        Ports::Named(name) => destination.is_some_and(|pod| {
            pod.named_ports.iter().any(|named| {
                named.name == *name && named.protocol == port.protocol && named.port == number
            })
        }),
    }
}
