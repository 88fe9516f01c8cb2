//! What the union of some policies allows a pod in one direction.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::Atom;
use super::content::hash_of;
use crate::model::{Direction, Peer, Pod, Policy, PortMatch, Ports, Protocol, Rule};

/// Rules without order or repetition: pods with equal content share it.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Ascending.
    rules: Box<[AllowRule]>,
    content: u64,
    most: Pieces,
}

/// How many prefixes cover some ports: never fewer than the fewest that do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    pub numbers: usize,
    /// Names that each peer has numbers of its own for.
    pub names: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowRule {
    /// A peer that satisfies any of these matches; none means everyone.
    pub peers: Option<BTreeSet<Atom>>,
    /// None means every port of every protocol.
    pub ports: Option<BTreeSet<AllowPorts>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AllowPorts {
    Protocol(Protocol),
    /// Both ends included.
    Range(Protocol, u16, u16),
    /// The numbers that the peer's containers give to a name.
    OfPeer(Protocol, String),
}

impl RuleSet {
    /// The rules of policies that select the pod.
    pub fn of(policies: &[&Policy], pod: &Pod, direction: Direction) -> Self {
        let rules = policies.iter().flat_map(|policy| {
            let rules = policy.rules(direction).unwrap_or_default();
            rules.iter().filter_map(|rule| allow(rule, &policy.key.namespace, pod, direction))
        });
        Self::from_iter(rules)
    }

    pub fn rules(&self) -> &[AllowRule] {
        &self.rules
    }

    /// The same for the same rules, today and after a restart.
    pub fn content(&self) -> u64 {
        self.content
    }

    /// What no peer can be allowed more than.
    pub fn most(&self) -> Pieces {
        self.most
    }
}

impl AllowRule {
    /// The names that each peer has numbers of its own for.
    pub fn names(&self) -> impl Iterator<Item = (Protocol, &str)> {
        self.ports.iter().flatten().filter_map(|ports| match ports {
            AllowPorts::OfPeer(protocol, name) => Some((*protocol, name.as_str())),
            AllowPorts::Protocol(_) | AllowPorts::Range(..) => None,
        })
    }

    /// What covers the rule's ports, range by range.
    pub fn pieces(&self) -> Pieces {
        let Some(ports) = &self.ports else { return Pieces { numbers: 1, names: 0 } };
        let mut pieces = Pieces::default();
        for port in ports {
            match port {
                AllowPorts::Protocol(_) => pieces.numbers += 1,
                AllowPorts::Range(_, first, last) => pieces.numbers += aligned(*first, *last),
                AllowPorts::OfPeer(..) => pieces.names += 1,
            }
        }
        pieces
    }
}

/// How many aligned powers of two a range is made of.
fn aligned(first: u16, last: u16) -> usize {
    let (mut next, end) = (u32::from(first), u32::from(last) + 1);
    let mut count = 0;
    while next < end {
        let size = next.trailing_zeros().min((end - next).ilog2());
        next += 1 << size;
        count += 1;
    }
    count
}

impl FromIterator<AllowRule> for RuleSet {
    fn from_iter<I: IntoIterator<Item = AllowRule>>(rules: I) -> Self {
        let rules: Box<[AllowRule]> =
            rules.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let most = rules.iter().map(AllowRule::pieces).fold(Pieces::default(), |sum, more| {
            Pieces { numbers: sum.numbers + more.numbers, names: sum.names + more.names }
        });
        Self { content: hash_of(rules.iter()), rules, most }
    }
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.rules == other.rules
    }
}

impl Eq for RuleSet {}

impl Hash for RuleSet {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.content.hash(state);
    }
}

/// None for a rule that can match nothing.
fn allow(rule: &Rule, namespace: &Arc<str>, pod: &Pod, direction: Direction) -> Option<AllowRule> {
    let peers = rule
        .peers
        .as_ref()
        .map(|peers| peers.iter().map(|peer| atom(peer, namespace)).collect::<BTreeSet<_>>());
    let ports = rule.ports.as_ref().map(|ports| {
        ports.iter().flat_map(|port| allow_ports(port, pod, direction)).collect::<BTreeSet<_>>()
    });
    let nothing = peers.as_ref().is_some_and(BTreeSet::is_empty)
        || ports.as_ref().is_some_and(BTreeSet::is_empty);
    (!nothing).then_some(AllowRule { peers, ports })
}

fn atom(peer: &Peer, namespace: &Arc<str>) -> Atom {
    match peer {
        Peer::Pods { namespaces: None, pods } => {
            Atom::PodsOf { namespace: namespace.clone(), pods: pods.clone() }
        }
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            Atom::Pods { namespaces: namespaces.clone(), pods: pods.clone() }
        }
        Peer::IpBlock(block) => Atom::Block(block.clone()),
    }
}

/// A name is resolved on the destination: for ingress that is the subject itself, and its ports
/// are known now; for egress each peer has its own. A name that nobody has allows nothing.
fn allow_ports(port: &PortMatch, subject: &Pod, direction: Direction) -> Vec<AllowPorts> {
    let protocol = port.protocol;
    match (&port.ports, direction) {
        (Ports::All, _) => vec![AllowPorts::Protocol(protocol)],
        (Ports::Range(first, last), _) => vec![AllowPorts::Range(protocol, *first, *last)],
        (Ports::Named(name), Direction::Egress) => {
            vec![AllowPorts::OfPeer(protocol, name.clone())]
        }
        (Ports::Named(name), Direction::Ingress) => subject
            .named_ports
            .iter()
            .filter(|named| named.name == *name && named.protocol == protocol)
            .map(|named| AllowPorts::Range(protocol, named.port, named.port))
            .collect(),
    }
}
