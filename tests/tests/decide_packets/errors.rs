//! ICMP errors: of the flow that the packet they quote is of.

use np_common::config::Config;
use np_common::packet::{ACK, ICMP, ICMPV6, SYN};
use np_common::verdict::{Reason, Verdict};
use np_policy::plan::simulate::Simulated;
use np_tests::wire::{self, Fragment, Ip};

use super::*;

const ROUTER: &str = "198.51.100.1";
const ROUTER6: &str = "2001:db8:1::1";
/// The IP header and eight bytes: the least that an error quotes.
const LEAST: usize = 28;

/// "Too big" from somewhere about a packet, to whom it came from.
fn too_big(from: &str, about: &Ip, quote: usize) -> Ip {
    let (protocol, message) = if about.src.is_ipv4() { (ICMP, 3) } else { (ICMPV6, 2) };
    Ip::new(addr(from), about.src, protocol, wire::icmp_error(message, about, quote))
}

/// Path MTU discovery under default-deny: a router on the way says what fits.
#[test]
fn an_error_about_a_flow_s_packet_is_recognised_where_it_enters() {
    for (request, router, least) in [
        (tcp(NODE, OUT, 9, 80, SYN), ROUTER, LEAST),
        (tcp(A6, OUT6, 9, 80, SYN), ROUTER6, 48),
        (udp(NODE, OUT, 9, 53), ROUTER, LEAST),
    ] {
        let tables = tables();
        let maps = Simulated::new(&tables);
        let error = too_big(router, &request, least);
        let entered = Verdict { reason: Reason::Entered, tag: ENTERED };
        assert_eq!(verdict(&maps, BACK_IN, &error), entered, "of no flow");
        assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
        let related = Verdict { reason: Reason::Related, tag: IN_A_OK };
        assert_eq!(verdict(&maps, BACK_IN, &error), related);
        assert_eq!(verdict(&maps, BACK_IN, &too_big(router, &request, 200)), related);
        let cut = too_big(router, &request, least - 3);
        assert_eq!(verdict(&maps, BACK_IN, &cut), entered, "the ports are not all there");
        let mut astray = error.clone();
        astray.dst = if error.dst.is_ipv4() { addr(B) } else { addr(B6) };
        assert_eq!(verdict(&maps, BACK_IN, &astray), entered, "to somebody else");
    }
}

/// The receiving pod's own error about a packet of the flow goes back as a reply does; another
/// pod's does not.
#[test]
fn only_the_ends_of_a_flow_and_the_way_between_speak_of_it() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let request = tcp(A, B, 9, 80, SYN);
    assert_eq!(verdict(&maps, A_TO_B, &request).reason, Reason::Allowed);
    let error = too_big(B, &request, LEAST);
    let related = Verdict { reason: Reason::Related, tag: B_TO_A_OK };
    assert_eq!(verdict(&maps, B_BACK, &error), related);
    let of_a = too_big(A, &request, LEAST);
    assert_eq!(verdict(&maps, FROM_A, &of_a).reason, Reason::Entered);
    assert_eq!(verdict(&maps, BACK_IN, &too_big(ROUTER, &request, LEAST)).reason, Reason::Entered);
}

/// An error about a reply quotes the reply: it is known where it leaves, when NAT has been undone in
/// the quotation too.
#[test]
fn an_error_about_a_reply_passes_where_it_leaves() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let error = too_big(A, &tcp(B, A, 80, 9, ACK), LEAST);
    assert_eq!(verdict(&maps, A_TO_B, &error).reason, Reason::IcmpError);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, SYN)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, A_TO_B, &error).reason, Reason::Related);
    let from_outside = too_big(OUT, &tcp(B, A, 80, 9, ACK), LEAST);
    assert_eq!(verdict(&maps, IN_B, &from_outside).reason, Reason::IcmpError);
    // A router's, about what B answered somebody outside.
    assert_eq!(verdict(&maps, IN_B, &tcp(OUT, B, 9, 80, SYN)).reason, Reason::Allowed);
    let on_the_way = too_big(ROUTER, &tcp(B, OUT, 80, 9, ACK), LEAST);
    assert_eq!(verdict(&maps, IN_B, &on_the_way).reason, Reason::Related);
    let other_port = too_big(ROUTER, &tcp(B, OUT, 81, 9, ACK), LEAST);
    assert_eq!(verdict(&maps, IN_B, &other_port).reason, Reason::IcmpError);
}

/// Like any packet of the flow: after a change the flow is judged again, not the error.
#[test]
fn an_error_is_under_the_policy_of_its_flow() {
    let mut tables = tables();
    let (request, reply) = (tcp(A, B, 9, 80, SYN), tcp(B, A, 80, 9, ACK));
    let flows = {
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, A_TO_B, &request).reason, Reason::Allowed);
        maps.flows.take()
    };
    let (forward, back) = (too_big(A, &reply, LEAST), too_big(B, &request, LEAST));
    tables.config = Config::new(8, false);
    for (at, error) in [(A_TO_B, &forward), (B_BACK, &back)] {
        let maps = Simulated::new(&tables);
        maps.flows.replace(flows.clone());
        assert_eq!(verdict(&maps, at, error).reason, Reason::Related);
        assert_eq!(flow(&maps, &request).map(|flow| flow.generation), Some(8));
    }
    tables.rules.clear();
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    assert_eq!(verdict(&maps, A_TO_B, &forward).reason, Reason::IcmpError);
    assert_eq!(verdict(&maps, B_BACK, &back).reason, Reason::EgressDenied);
}

/// Otherwise somebody on the way could keep a flow alive for ever.
#[test]
fn an_error_does_not_keep_its_flow_alive() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let request = udp(NODE, OUT, 9, 53);
    assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
    let error = too_big(ROUTER, &request, LEAST);
    assert_eq!(later(&maps, BACK_IN, &error, 180).reason, Reason::Related);
    assert_eq!(later(&maps, BACK_IN, &error, 181).reason, Reason::Entered);
}

#[test]
fn what_is_quoted_is_read_with_care() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let request = tcp(NODE, OUT, 9, 80, SYN);
    let request6 = tcp(A6, OUT6, 9, 80, SYN);
    for request in [&request, &request6] {
        assert_eq!(verdict(&maps, A_OUT, request).reason, Reason::Allowed);
    }
    let reason = |error: &Ip| verdict(&maps, BACK_IN, error).reason;
    for (request, router) in [(&request, ROUTER), (&request6, ROUTER6)] {
        let mut first = request.clone();
        first.fragment = Some(Fragment { offset: 0, more: true, id: 7 });
        assert_eq!(reason(&too_big(router, &first, 200)), Reason::Related, "a first fragment");
        first.fragment = Some(Fragment { offset: 1, more: true, id: 7 });
        assert_eq!(reason(&too_big(router, &first, 200)), Reason::Entered, "a later one");
        let mut udp = request.clone();
        udp.protocol = UDP;
        assert_eq!(reason(&too_big(router, &udp, 200)), Reason::Entered, "another protocol");
        for version in [0x00, 0xf5] {
            let mut error = too_big(router, request, 200);
            error.payload[8] = version;
            assert_eq!(reason(&error), Reason::Entered, "version and length {version:#x}");
        }
    }
    let mut options = request.clone();
    options.options = 2;
    assert_eq!(reason(&too_big(ROUTER, &options, 200)), Reason::Related, "behind IPv4 options");
    let mut short = too_big(ROUTER, &request, 200);
    short.payload[8] = 0x44;
    assert_eq!(reason(&short), Reason::Entered, "a header shorter than it can be");
}

/// The quoted packet may be an echo, or of a protocol without ports.
#[test]
fn errors_about_echoes_and_other_protocols_are_recognised() {
    let mut tables = tables();
    let ports = PortPrefix::EVERYTHING;
    let class = ClassId::new(1);
    tables.rules.insert(RulePrefix { rule_set: RuleSetId::new(2), class, ports });
    let echo = |message, id| Ip::new(addr(A), addr(OUT), ICMP, wire::icmp(message, id));
    let gre = Ip::new(addr(A), addr(OUT), 47, vec![0; 8]);
    let maps = Simulated::new(&tables);
    for request in [echo(8, 7), gre] {
        assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
        assert_eq!(verdict(&maps, BACK_IN, &too_big(ROUTER, &request, 28)).reason, Reason::Related);
    }
    let other = too_big(ROUTER, &echo(8, 8), 28);
    assert_eq!(verdict(&maps, BACK_IN, &other).reason, Reason::Entered, "another id");
    // About A's answer to an echo from outside.
    let asked = Ip::new(addr(OUT), addr(A), ICMP, wire::icmp(8, 9));
    assert_eq!(verdict(&maps, IN_A, &asked).reason, Reason::NotIsolated);
    assert_eq!(verdict(&maps, IN_A, &too_big(ROUTER, &echo(0, 9), 28)).reason, Reason::Related);
}
