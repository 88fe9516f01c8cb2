//! What an agent takes over from the one before it: tables and a record of bindings, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use np_common::endpoint::{EndpointId, Iface, Role};
use np_policy::bind::Settings;
use np_policy::model::{
    Change, Device, DeviceChange, IfIndex, NodeName, Object, Pod, Policy, PolicyKey, Selector,
    SourcePrefixes,
};
use np_policy::plan::record::EndpointRecord;
use np_policy::plan::{Op, Tables};
use np_policy::reconcile::Reconciler;
use np_tests::simulation::{device, pod};

const DEVICE: u32 = 100;
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 68, 1, 10));

fn subject() -> Pod {
    let labels = BTreeMap::from([("app".into(), "db".into())]).into();
    Pod { labels, ..pod("subject", ADDRESS) }
}

fn deny_all() -> Change {
    Change::Apply(Object::Policy(Policy {
        key: PolicyKey::new("default", "deny"),
        subjects: Selector::everything(),
        ingress: Some([].into()),
        egress: None,
    }))
}

fn reconciler(actual: Tables) -> Reconciler {
    granting(&[], actual)
}

fn granting(ranges: &[&str], actual: Tables) -> Reconciler {
    let source_prefixes = ranges.iter().map(|range| range.parse().expect("a prefix")).collect();
    let settings = Settings { source_prefixes, ..Settings::default() };
    Reconciler::new(NodeName("node-1".into()), settings, false, actual)
}

fn gateway(prefixes: &[&str]) -> Pod {
    let prefixes = prefixes.iter().map(|prefix| prefix.parse().expect("a prefix")).collect();
    let named = SourcePrefixes { prefixes, refused: Vec::new() };
    Pod { source_prefixes: Some(Box::new(named)), ..subject() }
}

fn write(reconciler: &mut Reconciler) -> Vec<Op> {
    let ops = reconciler.plan().ops;
    for op in &ops {
        reconciler.written(op);
    }
    reconciler.finished();
    ops
}

/// The tables of an agent that knew one pod, and what it recorded of it.
fn left_behind() -> (Tables, EndpointRecord) {
    let mut before = reconciler(Tables::default());
    before.objects([Change::Apply(Object::Pod(subject())), deny_all()]);
    before.device(DeviceChange::Seen(device(DEVICE, Some(vec![ADDRESS]))));
    write(&mut before);
    let endpoints = before.endpoints();
    let [record] = &endpoints[..] else { panic!("one pod is bound, not {endpoints:?}") };
    (before.actual().clone(), record.clone())
}

/// Without a route and without the pod's object nothing but the record tells whose device it is.
fn bare() -> Device {
    Device { host_routes: Vec::new(), ..device(DEVICE, Some(Vec::new())) }
}

#[test]
fn a_binding_is_taken_up_and_nothing_is_written() {
    let (tables, record) = left_behind();
    let mut next = reconciler(tables.clone());
    next.objects([deny_all()]);
    next.device(DeviceChange::Seen(bare()));
    assert_eq!(next.devices().values().collect::<Vec<_>>(), [&bare()]);
    assert!(next.restore(&record));
    assert_eq!(write(&mut next), []);
    assert_eq!(next.actual(), &tables);
}

#[test]
fn a_binding_whose_device_is_another_is_left() {
    let (tables, record) = left_behind();
    let renamed = EndpointRecord { device: "another".to_owned(), ..record.clone() };
    let elsewhere = EndpointRecord { ifindex: IfIndex(DEVICE + 1), ..record.clone() };
    let other_id = EndpointRecord { id: record.id + 1, ..record.clone() };
    for record in [renamed, elsewhere, other_id] {
        let mut next = reconciler(tables.clone());
        next.device(DeviceChange::Seen(bare()));
        assert!(!next.restore(&record), "{record:?}");
        assert_eq!(next.bindings().iter().count(), 0);
    }
    let mut uplink = tables.clone();
    let id = EndpointId::new(record.id);
    uplink.ifaces.insert(DEVICE, Iface::new(DEVICE, Role::Uplink, id));
    let mut next = reconciler(uplink);
    next.device(DeviceChange::Seen(bare()));
    assert!(!next.restore(&record), "the maps never took it for a pod's");
}

#[test]
fn devices_that_went_meanwhile_are_cleared_and_no_others() {
    let (mut tables, _) = left_behind();
    tables.ifaces.insert(7, Iface::new(7, Role::Uplink, EndpointId::NONE));
    let next = reconciler(tables);
    let alive = |devices: &[u32]| devices.iter().copied().map(IfIndex).collect::<BTreeSet<_>>();
    assert_eq!(next.clear_stale(&alive(&[7, DEVICE])), []);
    assert_eq!(next.clear_stale(&alive(&[7])), [Op::ClearIface(DEVICE)]);
    assert_eq!(next.clear_stale(&alive(&[])), [Op::ClearIface(7), Op::ClearIface(DEVICE)]);
}

/// An agent that grants these takes over what one left that granted 10.8.0.0/16 to a pod that named
/// two prefixes in it. Returns what it writes, and the sources that are then in force.
fn taken_up(ranges: &[&str], object: Option<Pod>) -> (Vec<Op>, Vec<String>) {
    let mut before = granting(&["10.8.0.0/16"], Tables::default());
    before.objects([Change::Apply(Object::Pod(gateway(&["10.8.0.0/24", "10.8.1.0/24"])))]);
    before.device(DeviceChange::Seen(device(DEVICE, Some(vec![ADDRESS]))));
    write(&mut before);
    assert_eq!(before.actual().sources.len(), 2);
    let record = serde_json::to_string(&before.endpoints()[0]).expect("a record");

    let mut next = granting(ranges, before.actual().clone());
    next.objects(object.map(|pod| Change::Apply(Object::Pod(pod))));
    next.device(DeviceChange::Seen(bare()));
    assert!(next.restore(&serde_json::from_str(&record).expect("a record")));
    let ops = write(&mut next);
    let sources = next.actual().sources.iter().map(|(_, prefix)| prefix.to_string()).collect();
    (ops, sources)
}

#[test]
fn further_sources_are_taken_up_as_far_as_they_still_hold() {
    let both = ["10.8.0.0/24", "10.8.1.0/24"];
    // The pod's object may be gone, the pod runs on.
    for object in [None, Some(gateway(&both))] {
        let (ops, sources) = taken_up(&["10.8.0.0/16"], object);
        assert_eq!((ops, &sources[..]), (vec![], &both.map(str::to_owned)[..]));
    }
    let id = EndpointId::new(1);
    let remove = |prefix: &str| Op::RemoveSource(id, prefix.parse().expect("a prefix"));
    let [first, second] = both;
    for (ranges, object, ops) in [
        (&[][..], Some(gateway(&both)), vec![remove(first), remove(second)]),
        (&[][..], None, vec![remove(first), remove(second)]),
        (&["10.8.1.0/24"], None, vec![remove(first)]),
        (&["10.8.0.0/16"], Some(gateway(&[first])), vec![remove(second)]),
        (&["10.8.0.0/16"], Some(subject()), vec![remove(first), remove(second)]),
    ] {
        let told = format!("{ranges:?} {object:?}");
        assert_eq!(taken_up(ranges, object).0, ops, "{told}");
    }
    let (ops, _) = taken_up(&["10.8.0.0/15"], Some(gateway(&[first, "10.9.0.1/32"])));
    let set = Op::SetSource(id, "10.9.0.1/32".parse().expect("a prefix"));
    assert_eq!(ops, [remove(second), set]);
}

/// The annotation changes while the pod runs, and the next pod behind its device has none of it.
#[test]
fn further_sources_follow_the_annotation_and_go_with_the_device() {
    let mut agent = granting(&["10.8.0.0/16"], Tables::default());
    agent.objects([Change::Apply(Object::Pod(subject()))]);
    agent.device(DeviceChange::Seen(device(DEVICE, Some(vec![ADDRESS]))));
    write(&mut agent);
    let mut become_like = |pod: Pod| {
        agent.objects([Change::Apply(Object::Pod(pod))]);
        let ops = write(&mut agent);
        let sources = agent.actual().sources.iter().map(|(_, prefix)| prefix.to_string());
        (ops.len(), sources.collect::<Vec<_>>())
    };
    assert_eq!(become_like(gateway(&["10.8.0.0/24"])), (1, vec!["10.8.0.0/24".to_owned()]));
    assert_eq!(become_like(gateway(&["10.8.2.0/24"])), (2, vec!["10.8.2.0/24".to_owned()]));
    assert_eq!(become_like(subject()), (1, vec![]));
    assert_eq!(become_like(gateway(&["10.8.0.0/24"])).0, 1);

    let gone = agent.device(DeviceChange::Gone(IfIndex(DEVICE)));
    agent.written(&gone.expect("the maps know the device"));
    let other = Pod { uid: np_policy::model::PodUid("uid-2".into()), ..subject() };
    agent.objects([Change::Apply(Object::Pod(other))]);
    agent.device(DeviceChange::Seen(device(DEVICE, Some(vec![ADDRESS]))));
    let ops = write(&mut agent);
    assert!(matches!(ops[0], Op::RemoveSource(..)), "{ops:?}");
    assert_eq!(agent.actual().sources, BTreeSet::new());
}
