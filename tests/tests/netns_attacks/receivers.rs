//! Replies that come to somebody else than the pod that opened their flow: five ways there.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Context, Result};
use np_common::packet::SYN;
use np_tests::address::Family;
use np_tests::manifests;
use np_tests::matrix::{self, Row};
use np_tests::probe::{Kind, PATIENCE, probe};
use np_tests::topology::Shape;
use np_tests::wire::{self, Ip, datagram, segment};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::conntrack_forgets;
use crate::field::{ARRIVES, Field, SILENT, ip_packet};
use crate::forge::icmp_message;

const NODE: &str = "192.168.65.10";
/// How often a bridge is led astray before a test gives up.
const TRIES: u32 = 10;

fn row(name: &str) -> Row {
    matrix::row("Attacks", name.to_owned())
}

fn node() -> IpAddr {
    NODE.parse().expect("an address")
}

/// Whether a packet comes to a host, where it `should`: waited for as long as it takes, else a moment.
fn arrives(
    field: &Field,
    from: &str,
    to: &str,
    packet: Ip,
    marker: &[u8],
    should: bool,
) -> Result<bool> {
    let within = if should { ARRIVES } else { SILENT };
    let got = field.delivered(from, to, &[ip_packet(packet.bytes())], marker, within)?;
    Ok(!got.is_empty())
}

/// A pod sends one datagram and goes; the next one with its address accepts nothing.
#[test]
fn a_reply_to_a_pod_that_is_gone_is_nobodys() -> Result<()> {
    let row = row("a reply to a pod that is gone, at the next pod with its address");
    for agents in [false, true] {
        let mut field = Field::new()?;
        if agents {
            field.start_agents()?;
        }
        let (open, remote) = (field.v4("open"), field.v4("remote"));
        let m = field.marker();
        let question = datagram(open, remote, 7777, 5000, &m);
        let asked = arrives(&field, "open", "remote", question, &m, true)?;
        field.expect("the first pod's datagram", asked, asked);
        let spec = field.cluster.spec.clone();
        let (_, pods) = manifests::files(&spec)
            .into_iter()
            .find(|(name, _)| *name == "pods.yaml")
            .context("the pods")?;
        let pods =
            pods.replace("  name: open\n", "  name: next\n").replace("app: open", "app: closed");
        // The agent is not ready until the next pod's device is there, too.
        if let Some(agents) = &field.agents {
            std::fs::write(agents.manifests().join("pods.yaml"), &pods)?;
        }
        field.cluster.attach_again("open")?;
        if let Some(agents) = &mut field.agents {
            let bound = |pod: Option<&String>| pod.is_some_and(|pod| pod == "default/next");
            agents.on("node-1")?.wait(PATIENCE * 10, |status| {
                status.ready && status.devices.iter().any(|device| bound(device.pod.as_ref()))
            })?;
        }
        let m = field.marker();
        let asked_for = datagram(remote, open, 5000, 7777, &m);
        let got = arrives(&field, "remote", "open", asked_for, &m, !agents)?;
        field.expect("what answers the pod that is gone", got != agents, (got, agents));
        field.report();
    }
    row.holds();
    Ok(())
}

/// An attacker's flow leaves by the very tuple that a NodePort answers on. Conntrack forgets it first.
#[test]
fn a_reply_to_one_pod_opens_no_node_port_of_another() -> Result<()> {
    let rows =
        [row("a reply through a NodePort, UDP"), row("a connection through a NodePort, TCP")];
    for agents in [false, true] {
        let mut field = Field::new()?;
        let inside = field.cluster.namespace("node-1")?.clone();
        inside.sysctls(&[("net/netfilter/nf_conntrack_tcp_timeout_syn_recv", "1")])?;
        let closed = field.v4("closed");
        for rule in [
            format!(
                "PREROUTING -p udp -d {NODE} --dport 30053 -j DNAT --to-destination {closed}:9"
            ),
            format!(
                "PREROUTING -p tcp -d {NODE} --dport 30080 -j DNAT --to-destination {closed}:80"
            ),
            format!("POSTROUTING -p udp --sport 30053 -o eth0 -j SNAT --to-source {NODE}:30053"),
            format!("POSTROUTING -p tcp --sport 30080 -o eth0 -j SNAT --to-source {NODE}:30080"),
        ] {
            inside.call(&format!("iptables -t nat -I {rule}"))?;
        }
        if agents {
            field.start_agents()?;
        }
        let (attacker, internet) = (field.v4("attacker"), field.v4("internet"));
        let m = field.marker();
        let packet = datagram(attacker, internet, 30053, 5353, &m);
        let out = arrives(&field, "attacker", "internet", packet, &m, true)?;
        field.expect("the attacker's datagram", out, out);
        conntrack_forgets(&inside, "sport=30053")?;
        let m = field.marker();
        let packet = datagram(internet, node(), 5353, 30053, &m);
        let got = arrives(&field, "internet", "closed", packet, &m, !agents)?;
        field.expect("its answer through the NodePort", got != agents, (got, agents));

        // The attacker answers the SYN-ACK with nothing.
        let quiet = field.cluster.namespace("attacker")?;
        quiet.call("iptables -I OUTPUT -p tcp --tcp-flags RST RST -j DROP")?;
        let m = field.marker();
        let segment = segment(attacker, internet, (30080, 80), 1, SYN, &m);
        let began = arrives(&field, "attacker", "internet", segment, &m, true)?;
        field.expect("the attacker's SYN", began, began);
        // Its answer is on its way.
        thread::sleep(SILENT);
        conntrack_forgets(&inside, "sport=30080")?;
        let to = SocketAddr::new(node(), 30080);
        let connected = field.cluster.namespace("internet")?.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                socket.bind("0.0.0.0:80".parse()?)?;
                Ok(timeout(PATIENCE, socket.connect(to)).await.is_ok_and(|made| made.is_ok()))
            })
        });
        // The outside host's own server may have the port; then this part shows nothing.
        let connected = connected.context("a client with the server's port")?;
        field.expect("a connection from there", connected != agents, (connected, agents));
        field.report();
    }
    rows.into_iter().for_each(Row::holds);
    Ok(())
}

/// Two pods share a masqueraded tuple; what the second sends drops, but conntrack remembers it.
#[test]
fn a_reply_to_a_shared_tuple_is_for_the_pod_that_opened_it() -> Result<()> {
    let row = row("a reply to a masqueraded tuple that another pod has tried since");
    for agents in [false, true] {
        let mut field = Field::new()?;
        let inside = field.cluster.namespace("node-1")?.clone();
        inside.call(&format!(
            "iptables -t nat -I POSTROUTING -p udp --sport 4900 -o eth0 -j SNAT --to-source {NODE}:4900"
        ))?;
        if agents {
            field.start_agents()?;
        }
        let internet = field.v4("internet");
        for (pod, leaves) in [("attacker", true), ("sealed", !agents)] {
            conntrack_forgets(&inside, "sport=4900")?;
            let m = field.marker();
            let packet = datagram(field.v4(pod), internet, 4900, 7, &m);
            let got = arrives(&field, pod, "internet", packet, &m, leaves)?;
            field.expect(pod, got == leaves, (got, agents));
        }
        let m = field.marker();
        let packet = datagram(internet, node(), 7, 4900, &m);
        let got = arrives(&field, "internet", "sealed", packet, &m, !agents)?;
        field.expect("the answer, at the second pod", got != agents, (got, agents));
        field.report();
    }
    row.holds();
    Ok(())
}

/// Whether `open`'s answer comes to a pod that has sent one frame as `open`'s hardware address. None
/// if a frame of `open` itself (a multicast report, say) led the bridge back in between.
fn led_to(pod: &str, field: &mut Field, should: bool) -> Result<Option<bool>> {
    let node = field.cluster.namespace("node-1")?.clone();
    let address = field.cluster.namespace("open")?.hardware_address("eth0")?;
    let link = field.cluster.namespace(pod)?.call("ip -o link show dev eth0")?;
    let (index, _) = link
        .split_once("@if")
        .and_then(|(_, rest)| rest.split_once(':'))
        .context("the index of the pod's host device")?;
    let links = node.call("ip -o link show")?;
    let device = links.lines().find_map(|line| line.strip_prefix(&format!("{index}: ")));
    let device = device.and_then(|line| line.split('@').next()).context("the pod's host device")?;
    let entry = format!("{} dev {device} ", wire::hardware_text(address));
    let leads_there = || {
        anyhow::Ok(node.call("bridge fdb show br cni0")?.lines().any(|line| line.contains(&entry)))
    };
    let (open, remote) = (field.v4("open"), field.v4("remote"));
    let m = field.marker();
    let packet = [ip_packet(datagram(field.v4(pod), remote, 5001, 9, &m).bytes())];
    field.send_as(pod, address, &packet)?;
    let before = leads_there()?;
    let m = field.marker();
    let answer = datagram(remote, open, 5000, 7777, &m);
    let got = arrives(field, "remote", pod, answer, &m, should)?;
    Ok((got || before && leads_there()?).then_some(got))
}

/// On a bridge a pod sends one frame as another's hardware address, and its frames come here.
#[test]
fn a_reply_that_a_bridge_leads_elsewhere_does_not_pass_there() -> Result<()> {
    let row = row("a reply that a bridge leads to another pod, by a false hardware address");
    for agents in [false, true] {
        let mut field = Field::shaped(Shape::BRIDGE)?;
        if agents {
            field.start_agents()?;
        }
        let (open, remote) = (field.v4("open"), field.v4("remote"));
        let m = field.marker();
        let question = datagram(open, remote, 7777, 5000, &m);
        let asked = arrives(&field, "open", "remote", question, &m, true)?;
        field.expect("the pod asks", asked, asked);
        // The node knows the pod, and asks no question that would lead the bridge back.
        let address = field.cluster.namespace("open")?.hardware_address("eth0")?;
        field.cluster.namespace("node-1")?.ip(&format!(
            "neigh replace {open} lladdr {} dev cni0 nud permanent",
            wire::hardware_text(address)
        ))?;
        let mut led = None;
        for _ in 0..TRIES {
            led = led_to("closed", &mut field, !agents)?;
            if led.is_some() {
                break;
            }
        }
        let got = led.context("the pod's own frames led the bridge back to it, every time")?;
        field.expect("the answer, at the other pod", got != agents, (got, agents));
        // It is learnt back, and the pod itself gets its answers.
        let m = field.marker();
        field.send("open", &[ip_packet(datagram(open, remote, 7777, 5000, &m).bytes())])?;
        let m = field.marker();
        let answer = datagram(remote, open, 5000, 7777, &m);
        let got = arrives(&field, "remote", "open", answer, &m, true)?;
        field.expect("the answer, at home", got, agents);
        field.report();
    }
    row.holds();
    Ok(())
}

/// Somebody outside asks in the name of a pod that accepts nothing: another pod, and the node.
#[test]
fn answers_to_forged_requests_do_not_reach_a_closed_pod() -> Result<()> {
    let rows = [
        row("a pod's answer to a request in another's name"),
        row("the node's answer to such a one"),
    ];
    let mut field = Field::new()?;
    for family in Family::BOTH {
        for agents in [false, true] {
            if agents && field.agents.is_none() {
                field.start_agents()?;
            } else if !agents && field.agents.is_some() {
                continue;
            }
            let closed = field.cluster.address("closed", family)?;
            for answerer in ["open", "node-1"] {
                let to = field.cluster.address(answerer, family)?;
                let m = field.marker();
                let message = if family == Family::V4 { 8 } else { 128 };
                let request = icmp_message(closed, to, message, 99, &m);
                let got = arrives(&field, "internet", "closed", request, &m, !agents)?;
                field.expect(&format!("{answerer} answers, {family:?}"), got != agents, agents);
            }
        }
    }
    // What the pod itself asks is answered, and probes pass.
    let (open, closed) = (field.v4("open"), field.cluster.namespace("closed")?);
    let replied = probe(closed, open, Kind::Tcp(80), PATIENCE).replied();
    field.expect("the closed pod's own connection", replied, replied);
    let probed =
        probe(field.cluster.namespace("node-1")?, field.v4("closed"), Kind::Tcp(80), PATIENCE);
    field.expect("the node's probe", probed.replied(), "no answer");
    field.report();
    rows.into_iter().for_each(Row::holds);
    Ok(())
}
