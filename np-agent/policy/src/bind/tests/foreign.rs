//! Containers that are no pods, and pods without a device.

use super::*;

fn foreign(names: &[&str]) -> Settings {
    let foreign = names.iter().map(|name| (*name).to_owned()).collect();
    Settings { foreign, ..Settings::default() }
}

fn mk_bridge() -> Device {
    Device { name: "docker0".into(), kind: Some("bridge".into()), peer: None, ..mk_veth(3, &[]) }
}

fn port(device: Device) -> Device {
    Device { master: Some(IfIndex(3)), ..device }
}

fn roles(devices: &[Device], pods: &[Pod], settings: &Settings) -> Vec<(u32, Option<Role>)> {
    let index = mk_index(pods, &["10.0.0.0/24"]);
    let placed = place_with(&mut Bindings::default(), devices, &index, settings);
    placed.iter().map(|(ifindex, placement)| (*ifindex, placement.role)).collect()
}

const PENDING: Option<Role> = Some(Role::Pending);
const FOREIGN: Option<Role> = Some(Role::Foreign);
const POD: Option<Role> = Some(Role::Pod);

/// A CNI gives out what it likes, and the API learns of it after the containers run.
#[test]
fn an_address_outside_the_nodes_ranges_makes_nobody_foreign() {
    let no_address = Pod { addresses: [].into(), ..mk_pod("a", "10.0.0.1") };
    for pods in [&[][..], &[no_address]] {
        assert_eq!(roles(&[mk_veth(7, &["172.17.0.2"])], pods, &foreign(&[])), [(7, PENDING)]);
        let routed = mk_routed(7, &["10.9.0.1"]);
        assert_eq!(roles(&[routed], pods, &foreign(&[])), [(7, PENDING)]);
    }
}

#[test]
fn a_device_is_foreign_by_its_name_or_its_bridges() {
    let devices = [mk_bridge(), port(mk_veth(7, &["172.17.0.2"])), mk_veth(8, &[])];
    let by = |names: &[&str]| roles(&devices, &[], &foreign(names));
    assert_eq!(by(&[]), [(3, None), (7, PENDING), (8, PENDING)]);
    assert_eq!(by(&["docker0"]), [(3, None), (7, FOREIGN), (8, PENDING)]);
    assert_eq!(by(&["veth8", "other"]), [(3, None), (7, PENDING), (8, FOREIGN)]);
    assert_eq!(by(&["docker", "veth"]), [(3, None), (7, PENDING), (8, PENDING)]);
}

#[test]
fn a_pod_stays_one_behind_a_device_that_is_named_foreign() {
    let pods = [mk_pod("a", "10.0.0.1")];
    let settings = foreign(&["veth7"]);
    for device in [mk_routed(7, &["10.0.0.1"]), mk_veth(7, &["10.0.0.1"])] {
        assert_eq!(roles(&[device], &pods, &settings), [(7, POD)]);
    }
    let first = mk_routed(8, &["10.0.0.1"]);
    assert_eq!(roles(&[into(8, mk_veth(7, &[])), first], &pods, &settings), [(7, POD), (8, POD)]);
    // Also while another one leads there, and nobody can say which.
    let both = [mk_routed(7, &["10.0.0.1"]), mk_routed(8, &["10.0.0.1"])];
    assert_eq!(roles(&both, &pods, &settings), [(7, PENDING), (8, PENDING)]);
}

#[test]
fn a_bridge_with_a_pod_is_not_foreign() {
    let devices = [mk_bridge(), port(mk_veth(7, &["10.0.0.1"])), port(mk_veth(8, &["172.17.0.2"]))];
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let mut bindings = Bindings::default();
    let placed = place_with(&mut bindings, &devices, &index, &foreign(&["docker0"]));
    assert_eq!((placed[&7].role, placed[&8].role), (POD, PENDING));
    assert!(placed[&8].doubtful);
    let why = &placed[&8].why;
    assert!(why.contains("docker0") && why.contains("default/a"), "{why}");
}

#[test]
fn nothing_is_foreign_while_a_pod_has_no_device() {
    let pod = mk_pod("a", "10.0.0.1");
    let settings = foreign(&["veth7"]);
    let of = |pod: Pod| roles(&[mk_veth(7, &["172.17.0.2"])], &[pod], &settings);
    assert_eq!(of(pod.clone()), [(7, PENDING)]);
    let elsewhere = Pod { node: Some(NodeName("node-2".into())), ..pod.clone() };
    let finished = Pod { phase: Phase::Finished, ..pod.clone() };
    let of_the_host = Pod { host_network: true, ..pod };
    for other in [elsewhere, finished, of_the_host] {
        assert_eq!(of(other), [(7, FOREIGN)]);
    }
}

#[test]
fn a_pod_with_an_address_and_no_device_is_named() {
    let pod = mk_pod("a", "10.0.0.1");
    let others = [
        Pod { node: Some(NodeName("node-2".into())), ..mk_pod("elsewhere", "10.0.0.2") },
        Pod { phase: Phase::Finished, ..mk_pod("finished", "10.0.0.3") },
        Pod { host_network: true, ..mk_pod("host", "10.0.0.4") },
        Pod { addresses: [].into(), ..mk_pod("starting", "10.0.0.5") },
        // Its device may be gone already.
        Pod { terminating: true, ..mk_pod("ending", "10.0.0.6") },
        mk_pod("bound", "10.0.0.7"),
    ];
    let pods: Vec<Pod> = others.into_iter().chain([pod]).collect();
    let index = mk_index(&pods, &[]);
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.7"])], &index);
    let settings = Settings::default();
    let missing =
        with_facts(&BTreeMap::new(), &index, &settings, |facts| missing(&bindings, facts));
    let told: Vec<String> = missing.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with(
        "Pod default/a: status.podIPs: 10.0.0.1: no device leads to it, and no NetworkPolicy \
         selects it; see why"
    ));
}

#[test]
fn a_pod_without_a_device_is_named_with_the_policies_that_select_it() {
    for (names, expected) in [
        (
            &["a", "b", "c", "d"][..],
            "NetworkPolicy default/a, default/b, default/c and 1 more; see",
        ),
        (&["a", "b", "c"], "NetworkPolicy default/a, default/b, default/c; see"),
    ] {
        let policies = names.iter().map(|name| PolicyKey::new("default", *name)).collect();
        let addresses = vec!["10.0.0.1".parse().expect("an address")];
        let missing = Missing { pod: PodKey::new("default", "x"), addresses, policies };
        let text = missing.to_string();
        assert!(text.contains(&format!("not enforced: {expected}")), "{text}");
    }
}
