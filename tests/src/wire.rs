//! Packet builders: frames by their parts, right or wrong on purpose.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use np_common::packet::{ETH_P_IPV4, ETH_P_IPV6, ICMP, ICMPV6, SCTP, TCP, UDP};
use np_policy::model::IfIndex;

/// An Ethernet frame.
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Reads a hardware address as `ip` shows it: `02:00:00:00:00:01`.
pub fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let octets: Option<Vec<u8>> =
        text.split(':').map(|octet| u8::from_str_radix(octet, 16).ok()).collect();
    octets?.try_into().ok()
}

/// A hardware address as `ip` and `bridge` write it.
pub fn hardware_text(address: [u8; 6]) -> String {
    address.map(|octet| format!("{octet:02x}")).join(":")
}

/// Which piece of its datagram a packet is.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// In units of eight bytes.
    pub offset: u16,
    pub more: bool,
    /// IPv4 has room for half of it.
    pub id: u32,
}

/// An IP packet, without a link header.
#[derive(Clone, Debug)]
pub struct Ip {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub hop_limit: u8,
    /// None for a whole packet.
    pub fragment: Option<Fragment>,
    /// How many empty headers stand in front of the transport: IPv4 options of four bytes each,
    /// IPv6 destination options.
    pub options: usize,
    pub payload: Vec<u8>,
}

impl Ip {
    pub fn new(src: IpAddr, dst: IpAddr, protocol: u8, payload: Vec<u8>) -> Self {
        Self { src, dst, protocol, hop_limit: 64, fragment: None, options: 0, payload }
    }

    pub fn ethertype(&self) -> u16 {
        if self.src.is_ipv4() { ETH_P_IPV4 } else { ETH_P_IPV6 }
    }

    pub fn bytes(&self) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src, dst),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src, dst),
            (src, dst) => panic!("{src} and {dst} are of two families"),
        }
    }

    pub fn frame(&self) -> Vec<u8> {
        ethernet(self.ethertype(), &self.bytes())
    }

    /// A frame that a real device takes: to one hardware address, from another.
    pub fn frame_between(&self, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
        let mut frame = self.frame();
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&from);
        frame
    }

    fn v4(&self, src: Ipv4Addr, dst: Ipv4Addr) -> Vec<u8> {
        let options = self.options.min(10);
        let total = (20 + options * 4 + self.payload.len()) as u16;
        let mut bytes = vec![0x45 + options as u8, 0];
        bytes.extend(total.to_be_bytes());
        let fragment = self.fragment.unwrap_or(Fragment { offset: 0, more: false, id: 1 });
        bytes.extend((fragment.id as u16).to_be_bytes());
        let more = u16::from(fragment.more) << 13;
        bytes.extend((more | fragment.offset & 0x1fff).to_be_bytes());
        bytes.extend([self.hop_limit, self.protocol, 0, 0]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend([1].repeat(options * 4));
        let sum = checksum(&bytes);
        bytes.splice(10..12, sum.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn v6(&self, src: Ipv6Addr, dst: Ipv6Addr) -> Vec<u8> {
        const DESTINATION_OPTIONS: u8 = 60;
        const FRAGMENT: u8 = 44;
        let mut next = self.protocol;
        let mut headers = Vec::new();
        if let Some(Fragment { offset, more, id }) = self.fragment {
            let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
            let [a, b, c, d] = id.to_be_bytes();
            headers.push([next, 0, high, low, a, b, c, d]);
            next = FRAGMENT;
        }
        for _ in 0..self.options {
            headers.push([next, 0, 1, 4, 0, 0, 0, 0]);
            next = DESTINATION_OPTIONS;
        }
        let length = (headers.len() * 8 + self.payload.len()) as u16;
        let mut bytes = vec![0x60, 0, 0, 0];
        bytes.extend(length.to_be_bytes());
        bytes.extend([next, self.hop_limit]);
        bytes.extend(src.octets());
        bytes.extend(dst.octets());
        bytes.extend(headers.iter().rev().flatten());
        bytes.extend(&self.payload);
        bytes
    }
}

/// Sends frames by a device of the thread's network namespace, as they are.
pub fn send_frames(device: IfIndex, frames: &[Vec<u8>]) -> anyhow::Result<()> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    anyhow::ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new, and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeros is a value of this plain structure.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = device.0 as i32;
    for frame in frames {
        // SAFETY: both buffers are as long as they say.
        let sent = unsafe {
            libc::sendto(
                socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        let error = io::Error::last_os_error();
        anyhow::ensure!(sent == frame.len() as isize, "sending {} bytes: {error}", frame.len());
    }
    Ok(())
}

/// The Internet checksum (RFC 1071).
pub fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

pub fn tcp(sport: u16, dport: u16, flags: u8) -> Vec<u8> {
    let mut bytes = ports(sport, dport).to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes
}

pub fn udp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = ports(sport, dport).to_vec();
    bytes.extend([0, 8, 0, 0]);
    bytes
}

pub fn sctp(sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = ports(sport, dport).to_vec();
    bytes.extend([0; 8]);
    bytes
}

/// An ICMP message of either family, with an echo's id.
pub fn icmp(message: u8, id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![message, 0, 0, 0, high, low, 0, 1]
}

/// An ARP reply (without a link header) that says whose an address is.
pub fn arp(sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 1];
    bytes.extend(sender.octets());
    bytes.extend([2, 0, 0, 0, 0, 2]);
    bytes.extend(target.octets());
    bytes
}

/// The start of a neighbour advertisement, and the address that it claims.
pub fn advertisement(claimed: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    bytes.extend(claimed.octets());
    bytes
}

/// An ICMP error about a packet: the message's own header, then as much of the packet as asked for.
pub fn icmp_error(message: u8, about: &Ip, quote: usize) -> Vec<u8> {
    let mut bytes = icmp(message, 0);
    bytes.extend(about.bytes().iter().take(quote));
    bytes
}

/// A transport header for a protocol, as simple as can be.
pub fn transport(protocol: u8, sport: u16, dport: u16, flags: u8, message: u8) -> Vec<u8> {
    match protocol {
        TCP => tcp(sport, dport, flags),
        UDP => udp(sport, dport),
        SCTP => sctp(sport, dport),
        ICMP | ICMPV6 => icmp(message, sport),
        _ => vec![0; 8],
    }
}

fn ports(sport: u16, dport: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (sport.to_be_bytes(), dport.to_be_bytes());
    [a, b, c, d]
}

/// A UDP datagram with right lengths and checksums, for a receiver to accept.
pub fn datagram(src: IpAddr, dst: IpAddr, sport: u16, dport: u16, data: &[u8]) -> Ip {
    let mut upper = udp(sport, dport);
    upper.extend(data);
    let length = (upper.len() as u16).to_be_bytes();
    upper.splice(4..6, length);
    let sum = checksum(&[pseudo_header(src, dst, UDP, upper.len()), upper.clone()].concat());
    upper.splice(6..8, sum.to_be_bytes());
    Ip::new(src, dst, UDP, upper)
}

/// A TCP segment with right checksums, for a receiver to accept.
pub fn segment(
    src: IpAddr,
    dst: IpAddr,
    (sport, dport): (u16, u16),
    sequence: u32,
    flags: u8,
    data: &[u8],
) -> Ip {
    let mut upper = tcp(sport, dport, flags);
    upper.splice(4..8, sequence.to_be_bytes());
    upper.extend(data);
    let sum = checksum(&[pseudo_header(src, dst, TCP, upper.len()), upper.clone()].concat());
    upper.splice(16..18, sum.to_be_bytes());
    Ip::new(src, dst, TCP, upper)
}

/// What the checksum of a transport header covers besides (RFC 8200 section 8.1).
pub fn pseudo_header(src: IpAddr, dst: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for address in [src, dst] {
        match address {
            IpAddr::V4(v4) => bytes.extend(v4.octets()),
            IpAddr::V6(v6) => bytes.extend(v6.octets()),
        }
    }
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}
