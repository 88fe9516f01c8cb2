use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::model::{Peer, Policy, PortMatch, Ports, Protocol, Rule, Selector};
use crate::plan::tests::{app_is, block, index, pod};

fn key(namespace: &str, name: &str) -> PolicyKey {
    PolicyKey::new(namespace, name)
}

proptest! {
    /// Each question counts everything, so they must be few.
    #[test]
    fn as_few_are_shed_as_make_room_and_that_is_found_soon(
        count in 0..200_usize, enough in prop_oneof![Just(1), 1..200_usize],
    ) {
        let order: Vec<PolicyKey> = (0..count).map(|at| key("n", &at.to_string())).collect();
        let asked = Cell::new(0);
        let found = fewest(&order, |some| {
            asked.set(asked.get() + 1);
            some.len() >= enough
        });
        prop_assert_eq!(found, enough.min(count));
        let most = 2 * count.checked_ilog2().map_or(0, |digits| digits + 1);
        prop_assert!(asked.get() <= most, "{} questions about {count}", asked.get());
        prop_assert!(enough > 1 || asked.get() <= 1, "mostly it is one");
    }
}

/// Nobody weighs less for writing many policies instead of one.
#[test]
fn the_heaviest_namespace_gives_first_and_its_heaviest_policy() {
    let weights = BTreeMap::from([
        (key("many", "small"), 3),
        (key("many", "large"), 5),
        (key("many", "middle"), 4),
        (key("one", "only"), 6),
        (key("light", "light"), 2),
    ]);
    let names = |turn: fn(&PolicyKey) -> Turn| {
        let order = order(&weights, turn);
        order.into_iter().map(|key| key.name.to_string()).collect::<Vec<_>>()
    };
    // 12, 6, 2; then 7, 6, 2; then 3, 6, 2.
    assert_eq!(names(|_| Turn::New), ["large", "middle", "only", "small", "light"]);
    let turn = |key: &PolicyKey| match &*key.name {
        "small" => Turn::Shed,
        "light" | "middle" => Turn::New,
        _ => Turn::InForce,
    };
    assert_eq!(names(turn), ["small", "middle", "light", "only", "large"]);
}

fn rule(peers: Option<Vec<Peer>>, ports: &[Ports]) -> Rule {
    let port = |ports: &Ports| PortMatch { protocol: Protocol::Tcp, ports: ports.clone() };
    Rule { peers: peers.map(Into::into), ports: Some(ports.iter().map(port).collect()) }
}

fn egress(namespace: &str, name: &str, rules: Vec<Rule>) -> Policy {
    let subjects = app_is("subject");
    Policy { key: key(namespace, name), subjects, ingress: None, egress: Some(rules.into()) }
}

/// What policies of two namespaces weigh in maps of some size.
fn weights(policies: &[Policy], limits: Limits) -> BTreeMap<String, usize> {
    let namespaces = ["a", "b"];
    let subjects = namespaces.iter().enumerate().map(|(at, name)| pod(at, name, "subject", None));
    // Two numbers for one name, one of them twice, and one without.
    let ports = [Some(0), Some(0), Some(1), None];
    let peers = ports.into_iter().enumerate().map(|(at, port)| pod(10 + at, "c", "peer", port));
    let index = index(&subjects.chain(peers).collect::<Vec<_>>(), policies);
    let pods: Vec<&Pod> =
        index.pods().filter(|pod| namespaces.contains(&&*pod.key.namespace)).collect();
    let compiled = Compiled::of(&index, pods.iter().copied());
    let census = Census::of(&compiled);
    let choice = Choice { compiled: &compiled, index: &index, census, pods, limits: &limits };
    choice.weights().into_iter().map(|(key, weight)| (key.to_string(), weight)).collect()
}

fn peers() -> Peer {
    Peer::Pods { namespaces: Some(Selector::everything()), pods: app_is("peer") }
}

#[test]
fn a_policy_weighs_the_entries_that_it_asks_for() {
    let two = [Ports::Range(80, 80), Ports::Range(90, 91)];
    let name = [Ports::Named("http".to_owned())];
    let wide = || block("203.0.113.0/24", &["203.0.113.8/29"]);
    let host = || block("192.0.2.1/32", &[]);
    // An entry of these is a millionth.
    let million = Limits { peers: 1_000_000, cidrs: 1_000_000, rules: 1_000_000 };
    for (what, rules, weight) in [
        ("no rule", vec![], None),
        // The block and its hole, and two rules.
        ("a block", vec![rule(Some(vec![wide()]), &two)], Some(2 + 2)),
        ("a host", vec![rule(Some(vec![host()]), &two)], Some(1 + 2)),
        ("both", vec![rule(Some(vec![wide(), host()]), &two)], Some(2 + 1 + 2 * 2)),
        // Four pods of three classes: with one number, with the other, and with none.
        ("a name", vec![rule(Some(vec![peers()]), &name)], Some(4 + (2 + 1) + 3)),
        ("everyone", vec![rule(None, &two)], Some(2)),
        // A class with rules of its own has everyone's as well.
        ("all", vec![rule(Some(vec![host()]), &two), rule(None, &two)], Some(1 + 2 + 2 * 2)),
    ] {
        let weights = weights(&[egress("a", "policy", rules)], million);
        assert_eq!(weights.get("a/policy").copied(), weight, "{what}");
    }
}

#[test]
fn a_policy_weighs_more_in_a_small_map_and_never_nothing() {
    let host = rule(Some(vec![block("192.0.2.1/32", &[])]), &[Ports::Range(80, 80)]);
    let policy = egress("a", "policy", vec![host]);
    for (peers, rules, weight) in
        [(10, 1000, 100_000 + 1000), (100, 10, 10_000 + 100_000), (usize::MAX, usize::MAX, 1 + 1)]
    {
        let limits = Limits { peers, cidrs: 1, rules };
        let weights = weights(std::slice::from_ref(&policy), limits);
        assert_eq!(weights, [("a/policy".to_owned(), weight)].into(), "{limits:?}");
    }
}

/// Two that select the same pod are one rule set, and still weigh what each asks for.
#[test]
fn policies_of_one_pod_weigh_what_each_would_alone() {
    let rules = |peer| vec![rule(Some(vec![peer]), &[Ports::Range(80, 80)])];
    let one = egress("a", "one", rules(block("203.0.113.0/24", &[])));
    let other = egress("a", "other", rules(block("198.51.100.0/24", &["198.51.100.1/32"])));
    let third = egress("b", "third", rules(block("192.0.2.0/24", &[])));
    let limits = Limits { peers: 1_000_000, cidrs: 1_000_000, rules: 1_000_000 };
    let together = weights(&[one.clone(), other.clone(), third.clone()], limits);
    let alone: BTreeMap<_, _> =
        [one, other, third].into_iter().flat_map(|policy| weights(&[policy], limits)).collect();
    assert_eq!(together, alone);
}
