//! What the node's own routes say.

use super::*;

#[test]
fn the_route_that_is_used_names_the_pod() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let with = |ifindex, change: fn(&mut HostRoute)| {
        let mut device = mk_routed(ifindex, &["10.0.0.1"]);
        device.host_routes.iter_mut().for_each(change);
        device
    };
    let used = |_: &mut HostRoute| {};
    let spare = |route: &mut HostRoute| route.metric = 50;
    let by_rule = |route: &mut HostRoute| route.by_rule = true;
    for other in [spare, by_rule] {
        let placed = place(&mut Bindings::default(), &[with(7, other), with(8, used)], &index);
        assert_eq!(pods_of(&placed), [(7, None), (8, Some("uid-a"))]);
        // Alone it is the one that is used.
        let placed = place(&mut Bindings::default(), &[with(7, other)], &index);
        assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
    }
    let placed = place(&mut Bindings::default(), &[with(7, used), with(8, used)], &index);
    assert_eq!(pods_of(&placed), [(7, None), (8, None)], "nobody can say which");
}

#[test]
fn a_device_by_which_several_pods_are_reached_is_none_of_theirs() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")], &[]);
    let placed =
        place(&mut Bindings::default(), &[mk_routed(7, &["10.0.0.1", "10.0.0.2"])], &index);
    assert_eq!(placed[&7].role, Some(Role::Pending));
    assert!(placed[&7].why.contains("default/b"), "{}", placed[&7].why);
}

#[test]
fn a_pod_has_a_route_for_each_of_its_addresses() {
    let addresses = ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("an address"));
    let pod = Pod { addresses: addresses.into(), ..mk_pod("a", "10.0.0.1") };
    let devices = [mk_routed(7, &["10.0.0.1", "fd00::1"])];
    let placed = place(&mut Bindings::default(), &devices, &mk_index(&[pod], &[]));
    assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
}

/// The API may show later whose it is. Until then, nobody inside can be somebody else.
#[test]
fn what_is_behind_a_route_is_not_what_it_says_inside() {
    let claimed = |routes| Device { host_routes: routes, ..mk_veth(7, &["10.0.0.1"]) };
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &["10.0.0.0/24"]);
    let routes = || mk_routed(7, &["10.0.0.2"]).host_routes;
    let mut bindings = Bindings::default();
    let placed = place(&mut bindings, &[claimed(routes())], &index);
    assert_eq!((placed[&7].role, &placed[&7].pod), (Some(Role::Pending), &None));
    // Nor does it keep the pod itself out.
    let placed = place(&mut bindings, &[claimed(routes()), mk_veth(8, &["10.0.0.1"])], &index);
    assert_eq!(pods_of(&placed), [(7, None), (8, Some("uid-a"))]);
    let placed = place(&mut Bindings::default(), &[claimed(Vec::new())], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
}

/// The second device of a pod, whose address the API does not know.
#[test]
fn a_pod_may_send_from_what_the_nodes_routes_say_is_behind_it() {
    let pods = [mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")];
    let index = mk_index(&pods, &[]);
    let second = into(7, mk_routed(8, &["169.254.172.2"]));
    let devices = [mk_routed(7, &["10.0.0.1"]), mk_veth(9, &["10.0.0.2"])];
    let mut bindings = Bindings::default();
    let mut may = |devices: &[Device], index: &Index| {
        let placed = place(&mut bindings, devices, index);
        let devices = devices.iter().map(|device| (device.index, device.clone())).collect();
        let settings = Settings::default();
        let sources = with_facts(&devices, index, &settings, |facts| sources(&bindings, facts));
        assert!(sources.iter().all(|(id, _)| *id == placed[&7].endpoint));
        sources.iter().map(|(_, prefix)| prefix.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(may(&devices, &index), [""; 0]);
    let [first, other] = devices;
    // Never from a pod's address, also while only the binding knows it.
    let mut devices = [first, other, second];
    assert_eq!(may(&devices, &index), ["169.254.172.2/32"]);
    devices[2].host_routes.extend(mk_routed(8, &["10.0.0.2"]).host_routes);
    assert_eq!(may(&devices, &index), ["169.254.172.2/32"]);
    assert_eq!(may(&devices, &mk_index(&[], &[])), ["169.254.172.2/32"]);
}
