//! The status document: what a running agent reports, and what can be read of it from pinned maps.

use np_common::direction::Hook;
use np_common::verdict::{Action, Reason, posture};
use serde::{Deserialize, Serialize};

use crate::source::api::FeedStatus;
use crate::source::{Invalid, Narrowed};
use np_policy::plan::record::EndpointRecord;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// None when no agent ever left a record.
    pub node: Option<String>,
    pub agent: AgentState,
    /// The maps hold what the objects say, and every device has its programs.
    pub ready: bool,
    /// Since the agent's start they have done so at least once: what a roll-out waits for.
    #[serde(default)]
    pub started: bool,
    pub generation: u32,
    /// Change batches applied or refused since the agent started.
    pub batches: u64,
    pub objects: Objects,
    pub devices: Vec<DeviceStatus>,
    pub endpoints: Vec<EndpointRecord>,
    pub counters: Vec<Counter>,
    /// Manifests that were refused, as they stand now.
    pub invalid: Vec<Invalid>,
    /// What is not understood of the API server's objects, as they stand now.
    #[serde(default)]
    pub narrowed: Vec<Narrowed>,
    /// How far the agent is with what it asks of the API server; empty where it reads manifests.
    #[serde(default)]
    pub api: Vec<FeedStatus>,
    /// Entries of pods' annotations that do not count.
    #[serde(default)]
    pub refused_sources: Vec<String>,
    /// Policies that the maps have no room for, and what counts in their place.
    #[serde(default)]
    pub held: Vec<String>,
    /// What of pods is too large for the record of bindings.
    #[serde(default)]
    pub not_recorded: Vec<String>,
    /// What keeps the agent from being ready.
    pub diagnostics: Vec<String>,
    /// Programs of others that are worth a look.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What was found otherwise than it should be at devices and in maps, and put right.
    #[serde(default)]
    pub repairs: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentState {
    Running,
    /// Enforcement continues by the pinned programs and maps.
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
