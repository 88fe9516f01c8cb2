//! The verdict on any sequence of packets, over any tables, while policy changes.

use np_common::addr::Addr;
use np_common::decide::{self, Context, Maps as _};
use np_common::direction::{Direction, Hook};
use np_common::endpoint::{EndpointId, Iface, Role};
use np_common::flow::{Flow, FlowKey, State, Time};
use np_common::packet::{
    self, ETH_HLEN, ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6, Frame, Kind, Packet, ParseError, Piece,
};
use np_common::tag::Tag;
use np_common::tunnel::Encapsulation;
use np_common::verdict::{Action, Reason, Verdict};

use crate::frame;
use crate::scenario::{Arrival, Scenario, Step, Tuple};
use crate::world::{self, World};

/// CONFIG_HZ.
const HZ: [u32; 4] = [100, 250, 300, 1000];
/// Seconds; ticks must not come round to where a flow was last seen.
const WAITS: [u32; 8] = [0, 1, 30, 120, 121, 181, 3600, 5 * 24 * 3600];
const STEPS: usize = 16;

pub fn check(scenario: &Scenario) {
    let mut world = World::new(scenario);
    let mut time = Time { now: scenario.start, hz: HZ[usize::from(scenario.hz % 4)] };
    let mut tag = Tag::NONE;
    let mut seen = Seen::default();
    // After all ticks that a u32 counts a flow cannot be told from one seen a moment ago.
    let mut ticks_left: u32 = u32::MAX - 2 * 1000;
    for step in scenario.steps.iter().take(STEPS) {
        match *step {
            Step::Packet(arrival) => {
                tag = one_packet(&world, &arrival, time, tag, &mut seen);
            }
            Step::Wait(choice) => {
                let ticks = WAITS[usize::from(choice % 8)] * time.hz;
                let Some(left) = ticks_left.checked_sub(ticks) else { return };
                ticks_left = left;
                time.now = time.now.wrapping_add(ticks);
            }
            Step::Change { endpoint, to, tunnels } => world.change(endpoint, to, tunnels),
            Step::AddRule(rule) => world.add(rule),
            Step::RemoveRules => world.remove_rules(),
        }
    }
}

/// What earlier packets did that later verdicts may rest on.
#[derive(Default)]
struct Seen {
    /// Flows that a packet moved whose egress had been judged before: they lack that judgement.
    egress_judged: Vec<FlowKey>,
    packets: Vec<(Tuple, u16)>,
}

/// Judges one packet; returns the tag it goes on with.
fn one_packet(world: &World, arrival: &Arrival, time: Time, before: Tag, seen: &mut Seen) -> Tag {
    let hook = Hook::ALL[usize::from(arrival.hook % 4)];
    let (packet, ethertype) = arrival.packet.related(ethertype(arrival.ethertype), &seen.packets);
    seen.packets.push((packet.tuple, ethertype));
    let context = Context {
        ifindex: u32::from(arrival.ifindex % 8),
        ingress_ifindex: u32::from(arrival.ingress_ifindex % 8),
        tag: tag(arrival.tag, before),
        ethertype,
        time,
    };
    let iface = world.iface(context.ifindex);
    let layer3 = iface.is_layer3() && matches!(hook, Hook::FromUplink | Hook::ToUplink);
    let bytes = frame::bytes(&packet, context.ethertype != ETH_P_IPV6, layer3);

    let old = world.clone();
    let verdict = decide::decide(hook, world, bytes.as_slice(), &context);
    let again = old.clone();
    assert_eq!(decide::decide(hook, &again, bytes.as_slice(), &context), verdict, "same verdict");
    assert_eq!(&again, world, "same state");

    if context.tag.egress_judged() && !hook.is_tc_ingress() {
        let flows = world.flows.borrow();
        let moved = flows.iter().filter(|(key, flow)| old.flow(key) != Some(*flow));
        seen.egress_judged.extend(moved.map(|(key, _)| *key));
    }

    let offset = if layer3 { 0 } else { ETH_HLEN };
    let parsed = packet::parse(bytes.as_slice(), context.ethertype, offset);
    let quoted = match parsed {
        Ok(Frame::Ip(error)) if error.kind == Kind::IcmpError => {
            packet::quoted(bytes.as_slice(), &error)
        }
        _ => None,
    };
    let claimed = match parsed {
        Ok(Frame::Arp) => packet::arp_sender(bytes.as_slice(), offset),
        Ok(Frame::Ip(packet)) if packet.kind == Kind::NeighborClaim => {
            packet::claimed(bytes.as_slice(), &packet)
        }
        _ => None,
    };
    let case =
        Case { hook, context, iface, old: &old, new: world, parsed, quoted, claimed, verdict };
    case.any();
    match hook {
        Hook::FromPod | Hook::FromUplink => case.from(seen),
        Hook::ToPod | Hook::ToUplink => case.to(seen),
    }
    verdict.tag
}

/// The one that the last packet left with, or any.
fn tag(choice: u8, before: Tag) -> Tag {
    let tag = match choice % 8 {
        0 | 1 => return before,
        2 => Tag::NONE,
        3 | 4 => Tag::ENTERED,
        other => Tag::of(world::endpoint_id(other)),
    };
    let tag = if choice & 8 != 0 { tag.with_egress_judged() } else { tag };
    let tag = if choice & 16 != 0 { tag.with_flow_ok() } else { tag };
    if choice & 32 != 0 { tag.with_may_wrap() } else { tag }
}

fn ethertype(choice: u8) -> u16 {
    match choice % 16 {
        0 => ETH_P_ARP,
        1 => 0x8100,
        even if even % 2 == 0 => ETH_P_IPV4,
        _ => ETH_P_IPV6,
    }
}

/// One packet and what came of it.
#[derive(Debug)]
struct Case<'a> {
    hook: Hook,
    context: Context,
    iface: Iface,
    old: &'a World,
    new: &'a World,
    parsed: Result<Frame, ParseError>,
    /// What an ICMP error quotes.
    quoted: Option<FlowKey>,
    claimed: Option<Addr>,
    verdict: Verdict,
}

/// What always passes, whoever asks.
const LINK: [Reason; 3] = [Reason::Arp, Reason::NeighborDiscovery, Reason::MulticastListener];

impl Case<'_> {
    fn passes(&self) -> bool {
        self.verdict.action() == Action::Pass
    }

    fn ip(&self) -> Option<Packet> {
        match self.parsed {
            Ok(Frame::Ip(packet)) => Some(packet),
            _ => None,
        }
    }

    /// The pod that the device is of.
    fn pod(&self) -> Option<EndpointId> {
        (self.iface.role() == Some(Role::Pod)).then(|| self.iface.endpoint())
    }

    /// At every hook.
    fn any(&self) {
        let reason = self.verdict.reason;
        assert!(Reason::ALL.contains(&reason));
        assert_eq!((reason as u8) < 32, self.passes(), "{self:?}");
        assert!(reason != Reason::Allowed || self.old.has_rules(), "no rule allows it: {self:?}");
        if !self.passes() {
            assert_eq!(self.old.flows, self.new.flows, "a flow of a dropped packet: {self:?}");
        }
        let pod_hook = matches!(self.hook, Hook::FromPod | Hook::ToPod);
        let known = matches!(self.iface.role(), Some(Role::Pod | Role::Foreign));
        if pod_hook && !known && self.passes() {
            let always = [Reason::Own, Reason::ReplyPassed].contains(&reason);
            let pending = reason == Reason::PendingAllowed && self.old.config().pending_allowed();
            assert!(always || pending || LINK.contains(&reason), "unknown device: {self:?}");
        }
        if matches!(self.parsed, Err(_) | Ok(Frame::Other)) && pod_hook && self.passes() {
            let unread = [Reason::Own, Reason::ReplyPassed, Reason::Foreign];
            assert!(unread.contains(&reason), "not understood: {self:?}");
        }
    }

    /// Where packets enter.
    fn from(&self, seen: &Seen) {
        let Verdict { reason, tag } = self.verdict;
        let sender = match (self.hook, self.pod()) {
            (Hook::FromPod, Some(id)) => Tag::of(id),
            _ => Tag::ENTERED,
        };
        let replies = [Reason::Reply, Reason::Related].contains(&reason);
        assert_eq!(tag.flow_ok(), replies, "{self:?}");
        assert!(!tag.egress_judged(), "{self:?}");
        assert!(!tag.may_wrap() || tag.flow_ok() && self.hook == Hook::FromPod, "{self:?}");
        let flags = |tag: Tag| {
            let tag = if self.verdict.tag.flow_ok() { tag.with_flow_ok() } else { tag };
            if self.verdict.tag.may_wrap() { tag.with_may_wrap() } else { tag }
        };
        assert_eq!(tag, flags(sender), "a packet bears who sent it: {self:?}");
        assert_eq!(self.keys(self.old), self.keys(self.new), "flows open where they leave");

        let tunnel = self.hook == Hook::FromUplink && self.iface.role() == Some(Role::Tunnel);
        if tunnel && !self.context.tag.endpoint().is_none() {
            assert_eq!(reason, Reason::TunnelForged, "{self:?}");
        }
        if self.hook == Hook::FromPod
            && let Some(id) = self.pod()
            && self.passes()
        {
            self.claim_is_true(id);
            if let Some(packet) = self.ip() {
                self.source_is_proven(&packet, id);
            }
        }
        let Some(packet) = self.ip() else { return };
        let id = sender.endpoint();
        match (reason, self.quoted) {
            (Reason::Reply, _) if packet.piece != Piece::Later => {
                self.of_flow(&packet.flow_key().reversed(), None, id, seen);
            }
            (Reason::Related, Some(key)) => self.of_flow(&key, None, id, seen),
            (Reason::Related, None) => panic!("an error that quotes nothing: {self:?}"),
            _ => {}
        }
        // Of a later fragment only the first one's protocol counts (RFC 8200 section 4.5).
        let named = packet.piece != Piece::Later && Encapsulation::has(packet.protocol);
        if replies && !sender.endpoint().is_none() && named {
            assert!(tag.may_wrap(), "its tunnel is looked for where it leaves: {self:?}");
        }
    }

    fn is_of(&self, id: EndpointId, addr: &Addr) -> bool {
        let owner = self.old.local(addr);
        let nobody = addr.is_unspecified() || addr.is_unspecified_v4();
        let forwarded = owner.is_none() && !nobody && self.old.forwards(id, addr);
        self.old.owns(id, addr) || owner == id || forwarded
    }

    fn claim_is_true(&self, id: EndpointId) {
        let Some(claimed) = self.claimed else {
            assert_ne!(self.verdict.reason, Reason::Arp, "an ARP packet of nobody: {self:?}");
            return;
        };
        let anybody = claimed.is_unspecified_v4() || claimed.is_v6_link_local();
        assert!(anybody || self.is_of(id, &claimed), "an address not its own: {self:?}");
    }

    fn source_is_proven(&self, packet: &Packet, id: EndpointId) {
        let on_link = LINK.contains(&self.verdict.reason);
        let own = self.is_of(id, &packet.src);
        let nobody = packet.src.is_unspecified() && on_link;
        assert!(own || packet.src.is_v6_link_local() || nobody, "a source not its own: {self:?}");
        assert_ne!(packet.kind, Kind::RouterClaim, "{self:?}");
    }

    /// The packet passes as one of a flow: the flow is known, is of these ends, lives, and is still
    /// allowed. An error about one of its packets does not keep it alive.
    fn of_flow(
        &self,
        key: &FlowKey,
        source: Option<EndpointId>,
        destination: EndpointId,
        seen: &Seen,
    ) {
        let flow = self.old.flow(key).expect("the flow is known");
        let ends = (source.unwrap_or(flow.source()), destination);
        assert_eq!((flow.source(), flow.destination()), ends, "another's flow: {self:?}");
        self.lives(&flow);
        self.still_allowed(key, flow.source(), destination, seen);
        assert!(!destination.is_none() || !self.old.wraps(key), "to a tunnel: {self:?}");
        let after = self.new.flow(key).expect("the flow is still known");
        if !self.context.tag.egress_judged() {
            assert_eq!(after.generation, self.generation(), "{self:?}");
        }
        let kept = if self.quoted.is_some() { flow.seen } else { self.context.time.now };
        assert_eq!(after.seen, kept, "{self:?}");
    }

    /// Where packets leave.
    fn to(&self, seen: &Seen) {
        let Verdict { reason, tag } = self.verdict;
        let before = self.context.tag;
        let judged = self.hook == Hook::ToUplink && tag == before.with_egress_judged();
        assert!(tag == before || judged, "{self:?}");
        let own = self.context.ingress_ifindex == 0 && before.is_none();
        assert_eq!(reason == Reason::Own, own, "{self:?}");
        if own {
            return;
        }
        if reason == Reason::ReplyPassed {
            assert!(before.flow_ok(), "{self:?}");
        }
        let Some(packet) = self.ip() else { return };
        if before.flow_ok() {
            let wraps = self.hook == Hook::ToUplink
                && before.may_wrap()
                && !before.egress_judged()
                && !before.entered()
                && self.old.wraps(&packet.flow_key());
            assert_eq!(self.passes(), !wraps, "{self:?}");
            return;
        }
        let source = self.source(&packet);
        let destination = match (self.hook, self.pod()) {
            (Hook::ToPod, Some(id)) => id,
            (Hook::ToPod, None) => return,
            _ if before.entered() || before.egress_judged() || source.is_none() => return,
            _ => EndpointId::NONE,
        };
        if reason == Reason::Hairpin {
            assert_eq!(before.endpoint(), destination, "{self:?}");
            return;
        }
        if destination.is_none()
            && matches!(packet.protocol, packet::ESP | packet::AUTHENTICATION)
            && !self.is_of(source, &packet.src)
        {
            let isolated = self.old.is_isolated(source, Direction::Egress);
            let expected = if isolated { Reason::Unjudgeable } else { Reason::NotIsolated };
            assert_eq!(reason, expected, "{self:?}");
            assert_eq!(self.keys(self.old), self.keys(self.new), "no flow of any pod: {self:?}");
            return;
        }
        self.opens_one_flow(&packet, source, destination);
        if packet.kind == Kind::IcmpError {
            self.error(source, destination, seen);
        }
        match packet.piece {
            Piece::Whole | Piece::First if packet.kind == Kind::Flow => {
                self.judged(&packet.flow_key(), source, destination, seen);
            }
            Piece::Later if self.old.fragments.borrow().is_empty() => {
                assert!(reason != Reason::Established, "{self:?}");
                self.judged(&packet.flow_key(), source, destination, seen);
            }
            _ => {}
        }
    }

    /// An error about a reply of a flow goes with the flow; any other only where nobody is isolated.
    fn error(&self, source: EndpointId, destination: EndpointId, seen: &Seen) {
        let egress = !self.context.tag.egress_judged();
        let isolated = egress && self.old.is_isolated(source, Direction::Egress)
            || self.old.is_isolated(destination, Direction::Ingress);
        match (self.verdict.reason, self.quoted) {
            (Reason::Related, Some(key)) => {
                self.of_flow(&key.reversed(), Some(source), destination, seen);
            }
            (Reason::IcmpError, _) => assert!(isolated, "{self:?}"),
            (Reason::NotIsolated, _) => assert!(!isolated, "{self:?}"),
            (Reason::ForgedSource | Reason::TunnelFromPod, _) => {}
            (other, _) => panic!("{other:?} on an error: {self:?}"),
        }
    }

    /// The pod that sent the packet: by its tag; without one, by its device or its address.
    fn source(&self, packet: &Packet) -> EndpointId {
        let tag = self.context.tag;
        let iface = self.old.iface(self.context.ingress_ifindex);
        match iface.role() {
            _ if !tag.is_none() => tag.endpoint(),
            Some(Role::Pod) => iface.endpoint(),
            _ => self.old.local(&packet.src),
        }
    }

    /// The verdict on a tuple is what policy says of it, and tunnels, and forged sources.
    fn judged(&self, key: &FlowKey, source: EndpointId, destination: EndpointId, seen: &Seen) {
        let reason = self.verdict.reason;
        let entered = self.context.tag.entered();
        let ingress = self.old.permits(destination, Direction::Ingress, key);
        let egress =
            self.context.tag.egress_judged() || self.old.permits(source, Direction::Egress, key);
        let isolated = self.old.is_isolated(destination, Direction::Ingress);
        let forged = entered && isolated && !self.old.local(&key.src).is_none();
        let wraps = destination.is_none() && self.old.wraps(key);
        match reason {
            Reason::Established => self.of_flow(key, Some(source), destination, seen),
            Reason::Allowed | Reason::NotIsolated => {
                assert!(ingress && egress && !forged && !wraps, "{self:?}");
            }
            Reason::IngressDenied => assert!(!ingress, "{self:?}"),
            Reason::EgressDenied => assert!(!egress, "{self:?}"),
            Reason::Fragment => assert!(!ingress || !egress, "{self:?}"),
            Reason::ForgedSource => assert!(forged, "{self:?}"),
            Reason::TunnelFromPod => assert!(wraps, "{self:?}"),
            other => panic!("{other:?} on a tuple that was to be judged: {self:?}"),
        }
    }

    /// The flow was judged under this generation, so policy says of it now what it said then. Only
    /// its egress, or this packet's, can have been judged at another device.
    fn still_allowed(
        &self,
        key: &FlowKey,
        source: EndpointId,
        destination: EndpointId,
        seen: &Seen,
    ) {
        assert!(self.old.permits(destination, Direction::Ingress, key), "ingress: {self:?}");
        let elsewhere = self.context.tag.egress_judged() || seen.egress_judged.contains(key);
        let egress = self.old.permits(source, Direction::Egress, key);
        assert!(egress || elsewhere, "egress: {self:?}");
    }

    /// The flow has not been idle for too long.
    fn lives(&self, flow: &Flow) {
        let seconds = match flow.state() {
            State::Opening | State::Closing => 120,
            State::Established => 5 * 24 * 3600,
            State::Datagram => 180,
        };
        let Time { now, hz } = self.context.time;
        assert!(now.wrapping_sub(flow.seen) <= seconds * hz, "lapsed: {self:?}");
    }

    /// At most this packet's own flow is new, and only if policy was asked.
    fn opens_one_flow(&self, packet: &Packet, source: EndpointId, destination: EndpointId) {
        let (old, new) = (self.keys(self.old), self.keys(self.new));
        let Some(key) = new.iter().find(|key| !old.contains(key)) else {
            assert_eq!(old, new);
            return;
        };
        assert_eq!(new.len(), old.len() + 1, "{self:?}");
        let reasons = [Reason::Allowed, Reason::NotIsolated];
        assert!(reasons.contains(&self.verdict.reason), "{self:?}");
        assert!(matches!(packet.kind, Kind::Flow | Kind::Fragment), "{self:?}");
        let answers = packet.protocol == packet::TCP
            && packet.tcp_flags & (packet::SYN | packet::ACK) == packet::SYN | packet::ACK;
        assert!(!answers, "a flow of the side that answers: {self:?}");
        assert_eq!((key.src, key.dst), (packet.src, packet.dst), "{self:?}");
        let flow = self.new.flow(key).expect("it is new");
        assert_eq!((flow.source(), flow.destination()), (source, destination), "{self:?}");
        assert_eq!(flow.generation, self.generation(), "{self:?}");
    }

    fn keys(&self, world: &World) -> Vec<FlowKey> {
        world.flows.borrow().iter().map(|(key, _)| *key).collect()
    }

    fn generation(&self) -> u32 {
        self.old.config().generation()
    }
}
