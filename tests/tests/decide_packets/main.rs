//! What `np_common::decide` says of single packets, and how it moves flows on. What is expected here
//! is written by hand: the test that runs the programs takes `decide` itself for the measure.

mod began;
mod errors;
mod fast;
mod flows;
mod forwarding;
mod fragments;
mod lives;
mod receivers;
mod single;

use std::net::IpAddr;

use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Context, decide};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Flow, FlowKey, Time};
use np_common::packet::{AUTHENTICATION, ESP, ICMPV6, TCP, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::{Began, Tag};
use np_common::verdict::Verdict;
use np_policy::plan::simulate::Simulated;
use np_policy::plan::{PortPrefix, RulePrefix, Tables};
use np_tests::wire::{self, Fragment, Ip};

use Hook::{FromPod, FromUplink, ToPod, ToUplink};

const POD_A: u32 = 5;
const POD_B: u32 = 6;
const PENDING: u32 = 7;
const FOREIGN: u32 = 8;
const UPLINK: u32 = 9;
const TUNNEL: u32 = 10;
/// An uplink without an Ethernet header.
const BARE: u32 = 11;
const STACKED: u32 = 12;
const UNKNOWN: u32 = 4242;

const ID_A: EndpointId = EndpointId::new(1);
const ID_B: EndpointId = EndpointId::new(2);
const A: &str = "10.0.0.1";
const A6: &str = "fd00::1";
/// What a host forms of the source of [`wire::ethernet`].
const LINK_LOCAL: &str = "fe80::ff:fe00:1";
const B6: &str = "fd00::2";
/// Of pod A too, but not one of the two that are in its endpoint.
const A_MORE: &str = "10.0.0.11";
const B: &str = "10.0.0.2";
const OUT: &str = "192.0.2.7";
const OUT6: &str = "2001:db8::7";
const NODE: &str = "192.168.0.1";

/// A second is four of the units that flows count in.
const HZ: u32 = 1024;
const START_JIFFIES: u64 = 1 << 30;
const START: Time = Time::new(START_JIFFIES, HZ);

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Pods A and B. B is isolated for ingress, A for egress; TCP 80 is allowed to everyone, and to and
/// from OUT also UDP 53.
fn tables() -> Tables {
    let mut tables = Tables { config: Config::new(7, false), ..Tables::default() };
    let pods = [(ID_A, POD_A, A, A6), (ID_B, POD_B, B, B6)];
    for (id, device, v4, v6) in pods {
        let addrs = [addr(v4).into(), addr(v6).into()];
        let (ingress, egress) = (RuleSetId::new(1), RuleSetId::new(2));
        let policy = match id {
            ID_A => PolicyWord::new(None, Some(egress)),
            _ => PolicyWord::new(Some(ingress), None),
        };
        tables.endpoints.insert(id, Endpoint::new(addrs, policy, 0));
        tables.local.extend(addrs.map(|addr| (addr, id)));
        tables.ifaces.insert(device, Iface::new(device, Role::Pod, id));
    }
    tables.local.insert(addr(A_MORE).into(), ID_A);
    let others = [
        (PENDING, Role::Pending),
        (FOREIGN, Role::Foreign),
        (UPLINK, Role::Uplink),
        (TUNNEL, Role::Tunnel),
        (STACKED, Role::Stacked),
    ];
    for (device, role) in others {
        tables.ifaces.insert(device, Iface::new(device, role, EndpointId::NONE));
    }
    let bare = Iface::new(BARE, Role::Uplink, EndpointId::NONE).with_layer3();
    tables.ifaces.insert(BARE, bare);
    for out in [OUT, OUT6] {
        tables.peers.insert(addr(out).into(), ClassId::new(1));
    }
    for rule_set in [1, 2].map(RuleSetId::new) {
        let http = PortPrefix::ports(TCP, 80, 16);
        let dns = PortPrefix::ports(UDP, 53, 16);
        tables.rules.insert(RulePrefix { rule_set, class: ClassId::NONE, ports: http });
        tables.rules.insert(RulePrefix { rule_set, class: ClassId::new(1), ports: dns });
    }
    tables
}

/// A packet at a hook: the device there, the device it came by, its tag.
#[derive(Clone, Copy, Debug)]
struct At(Hook, u32, u32, Tag);

/// What a hook says, with all that the tag tells the next.
fn raw(maps: &Simulated<'_>, at: At, packet: &Ip) -> Verdict {
    raw_at(maps, at, packet.ethertype(), &packet.frame(), START)
}

fn raw_at(maps: &Simulated<'_>, at: At, ethertype: u16, frame: &[u8], time: Time) -> Verdict {
    let At(hook, ifindex, ingress_ifindex, tag) = at;
    let socket = false;
    decide(hook, maps, frame, &Context { ifindex, ingress_ifindex, socket, tag, ethertype, time })
}

fn verdict_at(maps: &Simulated<'_>, at: At, ethertype: u16, frame: &[u8], time: Time) -> Verdict {
    let Verdict { reason, tag } = raw_at(maps, at, ethertype, frame, time);
    // Which side a packet is from is looked at by itself, in `began`.
    let enters = matches!(at.0, FromPod | FromUplink) && tag.began().is_some();
    let tag = if enters { tag.with_began(Began::Unknown) } else { tag };
    Verdict { reason, tag }
}

fn verdict(maps: &Simulated<'_>, at: At, packet: &Ip) -> Verdict {
    later(maps, at, packet, 0)
}

fn later(maps: &Simulated<'_>, at: At, packet: &Ip, seconds: u32) -> Verdict {
    let frame = if at.1 == BARE { packet.bytes() } else { packet.frame() };
    let time = Time::new(START_JIFFIES + u64::from(seconds * HZ), HZ);
    verdict_at(maps, at, packet.ethertype(), &frame, time)
}

fn tcp(src: &str, dst: &str, sport: u16, dport: u16, flags: u8) -> Ip {
    Ip::new(addr(src), addr(dst), TCP, wire::tcp(sport, dport, flags))
}

fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> Ip {
    Ip::new(addr(src), addr(dst), UDP, wire::udp(sport, dport))
}

fn esp(src: &str, dst: &str) -> Ip {
    Ip::new(addr(src), addr(dst), ESP, vec![0; 24])
}

fn icmp6(src: &str, dst: &str, message: u8, hop_limit: u8) -> Ip {
    let mut ip = Ip::new(addr(src), addr(dst), ICMPV6, wire::icmp(message, 1));
    ip.payload.resize(24, 0);
    ip.hop_limit = hop_limit;
    ip
}

/// A listener message to the group of its kind, behind a router alert.
fn listener(src: &str, message: u8, hop_limit: u8) -> Ip {
    let mut payload = vec![ICMPV6, 0, 5, 2, 0, 0, 1, 0];
    payload.extend(wire::icmp(message, 1));
    payload.resize(8 + 28, 0);
    let mut ip = Ip::new(addr(src), addr("ff02::16"), 0, payload);
    ip.hop_limit = hop_limit;
    ip
}

/// The first or a later piece of datagram 7.
fn piece(mut ip: Ip, offset: u16) -> Ip {
    ip.fragment = Some(Fragment { offset, more: true, id: 7 });
    ip
}

const OF_A: Tag = Tag::of(ID_A);
const OF_B: Tag = Tag::of(ID_B);
const NONE: Tag = Tag::LOST;
const ENTERED: Tag = Tag::ENTERED;
const JUDGED: Tag = Tag::judged(EndpointId::NONE);
const JUDGED_A: Tag = Tag::judged(ID_A);
const JUDGED_B: Tag = Tag::judged(ID_B);
/// Replies: of a pod and from outside, to A, to B, and to somebody outside.
const B_TO_A_OK: Tag = Tag::reply(ID_A, ID_B);
const A_TO_B_OK: Tag = Tag::reply(ID_B, ID_A);
const A_OUT_OK: Tag = Tag::reply(EndpointId::NONE, ID_A);
const IN_A_OK: Tag = Tag::reply(ID_A, EndpointId::NONE);

const FROM_A: At = At(FromPod, POD_A, POD_A, NONE);
/// From outside to a pod.
const IN_A: At = At(ToPod, POD_A, UPLINK, ENTERED);
const IN_B: At = At(ToPod, POD_B, UPLINK, ENTERED);
const A_TO_B: At = At(ToPod, POD_B, POD_A, OF_A);
const B_BACK: At = At(FromPod, POD_B, POD_B, NONE);
const A_OUT: At = At(ToUplink, UPLINK, POD_A, OF_A);
const BACK_IN: At = At(FromUplink, UPLINK, UPLINK, NONE);

fn flow(maps: &Simulated<'_>, packet: &Ip) -> Option<Flow> {
    let ports = [0, 2].map(|at| u16::from_be_bytes([packet.payload[at], packet.payload[at + 1]]));
    let flows = maps.flows.borrow();
    let (src, dst) = (Addr::from(packet.src), Addr::from(packet.dst));
    let of = |key: &&FlowKey| {
        key.src == src
            && key.dst == dst
            && [key.sport, key.dport].map(u16::from_be) == ports
            && key.protocol == u32::from(packet.protocol)
    };
    flows.keys().find(of).map(|key| flows[key])
}
