//! One rule set taken apart by the atoms that it names, so that a class costs what it has in
//! common with the rule set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::PortPrefix;
use super::ports::PortSet;
use crate::compile::{AllowPorts, AllowRule, Atom, AtomId, AtomSet, Atoms, RuleSet};
use crate::model::{ContainerPort, Protocol};

#[derive(Clone, Debug)]
pub struct Lookup {
    rule_set: Arc<RuleSet>,
    for_everyone: Vec<usize>,
    by_atom: HashMap<AtomId, Vec<usize>>,
    /// The rules that leave it to the peer what a name's number is.
    by_name: BTreeMap<(Protocol, String), Vec<usize>>,
    everyone: BTreeSet<PortPrefix>,
}

impl Lookup {
    pub fn of(rule_set: &Arc<RuleSet>, atoms: &Atoms) -> Self {
        let mut for_everyone = Vec::new();
        let mut by_atom: HashMap<AtomId, Vec<usize>> = HashMap::new();
        let mut by_name: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut everyone = PortSet::default();
        for (at, rule) in rule_set.rules().iter().enumerate() {
            match &rule.peers {
                None => {
                    for_everyone.push(at);
                    allow(rule, &mut everyone);
                }
                Some(peers) => {
                    for id in peers.iter().filter_map(|atom| atoms.find(atom)) {
                        by_atom.entry(id).or_default().push(at);
                    }
                }
            }
            for ports in rule.ports.iter().flatten() {
                if let AllowPorts::OfPeer(protocol, name) = ports {
                    by_name.entry((*protocol, name.clone())).or_default().push(at);
                }
            }
        }
        let everyone = everyone.prefixes();
        Self { rule_set: rule_set.clone(), for_everyone, by_atom, by_name, everyone }
    }

    /// The ports of the rules for everyone.
    pub fn for_everyone(&self) -> PortSet {
        self.ports(&Met {
            rules: self.for_everyone.iter().copied().collect(),
            numbers: BTreeSet::new(),
        })
    }

    /// The ports that are allowed to everyone.
    pub fn everyone(&self) -> &BTreeSet<PortPrefix> {
        &self.everyone
    }

    /// The ports allowed to peers that satisfy these atoms; none when they are those for everyone.
    pub fn beside_everyone(&self, set: &AtomSet, atoms: &Atoms) -> Option<BTreeSet<PortPrefix>> {
        let prefixes = self.ports(&self.meets(set, atoms)?).prefixes();
        (prefixes != self.everyone).then_some(prefixes)
    }

    /// What peers that satisfy these atoms have in common with the rule set; none when it is what
    /// everyone has.
    pub fn meets(&self, set: &[AtomId], atoms: &Atoms) -> Option<Met> {
        let mut rules: BTreeSet<usize> =
            set.iter().filter_map(|id| self.by_atom.get(id)).flatten().copied().collect();
        let numbers: Vec<_> = set
            .iter()
            .filter_map(|id| match &**atoms.get(*id)? {
                Atom::Port(port) => Some(port),
                Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Block(_) => None,
            })
            .collect();
        let named = |port: &ContainerPort| self.by_name.get(&(port.protocol, port.name.clone()));
        if rules.is_empty() && numbers.iter().all(|port| named(port).is_none()) {
            return None;
        }
        rules.extend(&self.for_everyone);
        let numbers = numbers
            .into_iter()
            .filter(|port| named(port).is_some_and(|at| at.iter().any(|rule| rules.contains(rule))))
            .map(|port| (port.protocol, port.port))
            .collect();
        Some(Met { rules, numbers })
    }

    pub fn ports(&self, met: &Met) -> PortSet {
        let mut ports = PortSet::default();
        for at in &met.rules {
            allow(&self.rule_set.rules()[*at], &mut ports);
        }
        for (protocol, port) in &met.numbers {
            ports.insert(*protocol, *port, *port);
        }
        ports
    }
}

/// The rules that a peer meets, and its own numbers for their names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Met {
    rules: BTreeSet<usize>,
    numbers: BTreeSet<(Protocol, u16)>,
}

/// Adds the ports of a rule that do not depend on the peer.
fn allow(rule: &AllowRule, set: &mut PortSet) {
    let Some(ports) = &rule.ports else { return set.insert_everything() };
    for port in ports {
        match port {
            AllowPorts::Protocol(protocol) => set.insert_protocol(*protocol),
            AllowPorts::Range(protocol, first, last) => set.insert(*protocol, *first, *last),
            AllowPorts::OfPeer(..) => {}
        }
    }
}
