//! Endpoint ids: which are free, and what an earlier run left.

use np_common::endpoint::Endpoint;

use super::*;
use crate::plan::record::SideRecord;

fn record(id: u16, pod: &Pod, device: &str, ifindex: u32) -> EndpointRecord {
    let side = || SideRecord { isolated: false, policies: Vec::new() };
    EndpointRecord {
        id,
        pod: pod.key.clone(),
        uid: pod.uid.clone(),
        addresses: pod.addresses.to_vec(),
        source_prefixes: vec!["10.8.0.0/24".parse().expect("a prefix")],
        labels: pod.labels.clone(),
        named_ports: pod.named_ports.clone(),
        device: device.to_owned(),
        ifindex: IfIndex(ifindex),
        ingress: side(),
        egress: side(),
    }
}

#[test]
fn ids_go_on_after_an_earlier_runs_last_and_skip_those_in_force() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")], &[]);
    let mut bindings = Bindings::default();
    bindings.resume_after(EndpointId::MAX.get() - 1);
    let mut in_force = Tables::default();
    in_force.endpoints.insert(EndpointId::new(1), Endpoint::FREE);
    let devices = [mk_routed(7, &["10.0.0.1"]), mk_routed(8, &["10.0.0.2"])];
    let devices = devices.into_iter().map(|device| (device.index, device)).collect();
    let settings = Settings::default();
    let placed = with_facts(&devices, &index, &settings, |facts| {
        bindings.place(&Facts { in_force: &in_force, ..*facts })
    });
    let ids: Vec<u16> = placed.values().map(|placement| placement.endpoint.get()).collect();
    assert_eq!(ids, [EndpointId::MAX.get(), 2], "round all ids, and not the first");
    assert_eq!(bindings.last_id(), 2);
    let names: Vec<(u16, PodUid)> =
        bindings.ids().into_iter().map(|(id, uid)| (id.get(), uid)).collect();
    let [a, b] = ["uid-a", "uid-b"].map(|uid| PodUid(uid.into()));
    assert_eq!(names, [(2, b), (EndpointId::MAX.get(), a)]);
}

#[test]
fn a_binding_of_an_earlier_run_holds_with_what_was_known_then_or_is_known_now() {
    let pod = mk_pod("a", "10.0.0.1");
    for index in [mk_index(&[], &[]), mk_index(std::slice::from_ref(&pod), &[])] {
        let mut bindings = Bindings::default();
        bindings.restore(&record(9, &pod, "veth7", 7), &index, &node());
        let placed = place(&mut bindings, &[mk_veth(7, &[])], &index);
        assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
        assert_eq!(placed[&7].endpoint, EndpointId::new(9));
        let (_, bound) = bindings.iter().next().expect("it was restored");
        let known = index.same_pod(&pod.key, &pod.uid).is_some();
        // The object of now says that it forwards for nobody.
        assert_eq!(bound.pod.source_prefixes.is_none(), known);
    }
    let mut without = record(9, &pod, "veth7", 7);
    without.source_prefixes.clear();
    let mut bindings = Bindings::default();
    bindings.restore(&without, &mk_index(&[], &[]), &node());
    let (_, bound) = bindings.iter().next().expect("it was restored");
    assert_eq!(bound.pod.source_prefixes, None);
}
