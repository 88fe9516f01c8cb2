//! What the agent says of itself: its status, what keeps it from being ready, and its log.

use std::collections::BTreeMap;

use np_common::endpoint::Role;
use tracing::{error, info, warn};

use super::Agent;
use super::attachments::{Attachment, side};
use crate::status::{AgentState, Counter, DeviceStatus, Objects, Status};
use np_policy::bind::Placement;
use np_policy::model::IfIndex;
use np_policy::reconcile::Held;

impl Agent {
    pub fn status(&self) -> Status {
        let devices: Vec<DeviceStatus> = self
            .reconciler
            .placements()
            .iter()
            .map(|(ifindex, placement)| DeviceStatus {
                ifindex: ifindex.0,
                name: self.device_name(*ifindex).to_owned(),
                role: role_name(placement.role).to_owned(),
                attached: matches!(self.attachments.get(ifindex), Some(Attachment::Done(..))),
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
            ready: diagnostics.is_empty(),
            started: self.started,
            generation: self.reconciler.actual().config.generation(),
            batches: self.batches,
            objects: Objects {
                pods: self.reconciler.index().pods().len(),
                namespaces: self.reconciler.index().namespaces().len(),
                policies: self.reconciler.index().policies().len(),
            },
            devices,
            endpoints: if self.earlier.is_empty() { &self.record.endpoints } else { &self.earlier }
                .clone(),
            counters,
            invalid: self.invalid.clone(),
            narrowed: self.narrowed.clone(),
            api: Vec::new(),
            refused_sources: self.refused_sources.iter().map(ToString::to_string).collect(),
            held: self.reconciler.held().map(ToString::to_string).collect(),
            not_recorded: self.left_out.iter().map(ToString::to_string).collect(),
            diagnostics,
            warnings: self.warnings(),
            repairs: self.repairs,
        }
    }

    /// The maps hold what the objects say, and every device has its programs.
    pub fn ready(&self) -> bool {
        self.diagnostics().is_empty()
    }

    /// What stands between the agent and readiness.
    fn diagnostics(&self) -> Vec<String> {
        let mut diagnostics: Vec<String> =
            self.failure.iter().chain(&self.remembered).cloned().collect();
        if !self.missing.is_empty() {
            let missing = self.missing.join(", ");
            diagnostics.push(format!("not listed yet, and nothing changes until then: {missing}"));
        }
        diagnostics.extend(self.reconciler.missing().iter().map(ToString::to_string));
        diagnostics.extend(self.reconciler.held().map(ToString::to_string));
        diagnostics
            .extend(self.blind.iter().map(|why| format!("cannot follow the devices: {why}")));
        diagnostics.extend(
            self.inspection.problem.iter().map(|why| format!("cannot compare the maps: {why}")),
        );
        for (ifindex, placement) in self.reconciler.placements() {
            let Some(role) = placement.role else { continue };
            let name = self.device_name(*ifindex);
            match self.attachments.get(ifindex) {
                Some(Attachment::Done(done, findings)) if *done == side(role) => {
                    let blocking = findings.iter().filter(|finding| finding.blocking);
                    diagnostics.extend(blocking.map(|finding| format!("{name} {}", finding.text)));
                }
                Some(Attachment::Failed(failure) | Attachment::Asked(_, Some(failure))) => {
                    diagnostics.push(format!("{name}: cannot attach: {}", failure.problem));
                }
                Some(Attachment::Asked(_, None) | Attachment::Done(..) | Attachment::Adopted)
                | None => {
                    diagnostics.push(format!("{name}: not attached yet"));
                }
            }
        }
        diagnostics
    }

    /// Neighbours that are worth a look, and keep the agent from nothing.
    fn warnings(&self) -> Vec<String> {
        let findings =
            self.attachments.iter().filter_map(|(ifindex, attachment)| match attachment {
                Attachment::Done(_, findings) => Some((self.device_name(*ifindex), findings)),
                Attachment::Asked(..) | Attachment::Failed(_) | Attachment::Adopted => None,
            });
        let harmless = findings.flat_map(|(name, findings)| {
            let findings = findings.iter().filter(|finding| !finding.blocking);
            findings.map(move |finding| format!("{name} {}", finding.text))
        });
        harmless.collect()
    }

    fn device_name(&self, ifindex: IfIndex) -> &str {
        self.reconciler.devices().get(&ifindex).map_or("", |device| &device.name)
    }

    pub(super) fn log_placements(&self, before: &BTreeMap<IfIndex, Placement>) {
        for (ifindex, placement) in self.reconciler.placements() {
            let same = before.get(ifindex).is_some_and(|before| {
                before.role == placement.role && before.endpoint == placement.endpoint
            });
            if same {
                continue;
            }
            let device = self.device_name(*ifindex);
            let pod = self.pod_name(placement);
            let (role, why) = (role_name(placement.role), &placement.why);
            if placement.doubtful {
                warn!(device, %ifindex, role, why, "this device needs a look");
            } else {
                info!(device, %ifindex, role, pod, why);
            }
        }
    }

    pub(super) fn log_refused_sources(&mut self) {
        let now = self.reconciler.refused_sources();
        for refused in now.difference(&self.refused_sources) {
            warn!("{refused}");
        }
        self.refused_sources = now;
    }

    /// Says it once for each policy, and again when something else is in its place.
    pub(super) fn log_held(&mut self) {
        let now: BTreeMap<String, &Held> =
            self.reconciler.held().map(|held| (held.what_counts(), held)).collect();
        for (_, held) in now.iter().filter(|(what, _)| !self.held.contains(*what)) {
            error!("{held}");
        }
        self.held = now.into_keys().collect();
    }

    fn pod_name(&self, placement: &Placement) -> Option<String> {
        let uid = placement.pod.as_ref()?;
        let bound = self.reconciler.bindings().iter().find(|(_, bound)| bound.pod.uid == *uid);
        bound.map(|(_, bound)| bound.pod.key.to_string())
    }
}

pub fn role_name(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Pending) => "pending",
        Some(Role::Pod) => "pod",
        Some(Role::Foreign) => "foreign",
        Some(Role::Uplink) => "uplink",
        Some(Role::Tunnel) => "tunnel",
        Some(Role::Stacked) => "stacked",
        None => "none",
    }
}
