//! A reply is one for the pod that opened its flow, and for nobody else.

use np_common::packet::{ACK, ICMP, SYN};
use np_common::verdict::{Action, Reason};
use np_policy::plan::simulate::Simulated;

use super::*;

/// Where a packet enters, and by which device it leaves.
#[derive(Clone, Copy, Debug)]
struct Way {
    from: At,
    leaves: u32,
}

/// A generator whose seed names a run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % bound
    }
}

const DEVICES: [u32; 5] = [POD_A, POD_B, FOREIGN, UPLINK, STACKED];

fn random_packet(dice: &mut Dice) -> Ip {
    let addresses = [A, B, OUT, NODE, A_MORE];
    let pick = |dice: &mut Dice| addresses[dice.below(addresses.len())];
    let (src, dst) = (pick(dice), pick(dice));
    let ports = [9, 53, 80, 40_000, 50_051];
    let (sport, dport) = (ports[dice.below(5)], ports[dice.below(5)]);
    match dice.below(4) {
        0 => udp(src, dst, sport, dport),
        1 => Ip::new(addr(src), addr(dst), ICMP, wire::icmp([0, 8][dice.below(2)], 7)),
        _ => tcp(src, dst, sport, dport, [SYN, ACK, SYN | ACK][dice.below(3)]),
    }
}

/// What becomes of a packet on its way through the node, with these flows known. `rewrite` is the
/// node's NAT.
fn carried(maps: &Simulated<'_>, way: Way, packet: &Ip, rewritten: &Ip) -> (Action, Reason) {
    let entered = raw(maps, way.from, packet);
    if entered.action() == Action::Drop {
        return (Action::Drop, entered.reason);
    }
    let pod = matches!(way.leaves, POD_A | POD_B | FOREIGN);
    let hook = if pod { ToPod } else { ToUplink };
    let left = raw(maps, At(hook, way.leaves, way.from.1, entered.tag), rewritten);
    (left.action(), left.reason)
}

/// Any one flow, and any receiver that did not open it: the packet passes with the flow only if it
/// passes without.
#[test]
fn a_flow_opens_the_way_to_its_own_source_only() {
    let mut dice = Dice(0x7265_706c);
    let tables = tables();
    let (mut replies, mut passed) = (0, 0);
    for round in 0..200_000 {
        let packet = random_packet(&mut dice);
        let rewritten = if dice.below(3) == 0 { random_packet(&mut dice) } else { packet.clone() };
        let (hook, device) =
            [(FromPod, POD_A), (FromPod, POD_B), (FromUplink, UPLINK)][dice.below(3)];
        let leaves = DEVICES[dice.below(DEVICES.len())];
        let way = Way { from: At(hook, device, device, NONE), leaves };
        let ids = [EndpointId::NONE, ID_A, ID_B];
        let (source, destination) = (ids[dice.below(3)], ids[dice.below(3)]);
        let receiver = match leaves {
            POD_A => ID_A,
            POD_B => ID_B,
            _ => EndpointId::NONE,
        };
        // A pod of this node that is reached round the fabric opened its flow, too.
        if source == receiver || source.is_none() {
            continue;
        }
        // What neither a pod sent nor is to get is nobody's to judge.
        if device == UPLINK && receiver.is_none() {
            continue;
        }
        let generation = if dice.below(4) == 0 { 6 } else { 7 };
        let states = [np_common::flow::State::Established, np_common::flow::State::Datagram];
        let state = states[dice.below(2)];
        let flow = Flow::new(generation, START, source, destination, state);
        let key = key_of(&packet);
        // Its own reverse, or rewritten to it, is a packet of the flow itself.
        if [key, key_of(&rewritten)].contains(&key.reversed()) {
            continue;
        }
        let without = Simulated::new(&tables);
        let (action, at_first) = carried(&without, way, &packet, &rewritten);
        // What comes back by the fabric is from a pod of this node, and NAT may have hidden it.
        if device == UPLINK && at_first == Reason::ForgedSource {
            continue;
        }
        let with = Simulated::new(&tables);
        with.flows.borrow_mut().insert(key.reversed(), flow);
        let entered = raw(&with, way.from, &packet);
        replies += usize::from(entered.tag.is_reply());
        let with = Simulated::new(&tables);
        with.flows.borrow_mut().insert(key.reversed(), flow);
        let (found, reason) = carried(&with, way, &packet, &rewritten);
        passed += usize::from(found == Action::Pass);
        // Round by the fabric, to an address that only the flow's source has.
        let home = tables.endpoints[&source].owns(&rewritten.dst.into());
        let round_trip = home && receiver.is_none() && reason == Reason::ReplyPassed;
        assert!(
            found == action || found == Action::Drop || round_trip,
            "round {round}: {reason:?} with {flow:?}, {action:?} without: {way:?} {packet:?}"
        );
        // Under the generation in force it is the same verdict, not a narrower one.
        let lost = reason == Reason::UnknownSender;
        assert!(
            generation != 7 || found == action || round_trip || lost,
            "round {round}: {reason:?} with {flow:?}, {action:?} without: {way:?} {packet:?} {rewritten:?}"
        );
    }
    assert!(replies > 1000 && passed > 1000, "{replies} replies, {passed} passed");
}

fn key_of(packet: &Ip) -> FlowKey {
    let frame = packet.bytes();
    match np_common::packet::parse(frame.as_slice(), packet.ethertype(), 0) {
        Ok(np_common::packet::Frame::Ip(packet)) => packet.flow_key(),
        other => panic!("{other:?}"),
    }
}

/// A tag that was lost on the way: who sent the packet is known by its device, a reply by the flow it
/// answers, where nothing translated it.
#[test]
fn a_lost_tag_leaves_untranslated_replies_and_nothing_else() {
    let tables = tables();
    let lost = [0, 0xffff, 1, 2, 0x0fff, 0x7fff, 0xe001, 0x8000, 0xdead_u16 | 0xe000];
    for tag in lost.map(Tag::from_bits) {
        let maps = Simulated::new(&tables);
        assert_eq!(verdict(&maps, A_OUT, &tcp(A, OUT, 9, 80, SYN)).reason, Reason::Allowed);
        let reply = tcp(OUT, A, 80, 9, SYN | ACK);
        let at = At(ToPod, POD_A, UPLINK, tag);
        assert_eq!(verdict(&maps, at, &reply).reason, Reason::ReplyPassed, "{tag:?}");
        // Nobody's own, no reply, no hairpin, no pod.
        for (packet, reason) in [
            (tcp(OUT, B, 9, 81, SYN), Reason::IngressDenied),
            (tcp(OUT, B, 80, 9, SYN | ACK), Reason::IngressDenied),
            (tcp(B, B, 9, 81, SYN), Reason::ForgedSource),
            (tcp(A, B, 9, 80, SYN), Reason::ForgedSource),
        ] {
            let at = At(ToPod, POD_B, UPLINK, tag);
            assert_eq!(verdict(&maps, at, &packet).reason, reason, "{tag:?} {packet:?}");
        }
        // A reply of B to somebody outside.
        assert_eq!(verdict(&maps, IN_B, &tcp(OUT, B, 9, 80, SYN)).reason, Reason::Allowed);
        let out = At(ToUplink, UPLINK, POD_B, tag);
        assert_eq!(verdict(&maps, out, &tcp(B, OUT, 80, 9, SYN | ACK)).reason, Reason::ReplyPassed);
        let jailed = At(ToUplink, UPLINK, POD_A, tag);
        assert_eq!(verdict(&maps, jailed, &tcp(A, OUT, 9, 81, SYN)).reason, Reason::EgressDenied);
    }
}

/// While no agent runs, a device can come with the index of a pod's that is gone, and nothing proves
/// what it sends: it is never another pod, and has no more than the former pod's own egress.
#[test]
fn what_comes_by_the_index_of_a_device_that_is_gone_is_no_other_pod() {
    let tables = tables();
    for (packet, to, reason) in [
        (tcp(B, OUT, 9, 80, SYN), UPLINK, Reason::ForgedSource),
        (tcp(A, OUT, 9, 80, SYN), UPLINK, Reason::Allowed),
        (tcp(A, OUT, 9, 81, SYN), UPLINK, Reason::EgressDenied),
        (tcp("10.0.0.77", OUT, 9, 81, SYN), UPLINK, Reason::EgressDenied),
        (tcp("10.0.0.77", B, 9, 81, SYN), POD_B, Reason::EgressDenied),
        // It says that it is B to B, and to A.
        (tcp(B, B, 9, 80, SYN), POD_B, Reason::ForgedSource),
        (tcp(B, A, 9, 80, SYN), POD_A, Reason::ForgedSource),
    ] {
        let maps = Simulated::new(&tables);
        let hook = if to == UPLINK { ToUplink } else { ToPod };
        // The index that was A's.
        let at = At(hook, to, POD_A, NONE);
        assert_eq!(verdict(&maps, at, &packet).reason, reason, "{packet:?}");
    }
}

/// Fragments of IPv6 that the node makes of what it forwards lose the device by which they came:
/// without a tag they are the node's own only if a socket of the node sent them.
#[test]
fn a_fragment_without_origin_is_the_node_s_own_only_if_its_socket_says_so() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let at = |hook, device, tag| At(hook, device, 0, tag);
    let rest = piece(udp(OUT6, B6, 9, 99), 185);
    let whole = udp(OUT6, B6, 9, 99);
    let reason = |hook, device, packet: &Ip, socket| {
        let At(hook, ifindex, ingress_ifindex, tag) = at(hook, device, NONE);
        let (ethertype, time) = (packet.ethertype(), START);
        let context = Context { ifindex, ingress_ifindex, socket, tag, ethertype, time };
        decide(hook, &maps, packet.frame().as_slice(), &context).reason
    };
    assert_eq!(reason(ToPod, POD_B, &rest, true), Reason::Own);
    assert_eq!(reason(ToPod, POD_B, &whole, false), Reason::Own, "a reset has no socket");
    assert_eq!(reason(ToPod, POD_B, &rest, false), Reason::Fragment);
    assert_eq!(reason(ToUplink, UPLINK, &rest, false), Reason::UnknownSender);
    assert_eq!(
        reason(ToUplink, UPLINK, &piece(udp(A6, OUT6, 9, 99), 0), false),
        Reason::ForgedSource
    );
}

/// What a pod sends to a pod of the same node can go round by the fabric, and its replies either way.
#[test]
fn what_goes_round_by_the_fabric_is_known_by_its_own_flow() {
    let tables = tables();
    let maps = Simulated::new(&tables);
    let (request, reply) = (tcp(A, B, 9, 80, SYN), tcp(B, A, 80, 9, SYN | ACK));
    assert_eq!(verdict(&maps, IN_B, &request).reason, Reason::ForgedSource, "nobody sent it");
    assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, BACK_IN, &request).reason, Reason::Entered);
    assert_eq!(verdict(&maps, IN_B, &request).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, A_OUT, &request).reason, Reason::Established, "both have a flow");
    assert_eq!(verdict(&maps, IN_B, &request).reason, Reason::Established);
    // The reply goes straight back, or round.
    let replied = verdict(&maps, B_BACK, &reply);
    assert_eq!((replied.reason, replied.tag), (Reason::Reply, B_TO_A_OK));
    let straight = At(ToPod, POD_A, POD_B, B_TO_A_OK);
    assert_eq!(verdict(&maps, straight, &reply).reason, Reason::ReplyPassed);
    let round = At(ToUplink, UPLINK, POD_B, B_TO_A_OK);
    assert_eq!(verdict(&maps, round, &reply).reason, Reason::ReplyPassed);
    let back = verdict(&maps, BACK_IN, &reply);
    assert_eq!((back.reason, back.tag), (Reason::Reply, IN_A_OK));
    // B's own policy was asked.
    let denied = tcp(A, B, 9, 81, SYN);
    assert_eq!(verdict(&maps, IN_B, &denied).reason, Reason::ForgedSource);
}
