//! What a packet carries, read by hand: the table in np-common's `tag`, without its code.

use np_common::endpoint::EndpointId;
use np_common::tag::{Began, Tag};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Whatever somebody else wrote there.
    Lost,
    Sent {
        /// None of this node's pods where there is none.
        sender: EndpointId,
        began: Began,
        judged: bool,
    },
    Reply {
        receiver: EndpointId,
        from_pod: bool,
    },
}

impl Carried {
    pub fn of(tag: Tag) -> Self {
        let bits = tag.bits();
        let id = match bits & 0xfff {
            0 => return Carried::Lost,
            0xfff => EndpointId::NONE,
            id => EndpointId::new(id),
        };
        let sent = |began, judged| Carried::Sent { sender: id, began, judged };
        match bits >> 12 {
            8 => sent(Began::Unknown, false),
            9 => sent(Began::Unknown, true),
            10 => Carried::Reply { receiver: id, from_pod: false },
            11 => Carried::Reply { receiver: id, from_pod: true },
            12 => sent(Began::Sender, false),
            13 => sent(Began::Receiver, false),
            _ => Carried::Lost,
        }
    }

    pub fn is_lost(self) -> bool {
        self == Carried::Lost
    }

    pub fn is_judged(self) -> bool {
        matches!(self, Carried::Sent { judged: true, .. })
    }

    /// Who is to receive a reply; none for what is not one.
    pub fn receiver(self) -> Option<EndpointId> {
        match self {
            Carried::Reply { receiver, .. } => Some(receiver),
            Carried::Lost | Carried::Sent { .. } => None,
        }
    }

    /// Whether a pod of this node sent it for certain.
    pub fn is_from_pod(self) -> bool {
        match self {
            Carried::Lost => false,
            Carried::Sent { sender, .. } => !sender.is_none(),
            Carried::Reply { from_pod, .. } => from_pod,
        }
    }

    /// Whether it came in from outside, and is not an accepted reply.
    pub fn entered(self) -> bool {
        matches!(self, Carried::Sent { sender, .. } if sender.is_none())
    }
}
