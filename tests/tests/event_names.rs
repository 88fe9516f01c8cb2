//! The line of an event names the same policies and rules as `explain` does for the connection.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use np_agent::events::{EventLine, Namer, Snapshot};
use np_agent::source::Manifests;
use np_common::decide::{Connection, Context};
use np_common::direction::Hook;
use np_common::endpoint::EndpointId;
use np_common::event::Event;
use np_common::flow::{FlowKey, Time};
use np_common::packet::{ETH_P_IPV4, ICMP, ICMPV6, SCTP, TCP, UDP};
use np_common::tag::Tag;
use np_common::verdict::Reason;
use np_policy::explain::{Explain, Family, Miss, Probe, Protocol, Wrong};
use np_policy::index::{Index, Touched};
use np_policy::model::{Change, NodeName, PodKey};
use np_tests::generate::{Case, Cases, changes};
use np_tests::oracle::{self, End};
use np_tests::property::runner;
use proptest::test_runner::TestCaseError;

fn snapshot(changes: impl IntoIterator<Item = Change>) -> Snapshot {
    let mut index = Index::default();
    let mut touched = Touched::default();
    for change in changes {
        index.apply(change, &mut touched);
    }
    let pods = index.pods().filter(|pod| pod.enforceable()).map(|pod| pod.key.clone());
    let pods = (1..).zip(pods).collect();
    let devices = BTreeMap::from([(7, "veth7".to_owned())]);
    Snapshot { node: NodeName("n1".into()), index, pods, devices, changes: 0 }
}

fn id(snapshot: &Snapshot, pod: &str) -> EndpointId {
    let found = snapshot.pods.iter().find(|(_, key)| key.to_string() == pod);
    found.map_or(EndpointId::NONE, |(id, _)| EndpointId::new(*id))
}

/// The event that the programs would make of a connection's first packet.
fn event(reason: Reason, ends: [EndpointId; 2], addresses: [IpAddr; 2], to: (u8, u16)) -> Event {
    let [src, dst] = addresses.map(Into::into);
    let (protocol, port) = to;
    let (sport, dport) = (40_000_u16.to_be(), port.to_be());
    let tuple = FlowKey { src, dst, sport, dport, protocol: u32::from(protocol) };
    let [source, destination] = ends;
    let context = Context {
        ifindex: 7,
        ingress_ifindex: 0,
        socket: false,
        tag: Tag::LOST,
        ethertype: ETH_P_IPV4,
        time: Time { now: 0, hz: 100 },
    };
    let connection = Connection { tuple, source, destination, reply: false };
    Event::new(Hook::ToPod, reason, connection, &context, 3, 0)
}

fn line(snapshot: &Snapshot, event: &Event) -> EventLine {
    let explain = Explain::new(&snapshot.index);
    let line = Namer::new(snapshot, &explain).event(event, SystemTime::now());
    line.expect("it is an event of this version")
}

/// The cluster that the documents show.
fn shop() -> Snapshot {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/explain");
    let batch = Manifests::open(&fixture).expect("the fixture").load();
    assert!(batch.invalid.is_empty(), "{:?}", batch.invalid);
    snapshot(batch.changes)
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_denied_connection_is_told_with_both_pods_the_policies_and_the_nearest_miss() {
    let shop = shop();
    let ends = [id(&shop, "shop/web-0"), EndpointId::NONE];
    let addresses = ["10.1.0.1", "10.1.1.1"].map(address);
    let line = line(&shop, &event(Reason::EgressDenied, ends, addresses, (TCP, 5432)));
    assert_eq!((line.verdict.as_str(), line.reason.as_str()), ("denied", "egress-denied"));
    assert_eq!(line.direction.as_deref(), Some("egress"));
    assert_eq!(line.src.pod_key().as_deref(), Some("shop/web-0"));
    assert_eq!(line.dst.pod_key().as_deref(), Some("shop/db-0"), "by its address: another node's");
    assert_eq!((line.src.port, line.dst.port), (Some(40_000), Some(5432)));
    assert_eq!((line.generation, line.device.as_deref()), (3, Some("veth7")));
    assert_eq!(line.isolated_by, ["shop/default-deny", "shop/web-to-api"]);
    let near = &line.near[0];
    assert_eq!((near.policy.as_str(), near.rule.as_str()), ("shop/web-to-api", "spec.egress[0]"));
    assert_eq!((near.wrong.as_str(), near.wants.as_str()), ("port", "TCP 3306"));
    assert!(!line.changed);
}

#[test]
fn what_the_objects_no_longer_explain_is_told_as_changed() {
    let shop = shop();
    let (web, api) = (id(&shop, "shop/web-0"), id(&shop, "shop/api-0"));
    let addresses = ["10.1.0.1", "203.0.113.9"].map(address);
    // Allowed once, denied now; and of a pod that is gone.
    let allowed = event(Reason::Allowed, [web, EndpointId::NONE], addresses, (TCP, 443));
    assert!(line(&shop, &allowed).changed);
    let gone = event(Reason::EgressDenied, [EndpointId::new(99), api], addresses, (TCP, 443));
    assert_eq!(line(&shop, &gone).src.pod_key().as_deref(), Some("shop/web-0"), "by its address");
    let mut without = shop.clone();
    without.pods.insert(50, PodKey::new("shop", "gone-0"));
    let gone = [EndpointId::new(50), EndpointId::NONE];
    let line = line(&without, &event(Reason::EgressDenied, gone, addresses, (TCP, 443)));
    assert_eq!(line.src.pod_key().as_deref(), Some("shop/gone-0"), "its object is gone");
    assert!(line.changed && line.policies.is_empty(), "{line:?}");
}

#[test]
fn what_is_no_policys_doing_names_no_policy() {
    let shop = shop();
    let ends = [id(&shop, "shop/web-0"), EndpointId::NONE];
    let addresses = ["10.9.9.9", "10.1.1.1"].map(address);
    for reason in [Reason::SourceAddress, Reason::Pending, Reason::ForgedSource] {
        let line = line(&shop, &event(reason, ends, addresses, (UDP, 53)));
        assert!(line.policies.is_empty() && !line.changed, "{line:?}");
        // The line has what the packet says, and who sent it.
        assert_eq!(line.src.pod_key().as_deref(), Some("shop/web-0"));
        assert_eq!(line.src.ip.as_deref(), Some("10.9.9.9"));
        assert_eq!(line.direction, None);
    }
    let mut bare = event(Reason::Ethertype, ends, addresses, (0, 0));
    bare.tuple = FlowKey::NONE;
    let line = line(&shop, &bare);
    assert_eq!((line.src.kind.as_str(), line.dst.kind.as_str()), ("pod", "unknown"));
    assert_eq!((line.protocol, line.src.ip), (None, None));
}

#[test]
fn an_isolated_end_is_enough_for_what_has_no_ports() {
    let shop = shop();
    let ends = ["shop/web-0", "shop/api-0"].map(|pod| id(&shop, pod));
    let addresses = ["10.1.0.1", "10.1.0.2"].map(address);
    let line = line(&shop, &event(Reason::Fragment, ends, addresses, (UDP, 0)));
    assert!(line.policies.contains(&"shop/default-deny".to_owned()), "{line:?}");
    assert!(line.near.is_empty() && !line.changed, "{line:?}");
}

/// For random clusters and connections: what the programs say and the name of it are what explain says.
#[test]
fn an_event_names_what_explain_names() {
    let mut met = BTreeMap::<&str, u64>::new();
    let met = std::cell::RefCell::new(&mut met);
    let property = |case: Case| agree(&case, &mut met.borrow_mut());
    runner("event names", 500).run(&Cases { probes: 16 }, property).unwrap();
    println!("{:?}", met.borrow());
    for answer in ["egress-denied", "ingress-denied", "allowed", "nearly"] {
        assert!(met.borrow().get(answer).is_some_and(|met| *met >= 20), "{answer}");
    }
}

fn agree(case: &Case, met: &mut BTreeMap<&'static str, u64>) -> Result<(), TestCaseError> {
    let Ok(changes) = changes(&case.cluster) else {
        return Err(TestCaseError::reject("an object that the API would refuse"));
    };
    let snapshot = snapshot(changes);
    let explain = Explain::new(&snapshot.index);
    let namer = Namer::new(&snapshot, &explain);
    for conn in &case.probes {
        let (protocol, number) = match (conn.protocol, conn.src.address().is_ipv4()) {
            (oracle::Protocol::Tcp, _) => (Protocol::Tcp, TCP),
            (oracle::Protocol::Udp, _) => (Protocol::Udp, UDP),
            (oracle::Protocol::Sctp, _) => (Protocol::Sctp, SCTP),
            (oracle::Protocol::IcmpEcho, true) => (Protocol::Icmp, ICMP),
            (oracle::Protocol::IcmpEcho, false) => (Protocol::Icmp, ICMPV6),
            (oracle::Protocol::Other(_), _) => continue,
        };
        let (End::Pod { pod: from, .. }, End::Pod { pod: to, .. }) = (&conn.src, &conn.dst) else {
            continue;
        };
        let v4 = conn.src.address().is_ipv4();
        let family = if v4 { Family::V4 } else { Family::V6 };
        let Ok((from_end, to_end)) = explain.ends(from, to, Some(family)) else { continue };
        let ends = [id(&snapshot, from), id(&snapshot, to)];
        if ends.contains(&EndpointId::NONE) || ends[0] == ends[1] {
            continue;
        }
        let probe = Probe { from: from_end, to: to_end, protocol, port: conn.port };
        let judgement = explain.judge(&probe);
        let Some(reason) = judgement.reason else { continue };
        let (side, denies) = match reason {
            Reason::EgressDenied => (&judgement.egress, true),
            Reason::IngressDenied => (&judgement.ingress, true),
            Reason::Allowed => (&judgement.egress, false),
            _ => continue,
        };
        *met.entry(reason.name()).or_default() += 1;
        let addresses = [from_end.address(), to_end.address()];
        let event = event(reason, ends, addresses, (number, conn.port));
        let line = namer.event(&event, SystemTime::now()).expect("of this version");
        let fail = |what: &str| {
            Err(TestCaseError::fail(format!("{conn}: {what}\n{judgement:#?}\n{line:#?}")))
        };
        if line.changed {
            return fail("it is taken for changed");
        }
        if line.src.pod_key().as_ref() != Some(from) || line.dst.pod_key().as_ref() != Some(to) {
            return fail("the ends are others");
        }
        if !denies {
            let policies: Vec<_> = judgement.policies().iter().map(ToString::to_string).collect();
            if line.policies != policies {
                return fail("other policies allow");
            }
            continue;
        }
        let isolated: Vec<_> = side.isolated_by.iter().map(|p| p.key.to_string()).collect();
        let near = side.near.iter().take(line.near.len().max(1));
        let near: Vec<_> = near
            .map(|Miss { rule, wrong }| {
                let wrong = if *wrong == Wrong::Port { "port" } else { "peer" };
                (rule.policy.key.to_string(), rule.to_string(), wrong.to_owned())
            })
            .collect();
        let told = line.near.iter().cloned();
        let told: Vec<_> = told.map(|miss| (miss.policy, miss.rule, miss.wrong)).collect();
        *met.entry("nearly").or_default() += u64::from(!near.is_empty());
        if line.isolated_by != isolated || told != near {
            return fail("other policies deny");
        }
    }
    Ok(())
}
