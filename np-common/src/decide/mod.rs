//! The verdict.
//!
//! A pod is identified where its packet enters the node (`from_*`), and the verdict falls where
//! the packet leaves it (`to_*`): after DNAT, so the destination judged is the real one. Replies
//! are recognised at `from_*`, before NAT is undone.
//!
//! ```text
//!  from_pod     prove the source ─ reply of a flow? ─ tag the packet with its pod
//!  from_uplink                     reply of a flow? ─ tag it as entered
//!  to_pod       own, reply, hairpin pass ─ flow known? ─ judge sender's egress and pod's ingress
//!  to_uplink    own, reply, transit pass ─ flow known? ─ to a tunnel? ─ judge sender's egress
//! ```
//!
//! An ICMP error is of the flow that the packet it quotes is of; a fragment after the first, of the
//! flow that the first one is of.

mod flows;
mod judge;

use flows::{entered, leaving};
use judge::{Tuple, isolated, to_tunnel};

use crate::addr::Addr;
use crate::config::Config;
use crate::direction::Hook;
use crate::endpoint::{EndpointId, Iface, PolicyWord, Role};
use crate::flow::{Flow, FlowKey, Time};
use crate::fragment::{FragmentKey, PortPair};
use crate::packet::{self, Frame, Kind, Packet, PacketReader};
use crate::rules::{ClassId, RuleKey};
use crate::tag::Tag;
use crate::tunnel::Encapsulation;
use crate::verdict::{Reason, Verdict};

/// The maps, as the verdict sees them: BPF maps in the kernel, ordered maps elsewhere.
pub trait Maps {
    fn config(&self) -> Config;
    /// [`Iface::EMPTY`] for a device without an entry.
    fn iface(&self, ifindex: u32) -> Iface;
    /// Whether the endpoint's own addresses include this one.
    fn owns(&self, id: EndpointId, addr: &Addr) -> bool;
    fn policy(&self, id: EndpointId) -> PolicyWord;
    /// The endpoint that has this address; [`EndpointId::NONE`] when none has.
    fn local(&self, addr: &Addr) -> EndpointId;
    /// Whether the endpoint may send from this address although it is not its own.
    fn forwards(&self, id: EndpointId, addr: &Addr) -> bool;
    /// The class of the longest prefix that covers the address.
    fn class(&self, addr: &Addr) -> ClassId;
    /// Whether the longest matching rule allows.
    fn allows(&self, key: &RuleKey) -> bool;
    /// Whether a tunnel of this node unwraps such packets.
    fn unwraps(&self, encapsulation: Encapsulation) -> bool;
    /// Runs `f` on the flow in place; none when there is no such flow.
    fn with_flow<T>(&self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> T) -> Option<T>;
    fn record(&self, key: &FlowKey, flow: Flow);
    /// What a first fragment left for the later ones.
    fn ports(&self, key: &FragmentKey) -> Option<PortPair>;
    fn record_ports(&self, key: &FragmentKey, ports: PortPair);
}

/// What the kernel says about a packet beside its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    pub ifindex: u32,
    /// The device by which the packet entered the node; 0 for what the node made, and for some
    /// packets that it did not.
    pub ingress_ifindex: u32,
    pub tag: Tag,
    /// Host byte order.
    pub ethertype: u16,
    pub time: Time,
}

impl Context {
    /// Whether the node itself made the packet. Never a question of addresses: the node's own
    /// resets can bear a Service's address, and a masqueraded client bears the node's. The device
    /// alone proves nothing either: re-fragmented IPv6 loses it (ip6_copy_metadata,
    /// net/ipv6/ip6_output.c), but keeps the tag.
    #[inline(always)]
    const fn own(&self) -> bool {
        self.ingress_ifindex == 0 && self.tag.is_none()
    }
}

/// Judges a packet at a hook.
#[inline(always)]
pub fn decide<M: Maps, R: PacketReader + ?Sized>(
    hook: Hook,
    maps: &M,
    reader: &R,
    context: &Context,
) -> Verdict {
    match hook {
        Hook::FromPod => from_pod(maps, reader, context),
        Hook::ToPod => to_pod(maps, reader, context),
        Hook::FromUplink => from_uplink(maps, reader, context),
        Hook::ToUplink => to_uplink(maps, reader, context),
    }
}

#[inline(always)]
fn from_pod<M: Maps, R: PacketReader + ?Sized>(maps: &M, reader: &R, context: &Context) -> Verdict {
    let iface = maps.iface(context.ifindex);
    let tag = match iface.role() {
        Some(Role::Pod) => Tag::of(iface.endpoint()),
        Some(Role::Foreign) => return Verdict { reason: Reason::Foreign, tag: Tag::ENTERED },
        // A device that has this program and no entry is one we know too little about.
        Some(Role::Pending | Role::Uplink | Role::Tunnel) | None => Tag::ENTERED,
    };
    let mut packet = match packet::parse(reader, context.ethertype, packet::ETH_HLEN) {
        Ok(Frame::Ip(packet)) => packet,
        Ok(Frame::Arp) => {
            let sender = packet::arp_sender(reader, packet::ETH_HLEN);
            let claims =
                |addr: Addr| !addr.is_unspecified_v4() && !is_of(maps, tag.endpoint(), &addr);
            let foreign = !tag.entered() && sender.is_none_or(claims);
            let reason = if foreign { Reason::AddressClaim } else { Reason::Arp };
            return Verdict { reason, tag };
        }
        // Two VLAN tags of id 0 are taken off behind this hook: what is in them would go on
        // with its source unproven.
        Ok(Frame::Other) => return Verdict { reason: Reason::Ethertype, tag },
        Err(error) => return Verdict { reason: error.into(), tag },
    };
    if tag.entered() {
        return Verdict { reason: pending_reason(maps, &packet), tag };
    }
    if packet.kind == Kind::RouterClaim {
        return Verdict { reason: Reason::RouterClaim, tag };
    }
    let id = tag.endpoint();
    let on_link = matches!(packet.kind, Kind::NeighborDiscovery | Kind::MulticastListener);
    let unspecified = packet.src.is_unspecified() && on_link;
    if !(unspecified || packet.src.is_v6_link_local() || is_of(maps, id, &packet.src)) {
        return Verdict { reason: Reason::SourceAddress, tag };
    }
    if packet.kind == Kind::NeighborClaim {
        let of_the_pod = packet::claimed(reader, &packet)
            .is_some_and(|addr| addr.is_v6_link_local() || is_of(maps, id, &addr));
        if !of_the_pod {
            return Verdict { reason: Reason::AddressClaim, tag };
        }
    }
    entered(maps, reader, &mut packet, id, tag, context.time)
}

/// Whether an address is the endpoint's, one of the two that are in it or another, or one that it
/// forwards for. Whatever it may forward for, never does it speak as another pod of the node.
#[inline(always)]
fn is_of<M: Maps>(maps: &M, id: EndpointId, addr: &Addr) -> bool {
    if maps.owns(id, addr) {
        return true;
    }
    let owner = maps.local(addr);
    if !owner.is_none() {
        return owner == id;
    }
    let nobody = addr.is_unspecified() || addr.is_unspecified_v4();
    !nobody && maps.forwards(id, addr)
}

#[inline(always)]
fn from_uplink<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Verdict {
    let tag = Tag::ENTERED;
    let iface = maps.iface(context.ifindex);
    // A pod's tag survives decapsulation, while what another node wrapped came in by a device
    // that tagged it as entered.
    if iface.role() == Some(Role::Tunnel) && !context.tag.endpoint().is_none() {
        return Verdict { reason: Reason::TunnelForged, tag };
    }
    match packet::parse(reader, context.ethertype, network_offset(iface)) {
        Ok(Frame::Ip(mut packet)) => {
            entered(maps, reader, &mut packet, EndpointId::NONE, tag, context.time)
        }
        Ok(Frame::Arp) => Verdict { reason: Reason::Arp, tag },
        Ok(Frame::Other) => Verdict { reason: Reason::NotIp, tag },
        // It is the node's to refuse, and to_pod's if it is for a pod.
        Err(_) => Verdict { reason: Reason::Entered, tag },
    }
}

#[inline(always)]
fn to_pod<M: Maps, R: PacketReader + ?Sized>(maps: &M, reader: &R, context: &Context) -> Verdict {
    let tag = context.tag;
    let pass = |reason| Verdict { reason, tag };
    if context.own() {
        return pass(Reason::Own);
    }
    if tag.flow_ok() {
        return pass(Reason::ReplyPassed);
    }
    let iface = maps.iface(context.ifindex);
    let role = iface.role();
    if role == Some(Role::Foreign) {
        return pass(Reason::Foreign);
    }
    let mut packet = match packet::parse(reader, context.ethertype, packet::ETH_HLEN) {
        Ok(Frame::Ip(packet)) => packet,
        Ok(Frame::Arp) => return pass(Reason::Arp),
        Ok(Frame::Other) => return pass(Reason::Ethertype),
        Err(error) => return pass(error.into()),
    };
    if role != Some(Role::Pod) {
        return pass(pending_reason(maps, &packet));
    }
    let id = iface.endpoint();
    if let Some(reason) = link_reason(&packet) {
        return pass(reason);
    }
    // By the tag alone: after masquerade the source address is the node's.
    if tag.endpoint() == id {
        return pass(Reason::Hairpin);
    }
    let source = sender(maps, context, &packet);
    pass(leaving(maps, reader, &mut packet, source, id, context))
}

#[inline(always)]
fn to_uplink<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Verdict {
    let tag = context.tag;
    let pass = |reason| Verdict { reason, tag };
    if context.own() {
        return pass(Reason::Own);
    }
    if tag.flow_ok() && !tag.may_wrap() {
        return pass(Reason::ReplyPassed);
    }
    if tag.egress_judged() {
        return pass(Reason::EgressJudged);
    }
    if tag.entered() {
        return pass(Reason::Transit);
    }
    // What passes here passes for good: the packet may be wrapped by a tunnel next, and what comes
    // out of that is not the pod's own.
    let judged = |reason| Verdict { reason, tag: tag.with_egress_judged() };
    let iface = maps.iface(context.ifindex);
    let mut packet = match packet::parse(reader, context.ethertype, network_offset(iface)) {
        Ok(Frame::Ip(packet)) => packet,
        Ok(Frame::Arp) => return judged(Reason::Arp),
        Ok(Frame::Other) => return judged(Reason::NotIp),
        Err(error) => return pass(error.into()),
    };
    if let Some(reason) = link_reason(&packet) {
        return judged(reason);
    }
    if tag.flow_ok() {
        let wrapped = to_tunnel(maps, &Tuple::of(&packet.flow_key()));
        return judged(if wrapped { Reason::TunnelFromPod } else { Reason::ReplyPassed });
    }
    let source = sender(maps, context, &packet);
    if source.is_none() {
        return pass(Reason::Transit);
    }
    // Policy-based IPsec wrapped it on its way here, in an address of the node. All pods' packets
    // to one node then have the same tuple, which is no flow of any.
    let ipsec = matches!(packet.protocol, packet::ESP | packet::AUTHENTICATION);
    if ipsec && !is_of(maps, source, &packet.src) {
        let isolated = isolated(maps, source, EndpointId::NONE);
        return judged(if isolated { Reason::Unjudgeable } else { Reason::NotIsolated });
    }
    judged(leaving(maps, reader, &mut packet, source, EndpointId::NONE, context))
}

/// What always passes between neighbours, whatever policy says.
#[inline(always)]
fn link_reason(packet: &Packet) -> Option<Reason> {
    match packet.kind {
        Kind::NeighborDiscovery | Kind::NeighborClaim => Some(Reason::NeighborDiscovery),
        Kind::MulticastListener => Some(Reason::MulticastListener),
        Kind::Flow | Kind::Fragment | Kind::IcmpError | Kind::RouterClaim => None,
    }
}

#[inline(always)]
fn pending_reason<M: Maps>(maps: &M, packet: &Packet) -> Reason {
    if let Some(reason) = link_reason(packet) {
        return reason;
    }
    if maps.config().pending_allowed() { Reason::PendingAllowed } else { Reason::Pending }
}

#[inline(always)]
const fn network_offset(iface: Iface) -> u32 {
    if iface.is_layer3() { 0 } else { packet::ETH_HLEN }
}

/// The pod that sent a packet about to leave the node. The tag says it; where something wiped the
/// tag, the device it came by or its source address do: "no tag" is never "no policy".
#[inline(always)]
fn sender<M: Maps>(maps: &M, context: &Context, packet: &Packet) -> EndpointId {
    if !context.tag.is_none() {
        return context.tag.endpoint();
    }
    let iface = maps.iface(context.ingress_ifindex);
    if iface.role() == Some(Role::Pod) {
        return iface.endpoint();
    }
    maps.local(&packet.src)
}
