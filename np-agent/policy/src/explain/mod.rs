//! Why a connection passes or not, without a kernel.
//!
//! Two answers to one question, from two sides: the verdict is what `np_common::decide` says on
//! the tables that the agents of both nodes would write; which policies and rules made it so is
//! read from the objects. Separate from the agent, because it knows every node and no device.
//!
//! ```text
//!  objects ─ index ─┬─ compile ─ lower ─ tables of each node ─ decide ──▶ verdict, Reason
//!                   └─ policies that select, rules that match ──────────▶ explanation
//! ```
//!
//! Judged is the packet that opens a connection; replies of what is allowed are allowed.

mod answer;
mod describe;
mod ends;
mod node;
mod nodes_own;
mod opening;
mod outcome;
mod sides;

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use np_common::direction::Hook;
use np_common::endpoint::EndpointId;
use np_common::verdict::{Action, Reason, posture};

pub use self::describe::{PeerList, PortList};
pub use self::ends::{End, EndError, Family};
use self::node::Tabled;
pub use self::nodes_own::Unless;
pub use self::outcome::{Outcome, Why};
pub use self::sides::{Miss, RuleRef, Side, Standing, Wrong};
use crate::index::Index;
use crate::model::{self, Direction, NodeName, Pod, Policy};

/// A cluster that can be asked.
#[derive(Debug)]
pub struct Explain<'a> {
    index: &'a Index,
    /// The pods that policy knows.
    subjects: Vec<Subject<'a>>,
    by_key: HashMap<String, usize>,
    by_address: HashMap<IpAddr, usize>,
    node_addresses: HashMap<IpAddr, &'a NodeName>,
    nodes: Vec<Group>,
    /// By subject: the policies that isolate its ingress and its egress.
    selecting: Vec<[OnceCell<Vec<&'a Policy>>; 2]>,
}

/// A pod that policy knows, and where it stands among the tables.
#[derive(Debug)]
pub struct Subject<'a> {
    pub pod: &'a Pod,
    number: usize,
    group: usize,
    id: EndpointId,
}

/// The pods of one node, and its tables once somebody asks. Pods without a node share groups; a
/// node with more pods than there are endpoint ids has several.
#[derive(Debug)]
struct Group {
    subjects: Vec<usize>,
    tables: OnceCell<Tabled>,
}

/// A connection as its destination sees it: after service DNAT.
#[derive(Clone, Copy, Debug)]
pub struct Probe<'e> {
    pub from: End<'e>,
    /// Of the family of `from`.
    pub to: End<'e>,
    pub protocol: Protocol,
    /// The destination port; 0 for ICMP.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    /// An echo request.
    Icmp,
}

/// The verdict and what it rests on.
#[derive(Clone, Debug)]
pub struct Judgement<'e> {
    pub allowed: bool,
    /// What counts in the end: why it was dropped, else the last word of a hook that judged. None
    /// when no hook of any pod's node sees the connection.
    pub reason: Option<Reason>,
    pub egress: Side<'e>,
    pub ingress: Side<'e>,
    pub hops: Vec<Hop>,
}

/// A hook that the packet passed, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    pub hook: Hook,
    /// At the sender's node, or else at the receiver's.
    pub at_sender: bool,
    pub reason: Reason,
}

impl<'a> Explain<'a> {
    pub fn new(index: &'a Index) -> Self {
        let mut explain = Self {
            index,
            subjects: Vec::new(),
            by_key: HashMap::new(),
            by_address: HashMap::new(),
            node_addresses: ends::node_addresses(index),
            nodes: Vec::new(),
            selecting: Vec::new(),
        };
        let mut open: BTreeMap<Option<&NodeName>, usize> = BTreeMap::new();
        for pod in index.pods().filter(|pod| pod.enforceable()) {
            let full = |group: &usize| {
                explain
                    .nodes
                    .get(*group)
                    .is_none_or(|group| group.subjects.len() >= usize::from(EndpointId::MAX.get()))
            };
            let group = match open.get(&pod.node.as_ref()).copied().filter(|group| !full(group)) {
                Some(group) => group,
                None => {
                    explain.nodes.push(Group { subjects: Vec::new(), tables: OnceCell::new() });
                    open.insert(pod.node.as_ref(), explain.nodes.len() - 1);
                    explain.nodes.len() - 1
                }
            };
            let number = explain.subjects.len();
            let members = &mut explain.nodes[group].subjects;
            members.push(number);
            // At most as many as there are ids.
            let id = EndpointId::new(members.len() as u16);
            explain.by_key.insert(pod.key.to_string(), number);
            explain.subjects.push(Subject { pod, number, group, id });
            explain.selecting.push(Default::default());
        }
        for (address, pod) in index.owners() {
            if let Some(number) = explain.by_key.get(&pod.key.to_string()) {
                explain.by_address.insert(address, *number);
            }
        }
        explain
    }

    pub fn index(&self) -> &'a Index {
        self.index
    }

    /// The node that has this address.
    pub fn node_of(&self, address: IpAddr) -> Option<&'a NodeName> {
        self.node_addresses.get(&address).copied()
    }

    /// Asks `decide` for the verdict and the objects for the explanation.
    pub fn judge<'e>(&'e self, probe: &Probe<'e>) -> Judgement<'e> {
        let decided = self.decide(probe);
        Judgement {
            allowed: decided.allowed,
            reason: decided.reason,
            egress: self.side(probe, Direction::Egress, decided.egress),
            ingress: self.side(probe, Direction::Ingress, decided.ingress),
            hops: decided.hops,
        }
    }

    /// The policies that isolate a pod in a direction.
    fn selecting(&self, subject: &Subject<'_>, direction: Direction) -> &[&'a Policy] {
        let side = match direction {
            Direction::Ingress => 0,
            Direction::Egress => 1,
        };
        let Some(sides) = self.selecting.get(subject.number) else { return &[] };
        sides[side].get_or_init(|| self.index.selecting(subject.pod, direction).collect())
    }

    fn tables(&self, subject: &Subject<'_>) -> &Tabled {
        let group = &self.nodes[subject.group];
        group.tables.get_or_init(|| {
            let members = group.subjects.iter().map(|number| &self.subjects[*number]);
            Tabled::new(self, members)
        })
    }
}

impl Judgement<'_> {
    /// Whether tables and objects agree: always, unless np-agent is wrong. A packet that is lost
    /// for a reason that is not the policies' proves nothing.
    pub fn is_consistent(&self) -> bool {
        let sides = [&self.egress, &self.ingress];
        let by_policy = match self.reason {
            Some(Reason::EgressDenied | Reason::IngressDenied) => true,
            Some(reason) => passes(reason),
            None => true,
        };
        !by_policy
            || sides.iter().all(|side| side.is_consistent())
                && sides.iter().all(|side| side.standing.allows()) == self.allowed
    }
}

impl Protocol {
    /// The protocol as policies name it; none for ICMP, which they cannot name.
    pub fn named(self) -> Option<model::Protocol> {
        match self {
            Protocol::Tcp => Some(model::Protocol::Tcp),
            Protocol::Udp => Some(model::Protocol::Udp),
            Protocol::Sctp => Some(model::Protocol::Sctp),
            Protocol::Icmp => None,
        }
    }

    /// Reads a name in any case.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp, Self::Icmp]
            .into_iter()
            .find(|protocol| protocol.name().eq_ignore_ascii_case(text))
    }

    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
            Protocol::Icmp => "ICMP",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether a Reason lets the packet go on.
fn passes(reason: Reason) -> bool {
    posture(reason) == Action::Pass
}
