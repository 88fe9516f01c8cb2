//! Where packets enter: who sent it is proven, a reply is one, and nothing opens.

use std::net::IpAddr;

use np_common::addr::Addr;
use np_common::decide::Maps as _;
use np_common::direction::{Direction, Hook};
use np_common::endpoint::{EndpointId, Role};
use np_common::flow::{Flow, Leg};
use np_common::packet::{self, Frame, Kind, Packet, Piece};
use np_common::tag::Began;
use np_common::verdict::Reason;

use super::{Case, LINK};
use crate::carried::Carried;
use crate::link;

impl Case<'_> {
    pub(super) fn from(&self) {
        let reason = self.verdict.reason;
        assert_eq!(self.keys(self.old), self.keys(self.new), "flows open where they leave");
        let denied = |world: &crate::world::World| world.denied.borrow().len();
        assert_eq!(denied(self.old), denied(self.new), "denied where they leave");
        if self.hook == Hook::FromUplink && self.keeps_or_refuses() {
            return;
        }
        let sender = match (self.hook, self.pod()) {
            (Hook::FromPod, Some(id)) => id,
            _ => EndpointId::NONE,
        };
        self.bears_its_sender(sender);
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
        match (reason, self.quoted) {
            (Reason::Reply, _) if packet.piece != Piece::Later => self.is_reply(&packet, sender),
            (Reason::Related, Some(key)) => {
                let legs = [key, key.on(Leg::Returned)];
                let flow = legs.iter().find(|key| self.is_flow(key, None, sender));
                self.of_flow(flow.unwrap_or(&key), None, sender);
            }
            (Reason::Related, None) => panic!("an error that quotes nothing: {self:?}"),
            (Reason::EgressDenied | Reason::IngressDenied | Reason::TunnelFromPod, _) => {
                self.was_revoked(&packet, sender);
            }
            (Reason::ForgedSource, _) => {
                assert!(packet.piece == Piece::Later || self.may_be_forged(&packet), "{self:?}");
            }
            (Reason::Entered, _) if self.hook == Hook::FromUplink => {
                let plain = packet.piece != Piece::Later;
                assert!(!(plain && self.is_forged(&packet)), "{self:?}");
            }
            _ => {}
        }
        self.replies_are_known(&packet, sender);
    }

    /// A stacked device leaves what the one below found out; a tunnel lets nothing out that a pod of
    /// this node has wrapped.
    fn keeps_or_refuses(&self) -> bool {
        let reply = self.carried.receiver().is_some();
        match self.iface.role() {
            Some(Role::Stacked) if self.carried.is_from_pod() || reply => {
                assert_eq!(self.verdict.tag, self.context.tag, "{self:?}");
                assert_eq!(self.verdict.reason, Reason::Entered, "{self:?}");
                assert_eq!(self.old, self.new);
                true
            }
            Some(Role::Tunnel) if self.carried.is_from_pod() => {
                assert_eq!(self.verdict.reason, Reason::TunnelForged, "{self:?}");
                true
            }
            _ => {
                assert_ne!(self.verdict.reason, Reason::TunnelForged, "{self:?}");
                false
            }
        }
    }

    fn bears_its_sender(&self, sender: EndpointId) {
        let tag = Carried::of(self.verdict.tag);
        if [Reason::Reply, Reason::Related].contains(&self.verdict.reason) {
            let Carried::Reply { receiver, from_pod } = tag else { panic!("no reply: {self:?}") };
            assert_eq!(from_pod, !sender.is_none(), "{self:?}");
            let flows = self.old.flows.borrow();
            let known = flows.iter().any(|(key, flow)| {
                (flow.source(), flow.destination()) == (receiver, sender)
                    && self.history.lives(self.old, key, flow, self.clock)
            });
            assert!(known, "nobody's reply: {self:?}");
            return;
        }
        let Carried::Sent { sender: named, began, judged } = tag else { panic!("{self:?}") };
        assert_eq!(named, sender, "a packet bears who sent it: {self:?}");
        assert!(!judged, "{self:?}");
        let Some(packet) = self.ip() else { return };
        if packet.piece == Piece::Later {
            return;
        }
        // The other side has tried, and was denied: it began.
        let denied = packet.flow_key().reversed();
        let unsaid = self.began == Began::Unknown && packet.protocol != packet::TCP;
        match (began, self.verdict.reason) {
            (Began::Receiver, _) if unsaid => {
                let known = self.old.denied.borrow().iter().any(|(key, _)| *key == denied);
                assert!(known, "nobody was denied: {self:?}");
            }
            (Began::Unknown, Reason::Entered) if unsaid => {
                let known = self.history.is_denied(&denied, self.clock);
                assert!(!known, "who was denied began: {self:?}");
            }
            (Began::Unknown, _) => {}
            _ => assert_eq!(began, self.began, "{self:?}"),
        }
    }

    fn claim_is_true(&self, id: EndpointId) {
        let claim = match self.parsed {
            Ok(Frame::Arp) => true,
            Ok(Frame::Ip(packet)) => {
                matches!(packet.kind, Kind::NeighborClaim | Kind::NeighborDiscovery)
                    && !self.asks_for_routers(&packet)
            }
            _ => false,
        };
        let Some(claimed) = self.claimed else {
            assert!(!claim, "a claim of nothing: {self:?}");
            return;
        };
        if claimed.is_v6_link_local() {
            return self.is_proven(&claimed);
        }
        let anybody = claimed.is_unspecified_v4();
        assert!(anybody || self.is_of(id, &claimed), "an address not its own: {self:?}");
    }

    /// From no address: nothing is claimed by that.
    fn asks_for_routers(&self, packet: &Packet) -> bool {
        packet.src.is_unspecified() && self.bytes[54] == 133
    }

    fn is_proven(&self, link_local: &Addr) {
        let IpAddr::V6(address) = (*link_local).into() else { panic!("{link_local:?}") };
        let proven = link::is_formed_of_its_source(self.bytes, address.octets());
        assert!(proven, "another's link-local address: {self:?}");
    }

    fn source_is_proven(&self, packet: &Packet, id: EndpointId) {
        let on_link = LINK.contains(&self.verdict.reason);
        let own = self.is_of(id, &packet.src);
        let nobody = packet.src == Addr::UNSPECIFIED && on_link;
        assert!(own || packet.src.is_v6_link_local() || nobody, "a source not its own: {self:?}");
        assert_ne!(packet.kind, Kind::RouterClaim, "{self:?}");
    }

    /// A reply is of a flow to its sender and begins no connection of its own; its tag names who opened
    /// the flow.
    fn is_reply(&self, packet: &Packet, sender: EndpointId) {
        let key = packet.flow_key().reversed();
        let legs = [key, key.on(Leg::Returned)];
        let key = legs.iter().find(|key| self.is_flow(key, None, sender)).unwrap_or(&key);
        self.of_flow(key, None, sender);
        self.does_not_begin(key, packet);
        let flow = self.old.flow(key).expect("it is known");
        let receiver = Carried::of(self.verdict.tag).receiver();
        assert_eq!(receiver, Some(flow.source()), "{self:?}");
    }

    /// Denied where it enters is only what answers a flow that policy has taken back, or goes to a
    /// tunnel that there was not.
    fn was_revoked(&self, packet: &Packet, sender: EndpointId) {
        if packet.piece == Piece::Later {
            return;
        }
        let key = self.quoted.unwrap_or(packet.flow_key().reversed());
        let revoked = [key, key.on(Leg::Returned)].into_iter().any(|key| {
            self.is_flow(&key, None, sender)
                && self.old.flow(&key).is_some_and(|flow| {
                    let still = self.permitted(&key, flow.source(), sender);
                    let wraps = sender.is_none() && self.old.wraps(&key);
                    !still || wraps
                })
        });
        assert!(revoked, "{self:?}");
    }

    /// A packet from outside claims to be from an isolated pod, and is not that pod's own come back.
    fn is_forged(&self, packet: &Packet) -> bool {
        let key = packet.flow_key();
        self.claims_a_pods_address(packet, |owner| {
            self.is_flow(&key, Some(owner), EndpointId::NONE)
        })
    }

    /// The same, and no rounding of ticks can make a flow that excuses it lapse.
    fn may_be_forged(&self, packet: &Packet) -> bool {
        let key = packet.flow_key();
        let certain = |flow: Flow| self.history.certainly_lives(self.old, &key, &flow, self.clock);
        self.claims_a_pods_address(packet, |owner| {
            self.is_flow(&key, Some(owner), EndpointId::NONE)
                && self.old.flow(&key).is_some_and(certain)
        })
    }

    fn claims_a_pods_address(
        &self,
        packet: &Packet,
        has_left: impl Fn(EndpointId) -> bool,
    ) -> bool {
        let owner = self.old.local(&packet.src);
        let fresh = packet.protocol != packet::TCP || packet.tcp_flags & packet::ACK == 0;
        let isolated = self.old.is_isolated(owner, Direction::Ingress);
        fresh && !owner.is_none() && isolated && !has_left(owner)
    }

    /// What answers a flow that lives and is still allowed is a reply.
    fn replies_are_known(&self, packet: &Packet, sender: EndpointId) {
        let unjudged = Reason::Entered == self.verdict.reason
            || Reason::Foreign == self.verdict.reason && self.iface.role() == Some(Role::Foreign);
        if !unjudged || packet.kind != Kind::Flow || packet.piece == Piece::Later {
            return;
        }
        let key = packet.flow_key().reversed();
        let Some(flow) = self.old.flow(&key) else { return };
        let begins = self.begins_its_own(&flow, packet);
        let doubted = self.is_doubted(&flow);
        if flow.destination() == sender && !begins && !doubted {
            let allowed = self.permitted(&key, flow.source(), sender);
            let certain = self.history.certainly_lives(self.old, &key, &flow, self.clock);
            assert!(!(allowed && certain), "an answer that is not known: {self:?}");
        }
    }
}
