//! Random clusters that change while the maps are too small for them, next to an agent whose maps
//! are not, with writes that fail and agents that are replaced.
//!
//! No map is ever overfull. Whom no held policy selects is policed as if there were no limit; whom
//! one selects is never allowed more than its policies, or their last good versions, allow. Which
//! are held back is the same when asked again and after a restart, and none is when all have room.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use np_common::direction::Direction;
use np_policy::bind::Settings;
use np_policy::model::{
    Change, Device, DeviceChange, NodeName, Object, ObjectKey, Pod, PodUid, Policy, PolicyKey,
};
use np_policy::plan::{Limits, Op, Scope, Tables, diff, room};
use np_policy::reconcile::{InForce, Plan, Reconciler};
use np_tests::generate::{Case, Cases, NODES, changes};
use np_tests::property::{self, Choices};
use np_tests::simulation::{Judge, device};
use proptest::prelude::*;
use proptest::test_runner::TestError;

const SEQUENCES: u32 = 80;
const PORTS: [(u8, u16); 4] = [(6, 80), (6, 443), (17, 53), (1, 0)];
const FIRST: u32 = 100;

type Failure = TestCaseError;

/// What a run has met, so that it cannot pass by meeting nothing.
#[derive(Debug, Default)]
struct Met {
    turns: u64,
    held: u64,
    last_good: u64,
    all_fits: u64,
    bystanders: u64,
    staged: u64,
    failed: u64,
    restarts: u64,
    less: u64,
}

struct World<'a> {
    limited: Reconciler,
    unlimited: Reconciler,
    limits: Limits,
    objects: BTreeMap<ObjectKey, Object>,
    devices: BTreeMap<PodUid, Device>,
    /// The versions of policies that were in force last.
    good: BTreeMap<PolicyKey, Policy>,
    choices: Choices<'a>,
    met: &'a RefCell<Met>,
}

#[test]
fn limits_hold_back_whole_policies_and_nobody_else() {
    let mut runner = property::runner("limits", SEQUENCES);
    let cases = u64::from(runner.config().cases);
    let met = RefCell::new(Met::default());
    let sequence = (
        prop::collection::vec(Cases { probes: 0 }, 2..4),
        prop::collection::vec(any::<u32>(), 50..200),
    );
    let result = runner.run(&sequence, |(cases, choices)| {
        let targets: Vec<_> = cases.iter().map(target).collect::<Result<_, _>>()?;
        let mut world = World::new(&targets, Choices::new(&choices), &met);
        targets.iter().try_for_each(|target| world.become_like(target))?;
        world.without_what_is_held()
    });
    println!("{met:#?}");
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (cases, choices))) => {
            panic!("{reason}\n{cases:?}\n{choices:?}")
        }
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
    let met = met.into_inner();
    for (what, count) in [
        ("held", met.held),
        ("last good versions", met.last_good),
        ("all fits", met.all_fits),
        ("bystanders of held policies", met.bystanders),
        ("staged", met.staged),
        ("failed", met.failed),
        ("restarts", met.restarts),
        ("less than without limits", met.less),
    ] {
        assert!(count >= cases / 10, "{what}: only {count}");
    }
}

/// The objects of a cluster. A pod is the same as long as it keeps name, node and addresses.
fn target(case: &Case) -> Result<BTreeMap<ObjectKey, Object>, Failure> {
    let Ok(changes) = changes(&case.cluster) else {
        return Err(TestCaseError::reject("an object that the API would refuse"));
    };
    let objects = changes.into_iter().filter_map(|change| match change {
        Change::Apply(Object::Pod(mut pod)) => {
            let Pod { key, addresses, node, .. } = &pod;
            pod.uid = PodUid(format!("{key} {addresses:?} {node:?}").into());
            Some(Object::Pod(pod))
        }
        Change::Apply(object) => Some(object),
        Change::Delete(..) | Change::Replace(..) => None,
    });
    Ok(objects.map(|object| (object.key(), object)).collect())
}

fn node() -> NodeName {
    NodeName(NODES[0].into())
}

fn reconciler(actual: Tables) -> Reconciler {
    Reconciler::new(node(), Settings::default(), false, actual)
}

/// Entries of PEERS, CIDRS and RULES.
fn entries(tables: &Tables) -> [usize; 3] {
    let single = |prefix: &&ipnet::IpNet| prefix.prefix_len() == prefix.max_prefix_len();
    let singles = tables.peers.keys().filter(single).count();
    [singles, tables.peers.len() - singles, tables.rules.len()]
}

fn fits(tables: &Tables, limits: &Limits) -> bool {
    let [peers, cidrs, rules] = entries(tables);
    peers <= limits.peers && cidrs <= limits.cidrs && rules <= limits.rules
}

impl<'a> World<'a> {
    /// With maps of some eighths of what the largest of the clusters asks for.
    fn new(
        targets: &[BTreeMap<ObjectKey, Object>],
        mut choices: Choices<'a>,
        met: &'a RefCell<Met>,
    ) -> Self {
        let mut most = [0; 3];
        for target in targets {
            let mut all = reconciler(Tables::default());
            all.objects(target.values().cloned().map(Change::Apply));
            for device in wired(target, &BTreeMap::new()) {
                all.device(DeviceChange::Seen(device.1));
            }
            all.plan();
            for (most, entries) in most.iter_mut().zip(entries(all.desired())) {
                *most = entries.max(*most);
            }
        }
        let [peers, cidrs, rules] = most.map(|most| match choices.below(3) {
            0 => most * 4,
            _ => most * (1 + choices.below(8)) / 8,
        });
        let limits = Limits { peers, cidrs, rules };
        Self {
            limited: reconciler(Tables::default()).with_limits(limits),
            unlimited: reconciler(Tables::default()),
            limits,
            objects: BTreeMap::new(),
            devices: BTreeMap::new(),
            good: BTreeMap::new(),
            choices,
            met,
        }
    }

    /// Goes over to another cluster in small steps.
    fn become_like(&mut self, target: &BTreeMap<ObjectKey, Object>) -> Result<(), Failure> {
        let gone = self.objects.keys().filter(|key| !target.contains_key(*key));
        let mut changes: Vec<Change> = gone.cloned().map(Change::delete).collect();
        changes.extend(target.values().cloned().map(Change::Apply));
        for last in (1..changes.len()).rev() {
            changes.swap(last, self.choices.below(last + 1));
        }
        while !changes.is_empty() {
            let count = 1 + self.choices.below(6);
            let mut batch: Vec<Change> = changes.drain(..count.min(changes.len())).collect();
            batch.extend(self.edit());
            self.take(batch);
            self.turn()?;
            if self.choices.below(8) == 0 {
                self.restart()?;
            }
        }
        Ok(())
    }

    /// A policy that says what another says.
    fn edit(&mut self) -> Option<Change> {
        let policies: Vec<&Policy> = self
            .objects
            .values()
            .filter_map(|object| match object {
                Object::Policy(policy) => Some(policy),
                _ => None,
            })
            .collect();
        let (one, other) = (self.choices.below(policies.len()), self.choices.below(policies.len()));
        let (one, other) = (policies.get(one)?, policies.get(other)?);
        let edited = Policy { key: one.key.clone(), ..Policy::clone(other) };
        Some(Change::Apply(Object::Policy(edited)))
    }

    fn take(&mut self, batch: Vec<Change>) {
        for change in &batch {
            match change {
                Change::Apply(object) => self.objects.insert(object.key(), object.clone()),
                Change::Delete(key, _) => self.objects.remove(key),
                Change::Replace(..) => unreachable!("none is made here"),
            };
        }
        self.limited.objects(batch.clone());
        self.unlimited.objects(batch);
        let pods = pods(&self.objects);
        let (gone, kept): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.devices)
            .into_iter()
            .partition(|(uid, _)| !pods.contains_key(uid));
        self.devices = kept;
        for device in gone.into_values() {
            for reconciler in [&mut self.limited, &mut self.unlimited] {
                if let Some(op) = reconciler.device(DeviceChange::Gone(device.index)) {
                    reconciler.written(&op);
                }
            }
        }
        for (uid, device) in wired(&self.objects, &self.devices) {
            self.limited.device(DeviceChange::Seen(device.clone()));
            self.unlimited.device(DeviceChange::Seen(device.clone()));
            self.devices.insert(uid, device);
        }
    }

    /// Plans and writes until everything is written; writes fail now and then.
    fn turn(&mut self) -> Result<(), Failure> {
        loop {
            let Plan { ops, again } = self.unlimited.plan();
            ops.iter().for_each(|op| self.unlimited.written(op));
            self.unlimited.finished();
            if !again {
                break;
            }
        }
        for attempt in 0.. {
            let before = self.limited.actual().clone();
            let Plan { ops, again } = self.limited.plan();
            let plain = diff(&before, self.limited.desired(), &Scope::everything());
            self.met.borrow_mut().staged += u64::from(room(&before, &plain, &self.limits).is_err());
            let fail = attempt < 2 && self.choices.below(8) == 0;
            let written = if fail { self.choices.below(ops.len() + 1) } else { ops.len() };
            self.write(ops.get(..written).unwrap_or_default())?;
            if fail {
                self.met.borrow_mut().failed += 1;
                self.limited.broken_off();
            } else if again {
                self.limited.finished();
            } else {
                break;
            }
        }
        self.limited.finished();
        let (actual, desired) = (self.limited.actual(), self.limited.desired());
        let desired = Tables { config: actual.config, ..desired.clone() };
        prop_assert_eq!(actual.clone().without_births(), desired);
        self.verdicts_are_right(&self.limited)?;
        self.note();
        let held = held(&self.limited);
        self.limited.broken_off();
        prop_assert_eq!(self.limited.plan().ops, [], "asked again");
        self.limited.finished();
        prop_assert_eq!(&held, &self::held(&self.limited), "asked again");
        Ok(())
    }

    fn write(&mut self, ops: &[Op]) -> Result<(), Failure> {
        for op in ops {
            self.limited.written(op);
            let entries = entries(self.limited.actual());
            prop_assert!(
                fits(self.limited.actual(), &self.limits),
                "after {op}: {entries:?} of {:?}\n{ops:#?}",
                self.limits
            );
        }
        Ok(())
    }

    /// Another agent finds what this one has left.
    fn restart(&mut self) -> Result<(), Failure> {
        let mut next = reconciler(self.limited.actual().clone()).with_limits(self.limits);
        next.objects(self.objects.values().cloned().map(Change::Apply));
        for device in self.devices.values() {
            next.device(DeviceChange::Seen(device.clone()));
        }
        for endpoint in self.limited.endpoints() {
            prop_assert!(next.restore(&endpoint));
        }
        let held = held(&self.limited);
        next.restore_held(held.keys().cloned());
        self.limited = next;
        let ops = self.limited.plan().ops;
        self.write(&ops)?;
        self.limited.finished();
        let after = self::held(&self.limited);
        prop_assert!(held.keys().eq(after.keys()), "{held:?} before, {after:?} after");
        self.verdicts_are_right(&self.limited)?;
        self.note();
        self.met.borrow_mut().restarts += 1;
        Ok(())
    }

    /// Held back is the last thing that was in force, from now on.
    fn note(&mut self) {
        let held = held(&self.limited);
        self.good
            .retain(|key, _| held.get(key).is_none_or(|in_force| *in_force == InForce::LastGood));
        for object in self.objects.values() {
            if let Object::Policy(policy) = object
                && !held.contains_key(&policy.key)
            {
                self.good.insert(policy.key.clone(), policy.clone());
            }
        }
        let key = |key: &PolicyKey| ObjectKey::Policy(key.clone());
        self.good.retain(|policy, _| self.objects.contains_key(&key(policy)));
    }

    fn verdicts_are_right(&self, limited: &Reconciler) -> Result<(), Failure> {
        let held = held(limited);
        let all_fits = fits(self.unlimited.desired(), &self.limits);
        prop_assert_eq!(held.is_empty(), all_fits, "{:?} of {:?}", &held, &self.limits);
        let last_good = self.last_good(limited, &held);
        let [here, there] = [limited, &self.unlimited].map(|of| Judge::new(of.actual()));
        let good = last_good.as_ref().map(|of| Judge::new(of.actual()));
        let mut met = self.met.borrow_mut();
        met.turns += 1;
        met.held += u64::from(!held.is_empty());
        met.last_good += u64::from(last_good.is_some());
        met.all_fits += u64::from(held.is_empty());
        // An address of two pods leads to the device of one of them.
        for (ifindex, bound) in limited.bindings().iter() {
            let pod = &bound.pod;
            for direction in [Direction::Ingress, Direction::Egress] {
                let selects = |policy: &Policy| {
                    policy.key.namespace == pod.key.namespace
                        && policy.rules(model(direction)).is_some()
                        && policy.subjects.matches(&pod.labels)
                };
                let of = |key: &PolicyKey| match self.objects.get(&ObjectKey::Policy(key.clone())) {
                    Some(Object::Policy(policy)) => selects(policy),
                    _ => false,
                };
                let concerned = held.iter().any(|(key, in_force)| {
                    let good = self.good.get(key).filter(|_| *in_force == InForce::LastGood);
                    of(key) || good.is_some_and(selects)
                });
                met.bystanders += u64::from(!held.is_empty() && !concerned);
                for (address, port) in questions(&self.objects) {
                    let ask = |judge: &Judge<'_>| judge.allows(ifindex.0, direction, address, port);
                    let (is, exact) = (ask(&here), ask(&there));
                    met.less += u64::from(exact && !is);
                    let question = (&pod.key, direction, address, port);
                    if !concerned {
                        prop_assert_eq!(is, exact, "{:?}, held: {:?}", question, held);
                    } else if is && !exact {
                        let good = good.as_ref().is_some_and(ask);
                        prop_assert!(good, "{question:?} is more, held: {held:?}");
                    }
                }
            }
        }
        Ok(())
    }

    /// The cluster with last good versions, as far as they are in force, and the same bindings.
    fn last_good(
        &self,
        limited: &Reconciler,
        held: &BTreeMap<PolicyKey, InForce>,
    ) -> Option<Reconciler> {
        let kept = held.iter().filter(|(_, in_force)| **in_force == InForce::LastGood);
        let kept: Vec<&PolicyKey> = kept.map(|(key, _)| key).collect();
        if kept.is_empty() {
            return None;
        }
        let mut all = reconciler(limited.actual().clone());
        let mut objects = self.objects.clone();
        for key in kept {
            let policy = self.good.get(key).expect("it was in force once");
            objects.insert(ObjectKey::Policy(key.clone()), Object::Policy(policy.clone()));
        }
        all.objects(objects.into_values().map(Change::Apply));
        for device in self.devices.values() {
            all.device(DeviceChange::Seen(device.clone()));
        }
        for endpoint in limited.endpoints() {
            assert!(all.restore(&endpoint), "the devices are the same");
        }
        for op in all.plan().ops {
            all.written(&op);
        }
        Some(all)
    }

    /// Everything is exact again when what is held back is gone.
    fn without_what_is_held(&mut self) -> Result<(), Failure> {
        let gone = held(&self.limited).into_keys().map(ObjectKey::Policy);
        let gone = gone.map(Change::delete).collect();
        self.take(gone);
        self.turn()?;
        prop_assert!(held(&self.limited).is_empty());
        Ok(())
    }
}

fn model(direction: Direction) -> np_policy::model::Direction {
    match direction {
        Direction::Ingress => np_policy::model::Direction::Ingress,
        Direction::Egress => np_policy::model::Direction::Egress,
    }
}

fn held(reconciler: &Reconciler) -> BTreeMap<PolicyKey, InForce> {
    reconciler.held().map(|held| (held.policy.clone(), held.in_force)).collect()
}

fn pods(objects: &BTreeMap<ObjectKey, Object>) -> BTreeMap<PodUid, Pod> {
    let pods = objects.values().filter_map(|object| match object {
        Object::Pod(pod) => Some((pod.uid.clone(), pod.clone())),
        _ => None,
    });
    pods.filter(|(_, pod)| pod.enforceable() && pod.node.as_ref() == Some(&node())).collect()
}

/// Devices for the pods of the node that have none, with routes that no other has.
fn wired(
    objects: &BTreeMap<ObjectKey, Object>,
    known: &BTreeMap<PodUid, Device>,
) -> Vec<(PodUid, Device)> {
    let mut taken: BTreeSet<IpAddr> =
        known.values().flat_map(|device| &device.host_routes).map(|route| route.to).collect();
    let mut used: BTreeSet<u32> = known.values().map(|device| device.index.0).collect();
    let mut new = Vec::new();
    for (uid, pod) in pods(objects) {
        let free = !pod.addresses.iter().any(|address| taken.contains(address));
        if known.contains_key(&uid) || !free {
            continue;
        }
        let Some(ifindex) = (FIRST..).find(|ifindex| !used.contains(ifindex)) else { break };
        used.insert(ifindex);
        taken.extend(&pod.addresses);
        new.push((uid, device(ifindex, Some(pod.addresses.to_vec()))));
    }
    new
}

fn questions(objects: &BTreeMap<ObjectKey, Object>) -> Vec<(IpAddr, (u8, u16))> {
    let of_pods = objects.values().flat_map(|object| match object {
        Object::Pod(pod) => pod.addresses.to_vec(),
        _ => Vec::new(),
    });
    let outside = ["192.0.2.7", "10.1.0.200", "2001:db8::7"];
    let outside = outside.map(|address| address.parse().expect("an address"));
    let addresses: BTreeSet<IpAddr> = of_pods.chain(outside).collect();
    addresses.into_iter().flat_map(|address| PORTS.map(|port| (address, port))).collect()
}
