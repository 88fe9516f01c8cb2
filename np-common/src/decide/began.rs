//! Which side began a connection, from what one packet shows.
//!
//! Only the side that began may have replies. What a server says first, in a connection that nobody
//! saw begin or to a client that no rule allows, must not open the way for what its client says.

use super::Maps;
use super::case::Ends;
use super::judge::isolated;
use crate::flow::{FlowKey, State, Time};
use crate::packet::{self, ECHO, Packet};
use crate::tag::Began;

/// What a packet that was allowed may open.
pub enum Opening {
    /// Its sender began the connection.
    Flow(State),
    /// It may have; if a policy should isolate an end, this is no flow any more.
    Doubtful(State),
    /// Its sender answers: the other side may not send because of that.
    Nothing,
}

/// What a packet opens that belongs to no flow.
#[inline(always)]
pub fn opening<M: Maps>(
    maps: &M,
    packet: &Packet,
    key: &FlowKey,
    ends: &Ends,
    time: Time,
) -> Opening {
    let state = opened(packet);
    match ends.began {
        Began::Sender => Opening::Flow(state),
        Began::Receiver => Opening::Nothing,
        // A TCP connection that somebody saw begin has a flow. Of one that is older, the sender may be
        // the server: where either side would not let the other begin, neither is taken to have.
        Began::Unknown if packet.protocol == packet::TCP => {
            if isolated(maps, ends.destination, ends.source) {
                Opening::Nothing
            } else {
                Opening::Doubtful(state)
            }
        }
        // The other side has tried, and was denied: it began.
        Began::Unknown if maps.denied(&key.anywhere().reversed(), time) => Opening::Nothing,
        Began::Unknown => Opening::Flow(state),
    }
}

/// Remembers that a packet was denied, where nothing else will show that its sender began.
#[inline(always)]
pub fn remember_denied<M: Maps>(maps: &M, packet: &Packet, key: &FlowKey, ends: &Ends, time: Time) {
    if packet.protocol != packet::TCP && matches!(ends.began, Began::Unknown) {
        maps.record_denied(&key.anywhere(), time);
    }
}

/// TCP says it when a connection begins, and echoes always. Of anything else the ports tell: Linux
/// gives clients those from 32,768 on (`net.ipv4.ip_local_port_range`), other systems higher ones.
#[inline(always)]
pub const fn began(packet: &Packet) -> Began {
    match packet.protocol {
        packet::TCP if packet.tcp_flags & packet::SYN != 0 => {
            return if packet.tcp_flags & packet::ACK == 0 {
                Began::Sender
            } else {
                Began::Receiver
            };
        }
        packet::ICMP | packet::ICMPV6 if packet.dport == ECHO => return Began::Sender,
        // Of the other messages none asks for another, and nothing tells one from its opposite.
        packet::ICMP | packet::ICMPV6 => return Began::Receiver,
        _ => {}
    }
    match (is_ephemeral(packet.sport), is_ephemeral(packet.dport)) {
        (true, false) => Began::Sender,
        (false, true) => Began::Receiver,
        (true, true) | (false, false) => Began::Unknown,
    }
}

#[inline(always)]
const fn is_ephemeral(port: u16) -> bool {
    u16::from_be(port) >= 1 << 15
}

/// A SYN without ACK.
#[inline(always)]
pub const fn is_beginning(packet: &Packet) -> bool {
    packet.protocol == packet::TCP && packet.tcp_flags & (packet::SYN | packet::ACK) == packet::SYN
}

/// The state of a flow whose first packet this is.
#[inline(always)]
const fn opened(packet: &Packet) -> State {
    if packet.protocol != packet::TCP {
        return State::Datagram;
    }
    let flags = packet.tcp_flags;
    if flags & packet::RST != 0 {
        State::Reset
    } else if flags & packet::FIN != 0 {
        State::Closing
    } else if is_beginning(packet) {
        State::Opening
    } else {
        // In mid-stream: the flow is older than our sight of it.
        State::Established
    }
}
