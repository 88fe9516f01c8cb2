//! The packet that an ICMP error quotes.

use super::{
    ECHO, FRAGMENT, ICMP, ICMPV6, Packet, PacketReader, SCTP, TCP, UDP, echo_id, not_mapped,
};
use crate::addr::Addr;
use crate::flow::FlowKey;

/// The tuple of the quoted packet, as its sender sent it.
///
/// An error quotes the IP header and at least 8 bytes behind it (RFC 792; RFC 4443 section 3 asks
/// for as much as fits): less than a TCP header, but the ports are there. None for what cannot be
/// read, for a fragment after the first, and for an error that goes to anyone but the quoted packet's
/// sender. Of IPv6's extension headers only a fragment's is followed: behind another the tuple is
/// one that no flow has.
#[inline(always)]
pub fn quoted<R: PacketReader + ?Sized>(reader: &R, error: &Packet) -> Option<FlowKey> {
    let Quoted { src, dst, protocol, offset } = if error.src.is_v4() {
        quoted_v4(reader, error.body)?
    } else {
        quoted_v6(reader, error.body)?
    };
    if src != error.dst {
        return None;
    }
    let [a, b, c, d, e, f]: [u8; 6] = reader.read(offset)?;
    let (sport, dport) = match (protocol, a) {
        (TCP | UDP | SCTP, _) => (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])),
        (ICMP, 8) if src.is_v4() => (echo_id(u16::from_ne_bytes([e, f])), ECHO),
        (ICMPV6, 128) if !src.is_v4() => (echo_id(u16::from_ne_bytes([e, f])), ECHO),
        (ICMP, 0) if src.is_v4() => (ECHO, echo_id(u16::from_ne_bytes([e, f]))),
        (ICMPV6, 129) if !src.is_v4() => (ECHO, echo_id(u16::from_ne_bytes([e, f]))),
        _ => (0, 0),
    };
    Some(FlowKey { src, dst, sport, dport, protocol: u32::from(protocol) })
}

struct Quoted {
    src: Addr,
    dst: Addr,
    protocol: u8,
    /// Of the transport header.
    offset: u32,
}

#[inline(always)]
fn quoted_v4<R: PacketReader + ?Sized>(reader: &R, offset: u32) -> Option<Quoted> {
    let [version_ihl, .., frag0, frag1, _, protocol, _, _]: [u8; 12] = reader.read(offset)?;
    let header_len = u32::from(version_ihl & 0xf) * 4;
    let later = u16::from_be_bytes([frag0, frag1]) & 0x1fff != 0;
    if version_ihl >> 4 != 4 || header_len < 20 || later {
        return None;
    }
    let src = Addr::from_v4(reader.read(offset.wrapping_add(12))?);
    let dst = Addr::from_v4(reader.read(offset.wrapping_add(16))?);
    Some(Quoted { src, dst, protocol, offset: offset.wrapping_add(header_len) })
}

#[inline(always)]
fn quoted_v6<R: PacketReader + ?Sized>(reader: &R, offset: u32) -> Option<Quoted> {
    let [version, .., next, _]: [u8; 8] = reader.read(offset)?;
    if version >> 4 != 6 {
        return None;
    }
    let src = not_mapped(Addr::from_v6(reader.read(offset.wrapping_add(8))?))?;
    let dst = not_mapped(Addr::from_v6(reader.read(offset.wrapping_add(24))?))?;
    let offset = offset.wrapping_add(40);
    if next != FRAGMENT {
        return Some(Quoted { src, dst, protocol: next, offset });
    }
    let [protocol, _, frag0, frag1]: [u8; 4] = reader.read(offset)?;
    if u16::from_be_bytes([frag0, frag1]) & 0xfff8 != 0 {
        return None;
    }
    Some(Quoted { src, dst, protocol, offset: offset.wrapping_add(8) })
}
