//! The reconciler: objects and devices in, writes out. Pure: who writes them, and whether that
//! works, is the agent's business.
//!
//! Everything between is kept and brought up to date with what was touched, so that an event costs
//! what it changes. It equals what would be made from nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use np_common::config::Config;
use np_common::endpoint::Role;

use crate::bind::{self, Bindings, Placement, RefusedSource, Settings};
use crate::compile::{Atom, Compiled, Isolation};
use crate::index::{Index, Touched};
use crate::model::{Change, Device, DeviceChange, IfIndex, NodeName, PolicyKey};
use crate::plan::record::{EndpointRecord, SideRecord};
use crate::plan::{self, Limits, Lowered, NoRoom, Op, Scope, Tables};

#[derive(Debug)]
pub struct Reconciler {
    node: NodeName,
    settings: Settings,
    index: Index,
    touched: Touched,
    devices: BTreeMap<IfIndex, Device>,
    bindings: Bindings,
    placements: BTreeMap<IfIndex, Placement>,
    compiled: Compiled,
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
    /// The change is too large for a map. What is in force stays: the operations only make devices
    /// default-deny, and close tunnels and further sources to pods.
    pub refused: Option<Refused>,
}

/// Why a change is not written, and whose policies ask for the most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub no_room: NoRoom,
    pub policies: Vec<PolicyKey>,
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
            placements: BTreeMap::new(),
            compiled: Compiled::default(),
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
        self
    }

    /// Takes changes of objects in.
    pub fn objects(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            self.index.apply(change, &mut self.touched);
        }
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

    /// Takes up a binding of an earlier run. False when the device is another by now.
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

    /// Brings the desired tables up to date and plans the writes that lead there.
    pub fn plan(&mut self) -> Plan {
        self.placements =
            self.bindings.place(&self.devices, &self.index, &self.node, &self.settings);
        let touched = std::mem::take(&mut self.touched);
        let pods = self.bindings.iter().map(|(_, bound)| bound.pod.as_ref());
        let changed = self.compiled.update(&self.index, &touched, pods);

        bind::lower(&self.placements, &self.devices, &self.bindings, &mut self.desired);
        self.desired.sources = bind::sources(&self.bindings, &self.settings);
        self.desired.tunnels = bind::tunnels(&self.devices, &self.settings);
        let ids = self.bindings.ids();
        self.lowered.update(&self.compiled, &changed, &ids, &mut self.desired, &mut self.scope);
        let mut ops = plan::diff(&self.actual, &self.desired, &self.scope);
        let refused = plan::room(&self.actual, &ops, &self.limits).err().map(|no_room| {
            let tunnels = ops.iter().any(|op| matches!(op, Op::SetTunnel(_)));
            // The generation is the new tunnels'.
            ops.retain(|op| self.denies(op) || tunnels && matches!(op, Op::SetConfig(_)));
            Refused { no_room, policies: self.heaviest(&no_room) }
        });
        Plan { ops, refused }
    }

    /// Whether an operation takes a device from what nobody knows to default-deny, or closes a
    /// tunnel or a further source to pods.
    fn denies(&self, op: &Op) -> bool {
        match op {
            Op::SetIface(iface) => {
                let known = self.actual.ifaces.contains_key(&iface.ifindex());
                !known && iface.role() != Some(Role::Pod)
            }
            Op::SetTunnel(_) | Op::RemoveSource(..) => true,
            _ => false,
        }
    }

    /// The policies of the rule set that asks most of a map.
    fn heaviest(&self, no_room: &NoRoom) -> Vec<PolicyKey> {
        let blocks = |isolation: &Isolation| -> usize {
            let peers = isolation.rule_set.rules().iter().flat_map(|rule| &rule.peers).flatten();
            peers
                .map(|atom| match atom {
                    Atom::Block(block) => 1 + block.except.len(),
                    Atom::PodsOf { .. } | Atom::Pods { .. } | Atom::Port(_) => 0,
                })
                .sum()
        };
        let rules = |isolation: &Isolation| self.lowered.size(&isolation.rule_set, &self.desired);
        let subjects = self.compiled.subjects.values();
        let isolations = subjects.flat_map(|subject| [&subject.ingress, &subject.egress]).flatten();
        let heaviest = isolations.max_by_key(|isolation| match no_room.map {
            "RULES" => rules(isolation),
            _ => blocks(isolation),
        });
        heaviest.map(|isolation| isolation.policies.clone()).unwrap_or_default()
    }

    /// A write was made.
    pub fn written(&mut self, op: &Op) {
        op.apply(&mut self.actual);
    }

    /// All writes of the plan were made.
    pub fn finished(&mut self) {
        // Mostly the first plan, and what follows changes little of it.
        if self.scope.everything {
            self.index.pack();
            self.compiled.pack();
            self.desired.pack();
            self.actual.pack();
        }
        self.scope = Scope::default();
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
                let subject = self.compiled.subjects.get(&bound.pod.uid);
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

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub fn actual(&self) -> &Tables {
        &self.actual
    }

    pub fn desired(&self) -> &Tables {
        &self.desired
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { no_room, policies } = self;
        write!(f, "the change is not written, what was in force stays: {no_room}")?;
        let most = match no_room.map {
            "PEERS" => "it grows with the pods that policies of this node tell apart",
            "CIDRS" => "write fewer or wider ipBlocks",
            _ => "write fewer distinct lists of ports, or fewer distinct peers",
        };
        if !policies.is_empty() {
            let names: Vec<String> = policies.iter().take(3).map(PolicyKey::to_string).collect();
            let more = policies.len().saturating_sub(names.len());
            write!(f, "; most of it is for NetworkPolicy {}", names.join(", "))?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
        }
        write!(f, "; {most}")
    }
}
