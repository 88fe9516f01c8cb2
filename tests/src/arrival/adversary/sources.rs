//! Addresses of others: as a source, and to have somebody else's kernel send the payload on.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Adversary, CLIENT_PORTS, POD_PORTS, echo, family, victim};
use crate::address::Family;
use crate::arrival::host::Kind;
use crate::generate::dice::Dice;
use crate::wire::{datagram, segment};

const SYN: u8 = 2;

/// An address that is not the sender's, rather one that was a pod's a while ago.
fn foreign_address(adversary: &Adversary<'_>, dice: &mut Dice<'_>, family: Family) -> IpAddr {
    let gone = adversary.stage.gone();
    if !gone.is_empty() && dice.chance(40) {
        return dice.pick(&gone).address(family);
    }
    let all = adversary.stage.actors();
    dice.pick(&all).address(family)
}

/// A packet that says it is from somebody else; the youngest pods try it most.
pub fn forged(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (raw, pods) = (adversary.raw(), adversary.of(Kind::Pod));
    let young = &raw[raw.len().saturating_sub(3)..];
    let from = if dice.chance(50) { dice.pick(young) } else { dice.pick(&raw) };
    let family = family(dice);
    let src = foreign_address(adversary, dice, family);
    let Some(to) = victim(dice, &pods).filter(|to| !from.has(src) && to.id != from.id) else {
        return;
    };
    let mark = adversary.mark();
    let (sport, dport) = (*dice.pick(&CLIENT_PORTS), *dice.pick(&POD_PORTS));
    let dst = to.address(family);
    let packet = if dice.chance(70) {
        datagram(src, dst, sport, dport, &mark.bytes())
    } else {
        segment(src, dst, (sport, dport), 1, SYN, &mark.bytes())
    };
    adversary.send("forged source", mark, from, &packet);
}

/// An echo request or a packet that ends on the way, in a pod's name: who answers or complains sends
/// the payload to that pod.
pub fn echo_by_others(adversary: &mut Adversary<'_>, dice: &mut Dice<'_>) {
    let (outside, pods) = (adversary.of(Kind::Outside), adversary.of(Kind::Pod));
    let everybody = adversary.stage.actors();
    let family = family(dice);
    let Some(to) = victim(dice, &pods) else { return };
    let (from, through) = (Arc::clone(dice.pick(&outside)), Arc::clone(dice.pick(&everybody)));
    if through.id == from.id || through.id == to.id {
        return;
    }
    let mark = adversary.mark();
    let (src, dst) = (to.address(family), through.address(family));
    let mut packet = match dice.below(4) {
        0 => datagram(src, dst, *dice.pick(&CLIENT_PORTS), 9999, &mark.bytes()),
        _ => echo(src, dst, true, *dice.pick(&CLIENT_PORTS), &mark.bytes()),
    };
    if dice.chance(15) {
        packet.hop_limit = 2;
    }
    adversary.send("echo in a pod's name", mark, &from, &packet);
}
