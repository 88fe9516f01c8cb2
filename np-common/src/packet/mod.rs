//! The packet parser: from bytes to what policy needs to know, and no further.
//!
//! Headers are read at checked offsets through [`PacketReader`]; what cannot be read is an error,
//! never "not IP": a hostile pod can send a packet of 14 readable bytes. Bytes behind the end of the
//! IP packet are not part of it, and no header is read from them.

mod arp;
mod neighbor;
mod plain;
mod quote;

pub use arp::arp_sender;
pub use neighbor::{claimed, proves_link_local, tentative};
pub use plain::plain;
pub use quote::quoted;

use crate::addr::Addr;
use crate::flow::FlowKey;
use crate::fragment::PortPair;
use crate::tunnel::Encapsulation;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPsec's ESP.
pub const ESP: u8 = 50;
/// In IPv6 it is an extension header, which is followed.
pub const AUTHENTICATION: u8 = 51;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Ethertype of IPv4, in host byte order.
pub const ETH_P_IPV4: u16 = 0x0800;
/// Ethertype of ARP, in host byte order.
pub const ETH_P_ARP: u16 = 0x0806;
/// Ethertype of IPv6, in host byte order.
pub const ETH_P_IPV6: u16 = 0x86dd;

/// The length of an Ethernet header; VLAN tags are not in the packet at TC.
pub const ETH_HLEN: u32 = 14;

/// TCP flags that move a flow's state.
pub const FIN: u8 = 0x01;
/// TCP flag.
pub const SYN: u8 = 0x02;
/// TCP flag.
pub const RST: u8 = 0x04;
/// TCP flag.
pub const ACK: u8 = 0x10;

/// Where bytes come from: an skb in the kernel, a slice elsewhere.
pub trait PacketReader {
    /// Copies the bytes at an offset from the packet's start; none if they are not all there.
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;

    /// The same for the headers that every packet has, as words in memory order, where there may be a
    /// faster way. The kernel's verifier must see a bound of the offset.
    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]>;

    /// How long the packet is, in bytes from its start.
    fn length(&self) -> u32;
}

impl PacketReader for [u8] {
    fn read<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let start = offset as usize;
        self.get(start..start.checked_add(N)?)?.try_into().ok()
    }

    fn read_words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = offset as usize;
        let bytes = self.get(start..start.checked_add(4 * N)?)?;
        let mut words = [0; N];
        let (chunks, _) = bytes.as_chunks();
        words.iter_mut().zip(chunks).for_each(|(word, chunk)| *word = u32::from_ne_bytes(*chunk));
        Some(words)
    }

    fn length(&self) -> u32 {
        self.len() as u32
    }
}

/// What stands behind the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An IPv4 or IPv6 packet.
    Ip(Packet),
    /// An ARP message.
    Arp,
    /// Anything else.
    Other,
}

/// What a verdict needs of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The source address.
    pub src: Addr,
    /// The destination address.
    pub dst: Addr,
    /// Ports in network byte order, 0 where the protocol has none. An echo has its id as the asking
    /// side's port and [`ECHO`] as the answering side's, so that an answer is its request's
    /// reverse and a request never is.
    pub sport: u16,
    /// As for the source.
    pub dport: u16,
    /// The protocol behind the IP headers, by its number.
    pub protocol: u8,
    /// 0 unless TCP.
    pub tcp_flags: u8,
    /// What judges it: its tuple, or a rule of its own.
    pub kind: Kind,
    /// How much of its datagram it is.
    pub piece: Piece,
    /// Which datagram a fragment is of, in host byte order; of no meaning for a whole one.
    pub datagram: u32,
    /// The offset of what follows an ICMP header where it matters: the packet that an error quotes,
    /// the address that an advertisement claims. 0 for anything else.
    pub body: u32,
}

/// How much of its datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of it.
    Whole,
    /// The first fragment: the one with the ports.
    First,
    /// Any other fragment.
    Later,
}

/// The answering side's "port" of an echo.
pub const ECHO: u16 = 8u16.to_be();

/// What a packet is to the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Part of a flow that the tuple names.
    Flow,
    /// A fragment after the first, as long as its ports are not known.
    Fragment,
    /// An ICMP error, which is judged by the packet that it quotes.
    IcmpError,
    /// Neighbour and router solicitation, in the form that only a host on the link can send.
    NeighborDiscovery,
    /// Neighbour advertisement, in that form.
    NeighborClaim,
    /// Router advertisement, redirect of either family.
    RouterClaim,
    /// A router's query for multicast listeners, in that form.
    ListenerQuery,
    /// A listener's report or goodbye, in that form.
    ListenerReport,
}

/// Why a packet cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Cut off, self-contradictory, or unreadable.
    Malformed,
    /// More IPv6 extension headers than [`EXTENSION_HEADERS`].
    ExtensionHeaders,
}

/// How many IPv6 extension headers are followed.
pub const EXTENSION_HEADERS: usize = 6;

impl Packet {
    /// What nothing has been read of yet.
    pub const EMPTY: Packet = Packet {
        src: Addr::UNSPECIFIED,
        dst: Addr::UNSPECIFIED,
        sport: 0,
        dport: 0,
        protocol: 0,
        tcp_flags: 0,
        kind: Kind::Flow,
        piece: Piece::Whole,
        datagram: 0,
        body: 0,
    };

    /// Returns the key under which FLOWS has it.
    #[inline(always)]
    pub const fn flow_key(&self) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            protocol: self.protocol as u32,
        }
    }

    /// Whether it is one of the first packets of a TCP connection, from either side.
    #[inline(always)]
    pub const fn has_syn(&self) -> bool {
        self.protocol == TCP && self.tcp_flags & SYN != 0
    }

    /// What the first fragment leaves for the later ones.
    #[inline(always)]
    pub const fn ports(&self) -> PortPair {
        PortPair { sport: self.sport, dport: self.dport, protocol: self.protocol as u32 }
    }

    /// Makes a later fragment part of the flow that the first one is of.
    #[inline(always)]
    pub const fn set_ports(&mut self, ports: &PortPair) {
        let PortPair { sport, dport, protocol } = *ports;
        (self.sport, self.dport, self.protocol) = (sport, dport, protocol as u8);
        self.kind = Kind::Flow;
    }
}

/// What is behind the link layer, without the packet itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// IPv4 or IPv6.
    Ip,
    /// ARP.
    Arp,
    /// Anything else.
    Other,
}

/// Parses the packet whose network header is at `offset`, and writes what it says to where that is to
/// be. After an error there is something there, and it means nothing.
///
/// A function of its own also in the kernel: all its memory is free again behind it, of which a
/// program has no more than 512 bytes.
#[inline(never)]
pub fn parse_into<R: PacketReader + ?Sized>(
    reader: &R,
    ethertype: u16,
    offset: u32,
    packet: &mut Packet,
) -> Result<Layer, ParseError> {
    match ethertype {
        ETH_P_IPV4 => parse_v4(reader, offset, packet)?,
        ETH_P_IPV6 => parse_v6(reader, offset, packet)?,
        ETH_P_ARP => return Ok(Layer::Arp),
        _ => return Ok(Layer::Other),
    }
    Ok(Layer::Ip)
}

/// Parses the packet whose network header is at `offset`.
pub fn parse<R: PacketReader + ?Sized>(
    reader: &R,
    ethertype: u16,
    offset: u32,
) -> Result<Frame, ParseError> {
    let mut packet = Packet::EMPTY;
    Ok(match parse_into(reader, ethertype, offset, &mut packet)? {
        Layer::Ip => Frame::Ip(packet),
        Layer::Arp => Frame::Arp,
        Layer::Other => Frame::Other,
    })
}

/// Whether a packet could be one that a tunnel unwraps, by as little of it as tells.
#[inline(always)]
pub fn may_wrap<R: PacketReader + ?Sized>(reader: &R, ethertype: u16, offset: u32) -> bool {
    let [protocol]: [u8; 1] = match ethertype {
        ETH_P_IPV4 => reader.read(offset.wrapping_add(9)).unwrap_or_default(),
        ETH_P_IPV6 => reader.read(offset.wrapping_add(6)).unwrap_or_default(),
        _ => return false,
    };
    Encapsulation::has(protocol) || ethertype == ETH_P_IPV6 && is_extension_header(protocol)
}

#[inline(always)]
fn parse_v4<R: PacketReader + ?Sized>(
    reader: &R,
    offset: u32,
    packet: &mut Packet,
) -> Result<(), ParseError> {
    let [first, second, third, src, dst] =
        reader.read_words(offset).ok_or(ParseError::Malformed)?;
    let [version_ihl, _, len0, len1] = first.to_ne_bytes();
    let [id0, id1, frag0, frag1] = second.to_ne_bytes();
    let [_, protocol, _, _] = third.to_ne_bytes();
    let header_len = u32::from(version_ihl & 0xf) * 4;
    let total_len = u32::from(u16::from_be_bytes([len0, len1]));
    if version_ihl >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(ParseError::Malformed);
    }
    let fragment = u16::from_be_bytes([frag0, frag1]);
    let id = u32::from(u16::from_be_bytes([id0, id1]));
    let (offset, left) = (offset.wrapping_add(header_len), total_len.wrapping_sub(header_len));
    *packet = Packet {
        src: Addr::from_v4(src.to_ne_bytes()),
        dst: Addr::from_v4(dst.to_ne_bytes()),
        protocol,
        piece: piece(fragment & 0x1fff, fragment & 0x2000 != 0),
        datagram: id,
        ..Packet::EMPTY
    };
    parse_upper(reader, &Upper { offset, left, v6: None }, packet)
}

/// A fragment by its offset and whether more follow.
#[inline(always)]
const fn piece(offset: u16, more: bool) -> Piece {
    match (offset, more) {
        (0, false) => Piece::Whole,
        (0, true) => Piece::First,
        _ => Piece::Later,
    }
}

#[inline(always)]
fn parse_v6<R: PacketReader + ?Sized>(
    reader: &R,
    offset: u32,
    packet: &mut Packet,
) -> Result<(), ParseError> {
    let [first, second] = reader.read_words(offset).ok_or(ParseError::Malformed)?;
    let [version, _, _, _] = first.to_ne_bytes();
    let [len0, len1, mut next, hop_limit] = second.to_ne_bytes();
    if version >> 4 != 6 {
        return Err(ParseError::Malformed);
    }
    let src = reader.read_words(offset.wrapping_add(8)).ok_or(ParseError::Malformed)?;
    let dst = reader.read_words(offset.wrapping_add(24)).ok_or(ParseError::Malformed)?;
    let src = not_mapped(Addr::from_v6_words(src)).ok_or(ParseError::Malformed)?;
    let dst = not_mapped(Addr::from_v6_words(dst)).ok_or(ParseError::Malformed)?;
    *packet = Packet { src, dst, ..Packet::EMPTY };

    let payload_len = u32::from(u16::from_be_bytes([len0, len1]));
    // RFC 2675: a jumbo payload has its length in an option. The kernel sends itself such packets
    // (big TCP); there the frame's end is the packet's.
    let payload_len = if payload_len == 0 { MOST_BYTES } else { payload_len };
    let start = offset;
    let mut offset = offset.wrapping_add(40);
    let mut passed = 0u32;
    let mut piece = Piece::Whole;
    let mut datagram = 0;
    let mut followed = 0;
    while is_extension_header(next) && piece != Piece::Later {
        if followed == EXTENSION_HEADERS {
            return Err(ParseError::ExtensionHeaders);
        }
        followed += 1;
        let [after, len, frag0, frag1, id0, id1, id2, id3]: [u8; 8] =
            reader.read(offset).ok_or(ParseError::Malformed)?;
        let step = match next {
            FRAGMENT => {
                let fragment = u16::from_be_bytes([frag0, frag1]);
                piece = self::piece(fragment >> 3, fragment & 1 != 0);
                datagram = u32::from_be_bytes([id0, id1, id2, id3]);
                8
            }
            // RFC 4302 section 2.2: the authentication header counts 4-byte units, less two.
            AUTHENTICATION => (u32::from(len) + 2) * 4,
            _ => (u32::from(len) + 1) * 8,
        };
        offset = offset.wrapping_add(step);
        passed = passed.wrapping_add(step);
        next = after;
    }
    if passed > payload_len {
        return Err(ParseError::Malformed);
    }
    let left = payload_len.wrapping_sub(passed);
    let v6 = Some(Link { hop_limit, followed, options: passed, start });
    (packet.protocol, packet.piece, packet.datagram) = (next, piece, datagram);
    parse_upper(reader, &Upper { offset, left, v6 }, packet)
}

/// More than any packet has.
const MOST_BYTES: u32 = 1 << 24;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

#[inline(always)]
const fn is_extension_header(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// RFC 4291 section 2.5.5.2: a v4-mapped address never appears on the wire, and in the maps it would be
/// taken for the IPv4 address.
#[inline(always)]
const fn not_mapped(addr: Addr) -> Option<Addr> {
    if addr.is_v4() { None } else { Some(addr) }
}

/// Where the transport header is, and what is known of the way there.
struct Upper {
    offset: u32,
    /// How many bytes the IP packet has from there on.
    left: u32,
    v6: Option<Link>,
}

/// What an IPv6 header says about whether its sender is on the link.
#[derive(Clone, Copy)]
struct Link {
    hop_limit: u8,
    /// How many extension headers there are.
    followed: usize,
    /// The bytes of extension headers.
    options: u32,
    /// Where the IPv6 header is.
    start: u32,
}

#[inline(always)]
fn parse_upper<R: PacketReader + ?Sized>(
    reader: &R,
    upper: &Upper,
    packet: &mut Packet,
) -> Result<(), ParseError> {
    let &Upper { offset, left, v6 } = upper;
    if packet.piece == Piece::Later {
        packet.kind = Kind::Fragment;
        return Ok(());
    }
    match packet.protocol {
        TCP if left >= 16 => {
            let [ports, _, _, flags] = reader.read_words(offset).ok_or(ParseError::Malformed)?;
            [packet.sport, packet.dport] = halves(ports);
            [_, packet.tcp_flags, _, _] = flags.to_ne_bytes();
        }
        UDP | SCTP if left >= 4 => {
            let [ports] = reader.read_words(offset).ok_or(ParseError::Malformed)?;
            [packet.sport, packet.dport] = halves(ports);
        }
        ICMP | ICMPV6 if left >= 8 => {
            let [first, second] = reader.read_words(offset).ok_or(ParseError::Malformed)?;
            let [message, code, _, _] = first.to_ne_bytes();
            let [id, _] = halves(second);
            let id = echo_id(id);
            let icmp = match v6 {
                Some(link) if packet.protocol == ICMPV6 => {
                    neighbor::icmp_v6(reader, packet, upper, &link, [message, code])
                }
                // Neither protocol means anything in the other family: no receiver takes it for more
                // than bytes.
                None if packet.protocol == ICMP => icmp_v4(message),
                _ => Icmp::Is(Kind::Flow),
            };
            match icmp {
                Icmp::EchoRequest => (packet.sport, packet.dport) = (id, ECHO),
                Icmp::EchoReply => (packet.sport, packet.dport) = (ECHO, id),
                Icmp::Is(kind) => {
                    packet.kind = kind;
                    if matches!(kind, Kind::IcmpError | Kind::NeighborClaim) {
                        packet.body = offset.wrapping_add(8);
                    }
                }
            }
        }
        TCP | UDP | SCTP | ICMP | ICMPV6 => return Err(ParseError::Malformed),
        _ => {}
    }
    Ok(())
}

/// An echo's id, but never that of the answering side's "port": a request would be its own reverse.
#[inline(always)]
const fn echo_id(id: u16) -> u16 {
    if id == ECHO { 0 } else { id }
}

/// A word's two halves, in memory order all three.
#[inline(always)]
const fn halves(word: u32) -> [u16; 2] {
    let [a, b, c, d] = word.to_ne_bytes();
    [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
}

enum Icmp {
    EchoRequest,
    EchoReply,
    Is(Kind),
}

#[inline(always)]
const fn icmp_v4(message: u8) -> Icmp {
    match message {
        8 => Icmp::EchoRequest,
        0 => Icmp::EchoReply,
        3 | 4 | 11 | 12 => Icmp::Is(Kind::IcmpError),
        5 => Icmp::Is(Kind::RouterClaim),
        _ => Icmp::Is(Kind::Flow),
    }
}

#[cfg(test)]
mod tests;
