//! Packets as bytes, from the fuzzer's choices: well-formed unless it asks for damage.

use np_common::packet::{ESP, ETH_HLEN, ETH_P_ARP, ETH_P_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP};
use np_common::tunnel::{GRE, IPIP, SIT};

use crate::scenario::{Packet, Tuple};
use crate::world::{self, ADDRS};

const PROTOCOLS: [u8; 8] = [TCP, UDP, SCTP, ICMP, IPIP, GRE, SIT, ESP];
const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
/// ICMPv6: solicitations and advertisements of neighbours; queries and reports of listeners.
const DISCOVERY: [u8; 3] = [133, 135, 136];
const LISTENERS: [u8; 4] = [130, 131, 132, 143];
/// Lengths behind the ICMPv6 header, some of them right for some message.
const BODIES: [usize; 8] = [0, 8, 16, 20, 24, 32, 40, 80];

/// The protocol that a choice stands for; ICMP is each family's own.
pub fn protocol(choice: u8, v4: bool) -> u8 {
    match PROTOCOLS[usize::from(choice) % PROTOCOLS.len()] {
        ICMP if !v4 => ICMPV6,
        protocol => protocol,
    }
}

/// The packet with its link header, if it has one.
pub fn bytes(packet: &Packet, ethertype: u16, layer3: bool) -> Vec<u8> {
    let v4 = ethertype != ETH_P_IPV6;
    let mut out = Vec::with_capacity(192);
    if !layer3 {
        out.resize(ETH_HLEN as usize, 0);
        out[0] = packet.form >> 6 & 1;
    }
    if ethertype == ETH_P_ARP {
        arp(&mut out, packet);
    } else {
        let upper = upper(packet, v4);
        ip(&mut out, &packet.tuple, v4, packet, &upper);
    }
    let at = usize::from(packet.at) % out.len().max(1);
    match packet.damage {
        1 => out.truncate(at),
        2 => out[at] = packet.value,
        3 => out[at] ^= 1 << (packet.value % 8),
        4 => out.resize(out.len() + usize::from(packet.value % 32), packet.at),
        _ => {}
    }
    out
}

/// A request or an answer, alone or in the shortest frame.
fn arp(out: &mut Vec<u8>, packet: &Packet) {
    let (src, dst) = addrs(&packet.tuple, true);
    out.extend([0, 1, 8, 0, 6, 4, 0, packet.flags % 4]);
    out.extend([2, 0, 0, 0, 0, 1]);
    out.extend_from_slice(src);
    out.extend([0; 6]);
    out.extend_from_slice(dst);
    if packet.form & 1 != 0 {
        out.resize(60, 0);
    }
}

/// The addresses of a tuple, in the family of the packet.
fn addrs(tuple: &Tuple, v4: bool) -> (&'static [u8], &'static [u8]) {
    let pick = |choice: u8| {
        let addr = &ADDRS[world::addr(choice, v4)];
        if v4 { &addr[12..] } else { &addr[..] }
    };
    (pick(tuple.src), pick(tuple.dst))
}

/// The message between neighbours that the packet is to be in the form of its RFC.
fn neighbours(packet: &Packet, protocol: u8) -> Option<u8> {
    let message = packet.flags;
    let known = DISCOVERY.contains(&message) || LISTENERS.contains(&message);
    (protocol == ICMPV6 && packet.form & 1 != 0 && known).then_some(message)
}

fn ip(out: &mut Vec<u8>, tuple: &Tuple, v4: bool, packet: &Packet, upper: &[u8]) {
    let protocol = protocol(tuple.protocol, v4);
    let (src, dst) = addrs(tuple, v4);
    let extra = usize::from(packet.extra % 8);
    // Bits 0 and 1: the offset; bit 2: more follow; the others: the datagram.
    let offset = u16::from(packet.fragment & 3);
    let more = packet.fragment & 4 != 0;
    let id = packet.fragment >> 3 & 3;
    if v4 {
        let len = (20 + 4 * extra + upper.len()) as u16;
        let fragment = offset | if more { 0x2000 } else { 0 };
        out.extend([0x45 + extra as u8, 0]);
        out.extend(len.to_be_bytes());
        out.extend([0, id]);
        out.extend(fragment.to_be_bytes());
        out.extend([packet.hop_limit, protocol, 0, 0]);
        out.extend_from_slice(src);
        out.extend_from_slice(dst);
        out.resize(out.len() + 4 * extra, 1);
        out.extend_from_slice(upper);
        return;
    }
    let mut headers = vec![(DESTINATION_OPTIONS, [0; 6]); extra];
    let mut hop_limit = packet.hop_limit;
    match neighbours(packet, protocol) {
        Some(message) if LISTENERS.contains(&message) => {
            headers = vec![(HOP_BY_HOP, [5, 2, 0, 0, 1, 0])];
            hop_limit = 1;
        }
        Some(_) => (headers, hop_limit) = (Vec::new(), 255),
        None if offset != 0 || more => {
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            headers.push((FRAGMENT, [high, low, 0, 0, 0, id]));
        }
        None => {}
    }
    let len = 8 * headers.len() + upper.len();
    let mut next = headers.iter().map(|(kind, _)| *kind).chain([protocol]);
    let mut next = || next.next().unwrap_or(protocol);
    out.extend([0x60, 0, 0, 0]);
    out.extend((len as u16).to_be_bytes());
    out.extend([next(), hop_limit]);
    out.extend_from_slice(src);
    out.extend_from_slice(dst);
    for (_, rest) in &headers {
        out.extend([next(), 0]);
        out.extend(rest);
    }
    out.extend_from_slice(upper);
}

fn upper(packet: &Packet, v4: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    transport(&mut out, &packet.tuple, v4, packet.flags);
    let protocol = protocol(packet.tuple.protocol, v4);
    if neighbours(packet, protocol).is_some() {
        // The message is of the address that it is about, and options.
        let (target, _) = addrs(&packet.quoted, v4);
        out.extend_from_slice(target);
        out.resize(8 + BODIES[usize::from(packet.form >> 1 & 7)], 0);
    } else if [ICMP, ICMPV6].contains(&protocol) {
        // The rest of the message: only an error has one that is looked at.
        let mut quoted = Vec::with_capacity(16);
        transport(&mut quoted, &packet.quoted, v4, packet.value);
        let plain = Packet { fragment: 0, extra: 0, damage: 0, form: 0, ..*packet };
        ip(&mut out, &packet.quoted, v4, &plain, &quoted);
    }
    out
}

fn transport(out: &mut Vec<u8>, tuple: &Tuple, v4: bool, flags: u8) {
    let (sport, dport) = (world::port(tuple.sport), world::port(tuple.dport));
    match protocol(tuple.protocol, v4) {
        TCP => {
            out.extend(sport.to_be_bytes());
            out.extend(dport.to_be_bytes());
            out.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
        }
        UDP | SCTP => {
            out.extend(sport.to_be_bytes());
            out.extend(dport.to_be_bytes());
            out.extend([0, 8, 0, 0]);
        }
        ICMP | ICMPV6 => {
            out.extend([flags, 0, 0, 0]);
            out.extend(sport.to_be_bytes());
            out.extend([0, 0]);
        }
        _ => out.extend([0; 8]),
    }
}
