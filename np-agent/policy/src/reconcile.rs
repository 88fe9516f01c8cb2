//! The reconciler: objects and devices in, writes out. Pure: who writes them, and whether that
//! works, is the agent's business.
//!
//! Everything between is kept and brought up to date with what was touched, so that an event costs
//! what it changes. It equals what would be made from nothing.

mod holding;

use std::collections::{BTreeMap, BTreeSet};

use np_common::config::Config;
use np_common::endpoint::Role;

use crate::bind::{self, Bindings, Missing, Placement, RefusedSource, Settings};
pub use holding::{Held, InForce};

use holding::Holding;

use crate::compile::{Compiled, Isolation};
use crate::index::{Index, Touched};
use crate::model::{
    Change, Device, DeviceChange, IfIndex, NodeName, Pod, PodKey, PodUid, PolicyKey,
};
use crate::plan::record::{EndpointRecord, SideRecord};
use crate::plan::{self, Limits, Lowered, Op, Scope, Tables};

#[derive(Debug)]
pub struct Reconciler {
    node: NodeName,
    settings: Settings,
    index: Index,
    touched: Touched,
    devices: BTreeMap<IfIndex, Device>,
    bindings: Bindings,
    /// The pods of this node, whether their devices are known or not.
    local: BTreeSet<PodKey>,
    missing: Vec<Missing>,
    placements: BTreeMap<IfIndex, Placement>,
    holding: Holding,
    /// Pods of an earlier run whose labels it could not record, by uid.
    without_labels: BTreeSet<PodUid>,
    lowered: Lowered,
    desired: Tables,
    /// What the maps hold.
    actual: Tables,
    /// Where the two may differ.
    scope: Scope,
    limits: Limits,
}

/// What to write now.
#[derive(Debug)]
pub struct Plan {
    pub ops: Vec<Op>,
    /// Plan again once these are in force: there is more to do that must not be done before.
    pub again: bool,
}

impl Reconciler {
    /// `actual` is what the maps hold at the start.
    pub fn new(node: NodeName, settings: Settings, pending_allowed: bool, actual: Tables) -> Self {
        let config = Config::new(0, pending_allowed);
        Self {
            node,
            settings,
            index: Index::default(),
            touched: Touched::default(),
            devices: BTreeMap::new(),
            bindings: Bindings::default(),
            local: BTreeSet::new(),
            missing: Vec::new(),
            placements: BTreeMap::new(),
            holding: Holding::default(),
            without_labels: BTreeSet::new(),
            lowered: Lowered::default(),
            desired: Tables { config, ..Tables::default() },
            actual,
            scope: Scope::everything(),
            limits: Limits::default(),
        }
    }

    /// With maps of another size.
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.holding.set_limits(limits);
        self
    }

    /// Takes changes of objects in.
    pub fn objects(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            match change {
                Change::Replace(collection, objects) => {
                    for change in self.index.replacing(&collection, objects) {
                        self.object(change);
                    }
                }
                Change::Apply(_) | Change::Delete(..) => self.object(change),
            }
        }
    }

    fn object(&mut self, change: Change) {
        self.holding.about_to_change(&change, &self.index);
        self.index.apply(change, &mut self.touched);
    }

    /// Takes a change of a device in. Returns a write that cannot wait for the next plan: the index
    /// of a device that is gone may come again as another in the same batch, and nothing of the old
    /// one may be left by then.
    pub fn device(&mut self, change: DeviceChange) -> Option<Op> {
        match change {
            DeviceChange::Seen(device) => {
                self.devices.insert(device.index, device);
                None
            }
            DeviceChange::Gone(ifindex) => {
                self.devices.remove(&ifindex);
                self.bindings.release(ifindex);
                self.actual.ifaces.contains_key(&ifindex.0).then_some(Op::ClearIface(ifindex.0))
            }
        }
    }

    /// The writes that clear the devices which the maps know and which are not `alive`: their
    /// indices may have gone to other devices since.
    pub fn clear_stale(&self, alive: &BTreeSet<IfIndex>) -> Vec<Op> {
        let known = self.actual.ifaces.keys().copied();
        known.filter(|ifindex| !alive.contains(&IfIndex(*ifindex))).map(Op::ClearIface).collect()
    }

    /// Restores a binding of an earlier run. False when the device is another by now.
    pub fn restore(&mut self, endpoint: &EndpointRecord) -> bool {
        let device = self.devices.get(&endpoint.ifindex);
        let iface = self.actual.ifaces.get(&endpoint.ifindex.0);
        let holds = device.is_some_and(|device| device.name == endpoint.device)
            && iface.is_some_and(|iface| {
                iface.role() == Some(Role::Pod) && iface.endpoint().get() == endpoint.id
            });
        if holds {
            self.bindings.restore(endpoint, &self.index, &self.node);
        }
        holds
    }

    /// As [`Self::restore`], of a pod whose labels were too large to be recorded. Until its object
    /// is seen nobody can say what selects it, and it is isolated.
    pub fn restore_without_labels(&mut self, endpoint: &EndpointRecord) -> bool {
        let holds = self.restore(endpoint);
        if holds {
            self.without_labels.insert(endpoint.uid.clone());
        }
        holds
    }

    /// Holds back the policies that an earlier run held back, rather than others.
    pub fn restore_held(&mut self, held: impl IntoIterator<Item = PolicyKey>) {
        self.holding.restore(held);
    }

    /// Continues after the endpoint id that an earlier run gave last.
    pub fn resume_after(&mut self, last_id: u16) {
        self.bindings.resume_after(last_id);
    }

    /// Brings the desired tables up to date and plans the writes that lead there.
    pub fn plan(&mut self) -> Plan {
        let touched = std::mem::take(&mut self.touched);
        for key in &touched.pods {
            let here = self.index.pod(key).is_some_and(|pod| pod.node.as_ref() == Some(&self.node));
            if here {
                self.local.insert(key.clone());
            } else {
                self.local.remove(key);
            }
        }
        let facts = bind::Facts {
            devices: &self.devices,
            index: &self.index,
            node: &self.node,
            local: &self.local,
            settings: &self.settings,
            in_force: &self.actual,
        };
        self.placements = self.bindings.place(&facts);
        self.missing = bind::missing(&self.bindings, &facts);
        self.desired.sources = bind::sources(&self.bindings, &facts);
        let pods: Vec<&Pod> = self.bindings.iter().map(|(_, bound)| bound.pod.as_ref()).collect();
        let unseen = |pod: &&&Pod| self.index.same_pod(&pod.key, &pod.uid).is_none();
        let bound = pods.iter().filter(unseen).map(|pod| &pod.uid).collect::<BTreeSet<_>>();
        self.without_labels.retain(|uid| bound.contains(uid));
        self.holding.set_unknown(self.without_labels.clone());
        let changed = self.holding.update(&self.index, &touched, &pods);

        bind::lower(&self.placements, &self.devices, &self.bindings, &mut self.desired);
        self.desired.tunnels = bind::tunnels(&self.devices, &self.settings);
        let ids = self.bindings.ids();
        let compiled = self.holding.in_force();
        self.lowered.update(compiled, &changed, &ids, &mut self.desired, &mut self.scope);
        let ops = plan::within(&self.actual, &self.desired, &self.scope, &self.limits);
        Plan { ops, again: self.bindings.wait() }
    }

    /// A write was made.
    pub fn written(&mut self, op: &Op) {
        op.apply(&mut self.actual);
    }

    /// The maps hold something else than what was written to them. The next plan starts from that.
    pub fn found(&mut self, actual: Tables) {
        self.actual = actual;
        self.scope = Scope::everything();
    }

    /// All writes of the plan were made.
    pub fn finished(&mut self) {
        // Mostly the first plan, and what follows changes little of it.
        if self.scope.everything {
            self.index.pack();
            self.holding.pack();
            self.desired.pack();
            self.actual.pack();
        }
        self.scope = Scope::default();
        self.holding.finished();
    }

    /// A write could not be made, and those after it were not tried.
    pub fn broken_off(&mut self) {
        self.scope = Scope::everything();
    }

    /// What ids stand for, for a dump of the maps and for the agent after this one; by id.
    pub fn endpoints(&self) -> Vec<EndpointRecord> {
        let side = |isolation: Option<&Isolation>| SideRecord {
            isolated: isolation.is_some(),
            policies: isolation.map(|isolation| isolation.policies.clone()).unwrap_or_default(),
        };
        let mut endpoints: Vec<EndpointRecord> = self
            .bindings
            .iter()
            .map(|(ifindex, bound)| {
                let subject = self.compiled().subjects.get(&bound.pod.uid);
                EndpointRecord {
                    id: bound.id.get(),
                    pod: bound.pod.key.clone(),
                    uid: bound.pod.uid.clone(),
                    addresses: bound.pod.addresses.to_vec(),
                    source_prefixes: bind::granted(&bound.pod, &self.settings).collect(),
                    labels: bound.pod.labels.clone(),
                    named_ports: bound.pod.named_ports.clone(),
                    device: bound.device.clone(),
                    ifindex,
                    ingress: side(subject.and_then(|subject| subject.ingress.as_ref())),
                    egress: side(subject.and_then(|subject| subject.egress.as_ref())),
                }
            })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.id);
        endpoints
    }

    /// What pods of this node ask to send from and may not.
    pub fn refused_sources(&self) -> BTreeSet<RefusedSource> {
        bind::refused_sources(&self.bindings, &self.settings)
    }

    /// Pods of this node whose policies are not enforced, because no device leads to them.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    pub fn index(&self) -> &Index {
        &self.index
    }

    pub fn devices(&self) -> &BTreeMap<IfIndex, Device> {
        &self.devices
    }

    pub fn bindings(&self) -> &Bindings {
        &self.bindings
    }

    pub fn placements(&self) -> &BTreeMap<IfIndex, Placement> {
        &self.placements
    }

    /// What is to be in force: of a policy that is held back, what counts in its place.
    pub fn compiled(&self) -> &Compiled {
        self.holding.in_force()
    }

    /// The policies that the maps have no room for, ascending.
    pub fn held(&self) -> impl ExactSizeIterator<Item = &Held> {
        self.holding.held()
    }

    /// How often was asked whether there is room: not again before something has changed.
    pub fn measurements(&self) -> u64 {
        self.holding.measurements()
    }

    /// Pods that are isolated because nobody knows their labels, by uid.
    pub fn without_labels(&self) -> &BTreeSet<PodUid> {
        &self.without_labels
    }

    pub fn actual(&self) -> &Tables {
        &self.actual
    }

    pub fn desired(&self) -> &Tables {
        &self.desired
    }
}
