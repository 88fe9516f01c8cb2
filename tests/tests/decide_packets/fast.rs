//! The fast path answers what most packets are, and hands on what it cannot answer. That what it
//! answers is right, the tests of whole verdicts show.

use np_common::decide::fast;
use np_common::packet::{ACK, FIN, RST, SYN};
use np_common::verdict::Reason;

use super::*;

fn answer(maps: &Simulated<'_>, at: At, packet: &Ip) -> Option<Reason> {
    let At(hook, ifindex, ingress_ifindex, tag) = at;
    let frame = if ifindex == BARE { packet.bytes() } else { packet.frame() };
    let (socket, ethertype, time) = (false, packet.ethertype(), START);
    let context = Context { ifindex, ingress_ifindex, socket, tag, ethertype, time };
    fast(hook, maps, frame.as_slice(), &context).map(|verdict| verdict.reason)
}

#[test]
fn the_fast_path_answers_what_most_packets_are() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    for (at, opening) in [
        (A_OUT, tcp(A, OUT, 40_000, 80, SYN)),
        (A_OUT, udp(A, OUT, 40_000, 53)),
        (IN_B, tcp(OUT, B, 40_000, 80, SYN)),
        (IN_B, tcp(OUT6, B6, 40_000, 80, SYN)),
        (At(ToUplink, STACKED, POD_A, OF_A), tcp(A, OUT, 40_001, 80, SYN)),
    ] {
        assert_eq!(answer(&maps, at, &opening), None, "{opening:?}");
        assert_eq!(verdict(&maps, at, &opening).reason, Reason::Allowed, "{opening:?}");
    }
    let from_uplink = |device, tag| At(FromUplink, device, device, tag);
    let from_b = At(FromPod, POD_B, POD_B, NONE);
    for (at, packet, reason) in [
        (FROM_A, tcp(A, OUT, 40_000, 80, ACK), Reason::Entered),
        (FROM_A, udp(A, OUT, 40_000, 53), Reason::Entered),
        (A_OUT, tcp(A, OUT, 40_000, 80, ACK), Reason::Established),
        (A_OUT, udp(A, OUT, 40_000, 53), Reason::Established),
        (At(ToUplink, STACKED, POD_A, OF_A), tcp(A, OUT, 40_001, 80, ACK), Reason::Established),
        (from_uplink(UPLINK, NONE), tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        (from_uplink(UPLINK, NONE), udp(OUT, A, 53, 40_000), Reason::Reply),
        (from_uplink(UPLINK, OF_A), tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        (from_uplink(BARE, NONE), tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        (from_uplink(TUNNEL, ENTERED), tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        (from_uplink(STACKED, ENTERED), tcp(OUT, A, 80, 40_000, ACK), Reason::Reply),
        (from_uplink(UPLINK, NONE), tcp(OUT, B, 40_000, 80, ACK), Reason::Entered),
        (from_uplink(UPLINK, NONE), udp(OUT, B, 40_000, 53), Reason::Entered),
        (At(ToPod, POD_A, UPLINK, IN_A_OK), tcp(OUT, A, 80, 40_000, ACK), Reason::ReplyPassed),
        (IN_B, tcp(OUT, B, 40_000, 80, ACK), Reason::Established),
        (IN_B, tcp(OUT6, B6, 40_000, 80, ACK), Reason::Established),
        (from_b, tcp(B, OUT, 80, 40_000, ACK), Reason::Reply),
        (from_b, tcp(B6, OUT6, 80, 40_000, ACK), Reason::Reply),
    ] {
        assert_eq!(answer(&maps, at, &packet), Some(reason), "{at:?} {packet:?}");
    }
}

#[test]
fn the_fast_path_hands_on_what_needs_more() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_OUT, &tcp(A, OUT, 40_000, 80, SYN)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, IN_B, &tcp(OUT, B, 40_000, 80, SYN)).reason, Reason::Allowed);
    let from_uplink = |device, tag| At(FromUplink, device, device, tag);
    for (at, packet) in [
        // It changes how far the connection has come.
        (A_OUT, tcp(A, OUT, 40_000, 80, FIN | ACK)),
        (A_OUT, tcp(A, OUT, 40_000, 80, RST | ACK)),
        // Nobody has judged it, or not between these ends.
        (A_OUT, tcp(A, OUT, 40_009, 80, ACK)),
        (IN_B, tcp(OUT, B, 40_009, 80, ACK)),
        (At(ToUplink, UPLINK, POD_B, OF_B), tcp(A, OUT, 40_000, 80, ACK)),
        (At(ToPod, POD_B, POD_A, OF_A), tcp(OUT, B, 40_000, 80, ACK)),
        // Its source is not proven yet, or it is nobody's device.
        (FROM_A, tcp(B, OUT, 40_000, 80, ACK)),
        (FROM_A, tcp(A_MORE, OUT, 40_000, 80, ACK)),
        (At(FromPod, PENDING, PENDING, NONE), tcp(A, OUT, 40_000, 80, ACK)),
        (At(ToPod, PENDING, UPLINK, ENTERED), tcp(OUT, A, 40_000, 80, ACK)),
        (At(ToPod, FOREIGN, UPLINK, ENTERED), tcp(OUT, A, 40_000, 80, ACK)),
        // Nothing shows which side began, and somebody may have been denied.
        (FROM_A, udp(A, OUT, 40_000, 50_000)),
        // It claims a local pod's address.
        (from_uplink(UPLINK, NONE), udp(B, A, 40_000, 53)),
        // Its tag says that it is a reply to another, its own, or nothing.
        (At(ToPod, POD_B, UPLINK, IN_A_OK), tcp(OUT, B, 40_000, 80, ACK)),
        (At(ToPod, POD_A, POD_A, OF_A), tcp(A, A, 40_000, 80, ACK)),
        (At(ToPod, POD_B, UPLINK, NONE), tcp(OUT, B, 40_000, 80, ACK)),
        (At(ToUplink, UPLINK, POD_A, NONE), tcp(A, OUT, 40_000, 80, ACK)),
        (At(ToUplink, UPLINK, POD_A, JUDGED_A), tcp(A, OUT, 40_000, 80, ACK)),
        // A device below has seen it, or a pod of this node has wrapped it.
        (from_uplink(STACKED, OF_A), tcp(OUT, A, 80, 40_000, ACK)),
        (from_uplink(TUNNEL, OF_A), tcp(OUT, A, 80, 40_000, ACK)),
        (FROM_A, piece(udp(A, OUT, 40_000, 53), 0)),
    ] {
        assert_eq!(answer(&maps, at, &packet), None, "{at:?} {packet:?}");
    }
    // Policy has changed since.
    let newer = Tables { config: Config::new(8, false), ..tables.clone() };
    let later = Simulated::new(&newer);
    later.flows.replace(maps.flows.take());
    assert_eq!(answer(&later, A_OUT, &tcp(A, OUT, 40_000, 80, ACK)), None);
}
