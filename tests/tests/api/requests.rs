//! What is asked of the server, and how often.

use std::time::{Duration, Instant};

use np_agent::source::api::{Resource, Timing};
use np_tests::fake_api::{self, ALWAYS, Fault, NAMESPACES, On, PODS, POLICIES};

use crate::world::{Follower, NODE, cluster, quick};

/// A request for the version alone.
fn looks(request: &fake_api::Request) -> bool {
    !request.watch() && request.query["limit"] == "1" && !request.continued()
}

#[tokio::test]
async fn lists_are_consistent_and_compressed_and_watches_neither_resume_from_zero_nor_are_compressed()
 {
    let api = cluster();
    api.set_page(1);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    api.expire();
    follower.until(|f| f.relists(Resource::Policies, "expired") > 0 && f.equals(&api)).await;
    let requests = api.requests();
    assert!(requests.iter().any(|request| request.continued()));
    for request in &requests {
        let version = request.query.get("resourceVersion");
        let encoding = request.headers.get("accept-encoding").map(String::as_str);
        let agent = request.headers.get("user-agent").cloned().unwrap_or_default();
        if request.watch() {
            assert!(version.is_some_and(|version| version != "0"), "{request:?}");
            assert_eq!(encoding, Some("identity"), "{request:?}");
            assert_eq!(request.query["allowWatchBookmarks"], "true");
            let lasting: u64 = request.query["timeoutSeconds"].parse().expect("seconds");
            assert!((5..=9).contains(&lasting), "{request:?}");
        } else {
            assert_eq!(version, None, "an answer to 0 may be older than what is in force");
            assert!(looks(request) || request.query["limit"] == "500", "{request:?}");
            assert_eq!(encoding, Some("gzip"), "{request:?}");
        }
        assert!(agent.starts_with("np-agent/") && agent.ends_with(&format!("({NODE})")), "{agent}");
        assert_eq!(request.headers["authorization"], "Bearer secret");
    }
    let selectors = |path: &str| {
        let of = requests.iter().filter(|request| request.path == path);
        let mut all: Vec<&str> = of
            .filter_map(|request| request.query.get("fieldSelector"))
            .map(String::as_str)
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    };
    assert_eq!(
        selectors(PODS),
        [
            "spec.nodeName!=node-1,status.podIP!=,spec.hostNetwork=false,status.phase!=Succeeded,\
         status.phase!=Failed",
            "spec.nodeName=node-1",
        ]
    );
    assert_eq!(selectors(fake_api::NODES), ["metadata.name=node-1"]);
}

#[tokio::test]
async fn watches_that_end_at_once_are_asked_for_at_a_measured_pace() {
    let api = cluster();
    let timing = Timing { pace: Duration::from_millis(100), ..quick() };
    let mut follower = Follower::with(&api, timing).await;
    follower.until(|f| f.equals(&api)).await;
    api.fault(On::Watch(NAMESPACES), Fault::Empty, ALWAYS);
    api.disconnect();
    let start = Instant::now();
    follower.for_a_while(Duration::from_millis(1_000)).await;
    let asked = api.requests();
    let asked = asked.iter().filter(|r| r.at > start && r.watch() && r.path == NAMESPACES).count();
    assert!((3..=12).contains(&asked), "{asked} watches in a second");
    assert_eq!(follower.relists(Resource::Namespaces, "expired"), 0, "none needs a list");
}

#[tokio::test]
async fn a_server_that_says_when_to_come_again_is_not_asked_before() {
    let api = cluster();
    api.fault(On::List(POLICIES), Fault::RetryAfter(429, 1), 1);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let requests = api.requests();
    let lists: Vec<Instant> =
        requests.iter().filter(|r| r.path == POLICIES && !r.watch()).map(|r| r.at).collect();
    assert_eq!(lists.len(), 2);
    assert!(lists[1] - lists[0] >= Duration::from_millis(990), "{:?}", lists[1] - lists[0]);
}

#[tokio::test]
async fn a_server_that_does_not_know_a_field_is_asked_without_it() {
    let api = cluster();
    api.without_field("spec.hostNetwork");
    let mut host = fake_api::pod("default/host", "uid-host", "node-2", "192.0.2.2", "host");
    host["spec"]["hostNetwork"] = true.into();
    api.apply(PODS, host);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    assert_eq!(follower.owner("192.0.2.2"), None, "its address is the node's");
}

#[tokio::test]
async fn agents_that_all_lose_their_server_do_not_come_back_in_step() {
    let api = cluster();
    let timing =
        Timing { backoff: Duration::from_millis(400)..Duration::from_millis(800), ..quick() };
    let mut followers = Vec::new();
    for _ in 0..20 {
        let mut follower = Follower::with(&api, timing.clone()).await;
        follower.until(|f| f.equals(&api)).await;
        followers.push(follower);
    }
    let before = api.requests().len();
    api.fault(On::Anything, Fault::Status(503, "restarting"), 100);
    api.disconnect();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let again = &api.requests()[before..];
    // The first hundred came when the connections ended, and were refused.
    let back: Vec<Instant> = again.iter().skip(100).map(|request| request.at).collect();
    let (Some(first), Some(last)) = (back.first(), back.last()) else { panic!("none came back") };
    assert!(back.len() >= 40, "{} of 100", back.len());
    assert!(*last - *first >= Duration::from_millis(150), "{:?}", *last - *first);
    assert!(again.iter().all(|request| request.watch() || looks(request)), "none needs a list");
}
