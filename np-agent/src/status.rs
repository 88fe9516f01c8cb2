//! The status document: what a running agent tells, and what can be told of it from pinned maps.

use np_common::direction::Hook;
use np_common::verdict::{Action, Reason, posture};
use serde::{Deserialize, Serialize};

use crate::plan::record::EndpointRecord;
use crate::source::Invalid;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// None when no agent ever left a record.
    pub node: Option<String>,
    pub agent: AgentState,
    /// The maps hold what the objects say, and every device has its programs.
    pub ready: bool,
    pub generation: u32,
    /// Change batches applied or refused since the agent started.
    pub batches: u64,
    pub objects: Objects,
    pub devices: Vec<DeviceStatus>,
    pub endpoints: Vec<EndpointRecord>,
    pub counters: Vec<Counter>,
    /// Manifests that were refused, as they stand now.
    pub invalid: Vec<Invalid>,
    /// Entries of pods' annotations that do not count.
    #[serde(default)]
    pub refused_sources: Vec<String>,
    /// What keeps the agent from being ready.
    pub diagnostics: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    Running,
    /// Enforcement goes on by the pinned programs and maps.
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    pub pods: usize,
    pub namespaces: usize,
    pub policies: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub ifindex: u32,
    pub name: String,
    pub role: String,
    pub attached: bool,
    pub pod: Option<String>,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub hook: String,
    pub reason: String,
    pub action: String,
    pub packets: u64,
}

impl Counter {
    /// The Reasons that were met, in the order given.
    pub fn of(packets: impl Iterator<Item = (Hook, Reason, u64)>) -> Vec<Self> {
        packets
            .filter(|(_, _, packets)| *packets > 0)
            .map(|(hook, reason, packets)| Self {
                hook: hook.name().to_owned(),
                reason: reason.name().to_owned(),
                action: match posture(reason) {
                    Action::Pass => "pass".to_owned(),
                    Action::Drop => "drop".to_owned(),
                },
                packets,
            })
            .collect()
    }
}
