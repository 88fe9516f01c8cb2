//! What those inside a namespace say of themselves.

use super::*;

#[test]
fn claims_of_namespaces_that_are_known_contest_nothing() {
    let pods = [mk_pod("hostile", "10.0.0.1"), mk_pod("new", "10.0.0.2")];
    let index = mk_index(&pods, &[]);
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &index);
    let hostile = mk_veth(7, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let placed = place(&mut bindings, &[hostile, mk_veth(8, &["10.0.0.2"])], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-hostile")), (8, Some("uid-new"))]);
}

/// A pod with two addresses, both of which its neighbour took in advance.
#[test]
fn claims_in_both_families_keep_nobody_out() {
    let with_both = |name, addrs: [&str; 2]| {
        let addresses = addrs.map(|text| text.parse().expect("an address")).into();
        Pod { addresses, ..mk_pod(name, addrs[0]) }
    };
    let hostile = with_both("hostile", ["10.0.0.1", "fd00::1"]);
    let new = with_both("new", ["10.0.0.2", "fd00::2"]);
    let mut bindings = Bindings::default();
    let before = mk_index(std::slice::from_ref(&hostile), &[]);
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1", "fd00::1"])], &before);
    let taken = mk_veth(7, &["10.0.0.1", "fd00::1", "10.0.0.2", "fd00::2"]);
    let devices = [taken, mk_veth(8, &["10.0.0.2", "fd00::2"])];
    let placed = place(&mut bindings, &devices, &mk_index(&[hostile, new], &[]));
    assert_eq!(pods_of(&placed), [(7, Some("uid-hostile")), (8, Some("uid-new"))]);
}

#[test]
fn a_pod_that_two_namespaces_claim_is_behind_neither() {
    let mut pod = mk_pod("a", "10.0.0.1");
    pod.addresses = ["10.0.0.1", "fd00::1"].map(|text| text.parse().expect("an address")).into();
    let index = mk_index(&[pod], &[]);
    // Each by another of its addresses, one of them twice.
    for thief in [["10.0.0.1", "10.9.9.9"], ["fd00::1", "10.9.9.9"]] {
        for own in [&["10.0.0.1", "fd00::1"][..], &["10.0.0.1"]] {
            let devices = [mk_veth(7, own), mk_veth(8, &thief)];
            let placed = place(&mut Bindings::default(), &devices, &index);
            assert_eq!(pods_of(&placed), [(7, None), (8, None)], "{own:?} {thief:?}");
            assert!(placed[&7].why.contains("default/a"), "{}", placed[&7].why);
        }
    }
}

/// The pod with the least address must not be the one that a liar becomes.
#[test]
fn a_namespace_that_claims_several_pods_is_bound_to_none() {
    let pods = [mk_pod("victim", "10.0.0.1"), mk_pod("hostile", "10.0.0.2")];
    let index = mk_index(&pods, &[]);
    let liar = mk_veth(7, &["10.0.0.1", "10.0.0.2"]);
    let placed = place(&mut Bindings::default(), &[liar], &index);
    assert_eq!(placed[&7].role, Some(Role::Pending));
    let why = &placed[&7].why;
    assert!(why.contains("default/victim") && why.contains("default/hostile"), "{why}");
}

/// A sandbox takes the address off the device before the pod's status says which it is.
#[test]
fn an_address_that_was_there_first_names_the_pod_after_it_is_gone() {
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[], &[]));
    place(&mut bindings, &[mk_veth(7, &[])], &mk_index(&[], &[]));
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let placed = place(&mut bindings, &[mk_veth(7, &[])], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-a"))]);
}

#[test]
fn an_address_that_was_there_first_counts_as_a_claim_among_others() {
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[], &[]));
    let pods = [mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")];
    let index = mk_index(&pods, &[]);
    let changed = mk_veth(7, &["10.0.0.2"]);
    let placed = place(&mut bindings, std::slice::from_ref(&changed), &index);
    assert_eq!(placed[&7].role, Some(Role::Pending), "it was a's and says that it is b's");
    // Its index may come again as another device.
    bindings.release(IfIndex(7));
    let placed = place(&mut bindings, &[changed], &index);
    assert_eq!(pods_of(&placed), [(7, Some("uid-b"))]);
}

/// Its id may be another namespace's already.
#[test]
fn what_a_dying_namespace_claimed_binds_nobody() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let dying = into(-1, mk_veth(7, &["10.0.0.1"]));
    assert_eq!(role_of(dying, &index), Some(Role::Pending));
}
