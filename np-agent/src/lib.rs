//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.

pub mod links;
pub mod model;
