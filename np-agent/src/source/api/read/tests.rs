//! What is not understood allows nothing: row by row, and for any JSON there is.

use std::net::IpAddr;

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;
use np_policy::model::{Direction, Labels, Peer, Policy, PortMatch, Ports, Protocol, Rule};

fn read_policy(object: &Value) -> (Policy, Vec<Narrowed>) {
    let read = read(Resource::Policies, &object.to_string()).expect("it has a name");
    match read.object {
        Some(Object::Policy(policy)) => (policy, read.narrowed),
        other => panic!("a policy is never left out: {other:?}"),
    }
}

fn of_spec(spec: &Value) -> (Policy, Vec<Narrowed>) {
    read_policy(&json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec}))
}

/// A packet that wants to pass.
#[derive(Clone, Debug)]
struct Try {
    peer: Labels,
    peer_namespace: Option<Labels>,
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    /// What the destination calls the port.
    name: Option<&'static str>,
}

/// Whether the policy stands in the way of a pod of its namespace; written by the API's words alone.
fn passes(policy: &Policy, subject: &Labels, direction: Direction, packet: &Try) -> bool {
    let Some(rules) = policy.rules(direction) else { return true };
    if !policy.subjects.matches(subject) {
        return true;
    }
    let peer_fits = |peer: &Peer| match peer {
        Peer::Pods { namespaces: None, pods } => {
            packet.peer_namespace.is_none() && pods.matches(&packet.peer)
        }
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            let labels = packet.peer_namespace.clone().unwrap_or_default();
            namespaces.matches(&labels) && pods.matches(&packet.peer)
        }
        Peer::IpBlock(block) => {
            block.cidr.contains(&packet.address)
                && !block.except.iter().any(|except| except.contains(&packet.address))
        }
    };
    let port_fits = |port: &PortMatch| {
        port.protocol == packet.protocol
            && match &port.ports {
                Ports::All => true,
                Ports::Range(first, last) => (*first..=*last).contains(&packet.port),
                Ports::Named(name) => packet.name == Some(name.as_str()),
            }
    };
    rules.iter().any(|Rule { peers, ports }| {
        peers.as_ref().is_none_or(|peers| peers.iter().any(peer_fits))
            && ports.as_ref().is_none_or(|ports| ports.iter().any(port_fits))
    })
}

fn labels(app: &str) -> Labels {
    [("app".to_owned(), app.to_owned())].into()
}

fn tries() -> Vec<Try> {
    let mut tries = Vec::new();
    for app in ["a", "b"] {
        for peer_namespace in [None, Some(labels("a")), Some(labels("b"))] {
            for address in ["10.0.0.1", "10.1.0.1", "fd00::1"] {
                for (protocol, port, name) in [
                    (Protocol::Tcp, 80, Some("http")),
                    (Protocol::Tcp, 443, None),
                    (Protocol::Udp, 80, None),
                ] {
                    tries.push(Try {
                        peer: labels(app),
                        peer_namespace: peer_namespace.clone(),
                        address: address.parse().expect("an address"),
                        protocol,
                        port,
                        name,
                    });
                }
            }
        }
    }
    tries
}

/// Everything that one policy lets pass and the other does not.
fn wider(one: &Policy, other: &Policy) -> Option<String> {
    for app in ["a", "b"] {
        for direction in [Direction::Ingress, Direction::Egress] {
            for packet in tries() {
                let passes = |policy| passes(policy, &labels(app), direction, &packet);
                if passes(one) && !passes(other) {
                    return Some(format!("{app} {direction:?} {packet:?}"));
                }
            }
        }
    }
    None
}

#[test]
fn each_thing_that_is_not_understood_has_its_effect() {
    let everyone = json!([{}]);
    // Spec, the field that is told, rules that are left for ingress, whether egress is isolated.
    for (spec, field, rules, egress) in [
        (json!({"ingress": everyone, "tier": 1}), "spec.tier", 0, true),
        (
            json!({"ingress": everyone, "tier": 1, "policyTypes": ["Ingress"]}),
            "spec.tier",
            0,
            false,
        ),
        (json!({"ingress": [{"from": [{"x": 1}]}]}), "spec.ingress[0].from[0].x", 0, false),
        (json!({"ingress": [{"from": [{}]}]}), "spec.ingress[0].from[0]", 0, false),
        (json!({"ingress": [{"from": [null]}]}), "spec.ingress[0].from[0]", 0, false),
        (json!({"ingress": [{"from": {}}]}), "spec.ingress[0].from", 0, false),
        (json!({"ingress": [null, {}]}), "spec.ingress[0]", 1, false),
        (json!({"ingress": {}}), "spec.ingress", 0, false),
        (json!({"ingress": [{"ports": [{"port": 0}]}]}), "spec.ingress[0].ports[0]", 0, false),
        (json!({"ingress": [{"ports": [{"port": "80"}]}]}), "spec.ingress[0].ports[0]", 0, false),
        (
            json!({"ingress": [{"ports": [{"protocol": "QUIC"}, {}]}]}),
            "spec.ingress[0].ports[0]",
            1,
            false,
        ),
        (json!({"ingress": [{"ports": [{"endPort": 9}]}]}), "spec.ingress[0].ports[0]", 0, false),
        (
            json!({"ingress": [{"ports": [{"port": 9, "endPort": 8}]}]}),
            "spec.ingress[0].ports[0]",
            0,
            false,
        ),
        (json!({"ingress": [{"via": []}, {}]}), "spec.ingress[0].via", 1, false),
        (
            json!({"ingress": everyone, "policyTypes": ["Ingress", "Audit"]}),
            "spec.policyTypes[1]",
            1,
            true,
        ),
        (json!({"ingress": everyone, "policyTypes": ["Audit"]}), "spec.policyTypes[0]", 1, true),
        (json!({"ingress": everyone, "policyTypes": "Ingress"}), "spec.policyTypes", 1, true),
        (json!({"ingress": everyone, "egress": 7}), "spec.egress", 1, true),
        (json!({"ingress": everyone, "podSelector": {"x": 1}}), "spec.podSelector.x", 0, false),
        (json!({"ingress": everyone, "podSelector": 1}), "spec.podSelector", 0, false),
        (json!(7), "spec", 0, true),
        (
            json!({"ingress": [{"from": [{"podSelector": {"matchExpressions": [
            {"key": "a", "operator": "Gt", "values": ["1"]}]}}]}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]",
            0,
            false,
        ),
        (
            json!({"ingress": [{"from": [{"podSelector": {"matchExpressions": [
            {"key": "a", "operator": "NotIn"}]}}]}]}),
            "spec.ingress[0].from[0].podSelector.matchExpressions[0]",
            0,
            false,
        ),
        (
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}]}),
            "spec.ingress[0].from[0].ipBlock.cidr",
            0,
            false,
        ),
        (
            json!({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}]}),
            "spec.ingress[0].from[0].ipBlock.except[0]",
            0,
            false,
        ),
        (
            json!({"ingress": [{"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
            "spec.ingress[0].from[0].ipBlock",
            0,
            false,
        ),
    ] {
        let (policy, narrowed) = of_spec(&spec);
        assert_eq!(narrowed.len(), 1, "{spec}: {narrowed:#?}");
        assert_eq!(narrowed[0].field, field, "{spec}");
        assert!(!narrowed[0].counts.is_empty() && !narrowed[0].remedy.is_empty());
        assert_eq!(policy.ingress.as_deref().map(<[_]>::len), Some(rules), "{spec}");
        assert_eq!(policy.egress.is_some(), egress, "{spec}");
        if field.starts_with("spec.podSelector") {
            assert!(policy.subjects.is_everything(), "{spec}: nobody can say whom it leaves out");
        }
    }
}

#[test]
fn what_old_servers_stored_is_read_as_it_was_meant() {
    let block = |block: Value| {
        let (policy, narrowed) = of_spec(&json!({"ingress": [{"from": [{"ipBlock": block}]}]}));
        assert_eq!(narrowed, [], "{block}");
        let rules = policy.ingress.expect("it isolates");
        rules.first().map(|rule| match rule.peers.as_deref() {
            Some([Peer::IpBlock(block)]) => format!("{} {:?}", block.cidr, block.except),
            other => panic!("{other:?}"),
        })
    };
    for (given, read) in [
        (json!({"cidr": "010.1.2.3/8"}), Some("10.0.0.0/8 []")),
        (json!({"cidr": "::ffff:10.0.0.0/104"}), Some("10.0.0.0/8 []")),
        (json!({"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}), Some("10.0.0.0/8 []")),
        (json!({"cidr": "10.0.0.0/8", "except": ["fd00::/8"]}), Some("10.0.0.0/8 []")),
        (
            json!({"cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"]}),
            Some("10.0.0.0/8 [10.9.0.0/16]"),
        ),
        (json!({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}), None),
        (json!({"cidr": "10.0.0.0/8", "except": ["0.0.0.0/0"]}), None),
    ] {
        assert_eq!(block(given.clone()).as_deref(), read, "{given}");
    }
    let (policy, narrowed) = of_spec(&json!({"podSelector": {"matchExpressions": [
        {"key": "no label!", "operator": "NotIn", "values": ["no value!"]}]}}));
    assert_eq!(narrowed, []);
    assert!(policy.subjects.matches(&labels("a")));
}

#[test]
fn metadata_that_is_not_known_says_nothing() {
    let object = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "n", "shard": 7, "labels": [1]},
        "spec": {"podSelector": {}}, "status": {"conditions": []}});
    assert_eq!(read_policy(&object).1, []);
}

#[test]
fn a_text_that_is_no_tree_is_a_policy_that_allows_nothing() {
    let text = r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"ingress":[{}],"x":1e999}}"#;
    let read = read(Resource::Policies, text).expect("it has a name");
    let Some(Object::Policy(policy)) = read.object else { panic!("a policy is never left out") };
    assert!(policy.subjects.is_everything());
    assert_eq!(
        (policy.ingress.as_deref(), policy.egress.as_deref()),
        (Some(&[][..]), Some(&[][..]))
    );
    assert_eq!(read.narrowed.len(), 1);
}

#[test]
fn of_a_pod_the_rest_counts_where_a_part_is_not_understood() {
    let text = json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "a"},
            "creationTimestamp": 7, "deletionTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "x", "hostNetwork": "yes", "containers": [
            {"ports": [{"name": "http", "containerPort": 80}, {"name": "Bad", "containerPort": 1}]}, 7],
            "initContainers": [{"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 81}]},
                {"ports": [{"name": "init", "containerPort": 82}]}]},
        "status": {"phase": "Hibernating", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"ip": 7}, 8]},
    });
    let read = read(Resource::OwnPods, &text.to_string()).expect("it has a name");
    let Some(Object::Pod(pod)) = read.object else { panic!("{:?}", read.narrowed) };
    assert_eq!(pod.addresses.len(), 2, "a second address of a family is the pod's as well");
    assert_eq!((pod.created, pod.terminating, pod.host_network), (0, true, false));
    let names: Vec<&str> = pod.named_ports.iter().map(|port| port.name.as_str()).collect();
    assert_eq!(names, ["http", "side"]);
    let fields: Vec<&str> = read.narrowed.iter().map(|part| part.field.as_str()).collect();
    assert_eq!(fields, ["status.podIPs[2].ip"]);
}

/// JSON of any shape, with words of the API among its names.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("metadata"),
        Just("name"),
        Just("namespace"),
        Just("labels"),
        Just("uid"),
        Just("spec"),
        Just("status"),
        Just("podSelector"),
        Just("namespaceSelector"),
        Just("matchLabels"),
        Just("matchExpressions"),
        Just("key"),
        Just("operator"),
        Just("values"),
        Just("policyTypes"),
        Just("ingress"),
        Just("egress"),
        Just("from"),
        Just("to"),
        Just("ports"),
        Just("port"),
        Just("endPort"),
        Just("protocol"),
        Just("ipBlock"),
        Just("cidr"),
        Just("except"),
        Just("podIPs"),
        Just("ip"),
        Just("containers"),
        Just("addresses"),
        Just("?"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        prop_oneof![Just("In"), Just("Ingress"), Just("TCP"), Just("10.0.0.0/8"), Just("10.0.0.1")]
            .prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(7, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(word.clone(), inner, 0..5).prop_map(|map| {
                Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
            }),
        ]
    })
}

fn selector() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({"matchLabels": {"app": "a"}})),
        Just(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]})),
        Just(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]})),
        Just(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]})),
        Just(json!({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]})),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    prop_oneof![
        selector().prop_map(|pods| json!({"podSelector": pods})),
        selector().prop_map(|namespaces| json!({"namespaceSelector": namespaces})),
        (selector(), selector())
            .prop_map(|(n, p)| json!({"namespaceSelector": n, "podSelector": p})),
        Just(json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})),
        Just(json!({"ipBlock": {"cidr": "::/0"}})),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"port": 80})),
        Just(json!({"port": 80, "endPort": 443, "protocol": "TCP"})),
        Just(json!({"port": "http"})),
        Just(json!({"protocol": "UDP"})),
    ]
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (
        prop::option::of(prop::collection::vec(peer(), 0..3)),
        prop::option::of(prop::collection::vec(port(), 0..3)),
    )
        .prop_map(move |(from, ports)| {
            let mut rule = json!({});
            from.into_iter().for_each(|from| rule[peers] = from.into());
            ports.into_iter().for_each(|ports| rule["ports"] = ports.into());
            rule
        })
}

/// A policy as a server shows it.
fn valid() -> impl Strategy<Value = Value> {
    let types = prop::option::of(prop_oneof![
        Just(json!(["Ingress"])),
        Just(json!(["Egress"])),
        Just(json!(["Ingress", "Egress"])),
        Just(json!([])),
    ]);
    let rules = |peers| prop::option::of(prop::collection::vec(rule(peers), 0..3));
    (selector(), types, rules("from"), rules("to")).prop_map(
        |(selector, types, ingress, egress)| {
            let mut spec = json!({"podSelector": selector});
            types.into_iter().for_each(|types| spec["policyTypes"] = types);
            ingress.into_iter().for_each(|rules| spec["ingress"] = rules.into());
            egress.into_iter().for_each(|rules| spec["egress"] = rules.into());
            json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec})
        },
    )
}

/// The places of a tree below its spec, as JSON pointers.
fn places(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                places(item, &format!("{at}/{index}"), into);
            }
        }
        Value::Object(fields) => {
            for (key, value) in fields {
                places(value, &format!("{at}/{key}"), into);
            }
        }
        _ => {}
    }
}

/// What no version of the API has had in any place so far.
fn unknown() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"?": 1})),
        Just(json!(7.5)),
        Just(json!(-1)),
        Just(json!(true)),
        Just(json!([[]])),
        Just(json!([{"?": 1}])),
        Just(json!([7])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_json_with_a_name_is_a_policy(spec in anything(), further in anything()) {
        let object = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": spec, "?": further});
        let (policy, narrowed) = read_policy(&object);
        // A field beside the spec is unknown, and therefore nothing is allowed.
        prop_assert!(!narrowed.is_empty());
        prop_assert!(policy.ingress.is_none_or(|rules| rules.is_empty()));
        prop_assert!(policy.egress.is_none_or(|rules| rules.is_empty()));
    }

    #[test]
    fn no_json_is_a_fault(value in anything()) {
        for resource in Resource::ALL {
            let named = read(resource, &value.to_string());
            let has_name = value["metadata"]["name"].as_str().is_some_and(|name| !name.is_empty());
            prop_assert!(has_name || named.is_err());
        }
    }

    #[test]
    fn no_text_is_a_fault(text in ".*") {
        for resource in Resource::ALL {
            prop_assert!(read(resource, &text).is_err());
        }
    }

    #[test]
    fn what_is_valid_is_understood(object in valid()) {
        prop_assert_eq!(read_policy(&object).1, Vec::new());
    }

    #[test]
    fn nothing_unknown_lets_more_pass(object in valid(), place in any::<Index>(), unknown in unknown(), beside in any::<bool>()) {
        let (before, _) = read_policy(&object);
        let mut changed = object.clone();
        let mut all = Vec::new();
        places(&object["spec"], "/spec", &mut all);
        let place = place.get(&all);
        let there = changed.pointer_mut(place).expect("it is one of its places");
        match (beside, there) {
            (true, Value::Object(fields)) => drop(fields.insert("?".to_owned(), unknown)),
            (true, Value::Array(items)) => items.push(unknown),
            (_, there) => *there = unknown,
        }
        let (after, narrowed) = read_policy(&changed);
        prop_assert!(!narrowed.is_empty(), "{changed}: it is told");
        let wider = wider(&after, &before);
        prop_assert!(wider.is_none(), "{changed} lets pass {wider:?}");
    }
}
