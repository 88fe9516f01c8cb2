//! What a pod may send from in addition to its own addresses, because it forwards for others.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The annotation by which a pod names them. Anyone who may create a pod may write it, so it counts
/// only within what the node's operator grants.
pub const SOURCE_PREFIXES: &str = "np-agent.io/source-prefixes";

/// What the annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourcePrefixes {
    /// Ascending, without repetition.
    pub prefixes: Vec<IpNet>,
    /// Other entries, which count for nothing.
    pub refused: Vec<RefusedPrefix>,
}

/// An entry of the annotation that does not count, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RefusedPrefix {
    /// As written, shortened.
    pub value: String,
    pub problem: String,
    pub remedy: String,
}

impl fmt::Display for RefusedPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { value, problem, remedy } = self;
        write!(f, "{value:?}: {problem}; {remedy}")
    }
}
