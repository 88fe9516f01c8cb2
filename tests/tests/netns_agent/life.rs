//! Starts, stops and edits of a running agent.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use np_tests::agent::POLICIES;
use np_tests::bpf::ObjectId;

use crate::world::{CLIENT, World, assert_lost_nothing, client_and_guest, eventually, links_at};

/// The kernel's ids of the links and maps pinned under a directory, and of the links' programs.
fn pinned(pin_dir: &Path) -> BTreeSet<ObjectId> {
    let entries = |kind: &str| {
        let versions = fs::read_dir(pin_dir).expect("the agent has pins");
        let directories = versions.map(|version| version.expect("an entry").path().join(kind));
        directories
            .flat_map(|directory| fs::read_dir(directory).expect("a directory of pins"))
            .map(|entry| entry.expect("an entry").path())
            .collect::<Vec<_>>()
    };
    let mut ids = BTreeSet::new();
    for path in entries("links") {
        let info = FdLink::from(PinnedLink::from_pin(path).expect("a pinned link"))
            .info()
            .expect("a link's info");
        ids.extend([ObjectId::Link(info.id()), ObjectId::Program(info.program_id())]);
    }
    for path in entries("maps") {
        ids.insert(ObjectId::Map(MapInfo::from_pin(path).expect("a pinned map").id()));
    }
    ids
}

fn lasting(ids: &BTreeSet<ObjectId>) -> BTreeSet<ObjectId> {
    ids.iter().copied().filter(|id| !matches!(id, ObjectId::Program(_))).collect()
}

#[test]
fn enforcement_outlives_the_agent_until_cleanup() {
    let mut world = World::new(CLIENT);
    world.assert_served(true, false, false);
    let talk = world.talk("client", "server");
    let pin_dir = world.agent().pin_dir().to_owned();
    let before = pinned(&pin_dir);
    // Both sides of four pods and the uplink, and of a tunnel where the kernel makes one by itself.
    let status = world.agent().status().unwrap();
    let devices = status.devices.iter().filter(|device| device.role != "none").count();
    assert!(devices >= 5, "{:?}", status.devices);
    assert_eq!(
        before.iter().filter(|id| matches!(id, ObjectId::Link(_))).count(),
        links_at(devices)
    );

    world.stop();
    world.assert_served(true, false, false);
    assert_eq!(pinned(&pin_dir), before, "a stop leaves everything in place");
    let down = status_of_the_dead(&mut world);
    assert_eq!(down["agent"], "down");
    assert_eq!(down["ready"], false);
    let endpoints = down["endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 4);
    let server = endpoints.iter().find(|e| e["pod"] == "default/server").unwrap();
    assert_eq!(server["ingress"]["isolated"], true);
    assert_eq!(server["ingress"]["policies"], serde_json::json!(["default/who-may"]));
    let denied = denied(&down);
    assert!(denied > 0, "{down:#}");
    world.assert_served(true, false, false);
    assert!(self::denied(&status_of_the_dead(&mut world)) > denied, "packets are still counted");

    world.start();
    world.assert_served(true, false, false);
    assert_eq!(lasting(&pinned(&pin_dir)), lasting(&before), "a restart adopts links and maps");
    assert_lost_nothing(&talk);

    let (code, _, err) = world.agent().subcommand(&["cleanup"]).unwrap();
    assert_eq!(code, 1, "no cleanup under a running agent");
    assert!(err.contains("stop it first"), "{err}");
    world.assert_served(true, false, false);

    let all = pinned(&pin_dir);
    world.stop();
    let (code, out, err) = world.agent().subcommand(&["cleanup"]).unwrap();
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&format!("removed {} links", 2 * devices)), "{out}");
    assert!(!pin_dir.exists());
    for id in all.union(&before) {
        eventually(&format!("{id:?} is gone"), || !id.exists().unwrap());
    }
    world.assert_served(true, true, true);
    assert_lost_nothing(&talk);
}

fn status_of_the_dead(world: &mut World) -> serde_json::Value {
    let (code, out, err) =
        world.agent().subcommand(&["status", "-o", "json"]).expect("np-agent runs");
    assert_eq!(code, 1, "{out}{err}");
    serde_json::from_str(&out).expect("the status is JSON")
}

fn denied(status: &serde_json::Value) -> u64 {
    let counters = status["counters"].as_array().expect("counters are a list");
    let denied = counters.iter().filter(|counter| counter["reason"] == "ingress-denied");
    denied.map(|counter| counter["packets"].as_u64().expect("packets are a number")).sum()
}

#[test]
fn an_edit_cuts_what_it_no_longer_allows_and_nothing_else() {
    let mut world = World::new(&client_and_guest());
    world.assert_served(true, true, false);
    let kept = world.talk("client", "server");
    let cut = world.talk("guest", "server");

    world.apply(POLICIES, Some(CLIENT));
    world.assert_served(true, false, false);
    assert!(cut.stalls(Duration::from_millis(500)), "the established connection goes on");
    assert_lost_nothing(&kept);

    world.apply(POLICIES, Some(&client_and_guest()));
    world.assert_served(true, true, false);
    assert!(cut.goes_on(5, Duration::from_secs(6)), "allowed again, it was never reset");

    world.apply(POLICIES, None);
    world.assert_served(true, true, true);
    assert_lost_nothing(&kept);
}

#[test]
fn a_malformed_edit_keeps_the_last_good_version_over_a_restart() {
    let mut world = World::new(CLIENT);
    let talk = world.talk("client", "server");
    // The value stands in line 9, from column 17.
    let malformed = CLIENT.replace("[Ingress]", "[Ingres]");
    world.apply(POLICIES, Some(&malformed));
    assert_reported(&mut world);
    world.assert_served(true, false, false);

    world.stop();
    assert!(world.agent().run_dir().join("manifests.json").exists());
    world.start();
    assert_reported(&mut world);
    world.assert_served(true, false, false);

    world.agent().kill().unwrap();
    world.start();
    assert_reported(&mut world);
    world.assert_served(true, false, false);

    world.apply(POLICIES, Some(&client_and_guest()));
    assert!(world.agent().status().unwrap().invalid.is_empty());
    world.assert_served(true, true, false);
    // Gone is not malformed: a file removed takes its policies along.
    world.apply(POLICIES, None);
    world.assert_served(true, true, true);
    assert_lost_nothing(&talk);
}

fn assert_reported(world: &mut World) {
    let file = world.agents.manifests().join(POLICIES);
    let status = world.agent().status().expect("the agent runs");
    let [invalid] = status.invalid.as_slice() else { panic!("{:#?}", status.invalid) };
    let place = format!("{}:{}:{}", invalid.file, invalid.line, invalid.column);
    assert_eq!(place, format!("{}:9:17", file.display()), "{invalid:#?}");
    assert!(invalid.value.contains("Ingres"), "{invalid:#?}");
    let (_, shown, _) = world.agent().subcommand(&["status"]).expect("np-agent runs");
    assert!(shown.contains(&place), "{shown}");
    assert!(world.agent().log().contains(&place));
    let endpoint = status
        .endpoints
        .iter()
        .find(|e| e.pod == "default/server")
        .expect("the server is an endpoint");
    assert_eq!(endpoint.ingress.policies, ["default/who-may"]);
}
