//! Fragments: the first one's ports are the others' too.

use np_common::packet::ICMP;
use np_common::verdict::{Reason, Verdict};
use np_policy::plan::simulate::Simulated;
use np_tests::wire::{self, Fragment, Ip};

use super::*;

/// A later piece as it is on the wire: bytes that only look like ports.
fn rest(src: &str, dst: &str) -> Ip {
    piece(udp(src, dst, 0xdead, 0xbeef), 185)
}

#[test]
fn later_fragments_are_of_their_first_one_s_flow() {
    for (out, b) in [(OUT, B), (OUT6, B6)] {
        let tables = tables();
        let maps = Simulated::new(&tables);
        let at = |packet: &Ip| verdict(&maps, IN_B, packet).reason;
        assert_eq!(at(&rest(out, b)), Reason::Fragment, "nothing is known yet");
        assert_eq!(at(&piece(udp(out, b, 9, 53), 0)), Reason::Allowed);
        assert_eq!(at(&rest(out, b)), Reason::Established);
        // Another datagram, and its first fragment is denied.
        let other = |mut ip: Ip| {
            ip.fragment = ip.fragment.map(|fragment| Fragment { id: 8, ..fragment });
            ip
        };
        assert_eq!(at(&other(piece(udp(out, b, 9, 54), 0))), Reason::IngressDenied);
        assert_eq!(at(&other(rest(out, b))), Reason::IngressDenied);
        assert_eq!(at(&rest(out, b)), Reason::Established, "the datagram before is not changed");
        assert_eq!(maps.flows.borrow().len(), 1);
    }
}

/// By the ports of the last datagram that passed between the two; without its first fragment it
/// is no use to anybody, so at worst it takes room in the receiver's memory.
#[test]
fn a_fragment_that_overtakes_its_first_one_passes_where_others_passed() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let of = |id, mut ip: Ip| {
        ip.fragment = ip.fragment.map(|fragment| Fragment { id, ..fragment });
        verdict(&maps, IN_B, &ip).reason
    };
    assert_eq!(of(1, piece(udp(OUT, B, 9, 54), 0)), Reason::IngressDenied);
    assert_eq!(of(2, rest(OUT, B)), Reason::Fragment, "what was denied speaks for nothing");
    assert_eq!(of(3, piece(udp(OUT, B, 9, 53), 0)), Reason::Allowed);
    assert_eq!(of(4, rest(OUT, B)), Reason::Established);
    let tcp = piece(tcp(OUT, B, 9, 53, 0), 185);
    assert_eq!(of(4, tcp), Reason::Fragment, "of another protocol");
    assert_eq!(of(4, rest(NODE, B)), Reason::Fragment, "from elsewhere");
}

/// What one pod sent says nothing of what another one sends with the same addresses, and what was
/// seen before NAT says nothing of what is seen after it.
#[test]
fn ports_are_known_only_where_they_were_seen() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let first = piece(udp(NODE, OUT, 9, 53), 0);
    assert_eq!(verdict(&maps, A_OUT, &first).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, A_OUT, &rest(NODE, OUT)).reason, Reason::Established);
    let of_nobody = At(ToUplink, UPLINK, UNKNOWN, NONE);
    assert_eq!(verdict(&maps, of_nobody, &rest(NODE, OUT)).reason, Reason::UnknownSender);

    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, FROM_A, &piece(udp(A, OUT, 9, 53), 0)).reason, Reason::Entered);
    assert_eq!(verdict(&maps, A_OUT, &rest(A, OUT)).reason, Reason::Fragment);
}

#[test]
fn a_reply_s_fragments_are_replies_in_any_order() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_OUT, &udp(A, OUT, 9, 53)).reason, Reason::Allowed);
    let entered = Verdict { reason: Reason::Entered, tag: ENTERED };
    let reply = Verdict { reason: Reason::Reply, tag: IN_A_OK };
    assert_eq!(verdict(&maps, BACK_IN, &rest(OUT, A)), entered);
    assert_eq!(verdict(&maps, BACK_IN, &piece(udp(OUT, A, 54, 9), 0)), entered, "of no flow");
    assert_eq!(verdict(&maps, BACK_IN, &piece(udp(OUT, A, 53, 9), 0)), reply);
    assert_eq!(verdict(&maps, BACK_IN, &rest(OUT, A)), reply);
    let mut next = rest(OUT, A);
    next.fragment = Some(Fragment { offset: 185, more: false, id: 8 });
    assert_eq!(verdict(&maps, BACK_IN, &next), reply);
}

/// In IPv6 a later fragment can name an extension header where the first one has the protocol, and
/// an id is the datagram's whatever its protocol; in IPv4 each protocol has its own.
#[test]
fn the_protocol_is_the_first_fragment_s() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, IN_B, &piece(udp(OUT6, B6, 9, 53), 0)).reason, Reason::Allowed);
    let mut named = rest(OUT6, B6);
    named.protocol = 60;
    assert_eq!(verdict(&maps, IN_B, &named).reason, Reason::Established);
    assert_eq!(verdict(&maps, IN_B, &piece(udp(OUT, B, 9, 53), 0)).reason, Reason::Allowed);
    let mut other = rest(OUT, B);
    other.protocol = ICMP;
    assert_eq!(verdict(&maps, IN_B, &other).reason, Reason::Fragment);
}

/// A big echo: its id stands for ports.
#[test]
fn an_echo_s_fragments_are_of_its_flow() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let echo = Ip::new(addr(OUT), addr(A), ICMP, wire::icmp(8, 77));
    assert_eq!(verdict(&maps, IN_A, &piece(echo.clone(), 0)).reason, Reason::NotIsolated);
    assert_eq!(verdict(&maps, IN_A, &piece(echo, 185)).reason, Reason::Established);
}
