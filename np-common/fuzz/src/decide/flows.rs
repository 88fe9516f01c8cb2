//! Flows: who opens one, what passes because of one, and how one changes.

use np_common::decide::Maps as _;
use np_common::direction::{Direction, Hook};
use np_common::endpoint::EndpointId;
use np_common::flow::{Flow, FlowKey, Leg, State};
use np_common::packet::{self, FIN, ICMP, ICMPV6, Kind, Packet, Piece, RST, TCP};
use np_common::tag::Began;
use np_common::verdict::Reason;

use super::Case;
use crate::carried::Carried;
use crate::parse;
use crate::world::World;

/// What the history is to note of a packet.
pub struct Noted {
    pub egress_elsewhere: bool,
    pub denied: Option<FlowKey>,
    /// A tuple whose other side goes on sending.
    pub goes_on: Option<FlowKey>,
}

/// Which side of its connection sent a packet: a client from the ports that clients have to those
/// that servers have, and what TCP and echoes say themselves.
pub fn began(packet: &Packet, ip: &[u8]) -> Began {
    let v4 = packet.src.is_v4();
    if packet.piece != Piece::Later {
        match (packet.protocol, packet.tcp_flags & (packet::SYN | packet::ACK)) {
            (TCP, packet::SYN) => return Began::Sender,
            (TCP, 0x12) => return Began::Receiver,
            _ => {}
        }
        let (_, _, upper) = parse::upper(ip, v4);
        match (packet.protocol, upper.first()) {
            (ICMP, Some(8)) | (ICMPV6, Some(128)) if v4 == (packet.protocol == ICMP) => {
                return Began::Sender;
            }
            _ => {}
        }
    }
    // No other message asks for one, so none opens a flow.
    if matches!(packet.protocol, ICMP | ICMPV6) {
        return Began::Receiver;
    }
    let clients = |port: u16| u16::from_be(port) >= 32_768;
    match (clients(packet.sport), clients(packet.dport)) {
        (true, false) => Began::Sender,
        (false, true) => Began::Receiver,
        _ => Began::Unknown,
    }
}

impl Case<'_> {
    pub(super) fn keys(&self, world: &World) -> Vec<FlowKey> {
        world.flows.borrow().iter().map(|(key, _)| *key).collect()
    }

    /// Whether policy allows a tuple now, at both ends.
    pub(super) fn permitted(
        &self,
        key: &FlowKey,
        source: EndpointId,
        destination: EndpointId,
    ) -> bool {
        self.old.permits(source, Direction::Egress, key)
            && self.old.permits(destination, Direction::Ingress, key)
            && !(destination.is_none() && self.old.wraps(key))
    }

    pub(super) fn either_isolated(&self, source: EndpointId, destination: EndpointId) -> bool {
        self.old.is_isolated(source, Direction::Egress)
            || self.old.is_isolated(destination, Direction::Ingress)
    }

    /// Whether there is such a flow, of these ends, that lives.
    pub(super) fn is_flow(
        &self,
        key: &FlowKey,
        source: Option<EndpointId>,
        destination: EndpointId,
    ) -> bool {
        self.old.flow(key).is_some_and(|flow| {
            source.is_none_or(|source| flow.source() == source)
                && flow.destination() == destination
                && self.history.lives(self.old, key, &flow, self.clock)
        })
    }

    /// The packet passes as one of a flow: the flow is known, is of these ends, lives, and is still
    /// allowed. An error about one of its packets does not keep it alive.
    pub(super) fn of_flow(
        &self,
        key: &FlowKey,
        source: Option<EndpointId>,
        destination: EndpointId,
    ) {
        let Some(flow) = self.old.flow(key) else { panic!("of no flow: {self:?}") };
        let ends = (source.unwrap_or(flow.source()), destination);
        assert_eq!((flow.source(), flow.destination()), ends, "another's flow: {self:?}");
        let lives = self.history.lives(self.old, key, &flow, self.clock);
        assert!(lives, "lapsed, or of an earlier life: {self:?}");
        assert!(!self.is_doubted(&flow), "the other side may have begun: {self:?}");
        self.still_allowed(key, flow.source(), destination);
        assert!(!destination.is_none() || !self.old.wraps(key), "to a tunnel: {self:?}");
        let after = self.new.flow(key).expect("the flow is still known");
        if !self.carried.is_judged() || self.hook.is_tc_ingress() {
            assert_eq!(after.generation, self.generation(), "{self:?}");
        }
        let kept = if self.quoted.is_some() { flow.seen } else { self.context.time.now };
        assert_eq!(after.seen, kept, "{self:?}");
    }

    /// The flow was judged under this generation, so policy says of it now what it said then. Only
    /// its egress, or this packet's, can have been judged at another device.
    fn still_allowed(&self, key: &FlowKey, source: EndpointId, destination: EndpointId) {
        assert!(self.old.permits(destination, Direction::Ingress, key), "ingress: {self:?}");
        let to = !self.hook.is_tc_ingress();
        let elsewhere = to && (self.carried.is_judged() || self.came_back(key));
        let egress = self.old.permits(source, Direction::Egress, key);
        assert!(egress || elsewhere || self.history.egress_elsewhere(key), "egress: {self:?}");
    }

    /// Whether it may be that the flow's destination began it, and somebody's policy has a say about that.
    pub(super) fn is_doubted(&self, flow: &Flow) -> bool {
        flow.in_doubt() && self.either_isolated(flow.destination(), flow.source())
    }

    /// A pod's packet that left and came back was judged where it left.
    fn came_back(&self, key: &FlowKey) -> bool {
        key.protocol & Leg::Returned as u32 != 0
    }

    /// A SYN of the side that answers is a connection of its own, unless it crossed the other's.
    pub(super) fn begins_its_own(&self, flow: &Flow, packet: &Packet) -> bool {
        packet.protocol == TCP
            && packet.tcp_flags & (packet::SYN | packet::ACK) == packet::SYN
            && ![State::Opening, State::Answered].contains(&flow.state())
    }

    pub(super) fn does_not_begin(&self, key: &FlowKey, packet: &Packet) {
        let flow = self.old.flow(key).expect("it is known");
        assert!(!self.begins_its_own(&flow, packet), "a connection of its own: {self:?}");
    }

    /// A dropped packet changes nothing but when a flow was last seen. One that passes moves one flow.
    pub(super) fn flows_change_as_they_may(&self) {
        let new = self.new.flows.borrow();
        let changed = || new.iter().filter(|(key, flow)| self.old.flow(key) != Some(*flow));
        assert!(changed().count() <= 1, "more than one flow: {self:?}");
        for (key, flow) in changed() {
            let before = self.old.flow(key);
            if !self.passes() {
                let mut touched = before;
                if let Some(flow) = &mut touched {
                    flow.seen = self.context.time.now;
                }
                assert_eq!(Some(*flow), touched, "a flow of a dropped packet: {self:?}");
            } else if let Some(before) = before
                && !self.history.is_new(self.old, key, flow, self.clock)
                && self.history.certainly_lives(self.old, key, &before, self.clock)
            {
                self.moves(key, before, *flow);
            }
        }
        let gone = self.keys(self.old).into_iter().any(|key| self.new.flow(&key).is_none());
        assert!(!gone, "a flow is gone: {self:?}");
    }

    /// How a packet moves its flow on.
    fn moves(&self, key: &FlowKey, before: Flow, after: Flow) {
        assert!(self.quoted.is_none() || before.seen == after.seen, "{self:?}");
        let Some(packet) = self.ip() else { panic!("no packet of a flow: {self:?}") };
        let reply = match self.verdict.reason {
            Reason::Reply | Reason::ReplyPassed => true,
            Reason::Established | Reason::Allowed | Reason::NotIsolated => false,
            Reason::Related => {
                assert_eq!(before.state(), after.state(), "{self:?}");
                return;
            }
            _ => panic!("{key:?} moved: {self:?}"),
        };
        let flags = packet.tcp_flags;
        let is = |flag: u8| flags & flag != 0;
        let expected = match before.state() {
            State::Datagram => State::Datagram,
            _ if is(RST) => State::Reset,
            _ if is(FIN) => State::Closing,
            state if is(packet::SYN) && !is(packet::ACK) => {
                if reply {
                    state
                } else {
                    State::Opening
                }
            }
            // A SYN may cross it until somebody acknowledges.
            State::Opening if reply && is(packet::SYN) => State::Answered,
            State::Opening if reply => State::Established,
            State::Answered if !is(packet::SYN) => State::Established,
            // Whoever goes on sending has not accepted the RST.
            State::Reset => State::Established,
            state => state,
        };
        assert_eq!(after.state(), expected, "{self:?}");
    }

    /// Which side of its connection sent the packet: what was seen before NAT, if it was.
    pub(super) fn side(&self, packet: &Packet) -> Began {
        let syn = packet.protocol == TCP && packet.tcp_flags & packet::SYN != 0;
        match self.carried {
            Carried::Sent { began, judged: false, .. } if !syn => began,
            _ => self.began,
        }
    }

    /// At most this packet's own flow is new, only if policy was asked, and only if its sender began.
    pub(super) fn opens_one_flow(
        &self,
        packet: &Packet,
        source: EndpointId,
        destination: EndpointId,
    ) {
        let new = self.new.flows.borrow();
        let opened = new.iter().find(|(key, flow)| {
            self.old.flow(key) != Some(*flow)
                && self.history.is_new(self.old, key, flow, self.clock)
        });
        let Some((key, flow)) = opened else { return };
        let reasons = [Reason::Allowed, Reason::NotIsolated];
        assert!(reasons.contains(&self.verdict.reason), "{self:?}");
        assert!(matches!(packet.kind, Kind::Flow | Kind::Fragment), "{self:?}");
        assert_eq!((key.src, key.dst), (packet.src, packet.dst), "{self:?}");
        let returned = self.came_back(key);
        let source = if returned { self.old.local(&packet.src) } else { source };
        assert_eq!((flow.source(), flow.destination()), (source, destination), "{self:?}");
        assert_eq!(flow.generation, self.generation(), "{self:?}");
        assert_eq!(key.protocol & Leg::Stacked as u32 != 0, self.is_stacked(), "{self:?}");
        if packet.piece == Piece::Later {
            return;
        }
        let side = self.side(packet);
        assert_ne!(side, Began::Receiver, "the side that answers: {self:?}");
        let unknown = side == Began::Unknown;
        assert_eq!(flow.in_doubt(), unknown && packet.protocol == TCP, "{self:?}");
        if flow.in_doubt() {
            assert!(!self.either_isolated(destination, source), "it may answer: {self:?}");
        } else if unknown {
            let denied = packet.flow_key().reversed();
            let denied = self.history.is_denied(&denied, self.clock);
            assert!(!denied, "the other side began, and was denied: {self:?}");
        }
    }

    pub(super) fn generation(&self) -> u32 {
        self.old.config().generation()
    }

    /// What is to be remembered of the packet.
    pub(super) fn noted(&self) -> Noted {
        let mut noted = Noted { egress_elsewhere: false, denied: None, goes_on: None };
        if self.hook.is_tc_ingress() {
            return noted;
        }
        noted.egress_elsewhere = self.carried.is_judged() || self.carried.entered();
        let Some(packet) = self.ip() else { return noted };
        let (source, destination) = self.ends(&packet);
        noted.egress_elsewhere |= source.is_none();
        let datagram = packet.kind == Kind::Flow && packet.protocol != TCP;
        if !datagram || packet.piece == Piece::Later || self.side(&packet) != Began::Unknown {
            return noted;
        }
        let key = self.key(&packet);
        match self.verdict.reason {
            // What answers goes by its flow, and so does a pod's own packet that came back.
            Reason::EgressDenied | Reason::IngressDenied
                if !self.is_flow(&key, Some(source), destination)
                    && !self.is_flow(&key.on(Leg::Returned), None, destination)
                    && !self.is_flow(&key.reversed(), Some(destination), source) =>
            {
                noted.denied = Some(packet.flow_key());
            }
            Reason::Allowed | Reason::NotIsolated => {
                noted.goes_on = Some(packet.flow_key().reversed());
            }
            _ => {}
        }
        noted
    }

    /// The key that the packet has where it leaves.
    pub(super) fn key(&self, packet: &Packet) -> FlowKey {
        let key = packet.flow_key();
        if self.is_stacked() { key.on(Leg::Stacked) } else { key }
    }

    /// Whether the packet is judged where it comes to its end: at a pod, or a container that is
    /// nobody's.
    pub(super) fn at_pod(&self) -> bool {
        self.hook == Hook::ToPod
    }
}
