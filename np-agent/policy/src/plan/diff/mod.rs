//! The writes that turn the actual tables into the desired ones, without a gap.
//!
//! Every write is atomic by itself, so the question is only their order. Seen from one endpoint,
//! each (peer, protocol, port) must go from its old verdict to its new one and never through a
//! third:
//!
//! ```text
//!  0  sources    that pods may no longer send from are taken away
//!     tunnels    that are new are closed to pods, and the generation rises at once for it
//!     devices    that are new, or no longer their pod's, are default-deny, whatever else cannot be
//!                written
//!     copies     of rule sets that one endpoint leaves and another keeps
//!     orphans    are removed: rules that no packet can meet
//!  1  rules      of new rule sets, and of every class an address is about to get, under the rule
//!                sets in force and under those to come
//!  2  addresses  to their classes, longest prefix first
//!  3  endpoints  addresses and policy words, one store each; further sources; devices; what is gone
//!                is cleared, device first
//!  4  generation so that flows are judged again, and none of a pod that is gone counts for the next
//!                one with its id
//!  5  clean-up   addresses to their plain classes, then what nothing names any more
//! ```
//!
//! The subtle part is 2. A rule set that is about to leave judges an address by its old class, one
//! that comes by its new class, and both may judge it at the same time. So while rule sets change,
//! an address goes to a class that answers like the old one under the leaving rule sets and like
//! the new one under the others: the new class itself where it can answer so, else one made for the
//! time of the change. A rule set that some endpoint leaves and another keeps cannot answer both
//! ways: whoever leaves it gets a copy to leave instead.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use np_common::config::Config;
use np_common::direction::Direction;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::rules::{ClassId, RuleSetId};

use super::{Op, Peers, PortPrefix, RulePrefix, Scope, Tables};

/// The operations, in order. The generation of `desired` is not looked at: it rises by one when a
/// verdict may have changed.
///
/// Only what is in scope may differ, and the plan is made on that part of the tables.
pub fn diff(actual: &Tables, desired: &Tables, scope: &Scope) -> Vec<Op> {
    let mut closed = gone_sources(actual, desired);
    closed.extend(new_tunnels(actual, desired));
    if !closed.is_empty() {
        let mut with_closed = actual.clone();
        closed.iter().for_each(|op| op.apply(&mut with_closed));
        return closed.into_iter().chain(diff(&with_closed, desired, scope)).collect();
    }
    let mut ops = closed_devices(actual, desired);
    if scope.everything {
        ops.extend(separated(actual, desired, &actual.peers, orphans));
        return ops;
    }
    // Within the scope of a whole plan there is nothing that a broken-off change has left.
    let none = |_: &Tables, _: &Tables| BTreeSet::new();
    if scope.peers.is_empty() || !leaves_rule_sets(actual, desired) {
        let (actual, desired) = (scope.of(actual), scope.of(desired));
        ops.extend(ordered(&actual, &desired, &actual.peers, &BTreeSet::new()));
        return ops;
    }
    let scope = scope.with_rules_met(actual, desired);
    ops.extend(separated(&scope.of(actual), &scope.of(desired), &actual.peers, none));
    ops
}

/// Before an id can be another pod's, and before others come: so the map is never fuller than all
/// endpoints may have. The source of a packet is proven before its flow is looked for, so no flow
/// needs to be judged again.
fn gone_sources(actual: &Tables, desired: &Tables) -> Vec<Op> {
    let gone = actual.sources.difference(&desired.sources);
    gone.map(|(id, prefix)| Op::RemoveSource(*id, *prefix)).collect()
}

/// With a generation of their own: should the rest break off, the next change finds no new tunnels,
/// and flows that pods have opened to these have to end all the same. A tunnel that goes ends none.
fn new_tunnels(actual: &Tables, desired: &Tables) -> Vec<Op> {
    let new = desired.tunnels.difference(&actual.tunnels);
    let mut ops: Vec<Op> = new.copied().map(Op::SetTunnel).collect();
    if !ops.is_empty() {
        let generation = actual.config.generation().wrapping_add(1);
        ops.push(Op::SetConfig(Config::new(generation, actual.config.pending_allowed())));
    }
    ops
}

fn closed_devices(actual: &Tables, desired: &Tables) -> Vec<Op> {
    let firsts = desired.ifaces.values().map(|iface| first(actual, *iface));
    let changed = firsts.filter(|first| actual.ifaces.get(&first.ifindex()) != Some(first));
    changed.map(Op::SetIface).collect()
}

/// What a device is before its endpoint is complete: what it was, unless it is new or was another
/// endpoint's.
fn first(actual: &Tables, iface: Iface) -> Iface {
    let stays = |old: &&Iface| old.role() != Some(Role::Pod) || old.endpoint() == iface.endpoint();
    match (actual.ifaces.get(&iface.ifindex()).filter(stays), iface.role()) {
        (Some(old), _) => *old,
        (None, Some(Role::Pod)) => Iface::new(iface.ifindex(), Role::Pending, EndpointId::NONE),
        (
            None,
            Some(Role::Pending | Role::Foreign | Role::Uplink | Role::Tunnel | Role::Stacked)
            | None,
        ) => iface,
    }
}

fn leaves_rule_sets(actual: &Tables, desired: &Tables) -> bool {
    let kept = desired.rule_sets();
    let moved = |(id, endpoint): (&EndpointId, &Endpoint)| {
        desired.endpoints.get(id).is_some_and(|new| new.policy != endpoint.policy)
    };
    !actual.rule_sets().is_subset(&kept) || actual.endpoints.iter().any(moved)
}

/// Copies, and then the steps.
fn separated(
    actual: &Tables,
    desired: &Tables,
    in_force: &Peers,
    orphans: impl Fn(&Tables, &Tables) -> BTreeSet<RulePrefix>,
) -> Vec<Op> {
    let mut ops = copies(actual, desired);
    let mut separated = Cow::Borrowed(actual);
    for op in &ops {
        op.apply(separated.to_mut());
    }
    let orphans = orphans(&separated, desired);
    ops.extend(ordered(&separated, desired, in_force, &orphans));
    ops
}

/// Steps 1 to 5. `in_force` has the classes that addresses have, also addresses that stay.
fn ordered(
    actual: &Tables,
    desired: &Tables,
    in_force: &Peers,
    orphans: &BTreeSet<RulePrefix>,
) -> Vec<Op> {
    let moves = Moves::between(actual, desired, in_force);
    let mut ops = Vec::new();

    let orphans: BTreeSet<RulePrefix> = orphans.difference(&moves.rules).copied().collect();
    ops.extend(orphans.iter().copied().map(Op::RemoveRule));
    ops.extend(moves.rules.difference(&actual.rules).copied().map(Op::SetRule));
    ops.extend(moves.addresses());
    endpoints(actual, desired, &mut ops);
    releases(actual, desired, &mut ops);

    let verdict = |tables: &Tables| -> BTreeMap<EndpointId, PolicyWord> {
        tables.endpoints.iter().map(|(id, endpoint)| (*id, endpoint.policy)).collect()
    };
    let lost = |(id, new): (&EndpointId, &Endpoint)| {
        actual.endpoints.get(id).is_some_and(|old| loses_address(old, new))
    };
    let changed = actual.peers != desired.peers
        || actual.rules != desired.rules
        || verdict(actual) != verdict(desired)
        || desired.endpoints.iter().any(lost);
    let generation = actual.config.generation().wrapping_add(u32::from(changed));
    let config = Config::new(generation, desired.config.pending_allowed());
    if config != actual.config {
        ops.push(Op::SetConfig(config));
    }

    ops.extend(moves.clean_up());
    let held = moves.rules.union(&actual.rules);
    let gone = held.filter(|rule| !desired.rules.contains(rule) && !orphans.contains(rule));
    ops.extend(gone.copied().map(Op::RemoveRule));
    ops.extend(actual.tunnels.difference(&desired.tunnels).copied().map(Op::RemoveTunnel));
    ops
}

/// Rules that no packet can meet, because no address has their class or no endpoint their rule set:
/// what a change that broke off has left. They go first, so that what is taught to a class is all
/// that it answers.
fn orphans(actual: &Tables, desired: &Tables) -> BTreeSet<RulePrefix> {
    let classes: BTreeSet<ClassId> = actual.peers.classes().chain([ClassId::NONE]).collect();
    let rule_sets = actual.rule_sets();
    let met =
        |rule: &RulePrefix| classes.contains(&rule.class) && rule_sets.contains(&rule.rule_set);
    let unwanted = actual.rules.difference(&desired.rules);
    unwanted.filter(|rule| !met(rule)).copied().collect()
}

/// Gives endpoints that leave a rule set which others keep a copy of it, while addresses are about
/// to move. No verdict changes by it.
fn copies(actual: &Tables, desired: &Tables) -> Vec<Op> {
    if actual.peers == desired.peers {
        return Vec::new();
    }
    let kept = desired.rule_sets();
    let in_use: BTreeSet<RuleSetId> = actual
        .rule_sets()
        .into_iter()
        .chain(kept.iter().copied())
        .chain(actual.rules.iter().map(|rule| rule.rule_set))
        .collect();
    let mut copies: BTreeMap<RuleSetId, RuleSetId> = BTreeMap::new();
    let mut moved = Vec::new();
    for (id, endpoint) in &actual.endpoints {
        let Some(new) = desired.endpoints.get(id) else { continue };
        let mut copy_if_left = |direction| {
            let old = endpoint.policy.rule_set(direction)?;
            if new.policy.rule_set(direction) == Some(old) || !kept.contains(&old) {
                return Some(old);
            }
            let copy = copies.get(&old).copied().unwrap_or_else(|| {
                let free = |id: &RuleSetId| {
                    !in_use.contains(id) && !copies.values().any(|copy| copy == id)
                };
                let mut ids = (1..=RuleSetId::MAX).map(|step| {
                    RuleSetId::new(1 + (old.get() - 1).wrapping_add(step) % RuleSetId::MAX)
                });
                ids.find(free).unwrap_or(old)
            });
            copies.insert(old, copy);
            Some(copy)
        };
        let policy =
            PolicyWord::new(copy_if_left(Direction::Ingress), copy_if_left(Direction::Egress));
        if policy != endpoint.policy {
            moved.push(Op::SetPolicy(*id, policy));
        }
    }
    let rules = actual.rules.iter().filter_map(|rule| {
        Some(Op::SetRule(RulePrefix { rule_set: *copies.get(&rule.rule_set)?, ..*rule }))
    });
    rules.chain(moved).collect()
}

/// How every address gets from its old class to its new one.
struct Moves {
    /// What RULES must hold for the time of the change, in addition to what leaves.
    rules: BTreeSet<RulePrefix>,
    /// Longest prefix first.
    steps: Vec<Step>,
}

struct Step {
    prefix: IpNet,
    /// What the prefix's own entry holds before and after; none when it has none.
    old: Option<ClassId>,
    new: Option<ClassId>,
    /// The class during the change.
    during: ClassId,
    /// The class after it, by this or a shorter prefix.
    after: ClassId,
}

impl Moves {
    fn between(actual: &Tables, desired: &Tables, in_force: &Peers) -> Self {
        let old_rules = by_class(&actual.rules);
        let new_rules = by_class(&desired.rules);
        let leaving: Vec<RuleSetId> =
            actual.rule_sets().difference(&desired.rule_sets()).copied().collect();
        let prefixes: BTreeSet<IpNet> =
            actual.peers.keys().chain(desired.peers.keys()).copied().collect();
        let old = covering(&prefixes, &actual.peers);
        let new = covering(&prefixes, &desired.peers);
        let pairs: BTreeSet<(ClassId, ClassId)> =
            prefixes.iter().map(|prefix| (old[prefix], new[prefix])).collect();
        // Addresses that keep their class have the first say in what it answers.
        let (staying, moving): (Vec<_>, Vec<_>) = pairs.iter().partition(|(old, new)| old == new);
        let mut during = During {
            leaving,
            old_rules: &old_rules,
            in_force,
            taken: pairs.iter().flat_map(|(old, new)| [*old, *new]).collect(),
            chosen: BTreeMap::new(),
        };
        let chosen: BTreeMap<(ClassId, ClassId), ClassId> = staying
            .into_iter()
            .chain(moving)
            .map(|(old, new)| ((old, new), during.class(old, new)))
            .collect();

        let mut rules = desired.rules.clone();
        for ((old, new), class) in &chosen {
            if class == new && old == new {
                continue;
            }
            let under = |rule_set: RuleSetId, ports: &BTreeSet<PortPrefix>| {
                let rule =
                    move |ports: &PortPrefix| RulePrefix { rule_set, class: *class, ports: *ports };
                ports.iter().map(rule).collect::<Vec<_>>()
            };
            for rule_set in &during.leaving {
                if let Some(ports) = specific(&old_rules, *rule_set, *old) {
                    rules.extend(under(*rule_set, ports));
                }
            }
            if class != new {
                for (rule_set, classes) in &new_rules {
                    if let Some(ports) = classes.get(new).filter(|_| *new != ClassId::NONE) {
                        rules.extend(under(*rule_set, ports));
                    }
                }
            }
        }

        let mut steps: Vec<Step> = prefixes
            .iter()
            .map(|prefix| Step {
                prefix: *prefix,
                old: actual.peers.get(prefix).copied(),
                new: desired.peers.get(prefix).copied(),
                during: chosen[&(old[prefix], new[prefix])],
                after: new[prefix],
            })
            .collect();
        steps.sort_by_key(|step| std::cmp::Reverse(step.prefix.prefix_len()));
        Self { rules, steps }
    }

    /// Longest first: an address is never left to a shorter prefix that has moved on already.
    fn addresses(&self) -> impl Iterator<Item = Op> {
        self.steps
            .iter()
            .filter(|step| step.old != Some(step.during))
            .map(|step| Op::SetPeer(step.prefix, step.during))
    }

    fn clean_up(&self) -> impl Iterator<Item = Op> {
        let plain = self
            .steps
            .iter()
            .filter(|step| step.during != step.after)
            .map(|step| Op::SetPeer(step.prefix, step.after));
        let gone = self
            .steps
            .iter()
            .filter(|step| step.new.is_none())
            .map(|step| Op::RemovePeer(step.prefix));
        plain.chain(gone)
    }
}

/// Rules by rule set and class.
type ByClass = BTreeMap<RuleSetId, BTreeMap<ClassId, BTreeSet<PortPrefix>>>;

fn by_class(rules: &BTreeSet<RulePrefix>) -> ByClass {
    let mut by_class = ByClass::new();
    for rule in rules {
        let classes = by_class.entry(rule.rule_set).or_default();
        classes.entry(rule.class).or_default().insert(rule.ports);
    }
    by_class
}

/// The rules that a class has of its own, apart from those for everyone.
fn specific(rules: &ByClass, rule_set: RuleSetId, class: ClassId) -> Option<&BTreeSet<PortPrefix>> {
    if class == ClassId::NONE {
        return None;
    }
    rules.get(&rule_set)?.get(&class)
}

/// Finds, for each prefix, the class that the longest covering entry gives it.
fn covering(
    prefixes: &BTreeSet<IpNet>,
    peers: &BTreeMap<IpNet, ClassId>,
) -> BTreeMap<IpNet, ClassId> {
    // Ascending order visits a prefix right before those inside it: the stack is the way down.
    let mut stack: Vec<(IpNet, ClassId)> = Vec::new();
    let mut classes = BTreeMap::new();
    for prefix in prefixes {
        while stack.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
            stack.pop();
        }
        if let Some(class) = peers.get(prefix) {
            stack.push((*prefix, *class));
        }
        classes.insert(*prefix, stack.last().map_or(ClassId::NONE, |(_, class)| *class));
    }
    classes
}

/// What a class answers under each leaving rule set.
type Answers<'a> = Vec<Option<&'a BTreeSet<PortPrefix>>>;

/// Chooses the class that an address has during the change.
struct During<'a> {
    leaving: Vec<RuleSetId>,
    old_rules: &'a ByClass,
    /// The classes that addresses have before the change.
    in_force: &'a Peers,
    /// The classes that addresses go from and to.
    taken: BTreeSet<ClassId>,
    /// For each new class, the classes that stand for it and their answers.
    chosen: BTreeMap<ClassId, Vec<(Answers<'a>, ClassId)>>,
}

impl<'a> During<'a> {
    fn answers(&self, class: ClassId) -> Answers<'a> {
        self.leaving.iter().map(|rule_set| specific(self.old_rules, *rule_set, class)).collect()
    }

    fn class(&mut self, old: ClassId, new: ClassId) -> ClassId {
        let wanted = self.answers(old);
        // A class that some address has keeps its answers, no class can be taught none; any other
        // may be taught what is wanted.
        let fixed = new == ClassId::NONE || self.in_force.have(new);
        let suits = !fixed || self.answers(new) == wanted;
        let choices = self.chosen.entry(new).or_default();
        if let Some((_, class)) = choices.iter().find(|(answers, _)| *answers == wanted) {
            return *class;
        }
        let plain_is_free = choices.iter().all(|(_, class)| *class != new);
        let class = if suits && plain_is_free { new } else { self.unused(new) };
        self.chosen.entry(new).or_default().push((wanted, class));
        class
    }

    fn unused(&self, near: ClassId) -> ClassId {
        let chosen: BTreeSet<ClassId> = self.chosen.values().flatten().map(|(_, id)| *id).collect();
        let mut id = near.get();
        loop {
            id = id.wrapping_add(1).max(1);
            let class = ClassId::new(id);
            let ruled = self.old_rules.values().any(|classes| classes.contains_key(&class));
            let met = self.taken.contains(&class) || self.in_force.have(class);
            if !ruled && !met && !chosen.contains(&class) {
                return class;
            }
        }
    }
}

/// New endpoints are complete before a device names them.
fn endpoints(actual: &Tables, desired: &Tables, ops: &mut Vec<Op>) {
    for (id, endpoint) in &desired.endpoints {
        let generation = actual.config.generation();
        // Addresses stay while the id is in use: what a pod gains later is in LOCAL. One that it has
        // lost can be another's next, so the id starts a new life.
        let old = actual.endpoints.get(id).filter(|old| !loses_address(old, endpoint));
        if old.is_none() && actual.endpoints.contains_key(id) {
            ops.push(Op::SetPolicy(*id, PolicyWord::FREE));
            ops.push(Op::Bind(*id, endpoint.addrs, generation.wrapping_add(1)));
        } else if old.is_none() {
            ops.push(Op::Bind(*id, endpoint.addrs, generation));
        }
        if old.is_none_or(|old| old.policy != endpoint.policy) {
            ops.push(Op::SetPolicy(*id, endpoint.policy));
        }
    }
    for (addr, id) in &desired.local {
        if actual.local.get(addr) != Some(id) {
            ops.push(Op::SetLocal(*addr, *id));
        }
    }
    let sources = desired.sources.difference(&actual.sources);
    ops.extend(sources.map(|(id, prefix)| Op::SetSource(*id, *prefix)));
    let changed = desired.ifaces.values().filter(|iface| first(actual, **iface) != **iface);
    ops.extend(changed.copied().map(Op::SetIface));
}

fn loses_address(old: &Endpoint, new: &Endpoint) -> bool {
    old.addrs.iter().any(|addr| !addr.is_unspecified() && !new.addrs.contains(addr))
}

/// A device lets go of its endpoint before the endpoint is cleared.
fn releases(actual: &Tables, desired: &Tables, ops: &mut Vec<Op>) {
    let gone = actual.ifaces.keys().filter(|ifindex| !desired.ifaces.contains_key(ifindex));
    ops.extend(gone.copied().map(Op::ClearIface));
    let gone = actual.local.keys().filter(|addr| !desired.local.contains_key(addr));
    ops.extend(gone.copied().map(Op::RemoveLocal));
    let gone = actual.endpoints.keys().filter(|id| !desired.endpoints.contains_key(id));
    ops.extend(gone.copied().map(Op::ClearEndpoint));
}

#[cfg(test)]
pub(super) mod tests;
