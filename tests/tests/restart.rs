//! What an agent takes up from the one before it: tables and a record of bindings, no kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use np_agent::bind::Settings;
use np_agent::model::{
    Change, Device, DeviceChange, IfIndex, NodeName, Object, Pod, Policy, PolicyKey, Selector,
};
use np_agent::plan::record::EndpointRecord;
use np_agent::plan::{Op, Tables};
use np_agent::reconcile::Reconciler;
use np_common::endpoint::{EndpointId, Iface, Role};
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
    Reconciler::new(NodeName("node-1".into()), Settings::default(), false, actual)
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
