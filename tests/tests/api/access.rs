//! Who the agent is to the server, and what happens when that changes while it runs.

use std::fs;
use std::time::Duration;

use np_agent::source::api::{Access, Resource, Source, Timing};
use np_policy::model::NodeName;
use np_tests::fake_api::{self, FakeApi, PODS};
use serde_json::{Value, json};

use crate::world::{Follower, NODE, cluster, login, quick};

async fn follow(api: &FakeApi, user: &Value) -> (Follower, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kubeconfig");
    fs::write(&file, fake_api::kubeconfig(&api.url(), user)).expect("it is ours");
    (Follower::over(dir, file.clone(), quick()).await, file)
}

fn last_bearer(api: &FakeApi) -> String {
    let requests = api.requests();
    requests
        .last()
        .and_then(|request| request.headers.get("authorization"))
        .cloned()
        .unwrap_or_default()
}

#[tokio::test]
async fn a_kubeconfig_that_changes_is_taken_up_with_the_next_request() {
    let api = cluster();
    api.require_token("one");
    let (mut follower, file) = follow(&api, &json!({"token": "one"})).await;
    follower.until(|f| f.equals(&api)).await;
    api.require_token("two");
    fs::write(&file, fake_api::kubeconfig(&api.url(), &json!({"token": "two"})))
        .expect("it is ours");
    api.disconnect();
    api.apply(PODS, fake_api::pod("default/new", "uid-new", NODE, "10.0.0.7", "new"));
    follower.until(|f| f.equals(&api)).await;
    assert_eq!(last_bearer(&api), "Bearer two");
    assert!(
        follower.feed(Resource::OwnPods).relists.is_empty(),
        "who we are is no matter of lists"
    );
}

#[tokio::test]
async fn a_token_file_that_is_rotated_is_read_again() {
    let api = cluster();
    api.require_token("one");
    let place = tempfile::tempdir().expect("a directory");
    let token = place.path().join("token");
    fs::write(&token, "one").expect("it is ours");
    let (mut follower, _) = follow(&api, &json!({"tokenFile": token})).await;
    follower.until(|f| f.equals(&api)).await;
    api.require_token("two");
    api.disconnect();
    // Not renewed yet: away, and nothing changes.
    follower.until(|f| f.feed(Resource::Policies).problem.is_some_and(|p| p.contains("401"))).await;
    fs::write(&token, "second").expect("it is ours");
    api.require_token("second");
    follower.until(|f| f.equals(&api) && f.feed(Resource::Policies).state == "watching").await;
}

#[tokio::test]
async fn a_program_that_gives_credentials_is_run_again_when_they_are_refused() {
    let api = cluster();
    api.require_token("one");
    let place = tempfile::tempdir().expect("a directory");
    let (exec, token) = login(place.path(), "one");
    let (mut follower, _) = follow(&api, &exec).await;
    follower.until(|f| f.equals(&api)).await;
    fs::write(&token, "two").expect("it is ours");
    api.require_token("two");
    api.disconnect();
    api.apply(PODS, fake_api::pod("default/new", "uid-new", NODE, "10.0.0.7", "new"));
    follower.until(|f| f.equals(&api)).await;
}

#[tokio::test]
async fn a_kubeconfig_that_becomes_unreadable_leaves_the_client_that_works() {
    let api = cluster();
    let (mut follower, file) = follow(&api, &json!({"token": "one"})).await;
    follower.until(|f| f.equals(&api)).await;
    fs::write(&file, "no kubeconfig").expect("it is ours");
    api.disconnect();
    api.apply(PODS, fake_api::pod("default/new", "uid-new", NODE, "10.0.0.7", "new"));
    follower.until(|f| f.equals(&api)).await;
}

#[tokio::test]
async fn a_client_does_not_get_old() {
    let api = cluster();
    let ms = Duration::from_millis;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("kubeconfig");
    fs::write(&file, fake_api::kubeconfig(&api.url(), &json!({"token": "one"})))
        .expect("it is ours");
    let timing = Timing { client: ms(50)..ms(100), ..quick() };
    let mut follower = Follower::over(dir, file, timing).await;
    follower.until(|f| f.equals(&api)).await;
    tokio::time::sleep(ms(150)).await;
    api.disconnect();
    api.apply(PODS, fake_api::pod("default/new", "uid-new", NODE, "10.0.0.7", "new"));
    follower.until(|f| f.equals(&api)).await;
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_refused_with_its_remedy() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("kubeconfig");
    let with_ca = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1",
            "certificate-authority": "/does/not/exist"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    for (text, said) in [
        (None, "name a kubeconfig that this process may read"),
        (Some("kind: Config".to_owned()), "name a kubeconfig"),
        (Some(with_ca.to_string()), "/does/not/exist"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).expect("it is ours");
        }
        let access = Access::Kubeconfig(file.clone());
        let opened = Source::open(access, NodeName(NODE.into()), quick()).await;
        let error = opened.map(drop).expect_err("it cannot be used").to_string();
        assert!(error.contains(said) && error.contains("--kubeconfig"), "{error}");
    }
}
