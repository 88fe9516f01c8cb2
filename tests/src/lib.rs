//! Topology harness, oracle, and what else the tests of the workspace share.

pub mod generate;
pub mod oracle;
pub mod simulation;
