//! The lines that a client gets, one JSON object each. docs/MONITOR.md documents them.
//!
//! Fields may be added within a version; a field that changes its meaning or goes is a new version.

use serde::{Deserialize, Serialize};

/// The version of the lines.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    pub version: u32,
    #[serde(flatten)]
    pub content: Content,
}

impl Line {
    pub fn new(content: Content) -> Self {
        Self { version: VERSION, content }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Content {
    Event(Box<EventLine>),
    Suppressed(Suppressed),
    /// This client has not read fast enough.
    Lost {
        /// Lines of any client's choice.
        lines: u64,
    },
    /// The client's question cannot be answered.
    Error {
        error: String,
    },
}

/// What happened to a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventLine {
    /// RFC 3339, UTC, with microseconds.
    pub time: String,
    pub node: String,
    /// "denied" or "allowed".
    pub verdict: String,
    pub reason: String,
    pub hook: String,
    /// The side that denies, seen from its pod: "egress" or "ingress".
    pub direction: Option<String>,
    pub ifindex: u32,
    pub device: Option<String>,
    pub generation: u32,
    /// A name, or a number for those without one; none where the packet is not IP or cannot be read.
    pub protocol: Option<String>,
    pub ethertype: String,
    pub src: EndLine,
    pub dst: EndLine,
    /// The packet is one of the side that answers; `src` is the side that opened the connection.
    pub reply: bool,
    /// The policies that the verdict rests on.
    pub policies: Vec<String>,
    pub isolated_by: Vec<String>,
    pub allowed_by: Vec<RuleLine>,
    /// The rules that nearly match, the nearest first.
    pub near: Vec<MissLine>,
    /// Objects have changed since, and no longer give a reason for the verdict.
    pub changed: bool,
}

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLine {
    /// "pod", "node", "outside", or "unknown" where the packet does not say.
    pub kind: String,
    pub ip: Option<String>,
    pub port: Option<u16>,
    pub namespace: Option<String>,
    pub pod: Option<String>,
    pub node: Option<String>,
}

impl EndLine {
    /// "namespace/name"
    pub fn pod_key(&self) -> Option<String> {
        Some(format!("{}/{}", self.namespace.as_ref()?, self.pod.as_ref()?))
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLine {
    pub policy: String,
    pub rule: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissLine {
    pub policy: String,
    pub rule: String,
    /// "port" or "peer".
    pub wrong: String,
    /// What the rule asks for instead.
    pub wants: String,
}

/// Events that the programs did not make, because an endpoint had more than its share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    pub time: String,
    pub node: String,
    /// None for what concerns no pod of this node.
    pub pod: Option<String>,
    /// Whether the pod sent the packets, or received them from outside the node.
    pub sends: bool,
    pub events: u64,
}
