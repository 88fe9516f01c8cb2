//! Random changes under random faults: once both rest, the index holds exactly what the server
//! holds.

use std::time::Duration;

use np_tests::fake_api::{self, FakeApi, Fault, NAMESPACES, On, PODS, POLICIES};
use serde_json::json;

use crate::world::{Follower, NODE, cluster, who_may};

const STORMS: u64 = 12;

#[tokio::test]
async fn after_any_storm_all_is_as_the_server_says() {
    for seed in 1..=STORMS {
        let api = cluster();
        api.set_page(3);
        let mut follower = Follower::start(&api).await;
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..120 {
            change(&api, &mut dice);
            match dice.below(24) {
                0 => api.disconnect(),
                1 => api.compact(),
                2 => {
                    api.expire();
                }
                3 => api.fault(On::Watch(PODS), Fault::Cut(20), 1),
                4 => api.fault(On::NextPage(PODS), Fault::Cut(50), 1),
                5 => api.fault(On::List(PODS), Fault::Status(500, "sometimes"), 1),
                6 => api.fault(On::Watch(POLICIES), Fault::Empty, 2),
                7 => api.fault(On::List(NAMESPACES), Fault::Stall, 1),
                8 => api.fault(On::Watch(POLICIES), Fault::Lines(vec!["?".to_owned()]), 1),
                _ => {}
            }
            if dice.below(4) == 0 {
                follower.for_a_while(Duration::from_millis(dice.below(8))).await;
            }
        }
        api.heal();
        // What was compacted away while a watch went on is heard of no more.
        api.expire();
        follower.until(|f| f.equals(&api)).await;
    }
}

fn change(api: &FakeApi, dice: &mut Dice) {
    let (name, uid) = (dice.below(12), dice.below(1_000_000));
    let key = format!("default/p{name}");
    match dice.below(10) {
        0..5 => {
            let node = if dice.below(2) == 0 { NODE } else { "node-2" };
            let held = api
                .objects(PODS)
                .into_iter()
                .find(|pod| pod["metadata"]["name"] == format!("p{name}"));
            // A node never changes; another pod of that name comes after a deletion.
            if held.is_some_and(|pod| pod["spec"]["nodeName"] != node) {
                api.delete(PODS, &key);
            }
            let address = format!("10.0.7.{name}");
            let mut pod = fake_api::pod(&key, &format!("uid-{uid}"), node, &address, "storm");
            match dice.below(8) {
                0 => pod["status"] = json!({"phase": "Pending"}),
                1 => pod["status"]["phase"] = "Failed".into(),
                2 => pod["spec"]["hostNetwork"] = true.into(),
                _ => {}
            }
            api.apply(PODS, pod);
        }
        5 | 6 => api.delete(PODS, &key),
        7 => {
            let app = if dice.below(2) == 0 { "web" } else { "far" };
            api.apply(POLICIES, fake_api::policy(&format!("default/n{name}"), who_may(app)));
        }
        8 => api.delete(POLICIES, &format!("default/n{name}")),
        _ if dice.below(2) == 0 => api.delete(NAMESPACES, &format!("s{name}")),
        _ => {
            let label = if dice.below(2) == 0 { "x" } else { "y" };
            api.apply(NAMESPACES, fake_api::namespace(&format!("s{name}"), &[("team", label)]));
        }
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }
}
