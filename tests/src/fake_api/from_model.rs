//! Objects of the model as a server shows them: what the agent reads back must be the same.

use np_policy::model::{Object, Peer, Ports, Requirement, Rule, Selector};
use serde_json::{Value, json};

/// Writes an object as JSON.
pub fn from_model(object: &Object) -> Value {
    match object {
        Object::Pod(pod) => {
            let ports = pod.named_ports.iter().map(|port| {
                json!({"name": port.name, "containerPort": port.port,
                    "protocol": port.protocol.to_string()})
            });
            let addresses = pod.addresses.iter().map(|ip| json!({"ip": ip.to_string()}));
            let finished = pod.phase == np_policy::model::Phase::Finished;
            json!({
                "metadata": {"name": pod.key.name, "namespace": pod.key.namespace,
                    "uid": pod.uid.to_string(), "labels": *pod.labels,
                    "creationTimestamp": time(pod.created)},
                "spec": {"nodeName": pod.node.as_ref().map(ToString::to_string),
                    "hostNetwork": pod.host_network,
                    "containers": [{"name": "c", "ports": ports.collect::<Vec<_>>()}]},
                "status": {"phase": if finished { "Succeeded" } else { "Running" },
                    "podIP": pod.addresses.first().map(ToString::to_string),
                    "podIPs": addresses.collect::<Vec<_>>()},
            })
        }
        Object::Namespace(namespace) => {
            json!({"metadata": {"name": namespace.name, "labels": namespace.labels}})
        }
        Object::Node(node) => {
            let addresses = node.addresses.iter();
            let addresses = addresses
                .map(|address| json!({"type": "InternalIP", "address": address.to_string()}));
            let blocks = node.pod_cidrs.iter().map(ToString::to_string);
            json!({"metadata": {"name": node.name.to_string()},
                "spec": {"podCIDRs": blocks.collect::<Vec<_>>()},
                "status": {"addresses": addresses.collect::<Vec<_>>()}})
        }
        Object::Policy(policy) => {
            let mut types = Vec::new();
            let mut spec = json!({"podSelector": selector(&policy.subjects)});
            for (name, list, peers, of) in [
                ("Ingress", "ingress", "from", &policy.ingress),
                ("Egress", "egress", "to", &policy.egress),
            ] {
                let Some(of) = of else { continue };
                types.push(name);
                spec[list] = of.iter().map(|of| rule(of, peers)).collect::<Vec<_>>().into();
            }
            spec["policyTypes"] = types.into();
            json!({"metadata": {"name": policy.key.name, "namespace": policy.key.namespace},
                "spec": spec})
        }
    }
}

/// Seconds since 1970 as a timestamp, by H. Hinnant's civil_from_days.
fn time(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn rule(of: &Rule, peers: &str) -> Value {
    let mut rule = json!({});
    if let Some(of) = &of.peers {
        rule[peers] = of.iter().map(peer).collect::<Vec<_>>().into();
    }
    if let Some(of) = &of.ports {
        let ports = of.iter().map(|port| {
            let mut shown = json!({"protocol": port.protocol.to_string()});
            match &port.ports {
                Ports::All => {}
                Ports::Named(name) => shown["port"] = name.as_str().into(),
                Ports::Range(first, last) => {
                    shown["port"] = (*first).into();
                    if first != last {
                        shown["endPort"] = (*last).into();
                    }
                }
            }
            shown
        });
        rule["ports"] = ports.collect::<Vec<_>>().into();
    }
    rule
}

fn peer(of: &Peer) -> Value {
    match of {
        Peer::Pods { namespaces: None, pods } => json!({"podSelector": selector(pods)}),
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            json!({"namespaceSelector": selector(namespaces), "podSelector": selector(pods)})
        }
        Peer::IpBlock(block) => {
            let except = block.except.iter().map(ToString::to_string).collect::<Vec<_>>();
            json!({"ipBlock": {"cidr": block.cidr.to_string(), "except": except}})
        }
    }
}

fn selector(of: &Selector) -> Value {
    let expressions = of.requirements().map(|requirement| match requirement {
        Requirement::In(key, values) => json!({"key": key, "operator": "In", "values": **values}),
        Requirement::NotIn(key, values) => {
            json!({"key": key, "operator": "NotIn", "values": **values})
        }
        Requirement::Exists(key) => json!({"key": key, "operator": "Exists"}),
        Requirement::DoesNotExist(key) => json!({"key": key, "operator": "DoesNotExist"}),
    });
    json!({"matchExpressions": expressions.collect::<Vec<_>>()})
}
