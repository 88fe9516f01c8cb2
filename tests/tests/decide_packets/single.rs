//! Packets on their own, at each hook.

use np_common::config::Config;
use np_common::packet::{ACK, ICMP, SYN};
use np_common::verdict::{Reason, Verdict};
use np_policy::plan::Tables;
use np_policy::plan::simulate::Simulated;
use np_tests::wire::{self, Ip};

use super::*;

/// Each on its own: no packet finds a flow of another.
#[test]
fn each_packet_comes_to_its_reason_and_tag() {
    let tables = tables();
    let cases = [
        // What a pod sends is tagged with the pod, once its source is proven.
        (FROM_A, tcp(A, B, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromPod, POD_A, POD_A, OF_B), tcp(A, B, 9, 80, SYN), Reason::Entered, OF_A),
        (FROM_A, tcp(A6, OUT6, 9, 80, SYN), Reason::Entered, OF_A),
        (FROM_A, tcp(A_MORE, B, 9, 80, SYN), Reason::Entered, OF_A),
        (FROM_A, tcp(B, A, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (FROM_A, tcp(OUT, B, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (FROM_A, tcp("fe80::1", OUT6, 9, 80, SYN), Reason::Entered, OF_A),
        (FROM_A, tcp("::", OUT6, 9, 80, SYN), Reason::SourceAddress, OF_A),
        (FROM_A, piece(udp(A, B, 9, 80), 185), Reason::Entered, OF_A),
        // Between neighbours.
        (FROM_A, icmp6("::", "ff02::1:ff00:1", 135, 255), Reason::AddressClaim, OF_A),
        (FROM_A, icmp6("::", "ff02::2", 133, 255), Reason::NeighborDiscovery, OF_A),
        (FROM_A, icmp6(OUT6, "ff02::1", 136, 255), Reason::SourceAddress, OF_A),
        (FROM_A, listener("fe80::1", 143, 1), Reason::MulticastListener, OF_A),
        (FROM_A, listener("::", 143, 1), Reason::MulticastListener, OF_A),
        (FROM_A, listener(A6, 143, 1), Reason::Entered, OF_A),
        (FROM_A, icmp6("fe80::1", "ff02::1", 134, 255), Reason::RouterClaim, OF_A),
        (FROM_A, icmp6("fe80::1", A6, 137, 255), Reason::RouterClaim, OF_A),
        (A_TO_B, icmp6(A6, "fd00::2", 135, 255), Reason::NeighborDiscovery, OF_A),
        (A_TO_B, listener("fe80::1", 130, 1), Reason::MulticastListener, OF_A),
        // One pod's reports are of no use to another, and have room for a message.
        (A_TO_B, listener("fe80::1", 143, 1), Reason::EgressDenied, OF_A),
        (A_OUT, listener("fe80::1", 143, 1), Reason::MulticastListener, JUDGED_A),
        // As a router would leave one that was sent with a hop limit of 2.
        (A_OUT, listener(A6, 143, 1), Reason::EgressDenied, JUDGED_A),
        (IN_B, listener(OUT6, 130, 1), Reason::IngressDenied, ENTERED),
        (BACK_IN, icmp6(OUT6, A6, 135, 255), Reason::NeighborDiscovery, ENTERED),
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
        // A container of somebody else's has no policy; who sends to it may have.
        (At(ToPod, FOREIGN, POD_A, OF_A), tcp(A, OUT, 9, 99, SYN), Reason::EgressDenied, OF_A),
        (At(ToPod, FOREIGN, POD_A, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Allowed, OF_A),
        (At(ToPod, FOREIGN, POD_B, OF_B), tcp(B, OUT, 9, 99, SYN), Reason::NotIsolated, OF_B),
        (At(ToPod, FOREIGN, UPLINK, ENTERED), tcp(OUT, NODE, 9, 99, SYN), Reason::Foreign, ENTERED),
        // What the node makes itself, known by device and tag together.
        (At(ToPod, POD_B, 0, NONE), tcp(NODE, B, 9, 99, SYN), Reason::Own, NONE),
        (At(ToPod, POD_B, 0, ENTERED), tcp(NODE, B, 9, 99, SYN), Reason::IngressDenied, ENTERED),
        (At(ToPod, POD_B, UPLINK, NONE), tcp(NODE, B, 9, 99, SYN), Reason::IngressDenied, NONE),
        (At(ToUplink, UPLINK, 0, NONE), tcp(NODE, OUT, 9, 99, SYN), Reason::Own, NONE),
        (At(ToUplink, UPLINK, 0, OF_A), tcp(A, OUT, 9, 99, SYN), Reason::EgressDenied, JUDGED_A),
        // Both ends are judged where the packet comes to a pod.
        (A_TO_B, tcp(A, B, 9, 80, SYN), Reason::Allowed, OF_A),
        (A_TO_B, tcp(A, B, 9, 81, SYN), Reason::EgressDenied, OF_A),
        (At(ToPod, POD_B, POD_A, JUDGED_A), tcp(A, B, 9, 81, SYN), Reason::IngressDenied, JUDGED_A),
        (At(ToPod, POD_A, POD_B, OF_B), tcp(B, A, 9, 81, SYN), Reason::NotIsolated, OF_B),
        (IN_B, tcp(OUT, B, 9, 81, SYN), Reason::IngressDenied, ENTERED),
        (IN_B, udp(OUT, B, 9, 53), Reason::Allowed, ENTERED),
        (IN_B, udp(OUT, B, 53, 9), Reason::IngressDenied, ENTERED),
        (IN_B, udp(NODE, B, 9, 53), Reason::IngressDenied, ENTERED),
        (IN_B, tcp(OUT, B, 9, 80, SYN), Reason::Allowed, ENTERED),
        (At(ToPod, POD_A, POD_A, OF_A), tcp(NODE, A, 9, 81, SYN), Reason::Hairpin, OF_A),
        // A reply passes at its receiver; elsewhere it is a packet like any other.
        (At(ToPod, POD_B, POD_A, A_TO_B_OK), tcp(A, B, 9, 81, ACK), Reason::ReplyPassed, A_TO_B_OK),
        (At(ToPod, POD_B, POD_A, A_OUT_OK), tcp(A, B, 9, 81, ACK), Reason::EgressDenied, A_OUT_OK),
        (At(ToPod, POD_B, POD_A, A_OUT_OK), tcp(A, B, 9, 80, ACK), Reason::Allowed, A_OUT_OK),
        (
            At(ToPod, POD_B, UPLINK, IN_A_OK),
            tcp(OUT, B, 9, 81, ACK),
            Reason::IngressDenied,
            IN_A_OK,
        ),
        (At(ToPod, POD_A, UPLINK, IN_A_OK), tcp(OUT, A, 9, 81, ACK), Reason::ReplyPassed, IN_A_OK),
        (At(ToPod, POD_B, 0, A_OUT_OK), tcp(A, B, 9, 81, ACK), Reason::EgressDenied, A_OUT_OK),
        (At(ToPod, POD_B, 0, A_OUT_OK), tcp(NODE, B, 9, 81, ACK), Reason::UnknownSender, A_OUT_OK),
        (IN_B, piece(udp(OUT, B, 9, 53), 185), Reason::Fragment, ENTERED),
        (IN_A, piece(udp(OUT, A, 9, 53), 185), Reason::NotIsolated, ENTERED),
        (IN_B, Ip::new(addr(OUT), addr(B), ICMP, wire::icmp(3, 0)), Reason::IcmpError, ENTERED),
        // Nobody outside has the address of a pod of this node.
        (IN_B, tcp(A, B, 9, 80, SYN), Reason::ForgedSource, ENTERED),
        (IN_A, tcp(B, A, 9, 80, SYN), Reason::ForgedSource, ENTERED),
        (IN_A, tcp(A, A, 9, 80, SYN), Reason::NotIsolated, ENTERED),
        // Without a tag the device says who sent it. The source never does: it can only forbid.
        (At(ToPod, POD_B, POD_A, NONE), tcp(A, B, 9, 81, SYN), Reason::EgressDenied, NONE),
        (At(ToPod, POD_B, UPLINK, NONE), tcp(A, B, 9, 80, SYN), Reason::ForgedSource, NONE),
        (At(ToPod, POD_B, UNKNOWN, NONE), tcp(A, B, 9, 80, SYN), Reason::ForgedSource, NONE),
        (At(ToPod, POD_B, UNKNOWN, NONE), tcp(OUT, B, 9, 80, SYN), Reason::Allowed, NONE),
        (
            At(ToUplink, UPLINK, POD_A, NONE),
            tcp(NODE, OUT, 9, 81, SYN),
            Reason::EgressDenied,
            JUDGED_A,
        ),
        (At(ToUplink, UPLINK, UNKNOWN, NONE), tcp(A, OUT, 9, 80, SYN), Reason::ForgedSource, NONE),
        (
            At(ToUplink, UPLINK, UNKNOWN, NONE),
            tcp(NODE, OUT, 9, 80, SYN),
            Reason::UnknownSender,
            NONE,
        ),
        // Flooded to a port that it is not for, or for somebody behind the pod.
        (IN_B, tcp(OUT, NODE, 9, 80, SYN), Reason::NotAddressed, ENTERED),
        (A_TO_B, tcp(A, OUT, 9, 80, SYN), Reason::NotAddressed, OF_A),
        (IN_A, tcp(OUT, NODE, 9, 80, SYN), Reason::NotIsolated, ENTERED),
        (IN_B, tcp(OUT6, "fe80::5", 9, 80, SYN), Reason::Allowed, ENTERED),
        // On top of other devices: judged, and again below.
        (At(ToUplink, STACKED, POD_A, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Allowed, OF_A),
        (At(ToUplink, STACKED, POD_A, OF_A), tcp(A, OUT, 9, 81, SYN), Reason::EgressDenied, OF_A),
        (At(FromUplink, STACKED, STACKED, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Entered, OF_A),
        (At(FromUplink, STACKED, STACKED, NONE), tcp(OUT, B, 9, 80, SYN), Reason::Entered, ENTERED),
        // Leaving the node: judged once.
        (A_OUT, tcp(A, OUT, 9, 80, SYN), Reason::Allowed, JUDGED_A),
        (At(ToUplink, BARE, POD_A, OF_A), tcp(A, OUT, 9, 80, SYN), Reason::Allowed, JUDGED_A),
        (A_OUT, tcp(A, OUT, 9, 81, SYN), Reason::EgressDenied, JUDGED_A),
        (A_OUT, udp(A, OUT, 9, 53), Reason::Allowed, JUDGED_A),
        (A_OUT, udp(A, NODE, 9, 53), Reason::EgressDenied, JUDGED_A),
        // Wrapped by the node's IPsec, and by the pod itself.
        (A_OUT, esp(NODE, OUT), Reason::Unjudgeable, JUDGED_A),
        (A_OUT, esp("2001:db8::1", OUT6), Reason::Unjudgeable, JUDGED_A),
        (A_OUT, Ip { protocol: AUTHENTICATION, ..esp(NODE, OUT) }, Reason::Unjudgeable, JUDGED_A),
        (At(ToUplink, UPLINK, POD_A, NONE), esp(NODE, OUT), Reason::Unjudgeable, JUDGED_A),
        (At(ToUplink, UPLINK, POD_B, OF_B), esp(NODE, OUT), Reason::NotIsolated, JUDGED_B),
        (At(ToUplink, UPLINK, 0, NONE), esp(NODE, OUT), Reason::Own, NONE),
        (At(ToUplink, UPLINK, POD_A, A_OUT_OK), esp(NODE, OUT), Reason::ReplyPassed, JUDGED),
        (A_OUT, esp(A, OUT), Reason::EgressDenied, JUDGED_A),
        (A_OUT, esp(A_MORE, OUT), Reason::EgressDenied, JUDGED_A),
        (
            At(ToUplink, UPLINK, POD_A, JUDGED_A),
            tcp(A, OUT, 9, 81, SYN),
            Reason::EgressJudged,
            JUDGED_A,
        ),
        (
            At(ToUplink, UPLINK, POD_A, A_OUT_OK),
            tcp(A, OUT, 9, 81, ACK),
            Reason::ReplyPassed,
            JUDGED,
        ),
        (
            At(ToUplink, UPLINK, UPLINK, ENTERED),
            tcp(OUT, NODE, 9, 81, SYN),
            Reason::Transit,
            ENTERED,
        ),
        (At(ToUplink, UPLINK, UPLINK, NONE), tcp(OUT, NODE, 9, 81, SYN), Reason::Transit, NONE),
        // A reply for a pod of this node does not leave it, unless it goes round to that pod.
        (
            At(ToUplink, UPLINK, POD_A, A_TO_B_OK),
            tcp(A, OUT, 9, 81, ACK),
            Reason::EgressDenied,
            JUDGED_A,
        ),
        (
            At(ToUplink, UPLINK, POD_B, B_TO_A_OK),
            tcp(B, A, 81, 9, ACK),
            Reason::ReplyPassed,
            JUDGED,
        ),
        // Coming from outside.
        (BACK_IN, tcp(OUT, A, 9, 81, SYN), Reason::Entered, ENTERED),
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
        (
            At(FromUplink, TUNNEL, UPLINK, A_OUT_OK),
            tcp(OUT, A, 9, 81, ACK),
            Reason::TunnelForged,
            ENTERED,
        ),
        // The node would answer the pod; its own packets pass.
        (BACK_IN, udp(B, NODE, 9, 53), Reason::ForgedSource, ENTERED),
        (BACK_IN, tcp(B, NODE, 9, 80, SYN), Reason::ForgedSource, ENTERED),
        (BACK_IN, tcp(A, NODE, 9, 80, SYN), Reason::Entered, ENTERED),
        (BACK_IN, udp(OUT, NODE, 9, 53), Reason::Entered, ENTERED),
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

/// Frames that are no good IP packet.
#[test]
fn what_is_no_ip_packet_has_a_reason_at_each_hook() {
    const ARP: u16 = 0x0806;
    const VLAN: u16 = 0x8100;
    let tables = tables();
    let maps = Simulated::new(&tables);
    let ip = tcp(A, B, 9, 80, SYN).bytes();
    let cut = &ip[..12];
    let own_arp = arp(A);
    for (at, ethertype, payload, reason) in [
        (FROM_A, ARP, &own_arp[..], Reason::Arp),
        (FROM_A, VLAN, &ip, Reason::Ethertype),
        (FROM_A, 0x0800, cut, Reason::Malformed),
        // What is no IP of a container that is not a pod is not np-agent's business.
        (At(FromPod, FOREIGN, FOREIGN, NONE), ARP, &ip, Reason::Foreign),
        (At(FromPod, FOREIGN, FOREIGN, NONE), VLAN, &ip, Reason::Foreign),
        (A_TO_B, ARP, &own_arp, Reason::Arp),
        (A_TO_B, ARP, &ip, Reason::Malformed),
        (A_TO_B, VLAN, &ip, Reason::Ethertype),
        (A_TO_B, 0x0800, cut, Reason::Malformed),
        (BACK_IN, ARP, &ip, Reason::Arp),
        (BACK_IN, VLAN, &ip, Reason::NotIp),
        (BACK_IN, 0x0800, cut, Reason::Entered),
        (A_OUT, ARP, &ip, Reason::Arp),
        (A_OUT, VLAN, &ip, Reason::NotIp),
        (A_OUT, 0x0800, cut, Reason::Malformed),
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

fn arp(sender: &str) -> Vec<u8> {
    wire::arp(sender.parse().expect("an address"), B.parse().expect("an address"))
}

/// On a bridge its neighbours would believe it.
#[test]
fn a_pod_claims_no_address_but_its_own() {
    const ARP: u16 = 0x0806;
    let tables = tables();
    let maps = Simulated::new(&tables);
    let cut = arp(A)[..17].to_vec();
    for (payload, reason) in [
        (arp(A), Reason::Arp),
        (arp(A_MORE), Reason::Arp),
        (arp("0.0.0.0"), Reason::Arp),
        (arp(B), Reason::AddressClaim),
        (arp(NODE), Reason::AddressClaim),
        (cut, Reason::AddressClaim),
        ([&[0, 6][..], &arp(A)[2..]].concat(), Reason::AddressClaim),
    ] {
        let frame = wire::ethernet(ARP, &payload);
        let found = verdict_at(&maps, FROM_A, ARP, &frame, START);
        assert_eq!(found, Verdict { reason, tag: OF_A }, "{payload:?}");
    }
    let long = [&arp(A)[..], b"a message"].concat();
    let found = verdict_at(&maps, FROM_A, ARP, &wire::ethernet(ARP, &long), START);
    assert_eq!(found.reason, Reason::AddressClaim, "something behind it");
    let found = verdict_at(&maps, A_TO_B, ARP, &wire::ethernet(ARP, &long), START);
    assert_eq!(found.reason, Reason::Malformed, "something behind it");
    // Whose the device is is not known yet, and neither are its addresses.
    let pending = At(FromPod, PENDING, PENDING, NONE);
    let found = verdict_at(&maps, pending, ARP, &wire::ethernet(ARP, &arp(B)), START);
    assert_eq!(found.reason, Reason::Arp);

    for (claimed, reason) in [
        (A6, Reason::NeighborDiscovery),
        (LINK_LOCAL, Reason::NeighborDiscovery),
        ("fe80::5", Reason::AddressClaim),
        (B6, Reason::AddressClaim),
        (OUT6, Reason::AddressClaim),
    ] {
        let body = wire::advertisement(claimed.parse().expect("an address"));
        let mut ip = Ip::new(addr(A6), addr(B6), ICMPV6, body);
        ip.hop_limit = 255;
        assert_eq!(verdict(&maps, FROM_A, &ip), Verdict { reason, tag: OF_A }, "{claimed}");
        // No receiver takes it for one: cut off, or passed on by a router.
        ip.payload.truncate(20);
        assert_eq!(verdict(&maps, FROM_A, &ip).reason, Reason::Entered, "{claimed}, cut off");
        ip.payload.resize(24, 0);
        ip.hop_limit = 254;
        assert_eq!(verdict(&maps, FROM_A, &ip).reason, Reason::Entered);
    }
}

/// Who speaks, the message, the address that it is about, its options, and what becomes of it.
type Said<'a> = (&'a str, u8, &'a str, &'a [[u8; 8]], Reason);

/// Nobody lists link-local addresses: one is a pod's if it is formed of the hardware address that the
/// pod sends from, and then the pod cannot say that it is anywhere else.
#[test]
fn a_link_local_address_is_its_hardware_addresss() {
    let maps = tables();
    let maps = Simulated::new(&maps);
    let own = [1, 1, 2, 0, 0, 0, 0, 1];
    let elsewhere = [1, 1, 2, 0, 0, 0, 0, 9];
    let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
    let target = |mut option: [u8; 8]| {
        option[0] = 2;
        option
    };
    let (passes, claims) = (Reason::NeighborDiscovery, Reason::AddressClaim);
    let other = "fe80::ff:fe00:9";
    let cases: &[Said] = &[
        (LINK_LOCAL, 135, B6, &[own], passes),
        (LINK_LOCAL, 135, B6, &[], passes),
        (LINK_LOCAL, 135, B6, &[own, nonce], passes),
        (LINK_LOCAL, 135, B6, &[nonce, own], passes),
        (LINK_LOCAL, 135, B6, &[elsewhere], claims),
        (LINK_LOCAL, 135, B6, &[nonce, elsewhere], claims),
        (LINK_LOCAL, 135, B6, &[[1, 2, 2, 0, 0, 0, 0, 1]], claims),
        (other, 135, B6, &[elsewhere], claims),
        (other, 135, B6, &[own], claims),
        (other, 135, B6, &[], claims),
        (A6, 135, B6, &[own], passes),
        (LINK_LOCAL, 136, LINK_LOCAL, &[target(own)], passes),
        (LINK_LOCAL, 136, LINK_LOCAL, &[target(elsewhere)], claims),
        (LINK_LOCAL, 136, other, &[target(elsewhere)], claims),
        (A6, 136, other, &[target(own)], claims),
        (A6, 136, other, &[], claims),
        (other, 136, A6, &[target(own)], passes),
        (LINK_LOCAL, 133, "", &[own], passes),
        (LINK_LOCAL, 133, "", &[elsewhere], claims),
        (other, 133, "", &[elsewhere], claims),
        // Who is about to take an address asks from none.
        ("::", 135, LINK_LOCAL, &[], passes),
        ("::", 135, LINK_LOCAL, &[nonce], passes),
        ("::", 135, A6, &[nonce], passes),
        ("::", 135, other, &[], claims),
        ("::", 135, B6, &[], claims),
        ("::", 136, A6, &[target(own)], Reason::SourceAddress),
    ];
    for (src, message, about, options, reason) in cases {
        let mut body = vec![*message, 0, 0, 0, 0, 0, 0, 0];
        if let Ok(about) = about.parse::<std::net::Ipv6Addr>() {
            body.extend(about.octets());
        }
        body.extend(options.concat());
        let mut ip = Ip::new(addr(src), addr("ff02::2"), ICMPV6, body);
        ip.hop_limit = 255;
        let found = verdict(&maps, FROM_A, &ip);
        assert_eq!(found.reason, *reason, "{src}: {message} about {about:?}, {options:?}");
        // Everybody on the link hears it as it came through.
        if *reason == passes {
            assert_eq!(verdict(&maps, A_TO_B, &ip).reason, passes, "{src}: {message}");
        }
    }
}
