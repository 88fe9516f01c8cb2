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
//!
//! [`full`] says all that; [`fast`] says the same of what most packets are, in fewer steps.

mod began;
mod case;
mod fast;
mod flows;
mod judge;

pub use case::{Case, Connection};
pub use fast::fast;

use core::ops::DerefMut;

use case::Ends;
use flows::{entered, leaving};
use judge::{Tuple, isolated, to_tunnel};

use crate::addr::Addr;
use crate::config::Config;
use crate::direction::Hook;
use crate::endpoint::{EndpointId, Iface, PolicyWord, Role};
use crate::flow::{Flow, FlowKey, Time};
use crate::fragment::{FragmentKey, PortPair};
use crate::packet::{self, Kind, Layer, Packet, PacketReader, Piece};
use crate::rules::{ClassId, RuleKey};
use crate::tag::Tag;
use crate::tunnel::Encapsulation;
use crate::verdict::{Reason, Verdict};

/// The maps, as the verdict sees them: BPF maps in the kernel, ordered maps elsewhere.
pub trait Maps {
    /// The node's configuration.
    fn config(&self) -> Config;
    /// [`Iface::EMPTY`] for a device without an entry.
    fn iface(&self, ifindex: u32) -> Iface;
    /// Whether the endpoint's own addresses include this one.
    fn owns(&self, id: EndpointId, addr: &Addr) -> bool;
    /// [`PolicyWord::FREE`] for an id that no pod is bound to.
    fn policy(&self, id: EndpointId) -> PolicyWord;
    /// Whether the id was bound to the pod that it is bound to now when this generation was in force.
    fn has_lived(&self, id: EndpointId, generation: u32) -> bool;
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
    /// The flow in its place; none when there is no such flow.
    fn flow(&self, key: &FlowKey) -> Option<impl DerefMut<Target = Flow>>;
    /// Runs `f` on the flow in place; none when there is no such flow.
    #[inline(always)]
    fn with_flow<T>(&self, key: &FlowKey, f: impl FnOnce(&mut Flow) -> T) -> Option<T> {
        self.flow(key).map(|mut flow| f(&mut flow))
    }
    /// Adds a flow, or puts it in the place of another with its key.
    fn record(&self, key: &FlowKey, flow: Flow);
    /// Whether a packet with this tuple was denied and that still counts, see
    /// [`crate::flow::Denied::counts`].
    fn denied(&self, key: &FlowKey, time: Time) -> bool;
    /// Notes that a packet with this tuple was denied.
    fn record_denied(&self, key: &FlowKey, time: Time);
    /// Runs `f` with a place for what is found out about a packet; none when there is no place. It holds
    /// what an earlier packet left there.
    fn with_case<T>(&self, f: impl FnOnce(&mut Case) -> T) -> Option<T> {
        let mut case = Case::EMPTY;
        Some(f(&mut case))
    }
    /// Makes the kernel's verifier forget what it knows of a case, so that it walks what follows once and
    /// not once for each way that led there.
    fn settled<'a>(&self, case: &'a mut Case) -> &'a mut Case {
        case
    }
    /// What a first fragment left for the later ones.
    fn ports(&self, key: &FragmentKey) -> Option<PortPair>;
    /// Leaves the ports of a first fragment to the later ones.
    fn record_ports(&self, key: &FragmentKey, ports: PortPair);
}

/// What the kernel says about a packet beyond its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The device that the hook is at.
    pub ifindex: u32,
    /// The device by which the packet entered the node; 0 for what the node made, and for some
    /// packets that it did not.
    pub ingress_ifindex: u32,
    /// Whether a socket of this kernel sent the packet. What a node forwards by routing belongs to
    /// none any more (`ip_rcv_core`, net/ipv4/ip_input.c, and its twin of IPv6).
    pub socket: bool,
    /// What the packet carries.
    pub tag: Tag,
    /// Host byte order.
    pub ethertype: u16,
    /// When the program runs.
    pub time: Time,
}

impl Context {
    /// Whether the node itself made the packet, as far as that is known without its headers. Never a
    /// question of addresses: the node's own resets can bear a Service's address, and a masqueraded
    /// client bears the node's.
    ///
    /// The device alone proves it, but for one kind of packet: fragments of IPv6 that the node makes
    /// of what it forwards lose theirs (`ip6_copy_metadata`, net/ipv6/ip6_output.c). They keep the
    /// tag, if nothing has written over that.
    #[inline(always)]
    const fn is_own(&self) -> bool {
        self.is_without_origin() && (self.socket || self.ethertype != packet::ETH_P_IPV6)
    }

    /// The rest of [`Context::is_own`], for what needs the headers.
    #[inline(always)]
    fn is_own_packet(&self, packet: &Packet) -> bool {
        self.is_without_origin() && packet.piece == Piece::Whole
    }

    #[inline(always)]
    const fn is_without_origin(&self) -> bool {
        self.ingress_ifindex == 0 && self.tag.is_lost()
    }
}

/// Who sent a packet.
enum Sender {
    Pod(EndpointId),
    /// Somebody who is not a pod of this node.
    Outside,
    /// A pod of this node, or somebody else: it entered by a device without a role, or nothing shows
    /// by which.
    Unknown,
}

/// Judges a packet at a hook.
#[inline(always)]
pub fn decide<M: Maps, R: PacketReader + ?Sized>(
    hook: Hook,
    maps: &M,
    reader: &R,
    context: &Context,
) -> Verdict {
    fast(hook, maps, reader, context).unwrap_or_else(|| full(hook, maps, reader, context))
}

/// The verdict on any packet, whatever [`fast`] says of it.
#[inline(always)]
pub fn full<M: Maps, R: PacketReader + ?Sized>(
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
    let role = iface.role();
    let tag = match role {
        Some(Role::Pod) => Tag::of(iface.endpoint()),
        // A device that has this program and no entry is one we know too little about.
        Some(Role::Pending | Role::Foreign | Role::Uplink | Role::Tunnel | Role::Stacked)
        | None => Tag::ENTERED,
    };
    let id = tag.sender();
    with_case(maps, tag, |case| {
        match packet::parse_into(reader, context.ethertype, packet::ETH_HLEN, &mut case.packet) {
            Ok(Layer::Ip) => sent(maps, reader, case, role, tag, context.time),
            Ok(_) if role == Some(Role::Foreign) => Verdict { reason: Reason::Foreign, tag },
            Ok(Layer::Arp) => {
                let sender = packet::arp_sender(reader, packet::ETH_HLEN);
                let claims = |addr: Addr| {
                    !id.is_none() && !addr.is_unspecified_v4() && !is_of(maps, id, &addr)
                };
                let reason =
                    if sender.is_none_or(claims) { Reason::AddressClaim } else { Reason::Arp };
                Verdict { reason, tag }
            }
            // Two VLAN tags of id 0 are taken off behind this hook: what is in them would go on
            // with its source unproven.
            Ok(Layer::Other) => Verdict { reason: Reason::Ethertype, tag },
            Err(error) => Verdict { reason: error.into(), tag },
        }
    })
}

#[inline(always)]
fn with_case<M: Maps>(maps: &M, tag: Tag, f: impl FnOnce(&mut Case) -> Verdict) -> Verdict {
    let verdict = maps.with_case(f);
    verdict.unwrap_or(Verdict { reason: Reason::Malformed, tag })
}

/// The rest of `from_pod`, for an IP packet.
#[inline(always)]
fn sent<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    role: Option<Role>,
    tag: Tag,
    time: Time,
) -> Verdict {
    let id = tag.sender();
    if id.is_none() && role != Some(Role::Foreign) {
        return Verdict { reason: pending_reason(maps, &case.packet), tag };
    }
    if !id.is_none()
        && let Some(reason) = forges(maps, reader, &case.packet, id)
    {
        return Verdict { reason, tag };
    }
    let verdict = entered(maps, reader, case, id, tag, time);
    if id.is_none() && verdict.reason == Reason::Entered {
        Verdict { reason: Reason::Foreign, ..verdict }
    } else {
        verdict
    }
}

/// What a pod's packet claims that is not the pod's to claim.
#[inline(always)]
fn forges<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    packet: &Packet,
    id: EndpointId,
) -> Option<Reason> {
    if packet.kind == Kind::RouterClaim {
        return Some(Reason::RouterClaim);
    }
    let link_local = packet.src.is_v6_link_local();
    if !(link_local || is_of(maps, id, &packet.src)) {
        let on_link = matches!(packet.kind, Kind::NeighborDiscovery | Kind::ListenerReport);
        if !(packet.src.is_unspecified() && on_link) {
            return Some(Reason::SourceAddress);
        }
    }
    let claimed = if packet.kind == Kind::NeighborClaim {
        packet::claimed(reader, packet)
    } else if packet.kind != Kind::NeighborDiscovery {
        return None;
    } else if packet.src.is_unspecified() {
        Some(packet::tentative(reader)?)
    } else {
        // With its hardware address it says where its source is.
        Some(packet.src)
    };
    let proven = claimed.is_some_and(|addr| {
        if addr.is_v6_link_local() {
            packet::proves_link_local(reader, &addr)
        } else {
            is_of(maps, id, &addr)
        }
    });
    if proven { None } else { Some(Reason::AddressClaim) }
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
    let role = iface.role();
    // A device below has seen who sent the packet. What it could not read, a packet with two VLAN tags,
    // it has only seen enter.
    if role == Some(Role::Stacked) && (context.tag.is_from_pod() || context.tag.is_reply()) {
        return Verdict { reason: Reason::Entered, tag: context.tag };
    }
    // A pod's tag survives decapsulation, while what another node wrapped came in by a device
    // that tagged it as entered.
    if role == Some(Role::Tunnel) && context.tag.is_from_pod() {
        return Verdict { reason: Reason::TunnelForged, tag };
    }
    with_case(maps, tag, |case| {
        let offset = network_offset(iface);
        match packet::parse_into(reader, context.ethertype, offset, &mut case.packet) {
            Ok(Layer::Ip) => came_in(maps, reader, case, context.time),
            Ok(Layer::Arp) => Verdict { reason: Reason::Arp, tag },
            Ok(Layer::Other) => Verdict { reason: Reason::NotIp, tag },
            // It is the node's to refuse, and to_pod's if it is for a pod.
            Err(_) => Verdict { reason: Reason::Entered, tag },
        }
    })
}

/// The rest of `from_uplink`, for an IP packet.
#[inline(always)]
fn came_in<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    time: Time,
) -> Verdict {
    let verdict = entered(maps, reader, case, EndpointId::NONE, Tag::ENTERED, time);
    let packet = &case.packet;
    // The node would answer the pod that the packet says it is from, and what the node sends passes,
    // also to a pod that nobody else may reach.
    let fresh = packet.protocol != packet::TCP || packet.tcp_flags & packet::ACK == 0;
    if verdict.reason == Reason::Entered && fresh && is_forged(maps, packet, time) {
        return Verdict { reason: Reason::ForgedSource, ..verdict };
    }
    verdict
}

/// Whether a packet from outside claims the address of a pod on this node, and is not that pod's own,
/// come back.
#[inline(always)]
fn is_forged<M: Maps>(maps: &M, packet: &Packet, time: Time) -> bool {
    let owner = maps.local(&packet.src);
    !owner.is_none()
        && isolated(maps, EndpointId::NONE, owner)
        && !flows::has_left(maps, &packet.flow_key(), owner, time)
}

#[inline(always)]
fn to_pod<M: Maps, R: PacketReader + ?Sized>(maps: &M, reader: &R, context: &Context) -> Verdict {
    let tag = context.tag;
    let pass = |reason| Verdict { reason, tag };
    if context.is_own() {
        return pass(Reason::Own);
    }
    let iface = maps.iface(context.ifindex);
    let (id, role) = (iface.endpoint(), iface.role());
    let known = matches!(role, Some(Role::Pod | Role::Foreign));
    if known && tag.is_reply() && tag.receiver() == id {
        return pass(Reason::ReplyPassed);
    }
    with_case(maps, tag, |case| {
        match packet::parse_into(reader, context.ethertype, packet::ETH_HLEN, &mut case.packet) {
            Ok(Layer::Ip) => {
                let device = if known { Some(id) } else { None };
                pass(arrives(maps, reader, case, device, context))
            }
            Ok(Layer::Arp) if packet::arp_sender(reader, packet::ETH_HLEN).is_none() => {
                pass(Reason::Malformed)
            }
            Ok(Layer::Arp) => pass(Reason::Arp),
            Ok(Layer::Other) => pass(Reason::Ethertype),
            Err(error) => pass(error.into()),
        }
    })
}

/// The rest of `to_pod`, for an IP packet at the device of this endpoint, or at one that is nobody's
/// yet.
#[inline(always)]
fn arrives<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    device: Option<EndpointId>,
    context: &Context,
) -> Reason {
    let packet = &case.packet;
    if context.is_own_packet(packet) {
        return Reason::Own;
    }
    let Some(id) = device else { return pending_reason(maps, packet) };
    if let Some(reason) = link_reason(packet) {
        // One pod's reports are of no use to another.
        if packet.kind != Kind::ListenerReport {
            return reason;
        }
    }
    let source = match sender(maps, context, packet) {
        Sender::Pod(source) => source,
        Sender::Outside => EndpointId::NONE,
        Sender::Unknown if context.tag.is_lost() && maps.local(&packet.src).is_none() => {
            EndpointId::NONE
        }
        Sender::Unknown => return unknown_reason(maps, packet),
    };
    if source == id {
        // Never by addresses: after masquerade the source is the node's.
        return if id.is_none() { Reason::Foreign } else { Reason::Hairpin };
    }
    case.ends = Ends::of(context, packet, source, id);
    leaving(maps, reader, case, context)
}

#[inline(always)]
fn to_uplink<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Verdict {
    let tag = context.tag;
    let pass = |reason| Verdict { reason, tag };
    if context.is_own() {
        return pass(Reason::Own);
    }
    let iface = maps.iface(context.ifindex);
    let offset = network_offset(iface);
    let replied = tag.is_reply() && tag.receiver().is_none();
    if tag.egress_judged() {
        return pass(Reason::EgressJudged);
    }
    if tag.entered() {
        return pass(Reason::Transit);
    }
    let stacked = iface.role() == Some(Role::Stacked);
    let judged = |reason, source| Verdict { reason, tag: judged_tag(tag, stacked, source) };
    // A reply goes its way, but what a pod has wrapped is looked at.
    if replied && !(tag.is_from_pod() && packet::may_wrap(reader, context.ethertype, offset)) {
        return judged(Reason::ReplyPassed, EndpointId::NONE);
    }
    with_case(maps, tag, |case| {
        match packet::parse_into(reader, context.ethertype, offset, &mut case.packet) {
            Ok(Layer::Ip) => departs(maps, reader, case, stacked, context),
            Ok(Layer::Arp) => judged(Reason::Arp, tag.sender()),
            Ok(Layer::Other) => judged(Reason::NotIp, tag.sender()),
            Err(error) => pass(error.into()),
        }
    })
}

/// What passes where the path ends passes for good: the packet may be wrapped by a tunnel next, and what
/// comes out of that is not the pod's own.
#[inline(always)]
fn judged_tag(tag: Tag, stacked: bool, sender: EndpointId) -> Tag {
    if stacked { tag } else { Tag::judged(sender) }
}

/// The rest of `to_uplink`, for an IP packet.
#[inline(always)]
fn departs<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    stacked: bool,
    context: &Context,
) -> Verdict {
    let packet = &case.packet;
    let tag = context.tag;
    let pass = |reason| Verdict { reason, tag };
    let judged = |reason, source| Verdict { reason, tag: judged_tag(tag, stacked, source) };
    if context.is_own_packet(packet) {
        return pass(Reason::Own);
    }
    if let Some(reason) = link_reason(packet) {
        return judged(reason, tag.sender());
    }
    // A reply to a pod of this node that leaves it goes round to that pod.
    let replied = tag.is_reply() && tag.receiver().is_none();
    let returns = tag.is_reply() && maps.owns(tag.receiver(), &packet.dst);
    if replied || returns {
        let wrapped = to_tunnel(maps, &Tuple::of(&packet.flow_key()));
        let reason = if wrapped { Reason::TunnelFromPod } else { Reason::ReplyPassed };
        return judged(reason, EndpointId::NONE);
    }
    let source = match sender(maps, context, packet) {
        Sender::Pod(source) => source,
        Sender::Outside => return pass(Reason::Transit),
        Sender::Unknown => return pass(unknown_reason(maps, packet)),
    };
    // Policy-based IPsec wrapped it on its way here, in an address of the node. All pods' packets
    // to one node then have the same tuple, which is no flow of any.
    let ipsec = matches!(packet.protocol, packet::ESP | packet::AUTHENTICATION);
    if ipsec && !is_of(maps, source, &packet.src) {
        let isolated = isolated(maps, source, EndpointId::NONE);
        let reason = if isolated { Reason::Unjudgeable } else { Reason::NotIsolated };
        return judged(reason, source);
    }
    case.ends = Ends { stacked, ..Ends::of(context, packet, source, EndpointId::NONE) };
    judged(leaving(maps, reader, case, context), source)
}

/// Nobody knows who sent it: a pod that no agent has seen yet, or one whose tag somebody wrote over. It
/// does not pass for the pod whose address it has.
#[inline(always)]
fn unknown_reason<M: Maps>(maps: &M, packet: &Packet) -> Reason {
    if maps.local(&packet.src).is_none() { Reason::UnknownSender } else { Reason::ForgedSource }
}

/// What always passes between neighbours, whatever policy says.
#[inline(always)]
fn link_reason(packet: &Packet) -> Option<Reason> {
    match packet.kind {
        Kind::NeighborDiscovery | Kind::NeighborClaim => Some(Reason::NeighborDiscovery),
        Kind::ListenerQuery | Kind::ListenerReport => Some(Reason::MulticastListener),
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

/// Who sent a packet that is about to leave. The tag says it; where it does not, or is lost, the device
/// by which the packet came does. Its source address never does: that proves nothing but at the
/// pod's own device. Where the tag is lost, nobody has proven it there: the address of another pod shows
/// that the device is no longer that pod's, which the maps do not say while no agent runs.
#[inline(always)]
fn sender<M: Maps>(maps: &M, context: &Context, packet: &Packet) -> Sender {
    let tag = context.tag;
    if !tag.sender().is_none() {
        return Sender::Pod(tag.sender());
    }
    if !tag.is_lost() && !tag.is_from_pod() {
        return Sender::Outside;
    }
    let iface = maps.iface(context.ingress_ifindex);
    match iface.role() {
        Some(Role::Pod) => {
            let owner = if tag.is_lost() { maps.local(&packet.src) } else { EndpointId::NONE };
            if owner.is_none() || owner == iface.endpoint() {
                Sender::Pod(iface.endpoint())
            } else {
                Sender::Unknown
            }
        }
        Some(Role::Uplink | Role::Tunnel | Role::Foreign) if tag.is_lost() => Sender::Outside,
        // A pod's reply to somebody else: `from_pod` has proven its source, whatever is left of that.
        _ if !tag.is_lost() => match maps.local(&packet.src) {
            id if id.is_none() => Sender::Unknown,
            id => Sender::Pod(id),
        },
        _ => Sender::Unknown,
    }
}
