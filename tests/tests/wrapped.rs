//! Packets that a pod wraps for a tunnel of another node, against those that the tunnels of its own
//! node make: `np_common::decide` on tables, without a kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use np_common::decide::{Context, decide};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Flow, FlowKey, Time};
use np_common::packet::{ACK, ETH_P_ARP, TCP, UDP};
use np_common::rules::{ClassId, RuleSetId};
use np_common::tag::Tag;
use np_common::tunnel::{Encapsulation, GRE, IPIP, SIT};
use np_common::verdict::{Action, Reason, Verdict};
use np_policy::plan::simulate::Simulated;
use np_policy::plan::{PortPrefix, RulePrefix, Scope, Tables, diff};
use np_tests::wire::{self, Ip};

const UPLINK: u32 = 2;
const TUNNEL: u32 = 3;
const VETH: u32 = 5;
const POD: EndpointId = EndpointId::new(1);
const VXLAN: u16 = 8472;

const PODS: [&str; 2] = ["10.0.0.1", "fd00::1"];
const NODES: [&str; 2] = ["192.168.65.11", "fd65::11"];

/// A node with one pod, which no policy selects, and these tunnels.
fn node(tunnels: &[Encapsulation]) -> Tables {
    let mut tables = Tables::default();
    for (ifindex, role, id) in [
        (UPLINK, Role::Uplink, EndpointId::NONE),
        (TUNNEL, Role::Tunnel, EndpointId::NONE),
        (VETH, Role::Pod, POD),
    ] {
        tables.ifaces.insert(ifindex, Iface::new(ifindex, role, id));
    }
    let addrs = PODS.map(|text| addr(text).into());
    tables.endpoints.insert(POD, Endpoint::new(addrs, PolicyWord::OPEN, 0));
    tables.local.extend(addrs.map(|addr| (addr, POD)));
    tables.tunnels.extend(tunnels);
    tables
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn udp(src: &str, dst: &str, sport: u16, dport: u16) -> Ip {
    Ip::new(addr(src), addr(dst), UDP, wire::udp(sport, dport))
}

/// Where a packet is, and where it came in.
#[derive(Clone, Copy)]
struct At(Hook, u32, u32);

const FROM_POD: At = At(Hook::FromPod, VETH, VETH);
const TO_POD: At = At(Hook::ToPod, VETH, UPLINK);
const TO_UPLINK: At = At(Hook::ToUplink, UPLINK, VETH);
const TO_TUNNEL: At = At(Hook::ToUplink, TUNNEL, VETH);
const FROM_UPLINK: At = At(Hook::FromUplink, UPLINK, UPLINK);

fn judge(maps: &Simulated<'_>, at: At, tag: Tag, packet: &Ip) -> Verdict {
    judge_frame(maps, at, tag, packet.ethertype(), &packet.frame())
}

fn judge_frame(maps: &Simulated<'_>, at: At, tag: Tag, ethertype: u16, frame: &[u8]) -> Verdict {
    let At(hook, ifindex, ingress_ifindex) = at;
    let time = Time { now: 0, hz: 100 };
    decide(
        hook,
        maps,
        frame,
        &Context { ifindex, ingress_ifindex, socket: false, tag, ethertype, time },
    )
}

/// From the pod to where it leaves the node.
fn sent(maps: &Simulated<'_>, out: At, packet: &Ip) -> Verdict {
    let entered = judge(maps, FROM_POD, Tag::LOST, packet);
    assert_eq!(entered.action(), Action::Pass, "{entered:?}");
    judge(maps, out, entered.tag, packet)
}

#[test]
fn a_pod_cannot_send_what_a_tunnel_unwraps_though_no_policy_isolates_it() {
    for encapsulation in [
        Encapsulation::Udp(VXLAN),
        Encapsulation::Udp(4789),
        Encapsulation::Udp(6081),
        Encapsulation::Protocol(IPIP),
        Encapsulation::Protocol(SIT),
        Encapsulation::Protocol(GRE),
    ] {
        for (pod, other) in PODS.into_iter().zip(NODES) {
            let packet = match encapsulation {
                Encapsulation::Udp(port) => udp(pod, other, 5000, port),
                Encapsulation::Protocol(protocol) => {
                    Ip::new(addr(pod), addr(other), protocol, vec![0; 40])
                }
            };
            let without = node(&[]);
            let reason = sent(&Simulated::new(&without), TO_UPLINK, &packet).reason;
            assert_eq!(reason, Reason::NotIsolated, "{encapsulation:?}");

            let with = node(&[encapsulation]);
            let maps = Simulated::new(&with);
            // Also inside the tunnel itself: it may be for a node's address in there.
            for out in [TO_UPLINK, TO_TUNNEL] {
                let reason = sent(&maps, out, &packet).reason;
                assert_eq!(reason, Reason::TunnelFromPod, "{encapsulation:?}");
            }
            let lost = judge(&maps, TO_UPLINK, Tag::LOST, &packet).reason;
            assert_eq!(lost, Reason::TunnelFromPod, "{encapsulation:?}");
            assert_eq!(maps.flows.borrow().len(), 0);
        }
    }
}

#[test]
fn a_rule_that_allows_everything_does_not_allow_it() {
    let mut tables = node(&[Encapsulation::Udp(VXLAN)]);
    let rule_set = RuleSetId::new(1);
    let (class, ports) = (ClassId::NONE, PortPrefix::EVERYTHING);
    tables.rules.insert(RulePrefix { rule_set, class, ports });
    let endpoint = tables.endpoints.get_mut(&POD).expect("the pod");
    endpoint.policy = PolicyWord::new(None, Some(rule_set));
    let maps = Simulated::new(&tables);
    let to = |port| sent(&maps, TO_UPLINK, &udp(PODS[0], NODES[0], 5000, port)).reason;
    assert_eq!((to(VXLAN), to(VXLAN + 1)), (Reason::TunnelFromPod, Reason::Allowed));
}

#[test]
fn only_the_port_and_protocol_of_a_tunnel_are_closed() {
    let tables = node(&[Encapsulation::Udp(VXLAN), Encapsulation::Protocol(IPIP)]);
    let maps = Simulated::new(&tables);
    let open = [
        udp(PODS[0], NODES[0], 5000, VXLAN + 1),
        udp(PODS[0], NODES[0], VXLAN, 53),
        Ip::new(addr(PODS[0]), addr(NODES[0]), TCP, wire::tcp(5000, VXLAN, ACK)),
        Ip::new(addr(PODS[0]), addr(NODES[0]), GRE, vec![0; 40]),
    ];
    for packet in open {
        assert_eq!(sent(&maps, TO_UPLINK, &packet).reason, Reason::NotIsolated, "{packet:?}");
    }
}

/// What a tunnel of the node wraps bears the tag that the packet inside had when it went in.
#[test]
fn what_the_nodes_own_tunnels_wrap_passes() {
    let tables = node(&[Encapsulation::Udp(VXLAN)]);
    let maps = Simulated::new(&tables);
    let outer = udp("192.168.65.10", NODES[0], 55_555, VXLAN);
    let passes = |tag: Tag, what: &str| {
        let verdict = judge(&maps, TO_UPLINK, tag, &outer);
        assert_eq!(verdict.action(), Action::Pass, "{what}: {verdict:?}");
    };

    let judged = sent(&maps, TO_TUNNEL, &udp(PODS[0], "10.1.0.9", 5000, 53));
    assert_eq!(judged.reason, Reason::NotIsolated);
    passes(judged.tag, "a packet of a pod");

    let arp = wire::ethernet(ETH_P_ARP, &[0; 28]);
    let judged = judge_frame(&maps, TO_TUNNEL, Tag::of(POD), ETH_P_ARP, &arp);
    passes(judged.tag, "a pod's ARP");

    let mut solicitation = Ip::new(addr(PODS[1]), addr("ff02::1"), 58, wire::icmp(135, 0));
    solicitation.hop_limit = 255;
    solicitation.payload.resize(24, 0);
    let judged = sent(&maps, TO_TUNNEL, &solicitation);
    assert_eq!(judged.reason, Reason::NeighborDiscovery);
    passes(judged.tag, "a pod's neighbour solicitation");

    for protocol in [UDP, TCP] {
        let request = Ip::new(
            addr("10.1.0.9"),
            addr(PODS[0]),
            protocol,
            wire::transport(protocol, 1, 2, 2, 0),
        );
        assert_eq!(judge(&maps, TO_POD, Tag::ENTERED, &request).reason, Reason::NotIsolated);
        let reply = Ip::new(
            addr(PODS[0]),
            addr("10.1.0.9"),
            protocol,
            wire::transport(protocol, 2, 1, ACK, 0),
        );
        let judged = sent(&maps, TO_TUNNEL, &reply);
        assert_eq!(judged.reason, Reason::ReplyPassed);
        passes(judged.tag, "a pod's reply");
    }

    passes(Tag::judged(EndpointId::NONE), "a packet that was judged");
    passes(Tag::ENTERED, "what another node wrapped, on its way through");
}

/// Somebody outside, or behind another node's masquerade, opens the flow from the tunnel's port. Its
/// translation there may be forgotten before the flow here is.
#[test]
fn a_reply_does_not_reach_a_tunnel_either() {
    let tables = node(&[Encapsulation::Udp(VXLAN)]);
    let maps = Simulated::new(&tables);
    let out = |client_port| {
        let request = udp(NODES[0], PODS[0], client_port, 53);
        assert_eq!(judge(&maps, TO_POD, Tag::ENTERED, &request).reason, Reason::NotIsolated);
        let reply = udp(PODS[0], NODES[0], 53, client_port);
        assert_eq!(judge(&maps, FROM_POD, Tag::LOST, &reply).reason, Reason::Reply);
        sent(&maps, TO_UPLINK, &reply).reason
    };
    assert_eq!((out(VXLAN), out(VXLAN + 1)), (Reason::TunnelFromPod, Reason::ReplyPassed));
}

#[test]
fn a_flow_that_is_older_than_the_tunnel_ends_in_both_directions() {
    let forward = udp(PODS[0], NODES[0], 5000, VXLAN);
    let reply = udp(NODES[0], PODS[0], VXLAN, 5000);
    let mut tables = node(&[]);
    let flows: BTreeMap<FlowKey, Flow> = {
        let maps = Simulated::new(&tables);
        assert_eq!(sent(&maps, TO_UPLINK, &forward).reason, Reason::NotIsolated);
        assert_eq!(sent(&maps, TO_UPLINK, &forward).reason, Reason::Established);
        let answered = judge(&maps, FROM_UPLINK, Tag::LOST, &reply).reason;
        assert_eq!(answered, Reason::Reply);
        maps.flows.take()
    };
    for op in diff(&tables.clone(), &node(&[Encapsulation::Udp(VXLAN)]), &Scope::default()) {
        op.apply(&mut tables);
    }
    let maps = Simulated::new(&tables);
    for _ in 0..2 {
        maps.flows.replace(flows.clone());
        assert_eq!(sent(&maps, TO_UPLINK, &forward).reason, Reason::TunnelFromPod);
        let answered = judge(&maps, FROM_UPLINK, Tag::LOST, &reply).reason;
        assert_eq!(answered, Reason::TunnelFromPod);
    }
}
