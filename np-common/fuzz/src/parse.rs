//! The parser on any bytes.

use np_common::packet::{
    self, ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6, Frame, ICMP, ICMPV6, Kind, Packet, ParseError, Piece,
    SCTP, TCP, UDP,
};

/// Next headers of IPv6 that are no upper protocol.
const EXTENSION_HEADERS: [u8; 5] = [0, 43, 44, 51, 60];

/// Two bytes of ethertype, one of offset, and a packet.
pub fn check(data: &[u8]) {
    let &[high, low, offset, ref bytes @ ..] = data else { return };
    let ethertype = u16::from_be_bytes([high, low]);
    let offset = u32::from(offset);
    let parsed = packet::parse(bytes, ethertype, offset);
    assert_eq!(parsed, packet::parse(bytes, ethertype, offset), "the same twice");
    match parsed {
        Ok(Frame::Ip(packet)) => consistent(bytes, ethertype, offset, &packet),
        Ok(Frame::Arp) => assert_eq!(ethertype, ETH_P_ARP),
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
    let (protocol, piece, upper) = if v4 { upper_v4(at) } else { upper_v6(at) };
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
        Kind::NeighborDiscovery | Kind::NeighborClaim => on_link(bytes, offset, packet, 255),
        Kind::MulticastListener => on_link(bytes, offset, packet, 1),
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

/// What stands behind an IPv4 header that was accepted: the protocol, the piece, and the rest.
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

/// What passes whatever policy says comes from the same link.
fn on_link(bytes: &[u8], offset: u32, packet: &Packet, hop_limit: u8) {
    assert!(packet.protocol == ICMPV6 && !packet.src.is_v4(), "{packet:?}");
    assert_eq!(bytes.get(offset as usize + 7), Some(&hop_limit), "{packet:?}");
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

/// A packet that lacks its end is malformed or the same packet: never another one.
fn cut_off(bytes: &[u8], ethertype: u16, offset: u32, whole: Result<Frame, ParseError>) {
    for len in 0..bytes.len() {
        let cut = &bytes[..len];
        let parsed = packet::parse(cut, ethertype, offset);
        if parsed == Err(ParseError::Malformed) {
            continue;
        }
        assert_eq!(parsed, whole, "cut off at {len}");
        if let Ok(Frame::Ip(error)) = parsed
            && error.kind == Kind::IcmpError
            && let Some(key) = packet::quoted(cut, &error)
        {
            assert_eq!(Some(key), packet::quoted(bytes, &error), "cut off at {len}");
        }
    }
}
