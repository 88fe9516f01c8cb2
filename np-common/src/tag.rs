//! The tag that a packet carries from the device it enters by to the device it leaves by.
//!
//! It is kept in `skb->tc_index`: 16 bits that NAT, routing, bridging and tunnels leave alone, while
//! `skb->mark` is written by many. It is not cleared at a namespace border, so `from_*` always
//! overwrites it.
//!
//! The kernel writes `tc_index` too: after a TC filter that answers OK or RECLASSIFY it holds the
//! minor number of the filter's class, after a TCX program that answers PASS what that program left
//! in `tc_classid` (`tc_run` and `tcx_run`, net/core/dev.c). So a tag has a form that zero, 0xffff and
//! small numbers do not have, and anything else is *lost*: it names nobody and grants nothing.
//!
//! ```text
//!  bits 12–15  8 sent · 12 sent by the side that began · 13 sent by the side that answers
//!              9 sent, and its egress judged
//!              10 an accepted reply from outside · 11 an accepted reply from a pod
//!              anything else: lost
//!  bits  0–11  sent: who sent the packet; reply: who is to receive it; 0xfff where that is no pod;
//!              0: lost
//! ```

use crate::endpoint::EndpointId;

/// Who sent a packet, or who is to receive it, and what has been decided about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u16);

/// Which side of a connection a packet is from, by its flags and ports as they were before NAT, which
/// may give a client any port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Began {
    /// Its sender began the connection.
    Sender,
    /// Its sender answers.
    Receiver,
    /// Nothing shows it.
    Unknown,
}

const STATE: u16 = 0xf000;
const SENT: u16 = 0x8000;
const JUDGED: u16 = 0x9000;
const REPLY: u16 = 0xa000;
const POD_REPLY: u16 = 0xb000;
const SENT_FIRST: u16 = 0xc000;
const SENT_ANSWER: u16 = 0xd000;
const ID: u16 = 0x0fff;
/// Stands for "no pod of this node".
const NO_POD: u16 = ID;

impl Tag {
    /// What a packet has that no `from_*` program has seen.
    pub const LOST: Tag = Tag(0);
    /// Entered by a device that no pod is behind.
    pub const ENTERED: Tag = Tag(SENT | NO_POD);

    /// Sent by this pod, or by none of this node.
    #[inline(always)]
    pub const fn of(sender: EndpointId) -> Self {
        Self(SENT | id_bits(sender))
    }

    /// The same sender, on this side of its connection.
    #[inline(always)]
    pub const fn with_began(self, began: Began) -> Self {
        let state = match began {
            Began::Sender => SENT_FIRST,
            Began::Receiver => SENT_ANSWER,
            Began::Unknown => SENT,
        };
        Self(state | self.0 & ID)
    }

    /// An accepted reply, to be received by this pod, or by none of this node.
    #[inline(always)]
    pub const fn reply(receiver: EndpointId, replier: EndpointId) -> Self {
        let state = if replier.is_none() { REPLY } else { POD_REPLY };
        Self(state | id_bits(receiver))
    }

    /// Reads what a packet carries, whatever that is.
    #[inline(always)]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The tag as a packet carries it.
    #[inline(always)]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Whether this is none of our tags: no program has seen the packet, or something has written
    /// over the tag since.
    #[inline(always)]
    pub const fn is_lost(self) -> bool {
        self.0 < SENT || self.0 > SENT_ANSWER | ID || self.0 & ID == 0
    }

    /// Whether the packet entered by a device that no pod is behind, and is not an accepted reply.
    #[inline(always)]
    pub const fn entered(self) -> bool {
        !self.is_lost() && !self.is_reply() && self.0 & ID == NO_POD
    }

    /// The pod that sent the packet; [`EndpointId::NONE`] where the tag does not name one.
    #[inline(always)]
    pub const fn sender(self) -> EndpointId {
        if self.is_lost() || self.is_reply() { EndpointId::NONE } else { self.id() }
    }

    /// Which side of its connection the packet is from; none where the tag does not say.
    #[inline(always)]
    pub const fn began(self) -> Option<Began> {
        if self.is_lost() {
            return None;
        }
        match self.0 & STATE {
            SENT => Some(Began::Unknown),
            SENT_FIRST => Some(Began::Sender),
            SENT_ANSWER => Some(Began::Receiver),
            _ => None,
        }
    }

    /// Whether the tag proves that a pod of this node sent the packet, whichever it was.
    #[inline(always)]
    pub const fn is_from_pod(self) -> bool {
        if self.is_lost() {
            return false;
        }
        match self.0 & STATE {
            REPLY => false,
            POD_REPLY => true,
            _ => self.0 & ID != NO_POD,
        }
    }

    /// Whether the packet is an accepted reply: it passes at its receiver and nowhere else.
    #[inline(always)]
    pub const fn is_reply(self) -> bool {
        matches!(self.0 & STATE, REPLY | POD_REPLY) && self.0 & ID != 0
    }

    /// Who is to receive a reply; [`EndpointId::NONE`] where that is no pod of this node, and for
    /// what is not a reply.
    #[inline(always)]
    pub const fn receiver(self) -> EndpointId {
        if self.is_reply() { self.id() } else { EndpointId::NONE }
    }

    /// The sender's egress has been judged on the way out: what an outer device sees, a tunnel's
    /// packet around it, needs no second verdict.
    #[inline(always)]
    pub const fn egress_judged(self) -> bool {
        self.0 & STATE == JUDGED && self.0 & ID != 0
    }

    /// Marks what passed where it leaves the node. Of a reply nothing else is left to say.
    #[inline(always)]
    pub const fn judged(sender: EndpointId) -> Self {
        Self(JUDGED | id_bits(sender))
    }

    #[inline(always)]
    const fn id(self) -> EndpointId {
        let id = self.0 & ID;
        if id == NO_POD { EndpointId::NONE } else { EndpointId::new(id) }
    }
}

#[inline(always)]
const fn id_bits(id: EndpointId) -> u16 {
    if id.is_none() { NO_POD } else { id.get() & ID }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: EndpointId = EndpointId::new(7);

    /// What the kernel puts there for others: nothing, class ids, all ones.
    #[test]
    fn numbers_that_others_write_are_lost() {
        let nobody = (8..14).map(|state| state << 12);
        for bits in (0..0x8000).chain(0xe000..=0xffff).chain(nobody) {
            let tag = Tag::from_bits(bits);
            assert!(tag.is_lost(), "{bits:#x}");
            assert!(!tag.is_reply() && !tag.egress_judged() && !tag.entered(), "{bits:#x}");
            assert!(tag.sender().is_none() && tag.receiver().is_none(), "{bits:#x}");
            assert!(!tag.is_from_pod(), "{bits:#x}");
        }
    }

    #[test]
    fn every_tag_of_ours_says_what_was_put_in() {
        for id in [EndpointId::NONE, EndpointId::new(1), POD, EndpointId::MAX] {
            for (tag, reply, judged) in [
                (Tag::of(id), false, false),
                (Tag::of(id).with_began(Began::Sender), false, false),
                (Tag::of(id).with_began(Began::Receiver), false, false),
                (Tag::judged(id), false, true),
                (Tag::reply(id, EndpointId::NONE), true, false),
                (Tag::reply(id, POD), true, false),
            ] {
                assert!(!tag.is_lost(), "{tag:?}");
                assert_eq!((tag.is_reply(), tag.egress_judged()), (reply, judged), "{tag:?}");
                let (sender, receiver) =
                    if reply { (EndpointId::NONE, id) } else { (id, EndpointId::NONE) };
                assert_eq!((tag.sender(), tag.receiver()), (sender, receiver), "{tag:?}");
                assert_eq!(tag.entered(), !reply && id.is_none(), "{tag:?}");
            }
        }
    }

    #[test]
    fn a_tag_says_which_side_it_is_from_until_that_is_decided() {
        for began in [Began::Sender, Began::Receiver, Began::Unknown] {
            assert_eq!(Tag::of(POD).with_began(began).began(), Some(began));
            assert_eq!(Tag::ENTERED.with_began(began).began(), Some(began));
        }
        for tag in [Tag::LOST, Tag::judged(POD), Tag::reply(POD, POD)] {
            assert_eq!(tag.began(), None, "{tag:?}");
        }
    }

    #[test]
    fn a_tag_proves_that_a_pod_sent_the_packet_only_if_one_did() {
        assert!(Tag::of(POD).is_from_pod() && Tag::judged(POD).is_from_pod());
        assert!(Tag::reply(EndpointId::NONE, POD).is_from_pod());
        for tag in [Tag::ENTERED, Tag::judged(EndpointId::NONE), Tag::reply(POD, EndpointId::NONE)]
        {
            assert!(!tag.is_from_pod(), "{tag:?}");
        }
    }
}
