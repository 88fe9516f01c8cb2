//! The record of bindings: whatever pods are like, it has room for what each is found again by.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use np_agent::dataplane::RECORD_ROOM;
use np_common::direction::Direction;
use np_common::endpoint::EndpointId;
use np_policy::bind::Settings;
use np_policy::model::{
    Change, ContainerPort, DeviceChange, IfIndex, NodeName, Object, PodKey, PodUid, Policy,
    PolicyKey, Protocol, Selector,
};
use np_policy::plan::record::{EndpointRecord, Part, Record, SideRecord};
use np_policy::plan::{Op, Tables};
use np_policy::reconcile::Reconciler;
use np_tests::simulation::{Judge, device, pod};
use proptest::prelude::*;

const DEVICE: u32 = 100;

/// The longest names that Kubernetes and the kernel allow.
fn longest(id: u16) -> EndpointRecord {
    let addresses = [
        format!("255.255.255.{}", id % 256),
        format!("fd00:{}:ffff::ffff", "ffff:".repeat(5).trim_end_matches(':')),
    ];
    let side = SideRecord { isolated: false, policies: Vec::new() };
    EndpointRecord {
        id,
        pod: PodKey::new("n".repeat(63), format!("{id:0>253}")),
        uid: PodUid(format!("{id:0>36}").into()),
        addresses: addresses.iter().filter_map(|address| address.parse().ok()).collect(),
        source_prefixes: Vec::new(),
        labels: Arc::default(),
        named_ports: Arc::from([]),
        // All of them are written as two characters.
        device: "\"".repeat(15),
        ifindex: IfIndex(u32::MAX),
        ingress: side.clone(),
        egress: side,
    }
}

/// How large the parts are that a tenant has a hand in, in bytes or so.
#[derive(Clone, Debug)]
struct Sizes {
    labels: usize,
    ports: usize,
    prefixes: usize,
    policies: usize,
}

fn sizes(most: usize) -> impl Strategy<Value = Sizes> {
    let size = || prop_oneof![4 => 0..50_usize, 1 => 0..most];
    (size(), size(), size(), size()).prop_map(|(labels, ports, prefixes, policies)| Sizes {
        labels,
        ports,
        prefixes,
        policies,
    })
}

fn endpoint(id: u16, sizes: &Sizes) -> EndpointRecord {
    let labels = BTreeMap::from([("label".to_owned(), "v".repeat(sizes.labels))]);
    let port = |n: usize| ContainerPort { name: format!("p{n}"), protocol: Protocol::Tcp, port: 1 };
    let policy = |n: usize| PolicyKey::new("n".repeat(63), format!("{n:0>253}"));
    let policies = (0..sizes.policies / 300).map(policy).collect();
    let prefix = |n: usize| format!("10.{}.{}.0/24", n / 256 % 256, n % 256).parse();
    EndpointRecord {
        labels: labels.into(),
        named_ports: (0..sizes.ports / 40).map(port).collect(),
        source_prefixes: (0..sizes.prefixes / 16).filter_map(|n| prefix(n).ok()).collect(),
        ingress: SideRecord { isolated: true, policies },
        ..longest(id)
    }
}

type Identity<'a> = (u16, &'a PodKey, &'a PodUid, &'a [IpAddr], &'a str, IfIndex);

fn identity(endpoint: &EndpointRecord) -> Identity<'_> {
    let EndpointRecord { id, pod, uid, addresses, device, ifindex, .. } = endpoint;
    (*id, pod, uid, addresses, device, *ifindex)
}

/// Writes a record, reads it back, and holds one against the other.
fn check(record: &Record, room: usize) -> Result<Record, TestCaseError> {
    let (text, left_out) = record.fit(room);
    prop_assert!(text.len() <= room, "{} of {room} bytes", text.len());
    let read: Record = serde_json::from_slice(&text).expect("a record is whole");
    prop_assert_eq!(read.endpoints.len(), record.endpoints.len());
    for (was, is) in record.endpoints.iter().zip(&read.endpoints) {
        prop_assert_eq!(identity(was), identity(is));
        prop_assert_eq!(was.ingress.isolated, is.ingress.isolated);
        // What is not there is known not to be there.
        prop_assert_eq!(was.labels != is.labels, read.without_labels.contains(&was.id));
    }
    let whole = serde_json::to_vec(record).expect("a record is text").len();
    prop_assert_eq!(left_out.is_empty(), whole <= room);
    let smaller = left_out.iter().map(|part| part.bytes).min().unwrap_or_default();
    for endpoint in &read.endpoints {
        // The largest goes first: nobody pays for another who asks for more.
        let kept = endpoint.labels.get("label").map_or(0, String::len);
        prop_assert!(left_out.is_empty() || kept <= smaller, "{kept} is kept, {smaller} is not");
    }
    Ok(read)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_identity_is_recorded_whatever_pods_carry(
        pods in prop::collection::vec(sizes(20_000), 1..40),
        held in 0..3_usize,
    ) {
        let endpoints: Vec<_> = (1..).zip(&pods).map(|(id, sizes)| endpoint(id, sizes)).collect();
        let held = (0..held).map(|n| PolicyKey::new("n", format!("{n}"))).collect::<Vec<_>>();
        let room = 1024 * (endpoints.len() + 2);
        let node = Some(NodeName("n".repeat(253).into()));
        let record = Record { node, endpoints, held: held.clone(), ..Record::default() };
        let read = check(&record, room)?;
        prop_assert_eq!(read.held, held);
    }
}

/// As many pods as there can be, with the longest names, and each with labels of 2 KB; one with the
/// most that an API server stores.
#[test]
fn a_node_full_of_pods_is_recorded() {
    let pods = EndpointId::MAX.get();
    let sizes = Sizes { labels: 2048, ports: 800, prefixes: 256, policies: 3000 };
    let mut endpoints: Vec<_> = (1..=pods).map(|id| endpoint(id, &sizes)).collect();
    endpoints[7] = endpoint(8, &Sizes { labels: 1_260_000, ..sizes });
    let record = Record { endpoints, ..Record::default() };
    let read = check(&record, RECORD_ROOM).unwrap_or_else(|failure| panic!("{failure}"));
    let bare: Vec<_> = (1..=pods).map(longest).collect();
    let least = serde_json::to_vec(&bare).expect("text").len();
    println!("{least} bytes of {RECORD_ROOM} for identities");
    assert!(least * 4 < RECORD_ROOM * 3, "a quarter is left for what is to come: {least}");
    assert!(read.without_labels.contains(&8));
}

/// The labels of one pod that are too large are no one else's loss.
#[test]
fn who_carries_the_most_is_left_out_first() {
    let small = Sizes { labels: 40, ports: 40, prefixes: 16, policies: 300 };
    let mut endpoints: Vec<_> = (1..100).map(|id| endpoint(id, &small)).collect();
    endpoints.push(endpoint(100, &Sizes { labels: 9_000_000, ..small }));
    let record = Record { endpoints, ..Record::default() };
    let (_, left_out) = record.fit(RECORD_ROOM);
    let [only] = &left_out[..] else { panic!("one part: {left_out:?}") };
    assert_eq!((only.what, &*only.pod.name), (Part::Labels, &*format!("{:0>253}", 100)));
    let text = only.to_string();
    for part in ["bytes of labels", "isolated while its object is not known", "make them smaller"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn write(reconciler: &mut Reconciler) -> Vec<Op> {
    let ops = reconciler.plan().ops;
    for op in &ops {
        reconciler.written(op);
    }
    reconciler.finished();
    ops
}

/// A pod deleted by force runs on. What selects it cannot be said without its labels, so it may
/// talk with nobody; not even when no policy isolates anything.
#[test]
fn a_pod_whose_labels_were_not_recorded_is_isolated_until_its_object_is_seen() {
    let address: IpAddr = "100.68.1.10".parse().expect("an address");
    let subject = || Change::Apply(Object::Pod(pod("subject", address)));
    let everyone = Change::Apply(Object::Policy(Policy {
        key: PolicyKey::new("default", "everyone"),
        subjects: Selector::everything(),
        ingress: Some([np_policy::model::Rule { peers: None, ports: None }].into()),
        egress: None,
    }));
    let node = || NodeName("node-1".into());
    let start = |actual| Reconciler::new(node(), Settings::default(), false, actual);
    let mut first = start(Tables::default());
    first.objects([subject()]);
    first.device(DeviceChange::Seen(device(DEVICE, Some(vec![address]))));
    write(&mut first);
    let record = first.endpoints().remove(0);

    let mut next = start(first.actual().clone());
    next.objects([everyone]);
    next.device(DeviceChange::Seen(device(DEVICE, None)));
    next.device(DeviceChange::Seen(device(DEVICE, Some(Vec::new()))));
    assert!(next.restore_without_labels(&record));
    write(&mut next);
    let allows = |reconciler: &Reconciler, direction| {
        let peer = "192.0.2.1".parse().expect("an address");
        Judge::new(reconciler.actual()).allows(DEVICE, direction, peer, (6, 80))
    };
    for direction in [Direction::Ingress, Direction::Egress] {
        assert!(!allows(&next, direction), "{direction:?}");
    }
    let endpoint = next.endpoints().remove(0);
    assert_eq!(endpoint.ingress.to_string(), "isolated");
    assert_eq!(next.without_labels().len(), 1, "the next record says so too");
    next.objects([subject()]);
    write(&mut next);
    for direction in [Direction::Ingress, Direction::Egress] {
        assert!(allows(&next, direction), "{direction:?}");
    }
    assert!(next.without_labels().is_empty());
}
