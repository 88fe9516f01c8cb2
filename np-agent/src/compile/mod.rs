//! From objects to rules, for the pods of one node. Total: there is no error to return.
//!
//! Policies are taken apart into [`Atom`]s, the distinct tests they put to a peer. What an address
//! is then comes down to the set of atoms it satisfies, and what a pod allows to a [`RuleSet`]
//! over atoms: neither depends on how many policies said so, or in which order.
//!
//! [`Compiled`] is brought up to date with what changes have touched, and no more: a pod costs its
//! own addresses, a policy the pods it may select. Only when the atoms themselves change is every
//! address asked anew.

mod atoms;
mod hash;
mod peers;
mod rule_set;
mod selectors;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

pub use atoms::{Atom, AtomId, AtomSet, Atoms};
use peers::{Anew, NewTests, Tests};
pub use rule_set::{AllowPorts, AllowRule, RuleSet};

use crate::index::{Index, Touched, pack};
use crate::model::{ContainerPort, Direction, Labels, Pod, PodUid, PolicyKey};

/// What the policies of a cluster mean to some of its pods.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    pub subjects: BTreeMap<PodUid, Subject>,
    /// The atoms that the addresses of a prefix satisfy, unless a longer prefix says otherwise.
    /// Addresses without a prefix satisfy none.
    pub peers: BTreeMap<IpNet, AtomSet>,
    pub atoms: Atoms,
    tests: Tests,
    /// Equal contents are held once.
    rule_sets: HashSet<Arc<RuleSet>>,
    sets: HashSet<AtomSet>,
}

/// How one pod is policed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub ingress: Option<Isolation>,
    pub egress: Option<Isolation>,
}

/// An isolated direction of a pod: what is allowed, and which policies said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    pub rule_set: Arc<RuleSet>,
    pub policies: Vec<PolicyKey>,
}

impl Compiled {
    /// Compiles what the index holds for these pods of the node.
    pub fn of<'a>(index: &Index, pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let mut compiled = Self::default();
        compiled.update(index, &Touched::default(), pods);
        compiled
    }

    /// Takes up what changed in the index, and which pods are the node's now. Returns the prefixes
    /// whose atoms changed.
    pub fn update<'a>(
        &mut self,
        index: &Index,
        touched: &Touched,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> BTreeSet<IpNet> {
        let other_rules = self.update_subjects(index, touched, pods);
        let anew = if other_rules { self.update_tests() } else { Anew::Nobody };
        let mut prefixes: BTreeSet<IpNet> =
            touched.addresses.iter().map(|addr| IpNet::from(*addr)).collect();
        if let Anew::Some(tests) = &anew {
            prefixes.extend(self.concerned(index, tests));
        }
        let changed =
            prefixes.into_iter().filter(|prefix| self.update_peer(index, *prefix)).collect();
        if !matches!(anew, Anew::Nobody) {
            self.forget_unused();
        }
        changed
    }

    /// Gives back what growing has left empty.
    pub fn pack(&mut self) {
        pack(&mut self.peers);
    }

    fn update_subjects<'a>(
        &mut self,
        index: &Index,
        touched: &Touched,
        pods: impl IntoIterator<Item = &'a Pod>,
    ) -> bool {
        let mut old = std::mem::take(&mut self.subjects);
        let mut changed = false;
        for pod in pods {
            let known = old.remove(&pod.uid);
            let stands = !touched.pods.contains(&pod.key)
                && !touched.policies_of.contains(&pod.key.namespace);
            let subject = match known {
                Some(subject) if stands => subject,
                known => {
                    let subject = Subject {
                        ingress: self.isolation(index, pod, Direction::Ingress),
                        egress: self.isolation(index, pod, Direction::Egress),
                    };
                    changed |= known.as_ref() != Some(&subject);
                    subject
                }
            };
            self.subjects.insert(pod.uid.clone(), subject);
        }
        changed |= !old.is_empty();
        changed
    }

    fn isolation(&mut self, index: &Index, pod: &Pod, direction: Direction) -> Option<Isolation> {
        let selecting: Vec<_> = index.selecting(pod, direction).collect();
        let policies: Vec<PolicyKey> = selecting.iter().map(|policy| policy.key.clone()).collect();
        if policies.is_empty() {
            return None;
        }
        let rule_set = RuleSet::of(&selecting, pod, direction);
        let shared = self.rule_sets.get(&rule_set).cloned();
        let rule_set = shared.unwrap_or_else(|| Arc::new(rule_set));
        self.rule_sets.insert(rule_set.clone());
        Some(Isolation { rule_set, policies })
    }

    fn update_tests(&mut self) -> Anew {
        // Whoever else holds a rule set is a subject.
        self.rule_sets.retain(|rule_set| Arc::strong_count(rule_set) > 1);
        let isolations =
            self.subjects.values().flat_map(|subject| [&subject.ingress, &subject.egress]);
        let mut rule_sets: Vec<&Arc<RuleSet>> =
            isolations.flatten().map(|isolation| &isolation.rule_set).collect();
        rule_sets.sort_by_key(|rule_set| Arc::as_ptr(rule_set));
        rule_sets.dedup_by_key(|rule_set| Arc::as_ptr(rule_set));
        let rules = rule_sets.into_iter().flat_map(|rule_set| rule_set.rules());
        self.tests.ask(rules, &mut self.atoms)
    }

    /// The prefixes that the new tests may find to be other peers. Replicas are asked once.
    fn concerned(&self, index: &Index, tests: &NewTests) -> BTreeSet<IpNet> {
        let leaving: HashSet<*const AtomId> =
            self.sets.iter().filter(|set| tests.leave(set)).map(|set| set.as_ptr()).collect();
        let left = self.peers.iter().filter(|(_, set)| leaving.contains(&set.as_ptr()));
        let mut alike: HashMap<(*const Labels, *const ContainerPort, &str), bool> = HashMap::new();
        let found = index.owners().filter(|(_, pod)| {
            let kind =
                (Arc::as_ptr(&pod.labels), pod.named_ports.as_ptr(), pod.key.namespace.as_ref());
            *alike.entry(kind).or_insert_with(|| tests.concern(index, pod))
        });
        let found = found.map(|(addr, _)| IpNet::from(addr));
        let mut prefixes: BTreeSet<IpNet> = left.map(|(prefix, _)| *prefix).chain(found).collect();
        for block in &tests.blocks {
            let within = *block..=IpNet::from(block.broadcast());
            prefixes.extend(index.owned(block.network(), block.broadcast()).map(IpNet::from));
            prefixes.extend(self.tests.borders().filter(|border| within.contains(border)));
            prefixes.extend(tests.borders.range(within));
        }
        prefixes
    }

    fn forget_unused(&mut self) {
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        let in_use = self.sets.iter().flat_map(|set| set.iter().copied());
        let in_use = in_use.chain(self.tests.atoms()).collect();
        self.atoms.retain(&in_use);
    }

    /// True when the prefix satisfies other atoms than before.
    fn update_peer(&mut self, index: &Index, prefix: IpNet) -> bool {
        let set = self.tests.entry(index, prefix, &mut self.atoms);
        let set = set.map(|set| self.shared(set));
        if self.peers.get(&prefix) == set.as_ref() {
            return false;
        }
        match set {
            Some(set) => self.peers.insert(prefix, set),
            None => self.peers.remove(&prefix),
        };
        true
    }

    fn shared(&mut self, set: Vec<AtomId>) -> AtomSet {
        if let Some(shared) = self.sets.get(set.as_slice()) {
            return shared.clone();
        }
        let set: AtomSet = set.into();
        self.sets.insert(set.clone());
        set
    }
}
