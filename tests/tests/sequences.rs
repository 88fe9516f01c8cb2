//! Clusters that change, one batch after another, with writes that fail at random.
//!
//! Two things must hold all the way. After *every single write* each (device, direction, peer,
//! protocol, port) has the verdict it had before the write or the one it is to have. And once the
//! maps are up to date, they hold what an agent that started now would write.
//!
//! `PROPTEST_CASES` sets the number of sequences, `PROPTEST_RNG_SEED` runs the same ones again.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use np_common::direction::Direction;
use np_common::endpoint::{EndpointId, PolicyWord, Role};
use np_policy::bind::Settings;
use np_policy::compile::Compiled;
use np_policy::index::{Index, Touched};
use np_policy::model::{
    Change, Device, DeviceChange, NodeName, Object, ObjectKey, Pod, PodUid, SourcePrefixes,
};
use np_policy::plan::{Lowered, Op, Peers, Scope, Tables};
use np_policy::reconcile::{Plan, Reconciler};
use np_tests::generate::{Case, Cases, NODES, changes};
use np_tests::property::{self, Choices};
use np_tests::simulation::{Judge, device};
use proptest::prelude::*;
use proptest::test_runner::TestError;

const SEQUENCES: u32 = 500;
const PORTS: [(u8, u16); 4] = [(6, 80), (6, 443), (17, 53), (1, 0)];

/// What a run has met, so that it cannot pass by meeting nothing.
#[derive(Debug, Default)]
struct Met {
    batches: u64,
    writes: u64,
    failed: u64,
    verdicts: u64,
    allowed: u64,
    turned: u64,
    reused_names: u64,
    reused_addresses: u64,
    planned_in_scope: u64,
    sources_set: u64,
    sources_gone: u64,
    succeeded: u64,
}

/// One node, and what its agent hears.
struct World<'a> {
    reconciler: Reconciler,
    objects: BTreeMap<ObjectKey, Object>,
    devices: BTreeMap<PodUid, Device>,
    choices: Choices<'a>,
    addresses: Vec<IpAddr>,
    met: &'a RefCell<Met>,
}

type Tuple = (u32, Direction, IpAddr, (u8, u16));
type Failure = TestCaseError;

#[test]
fn a_sequence_of_changes_is_hitless_and_ends_where_a_new_start_would() {
    let mut runner = property::runner("sequences", SEQUENCES);
    let cases = runner.config().cases;
    let met = RefCell::new(Met::default());
    let sequence = (
        prop::collection::vec(Cases { probes: 0 }, 2..5),
        prop::collection::vec(any::<u32>(), 50..200),
    );
    let result = runner.run(&sequence, |(cases, choices)| {
        let choices = Choices::new(&choices);
        let mut world = World::new(choices, &met);
        cases.iter().try_for_each(|case| world.become_like(case))
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
    let share = met.allowed as f64 / met.verdicts as f64;
    assert!((0.2..0.8).contains(&share), "{:.0} % of all verdicts allow", 100.0 * share);
    let least = u64::from(cases / 4);
    for (what, count) in [
        ("failed", met.failed),
        ("turned", met.turned),
        ("reused names", met.reused_names),
        ("reused addresses", met.reused_addresses),
        ("planned in scope", met.planned_in_scope),
        ("sources set", met.sources_set),
        ("sources gone", met.sources_gone),
        ("succeeded", met.succeeded),
    ] {
        assert!(count >= least, "{what}: only {count}");
    }
}

impl<'a> World<'a> {
    fn new(choices: Choices<'a>, met: &'a RefCell<Met>) -> Self {
        let node = NodeName(NODES[0].into());
        Self {
            reconciler: Reconciler::new(node, settings(), false, Tables::default()),
            objects: BTreeMap::new(),
            devices: BTreeMap::new(),
            choices,
            addresses: Vec::new(),
            met,
        }
    }

    /// Goes over to another cluster in small steps.
    fn become_like(&mut self, case: &Case) -> Result<(), Failure> {
        let Ok(changes) = changes(&case.cluster) else {
            return Err(TestCaseError::reject("an object that the API would refuse"));
        };
        let target: BTreeMap<ObjectKey, Object> = changes
            .into_iter()
            .filter_map(|change| match change {
                Change::Apply(object) => Some(self.with_identity(object)),
                Change::Delete(..) | Change::Replace(..) => None,
            })
            .map(|object| (object.key(), object))
            .collect();
        self.addresses = addresses(self.objects.values().chain(target.values()));
        let gone = self.objects.keys().filter(|key| !target.contains_key(*key));
        let mut changes: Vec<Change> = gone.cloned().map(Change::delete).collect();
        changes.extend(target.values().cloned().map(Change::Apply));
        self.choices.shuffle(&mut changes);
        while !changes.is_empty() {
            let count = 1 + self.choices.below(4);
            let batch: Vec<Change> = changes.drain(..count.min(changes.len())).collect();
            for change in &batch {
                match change {
                    Change::Apply(object) => self.objects.insert(object.key(), object.clone()),
                    Change::Delete(key, _) => self.objects.remove(key),
                    Change::Replace(..) => unreachable!("none is made here"),
                };
            }
            self.reconciler.objects(batch);
            self.wire()?;
            self.turn()?;
        }
        self.matches_a_new_start()
    }

    /// Clusters name their pods alike. A pod that keeps name, node and addresses may be the same
    /// pod with other labels, else it is another of the same name.
    fn with_identity(&mut self, object: Object) -> Object {
        let Object::Pod(mut pod) = object else { return object };
        pod.source_prefixes = self.source_prefixes();
        let key = ObjectKey::Pod(pod.key.clone());
        let fresh = PodUid(format!("{}-{}", pod.key, self.choices.asked()).into());
        pod.uid = match self.objects.get(&key) {
            Some(Object::Pod(old)) if old.addresses == pod.addresses && old.node == pod.node => {
                old.uid.clone()
            }
            Some(_) => {
                self.met.borrow_mut().reused_names += 1;
                fresh
            }
            None => fresh,
        };
        Object::Pod(pod)
    }

    /// What a pod names, of which some is granted; most name nothing.
    fn source_prefixes(&mut self) -> Option<Box<SourcePrefixes>> {
        if self.choices.below(2) == 0 {
            return None;
        }
        let mut named = SourcePrefixes::default();
        for prefix in ["10.8.0.0/24", "10.8.0.0/28", "10.9.0.0/24", "fd00:8::/64"] {
            if self.choices.below(2) == 0 {
                named.prefixes.push(prefix.parse().expect("a prefix"));
            }
        }
        Some(Box::new(named))
    }

    /// Devices come before or after their pod's object, and go a while after it.
    fn wire(&mut self) -> Result<(), Failure> {
        let node = NodeName(NODES[0].into());
        let pods: BTreeMap<PodUid, Pod> = self
            .objects
            .values()
            .filter_map(|object| match object {
                Object::Pod(pod) => Some((pod.uid.clone(), pod.clone())),
                _ => None,
            })
            .filter(|(_, pod)| pod.enforceable() && pod.node.as_ref() == Some(&node))
            .collect();
        let gone: Vec<PodUid> =
            self.devices.keys().filter(|uid| !pods.contains_key(uid)).cloned().collect();
        for uid in gone {
            if self.choices.below(3) == 0
                && let Some(device) = self.devices.remove(&uid)
                && let Some(op) = self.reconciler.device(DeviceChange::Gone(device.index))
            {
                self.reconciler.written(&op);
            }
        }
        for (uid, pod) in pods {
            if self.devices.contains_key(&uid) || self.choices.below(3) == 0 {
                continue;
            }
            let taken: BTreeSet<u32> = self.devices.values().map(|device| device.index.0).collect();
            // The lowest free index: they come again soon.
            let ifindex = (100..).find(|ifindex| !taken.contains(ifindex)).expect("there are more");
            let routed = |addr: &&IpAddr| {
                let mut routes = self.devices.values().flat_map(|device| &device.host_routes);
                routes.all(|route| route.to != **addr)
            };
            let routes: Vec<IpAddr> = pod.addresses.iter().filter(routed).copied().collect();
            if routes.len() < pod.addresses.len() {
                self.met.borrow_mut().reused_addresses += 1;
                continue;
            }
            let device = device(ifindex, Some(routes));
            self.devices.insert(uid, device.clone());
            self.reconciler.device(DeviceChange::Seen(device));
        }
        Ok(())
    }

    /// Plans and writes until everything is written; writes fail now and then.
    fn turn(&mut self) -> Result<(), Failure> {
        self.met.borrow_mut().batches += 1;
        for attempt in 0.. {
            let tuples = self.tuples();
            let Plan { ops, again } = self.reconciler.plan();
            prop_assert_eq!(self.reconciler.held().len(), 0);
            let new = verdicts(self.reconciler.desired(), &tuples);
            let mut last = verdicts(self.reconciler.actual(), &tuples);
            self.count(&last, &new, &ops);
            let mut failed = false;
            for op in &ops {
                if attempt < 3 && self.choices.below(60) == 0 {
                    failed = true;
                    break;
                }
                self.reconciler.written(op);
                self.sources_are_right(op)?;
                let now = verdicts(self.reconciler.actual(), &tuples);
                for (((tuple, now), last), new) in tuples.iter().zip(&now).zip(&last).zip(&new) {
                    prop_assert!(
                        now == last || now == new,
                        "after {op}: {tuple:?} went from {last} to {now}, and is to be {new}\n{ops:#?}"
                    );
                }
                last = now;
            }
            if failed {
                self.met.borrow_mut().failed += 1;
                self.reconciler.broken_off();
                continue;
            }
            self.reconciler.finished();
            let (actual, desired) = (self.reconciler.actual(), self.reconciler.desired());
            let config = actual.config;
            let desired = Tables { config, ..desired.clone() };
            prop_assert_eq!(actual.clone().without_births(), desired);
            if again {
                self.met.borrow_mut().succeeded += 1;
                continue;
            }
            break;
        }
        Ok(())
    }

    /// No write but those that take sources away finds one there that is not to be; and a device is
    /// a pod's only when the pod has all of them.
    fn sources_are_right(&self, op: &Op) -> Result<(), Failure> {
        let (actual, desired) =
            (&self.reconciler.actual().sources, &self.reconciler.desired().sources);
        let stray = |source: &&(EndpointId, IpNet)| !desired.contains(source);
        match op {
            Op::RemoveSource(..) => self.met.borrow_mut().sources_gone += 1,
            Op::SetSource(..) => self.met.borrow_mut().sources_set += 1,
            _ => prop_assert!(!actual.iter().any(|source| stray(&source)), "at {op}"),
        }
        if let Op::SetIface(iface) = op
            && iface.role() == Some(Role::Pod)
        {
            prop_assert_eq!(actual, desired, "at {}", op);
        }
        Ok(())
    }

    fn count(&self, last: &[bool], new: &[bool], ops: &[Op]) {
        let mut met = self.met.borrow_mut();
        met.writes += ops.len() as u64;
        met.verdicts += new.len() as u64;
        met.allowed += new.iter().filter(|allowed| **allowed).count() as u64;
        met.turned += last.iter().zip(new).filter(|(last, new)| last != new).count() as u64;
        let peers = ops.iter().any(|op| matches!(op, Op::SetPeer(..)));
        let words = ops.iter().any(|op| matches!(op, Op::SetPolicy(..)));
        met.planned_in_scope += u64::from(peers && !words);
    }

    /// A few of all questions, others each time.
    fn tuples(&mut self) -> Vec<Tuple> {
        let mut addresses = self.addresses.clone();
        self.choices.shuffle(&mut addresses);
        addresses.truncate(5);
        let devices: Vec<u32> = self.devices.values().map(|device| device.index.0).collect();
        let mut tuples = Vec::new();
        for device in devices {
            for direction in [Direction::Ingress, Direction::Egress] {
                for address in &addresses {
                    tuples.extend(PORTS.map(|port| (device, direction, *address, port)));
                }
            }
        }
        tuples
    }

    /// The same objects and bindings, everything else made again.
    fn matches_a_new_start(&self) -> Result<(), Failure> {
        let mut index = Index::default();
        for object in self.objects.values() {
            index.apply(Change::Apply(object.clone()), &mut Touched::default());
        }
        let bindings = self.reconciler.bindings();
        let compiled = Compiled::of(&index, bindings.iter().map(|(_, bound)| bound.pod.as_ref()));
        let kept = self.reconciler.compiled();
        prop_assert_eq!(&compiled.subjects, &kept.subjects);
        let mut tables = self.reconciler.desired().clone();
        tables.peers = Peers::default();
        tables.rules.clear();
        for endpoint in tables.endpoints.values_mut() {
            endpoint.policy = PolicyWord::OPEN;
        }
        let all: BTreeSet<IpNet> = compiled.peers.keys().copied().collect();
        let mut scope = Scope::default();
        Lowered::default().update(&compiled, &all, &bindings.ids(), &mut tables, &mut scope);
        prop_assert_eq!(&tables, self.reconciler.desired());
        Ok(())
    }
}

fn settings() -> Settings {
    let ranges = ["10.8.0.0/16", "fd00:8::/32"].map(|range| range.parse().expect("a prefix"));
    Settings { source_prefixes: ranges.to_vec(), ..Settings::default() }
}

fn verdicts(tables: &Tables, tuples: &[Tuple]) -> Vec<bool> {
    let judge = Judge::new(tables);
    let allows = |(device, direction, address, port): &Tuple| {
        judge.allows(*device, *direction, *address, *port)
    };
    tuples.iter().map(allows).collect()
}

fn addresses<'o>(objects: impl Iterator<Item = &'o Object>) -> Vec<IpAddr> {
    let of_pods = objects.flat_map(|object| match object {
        Object::Pod(pod) => pod.addresses.to_vec(),
        _ => Vec::new(),
    });
    let outside = ["192.0.2.7", "10.1.0.200", "2001:db8::7"];
    let outside = outside.map(|addr| addr.parse().expect("an address"));
    of_pods.chain(outside).collect::<BTreeSet<_>>().into_iter().collect()
}
