//! Packets of pods that forward for others: pod A may send from some prefixes in addition to its own
//! addresses.

use np_common::packet::{ACK, ICMPV6, SYN};
use np_common::verdict::{Action, Reason, Verdict};
use np_policy::plan::simulate::Simulated;
use np_tests::wire::{self, Ip};

use super::*;

const CLIENT: &str = "10.8.0.5";
const CLIENT6: &str = "fd00:8::5";

/// The prefixes reach over pod B's addresses.
fn forwarding(prefixes: &[&str]) -> Tables {
    let mut tables = tables();
    let prefix = |text: &&str| text.parse().expect("a prefix");
    tables.sources.extend(prefixes.iter().map(|text| (ID_A, prefix(text))));
    tables
}

const GRANTED: [&str; 4] = ["10.8.0.0/24", "10.0.0.0/24", "fd00:8::/64", "fd00::/64"];

#[test]
fn a_pod_sends_from_what_it_forwards_for_and_never_as_another_pod() {
    let with = forwarding(&GRANTED);
    let without = tables();
    let (with, without) = (Simulated::new(&with), Simulated::new(&without));
    for (source, passes) in [
        (CLIENT, true),
        (CLIENT6, true),
        ("10.8.0.0", true),
        ("10.8.0.255", true),
        ("10.8.1.0", false),
        ("10.7.255.255", false),
        ("fd00:8:0:1::5", false),
        ("10.0.0.77", true),
        (B, false),
        (B6, false),
        (OUT, false),
        (OUT6, false),
        (NODE, false),
    ] {
        let to = if addr(source).is_ipv4() { OUT } else { OUT6 };
        let packet = tcp(source, to, 9, 80, SYN);
        let reason = if passes { Reason::Entered } else { Reason::SourceAddress };
        assert_eq!(verdict(&with, FROM_A, &packet), Verdict { reason, tag: OF_A }, "{source}");
        assert_eq!(verdict(&without, FROM_A, &packet).reason, Reason::SourceAddress, "{source}");
        // They are pod A's and nobody else's.
        if addr(source) != addr(B) && addr(source) != addr(B6) {
            assert_eq!(verdict(&with, B_BACK, &packet).reason, Reason::SourceAddress, "{source}");
        }
    }
    for own in [A, A6, A_MORE] {
        let to = if addr(own).is_ipv4() { OUT } else { OUT6 };
        assert_eq!(verdict(&with, FROM_A, &tcp(own, to, 9, 80, SYN)).reason, Reason::Entered);
    }
}

#[test]
fn nobody_forwards_for_no_address() {
    let all = forwarding(&["0.0.0.0/0", "::/0"]);
    let maps = Simulated::new(&all);
    for (source, to, reason) in [
        (OUT, B, Reason::Entered),
        (OUT6, B6, Reason::Entered),
        ("0.0.0.0", B, Reason::SourceAddress),
        ("::", B6, Reason::SourceAddress),
        (B, OUT, Reason::SourceAddress),
        (B6, OUT6, Reason::SourceAddress),
    ] {
        assert_eq!(verdict(&maps, FROM_A, &tcp(source, to, 9, 80, SYN)).reason, reason, "{source}");
    }
    let six = forwarding(&["::/0"]);
    let packet = tcp(OUT, B, 9, 80, SYN);
    let found = verdict(&Simulated::new(&six), FROM_A, &packet);
    assert_eq!(found.reason, Reason::SourceAddress, "::/0 is no IPv4 address");
}

/// A virtual machine answers for its own address on its link.
#[test]
fn a_pod_claims_what_it_forwards_for() {
    const ARP: u16 = 0x0806;
    let with = forwarding(&GRANTED);
    let without = tables();
    let (with, without) = (Simulated::new(&with), Simulated::new(&without));
    for (sender, reason) in
        [(CLIENT, Reason::Arp), (B, Reason::AddressClaim), (NODE, Reason::AddressClaim)]
    {
        let [sender, target] = [sender, B].map(|text| text.parse().expect("an address"));
        let frame = wire::ethernet(ARP, &wire::arp(sender, target));
        assert_eq!(verdict_at(&with, FROM_A, ARP, &frame, START).reason, reason, "{sender}");
        let found = verdict_at(&without, FROM_A, ARP, &frame, START).reason;
        assert_eq!(found, Reason::AddressClaim, "{sender}");
    }
    for (claimed, reason) in [
        (CLIENT6, Reason::NeighborDiscovery),
        (B6, Reason::AddressClaim),
        (OUT6, Reason::AddressClaim),
    ] {
        let body = wire::advertisement(claimed.parse().expect("an address"));
        let mut ip = Ip::new(addr(A6), addr(B6), ICMPV6, body);
        ip.hop_limit = 255;
        assert_eq!(verdict(&with, FROM_A, &ip).reason, reason, "{claimed}");
        assert_eq!(verdict(&without, FROM_A, &ip).reason, Reason::AddressClaim, "{claimed}");
    }
}

/// What a pod forwards is judged by its own egress, and by what the source is to the receiver.
#[test]
fn what_is_forwarded_is_the_pods_own_and_gets_its_replies() {
    let mut tables = forwarding(&GRANTED);
    tables.peers.insert(addr(CLIENT).into(), ClassId::new(1));
    let maps = Simulated::new(&tables);
    let reply = tcp(B, CLIENT, 80, 9, SYN | ACK);
    assert_eq!(verdict(&maps, B_BACK, &reply).reason, Reason::Entered, "of no flow yet");
    assert_eq!(verdict(&maps, FROM_A, &tcp(CLIENT, B, 9, 80, SYN)).tag, OF_A);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(CLIENT, B, 9, 80, SYN)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, A_TO_B, &tcp(CLIENT, B, 9, 81, SYN)).reason, Reason::EgressDenied);
    // The receiver's rule for UDP 53 is for the client's class; the sender has none for B.
    assert_eq!(verdict(&maps, A_TO_B, &udp(CLIENT, B, 9, 53)).reason, Reason::EgressDenied);
    let judged = At(ToPod, POD_B, POD_A, JUDGED_A);
    assert_eq!(verdict(&maps, judged, &udp(CLIENT, B, 9, 53)).reason, Reason::Allowed);
    assert_eq!(verdict(&maps, judged, &udp(A, B, 9, 53)).reason, Reason::IngressDenied);

    let passed = verdict(&maps, B_BACK, &reply);
    assert_eq!(passed, Verdict { reason: Reason::Reply, tag: B_TO_A_OK });
    let back = At(ToPod, POD_A, POD_B, passed.tag);
    assert_eq!(verdict(&maps, back, &reply).reason, Reason::ReplyPassed);

    // The other way round: a connection to the client, and its reply through pod A.
    let request = tcp(OUT, CLIENT, 7, 22, SYN);
    let answer = tcp(CLIENT, OUT, 22, 7, SYN | ACK);
    assert_eq!(verdict(&maps, A_OUT, &answer).reason, Reason::EgressDenied, "not of a flow yet");
    assert_eq!(verdict(&maps, IN_A, &request).action(), Action::Pass);
    let passed = verdict(&maps, FROM_A, &answer);
    assert_eq!(passed, Verdict { reason: Reason::Reply, tag: A_OUT_OK });
    let out = At(ToUplink, UPLINK, POD_A, passed.tag);
    assert_eq!(verdict(&maps, out, &answer).reason, Reason::ReplyPassed);
}
