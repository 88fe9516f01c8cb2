mod claims;
mod foreign;
mod ids;
mod namespaces;
mod routes;
mod succession;

use np_common::addr::Addr;
use np_common::tunnel::Encapsulation;

use super::*;
use crate::index::Touched;
use crate::model::{
    Change, DevicePeer, HostRoute, Node, Object, PolicyKey, RefusedPrefix, SourcePrefixes,
};
use crate::plan::Tables;

const NODE: &str = "node-1";

fn node() -> NodeName {
    NodeName(NODE.into())
}

fn mk_pod(name: &str, addr: &str) -> Pod {
    Pod {
        key: PodKey::new("default", name),
        uid: PodUid(format!("uid-{name}").into()),
        node: Some(node()),
        labels: Arc::default(),
        addresses: [addr.parse().expect("an address")].into(),
        source_prefixes: None,
        named_ports: Arc::default(),
        host_network: false,
        phase: Phase::Active,
        terminating: false,
        created: 0,
    }
}

fn mk_index(pods: &[Pod], pod_cidrs: &[&str]) -> Index {
    let mut index = Index::default();
    let mut touched = Touched::default();
    index.apply(
        Change::Apply(Object::Node(Node {
            name: node(),
            addresses: vec!["192.168.65.10".parse().expect("an address")],
            pod_cidrs: pod_cidrs.iter().map(|cidr| cidr.parse().expect("a prefix")).collect(),
        })),
        &mut touched,
    );
    for pod in pods {
        index.apply(Change::Apply(Object::Pod(pod.clone())), &mut touched);
    }
    index
}

/// A veth into another namespace.
fn mk_veth(ifindex: u32, claims: &[&str]) -> Device {
    Device {
        index: IfIndex(ifindex),
        name: format!("veth{ifindex}"),
        kind: Some("veth".into()),
        hardware: false,
        layer3: false,
        loopback: false,
        encapsulations: Vec::new(),
        master: None,
        lower: None,
        peer: Some(DevicePeer {
            netnsid: ifindex as i32,
            index: IfIndex(2),
            claims: claims.iter().map(|claim| claim.parse().expect("an address")).collect(),
        }),
        addresses: Vec::new(),
        gateway: false,
        host_routes: Vec::new(),
    }
}

/// A veth to which the node has routes.
fn mk_routed(ifindex: u32, routes: &[&str]) -> Device {
    let to = |text: &&str| HostRoute::from(text.parse::<IpAddr>().expect("an address"));
    Device { host_routes: routes.iter().map(to).collect(), ..mk_veth(ifindex, &[]) }
}

/// The veth leads into the namespace with this id.
fn into(netnsid: i32, mut device: Device) -> Device {
    device.peer.as_mut().expect("a peer").netnsid = netnsid;
    device
}

fn place(bindings: &mut Bindings, devices: &[Device], index: &Index) -> BTreeMap<u32, Placement> {
    place_with(bindings, devices, index, &Settings::default())
}

fn place_with(
    bindings: &mut Bindings,
    devices: &[Device],
    index: &Index,
    settings: &Settings,
) -> BTreeMap<u32, Placement> {
    let devices = devices.iter().map(|device| (device.index, device.clone())).collect();
    let placements = with_facts(&devices, index, settings, |facts| bindings.place(facts));
    placements.into_iter().map(|(ifindex, placement)| (ifindex.0, placement)).collect()
}

fn with_facts<T>(
    devices: &BTreeMap<IfIndex, Device>,
    index: &Index,
    settings: &Settings,
    use_them: impl FnOnce(&Facts<'_>) -> T,
) -> T {
    let local = index.pods().filter(|pod| pod.node == Some(node())).map(|pod| pod.key.clone());
    use_them(&Facts {
        devices,
        index,
        node: &node(),
        local: &local.collect(),
        settings,
        in_force: &Tables::default(),
    })
}

fn pods_of(placed: &BTreeMap<u32, Placement>) -> Vec<(u32, Option<&str>)> {
    placed.iter().map(|(at, placement)| (*at, placement.pod.as_ref().map(|uid| &*uid.0))).collect()
}

fn role_of(device: Device, index: &Index) -> Option<Role> {
    let ifindex = device.index.0;
    place(&mut Bindings::default(), &[device], index)[&ifindex].role
}

#[test]
fn a_single_claim_binds_and_a_host_route_outweighs_claims() {
    let pods = [mk_pod("a", "10.0.0.1"), mk_pod("b", "10.0.0.2")];
    let index = mk_index(&pods, &[]);
    let mut routed = mk_veth(8, &["10.0.0.1"]);
    routed.host_routes = mk_routed(8, &["10.0.0.2"]).host_routes;
    let placed = place(&mut Bindings::default(), &[mk_veth(7, &["10.0.0.1"]), routed], &index);
    // What is claimed by one that is proven to be another pod contests nothing.
    assert_eq!(pods_of(&placed), [(7, Some("uid-a")), (8, Some("uid-b"))]);

    let placed = place(&mut Bindings::default(), &[mk_veth(7, &["10.0.0.1"])], &index);
    assert_eq!(placed[&7].pod, Some(PodUid("uid-a".into())));
}

#[test]
fn a_second_claimant_never_unseats_the_first() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &["10.0.0.0/24"]);
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &index);
    let placed =
        place(&mut bindings, &[mk_veth(7, &["10.0.0.1"]), mk_veth(8, &["10.0.0.1"])], &index);
    assert_eq!(placed[&7].role, Some(Role::Pod));
    assert_eq!(placed[&8].role, Some(Role::Pending));
    // Not even after the first gave its address up.
    let placed = place(&mut bindings, &[mk_veth(7, &[]), mk_veth(8, &["10.0.0.1"])], &index);
    assert_eq!((placed[&7].role, placed[&8].role), (Some(Role::Pod), Some(Role::Pending)));
}

#[test]
fn a_binding_outlives_the_pod_object_but_not_the_device() {
    let pod = mk_pod("a", "10.0.0.1");
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[pod], &[]));
    let placed = place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[], &[]));
    assert_eq!(placed[&7].role, Some(Role::Pod));
    place(&mut bindings, &[], &mk_index(&[], &[]));
    let placed = place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[], &[]));
    assert_eq!(placed[&7].role, Some(Role::Pending));
}

#[test]
fn uplinks_are_known_by_what_the_node_says() {
    let index = mk_index(&[], &["10.0.0.0/24"]);
    let mut with_address = mk_veth(2, &["192.168.65.1"]);
    with_address.addresses = ["192.168.65.10".parse().expect("an address")].into();
    assert_eq!(role_of(with_address, &index), Some(Role::Uplink));
    let mut with_gateway = mk_veth(2, &["192.168.65.1"]);
    with_gateway.gateway = true;
    assert_eq!(role_of(with_gateway, &index), Some(Role::Uplink));
    let kind = |kind: Option<&str>| Device {
        kind: kind.map(str::to_owned),
        hardware: kind.is_none(),
        peer: None,
        ..mk_veth(3, &[])
    };
    assert_eq!(role_of(kind(None), &index), Some(Role::Uplink));
    assert_eq!(role_of(kind(Some("vlan")), &index), Some(Role::Uplink));
    assert_eq!(role_of(kind(Some("vxlan")), &index), Some(Role::Tunnel));
    assert_eq!(role_of(kind(Some("bridge")), &index), None);
    assert_eq!(role_of(kind(Some("veth")), &index), None);
}

#[test]
fn a_pod_that_is_a_gateway_is_still_a_pod() {
    let index = mk_index(&[mk_pod("vpn", "10.0.0.1")], &[]);
    for device in [mk_routed(7, &["10.0.0.1"]), mk_veth(7, &["10.0.0.1"])] {
        let device = Device { gateway: true, ..device };
        assert_eq!(role_of(device, &index), Some(Role::Pod));
    }
}

#[test]
fn ids_are_not_used_again_soon() {
    let index = mk_index(&[mk_pod("a", "10.0.0.1")], &[]);
    let mut bindings = Bindings::default();
    let mut id = |ifindex| {
        let placed = place(&mut bindings, &[mk_veth(ifindex, &["10.0.0.1"])], &index);
        placed[&ifindex].endpoint.get()
    };
    assert_eq!((id(7), id(8), id(9)), (1, 2, 3));
}

#[test]
fn an_address_leads_to_the_pod_that_has_it_now() {
    let old = Pod { terminating: true, ..mk_pod("old", "10.0.0.1") };
    let new = mk_pod("new", "10.0.0.1");
    let mut bindings = Bindings::default();
    let first = mk_veth(9, &["10.0.0.1"]);
    place(&mut bindings, std::slice::from_ref(&first), &mk_index(std::slice::from_ref(&old), &[]));
    let devices = [first, mk_routed(7, &["10.0.0.1"])];
    let placed = place(&mut bindings, &devices, &mk_index(&[old, new], &[]));
    let tables = lowered(&bindings, &devices, &placed);
    assert_eq!(tables.local[&addr("10.0.0.1")], placed[&7].endpoint);
    assert_eq!(tables.endpoints.len(), 2);
}

fn addr(text: &str) -> Addr {
    Addr::from(text.parse::<IpAddr>().expect("an address"))
}

fn lowered(bindings: &Bindings, devices: &[Device], placed: &BTreeMap<u32, Placement>) -> Tables {
    let devices = devices.iter().map(|device| (device.index, device.clone())).collect();
    let placed = placed.iter().map(|(at, placement)| (IfIndex(*at), placement.clone())).collect();
    let mut tables = Tables::default();
    lower(&placed, &devices, bindings, &mut tables);
    tables
}

#[test]
fn tunnels_are_those_of_devices_and_those_that_are_named() {
    let mk_tunnel = |ifindex, encapsulations: &[Encapsulation]| Device {
        kind: Some("vxlan".into()),
        peer: None,
        encapsulations: encapsulations.to_vec(),
        ..mk_veth(ifindex, &[])
    };
    let (vxlan, ipip) = (Encapsulation::Udp(8472), Encapsulation::Protocol(4));
    let devices = [mk_tunnel(3, &[vxlan]), mk_tunnel(4, &[vxlan, ipip]), mk_veth(7, &[])];
    let devices = devices.into_iter().map(|device| (device.index, device)).collect();
    let settings = Settings { tunnel_ports: vec![8285], ..Settings::default() };
    assert_eq!(tunnels(&devices, &settings), [Encapsulation::Udp(8285), vxlan, ipip].into());
}

/// A pod that names these, and has an entry that is none.
fn mk_gateway(name: &str, addr: &str, prefixes: &[&str]) -> Pod {
    let prefixes = prefixes.iter().map(|text| text.parse().expect("a prefix")).collect();
    let refused = RefusedPrefix {
        value: "ten".to_owned(),
        problem: "no prefix".to_owned(),
        remedy: "write one".to_owned(),
    };
    let named = SourcePrefixes { prefixes, refused: vec![refused] };
    Pod { source_prefixes: Some(Box::new(named)), ..mk_pod(name, addr) }
}

#[test]
fn a_pod_gets_of_what_it_names_what_is_granted() {
    let named = ["10.8.0.0/24", "10.8.0.0/15", "10.9.1.1/32", "fd00:8::/64", "0.0.0.0/0"];
    let pods = [mk_gateway("vpn", "10.0.0.1", &named), mk_pod("plain", "10.0.0.2")];
    let devices = [mk_veth(7, &["10.0.0.1"]), mk_veth(8, &["10.0.0.2"])];
    let mut bindings = Bindings::default();
    let index = mk_index(&pods, &[]);
    let placed = place(&mut bindings, &devices, &index);
    let id = placed[&7].endpoint;
    let of = |grants: &[&str]| {
        let ranges = grants.iter().map(|text| text.parse().expect("a prefix")).collect();
        let settings = Settings { source_prefixes: ranges, ..Settings::default() };
        let sources = with_facts(&BTreeMap::new(), &index, &settings, |f| sources(&bindings, f));
        assert!(sources.iter().all(|(own, _)| *own == id), "{sources:?}");
        let got: Vec<String> = sources.iter().map(|(_, prefix)| prefix.to_string()).collect();
        let refused = refused_sources(&bindings, &settings);
        assert!(refused.iter().all(|refused| refused.pod == pods[0].key), "{refused:?}");
        assert_eq!(got.len() + refused.len(), named.len() + 1, "{got:?} {refused:?}");
        got
    };
    assert_eq!(of(&[]), [""; 0]);
    assert_eq!(of(&["10.8.0.0/16"]), ["10.8.0.0/24"]);
    assert_eq!(of(&["10.8.0.0/24", "10.9.0.0/16"]), ["10.8.0.0/24", "10.9.1.1/32"]);
    // Two halves are not the whole.
    assert_eq!(of(&["10.8.0.0/16", "10.9.0.0/16"]), ["10.8.0.0/24", "10.9.1.1/32"]);
    assert_eq!(of(&["10.8.0.0/15"]), ["10.8.0.0/15", "10.8.0.0/24", "10.9.1.1/32"]);
    assert_eq!(of(&["::/0"]), ["fd00:8::/64"]);
    assert_eq!(of(&["10.8.0.128/25", "10.9.1.0/31"]), ["10.9.1.1/32"]);
    assert_eq!(of(&["0.0.0.0/0", "fd00:8::/48"]).len(), named.len());
}

#[test]
fn a_refused_source_names_pod_annotation_value_and_remedy() {
    let pod = mk_gateway("vpn", "10.0.0.1", &["10.8.0.0/24"]);
    let mut bindings = Bindings::default();
    place(&mut bindings, &[mk_veth(7, &["10.0.0.1"])], &mk_index(&[pod], &[]));
    let refused = refused_sources(&bindings, &Settings::default());
    let told: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "Pod default/vpn: np-agent.io/source-prefixes: \"10.8.0.0/24\": not granted on this \
             node; give its agent --source-prefixes with a range that covers it, or take it out of \
             the annotation",
            "Pod default/vpn: np-agent.io/source-prefixes: \"ten\": no prefix; write one",
        ]
    );
}
