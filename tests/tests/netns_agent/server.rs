//! An agent over an API server: a policy there is enforced, an edit too, and while the server is
//! away nothing changes.

use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use np_tests::agent::Status;
use np_tests::fake_api::{self, ALWAYS, FakeApi, Fault, NAMESPACES, On, PODS, POLICIES, fill};
use serde_json::{Value, json};

use crate::world::{Late, NODE, Shape, World, assert_lost_nothing, eventually};

/// A cluster with its API server in the node's namespace, and an agent that is not started yet.
fn world() -> (World, FakeApi, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut api = None;
    let mut world = World::over_server(|node| {
        let listener = node.run(|| Ok(TcpListener::bind(("127.0.0.1", 0))?));
        let server = FakeApi::on(listener.expect("a listener")).expect("it serves");
        let kubeconfig = server.kubeconfig(dir.path(), "secret").expect("it is ours");
        api = Some(server);
        kubeconfig
    });
    let api = api.expect("it was made");
    fill(&api, &world.cluster.spec);
    // For other programs: the way to the API server is the kubeconfig's.
    let proxy = ["HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"];
    world.agent().extra_env =
        proxy.map(|name| (name.to_owned(), "http://127.0.0.1:9".to_owned())).into();
    (world, api, dir)
}

/// Only pods of these apps may speak to pods that serve.
fn who_may(apps: &[&str]) -> Value {
    let spec = json!({
        "podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": apps}]}}]}],
    });
    fake_api::policy("default/who-may", spec)
}

fn away(status: &Status) -> bool {
    status.api.iter().any(|feed| feed.state == "away" && feed.away.is_some())
}

#[test]
fn a_policy_at_the_server_is_enforced_edited_and_outlives_the_servers_absence() {
    let (mut world, api, _dir) = world();
    api.apply(POLICIES, who_may(&["client"]));
    world.start();
    let status = world.wait("all pods are found", |status| status.endpoints.len() == 4);
    assert!(status.api.iter().all(|feed| feed.listed && feed.state == "watching"), "{status:#?}");
    world.assert_served(true, false, false);
    let (code, said, _) = world
        .agent()
        .explain(&[
            "--from",
            "default/guest",
            "--to",
            "default/server",
            "--port",
            "80",
            "--expect",
            "deny",
        ])
        .expect("it runs");
    assert_eq!(code, 0, "{said}");

    let edited = Instant::now();
    api.apply(POLICIES, who_may(&["client", "guest"]));
    let server = world.address("server");
    eventually("the edit is in force", || world.reaches(world.pod("guest"), server, true).is_ok());
    println!("an edit was in force after {:?}, with the probe that showed it", edited.elapsed());
    world.assert_served(true, true, false);

    let talk = world.talk("client", "server");
    api.fault(On::Anything, Fault::Status(503, "away"), ALWAYS);
    api.disconnect();
    // It stays ready, and says since when.
    world.wait("the server is away", away);
    api.apply(POLICIES, who_may(&["stranger"]));
    thread::sleep(Duration::from_secs(2));
    let status = world.wait("it is still ready", away);
    let told = status.api.iter().find(|feed| feed.resource == "policies").expect("it is told");
    assert!(told.away.is_some_and(|seconds| seconds >= 1), "{told:?}");
    assert!(told.problem.as_ref().is_some_and(|problem| problem.contains("503")), "{told:?}");
    world.assert_served(true, true, false);
    assert_lost_nothing(&talk);

    // A restart while it is away changes nothing either, and is not taken for an empty cluster.
    world.agent().kill().expect("it runs");
    world.start_unready();
    let status =
        world.wait_unready("it waits", |status| away(status) && status.endpoints.len() == 4);
    assert!(status.api.iter().all(|feed| !feed.listed), "{status:#?}");
    world.assert_served(true, true, false);
    assert_lost_nothing(&talk);

    api.heal();
    world.wait("all is listed", |status| status.api.iter().all(|feed| feed.listed));
    world.assert_served(false, false, true);
    let after = world.agent().log();
    assert_eq!(after.matches("away").count().min(1), 1, "{after}");
    world.stop();
}

#[test]
fn before_the_lists_are_whole_nothing_opens_and_nothing_is_cut_off() {
    let (mut world, api, _dir) = world();
    api.apply(POLICIES, who_may(&["client"]));
    api.fault(On::List(NAMESPACES), Fault::Status(403, "forbidden"), ALWAYS);
    let talk = world.talk("guest", "server");
    world.start_unready();
    let status = world.wait_unready("it waits", |status| {
        status
            .diagnostics
            .iter()
            .any(|why| why.contains("not listed yet") && why.contains("namespaces"))
    });
    assert!(status.endpoints.is_empty(), "{status:#?}");
    // Nothing was enforced on this node before: who was there is left alone, who comes is closed.
    world.assert_served(true, true, true);
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    let closed = |world: &World| world.reaches(world.pod("client"), late.address, false).is_ok();
    eventually("who comes is closed", || closed(&world));
    assert_lost_nothing(&talk);
    let log = world.agent().log();
    assert!(log.contains("resources [namespaces], verbs [list, watch]"), "{log}");

    let mut object =
        fake_api::pod("default/late", "uid-late", NODE, &late.address.to_string(), "late");
    object["metadata"]["labels"] = json!({"app": "late"});
    api.apply(PODS, object);
    api.heal();
    let all = Duration::from_secs(30);
    let waited = world.agent().wait(all, |status| status.ready && status.endpoints.len() == 5);
    waited.unwrap_or_else(|error| panic!("{error:#}"));
    world.assert_served(true, false, false);
    world.assert_reaches("client", late.address, true);
}

#[test]
fn a_policy_that_is_not_understood_isolates_and_is_reported() {
    let (mut world, api, _dir) = world();
    let mut odd = who_may(&["client"]);
    odd["spec"]["ingress"][0]["from"][0]["serviceAccount"] = "web".into();
    api.apply(POLICIES, odd);
    world.start();
    let status = world.wait("it is told", |status| status.narrowed.len() == 1);
    assert_eq!(status.narrowed[0]["field"], "spec.ingress[0].from[0].serviceAccount");
    world.assert_served(false, false, false);
    let (_, text, _) = world.agent().subcommand(&["status"]).expect("it runs");
    assert!(text.contains("not fully understood") && text.contains("API SERVER"), "{text}");
    api.apply(POLICIES, who_may(&["client"]));
    world.wait("it is healed", |status| status.narrowed.is_empty());
    world.assert_served(true, false, false);
}
