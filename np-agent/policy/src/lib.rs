//! What policies mean for the kernel maps of one node. Values in, values out: nothing here does I/O or
//! knows the time.
//!
//! ```text
//!  objects ─▶ index ─▶ compile ─┐
//!  devices ─────────▶ bind ─────┴▶ plan ─▶ writes
//! ```
//!
//! [`reconcile`] joins them. The modules stand in the order of the layers: each may use those above it.

pub mod model;

pub mod index;

pub mod compile;

pub mod plan;

pub mod bind;

pub mod explain;

pub mod reconcile;

pub mod lint;
