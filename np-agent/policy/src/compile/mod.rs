//! From objects to rules, for the pods of one node. Total: there is no error to return.
//!
//! Policies are taken apart into [`Atom`]s, the distinct tests they put to a peer. What an address
//! is then comes down to the set of atoms it satisfies, and what a pod allows to a [`RuleSet`]
//! over atoms: neither depends on how many policies said so, or in which order.
//!
//! [`Compiled`] is brought up to date with what changes have touched, and no more: a pod costs its
//! own addresses, a policy the pods it may select. Only when the atoms themselves change is every
//! address asked again.

mod atoms;
mod content;
mod peers;
mod rule_set;
mod selectors;
mod stand_in;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

pub use atoms::{Atom, AtomId, AtomSet, Atoms};
use peers::{Anew, NewTests, Tests};
pub use rule_set::{AllowPorts, AllowRule, Pieces, RuleSet};
pub use stand_in::{StandIn, StandIns};

use crate::index::{Index, Touched, pack};
use crate::model::{ContainerPort, Direction, Labels, Pod, PodUid, Policy, PolicyKey};

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
    stand_ins: StandIns,
    /// Pods whose labels nobody knows.
    unknown: BTreeSet<PodUid>,
    revision: Revision,
    /// Whether other things are asked than when the last time was forgotten what nothing asks for.
    asked_anew: bool,
}

/// Counts the updates that found other subjects, and other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    pub subjects: u64,
    pub peers: u64,
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
        compiled.forget_unused();
        compiled
    }

    /// Lets other versions of some policies count, from the next update on, and the policies of all
    /// others. Returns what that update has to be given as touched.
    pub fn stand_in(&mut self, stand_ins: StandIns) -> Touched {
        let mut touched = Touched::default();
        for (key, stand_in) in &stand_ins {
            if self.stand_ins.get(key) != Some(stand_in) {
                touched.policies_of.insert(key.namespace.clone());
            }
        }
        let gone = self.stand_ins.keys().filter(|key| !stand_ins.contains_key(*key));
        touched.policies_of.extend(gone.map(|key| key.namespace.clone()));
        self.stand_ins = stand_ins;
        touched
    }

    /// Isolates pods whose labels nobody knows, from the next update on: what selects them cannot be
    /// said. A pod that is known again has been touched.
    pub fn set_unknown(&mut self, pods: BTreeSet<PodUid>) {
        self.unknown = pods;
    }

    /// Another one after each update that found something else than before.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Takes in what changed in the index, and which pods are the node's now. Returns the prefixes
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
        let changed = self.update_peers(index, prefixes);
        self.asked_anew |= !matches!(anew, Anew::Nobody);
        self.revision.subjects += u64::from(other_rules);
        self.revision.peers += u64::from(!changed.is_empty());
        changed
    }

    /// Forgets the atoms that nothing asks for. Not while an update is to follow that may ask for
    /// them again: an atom that comes again is another to holders of the old one.
    pub fn forget_unused(&mut self) {
        if !std::mem::take(&mut self.asked_anew) {
            return;
        }
        self.sets.retain(|set| Arc::strong_count(set) > 1);
        let in_use = self.sets.iter().flat_map(|set| set.iter().copied());
        let in_use = in_use.chain(self.tests.atoms()).collect();
        self.atoms.retain(&in_use);
    }

    /// The rule sets of all pods, each once.
    pub fn rule_sets(&self) -> Vec<&Arc<RuleSet>> {
        let isolations =
            self.subjects.values().flat_map(|subject| [&subject.ingress, &subject.egress]);
        let mut rule_sets: Vec<&Arc<RuleSet>> =
            isolations.flatten().map(|isolation| &isolation.rule_set).collect();
        rule_sets.sort_by_key(|rule_set| Arc::as_ptr(rule_set));
        rule_sets.dedup_by_key(|rule_set| Arc::as_ptr(rule_set));
        rule_sets
    }

    /// No fewer than there are different sets of atoms.
    pub fn most_sets(&self) -> usize {
        self.sets.len()
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
        let selecting: Vec<&Policy> = if self.unknown.contains(&pod.uid) {
            Vec::new()
        } else {
            let own = index.selecting(pod, direction);
            let own = own.filter(|policy| !self.stand_ins.contains_key(&policy.key));
            own.chain(stand_in::selecting(&self.stand_ins, pod, direction)).collect()
        };
        let mut policies: Vec<PolicyKey> =
            selecting.iter().map(|policy| policy.key.clone()).collect();
        policies.sort_unstable();
        policies.dedup();
        if policies.is_empty() && !self.unknown.contains(&pod.uid) {
            return None;
        }
        let rule_set = RuleSet::of(&selecting, pod, direction);
        let shared = self.rule_sets.get(&rule_set).cloned();
        let rule_set = shared.unwrap_or_else(|| Arc::new(rule_set));
        self.rule_sets.insert(rule_set.clone());
        Some(Isolation { rule_set, policies })
    }

    fn update_tests(&mut self) -> Anew {
        // Every other holder of a rule set is a subject.
        self.rule_sets.retain(|rule_set| Arc::strong_count(rule_set) > 1);
        let rule_sets: Vec<Arc<RuleSet>> = self.rule_sets().into_iter().cloned().collect();
        let rules = rule_sets.iter().flat_map(|rule_set| rule_set.rules());
        self.tests.ask(rules, &mut self.atoms)
    }

    /// The prefixes that the new tests may find to be other peers.
    fn concerned(&self, index: &Index, tests: &NewTests) -> BTreeSet<IpNet> {
        let reached = index.namespaces_of_pods().filter(|name| tests.reach(index, name));
        let mut alike: HashMap<Kind, bool> = HashMap::new();
        let found = reached
            .flat_map(|name| index.pods_of(name))
            .filter(|pod| *alike.entry(kind(pod)).or_insert_with(|| tests.concern(index, pod)));
        let addresses = found.flat_map(|pod| pod.addresses.iter());
        let mut prefixes: BTreeSet<IpNet> = addresses.map(|addr| IpNet::from(*addr)).collect();
        for block in &tests.blocks {
            let within = *block..=IpNet::from(block.broadcast());
            prefixes.extend(index.owned(block.network(), block.broadcast()).map(IpNet::from));
            prefixes.extend(self.tests.borders().filter(|border| within.contains(border)));
            prefixes.extend(tests.borders.range(within));
        }
        prefixes
    }

    /// Returns the prefixes that satisfy other atoms than before.
    fn update_peers(&mut self, index: &Index, prefixes: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let mut alike = HashMap::new();
        let mut changed = |prefix: &IpNet| {
            let set = self.entry(index, *prefix, &mut alike);
            if self.peers.get(prefix) == set.as_ref() {
                return false;
            }
            match set {
                Some(set) => self.peers.insert(*prefix, set),
                None => self.peers.remove(prefix),
            };
            true
        };
        prefixes.into_iter().filter(&mut changed).collect()
    }

    /// What a prefix satisfies; none when a shorter one says so already. `alike` is what was found
    /// for pods of a kind: of replicas one is asked.
    fn entry(
        &mut self,
        index: &Index,
        prefix: IpNet,
        alike: &mut HashMap<Kind, AtomSet>,
    ) -> Option<AtomSet> {
        let (blocks, around) = self.tests.blocks(prefix);
        let single = prefix.prefix_len() == prefix.max_prefix_len();
        let Some(pod) = index.owner(prefix.addr()).filter(|_| single) else {
            return (blocks != around).then(|| self.shared(blocks.into_iter().collect()));
        };
        let own = match alike.get(&kind(pod)) {
            Some(known) => known.clone(),
            None => {
                let set = self.tests.of_pod(index, pod, &mut self.atoms);
                let set = self.shared(set.into_iter().collect());
                alike.insert(kind(pod), set.clone());
                set
            }
        };
        if blocks.is_empty() {
            return (!own.is_empty() || !around.is_empty()).then_some(own);
        }
        let set: BTreeSet<AtomId> = blocks.into_iter().chain(own.iter().copied()).collect();
        (set != around).then(|| self.shared(set.into_iter().collect()))
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

/// What a pod is to the tests, but for its addresses: pods of one kind satisfy the same.
type Kind = (*const Labels, *const ContainerPort, *const str);

fn kind(pod: &Pod) -> Kind {
    (Arc::as_ptr(&pod.labels), pod.named_ports.as_ptr(), Arc::as_ptr(&pod.key.namespace))
}
