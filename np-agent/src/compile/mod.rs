//! From objects to rules, for the pods of one node. Total: there is no error to return.
//!
//! Policies are taken apart into [`Atom`]s, the distinct tests they put to a peer. What an address
//! is then comes down to the set of atoms it satisfies, and what a pod allows to a [`RuleSet`]
//! over atoms: neither depends on how many policies said so, or in which order.

mod peers;

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::index::Index;
use crate::model::{
    ContainerPort, Direction, IpBlock, Peer, Pod, PodUid, PolicyKey, PortMatch, Ports, Protocol,
    Rule, Selector,
};

/// What the policies of a cluster mean to some of its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    pub subjects: BTreeMap<PodUid, Subject>,
    /// The atoms that the addresses of a prefix satisfy, unless a longer prefix says otherwise.
    /// Addresses without a prefix satisfy none.
    pub peers: BTreeMap<IpNet, AtomSet>,
}

pub type AtomSet = BTreeSet<Atom>;

/// How one pod is policed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub ingress: Option<Isolation>,
    pub egress: Option<Isolation>,
}

/// An isolated direction of a pod: what is allowed, and which policies said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    pub rule_set: RuleSet,
    pub policies: Vec<PolicyKey>,
}

/// What the union of some policies allows in one direction: pods with equal content share it.
pub type RuleSet = BTreeSet<AllowRule>;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowRule {
    /// A peer that satisfies any of these matches; none means everyone.
    pub peers: Option<AtomSet>,
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

/// One test that policies put to a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Atom {
    /// A pod of a namespace.
    PodsOf {
        namespace: String,
        pods: Selector,
    },
    /// A pod of the namespaces that a selector matches.
    Pods {
        namespaces: Selector,
        pods: Selector,
    },
    Block(IpBlock),
    /// A pod that gives this number to a named port.
    Port(ContainerPort),
}

/// Compiles what the index holds for these pods of the node.
pub fn compile<'a>(index: &Index, pods: impl IntoIterator<Item = &'a Pod>) -> Compiled {
    let subjects: BTreeMap<PodUid, Subject> = pods
        .into_iter()
        .map(|pod| {
            let isolation = |direction| isolation(index, pod, direction);
            let subject = Subject {
                ingress: isolation(Direction::Ingress),
                egress: isolation(Direction::Egress),
            };
            (pod.uid.clone(), subject)
        })
        .collect();
    let peers = peers::peers(index, &subjects);
    Compiled { subjects, peers }
}

fn isolation(index: &Index, pod: &Pod, direction: Direction) -> Option<Isolation> {
    let mut rule_set = RuleSet::new();
    let mut policies = Vec::new();
    for policy in index.selecting(pod, direction) {
        for rule in policy.rules(direction).unwrap_or_default() {
            rule_set.extend(allow(rule, &policy.key.namespace, pod, direction));
        }
        policies.push(policy.key.clone());
    }
    (!policies.is_empty()).then_some(Isolation { rule_set, policies })
}

/// None for a rule that can match nothing.
fn allow(rule: &Rule, namespace: &str, pod: &Pod, direction: Direction) -> Option<AllowRule> {
    let peers = rule
        .peers
        .as_ref()
        .map(|peers| peers.iter().map(|peer| atom(peer, namespace)).collect::<AtomSet>());
    let ports = rule.ports.as_ref().map(|ports| {
        ports.iter().flat_map(|port| allow_ports(port, pod, direction)).collect::<BTreeSet<_>>()
    });
    let nothing = peers.as_ref().is_some_and(BTreeSet::is_empty)
        || ports.as_ref().is_some_and(BTreeSet::is_empty);
    (!nothing).then_some(AllowRule { peers, ports })
}

fn atom(peer: &Peer, namespace: &str) -> Atom {
    match peer {
        Peer::Pods { namespaces: None, pods } => {
            Atom::PodsOf { namespace: namespace.to_owned(), pods: pods.clone() }
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
