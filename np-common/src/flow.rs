//! Flows: connections that were allowed, so that their replies and later packets pass.
//!
//! A flow is keyed by T, the tuple that `to_*` sees in the forward direction: after DNAT and
//! after SNAT. Reversed, T is what `from_*` sees of a reply, before NAT is undone.
//!
//! A flow names its ends by endpoint id. Ids are used again, so a flow that was last judged before
//! one of its ends was bound (see [`crate::endpoint::Endpoint`]) is of an earlier life of that id
//! and counts for nothing.

use crate::abi::map_type;
use crate::addr::Addr;
use crate::endpoint::EndpointId;

map_type! {
    /// The key of FLOWS and DENIED: a tuple, as its first packet had it, and the leg it was seen on.
    pub struct FlowKey: 40 bytes {
        /// Who sent the first packet.
        pub src: Addr,
        /// Who it was for.
        pub dst: Addr,
        /// Ports in network order; an echo has its id and kind here, see `packet`.
        pub sport: u16,
        /// As for the source.
        pub dport: u16,
        /// The IP protocol, and above it the [`Leg`].
        pub protocol: u32,
    }
}

/// Where on its way through the node a packet was judged. A packet can be judged more than once; each
/// place has a flow of its own, because each sees other ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Leg {
    /// At a device that is stacked on others, which judge again.
    Stacked = 1 << 8,
    /// At a pod of this node, for a packet of another one that left the node and came back.
    Returned = 2 << 8,
}

impl FlowKey {
    /// No connection's.
    pub const NONE: FlowKey =
        FlowKey { src: Addr::UNSPECIFIED, dst: Addr::UNSPECIFIED, sport: 0, dport: 0, protocol: 0 };

    /// The key of the same tuple, judged elsewhere than where a packet leaves the node.
    #[inline(always)]
    pub const fn on(self, leg: Leg) -> Self {
        Self { protocol: self.protocol | leg as u32, ..self }
    }

    /// The key of the same tuple, wherever it is judged.
    #[inline(always)]
    pub const fn anywhere(self) -> Self {
        Self { protocol: self.protocol & 0xff, ..self }
    }

    /// Swaps the two ends.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            protocol: self.protocol,
        }
    }
}

map_type! {
    /// An entry of FLOWS.
    pub struct Flow: 16 bytes {
        /// The generation of policy under which the flow was last judged.
        pub generation: u32,
        /// When a packet was last seen, in the ticks of [`Time`].
        pub seen: u32,
        source: u16,
        destination: u16,
        state: u32,
    }
}

/// How far a flow has come: it decides how long an idle flow stays known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// TCP without an answer yet.
    Opening = 1,
    /// TCP that both sides have taken up.
    Established = 2,
    /// TCP after a FIN.
    Closing = 3,
    /// Any other protocol.
    Datagram = 4,
    /// TCP after a RST. Anybody on the path can send one that no end accepts: what follows shows
    /// whether this one was.
    Reset = 5,
    /// TCP with a SYN and an answer to it, which its sender has not acknowledged yet.
    Answered = 6,
}

/// Set where nothing showed which side began the connection.
const IN_DOUBT: u32 = 1 << 8;

impl State {
    /// Seconds without a packet until the flow is forgotten: those of nf_conntrack's defaults
    /// (net/netfilter/nf_conntrack_proto_{tcp,udp}.c) or longer, so that a flow is not forgotten
    /// here while NAT still remembers it.
    const fn timeout(self) -> u32 {
        match self {
            State::Opening | State::Answered => 120,
            State::Established => 5 * 24 * 3600,
            State::Closing | State::Reset => 120,
            State::Datagram => DATAGRAM_TIMEOUT,
        }
    }
}

/// Seconds for which anything but TCP is remembered without a packet.
const DATAGRAM_TIMEOUT: u32 = 180;

/// The time at which a packet is judged.
///
/// It is counted in 256 kernel ticks, so that 32 bits last for 34 years at 1,000 ticks a second: a
/// count of single ticks comes round after 50 days, and what had lapsed would live again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// In 256 kernel ticks (jiffies), wrapping.
    pub now: u32,
    /// Kernel ticks per second, CONFIG_HZ.
    pub hz: u32,
}

const TICKS: u32 = 8;

impl Time {
    /// From the kernel's 64-bit count of ticks.
    #[inline(always)]
    pub const fn new(jiffies: u64, hz: u32) -> Self {
        Self { now: (jiffies >> TICKS) as u32, hz }
    }

    /// Whether so many seconds have passed since then.
    #[inline(always)]
    const fn is_past(self, seen: u32, seconds: u32) -> bool {
        let idle = self.now.wrapping_sub(seen);
        // Another CPU may have noted a later time than ours: a small step back is not idleness.
        let back = idle.wrapping_neg();
        back > self.hz >> (TICKS - 2) | 1 && idle > (seconds * self.hz) >> TICKS
    }
}

map_type! {
    /// An entry of DENIED: a tuple that was denied, and that did not show which side began.
    pub struct Denied: 8 bytes {
        seen: u32,
        spare: u32,
    }
}

impl Denied {
    /// Denied now.
    #[inline(always)]
    pub const fn new(time: Time) -> Self {
        Self { seen: time.now, spare: 0 }
    }

    /// Whether the denial still counts; it does for as long as either side keeps sending.
    #[inline(always)]
    pub const fn counts(&mut self, time: Time) -> bool {
        let counts = !time.is_past(self.seen, DATAGRAM_TIMEOUT);
        if counts && self.seen != time.now {
            self.seen = time.now;
        }
        counts
    }
}

impl Flow {
    /// Makes the entry of a flow that was judged now, under this generation.
    #[inline(always)]
    pub const fn new(
        generation: u32,
        time: Time,
        source: EndpointId,
        destination: EndpointId,
        state: State,
    ) -> Self {
        Self {
            generation,
            seen: time.now,
            source: source.get(),
            destination: destination.get(),
            state: state as u32,
        }
    }

    /// The local pod that opened the flow, if one did.
    #[inline(always)]
    pub const fn source(&self) -> EndpointId {
        EndpointId::new(self.source)
    }

    /// The local pod that the flow was opened to, if to one.
    #[inline(always)]
    pub const fn destination(&self) -> EndpointId {
        EndpointId::new(self.destination)
    }

    /// How far the flow has come.
    #[inline(always)]
    pub const fn state(&self) -> State {
        match self.state & !IN_DOUBT {
            1 => State::Opening,
            2 => State::Established,
            3 => State::Closing,
            5 => State::Reset,
            6 => State::Answered,
            _ => State::Datagram,
        }
    }

    /// Moves the flow on.
    #[inline(always)]
    pub const fn advance(&mut self, state: State) {
        let state = self.state & IN_DOUBT | state as u32;
        if self.state != state {
            self.state = state;
        }
    }

    /// A flow of which nothing shows that its source began it.
    #[inline(always)]
    pub const fn with_doubt(self) -> Self {
        Self { state: self.state | IN_DOUBT, ..self }
    }

    /// Whether the flow's destination may be the side that began.
    #[inline(always)]
    pub const fn in_doubt(&self) -> bool {
        self.state & IN_DOUBT != 0
    }

    /// Notes a packet; writes only when the tick changed, so that CPUs do not fight for the line.
    #[inline(always)]
    pub const fn touch(&mut self, time: Time) {
        if self.seen != time.now {
            self.seen = time.now;
        }
    }

    /// Whether the flow has been idle for too long to mean anything.
    #[inline(always)]
    pub const fn lapsed(&self, time: Time) -> bool {
        time.is_past(self.seen, self.state().timeout())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::new(seconds * 250, 250)
    }

    #[test]
    fn a_flow_lapses_by_its_state() {
        let flow = |state| Flow::new(1, at(0), EndpointId::NONE, EndpointId::new(1), state);
        assert!(!flow(State::Datagram).lapsed(at(178)));
        assert!(flow(State::Datagram).lapsed(at(183)));
        assert!(flow(State::Reset).lapsed(at(123)));
        assert!(!flow(State::Established).lapsed(at(5 * 24 * 3600 - 2)));
        assert!(flow(State::Established).lapsed(at(5 * 24 * 3600 + 3)));
    }

    #[test]
    fn ticks_may_wrap_and_run_backwards_between_cpus() {
        for hz in [100, 250, 300, 1000] {
            let at = |now| Time { now, hz };
            let start = at(u32::MAX - 1);
            let flow = Flow::new(1, start, EndpointId::NONE, EndpointId::NONE, State::Datagram);
            assert!(!flow.lapsed(at(1)), "{hz}");
            assert!(!flow.lapsed(at(start.now - 1)), "{hz}");
            // Not even half the counter's range later does it live again.
            assert!(flow.lapsed(at(start.now.wrapping_add(1 << 31))), "{hz}");
            assert!(flow.lapsed(at(start.now.wrapping_add(3 << 30))), "{hz}");
        }
    }

    /// 32 bits of single ticks come round after 49.7 days at 1,000 a second.
    #[test]
    fn an_idle_flow_does_not_live_again_when_ticks_come_round() {
        let at = |jiffies| Time::new(jiffies, 1000);
        let flow = Flow::new(1, at(0), EndpointId::NONE, EndpointId::NONE, State::Datagram);
        for rounds in [1, 2, 100] {
            assert!(flow.lapsed(at(rounds << 32)), "{rounds}");
        }
    }

    #[test]
    fn doubt_stays_with_a_flow_whatever_its_state() {
        let flow = Flow::new(1, at(0), EndpointId::NONE, EndpointId::NONE, State::Established);
        let mut flow = flow.with_doubt();
        flow.advance(State::Closing);
        assert!(flow.in_doubt());
        assert_eq!(flow.state(), State::Closing);
    }

    #[test]
    fn a_denial_counts_as_long_as_somebody_keeps_sending() {
        let mut denied = Denied::new(at(0));
        assert!(denied.counts(at(170)) && denied.counts(at(340)));
        assert!(!denied.counts(at(340 + 183)));
    }

    #[test]
    fn each_leg_has_a_flow_of_its_own() {
        let (src, dst) = (Addr::from_v4([10, 0, 0, 1]), Addr::from_v4([10, 0, 0, 2]));
        let key = FlowKey { src, dst, sport: 1, dport: 2, protocol: u32::from(u8::MAX) };
        let keys = [key, key.on(Leg::Stacked), key.on(Leg::Returned)];
        for (at, one) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == one), Some(at));
            assert_eq!(one.reversed().reversed(), *one);
        }
    }
}
