//! Pod, Namespace and Node, totally: the fields that policy reads. One of a wrong type is as if it
//! were not there.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::notes::Notes;
use super::policy::{number, protocol};
use crate::source::{cidr, names, prefixes, time};
use np_policy::model::{
    ContainerPort, Labels, Namespace, Node, NodeName, Phase, Pod, PodKey, PodUid, Protocol,
    SOURCE_PREFIXES,
};

const NO_LABELS: &str = "it is as if it did not exist: no selector matches it";
const NO_ADDRESS: &str = "this address is nobody's";

/// Reads labels; none when they are not what labels are.
fn labels(object: &Value, notes: &mut Notes) -> Option<Labels> {
    let value = &object["metadata"]["labels"];
    let read = match value {
        Value::Null => Some(Labels::new()),
        Value::Object(labels) => {
            let text =
                |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
            labels.iter().map(text).collect()
        }
        _ => None,
    };
    if read.is_none() {
        notes.add("metadata.labels", value, "no labels", NO_LABELS);
    }
    read
}

/// Reads a namespace; none when nobody can say what selects it.
pub(super) fn namespace(name: &str, object: &Value, notes: &mut Notes) -> Option<Namespace> {
    let mut labels = labels(object, notes)?;
    // The API server sets this one.
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
    Some(Namespace { name: name.to_owned(), labels })
}

/// Reads a pod; none when nobody can say which it is, or what selects it.
pub(super) fn pod(key: PodKey, uid: &str, object: &Value, notes: &mut Notes) -> Option<Pod> {
    if uid.is_empty() {
        notes.add("metadata.uid", &Value::Null, "a pod without a uid", NO_LABELS);
        return None;
    }
    let labels = labels(object, notes)?;
    let (metadata, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let node = text(&spec["nodeName"]);
    let phase = match status["phase"].as_str() {
        Some("Succeeded" | "Failed") => Phase::Finished,
        _ => Phase::Active,
    };
    let prefixes = metadata["annotations"][SOURCE_PREFIXES].as_str();
    Some(Pod {
        key,
        uid: PodUid(uid.into()),
        node: (!node.is_empty()).then(|| NodeName(node.into())),
        labels: labels.into(),
        addresses: pod_addresses(status, notes).into(),
        source_prefixes: prefixes.and_then(prefixes::read),
        named_ports: named_ports(spec).into(),
        host_network: spec["hostNetwork"].as_bool().unwrap_or(false),
        phase,
        terminating: !metadata["deletionTimestamp"].is_null(),
        created: metadata["creationTimestamp"].as_str().and_then(time::seconds).unwrap_or(0),
    })
}

/// `podIPs`, or else the one `podIP`. A second one of a family is the pod's as well.
fn pod_addresses(status: &Value, notes: &mut Notes) -> Vec<IpAddr> {
    let mut given: Vec<(String, &Value)> = Vec::new();
    for (index, item) in items(&status["podIPs"]).iter().enumerate() {
        given.push((format!("status.podIPs[{index}].ip"), &item["ip"]));
    }
    if given.is_empty() {
        given.push(("status.podIP".to_owned(), &status["podIP"]));
    }
    let mut addresses = Vec::new();
    for (field, value) in given {
        if value.is_null() || value.as_str() == Some("") {
            continue;
        }
        match value.as_str().and_then(cidr::address) {
            Some(address) if !addresses.contains(&address) => addresses.push(address),
            Some(_) => {}
            None => notes.add(&field, value, "no IP address", NO_ADDRESS),
        }
    }
    addresses
}

/// Named ports of containers and of sidecars: init containers that go on running.
fn named_ports(spec: &Value) -> Vec<ContainerPort> {
    let containers = items(&spec["containers"]).iter();
    let sidecars = items(&spec["initContainers"])
        .iter()
        .filter(|container| container["restartPolicy"].as_str() == Some("Always"));
    let named = |port: &Value| {
        let name = port["name"].as_str().filter(|name| names::port_name(name))?;
        let protocol = match &port["protocol"] {
            Value::Null => Protocol::Tcp,
            value => protocol(value)?,
        };
        let port = number(&port["containerPort"])?;
        Some(ContainerPort { name: name.to_owned(), protocol, port })
    };
    let containers = containers.chain(sidecars);
    let mut ports: Vec<ContainerPort> =
        containers.flat_map(|container| items(&container["ports"])).filter_map(named).collect();
    ports.sort();
    ports.dedup();
    ports
}

/// Reads a node. Addresses of other types may hold names.
pub(super) fn node(name: &str, object: &Value, notes: &mut Notes) -> Node {
    let (spec, status) = (&object["spec"], &object["status"]);
    let mut addresses = Vec::new();
    for (index, item) in items(&status["addresses"]).iter().enumerate() {
        if !matches!(item["type"].as_str(), Some("InternalIP" | "ExternalIP")) {
            continue;
        }
        match item["address"].as_str().and_then(cidr::address) {
            Some(address) => addresses.push(address),
            None => {
                let field = format!("status.addresses[{index}].address");
                notes.add(&field, &item["address"], "no IP address", NO_ADDRESS);
            }
        }
    }
    let mut blocks: Vec<&Value> = items(&spec["podCIDRs"]).iter().collect();
    if blocks.is_empty() {
        blocks.push(&spec["podCIDR"]);
    }
    let block = |value: &Value| -> Option<IpNet> { cidr::cidr(value.as_str()?).ok() };
    let pod_cidrs = blocks.into_iter().filter_map(block).collect();
    Node { name: NodeName(name.into()), addresses, pod_cidrs }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
