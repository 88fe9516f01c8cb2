//! The start-up taint: it goes when the agent has started, and only it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use np_agent::source::api::{Access, Source, Timing};
use np_policy::model::NodeName;
use np_tests::fake_api::{self, FakeApi, Fault, NODES, On};
use serde_json::{Value, json};
use tokio::sync::mpsc::channel;
use tokio::sync::oneshot;

use crate::world::{NODE, cluster, login, quick};

const KEY: &str = "np-agent.io/agent-not-ready";

fn taint(key: &str) -> Value {
    json!({"key": key, "effect": "NoSchedule", "value": "", "later": {"field": 1}})
}

fn set(api: &FakeApi, taints: &[Value]) {
    api.apply(NODES, json!({"metadata": {"name": NODE}, "spec": {"taints": taints}}));
}

fn taints(api: &FakeApi) -> Value {
    let nodes = api.objects(NODES);
    let node = nodes.iter().find(|node| node["metadata"]["name"] == NODE).expect("the node");
    node["spec"]["taints"].clone()
}

async fn agent(api: &FakeApi) -> (oneshot::Sender<()>, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let kubeconfig = api.kubeconfig(dir.path(), "secret").expect("it is ours");
    (agent_with(kubeconfig, quick()).await, dir)
}

async fn agent_with(kubeconfig: PathBuf, timing: Timing) -> oneshot::Sender<()> {
    let source = Source::open(Access::Kubeconfig(kubeconfig), NodeName(NODE.into()), timing).await;
    let mut source = source.unwrap_or_else(|error| panic!("{error}"));
    let started = source.lift_taint(KEY.to_owned());
    let (sender, mut batches) = channel(1);
    tokio::spawn(source.run(sender));
    tokio::spawn(async move { while batches.recv().await.is_some() {} });
    started
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..2000 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not in time");
}

#[tokio::test]
async fn it_stays_until_the_agent_has_started_and_then_it_alone_goes() {
    let api = cluster();
    set(&api, &[taint("a"), taint(KEY), taint("z")]);
    let (started, _dir) = agent(&api).await;
    until(|| api.requests().iter().filter(|request| request.watch()).count() >= 5).await;
    assert_eq!(taints(&api), json!([taint("a"), taint(KEY), taint("z")]));
    started.send(()).expect("it waits");
    until(|| taints(&api) == json!([taint("a"), taint("z")])).await;
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_again() {
    let api = cluster();
    set(&api, &[taint(KEY)]);
    api.fault(On::Patch, Fault::Status(403, "forbidden"), 2);
    api.fault(On::Patch, Fault::BlackHole, 1);
    let (started, _dir) = agent(&api).await;
    started.send(()).expect("it waits");
    until(|| taints(&api) == json!([])).await;
}

/// The watches stand, so nothing else asks for new credentials.
#[tokio::test]
async fn credentials_that_are_refused_are_asked_for_again() {
    let api = cluster();
    set(&api, &[taint(KEY)]);
    api.require_token("one");
    let dir = tempfile::tempdir().expect("a directory");
    let (user, token) = login(dir.path(), "one");
    let kubeconfig = dir.path().join("kubeconfig");
    fs::write(&kubeconfig, fake_api::kubeconfig(&api.url(), &user)).expect("it is ours");
    let long = Duration::from_secs(600);
    let timing = Timing { watch: long..2 * long, line: long, ..quick() };
    let started = agent_with(kubeconfig, timing).await;
    until(|| api.requests().iter().filter(|request| request.watch()).count() >= 5).await;
    fs::write(&token, "two").expect("it is ours");
    api.require_token("two");
    started.send(()).expect("it waits");
    until(|| taints(&api) == json!([])).await;
}

/// Between the question and the change another taint is set: it must not be lost.
#[tokio::test]
async fn a_taint_that_is_set_meanwhile_is_kept() {
    let api = cluster();
    set(&api, &[taint(KEY)]);
    api.fault(On::Patch, Fault::Delay(Duration::from_millis(150)), 1);
    let (started, _dir) = agent(&api).await;
    started.send(()).expect("it waits");
    until(|| api.requests().iter().any(|request| request.method == "PATCH")).await;
    set(&api, &[taint(KEY), taint("other")]);
    until(|| taints(&api) == json!([taint("other")])).await;
}

#[tokio::test]
async fn a_node_without_it_is_not_changed() {
    let api = cluster();
    set(&api, &[taint("a")]);
    let (started, _dir) = agent(&api).await;
    started.send(()).expect("it waits");
    let one = format!("{NODES}/{NODE}");
    until(|| api.requests().iter().any(|request| request.path == one)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(api.requests().iter().all(|request| request.method == "GET"));
    assert_eq!(taints(&api), json!([taint("a")]));
}
