//! Flows: connections that were allowed, so that their replies and later packets pass.
//!
//! A flow is keyed by T, the tuple that `to_*` sees in the forward direction: after DNAT and
//! after SNAT. Reversed, T is what `from_*` sees of a reply, before NAT is undone.

use crate::abi::map_type;
use crate::addr::Addr;
use crate::endpoint::EndpointId;

map_type! {
    pub struct FlowKey: 40 bytes {
        pub src: Addr,
        pub dst: Addr,
        /// Ports in network order; an echo has its id and kind here, see `packet`.
        pub sport: u16,
        pub dport: u16,
        pub protocol: u32,
    }
}

impl FlowKey {
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
    pub struct Flow: 16 bytes {
        /// The generation of policy under which the flow was last judged.
        pub generation: u32,
        /// When a packet was last seen, in kernel ticks.
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
    /// TCP with packets in both directions.
    Established = 2,
    /// TCP after FIN or RST.
    Closing = 3,
    /// Any other protocol.
    Datagram = 4,
}

impl State {
    /// Seconds without a packet until the flow is forgotten: those of nf_conntrack's defaults
    /// (net/netfilter/nf_conntrack_proto_{tcp,udp}.c) or longer, so that a flow is not forgotten
    /// here while NAT still remembers it.
    const fn timeout(self) -> u32 {
        match self {
            State::Opening => 120,
            State::Established => 5 * 24 * 3600,
            State::Closing => 120,
            State::Datagram => 180,
        }
    }
}

/// The time at which a packet is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time {
    /// Kernel ticks (jiffies), wrapping.
    pub now: u32,
    /// Ticks per second, CONFIG_HZ.
    pub hz: u32,
}

impl Flow {
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

    #[inline(always)]
    pub const fn state(&self) -> State {
        match self.state {
            1 => State::Opening,
            2 => State::Established,
            3 => State::Closing,
            _ => State::Datagram,
        }
    }

    #[inline(always)]
    pub const fn advance(&mut self, state: State) {
        if self.state != state as u32 {
            self.state = state as u32;
        }
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
        let idle = time.now.wrapping_sub(self.seen);
        // Another CPU may have noted a later tick than ours: a small step back is not idleness.
        let back = idle.wrapping_neg();
        back > time.hz && idle > self.state().timeout() * time.hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Time = Time { now: 0, hz: 250 };

    fn at(seconds: u32) -> Time {
        Time { now: SECOND.now.wrapping_add(seconds * SECOND.hz), ..SECOND }
    }

    #[test]
    fn a_flow_lapses_by_its_state() {
        let flow = |state| Flow::new(1, at(0), EndpointId::NONE, EndpointId::new(1), state);
        assert!(!flow(State::Datagram).lapsed(at(180)));
        assert!(flow(State::Datagram).lapsed(at(181)));
        assert!(!flow(State::Established).lapsed(at(5 * 24 * 3600)));
        assert!(flow(State::Established).lapsed(at(5 * 24 * 3600 + 1)));
    }

    #[test]
    fn ticks_may_wrap_and_run_backwards_between_cpus() {
        let start = Time { now: u32::MAX - 10, hz: 1000 };
        let flow = Flow::new(1, start, EndpointId::NONE, EndpointId::NONE, State::Datagram);
        assert!(!flow.lapsed(Time { now: 5, hz: 1000 }));
        assert!(!flow.lapsed(Time { now: start.now - 3, hz: 1000 }));
        assert!(!flow.lapsed(Time { now: start.now - 1000, hz: 1000 }));
        // Not even half the counter's range later does it live again.
        assert!(flow.lapsed(Time { now: start.now.wrapping_add(1 << 31), hz: 1000 }));
        assert!(flow.lapsed(Time { now: start.now.wrapping_add(3 << 30), hz: 1000 }));
    }
}
