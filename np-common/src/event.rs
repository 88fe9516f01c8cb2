//! Events: what the programs tell user space about single packets, and how much of it.
//!
//! An event is made for a packet that is dropped and, if asked for, for one that opens a connection;
//! never for an established one. Each endpoint has a bucket of tokens for what it sends and another
//! for what it receives, so that no endpoint's noise takes another's events. What a bucket has no
//! token for is *suppressed*, and counted there: events and what was suppressed add up to the packets.

use crate::abi::map_type;
use crate::decide::{Case, Connection, Context, Maps};
use crate::direction::Hook;
use crate::endpoint::EndpointId;
use crate::flow::FlowKey;
use crate::packet::{ETH_P_IPV4, ETH_P_IPV6};
use crate::verdict::{Action, Reason, Verdict, posture};

map_type! {
    /// One packet's outcome, as it is in the ring buffer.
    pub struct Event: 64 bytes {
        /// Nanoseconds of CLOCK_MONOTONIC.
        pub time: u64,
        /// Of a connection that was judged, T: also of a reply, from the side that opened it. Else the
        /// tuple of the packet. Both addresses are unspecified where there is none.
        pub tuple: FlowKey,
        /// The generation of policy in force.
        pub generation: u32,
        /// The device that the hook is at.
        pub ifindex: u32,
        source: u16,
        destination: u16,
        /// Host byte order.
        pub ethertype: u16,
        hook: u8,
        reason: u8,
    }
}

/// In `hook`: the packet is one of the side that answers.
const REPLY: u8 = 0x80;

impl Event {
    /// The event of a packet that was judged just now; `case` is what the verdict left there.
    #[inline(always)]
    pub fn of<M: Maps>(
        maps: &M,
        hook: Hook,
        verdict: &Verdict,
        context: &Context,
        case: &Case,
        time: u64,
    ) -> Self {
        let reason = verdict.reason;
        let connection =
            if matches!(reason, Reason::EgressDenied | Reason::IngressDenied | Reason::Allowed) {
                case.connection()
            } else {
                let destination = match hook {
                    Hook::ToPod => maps.iface(context.ifindex).endpoint(),
                    Hook::FromPod | Hook::FromUplink | Hook::ToUplink => EndpointId::NONE,
                };
                let tuple = if is_read(reason, context) { case.tuple() } else { FlowKey::NONE };
                Connection { tuple, source: verdict.tag.sender(), destination, reply: false }
            };
        let generation = maps.config().generation();
        Self::new(hook, reason, connection, context, generation, time)
    }

    /// The event of a packet of this connection; the tuple is [`FlowKey::NONE`] where there is none.
    #[inline(always)]
    pub const fn new(
        hook: Hook,
        reason: Reason,
        Connection { tuple, source, destination, reply }: Connection,
        context: &Context,
        generation: u32,
        time: u64,
    ) -> Self {
        Self {
            time,
            tuple,
            generation,
            ifindex: context.ifindex,
            source: source.get(),
            destination: destination.get(),
            ethertype: context.ethertype,
            hook: hook as u8 | if reply { REPLY } else { 0 },
            reason: reason as u8,
        }
    }

    /// The pod of this node that is at the tuple's source.
    #[inline(always)]
    pub const fn source(&self) -> EndpointId {
        EndpointId::new(self.source)
    }

    /// The pod of this node that is at the tuple's destination.
    #[inline(always)]
    pub const fn destination(&self) -> EndpointId {
        EndpointId::new(self.destination)
    }

    /// None for a hook that this version does not know.
    pub fn hook(&self) -> Option<Hook> {
        Hook::ALL.into_iter().find(|hook| *hook as u8 == self.hook & !REPLY)
    }

    /// Whether the packet is one of the side that answers: the tuple is then its reverse.
    pub const fn is_reply(&self) -> bool {
        self.hook & REPLY != 0
    }

    /// The index of the bucket that pays for the event: that of who sent the packet.
    #[inline(always)]
    pub const fn bucket(&self) -> u32 {
        if self.is_reply() {
            bucket_of(self.destination(), self.source())
        } else {
            bucket_of(self.source(), self.destination())
        }
    }

    /// None for a Reason that this version does not know.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| *reason as u8 == self.reason)
    }

    /// The connection's tuple; none where the packet is not IP or could not be read.
    pub fn connection(&self) -> Option<FlowKey> {
        (self.tuple != FlowKey::NONE).then(|| self.tuple.anywhere())
    }
}

/// Whether the case holds the packet: else it holds what an earlier one left.
#[inline(always)]
const fn is_read(reason: Reason, context: &Context) -> bool {
    matches!(context.ethertype, ETH_P_IPV4 | ETH_P_IPV6)
        && !matches!(reason, Reason::Malformed | Reason::TunnelForged)
}

/// What makes events: the word in REPORT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u64)]
pub enum Report {
    /// No packet.
    Nothing = 0,
    /// Every packet that is dropped.
    Denied = 1,
    /// Also a packet that is allowed to open a connection, or that is the first of one to be judged
    /// under a new generation.
    All = 2,
}

impl Report {
    /// Whether this word in REPORT asks for an event of such a packet.
    #[inline(always)]
    pub const fn asks(word: u64, reason: Reason) -> bool {
        match posture(reason) {
            Action::Drop => word >= Report::Denied as u64,
            Action::Pass => {
                word >= Report::All as u64
                    && matches!(reason, Reason::Allowed | Reason::NotIsolated)
            }
        }
    }
}

/// Tokens that a bucket gets per second.
pub const RATE: u64 = 16;
/// Tokens that a full bucket has.
pub const BURST: u64 = 32;

const SECOND: u64 = 1_000_000_000;
/// For how long a token keeps a bucket from being full.
const INTERVAL: u64 = SECOND / RATE;

map_type! {
    /// An element of BUCKETS.
    pub struct Bucket: 16 bytes {
        /// When the bucket will be full again, in nanoseconds of CLOCK_MONOTONIC.
        pub full: u64,
        /// The events that there was no token, or no room in the ring buffer, for.
        pub suppressed: u64,
    }
}

impl Bucket {
    /// Takes a token from a bucket that will be full again at `full`. Returns when it will be full
    /// after that, or none if there is no token.
    #[inline(always)]
    pub const fn take(full: u64, now: u64) -> Option<u64> {
        let full = if full > now { full } else { now };
        if full - now > (BURST - 1) * INTERVAL { None } else { Some(full + INTERVAL) }
    }
}

/// An endpoint has two buckets.
pub const MOST_BUCKETS: u32 = 2 * (EndpointId::MAX.get() as u32 + 2);

/// The index of the bucket that pays for a packet: the sender's, or where no pod of this node sent it,
/// the receiver's. Those of no pod at all share one.
#[inline(always)]
pub const fn bucket_of(sender: EndpointId, receiver: EndpointId) -> u32 {
    if sender.is_none() { receiver.get() as u32 * 2 + 1 } else { sender.get() as u32 * 2 }
}

/// Whose bucket an index is, and whether it is for what the endpoint sends.
pub const fn payer(bucket: u32) -> (EndpointId, bool) {
    (EndpointId::new((bucket / 2) as u16), bucket.is_multiple_of(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drop_and_no_established_packet_makes_an_event() {
        for reason in Reason::ALL.iter().copied() {
            let dropped = posture(reason) == Action::Drop;
            assert!(!Report::asks(Report::Nothing as u64, reason), "{reason:?}");
            assert_eq!(Report::asks(Report::Denied as u64, reason), dropped, "{reason:?}");
            let opens = matches!(reason, Reason::Allowed | Reason::NotIsolated);
            assert_eq!(Report::asks(Report::All as u64, reason), dropped || opens, "{reason:?}");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
        let mut full = 0;
        let mut take = |now| Bucket::take(full, now).map(|next| full = next).is_some();
        let start = 5 * SECOND;
        assert_eq!((0..100).filter(|_| take(start)).count() as u64, BURST);
        let second = (0..1000).filter(|step| take(start + step * SECOND / 1000)).count() as u64;
        assert!((RATE - 1..=RATE).contains(&second), "{second}");
        let later = start + 60 * SECOND;
        assert_eq!((0..100).filter(|_| take(later)).count() as u64, BURST, "it is not overfull");
        // Another CPU's clock may be behind.
        assert!(!take(later - 1));
    }

    #[test]
    fn no_two_endpoints_share_a_bucket() {
        let id = EndpointId::new;
        assert_eq!(payer(bucket_of(id(7), id(9))), (id(7), true));
        assert_eq!(payer(bucket_of(EndpointId::NONE, id(9))), (id(9), false));
        assert_eq!(payer(bucket_of(EndpointId::NONE, EndpointId::NONE)).0, EndpointId::NONE);
        for most in
            [bucket_of(EndpointId::MAX, id(1)), bucket_of(EndpointId::NONE, EndpointId::MAX)]
        {
            assert!(most < MOST_BUCKETS);
        }
    }

    #[test]
    fn an_event_keeps_its_parts_apart() {
        let event = Event {
            time: 1,
            tuple: FlowKey { protocol: 6 | crate::flow::Leg::Stacked as u32, ..FlowKey::NONE },
            generation: 2,
            ifindex: 3,
            source: 4,
            destination: 5,
            ethertype: ETH_P_IPV4,
            hook: Hook::FromUplink as u8 | REPLY,
            reason: Reason::IngressDenied as u8,
        };
        assert_eq!(event.hook(), Some(Hook::FromUplink));
        assert!(event.is_reply());
        assert_eq!(event.reason(), Some(Reason::IngressDenied));
        assert_eq!(payer(event.bucket()), (EndpointId::new(5), true), "it sent the reply");
        let forward = Event { hook: Hook::ToPod as u8, ..event };
        assert_eq!(payer(forward.bucket()), (EndpointId::new(4), true));
        assert_eq!(event.connection().map(|tuple| tuple.protocol), Some(6), "without its leg");
        assert_eq!(Event { tuple: FlowKey::NONE, ..event }.connection(), None);
        assert_eq!(Event { reason: 63, hook: 7, ..event }.reason(), None);
    }
}
