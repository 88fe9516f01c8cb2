//! An endpoint id is one pod's: after pods came and went, addresses and indices were used again, and
//! the agent was down for a while, in any order, what the tables say of an id is true of the pod that
//! has it now.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use np_common::addr::Addr;
use np_common::endpoint::{EndpointId, Role};
use np_policy::model::{
    Change, Device, DeviceChange, DevicePeer, HostRoute, IfIndex, NodeName, Object, ObjectKey, Pod,
    PodKey, PodUid,
};
use np_policy::plan::record::EndpointRecord;
use np_policy::plan::{Op, Tables};
use np_policy::reconcile::Reconciler;
use np_tests::property::runner;
use np_tests::simulation::{device, pod};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Few addresses, indices and namespace ids: they come again soon.
const ADDRESSES: u8 = 4;
const INDICES: u8 = 5;
const NAMESPACES: u8 = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A pod with this address gets a device, of this index and in this namespace, that routes or
    /// only its address tell.
    Start {
        address: u8,
        index: u8,
        namespace: u8,
        routed: bool,
    },
    /// The pod behind a device gets another one.
    Second {
        of: u8,
        index: u8,
    },
    Unplug {
        index: u8,
    },
    /// Its device may still be there.
    Forget {
        pod: u8,
    },
    /// The agent stops, or stops in the middle of its writes, while these steps are done.
    Down {
        writes: u8,
    },
    Up,
}

fn step() -> impl Strategy<Value = Step> {
    let start = (0..ADDRESSES, 0..INDICES, 0..NAMESPACES, any::<bool>()).prop_map(
        |(address, index, namespace, routed)| Step::Start { address, index, namespace, routed },
    );
    prop_oneof![
        5 => start,
        1 => (0..INDICES, 0..INDICES).prop_map(|(of, index)| Step::Second { of, index }),
        4 => (0..INDICES).prop_map(|index| Step::Unplug { index }),
        2 => any::<u8>().prop_map(|pod| Step::Forget { pod }),
        2 => any::<u8>().prop_map(|writes| Step::Down { writes }),
        3 => Just(Step::Up),
    ]
}

struct World {
    reconciler: Reconciler,
    /// The record that the last whole turn left.
    record: (u16, Vec<EndpointRecord>),
    pods: BTreeMap<PodKey, Pod>,
    devices: BTreeMap<IfIndex, Device>,
    /// Who is really behind a device.
    truth: BTreeMap<IfIndex, Pod>,
    /// Devices that have had no end since the agent saw them last.
    unbroken: BTreeSet<IfIndex>,
    down: bool,
    made: u32,
    bound: u32,
}

type Failure = TestCaseError;

impl World {
    fn new() -> Self {
        Self {
            reconciler: reconciler(Tables::default()),
            record: (0, Vec::new()),
            pods: BTreeMap::new(),
            devices: BTreeMap::new(),
            truth: BTreeMap::new(),
            unbroken: BTreeSet::new(),
            down: false,
            made: 0,
            bound: 0,
        }
    }

    fn take(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Start { address, index, namespace, routed } => {
                self.start(address, index, namespace, routed);
            }
            Step::Second { of, index } => self.second(of, index),
            Step::Unplug { index } => self.unplug(ifindex(index)),
            Step::Forget { pod } => {
                let count = self.pods.len().max(1);
                if let Some(key) = self.pods.keys().nth(usize::from(pod) % count).cloned() {
                    self.pods.remove(&key);
                    self.objects([Change::delete(ObjectKey::Pod(key))]);
                }
            }
            Step::Down { writes } => return self.go_down(writes),
            Step::Up => return self.come_up(),
        }
        if self.down { Ok(()) } else { self.turn(None) }
    }

    fn start(&mut self, address: u8, index: u8, namespace: u8, routed: bool) {
        let (index, address) = (ifindex(index), ip(address));
        let used = |device: &Device| {
            device.peer.as_ref().is_some_and(|peer| peer.netnsid == i32::from(namespace))
        };
        let has = |pod: &Pod| pod.addresses.contains(&address);
        if self.devices.contains_key(&index)
            || self.devices.values().any(used)
            || self.truth.values().any(has)
        {
            return;
        }
        self.made += 1;
        let name = format!("pod-{}", self.made);
        let started = Pod { created: i64::from(self.made), ..pod(&name, address) };
        let peer =
            DevicePeer { netnsid: i32::from(namespace), index: IfIndex(2), claims: vec![address] };
        let host_routes = if routed { vec![HostRoute::from(address)] } else { Vec::new() };
        let veth = Device { peer: Some(peer), host_routes, ..device(index.0, Some(Vec::new())) };
        // The pool gives an address out again once its last owner's object says that it is over.
        let over: Vec<PodKey> =
            self.pods.values().filter(|pod| has(pod)).map(|pod| pod.key.clone()).collect();
        for key in over {
            self.pods.remove(&key);
            self.objects([Change::delete(ObjectKey::Pod(key))]);
        }
        self.pods.insert(started.key.clone(), started.clone());
        self.plug(veth, started.clone());
        self.objects([Change::Apply(Object::Pod(started))]);
    }

    fn second(&mut self, of: u8, index: u8) {
        let index = ifindex(index);
        let Some(first) = self.devices.get(&ifindex(of)) else { return };
        if self.devices.contains_key(&index) {
            return;
        }
        let behind = self.truth[&first.index].clone();
        let bare = device(index.0, Some(Vec::new()));
        self.plug(Device { peer: first.peer.clone(), ..bare }, behind);
    }

    fn plug(&mut self, veth: Device, behind: Pod) {
        let index = veth.index;
        self.devices.insert(index, veth);
        self.truth.insert(index, behind);
        self.seen(index);
    }

    fn seen(&mut self, index: IfIndex) {
        if !self.down {
            self.unbroken.insert(index);
            let op = self.reconciler.device(DeviceChange::Seen(self.devices[&index].clone()));
            assert_eq!(op, None);
        }
    }

    fn unplug(&mut self, index: IfIndex) {
        self.truth.remove(&index);
        self.unbroken.remove(&index);
        if self.devices.remove(&index).is_some()
            && !self.down
            && let Some(op) = self.reconciler.device(DeviceChange::Gone(index))
        {
            self.reconciler.written(&op);
        }
    }

    fn objects(&mut self, changes: impl IntoIterator<Item = Change>) {
        if !self.down {
            self.reconciler.objects(changes);
        }
    }

    /// Plans and writes; no more than so many writes.
    fn turn(&mut self, most: Option<u8>) -> Result<(), Failure> {
        let ops = self.reconciler.plan().ops;
        let most = most.map_or(ops.len(), |most| usize::from(most) % (ops.len() + 1));
        for op in ops.iter().take(most) {
            self.reconciler.written(op);
            self.check(op)?;
        }
        if most < ops.len() {
            self.reconciler.broken_off();
            return Ok(());
        }
        self.reconciler.finished();
        let last_id = self.reconciler.bindings().last_id();
        self.record = (last_id, self.reconciler.endpoints());
        self.check_desired()
    }

    fn go_down(&mut self, writes: u8) -> Result<(), Failure> {
        if !self.down {
            self.turn(Some(writes))?;
            self.down = true;
        }
        Ok(())
    }

    fn come_up(&mut self) -> Result<(), Failure> {
        if !self.down {
            return Ok(());
        }
        let mut next = reconciler(self.reconciler.actual().clone());
        next.objects(self.pods.values().cloned().map(|pod| Change::Apply(Object::Pod(pod))));
        for device in self.devices.values() {
            assert_eq!(next.device(DeviceChange::Seen(device.clone())), None);
        }
        for op in next.clear_stale(&self.unbroken) {
            next.written(&op);
        }
        let (last_id, endpoints) = &self.record;
        next.resume_after(*last_id);
        for endpoint in endpoints {
            next.restore(endpoint);
        }
        self.unbroken = self.devices.keys().copied().collect();
        self.reconciler = next;
        self.down = false;
        self.turn(None)
    }

    /// What the kernel's tables say of a pod's device is true of the pod that is behind it.
    fn check(&self, op: &Op) -> Result<(), Failure> {
        let actual = self.reconciler.actual();
        let mut owners: BTreeMap<EndpointId, &PodUid> = BTreeMap::new();
        for iface in actual.ifaces.values().filter(|iface| iface.role() == Some(Role::Pod)) {
            let Some(behind) = self.truth.get(&IfIndex(iface.ifindex())) else { continue };
            let owner = owners.entry(iface.endpoint()).or_insert(&behind.uid);
            prop_assert_eq!(*owner, &behind.uid, "two pods at {} after {}", iface.ifindex(), op);
            let endpoint = actual.endpoints.get(&iface.endpoint());
            prop_assert!(endpoint.is_some(), "{} has no endpoint after {}", iface.ifindex(), op);
            for addr in endpoint.iter().flat_map(|endpoint| endpoint.addrs) {
                let own = behind.addresses.iter().any(|own| Addr::from(*own) == addr);
                let none = addr == Addr::UNSPECIFIED;
                prop_assert!(own || none, "{} has {addr:?} after {op}", behind.key);
            }
        }
        Ok(())
    }

    fn check_desired(&mut self) -> Result<(), Failure> {
        let (actual, desired) = (self.reconciler.actual(), self.reconciler.desired());
        prop_assert_eq!(actual.clone().without_births().endpoints, desired.endpoints.clone());
        let mut owners = BTreeMap::new();
        for (index, bound) in self.reconciler.bindings().iter() {
            let owner = owners.entry(bound.id).or_insert(&bound.pod.uid);
            prop_assert_eq!(*owner, &bound.pod.uid, "{:?} is two pods'", bound.id);
            prop_assert_eq!(&self.truth[&index].uid, &bound.pod.uid, "behind {}", index);
            let of = |addr: &IpAddr| Addr::from(*addr);
            let addrs: Vec<Addr> = bound.pod.addresses.iter().map(of).collect();
            prop_assert_eq!(&desired.endpoints[&bound.id].addrs[..addrs.len()], &addrs[..]);
        }
        self.bound += owners.len() as u32;
        Ok(())
    }
}

fn reconciler(actual: Tables) -> Reconciler {
    Reconciler::new(NodeName("node-1".into()), np_policy::bind::Settings::default(), false, actual)
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, number + 1])
}

fn ifindex(number: u8) -> IfIndex {
    IfIndex(100 + u32::from(number))
}

#[test]
fn an_endpoint_id_is_never_two_pods_nor_has_anothers_address() {
    let bound = std::cell::Cell::new(0);
    let steps = proptest::collection::vec(step(), 1..60);
    let result = runner("identity", 2_000).run(&steps, |steps| {
        let mut world = World::new();
        steps.into_iter().try_for_each(|step| world.take(step))?;
        bound.set(bound.get() + u64::from(world.bound));
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{} bindings", bound.get());
    assert!(bound.get() > 10_000, "too few pods were bound to say anything: {}", bound.get());
}
