//! The packet that opens a connection, as bytes.

use std::net::IpAddr;

use np_common::packet;

use super::{Probe, Protocol};

/// Ethernet, IPv6 and TCP: the longest there is.
const LONGEST: usize = 14 + 40 + 20;
const ETHERNET: usize = packet::ETH_HLEN as usize;
const CLIENT_PORT: u16 = 40_000;

#[derive(Clone, Debug)]
pub struct Opening {
    bytes: [u8; LONGEST],
    len: usize,
    pub ethertype: u16,
}

impl Opening {
    pub fn new(probe: &Probe<'_>) -> Self {
        let (src, dst) = (probe.from.address(), probe.to.address());
        let mut opening = Self { bytes: [0; LONGEST], len: ETHERNET, ethertype: 0 };
        let (upper, length) = upper(probe, src.is_ipv4());
        let (protocol, upper) = (protocol(probe.protocol, src.is_ipv4()), &upper[..length]);
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                opening.ethertype = packet::ETH_P_IPV4;
                let total = (20 + length) as u16;
                opening.put(&[0x45, 0]);
                opening.put(&total.to_be_bytes());
                opening.put(&[0, 1, 0, 0, 64, protocol, 0, 0]);
                opening.put(&src.octets());
                opening.put(&dst.octets());
            }
            (src, dst) => {
                opening.ethertype = packet::ETH_P_IPV6;
                let v6 = |addr| match addr {
                    IpAddr::V4(v4) => std::net::Ipv4Addr::to_ipv6_mapped(&v4),
                    IpAddr::V6(v6) => v6,
                };
                opening.put(&[0x60, 0, 0, 0]);
                opening.put(&(length as u16).to_be_bytes());
                opening.put(&[protocol, 64]);
                opening.put(&v6(src).octets());
                opening.put(&v6(dst).octets());
            }
        }
        opening.put(upper);
        opening
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

fn protocol(protocol: Protocol, v4: bool) -> u8 {
    match protocol {
        Protocol::Tcp => packet::TCP,
        Protocol::Udp => packet::UDP,
        Protocol::Sctp => packet::SCTP,
        Protocol::Icmp if v4 => packet::ICMP,
        Protocol::Icmp => packet::ICMPV6,
    }
}

fn upper(probe: &Probe<'_>, v4: bool) -> ([u8; 20], usize) {
    let mut bytes = [0; 20];
    let length = match probe.protocol {
        Protocol::Tcp => 20,
        Protocol::Udp | Protocol::Icmp => 8,
        Protocol::Sctp => 12,
    };
    if probe.protocol == Protocol::Icmp {
        // An echo request with id and sequence number.
        let echo = if v4 { 8 } else { 128 };
        bytes[..8].copy_from_slice(&[echo, 0, 0, 0, 7, 7, 0, 1]);
        return (bytes, length);
    }
    bytes[..2].copy_from_slice(&CLIENT_PORT.to_be_bytes());
    bytes[2..4].copy_from_slice(&probe.port.to_be_bytes());
    if probe.protocol == Protocol::Tcp {
        bytes[12] = 5 << 4;
        bytes[13] = packet::SYN;
    }
    (bytes, length)
}
