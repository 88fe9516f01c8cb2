//! Fragments: only the first one of a datagram has ports, so it leaves them for the others.
//!
//! What is remembered proves nothing and need not: without a first fragment that passed itself,
//! no receiver can make anything of the later ones. It says by which ports they are judged.

use crate::abi::map_type;
use crate::addr::Addr;
use crate::endpoint::EndpointId;
use crate::packet::Packet;

map_type! {
    /// The key of FRAGMENTS: which datagram a fragment is of.
    pub struct FragmentKey: 44 bytes {
        src: Addr,
        dst: Addr,
        /// What IP identifies the datagram by, host byte order.
        id: u32,
        /// 0 where the id is for all protocols (IPv6, RFC 8200 section 4.5).
        protocol: u32,
        /// Who sent it, on which side of NAT it was seen, and whether the key is of one datagram.
        scope: u32,
    }
}

/// NAT changes addresses between the two, so what was learnt at one is nothing to the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// At `from_*`.
    From = 0,
    /// At `to_*`.
    To = 1 << 16,
}

const LATEST: u32 = 1 << 17;

impl FragmentKey {
    /// One datagram's.
    #[inline(always)]
    pub const fn new(side: Side, sender: EndpointId, packet: &Packet) -> Self {
        let Packet { src, dst, datagram, protocol, .. } = *packet;
        let protocol = if src.is_v4() { protocol as u32 } else { 0 };
        Self { src, dst, id: datagram, protocol, scope: side as u32 | sender.get() as u32 }
    }

    /// The latest datagram's that passed in the same way: what stands for a fragment that overtook
    /// its first one.
    #[inline(always)]
    pub const fn latest(self, protocol: u8) -> Self {
        Self { id: 0, protocol: protocol as u32, scope: self.scope | LATEST, ..self }
    }
}

map_type! {
    /// What a first fragment says of the others.
    pub struct PortPair: 8 bytes {
        /// The source port in network order.
        pub sport: u16,
        /// The destination port in network order.
        pub dport: u16,
        /// The protocol's number: in IPv6 a later fragment can name an extension header here.
        pub protocol: u32,
    }
}
