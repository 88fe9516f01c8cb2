//! Whose a veth is, where the obvious does not say it: addresses from elsewhere, several veths,
//! addresses that move, and containers of nobody.

use std::net::Ipv4Addr;

use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::topology;

use crate::binding::{FILE, assert_pending, clean_up, hears};
use crate::devices::deny;
use crate::world::{BRIDGE, CLIENT, GATEWAY, Late, Shape, World, device_of};

/// Some IPAMs take addresses from elsewhere than the node's podCIDRs, and the API shows an address
/// after the first container runs.
#[test]
fn a_pod_outside_the_nodes_ranges_is_closed_until_the_api_shows_its_address() {
    let row = matrix::row("Attacks", "a new pod outside the node's podCIDRs");
    for shape in [Shape::Routed, Shape::Bridged] {
        let mut world = World::new(CLIENT);
        world.add_bridge();
        let address = match shape {
            Shape::Routed => Ipv4Addr::new(100, 70, 56, 1),
            Shape::Bridged => Ipv4Addr::new(100, 70, 57, 2),
        };
        world.node().ip(&format!("addr add 100.70.57.1/25 dev {BRIDGE}")).expect("it can be done");
        let late = Late { address, ..Late::new("late", 0, shape) };
        let object = late.object("server");
        let (unknown, _) = object.split_once("status:").expect("a pod has a status");
        world.apply(FILE, Some(&format!("{unknown}status: {{phase: Pending}}\n")));
        world.wire(&late);
        world.wait_role(&late.device(), "pending");
        assert_pending(&world, &late);
        // A gateway behind it makes no uplink of it.
        world.node().ip(&format!("route add 10.8.0.0/24 via {address}")).expect("it can be done");
        world.wait_role(&late.device(), "pending");
        assert_pending(&world, &late);

        world.apply(FILE, Some(&object));
        world.wait_role(&late.device(), "pod");
        world.assert_reaches("client", address, true);
        world.assert_reaches("stranger", address, false);
    }
    row.holds();
}

const SECOND: Ipv4Addr = Ipv4Addr::new(169, 254, 172, 2);

/// A second veth of a pod, with routes as a plugin makes them for a second family or network.
fn add_veth(world: &World, pod: &str, device: &str, address: Ipv4Addr) {
    let inside = world.pod(pod);
    let ip = |at: &Namespace, batch: &str| at.ip(batch).expect("it can be done");
    ip(
        world.node(),
        &format!(
            "link add {device} type veth peer name {device} netns {}\nlink set {device} up\n\
             route add {address}/32 dev {device}",
            inside.path().display()
        ),
    );
    topology::answer_for_gateway(world.node(), device).expect("it can be done");
    let stranger = world.address("stranger");
    ip(
        inside,
        &format!(
            "addr add {address}/32 dev {device}\nlink set {device} up\n\
             route add {stranger}/32 via 169.254.1.1 dev {device} onlink src {address}"
        ),
    );
}

/// The address is none that the API knows, so nothing but the namespace says whose the veth is.
#[test]
fn every_veth_of_a_pod_is_policed_as_the_pod() {
    let row = matrix::row("Topologies", "a second veth of a pod, of another family or network");
    let mut world = World::new(CLIENT);
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    add_veth(&world, "late", "second0", SECOND);
    world.wait_role("second0", "pending");
    assert!(!hears(world.pod("late"), world.pod("stranger"), world.address("stranger")));

    world.apply(FILE, Some(&late.object("two-legged")));
    let stranger = world.address("stranger");
    for round in 0..2 {
        for device in ["second0", &late.device()] {
            let device = world.wait_role(device, "pod");
            assert_eq!(device.pod.as_deref(), Some("default/late"), "round {round}");
        }
        world.apply(POLICIES, Some(CLIENT));
        world.assert_reaches("late", stranger, true);
        world.assert_reaches("late", world.address("guest"), true);
        world.assert_reaches("stranger", SECOND, true);
        world.apply(POLICIES, Some(&deny("two-legged", "Egress")));
        world.assert_reaches("late", stranger, false);
        world.assert_reaches("late", world.address("guest"), false);
        world.assert_reaches("stranger", SECOND, true);
        world.apply(POLICIES, Some(&deny("two-legged", "Ingress")));
        world.assert_reaches("late", stranger, true);
        world.assert_reaches("stranger", SECOND, false);
        world.assert_reaches("stranger", late.address, false);
        if round == 0 {
            world.stop();
            world.start();
        }
    }
    // A veth of a container of nobody is nobody's.
    let container = Namespace::new("container").expect("it can be done");
    let batch = format!(
        "link add third0 type veth peer name eth0 netns {}\nlink set third0 up",
        container.path().display()
    );
    world.node().ip(&batch).expect("it can be done");
    world.wait_role("third0", "pending");
    row.holds();
}

/// Takes the address from the pod's device, as what runs it by software of its own does, and gives
/// it to another in the pod's namespace, or to none.
fn take_address(world: &World, pod: &Late, to: Option<&str>) {
    let address = pod.address;
    let device = to.filter(|device| *device != "lo");
    let made = device.map(|device| format!("link add {device} type veth peer name x-{device}\n"));
    let moved = to.map(|to| {
        format!(
            "addr add {address}/32 dev {to}\nlink set {to} up\n\
             route add {GATEWAY}/32 dev eth0 src {address}\n\
             route add default via {GATEWAY} dev eth0 src {address}\n"
        )
    });
    let batch = [made, Some(format!("addr del {address}/25 dev eth0\n")), moved];
    world
        .pod(pod.name)
        .ip(&batch.into_iter().flatten().collect::<String>())
        .expect("it can be done");
}

#[test]
fn a_pod_is_found_by_an_address_that_moves_inside_it() {
    let row = matrix::row("Topologies", "a sandbox that takes its address off the veth");
    let mut world = World::new(CLIENT);
    world.add_bridge();
    let before = Late::new("before", 140, Shape::Bridged);
    let after = Late::new("after", 150, Shape::Bridged);
    let gone = Late::new("gone", 160, Shape::Bridged);
    for late in [&before, &after, &gone] {
        world.wire(late);
        world.wait_role(&late.device(), "pending");
    }
    take_address(&world, &before, Some("vm0"));
    take_address(&world, &gone, None);
    let objects = [&before, &after, &gone].map(|late| late.object("server")).join("---\n");
    world.apply(FILE, Some(&objects));
    take_address(&world, &after, Some("lo"));
    for round in 0..3 {
        for late in [&before, &after, &gone] {
            let device = world.wait_role(&late.device(), "pod");
            assert_eq!(device.pod, Some(format!("default/{}", late.name)), "round {round}");
        }
        for late in [&before, &after] {
            world.assert_reaches("client", late.address, true);
            world.assert_reaches("stranger", late.address, false);
        }
        match round {
            0 => world.stop(),
            1 => {
                // The first agent of the node finds them as they are. What is nowhere any more is
                // found by nobody, and stays closed.
                world.unwire(&gone);
                let objects = [&before, &after].map(|late| late.object("server")).join("---\n");
                world.apply(FILE, Some(&objects));
                world.stop();
                clean_up(&mut world);
                world.start();
                for late in [&before, &after] {
                    world.wait_role(&late.device(), "pod");
                    world.assert_reaches("client", late.address, true);
                    world.assert_reaches("stranger", late.address, false);
                }
                break;
            }
            _ => break,
        }
        world.start();
    }
    row.holds();
}

/// While the agent is down, a pod takes an address that looks like another runtime's, and keeps its
/// own where few look.
#[test]
fn a_pod_that_hides_its_address_while_the_agent_is_down_stays_policed() {
    let row = matrix::row("Attacks", "a pod changes its address while the agent is down");
    let mut world = World::new(CLIENT);
    world.add_bridge();
    world.node().ip(&format!("addr add 172.17.0.1/16 dev {BRIDGE}")).expect("it can be done");
    world.stop();
    let hiding = Late::new("hiding", 140, Shape::Bridged);
    world.wire(&hiding);
    take_address(&world, &hiding, Some("lo"));
    world.pod("hiding").ip("addr add 172.17.0.2/16 dev eth0").expect("it can be done");
    world.write(FILE, Some(&hiding.object("hiding")));
    let sealed = format!("{}---\n{}", deny("hiding", "Ingress"), deny("hiding", "Egress"));
    world.write(POLICIES, Some(&sealed));
    world.start();
    let device = world.wait_role(&hiding.device(), "pod");
    assert_eq!(device.pod.as_deref(), Some("default/hiding"));
    let stranger = world.address("stranger");
    world.assert_reaches("hiding", stranger, false);
    world.assert_reaches("stranger", hiding.address, false);
    world.assert_reaches("stranger", Ipv4Addr::new(172, 17, 0, 2), false);
    assert!(!hears(world.pod("hiding"), world.pod("stranger"), stranger));
    row.holds();
}

/// A pod that is known takes all addresses of the bridge: those who come later are not cut off.
#[test]
fn addresses_that_a_known_pod_takes_keep_nobody_out() {
    let row = matrix::row("Attacks", "a pod that takes its neighbours' addresses in advance");
    let mut world = World::new(CLIENT);
    world.add_bridge();
    let hostile = Late::new("hostile", 140, Shape::Bridged);
    world.wire(&hostile);
    world.apply(FILE, Some(&hostile.object("hostile")));
    world.wait_role(&hostile.device(), "pod");
    let taken: String =
        (150..200).map(|last| format!("addr add 100.68.1.{last}/25 dev eth0\n")).collect();
    world.pod("hostile").ip(&taken).expect("it can be done");

    let late = Late::new("late", 160, Shape::Bridged);
    world.wire(&late);
    world.write(FILE, Some(&format!("{}---\n{}", hostile.object("hostile"), late.object("late"))));
    let device = world.wait_role(&late.device(), "pod");
    assert_eq!(device.pod.as_deref(), Some("default/late"));
    let status = world.agent().status().expect("it can be done");
    let hostile = device_of(&status, &hostile.device()).expect("it is there");
    assert_eq!(hostile.pod.as_deref(), Some("default/hostile"));
    row.holds();
}

const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 17, 0, 2);

/// A container of another runtime, on a bridge of its own that the user names.
fn add_container(world: &mut World) -> Namespace {
    let container = Namespace::new("container").expect("it can be done");
    world
        .node()
        .ip(&format!(
            "link add docker0 type bridge\naddr add 172.17.0.1/16 dev docker0\nlink set docker0 up\n\
             link add veth-c type veth peer name eth0 netns {}\nlink set veth-c master docker0 up",
            container.path().display()
        ))
        .expect("it can be done");
    container
        .ip(&format!(
            "link set lo up\naddr add {CONTAINER}/16 dev eth0\nlink set eth0 up\n\
             route add default via 172.17.0.1"
        ))
        .expect("it can be done");
    world.wait_role("veth-c", "pending");
    world.stop();
    world.agent().extra_args = vec!["--foreign".into(), "docker0".into()];
    world.start();
    world.wait_role("veth-c", "foreign");
    container
}

#[test]
fn a_container_on_a_bridge_that_the_user_names_is_policed_as_an_outsider() {
    let row = matrix::row("Neighbours", "containers on a bridge named by --foreign");
    let mut world = World::new(CLIENT);
    let container = add_container(&mut world);
    let (server, stranger) = (world.address("server"), world.address("stranger"));
    world.reaches(&container, stranger, true).expect("it can be done");
    world.reaches(&container, server, false).expect("it can be done");
    // While a pod is nowhere, the container may be it.
    let lost = Late::new("lost", 50, Shape::Routed);
    world.write(FILE, Some(&lost.object("server")));
    world.wait_role_unready("veth-c", "pending");
    world.reaches(&container, stranger, false).expect("it can be done");
    world.wire(&lost);
    world.wait_role("veth-c", "foreign");
    world.reaches(&container, stranger, true).expect("it can be done");
    // A bridge with a pod is not foreign, whatever the user says.
    world.node().ip(&format!("link set {} master docker0", lost.device())).expect("it can be done");
    world.wait_role("veth-c", "pending");
    row.holds();
}

#[test]
fn a_foreign_destination_does_not_exempt_the_sender() {
    let row = matrix::row("Attacks", "egress policy towards containers that are not pods");
    let mut world = World::new(CLIENT);
    let container = add_container(&mut world);
    assert!(hears(world.pod("stranger"), &container, CONTAINER));
    world.apply(POLICIES, Some(&deny("stranger", "Egress")));
    assert!(!hears(world.pod("stranger"), &container, CONTAINER));
    assert!(hears(world.pod("guest"), &container, CONTAINER));
    row.holds();
}
