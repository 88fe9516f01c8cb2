//! What is found out about one packet, step by step.
//!
//! In the kernel it has a place in a map: a program's stack is 512 bytes, and of what is read back from a
//! map the verifier knows nothing, so that ways which led to different values are one from there on.

use super::{Context, began};
use crate::endpoint::EndpointId;
use crate::flow::{Flow, FlowKey, Time};
use crate::packet::Packet;
use crate::tag::Began;

/// A connection that was judged: T and its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// T, as its first packet had it.
    pub tuple: FlowKey,
    /// The pod of this node that opened it.
    pub source: EndpointId,
    /// The pod of this node that answers.
    pub destination: EndpointId,
    /// The packet is one of the side that answers.
    pub reply: bool,
}

/// A packet, its ends and what the flow table says of it. All zeros is a value of it.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub(super) packet: Packet,
    /// T, with its own ends.
    pub(super) key: FlowKey,
    pub(super) source: EndpointId,
    pub(super) destination: EndpointId,
    /// Whose egress is to be asked; none where it has been.
    pub(super) subject: EndpointId,
    /// Which way of T the packet goes.
    pub(super) way: Way,
    pub(super) found: Found,
    pub(super) ends: Ends,
    pub(super) egress_judged: bool,
    pub(super) time: Time,
    pub(super) generation: u32,
}

/// The two ends of a packet that leaves, as the node knows them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// The pod of this node that sent it.
    pub source: EndpointId,
    /// The pod of this node that is about to get it.
    pub destination: EndpointId,
    /// No pod of this node is known to have sent it: its source address proves nothing.
    pub outside: bool,
    /// Nothing remains of what `from_*` found out.
    pub lost: bool,
    /// The device is on top of others, which judge the packet again.
    pub stacked: bool,
    /// Which side of its connection sent it.
    pub began: Began,
}

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Reply,
}

/// What the flow table says of a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    No,
    /// Judged under the current generation.
    Current,
    /// Judged under an older one.
    Outdated,
    /// Opened by a pod of this node to somebody that was thought to be elsewhere.
    Returned,
}

/// A flow that was looked for. Every field has a value whatever was found: the verifier refuses to copy
/// what nobody has written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub known: Known,
    pub source: EndpointId,
    pub generation: u32,
    pub in_doubt: bool,
}

impl Found {
    pub const NOTHING: Found =
        Found { known: Known::No, source: EndpointId::NONE, generation: 0, in_doubt: false };

    #[inline(always)]
    pub const fn of(flow: &Flow, known: Known) -> Self {
        let (generation, in_doubt) = (flow.generation, flow.in_doubt());
        Self { known, source: flow.source(), generation, in_doubt }
    }
}

impl Ends {
    #[inline(always)]
    pub fn of(
        context: &Context,
        packet: &Packet,
        source: EndpointId,
        destination: EndpointId,
    ) -> Self {
        Self {
            source,
            destination,
            outside: source.is_none(),
            lost: context.tag.is_lost(),
            stacked: false,
            began: match context.tag.began() {
                Some(began) if !packet.has_syn() => began,
                _ => began::began(packet),
            },
        }
    }
}

impl Case {
    /// A case of which nothing is known.
    pub const EMPTY: Case = Case {
        packet: Packet::EMPTY,
        key: FlowKey::NONE,
        source: EndpointId::NONE,
        destination: EndpointId::NONE,
        subject: EndpointId::NONE,
        way: Way::Forward,
        found: Found::NOTHING,
        ends: Ends {
            source: EndpointId::NONE,
            destination: EndpointId::NONE,
            outside: false,
            lost: false,
            stacked: false,
            began: Began::Sender,
        },
        egress_judged: false,
        time: Time { now: 0, hz: 0 },
        generation: 0,
    };

    /// The tuple of the packet itself. Of meaning where its headers could be read.
    #[inline(always)]
    pub const fn tuple(&self) -> FlowKey {
        self.packet.flow_key()
    }

    /// The connection that was judged. Of meaning where the verdict was reached by asking policy.
    #[inline(always)]
    pub fn connection(&self) -> Connection {
        let Self { key, source, destination, way, .. } = *self;
        Connection { tuple: key, source, destination, reply: matches!(way, Way::Reply) }
    }

    /// Takes the packet for one of the reversed tuple, going the other way.
    #[inline(always)]
    pub(super) fn turn(&mut self, way: Way) {
        (self.source, self.destination) = (self.destination, self.source);
        (self.key, self.way) = (self.key.reversed(), way);
    }
}
