//! Third parties' programs and marks next to ours.

use anyhow::{Context, Result};
use np_agent::dataplane::Mechanism;
use np_tests::bpf::{self, Place, TcSide, insn};
use np_tests::matrix::{self, Row};
use np_tests::probe::{Kind, PATIENCE, probe};
use np_tests::raw::Raw;
use np_tests::wire::datagram;

use crate::field::{ARRIVES, Field, SILENT, ip_packet};

/// A third party's program that writes the mark's low byte over the last of the sending device's
/// hardware address: what arrives says that it ran, and what mark it saw.
fn stamp_mark() -> Vec<u64> {
    vec![
        insn(0xbf, 6, 1, 0, 0),   // r6 = context
        insn(0x61, 2, 6, 8, 0),   // r2 = context->mark
        insn(0x73, 10, 2, -8, 0), // byte on the stack
        insn(0xbf, 1, 6, 0, 0),
        insn(0xb7, 2, 0, 0, 11), // the last byte of the sender's address
        insn(0xbf, 3, 10, 0, 0),
        insn(0x07, 3, 0, 0, -8),
        insn(0xb7, 4, 0, 0, 1),
        insn(0xb7, 5, 0, 0, 0),
        insn(0x85, 0, 0, 0, 9), // bpf_skb_store_bytes
        insn(0xb7, 0, 0, 0, -1),
        insn(0x95, 0, 0, 0, 0),
    ]
}

/// A third party's program that sends a copy of each packet it sees out of another device.
fn copy_to(ifindex: u32) -> Vec<u64> {
    vec![
        insn(0xb7, 2, 0, 0, ifindex as i32),
        insn(0xb7, 3, 0, 0, 0),
        insn(0x85, 0, 0, 0, 13), // bpf_clone_redirect
        insn(0xb7, 0, 0, 0, 0),
        insn(0x95, 0, 0, 0, 0),
    ]
}

/// A TCX program, where the kernel has TCX, and clsact filters behind ours see what passes and
/// nothing else; marks and the rules that use them stay their owner's.
#[test]
fn neighbours_and_marks_still_work_next_to_the_agent() -> Result<()> {
    let tcx = Mechanism::of_kernel()? == Mechanism::Tcx;
    let rows = ["a clsact filter behind ours", "exact fwmark rules", "--set-mark", "CONNMARK"];
    let names = rows.into_iter().chain(tcx.then_some("a TCX program behind ours"));
    let rows: Vec<Row> = names.map(|name| matrix::row("Neighbours", name)).collect();
    let mut field = Field::new()?;
    let node = field.cluster.namespace("node-1")?.clone();
    node.ip("link add tap type veth peer name tapped\nlink set tap up\nlink set tapped up")?;
    field.start_agents()?;
    let stamp = bpf::load("stamp_mark", &stamp_mark())?;
    let tap = node.run(|| Ok(nix::net::if_::if_nametoindex("tap")?))?;
    let copy = bpf::load("copy_to", &copy_to(tap))?;
    let pins = field.agents.as_ref().context("the agents run")?.pins();
    let [stamp_pin, copy_pin] = ["stamp", "copy"].map(|name| pins.join(name));
    bpf::pin(&stamp, &stamp_pin)?;
    bpf::pin(&copy, &copy_pin)?;
    let mut links = Vec::new();
    for device in ["v-open", "v-closed"] {
        if tcx {
            links.push(node.run(|| {
                let ifindex = nix::net::if_::if_nametoindex(device)?;
                Ok(bpf::attach(&stamp, ifindex, TcSide::Egress, Place::Last)?)
            })?);
            node.call(&format!("tc qdisc add dev {device} clsact"))?;
        } else {
            bpf::filter(&node, device, TcSide::Egress, 6, &stamp_pin)?;
        }
        bpf::filter(&node, device, TcSide::Egress, 7, &copy_pin)?;
    }
    let tapped = Raw::open(&node, "tapped")?;
    let rule = |text: &str| node.call(&format!("iptables {text}"));
    rule("-t mangle -A PREROUTING -j CONNMARK --restore-mark")?;
    rule("-t mangle -A PREROUTING -i v-attacker -j MARK --set-mark 0x74")?;
    rule("-t mangle -A PREROUTING -i v-attacker -p udp --dport 4444 -j MARK --set-mark 0x55")?;
    rule("-t mangle -A PREROUTING -j CONNMARK --save-mark")?;

    let (attacker, open, closed) = (field.v4("attacker"), field.v4("open"), field.v4("closed"));
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5000, 9, &m).bytes())];
    let got = field.delivered("attacker", "open", &packet, &m, ARRIVES)?;
    let seen = got.first().map(|frame| frame[11]);
    field.expect("the program behind sees the mark 0x74", seen == Some(0x74), seen);
    let copies = tapped.capture(&m, 1, ARRIVES)?;
    let seen = copies.first().map(|frame| frame[11]);
    field.expect("the filter behind both sees what passes", seen == Some(0x74), seen);
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, closed, 5000, 9, &m).bytes())];
    field.check("a marked packet to the closed pod", "attacker", "closed", &packet, &m, false)?;
    let copies = tapped.capture(&m, 1, SILENT)?.len();
    field.expect("and nothing of what does not", copies == 0, copies);

    // Whether a rule for a mark still matches.
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5001, 4444, &m).bytes())];
    field.check("the mark 0x55 without a rule", "attacker", "open", &packet, &m, true)?;
    node.ip("rule add fwmark 0x55 lookup 100\nroute add blackhole default table 100")?;
    let m = field.marker();
    let packet = [ip_packet(datagram(attacker, open, 5001, 4444, &m).bytes())];
    field.check("a rule for the mark 0x55", "attacker", "open", &packet, &m, false)?;

    let reply = |name| {
        let to = field.v4(name);
        let from = field.cluster.namespace("attacker")?;
        anyhow::Ok(probe(from, to, Kind::Tcp(80), PATIENCE).replied())
    };
    let (to_open, to_closed) = (reply("open")?, reply("closed")?);
    field.expect("a connection through all marks", to_open && !to_closed, (to_open, to_closed));
    drop(links);
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}
