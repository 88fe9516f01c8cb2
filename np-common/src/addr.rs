//! Addresses as they lie in packets and maps: 16 bytes in network order, IPv4 as v4-mapped.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::map_type;

map_type! {
    /// An IPv4 or IPv6 address.
    ///
    /// Held as four words in memory order, not as 16 bytes: the BPF target reads bytes of unknown
    /// alignment one by one, words at once.
    pub struct Addr: 16 bytes {
        words: [u32; 4],
    }
}

/// The third word of a v4-mapped address, `::ffff:a.b.c.d`.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

impl Addr {
    /// `::`; also "no address".
    pub const UNSPECIFIED: Addr = Addr { words: [0; 4] };

    /// Makes the v4-mapped address of an IPv4 address in network order.
    #[inline(always)]
    pub const fn from_v4(bytes: [u8; 4]) -> Self {
        Self { words: [0, 0, MAPPED, u32::from_ne_bytes(bytes)] }
    }

    /// Makes an address of 16 bytes in network order.
    #[inline(always)]
    pub const fn from_v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self::from_v6_words([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// Makes an address of four words as they lie in memory.
    #[inline(always)]
    pub const fn from_v6_words(words: [u32; 4]) -> Self {
        Self { words }
    }

    /// The words in memory order: network order when read as bytes.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// Says whether it is IPv4, which is held v4-mapped.
    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        let [first, second, third, _] = self.words;
        first == 0 && second == 0 && third == MAPPED
    }

    /// Says whether it is `::` or `0.0.0.0`.
    #[inline(always)]
    pub const fn is_unspecified(&self) -> bool {
        let [first, second, third, fourth] = self.words;
        first | second | third | fourth == 0
    }

    /// `0.0.0.0`, with which a host asks whether anyone has an address (RFC 5227).
    #[inline(always)]
    pub const fn is_unspecified_v4(&self) -> bool {
        let [.., fourth] = self.words;
        self.is_v4() && fourth == 0
    }

    /// `fe80::/10`.
    #[inline(always)]
    pub const fn is_v6_link_local(&self) -> bool {
        let [first, ..] = self.words;
        first & u32::from_ne_bytes([0xff, 0xc0, 0, 0]) == u32::from_ne_bytes([0xfe, 0x80, 0, 0])
    }

    /// The link-local address that a host forms of its hardware address (RFC 4291 appendix A).
    #[inline(always)]
    pub const fn link_local_of(hardware: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = hardware;
        Self::from_v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }

    /// `ff00::/8`.
    #[inline(always)]
    pub const fn is_v6_multicast(&self) -> bool {
        let [first, ..] = self.words;
        first & u32::from_ne_bytes([0xff, 0, 0, 0]) == u32::from_ne_bytes([0xff, 0, 0, 0])
    }

    /// `224.0.0.0/4` or `ff00::/8`.
    #[inline(always)]
    pub const fn is_multicast(&self) -> bool {
        let [.., fourth] = self.words;
        let v4 =
            fourth & u32::from_ne_bytes([0xf0, 0, 0, 0]) == u32::from_ne_bytes([0xe0, 0, 0, 0]);
        self.is_v6_multicast() || v4 && self.is_v4()
    }

    /// `ff02::/16`, groups of one link.
    #[inline(always)]
    pub const fn is_v6_link_multicast(&self) -> bool {
        let [first, ..] = self.words;
        first & u32::from_ne_bytes([0xff, 0xff, 0, 0]) == u32::from_ne_bytes([0xff, 2, 0, 0])
    }
}

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        let [first, second, third, fourth] = addr.words;
        if addr.is_v4() {
            return Ipv4Addr::from(fourth.to_ne_bytes()).into();
        }
        let bits = [first, second, third, fourth]
            .iter()
            .fold(0u128, |bits, word| bits << 32 | u128::from(u32::from_be(*word)));
        Ipv6Addr::from(bits).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_into_a_map_and_back() {
        for text in ["100.68.1.10", "0.0.0.0", "fd00:68:1::10", "::", "fe80::1", "::1"] {
            let addr: IpAddr = text.parse().expect("valid address");
            assert_eq!(IpAddr::from(Addr::from(addr)), addr, "{text}");
        }
    }

    #[test]
    fn families_are_distinguished() {
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().expect("valid address"));
        assert!(addr("10.0.0.1").is_v4());
        assert!(!addr("::a00:1").is_v4());
        assert!(addr("fe80::1").is_v6_link_local());
        assert!(addr("febf::1").is_v6_link_local());
        let formed = Addr::link_local_of([0x02, 0x42, 0xac, 0x11, 0x00, 0x02]);
        assert_eq!(formed, addr("fe80::42:acff:fe11:2"));
        assert!(!addr("fec0::1").is_v6_link_local());
        assert!(!addr("169.254.1.1").is_v6_link_local());
    }
}
