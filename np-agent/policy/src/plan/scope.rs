//! Where the actual tables may differ from the desired ones, so that a small change needs no look
//! at all of them.

use std::collections::BTreeSet;

use ipnet::IpNet;
use np_common::direction::Direction;
use np_common::rules::ClassId;

use super::{Peers, RulePrefix, Tables};

/// Keys of the two tables that grow with the cluster. The others are the node's own, and small.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Anything may differ: at the start, and after a write that failed.
    pub everything: bool,
    pub peers: BTreeSet<IpNet>,
    pub rules: BTreeSet<RulePrefix>,
}

impl Scope {
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// With every rule that the addresses in scope meet before or after, and all rules of rule sets
    /// that some endpoint leaves: what an address is to answer while it is on its way.
    pub fn with_rules_met(&self, actual: &Tables, desired: &Tables) -> Self {
        let mut scope = self.clone();
        let left = actual.endpoints.iter().flat_map(|(id, old)| {
            let new = desired.endpoints.get(id).map(|new| new.policy);
            [Direction::Ingress, Direction::Egress].into_iter().filter_map(move |direction| {
                let old = old.policy.rule_set(direction)?;
                (new?.rule_set(direction) != Some(old)).then_some(old)
            })
        });
        for rule_set in left.collect::<BTreeSet<_>>() {
            scope.rules.extend(actual.rules.range(RulePrefix::of_rule_set(rule_set)));
        }
        let of = |tables: &Tables| scope.of(tables).peers.classes().collect::<BTreeSet<_>>();
        let classes: BTreeSet<ClassId> = of(actual).union(&of(desired)).copied().collect();
        for tables in [actual, desired] {
            for rule_set in tables.rule_sets() {
                for class in &classes {
                    scope.rules.extend(tables.rules.range(RulePrefix::of_class(rule_set, *class)));
                }
            }
        }
        scope
    }

    /// The part of tables that a change in scope can be planned on: the keys, and the entries
    /// that hold for these prefixes without their own.
    pub fn of(&self, tables: &Tables) -> Tables {
        let mut peers = Peers::default();
        for prefix in &self.peers {
            peers.extend(tables.peers.get(prefix).map(|class| (*prefix, *class)));
            peers.extend(tables.peers.around(prefix));
        }
        Tables {
            ifaces: tables.ifaces.clone(),
            endpoints: tables.endpoints.clone(),
            local: tables.local.clone(),
            sources: tables.sources.clone(),
            peers,
            rules: self.rules.intersection(&tables.rules).copied().collect(),
            tunnels: tables.tunnels.clone(),
            config: tables.config,
        }
    }
}
