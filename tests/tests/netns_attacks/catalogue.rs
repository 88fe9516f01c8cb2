//! The attacks, each with the reason its drop is counted under.

use std::net::IpAddr;

use np_common::packet::{ACK, ETH_P_ARP, ETH_P_IPV4, ETH_P_IPV6, SYN, TCP, UDP};
use np_tests::wire::{self, Ip, datagram};

use crate::field::{Attack, Field, Sent, ip_packet};
use crate::forge::{fragments_that_lose_their_device, icmp_message, tiny_fragments};

pub fn attacks(field: &mut Field) -> Vec<(Attack, [u8; 8])> {
    let mut all = Vec::new();
    let base = |name, from, victim, packets, reason, hook| Attack {
        name,
        from,
        victim,
        packets,
        reason,
        hook,
        control: true,
    };

    let m = field.marker();
    let packets = fragments_that_lose_their_device(field.v6("internet"), field.v6("closed"), &m);
    let name = "remote fragments that pose as the node's own";
    all.push((base(name, "internet", "closed", packets, "ingress-denied", "to_pod"), m));

    for (name, src, dst) in [
        ("tiny fragments, IPv4", field.v4("attacker"), field.v4("closed")),
        ("tiny fragments, IPv6", field.v6("attacker"), field.v6("closed")),
    ] {
        let m = field.marker();
        let packets = tiny_fragments(src, dst, &m);
        all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    }

    let m = field.marker();
    let mut tagged = vec![0, 0, 0x81, 0, 0, 0];
    tagged.extend(ETH_P_IPV4.to_be_bytes());
    tagged.extend(datagram(field.v4("choosy"), field.v4("open"), 5000, 9, &m).bytes());
    let packets = vec![Sent { ethertype: 0x8100, bytes: tagged, short_linear: false }];
    let name = "two VLAN tags around a forged source";
    all.push((base(name, "attacker", "open", packets, "ethertype", "from_pod"), m));

    for (name, source) in [
        ("another pod's IPv4 address", field.v4("choosy")),
        ("another pod's IPv6 address", field.v6("choosy")),
        ("the node's IPv4 address", field.v4("node-1")),
        ("the node's IPv6 address", field.v6("node-1")),
        ("an outside IPv4 address", field.v4("internet")),
        ("an outside IPv6 address", field.v6("internet")),
    ] {
        let m = field.marker();
        let to = if source.is_ipv4() { field.v4("open") } else { field.v6("open") };
        let packets = vec![ip_packet(datagram(source, to, 5000, 9, &m).bytes())];
        all.push((base(name, "attacker", "open", packets, "source-address", "from_pod"), m));
    }

    for (name, source, to) in [
        ("from outside as a pod of this node, IPv4", field.v4("open"), field.v4("choosy")),
        ("from outside as a pod of this node, IPv6", field.v6("open"), field.v6("choosy")),
    ] {
        let m = field.marker();
        let packets = vec![ip_packet(datagram(source, to, 5000, 8443, &m).bytes())];
        all.push((base(name, "internet", "choosy", packets, "forged-source", "to_pod"), m));
    }

    for (name, source, to, message) in [
        ("a router advertisement", field.v6("attacker"), field.v6("open"), 134),
        ("an IPv6 redirect", field.v6("attacker"), field.v6("open"), 137),
        ("an IPv4 redirect", field.v4("attacker"), field.v4("open"), 5),
    ] {
        let m = field.marker();
        let mut packet = icmp_message(source, to, message, 0, &m);
        packet.hop_limit = 255;
        let packets = vec![ip_packet(packet.bytes())];
        all.push((base(name, "attacker", "open", packets, "router-claim", "from_pod"), m));
    }

    let m = field.marker();
    let data = m.repeat(600);
    let bytes = datagram(field.v4("choosy"), field.v4("open"), 5000, 9, &data).bytes();
    let packets = vec![Sent { short_linear: true, ..ip_packet(bytes) }];
    let name = "a forged source in a frame of 14 linear bytes";
    all.push((base(name, "attacker", "open", packets, "source-address", "from_pod"), m));

    let (a4, o4) = (field.v4("attacker"), field.v4("open"));
    let (a6, o6) = (field.v6("attacker"), field.v6("open"));
    let m = field.marker();
    let packets = vec![ip_packet(Ip::new(a4, o4, TCP, m.to_vec()).bytes())];
    let name = "a cut TCP header, IPv4";
    all.push((base(name, "attacker", "open", packets, "malformed", "from_pod"), m));
    let m = field.marker();
    let packets = vec![ip_packet(Ip::new(a6, o6, TCP, m.to_vec()).bytes())];
    let name = "a cut TCP header, IPv6";
    all.push((base(name, "attacker", "open", packets, "malformed", "from_pod"), m));
    let m = field.marker();
    let mut long = datagram(a6, o6, 5000, 9, &m);
    long.options = 7;
    let packets = vec![ip_packet(long.bytes())];
    let name = "more extension headers than are followed";
    all.push((base(name, "attacker", "open", packets, "extension-headers", "from_pod"), m));

    let whole = |m: &[u8]| datagram(a4, o4, 5000, 9, m).bytes();
    let m = field.marker();
    let mut short_header = whole(&m);
    short_header[0] = 0x44;
    let n = field.marker();
    let mut short_total = whole(&n);
    short_total.splice(2..4, [0, 10]);
    let o = field.marker();
    let mut sixth = datagram(a6, o6, 5000, 9, &o).bytes();
    sixth[0] = 0x50;
    let p = field.marker();
    let mapped = IpAddr::V6("::ffff:100.68.1.10".parse().expect("a valid address"));
    for (name, bytes, ethertype, m) in [
        ("an IPv4 header of 16 bytes", short_header, ETH_P_IPV4, m),
        ("an IPv4 packet shorter than its header", short_total, ETH_P_IPV4, n),
        ("an IPv6 packet of version 5", sixth, ETH_P_IPV6, o),
        ("a v4-mapped source", datagram(mapped, o6, 5000, 9, &p).bytes(), ETH_P_IPV6, p),
        ("half an IPv6 header", vec![0x60, 0, 0, 0, 0, 0, UDP, 64, 0xfd, 0], ETH_P_IPV6, p),
    ] {
        let packets = vec![Sent { ethertype, bytes, short_linear: false }];
        let attack = base(name, "attacker", "open", packets, "malformed", "from_pod");
        all.push((Attack { control: false, ..attack }, m));
    }

    // The node knows better than to believe these; a bridge would pass them on to the pods.
    for (name, ethertype, bytes) in claims(field) {
        let packets = vec![Sent { ethertype, bytes, short_linear: false }];
        let m = field.marker();
        let attack = base(name, "attacker", "open", packets, "address-claim", "from_pod");
        all.push((Attack { control: false, ..attack }, m));
    }

    let m = field.marker();
    let (closed, quoted) = (field.v4("closed"), datagram(field.v4("closed"), a4, 9, 53, &m));
    for (name, about) in [
        ("an error about a packet that never was", quoted.clone()),
        ("an error about somebody else's packet", datagram(o4, a4, 9, 53, &m)),
    ] {
        let m = field.marker();
        let mut body = about.bytes();
        body.extend(m);
        let packets = vec![ip_packet(icmp_message(a4, closed, 3, 0, &body).bytes())];
        all.push((base(name, "attacker", "closed", packets, "icmp-error", "to_pod"), m));
    }

    // What looks like an answer, of a connection that never was.
    let m = field.marker();
    let mut answer = wire::tcp(80, 40_000, SYN | ACK);
    answer.extend(m);
    let packets = vec![ip_packet(Ip::new(a4, field.v4("closed"), TCP, answer).bytes())];
    let name = "a SYN-ACK nobody asked for";
    all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    for (name, source, to) in [
        ("an unasked answer by UDP, IPv4", a4, field.v4("closed")),
        ("an unasked answer by UDP, IPv6", a6, field.v6("closed")),
    ] {
        let m = field.marker();
        let packets = vec![ip_packet(datagram(source, to, 53, 40_000, &m).bytes())];
        all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    }
    for (name, message) in [("an unasked echo reply", 0), ("an echo request", 8)] {
        let m = field.marker();
        let packet = icmp_message(a4, field.v4("closed"), message, 99, &m);
        let packets = vec![ip_packet(packet.bytes())];
        all.push((base(name, "attacker", "closed", packets, "ingress-denied", "to_pod"), m));
    }
    all
}

/// ARP and neighbour advertisements of the attacker, for addresses that are not its own.
fn claims(field: &Field) -> Vec<(&'static str, u16, Vec<u8>)> {
    let (IpAddr::V4(other), IpAddr::V4(node)) = (field.v4("choosy"), field.v4("node-1")) else {
        unreachable!("v4 addresses")
    };
    let (IpAddr::V4(victim), IpAddr::V6(other6)) = (field.v4("open"), field.v6("choosy")) else {
        unreachable!("one of each family")
    };
    let (own6, victim6) = (field.v6("attacker"), field.v6("open"));
    let mut advertisement = icmp_message(own6, victim6, 136, 0, &other6.octets());
    advertisement.hop_limit = 255;
    vec![
        ("ARP for another pod's address", ETH_P_ARP, wire::arp(other, victim)),
        ("ARP for the node's address", ETH_P_ARP, wire::arp(node, victim)),
        ("an advertisement of another pod's address", ETH_P_IPV6, advertisement.bytes()),
    ]
}
