//! History that goes back, breaks off or comes out of order: who is gone is gone, and a name or an
//! address that was given again is its new owner's.

use std::time::Duration;

use np_agent::source::api::Resource;
use np_tests::fake_api::{self, FakeApi, NAMESPACES, PODS, POLICIES};
use serde_json::json;

use crate::world::{Follower, NODE, admits, cluster, key_of_pod, replaced, who_may};

/// A server that holds more than a snapshot of it.
fn grown() -> (FakeApi, fake_api::Snapshot) {
    let api = cluster();
    let old = api.snapshot();
    api.apply(POLICIES, fake_api::policy("default/late", json!({"podSelector": {}})));
    for n in 0..50 {
        let (key, uid, address) = (format!("default/p{n}"), format!("u{n}"), format!("10.0.3.{n}"));
        api.apply(PODS, fake_api::pod(&key, &uid, NODE, &address, "p"));
    }
    (api, old)
}

/// The server counts on, and passes the versions that it has given before.
#[tokio::test]
async fn an_etcd_that_was_restored_is_found_out_although_it_goes_on() {
    let (api, old) = grown();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    api.restore(old);
    api.disconnect();
    let leases = "/apis/coordination.k8s.io/v1/leases";
    for n in 0..400 {
        let name = format!("kube-node-lease/node-{}", n % 4);
        api.apply(leases, fake_api::pod(&name, "lease", "", "", "lease"));
        follower.for_a_while(Duration::from_millis(2)).await;
    }
    follower.until(|f| f.equals(&api)).await;
    assert!(follower.relists(Resource::OwnPods, "went-back") > 0, "{:?}", follower.health);
    assert!(follower.feed(Resource::OwnPods).removed >= 50);
}

/// Connections that stand say nothing of it: only their silence does.
#[tokio::test]
async fn an_etcd_that_was_restored_is_found_out_by_its_silence() {
    let (api, old) = grown();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    api.restore(old);
    follower.until(|f| f.equals(&api)).await;
    assert!(follower.feed(Resource::OwnPods).removed >= 50);
}

#[tokio::test]
async fn what_was_deleted_while_disconnected_is_gone_in_one_batch() {
    let api = cluster();
    api.apply(NAMESPACES, fake_api::namespace("shop", &[]));
    for name in ["a", "b", "c"] {
        api.apply(PODS, fake_api::pod(&format!("shop/{name}"), name, "node-2", "", "x"));
        api.apply(POLICIES, fake_api::policy(&format!("shop/{name}"), json!({"podSelector": {}})));
    }
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let before = follower.batches.len();
    api.fault(fake_api::On::Anything, fake_api::Fault::Status(503, "away"), fake_api::ALWAYS);
    api.disconnect();
    for name in ["a", "b"] {
        api.delete(PODS, &format!("shop/{name}"));
        api.delete(POLICIES, &format!("shop/{name}"));
    }
    api.delete(PODS, "default/far");
    api.delete(NAMESPACES, "shop");
    // The same name again, as another pod.
    api.apply(PODS, fake_api::pod("default/far", "uid-far-2", "node-2", "10.0.1.9", "far"));
    api.expire();
    api.heal();
    follower.until(|f| f.equals(&api)).await;
    assert_eq!(follower.owner("10.0.1.9").as_deref(), Some("uid-far-2"));
    assert_eq!(follower.owner("10.0.1.1"), None);
    let policies = follower.batches[before..].iter().flat_map(replaced);
    let of_policies: Vec<usize> = policies
        .filter(|all| matches!(all.first(), Some(np_policy::model::Object::Policy(_))))
        .map(<[_]>::len)
        .collect();
    assert_eq!(of_policies, [2], "one replacement, and all that is left in it");
}

/// What happens to two pods that have one address after each other.
#[derive(Clone, Copy, Debug)]
enum Step {
    FinishA,
    DeleteA,
    AddB,
}

#[tokio::test]
async fn an_address_that_was_given_again_is_its_new_owners_in_any_order() {
    use Step::{AddB, DeleteA, FinishA};
    let orders: [&[Step]; 6] = [
        &[FinishA, DeleteA, AddB],
        &[FinishA, AddB, DeleteA],
        &[AddB, FinishA, DeleteA],
        &[AddB, DeleteA],
        &[DeleteA, AddB],
        &[FinishA, AddB],
    ];
    for order in orders {
        // Where the history breaks off and a list takes its place.
        for cut in 0..=order.len() {
            for (a_at, b_at) in [(NODE, "node-2"), ("node-2", NODE), (NODE, NODE)] {
                let api = cluster();
                let a = fake_api::pod("default/a", "uid-a", a_at, "10.0.9.9", "a");
                api.apply(PODS, a.clone());
                let mut follower = Follower::start(&api).await;
                follower.until(|f| f.equals(&api)).await;
                for (number, step) in order.iter().enumerate() {
                    play(&api, *step, &a, b_at);
                    if number == cut {
                        api.expire();
                    }
                }
                follower.until(|f| f.owner("10.0.9.9").as_deref() == Some("uid-b")).await;
                follower.until(|f| f.equals(&api)).await;
                assert_eq!(follower.owner("10.0.9.9").as_deref(), Some("uid-b"), "{order:?} {cut}");
            }
        }
    }
}

fn play(api: &FakeApi, step: Step, a: &serde_json::Value, b_at: &str) {
    match step {
        Step::FinishA => {
            let mut a = a.clone();
            a["status"]["phase"] = "Succeeded".into();
            api.apply(PODS, a);
        }
        Step::DeleteA => api.delete(PODS, "default/a"),
        Step::AddB => {
            let mut b = fake_api::pod("default/b", "uid-b", b_at, "10.0.9.9", "b");
            b["metadata"]["creationTimestamp"] = "2026-01-02T03:04:06Z".into();
            api.apply(PODS, b);
        }
    }
}

#[tokio::test]
async fn a_pod_that_moves_under_its_name_is_the_new_one_whichever_feed_is_faster() {
    for (from, to) in [(NODE, "node-2"), ("node-2", NODE)] {
        for slow in ["spec.nodeName=", "spec.nodeName!="] {
            let api = cluster();
            let old = fake_api::pod("default/set-0", "uid-old", from, "10.0.5.1", "set");
            api.apply(PODS, old.clone());
            let mut follower = Follower::start(&api).await;
            follower.until(|f| f.equals(&api)).await;
            // The slow feed hears of the old pod's end after the fast one of the new pod.
            api.stall_watches(slow, Duration::from_millis(60));
            let mut ending = old;
            ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:05:05Z".into();
            api.apply(PODS, ending);
            api.delete(PODS, "default/set-0");
            api.apply(PODS, fake_api::pod("default/set-0", "uid-new", to, "10.0.5.2", "set"));
            follower.for_a_while(Duration::from_millis(100)).await;
            follower.until(|f| f.equals(&api)).await;
            assert_eq!(follower.owner("10.0.5.2").as_deref(), Some("uid-new"), "{from} {slow}");
            assert_eq!(follower.owner("10.0.5.1"), None, "{from} {slow}");
            let np_policy::model::ObjectKey::Pod(key) = key_of_pod("default", "set-0") else {
                unreachable!("it is a pod's key")
            };
            assert_eq!(
                follower.index.pod(&key).map(|pod| pod.uid.to_string()).as_deref(),
                Some("uid-new")
            );
        }
    }
}

#[tokio::test]
async fn feeds_that_come_in_any_order_end_in_the_same() {
    let feeds = [NAMESPACES, POLICIES, PODS];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let api = cluster();
        for (place, feed) in order.into_iter().enumerate() {
            let delay = Duration::from_millis(40 * place as u64);
            api.fault(
                fake_api::On::List(feeds[feed]),
                fake_api::Fault::Delay(delay),
                if feeds[feed] == PODS { 2 } else { 1 },
            );
        }
        let mut follower = Follower::start(&api).await;
        follower.until(|f| f.equals(&api)).await;
        assert!(admits(&follower, "far") && !admits(&follower, "web"));
        api.apply(POLICIES, fake_api::policy("default/who-may", who_may("web")));
        follower.until(|f| admits(f, "web")).await;
    }
}
