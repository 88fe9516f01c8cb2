//! NetworkPolicy, totally: any value becomes a policy, and what is not understood allows nothing.
//!
//! The rules of narrowing, from the inside out: a peer or a port that is not understood matches
//! nobody; a list of peers or ports of which nothing is left, and a rule with a field that is not
//! known, allow nothing; a spec with such a field isolates and has no rules; if it cannot be said
//! whom a policy selects, it selects every pod of its namespace and has no rules; if it cannot be
//! said which directions it isolates, it isolates both.

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::notes::{Notes, below};
use super::selector::selector;
use crate::source::{cidr, names};
use np_policy::model::{
    IpBlock, Peer, Policy, PolicyKey, PortMatch, Ports, Protocol, Rule, Selector,
};

const NO_RULES: &str = "the pods that it selects are isolated, and it allows nothing";
const ALL_PODS: &str = "every pod of its namespace is isolated, and it allows nothing";
const BOTH: &str = "it isolates for ingress and for egress";
const NO_RULE: &str = "this rule allows nothing";
const NO_PEER: &str = "this peer matches nobody";
const NO_PORT: &str = "this port matches nothing";

/// Reads what a policy says. `object` has no `metadata` any more.
pub(super) fn policy(key: PolicyKey, object: &Map<String, Value>, notes: &mut Notes) -> Policy {
    // `status` is what old API servers served; it never said anything.
    let known = ["apiVersion", "kind", "metadata", "spec", "status"];
    let mut understood = notes.only("", object, &known, NO_RULES);
    let none = Map::new();
    let spec = match object.get("spec") {
        None | Some(Value::Null) => &none,
        Some(Value::Object(spec)) => spec,
        Some(other) => {
            notes.add("spec", other, "no spec of a NetworkPolicy", ALL_PODS);
            return closed(key);
        }
    };
    let known = ["podSelector", "policyTypes", "ingress", "egress"];
    let whole = notes.only("spec", spec, &known, NO_RULES);
    understood &= whole;
    let subjects = match spec.get("podSelector") {
        None | Some(Value::Null) => Some(Selector::everything()),
        Some(value) => selector(value, "spec.podSelector", ALL_PODS, notes),
    };
    understood &= subjects.is_some();
    let ingress = rules(spec, "ingress", "from", notes);
    let egress = rules(spec, "egress", "to", notes);
    let (isolates_ingress, isolates_egress) = types(spec, whole, notes);
    let rules = |isolates: bool, rules: Vec<Rule>| {
        isolates.then(|| if understood { rules.into() } else { Box::default() })
    };
    Policy {
        key,
        subjects: subjects.unwrap_or_default(),
        ingress: rules(isolates_ingress, ingress),
        egress: rules(isolates_egress, egress),
    }
}

/// The policy of which nothing but its name is known.
pub(super) fn closed(key: PolicyKey) -> Policy {
    let none = || Some(Box::default());
    Policy { key, subjects: Selector::everything(), ingress: none(), egress: none() }
}

/// Reads a policy of which the text cannot be read.
pub(super) fn unreadable(key: PolicyKey, problem: String, notes: &mut Notes) -> Policy {
    notes.add("spec", &Value::Null, problem, ALL_PODS);
    closed(key)
}

/// Says which directions are isolated. Servers fill in the types: where they are missing next to a
/// field that is not known, that field may be what says it.
fn types(spec: &Map<String, Value>, whole: bool, notes: &mut Notes) -> (bool, bool) {
    let path = "spec.policyTypes";
    let items = match spec.get("policyTypes") {
        None | Some(Value::Null) => &Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            notes.add(path, other, "no list of policy types", BOTH);
            return (true, true);
        }
    };
    if items.is_empty() {
        let absent = match spec.get("egress") {
            None | Some(Value::Null) => true,
            Some(Value::Array(rules)) => rules.is_empty(),
            Some(_) => false,
        };
        return (true, !absent || !whole);
    }
    let (mut ingress, mut egress) = (false, false);
    for (index, item) in items.iter().enumerate() {
        match item.as_str() {
            Some("Ingress") => ingress = true,
            Some("Egress") => egress = true,
            _ => {
                let problem = "no policy type that this np-agent knows";
                notes.add(&format!("{path}[{index}]"), item, problem, BOTH);
                (ingress, egress) = (true, true);
            }
        }
    }
    (ingress, egress)
}

fn rules(spec: &Map<String, Value>, list: &str, peers: &str, notes: &mut Notes) -> Vec<Rule> {
    let path = below("spec", list);
    let items = match spec.get(list) {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            notes.add(&path, other, "no list of rules", "it has no rules for this direction");
            return Vec::new();
        }
    };
    let rules = items.iter().enumerate();
    rules
        .filter_map(|(index, item)| rule(item, &format!("{path}[{index}]"), peers, notes))
        .collect()
}

/// Reads a rule; none when it allows nothing.
fn rule(value: &Value, path: &str, peers: &str, notes: &mut Notes) -> Option<Rule> {
    let Some(fields) = value.as_object() else {
        notes.add(path, value, "no rule", NO_RULE);
        return None;
    };
    let known = notes.only(path, fields, &[peers, "ports"], NO_RULE);
    let peers = some_of(fields, path, peers, notes, peer);
    let ports = some_of(fields, path, "ports", notes, port);
    known.then_some(())?;
    Some(Rule { peers: peers?, ports: ports? })
}

/// Reads the items of a list: `Some(None)` when the rule does not restrict them, none when nothing
/// of them is understood.
fn some_of<T>(
    rule: &Map<String, Value>,
    path: &str,
    list: &str,
    notes: &mut Notes,
    read: impl Fn(&Value, &str, &mut Notes) -> Option<T>,
) -> Option<Option<Box<[T]>>> {
    let path = below(path, list);
    let items = match rule.get(list) {
        None | Some(Value::Null) => return Some(None),
        Some(Value::Array(items)) if items.is_empty() => return Some(None),
        Some(Value::Array(items)) => items,
        Some(other) => {
            notes.add(&path, other, "no list", NO_RULE);
            return None;
        }
    };
    let items = items.iter().enumerate();
    let read: Vec<T> =
        items.filter_map(|(index, item)| read(item, &format!("{path}[{index}]"), notes)).collect();
    (!read.is_empty()).then(|| Some(read.into()))
}

fn peer(value: &Value, path: &str, notes: &mut Notes) -> Option<Peer> {
    let Some(fields) = value.as_object() else {
        notes.add(path, value, "no peer", NO_PEER);
        return None;
    };
    let known = ["podSelector", "namespaceSelector", "ipBlock"];
    if !notes.only(path, fields, &known, NO_PEER) {
        return None;
    }
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    match (given("podSelector"), given("namespaceSelector"), given("ipBlock")) {
        (None, None, None) => {
            notes.add(path, value, "an empty peer", NO_PEER);
            None
        }
        (None, None, Some(block)) => {
            ip_block(block, &below(path, "ipBlock"), notes).map(Peer::IpBlock)
        }
        (_, _, Some(block)) => {
            let problem = "ipBlock beside a selector in one peer";
            notes.add(&below(path, "ipBlock"), block, problem, NO_PEER);
            None
        }
        (pods, namespaces, None) => {
            let mut read = |name: &str, value: Option<&Value>| {
                value.map(|value| selector(value, &below(path, name), NO_PEER, notes))
            };
            let pods = read("podSelector", pods);
            let namespaces = read("namespaceSelector", namespaces);
            let pods = pods.unwrap_or_else(|| Some(Selector::everything()))?;
            Some(Peer::Pods {
                pods,
                namespaces: namespaces.map_or(Some(None), |read| read.map(Some))?,
            })
        }
    }
}

/// Reads a block; none when it has no address.
fn ip_block(value: &Value, path: &str, notes: &mut Notes) -> Option<IpBlock> {
    let Some(fields) = value.as_object() else {
        notes.add(path, value, "no block of addresses", NO_PEER);
        return None;
    };
    if !notes.only(path, fields, &["cidr", "except"], NO_PEER) {
        return None;
    }
    let mut network = |value: &Value, path: &str| {
        let read = value.as_str().and_then(|text| cidr::cidr(text).ok());
        if read.is_none() {
            notes.add(path, value, "no CIDR", NO_PEER);
        }
        read
    };
    let block = network(fields.get("cidr").unwrap_or(&Value::Null), &below(path, "cidr"));
    let path = below(path, "except");
    let items = match fields.get("except") {
        None | Some(Value::Null) => &Vec::new(),
        Some(Value::Array(items)) => items,
        Some(other) => {
            notes.add(&path, other, "no list of CIDRs", NO_PEER);
            return None;
        }
    };
    let items = items.iter().enumerate();
    let except: Vec<Option<IpNet>> =
        items.map(|(index, item)| network(item, &format!("{path}[{index}]"))).collect();
    // Without one of its exceptions the block would be too wide.
    without(block?, except.into_iter().collect::<Option<_>>()?)
}

/// Takes exceptions away from a block, wherever they lie; none if nothing is left.
fn without(cidr: IpNet, mut except: Vec<IpNet>) -> Option<IpBlock> {
    if except.iter().any(|except| except.contains(&cidr)) {
        return None;
    }
    except.retain(|except| cidr.contains(except));
    except.sort();
    except.dedup();
    Some(IpBlock { cidr, except: except.into() })
}

fn port(value: &Value, path: &str, notes: &mut Notes) -> Option<PortMatch> {
    let Some(fields) = value.as_object() else {
        notes.add(path, value, "no port", NO_PORT);
        return None;
    };
    if !notes.only(path, fields, &["protocol", "port", "endPort"], NO_PORT) {
        return None;
    }
    let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let protocol = given("protocol").map_or(Some(Protocol::Tcp), protocol);
    let ports = match (given("port"), given("endPort")) {
        (None, None) => Some(Ports::All),
        (None, Some(_)) => None,
        (Some(first), None) => one_port(first),
        (Some(first), Some(last)) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Some(Ports::Range(first, last)),
            _ => None,
        },
    };
    if protocol.is_none() || ports.is_none() {
        notes.add(path, value, "no port that this np-agent knows", NO_PORT);
    }
    Some(PortMatch { protocol: protocol?, ports: ports? })
}

pub(super) fn protocol(value: &Value) -> Option<Protocol> {
    match value.as_str()? {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// Reads a number from 1 to 65535.
pub(super) fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
}

fn one_port(value: &Value) -> Option<Ports> {
    match value {
        Value::String(name) => names::port_name(name).then(|| Ports::Named(name.clone())),
        _ => number(value).map(|port| Ports::Range(port, port)),
    }
}
