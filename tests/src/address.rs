//! One address plan for both families: the cluster is written down in IPv4, and every IPv4 address
//! and block has exactly one IPv6 twin that reads alike.
//!
//! `100.68.1.10` is `fd00:100:68:1::10`: the decimal digits of an octet become the hexadecimal
//! digits of a group. A policy's blocks translate the same way, so an IPv6 play of a story asks the
//! same questions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// The address of this family in the plan.
    pub fn address(self, v4: Ipv4Addr) -> IpAddr {
        match self {
            Family::V4 => IpAddr::V4(v4),
            Family::V6 => IpAddr::V6(twin(v4)),
        }
    }

    /// The block of this family in the plan.
    pub fn block(self, v4: Ipv4Net) -> IpNet {
        match self {
            Family::V4 => IpNet::V4(v4),
            Family::V6 => IpNet::V6(twin_block(v4)),
        }
    }

    /// A manifest with its blocks in this family.
    pub fn manifest(self, v4: &str) -> String {
        match self {
            Family::V4 => v4.to_owned(),
            Family::V6 => twin_manifest(v4),
        }
    }
}

/// Returns the IPv6 twin of an IPv4 address.
pub fn twin(v4: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = v4.octets().map(digits_as_hex);
    Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, d)
}

/// Returns the IPv6 twin of an IPv4 block: an address is inside exactly when its twin is.
///
/// # Panics
/// A block that ends inside an octet needs that octet to read as at most `ff`; the address plan
/// has no other.
pub fn twin_block(v4: Ipv4Net) -> Ipv6Net {
    let length = v4.prefix_len();
    let bits = match (length / 8, length % 8) {
        (4, _) => 128,
        (whole, 0) => 16 + 16 * whole,
        (whole, part) => {
            let octet = v4.network().octets()[usize::from(whole)];
            assert!(digits_as_hex(octet) <= 0xff, "{v4} ends inside an octet above 99");
            16 + 16 * whole + 8 + part
        }
    };
    Ipv6Net::new_assert(twin(v4.network()), bits).trunc()
}

/// Rewrites every IPv4 block in a manifest into its twin; the rest stays byte for byte.
pub fn twin_manifest(yaml: &str) -> String {
    let mut out = String::with_capacity(yaml.len() + 64);
    for line in yaml.split_inclusive('\n') {
        let block = line
            .split(|c: char| !(c.is_ascii_digit() || c == '.' || c == '/'))
            .find_map(|word| word.parse::<Ipv4Net>().ok().map(|net| (word, net)));
        match block {
            Some((word, net)) => out.push_str(&line.replace(word, &twin_block(net).to_string())),
            None => out.push_str(line),
        }
    }
    out
}

fn digits_as_hex(octet: u8) -> u16 {
    let o = u16::from(octet);
    ((o / 100) << 8) | ((o / 10 % 10) << 4) | (o % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_reads_like_its_address() {
        assert_eq!(twin(Ipv4Addr::new(100, 68, 1, 10)).to_string(), "fd00:100:68:1::10");
        assert_eq!(twin(Ipv4Addr::new(10, 244, 3, 255)).to_string(), "fd00:10:244:3::255");
    }

    /// The blocks of the cases keep, in IPv6, who is inside and who is not.
    #[test]
    fn twin_blocks_keep_membership() {
        let addresses = [
            "100.68.1.10",
            "100.68.2.30",
            "100.68.3.50",
            "100.64.5.20",
            "192.168.65.10",
            "203.0.113.50",
            "10.244.2.5",
            "10.244.3.5",
            "172.17.0.9",
            "172.17.1.9",
            "10.0.1.10",
        ];
        let blocks = [
            "100.64.0.0/16",
            "100.64.0.0/14",
            "100.68.0.0/14",
            "100.68.2.0/24",
            "192.168.64.0/19",
            "10.244.0.0/16",
            "10.244.3.0/24",
            "172.17.0.0/16",
            "172.17.1.0/24",
            "10.0.0.0/24",
            "203.0.113.50/32",
            "100.64.0.0/10",
        ];
        for block in blocks {
            let block: Ipv4Net = block.parse().unwrap();
            for address in addresses {
                let address: Ipv4Addr = address.parse().unwrap();
                assert_eq!(
                    block.contains(&address),
                    twin_block(block).contains(&twin(address)),
                    "{address} in {block}"
                );
            }
        }
    }

    #[test]
    fn a_manifest_changes_only_in_its_blocks() {
        let yaml = "spec:\n  - ipBlock:\n      cidr: 172.17.0.0/16 # all\n      except:\n        - 172.17.1.0/24\n  port: 80\n";
        assert_eq!(
            twin_manifest(yaml),
            "spec:\n  - ipBlock:\n      cidr: fd00:172:17::/48 # all\n      except:\n        - fd00:172:17:1::/64\n  port: 80\n"
        );
    }
}
