use super::*;

const TUNNEL: Option<Role> = Some(Role::Tunnel);
const UPLINK: Option<Role> = Some(Role::Uplink);
const STACKED: Option<Role> = Some(Role::Stacked);

/// What each kind is on nothing, on hardware, on a bridge, and on a device of another namespace.
const TABLE: &[(&str, [Option<Role>; 4])] = &[
    ("bridge", [None; 4]),
    ("bond", [None; 4]),
    ("team", [None; 4]),
    ("vrf", [None; 4]),
    ("ifb", [None; 4]),
    ("dummy", [None; 4]),
    ("nlmon", [None; 4]),
    ("vsockmon", [None; 4]),
    ("can", [None; 4]),
    ("vcan", [None; 4]),
    ("vxcan", [None; 4]),
    ("veth", [None; 4]),
    ("netkit", [None; 4]),
    ("tun", [UPLINK; 4]),
    ("wireguard", [UPLINK; 4]),
    ("amneziawg", [UPLINK; 4]),
    ("ovpn", [UPLINK; 4]),
    ("xfrm", [UPLINK; 4]),
    ("vti", [UPLINK; 4]),
    ("vti6", [UPLINK; 4]),
    ("ppp", [UPLINK; 4]),
    ("ipoib", [UPLINK; 4]),
    ("wwan", [UPLINK; 4]),
    ("caif", [UPLINK; 4]),
    ("netdevsim", [UPLINK; 4]),
    ("hsr", [UPLINK; 4]),
    ("batadv", [UPLINK; 4]),
    ("vxlan", [TUNNEL; 4]),
    ("geneve", [TUNNEL; 4]),
    ("bareudp", [TUNNEL; 4]),
    ("gtp", [TUNNEL; 4]),
    ("amt", [TUNNEL; 4]),
    ("pfcp", [TUNNEL; 4]),
    ("gre", [TUNNEL; 4]),
    ("gretap", [TUNNEL; 4]),
    ("erspan", [TUNNEL; 4]),
    ("ip6gre", [TUNNEL; 4]),
    ("ip6gretap", [TUNNEL; 4]),
    ("ip6erspan", [TUNNEL; 4]),
    ("ipip", [TUNNEL; 4]),
    ("ip6tnl", [TUNNEL; 4]),
    ("sit", [TUNNEL; 4]),
    ("vlan", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("dsa", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("rmnet", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("macvlan", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("macvtap", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("virt_wifi", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("ipvlan", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("ipvtap", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("macsec", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("lowpan", [UPLINK, UPLINK, STACKED, UPLINK]),
    ("openvswitch", [STACKED; 4]),
];

fn mk_device(ifindex: u32, kind: Option<&str>, lower: Option<Lower>) -> Device {
    Device {
        index: IfIndex(ifindex),
        name: format!("dev{ifindex}"),
        kind: kind.map(str::to_owned),
        hardware: kind.is_none(),
        layer3: false,
        loopback: false,
        encapsulations: Vec::new(),
        master: None,
        lower,
        peer: None,
        addresses: Vec::new(),
        gateway: false,
        host_routes: Vec::new(),
    }
}

fn on(ifindex: u32) -> Option<Lower> {
    Some(Lower::Here(IfIndex(ifindex)))
}

const HARDWARE: u32 = 2;
const BRIDGE: u32 = 3;
const VETH: u32 = 4;

/// The role of the last of these devices, next to hardware, a bridge, and a veth that leads into a
/// namespace and has this role.
fn role_beside(devices: &[Device], veth: Role) -> Option<Role> {
    let around = [
        mk_device(HARDWARE, None, None),
        mk_device(BRIDGE, Some("bridge"), None),
        mk_device(VETH, Some("veth"), None),
    ];
    let all = around.iter().chain(devices).map(|device| (device.index, device.clone())).collect();
    let ends = [(IfIndex(VETH), Placement::of(Some(veth), ""))].into();
    place(devices.last().expect("a device"), &all, &ends).role
}

fn role(devices: &[Device]) -> Option<Role> {
    role_beside(devices, Role::Pod)
}

#[test]
fn every_kind_has_the_role_of_what_it_does() {
    let lowers = [None, on(HARDWARE), on(BRIDGE), Some(Lower::Elsewhere)];
    for (kind, expected) in TABLE {
        let roles = lowers.map(|lower| role(&[mk_device(9, Some(kind), lower)]));
        assert_eq!(roles, *expected, "{kind}");
        assert!(!place(&mk_device(9, Some(kind), None), &[].into(), &[].into()).doubtful, "{kind}");
    }
}

#[test]
fn the_table_of_kinds_is_the_one_that_is_tested() {
    let mut tested: Vec<&str> = TABLE.iter().map(|(kind, _)| *kind).collect();
    let mut known: Vec<&str> = KINDS.iter().flat_map(|(kinds, ..)| kinds.iter().copied()).collect();
    tested.sort_unstable();
    known.sort_unstable();
    assert_eq!(tested, known);
}

#[test]
fn hardware_is_an_uplink_and_loopback_nothing() {
    assert_eq!(role(&[mk_device(9, None, None)]), Some(Role::Uplink));
    let mut lo = mk_device(1, None, None);
    lo.loopback = true;
    assert_eq!(role(&[lo]), None);
}

/// What it lets in is from outside and cannot be a pod's, what it lets out is judged; and a user
/// learns of it.
#[test]
fn a_device_of_which_nothing_is_known_is_taken_for_a_tunnel_and_named() {
    let unknown = mk_device(9, Some("frobnicator"), None);
    let session = Device { hardware: false, ..mk_device(9, None, None) };
    for (device, why) in [(unknown, "frobnicator"), (session, "no kind and no hardware")] {
        let placement = place(&device, &[].into(), &[].into());
        assert_eq!((placement.role, placement.doubtful), (Some(Role::Tunnel), true));
        assert!(placement.why.contains(why), "{}", placement.why);
    }
}

/// Else a program there hides whose packet it is that came up by the bridge.
#[test]
fn what_is_on_something_that_is_on_a_bridge_is_stacked() {
    let vlan = mk_device(8, Some("vlan"), on(BRIDGE));
    let macvlan = mk_device(9, Some("macvlan"), on(8));
    assert_eq!(role(&[vlan, macvlan]), Some(Role::Stacked));
    let vlan = mk_device(8, Some("vlan"), on(HARDWARE));
    let macvlan = mk_device(9, Some("macvlan"), on(8));
    assert_eq!(role(&[vlan, macvlan]), Some(Role::Uplink));
}

#[test]
fn what_is_on_joined_ports_is_what_the_ports_are() {
    let port = |kind, lower| Device { master: Some(IfIndex(8)), ..mk_device(7, kind, lower) };
    let on_bond =
        |port| role(&[port, mk_device(8, Some("bond"), None), mk_device(9, Some("vlan"), on(8))]);
    assert_eq!(on_bond(port(None, None)), Some(Role::Uplink));
    assert_eq!(on_bond(port(Some("vlan"), on(BRIDGE))), Some(Role::Stacked));
}

#[test]
fn what_is_on_a_veth_is_stacked_unless_the_veth_is_an_uplink() {
    let vlan = mk_device(9, Some("vlan"), on(VETH));
    for veth in [Role::Pod, Role::Pending, Role::Foreign] {
        assert_eq!(role_beside(std::slice::from_ref(&vlan), veth), Some(Role::Stacked));
    }
    assert_eq!(role_beside(std::slice::from_ref(&vlan), Role::Uplink), Some(Role::Uplink));
    // Of a pair on the node the other end may be a port of the pods' bridge.
    let pair = mk_device(8, Some("veth"), None);
    let vlan = mk_device(9, Some("vlan"), on(8));
    assert_eq!(role(&[pair, vlan]), Some(Role::Stacked));
}

#[test]
fn devices_in_a_circle_or_on_one_that_is_gone_keep_what_is_tagged_below() {
    let circle = [mk_device(8, Some("vlan"), on(9)), mk_device(9, Some("vlan"), on(8))];
    assert_eq!(role(&circle), Some(Role::Stacked));
    assert_eq!(role(&[mk_device(9, Some("vlan"), on(77))]), Some(Role::Stacked));
}
