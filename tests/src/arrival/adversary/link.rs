//! What neighbours on a link say to each other: listener messages, discovery, ARP, frames that a bridge
//! misleads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::{Adversary, CLIENT_PORTS, POD_PORTS, family, icmp, victim};
use crate::address::{Family, twin};
use crate::arrival::host::Kind;
use crate::arrival::stage::Actor;
use crate::generate::dice::Dice;
use crate::wire::{datagram, ethernet};

/// A listener message whose hop limit routers count down to what a neighbour's would be.
pub fn listener(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (raw, pods) = (adversary.raw(), adversary.of(Kind::Pod));
    let (Some(to), from) = (victim(dice, &pods), Arc::clone(dice.pick(&raw))) else { return };
    let mark = adversary.mark();
    let message = *dice.pick(&[130, 131, 132, 143]);
    let (src, dst) = (from.address(Family::V6), to.address(Family::V6));
    let data = [[0; 16].as_slice(), &mark.bytes()].concat();
    let mut packet = icmp(src, dst, message, [0; 4], &data);
    packet.hop_limit = *dice.pick(&[1, 2, 3, 4]);
    adversary.send("listener message", mark, &from, &packet);
}

/// Two pods of the bridge: one that sends, one that is to get it.
fn neighbours(adversary: &Adversary<'_>, dice: &mut Dice<'_>) -> Option<(Arc<Actor>, Arc<Actor>)> {
    let pods: Vec<Arc<Actor>> =
        adversary.of(Kind::Pod).into_iter().filter(|pod| pod.bridged).collect();
    let to = victim(dice, &pods)?;
    let from = Arc::clone(dice.pick(&pods));
    (from.id != to.id).then_some((from, to))
}

/// Neighbour discovery with more in it than is to be discovered.
pub fn discovery(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let Some((from, to)) = neighbours(adversary, dice) else { return };
    let mark = adversary.mark();
    let (src, dst) = (from.address(Family::V6), to.address(Family::V6));
    let solicitation = dice.chance(50);
    let target = if solicitation { to.v4 } else { from.v4 };
    let units = *dice.pick(&[3, 10, 100]);
    let mut option = vec![*dice.pick(&[1, 14, 200]), units];
    option.extend(mark.bytes());
    option.resize(usize::from(units) * 8, b'.');
    let data = [twin(target).octets().as_slice(), &option].concat();
    let message = if solicitation { 135 } else { 136 };
    let mut packet = icmp(src, dst, message, [0; 4], &data);
    packet.hop_limit = 255;
    adversary.send("discovery with a message", mark, &from, &packet);
}

/// ARP with something behind it.
pub fn arp(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let Some((from, to)) = neighbours(adversary, dice) else { return };
    let mark = adversary.mark();
    let operation = *dice.pick(&[1u8, 2]);
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, operation];
    message.extend(from.mac);
    message.extend(from.v4.octets());
    message.extend(to.mac);
    message.extend(to.v4.octets());
    message.extend(mark.bytes());
    message.resize(message.len() + dice.below(800), b'.');
    let frame = addressed(&from, to.mac, ethernet(0x0806, &message));
    adversary.send_frame("ARP with a message", mark, &from, &frame);
}

fn addressed(from: &Actor, to: [u8; 6], mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from.mac);
    frame
}

/// A frame with a neighbour's hardware address as its sender: the bridge sends on to the thief what
/// is the neighbour's.
pub fn stolen_port(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let Some((owner, thief)) = neighbours(adversary, dice) else { return };
    let mark = adversary.mark();
    let packet = datagram(
        thief.v4.into(),
        owner.v4.into(),
        *dice.pick(&CLIENT_PORTS),
        *dice.pick(&POD_PORTS),
        &mark.bytes(),
    );
    let mut frame = packet.frame_between(thief.gateway, thief.mac);
    frame[6..12].copy_from_slice(&owner.mac);
    adversary.send_frame("a neighbour's hardware address", mark, &thief, &frame);
    // Somebody may say something to the neighbour now.
    let everybody = adversary.raw();
    let family = family(dice);
    for _ in 0..2 {
        let from = Arc::clone(dice.pick(&everybody));
        let mark = adversary.mark();
        let (sport, dport) = (*dice.pick(&CLIENT_PORTS), *dice.pick(&POD_PORTS));
        let packet =
            datagram(from.address(family), owner.address(family), sport, dport, &mark.bytes());
        adversary.send("to whose port is stolen", mark, &from, &packet);
    }
}

/// VLAN tags and protocols that nobody speaks.
pub fn other_frames(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (raw, pods) = (adversary.raw(), adversary.of(Kind::Pod));
    let (Some(to), from) = (victim(dice, &pods), Arc::clone(dice.pick(&raw))) else { return };
    let mark = adversary.mark();
    let near = from.bridged && to.bridged && from.node == to.node;
    let mac = if near { to.mac } else { from.gateway };
    let family = family(dice);
    let everybody = adversary.stage.actors();
    let src = dice.pick(&everybody).address(family);
    let packet = datagram(src, to.address(family), 4900, *dice.pick(&POD_PORTS), &mark.bytes());
    let inner = [packet.ethertype().to_be_bytes().as_slice(), &packet.bytes()].concat();
    let frame = match dice.below(4) {
        0 => ethernet(0x8100, &[[0, 0].as_slice(), &inner].concat()),
        1 => ethernet(0x8100, &[[0, 0, 0x81, 0, 0, 0].as_slice(), &inner].concat()),
        2 => ethernet(0x88a8, &[[0, 0, 0x81, 0, 0, 0].as_slice(), &inner].concat()),
        _ => ethernet(*dice.pick(&[0x88b5, 0x0842, 0x8847, 0x88cc]), &mark.bytes()),
    };
    let frame = addressed(&from, mac, frame);
    adversary.send_frame("tags and other protocols", mark, &from, &frame);
}

/// A pod's hardware address with another's IP address.
pub fn misaddressed(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let Some((from, to)) = neighbours(adversary, dice) else { return };
    let everybody = adversary.stage.actors();
    let family = family(dice);
    let dst = dice.pick(&everybody).address(family);
    let mark = adversary.mark();
    let (sport, dport) = (*dice.pick(&CLIENT_PORTS), *dice.pick(&POD_PORTS));
    let packet = datagram(from.address(family), dst, sport, dport, &mark.bytes());
    let mac = if dice.chance(30) { [2, 9, 9, 9, 9, 9] } else { to.mac };
    let frame = packet.frame_between(mac, from.mac);
    adversary.send_frame("a frame to the wrong pod", mark, &from, &frame);
}

/// Multicast and broadcast: every pod of the bridge gets it, or none.
pub fn to_everybody(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let raw: Vec<Arc<Actor>> = adversary.raw();
    let from = Arc::clone(dice.pick(&raw));
    let mark = adversary.mark();
    let group = *dice.pick(&[Ipv4Addr::new(224, 0, 0, 251), Ipv4Addr::BROADCAST]);
    let (src, dst, mac): (IpAddr, IpAddr, [u8; 6]) = if dice.chance(50) {
        let [_, b, c, d] = group.octets();
        let mac = if group.is_broadcast() { [0xff; 6] } else { [1, 0, 0x5e, b & 127, c, d] };
        (from.v4.into(), group.into(), mac)
    } else {
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        (twin(from.v4).into(), all.into(), [0x33, 0x33, 0, 0, 0, 1])
    };
    let packet = datagram(src, dst, 5353, *dice.pick(&POD_PORTS), &mark.bytes());
    let frame = packet.frame_between(mac, from.mac);
    adversary.send_frame("to everybody", mark, &from, &frame);
}
