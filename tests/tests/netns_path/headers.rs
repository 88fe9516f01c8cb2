//! What stands in front of the ports, and protocols that have none.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use np_common::packet::{ESP, SYN};
use np_tests::address::Family;
use np_tests::matrix::{self, Row};
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};
use np_tests::raw::Raw;
use np_tests::trial::world::{ALLOWED, DENIED, RULES, World};
use np_tests::wire::{Ip, datagram, segment};

const ARRIVES: Duration = Duration::from_millis(1500);
const SILENT: Duration = Duration::from_millis(250);

/// Sends a packet from the client and says whether what has these bytes comes to a pod's device.
fn comes(world: &World, packet: &Ip, to: &str, bytes: &[u8], wait: Duration) -> Result<bool> {
    let tap = Raw::open(world.cluster.namespace(to)?, "eth0")?;
    world.cluster.send_from("client", std::slice::from_ref(packet))?;
    Ok(!tap.capture(bytes, 1, wait)?.is_empty())
}

/// The headers that a packet can have in front of its transport's.
fn with_headers(packet: &Ip) -> Vec<(&'static str, Ip)> {
    let options = |options| Ip { options, ..packet.clone() };
    if packet.src.is_ipv4() {
        return vec![("one option", options(1)), ("all options that fit", options(10))];
    }
    let mut hop_by_hop = vec![packet.protocol, 0, 1, 4, 0, 0, 0, 0];
    hop_by_hop.extend(&packet.payload);
    let hop_by_hop = Ip { protocol: 0, payload: hop_by_hop, ..packet.clone() };
    // A destination header of 24 bytes, in which both ports stand where a transport header's would.
    let mut long = vec![packet.protocol, 2, 1, 20];
    long.extend(packet.payload[..4].repeat(5));
    long.extend(&packet.payload);
    let long = Ip { protocol: 60, payload: long, ..packet.clone() };
    vec![
        ("a destination header", options(1)),
        ("as many destination headers as are followed", options(6)),
        ("a hop-by-hop header", hop_by_hop),
        ("a long destination header", long),
    ]
}

type Transport = fn(IpAddr, IpAddr, u16, u16) -> Ip;

const TRANSPORTS: [(&str, Transport); 2] = [
    ("UDP", |src, dst, sport, dport| datagram(src, dst, sport, dport, b"question")),
    ("TCP", |src, dst, sport, dport| segment(src, dst, (sport, dport), 1, SYN, b"")),
];

/// Tries all headers; each packet comes from a port of its own.
fn judged_by_ports(
    world: &mut World,
    family: Family,
    sports: &mut impl Iterator<Item = u16>,
) -> Result<()> {
    let policed = world.agents.is_some();
    let src = world.address("client", family)?;
    for server in ["near", "far"] {
        let dst = world.address(server, family)?;
        for (port, allowed) in [(ALLOWED, true), (DENIED, !policed)] {
            for (protocol, transport) in TRANSPORTS {
                let variants = with_headers(&transport(src, dst, 0, port)).len();
                for (number, sport) in (0..variants).zip(&mut *sports) {
                    let (name, packet) = &with_headers(&transport(src, dst, sport, port))[number];
                    let ports = [sport.to_be_bytes(), port.to_be_bytes()].concat();
                    let before = world.counted("denied")?;
                    let wait = if allowed { ARRIVES } else { SILENT };
                    let came = comes(world, packet, server, &ports, wait)?;
                    let what = format!("{name}, {protocol} to {dst}:{port}, policed {policed}");
                    ensure!(came == allowed, "{what}: came {came}");
                    let denied = world.counted("denied")? > before;
                    ensure!(denied != allowed, "{what}: counted as denied {denied}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_precedes_the_ports_hides_them_from_nobody() -> Result<()> {
    let options = matrix::row("Traffic", "IPv4 options");
    let extensions = matrix::row("Traffic", "IPv6 extension headers");
    let mut world = World::new()?;
    let mut sports = 20_000..;
    for family in Family::BOTH {
        judged_by_ports(&mut world, family, &mut sports)?;
    }
    for family in Family::BOTH {
        world.police(family)?;
        judged_by_ports(&mut world, family, &mut sports)?;
    }
    options.holds();
    extensions.holds();
    Ok(())
}

/// [`RULES`] for every port of every protocol.
fn all_ports() -> String {
    RULES.lines().filter(|line| !line.contains("ports:")).map(|line| format!("{line}\n")).collect()
}

const IGMP: u8 = 2;
const GRE: u8 = 47;

/// Sends each protocol to both servers.
fn without_ports(world: &mut World, when: &str, marker: &mut u64, allowed: bool) -> Result<()> {
    for family in Family::BOTH {
        let src = world.address("client", family)?;
        for (server, protocol) in
            ["near", "far"].into_iter().flat_map(|server| [GRE, ESP, IGMP].map(|p| (server, p)))
        {
            if protocol == IGMP && family == Family::V6 {
                continue;
            }
            *marker += 1;
            let dst = world.address(server, family)?;
            // What reads like the allowed ports is the start of another header.
            let ports = [20_000_u16.to_be_bytes(), ALLOWED.to_be_bytes()].concat();
            let payload = [ports, marker.to_be_bytes().to_vec(), vec![0; 16]].concat();
            let packet = Ip::new(src, dst, protocol, payload);
            let before = world.counted("denied")?;
            let wait = if allowed { ARRIVES } else { SILENT };
            let came = comes(world, &packet, server, &marker.to_be_bytes(), wait)?;
            ensure!(came == allowed, "protocol {protocol} to {dst}, {when}: came {came}");
            let denied = world.counted("denied")? > before;
            ensure!(denied != allowed, "protocol {protocol} to {dst}, {when}: counted {denied}");
        }
    }
    Ok(())
}

fn echoes(world: &World, when: &str, allowed: bool) -> Result<()> {
    for family in Family::BOTH {
        for server in ["near", "far"] {
            let patience = if allowed { PATIENCE } else { IMPATIENCE };
            let to = world.address(server, family)?;
            let outcome = probe(world.cluster.namespace("client")?, to, Kind::Echo, patience);
            let silence = outcome == Outcome::Timeout;
            ensure!(if allowed { outcome.replied() } else { silence }, "{to}, {when}: {outcome}");
        }
    }
    Ok(())
}

#[test]
fn protocols_without_ports_pass_by_rules_without_ports() -> Result<()> {
    let rows = ["GRE, ESP and IGMP by all-ports rules only", "ICMP and ICMPv6 echo are judged"]
        .map(|name| matrix::row("Traffic", name));
    let mut world = World::new()?;
    let mut marker = 0xbeef_cafe_0000_0000;
    without_ports(&mut world, "no agents", &mut marker, true)?;
    echoes(&world, "no agents", true)?;
    for (when, rules, allowed) in
        [("ports allowed", RULES.to_owned(), false), ("all ports allowed", all_ports(), true)]
    {
        world.police_by(&rules, Family::V4)?;
        without_ports(&mut world, when, &mut marker, allowed)?;
        echoes(&world, when, allowed)?;
    }
    rows.into_iter().for_each(Row::holds);
    Ok(())
}
