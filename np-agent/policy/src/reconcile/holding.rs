//! What is compiled, and which policies are held back because the maps have no room for them.
//!
//! A policy that is held back is replaced by a version that isolates whom it selects and allows
//! nothing, apart from its last good version where one is known. While some are, everything is compiled
//! a second time as it is written: so it is known when there is room again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::compile::{Compiled, Revision, StandIn, StandIns};
use crate::index::{Index, Touched};
use crate::model::{Change, Object, ObjectKey, Pod, PodUid, Policy, PolicyKey};
use crate::plan::{self, Demand, Limits, NoRoom, Turn};

/// A policy that is not in force as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub policy: PolicyKey,
    /// What all policies together need.
    pub no_room: NoRoom,
    pub in_force: InForce,
}

/// What counts in the place of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InForce {
    LastGood,
    /// Whom it selects is isolated.
    Nothing,
}

/// Holds what is compiled.
#[derive(Debug, Default)]
pub struct Holding {
    /// What is to be in force.
    in_force: Compiled,
    /// What is written, where that is something else.
    as_written: Option<Compiled>,
    held: BTreeMap<PolicyKey, Held>,
    /// The versions before the changes that are not in force yet.
    before: BTreeMap<PolicyKey, Option<Arc<Policy>>>,
    last_good: BTreeMap<PolicyKey, Arc<Policy>>,
    /// Those that an earlier run of the agent held back.
    recorded: BTreeSet<PolicyKey>,
    /// Which revisions of what is written and of what is in force were measured last.
    measured: Option<[Revision; 2]>,
    /// No less than what is needed, when nothing is held back.
    needed: Option<Demand>,
    limits: Limits,
    measurements: u64,
}

impl Holding {
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Holds these back again before any others.
    pub fn restore(&mut self, held: impl IntoIterator<Item = PolicyKey>) {
        self.recorded.extend(held);
    }

    /// To be called before the index takes a change in.
    pub fn about_to_change(&mut self, change: &Change, index: &Index) {
        let (key, new) = match change {
            Change::Apply(Object::Policy(policy)) => (&policy.key, Some(policy)),
            Change::Delete(ObjectKey::Policy(key), _) => (key, None),
            Change::Apply(_) | Change::Delete(..) | Change::Replace(..) => return,
        };
        let known = index.policy(key);
        if known.map(Arc::as_ref) != new {
            self.before.entry(key.clone()).or_insert_with(|| known.cloned());
        }
    }

    /// Everything is in force as it was compiled last.
    pub fn finished(&mut self) {
        self.before.clear();
        self.recorded.clear();
    }

    pub fn set_unknown(&mut self, pods: BTreeSet<PodUid>) {
        for compiled in [Some(&mut self.in_force), self.as_written.as_mut()].into_iter().flatten() {
            compiled.set_unknown(pods.clone());
        }
    }

    /// Compiles what changed, and holds back what there is no room for. Returns the prefixes whose
    /// atoms changed.
    pub fn update(&mut self, index: &Index, touched: &Touched, pods: &[&Pod]) -> BTreeSet<IpNet> {
        let pods = || pods.iter().copied();
        let mut changed = self.in_force.update(index, touched, pods());
        if let Some(as_written) = &mut self.as_written {
            as_written.update(index, touched, pods());
            as_written.forget_unused();
        }
        if self.has_room_still(changed.len()) {
            self.in_force.forget_unused();
            return changed;
        }
        let as_written = self.as_written.as_ref().unwrap_or(&self.in_force);
        self.measurements += 1;
        let turn = |key: &PolicyKey| {
            if self.held.contains_key(key) || self.recorded.contains(key) {
                Turn::Shed
            } else if self.before.contains_key(key) {
                Turn::New
            } else {
                Turn::InForce
            }
        };
        let shed = plan::shed(as_written, index, pods(), &self.limits, turn);
        match &shed {
            Err(_) if self.as_written.is_none() => self.as_written = Some(self.in_force.clone()),
            Err(_) => {}
            Ok(_) => self.as_written = None,
        }
        self.needed = shed.as_ref().ok().copied();
        self.hold(shed.err(), index);
        changed.extend(self.stand_in(index, pods));
        self.in_force.forget_unused();
        self.measured = Some(self.revisions());
        changed
    }

    /// Whether what was measured still holds: nothing is another since, or it is only that some
    /// prefixes are other peers, and there is room for all that they can ask for.
    fn has_room_still(&mut self, prefixes: usize) -> bool {
        let Some(measured) = self.measured else { return false };
        let now = self.revisions();
        if measured == now {
            return true;
        }
        let [before, after] = [measured, now].map(|revisions| revisions.map(|of| of.subjects));
        let Some(needed) = self.needed.filter(|_| before == after) else { return false };
        let needed = needed.plus(&plan::growth(&self.in_force, prefixes));
        self.needed = Some(needed);
        let has_room = needed.within(&self.limits).is_ok();
        if has_room {
            self.measured = Some(now);
        }
        has_room
    }

    fn revisions(&self) -> [Revision; 2] {
        let as_written = self.as_written.as_ref().unwrap_or(&self.in_force);
        [as_written, &self.in_force].map(Compiled::revision)
    }

    /// Notes which policies are held back now, and what is known to be good of them.
    fn hold(&mut self, shed: Option<plan::Shed>, index: &Index) {
        let mut known = std::mem::take(&mut self.last_good);
        let was_held = std::mem::take(&mut self.held);
        let Some(plan::Shed { policies, no_room }) = shed else { return };
        for policy in policies {
            let last_good = match was_held.contains_key(&policy) || self.recorded.contains(&policy)
            {
                true => known.remove(&policy),
                false => self.before.get(&policy).cloned().flatten(),
            };
            let last_good = last_good.filter(|_| index.policy(&policy).is_some());
            if let Some(last_good) = last_good {
                self.last_good.insert(policy.clone(), last_good);
            }
            let held = Held { policy: policy.clone(), no_room, in_force: InForce::Nothing };
            self.held.insert(policy, held);
        }
    }

    /// Compiles what counts in the place of those that are held back. Last good versions take room
    /// too: where there is not enough for all of them they are forgotten, the heaviest first.
    fn stand_in<'a, P>(&mut self, index: &Index, pods: impl Fn() -> P) -> BTreeSet<IpNet>
    where
        P: Iterator<Item = &'a Pod>,
    {
        let mut changed = BTreeSet::new();
        let mut forget = 1;
        loop {
            let stand_ins: StandIns = self
                .held
                .keys()
                .filter_map(|key| {
                    let last_good = self.last_good.get(key).cloned();
                    Some((key.clone(), StandIn::of(index.policy(key)?, last_good)))
                })
                .collect();
            let touched = self.in_force.stand_in(stand_ins);
            if !touched.policies_of.is_empty() {
                changed.extend(self.in_force.update(index, &touched, pods()));
            }
            if self.last_good.is_empty() || plan::has_room(&self.in_force, &self.limits) {
                break;
            }
            let mut heaviest: Vec<(usize, PolicyKey)> =
                self.last_good.iter().map(|(key, policy)| (size(policy), key.clone())).collect();
            heaviest.sort_unstable_by(|one, other| other.cmp(one));
            for (_, key) in heaviest.into_iter().take(forget) {
                self.last_good.remove(&key);
            }
            forget *= 2;
        }
        for (key, held) in &mut self.held {
            held.in_force = match self.last_good.contains_key(key) {
                true => InForce::LastGood,
                false => InForce::Nothing,
            };
        }
        changed
    }

    pub fn in_force(&self) -> &Compiled {
        &self.in_force
    }

    pub fn held(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.held.values()
    }

    /// How often was asked whether there is room: not again before something has changed.
    pub fn measurements(&self) -> u64 {
        self.measurements
    }

    pub fn pack(&mut self) {
        self.in_force.pack();
    }
}

/// How much is written in a policy.
fn size(policy: &Policy) -> usize {
    let sides = [&policy.ingress, &policy.egress].into_iter().flatten();
    let rules = sides.flat_map(|rules| rules.iter());
    rules
        .map(|rule| {
            let peers = rule.peers.as_ref().map_or(1, |peers| peers.len());
            peers.saturating_mul(rule.ports.as_ref().map_or(1, |ports| ports.len()))
        })
        .fold(0, usize::saturating_add)
}

impl Held {
    /// What counts in the place of which policy: the same while only numbers change.
    pub fn what_counts(&self) -> String {
        format!("{} {:?}", self.policy, self.in_force)
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, no_room: NoRoom { map, needed, limit }, in_force } = self;
        let in_force = match in_force {
            InForce::LastGood => {
                "its last good version stays in force, and pods that only the new one selects are \
                 isolated"
            }
            InForce::Nothing => "the pods that it selects are isolated, and it allows nothing",
        };
        let remedy = match *map {
            "PEERS" => "it grows with the pods that policies of this node tell apart",
            "CIDRS" => "write fewer or wider ipBlocks",
            _ => "write fewer distinct lists of ports, or fewer distinct peers",
        };
        write!(
            f,
            "NetworkPolicy {policy}: it is too large: {map} holds {limit} entries and all policies \
             of this node's pods need {needed}; {in_force}; {remedy}"
        )
    }
}
