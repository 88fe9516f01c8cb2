//! From a compiled policy to the tables that carry it.
//!
//! Ids are made of content: the same set of atoms gets the same class, the same rules the same
//! rule set, today and after a restart, so that what did not change needs no write.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use np_common::endpoint::{EndpointId, PolicyWord};
use np_common::rules::{ClassId, RuleSetId};

use super::ports::PortSet;
use super::{RulePrefix, Tables};
use crate::compile::{AllowPorts, AllowRule, Atom, AtomSet, Compiled, Isolation, RuleSet, Subject};
use crate::model::PodUid;

/// Gives tables their peers, rules and policy words. `ids` names the pod of every endpoint; a pod
/// without one is policed nowhere yet.
pub fn lower(compiled: &Compiled, ids: &BTreeMap<EndpointId, PodUid>, tables: &mut Tables) {
    let classes = Ids::of(compiled.peers.values().filter(|atoms| !atoms.is_empty()), u32::MAX);
    let class = |atoms: &AtomSet| classes.get(atoms).map_or(ClassId::NONE, ClassId::new);
    tables.peers = compiled.peers.iter().map(|(prefix, atoms)| (*prefix, class(atoms))).collect();

    let subjects: Vec<(EndpointId, &Subject)> =
        ids.iter().filter_map(|(id, uid)| Some((*id, compiled.subjects.get(uid)?))).collect();
    let isolations =
        subjects.iter().flat_map(|(_, subject)| [&subject.ingress, &subject.egress]).flatten();
    let rule_sets = Ids::of(isolations.map(|isolation| &isolation.rule_set), RuleSetId::MAX);
    tables.rules = rule_sets
        .iter()
        .flat_map(|(rule_set, id)| rules(RuleSetId::new(id), rule_set, &classes))
        .collect();

    let word = |side: &Option<Isolation>| {
        side.as_ref().and_then(|side| rule_sets.get(&side.rule_set)).map(RuleSetId::new)
    };
    for (id, subject) in subjects {
        if let Some(endpoint) = tables.endpoints.get_mut(&id) {
            endpoint.policy = PolicyWord::new(word(&subject.ingress), word(&subject.egress));
        }
    }
}

/// The rules of one rule set: those for everyone once, under no class, and for each class what it
/// is allowed beside them.
fn rules(id: RuleSetId, rule_set: &RuleSet, classes: &Ids<&AtomSet>) -> BTreeSet<RulePrefix> {
    let everyone = ports(rule_set, &AtomSet::new()).prefixes();
    let of_class = |class, prefixes: BTreeSet<_>| {
        prefixes.into_iter().map(move |ports| RulePrefix { rule_set: id, class, ports })
    };
    let mut rules: BTreeSet<RulePrefix> = of_class(ClassId::NONE, everyone.clone()).collect();
    for (atoms, class) in classes.iter() {
        let prefixes = ports(rule_set, atoms).prefixes();
        if prefixes != everyone {
            rules.extend(of_class(ClassId::new(class), prefixes));
        }
    }
    rules
}

/// The ports that a rule set allows to peers that satisfy these atoms.
fn ports(rule_set: &RuleSet, atoms: &AtomSet) -> PortSet {
    let mut set = PortSet::default();
    for AllowRule { peers, ports } in rule_set {
        if peers.as_ref().is_some_and(|peers| peers.is_disjoint(atoms)) {
            continue;
        }
        let Some(ports) = ports else {
            set.insert_everything();
            continue;
        };
        for port in ports {
            match port {
                AllowPorts::Protocol(protocol) => set.insert_protocol(*protocol),
                AllowPorts::Range(protocol, first, last) => set.insert(*protocol, *first, *last),
                AllowPorts::OfPeer(protocol, name) => {
                    for atom in atoms {
                        if let Atom::Port(named) = atom
                            && named.protocol == *protocol
                            && named.name == *name
                        {
                            set.insert(*protocol, named.port, named.port);
                        }
                    }
                }
            }
        }
    }
    set
}

/// Ids by content. Two contents that hash alike get different ids all the same.
struct Ids<T> {
    by_content: BTreeMap<T, u32>,
}

impl<T: Ord + Hash + Copy> Ids<T> {
    fn of(contents: impl Iterator<Item = T>, max: u32) -> Self {
        let contents: BTreeSet<T> = contents.collect();
        let mut taken = BTreeSet::new();
        let mut by_content = BTreeMap::new();
        for content in contents {
            let mut hasher = Fnv1a::new();
            content.hash(&mut hasher);
            // 0 stands for no class and no rule set.
            let mut id = 1 + (hasher.finish() % u64::from(max)) as u32;
            while !taken.insert(id) {
                id = 1 + id % max;
            }
            by_content.insert(content, id);
        }
        Self { by_content }
    }

    fn get(&self, content: T) -> Option<u32> {
        self.by_content.get(&content).copied()
    }

    fn iter(&self) -> impl Iterator<Item = (T, u32)> {
        self.by_content.iter().map(|(content, id)| (*content, *id))
    }
}

/// 64-bit FNV-1a: unlike the standard library's hasher, the same in every build of the agent.
struct Fnv1a(u64);

impl Fnv1a {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv1a {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
