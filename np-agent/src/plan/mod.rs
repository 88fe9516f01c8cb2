//! From what should be in the kernel to the writes that get it there without a gap.
//!
//! [`Tables`] is the content of the policy maps as ordered values. `lower` makes the desired
//! tables of a compiled policy, `diff` the operations that turn the actual tables into them, and
//! `simulate` lets `np_common::decide` run on tables without a kernel.

mod diff;
mod lower;
mod ports;
pub mod record;
pub mod simulate;
mod tables;

pub use diff::diff;
pub use lower::lower;
pub use record::Record;
pub use tables::{Op, PortPrefix, RulePrefix, Tables};
