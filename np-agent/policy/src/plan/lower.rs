//! From what is compiled to the tables that carry it, kept up to date in place.
//!
//! Ids are made of content: the same set of atoms gets the same class, the same rules the same
//! rule set, today and after a restart, so that what did not change needs no write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ipnet::IpNet;
use np_common::endpoint::{EndpointId, PolicyWord};
use np_common::rules::{ClassId, RuleSetId};

use super::lookup::Lookup;
use super::{PortPrefix, RulePrefix, Scope, Tables};
use crate::compile::{AtomSet, Compiled, Isolation, RuleSet};
use crate::model::PodUid;

/// The classes and rule sets in use, and which ids stand for them.
#[derive(Clone, Debug, Default)]
pub struct Lowered {
    classes: HashMap<AtomSet, ClassId>,
    class_ids: BTreeMap<ClassId, AtomSet>,
    rule_sets: HashMap<Arc<RuleSet>, RuleSetId>,
    lookups: BTreeMap<RuleSetId, (Arc<RuleSet>, Lookup)>,
}

impl Lowered {
    /// Gives tables their peers, rules and policy words. `changed` are the prefixes that satisfy
    /// other atoms than the last time; `ids` names the pod of every endpoint, and one that is not
    /// compiled is policed nowhere yet. Adds to `scope` what was written.
    pub fn update(
        &mut self,
        compiled: &Compiled,
        changed: &BTreeSet<IpNet>,
        ids: &BTreeMap<EndpointId, PodUid>,
        tables: &mut Tables,
        scope: &mut Scope,
    ) {
        let subjects: Vec<_> =
            ids.iter().filter_map(|(id, uid)| Some((*id, compiled.subjects.get(uid)?))).collect();
        let isolations =
            subjects.iter().flat_map(|(_, subject)| [&subject.ingress, &subject.egress]);
        let in_use: Vec<&Arc<RuleSet>> =
            isolations.flatten().map(|isolation| &isolation.rule_set).collect();

        self.remove_rule_sets(&in_use, tables, scope);
        self.update_classes(compiled, changed, tables, scope);
        for rule_set in in_use {
            self.add_rule_set(rule_set, compiled, tables, scope);
        }

        let word = |side: &Option<Isolation>| {
            side.as_ref().and_then(|side| self.rule_sets.get(&side.rule_set)).copied()
        };
        for (id, subject) in subjects {
            if let Some(endpoint) = tables.endpoints.get_mut(&id) {
                endpoint.policy = PolicyWord::new(word(&subject.ingress), word(&subject.egress));
            }
        }
    }

    fn remove_rule_sets(
        &mut self,
        in_use: &[&Arc<RuleSet>],
        tables: &mut Tables,
        scope: &mut Scope,
    ) {
        let used: BTreeSet<RuleSetId> =
            in_use.iter().filter_map(|rule_set| self.rule_sets.get(*rule_set)).copied().collect();
        let gone: Vec<RuleSetId> =
            self.lookups.keys().copied().filter(|id| !used.contains(id)).collect();
        for id in gone {
            if let Some((rule_set, _)) = self.lookups.remove(&id) {
                self.rule_sets.remove(&rule_set);
            }
            let rules: Vec<RulePrefix> =
                tables.rules.range(RulePrefix::of_rule_set(id)).copied().collect();
            for rule in rules {
                tables.rules.remove(&rule);
                scope.rules.insert(rule);
            }
        }
    }

    fn update_classes(
        &mut self,
        compiled: &Compiled,
        changed: &BTreeSet<IpNet>,
        tables: &mut Tables,
        scope: &mut Scope,
    ) {
        let mut left = BTreeSet::new();
        for prefix in changed {
            let new =
                compiled.peers.get(prefix).map(|set| self.enter(set, compiled, tables, scope));
            let old = match new {
                Some(class) => tables.peers.insert(*prefix, class),
                None => tables.peers.remove(prefix),
            };
            left.extend(old);
            scope.peers.insert(*prefix);
        }
        for id in left {
            if tables.peers.have(id) {
                continue;
            }
            let Some(set) = self.class_ids.remove(&id) else { continue };
            self.classes.remove(&set);
            for rule_set in self.lookups.keys() {
                let rules: Vec<RulePrefix> =
                    tables.rules.range(RulePrefix::of_class(*rule_set, id)).copied().collect();
                for rule in rules {
                    tables.rules.remove(&rule);
                    scope.rules.insert(rule);
                }
            }
        }
    }

    /// The class of a set of atoms, which some prefix is about to have.
    fn enter(
        &mut self,
        set: &AtomSet,
        compiled: &Compiled,
        tables: &mut Tables,
        scope: &mut Scope,
    ) -> ClassId {
        // No atom, no class: a hole in a block.
        if set.is_empty() {
            return ClassId::NONE;
        }
        if let Some(id) = self.classes.get(set) {
            return *id;
        }
        let free = |id: &u32| !self.class_ids.contains_key(&ClassId::new(*id));
        let id = ClassId::new(free_id(compiled.atoms.content(set), u32::MAX, free));
        self.classes.insert(set.clone(), id);
        self.class_ids.insert(id, set.clone());
        for (rule_set, (_, lookup)) in &self.lookups {
            if let Some(ports) = lookup.beside_everyone(set, &compiled.atoms) {
                write(*rule_set, id, ports, tables, scope);
            }
        }
        id
    }

    fn add_rule_set(
        &mut self,
        rule_set: &Arc<RuleSet>,
        compiled: &Compiled,
        tables: &mut Tables,
        scope: &mut Scope,
    ) {
        if self.rule_sets.contains_key(rule_set) {
            return;
        }
        let free = |id: &u32| !self.lookups.contains_key(&RuleSetId::new(*id));
        let id = RuleSetId::new(free_id(rule_set.content(), RuleSetId::MAX, free));
        let lookup = Lookup::of(rule_set, &compiled.atoms);
        write(id, ClassId::NONE, lookup.everyone().clone(), tables, scope);
        for (class, set) in &self.class_ids {
            if let Some(ports) = lookup.beside_everyone(set, &compiled.atoms) {
                write(id, *class, ports, tables, scope);
            }
        }
        self.rule_sets.insert(rule_set.clone(), id);
        self.lookups.insert(id, (rule_set.clone(), lookup));
    }
}

fn write(
    rule_set: RuleSetId,
    class: ClassId,
    ports: BTreeSet<PortPrefix>,
    tables: &mut Tables,
    scope: &mut Scope,
) {
    for ports in ports {
        let rule = RulePrefix { rule_set, class, ports };
        tables.rules.insert(rule);
        scope.rules.insert(rule);
    }
}

/// Two contents that hash alike get different ids all the same. 0 stands for no class and no rule
/// set.
fn free_id(content: u64, max: u32, free: impl Fn(&u32) -> bool) -> u32 {
    let first = (content % u64::from(max)) as u32;
    let mut ids =
        (0..max).map(|step| 1 + ((u64::from(first) + u64::from(step)) % u64::from(max)) as u32);
    ids.find(free).unwrap_or(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_of_its_content_and_steps_aside_for_others() {
        let id = |content, taken: &[u32]| free_id(content, 10, |id| !taken.contains(id));
        assert_eq!(id(5, &[]), 6);
        assert_eq!(id(25, &[]), 6);
        assert_eq!(id(5, &[6]), 7);
        assert_eq!(id(5, &[6, 7]), 8);
        assert_eq!(id(9, &[10]), 1, "behind the last comes the first");
        assert_eq!(id(9, &[10, 1]), 2);
        assert_eq!(id(0, &[]), 1, "0 is nobody's");
        assert_eq!(id(1 << 32, &[]), 7, "all of the content counts");
    }
}
