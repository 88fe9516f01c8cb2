//! What is counted and shed before anything is expanded, against the tables that are made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ipnet::IpNet;
use np_common::endpoint::{Endpoint, EndpointId, PolicyWord};
use proptest::prelude::*;
use proptest::sample::select;

use super::demand::{Census, at_most};
use super::*;
use crate::compile::{Compiled, RuleSet, StandIn, StandIns};
use crate::index::{Index, Touched};
use crate::model::{
    Change, ContainerPort, IpBlock, Labels, Namespace, Object, Peer, Phase, Pod, PodKey, PodUid,
    Policy, PolicyKey, PortMatch, Ports, Protocol, Requirement, Rule, Selector,
};

const NAMESPACES: [&str; 2] = ["a", "b"];
const NO_ROOM: Limits = Limits { peers: 0, cidrs: 0, rules: 0 };
const PLENTY: Limits = Limits { peers: usize::MAX, cidrs: usize::MAX, rules: usize::MAX };

fn pods(most: usize) -> impl Strategy<Value = Vec<Pod>> {
    let port = prop_oneof![1 => Just(None), 3 => (0..2_u16).prop_map(Some)];
    let one = (select(&NAMESPACES), select(&["x", "y"]), port);
    prop::collection::vec(one, 0..=most).prop_map(|pods| {
        let pods = pods.into_iter().enumerate();
        pods.map(|(at, (namespace, app, port))| pod(at, namespace, app, port)).collect()
    })
}

pub(super) fn pod(at: usize, namespace: &str, app: &str, port: Option<u16>) -> Pod {
    let number = |port: u16| ContainerPort {
        name: "http".to_owned(),
        protocol: Protocol::Tcp,
        port: 8080 + port,
    };
    Pod {
        key: PodKey::new(namespace, format!("pod-{at}")),
        uid: PodUid(format!("uid-{at}").into()),
        node: None,
        labels: Labels::from([("app".to_owned(), app.to_owned())]).into(),
        addresses: [format!("10.0.0.{}", at + 1).parse().expect("an address")].into(),
        source_prefixes: None,
        named_ports: port.map(number).into_iter().collect(),
        host_network: false,
        phase: Phase::Active,
        terminating: false,
        created: 0,
    }
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let app = || prop_oneof![Just(None), select(&["x", "y"]).prop_map(Some)];
    let selector = move || app().prop_map(|app| app.map(app_is).unwrap_or_default());
    let blocks = select(vec![
        ("0.0.0.0/0", &["10.0.0.0/24"][..]),
        ("10.0.0.0/24", &["10.0.0.0/30", "10.0.0.3/32"]),
        ("10.0.0.0/29", &[]),
        ("10.0.0.2/32", &[]),
        ("192.0.2.7/32", &[]),
        ("2001:db8::/32", &["2001:db8::1/128"]),
    ]);
    let peer = prop_oneof![
        3 => (any::<bool>(), selector()).prop_map(|(all, pods)| {
            Peer::Pods { namespaces: all.then(Selector::everything), pods }
        }),
        2 => blocks.prop_map(|(cidr, except)| block(cidr, except)),
    ];
    let ports = prop_oneof![
        1 => Just(Ports::All),
        3 => Just(Ports::Named("http".to_owned())),
        3 => (select(&[1_u16, 4, 80, 443, 8081]), 0..6_u16)
            .prop_map(|(first, more)| Ports::Range(first, first + more)),
    ];
    let port = (select(&[Protocol::Tcp, Protocol::Udp]), ports)
        .prop_map(|(protocol, ports)| PortMatch { protocol, ports });
    let some_peers = prop::collection::vec(peer, 1..4).prop_map(|peers| Some(peers.into()));
    let some_ports = prop::collection::vec(port, 1..4).prop_map(|ports| Some(ports.into()));
    let rule = (
        prop_oneof![1 => Just(None), 4 => some_peers],
        prop_oneof![1 => Just(None), 4 => some_ports],
    )
        .prop_map(|(peers, ports): (_, Option<Box<[PortMatch]>>)| Rule { peers, ports });
    let rules = prop::collection::vec(rule, 0..4).prop_map(Into::into);
    let side = || prop::option::of(rules.clone());
    let policy = (select(&NAMESPACES), selector(), side(), side());
    prop::collection::vec(policy, 0..6).prop_map(|policies| {
        let policies = policies.into_iter().enumerate();
        policies
            .map(|(at, (namespace, subjects, ingress, egress))| {
                let key = PolicyKey::new(namespace, format!("policy-{at}"));
                Policy { key, subjects, ingress, egress }
            })
            .collect()
    })
}

pub(super) fn app_is(app: &str) -> Selector {
    Selector::from_iter([Requirement::equals("app", app)])
}

pub(super) fn block(cidr: &str, except: &[&str]) -> Peer {
    let except = except.iter().copied().map(prefix).collect();
    Peer::IpBlock(IpBlock { cidr: prefix(cidr), except })
}

fn prefix(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = |most| prop_oneof![1 => Just(usize::MAX), 2 => 0..most];
    (limit(6), limit(8), limit(60_usize)).prop_map(|(peers, cidrs, rules)| Limits {
        peers,
        cidrs,
        rules,
    })
}

pub(super) fn index(pods: &[Pod], policies: &[Policy]) -> Index {
    let mut index = Index::default();
    let namespace = |name: &str| Namespace { name: name.into(), labels: Labels::new() };
    let namespaces = ["a", "b", "c"].map(namespace).map(Object::Namespace);
    let pods = pods.iter().cloned().map(Object::Pod);
    let policies = policies.iter().cloned().map(Object::Policy);
    for object in namespaces.into_iter().chain(pods).chain(policies) {
        index.apply(Change::Apply(object), &mut Touched::default());
    }
    index
}

/// What the maps hold of all that is compiled, every pod being an endpoint.
fn tables(compiled: &Compiled) -> Tables {
    let ids: BTreeMap<EndpointId, PodUid> =
        (1..).map(EndpointId::new).zip(compiled.subjects.keys().cloned()).collect();
    let mut tables = Tables::default();
    for id in ids.keys() {
        let endpoint = Endpoint::new([np_common::addr::Addr::UNSPECIFIED; 2], PolicyWord::OPEN, 0);
        tables.endpoints.insert(*id, endpoint);
    }
    let all: BTreeSet<IpNet> = compiled.peers.keys().copied().collect();
    Lowered::default().update(compiled, &all, &ids, &mut tables, &mut Scope::default());
    tables
}

fn entries(tables: &Tables) -> Demand {
    let single = |prefix: &&IpNet| prefix.prefix_len() == prefix.max_prefix_len();
    let peers = tables.peers.keys().filter(single).count();
    Demand { peers, cidrs: tables.peers.len() - peers, rules: tables.rules.len() }
}

fn counted(compiled: &Compiled, rule_sets: &[Arc<RuleSet>], limits: &Limits) -> Demand {
    Census::of(compiled).demand(rule_sets, &compiled.atoms, limits)
}

fn covers(more: &Demand, less: &Demand) -> bool {
    more.peers >= less.peers && more.cidrs >= less.cidrs && more.rules >= less.rules
}

/// The same policies, of which some are closed.
fn closed(index: &Index, shed: &[PolicyKey]) -> Tables {
    let mut compiled = Compiled::default();
    let closed: StandIns = shed
        .iter()
        .map(|key| (key.clone(), StandIn::of(index.policy(key).expect("it is known"), None)))
        .collect();
    compiled.stand_in(closed);
    compiled.update(index, &Touched::default(), index.pods());
    compiled.forget_unused();
    tables(&compiled)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// To the entry where room is short; else it is bounded, and the bound is never too low.
    #[test]
    fn what_is_counted_is_what_the_maps_will_hold(pods in pods(5), policies in policies()) {
        let index = index(&pods, &policies);
        let compiled = Compiled::of(&index, index.pods());
        let made = entries(&tables(&compiled));
        let rule_sets: Vec<_> = compiled.rule_sets().into_iter().cloned().collect();
        prop_assert_eq!(counted(&compiled, &rule_sets, &NO_ROOM), made);
        let bound = at_most(&compiled);
        prop_assert!(covers(&bound, &made), "{bound:?} for {made:?}");
        for some in rule_sets.chunks(1).chain([&rule_sets[..]]) {
            let exact = counted(&compiled, some, &NO_ROOM);
            let bound = counted(&compiled, some, &PLENTY);
            prop_assert_eq!((bound.peers, bound.cidrs), (exact.peers, exact.cidrs));
            prop_assert!(bound.rules >= exact.rules, "{bound:?} for {exact:?}");
        }
    }

    /// Counted by the prefixes that new pods change, without a look at what these are.
    #[test]
    fn peers_that_come_need_no_more_than_their_growth(
        pods in pods(5), more in pods(8), policies in policies(),
    ) {
        let mut index = index(&pods, &policies);
        let mut compiled = Compiled::of(&index, index.pods());
        let before = entries(&tables(&compiled));
        let subjects: BTreeSet<PodUid> = compiled.subjects.keys().cloned().collect();
        let mut touched = Touched::default();
        for pod in more.into_iter().skip(pods.len()) {
            index.apply(Change::Apply(Object::Pod(pod)), &mut touched);
        }
        let subjects = index.pods().filter(|pod| subjects.contains(&pod.uid));
        let changed = compiled.update(&index, &touched, subjects);
        let bound = before.plus(&growth(&compiled, changed.len()));
        let after = entries(&tables(&compiled));
        prop_assert!(covers(&bound, &after), "{bound:?} for {after:?}");
    }

    /// The last of it is needed as well, and nothing is shed where everything fits.
    #[test]
    fn what_is_shed_makes_room_and_no_less_does(
        pods in pods(5), policies in policies(), limits in limits(), turns in any::<u64>(),
    ) {
        let index = index(&pods, &policies);
        let compiled = Compiled::of(&index, index.pods());
        let needed = entries(&tables(&compiled));
        let fits = needed.within(&limits);
        prop_assert_eq!(has_room(&compiled, &limits), fits.is_ok());
        let turn = |key: &PolicyKey| {
            let at = policies.iter().position(|policy| policy.key == *key).unwrap_or_default();
            [Turn::Shed, Turn::New, Turn::InForce][(turns >> (2 * at)) as usize % 3]
        };
        match shed(&compiled, &index, index.pods(), &limits, turn) {
            Ok(demand) => {
                prop_assert!(fits.is_ok(), "{needed:?} of {limits:?}");
                prop_assert!(covers(&demand, &needed), "{demand:?} for {needed:?}");
                prop_assert!(demand.within(&limits).is_ok());
            }
            Err(Shed { policies, no_room }) => {
                prop_assert_eq!(fits, Err(no_room));
                let room = |shed: &[PolicyKey]| {
                    entries(&closed(&index, shed)).within(&limits).is_ok()
                };
                prop_assert!(room(&policies), "{policies:?}");
                let (_, fewer) = policies.split_last().expect("something is shed");
                prop_assert!(!room(fewer), "{fewer:?}");
            }
        }
    }
}

/// Containers of one pod may give a name to several ports, and nothing else is asked for here.
#[test]
fn a_name_is_bounded_by_the_numbers_that_peers_give_it() {
    let port = |at| ContainerPort { name: "http".to_owned(), protocol: Protocol::Tcp, port: at };
    let named_ports = (1..=8).map(port).collect();
    let pod = Pod { named_ports, ..pod(0, "a", "x", None) };
    let port = PortMatch { protocol: Protocol::Tcp, ports: Ports::Named("http".to_owned()) };
    let all = Peer::Pods { namespaces: None, pods: Selector::everything() };
    let rule = Rule { peers: Some([all].into()), ports: Some([port].into()) };
    let key = PolicyKey::new("a", "policy");
    let subjects = Selector::everything();
    let policy = Policy { key, subjects, ingress: None, egress: Some([rule].into()) };
    let index = index(&[pod], &[policy]);
    let compiled = Compiled::of(&index, index.pods());
    // 1, 2 and 3, 4 to 7, and 8.
    let made = entries(&tables(&compiled));
    assert_eq!(made.rules, 4);
    assert!(covers(&at_most(&compiled), &made), "{:?}", at_most(&compiled));
}
