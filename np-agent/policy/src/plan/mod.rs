//! From what should be in the kernel to the writes that get it there without a gap.
//!
//! [`Tables`] is the content of the policy maps as ordered values. [`Lowered`] keeps the desired
//! tables of a compiled policy, `diff` finds the operations that turn the actual tables into them,
//! and `simulate` lets `np_common::decide` run on tables without a kernel.

mod demand;
mod diff;
mod lookup;
mod lower;
mod peers;
mod ports;
pub mod record;
mod room;
mod scope;
mod shed;
pub mod simulate;
mod stages;
mod tables;

pub use demand::{Demand, growth};
pub use diff::diff;
pub use lower::Lowered;
pub use peers::Peers;
pub use record::Record;
pub use room::{Limits, NoRoom, room};
pub use scope::Scope;
pub use shed::{Shed, Turn, has_room, shed};
pub use stages::within;
pub use tables::{Op, PortPrefix, RulePrefix, Tables};

#[cfg(test)]
mod tests;
