//! The tag that a packet carries from the device it enters by to the device it leaves by.
//!
//! It lies in `skb->tc_index`: 16 bits that NAT, routing, bridging and tunnels keep and that
//! nothing else on a node writes, while `skb->mark` is written by many. It is not cleared at a
//! namespace border, so `from_*` always overwrites it. Layout: bits 0–11 who sent the packet,
//! bit 12 EGRESS_JUDGED, bit 13 FLOW_OK, bit 14 MAY_WRAP, bit 15 spare.

use crate::endpoint::EndpointId;

/// Who sent a packet and what has been decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u16);

const SENDER: u16 = 0x0fff;
const EGRESS_JUDGED: u16 = 0x1000;
const FLOW_OK: u16 = 0x2000;
const MAY_WRAP: u16 = 0x4000;

impl Tag {
    /// No `from_*` program has seen the packet: the node made it, or the tag was lost.
    pub const NONE: Tag = Tag(0);
    /// Entered by a device that is no pod's.
    pub const ENTERED: Tag = Tag(SENDER);

    #[inline(always)]
    pub const fn of(endpoint: EndpointId) -> Self {
        Self(endpoint.get() & SENDER)
    }

    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether the sender is known at all: a pod, or some device that is no pod's.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 & SENDER == 0
    }

    #[inline(always)]
    pub const fn entered(self) -> bool {
        self.0 & SENDER == SENDER
    }

    /// The pod that sent the packet; [`EndpointId::NONE`] when no pod is known to have.
    #[inline(always)]
    pub const fn endpoint(self) -> EndpointId {
        let sender = self.0 & SENDER;
        if sender == SENDER { EndpointId::NONE } else { EndpointId::new(sender) }
    }

    /// The sender's egress has been judged on the way out: an outer or stacked device need not.
    #[inline(always)]
    pub const fn egress_judged(self) -> bool {
        self.0 & EGRESS_JUDGED != 0
    }

    #[inline(always)]
    pub const fn with_egress_judged(self) -> Self {
        Self(self.0 | EGRESS_JUDGED)
    }

    /// An accepted reply: nothing more is to be judged.
    #[inline(always)]
    pub const fn flow_ok(self) -> bool {
        self.0 & FLOW_OK != 0
    }

    #[inline(always)]
    pub const fn with_flow_ok(self) -> Self {
        Self(self.0 | FLOW_OK)
    }

    /// An accepted reply of a pod in a protocol that tunnels use: whether it goes to a tunnel is to
    /// be seen where it leaves the node, after NAT.
    #[inline(always)]
    pub const fn may_wrap(self) -> bool {
        self.0 & MAY_WRAP != 0
    }

    #[inline(always)]
    pub const fn with_may_wrap(self) -> Self {
        Self(self.0 | MAY_WRAP)
    }
}
