//! Flows: whether a packet is part of one that is still allowed, or may open one.

use super::began::{Opening, began, is_beginning, opening, remember_denied};
use super::case::{Case, Ends, Found, Known, Way};
use super::judge::{Judged, Tuple, isolated, judge, to_tunnel};
use super::{Context, Maps, is_of, link_reason};
use crate::endpoint::EndpointId;
use crate::flow::{Flow, FlowKey, Leg, State, Time};
use crate::fragment::{FragmentKey, Side};
use crate::packet::{self, Kind, Packet, PacketReader, Piece};
use crate::tag::{Began, Tag};
use crate::verdict::{Reason, Verdict};

/// The rest of `from_*`: is the packet the reply to a flow that is still allowed?
#[inline(always)]
pub fn entered<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    replier: EndpointId,
    tag: Tag,
    time: Time,
) -> Verdict {
    let Case { packet, key, .. } = case;
    if let Some(reason) = link_reason(packet) {
        return Verdict { reason, tag };
    }
    complete(maps, packet, Side::From, replier);
    let unasked = Verdict { reason: Reason::Entered, tag };
    // NAT is not yet undone, neither around the packet nor in what an error quotes: a reply is T
    // reversed, and an error about a packet of the flow quotes T.
    let reason = match packet.kind {
        Kind::Flow => {
            *key = packet.flow_key().reversed();
            Reason::Reply
        }
        Kind::IcmpError => match packet::quoted(reader, packet) {
            Some(quoted) => {
                *key = quoted;
                Reason::Related
            }
            None => return unasked,
        },
        Kind::Fragment
        | Kind::NeighborDiscovery
        | Kind::NeighborClaim
        | Kind::RouterClaim
        | Kind::ListenerQuery
        | Kind::ListenerReport => return unasked,
    };
    let generation = maps.config().generation();
    let mut found = reply_to(maps, key, packet, replier, generation, time);
    if found.known == Known::Returned {
        *key = key.on(Leg::Returned);
        found = reply_to(maps, key, packet, replier, generation, time);
    }
    let source = found.source;
    match found.known {
        Known::Current => {}
        Known::Outdated if !is_dead(maps, &found, replier) => {
            // The flow is judged again, in its own direction: the source of T is what `to_*`
            // saw, so a rule for the peer is looked up by the same addresses as then.
            if replier.is_none() && to_tunnel(maps, &Tuple::of(key)) {
                return Verdict { reason: Reason::TunnelFromPod, tag };
            }
            (case.source, case.destination, case.way) = (source, replier, Way::Reply);
            case.subject = source;
            let ruled = judge(maps, maps.settled(case));
            let Case { packet, key, .. } = &mut *case;
            if let Err(direction) = ruled {
                stays_denied(maps, key, packet, time);
                return Verdict { reason: Reason::denied(direction), tag };
            }
            maps.with_flow(key, |flow| {
                flow.generation = generation;
                follow(flow, packet, Way::Reply, time);
            });
        }
        Known::No | Known::Outdated | Known::Returned => {
            let mut began = began(packet);
            // The other side has tried and was denied. Here, before NAT, its tuple is this one's reverse.
            *key = key.anywhere();
            if began == Began::Unknown && packet.protocol != packet::TCP && maps.denied(key, time) {
                began = Began::Receiver;
            }
            return Verdict { reason: Reason::Entered, tag: tag.with_began(began) };
        }
    }
    passed(maps, &case.packet, Side::From, replier);
    Verdict { reason, tag: Tag::reply(source, replier) }
}

/// Whether a flow with this key has the packet as a reply.
#[inline(always)]
fn reply_to<M: Maps>(
    maps: &M,
    key: &FlowKey,
    packet: &Packet,
    replier: EndpointId,
    generation: u32,
    time: Time,
) -> Found {
    let found = maps.with_flow(key, |flow| replied(flow, packet, replier, generation, time));
    found.unwrap_or(Found::NOTHING)
}

/// Whether a flow has the packet, whose reversed tuple is its key, as a reply.
#[inline(always)]
pub fn replied(
    flow: &mut Flow,
    packet: &Packet,
    replier: EndpointId,
    generation: u32,
    time: Time,
) -> Found {
    if flow.lapsed(time) || begins_anew(flow, packet) {
        Found::NOTHING
    } else if flow.destination() != replier {
        let returned = flow.destination().is_none() && !flow.source().is_none();
        if returned { Found::of(flow, Known::Returned) } else { Found::NOTHING }
    } else if flow.generation == generation {
        follow(flow, packet, Way::Reply, time);
        Found::of(flow, Known::Current)
    } else {
        Found::of(flow, Known::Outdated)
    }
}

/// The rest of `to_*`: is the packet part of a flow that is still allowed, or may it open one?
#[inline(always)]
pub fn leaving<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    case: &mut Case,
    context: &Context,
) -> Reason {
    let Case { packet, key, ends, .. } = case;
    complete(maps, packet, Side::To, ends.source);
    let time = context.time;
    let generation = maps.config().generation();
    // NAT has been done or undone, also in what an error quotes: an error that the flow's source
    // sends about a reply quotes T reversed. Those about the flow's own packets were recognised
    // where they entered.
    let error = packet.kind == Kind::IcmpError;
    let quoted = if error { packet::quoted(reader, packet) } else { None };
    *key = match quoted {
        Some(quoted) => quoted.reversed(),
        None => packet.flow_key(),
    };
    if ends.stacked {
        *key = key.on(Leg::Stacked);
    }
    let is_flow = packet.kind == Kind::Flow;
    let has_flow = is_flow || quoted.is_some();
    (case.source, case.destination, case.way) = (ends.source, ends.destination, Way::Forward);
    (case.time, case.generation) = (time, generation);
    case.egress_judged = context.tag.egress_judged();
    // What `from_*` recognised as a reply can be recognised once more where nothing translated it. Not
    // what a tunnel unwraps: of an answer nothing more is asked.
    let wrapped = ends.lost && ends.destination.is_none() && to_tunnel(maps, &Tuple::of(key));
    if ends.lost && is_flow && !wrapped && answers(maps, &key.reversed(), packet, ends, time) {
        case.turn(Way::Reply);
    }
    case.found = if has_flow { part_of(maps, case) } else { Found::NOTHING };
    let reason = match case.found.known {
        Known::Current if error => Reason::Related,
        Known::Current if case.way == Way::Reply => Reason::ReplyPassed,
        Known::Current => Reason::Established,
        // What there is to say of it does not depend on the way it came here.
        Known::No | Known::Outdated | Known::Returned => {
            return judged(maps, reader, maps.settled(case));
        }
    };
    passed(maps, &case.packet, Side::To, case.ends.source);
    reason
}

/// A packet that is of no flow judged under the current generation.
///
/// A function of its own also in the kernel, as [`packet::parse_into`].
#[inline(never)]
fn judged<M: Maps, R: PacketReader + ?Sized>(maps: &M, reader: &R, case: &mut Case) -> Reason {
    let error = case.packet.kind == Kind::IcmpError;
    let is_flow = case.packet.kind == Kind::Flow;
    forget_dead(maps, case);
    if case.found.known == Known::No && matches!(case.way, Way::Reply) {
        case.turn(Way::Forward);
    }
    if case.ends.outside && !case.destination.is_none() && matches!(case.way, Way::Forward) {
        // From outside, nobody has the address of a pod on this node, also not in a flow of the time
        // when nobody was isolated. Only that pod's own packets can come back, when something sent
        // them round: they have left by `to_uplink`.
        let owner = maps.local(&case.packet.src);
        if !owner.is_none() {
            if is_flow && has_left(maps, &case.key, owner, case.time) {
                (case.source, case.key) = (owner, case.key.on(Leg::Returned));
                case.found = part_of(maps, case);
                if case.found.known == Known::Current {
                    return Reason::Established;
                }
                forget_dead(maps, case);
            } else if isolated(maps, EndpointId::NONE, case.destination)
                || isolated(maps, EndpointId::NONE, owner)
            {
                return Reason::ForgedSource;
            }
        }
    }
    let outdated = case.found.known == Known::Outdated;
    // Where a pod's packet is judged a second time, its egress is not: it may have been rewritten.
    let egress_judged = case.egress_judged || case.ends.outside;
    let forward = matches!(case.way, Way::Forward);
    case.subject = if egress_judged && forward { EndpointId::NONE } else { case.source };
    let destination = case.destination;
    let elsewhere = !outdated
        && !destination.is_none()
        && !is_addressed(maps, reader, destination, &case.packet);
    if elsewhere || error && !outdated {
        return match isolated(maps, case.subject, destination) {
            false => Reason::NotIsolated,
            true if error => Reason::IcmpError,
            true => Reason::NotAddressed,
        };
    }
    // Nobody's policy is asked: it is about who the packet would pass for. No flow of it is known
    // under the current generation, so flows need no look.
    if destination.is_none() && to_tunnel(maps, &Tuple::of(&case.key)) {
        return Reason::TunnelFromPod;
    }
    let ruled = judge(maps, maps.settled(case));
    let case = maps.settled(case);
    let error = case.packet.kind == Kind::IcmpError;
    let is_flow = case.packet.kind == Kind::Flow;
    let outdated = case.found.known == Known::Outdated;
    let Case { packet, key, source, destination, way, ends, time, .. } = &*case;
    let reason = match ruled {
        Ok(Judged::Open) => Reason::NotIsolated,
        Ok(Judged::Allowed) => Reason::Allowed,
        Err(_) if error => return Reason::IcmpError,
        Err(_) if packet.kind == Kind::Fragment => return Reason::Fragment,
        Err(direction) => {
            if outdated {
                stays_denied(maps, key, packet, *time);
            } else {
                remember_denied(maps, packet, key, ends, *time);
            }
            return Reason::denied(direction);
        }
    };
    passed(maps, packet, Side::To, ends.source);
    if outdated {
        maps.with_flow(key, |flow| {
            // Where the sender's egress was judged elsewhere, this flow has not been judged whole.
            if !case.egress_judged {
                flow.generation = case.generation;
            }
            follow(flow, packet, *way, *time);
        });
        return match way {
            _ if error => Reason::Related,
            Way::Forward => reason,
            Way::Reply => Reason::ReplyPassed,
        };
    }
    if is_flow {
        // Recorded also when nobody is isolated: a policy to come must not cut the replies of
        // what was allowed.
        let flow = |state| Flow::new(case.generation, *time, *source, *destination, state);
        match opening(maps, packet, key, &Ends { source: *source, ..*ends }, *time) {
            Opening::Flow(state) => maps.record(key, flow(state)),
            Opening::Doubtful(state) => maps.record(key, flow(state).with_doubt()),
            Opening::Nothing => {}
        }
    }
    reason
}

/// Takes a flow that is none any more for none.
#[inline(always)]
fn forget_dead<M: Maps>(maps: &M, case: &mut Case) {
    if case.found.known == Known::Outdated && is_dead(maps, &case.found, case.destination) {
        case.found = Found::NOTHING;
    }
}

/// Whether the packet is part of a flow with its key and its ends.
#[inline(always)]
fn part_of<M: Maps>(maps: &M, case: &Case) -> Found {
    let Case { packet, source, destination, way, time, generation, .. } = case;
    let found = maps.with_flow(&case.key, |flow| {
        if !is_between(flow, *source, *destination, *time) {
            Found::NOTHING
        } else if flow.generation == *generation {
            follow(flow, packet, *way, *time);
            Found::of(flow, Known::Current)
        } else {
            Found::of(flow, Known::Outdated)
        }
    });
    found.unwrap_or(Found::NOTHING)
}

/// Whether a flow is one of a packet between these ends. After masquerade another pod can come to use
/// the same tuple: the flow is this packet's only if both ends are.
#[inline(always)]
pub fn is_between(flow: &Flow, source: EndpointId, destination: EndpointId, time: Time) -> bool {
    !flow.lapsed(time) && flow.source() == source && flow.destination() == destination
}

/// Whether the packet answers a flow, with the reverse of its tuple, that its receiver opened to its
/// sender.
#[inline(always)]
fn answers<M: Maps>(
    maps: &M,
    reversed: &FlowKey,
    packet: &Packet,
    ends: &Ends,
    time: Time,
) -> bool {
    let answers = maps.with_flow(reversed, |flow| {
        !flow.lapsed(time)
            && !begins_anew(flow, packet)
            && flow.source() == ends.destination
            && flow.destination() == ends.source
    });
    answers == Some(true)
}

/// Whether this pod has sent such a packet out of the node.
#[inline(always)]
pub fn has_left<M: Maps>(maps: &M, key: &FlowKey, sender: EndpointId, time: Time) -> bool {
    let left = maps.with_flow(key, |flow| {
        !flow.lapsed(time)
            && flow.source() == sender
            && flow.destination().is_none()
            && maps.has_lived(sender, flow.generation)
    });
    left == Some(true)
}

/// Whether a flow to be judged again is none any more: one of its ends was bound after it was last
/// judged, or it may be that its destination began it, which somebody's policy now forbids.
#[inline(always)]
fn is_dead<M: Maps>(maps: &M, found: &Found, destination: EndpointId) -> bool {
    let Found { source, generation, in_doubt, .. } = *found;
    let another = |id: EndpointId| !id.is_none() && !maps.has_lived(id, generation);
    another(source) || another(destination) || in_doubt && isolated(maps, destination, source)
}

/// A flow that is denied lives on as denied while either side keeps sending: else it would lapse, and
/// what its destination says next would open the other way.
#[inline(always)]
fn stays_denied<M: Maps>(maps: &M, key: &FlowKey, packet: &Packet, time: Time) {
    if packet.kind == Kind::Flow {
        maps.with_flow(key, |flow| flow.touch(time));
    }
}

/// Whether a frame at a pod's device is for that pod, and not flooded to it by a bridge that has
/// forgotten where its receiver is, nor on its way through the pod to somebody else.
#[inline(always)]
fn is_addressed<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    id: EndpointId,
    packet: &Packet,
) -> bool {
    let to_group = || reader.read::<1>(0).is_some_and(|[first]| first & 1 != 0);
    let dst = &packet.dst;
    is_of(maps, id, dst) || dst.is_v6_link_local() || dst.is_multicast() || to_group()
}

/// Gives a fragment after the first the ports of the first, where they are known.
#[inline(always)]
fn complete<M: Maps>(maps: &M, packet: &mut Packet, side: Side, sender: EndpointId) {
    if packet.piece == Piece::Whole {
        return;
    }
    let key = FragmentKey::new(side, sender, packet);
    if packet.piece == Piece::First {
        if packet.kind == Kind::Flow {
            maps.record_ports(&key, packet.ports());
        }
        return;
    }
    if let Some(ports) = maps.ports(&key).or_else(|| maps.ports(&key.latest(packet.protocol))) {
        packet.set_ports(&ports);
    }
}

/// A first fragment that passes speaks for later ones that overtake theirs.
#[inline(always)]
fn passed<M: Maps>(maps: &M, packet: &Packet, side: Side, sender: EndpointId) {
    if packet.piece == Piece::First && packet.kind == Kind::Flow {
        let key = FragmentKey::new(side, sender, packet).latest(packet.protocol);
        maps.record_ports(&key, packet.ports());
    }
}

/// Whether the side that answers begins a connection of its own. Only until its answer is acknowledged
/// can its SYN be one, that has crossed the other's (simultaneous open, RFC 9293 section 3.5).
#[inline(always)]
const fn begins_anew(flow: &Flow, packet: &Packet) -> bool {
    is_beginning(packet) && !matches!(flow.state(), State::Opening | State::Answered)
}

/// Moves a known flow on by one packet. An error is none of its packets: what somebody on the path
/// says does not keep it alive.
#[inline(always)]
pub const fn follow(flow: &mut Flow, packet: &Packet, way: Way, time: Time) {
    if matches!(packet.kind, Kind::IcmpError) {
        return;
    }
    flow.touch(time);
    if packet.protocol != packet::TCP {
        return;
    }
    let flags = packet.tcp_flags;
    let reply = matches!(way, Way::Reply);
    if flags & packet::RST != 0 {
        flow.advance(State::Reset);
    } else if flags & packet::FIN != 0 {
        flow.advance(State::Closing);
    } else if is_beginning(packet) {
        // The client reuses the port: a new connection must not run under the old one's time. A
        // reply of this kind crossed the client's.
        if !reply {
            flow.advance(State::Opening);
        }
    } else {
        match flow.state() {
            State::Opening if reply && packet.has_syn() => flow.advance(State::Answered),
            State::Opening if reply => flow.advance(State::Established),
            State::Answered if !packet.has_syn() => flow.advance(State::Established),
            // After a RST that an end accepted nothing follows; this one was somebody else's.
            State::Reset => flow.advance(State::Established),
            State::Opening
            | State::Answered
            | State::Established
            | State::Closing
            | State::Datagram => {}
        }
    }
}
