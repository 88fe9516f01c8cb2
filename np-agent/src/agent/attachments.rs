//! Which devices are to have which programs, and how far they have got with them.

use std::time::Duration;

use np_common::endpoint::Role;
use tracing::{info, warn};

use super::Agent;
use crate::attaching::{Attach, Report, Request};
use crate::dataplane::{Checked, Finding, Side};
use crate::doorkeeper::backoff;

/// How far a device has got with its programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// It has programs of an earlier agent.
    Adopted,
    Asked(Side, Option<Failure>),
    Done(Side, Vec<Finding>),
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub problem: String,
    times: u32,
}

impl Agent {
    /// Programs for devices that lack those of their role and that the maps know, and the end of
    /// those at devices that are to have none.
    pub(super) fn attachments_wanted(&mut self) -> Vec<Request> {
        let (mut attach, mut requests) = (Vec::new(), Vec::new());
        let unheard = self.unheard.clone();
        let unheard = unheard.lock();
        for (ifindex, placement) in self.reconciler.placements() {
            let Some(device) = self.reconciler.devices().get(ifindex) else { continue };
            // Placed before the device went: its programs are another device's to have.
            if unheard.contains_key(ifindex) {
                continue;
            }
            let Some(side) = placement.role.map(side) else {
                if self.attachments.remove(ifindex).is_some() {
                    info!(device = device.name, %ifindex, "is to have no programs any more");
                    requests.push(Request::Detach(*ifindex));
                }
                continue;
            };
            let failure = match self.attachments.get(ifindex) {
                Some(Attachment::Asked(asked, _) | Attachment::Done(asked, _))
                    if *asked == side =>
                {
                    continue;
                }
                Some(Attachment::Failed(failure)) => Some(failure.clone()),
                Some(_) | None => None,
            };
            if !self.reconciler.actual().ifaces.contains_key(&ifindex.0) {
                continue;
            }
            self.attachments.insert(*ifindex, Attachment::Asked(side, failure));
            attach.push(Attach { ifindex: *ifindex, name: device.name.clone(), side });
        }
        if !attach.is_empty() {
            requests.push(Request::Attach(attach));
        }
        requests
    }

    /// Notes how an attachment went, or what a look at it showed. Returns after how long to try
    /// again.
    pub fn attachment(&mut self, Report { attach, result }: Report) -> Option<Duration> {
        let Attach { ifindex, name, side } = &attach;
        let (asked, before, failure) = match self.attachments.get(ifindex) {
            Some(Attachment::Asked(side, failure)) => (*side, None, failure.as_ref()),
            Some(Attachment::Done(side, findings)) => (*side, Some(findings), None),
            // A device that is gone needs no word.
            Some(Attachment::Failed(_) | Attachment::Adopted) | None => return None,
        };
        // One that is something else by now neither.
        if asked != *side {
            return None;
        }
        match result {
            Ok(Checked { repaired, findings }) => {
                if before.is_none() {
                    info!(device = name, %ifindex, ?side, "attached");
                }
                for repaired in &repaired {
                    warn!(device = name, %ifindex, repaired, "put right");
                }
                for finding in &findings {
                    if before.is_none_or(|before| !before.contains(finding)) {
                        warn!(device = name, %ifindex, "{}", finding.text);
                    }
                }
                self.repairs += repaired.len() as u64;
                self.attachments.insert(*ifindex, Attachment::Done(*side, findings));
                None
            }
            Err(problem) => {
                // Again and again the same needs no more words.
                if failure.is_none_or(|failure| failure.problem != problem) {
                    warn!(device = name, %ifindex, problem, "cannot attach");
                }
                let times = failure.map_or(0, |failure| failure.times) + 1;
                self.attachments.insert(*ifindex, Attachment::Failed(Failure { problem, times }));
                Some(backoff(times))
            }
        }
    }

    /// True once: when the maps hold the plan and every device has its programs for the first time.
    pub fn has_just_started(&mut self) -> bool {
        let just = !self.started && self.all_attached();
        self.started |= just;
        just
    }

    /// Every device that is to have programs has ours.
    fn all_attached(&self) -> bool {
        self.failure.is_none()
            && self.reconciler.placements().iter().all(|(ifindex, placement)| {
                placement.role.map(side).is_none_or(|wanted| {
                    matches!(self.attachments.get(ifindex), Some(Attachment::Done(side, _)) if *side == wanted)
                })
            })
    }
}

pub fn side(role: Role) -> Side {
    match role {
        Role::Pending | Role::Pod | Role::Foreign => Side::Pod,
        Role::Uplink | Role::Tunnel | Role::Stacked => Side::Uplink,
    }
}
