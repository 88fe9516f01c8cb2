//! What must hold of np-common for any input: the targets in `fuzz_targets/` only call this.

pub mod decide;
mod frame;
pub mod parse;
pub mod scenario;
mod world;
