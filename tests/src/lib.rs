//! Everything a test of np-agent needs that np-agent itself must not contain.

pub mod bpf;
pub mod generate;
pub mod oracle;
pub mod sandbox;
pub mod simulation;
pub mod wire;
