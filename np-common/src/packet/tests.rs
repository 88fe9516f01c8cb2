//! What the parser makes of headers.

use super::*;

fn v4(protocol: u8, fragment: u16, upper: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, 0, 0, 0, 0, 1, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    let len = (bytes.len() + upper.len()) as u16;
    bytes[2..4].copy_from_slice(&len.to_be_bytes());
    bytes[6..8].copy_from_slice(&fragment.to_be_bytes());
    bytes.extend_from_slice(upper);
    bytes
}

fn v6(next: u8, hop_limit: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, rest.len() as u8, next, hop_limit];
    bytes.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    bytes.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    bytes.extend_from_slice(rest);
    bytes
}

fn packet(ethertype: u16, bytes: &[u8]) -> Result<Packet, ParseError> {
    match parse(bytes, ethertype, 0)? {
        Frame::Ip(packet) => Ok(packet),
        other @ (Frame::Arp | Frame::Other) => panic!("not IP: {other:?}"),
    }
}

const TCP_SYN: [u8; 20] =
    [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0, 0, 0, 0, 0, 0];

#[test]
fn options_do_not_hide_the_ports() {
    let mut bytes = v4(TCP, 0, &[&[1u8, 1, 1, 0][..], &TCP_SYN].concat());
    bytes[0] = 0x46;
    let packet = packet(ETH_P_IPV4, &bytes).expect("parses");
    assert_eq!((u16::from_be(packet.dport), packet.tcp_flags), (443, SYN));
}

#[test]
fn every_truncation_is_malformed_and_none_panics() {
    for (ethertype, bytes) in [
        (ETH_P_IPV4, v4(TCP, 0, &TCP_SYN[..16])),
        (ETH_P_IPV6, v6(TCP, 64, &TCP_SYN[..16])),
        (
            ETH_P_IPV6,
            v6(
                DESTINATION_OPTIONS,
                64,
                &[&[TCP, 0, 0, 0, 0, 0, 0, 0][..], &TCP_SYN[..16]].concat(),
            ),
        ),
    ] {
        assert!(packet(ethertype, &bytes).is_ok());
        for len in 0..bytes.len() {
            assert_eq!(packet(ethertype, &bytes[..len]), Err(ParseError::Malformed), "{len}");
        }
    }
}

#[test]
fn a_header_that_contradicts_itself_is_malformed() {
    let good = v4(UDP, 0, &[0; 8]);
    for (at, value) in [(0, 0x44), (0, 0x65), (3, 19)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(packet(ETH_P_IPV4, &bad), Err(ParseError::Malformed), "byte {at} = {value}");
    }
}

#[test]
fn only_later_fragments_lack_ports() {
    let first = packet(ETH_P_IPV4, &v4(UDP, 0x2000, &[0, 53, 0, 53, 0, 8, 0, 0]));
    assert_eq!(first.expect("parses").kind, Kind::Flow);
    let later = packet(ETH_P_IPV4, &v4(UDP, 0x2001, &[0, 53, 0, 53]));
    assert_eq!(later.expect("parses").kind, Kind::Fragment);
    let later = packet(ETH_P_IPV6, &v6(FRAGMENT, 64, &[UDP, 0, 0x05, 0xa8, 0, 0, 0, 1]));
    assert_eq!(later.expect("parses").kind, Kind::Fragment);
}

#[test]
fn extension_headers_are_followed_to_a_limit() {
    let options = [DESTINATION_OPTIONS, 0, 0, 0, 0, 0, 0, 0];
    let last = [TCP, 0, 0, 0, 0, 0, 0, 0];
    for (count, expected) in [(1, true), (EXTENSION_HEADERS, true), (EXTENSION_HEADERS + 1, false)]
    {
        let mut rest = options.repeat(count - 1);
        rest.extend_from_slice(&last);
        rest.extend_from_slice(&TCP_SYN);
        let parsed = packet(ETH_P_IPV6, &v6(DESTINATION_OPTIONS, 64, &rest));
        assert_eq!(
            parsed.map(|packet| u16::from_be(packet.dport)).ok(),
            expected.then_some(443),
            "{count}"
        );
    }
}

#[test]
fn an_echo_answer_is_its_requests_reverse_and_a_request_never_is() {
    let echo = |message| packet(ETH_P_IPV4, &v4(ICMP, 0, &[message, 0, 0, 0, 0x12, 0x34, 0, 1]));
    let (request, reply) = (echo(8).expect("parses"), echo(0).expect("parses"));
    let swap = |packet: Packet| Packet { src: packet.dst, dst: packet.src, ..packet };
    assert_eq!(swap(reply).flow_key(), request.flow_key().reversed());
    assert_ne!(swap(request).flow_key(), request.flow_key().reversed());
}

/// A Linux receiver cuts a packet at its IP length; a header behind it must not speak for it.
#[test]
fn no_header_is_read_behind_the_end_of_the_ip_packet() {
    for (protocol, needed) in [(TCP, 16), (UDP, 4), (SCTP, 4), (ICMP, 8)] {
        let mut bytes = v4(protocol, 0, &TCP_SYN);
        for left in 0..20u8 {
            bytes[3] = 20 + left;
            assert_eq!(packet(ETH_P_IPV4, &bytes).is_ok(), left >= needed, "{protocol} {left}");
        }
    }
    for (protocol, needed) in [(TCP, 16), (UDP, 4), (ICMPV6, 8)] {
        let mut bytes = v6(protocol, 64, &TCP_SYN);
        // A length of 0 stands for the frame's end: the kernel sends itself such packets.
        bytes[5] = 0;
        assert!(packet(ETH_P_IPV6, &bytes).is_ok(), "{protocol}");
        for left in 1..20u8 {
            bytes[5] = left;
            assert_eq!(packet(ETH_P_IPV6, &bytes).is_ok(), left >= needed, "{protocol} {left}");
        }
    }
}

#[test]
fn a_v4_mapped_address_on_the_wire_is_malformed() {
    let mut bytes = v6(UDP, 64, &[0; 8]);
    bytes[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    assert_eq!(packet(ETH_P_IPV6, &bytes), Err(ParseError::Malformed));
}

/// Whatever is plain is read as the parser reads it; and most packets are plain.
#[test]
fn what_is_plain_is_what_the_parser_says() {
    let tcp = |flags: u8| {
        let mut segment = TCP_SYN;
        segment[13] = flags;
        segment
    };
    let datagram = [0x9c, 0x40, 0, 53, 0, 8, 0, 0];
    let with = |mut bytes: Vec<u8>, at: usize, value: u8| {
        bytes[at] = value;
        bytes
    };
    let mapped = {
        let mut bytes = v6(UDP, 64, &datagram);
        bytes[8..24].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1]);
        bytes
    };
    let options = [&[1u8, 1, 1, 0][..], &tcp(ACK)].concat();
    for (ethertype, bytes, expected) in [
        (ETH_P_IPV4, v4(TCP, 0, &tcp(ACK)), true),
        (ETH_P_IPV4, v4(TCP, 0, &tcp(ACK)[..16]), true),
        (ETH_P_IPV4, v4(TCP, 0x4000, &tcp(ACK | 0x08)), true),
        (ETH_P_IPV4, v4(UDP, 0, &datagram), true),
        (ETH_P_IPV6, v6(TCP, 64, &tcp(ACK)), true),
        (ETH_P_IPV6, v6(UDP, 64, &datagram), true),
        // It opens or ends a connection, or is of none.
        (ETH_P_IPV4, v4(TCP, 0, &tcp(SYN)), false),
        (ETH_P_IPV4, v4(TCP, 0, &tcp(SYN | ACK)), false),
        (ETH_P_IPV4, v4(TCP, 0, &tcp(FIN | ACK)), false),
        (ETH_P_IPV4, v4(TCP, 0, &tcp(RST | ACK)), false),
        (ETH_P_IPV6, v6(TCP, 64, &tcp(0)), false),
        // There is more to read, or less.
        (ETH_P_IPV4, with(v4(TCP, 0, &options), 0, 0x46), false),
        (ETH_P_IPV4, v4(UDP, 0x2000, &datagram), false),
        (ETH_P_IPV4, v4(UDP, 0x0001, &datagram), false),
        (ETH_P_IPV4, v4(UDP, 0x0100, &datagram), false),
        (ETH_P_IPV4, with(v4(TCP, 0, &tcp(ACK)), 3, 35), false),
        (ETH_P_IPV4, with(v4(UDP, 0, &datagram), 3, 23), false),
        (ETH_P_IPV4, with(v4(UDP, 0, &datagram), 3, 19), false),
        (ETH_P_IPV6, with(v6(TCP, 64, &tcp(ACK)), 5, 15), false),
        (ETH_P_IPV6, with(v6(UDP, 64, &datagram), 5, 3), false),
        (ETH_P_IPV6, with(v6(UDP, 64, &datagram), 0, 0x50), false),
        (ETH_P_IPV4, v4(SCTP, 0, &datagram), false),
        (ETH_P_IPV4, v4(ICMP, 0, &datagram), false),
        (ETH_P_IPV6, v6(FRAGMENT, 64, &[UDP, 0, 0, 0, 0, 0, 0, 1]), false),
        (ETH_P_IPV6, mapped, false),
        (ETH_P_ARP, v4(UDP, 0, &datagram), false),
    ] {
        let plain = plain(bytes.as_slice(), ethertype, 0);
        assert_eq!(plain.is_some(), expected, "{ethertype:x} {bytes:x?}");
        if let Some(plain) = plain {
            let parsed = packet(ethertype, &bytes).expect("parses");
            assert_eq!(plain, Packet { datagram: 0, ..parsed });
            for len in 0..bytes.len() {
                let cut_off = super::plain(&bytes[..len], ethertype, 0);
                assert!(cut_off.is_none() || cut_off == Some(plain), "{len} of {bytes:x?}");
            }
        }
    }
}
