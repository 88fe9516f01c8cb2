//! A device that was seen before its pod's object, while the former pod of its address was still
//! there.

use np_common::endpoint::Iface;

use super::*;

/// Places devices as an agent does that has brought every plan into force.
struct Node {
    bindings: Bindings,
    in_force: Tables,
}

impl Node {
    fn new() -> Self {
        Self { bindings: Bindings::default(), in_force: Tables::default() }
    }

    /// One plan, put into force.
    fn plan(&mut self, devices: &[Device], index: &Index) -> BTreeMap<u32, Placement> {
        let devices = devices.iter().map(|device| (device.index, device.clone())).collect();
        let settings = Settings::default();
        let in_force = self.in_force.clone();
        let bindings = &mut self.bindings;
        let placed = with_facts(&devices, index, &settings, |facts| {
            bindings.place(&Facts { in_force: &in_force, ..*facts })
        });
        super::super::lower(&placed, &devices, &self.bindings, &mut self.in_force);
        placed.into_iter().map(|(ifindex, placement)| (ifindex.0, placement)).collect()
    }

    /// A device goes, and then another plan is made.
    fn plan_without(&mut self, gone: u32, devices: &[Device], index: &Index) {
        self.bindings.release(IfIndex(gone));
        self.in_force.ifaces.remove(&gone);
        self.plan(devices, index);
    }
}

fn going(pod: Pod) -> Pod {
    Pod { terminating: true, ..pod }
}

#[test]
fn a_device_goes_over_to_the_pod_that_the_evidence_names_once_its_own_is_gone() {
    let (former, next) = (mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.1"));
    for device in [mk_routed(7, &["10.0.0.1"]), mk_veth(7, &["10.0.0.1"])] {
        let mut node = Node::new();
        let devices = [device];
        let placed = node.plan(&devices, &mk_index(&[going(former.clone())], &[]));
        assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
        let id = placed[&7].endpoint;

        // While the former pod's object is there, nobody can say more.
        let both = mk_index(&[going(former.clone()), next.clone()], &[]);
        assert_eq!(pods_of(&node.plan(&devices, &both)), [(7, Some("uid-a"))]);

        let after = mk_index(std::slice::from_ref(&next), &[]);
        let placed = node.plan(&devices, &after);
        assert_eq!(placed[&7].role, Some(Role::Pending), "not in one step");
        assert!(placed[&7].why.contains("pod default/a is gone"), "{}", placed[&7].why);
        assert!(node.bindings.wait());

        let placed = node.plan(&devices, &after);
        assert_eq!(pods_of(&placed), [(7, Some("uid-b"))]);
        assert_ne!(placed[&7].endpoint, id);
        assert!(!node.bindings.wait());
    }
}

/// The plan that makes the device pending may fail half way.
#[test]
fn a_device_is_not_bound_again_while_the_maps_still_give_it_to_its_former_pod() {
    let mut node = Node::new();
    let devices = [mk_routed(7, &["10.0.0.1"])];
    node.plan(&devices, &mk_index(&[mk_pod("a", "10.0.0.1")], &[]));
    let before = node.in_force.clone();
    let after = mk_index(&[mk_pod("b", "10.0.0.1")], &[]);
    for _ in 0..2 {
        assert_eq!(node.plan(&devices, &after)[&7].role, Some(Role::Pending));
        node.in_force = before.clone();
    }
    node.in_force.ifaces.insert(7, Iface::new(7, Role::Pending, EndpointId::NONE));
    assert_eq!(pods_of(&node.plan(&devices, &after)), [(7, Some("uid-b"))]);
}

#[test]
fn all_devices_of_a_namespace_go_over_together() {
    let mut node = Node::new();
    let devices = [mk_routed(7, &["10.0.0.1"]), into(7, mk_veth(8, &["10.9.0.1"]))];
    let placed = node.plan(&devices, &mk_index(&[mk_pod("a", "10.0.0.1")], &[]));
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-a"))]);
    let after = mk_index(&[mk_pod("b", "10.0.0.1")], &[]);
    assert_eq!(pods_of(&node.plan(&devices, &after)), [(7, None), (8, None)]);
    assert_eq!(pods_of(&node.plan(&devices, &after)), [(7, Some("uid-b")), (8, Some("uid-b"))]);
}

/// A pod whose object was deleted by force may live on, and hostile.
#[test]
fn what_a_pod_claims_later_does_not_make_it_another() {
    let mut node = Node::new();
    node.plan(&[mk_veth(7, &["10.0.0.1"])], &mk_index(&[mk_pod("a", "10.0.0.1")], &[]));
    let after = mk_index(&[mk_pod("b", "10.0.0.2")], &[]);
    for claims in [&["10.0.0.2"][..], &["10.0.0.1", "10.0.0.2"]] {
        let devices = [mk_veth(7, claims)];
        for _ in 0..2 {
            assert_eq!(pods_of(&node.plan(&devices, &after)), [(7, Some("uid-a"))]);
        }
    }
    // Nor does it succeed by its own address while another device claims that.
    let after = mk_index(&[mk_pod("b", "10.0.0.1")], &[]);
    let devices = [mk_veth(7, &["10.0.0.1"]), mk_veth(8, &["10.0.0.1"])];
    for _ in 0..2 {
        let placed = node.plan(&devices, &after);
        assert_eq!(placed[&7].pod, Some(PodUid("uid-a".into())));
    }
    // An agent that found it bound does not know what was there first.
    let mut bindings = Bindings::default();
    bindings.bound = node.bindings.bound.clone();
    let mut node = Node { bindings, in_force: node.in_force };
    for _ in 0..2 {
        let placed = node.plan(&[mk_veth(7, &["10.0.0.1"])], &after);
        assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
    }
}

#[test]
fn a_pod_that_is_going_and_has_lost_its_device_gets_no_other() {
    for new in [mk_routed(8, &["10.0.0.1"]), mk_veth(8, &["10.0.0.1"])] {
        let mut node = Node::new();
        let former = going(mk_pod("a", "10.0.0.1"));
        let there = mk_index(std::slice::from_ref(&former), &[]);
        node.plan(&[mk_veth(7, &["10.0.0.1"])], &there);
        node.plan_without(7, &[], &there);
        let devices = [new];
        let placed = node.plan(&devices, &there);
        assert_eq!(placed[&8].role, Some(Role::Pending));
        assert!(placed[&8].why.contains("pod default/a has lost its device"), "{}", placed[&8].why);
        let placed = node.plan(&devices, &mk_index(&[mk_pod("b", "10.0.0.1")], &[]));
        assert_eq!(pods_of(&placed), [(8, Some("uid-b"))]);
    }
}

/// A sandbox that is replaced has the same pod behind its next device.
#[test]
fn a_pod_that_stays_gets_its_next_device() {
    let mut node = Node::new();
    let there = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    node.plan(&[mk_veth(7, &["10.0.0.1"])], &there);
    node.plan_without(7, &[], &there);
    let placed = node.plan(&[mk_veth(8, &["10.0.0.1"])], &there);
    assert_eq!(pods_of(&placed), [(8, Some("uid-a"))]);
    // Also when it is going by then: it keeps what it has.
    let placed =
        node.plan(&[mk_veth(8, &["10.0.0.1"])], &mk_index(&[going(mk_pod("a", "10.0.0.1"))], &[]));
    assert_eq!(pods_of(&placed), [(8, Some("uid-a"))]);
}

/// A sandbox that was replaced: what the pod had before is not where its next device leads.
#[test]
fn devices_in_other_namespaces_do_not_go_with_it() {
    let mut node = Node::new();
    let devices = [mk_routed(7, &["10.0.0.1"]), mk_routed(8, &["10.0.0.3"])];
    let addresses = ["10.0.0.1", "10.0.0.3"].map(|text| text.parse().expect("an address"));
    let pod = Pod { addresses: addresses.into(), ..mk_pod("a", "10.0.0.1") };
    let placed = node.plan(&devices, &mk_index(&[pod], &[]));
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-a"))]);
    let placed = node.plan(&devices, &mk_index(&[mk_pod("b", "10.0.0.1")], &[]));
    assert_eq!(pods_of(&placed), [(7, None), (8, Some("uid-a"))]);
}

/// The addresses that were there first count only where the node has no route, and for one pod.
#[test]
fn first_addresses_name_one_pod_and_only_where_the_node_says_nothing() {
    let with = |name, addrs: &[&str]| {
        let addresses = addrs.iter().map(|text| text.parse().expect("an address")).collect();
        Pod { addresses, ..mk_pod(name, addrs[0]) }
    };
    let (b, both) = (mk_pod("b", "10.0.0.1"), with("b", &["10.0.0.1", "fd00::1"]));
    let c = mk_pod("c", "10.0.0.3");
    let first: &[&str] = &["10.0.0.1", "10.0.0.3", "fd00::1"];
    let routed = |to| Device { host_routes: mk_routed(7, to).host_routes, ..mk_veth(7, first) };
    for (device, after, expected) in [
        (mk_veth(7, first), vec![b.clone()], Some("uid-b")),
        (mk_veth(7, first), vec![both.clone()], Some("uid-b")),
        (mk_veth(7, first), vec![b.clone(), c], Some("uid-a")),
        (routed(&["10.0.0.99"]), vec![b], Some("uid-a")),
        (routed(&["fd00::1"]), vec![both], Some("uid-b")),
    ] {
        let mut node = Node::new();
        node.plan(&[mk_veth(7, first)], &mk_index(&[mk_pod("a", "10.0.0.1")], &[]));
        let after = mk_index(&after, &[]);
        node.plan(std::slice::from_ref(&device), &after);
        let placed = node.plan(std::slice::from_ref(&device), &after);
        assert_eq!(pods_of(&placed), [(7, expected)], "{:?}", device.host_routes);
    }
}

#[test]
fn a_pod_that_has_a_device_does_not_get_another_ones() {
    let mut node = Node::new();
    let addresses = ["10.0.0.1", "fd00::2"].map(|text| text.parse().expect("an address"));
    let b = Pod { addresses: addresses.into(), ..mk_pod("b", "10.0.0.1") };
    let first = mk_veth(7, &["10.0.0.1"]);
    let before = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    node.plan(std::slice::from_ref(&first), &before);
    let devices = [first, mk_routed(8, &["fd00::2"])];
    for _ in 0..2 {
        let placed = node.plan(&devices, &mk_index(std::slice::from_ref(&b), &[]));
        assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-b"))]);
    }
}

/// Two pods that are gone had the address one after the other, and both their devices are still there.
#[test]
fn an_address_that_was_first_behind_two_devices_names_neither() {
    let mut node = Node::new();
    let devices = [7, 9].map(|ifindex| mk_veth(ifindex, &["10.0.0.1"]));
    node.plan(&devices[..1], &mk_index(&[mk_pod("a", "10.0.0.1")], &[]));
    let placed = node.plan(&devices, &mk_index(&[mk_pod("c", "10.0.0.1")], &[]));
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (9, Some("uid-c"))]);
    for _ in 0..2 {
        let placed = node.plan(&devices, &mk_index(&[mk_pod("b", "10.0.0.1")], &[]));
        assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (9, Some("uid-c"))]);
    }
}
