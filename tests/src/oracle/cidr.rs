//! Address blocks, as every API server there has been accepts them.
//!
//! Stored blocks may have been read by Go's old parser: IPv4 numbers with leading zeros are
//! decimal, host bits are ignored, IPv4-mapped blocks are IPv4 blocks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The addresses from `first` to `last`, both included, of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    v6: bool,
    first: u128,
    last: u128,
}

impl Block {
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let length = decimal(length, 128)?;
        let (bits, length, address) = match address_of(address)? {
            IpAddr::V4(v4) => (32, length, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) if length >= 96 => (32, length - 96, u128::from(v4.to_bits())),
                _ => (128, length, v6.to_bits()),
            },
        };
        let host_bits = u32::checked_sub(bits, length)?;
        let hosts = 1u128.checked_shl(host_bits).map_or(u128::MAX, |size| size - 1);
        let first = address & !hosts;
        Some(Self { v6: bits == 128, first, last: first | hosts })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let (v6, address) = match address.to_canonical() {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
            IpAddr::V6(v6) => (true, v6.to_bits()),
        };
        self.v6 == v6 && (self.first..=self.last).contains(&address)
    }
}

/// Reads an address in any spelling that was ever accepted.
pub fn address_of(text: &str) -> Option<IpAddr> {
    if !text.contains(':') {
        return v4(text).map(IpAddr::V4);
    }
    let (groups, tail) = match text.rsplit_once(':') {
        Some((groups, tail)) if tail.contains('.') => {
            let [a, b, c, d] = v4(tail)?.octets();
            (groups, Some(format!("{a:02x}{b:02x}:{c:02x}{d:02x}")))
        }
        _ => (text, None),
    };
    let mut groups: Vec<&str> = groups.split(':').map(unpadded).collect();
    groups.extend(tail.as_deref());
    groups.join(":").parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn v4(text: &str) -> Option<Ipv4Addr> {
    let octets: Option<Vec<u8>> = text
        .split('.')
        .map(|octet| decimal(octet, 255).and_then(|octet| u8::try_from(octet).ok()))
        .collect();
    <[u8; 4]>::try_from(octets?).ok().map(Ipv4Addr::from)
}

/// Digits only, leading zeros ignored.
fn decimal(text: &str, max: u32) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    unpadded(text).parse().ok().filter(|number| *number <= max)
}

/// The number without leading zeros; an empty group of "::" stays empty.
fn unpadded(number: &str) -> &str {
    let rest = number.trim_start_matches('0');
    if rest.is_empty() && !number.is_empty() { "0" } else { rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(block: &str, address: &str) -> bool {
        Block::parse(block).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn every_spelling_of_a_block_is_the_same_block() {
        let plain = Block::parse("10.0.0.0/8");
        assert!(plain.is_some());
        for spelling in [
            "10.1.2.3/8",
            "010.0.0.0/8",
            "10.0.00.000/08",
            "::ffff:10.0.0.0/104",
            "::FFFF:010.9.0.1/0104",
            "::ffff:a00:0/104",
            "0:0:0:0:0:0ffff:0a00:0/104",
        ] {
            assert_eq!(Block::parse(spelling), plain, "{spelling}");
        }
        assert_eq!(Block::parse("FD00::1/16"), Block::parse("fd00::/16"));
    }

    #[test]
    fn the_edges_of_a_block_belong_to_it_and_their_neighbours_do_not() {
        for (block, inside, outside) in [
            ("10.1.0.8/29", ["10.1.0.8", "10.1.0.15"], ["10.1.0.7", "10.1.0.16"]),
            ("10.1.0.8/32", ["10.1.0.8", "10.1.0.8"], ["10.1.0.7", "10.1.0.9"]),
            ("64.0.0.0/2", ["64.0.0.0", "127.255.255.255"], ["63.255.255.255", "128.0.0.0"]),
            ("fd00:1::/127", ["fd00:1::", "fd00:1::1"], ["fd00::ffff", "fd00:1::2"]),
            ("fd00::/8", ["fd00::", "fdff::1"], ["fc00::", "fe00::"]),
        ] {
            assert!(inside.iter().all(|address| contains(block, address)), "{block}");
            assert!(!outside.iter().any(|address| contains(block, address)), "{block}");
        }
    }

    #[test]
    fn everything_of_one_family_is_nothing_of_the_other() {
        assert!(contains("0.0.0.0/0", "255.255.255.255"));
        assert!(contains("0.0.0.0/0", "::ffff:1.2.3.4"));
        assert!(!contains("0.0.0.0/0", "::1"));
        assert!(contains("::/0", "ffff::ffff"));
        assert!(!contains("::/0", "1.2.3.4"));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "10.0.0.0/+8",
            "10.0.0.0/ 8",
            "10.0.0.0/8/8",
            ":::/0",
            "fd00::/129",
            "g::/8",
            "1:2/8",
            "::10.0.0/96",
        ] {
            assert_eq!(Block::parse(text), None, "{text}");
        }
    }
}
