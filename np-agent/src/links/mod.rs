//! The node's devices as the kernel tells them over rtnetlink; clsact alone speaks netlink elsewhere.
//! It delivers `model::DeviceChange`s and draws no conclusion from them; which device is whose is
//! decided in the pure layers.
//!
//! ```text
//! own namespace ── events ─┐                       ┌─ link, addresses, routes ── facts ─┐
//!                          ├─> monitor: dirty set ─┤                                    ├─> DeviceChange
//! peer namespaces ─ events ┘                       └─ link, addresses inside, link ─────┘
//! ```
//!
//! An event is only a hint that a device changed; the facts are always read from the kernel again.
//! So a lost, coalesced or half understood event cannot leave a wrong fact, only a late one.
//!
//! All of it runs in the network namespace of the thread that calls [`Monitor::open`].

mod event;
mod facts;
mod ipsec;
mod monitor;
mod request;
mod routes;
mod socket;
mod tunnel;

use std::{io, time::Duration};

pub use ipsec::wrapping_policies;
pub use monitor::Monitor;

/// What can go wrong between the agent and the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    #[error("netlink socket: {action} failed: {source}")]
    Socket { action: &'static str, source: io::Error },

    #[error(
        "netlink socket: {option} was refused: the agent lacks {capability}; add it to the \
         container's securityContext.capabilities, or run the agent as root"
    )]
    Capability { option: &'static str, capability: &'static str },

    /// Without strict checking the kernel ignores the target namespace of a request and answers
    /// with the node's own addresses.
    #[error(
        "netlink socket: NETLINK_GET_STRICT_CHK was refused: {source}; \
         addresses inside pods cannot be read safely, use Linux 4.20 or newer"
    )]
    StrictCheck { source: io::Error },

    #[error("netlink request {request}: the kernel answered: {source}")]
    Refused { request: &'static str, source: io::Error },

    #[error("netlink request {request}: no answer within {} s", .after.as_secs())]
    Timeout { request: &'static str, after: Duration },

    #[error("netlink request {request}: a reply is larger than {size} bytes")]
    Truncated { request: &'static str, size: usize },

    #[error("netlink request {request}: the answer was interrupted by changes {tries} times")]
    Unstable { request: &'static str, tries: u32 },

    #[error(
        "netlink request {request}: asked for namespace id {asked}, a reply is for {answered:?}; \
         this kernel cannot read addresses inside pods, use Linux 4.20 or newer"
    )]
    WrongNamespace { request: &'static str, asked: i32, answered: Option<i32> },
}
