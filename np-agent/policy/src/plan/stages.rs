//! A plan for maps that have room for what is to be, and not for what is and what is to be at once.
//!
//! Most plans need both for a moment, so that each verdict goes from the old one to the new one.
//! Where that does not fit, pods are closed first, those whose rules change and that hold the most of
//! them before others: for the time of the change they may talk with nobody. Nobody is ever allowed
//! what neither the old nor the new policy allows.

use std::collections::{BTreeMap, BTreeSet};

use np_common::direction::Direction;
use np_common::endpoint::{EndpointId, Iface, PolicyWord, Role};
use np_common::rules::RuleSetId;

use super::{Limits, Op, Peers, RulePrefix, Scope, Tables, diff, room};

/// The operations, in order: those of [`diff`] where the maps have room for them.
pub fn within(actual: &Tables, desired: &Tables, scope: &Scope, limits: &Limits) -> Vec<Op> {
    let ops = diff(actual, desired, scope);
    if room(actual, &ops, limits).is_ok() {
        return ops;
    }
    let (in_force, kept) = (actual.rule_sets(), desired.rule_sets());
    // Pods whose rules are to be others come first: they are who the change is about.
    let mut heaviest: Vec<(bool, usize, RuleSetId)> = sizes(actual)
        .into_iter()
        .filter(|(rule_set, _)| in_force.contains(rule_set))
        .map(|(rule_set, size)| (!kept.contains(&rule_set), size, rule_set))
        .collect();
    heaviest.sort_unstable_by(|one, other| other.cmp(one));
    let mut count = 1;
    while count < heaviest.len() {
        let some = heaviest.iter().take(count).map(|(.., rule_set)| *rule_set).collect();
        let ops = by_way_of(actual, &[closed(actual, desired, &some)], desired);
        if room(actual, &ops, limits).is_ok() {
            return ops;
        }
        count *= 4;
    }
    let without_rules = closed(actual, desired, &in_force);
    let empty = Tables { peers: Peers::default(), ..without_rules.clone() };
    by_way_of(actual, &[without_rules, empty], desired)
}

fn sizes(tables: &Tables) -> BTreeMap<RuleSetId, usize> {
    let mut sizes = BTreeMap::new();
    for rule in &tables.rules {
        *sizes.entry(rule.rule_set).or_default() += 1;
    }
    sizes
}

fn by_way_of(actual: &Tables, stages: &[Tables], desired: &Tables) -> Vec<Op> {
    let mut at = actual.clone();
    let mut all = Vec::new();
    for next in stages.iter().chain([desired]) {
        // Each stage has a generation of its own.
        let ops = diff(&at, next, &Scope::everything());
        ops.iter().for_each(|op| op.apply(&mut at));
        all.extend(ops);
    }
    all
}

/// The tables when nothing is allowed by some rule sets, nor by rules that no packet can meet. New
/// devices are denied, before anything takes time.
fn closed(actual: &Tables, desired: &Tables, rule_sets: &BTreeSet<RuleSetId>) -> Tables {
    let in_use: BTreeSet<RuleSetId> =
        actual.rule_sets().union(&desired.rule_sets()).copied().collect();
    let rules = |id| RulePrefix::of_rule_set(id);
    let free = |id: &RuleSetId| {
        !in_use.contains(id)
            && actual.rules.range(rules(*id)).next().is_none()
            && desired.rules.range(rules(*id)).next().is_none()
    };
    let nothing = (1..=RuleSetId::MAX).rev().map(RuleSetId::new).find(free);
    let mut tables = actual.clone();
    let close = |rule_set: RuleSetId| {
        if rule_sets.contains(&rule_set) { nothing.unwrap_or(rule_set) } else { rule_set }
    };
    for endpoint in tables.endpoints.values_mut() {
        let [ingress, egress] =
            [Direction::Ingress, Direction::Egress].map(|side| endpoint.policy.rule_set(side));
        if [ingress, egress].iter().flatten().any(|rule_set| rule_sets.contains(rule_set)) {
            endpoint.policy = PolicyWord::new(ingress.map(close), egress.map(close));
        }
    }
    let kept = tables.rule_sets();
    tables.rules.retain(|rule| kept.contains(&rule.rule_set));
    for (ifindex, iface) in &desired.ifaces {
        tables.ifaces.entry(*ifindex).or_insert_with(|| match iface.role() {
            Some(Role::Pod) => Iface::new(*ifindex, Role::Pending, EndpointId::NONE),
            Some(_) | None => *iface,
        });
    }
    tables.config = desired.config;
    tables
}

#[cfg(test)]
mod tests {
    use np_common::rules::ClassId;
    use proptest::prelude::*;

    use super::*;
    use crate::plan::PortPrefix;
    use crate::plan::diff::tests::{mk_tables, tables, verdicts};

    /// Room for either, and for so many entries more.
    fn room_for(actual: &Tables, desired: &Tables, spare: usize) -> Limits {
        let rules = actual.rules.len().max(desired.rules.len()) + spare;
        let [old, new] = [actual, desired].map(entries);
        Limits { peers: old[0].max(new[0]) + spare, cidrs: old[1].max(new[1]) + spare, rules }
    }

    /// Of PEERS and CIDRS.
    fn entries(tables: &Tables) -> [usize; 2] {
        let single = |prefix: &&ipnet::IpNet| prefix.prefix_len() == prefix.max_prefix_len();
        let singles = tables.peers.keys().filter(single).count();
        [singles, tables.peers.len() - singles]
    }

    /// What a change that broke off has left, where an id for nothing is looked for first.
    fn stray() -> RulePrefix {
        let rule_set = RuleSetId::new(RuleSetId::MAX);
        RulePrefix { rule_set, class: ClassId::NONE, ports: PortPrefix::EVERYTHING }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn a_plan_keeps_to_the_room_there_is_and_allows_nobody_more(
            actual in tables(), desired in tables(), strays in any::<bool>(), spare in 0..6_usize,
        ) {
            let mut now = actual;
            now.rules.extend(strays.then(stray));
            let limits = room_for(&now, &desired, spare);
            let (old, new) = (verdicts(&now), verdicts(&desired));
            for op in within(&now.clone(), &desired, &Scope::everything(), &limits) {
                op.apply(&mut now);
                let [peers, cidrs] = entries(&now);
                prop_assert!(now.rules.len() <= limits.rules, "after {op}");
                prop_assert!(peers <= limits.peers && cidrs <= limits.cidrs, "after {op}");
                for ((now, old), new) in verdicts(&now).iter().zip(&old).zip(&new) {
                    prop_assert!(!now || *old || *new, "after {op}");
                }
            }
            now.config = desired.config;
            prop_assert_eq!(now, desired);
        }
    }

    /// Of those whose rules change the one with the most is closed, and that is enough.
    #[test]
    fn nobody_is_closed_who_need_not_be() {
        let ports = |rule_set, ports: std::ops::Range<u16>| {
            ports.map(move |port| RulePrefix {
                rule_set: RuleSetId::new(rule_set),
                class: ClassId::NONE,
                ports: PortPrefix::ports(6, port, 16),
            })
        };
        let policed = |by: [u32; 3]| {
            let mut tables = mk_tables(vec![], vec![(0, 0); 3]);
            for (endpoint, rule_set) in tables.endpoints.values_mut().zip(by) {
                endpoint.policy = PolicyWord::new(Some(RuleSetId::new(rule_set)), None);
            }
            tables
        };
        // Endpoint 1 keeps many rules; 2 changes many, and 3 a few.
        let (mut actual, mut desired) = (policed([4, 5, 6]), policed([4, 7, 8]));
        actual.rules.extend(ports(4, 0..50).chain(ports(5, 0..20)).chain(ports(6, 0..2)));
        desired.rules.extend(ports(4, 0..50).chain(ports(7, 0..20)).chain(ports(8, 0..2)));
        let limits = room_for(&actual, &desired, 2);
        let ops = within(&actual, &desired, &Scope::everything(), &limits);
        let words = [1, 2, 3].map(EndpointId::new).map(|id| {
            ops.iter().filter(|op| matches!(op, Op::SetPolicy(of, _) if *of == id)).count()
        });
        assert_eq!(words, [0, 2, 1], "{ops:?}");
    }
}
