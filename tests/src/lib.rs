//! Everything a test of np-agent needs that np-agent itself must not contain.

pub mod bpf;
pub mod sandbox;
pub mod wire;
