//! What looks honest: datagrams, segments and echoes to whatever can be reached, whole or in pieces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Adversary, CLIENT_PORTS, OUTSIDE_PORTS, POD_PORTS, echo, family, victim};
use crate::address::Family;
use crate::arrival::host::Kind;
use crate::arrival::mark::Mark;
use crate::arrival::seen::UDP;
use crate::arrival::stage::Actor;
use crate::generate::dice::Dice;
use crate::wire::{Fragment, Ip, datagram, segment};

const SYN: u8 = 2;
const ACK: u8 = 16;

/// Somebody to somebody, in any protocol.
pub fn chat(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let actors = adversary.stage.actors();
    let Some(from) = sender(dice, &actors) else { return };
    let family = family(dice);
    let (to, port) = target(adversary, dice, family);
    let mark = adversary.mark();
    if !from.is_raw() {
        let sent = datagram(from.address(family), to, 0, port, &mark.bytes()).frame();
        adversary.stage.chronicle().send(mark, from.id, "the node speaks", &sent);
        from.say(SocketAddr::new(to, port), &mark.bytes());
        adversary.sent += 1;
        return;
    }
    let packet = packet(dice, from.address(family), to, port, mark);
    adversary.send("chat", mark, &from, &packet);
}

/// Nodes now and then, the others evenly.
fn sender(dice: &mut Dice<'_>, actors: &[Arc<Actor>]) -> Option<Arc<Actor>> {
    let from = dice.pick(actors);
    let rather = from.kind != Kind::Node || dice.chance(40);
    rather.then(|| Arc::clone(from))
}

/// An address and a port behind which somebody is.
fn target(adversary: &Adversary<'_>, dice: &mut Dice<'_>, family: Family) -> (IpAddr, u16) {
    let pods = adversary.of(Kind::Pod);
    match dice.below(10) {
        0 => {
            let last = *dice.pick(&[10, 11, 12]);
            let address = family.address(Ipv4Addr::new(100, 64, 5, last));
            (address, *dice.pick(&[80, 53]))
        }
        1 => {
            let nodes = adversary.of(Kind::Node);
            let ports = [30053, 30054, 30055, 30080, 30081, 30082];
            (dice.pick(&nodes).address(family), *dice.pick(&ports))
        }
        2 | 3 => {
            let outside = adversary.of(Kind::Outside);
            (dice.pick(&outside).address(family), *dice.pick(&OUTSIDE_PORTS))
        }
        _ => {
            let pod = victim(dice, &pods).unwrap_or_else(|| Arc::clone(&pods[0]));
            (pod.address(family), *dice.pick(&POD_PORTS))
        }
    }
}

fn packet(dice: &mut Dice<'_>, from: IpAddr, to: IpAddr, port: u16, mark: Mark) -> Ip {
    let sport = *dice.pick(&CLIENT_PORTS);
    let mut data = mark.bytes().to_vec();
    data.resize(data.len() + dice.below(200), b'.');
    match dice.below(10) {
        0 => echo(from, to, true, sport, &data),
        1..=3 => segment(from, to, (sport, port), 1, SYN, &data),
        4 => segment(from, to, (sport, port), 2, ACK, &data),
        _ => datagram(from, to, sport, port, &data),
    }
}

/// A datagram in pieces, each with the mark, in some order, some of them missing.
pub fn fragments(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let raw = adversary.raw();
    let from = Arc::clone(dice.pick(&raw));
    let family = family(dice);
    let (to, port) = target(adversary, dice, family);
    let mark = adversary.mark();
    let sport = *dice.pick(&CLIENT_PORTS);
    let unit = [mark.bytes().as_slice(), &[b'.'; 12]].concat();
    let mut whole = datagram(from.address(family), to, sport, port, &unit.repeat(12));
    whole.options = if dice.chance(20) { 1 } else { 0 };
    // The first piece has the whole mark, else nobody could explain it.
    let first = *dice.pick(&[24, 32, 64]);
    let cut = [0, first, 160, whole.payload.len()];
    let id = mark.0 as u32;
    let mut pieces: Vec<Ip> = cut
        .windows(2)
        .map(|ends| Ip {
            payload: whole.payload[ends[0]..ends[1]].to_vec(),
            fragment: Some(Fragment {
                offset: (ends[0] / 8) as u16,
                more: ends[1] < whole.payload.len(),
                id,
            }),
            ..whole.clone()
        })
        .collect();
    if dice.chance(30) {
        pieces.reverse();
    }
    if dice.chance(20) {
        pieces.remove(dice.below(3));
    }
    // What the chronicle has to know is in the first piece, whatever is sent before it.
    let first = pieces.iter().find(|piece| piece.fragment.is_some_and(|f| f.offset == 0));
    let first = first.unwrap_or(&whole).frame_between(from.gateway, from.mac);
    adversary.stage.chronicle().send(mark, from.id, "fragments", &first);
    for piece in &pieces {
        from.send(&piece.frame_between(from.gateway, from.mac));
        adversary.sent += 1;
    }
}

/// Two pieces of an IPv6 datagram that a node puts together and takes apart again: those it makes have
/// no ingress device.
pub fn fragments_that_lose_their_device(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (outside, pods) = (adversary.of(Kind::Outside), adversary.of(Kind::Pod));
    let Some(to) = victim(dice, &pods) else { return };
    let from = Arc::clone(dice.pick(&outside));
    let (src, dst) = (from.address(Family::V6), to.address(Family::V6));
    let mark = adversary.mark();
    let data = [mark.bytes().as_slice(), &[b'.'; 4]].concat().repeat(168);
    let whole = datagram(src, dst, 5000, 8443, &data).payload;
    let (first, second) = whole.split_at(1344);
    let fragment = |offset: u16, more: u16| {
        let mut header = vec![UDP, 0];
        header.extend((offset | more).to_be_bytes());
        header.extend((mark.0 as u32).to_be_bytes());
        header
    };
    let hop_by_hop = vec![44, 0, 1, 4, 0, 0, 0, 0];
    let first = Ip::new(src, dst, 0, [hop_by_hop, fragment(0, 1), first.to_vec()].concat());
    let second = Ip::new(src, dst, 44, [fragment(1344, 0), second.to_vec()].concat());
    adversary.send("fragments that lose their device", mark, &from, &first);
    from.send(&second.frame_between(from.gateway, from.mac));
    adversary.sent += 1;
}
