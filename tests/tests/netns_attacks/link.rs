//! What passes between neighbours whatever policy says: only in the form that hosts of a link send.

use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::Instant;

use anyhow::Result;
use np_common::packet::{ETH_P_ARP, ICMPV6};
use np_tests::address::Family;
use np_tests::netns::Namespace;
use np_tests::topology::Shape;
use np_tests::wire::{self, Ip, checksum, pseudo_header};

use crate::field::{ARRIVES, Field, SILENT, Sent, ip_packet};
use crate::rows;
use np_tests::matrix::Row;

/// A message with a router alert in front, as listener messages have.
fn listener(from: &Field, src: &str, dst: &str, message: u8, hop_limit: u8, data: &[u8]) -> Ip {
    let (src, dst) = (from.v6(src), from.v6(dst));
    let mut upper = vec![message, 0, 0, 0];
    upper.extend(data);
    let head = pseudo_header(src, dst, ICMPV6, upper.len());
    let sum = checksum(&[head, upper.clone()].concat());
    upper.splice(2..4, sum.to_be_bytes());
    let mut payload = vec![ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    payload.extend(upper);
    let mut ip = Ip::new(src, dst, 0, payload);
    ip.hop_limit = hop_limit;
    ip
}

/// Each kind, with each hop limit that a router could turn into the right one, on every way to a pod.
#[test]
fn listener_messages_do_not_pass_through_routers() -> Result<()> {
    let rows = rows(["listener messages through a router, every type and hop limit"]);
    let mut field = Field::new()?;
    let ways = [
        ("internet", "closed"),
        ("remote", "closed"),
        ("attacker", "closed"),
        ("jailed", "open"),
        ("jailed", "remote"),
    ];
    for agents in [false, true] {
        if agents {
            field.start_agents()?;
        }
        for (from, to) in ways {
            let mut arrived = 0;
            for message in [130, 131, 132, 143] {
                for hop_limit in [1, 2, 3, 4, 5] {
                    let m = field.marker();
                    let data = m.repeat(20);
                    let packet = listener(&field, from, to, message, hop_limit, &data);
                    let packets = [ip_packet(packet.bytes())];
                    arrived += field.delivered(from, to, &packets, &m, SILENT / 4)?.len();
                }
            }
            let expected = if agents { arrived == 0 } else { arrived > 0 };
            field.expect(&format!("{from} to {to}, agents {agents}"), expected, arrived);
        }
    }
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

/// On a bridge, where they do reach another pod.
#[test]
fn neighbour_messages_have_no_room_for_others() -> Result<()> {
    let rows = rows(["messages in ARP and neighbour discovery, on a bridge"]);
    let mut field = Field::shaped(Shape::BRIDGE)?;
    let (jailed, closed) = (field.v4("jailed"), field.v4("closed"));
    let to = field.cluster.namespace("closed")?.hardware_address("eth0")?;
    for agents in [false, true] {
        if agents {
            field.start_agents()?;
        }
        let (std::net::IpAddr::V4(sender), std::net::IpAddr::V4(target)) = (jailed, closed) else {
            unreachable!("both are IPv4")
        };
        let m = field.marker();
        let mut arp = wire::arp(sender, target);
        arp.extend(m.repeat(100));
        let arrived = bridged(&field, "jailed", "closed", to, ETH_P_ARP, &arp, &m)?;
        field.expect("ARP with something behind it", (arrived > 0) != agents, (arrived, agents));
        let m = field.marker();
        let mut body = vec![135, 0, 0, 0, 0, 0, 0, 0];
        let (src, dst) = (
            field.cluster.address("jailed", Family::V6)?,
            field.cluster.address("closed", Family::V6)?,
        );
        let std::net::IpAddr::V6(target) = dst else { unreachable!("an IPv6 address") };
        body.extend(target.octets());
        body.extend(m.repeat(100));
        let sum = checksum(&[pseudo_header(src, dst, ICMPV6, body.len()), body.clone()].concat());
        body.splice(2..4, sum.to_be_bytes());
        let mut ip = Ip::new(src, dst, ICMPV6, body);
        ip.hop_limit = 255;
        let arrived = bridged(&field, "jailed", "closed", to, ip.ethertype(), &ip.bytes(), &m)?;
        field.expect("a solicitation with a message", (arrived > 0) != agents, (arrived, agents));
    }
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

/// On a bridge: who hears it sends to the claimant what is for the gateway. The gateway's own answers go on
/// counting.
#[test]
fn no_pod_takes_the_gateways_link_local_address() -> Result<()> {
    let rows = rows(["another's link-local address claimed, on a bridge"]);
    let mut field = Field::shaped(Shape::BRIDGE)?;
    let node = field.cluster.namespace("node-1")?;
    let gateway = link_local(node.hardware_address("cni0")?);
    let true_one = node.hardware_address("cni0")?;
    let ways = [Way::Advertisement, Way::Solicitation];
    for agents in [false, true] {
        if agents {
            field.start_agents()?;
        }
        for way in ways {
            let victim = field.cluster.namespace("closed")?;
            victim.call("ip -6 neigh flush dev eth0")?;
            let before = resolve(victim, gateway)?;
            claim(&field, gateway, way)?;
            thread::sleep(SILENT / 4);
            let after = neighbour(victim, gateway)?;
            let told = (way, agents, before, after);
            field.expect("the gateway is known", before == Some(true_one), told);
            field.expect("claimed", (after == before) == agents, told);
        }
    }
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Advertisement,
    /// A question to the victim, with its asker's hardware address.
    Solicitation,
}

/// `jailed` says to `closed` that it is there where the gateway is.
fn claim(field: &Field, gateway: Ipv6Addr, way: Way) -> Result<()> {
    let attacker = field.cluster.namespace("jailed")?;
    let own = attacker.hardware_address("eth0")?;
    let to = field.cluster.namespace("closed")?.hardware_address("eth0")?;
    let victim = link_local(to);
    let (message, flags, target, option) = match way {
        Way::Advertisement => (136, 0x20, gateway, 2),
        Way::Solicitation => (135, 0, victim, 1),
    };
    let mut body = vec![message, 0, 0, 0, flags, 0, 0, 0];
    body.extend(target.octets());
    body.extend([option, 1]);
    body.extend(own);
    let head = pseudo_header(gateway.into(), victim.into(), ICMPV6, body.len());
    let sum = checksum(&[head, body.clone()].concat());
    body.splice(2..4, sum.to_be_bytes());
    let mut ip = Ip::new(gateway.into(), victim.into(), ICMPV6, body);
    ip.hop_limit = 255;
    let frame = [&to[..], &own, &ip.ethertype().to_be_bytes(), &ip.bytes()].concat();
    np_tests::raw::Raw::open(attacker, "eth0")?.send(&frame)
}

fn link_local(hardware: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = hardware;
    let formed = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    formed.into()
}

/// Has a host find out where a neighbour is.
fn resolve(host: &Namespace, address: Ipv6Addr) -> Result<Option<[u8; 6]>> {
    host.run(|| {
        let scope = nix::net::if_::if_nametoindex("eth0")?;
        let socket = UdpSocket::bind("[::]:0")?;
        socket.send_to(b"who is there?", SocketAddrV6::new(address, 9, 0, scope))?;
        Ok(())
    })?;
    let deadline = Instant::now() + ARRIVES;
    loop {
        let found = neighbour(host, address)?;
        if found.is_some() || Instant::now() > deadline {
            return Ok(found);
        }
        thread::sleep(SILENT / 20);
    }
}

/// Where a host thinks that a neighbour is.
fn neighbour(host: &Namespace, address: Ipv6Addr) -> Result<Option<[u8; 6]>> {
    let shown = host.call(&format!("ip -6 neigh show {address} dev eth0"))?;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
    Ok(words.nth(1).and_then(wire::hardware_address))
}

/// A frame straight to a neighbour; returns how many came.
fn bridged(
    field: &Field,
    from: &str,
    victim: &str,
    to: [u8; 6],
    ethertype: u16,
    bytes: &[u8],
    marker: &[u8],
) -> Result<usize> {
    let capture = np_tests::raw::Raw::open(field.cluster.namespace(victim)?, "eth0")?;
    let own = field.cluster.namespace(from)?.hardware_address("eth0")?;
    let Sent { ethertype, bytes, .. } =
        Sent { ethertype, bytes: bytes.to_vec(), short_linear: false };
    let mut frame = [to, own].concat();
    frame.extend(ethertype.to_be_bytes());
    frame.extend(bytes);
    np_tests::raw::Raw::open(field.cluster.namespace(from)?, "eth0")?.send(&frame)?;
    Ok(capture.capture(marker, 1, SILENT)?.len())
}
