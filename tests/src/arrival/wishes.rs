//! The objects that the agents read: pods as they are, and policies drawn at random around a few
//! that are nearly always there.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::host::Host;
use crate::address::{Family, twin_block};
use crate::generate::dice::Dice;

/// The labels of pods.
pub const APPS: [&str; 5] = ["open", "web", "closed", "jailed", "choosy"];
/// The ports of pods that rules name.
pub const PORTS: [u16; 3] = [8080, 8443, 5353];

/// A pod that runs; without an address as long as its status has not come.
pub fn pod(host: &Host, node: &str, with_address: bool) -> Value {
    let labels: Value = host.labels.iter().map(|(key, value)| (*key, json!(value))).collect();
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": host.name, "namespace": "default", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.org/main:1"}]},
        "status": {"phase": "Pending"},
    });
    if with_address {
        let ips = Family::BOTH.map(|family| family.address(host.v4).to_string());
        pod["status"] = json!({
            "phase": "Running",
            "podIP": ips[0],
            "podIPs": ips.map(|ip| json!({"ip": ip})),
        });
    }
    pod
}

/// A set of policies: the base nearly whole, and some more.
pub fn policies(dice: &mut Dice<'_>) -> Vec<Value> {
    let mut all = dice.some(94, &base(), |_, policy| policy.clone());
    let count = dice.below(4);
    for number in 0..count {
        all.push(random(dice, &format!("extra-{number}")));
    }
    all
}

/// Who is isolated, each in its own way.
fn base() -> [Value; 4] {
    [
        policy("closed", "closed", json!({"policyTypes": ["Ingress"]})),
        policy("jailed", "jailed", json!({"policyTypes": ["Ingress", "Egress"]})),
        policy(
            "choosy",
            "choosy",
            json!({
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "open"}}}]}],
            }),
        ),
        policy(
            "web",
            "web",
            json!({
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [{"port": 8080}, {"port": 5353, "protocol": "UDP"}]}],
            }),
        ),
    ]
}

fn policy(name: &str, app: &str, mut spec: Value) -> Value {
    spec["podSelector"] = json!({"matchLabels": {"app": app}});
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    })
}

fn random(dice: &mut Dice<'_>, name: &str) -> Value {
    // The closed stay closed more often than not, else little is to be found.
    let app = *dice.weighted(&[
        (4, &APPS[0]),
        (3, &APPS[1]),
        (1, &APPS[2]),
        (2, &APPS[3]),
        (3, &APPS[4]),
    ]);
    let peers = dice.several(1, 2, peer);
    let mut rule = json!({});
    if dice.chance(60) {
        let port = |dice: &mut Dice<'_>| {
            let protocol = *dice.pick(&["TCP", "UDP"]);
            json!({"port": dice.pick(&PORTS), "protocol": protocol})
        };
        rule["ports"] = json!(dice.several(1, 2, port));
    }
    if dice.chance(55) {
        rule["from"] = json!(peers);
        policy(name, app, json!({"policyTypes": ["Ingress"], "ingress": [rule]}))
    } else {
        rule["to"] = json!(peers);
        policy(name, app, json!({"policyTypes": ["Egress"], "egress": [rule]}))
    }
}

fn peer(dice: &mut Dice<'_>) -> Value {
    let block = |cidr: &str| {
        let net: ipnet::Ipv4Net = cidr.parse().expect("the blocks of the plan are literals");
        [net.to_string(), twin_block(net).to_string()]
    };
    let blocks = [
        "203.0.113.50/32",
        "203.0.113.60/32",
        "192.168.65.11/32",
        "100.68.1.0/24",
        "100.68.2.0/24",
    ];
    if dice.chance(60) {
        json!({"podSelector": {"matchLabels": {"app": dice.pick(&APPS)}}})
    } else {
        let cidr: &&str = dice.pick(&blocks);
        let families = block(cidr);
        json!({"ipBlock": {"cidr": dice.pick(&families)}})
    }
}

/// Typed objects of values that this program has made.
pub fn typed<T: serde::de::DeserializeOwned>(values: &[Value]) -> anyhow::Result<Vec<T>> {
    Ok(values.iter().map(|value| T::deserialize(value)).collect::<Result<_, _>>()?)
}

/// One manifest; JSON is YAML.
pub fn manifest(values: &[Value]) -> String {
    let mut text = String::new();
    for value in values {
        writeln!(text, "---\n{value}").expect("a string takes every write");
    }
    text
}
