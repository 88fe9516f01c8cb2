//! Flows: whether a packet is part of one that is still allowed, or may open one.

use super::judge::{Judged, Tuple, isolated, judge, to_tunnel};
use super::{Context, Maps, link_reason};
use crate::direction::Direction;
use crate::endpoint::EndpointId;
use crate::flow::{Flow, State, Time};
use crate::fragment::{FragmentKey, Side};
use crate::packet::{self, Kind, Packet, PacketReader, Piece};
use crate::tag::Tag;
use crate::tunnel::Encapsulation;
use crate::verdict::{Action, Reason, Verdict, posture};

/// What the flow table says of a tuple.
enum Known {
    No,
    Current,
    /// Judged under an older generation; opened by this endpoint.
    Outdated(EndpointId),
}

/// The rest of `from_*`: is the packet the reply to a flow that is still allowed?
#[inline(always)]
pub fn entered<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    packet: &mut Packet,
    replier: EndpointId,
    tag: Tag,
    time: Time,
) -> Verdict {
    if let Some(reason) = link_reason(packet) {
        return Verdict { reason, tag };
    }
    complete(maps, packet, Side::From, replier);
    // NAT is not yet undone, neither around the packet nor in what an error quotes: a reply is T
    // reversed, and an error about a packet of the flow quotes T.
    let (key, reason) = match packet.kind {
        Kind::Flow => (packet.flow_key().reversed(), Reason::Reply),
        Kind::IcmpError => match packet::quoted(reader, packet) {
            Some(key) => (key, Reason::Related),
            None => return Verdict { reason: Reason::Entered, tag },
        },
        Kind::Fragment
        | Kind::NeighborDiscovery
        | Kind::NeighborClaim
        | Kind::RouterClaim
        | Kind::MulticastListener => {
            return Verdict { reason: Reason::Entered, tag };
        }
    };
    let generation = maps.config().generation();
    let known = maps.with_flow(&key, |flow| {
        if flow.lapsed(time) || flow.destination() != replier || begins_anew(flow, packet) {
            Known::No
        } else if flow.generation == generation {
            follow(flow, packet, Way::Reply, time);
            Known::Current
        } else {
            Known::Outdated(flow.source())
        }
    });
    match known {
        None | Some(Known::No) => return Verdict { reason: Reason::Entered, tag },
        Some(Known::Current) => {}
        Some(Known::Outdated(source)) => {
            // The flow is judged again, in its own direction: the source of T is what `to_*`
            // saw, so a rule for the peer is looked up by the same addresses as then.
            let tuple = Tuple::of(&key);
            if replier.is_none() && to_tunnel(maps, &tuple) {
                return Verdict { reason: Reason::TunnelFromPod, tag };
            }
            if let Err(direction) = judge(maps, &tuple, source, replier) {
                return Verdict { reason: Reason::denied(direction), tag };
            }
            maps.with_flow(&key, |flow| {
                flow.generation = generation;
                follow(flow, packet, Way::Reply, time);
            });
        }
    }
    passed(maps, packet, Side::From, replier);
    let tag = tag.with_flow_ok();
    let may_wrap = !replier.is_none() && Encapsulation::has(packet.protocol);
    Verdict { reason, tag: if may_wrap { tag.with_may_wrap() } else { tag } }
}

/// The rest of `to_*`: is the packet part of a flow that is still allowed, or may it open one?
#[inline(always)]
pub fn leaving<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    packet: &mut Packet,
    source: EndpointId,
    destination: EndpointId,
    context: &Context,
) -> Reason {
    complete(maps, packet, Side::To, source);
    let reason = judged(maps, reader, packet, source, destination, context);
    if matches!(posture(reason), Action::Pass) {
        passed(maps, packet, Side::To, source);
    }
    reason
}

#[inline(always)]
fn judged<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    packet: &Packet,
    source: EndpointId,
    destination: EndpointId,
    context: &Context,
) -> Reason {
    let time = context.time;
    let generation = maps.config().generation();
    // NAT has been done or undone, also in what an error quotes: an error that the flow's source
    // sends about a reply quotes T reversed. Those about the flow's own packets were recognised
    // where they entered.
    let error = packet.kind == Kind::IcmpError;
    let quoted = if error { packet::quoted(reader, packet) } else { None };
    let key = match quoted {
        Some(quoted) => quoted.reversed(),
        None => packet.flow_key(),
    };
    let known = if packet.kind == Kind::Flow || quoted.is_some() {
        maps.with_flow(&key, |flow| {
            // After masquerade another pod can come to use the same tuple: the flow is this
            // packet's only if both ends are.
            if flow.lapsed(time) || flow.source() != source || flow.destination() != destination {
                Known::No
            } else if flow.generation == generation {
                follow(flow, packet, Way::Forward, time);
                Known::Current
            } else {
                Known::Outdated(source)
            }
        })
    } else {
        None
    };
    let known = known.unwrap_or(Known::No);
    if matches!(known, Known::Current) {
        return if error { Reason::Related } else { Reason::Established };
    }
    // From outside, nobody has the address of a pod on this node.
    if context.tag.entered()
        && maps.policy(destination).rule_set(Direction::Ingress).is_some()
        && !maps.local(&packet.src).is_none()
    {
        return Reason::ForgedSource;
    }
    let subject = if context.tag.egress_judged() { EndpointId::NONE } else { source };
    let outdated = matches!(known, Known::Outdated(_));
    if error && !outdated {
        let isolated = isolated(maps, subject, destination);
        return if isolated { Reason::IcmpError } else { Reason::NotIsolated };
    }
    // Nobody's policy is asked: it is about who the packet would pass for. No flow of it is known
    // under the current generation, so flows need no look.
    let tuple = Tuple::of(&key);
    if destination.is_none() && to_tunnel(maps, &tuple) {
        return Reason::TunnelFromPod;
    }
    let reason = match judge(maps, &tuple, subject, destination) {
        Ok(Judged::Open) => Reason::NotIsolated,
        Ok(Judged::Allowed) => Reason::Allowed,
        Err(_) if error => return Reason::IcmpError,
        Err(_) if packet.kind == Kind::Fragment => return Reason::Fragment,
        Err(direction) => return Reason::denied(direction),
    };
    if outdated {
        maps.with_flow(&key, |flow| {
            // Where the sender's egress was judged elsewhere, this flow has not been judged whole.
            if !context.tag.egress_judged() {
                flow.generation = generation;
            }
            follow(flow, packet, Way::Forward, time);
        });
        return if error { Reason::Related } else { reason };
    }
    if packet.kind == Kind::Flow && is_of_who_began(packet) {
        // Recorded also when nobody is isolated: a policy to come must not cut the replies of
        // what was allowed.
        maps.record(&key, Flow::new(generation, time, source, destination, opened(packet)));
    }
    reason
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

/// Which way a packet of a flow goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Forward,
    Reply,
}

/// Whether the packet can be from the side that began the connection: only it may have replies. What
/// TCP says in mid-stream, where nobody saw the beginning, may be an answer to a client that no rule
/// allows; the side with an ephemeral port is the one that began.
#[inline(always)]
const fn is_of_who_began(packet: &Packet) -> bool {
    if packet.protocol != packet::TCP {
        return true;
    }
    if packet.tcp_flags & packet::SYN != 0 {
        return packet.tcp_flags & packet::ACK == 0;
    }
    is_ephemeral(packet.sport) || !is_ephemeral(packet.dport)
}

/// Linux gives clients ports from 32,768 on (`net.ipv4.ip_local_port_range`), others higher ones.
#[inline(always)]
const fn is_ephemeral(port: u16) -> bool {
    u16::from_be(port) >= 1 << 15
}

/// Whether the side that answers begins a connection of its own, after the flow's has ended. Before, its
/// SYN is an answer to one that it crossed.
#[inline(always)]
const fn begins_anew(flow: &Flow, packet: &Packet) -> bool {
    is_beginning(packet) && matches!(flow.state(), State::Closing)
}

/// A SYN without ACK.
#[inline(always)]
const fn is_beginning(packet: &Packet) -> bool {
    packet.protocol == packet::TCP && packet.tcp_flags & (packet::SYN | packet::ACK) == packet::SYN
}

/// The state of a flow whose first packet this is.
#[inline(always)]
const fn opened(packet: &Packet) -> State {
    if packet.protocol != packet::TCP {
        return State::Datagram;
    }
    let flags = packet.tcp_flags;
    if flags & (packet::FIN | packet::RST) != 0 {
        State::Closing
    } else if is_beginning(packet) {
        State::Opening
    } else {
        // In mid-stream: the flow is older than our sight of it.
        State::Established
    }
}

/// Moves a known flow on by one packet. An error is none of its packets: what somebody on the path
/// says does not keep it alive.
#[inline(always)]
const fn follow(flow: &mut Flow, packet: &Packet, way: Way, time: Time) {
    if matches!(packet.kind, Kind::IcmpError) {
        return;
    }
    flow.touch(time);
    if packet.protocol != packet::TCP {
        return;
    }
    let flags = packet.tcp_flags;
    let reply = matches!(way, Way::Reply);
    if flags & (packet::FIN | packet::RST) != 0 {
        flow.advance(State::Closing);
    } else if is_beginning(packet) {
        // The client reuses the port: a new connection must not run under the old one's time. A
        // reply of this kind crossed the client's.
        if !reply {
            flow.advance(State::Opening);
        }
    } else if reply && matches!(flow.state(), State::Opening) {
        flow.advance(State::Established);
    }
}
