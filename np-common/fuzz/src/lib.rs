//! What must hold of np-common for any input: the targets in `fuzz_targets/` only call this.

mod carried;
pub mod decide;
mod frame;
mod history;
mod link;
pub mod parse;
pub mod scenario;
mod world;
