//! Packets as bytes, from the fuzzer's choices: well-formed unless it asks for damage.

use np_common::packet::{ETH_HLEN, ICMP, ICMPV6, SCTP, TCP, UDP};
use np_common::tunnel::{GRE, IPIP, SIT};

use crate::scenario::{Packet, Tuple};
use crate::world::{self, ADDRS};

const PROTOCOLS: [u8; 8] = [TCP, UDP, SCTP, ICMP, IPIP, GRE, SIT, 89];
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The protocol that a choice stands for; ICMP is each family's own.
pub fn protocol(choice: u8, v4: bool) -> u8 {
    match PROTOCOLS[usize::from(choice) % PROTOCOLS.len()] {
        ICMP if !v4 => ICMPV6,
        protocol => protocol,
    }
}

/// The packet with its link header, if it has one.
pub fn bytes(packet: &Packet, v4: bool, layer3: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    if !layer3 {
        out.resize(ETH_HLEN as usize, 0);
    }
    let upper = upper(packet, v4);
    ip(&mut out, &packet.tuple, v4, packet, &upper);
    let at = usize::from(packet.at) % out.len();
    match packet.damage {
        1 => out.truncate(at),
        2 => out[at] = packet.value,
        3 => out[at] ^= 1 << (packet.value % 8),
        _ => {}
    }
    out
}

/// The addresses of a tuple, in the family of the packet.
fn addrs(tuple: &Tuple, v4: bool) -> (&'static [u8], &'static [u8]) {
    let pick = |choice: u8| {
        let addr = &ADDRS[world::addr(choice, v4)];
        if v4 { &addr[12..] } else { &addr[..] }
    };
    (pick(tuple.src), pick(tuple.dst))
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
    } else {
        let fragmented = offset != 0 || more;
        let headers = std::iter::repeat_n(DESTINATION_OPTIONS, extra)
            .chain(fragmented.then_some(FRAGMENT))
            .chain([protocol]);
        let mut next = headers;
        out.extend([0x60, 0, 0, 0]);
        out.extend((upper.len() as u16).to_be_bytes());
        out.extend([next.next().unwrap_or(protocol), packet.hop_limit]);
        out.extend_from_slice(src);
        out.extend_from_slice(dst);
        for _ in 0..extra {
            out.extend([next.next().unwrap_or(protocol), 0, 0, 0, 0, 0, 0, 0]);
        }
        if fragmented {
            let fragment = offset << 3 | u16::from(more);
            out.extend([next.next().unwrap_or(protocol), 0]);
            out.extend(fragment.to_be_bytes());
            out.extend([0, 0, 0, id]);
        }
    }
    out.extend_from_slice(upper);
}

fn upper(packet: &Packet, v4: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    transport(&mut out, &packet.tuple, v4, packet.flags);
    if [ICMP, ICMPV6].contains(&protocol(packet.tuple.protocol, v4)) {
        // The rest of the message: only an error has one that is looked at.
        let mut quoted = Vec::with_capacity(16);
        transport(&mut quoted, &packet.quoted, v4, packet.value);
        let plain = Packet { fragment: 0, extra: 0, damage: 0, ..*packet };
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
