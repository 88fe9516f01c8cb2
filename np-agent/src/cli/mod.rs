//! The subcommands, one file each.

pub mod check;
pub mod cleanup;
pub mod endpoints;
pub mod explain;
pub mod lint;
pub mod monitor;
pub mod mount;
mod out;
pub mod status;
mod table;
