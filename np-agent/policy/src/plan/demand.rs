//! How many entries the maps need for what is compiled, counted before anything is expanded: a
//! policy of 100 KB can ask for millions of rules, and the time to make them is everyone's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use ipnet::IpNet;

use super::lookup::{Lookup, Met};
use super::{Limits, NoRoom};
use crate::compile::{AllowRule, Atom, AtomId, AtomSet, Atoms, Compiled, RuleSet};
use crate::model::Protocol;

/// Entries, as [`Limits`] has them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    pub peers: usize,
    pub cidrs: usize,
    pub rules: usize,
}

/// Counting takes no more steps than this many times the rules that the map holds, and these. What
/// would take more counts as its upper bound.
const PATIENCE: usize = 4;
const STEPS: usize = 100_000;

impl Demand {
    pub fn plus(&self, more: &Self) -> Self {
        Self {
            peers: self.peers.saturating_add(more.peers),
            cidrs: self.cidrs.saturating_add(more.cidrs),
            rules: self.rules.saturating_add(more.rules),
        }
    }

    /// The map that is too small, if any.
    pub fn within(&self, limits: &Limits) -> Result<(), NoRoom> {
        let maps = [
            ("PEERS", self.peers, limits.peers),
            ("CIDRS", self.cidrs, limits.cidrs),
            ("RULES", self.rules, limits.rules),
        ];
        match maps.into_iter().find(|(_, needed, limit)| needed > limit) {
            Some((map, needed, limit)) => Err(NoRoom { map, needed, limit }),
            None => Ok(()),
        }
    }
}

/// No less than what is compiled needs, found without a look at peers.
pub fn at_most(compiled: &Compiled) -> Demand {
    let prefixes = compiled.peers.len();
    let rules = most_of_a_class(compiled).saturating_mul(compiled.most_sets() + 1);
    Demand { peers: prefixes, cidrs: prefixes, rules }
}

/// No less than what so many prefixes add that have another set of atoms now, under the same rule
/// sets.
pub fn growth(compiled: &Compiled, prefixes: usize) -> Demand {
    let rules = most_of_a_class(compiled).saturating_mul(prefixes);
    Demand { peers: prefixes, cidrs: prefixes, rules }
}

fn most_of_a_class(compiled: &Compiled) -> usize {
    let numbers = compiled.atoms.ports();
    let most = |rule_set: &Arc<RuleSet>| {
        let pieces = rule_set.most();
        pieces.numbers.saturating_add(pieces.names.saturating_mul(numbers))
    };
    compiled.rule_sets().into_iter().map(most).fold(0, usize::saturating_add)
}

/// Which sets of atoms there are, and how many prefixes have them.
#[derive(Debug)]
pub struct Census {
    kinds: Vec<Kind>,
}

/// Prefixes with equal sets, within prefixes with equal sets.
#[derive(Debug)]
struct Kind {
    set: AtomSet,
    around: AtomSet,
    singles: usize,
    cidrs: usize,
}

impl Census {
    pub fn of(compiled: &Compiled) -> Self {
        let nothing: AtomSet = Arc::from([]);
        let mut kinds: HashMap<_, Kind> = HashMap::new();
        // Ascending order visits a prefix right before those inside it: the stack is the way down.
        let mut stack: Vec<(_, &AtomSet)> = Vec::new();
        for (prefix, set) in &compiled.peers {
            while stack.last().is_some_and(|(outer, _): &(&IpNet, _)| !outer.contains(prefix)) {
                stack.pop();
            }
            let around = stack.last().map_or(&nothing, |(_, set)| set);
            // Equal sets are held once.
            let kind = kinds.entry((Arc::as_ptr(set), Arc::as_ptr(around))).or_insert_with(|| {
                Kind { set: set.clone(), around: around.clone(), singles: 0, cidrs: 0 }
            });
            if prefix.prefix_len() == prefix.max_prefix_len() {
                kind.singles += 1;
            } else {
                kind.cidrs += 1;
                stack.push((prefix, set));
            }
        }
        Self { kinds: kinds.into_values().collect() }
    }

    /// What is needed when these rule sets, and no others of those compiled, are in force.
    pub fn demand(&self, rule_sets: &[Arc<RuleSet>], atoms: &Atoms, limits: &Limits) -> Demand {
        let asked = Asked::of(rule_sets, atoms);
        let mut demand = Demand::default();
        let mut classes: HashSet<Box<[AtomId]>> = HashSet::new();
        for kind in &self.kinds {
            let set = asked.among(&kind.set);
            if set == asked.among(&kind.around) {
                continue;
            }
            demand.peers += kind.singles;
            demand.cidrs += kind.cidrs;
            // No atom, no class: a hole in a block.
            if !set.is_empty() {
                classes.insert(set);
            }
        }
        demand.rules = rules(rule_sets, &classes, atoms, limits);
        demand
    }

    /// How much of each map an atom asks for: entries of PEERS and CIDRS, and classes.
    pub fn shares(&self) -> HashMap<AtomId, Share> {
        let mut shares: HashMap<AtomId, Share> = HashMap::new();
        let mut classes: HashSet<*const [AtomId]> = HashSet::new();
        for kind in &self.kinds {
            let new = classes.insert(Arc::as_ptr(&kind.set));
            let both: BTreeSet<AtomId> = kind.set.iter().chain(&*kind.around).copied().collect();
            for atom in both {
                let share = shares.entry(atom).or_default();
                share.peers += kind.singles;
                share.cidrs += kind.cidrs;
            }
            for atom in kind.set.iter().filter(|_| new) {
                shares.entry(*atom).or_default().classes += 1;
            }
        }
        shares
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub peers: usize,
    pub cidrs: usize,
    pub classes: usize,
}

/// What some rule sets ask of peers.
struct Asked {
    atoms: HashSet<AtomId>,
}

impl Asked {
    fn of(rule_sets: &[Arc<RuleSet>], atoms: &Atoms) -> Self {
        let rules = || rule_sets.iter().flat_map(|rule_set| rule_set.rules());
        let tests = rules().flat_map(|rule| rule.peers.iter().flatten());
        let mut asked: HashSet<AtomId> = tests.filter_map(|atom| atoms.find(atom)).collect();
        let names: BTreeSet<(Protocol, &str)> = rules().flat_map(AllowRule::names).collect();
        asked.extend(atoms.iter().filter_map(|(id, atom)| match &**atom {
            Atom::Port(port) => names.contains(&(port.protocol, port.name.as_str())).then_some(id),
            Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Block(_) => None,
        }));
        Self { atoms: asked }
    }

    fn among(&self, set: &[AtomId]) -> Box<[AtomId]> {
        set.iter().filter(|atom| self.atoms.contains(atom)).copied().collect()
    }
}

fn rules(
    rule_sets: &[Arc<RuleSet>],
    classes: &HashSet<Box<[AtomId]>>,
    atoms: &Atoms,
    limits: &Limits,
) -> usize {
    let mut holders: HashMap<AtomId, usize> = HashMap::new();
    for atom in classes.iter().flat_map(|set| set.iter()) {
        *holders.entry(*atom).or_default() += 1;
    }
    let mut bounds: Vec<(usize, &Arc<RuleSet>)> =
        rule_sets.iter().map(|rule_set| (most(rule_set, &holders, atoms), rule_set)).collect();
    let all = bounds.iter().map(|(most, _)| *most).fold(0, usize::saturating_add);
    if all <= limits.rules {
        return all;
    }
    // The small ones are counted, so that they do not suffer from the bound of a large one.
    bounds.sort_by_key(|(most, rule_set)| (*most, rule_set.content()));
    let mut steps: usize = 0;
    let mut sum: usize = 0;
    for (most, rule_set) in bounds {
        steps = steps.saturating_add(most);
        let patient = steps <= limits.rules.saturating_mul(PATIENCE).saturating_add(STEPS);
        let count = if patient { exact(rule_set, classes, atoms) } else { most };
        sum = sum.saturating_add(count);
    }
    sum
}

/// No fewer rules than a rule set has, found without a look at each class. `holders` says how many
/// classes have an atom.
fn most(rule_set: &RuleSet, holders: &HashMap<AtomId, usize>, atoms: &Atoms) -> usize {
    let held = |id: AtomId| holders.get(&id).copied().unwrap_or_default();
    let mut of_names: BTreeMap<(Protocol, &str), usize> = BTreeMap::new();
    if rule_set.most().names > 0 {
        for (id, atom) in atoms.iter() {
            if let Atom::Port(port) = &**atom {
                *of_names.entry((port.protocol, &port.name)).or_default() += held(id);
            }
        }
    }
    let mut met: BTreeSet<AtomId> = BTreeSet::new();
    let (mut everyone, mut sum) = (0, 0_usize);
    for rule in rule_set.rules() {
        let numbers = rule.pieces().numbers;
        match &rule.peers {
            None => everyone += numbers,
            Some(peers) => {
                for id in peers.iter().filter_map(|atom| atoms.find(atom)) {
                    met.insert(id);
                    sum = sum.saturating_add(numbers.saturating_mul(held(id)));
                }
            }
        }
    }
    // A class with a number for a name has one entry for it, and also all that everyone has.
    let asked: BTreeSet<_> = rule_set.rules().iter().flat_map(AllowRule::names).collect();
    let named: usize = asked.iter().filter_map(|name| of_names.get(name)).sum();
    let classes = met.into_iter().map(held).sum::<usize>() + named;
    sum.saturating_add(named).saturating_add(everyone * (classes + 1))
}

/// As many rules as the rule set has in the map.
fn exact(rule_set: &Arc<RuleSet>, classes: &HashSet<Box<[AtomId]>>, atoms: &Atoms) -> usize {
    let lookup = Lookup::of(rule_set, atoms);
    let everyone = lookup.for_everyone().normal();
    let mut known: HashMap<Met, usize> = HashMap::new();
    let beside: usize = classes
        .iter()
        .filter_map(|set| lookup.meets(set, atoms))
        .map(|met| match known.get(&met) {
            Some(count) => *count,
            None => {
                let ports = lookup.ports(&met).normal();
                let count = if ports == everyone { 0 } else { ports.count() };
                known.insert(met, count);
                count
            }
        })
        .sum();
    everyone.count() + beside
}
