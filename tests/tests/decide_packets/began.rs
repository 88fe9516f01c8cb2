//! Which side began: only its packets open a flow, and so only it gets replies.

use np_common::packet::{ACK, ICMP, SYN};
use np_common::verdict::Reason;
use np_policy::plan::simulate::Simulated;

use super::*;

const IN_A_FROM_B: At = At(ToPod, POD_A, POD_B, OF_B);

fn began_at(at: At, packet: &Ip) -> Option<Began> {
    raw(&Simulated::new(&tables()), at, packet).tag.began()
}

/// Before NAT, which may give a client any port.
#[test]
fn a_tag_says_which_side_sent_the_packet() {
    let echo = |src, dst, message| Ip::new(addr(src), addr(dst), ICMP, wire::icmp(message, 7));
    for (there, back, began) in [
        (tcp(A, OUT, 9, 80, SYN), tcp(OUT, A, 80, 9, SYN | ACK), Began::Sender),
        (tcp(A, OUT, 40_000, 80, ACK), tcp(OUT, A, 80, 40_000, ACK), Began::Sender),
        (udp(A, OUT, 40_000, 53), udp(OUT, A, 53, 40_000), Began::Sender),
        (echo(A, OUT, 8), echo(OUT, A, 0), Began::Sender),
        (tcp(A, OUT, 40_000, 50_051, ACK), tcp(OUT, A, 50_051, 40_000, ACK), Began::Unknown),
        (udp(A, OUT, 123, 123), udp(OUT, A, 123, 123), Began::Unknown),
    ] {
        let other = match began {
            Began::Sender => Began::Receiver,
            other => other,
        };
        assert_eq!(began_at(FROM_A, &there), Some(began), "{there:?}");
        assert_eq!(began_at(BACK_IN, &back), Some(other), "{back:?}");
    }
}

/// B serves a port; A, whom no rule lets in, has tried it.
#[test]
fn a_datagram_of_the_server_opens_no_way_for_its_client() {
    let tables = tables();
    let refused = |sport, dport| {
        let maps = Simulated::new(&tables);
        let denied = At(ToPod, POD_B, POD_A, JUDGED_A);
        assert_eq!(verdict(&maps, denied, &udp(A, B, sport, dport)).reason, Reason::IngressDenied);
        let says = udp(B, A, dport, sport);
        // As `from_pod` tags it.
        let tag = OF_B.with_began(began_at(B_BACK, &says).expect("a tag"));
        let at = At(ToPod, POD_A, POD_B, tag);
        assert_eq!(verdict(&maps, at, &says).reason, Reason::NotIsolated, "it may say it");
        verdict(&maps, FROM_A, &udp(A, B, sport, dport)).reason
    };
    for (sport, dport) in [(40_000, 9555), (40_000, 50_051), (123, 123), (9, 9)] {
        assert_eq!(refused(sport, dport), Reason::Entered, "{sport} → {dport}");
    }
}

/// Behind a NodePort: what was denied is found again before NAT is undone.
#[test]
fn a_denial_is_found_again_behind_nat() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, IN_B, &udp(OUT, B, 123, 123)).reason, Reason::IngressDenied);
    let says = udp(B, OUT, 123, 123);
    let tag = raw(&maps, B_BACK, &says).tag;
    let out = At(ToUplink, UPLINK, POD_B, tag);
    // The node's conntrack gives it the address that the other side has asked.
    assert_eq!(verdict(&maps, out, &udp(NODE, OUT, 30_053, 123)).reason, Reason::NotIsolated);
    assert_eq!(verdict(&maps, BACK_IN, &udp(OUT, NODE, 123, 30_053)).reason, Reason::Entered);
}

/// A pod that is isolated for ingress speaks first: it gets its answers, also where ports do not
/// show it.
#[test]
fn a_datagram_to_somebody_who_has_not_tried_opens_a_flow() {
    let tables = tables();
    for (sport, dport) in [(40_000, 53), (123, 123), (40_000, 50_000)] {
        let maps = Simulated::new(&tables);
        assert_eq!(
            verdict(&maps, IN_A_FROM_B, &udp(B, A, sport, dport)).reason,
            Reason::NotIsolated
        );
        let answer = verdict(&maps, FROM_A, &udp(A, B, dport, sport));
        assert_eq!(answer.reason, Reason::Reply, "{sport} → {dport}");
    }
}

/// An answer that nobody asked for must not let a request in.
#[test]
fn no_icmp_message_but_an_echo_opens_anything() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let echo = |src, dst, message| Ip::new(addr(src), addr(dst), ICMP, wire::icmp(message, 7));
    let tag = OF_B.with_began(Began::Receiver);
    let at = At(ToPod, POD_A, POD_B, tag);
    assert_eq!(verdict(&maps, at, &echo(B, A, 0)).reason, Reason::NotIsolated);
    for message in [9, 10, 13, 14] {
        let says = |from, to| Ip::new(addr(from), addr(to), ICMP, wire::icmp(message, 7));
        let tag = raw(&maps, B_BACK, &says(B, A)).tag;
        let at = At(ToPod, POD_A, POD_B, tag);
        assert_eq!(verdict(&maps, at, &says(B, A)).reason, Reason::NotIsolated);
        assert_eq!(verdict(&maps, FROM_A, &says(A, B)).reason, Reason::Entered, "{message}");
    }
    assert_eq!(verdict(&maps, FROM_A, &echo(A, B, 8)).reason, Reason::Entered);
}

/// A stream that a policy has ended continues: the server's side keeps the denial alive, so that in the
/// end it does not open the other way.
#[test]
fn what_was_revoked_stays_so_while_either_side_sends() {
    let mut tables = tables();
    let (there, back) = (udp(OUT, B, 40_000, 53), udp(B, OUT, 53, 40_000));
    let flows = {
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, IN_B, &there).reason, Reason::Allowed);
        maps.flows.take()
    };
    tables.rules.clear();
    tables.config = Config::new(8, false);
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    for seconds in (0..2000).step_by(100) {
        let says = later(&maps, B_BACK, &back, seconds);
        assert_eq!(says.reason, Reason::IngressDenied, "after {seconds} s");
        let asks = later(&maps, IN_B, &there, seconds);
        assert_eq!(asks.reason, Reason::IngressDenied, "after {seconds} s");
    }
}

/// A connection in mid-stream that either side may have begun, while nobody was isolated: a policy to
/// come finds no flow of it that could be the wrong way round.
#[test]
fn a_doubtful_flow_ends_when_an_end_is_isolated() {
    let mut tables = tables();
    let isolated = tables
        .endpoints
        .insert(ID_B, Endpoint::new([addr(B).into(), addr(B6).into()], PolicyWord::OPEN, 0));
    let says = tcp(B, OUT, 50_051, 40_000, ACK);
    let out = At(ToUplink, UPLINK, POD_B, OF_B);
    let answer = tcp(OUT, B, 40_000, 50_051, ACK);
    let flows = {
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, out, &says).reason, Reason::NotIsolated);
        assert_eq!(
            verdict(&maps, BACK_IN, &answer).reason,
            Reason::Reply,
            "as long as all is open"
        );
        maps.flows.take()
    };
    tables.endpoints.extend(isolated.map(|endpoint| (ID_B, endpoint)));
    tables.config = Config::new(8, false);
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Entered);
    assert_eq!(verdict(&maps, out, &says).reason, Reason::NotIsolated);
    assert_eq!(verdict(&maps, BACK_IN, &answer).reason, Reason::Entered, "and opens it no more");
}
