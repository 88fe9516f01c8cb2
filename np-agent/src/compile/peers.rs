//! Which atoms the addresses of the world satisfy, as prefixes of which the longest counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::{AllowPorts, Atom, AtomSet, Subject};
use crate::index::Index;
use crate::model::{ContainerPort, IpBlock, Pod, PodUid, Protocol};

/// The prefixes at which the set of satisfied atoms changes.
///
/// Blocks and their excepts cut the address space at their borders; a pod's address is a border of
/// its own, at which selectors apply and every block is asked anew. So `except` cuts only its own
/// block, and overlapping blocks add up.
pub fn peers(index: &Index, subjects: &BTreeMap<PodUid, Subject>) -> BTreeMap<IpNet, AtomSet> {
    let tests = Tests::of(subjects);
    let mut peers: BTreeMap<IpNet, AtomSet> = tests
        .blocks
        .iter()
        .flat_map(|block| block.except.iter().chain([&block.cidr]))
        .map(|border| (*border, tests.of_prefix(border)))
        .collect();
    for (addr, pod) in index.owners() {
        peers.insert(IpNet::from(addr), tests.of_pod(index, pod, addr));
    }
    without_repetition(peers)
}

/// The atoms that some rule set asks for.
struct Tests<'a> {
    blocks: BTreeSet<&'a IpBlock>,
    selectors: BTreeSet<&'a Atom>,
    ports: BTreeSet<(Protocol, &'a str)>,
}

impl<'a> Tests<'a> {
    fn of(subjects: &'a BTreeMap<PodUid, Subject>) -> Self {
        let mut tests =
            Self { blocks: BTreeSet::new(), selectors: BTreeSet::new(), ports: BTreeSet::new() };
        let isolations =
            subjects.values().flat_map(|subject| [&subject.ingress, &subject.egress]).flatten();
        for rule in isolations.flat_map(|isolation| &isolation.rule_set) {
            for atom in rule.peers.iter().flatten() {
                match atom {
                    Atom::Block(block) => tests.blocks.insert(block),
                    Atom::PodsOf { .. } | Atom::Pods { .. } => tests.selectors.insert(atom),
                    Atom::Port(_) => unreachable!("no rule names a peer by its port"),
                };
            }
            for ports in rule.ports.iter().flatten() {
                if let AllowPorts::OfPeer(protocol, name) = ports {
                    tests.ports.insert((*protocol, name));
                }
            }
        }
        tests
    }

    /// The blocks that hold all of a prefix: borders are prefixes too, so none holds only a part
    /// of it unless a longer border says so.
    fn of_prefix(&self, prefix: &IpNet) -> AtomSet {
        self.blocks
            .iter()
            .filter(|block| {
                block.cidr.contains(prefix)
                    && !block.except.iter().any(|except| except.contains(prefix))
            })
            .map(|block| Atom::Block((*block).clone()))
            .collect()
    }

    fn of_pod(&self, index: &Index, pod: &Pod, addr: IpAddr) -> AtomSet {
        let mut atoms = self.of_prefix(&IpNet::from(addr));
        let namespace = index.namespace(&pod.key.namespace);
        atoms.extend(
            self.selectors
                .iter()
                .copied()
                .filter(|atom| match atom {
                    Atom::PodsOf { namespace, pods } => {
                        pod.key.namespace == *namespace && pods.matches(&pod.labels)
                    }
                    Atom::Pods { namespaces, pods } => {
                        namespace.is_some_and(|namespace| namespaces.matches(&namespace.labels))
                            && pods.matches(&pod.labels)
                    }
                    Atom::Block(_) | Atom::Port(_) => false,
                })
                .cloned(),
        );
        let asked =
            |port: &&ContainerPort| self.ports.contains(&(port.protocol, port.name.as_str()));
        atoms.extend(pod.named_ports.iter().filter(asked).cloned().map(Atom::Port));
        atoms
    }
}

/// Drops every prefix that says what the next shorter one says already.
fn without_repetition(peers: BTreeMap<IpNet, AtomSet>) -> BTreeMap<IpNet, AtomSet> {
    let mut kept: BTreeMap<IpNet, AtomSet> = BTreeMap::new();
    // Ascending order visits a prefix right before what lies in it: the stack is the way down.
    let mut stack: Vec<IpNet> = Vec::new();
    for (prefix, atoms) in peers {
        while stack.last().is_some_and(|outer| !outer.contains(&prefix)) {
            stack.pop();
        }
        let outer = stack.last().and_then(|outer| kept.get(outer));
        if outer.map_or(atoms.is_empty(), |outer| *outer == atoms) {
            continue;
        }
        kept.insert(prefix, atoms);
        stack.push(prefix);
    }
    kept
}
