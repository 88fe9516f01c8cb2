//! The network namespace that a veth leads into.

use super::*;

#[test]
fn all_veths_into_a_pods_namespace_are_the_pods_under_one_id() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &["10.0.0.0/24"]);
    let second = into(7, mk_veth(5, &["10.1.0.7"]));
    let third = into(7, mk_veth(9, &[]));
    for first in [mk_routed(7, &["10.0.0.1"]), mk_veth(7, &["10.0.0.1"])] {
        let devices = [first.clone(), second.clone(), third.clone()];
        let mut bindings = Bindings::default();
        let at_once = place(&mut bindings, &devices, &index);
        assert_eq!(pods_of(&at_once), [5, 7, 9].map(|at| (at, Some("uid-a"))));
        let ids: BTreeSet<EndpointId> = at_once.values().map(|placed| placed.endpoint).collect();
        assert_eq!(ids.len(), 1);

        let tables = lowered(&bindings, &devices, &at_once);
        assert_eq!((tables.endpoints.len(), tables.ifaces.len(), tables.local.len()), (1, 3, 1));

        let mut bindings = Bindings::default();
        place(&mut bindings, &devices[..1], &index);
        let later = place(&mut bindings, &devices, &index);
        let ids_later: BTreeSet<_> = later.values().map(|placed| placed.endpoint).collect();
        assert_eq!(ids_later, ids);
        // The first may go, as the address may: the namespace is the pod's all the same.
        bindings.release(IfIndex(7));
        let left = place(&mut bindings, &[second.clone(), third.clone()], &index);
        assert_eq!(pods_of(&left), [5, 9].map(|at| (at, Some("uid-a"))));
    }
}

#[test]
fn an_address_counts_by_whichever_veth_the_namespace_has_it() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    // The agent reads the same claims for both.
    let devices = [mk_veth(7, &["10.0.0.1"]), into(7, mk_veth(8, &["10.0.0.1"]))];
    let placed = place(&mut Bindings::default(), &devices, &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-a"))]);
    assert_eq!(placed[&7].endpoint, placed[&8].endpoint);
}

/// Namespace ids are used again at once.
#[test]
fn a_namespace_id_means_nothing_once_it_is_not_that_of_a_bound_device() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_routed(7, &["10.0.0.1"])], &index);
    let dying = into(-1, mk_routed(7, &["10.0.0.1"]));
    let placed = place(&mut bindings, &[dying, into(7, mk_veth(8, &[]))], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, None)]);
    let placed = place(&mut bindings, &[into(7, mk_veth(8, &[]))], &index);
    assert_eq!(pods_of(&placed), [(8, None)]);
    // Two that are dying have nothing in common.
    let both = [into(-1, mk_routed(7, &["10.0.0.1"])), into(-1, mk_veth(8, &[]))];
    let placed = place(&mut Bindings::default(), &both, &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, None)]);
}

/// Another sandbox of the same pod is another namespace.
#[test]
fn a_pod_whose_sandbox_is_replaced_gets_another_id() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let mut bindings = Bindings::default();
    let old = mk_veth(7, &["10.0.0.1"]);
    place(&mut bindings, std::slice::from_ref(&old), &index);
    let placed = place(&mut bindings, &[old, mk_routed(8, &["10.0.0.1"])], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-a"))]);
    assert_ne!(placed[&7].endpoint, placed[&8].endpoint);
}

#[test]
fn a_namespace_of_two_pods_binds_nothing_further() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")], &[]);
    let one = mk_routed(7, &["10.0.0.1"]);
    let other = into(7, mk_routed(8, &["10.0.0.2"]));
    let third = into(7, mk_veth(9, &[]));
    let placed = place(&mut Bindings::default(), &[one, other, third], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-b")), (9, None)]);
}

/// A nested node's own namespace may hold anything.
#[test]
fn the_nodes_own_uplink_is_never_a_pods() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let mut uplink = mk_veth(2, &["10.0.0.1"]);
    uplink.addresses = ["192.168.65.10".parse().expect("an address")].into();
    let placed =
        place(&mut Bindings::default(), &[uplink.clone(), mk_veth(7, &["10.0.0.1"])], &index);
    assert_eq!(pods_of(&placed), [(2, None), (7, Some("uid-a"))]);
    assert_eq!(placed[&2].role, Some(Role::Uplink));
    let named = Settings { uplinks: vec!["veth8".to_owned()], ..Settings::default() };
    let devices = [mk_veth(7, &["10.0.0.1"]), into(7, mk_veth(8, &[]))];
    let placed = place_with(&mut Bindings::default(), &devices, &index, &named);
    assert_eq!(placed[&8].role, Some(Role::Uplink));
}
