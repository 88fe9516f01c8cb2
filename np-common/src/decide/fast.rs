//! The fast path: what most packets are, in few steps.
//!
//! A plain packet ([`packet::plain`]) of a flow that was judged under the current generation, or one
//! that enters and of which nothing needs to be found out but that no flow has it as a reply. Whatever it
//! says, [`super::full`] says too, and leaves the same flows.

use super::began::began;
use super::case::{Found, Known, Way};
use super::flows::{follow, is_between, replied};
use super::{Context, Maps, judged_tag, network_offset};
use crate::direction::Hook;
use crate::endpoint::{EndpointId, Role};
use crate::flow::{FlowKey, Leg};
use crate::packet::{self, ETH_HLEN, Packet, PacketReader, plain};
use crate::tag::{Began, Tag};
use crate::verdict::{Reason, Verdict};

/// The verdict on a packet, where it takes few steps.
#[inline(always)]
pub fn fast<M: Maps, R: PacketReader + ?Sized>(
    hook: Hook,
    maps: &M,
    reader: &R,
    context: &Context,
) -> Option<Verdict> {
    match hook {
        Hook::FromPod => from_pod(maps, reader, context),
        Hook::ToPod => to_pod(maps, reader, context),
        Hook::FromUplink => from_uplink(maps, reader, context),
        Hook::ToUplink => to_uplink(maps, reader, context),
    }
}

#[inline(always)]
fn from_pod<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Option<Verdict> {
    let packet = plain(reader, context.ethertype, ETH_HLEN)?;
    let iface = maps.iface(context.ifindex);
    let id = iface.endpoint();
    if iface.role() != Some(Role::Pod) || id.is_none() || !maps.owns(id, &packet.src) {
        return None;
    }
    entered(maps, &packet, id, context)
}

#[inline(always)]
fn from_uplink<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Option<Verdict> {
    let iface = maps.iface(context.ifindex);
    // What a device below has seen already.
    if matches!(iface.role(), Some(Role::Stacked | Role::Tunnel)) && !context.tag.entered() {
        return None;
    }
    let packet = plain(reader, context.ethertype, network_offset(iface))?;
    entered(maps, &packet, EndpointId::NONE, context)
}

#[inline(always)]
fn entered<M: Maps>(
    maps: &M,
    packet: &Packet,
    replier: EndpointId,
    context: &Context,
) -> Option<Verdict> {
    let generation = maps.config().generation();
    let found = match maps.flow(&packet.flow_key().reversed()) {
        Some(mut flow) => replied(&mut flow, packet, replier, generation, context.time),
        None => Found::NOTHING,
    };
    match found.known {
        Known::Current => {
            Some(Verdict { reason: Reason::Reply, tag: Tag::reply(found.source, replier) })
        }
        Known::No => {
            let began = began(packet);
            if packet.protocol != packet::TCP {
                // Who was denied before began; and from outside nobody has the address of a pod here.
                let outside = replier.is_none();
                if began == Began::Unknown || outside && !maps.local(&packet.src).is_none() {
                    return None;
                }
            }
            Some(Verdict { reason: Reason::Entered, tag: Tag::of(replier).with_began(began) })
        }
        Known::Outdated | Known::Returned => None,
    }
}

#[inline(always)]
fn to_pod<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Option<Verdict> {
    let tag = context.tag;
    let iface = maps.iface(context.ifindex);
    let id = iface.endpoint();
    if iface.role() != Some(Role::Pod) || id.is_none() {
        return None;
    }
    if tag.is_reply() && tag.receiver() == id {
        return Some(Verdict { reason: Reason::ReplyPassed, tag });
    }
    if tag.is_lost() || tag.is_reply() || tag.sender() == id {
        return None;
    }
    let packet = plain(reader, context.ethertype, ETH_HLEN)?;
    let known = established(maps, &packet.flow_key(), &packet, tag.sender(), id, context);
    known.then_some(Verdict { reason: Reason::Established, tag })
}

#[inline(always)]
fn to_uplink<M: Maps, R: PacketReader + ?Sized>(
    maps: &M,
    reader: &R,
    context: &Context,
) -> Option<Verdict> {
    let tag = context.tag;
    let source = tag.sender();
    if source.is_none() || tag.egress_judged() {
        return None;
    }
    let iface = maps.iface(context.ifindex);
    let stacked = iface.role() == Some(Role::Stacked);
    let packet = plain(reader, context.ethertype, network_offset(iface))?;
    let key = packet.flow_key();
    let key = if stacked { key.on(Leg::Stacked) } else { key };
    let known = established(maps, &key, &packet, source, EndpointId::NONE, context);
    let tag = judged_tag(tag, stacked, source);
    known.then_some(Verdict { reason: Reason::Established, tag })
}

/// Whether the packet is one of a flow between these ends that is in force.
#[inline(always)]
fn established<M: Maps>(
    maps: &M,
    key: &FlowKey,
    packet: &Packet,
    source: EndpointId,
    destination: EndpointId,
    context: &Context,
) -> bool {
    let generation = maps.config().generation();
    let Some(mut flow) = maps.flow(key) else { return false };
    let known =
        is_between(&flow, source, destination, context.time) && flow.generation == generation;
    if known {
        follow(&mut flow, packet, Way::Forward, context.time);
    }
    known
}
