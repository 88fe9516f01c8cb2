//! Where packets leave: what is not the node's own, a reply at its receiver, or passing through, is
//! judged.

use np_common::decide::Maps as _;
use np_common::direction::{Direction, Hook};
use np_common::endpoint::{EndpointId, Role};
use np_common::flow::{Flow, FlowKey, Leg};
use np_common::packet::{self, ETH_P_IPV6, Kind, Packet, Piece};
use np_common::verdict::Reason;

use super::Case;
use crate::carried::Carried;
use crate::link::{self, Message};

/// Who sent a packet, as far as anything shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Pod(EndpointId),
    Outside,
    Unknown,
}

impl Case<'_> {
    pub(super) fn to(&self) {
        let reason = self.verdict.reason;
        self.tag_stays();
        assert_eq!(reason == Reason::Own, self.is_own(), "{self:?}");
        if reason == Reason::Own {
            assert!(self.context.ingress_ifindex == 0 && self.carried.is_lost(), "{self:?}");
            return;
        }
        match (self.hook, self.carried.receiver()) {
            (Hook::ToPod, Some(receiver))
                if self.is_known() && receiver == self.iface.endpoint() =>
            {
                assert_eq!(reason, Reason::ReplyPassed, "{self:?}");
                return;
            }
            (Hook::ToPod, _) if !self.is_known() => return,
            (Hook::ToUplink, _) if self.carried.is_judged() => {
                assert_eq!(reason, Reason::EgressJudged, "{self:?}");
                return;
            }
            (Hook::ToUplink, _) if self.carried.entered() => {
                assert_eq!(reason, Reason::Transit, "{self:?}");
                return;
            }
            _ => {}
        }
        let Some(packet) = self.ip() else { return };
        if self.is_unjudged(&packet) {
            return;
        }
        if self.hook == Hook::ToUplink
            && let Some(receiver) = self.carried.receiver()
            && (receiver.is_none() || self.old.owns(receiver, &packet.dst))
        {
            // A fragment without ports says nothing of tunnels.
            let ports = packet.piece != Piece::Later;
            let pods = self.carried.is_from_pod() || !receiver.is_none();
            let wraps = pods && self.old.wraps(&packet.flow_key());
            assert!(!ports || self.passes() != wraps, "{self:?}");
            return;
        }
        let (source, destination) = self.ends(&packet);
        if self.sender(&packet) == Sender::Outside && self.hook == Hook::ToUplink {
            assert_eq!(reason, Reason::Transit, "{self:?}");
            return;
        }
        assert_ne!(reason, Reason::Transit, "{self:?}");
        if let Some(expected) = self.of_nobody(&packet) {
            assert_eq!(reason, expected, "{self:?}");
            return;
        }
        assert_ne!(reason, Reason::UnknownSender, "{self:?}");
        if self.at_pod() && source == destination {
            let expected = if source.is_none() { Reason::Foreign } else { Reason::Hairpin };
            assert_eq!(reason, expected, "{self:?}");
            return;
        }
        let unshown = [Reason::Hairpin, Reason::Foreign].contains(&reason);
        assert!(!unshown, "{self:?}");
        if self.is_ipsec(&packet, source, destination) {
            return;
        }
        self.opens_one_flow(&packet, source, destination);
        if packet.kind == Kind::IcmpError {
            self.error(&packet, source, destination);
            return;
        }
        match packet.piece {
            Piece::Whole | Piece::First => self.judged(&packet, source, destination),
            Piece::Later if self.old.fragments.borrow().is_empty() => {
                assert!(reason != Reason::Established, "{self:?}");
                self.judged(&packet, source, destination);
            }
            Piece::Later => {}
        }
    }

    /// Nothing but a judgement where the path ends changes what a packet carries.
    fn tag_stays(&self) {
        if self.verdict.tag == self.context.tag {
            return;
        }
        let role = self.iface.role();
        let ends = self.hook == Hook::ToUplink && role != Some(Role::Stacked);
        let Carried::Sent { sender, judged, .. } = Carried::of(self.verdict.tag) else {
            panic!("{self:?}")
        };
        assert!(ends && judged, "{self:?}");
        let Some(packet) = self.ip() else { return };
        let (source, _) = self.ends(&packet);
        assert!(sender.is_none() || sender == source, "{self:?}");
    }

    /// The node made it: it came by no device, and what can lose its device is ruled out.
    fn is_own(&self) -> bool {
        let whole = self.ip().is_some_and(|packet| packet.piece == Piece::Whole);
        let v6 = self.context.ethertype == ETH_P_IPV6;
        self.context.ingress_ifindex == 0
            && self.carried.is_lost()
            && (self.context.socket || !v6 || whole)
    }

    /// What passes between neighbours. A pod's report is of no use to another.
    fn is_unjudged(&self, packet: &Packet) -> bool {
        if packet.src.is_v4() {
            return false;
        }
        let message = link::message(self.behind_link());
        let expected = match message {
            None => return false,
            Some(Message::Report) if self.at_pod() => return false,
            Some(Message::Report | Message::Query) => Reason::MulticastListener,
            Some(Message::Solicitation | Message::Advertisement) => Reason::NeighborDiscovery,
        };
        let replied = self.hook == Hook::ToUplink && self.verdict.reason == Reason::ReplyPassed;
        assert!(replied || self.verdict.reason == expected, "{self:?}");
        true
    }

    fn sender(&self, packet: &Packet) -> Sender {
        let by = self.old.iface(self.context.ingress_ifindex);
        match self.carried {
            Carried::Sent { sender, .. } if !sender.is_none() => Sender::Pod(sender),
            Carried::Sent { .. } | Carried::Reply { from_pod: false, .. } => Sender::Outside,
            Carried::Reply { from_pod: true, .. } => match (by.role(), self.old.local(&packet.src))
            {
                (Some(Role::Pod), _) => Sender::Pod(by.endpoint()),
                (_, owner) if owner.is_none() => Sender::Unknown,
                (_, owner) => Sender::Pod(owner),
            },
            Carried::Lost => match by.role() {
                Some(Role::Pod) => match self.old.local(&packet.src) {
                    owner if owner.is_none() || owner == by.endpoint() => {
                        Sender::Pod(by.endpoint())
                    }
                    _ => Sender::Unknown,
                },
                Some(Role::Uplink | Role::Tunnel | Role::Foreign) => Sender::Outside,
                Some(Role::Pending | Role::Stacked) | None => Sender::Unknown,
            },
        }
    }

    /// Source and destination as the node knows them.
    pub(super) fn ends(&self, packet: &Packet) -> (EndpointId, EndpointId) {
        let destination = if self.at_pod() { self.iface.endpoint() } else { EndpointId::NONE };
        let source = match self.sender(packet) {
            Sender::Pod(id) => id,
            Sender::Outside | Sender::Unknown => EndpointId::NONE,
        };
        (source, destination)
    }

    /// What becomes of a packet of which nothing shows who sent it. It does not pass for the pod whose
    /// address it has; to a pod it passes for one from outside, if its tag is lost.
    fn of_nobody(&self, packet: &Packet) -> Option<Reason> {
        if self.sender(packet) != Sender::Unknown {
            return None;
        }
        if !self.old.local(&packet.src).is_none() {
            return Some(Reason::ForgedSource);
        }
        let from_outside = self.at_pod() && self.carried.is_lost();
        (!from_outside).then_some(Reason::UnknownSender)
    }

    /// Policy-based IPsec of the node hides what it wraps.
    fn is_ipsec(&self, packet: &Packet, source: EndpointId, destination: EndpointId) -> bool {
        let ipsec = matches!(packet.protocol, packet::ESP | packet::AUTHENTICATION);
        if self.at_pod() || !ipsec || self.is_of(source, &packet.src) {
            return false;
        }
        let isolated = self.either_isolated(source, destination);
        let expected = if isolated { Reason::Unjudgeable } else { Reason::NotIsolated };
        assert_eq!(self.verdict.reason, expected, "{self:?}");
        assert_eq!(self.keys(self.old), self.keys(self.new), "no flow of any pod: {self:?}");
        true
    }

    /// An error about a reply of a flow goes with the flow; any other only where nobody is isolated.
    fn error(&self, packet: &Packet, source: EndpointId, destination: EndpointId) {
        let subject = if self.carried.is_judged() { EndpointId::NONE } else { source };
        let isolated = self.either_isolated(subject, destination);
        match (self.verdict.reason, self.quoted) {
            (Reason::Related, Some(quoted)) => {
                let key = quoted.reversed();
                let key = if self.is_stacked() { key.on(Leg::Stacked) } else { key };
                self.of_flow(&key, Some(source), destination);
            }
            (Reason::IcmpError, _) => assert!(isolated, "{self:?}"),
            (Reason::NotIsolated, _) => assert!(!isolated, "{self:?}"),
            (Reason::ForgedSource, _) => assert!(self.may_be_forged_here(packet), "{self:?}"),
            (Reason::TunnelFromPod, Some(quoted)) => {
                assert!(destination.is_none() && self.old.wraps(&quoted.reversed()), "{self:?}");
            }
            (other, _) => panic!("{other:?} on an error: {self:?}"),
        }
    }

    /// The flow that the packet answers although its tag is lost: one that nothing translated, that
    /// its receiver opened to its sender.
    fn answered(
        &self,
        packet: &Packet,
        source: EndpointId,
        destination: EndpointId,
    ) -> Option<FlowKey> {
        let key = self.key(packet).reversed();
        let answered = self.carried.is_lost()
            && packet.kind == Kind::Flow
            && self.is_flow(&key, Some(destination), source)
            && self.old.flow(&key).is_some_and(|flow| !self.begins_its_own(&flow, packet));
        answered.then_some(key)
    }

    /// From outside nobody has the address of a pod of this node, but that pod's own packets that come
    /// back.
    fn is_forged_here(&self, packet: &Packet) -> bool {
        let key = packet.flow_key();
        let left = |owner| self.is_flow(&key, Some(owner), EndpointId::NONE);
        self.claims_a_local_address(packet, left)
    }

    /// The same, and no rounding of ticks can make a flow that excuses it lapse.
    fn may_be_forged_here(&self, packet: &Packet) -> bool {
        let key = packet.flow_key();
        let certain = |flow: Flow| self.history.certainly_lives(self.old, &key, &flow, self.clock);
        let left = |owner| {
            self.is_flow(&key, Some(owner), EndpointId::NONE)
                && self.old.flow(&key).is_some_and(certain)
        };
        self.claims_a_local_address(packet, left)
    }

    /// At an isolated pod or in the name of one, from outside, unless its owner has sent it out before.
    fn claims_a_local_address(
        &self,
        packet: &Packet,
        has_left: impl Fn(EndpointId) -> bool,
    ) -> bool {
        let owner = self.old.local(&packet.src);
        let destination = self.iface.endpoint();
        let (source, _) = self.ends(packet);
        let left = packet.kind == Kind::Flow && has_left(owner);
        let isolated =
            [owner, destination].iter().any(|id| self.old.is_isolated(*id, Direction::Ingress));
        let outside = source.is_none() && self.at_pod() && !destination.is_none();
        outside && !owner.is_none() && isolated && !left
    }

    /// Whether the frame at a pod's device is for that pod.
    fn is_addressed(&self, packet: &Packet, destination: EndpointId) -> bool {
        let group = self.bytes.first().is_some_and(|first| first & 1 != 0);
        let dst = &packet.dst;
        destination.is_none()
            || self.is_of(destination, dst)
            || dst.is_v6_link_local()
            || dst.is_multicast()
            || group
    }

    /// The verdict on a tuple is what policy says of it, and tunnels, and forged sources.
    fn judged(&self, packet: &Packet, source: EndpointId, destination: EndpointId) {
        let reason = self.verdict.reason;
        let key = &self.key(packet);
        let subject = if self.carried.is_judged() { EndpointId::NONE } else { source };
        let ingress = self.old.permits(destination, Direction::Ingress, key);
        let egress = self.old.permits(subject, Direction::Egress, key);
        let forged = self.is_forged_here(packet);
        let wraps = destination.is_none() && self.old.wraps(key);
        let is_flow = packet.kind == Kind::Flow;
        let known = is_flow
            && self.is_flow(key, Some(source), destination)
            && self.old.flow(key).is_some_and(|flow| !self.is_doubted(&flow));
        let answered = self.answered(packet, source, destination);
        let returned = key.on(Leg::Returned);
        let owner = self.old.local(&packet.src);
        let came_back = self.at_pod()
            && is_flow
            && source.is_none()
            && self.is_flow(&packet.flow_key(), Some(owner), EndpointId::NONE);
        match reason {
            Reason::Established if known => self.of_flow(key, Some(source), destination),
            Reason::Established => {
                assert!(came_back, "{self:?}");
                self.of_flow(&returned, Some(owner), destination);
            }
            Reason::ReplyPassed => {
                let Some(answered) = answered else { panic!("of no flow: {self:?}") };
                self.of_flow(&answered, Some(destination), source);
                self.does_not_begin(&answered, packet);
                let wraps = !self.at_pod() && self.old.wraps(key);
                assert!(!wraps, "a pod wrapped it: {self:?}");
            }
            Reason::Allowed | Reason::NotIsolated => {
                assert!(ingress && egress && !forged && !wraps, "{self:?}");
                let isolated = self.either_isolated(subject, destination);
                assert!(reason == Reason::Allowed || !isolated, "{self:?}");
                let known = known || came_back && self.is_flow(&returned, Some(owner), destination);
                let elsewhere = isolated && !self.is_addressed(packet, destination);
                assert!(known || !elsewhere, "a frame for another: {self:?}");
            }
            Reason::IngressDenied | Reason::EgressDenied => {
                let direction = if reason == Reason::IngressDenied { ingress } else { egress };
                let revoked =
                    answered.is_some_and(|flow| !self.permitted(&flow, destination, source));
                assert!(!direction || revoked, "{self:?}");
                self.stays_denied(packet, source, destination);
            }
            Reason::Fragment => {
                assert!(!ingress || !egress, "{self:?}");
            }
            Reason::ForgedSource => assert!(self.may_be_forged_here(packet), "{self:?}"),
            Reason::TunnelFromPod => {
                let other = answered.is_some_and(|flow| source.is_none() && self.old.wraps(&flow));
                assert!(wraps || other || self.old.wraps(key) && !self.at_pod(), "{self:?}");
            }
            Reason::NotAddressed => {
                assert!(!known && !self.is_addressed(packet, destination), "{self:?}");
                let isolated = self.either_isolated(subject, destination);
                assert!(isolated, "{self:?}");
            }
            other => panic!("{other:?} on a tuple that was to be judged: {self:?}"),
        }
    }

    /// A flow that policy has taken back is known as denied for as long as somebody sends.
    fn stays_denied(&self, packet: &Packet, source: EndpointId, destination: EndpointId) {
        let key = self.key(packet);
        let Some(flow) = self.old.flow(&key) else { return };
        let certain = self.history.certainly_lives(self.old, &key, &flow, self.clock);
        let doubted = self.is_doubted(&flow);
        let ends = (flow.source(), flow.destination()) == (source, destination);
        let answers = self.answered(packet, source, destination).is_some();
        if certain && ends && !doubted && !answers && packet.kind == Kind::Flow {
            let after = self.new.flow(&key).expect("it is known");
            assert_eq!(after.seen, self.context.time.now, "it lapses while it is denied: {self:?}");
        }
    }
}
