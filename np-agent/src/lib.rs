//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.
//!
//! ```text
//!  source ─ objects ─┐
//!  links ── devices ─┴▶ agent ─▶ np_policy (index, bind, compile, plan) ─▶ writes ─▶ dataplane
//! ```
//!
//! What policies mean is in the crate [`np_policy`], which does no I/O. Here are the edges, each with I/O
//! of one sort and none that knows another, and below them what joins the two.

pub mod dataplane;
pub mod links;
pub mod source;

pub mod status;

pub mod admin;
pub mod advice;
pub mod agent;
pub mod app;
pub mod args;
pub mod attaching;
pub mod cli;
pub mod doorkeeper;
pub mod events;
pub mod inspector;
pub mod message;
pub mod origin;
pub mod telemetry;
