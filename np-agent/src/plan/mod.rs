//! From what should be in the kernel to the writes that get it there without a gap.
//!
//! [`Tables`] is the content of the policy maps as ordered values. `lower` makes the desired
//! tables of a compiled policy, `diff` the operations that turn the actual tables into them, and
//! `simulate` lets `np_common::decide` run on tables without a kernel.

pub mod record;
mod tables;

pub use record::Record;
pub use tables::{Op, PortPrefix, RulePrefix, Tables};
