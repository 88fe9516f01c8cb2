//! The parser on any bytes.

use np_common::packet::{
    self, ETH_HLEN, ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6, Frame, ICMP, ICMPV6, Kind, Packet,
    ParseError, Piece, SCTP, TCP, UDP,
};

use crate::link::{self, Message};

/// Next headers of IPv6 that are no upper protocol.
const EXTENSION_HEADERS: [u8; 5] = [0, 43, 44, 51, 60];

/// Two bytes of ethertype, one of offset, and a packet.
pub fn check(data: &[u8]) {
    let &[high, low, offset, ref bytes @ ..] = data else { return };
    let ethertype = u16::from_be_bytes([high, low]);
    let offset = u32::from(offset);
    let parsed = packet::parse(bytes, ethertype, offset);
    assert_eq!(parsed, packet::parse(bytes, ethertype, offset), "the same twice");
    if let Some(plain) = packet::plain(bytes, ethertype, offset) {
        let Ok(Frame::Ip(packet)) = parsed else { panic!("plain and no packet: {plain:?}") };
        // Which datagram a fragment is of: this is none.
        assert_eq!(plain, Packet { datagram: 0, ..packet });
    }
    match parsed {
        Ok(Frame::Ip(packet)) => consistent(bytes, ethertype, offset, &packet),
        Ok(Frame::Arp) => {
            assert_eq!(ethertype, ETH_P_ARP);
            let exact = link::is_arp(bytes);
            assert_eq!(packet::arp_sender(bytes, ETH_HLEN).is_some(), exact, "{bytes:?}");
        }
        Ok(Frame::Other) => assert!(![ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6].contains(&ethertype)),
        Err(ParseError::ExtensionHeaders) => assert_eq!(ethertype, ETH_P_IPV6),
        Err(ParseError::Malformed) => assert!([ETH_P_IPV4, ETH_P_IPV6].contains(&ethertype)),
    }
    anywhere(bytes, ethertype, offset, parsed);
    cut_off(bytes, ethertype, offset, parsed);
}

/// What the fields of one packet say of each other.
fn consistent(bytes: &[u8], ethertype: u16, offset: u32, packet: &Packet) {
    let v4 = ethertype == ETH_P_IPV4;
    assert!(packet.src.is_v4() == v4 && packet.dst.is_v4() == v4, "family: {packet:?}");
    let at = &bytes[offset as usize..];
    let (protocol, piece, upper) = upper(at, v4);
    assert_eq!((packet.protocol, packet.piece), (protocol, piece), "{packet:?}");
    if [TCP, UDP, SCTP].contains(&protocol) && piece != Piece::Later {
        let ports = [packet.sport.to_ne_bytes(), packet.dport.to_ne_bytes()].concat();
        assert_eq!(upper.get(..4), Some(&ports[..]), "{packet:?}");
    }
    let icmp = [ICMP, ICMPV6].contains(&packet.protocol);
    let portless = packet.sport == 0 && packet.dport == 0;
    assert_eq!(packet.kind == Kind::Fragment, packet.piece == Piece::Later, "{packet:?}");
    assert!(packet.kind == Kind::Flow || portless, "ports: {packet:?}");
    assert!(packet.tcp_flags == 0 || packet.protocol == TCP && packet.kind == Kind::Flow);
    match packet.kind {
        Kind::Flow => {
            // So a quote that ends at an extension header is of no flow.
            assert!(v4 || !EXTENSION_HEADERS.contains(&packet.protocol), "{packet:?}");
        }
        Kind::Fragment => {}
        Kind::IcmpError | Kind::RouterClaim => assert!(icmp, "{packet:?}"),
        _ => assert!(is_link(packet.kind), "{packet:?}"),
    }
    // What passes whatever policy says, and nothing else, has the form that only a host on the link sends.
    let expected = if v4 { None } else { link::message(at) };
    let message = match packet.kind {
        Kind::NeighborDiscovery => Some(Message::Solicitation),
        Kind::NeighborClaim => Some(Message::Advertisement),
        Kind::ListenerQuery => Some(Message::Query),
        Kind::ListenerReport => Some(Message::Report),
        Kind::Flow | Kind::Fragment | Kind::IcmpError | Kind::RouterClaim => None,
    };
    assert_eq!(message, expected, "{packet:?}");
    within(at, v4, protocol, piece, upper);
    let request = match protocol {
        _ if piece == Piece::Later => false,
        ICMP if v4 => upper[0] == 8,
        ICMPV6 if !v4 => upper[0] == 128,
        _ => false,
    };
    if request && packet.src != packet.dst {
        let back = Packet { src: packet.dst, dst: packet.src, ..*packet };
        let reply = packet.flow_key().reversed();
        assert_ne!(back.flow_key(), reply, "a request that answers a request: {packet:?}");
    }
    let headers = if v4 { 28 } else { 48 };
    if matches!(packet.kind, Kind::IcmpError | Kind::NeighborClaim) {
        assert!(packet.body >= offset + headers, "a body inside the headers: {packet:?}");
    } else {
        assert_eq!(packet.body, 0, "{packet:?}");
    }
    if packet.kind == Kind::IcmpError {
        quoted(bytes, ethertype, packet);
        quoted(&answered(bytes, packet), ethertype, packet);
    }
}

/// What is behind the IP header of a packet that was accepted.
pub fn upper(packet: &[u8], v4: bool) -> (u8, Piece, &[u8]) {
    if v4 { upper_v4(packet) } else { upper_v6(packet) }
}

/// What is behind an IPv4 header that was accepted: the protocol, the piece, and the rest.
fn upper_v4(packet: &[u8]) -> (u8, Piece, &[u8]) {
    let fragment = u16::from_be_bytes([packet[6], packet[7]]);
    let piece = match (fragment & 0x1fff, fragment & 0x2000) {
        (0, 0) => Piece::Whole,
        (0, _) => Piece::First,
        _ => Piece::Later,
    };
    let header = usize::from(packet[0] & 0xf) * 4;
    (packet[9], piece, packet.get(header..).unwrap_or_default())
}

/// The same for IPv6 with its extension headers.
fn upper_v6(packet: &[u8]) -> (u8, Piece, &[u8]) {
    let mut next = packet[6];
    let mut rest = &packet[40..];
    let mut piece = Piece::Whole;
    while EXTENSION_HEADERS.contains(&next) && piece != Piece::Later {
        let (length, after) = (usize::from(rest[1]), rest[0]);
        let length = match next {
            44 => {
                piece = match (u16::from_be_bytes([rest[2], rest[3]]) >> 3, rest[3] & 1) {
                    (0, 0) => Piece::Whole,
                    (0, _) => Piece::First,
                    _ => Piece::Later,
                };
                8
            }
            51 => 4 * length + 8,
            _ => 8 * length + 8,
        };
        next = after;
        rest = rest.get(length..).unwrap_or_default();
    }
    (next, piece, rest)
}

/// The same error with a quote by whom it goes to: else few inputs would have one.
fn answered(bytes: &[u8], error: &Packet) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let addr: Vec<u8> = error.dst.words().into_iter().flat_map(u32::to_ne_bytes).collect();
    let (at, addr) = if error.dst.is_v4() { (12, &addr[12..]) } else { (8, &addr[..]) };
    let start = error.body as usize + at;
    if let Some(src) = bytes.get_mut(start..start + addr.len()) {
        src.copy_from_slice(addr);
    }
    bytes
}

/// No header is read behind the end of the IP packet, whatever the frame holds there.
fn within(packet: &[u8], v4: bool, protocol: u8, piece: Piece, upper: &[u8]) {
    let needed = match protocol {
        _ if piece == Piece::Later => 0,
        TCP => 16,
        UDP | SCTP => 4,
        ICMP | ICMPV6 => 8,
        _ => 0,
    };
    let at = packet.len() - upper.len();
    let end = match (v4, u16::from_be_bytes([packet[4], packet[5]])) {
        (true, _) => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        // A jumbo payload: the frame's end is the packet's.
        (false, 0) => packet.len(),
        (false, length) => 40 + usize::from(length),
    };
    assert!(piece == Piece::Later || at + needed <= end, "{protocol} ends at {end}: {packet:?}");
}

/// The key of a quote is that of the quoted packet.
fn quoted(bytes: &[u8], ethertype: u16, error: &Packet) {
    let Some(key) = packet::quoted(bytes, error) else { return };
    assert_eq!(key.src, error.dst, "an error goes to the sender of what it quotes");
    assert_eq!(key.src.is_v4(), error.src.is_v4());
    assert_eq!(key.dst.is_v4(), error.src.is_v4());
    let protocol = u8::try_from(key.protocol).expect("IP protocols have 8 bits");
    if !error.src.is_v4() && EXTENSION_HEADERS.contains(&protocol) {
        return;
    }
    if let Ok(Frame::Ip(packet)) = packet::parse(bytes, ethertype, error.body) {
        assert_eq!(key, packet.flow_key(), "{error:?} quotes {packet:?}");
    }
}

/// Where in the buffer a packet lies makes no difference, and behind its end is nothing.
fn anywhere(bytes: &[u8], ethertype: u16, offset: u32, parsed: Result<Frame, ParseError>) {
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    let here = packet::parse(rest, ethertype, 0);
    let moved = match here {
        Ok(Frame::Ip(packet)) if packet.body != 0 => {
            Ok(Frame::Ip(Packet { body: packet.body + offset, ..packet }))
        }
        other => other,
    };
    assert_eq!(parsed, moved);
    if let (Ok(Frame::Ip(there)), Ok(Frame::Ip(here))) = (parsed, here)
        && there.kind == Kind::IcmpError
    {
        assert_eq!(packet::quoted(bytes, &there), packet::quoted(rest, &here));
    }
    let far = packet::parse(bytes, ethertype, u32::MAX - offset);
    assert!(!matches!(far, Ok(Frame::Ip(_))), "read behind the end: {far:?}");
}

/// A message between neighbours is recognised by the length of its frame too; a cut one is not.
fn unlinked(frame: Frame) -> Frame {
    match frame {
        Frame::Ip(packet) if is_link(packet.kind) => {
            Frame::Ip(Packet { kind: Kind::Flow, body: 0, ..packet })
        }
        other => other,
    }
}

const fn is_link(kind: Kind) -> bool {
    match kind {
        Kind::NeighborDiscovery
        | Kind::NeighborClaim
        | Kind::ListenerQuery
        | Kind::ListenerReport => true,
        Kind::Flow | Kind::Fragment | Kind::IcmpError | Kind::RouterClaim => false,
    }
}

/// A packet that lacks its end is malformed or the same packet: never another one.
fn cut_off(bytes: &[u8], ethertype: u16, offset: u32, whole: Result<Frame, ParseError>) {
    for len in 0..bytes.len() {
        let cut = &bytes[..len];
        let parsed = packet::parse(cut, ethertype, offset);
        if parsed == Err(ParseError::Malformed) {
            continue;
        }
        assert_eq!(parsed.map(unlinked), whole.map(unlinked), "cut off at {len}");
        if let Ok(Frame::Ip(error)) = parsed
            && error.kind == Kind::IcmpError
            && let Some(key) = packet::quoted(cut, &error)
        {
            assert_eq!(Some(key), packet::quoted(bytes, &error), "cut off at {len}");
        }
    }
}
