//! What others do to our programs and maps while an agent runs: put right, or named.

use std::path::PathBuf;

use aya::maps::{HashMap, Map, MapData};
use np_agent::dataplane::Mechanism;
use np_tests::bpf::{self, TcSide};
use np_tests::matrix;
use np_tests::netns::Namespace;

use crate::world::{CLIENT, SETTLE, World, device_of, eventually};

/// A world whose agent looks at everything once a second.
fn watched() -> World {
    let mut world = World::new(CLIENT);
    world.stop();
    world.agent().extra_args = vec!["--check-every".into(), "1".into()];
    world.start();
    world
}

fn version(world: &mut World) -> PathBuf {
    world.agent().pin_dir().join(format!("v{}", np_common::ABI_VERSION))
}

fn repairs(world: &mut World) -> u64 {
    let text = world.agent().status_text().expect("the agent runs");
    let status: serde_json::Value = serde_json::from_str(&text).expect("the status is JSON");
    status["repairs"].as_u64().expect("repairs are a number")
}

#[test]
fn a_program_that_somebody_takes_off_a_device_is_put_back() {
    let mut world = watched();
    let status = world.agent().status().unwrap();
    let ifindex = device_of(&status, "v-server").unwrap().ifindex;
    assert_eq!(repairs(&mut world), 0);
    match Mechanism::of_kernel().unwrap() {
        Mechanism::Tcx => {
            let links = version(&mut world).join("links");
            std::fs::remove_file(links.join(format!("{ifindex}-egress"))).unwrap();
        }
        Mechanism::Clsact => drop(world.node().call("tc qdisc del dev v-server clsact").unwrap()),
    }
    eventually("the program is put back", || repairs(&mut world) > 0);
    world.wait("it is in force again", |_| true);
    world.assert_served(true, false, false);
    assert!(world.agent().log().contains("was not there any more"), "{}", world.agent().log());
}

/// Entries of LOCAL go, as another process with CAP_BPF could make them go.
#[test]
fn a_map_that_somebody_has_changed_is_put_right() {
    let row = matrix::row("Life", "a map changed by another process");
    let mut world = watched();
    let pin = version(&mut world).join("maps/LOCAL");
    let local = Map::HashMap(MapData::from_pin(&pin).unwrap());
    let mut local: HashMap<_, [u8; 16], u32> = local.try_into().unwrap();
    let keys: Vec<[u8; 16]> = local.keys().map(Result::unwrap).collect();
    assert!(keys.len() >= 4, "one for each pod and family");
    for key in &keys {
        local.remove(key).unwrap();
    }
    eventually("all entries are there again", || local.keys().count() == keys.len());
    assert_eq!(repairs(&mut world), 1);
    world.wait("it is ready", |_| true);
    assert!(world.agent().log().contains("LOCAL"), "{}", world.agent().log());
    world.assert_served(true, false, false);
    row.holds();
}

/// Its OK makes the kernel write over the tag: events tell of it at once.
#[test]
fn a_filter_that_can_write_over_the_tag_keeps_the_agent_from_ready_by_name() {
    let mut world = World::new(CLIENT);
    let node: Namespace = world.node().clone();
    let program = bpf::load("neighbour", &bpf::returns(0)).unwrap();
    let pin = world.agents.pins().join("neighbour");
    bpf::pin(&program, &pin).unwrap();
    if Mechanism::of_kernel().unwrap() == Mechanism::Tcx {
        node.call("tc qdisc add dev v-server clsact").unwrap();
    }
    bpf::filter(&node, "v-server", TcSide::Ingress, 9, &pin).unwrap();
    let found = world.agent().wait(SETTLE, |status| !status.ready).unwrap();
    let [found] = found.diagnostics.as_slice() else { panic!("{:?}", found.diagnostics) };
    for part in ["v-server", "ingress", "pref 9", "tc_index", "tc filter del"] {
        assert!(found.contains(part), "{part}: {found}");
    }
    let (_, out, _) = world.agent().subcommand(&["check"]).unwrap();
    assert!(out.contains("not ready"), "{out}");
    world.assert_served(true, false, false);
    node.call("tc filter del dev v-server ingress pref 9").unwrap();
    world.wait("it is ready again", |_| true);
}
