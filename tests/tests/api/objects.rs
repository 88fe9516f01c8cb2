//! Objects that an older agent cannot understand, and lines that are no events: others work, and
//! what is not understood allows nothing.

use std::time::Duration;

use np_agent::source::api::Resource;
use np_policy::model::{Change, ObjectKey};
use np_tests::fake_api::{self, Fault, NAMESPACES, On, PODS, POLICIES};
use serde_json::{Value, json};

use crate::world::{Follower, NODE, admits, cluster, who_may};

#[tokio::test]
async fn an_alien_object_in_a_page_or_an_event_hides_no_other_and_is_reported() {
    let alien_peer = json!({"podSelector": {}, "ingress": [{"from": [{"serviceAccounts": {}}]}]});
    let aliens: [(&str, Value); 4] = [
        ("spec.ingress[0].from[0].serviceAccounts", alien_peer),
        (
            "spec.ingress[0].ports[0]",
            json!({"podSelector": {}, "ingress": [{"ports": [{"port": "80"}]}]}),
        ),
        ("spec", json!("everything")),
        ("spec.tier", json!({"podSelector": {}, "tier": 1, "ingress": [{}]})),
    ];
    for in_page in [true, false] {
        for (field, spec) in aliens.clone() {
            let api = cluster();
            let alien = fake_api::policy("default/alien", spec);
            if in_page {
                api.apply(POLICIES, alien.clone());
            }
            let mut follower = Follower::start(&api).await;
            follower.until(|f| f.whole() && admits(f, "far")).await;
            if !in_page {
                api.apply(POLICIES, alien);
                api.apply(POLICIES, fake_api::policy("default/who-may", who_may("web")));
                follower.until(|f| admits(f, "web")).await;
            }
            follower.until(|f| f.policy("alien").is_some()).await;
            let policy = follower.policy("alien").expect("it is there");
            assert_eq!(policy.ingress.as_deref(), Some(&[][..]), "{field}: it allows nothing");
            let told = follower.batches.last().expect("there is one").narrowed.clone();
            assert_eq!(told.len(), 1, "{told:#?}");
            assert_eq!((&*told[0].object, &*told[0].field), ("NetworkPolicy default/alien", field));
            assert!(!told[0].resource_version.is_empty() && !told[0].remedy.is_empty());
            // A version that is understood heals it.
            api.apply(
                POLICIES,
                fake_api::policy("default/alien", json!({"podSelector": {}, "ingress": [{}]})),
            );
            follower
                .until(|f| f.batches.last().is_some_and(|batch| batch.narrowed.is_empty()))
                .await;
            let policy = follower.policy("alien").expect("it is there");
            assert_eq!(policy.ingress.as_deref().map(<[_]>::len), Some(1));
            assert_eq!(follower.relists(Resource::Policies, "not-understood"), 0);
        }
    }
}

#[tokio::test]
async fn a_line_that_is_no_event_makes_a_new_list_and_loses_nothing() {
    let cut = r#"{"type":"MODIFIED","object":{"metadata":{"name":"who-may","namesp"#;
    for line in [cut, "no json", r#"{"type":"RENAMED","object":{}}"#, r#"{"type":"ADDED"}"#] {
        let api = cluster();
        api.fault(On::Watch(POLICIES), Fault::Lines(vec![line.to_owned()]), 1);
        let mut follower = Follower::start(&api).await;
        follower.until(|f| f.relists(Resource::Policies, "not-understood") == 1).await;
        api.apply(POLICIES, fake_api::policy("default/who-may", who_may("web")));
        follower.until(|f| f.equals(&api) && admits(f, "web")).await;
    }
}

#[tokio::test]
async fn a_line_without_an_end_is_not_held() {
    let api = cluster();
    let endless = vec![format!("{{\"type\":\"{}", "x".repeat(9 << 20))];
    api.fault(On::Watch(NAMESPACES), Fault::Lines(endless), 1);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.relists(Resource::Namespaces, "not-understood") == 1).await;
    follower.until(|f| f.equals(&api)).await;
}

#[tokio::test]
async fn a_line_that_breaks_off_with_its_connection_comes_again_without_a_list() {
    let api = cluster();
    api.fault(On::Watch(PODS), Fault::Cut(30), 2);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    api.apply(PODS, fake_api::pod("default/new", "uid-new", NODE, "10.0.0.7", "new"));
    follower.until(|f| f.owner("10.0.0.7").is_some() && f.equals(&api)).await;
    for resource in [Resource::OwnPods, Resource::OtherPods] {
        assert!(follower.feed(resource).relists.is_empty(), "{:?}", follower.health);
    }
}

#[tokio::test]
async fn an_expired_history_makes_a_new_list_at_once() {
    let api = cluster();
    let expired = r#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired"}}"#;
    api.fault(On::Watch(POLICIES), Fault::Lines(vec![expired.to_owned()]), 1);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.relists(Resource::Policies, "expired") == 1 && f.equals(&api)).await;
}

#[tokio::test]
async fn a_list_that_is_none_is_asked_for_again() {
    for text in ["", "<html>", r#"{"items":[]}"#, r#"{"metadata":{},"items":[]}"#, "[]"] {
        let api = cluster();
        api.fault(On::List(POLICIES), Fault::Text(text.to_owned()), 2);
        let mut follower = Follower::start(&api).await;
        follower.until(|f| f.equals(&api)).await;
        assert!(follower.policy("who-may").is_some());
    }
}

#[tokio::test]
async fn an_object_without_a_name_is_asked_for_once_more_and_then_passed_over() {
    let api = cluster();
    let nameless = r#"{"type":"ADDED","object":{"metadata":{"uid":"x"}}}"#;
    api.fault(On::Watch(NAMESPACES), Fault::Lines(vec![nameless.to_owned()]), 3);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.relists(Resource::Namespaces, "not-understood") == 1).await;
    api.apply(NAMESPACES, fake_api::namespace("later", &[]));
    follower.until(|f| f.equals(&api)).await;
    assert_eq!(follower.relists(Resource::Namespaces, "not-understood"), 1);
}

#[tokio::test]
async fn a_pod_whose_labels_are_none_is_as_if_it_did_not_exist() {
    let api = cluster();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let mut pod = fake_api::pod("default/far", "uid-far", "node-2", "10.0.1.1", "far");
    pod["metadata"]["labels"] = json!({"app": 7});
    api.apply(PODS, pod);
    follower.until(|f| f.owner("10.0.1.1").is_none()).await;
    let told = &follower.batches.last().expect("there is one").narrowed;
    assert_eq!(told[0].object, "Pod default/far");
    api.apply(PODS, fake_api::pod("default/far", "uid-far", "node-2", "10.0.1.1", "far"));
    follower
        .until(|f| f.equals(&api) && f.batches.last().is_some_and(|b| b.narrowed.is_empty()))
        .await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_policy_reads_goes_no_further() {
    let api = cluster();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let before = follower.batches.len();
    for n in 0..50 {
        let mut pod = fake_api::pod("default/far", "uid-far", "node-2", "10.0.1.1", "far");
        pod["status"]["conditions"] = json!([{"type": "Ready", "n": n}]);
        api.apply(PODS, pod);
        let mut policy = fake_api::policy("default/who-may", who_may("far"));
        policy["metadata"]["managedFields"] = json!([n]);
        api.apply(POLICIES, policy);
    }
    let version = api.apply(PODS, fake_api::pod("default/x", "uid-x", "node-2", "10.0.1.7", "x"));
    follower.until(|f| f.owner("10.0.1.7").is_some()).await;
    let changes: Vec<&Change> =
        follower.batches[before..].iter().flat_map(|batch| &batch.changes).collect();
    assert_eq!(changes.len(), 1, "{changes:?}");
    let up_to_date = |f: &Follower| {
        f.feed(Resource::OtherPods).resource_version.parse().is_ok_and(|seen: u64| seen >= version)
    };
    follower.until(up_to_date).await;
}

#[tokio::test]
async fn a_deletion_names_the_pod_and_not_only_its_name() {
    let api = cluster();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let before = follower.batches.len();
    api.delete(PODS, "default/far");
    follower.until(|f| f.owner("10.0.1.1").is_none()).await;
    let gone = follower.batches[before..].iter().flat_map(|batch| &batch.changes);
    let uids: Vec<Option<String>> = gone
        .filter_map(|change| match change {
            Change::Delete(ObjectKey::Pod(_), uid) => Some(uid.as_ref().map(ToString::to_string)),
            _ => None,
        })
        .collect();
    assert_eq!(uids, [Some("uid-far".to_owned())]);
    follower.for_a_while(Duration::from_millis(50)).await;
}
