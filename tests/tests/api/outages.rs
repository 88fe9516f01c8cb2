//! The server away, slow, silent or half there: nothing changes for as long, and afterwards all is as
//! the server says.

use std::time::Duration;

use np_agent::source::api::Resource;
use np_tests::fake_api::{self, ALWAYS, Fault, On, PODS, POLICIES};

use crate::world::{Follower, admits, cluster, quick, who_may};

#[tokio::test]
async fn a_black_hole_in_any_phase_is_left_and_the_edit_made_meanwhile_comes() {
    for (phase, on, fault) in [
        ("header of a list", On::List(POLICIES), Fault::BlackHole),
        ("body of a list", On::List(POLICIES), Fault::Stall),
        ("header of a watch", On::Watch(POLICIES), Fault::BlackHole),
        ("an idle watch", On::Watch(POLICIES), Fault::Silence),
    ] {
        let api = cluster();
        api.fault(on, fault, 2);
        let mut follower = Follower::start(&api).await;
        // The edit falls into the hole where there is one.
        tokio::time::sleep(Duration::from_millis(50)).await;
        api.apply(POLICIES, fake_api::policy("default/who-may", who_may("web")));
        follower.until(|f| f.whole() && admits(f, "web")).await;
        let feed = follower.feed(Resource::Policies);
        assert!(feed.last_byte.is_some() && feed.requests >= 3, "{phase}: {feed:?}");
    }
}

#[tokio::test]
async fn a_connection_that_dies_silently_is_found_out_and_reported() {
    let api = cluster();
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let before = follower.batches.len();
    api.fault(On::Anything, Fault::BlackHole, ALWAYS);
    api.disconnect();
    follower.until(|f| Resource::ALL.iter().all(|r| f.feed(*r).state == "away")).await;
    let feed = follower.feed(Resource::Policies);
    assert!(feed.away.is_some() && feed.problem.is_some() && feed.listed, "{feed:?}");
    api.apply(POLICIES, fake_api::policy("default/who-may", who_may("web")));
    follower.for_a_while(Duration::from_millis(300)).await;
    assert_eq!(follower.batches.len(), before, "nothing changes while the server is away");
    assert!(admits(&follower, "far"));
    api.heal();
    follower.until(|f| admits(f, "web") && f.feed(Resource::Policies).state == "watching").await;
}

#[tokio::test]
async fn nothing_is_taken_for_whole_while_a_list_is_missing() {
    for code in [403, 500, 429] {
        let api = cluster();
        api.fault(On::List(np_tests::fake_api::NAMESPACES), Fault::Status(code, "no"), ALWAYS);
        let mut follower = Follower::start(&api).await;
        follower.until(|f| f.feed(Resource::OtherPods).state == "watching").await;
        follower.for_a_while(Duration::from_millis(200)).await;
        assert!(
            follower
                .batches
                .iter()
                .all(|batch| batch.missing == ["namespaces"] || batch.missing.len() > 1),
            "{code}"
        );
        let feed = follower.feed(Resource::Namespaces);
        assert!(!feed.listed && feed.state == "away", "{code}: {feed:?}");
        assert!(feed.problem.is_some_and(|problem| problem.contains(&code.to_string())));
        api.heal();
        follower.until(|f| f.equals(&api)).await;
    }
}

#[tokio::test]
async fn a_list_that_breaks_off_takes_nothing_away() {
    let api = cluster();
    for n in 0..40 {
        let address = format!("10.0.2.{n}");
        api.apply(
            PODS,
            fake_api::pod(&format!("default/p{n}"), &format!("u{n}"), "node-2", &address, "p"),
        );
    }
    api.set_page(6);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
    let before = follower.batches.len();
    // A relist, of which the pages after the third break off.
    for _ in 0..3 {
        api.fault(On::NextPage(PODS), Fault::Delay(Duration::from_millis(1)), 1);
    }
    api.fault(On::NextPage(PODS), Fault::Cut(100), 6);
    api.expire();
    follower.for_a_while(Duration::from_millis(150)).await;
    let other = |f: &Follower| f.feed(Resource::OtherPods).state == "watching";
    follower.until(|f| other(f) && f.relists(Resource::OtherPods, "expired") > 0).await;
    assert!(follower.equals(&api));
    assert_eq!(follower.deletions(before), Vec::<String>::new());
    assert_eq!(follower.feed(Resource::OtherPods).removed, 0);
    // And one that breaks off between the last page and the first byte of the watch.
    api.fault(On::Watch(PODS), Fault::Cut(0), 3);
    api.expire();
    follower.until(|f| f.relists(Resource::OtherPods, "expired") > 1).await;
    follower.until(|f| f.equals(&api) && f.feed(Resource::OtherPods).state == "watching").await;
    assert_eq!(follower.deletions(before), Vec::<String>::new());
    assert_eq!(follower.feed(Resource::OtherPods).removed, 0);
}

#[tokio::test]
async fn a_token_that_has_expired_begins_the_list_again() {
    let api = cluster();
    api.set_page(1);
    api.fault(On::NextPage(PODS), Fault::Status(410, "too old"), 2);
    let mut follower = Follower::start(&api).await;
    follower.until(|f| f.equals(&api)).await;
}

#[tokio::test]
async fn while_it_is_away_the_number_of_tries_is_bounded() {
    let api = cluster();
    api.fault(On::Anything, Fault::Status(503, "away"), ALWAYS);
    let timing = np_agent::source::api::Timing {
        backoff: Duration::from_millis(100)..Duration::from_millis(400),
        ..quick()
    };
    let mut follower = Follower::with(&api, timing).await;
    follower.for_a_while(Duration::from_millis(1_000)).await;
    let tries = api.requests().len();
    assert!((10..=45).contains(&tries), "{tries} requests by five feeds in a second");
}
