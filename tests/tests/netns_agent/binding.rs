//! Pods that come and go, in every order of veth and object.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};

use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::probe::IMPATIENCE;
use np_tests::sockets;
use np_tests::topology::{self, host_device};

use crate::world::{CLIENT, Late, Shape, World, client_and_guest, device_of, eventually, links_at};

pub const FILE: &str = "late.yaml";

fn link_pins(world: &mut World, ifindex: u32) -> usize {
    let versions = fs::read_dir(world.agent().pin_dir()).expect("the agent has pins");
    versions
        .flat_map(|version| {
            fs::read_dir(version.expect("an entry").path().join("links")).expect("links")
        })
        .filter(|pin| {
            let name = pin.as_ref().expect("an entry").file_name();
            name.to_string_lossy().starts_with(&format!("{ifindex}-"))
        })
        .count()
}

/// Whether a datagram gets to a pod, answered or not.
pub fn hears(from: &Namespace, pod: &Namespace, address: Ipv4Addr) -> bool {
    let hear = || {
        let socket = sockets::udp((Ipv4Addr::UNSPECIFIED, 7777))?;
        socket.set_read_timeout(Some(IMPATIENCE))?;
        Ok(socket)
    };
    let say = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        Ok(socket.send_to(b"hello", (address, 7777))?)
    };
    let socket = pod.run(hear).expect("the port is free");
    from.run(say).expect("there is a route");
    socket.recv(&mut [0; 16]).is_ok()
}

/// What the node itself sends gets there, and nothing else gets in or out.
#[track_caller]
pub fn assert_pending(world: &World, pod: &Late) {
    let inside = world.pod(pod.name);
    assert!(hears(world.node(), inside, pod.address), "the node's own packets pass");
    assert!(!hears(world.pod("client"), inside, pod.address), "another pod's do not");
    let stranger = world.address("stranger");
    assert!(!hears(inside, world.pod("stranger"), stranger), "its own do not");
    world.assert_reaches("client", pod.address, false);
    world.assert_reaches(pod.name, stranger, false);
}

#[test]
fn a_veth_without_a_pod_object_is_denied_until_the_object_comes() {
    let mut world = World::new(CLIENT);
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    world.wait_role(&late.device(), "pending");
    assert_pending(&world, &late);

    world.apply(FILE, Some(&late.object("server")));
    let device = world.wait_role(&late.device(), "pod");
    assert_eq!(device.pod.as_deref(), Some("default/late"));
    world.assert_reaches("client", late.address, true);
    world.assert_reaches("stranger", late.address, false);
    world.assert_reaches("late", world.address("stranger"), true);
    assert!(hears(world.pod("client"), world.pod("late"), late.address));
}

#[test]
fn a_pod_object_without_a_veth_is_policed_once_the_veth_comes() {
    let mut world = World::new(CLIENT);
    let late = Late::new("late", 50, Shape::Routed);
    world.write(FILE, Some(&late.object("server")));
    // It may be on a device that no program can watch: the user must learn of it.
    let status = world.wait_unready("the pod is named", |status| !status.diagnostics.is_empty());
    let [diagnostic] = &status.diagnostics[..] else { panic!("{:?}", status.diagnostics) };
    assert!(diagnostic.contains("default/late") && diagnostic.contains("default/who-may"));
    world.wire(&late);
    world.wait_role(&late.device(), "pod");
    world.assert_reaches("client", late.address, true);
    world.assert_reaches("stranger", late.address, false);
}

#[test]
fn a_deleted_pod_is_policed_by_its_last_labels_while_its_veth_lives() {
    let mut world = World::new(CLIENT);
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    world.apply(FILE, Some(&late.object("server")));
    let device = world.wait_role(&late.device(), "pod");

    world.apply(FILE, None);
    world.wait_role(&late.device(), "pod");
    world.assert_reaches("client", late.address, true);
    world.assert_reaches("guest", late.address, false);
    world.apply(POLICIES, Some(&client_and_guest()));
    world.assert_reaches("guest", late.address, true);
    world.assert_reaches("stranger", late.address, false);
    // The next agent has the labels from the one before.
    world.stop();
    world.start();
    world.wait_role(&late.device(), "pod");
    world.assert_reaches("guest", late.address, true);
    world.assert_reaches("stranger", late.address, false);

    assert_eq!(link_pins(&mut world, device.ifindex), links_at(1));
    world.unwire(&late);
    world.wait("the endpoint is gone", |status| {
        device_of(status, &late.device()).is_none()
            && status.endpoints.iter().all(|endpoint| endpoint.pod != "default/late")
    });
    eventually("the pins are gone", || link_pins(&mut world, device.ifindex) == 0);
}

/// The second pod has the first one's name of device and index, and nothing says to the agent who it
/// is: it must not inherit what the first was allowed.
#[test]
fn an_index_that_comes_again_starts_as_pending() {
    let mut world = World::new(CLIENT);
    let first = Late::new("late", 50, Shape::Routed);
    world.wire(&first);
    world.apply(FILE, Some(&first.object("client")));
    let ifindex = world.wait_role(&first.device(), "pod").ifindex;
    world.assert_reaches("late", world.address("server"), true);

    world.unwire(&first);
    let second = Late { index: Some(ifindex), ..Late::new("late", 60, Shape::Routed) };
    world.wire(&second);
    let device = world.wait_role_unready(&second.device(), "pending");
    assert_eq!(device.ifindex, ifindex);
    assert_pending(&world, &second);
    world.assert_reaches("late", world.address("server"), false);
}

#[test]
fn an_index_that_comes_again_while_the_agent_is_down_starts_as_pending() {
    let mut world = World::new(CLIENT);
    let first = Late::new("late", 50, Shape::Routed);
    world.wire(&first);
    world.apply(FILE, Some(&first.object("client")));
    let ifindex = world.wait_role(&first.device(), "pod").ifindex;
    world.assert_reaches("late", world.address("server"), true);

    world.stop();
    world.unwire(&first);
    let second = Late { index: Some(ifindex), ..Late::new("late", 60, Shape::Routed) };
    world.wire(&second);
    world.start_unready();
    let device = world.wait_role_unready(&second.device(), "pending");
    assert_eq!(device.ifindex, ifindex);
    assert_pending(&world, &second);
    world.assert_reaches("late", world.address("server"), false);
}

#[test]
fn pins_of_a_device_that_went_while_the_agent_was_down_are_removed() {
    let mut world = World::new(CLIENT);
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    world.apply(FILE, Some(&late.object("client")));
    let ifindex = world.wait_role(&late.device(), "pod").ifindex;
    assert_eq!(link_pins(&mut world, ifindex), links_at(1));
    world.stop();
    world.unwire(&late);
    world.start_unready();
    world.wait_unready("the endpoint is gone", |status| {
        status.endpoints.iter().all(|endpoint| endpoint.pod != "default/late")
    });
    eventually("the pins are gone", || link_pins(&mut world, ifindex) == 0);
}

/// On a bridge only the address inside tells whose veth it is, and anyone may take an address.
#[test]
fn an_address_belongs_to_the_veth_that_had_it_first() {
    let mut world = World::new(CLIENT);
    world.add_bridge();
    let (first, other) =
        (Late::new("first", 140, Shape::Bridged), Late::new("other", 150, Shape::Bridged));
    world.wire(&first);
    world.wire(&other);
    let objects = format!("{}---\n{}", first.object("client"), other.object("server"));
    world.apply(FILE, Some(&objects));
    world.wait_role(&first.device(), "pod");
    world.wait_role(&other.device(), "pod");
    world.assert_reaches("first", other.address, true);
    world.assert_reaches("stranger", other.address, false);

    let thief = Late { name: "thief", ..first };
    world.wire(&thief);
    world.wait_role(&thief.device(), "pending");
    for round in 0..3 {
        let status = world.agent().status().unwrap();
        let bound = device_of(&status, &first.device()).unwrap();
        assert_eq!(bound.pod.as_deref(), Some("default/first"), "round {round}");
        let stolen = device_of(&status, &thief.device()).unwrap();
        assert_eq!((stolen.role.as_str(), &stolen.pod), ("pending", &None), "round {round}");
        world.assert_reaches("thief", other.address, false);
        world.assert_reaches("thief", world.address("server"), false);
        match round {
            0 => world.stop(),
            1 => world.agent().kill().unwrap(),
            _ => break,
        }
        world.start();
    }
    world.unwire(&thief);
    world.wait("the thief is gone", |status| device_of(status, &thief.device()).is_none());
    eventually("the first is heard again", || {
        world.reaches(world.pod("first"), other.address, true).is_ok()
    });
}

/// Another network's plugin, or a slip of its configuration, gives a pod a second veth on which it
/// takes a neighbour's address. It is the pod's own second veth all the same: the address counts for
/// nothing.
#[test]
fn a_second_veth_with_a_neighbours_address_has_none_of_its_rights() {
    let row = matrix::row("Attacks", "a second veth that claims a neighbour's address");
    let mut world = World::new(CLIENT);
    let (client, server) = (world.address("client"), world.address("server"));
    let second = host_device("second");
    world
        .node()
        .ip(&format!(
            "link add {second} type veth peer name eth1 netns {}\nlink set {second} up",
            world.pod("stranger").path().display()
        ))
        .unwrap();
    topology::answer_for_gateway(world.node(), &second).unwrap();
    world
        .pod("stranger")
        .ip(&format!(
            "addr add {client}/32 dev eth1\nlink set eth1 up\n\
         route add {server}/32 via 169.254.1.1 dev eth1 onlink src {client}"
        ))
        .unwrap();
    for round in 0..4 {
        let device = world.wait_role(&second, "pod");
        assert_eq!(device.pod.as_deref(), Some("default/stranger"), "round {round}");
        let status = world.agent().status().unwrap();
        let bound = device_of(&status, &host_device("client")).unwrap();
        assert_eq!(bound.pod.as_deref(), Some("default/client"), "round {round}");

        let before = refused(&mut world);
        // A gateway that has not answered is asked again only after a while.
        let tries = (0..5).take_while(|_| {
            let heard = hears(world.pod("stranger"), world.pod("server"), server);
            assert!(!heard, "round {round}");
            refused(&mut world) <= before
        });
        assert!(tries.count() < 5, "nothing was refused in round {round}");
        world.assert_reaches("stranger", server, false);
        // The neighbour works as before, and answers come to nobody else.
        world.assert_reaches("client", server, true);
        assert!(hears(world.pod("server"), world.pod("client"), client), "round {round}");
        match round {
            0 => world.stop(),
            1 => world.agent().kill().unwrap(),
            // Nothing is left of what an earlier agent knew.
            2 => {
                world.stop();
                clean_up(&mut world)
            }
            _ => break,
        }
        world.start();
    }
    world.stop();
    clean_up(&mut world);
    let heard = (0..5).any(|_| hears(world.pod("stranger"), world.pod("server"), server));
    assert!(heard, "no agent: the node takes the packets");
    row.holds();
}

/// What pods could not send, or ask the way for, because of the address that they gave.
fn refused(world: &mut World) -> u64 {
    let status = world.agent().status().expect("the agent runs");
    ["source-address", "address-claim"].map(|reason| status.count("from_pod", reason)).iter().sum()
}

pub fn clean_up(world: &mut World) {
    let (code, out, err) = world.agent().subcommand(&["cleanup"]).expect("it runs");
    assert_eq!(code, 0, "{out}{err}");
}
