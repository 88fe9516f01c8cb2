//! Answers: honest ones, late ones, ones to somebody who is gone, and ones that nobody asked for.

use std::sync::Arc;

use super::{Adversary, CLIENT_PORTS, OUTSIDE_PORTS, POD_PORTS, echo, family, icmp, victim};
use crate::address::Family;
use crate::arrival::host::{HostId, Kind};
use crate::arrival::seen::{Flow, Form, ICMP, ICMPV6, TCP, UDP};
use crate::generate::dice::Dice;
use crate::wire::{Ip, datagram, segment};

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Longer than conntrack remembers a datagram or half a connection.
const FORGOTTEN: u64 = 2200;

fn answer_to(flow: &Flow, dice: &mut Dice<'_>, data: &[u8]) -> Option<Ip> {
    let Flow { src, dst, protocol, sport, dport } = *flow;
    Some(match protocol {
        UDP => datagram(dst, src, dport, sport, data),
        TCP => {
            let flags = *dice.pick(&[SYN | ACK, ACK, ACK, SYN]);
            segment(dst, src, (dport, sport), 7, flags, data)
        }
        ICMP | ICMPV6 => echo(dst, src, false, sport, data),
        _ => return None,
    })
}

impl Adversary<'_> {
    /// The host that got a packet of this flow answers it.
    fn answer(&mut self, plot: &'static str, dice: &mut Dice<'_>, by: HostId, flow: &Flow) {
        let Some(from) = self.actor(by).filter(|actor| actor.is_raw()) else { return };
        if !from.has(flow.dst) {
            return;
        }
        let mark = self.mark();
        if let Some(packet) = answer_to(flow, dice, &mark.bytes()) {
            self.send(plot, mark, &from, &packet);
        }
    }
}

/// Answers one of the last arrivals, at once or when the network has forgotten it.
pub fn answer(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let heard = adversary.stage.heard();
    if heard.is_empty() {
        return;
    }
    let one = *dice.pick(&heard);
    if !matches!(one.form, Form::Ported | Form::EchoRequest) {
        return;
    }
    let delay = dice.weighted(&[(5, 0), (2, 300), (2, FORGOTTEN), (2, 6000), (1, 12_000)]);
    if delay == 0 {
        adversary.answer("answer", dice, one.host, &one.flow);
        return;
    }
    let deed = move |adversary: &mut Adversary<'_>, dice: &mut Dice<'_>| {
        adversary.answer("late answer", dice, one.host, &one.flow);
    };
    adversary.later(delay, Box::new(deed));
}

/// Answers what a pod sent a while ago, rather one whose address is another pod's by now.
pub fn old_answer(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let pods = adversary.of(Kind::Pod);
    let all: Vec<(HostId, Flow)> = adversary
        .tuples
        .iter()
        .flat_map(|(id, flows)| flows.iter().map(|flow| (*id, *flow)))
        .collect();
    let another =
        |id: HostId, flow: &Flow| pods.iter().any(|pod| pod.has(flow.src) && pod.id != id);
    let inherited: Vec<(HostId, Flow)> =
        all.iter().copied().filter(|(id, flow)| another(*id, flow)).collect();
    let from = if inherited.is_empty() || dice.chance(20) { &all } else { &inherited };
    if from.is_empty() {
        return;
    }
    let (_, flow) = *dice.pick(from);
    let peer = adversary.stage.actors().into_iter().find(|actor| actor.has(flow.dst));
    if let Some(peer) = peer {
        adversary.answer("answer to who is gone", dice, peer.id, &flow);
    }
}

/// A pod talks from the number of a node's port, and its peer comes back to that port later.
pub fn node_port_tuple(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (pods, outside) = (adversary.of(Kind::Pod), adversary.of(Kind::Outside));
    let family = family(dice);
    let (pod, peer) = (Arc::clone(dice.pick(&pods)), Arc::clone(dice.pick(&outside)));
    let (sport, dport) = (*dice.pick(&[30053, 30054, 30055]), *dice.pick(&OUTSIDE_PORTS));
    let mark = adversary.mark();
    let packet = datagram(pod.address(family), peer.address(family), sport, dport, &mark.bytes());
    adversary.send("from a node's port", mark, &pod, &packet);
    let node = adversary.of(Kind::Node).into_iter().find(|node| node.node == pod.node);
    let Some(node) = node.map(|node| node.address(family)) else { return };
    let back = move |adversary: &mut Adversary<'_>, _: &mut Dice<'_>| {
        let mark = adversary.mark();
        let packet = datagram(peer.address(family), node, dport, sport, &mark.bytes());
        adversary.send("back to a node's port", mark, &peer, &packet);
    };
    adversary.later(FORGOTTEN, Box::new(back));
}

/// A second pod asks for the tuple that the first one's translation had; the peer answers.
pub fn shared_tuple(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (pods, outside) = (adversary.of(Kind::Pod), adversary.of(Kind::Outside));
    let family = family(dice);
    let free: Vec<_> = pods.iter().filter(|pod| pod.app != "jailed").cloned().collect();
    let jailed: Vec<_> = pods.iter().filter(|pod| pod.app == "jailed").cloned().collect();
    if free.is_empty() || jailed.is_empty() {
        return;
    }
    let second = Arc::clone(dice.pick(&jailed));
    let near: Vec<_> = free.into_iter().filter(|pod| pod.node == second.node).collect();
    if near.is_empty() {
        return;
    }
    let (first, peer) = (Arc::clone(dice.pick(&near)), Arc::clone(dice.pick(&outside)));
    let (sport, dport) = (45_000 + dice.below(900) as u16, *dice.pick(&OUTSIDE_PORTS));
    let node = adversary.of(Kind::Node).into_iter().find(|node| node.node == second.node);
    let Some(node) = node.map(|node| node.address(family)) else { return };
    let mark = adversary.mark();
    let to = peer.address(family);
    let packet = datagram(first.address(family), to, sport, dport, &mark.bytes());
    adversary.send("first of a shared tuple", mark, &first, &packet);
    let then = move |adversary: &mut Adversary<'_>, _: &mut Dice<'_>| {
        let mark = adversary.mark();
        let packet = datagram(second.address(family), to, sport, dport, &mark.bytes());
        adversary.send("second of a shared tuple", mark, &second, &packet);
        let answer = move |adversary: &mut Adversary<'_>, _: &mut Dice<'_>| {
            let mark = adversary.mark();
            let packet = datagram(to, node, dport, sport, &mark.bytes());
            adversary.send("answer to a shared tuple", mark, &peer, &packet);
        };
        adversary.later(60, Box::new(answer));
    };
    adversary.later(FORGOTTEN, Box::new(then));
}

/// Half a connection from the number of a node's port; when the network has forgotten it, the peer
/// opens one to that port.
pub fn half_open(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (pods, outside) = (adversary.of(Kind::Pod), adversary.of(Kind::Outside));
    let family = family(dice);
    let (pod, peer) = (Arc::clone(dice.pick(&pods)), Arc::clone(dice.pick(&outside)));
    let (sport, dport) = (*dice.pick(&[30080, 30081, 30082]), *dice.pick(&OUTSIDE_PORTS));
    let node = adversary.of(Kind::Node).into_iter().find(|node| node.node == pod.node);
    let Some(node) = node.map(|node| node.address(family)) else { return };
    let to = peer.address(family);
    let mark = adversary.mark();
    let syn = segment(pod.address(family), to, (sport, dport), 1, SYN, &mark.bytes());
    adversary.send("half a connection", mark, &pod, &syn);
    let accept = move |adversary: &mut Adversary<'_>, _: &mut Dice<'_>| {
        let mark = adversary.mark();
        let accept = segment(to, node, (dport, sport), 5, SYN | ACK, &mark.bytes());
        adversary.send("half a connection", mark, &peer, &accept);
        let back = move |adversary: &mut Adversary<'_>, _: &mut Dice<'_>| {
            let mark = adversary.mark();
            let packet = segment(to, node, (dport, sport), 9, SYN, &mark.bytes());
            adversary.send("a connection the other way", mark, &peer, &packet);
        };
        adversary.later(FORGOTTEN + 800, Box::new(back));
    };
    adversary.later(40, Box::new(accept));
}

/// An error about a packet that its receiver has sent, or never did.
pub fn error(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (pods, raw) = (adversary.of(Kind::Pod), adversary.raw());
    let Some(to) = victim(dice, &pods) else { return };
    let from = Arc::clone(dice.pick(&raw));
    let family = family(dice);
    let flows: Vec<Flow> = adversary
        .tuples
        .get(&to.id)
        .into_iter()
        .flatten()
        .filter(|flow| flow.src.is_ipv4() == (family == Family::V4))
        .copied()
        .collect();
    let (src, dst) = (from.address(family), to.address(family));
    let mark = adversary.mark();
    let about = if flows.is_empty() || dice.chance(40) {
        let (sport, dport) = (*dice.pick(&POD_PORTS), *dice.pick(&CLIENT_PORTS));
        datagram(dst, src, sport, dport, &mark.bytes())
    } else {
        let Flow { src, dst, protocol, sport, dport } = *dice.pick(&flows);
        match protocol {
            TCP => segment(src, dst, (sport, dport), 1, SYN, &mark.bytes()),
            _ => datagram(src, dst, sport, dport, &mark.bytes()),
        }
    };
    let message = if family == Family::V4 { 3 } else { 1 };
    let packet = icmp(src, dst, message, [0; 4], &about.bytes());
    adversary.send("error", mark, &from, &packet);
}
