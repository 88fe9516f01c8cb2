//! The agent without its loop: objects and devices in, map writes and attachments out.
//!
//! One owner for the reconciler and the maps. A turn writes what the reconciler plans; a write that
//! fails leaves the rest for a later turn, and what is in force stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, bail};
use np_common::endpoint::Role;
use tracing::{debug, error, info, warn};

use crate::bind::{Placement, RefusedSource, Settings};
use crate::dataplane::{self, AdoptedLink, Maps, Side};
use crate::index::Index;
use crate::model::{Change, DeviceChange, IfIndex, NodeName, ObjectKey};
use crate::plan::record::Record;
use crate::plan::{Op, Tables};
use crate::reconcile::{Plan, Reconciler};
use crate::source::{Batch, Invalid};
use crate::status::{AgentState, Counter, DeviceStatus, Objects, Status};

#[derive(Debug)]
pub struct Agent {
    node: NodeName,
    reconciler: Reconciler,
    maps: Maps,
    record: Record,
    attachments: BTreeMap<IfIndex, Attachment>,
    invalid: Vec<Invalid>,
    refused_sources: BTreeSet<RefusedSource>,
    batches: u64,
    /// Why the last turn did not reach its end, or that there was none yet.
    failure: Option<String>,
    failures: u32,
}

/// How far a device has got with its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Attachment {
    Asked(Side),
    Done(Side),
    Failed(Side, String),
}

/// A request to attach the programs of one side to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub ifindex: IfIndex,
    pub name: String,
    pub side: Side,
}

impl Agent {
    pub fn new(
        node: NodeName,
        settings: Settings,
        pending_allowed: bool,
        maps: Maps,
        actual: Tables,
    ) -> Self {
        Self {
            record: Record { node: Some(node.clone()), endpoints: Vec::new() },
            reconciler: Reconciler::new(node.clone(), settings, pending_allowed, actual),
            node,
            maps,
            attachments: BTreeMap::new(),
            invalid: Vec::new(),
            refused_sources: BTreeSet::new(),
            batches: 0,
            // Until then the maps hold what an earlier run left there.
            failure: Some("the objects have not been brought to the maps yet".to_owned()),
            failures: 0,
        }
    }

    /// Takes up what an earlier run left: bindings whose device still has our programs. To be
    /// called once objects and devices are known, before the first turn.
    pub fn restore(&mut self, record: Option<&[u8]>, links: &[AdoptedLink]) -> anyhow::Result<()> {
        // The index of a device without our links, or with severed ones, may have gone to another
        // device since.
        let alive: BTreeSet<IfIndex> =
            links.iter().filter(|link| !link.severed).map(|link| link.ifindex).collect();
        for op in self.reconciler.clear_stale(&alive) {
            self.write(&op).context("cannot clear a device that is gone")?;
        }
        let Some(record) = record else { return Ok(()) };
        let record: Record = serde_json::from_slice(record)
            .context("the pinned RECORDS map does not hold a record; run `np-agent cleanup`")?;
        for endpoint in &record.endpoints {
            if self.reconciler.restore(endpoint) {
                info!(pod = %endpoint.pod, device = endpoint.device, "took up the pod again");
            }
        }
        Ok(())
    }

    /// Takes a batch of objects in.
    pub fn objects(&mut self, batch: Batch) {
        let Batch { changes, invalid, ignored, background: _ } = batch;
        for change in &changes {
            match change {
                Change::Apply(object) => debug!(object = %object.key(), "applied"),
                Change::Delete(key) => debug!(object = %key, "deleted"),
            }
        }
        for problem in invalid.iter().filter(|problem| !self.invalid.contains(problem)) {
            warn!("{problem}");
        }
        if !changes.is_empty() || self.batches == 0 {
            info!(changes = changes.len(), refused = invalid.len(), ignored, "read the manifests");
        }
        self.reconciler.objects(changes);
        self.invalid = invalid;
        self.batches += 1;
    }

    /// Takes device changes in. Returns the devices that are gone.
    pub fn devices(&mut self, changes: Vec<DeviceChange>) -> Vec<IfIndex> {
        let mut gone = Vec::new();
        for change in changes {
            if let DeviceChange::Gone(ifindex) = &change {
                let device = self.reconciler.devices().get(ifindex).map(|device| &device.name);
                info!(device, %ifindex, "the device is gone");
                self.attachments.remove(ifindex);
                gone.push(*ifindex);
            }
            if let Some(op) = self.reconciler.device(change)
                && let Err(error) = self.write(&op)
            {
                error!("{error}");
            }
        }
        gone
    }

    /// Brings the maps to what objects and devices ask for. Returns what to attach, and after how
    /// long to try again when a write failed.
    pub fn turn(&mut self) -> (Vec<Attach>, Option<Duration>) {
        let before = self.reconciler.placements().clone();
        let plan = self.reconciler.plan();
        self.log_placements(&before);
        self.log_refused_sources();
        let written = self.write_all(&plan);
        let attach = self.attachments_wanted();
        match written {
            Ok(()) => {
                self.reconciler.finished();
                self.failure = None;
                self.failures = 0;
                (attach, None)
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

    fn write_all(&mut self, Plan { ops, refused }: &Plan) -> anyhow::Result<()> {
        for op in ops {
            self.write(op)?;
        }
        if let Some(refused) = refused {
            bail!("{refused}");
        }
        if !ops.is_empty() {
            let generation = self.reconciler.actual().config.generation();
            info!(writes = ops.len(), generation, "the maps are up to date");
        }
        self.store_record()
    }

    fn write(&mut self, op: &Op) -> Result<(), dataplane::ApplyError> {
        self.maps.apply(op)?;
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
        let bytes = serde_json::to_vec(&record).unwrap_or_default();
        self.maps.store_record(&bytes)?;
        self.record = record;
        Ok(())
    }

    fn current_record(&self) -> Record {
        let endpoints = self.reconciler.endpoints();
        Record { node: Some(self.node.clone()), endpoints }
    }

    /// Devices that lack the programs of their role and that the maps know.
    fn attachments_wanted(&mut self) -> Vec<Attach> {
        let mut wanted = Vec::new();
        for (ifindex, placement) in self.reconciler.placements() {
            let Some(side) = placement.role.map(side) else { continue };
            let there = match self.attachments.get(ifindex) {
                Some(Attachment::Asked(asked) | Attachment::Done(asked)) => *asked == side,
                Some(Attachment::Failed(..)) | None => false,
            };
            if there || !self.reconciler.actual().ifaces.contains_key(&ifindex.0) {
                continue;
            }
            let Some(device) = self.reconciler.devices().get(ifindex) else { continue };
            self.attachments.insert(*ifindex, Attachment::Asked(side));
            wanted.push(Attach { ifindex: *ifindex, name: device.name.clone(), side });
        }
        wanted
    }

    /// Notes how an attachment went. Returns after how long to try again.
    pub fn attached(&mut self, request: &Attach, result: Result<(), String>) -> Option<Duration> {
        let Attach { ifindex, name, side } = request;
        // A device that is gone, or that is something else by now, needs no word.
        if self.attachments.get(ifindex) != Some(&Attachment::Asked(*side)) {
            return None;
        }
        match result {
            Ok(()) => {
                info!(device = name, %ifindex, ?side, "attached");
                self.attachments.insert(*ifindex, Attachment::Done(*side));
                None
            }
            Err(problem) => {
                warn!(device = name, %ifindex, problem, "cannot attach");
                self.attachments.insert(*ifindex, Attachment::Failed(*side, problem));
                Some(backoff(1))
            }
        }
    }

    fn log_placements(&self, before: &BTreeMap<IfIndex, Placement>) {
        for (ifindex, placement) in self.reconciler.placements() {
            let same = before.get(ifindex).is_some_and(|before| {
                before.role == placement.role && before.endpoint == placement.endpoint
            });
            if same {
                continue;
            }
            let device = self.reconciler.devices().get(ifindex).map_or("", |device| &device.name);
            let pod = self.pod_name(placement);
            info!(device, %ifindex, role = role_name(placement.role), pod, why = placement.why);
        }
    }

    fn log_refused_sources(&mut self) {
        let now = self.reconciler.refused_sources();
        for refused in now.difference(&self.refused_sources) {
            warn!("{refused}");
        }
        self.refused_sources = now;
    }

    fn pod_name(&self, placement: &Placement) -> Option<String> {
        let uid = placement.pod.as_ref()?;
        let bound = self.reconciler.bindings().iter().find(|(_, bound)| bound.pod.uid == *uid);
        bound.map(|(_, bound)| bound.pod.key.to_string())
    }

    pub fn index(&self) -> &Index {
        self.reconciler.index()
    }

    pub fn status(&self) -> Status {
        let devices: Vec<DeviceStatus> = self
            .reconciler
            .placements()
            .iter()
            .map(|(ifindex, placement)| DeviceStatus {
                ifindex: ifindex.0,
                name: self
                    .reconciler
                    .devices()
                    .get(ifindex)
                    .map_or_else(String::new, |d| d.name.clone()),
                role: role_name(placement.role).to_owned(),
                attached: matches!(self.attachments.get(ifindex), Some(Attachment::Done(_))),
                pod: self.pod_name(placement),
                why: placement.why.clone(),
            })
            .collect();
        let diagnostics = self.diagnostics();
        let counters = match self.maps.counters() {
            Ok(counters) => Counter::of(counters.iter()),
            Err(error) => {
                warn!(%error, "cannot read the counters");
                Vec::new()
            }
        };
        Status {
            node: Some(self.node.to_string()),
            agent: AgentState::Running,
            ready: self.ready(),
            generation: self.reconciler.actual().config.generation(),
            batches: self.batches,
            objects: Objects {
                pods: self.reconciler.index().pods().len(),
                namespaces: self.reconciler.index().namespaces().len(),
                policies: self.reconciler.index().policies().len(),
            },
            devices,
            endpoints: self.record.endpoints.clone(),
            counters,
            invalid: self.invalid.clone(),
            refused_sources: self.refused_sources.iter().map(ToString::to_string).collect(),
            diagnostics,
        }
    }

    /// The maps hold what the objects say, and every device has its programs.
    pub fn ready(&self) -> bool {
        self.diagnostics().is_empty()
    }

    /// What stands between the agent and readiness.
    fn diagnostics(&self) -> Vec<String> {
        let mut diagnostics: Vec<String> = self.failure.iter().cloned().collect();
        for (ifindex, placement) in self.reconciler.placements() {
            let Some(role) = placement.role else { continue };
            let name = self.reconciler.devices().get(ifindex).map_or("", |device| &device.name);
            match self.attachments.get(ifindex) {
                Some(Attachment::Done(done)) if *done == side(role) => {}
                Some(Attachment::Failed(_, problem)) => {
                    diagnostics.push(format!("{name}: cannot attach: {problem}"));
                }
                Some(Attachment::Asked(_) | Attachment::Done(_)) | None => {
                    diagnostics.push(format!("{name}: not attached yet"));
                }
            }
        }
        diagnostics
    }

    /// Objects of this node that a user would miss if they were not there.
    pub fn warn_of_missing(&self) {
        if self.reconciler.index().node(&self.node).is_none() {
            warn!(
                "no {} among the objects: veths into containers that are no pods stay pending, \
                 because the node's pod ranges are not known",
                ObjectKey::Node(self.node.clone())
            );
        }
    }
}

fn side(role: Role) -> Side {
    match role {
        Role::Pending | Role::Pod | Role::Foreign => Side::Pod,
        Role::Uplink | Role::Tunnel => Side::Uplink,
    }
}

pub fn role_name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Pending) => "pending",
        Some(Role::Pod) => "pod",
        Some(Role::Foreign) => "foreign",
        Some(Role::Uplink) => "uplink",
        Some(Role::Tunnel) => "tunnel",
        None => "none",
    }
}

/// 100 ms, doubling to 10 s.
fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.saturating_sub(1).min(7)).min(Duration::from_secs(10))
}
