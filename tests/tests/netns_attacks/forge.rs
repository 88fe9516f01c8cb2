//! Packets with right checksums, so that nothing but the agent has a reason to refuse them.

use std::net::IpAddr;

use np_common::packet::{ICMP, ICMPV6, UDP};
use np_tests::wire::{self, Fragment, Ip, checksum, datagram, pseudo_header};

use crate::field::{Sent, ip_packet};

pub fn icmp_message(src: IpAddr, dst: IpAddr, message: u8, id: u16, data: &[u8]) -> Ip {
    let protocol = if src.is_ipv4() { ICMP } else { ICMPV6 };
    let mut upper = wire::icmp(message, id);
    upper.extend(data);
    let head =
        if src.is_ipv4() { Vec::new() } else { pseudo_header(src, dst, ICMPV6, upper.len()) };
    let sum = checksum(&[head, upper.clone()].concat());
    upper.splice(2..4, sum.to_be_bytes());
    Ip::new(src, dst, protocol, upper)
}

/// Two fragments of one datagram; only the first has a hop-by-hop header. Put together and taken
/// apart again by the node, they exceed the largest fragment seen, and so lose their device.
pub fn fragments_that_lose_their_device(src: IpAddr, dst: IpAddr, marker: &[u8]) -> Vec<Sent> {
    let data = marker.repeat(2688 / marker.len());
    let whole = datagram(src, dst, 5000, 8443, &data).payload;
    let (first, second) = whole.split_at(1344);
    let fragment = |offset: u16, more: u16| {
        let mut header = vec![UDP, 0];
        header.extend((offset | more).to_be_bytes());
        header.extend([0, 0, 0x77, marker[7]]);
        header
    };
    let hop_by_hop = vec![44, 0, 1, 4, 0, 0, 0, 0];
    let first = Ip::new(src, dst, 0, [hop_by_hop, fragment(0, 1), first.to_vec()].concat());
    let second = Ip::new(src, dst, 44, [fragment(1344, 0), second.to_vec()].concat());
    vec![ip_packet(first.bytes()), ip_packet(second.bytes())]
}

/// A datagram whose first fragment has a UDP header and nothing more.
pub fn tiny_fragments(src: IpAddr, dst: IpAddr, marker: &[u8]) -> Vec<Sent> {
    let whole = datagram(src, dst, 5000, 8443, marker);
    let (first, rest) = whole.payload.split_at(8);
    let piece = |payload: &[u8], offset, more| {
        let fragment = Some(Fragment { offset, more, id: 0x78 });
        ip_packet(Ip { payload: payload.to_vec(), fragment, ..whole.clone() }.bytes())
    };
    vec![piece(first, 0, true), piece(rest, 1, false)]
}
