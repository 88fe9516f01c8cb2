//! The agent without its loop: objects and devices in, map writes and attachments out.
//!
//! One owner for the reconciler and the maps. A turn writes what the reconciler plans; a write that
//! fails leaves the rest for a later turn, and what is in force stays.

mod attachments;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context;
use tracing::{debug, error, info, warn};

pub use report::role_name;

use attachments::Attachment;

use crate::attaching::Request;
use crate::dataplane::{self, AdoptedLink, Maps, TcSide, Unheard};
use crate::doorkeeper::{Heard, backoff};
use crate::events::Snapshot;
use crate::inspector::{Found, Inspected, Inspection, Next};
use crate::source::{Batch, Invalid, Narrowed};
use np_policy::bind::{RefusedSource, Settings};
use np_policy::index::Index;
use np_policy::model::{Change, DeviceChange, IfIndex, NodeName, ObjectKey};
use np_policy::plan::record::{EndpointRecord, LeftOut, Record};
use np_policy::plan::{Op, Tables};
use np_policy::reconcile::Reconciler;

#[derive(Debug)]
pub struct Agent {
    node: NodeName,
    reconciler: Reconciler,
    maps: Maps,
    unheard: Unheard,
    record: Record,
    /// What the stored record has no room for.
    left_out: Vec<LeftOut>,
    /// What an earlier run left in force, as long as it is not known what is to be.
    earlier: Vec<EndpointRecord>,
    /// What the log has said of policies that are not in force.
    held: BTreeSet<String>,
    attachments: BTreeMap<IfIndex, Attachment>,
    invalid: Vec<Invalid>,
    narrowed: Vec<Narrowed>,
    /// What has not been seen as a whole yet.
    missing: Vec<String>,
    /// Why objects are in force that no manifest has.
    remembered: Option<String>,
    refused_sources: BTreeSet<RefusedSource>,
    batches: u64,
    /// Why the last turn did not reach its end, or that there was none yet.
    failure: Option<String>,
    failures: u32,
    /// Whether everything has been in force at least once since the start.
    started: bool,
    /// The maps are new, while programs of another version judge by theirs: these are not to be
    /// replaced before the maps hold everything.
    withheld: bool,
    /// Why the devices cannot be followed.
    blind: Option<String>,
    inspection: Inspection,
    /// What was found otherwise than it should be at devices and in maps, and put right.
    repairs: u64,
}

impl Agent {
    pub fn new(
        node: NodeName,
        settings: Settings,
        pending_allowed: bool,
        maps: Maps,
        unheard: Unheard,
        actual: Tables,
    ) -> Self {
        Self {
            record: Record { node: Some(node.clone()), ..Record::default() },
            left_out: Vec::new(),
            earlier: Vec::new(),
            held: BTreeSet::new(),
            reconciler: Reconciler::new(node.clone(), settings, pending_allowed, actual),
            node,
            maps,
            unheard,
            attachments: BTreeMap::new(),
            invalid: Vec::new(),
            narrowed: Vec::new(),
            missing: Vec::new(),
            remembered: None,
            refused_sources: BTreeSet::new(),
            batches: 0,
            // Until then the maps hold what an earlier run left there.
            failure: Some("the objects have not been brought to the maps yet".to_owned()),
            failures: 0,
            started: false,
            withheld: false,
            blind: None,
            inspection: Inspection::default(),
            repairs: 0,
        }
    }

    /// Takes note of the devices that have programs of an earlier agent, and clears what the maps
    /// know of others: their indices may have gone to other devices since. To be called before
    /// anybody looks for new devices.
    pub fn adopt(&mut self, links: &[AdoptedLink]) -> anyhow::Result<()> {
        let on = |side| -> BTreeSet<IfIndex> {
            let alive = links.iter().filter(|link| link.side == side && !link.severed);
            alive.map(|link| link.ifindex).collect()
        };
        let (ingress, egress) = (on(TcSide::Ingress), on(TcSide::Egress));
        for ifindex in &ingress | &egress {
            self.attachments.insert(ifindex, Attachment::Adopted);
        }
        let alive = &ingress & &egress;
        for op in self.reconciler.clear_stale(&alive) {
            self.write(&op).context("cannot clear a device that is gone")?;
        }
        Ok(())
    }

    /// Takes note of what an earlier run left in force, to tell it until more is known.
    pub fn recall(&mut self, record: Option<&[u8]>) {
        let record: Option<Record> = record.and_then(|record| serde_json::from_slice(record).ok());
        self.earlier = record.map(|record| record.endpoints).unwrap_or_default();
    }

    /// Restores what an earlier run left: bindings whose device still has our programs. Call it once
    /// objects and devices are known, before the first turn.
    pub fn restore(&mut self, record: Option<&[u8]>) {
        self.earlier.clear();
        let Some(record) = record else { return };
        let record: Record = match serde_json::from_slice(record) {
            Ok(record) => record,
            Err(error) => {
                // Another version's, perhaps. What it bound is bound again, by the evidence.
                warn!(%error, "the record of an earlier agent cannot be read");
                return;
            }
        };
        self.reconciler.resume_after(record.resumes_after());
        self.reconciler.restore_held(record.held);
        for endpoint in &record.endpoints {
            let holds = if record.without_labels.contains(&endpoint.id) {
                self.reconciler.restore_without_labels(endpoint)
            } else {
                self.reconciler.restore(endpoint)
            };
            if holds {
                info!(pod = %endpoint.pod, device = endpoint.device, "took up the pod again");
            }
        }
    }

    /// Programs of another version judge until a whole plan has been written.
    pub fn withhold(&mut self) {
        self.withheld = true;
    }

    /// Takes a batch of objects in.
    pub fn objects(&mut self, batch: Batch) {
        let Batch { changes, invalid, narrowed, missing, ignored: _, background: _, held } = batch;
        for change in &changes {
            match change {
                Change::Apply(object) => debug!(object = %object.key(), "applied"),
                Change::Delete(key, _) => debug!(object = %key, "deleted"),
                Change::Replace(collection, objects) => {
                    debug!(?collection, objects = objects.len(), "replaced");
                }
            }
        }
        for problem in invalid.iter().filter(|problem| !self.invalid.contains(problem)) {
            warn!("{problem}");
        }
        for part in narrowed.iter().filter(|part| !self.narrowed.contains(part)) {
            warn!("{part}");
        }
        self.reconciler.objects(changes);
        if let Some(remembered) = held.as_ref().filter(|_| self.remembered.is_none()) {
            warn!("{remembered}");
        }
        self.invalid = invalid;
        self.narrowed = narrowed;
        self.missing = missing;
        self.remembered = held;
        self.batches += 1;
    }

    /// Takes in what has happened to devices, and what was written about them already.
    pub fn devices(&mut self, heard: Vec<Heard>) {
        for Heard { change, door, asked } in heard {
            match &change {
                DeviceChange::Gone(ifindex) => {
                    let ifindex = *ifindex;
                    let device = self.reconciler.devices().get(&ifindex).map(|device| &device.name);
                    info!(device, %ifindex, "the device is gone");
                    self.attachments.remove(&ifindex);
                    let clear = self.reconciler.device(change);
                    match (door, clear) {
                        // What the map has there by now may be the next device's.
                        (Some(door), _) => self.reconciler.written(&door),
                        (None, Some(clear)) => self.write_or_say(&clear),
                        (None, None) => {}
                    }
                    self.unheard.heard(ifindex);
                }
                DeviceChange::Seen(device) => {
                    if let Some(side) = asked {
                        self.attachments.insert(device.index, Attachment::Asked(side, None));
                    }
                    self.reconciler.device(change);
                    if let Some(door) = door {
                        self.write_or_say(&door);
                    }
                }
            }
        }
    }

    /// Whether the devices can be followed.
    pub fn blind(&mut self, problem: Option<String>) {
        self.blind = problem;
    }

    fn write_or_say(&mut self, op: &Op) {
        if let Err(error) = self.write(op) {
            error!("{error}");
        }
    }

    /// Brings the maps to what objects and devices ask for. Returns what to attach, and after how
    /// long to take another turn, when a write failed or there is more to do.
    pub fn turn(&mut self) -> (Vec<Request>, Option<Duration>) {
        let before = self.reconciler.placements().clone();
        let plan = self.reconciler.plan();
        self.log_placements(&before);
        self.log_refused_sources();
        self.log_held();
        let written = self.write_all(&plan.ops);
        self.withheld &= written.is_err();
        let attach = if self.withheld { Vec::new() } else { self.attachments_wanted() };
        match written {
            Ok(()) => {
                self.reconciler.finished();
                self.failure = None;
                self.failures = 0;
                (attach, plan.again.then_some(Duration::ZERO))
            }
            Err(failed) => {
                error!("{failed:#}");
                self.reconciler.broken_off();
                self.failure = Some(format!("{failed:#}"));
                self.failures += 1;
                (attach, Some(backoff(self.failures)))
            }
        }
    }

    fn write_all(&mut self, ops: &[Op]) -> anyhow::Result<()> {
        for op in ops {
            self.write(op)?;
        }
        if !ops.is_empty() {
            let generation = self.reconciler.actual().config.generation();
            info!(writes = ops.len(), generation, "the maps are up to date");
        }
        self.store_record()
    }

    fn write(&mut self, op: &Op) -> Result<(), dataplane::ApplyError> {
        let unheard = self.unheard.clone();
        // Held while it is written, so that the door's word about the next device comes later.
        let held = match op {
            Op::SetIface(iface) => Some((unheard.lock(), IfIndex(iface.ifindex()))),
            _ => None,
        };
        // Planned before the device went. Its end is about to be heard, and then planned for.
        if held.is_some_and(|(unheard, ifindex)| unheard.contains_key(&ifindex)) {
            return Ok(());
        }
        self.maps.apply(op)?;
        self.inspection.written(op);
        self.reconciler.written(op);
        Ok(())
    }

    fn store_record(&mut self) -> anyhow::Result<()> {
        let record = self.current_record();
        if record == self.record {
            return Ok(());
        }
        for endpoint in &record.endpoints {
            if !self.record.endpoints.contains(endpoint) {
                info!(
                    pod = %endpoint.pod,
                    ingress = %endpoint.ingress,
                    egress = %endpoint.egress,
                    "policed"
                );
            }
        }
        let (bytes, left_out) = record.fit(dataplane::RECORD_ROOM);
        for left_out in left_out.iter().filter(|left_out| !self.left_out.contains(left_out)) {
            warn!("{left_out}");
        }
        self.maps.store_record(&bytes)?;
        self.left_out = left_out;
        self.record = record;
        Ok(())
    }

    fn current_record(&self) -> Record {
        let endpoints = self.reconciler.endpoints();
        let unknown = self.reconciler.without_labels();
        let without_labels = endpoints.iter().filter(|endpoint| unknown.contains(&endpoint.uid));
        Record {
            node: Some(self.node.clone()),
            last_id: self.reconciler.bindings().last_id(),
            held: self.reconciler.held().map(|held| held.policy.clone()).collect(),
            without_labels: without_labels.map(|endpoint| endpoint.id).collect(),
            endpoints,
        }
    }

    /// Somebody is about to read the maps: what is written from now on, that reading may lack.
    /// False when the reading before is not done yet.
    pub fn begin_inspection(&mut self) -> bool {
        self.inspection.begin()
    }

    /// Compares what the maps held with what they should hold. Returns the tables that are of no
    /// use any more, and whether there is something to put right by a turn, or to look at again.
    pub fn inspect(&mut self, dump: Result<Box<Tables>, String>) -> Inspected {
        let (found, unused) = self.inspection.judge(dump, self.reconciler.actual());
        let next = match found {
            Found::AsItShould => Next::Nothing,
            Found::Suspect => Next::LookAgain,
            Found::Otherwise { maps, tables } => {
                let problem = format!("the maps {} are not as they were written", maps.join(", "));
                warn!(problem, "planning again from what they hold");
                self.repairs += 1;
                self.failure = Some(problem);
                self.reconciler.found(*tables);
                Next::Turn
            }
        };
        Inspected { unused, next }
    }

    pub fn index(&self) -> &Index {
        self.reconciler.index()
    }

    /// What names of pods, policies and devices are found by, after so many changes.
    pub fn snapshot(&self, changes: u64) -> Snapshot {
        let bindings = self.reconciler.bindings().iter();
        let devices = self.reconciler.devices().iter();
        Snapshot {
            node: self.node.clone(),
            index: self.reconciler.index().clone(),
            pods: bindings.map(|(_, bound)| (bound.id.get(), bound.pod.key.clone())).collect(),
            devices: devices.map(|(ifindex, device)| (ifindex.0, device.name.clone())).collect(),
            changes,
        }
    }

    /// Objects of this node that a user would miss if they were not there.
    pub fn warn_of_missing(&self) {
        if self.reconciler.index().node(&self.node).is_none() {
            warn!(
                "no {} among the objects: a veth that is an uplink is known by its routes or by \
                 --uplink alone, because the node's addresses are not known",
                ObjectKey::Node(self.node.clone())
            );
        }
    }
}
