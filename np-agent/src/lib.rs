//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.

pub mod dataplane;
pub mod model;
pub mod plan;
