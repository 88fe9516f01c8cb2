//! Addresses and CIDRs as sloppily as old API servers took them.
//!
//! Stored objects keep spellings that newer servers refuse for new ones: leading zeros (read as
//! decimal), IPv4 inside IPv6 (`::ffff:10.0.0.0/104`), host bits. The meaning is the same, so the
//! policy is taken. Source: `ParseIPSloppy` and `ParseCIDRSloppy` of k8s.io/utils/net, forked from
//! Go 1.16; neither `std` nor `ipnet` reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Reads a CIDR: truncated, and IPv4 when it is in the IPv4-mapped range.
pub(super) fn cidr(text: &str) -> Result<IpNet, CidrError> {
    let (address, length) = text.split_once('/').ok_or(CidrError::NoLength)?;
    let address = written(address).ok_or(CidrError::Address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let length = decimal(length).ok_or(CidrError::Length(longest))?;
    let length = u8::try_from(length).map_err(|_| CidrError::Length(longest))?;
    let network = IpNet::new(address, length).map_err(|_| CidrError::Length(longest))?.trunc();
    Ok(match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= 96 => match mapped.addr().to_ipv4_mapped() {
            Some(address) => IpNet::new(IpAddr::V4(address), mapped.prefix_len() - 96)
                .map_err(|_| CidrError::Length(longest))?,
            None => network,
        },
        _ => network,
    })
}

/// Reads an address; an IPv4-mapped one is IPv4.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    written(text).map(|address| address.to_canonical())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CidrError {
    NoLength,
    Address,
    /// With the longest that the family has.
    Length(u8),
}

impl CidrError {
    pub fn problem(self) -> String {
        match self {
            Self::NoLength => "no CIDR: the prefix length is missing".to_owned(),
            Self::Address => "no CIDR: this is no IPv4 or IPv6 address".to_owned(),
            Self::Length(longest) => {
                format!("no CIDR: the prefix length must be a number from 0 to {longest}")
            }
        }
    }

    pub fn remedy(self, text: &str) -> String {
        match self {
            Self::NoLength => match address(text) {
                Some(IpAddr::V4(one)) => format!("for one address write \"{one}/32\""),
                Some(IpAddr::V6(one)) => format!("for one address write \"{one}/128\""),
                None => "write address/length, such as \"10.0.0.0/8\"".to_owned(),
            },
            Self::Address => {
                "write address/length, such as \"10.0.0.0/8\" or \"fd00::/8\"".to_owned()
            }
            Self::Length(longest) => match text.split_once('/').and_then(|(a, _)| written(a)) {
                Some(one) => format!("for one address write \"{one}/{longest}\""),
                None => "write address/length, such as \"10.0.0.0/8\"".to_owned(),
            },
        }
    }
}

/// An address of the family it is written in.
fn written(text: &str) -> Option<IpAddr> {
    match text.bytes().find(|c| matches!(c, b'.' | b':'))? {
        b'.' => ipv4(text).map(IpAddr::V4),
        _ => ipv6(text).map(IpAddr::V6),
    }
}

fn ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = u8::try_from(decimal(parts.next()?)?).ok()?;
    }
    parts.next().is_none().then(|| Ipv4Addr::from(octets))
}

/// `std` knows the grammar; only groups and octets with too many leading zeros are rewritten.
fn ipv6(text: &str) -> Option<Ipv6Addr> {
    let (groups, embedded) = match text.rsplit_once(':') {
        Some((groups, last)) if last.contains('.') => (groups, Some(ipv4(last)?)),
        _ => (text, None),
    };
    let mut plain = Vec::new();
    for group in groups.split(':') {
        let digits = group.trim_start_matches('0');
        plain.push(if digits.is_empty() && !group.is_empty() { "0" } else { digits });
    }
    let mut plain = plain.join(":");
    if let Some(last) = embedded {
        plain = format!("{plain}:{last}");
    }
    plain.parse().ok()
}

/// A decimal number below 2^16, leading zeros allowed, no sign.
fn decimal(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let digits = text.trim_start_matches('0');
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(text: &str) -> String {
        cidr(text).map_or_else(|error| format!("{error:?}"), |network| network.to_string())
    }

    #[test]
    fn old_spellings_keep_their_meaning() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("010.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/08", "10.0.0.0/8"),
            ("010.008.009.000/024", "10.8.9.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:1.2.3.4/128", "1.2.3.4/32"),
            ("::FFFF:a00:1/112", "10.0.0.0/16"),
            ("0:0:0:0:0:ffff:10.00.0.1/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/64", "::/64"),
            ("::/0", "::/0"),
            ("FD00:00001::5/64", "fd00:1::/64"),
            ("2001:db8::1.2.3.4/128", "2001:db8::102:304/128"),
        ] {
            assert_eq!(reads(text), expected, "{text}");
        }
    }

    #[test]
    fn what_no_server_took_is_refused() {
        for (text, expected) in [
            ("10.0.0.0", "NoLength"),
            ("10.0.0.0/33", "Length(32)"),
            ("10.0.0.0/-1", "Length(32)"),
            ("10.0.0.0/+8", "Length(32)"),
            ("10.0.0.0/", "Length(32)"),
            ("10.0.0.0/8/8", "Length(32)"),
            ("10.0.0.0/255.0.0.0", "Length(32)"),
            ("fd00::/129", "Length(128)"),
            ("10.0.0/8", "Address"),
            ("10.0.0.256/8", "Address"),
            ("10.0.0.0.0/8", "Address"),
            (" 10.0.0.0/8", "Address"),
            ("fd00::1%eth0/64", "Address"),
            ("fd00::00010000/64", "Address"),
            ("fd00::1::2/64", "Address"),
            ("a.example/8", "Address"),
            ("/8", "Address"),
            ("", "NoLength"),
        ] {
            assert_eq!(reads(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_fold_like_networks() {
        assert_eq!(address("010.0.0.1"), "10.0.0.1".parse().ok());
        assert_eq!(address("::ffff:10.0.0.1"), "10.0.0.1".parse().ok());
        assert_eq!(address("FD00::01"), "fd00::1".parse().ok());
        assert_eq!(address("localhost"), None);
    }
}
