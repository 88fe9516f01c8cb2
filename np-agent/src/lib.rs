//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.

pub mod model;
pub mod source;
