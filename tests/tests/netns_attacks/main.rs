//! Attacks with real packets against real agents. Each is sent first while no agent runs, where it
//! must arrive (else the test could not fail), then with agents and policies, where it must not and
//! the reason must be counted.

mod catalogue;
mod field;
mod forge;
mod forwarding;
mod link;
mod neighbours;
mod overlaps;
mod receivers;
mod rewritten;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use np_tests::address::{Family, twin};
use np_tests::matrix::{self, Row};
use np_tests::netns::Namespace;

use np_tests::wire::datagram;

use crate::catalogue::attacks;
use crate::field::{ARRIVES, Field, SILENT, Sent, ip_packet};
use crate::forge::icmp_message;

fn play(field: &mut Field) -> Result<()> {
    for (attack, marker) in attacks(field) {
        field.run(&attack, &marker).with_context(|| attack.name)?;
    }
    Ok(())
}

#[test]
fn no_attack_passes_and_each_is_counted() -> Result<()> {
    let rows = rows([
        "spoofed source: v4, v6, another pod's, the node's, an outside one",
        "a pod of this node claimed from outside",
        "IPv6 fragments that force the slow path",
        "VLAN tags around a packet",
        "14-byte linear packets",
        "extension-header chains",
        "router advertisements and redirects",
        "ARP and neighbour advertisements for other addresses",
        "crafted ICMP errors",
        "tiny fragments",
        "malformed packets",
        "answers nobody asked for",
    ]);
    let mut field = Field::new()?;
    play(&mut field)?;
    field.start_agents()?;
    play(&mut field)?;
    what_is_honest_passes(&mut field)?;
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

/// The matrix's rows of one test.
pub(crate) fn rows<const N: usize>(names: [&str; N]) -> [Row; N] {
    names.map(|name| matrix::row("Attacks", name))
}

/// The other side of each attack: the same shape from an honest sender arrives.
fn what_is_honest_passes(field: &mut Field) -> Result<()> {
    for family in Family::BOTH {
        let address = |name| field.cluster.address(name, family);
        let (own, open) = (address("attacker")?, address("open")?);
        let m = field.marker();
        let packets = [ip_packet(datagram(own, open, 5000, 9, &m).bytes())];
        field.check("its own address", "attacker", "open", &packets, &m, true)?;
        let m = field.marker();
        let data = m.repeat(600);
        let packet = ip_packet(datagram(own, open, 5000, 9, &data).bytes());
        let packets = [Sent { short_linear: true, ..packet }];
        field.check("its own address, 14 linear bytes", "attacker", "open", &packets, &m, true)?;
        let m = field.marker();
        let (open, choosy) = (open, field.cluster.address("choosy", family)?);
        let packets = [ip_packet(datagram(open, choosy, 5000, 8443, &m).bytes())];
        field.check("the allowed peer itself", "open", "choosy", &packets, &m, true)?;
    }

    // Duplicate address detection: no source yet.
    let [solicited, target] = ["ff02::1:ff00:10", "fd00:100:68:1::10"]
        .map(|text| IpAddr::V6(text.parse().expect("a valid address")));
    let IpAddr::V6(target) = target else { unreachable!("a v6 address") };
    let unspecified = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
    let mut probe_address = icmp_message(unspecified, solicited, 135, 0, &target.octets());
    // A solicitation has its target right after four reserved bytes.
    probe_address.hop_limit = 255;
    let before = field.count("node-1", "from_pod", "neighbor-discovery")?;
    field.send("attacker", &[ip_packet(probe_address.bytes())])?;
    thread::sleep(SILENT);
    let after = field.count("node-1", "from_pod", "neighbor-discovery")?;
    field.expect("a solicitation from :: passes", after > before, (before, after));

    // The node's own datagram in fragments reaches the closed pod's process.
    let closed = field.v6("closed");
    let answer = field.cluster.namespace("node-1")?.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.set_read_timeout(Some(ARRIVES))?;
        socket.send_to(&[7; 3000], (closed, 8443))?;
        let mut buffer = [0; 2048];
        Ok(socket.recv(&mut buffer).map_err(|error| error.to_string()))
    })?;
    field.expect("the node's own fragments arrive", answer.is_ok(), answer);
    Ok(())
}

/// A pod's answered echo opens no way in: a request with the same id is judged for itself.
#[test]
fn flows_open_no_way_for_others() -> Result<()> {
    let rows = rows(["a flow of another pod", "tuple reuse after masquerade"]);
    let mut field = Field::new()?;
    let node = field.cluster.namespace("node-1")?.clone();
    // Masquerading that keeps the port: two pods come to the same tuple on the uplink.
    node.call(
        "iptables -t nat -I POSTROUTING -p udp --sport 4900 -o eth0 -j SNAT --to-source 192.168.65.10:4900",
    )?;
    for agents in [false, true] {
        if agents {
            field.start_agents()?;
        }
        let (closed, attacker) = (field.v4("closed"), field.v4("attacker"));
        let m = field.marker();
        let request = [ip_packet(icmp_message(closed, attacker, 8, 4321, &m).bytes())];
        field.check("the closed pod's echo", "closed", "attacker", &request, &m, true)?;
        // The attacker's kernel has answered: the reply comes back through the flow.
        let n = field.marker();
        let answer = [ip_packet(icmp_message(attacker, closed, 0, 4321, &n).bytes())];
        field.check("an answer to the echo", "attacker", "closed", &answer, &n, true)?;
        let m = field.marker();
        let request = [ip_packet(icmp_message(attacker, closed, 8, 4321, &m).bytes())];
        field.check("a request with its id", "attacker", "closed", &request, &m, !agents)?;

        let internet = field.v4("internet");
        for (pod, arrives) in [("attacker", true), ("jailed", !agents)] {
            let m = field.marker();
            let before = field.count("node-1", "to_uplink", "egress-denied")?;
            let packet = [ip_packet(datagram(field.v4(pod), internet, 4900, 7, &m).bytes())];
            let within = if arrives { ARRIVES } else { SILENT };
            let got = field.delivered(pod, "internet", &packet, &m, within)?;
            let what = format!("{pod} through the shared tuple, agents {agents}");
            field.expect(&what, got.is_empty() != arrives, got.len());
            let translated = [192, 168, 65, 10];
            let source = got.first().map(|frame| (&frame[26..30], &frame[34..36]));
            let same = source.is_none_or(|s| s == (&translated[..], &4900u16.to_be_bytes()[..]));
            field.expect("both leave by one tuple", same, source);
            let after = field.count("node-1", "to_uplink", "egress-denied")?;
            field.expect("counted as egress-denied", arrives || after > before, (before, after));
            conntrack_forgets(&node, "sport=4900")?;
        }
    }
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

/// Waits until a node's conntrack has no entry with some words, so that the next sender gets the
/// same translation. Reading the table is what makes the kernel drop entries whose time is up.
pub(crate) fn conntrack_forgets(node: &Namespace, words: &str) -> Result<()> {
    for _ in 0..50 {
        if !node.feed("cat", &["/proc/net/nf_conntrack"], "")?.contains(words) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    bail!("conntrack keeps {words} for more than five seconds")
}

/// The address plan that the attacks spell out.
#[test]
fn the_attacker_has_the_address_that_is_solicited_for() {
    assert_eq!(twin(Ipv4Addr::new(100, 68, 1, 10)).to_string(), "fd00:100:68:1::10");
}
