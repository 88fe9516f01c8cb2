//! Which policies are not put in force when the maps have no room for all of them.
//!
//! Those that ask for most, so that nobody else's change waits for them. Who asks for most is found
//! namespace by namespace: a tenant who writes a thousand policies weighs what they weigh together.
//! What is in force already goes after what is new, and what was shed before goes first: a policy
//! does not come and go by turns, and nobody can push out what others have.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;

use super::demand::{Census, Demand, Share, at_most};
use super::{Limits, NoRoom};
use crate::compile::{AllowRule, Atom, AtomId, Compiled, Isolation, RuleSet};
use crate::index::Index;
use crate::model::{Direction, Pod, PolicyKey};

/// When a policy is shed, before all others of a later turn whatever they ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It was shed before.
    Shed,
    /// It is another than what is in force.
    New,
    InForce,
}

/// The policies to shed, heaviest first within their turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    pub policies: Vec<PolicyKey>,
    /// What all policies together need.
    pub no_room: NoRoom,
}

/// No less than what is needed when there is room for everything that is compiled. Else shedding all
/// that is returned makes room, and shedding one less does not.
pub fn shed<'a>(
    compiled: &Compiled,
    index: &Index,
    pods: impl IntoIterator<Item = &'a Pod>,
    limits: &Limits,
    turn: impl Fn(&PolicyKey) -> Turn,
) -> Result<Demand, Shed> {
    let at_most = at_most(compiled);
    if at_most.within(limits).is_ok() {
        return Ok(at_most);
    }
    let census = Census::of(compiled);
    let pods: Vec<&Pod> = pods.into_iter().collect();
    let choice = Choice { compiled, index, census, pods, limits };
    let demand = choice.without(&[]);
    let Err(no_room) = demand.within(limits) else { return Ok(demand) };
    let weights = choice.weights();
    let makes_room = |some: &[PolicyKey]| choice.without(some).within(limits).is_ok();
    let mut policies = order(&weights, turn);
    policies.truncate(fewest(&policies, makes_room));
    // Next time these come first, without regard to why they were taken: it must be all of them.
    loop {
        let taken: BTreeSet<&PolicyKey> = policies.iter().collect();
        let again: BTreeMap<PolicyKey, usize> = weights
            .iter()
            .filter(|(key, _)| taken.contains(key))
            .map(|(key, weight)| (key.clone(), *weight))
            .collect();
        let mut fewer = order(&again, |_| Turn::Shed);
        fewer.truncate(fewest(&fewer, makes_room));
        if fewer.len() == policies.len() {
            return Err(Shed { policies, no_room });
        }
        policies = fewer;
    }
}

/// How many, from the first on, make room; all of them always do.
fn fewest(order: &[PolicyKey], makes_room: impl Fn(&[PolicyKey]) -> bool) -> usize {
    let fits = |count: usize| order.get(..count).is_none_or(&makes_room);
    // Mostly it is one.
    let (mut too_few, mut enough) = (0, order.len());
    let mut count = 1;
    while count < enough {
        if fits(count) {
            enough = count;
        } else {
            too_few = count;
            count *= 2;
        }
    }
    while too_few + 1 < enough {
        let middle = too_few + (enough - too_few) / 2;
        if fits(middle) {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    enough
}

/// Whether there is room for what is compiled.
pub fn has_room(compiled: &Compiled, limits: &Limits) -> bool {
    at_most(compiled).within(limits).is_ok()
        || demand_of(compiled, &Census::of(compiled), limits).within(limits).is_ok()
}

fn demand_of(compiled: &Compiled, census: &Census, limits: &Limits) -> Demand {
    let rule_sets: Vec<Arc<RuleSet>> = compiled.rule_sets().into_iter().cloned().collect();
    census.demand(&rule_sets, &compiled.atoms, limits)
}

struct Choice<'a> {
    compiled: &'a Compiled,
    index: &'a Index,
    census: Census,
    pods: Vec<&'a Pod>,
    limits: &'a Limits,
}

/// What one policy asks for in addition to others.
#[derive(Clone, Debug, Default)]
struct Weight {
    rules: usize,
    atoms: BTreeSet<AtomId>,
}

impl<'a> Choice<'a> {
    /// What every isolated direction of every pod is made of.
    fn isolations(&self) -> impl Iterator<Item = (&'a Pod, Direction, &'a Isolation)> {
        self.pods.iter().flat_map(|pod| {
            let subject = self.compiled.subjects.get(&pod.uid);
            let sides = subject.into_iter().flat_map(|subject| {
                [(Direction::Ingress, &subject.ingress), (Direction::Egress, &subject.egress)]
            });
            sides.filter_map(|(direction, side)| Some((*pod, direction, side.as_ref()?)))
        })
    }

    /// What is needed when some policies are closed.
    fn without(&self, shed: &[PolicyKey]) -> Demand {
        let shed: BTreeSet<&PolicyKey> = shed.iter().collect();
        let mut rule_sets: BTreeSet<Content> = BTreeSet::new();
        let mut known = BTreeSet::new();
        for (pod, direction, isolation) in self.isolations() {
            if !isolation.policies.iter().any(|key| shed.contains(key)) {
                rule_sets.insert(Content(isolation.rule_set.clone()));
                continue;
            }
            // Names of ports are the pod's own.
            if !known.insert((&isolation.policies, direction, pod.named_ports.as_ptr())) {
                continue;
            }
            let kept = isolation.policies.iter().filter(|key| !shed.contains(key));
            let kept: Vec<_> =
                kept.filter_map(|key| Some(self.index.policy(key)?.as_ref())).collect();
            rule_sets.insert(Content(Arc::new(RuleSet::of(&kept, pod, direction))));
        }
        let rule_sets: Vec<Arc<RuleSet>> = rule_sets.into_iter().map(|content| content.0).collect();
        self.census.demand(&rule_sets, &self.compiled.atoms, self.limits)
    }

    /// In millionths of the maps, so that entries of different maps can be added.
    fn weights(&self) -> BTreeMap<PolicyKey, usize> {
        let shares = self.census.shares();
        let share = |atom: &AtomId| shares.get(atom).copied().unwrap_or_default();
        let mut weights: BTreeMap<PolicyKey, Weight> = BTreeMap::new();
        let mut known = BTreeSet::new();
        for (pod, direction, isolation) in self.isolations() {
            let ports = pod.named_ports.as_ptr();
            if !known.insert((Arc::as_ptr(&isolation.rule_set), &isolation.policies, ports)) {
                continue;
            }
            let classes = self.classes_met(&isolation.rule_set, &shares);
            for key in &isolation.policies {
                let Some(policy) = self.index.policy(key) else { continue };
                let weight = weights.entry(key.clone()).or_default();
                for rule in RuleSet::of(&[policy], pod, direction).rules() {
                    let pieces = rule.pieces();
                    let pieces = pieces.numbers + pieces.names;
                    let peers = rule.peers.iter().flatten();
                    let atoms: Vec<AtomId> =
                        peers.filter_map(|atom| self.compiled.atoms.find(atom)).collect();
                    let classes = match rule.peers {
                        None => classes + 1,
                        Some(_) => atoms.iter().map(|atom| share(atom).classes).sum(),
                    };
                    weight.rules = weight.rules.saturating_add(pieces.saturating_mul(classes));
                    weight.atoms.extend(atoms);
                    if rule.pieces().names > 0 {
                        weight.atoms.extend(self.numbers_of(rule));
                    }
                }
            }
        }
        let scaled = |Weight { rules, atoms }: Weight| {
            let of = |entries: fn(&Share) -> usize| -> usize {
                atoms.iter().map(|atom| entries(&share(atom))).sum()
            };
            let Limits { peers, cidrs, rules: most } = *self.limits;
            let parts =
                [(rules, most), (of(|share| share.peers), peers), (of(|share| share.cidrs), cidrs)];
            parts.map(|(entries, limit)| millionths(entries, limit)).iter().sum()
        };
        weights
            .into_iter()
            .map(|(key, weight)| (key, scaled(weight)))
            .filter(|(_, weight)| *weight > 0)
            .collect()
    }

    /// The numbers that peers have for a rule's names: whom these tell apart is an entry each.
    fn numbers_of<'r>(&'r self, rule: &'r AllowRule) -> impl Iterator<Item = AtomId> + 'r {
        self.compiled.atoms.iter().filter_map(|(id, atom)| match &**atom {
            Atom::Port(port) => {
                let named = (port.protocol, port.name.as_str());
                rule.names().any(|name| name == named).then_some(id)
            }
            Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Block(_) => None,
        })
    }

    fn classes_met(&self, rule_set: &RuleSet, shares: &HashMap<AtomId, Share>) -> usize {
        let peers = rule_set.rules().iter().flat_map(|rule| rule.peers.iter().flatten());
        let atoms: BTreeSet<AtomId> =
            peers.filter_map(|atom| self.compiled.atoms.find(atom)).collect();
        atoms.iter().filter_map(|atom| shares.get(atom)).map(|share| share.classes).sum()
    }
}

/// Never 0 for something: whatever asks for an entry can be shed.
fn millionths(entries: usize, limit: usize) -> usize {
    entries.saturating_mul(1_000_000).div_ceil(limit.max(1))
}

/// The order in which policies are shed.
fn order(
    weights: &BTreeMap<PolicyKey, usize>,
    turn: impl Fn(&PolicyKey) -> Turn,
) -> Vec<PolicyKey> {
    let mut turns: BTreeMap<Turn, Namespaces> = BTreeMap::new();
    for (key, weight) in weights {
        let namespaces = turns.entry(turn(key)).or_default();
        namespaces.entry(key.namespace.clone()).or_default().push((*weight, key.clone()));
    }
    turns.into_values().flat_map(by_namespace).collect()
}

/// The policies of each namespace, and what they weigh.
type Namespaces = BTreeMap<Arc<str>, Vec<(usize, PolicyKey)>>;

/// The heaviest policy of the namespace that is heaviest with what is left of it, again and again.
fn by_namespace(namespaces: Namespaces) -> Vec<PolicyKey> {
    let mut heap: BinaryHeap<(usize, Vec<(usize, PolicyKey)>)> = namespaces
        .into_values()
        .map(|mut policies| {
            policies.sort_unstable();
            let sum = policies.iter().map(|(weight, _)| *weight).fold(0, usize::saturating_add);
            (sum, policies)
        })
        .collect();
    let mut order = Vec::new();
    while let Some((sum, mut policies)) = heap.pop() {
        let Some((weight, key)) = policies.pop() else { continue };
        order.push(key);
        heap.push((sum.saturating_sub(weight), policies));
    }
    order
}

/// A rule set, ordered by its content.
struct Content(Arc<RuleSet>);

impl Content {
    fn key(&self) -> (u64, &[AllowRule]) {
        (self.0.content(), self.0.rules())
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Content {}

impl PartialOrd for Content {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Content {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

#[cfg(test)]
mod tests;
