//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.

pub mod bind;
pub mod compile;
pub mod dataplane;
pub mod index;
pub mod model;
pub mod plan;
