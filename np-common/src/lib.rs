//! What the kernel programs and the agent share: the map types, the packet parser and the verdict.
//!
//! Everything here is pure and `no_std`: the same [`decide`] runs inside the kernel (over BPF
//! maps and an skb), in tests and in `np-agent` (over ordered maps and byte slices).
//!
//! # ABI
//!
//! Maps outlive the agent: they stay pinned while it is down or being replaced. Every type that
//! is in a map is `repr(C)`, has no padding, no `bool`, no `Option` and no Rust enum, and its
//! size is asserted at compile time. Changing one of them, or the meaning of a bit in it, or the
//! way ids are made of content, is a new [`ABI_VERSION`]; pins live in a directory named by it.
#![cfg_attr(not(test), no_std)]
#![deny(clippy::indexing_slicing, clippy::wildcard_enum_match_arm)]
#![warn(missing_docs)]

mod abi;
pub mod addr;
pub mod config;
pub mod decide;
pub mod direction;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod maps;
pub mod packet;
pub mod rules;
pub mod source;
pub mod tag;
pub mod tunnel;
pub mod verdict;

/// The version of everything pinned.
pub const ABI_VERSION: u32 = 2;
