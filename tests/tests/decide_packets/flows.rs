//! Packets of flows.

use np_common::flow::State;
use np_common::packet::{ACK, FIN, ICMP, RST, SYN};
use np_common::verdict::{Action, Reason};

use super::*;

/// A reply passes by the flow and by nothing else: B may not open anything to A's high port.
#[test]
fn replies_pass_for_as_long_as_their_flow_lives() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let reply = tcp(B, A, 80, 9, SYN | ACK);
    assert_eq!(verdict(&maps, B_BACK, &reply), Verdict { reason: Reason::Entered, tag: OF_B });
    let request = tcp(A, B, 9, 80, SYN);
    assert_eq!(verdict(&maps, A_TO_B, &request).reason, Reason::Allowed);
    let passed = Verdict { reason: Reason::Reply, tag: B_TO_A_OK };
    assert_eq!(verdict(&maps, B_BACK, &reply), passed);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, ACK)).reason, Reason::Established);
    let flow = flow(&maps, &request).expect("it is recorded");
    assert_eq!((flow.source(), flow.destination(), flow.generation), (ID_A, ID_B, 7));
    // The same tuple at another pod's device is nobody's reply.
    assert_eq!(verdict(&maps, BACK_IN, &reply).reason, Reason::Entered);

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
    let passed = Verdict { reason: Reason::Reply, tag: IN_A_OK };
    assert_eq!(verdict(&maps, BACK_IN, &reply), passed);
    assert_eq!(later(&maps, BACK_IN, &reply, 180), passed);
    assert_eq!(later(&maps, BACK_IN, &reply, 361).reason, Reason::Entered, "a UDP flow lapsed");
    // The tuple goes to another pod: it is judged again, by its own policy.
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

/// What was judged of the sender elsewhere is not judged here, so the flow is not renewed by it.
#[test]
fn a_flow_is_renewed_only_when_both_its_ends_are_judged() {
    let mut tables = tables();
    let flows = {
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, SYN)).reason, Reason::Allowed);
        maps.flows.take()
    };
    tables.config = Config::new(8, false);
    let everyone = RulePrefix {
        rule_set: RuleSetId::new(1),
        class: ClassId::NONE,
        ports: PortPrefix::EVERYTHING,
    };
    tables.rules = [everyone].into();
    let maps = Simulated::new(&tables);
    maps.flows.replace(flows);
    let forward = tcp(A, B, 9, 80, ACK);
    let judged = At(ToPod, POD_B, POD_A, JUDGED_A);
    assert_eq!(verdict(&maps, judged, &forward).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, A_TO_B, &forward).reason, Reason::EgressDenied);
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
    use State::{Answered, Closing, Established, Opening, Reset};
    let there = |flags| (A_TO_B, tcp(A, B, 9, 80, flags));
    let back = |flags| (B_BACK, tcp(B, A, 80, 9, flags));
    let stories = [
        vec![(there(SYN), Opening), (back(SYN | ACK), Answered), (there(ACK), Established)],
        vec![(there(SYN), Opening), (back(SYN | ACK), Answered), (back(ACK), Established)],
        // A repeated request opens nothing further, and the client alone cannot establish.
        vec![(there(SYN), Opening), (there(ACK), Opening), (back(ACK), Established)],
        vec![(there(SYN), Opening), (back(RST | ACK), Reset)],
        // Somebody on the path can send one; what continues was not ended by it.
        vec![(there(ACK), Established), (back(RST), Reset), (there(ACK), Established)],
        vec![(there(ACK), Established), (back(RST), Reset), (there(RST), Reset)],
        vec![(there(ACK), Established), (back(FIN | ACK), Closing), (there(ACK), Closing)],
        vec![(there(ACK), Established), (there(FIN | ACK), Closing), (back(ACK), Closing)],
        // The port is used again; the other side's SYN does not reopen.
        vec![(there(ACK), Established), (there(RST), Reset), (there(SYN), Opening)],
        vec![(there(RST), Reset), (back(SYN), Reset)],
        vec![(there(FIN | ACK), Closing), (there(SYN | ACK), Closing)],
        // Both open at once, one of them twice.
        vec![
            (there(SYN), Opening),
            (back(SYN), Opening),
            (back(SYN), Opening),
            (there(SYN | ACK), Opening),
            (back(SYN | ACK), Answered),
            (back(SYN), Answered),
            (there(ACK), Established),
        ],
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

/// B answers a client that no rule lets in, and nobody saw it begin: by its answers the client gets
/// no further.
#[test]
fn in_mid_stream_a_flow_is_of_the_side_that_began() {
    let tables = tables();
    for (sport, dport, flags, opens) in [
        (40_000, 80, ACK, true),
        (81, 40_000, ACK, false),
        (81, 40_000, FIN | ACK, false),
        (81, 40_000, SYN, true),
        // Ports do not tell, and B would not let A begin.
        (40_000, 50_051, ACK, false),
        (50_051, 40_000, ACK, false),
        (81, 9, ACK, false),
        // No beginning, whatever the ports.
        (40_000, 80, SYN | ACK, false),
        (81, 9, SYN | ACK, false),
    ] {
        let maps = Simulated::new(&tables);
        let packet = tcp(B, A, sport, dport, flags);
        let at = At(ToPod, POD_A, POD_B, raw(&maps, B_BACK, &packet).tag);
        assert_eq!(verdict(&maps, at, &packet).reason, Reason::NotIsolated, "{packet:?}");
        assert_eq!(flow(&maps, &packet).is_some(), opens, "{packet:?}");
        let answer = tcp(A, B, dport, sport, ACK);
        let reason = if opens { Reason::Reply } else { Reason::Entered };
        assert_eq!(verdict(&maps, FROM_A, &answer).reason, reason, "{answer:?}");
    }
}

/// The server of a closed connection begins one to its client's port.
#[test]
fn a_syn_from_the_side_that_answers_is_a_reply_only_until_its_answer_is_acknowledged() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(A, B, 9, 80, SYN)).reason, Reason::Allowed);
    for (flags, reason) in [
        (SYN, Reason::Reply),
        (SYN, Reason::Reply),
        (SYN | ACK, Reason::Reply),
        (SYN, Reason::Reply),
        (ACK, Reason::Reply),
        // Nor once its answer has been acknowledged.
        (SYN, Reason::Entered),
        (FIN | ACK, Reason::Reply),
        (SYN, Reason::Entered),
        (ACK, Reason::Reply),
    ] {
        assert_eq!(verdict(&maps, B_BACK, &tcp(B, A, 80, 9, flags)).reason, reason, "{flags:#x}");
    }
}

/// What is no flow's first packet records none, and neither does what was denied.
#[test]
fn only_what_passed_and_has_ports_is_recorded() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let error = Ip::new(addr(OUT), addr(A), ICMP, wire::icmp(3, 0));
    for (at, packet, reason) in [
        (A_TO_B, tcp(A, B, 9, 81, SYN), Reason::EgressDenied),
        (IN_A, piece(udp(OUT, A, 9, 53), 185), Reason::NotIsolated),
        (IN_A, error, Reason::NotIsolated),
        (At(ToPod, POD_B, 0, NONE), tcp(NODE, B, 9, 80, SYN), Reason::Own),
        (At(ToPod, POD_A, POD_A, OF_A), tcp(A, A, 9, 80, SYN), Reason::Hairpin),
    ] {
        assert_eq!(verdict(&maps, at, &packet).reason, reason);
        assert!(maps.flows.borrow().is_empty(), "{packet:?}");
    }
    assert_eq!(verdict(&maps, IN_A, &udp(OUT, A, 9, 99)).reason, Reason::NotIsolated);
    assert_eq!(maps.flows.borrow().len(), 1, "a policy to come must not cut its replies");
}
