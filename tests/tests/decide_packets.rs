//! What `np_common::decide` says of single packets, and how it moves flows on. What is expected here
//! is written by hand: the test that runs the programs takes `decide` itself for the measure.

use std::net::IpAddr;

use np_agent::plan::simulate::Simulated;
use np_agent::plan::{PortPrefix, RulePrefix, Tables};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Context, decide};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Flow, FlowKey, State, Time};
use np_common::packet::{ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::Tag;
use np_common::verdict::{Action, Reason, Verdict};
use np_tests::wire::{self, Ip};

use Hook::{FromPod, FromUplink, ToPod, ToUplink};

const POD_A: u32 = 5;
const POD_B: u32 = 6;
const PENDING: u32 = 7;
const FOREIGN: u32 = 8;
const UPLINK: u32 = 9;
const TUNNEL: u32 = 10;
/// An uplink without an Ethernet header.
const BARE: u32 = 11;
const UNKNOWN: u32 = 4242;

const ID_A: EndpointId = EndpointId::new(1);
const ID_B: EndpointId = EndpointId::new(2);
const A: &str = "10.0.0.1";
const A6: &str = "fd00::1";
/// Of pod A too, but not one of the two that are in its endpoint.
const A_MORE: &str = "10.0.0.11";
const B: &str = "10.0.0.2";
const OUT: &str = "192.0.2.7";
const OUT6: &str = "2001:db8::7";
const NODE: &str = "192.168.0.1";

const START: Time = Time { now: 1_000_000, hz: 250 };

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Pods A and B. B is isolated for ingress, A for egress; TCP 80 is allowed to everyone, and to and
/// from OUT also UDP 53.
fn tables() -> Tables {
    let mut tables = Tables { config: Config::new(7, false), ..Tables::default() };
    let pods = [(ID_A, POD_A, A, A6), (ID_B, POD_B, B, "fd00::2")];
    for (id, device, v4, v6) in pods {
        let addrs = [addr(v4).into(), addr(v6).into()];
        let (ingress, egress) = (RuleSetId::new(1), RuleSetId::new(2));
        let policy = match id {
            ID_A => PolicyWord::new(None, Some(egress)),
            _ => PolicyWord::new(Some(ingress), None),
        };
        tables.endpoints.insert(id, Endpoint { addrs, policy });
        tables.local.extend(addrs.map(|addr| (addr, id)));
        tables.ifaces.insert(device, Iface::new(device, Role::Pod, id));
    }
    tables.local.insert(addr(A_MORE).into(), ID_A);
    let others = [
        (PENDING, Role::Pending),
        (FOREIGN, Role::Foreign),
        (UPLINK, Role::Uplink),
        (TUNNEL, Role::Tunnel),
    ];
    for (device, role) in others {
        tables.ifaces.insert(device, Iface::new(device, role, EndpointId::NONE));
    }
    let bare = Iface::new(BARE, Role::Uplink, EndpointId::NONE).with_layer3();
    tables.ifaces.insert(BARE, bare);
    tables.peers.insert(addr(OUT).into(), ClassId::new(1));
    for rule_set in [1, 2].map(RuleSetId::new) {
        let http = PortPrefix::ports(TCP, 80, 16);
        let dns = PortPrefix::ports(UDP, 53, 16);
        tables.rules.insert(RulePrefix { rule_set, class: ClassId::NONE, ports: http });
        tables.rules.insert(RulePrefix { rule_set, class: ClassId::new(1), ports: dns });
    }
    tables
}

/// A packet at a hook: the device there, the device it came by, its tag.
#[derive(Clone, Copy)]
struct At(Hook, u32, u32, Tag);

fn verdict_at(maps: &Simulated<'_>, at: At, ethertype: u16, frame: &[u8], time: Time) -> Verdict {
    let At(hook, ifindex, ingress_ifindex, tag) = at;
    decide(hook, maps, frame, &Context { ifindex, ingress_ifindex, tag, ethertype, time })
}

fn verdict(maps: &Simulated<'_>, at: At, packet: &Ip) -> Verdict {
    later(maps, at, packet, 0)
}

fn later(maps: &Simulated<'_>, at: At, packet: &Ip, seconds: u32) -> Verdict {
    let frame = if at.1 == BARE { packet.bytes() } else { packet.frame() };
    let time = Time { now: START.now + seconds * START.hz, ..START };
    verdict_at(maps, at, packet.ethertype(), &frame, time)
}

fn tcp(src: &str, dst: &str, sport: u16, dport: u16, flags: u8) -> Ip {
    Ip::new(addr(src), addr(dst), TCP, wire::tcp(sport, dport, flags))
}

fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> Ip {
    Ip::new(addr(src), addr(dst), UDP, wire::udp(sport, dport))
}

fn icmp6(src: &str, dst: &str, message: u8, hop_limit: u8) -> Ip {
    let mut ip = Ip::new(addr(src), addr(dst), ICMPV6, wire::icmp(message, 1));
    ip.payload.resize(24, 0);
    ip.hop_limit = hop_limit;
    ip
}

fn fragment(mut ip: Ip) -> Ip {
    ip.fragment = Some(185);
    ip
}

const OF_A: Tag = Tag::of(ID_A);
const OF_B: Tag = Tag::of(ID_B);
const NONE: Tag = Tag::NONE;
const ENTERED: Tag = Tag::ENTERED;

/// Each on its own: no packet finds a flow of another.
#[test]
fn each_packet_comes_to_its_reason_and_tag() {
    let tables = tables();
    let cases = [
        // What a pod sends is tagged with the pod, once its source is proven.
        (At(FromPod, POD_A, POD_A, NONE), tcp(A, B, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, OF_B), tcp(A, B, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp(A6, OUT6, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp(A_MORE, B, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp(B, A, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp(OUT, B, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp("fe80::1", OUT6, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), tcp("::", OUT6, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (At(FromPod, POD_A, POD_A, NONE), fragment(udp(A, B, 9, 80)), Reason::Entered, OF_A),
        // Between neighbours.
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6("::", "ff02::1:ff00:1", 135, 255),
            Reason::NeighborDiscovery,
            OF_A,
        ),
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6(OUT6, "ff02::1", 136, 255),
            Reason::SourceAddress,
            OF_A,
        ),
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6("fe80::1", "ff02::16", 143, 1),
            Reason::MulticastListener,
            OF_A,
        ),
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6("::", "ff02::16", 143, 1),
            Reason::MulticastListener,
            OF_A,
        ),
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6("fe80::1", "ff02::1", 134, 255),
            Reason::RouterClaim,
            OF_A,
        ),
        (
            At(FromPod, POD_A, POD_A, NONE),
            icmp6("fe80::1", A6, 137, 255),
            Reason::RouterClaim,
            OF_A,
        ),
        (
            At(ToPod, POD_B, POD_A, OF_A),
            icmp6(A6, "fd00::2", 135, 255),
            Reason::NeighborDiscovery,
            OF_A,
        ),
        (
            At(ToPod, POD_B, POD_A, OF_A),
            icmp6("fe80::1", "ff02::16", 143, 1),
            Reason::MulticastListener,
            OF_A,
        ),
        (
            At(ToUplink, UPLINK, POD_A, OF_A),
            icmp6("fe80::1", "ff02::16", 143, 1),
            Reason::MulticastListener,
            JUDGED_A,
        ),
        (
            At(FromUplink, UPLINK, UPLINK, NONE),
            icmp6(OUT6, A6, 135, 255),
            Reason::NeighborDiscovery,
            ENTERED,
        ),
        // Devices that are not, or not yet, a pod's.
        (At(FromPod, PENDING, PENDING, NONE), tcp(A, B, 9, 80, SYN), Reason::Pending, ENTERED),
        (At(FromPod, UNKNOWN, UNKNOWN, NONE), tcp(A, B, 9, 80, SYN), Reason::Pending, ENTERED),
        (At(FromPod, UPLINK, UPLINK, NONE), tcp(A, B, 9, 80, SYN), Reason::Pending, ENTERED),
        (At(FromPod, TUNNEL, TUNNEL, NONE), tcp(A, B, 9, 80, SYN), Reason::Pending, ENTERED),
        (
            At(FromPod, PENDING, PENDING, NONE),
            icmp6("::", "ff02::1:ff00:1", 135, 255),
            Reason::NeighborDiscovery,
            ENTERED,
        ),
        (At(FromPod, FOREIGN, FOREIGN, NONE), tcp(OUT, B, 9, 80, SYN), Reason::Foreign, ENTERED),
        (At(ToPod, PENDING, POD_A, OF_A), tcp(A, B, 9, 80, SYN), Reason::Pending, OF_A),
        (At(ToPod, UNKNOWN, POD_A, OF_A), tcp(A, B, 9, 80, SYN), Reason::Pending, OF_A),
        (At(ToPod, FOREIGN, POD_A, OF_A), tcp(A, OUT, 9, 99, SYN), Reason::Foreign, OF_A),
        // What the node makes itself, told by device and tag together.
        (At(ToPod, POD_B, 0, NONE), tcp(NODE, B, 9, 99, SYN), Reason::Own, NONE),
        (At(ToPod, POD_B, 0, ENTERED), tcp(NODE, B, 9, 99, SYN), Reason::IngressDenied, ENTERED),
        (At(ToPod, POD_B, UPLINK, NONE), tcp(NODE, B, 9, 99, SYN), Reason::IngressDenied, NONE),
        (At(ToUplink, UPLINK, 0, NONE), tcp(NODE, OUT, 9, 99, SYN), Reason::Own, NONE),
        (At(ToUplink, UPLINK, 0, OF_A), tcp(A, OUT, 9, 99, SYN), Reason::EgressDenied, JUDGED_A),
        // Both ends are judged where the packet comes to a pod.
        (At(ToPod, POD_B, POD_A, OF_A), tcp(A, B, 9, 80, SYN), Reason::Allowed, OF_A),
        (At(ToPod, POD_B, POD_A, OF_A), tcp(A, B, 9, 81, SYN), Reason::EgressDenied, OF_A),
        (At(ToPod, POD_B, POD_A, JUDGED_A), tcp(A, B, 9, 81, SYN), Reason::IngressDenied, JUDGED_A),
        (At(ToPod, POD_A, POD_B, OF_B), tcp(B, A, 9, 81, SYN), Reason::NotIsolated, OF_B),
        (
            At(ToPod, POD_B, UPLINK, ENTERED),
            tcp(OUT, B, 9, 81, SYN),
            Reason::IngressDenied,
            ENTERED,
        ),
        (At(ToPod, POD_B, UPLINK, ENTERED), udp(OUT, B, 9, 53), Reason::Allowed, ENTERED),
        (At(ToPod, POD_B, UPLINK, ENTERED), udp(OUT, B, 53, 9), Reason::IngressDenied, ENTERED),
        (At(ToPod, POD_B, UPLINK, ENTERED), udp(NODE, B, 9, 53), Reason::IngressDenied, ENTERED),
        (At(ToPod, POD_B, UPLINK, ENTERED), tcp(OUT, B, 9, 80, SYN), Reason::Allowed, ENTERED),
        (At(ToPod, POD_A, POD_A, OF_A), tcp(NODE, A, 9, 81, SYN), Reason::Hairpin, OF_A),
        (At(ToPod, POD_B, POD_A, FLOW_OK), tcp(A, B, 9, 81, ACK), Reason::ReplyPassed, FLOW_OK),
        (
            At(ToPod, POD_B, UPLINK, ENTERED),
            fragment(udp(OUT, B, 9, 53)),
            Reason::Fragment,
            ENTERED,
        ),
        (
            At(ToPod, POD_A, UPLINK, ENTERED),
            fragment(udp(OUT, A, 9, 53)),
            Reason::NotIsolated,
            ENTERED,
        ),
        (
            At(ToPod, POD_B, UPLINK, ENTERED),
            Ip::new(addr(OUT), addr(B), ICMP, wire::icmp(3, 0)),
            Reason::IcmpError,
            ENTERED,
        ),
        // Nobody outside has the address of a pod of this node.
        (At(ToPod, POD_B, UPLINK, ENTERED), tcp(A, B, 9, 80, SYN), Reason::ForgedSource, ENTERED),
        (At(ToPod, POD_A, UPLINK, ENTERED), tcp(B, A, 9, 80, SYN), Reason::NotIsolated, ENTERED),
        // Without a tag the device tells who sent it, and then the source.
        (At(ToPod, POD_B, POD_A, NONE), tcp(A, B, 9, 81, SYN), Reason::EgressDenied, NONE),
        (At(ToPod, POD_B, UPLINK, NONE), tcp(A, B, 9, 81, SYN), Reason::EgressDenied, NONE),
        (
            At(ToUplink, UPLINK, POD_A, NONE),
            tcp(NODE, OUT, 9, 81, SYN),
            Reason::EgressDenied,
            JUDGED,
        ),
        (
            At(ToUplink, UPLINK, UNKNOWN, NONE),
            tcp(A, OUT, 9, 81, SYN),
            Reason::EgressDenied,
            JUDGED,
        ),
        // Leaving the node: judged once, at the first of stacked devices.
        (At(ToUplink, UPLINK, POD_A, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Allowed, JUDGED_A),
        (At(ToUplink, BARE, POD_A, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Allowed, JUDGED_A),
        (
            At(ToUplink, UPLINK, POD_A, OF_A),
            tcp(A, OUT, 9, 81, SYN),
            Reason::EgressDenied,
            JUDGED_A,
        ),
        (At(ToUplink, UPLINK, POD_A, OF_A), udp(A, OUT, 9, 53), Reason::Allowed, JUDGED_A),
        (At(ToUplink, UPLINK, POD_A, OF_A), udp(A, NODE, 9, 53), Reason::EgressDenied, JUDGED_A),
        (
            At(ToUplink, UPLINK, POD_A, JUDGED_A),
            tcp(A, OUT, 9, 81, SYN),
            Reason::EgressJudged,
            JUDGED_A,
        ),
        (
            At(ToUplink, UPLINK, POD_A, FLOW_OK),
            tcp(A, OUT, 9, 81, ACK),
            Reason::ReplyPassed,
            FLOW_OK,
        ),
        (
            At(ToUplink, UPLINK, UPLINK, ENTERED),
            tcp(OUT, NODE, 9, 81, SYN),
            Reason::Transit,
            ENTERED,
        ),
        (At(ToUplink, UPLINK, UPLINK, NONE), tcp(OUT, NODE, 9, 81, SYN), Reason::Transit, NONE),
        // Coming from outside.
        (At(FromUplink, UPLINK, UPLINK, NONE), tcp(OUT, A, 9, 81, SYN), Reason::Entered, ENTERED),
        (At(FromUplink, BARE, BARE, NONE), tcp(OUT, A, 9, 81, SYN), Reason::Entered, ENTERED),
        (At(FromUplink, UPLINK, UPLINK, OF_A), tcp(OUT, A, 9, 81, SYN), Reason::Entered, ENTERED),
        (
            At(FromUplink, TUNNEL, UPLINK, OF_A),
            tcp(B, A, 9, 81, SYN),
            Reason::TunnelForged,
            ENTERED,
        ),
        (
            At(FromUplink, TUNNEL, UPLINK, ENTERED),
            tcp(OUT, A, 9, 81, SYN),
            Reason::Entered,
            ENTERED,
        ),
    ];
    for (at, packet, reason, tag) in cases {
        let maps = Simulated::new(&tables);
        let found = verdict(&maps, at, &packet);
        let At(hook, device, ingress, before) = at;
        assert_eq!(
            found,
            Verdict { reason, tag },
            "{} at {device} from {ingress}, {before:?}: {packet:?}",
            hook.name()
        );
    }
}

const JUDGED: Tag = Tag::NONE.with_egress_judged();
const JUDGED_A: Tag = OF_A.with_egress_judged();
const FLOW_OK: Tag = OF_A.with_flow_ok();

/// Frames that are no good IP packet.
#[test]
fn what_is_no_ip_packet_has_a_reason_at_each_hook() {
    const ARP: u16 = 0x0806;
    const VLAN: u16 = 0x8100;
    let tables = tables();
    let maps = Simulated::new(&tables);
    let ip = tcp(A, B, 9, 80, SYN).bytes();
    let cut = &ip[..12];
    for (at, ethertype, payload, reason) in [
        (At(FromPod, POD_A, POD_A, NONE), ARP, &ip[..], Reason::Arp),
        (At(FromPod, POD_A, POD_A, NONE), VLAN, &ip, Reason::Ethertype),
        (At(FromPod, POD_A, POD_A, NONE), 0x0800, cut, Reason::Malformed),
        (At(ToPod, POD_B, POD_A, OF_A), ARP, &ip, Reason::Arp),
        (At(ToPod, POD_B, POD_A, OF_A), VLAN, &ip, Reason::Ethertype),
        (At(ToPod, POD_B, POD_A, OF_A), 0x0800, cut, Reason::Malformed),
        (At(FromUplink, UPLINK, UPLINK, NONE), ARP, &ip, Reason::Arp),
        (At(FromUplink, UPLINK, UPLINK, NONE), VLAN, &ip, Reason::NotIp),
        (At(FromUplink, UPLINK, UPLINK, NONE), 0x0800, cut, Reason::Entered),
        (At(ToUplink, UPLINK, POD_A, OF_A), ARP, &ip, Reason::Arp),
        (At(ToUplink, UPLINK, POD_A, OF_A), VLAN, &ip, Reason::NotIp),
        (At(ToUplink, UPLINK, POD_A, OF_A), 0x0800, cut, Reason::Malformed),
    ] {
        let frame = wire::ethernet(ethertype, payload);
        let found = verdict_at(&maps, at, ethertype, &frame, START);
        assert_eq!(found.reason, reason, "{} {ethertype:#x}", at.0.name());
    }
}

#[test]
fn pending_devices_pass_when_they_may() {
    let tables = Tables { config: Config::new(7, true), ..tables() };
    let maps = Simulated::new(&tables);
    let packet = tcp(A, B, 9, 80, SYN);
    for at in [At(FromPod, PENDING, PENDING, NONE), At(ToPod, PENDING, POD_A, OF_A)] {
        assert_eq!(verdict(&maps, at, &packet).reason, Reason::PendingAllowed);
    }
}

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

/// A reply passes by the flow and by nothing else: B may not open anything to A's high port.
#[test]
fn replies_pass_for_as_long_as_their_flow_lives() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let reply = tcp(B, A, 80, 9, SYN | ACK);
    assert_eq!(verdict(&maps, B_BACK, &reply), Verdict { reason: Reason::Entered, tag: OF_B });
    let request = tcp(A, B, 9, 80, SYN);
    assert_eq!(verdict(&maps, A_TO_B, &request).reason, Reason::Allowed);
    let passed = Verdict { reason: Reason::Reply, tag: OF_B.with_flow_ok() };
    assert_eq!(verdict(&maps, B_BACK, &reply), passed);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, ACK)).reason, Reason::Established);
    let flow = flow(&maps, &request).expect("it is recorded");
    assert_eq!((flow.source(), flow.destination(), flow.generation), (ID_A, ID_B, 7));
    // The same tuple at another pod's device is nobody's reply.
    let elsewhere = At(FromUplink, UPLINK, UPLINK, NONE);
    assert_eq!(verdict(&maps, elsewhere, &reply).reason, Reason::Entered);

    let days = 24 * 3600;
    assert_eq!(later(&maps, B_BACK, &reply, 5 * days), passed);
    assert_eq!(later(&maps, B_BACK, &reply, 10 * days).reason, Reason::Reply, "it was refreshed");
    assert_eq!(later(&maps, B_BACK, &reply, 15 * days + 1).reason, Reason::Entered);
}

#[test]
fn a_flow_through_an_uplink_lets_its_replies_in() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    // After masquerade the source is the node's; the tag still says who sent it.
    let request = udp(NODE, OUT, 9, 53);
    let reply = udp(OUT, NODE, 53, 9);
    assert_eq!(verdict(&maps, BACK_IN, &reply).reason, Reason::Entered);
    assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
    let passed = Verdict { reason: Reason::Reply, tag: ENTERED.with_flow_ok() };
    assert_eq!(verdict(&maps, BACK_IN, &reply), passed);
    assert_eq!(later(&maps, BACK_IN, &reply, 180), passed);
    assert_eq!(later(&maps, BACK_IN, &reply, 361).reason, Reason::Entered, "a UDP flow lapsed");
    // The tuple goes to another pod: it is judged anew, by its own policy.
    assert_eq!(later(&maps, A_OUT, &request, 361).reason, Reason::Allowed);
    let other = At(ToUplink, UPLINK, POD_B, OF_B);
    assert_eq!(later(&maps, other, &request, 361).reason, Reason::NotIsolated);
    let owner = flow(&maps, &request).expect("it is recorded").source();
    assert_eq!(owner, ID_B);
    assert_eq!(later(&maps, A_OUT, &request, 361).reason, Reason::Allowed, "and back again");
}

/// A flow that was recorded when nobody was isolated is under the policy that comes then.
#[test]
fn a_new_generation_judges_every_flow_again_both_ways() {
    let mut tables = tables();
    let mut flows = {
        let maps = Simulated::new(&tables);
        let open = tcp(A, B, 9, 80, SYN);
        assert_eq!(verdict(&maps, A_TO_B, &open).reason, Reason::Allowed);
        assert_eq!(verdict(&maps, A_OUT, &udp(A, OUT, 9, 53)).reason, Reason::Allowed);
        maps.flows.take()
    };
    let (forward, back) = (tcp(A, B, 9, 80, ACK), tcp(B, A, 80, 9, ACK));
    let (query, answer) = (udp(A, OUT, 9, 53), udp(OUT, A, 53, 9));
    // A change that allows the same still.
    tables.config = Config::new(8, false);
    for first in [&forward, &back] {
        let maps = Simulated::new(&tables);
        maps.flows.replace(flows.clone());
        let (at, reason) =
            if first.src == addr(A) { (A_TO_B, Reason::Allowed) } else { (B_BACK, Reason::Reply) };
        assert_eq!(verdict(&maps, at, first).reason, reason);
        assert_eq!(flow(&maps, &forward).map(|flow| flow.generation), Some(8), "judged once");
        assert_eq!(verdict(&maps, A_TO_B, &forward).reason, Reason::Established);
        assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Reply);
        assert_eq!(flow(&maps, &query).map(|flow| flow.generation), Some(8));
        flows = flows.clone();
    }
    // One that allows it no more.
    tables.config = Config::new(9, false);
    tables.rules.clear();
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    assert_eq!(verdict(&maps, A_TO_B, &forward).reason, Reason::EgressDenied);
    assert_eq!(verdict(&maps, B_BACK, &back).reason, Reason::EgressDenied);
    assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::EgressDenied);
    assert_eq!(flow(&maps, &forward).map(|flow| flow.generation), Some(7), "and stays refused");
}

/// By rules for a port, also where the flow is judged from its reply.
#[test]
fn a_reply_is_judged_again_by_the_port_it_comes_from() {
    for (protocol, request, reply) in [
        (TCP, tcp(A, OUT, 9, 443, SYN), tcp(OUT, A, 443, 9, ACK)),
        (UDP, udp(A, OUT, 9, 443), udp(OUT, A, 443, 9)),
    ] {
        let mut tables = tables();
        let ports = PortPrefix::ports(protocol, 443, 16);
        let rule = RulePrefix { rule_set: RuleSetId::new(2), class: ClassId::new(1), ports };
        tables.rules.insert(rule);
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
        let flows = maps.flows.take();
        tables.config = Config::new(8, false);
        let maps = Simulated::new(&tables);
        maps.flows.replace(flows);
        assert_eq!(verdict(&maps, BACK_IN, &reply).reason, Reason::Reply, "protocol {protocol}");
    }
}

/// An echo has an id where others have ports, and no port in a rule allows it.
#[test]
fn an_echo_s_reply_is_its_flow_s_and_no_port_rule_allows_it() {
    let echo = |src, dst, message| Ip::new(addr(src), addr(dst), ICMP, wire::icmp(message, 7));
    let mut tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_OUT, &echo(A, OUT, 8)).reason, Reason::EgressDenied);
    let everything = RulePrefix {
        rule_set: RuleSetId::new(2),
        class: ClassId::new(1),
        ports: PortPrefix::EVERYTHING,
    };
    tables.rules.insert(everything);
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_OUT, &echo(A, OUT, 8)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, BACK_IN, &echo(OUT, A, 0)).reason, Reason::Reply);
    let other = Ip::new(addr(OUT), addr(A), ICMP, wire::icmp(0, 8));
    assert_eq!(verdict(&maps, BACK_IN, &other).reason, Reason::Entered, "another id");
    let flows = maps.flows.take();
    tables.config = Config::new(8, false);
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    assert_eq!(verdict(&maps, BACK_IN, &echo(OUT, A, 0)).reason, Reason::Reply, "judged again");
}

/// (what comes, which way, the state after it), from the opening packet on.
#[test]
fn a_tcp_flow_s_state_follows_its_flags() {
    use State::{Closing, Established, Opening};
    let there = |flags| (A_TO_B, tcp(A, B, 9, 80, flags));
    let back = |flags| (B_BACK, tcp(B, A, 80, 9, flags));
    let stories = [
        vec![(there(SYN), Opening), (back(SYN | ACK), Established), (there(ACK), Established)],
        // A repeated request opens nothing further, and the client alone cannot establish.
        vec![(there(SYN), Opening), (there(ACK), Opening), (back(ACK), Established)],
        vec![(there(SYN), Opening), (back(RST | ACK), Closing)],
        vec![(there(ACK), Established), (back(FIN | ACK), Closing), (there(ACK), Closing)],
        vec![(there(ACK), Established), (there(FIN | ACK), Closing), (back(ACK), Closing)],
        // The port is used again; the other side's SYN does not reopen.
        vec![(there(ACK), Established), (there(RST), Closing), (there(SYN), Opening)],
        vec![(there(RST), Closing), (back(SYN), Closing)],
        vec![(there(FIN | ACK), Closing), (there(SYN | ACK), Closing)],
        // Both open at once, and a SYN and ACK in mid-stream.
        vec![(there(SYN | ACK), Established), (back(SYN), Established)],
    ];
    let tables = tables();
    for story in stories {
        let maps = Simulated::new(&tables);
        for (step, ((at, packet), state)) in story.iter().enumerate() {
            assert_eq!(verdict(&maps, *at, packet).action(), Action::Pass, "step {step}");
            let flow = flow(&maps, &tcp(A, B, 9, 80, 0)).expect("it is recorded");
            assert_eq!(flow.state(), *state, "step {step}: {packet:?}");
        }
    }
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_OUT, &udp(A, OUT, 9, 53)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, BACK_IN, &udp(OUT, A, 53, 9)).reason, Reason::Reply);
    assert_eq!(flow(&maps, &udp(A, OUT, 9, 53)).map(|flow| flow.state()), Some(State::Datagram));
}

/// What is no flow's first packet records none, and neither does what was denied.
#[test]
fn only_what_passed_and_has_ports_is_recorded() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let open = At(ToPod, POD_A, UPLINK, ENTERED);
    let error = Ip::new(addr(OUT), addr(A), ICMP, wire::icmp(3, 0));
    for (at, packet, reason) in [
        (A_TO_B, tcp(A, B, 9, 81, SYN), Reason::EgressDenied),
        (open, fragment(udp(OUT, A, 9, 53)), Reason::NotIsolated),
        (open, error, Reason::NotIsolated),
        (At(ToPod, POD_B, 0, NONE), tcp(NODE, B, 9, 80, SYN), Reason::Own),
        (At(ToPod, POD_A, POD_A, OF_A), tcp(A, A, 9, 80, SYN), Reason::Hairpin),
    ] {
        assert_eq!(verdict(&maps, at, &packet).reason, reason);
        assert!(maps.flows.borrow().is_empty(), "{packet:?}");
    }
    assert_eq!(verdict(&maps, open, &udp(OUT, A, 9, 99)).reason, Reason::NotIsolated);
    assert_eq!(maps.flows.borrow().len(), 1, "a policy to come must not cut its replies");
}
