//! np-agent: NetworkPolicy for the pods of one node, judged after service DNAT.
//!
//! ```text
//!  source ─ objects ─┐                                   pure, one direction:
//!  links ── devices ─┴▶ agent ─▶ reconcile (index, bind, compile, plan) ─▶ writes ─▶ dataplane
//! ```
//!
//! The modules stand in the order of the layers: each may use those above it.

pub mod model;

pub mod index;

pub mod compile;

pub mod plan;

pub mod bind;

pub mod explain;

pub mod reconcile;

pub mod lint;

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
pub mod inspector;
pub mod message;
pub mod origin;
pub mod telemetry;
