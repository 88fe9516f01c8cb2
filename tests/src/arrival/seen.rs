//! A captured frame, read once more and by code of its own: the agent's parser is what is on trial.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// The ends of a packet. An echo has its id as both ports, so that a reply is the reverse of its
/// request; what has no ports has 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub sport: u16,
    pub dport: u16,
}

/// What an IP packet is, as far as it decides who may send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// With ports: TCP, UDP.
    Ported,
    EchoRequest,
    EchoReply,
    /// An ICMP error, with the ends of the packet it quotes if they can be read.
    Error(Option<Flow>),
    /// A piece of a datagram without its head: no ports.
    Later,
    /// The number of any other ICMP message.
    Message(u8),
    Other,
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub ethertype: u16,
    /// The sender's and receiver's hardware addresses are the first twelve bytes.
    pub to: [u8; 6],
    pub ip: Option<Ip>,
}

#[derive(Clone, Copy, Debug)]
pub struct Ip {
    pub flow: Flow,
    pub form: Form,
    pub hop_limit: u8,
}

impl Flow {
    pub fn reversed(self) -> Self {
        let Self { src, dst, protocol, sport, dport } = self;
        Self { src: dst, dst: src, protocol, sport: dport, dport: sport }
    }
}

impl Seen {
    pub fn read(frame: &[u8]) -> Option<Self> {
        let to = frame.get(..6)?.try_into().ok()?;
        let mut at = 12;
        let mut ethertype = be16(frame, at)?;
        while matches!(ethertype, 0x8100 | 0x88a8) {
            at += 4;
            ethertype = be16(frame, at)?;
        }
        let packet = frame.get(at + 2..)?;
        let ip = match ethertype {
            0x0800 | 0x86dd => read_ip(packet, true),
            _ => None,
        };
        Some(Self { ethertype, to, ip })
    }
}

fn read_ip(packet: &[u8], quotes: bool) -> Option<Ip> {
    let (src, dst, protocol, hop_limit, offset, upper): (IpAddr, IpAddr, _, _, _, _) =
        if packet.first()? >> 4 == 4 {
            let header = usize::from(packet[0] & 15) * 4;
            let [src, dst] = [12, 16].map(|at| octets::<4>(packet, at).map(Ipv4Addr::from));
            let offset = be16(packet, 6)? & 0x1fff;
            let (protocol, hop_limit) = (*packet.get(9)?, *packet.get(8)?);
            (src?.into(), dst?.into(), protocol, hop_limit, offset, packet.get(header..)?)
        } else {
            let [src, dst] = [8, 24].map(|at| octets::<16>(packet, at).map(Ipv6Addr::from));
            let (protocol, offset, upper) = behind_extensions(packet)?;
            (src?.into(), dst?.into(), protocol, *packet.get(7)?, offset, upper)
        };
    let mut flow = Flow { src, dst, protocol, sport: 0, dport: 0 };
    let form = match protocol {
        _ if offset > 0 => Form::Later,
        TCP | UDP => {
            let (Some(sport), Some(dport)) = (be16(upper, 0), be16(upper, 2)) else {
                return Some(Ip { flow, form: Form::Other, hop_limit });
            };
            (flow.sport, flow.dport) = (sport, dport);
            Form::Ported
        }
        ICMP | ICMPV6 => {
            let message = *upper.first()?;
            match (protocol, message) {
                (ICMP, 8 | 0) | (ICMPV6, 128 | 129) => {
                    let id = be16(upper, 4)?;
                    (flow.sport, flow.dport) = (id, id);
                    if matches!(message, 8 | 128) { Form::EchoRequest } else { Form::EchoReply }
                }
                (ICMP, 3 | 4 | 5 | 11 | 12) | (ICMPV6, 1..=4) if quotes => {
                    let quoted = upper.get(8..).and_then(|packet| read_ip(packet, false));
                    Form::Error(quoted.map(|ip| ip.flow))
                }
                _ => Form::Message(message),
            }
        }
        _ => Form::Other,
    };
    Some(Ip { flow, form, hop_limit })
}

/// The protocol behind IPv6's extension headers, the fragment's offset, and what follows.
fn behind_extensions(packet: &[u8]) -> Option<(u8, u16, &[u8])> {
    let (mut next, mut at) = (*packet.get(6)?, 40);
    let mut offset = 0;
    loop {
        let length = match next {
            0 | 43 | 60 => 8 + usize::from(*packet.get(at + 1)?) * 8,
            44 => {
                offset = be16(packet, at + 2)? >> 3;
                8
            }
            _ => return Some((next, offset, packet.get(at..)?)),
        };
        next = *packet.get(at)?;
        at += length;
        if offset > 0 {
            return Some((next, offset, packet.get(at..)?));
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn octets<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { src, dst, protocol, sport, dport } = self;
        write!(f, "{src} port {sport} -> {dst} port {dport}, protocol {protocol}")
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ethertype, to, ip } = self;
        let to = to.map(|byte| format!("{byte:02x}")).join(":");
        write!(f, "to {to}, ethertype {ethertype:04x}")?;
        if let Some(Ip { flow, form, hop_limit }) = ip {
            write!(f, ", {flow}, hop limit {hop_limit}, {form:?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{self, Fragment};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_built_is_read_as_it_was_meant() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let (src, dst) = (address(src), address(dst));
            let mut datagram = wire::datagram(src, dst, 5, 6, b"some bytes of data");
            let flow = Flow { src, dst, protocol: UDP, sport: 5, dport: 6 };
            for options in [0, 2] {
                datagram.options = options;
                let ip = Seen::read(&datagram.frame()).unwrap().ip.unwrap();
                assert_eq!((ip.flow, ip.form), (flow, Form::Ported));
            }
            datagram.fragment = Some(Fragment { offset: 1, more: false, id: 9 });
            let ip = Seen::read(&datagram.frame()).unwrap().ip.unwrap();
            assert_eq!(ip.form, Form::Later);
            assert_eq!((ip.flow.src, ip.flow.protocol), (src, UDP));
        }
        let (src, dst) = (address("10.0.0.1"), address("10.0.0.2"));
        let about = wire::datagram(dst, src, 6, 5, b"");
        let error = wire::Ip::new(src, dst, ICMP, wire::icmp_error(3, &about, 28));
        let quoted = Flow { src: dst, dst: src, protocol: UDP, sport: 6, dport: 5 };
        let ip = Seen::read(&error.frame()).unwrap().ip.unwrap();
        assert_eq!(ip.form, Form::Error(Some(quoted)));
    }

    #[test]
    fn a_frame_that_is_cut_off_is_never_a_panic() {
        let frame = wire::datagram(address("fd00::1"), address("fd00::2"), 5, 6, b"data").frame();
        for length in 0..frame.len() {
            assert!(Seen::read(&frame[..length]).is_none_or(|seen| seen.to == frame[..6]));
        }
    }
}
