//! ICMPv6 between neighbours: discovery and multicast listeners.
//!
//! These messages keep a link working and pass whatever policy says. So they count as such only in the
//! form that a host on the link gives them: source, destination, hop limit and length. What a router
//! forwarded does not have it, whatever hop limit it was sent with, and there is no room for a message.

use super::{ETH_HLEN, ICMPV6, Icmp, Kind, Link, Packet, PacketReader, Piece, Upper, not_mapped};
use crate::addr::Addr;

/// Where a message of discovery begins on Ethernet: it has no extension headers.
const MESSAGE: u32 = ETH_HLEN + 40;

/// The address that a neighbour advertisement claims (RFC 4861 section 4.4).
#[inline(always)]
pub fn claimed<R: PacketReader + ?Sized>(reader: &R, packet: &Packet) -> Option<Addr> {
    not_mapped(Addr::from_v6(reader.read(packet.body)?))
}

/// The address that a [`Kind::NeighborDiscovery`] from no address is about: who asks for it means to
/// take it (RFC 4862 section 5.4). None for a question about routers.
#[inline(always)]
pub fn tentative<R: PacketReader + ?Sized>(reader: &R) -> Option<Addr> {
    let [message] = reader.read(MESSAGE)?;
    if message != 135 {
        return None;
    }
    Some(Addr::from_v6(reader.read(MESSAGE + 8)?))
}

/// Whether what a discovery message on Ethernet says of a link-local address is true by itself: nobody
/// lists these, but a host forms its own of the hardware address that it sends from. So the address
/// must be formed of the frame's source, and an option with a link-layer address must hold that one.
#[inline(always)]
pub fn proves_link_local<R: PacketReader + ?Sized>(reader: &R, addr: &Addr) -> bool {
    let Some(hardware) = reader.read::<6>(6) else { return false };
    let Some([message]) = reader.read::<1>(MESSAGE) else { return false };
    let options = MESSAGE + if message == 133 { 8 } else { 24 };
    *addr == Addr::link_local_of(hardware)
        && is_said(reader, options, hardware)
        && is_said(reader, options + 8, hardware)
}

/// Whether an option (RFC 4861 section 4.6.1), where there is one, says no other hardware address.
#[inline(always)]
fn is_said<R: PacketReader + ?Sized>(reader: &R, option: u32, hardware: [u8; 6]) -> bool {
    match reader.read::<8>(option) {
        Some([1 | 2, length, said @ ..]) => length == 1 && same(said, hardware),
        Some(_) | None => true,
    }
}

/// `==` on arrays is a call of `memcmp`, which BPF has none of.
#[inline(always)]
const fn same(one: [u8; 6], other: [u8; 6]) -> bool {
    let ([a, b, c, d, e, f], [g, h, i, j, k, l]) = (one, other);
    a == g && b == h && c == i && d == j && e == k && f == l
}

/// Lengths of messages from their ICMPv6 header on. Options are a link-layer address (8 bytes on
/// Ethernet) and, where one is asked for, a nonce (RFC 7527 section 4.1, 8 bytes).
const ROUTER_SOLICITATION: [u32; 3] = [8, 16, 24];
const SOLICITATION: [u32; 3] = [24, 32, 40];
const ADVERTISEMENT: [u32; 2] = [24, 32];
/// RFC 2710 section 3; RFC 3810 section 5.1 without sources.
const QUERY: [u32; 2] = [24, 28];
const REPORT: u32 = 24;
/// RFC 3810 section 5.2 with one to four groups without sources: as many as a pod has by itself.
const REPORT_V2: [u32; 4] = [28, 48, 68, 88];

/// What an ICMPv6 message is.
#[inline(always)]
pub(super) fn icmp_v6<R: PacketReader + ?Sized>(
    reader: &R,
    packet: &Packet,
    upper: &Upper,
    link: &Link,
    [message, code]: [u8; 2],
) -> Icmp {
    let kind = match message {
        128 => return Icmp::EchoRequest,
        129 => return Icmp::EchoReply,
        1..128 => return Icmp::Is(Kind::IcmpError),
        134 | 137 => return Icmp::Is(Kind::RouterClaim),
        133 | 135 => Kind::NeighborDiscovery,
        136 => Kind::NeighborClaim,
        130 => Kind::ListenerQuery,
        131 | 132 | 143 => Kind::ListenerReport,
        _ => return Icmp::Is(Kind::Flow),
    };
    // Looked at first, because the verifier knows it: it need not walk the rest for each header.
    let listener = matches!(kind, Kind::ListenerQuery | Kind::ListenerReport);
    if link.followed != usize::from(listener) || packet.piece != Piece::Whole || code != 0 {
        return Icmp::Is(Kind::Flow);
    }
    // Nothing may follow the packet in its frame either.
    let end = link.start.wrapping_add(40).wrapping_add(link.options).wrapping_add(upper.left);
    let as_sent = if listener {
        is_listener(reader, packet, upper, link, message)
    } else {
        is_discovery(packet, upper, link, message)
    };
    Icmp::Is(if as_sent && reader.length() == end { kind } else { Kind::Flow })
}

/// RFC 4861 sections 6.1.1, 7.1.1 and 7.1.2: hop limit 255, which no router leaves.
#[inline(always)]
fn is_discovery(packet: &Packet, upper: &Upper, link: &Link, message: u8) -> bool {
    let left = upper.left;
    let length = match message {
        133 => ROUTER_SOLICITATION.contains(&left) && packet.dst.is_v6_link_multicast(),
        135 => SOLICITATION.contains(&left),
        _ => ADVERTISEMENT.contains(&left),
    };
    length && link.hop_limit == 255 && link.options == 0
}

/// RFC 2710 section 3 and RFC 3810 section 5: hop limit 1, behind a router-alert option, from a
/// link-local address (a listener without one yet: the unspecified one), to a group. A router does
/// not forward what comes from there, so a hop limit of 2 sent does not arrive as 1.
#[inline(always)]
fn is_listener<R: PacketReader + ?Sized>(
    reader: &R,
    packet: &Packet,
    upper: &Upper,
    link: &Link,
    message: u8,
) -> bool {
    let left = upper.left;
    let length = match message {
        130 => QUERY.contains(&left),
        143 => REPORT_V2.contains(&left),
        _ => left == REPORT,
    };
    let source = packet.src.is_v6_link_local() || packet.src.is_unspecified() && message != 130;
    length
        && source
        && packet.dst.is_v6_multicast()
        && link.hop_limit == 1
        && link.options == 8
        && is_router_alert(reader.read(link.start.wrapping_add(40)))
}

/// The hop-by-hop header in front of a listener message: the router alert (RFC 2711) and its padding,
/// as the systems write it that we know.
#[inline(always)]
fn is_router_alert(header: Option<[u8; 8]>) -> bool {
    let Some([next, length, options @ ..]) = header else { return false };
    let known = matches!(options, [5, 2, 0, 0, 1, 0] | [5, 2, 0, 0, 0, 0] | [1, 0, 5, 2, 0, 0]);
    next == ICMPV6 && length == 0 && known
}

#[cfg(test)]
mod tests {
    use super::super::{ETH_P_IPV6, Frame, ICMPV6, parse};
    use super::*;

    const LINK_LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const GLOBAL: [u8; 16] = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const UNSPECIFIED: [u8; 16] = [0; 16];
    const ALL_NODES: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    struct Message {
        src: [u8; 16],
        dst: [u8; 16],
        hop_limit: u8,
        kind: u8,
        code: u8,
        alert: bool,
        length: usize,
        trailer: usize,
    }

    impl Message {
        fn discovery(kind: u8, length: usize) -> Self {
            let (src, dst) = (GLOBAL, ALL_NODES);
            Self { src, dst, hop_limit: 255, kind, code: 0, alert: false, length, trailer: 0 }
        }

        fn listener(kind: u8, length: usize) -> Self {
            let discovery = Self::discovery(kind, length);
            Self { src: LINK_LOCAL, hop_limit: 1, alert: true, ..discovery }
        }

        fn parsed(&self) -> Kind {
            let options: &[u8] = if self.alert { &[ICMPV6, 0, 5, 2, 0, 0, 1, 0] } else { &[] };
            let next = if self.alert { 0 } else { ICMPV6 };
            let payload = (options.len() + self.length) as u8;
            let mut bytes = vec![0x60, 0, 0, 0, 0, payload, next, self.hop_limit];
            bytes.extend(self.src);
            bytes.extend(self.dst);
            bytes.extend(options);
            let start = bytes.len();
            bytes.resize(start + self.length + self.trailer, 0);
            bytes[start] = self.kind;
            bytes[start + 1] = self.code;
            match parse(bytes.as_slice(), ETH_P_IPV6, 0) {
                Ok(Frame::Ip(packet)) => packet.kind,
                other => panic!("{other:?}"),
            }
        }
    }

    /// Every message, with every hop limit and length: only the form of its RFC passes unjudged.
    #[test]
    fn only_the_exact_form_counts() {
        for kind in [130, 131, 132, 133, 135, 136, 143] {
            let listener = matches!(kind, 130..=132 | 143);
            let lengths: &[usize] = match kind {
                130 => &[24, 28],
                131 | 132 => &[24],
                133 => &[8, 16, 24],
                135 => &[24, 32, 40],
                136 => &[24, 32],
                _ => &[28, 48, 68, 88],
            };
            for length in 8..200 {
                for hop_limit in 0..=255 {
                    let message = if listener {
                        Message { hop_limit, ..Message::listener(kind, length) }
                    } else {
                        Message { hop_limit, ..Message::discovery(kind, length) }
                    };
                    let exact =
                        lengths.contains(&length) && hop_limit == if listener { 1 } else { 255 };
                    let parsed = message.parsed();
                    assert_eq!(parsed != Kind::Flow, exact, "{kind} {length} {hop_limit}");
                }
            }
        }
    }

    #[test]
    fn a_listener_speaks_from_its_link_to_a_group() {
        let message = || Message::listener(143, 28);
        assert_eq!(message().parsed(), Kind::ListenerReport);
        assert_eq!(Message { src: UNSPECIFIED, ..message() }.parsed(), Kind::ListenerReport);
        assert_eq!(Message::listener(130, 28).parsed(), Kind::ListenerQuery);
        for (what, message) in [
            (
                "from a global address, as a router would forward it",
                Message { src: GLOBAL, ..message() },
            ),
            ("to one host", Message { dst: LINK_LOCAL, ..message() }),
            ("without router alert", Message { alert: false, ..message() }),
            ("with a code", Message { code: 1, ..message() }),
            ("with something behind it", Message { trailer: 1, ..message() }),
            ("a query from nowhere", Message { src: UNSPECIFIED, ..Message::listener(130, 24) }),
        ] {
            assert_eq!(message.parsed(), Kind::Flow, "{what}");
        }
    }

    #[test]
    fn discovery_has_nothing_around_it() {
        let message = || Message::discovery(135, 32);
        assert_eq!(message().parsed(), Kind::NeighborDiscovery);
        assert_eq!(Message::discovery(136, 32).parsed(), Kind::NeighborClaim);
        for (what, message) in [
            ("extension headers", Message { alert: true, ..message() }),
            ("a code", Message { code: 1, ..message() }),
            ("something behind it", Message { trailer: 8, ..message() }),
            ("one host asked for routers", Message { dst: GLOBAL, ..Message::discovery(133, 8) }),
        ] {
            assert_eq!(message.parsed(), Kind::Flow, "{what}");
        }
    }
}
