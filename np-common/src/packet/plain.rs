//! The packets that most are, read in as few steps as can be.

use super::{
    ACK, ETH_P_IPV4, ETH_P_IPV6, FIN, Packet, PacketReader, RST, SYN, TCP, UDP, halves, not_mapped,
};
use crate::addr::Addr;

/// Parses a whole TCP or UDP packet without options or extension headers that does not change how far
/// its connection has come: of TCP, one with ACK and without SYN, FIN and RST. None for any other,
/// which [`super::parse_into`] is to read.
#[inline(always)]
pub fn plain<R: PacketReader + ?Sized>(reader: &R, ethertype: u16, offset: u32) -> Option<Packet> {
    match ethertype {
        ETH_P_IPV4 => plain_v4(reader, offset),
        ETH_P_IPV6 => plain_v6(reader, offset),
        _ => None,
    }
}

#[inline(always)]
fn plain_v4<R: PacketReader + ?Sized>(reader: &R, offset: u32) -> Option<Packet> {
    let [first, second, third, src, dst] = reader.read_words(offset)?;
    let [version_ihl, _, len0, len1] = first.to_ne_bytes();
    let [_, protocol, _, _] = third.to_ne_bytes();
    if version_ihl != 0x45 || second & NOT_WHOLE != 0 {
        return None;
    }
    let left = u32::from(u16::from_be_bytes([len0, len1])).checked_sub(20)?;
    let upper = upper(reader, protocol, offset.wrapping_add(20), left)?;
    let (src, dst) = (src.to_ne_bytes(), dst.to_ne_bytes());
    Some(Packet { src: Addr::from_v4(src), dst: Addr::from_v4(dst), ..upper })
}

/// In the second word of an IPv4 header: more fragments, and the offset of this one.
const NOT_WHOLE: u32 = u32::from_ne_bytes([0, 0, 0x3f, 0xff]);

#[inline(always)]
fn plain_v6<R: PacketReader + ?Sized>(reader: &R, offset: u32) -> Option<Packet> {
    let [first, second] = reader.read_words(offset)?;
    let [version, _, _, _] = first.to_ne_bytes();
    let [len0, len1, next, _] = second.to_ne_bytes();
    if version >> 4 != 6 {
        return None;
    }
    let left = u32::from(u16::from_be_bytes([len0, len1]));
    let upper = upper(reader, next, offset.wrapping_add(40), left)?;
    let src = not_mapped(Addr::from_v6_words(reader.read_words(offset.wrapping_add(8))?))?;
    let dst = not_mapped(Addr::from_v6_words(reader.read_words(offset.wrapping_add(24))?))?;
    Some(Packet { src, dst, ..upper })
}

/// The same, from the transport header on; `left` are the bytes that the IP packet has there.
#[inline(always)]
fn upper<R: PacketReader + ?Sized>(
    reader: &R,
    protocol: u8,
    offset: u32,
    left: u32,
) -> Option<Packet> {
    let (ports, tcp_flags) = match protocol {
        TCP if left >= 16 => {
            let [ports, _, _, flags] = reader.read_words(offset)?;
            let [_, flags, _, _] = flags.to_ne_bytes();
            if flags & (SYN | FIN | RST | ACK) != ACK {
                return None;
            }
            (ports, flags)
        }
        UDP if left >= 4 => {
            let [ports] = reader.read_words(offset)?;
            (ports, 0)
        }
        _ => return None,
    };
    let [sport, dport] = halves(ports);
    Some(Packet { sport, dport, protocol, tcp_flags, ..Packet::EMPTY })
}
