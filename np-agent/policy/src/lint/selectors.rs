//! Selectors: those that match nothing, and requirements that contradict or repeat each other.

use std::collections::BTreeSet;

use super::code::Code;
use super::finding::{Report, rules};
use super::world::World;
use super::{items, words};
use crate::model::{Peer, Requirement, Selector, Values};

pub(super) fn check(world: &World<'_>, report: &mut Report<'_, '_>) {
    let policy = report.policy;
    if sound(report, "spec.podSelector", &policy.subjects) {
        subjects(world, report);
    }
    for rule in rules(policy) {
        for (field, peer) in rule.peers() {
            let Peer::Pods { namespaces, pods } = peer else { continue };
            let pods_field = format!("{field}.podSelector");
            let namespaces_field = format!("{field}.namespaceSelector");
            let mut sound_pair = sound(report, &pods_field, pods);
            if let Some(namespaces) = namespaces {
                sound_pair &= sound(report, &namespaces_field, namespaces);
            }
            if !sound_pair || items::explains(world, policy, &rule, peer) {
                continue;
            }
            match namespaces {
                Some(selector) if world.namespaces("", Some(selector)).next().is_none() => {
                    no_namespaces(world, report, namespaces_field, selector);
                }
                _ => no_peers(world, report, pods_field, peer, pods),
            }
        }
    }
    let repeated = report.written.map(|written| written.repeated.as_slice()).unwrap_or_default();
    for field in repeated {
        report.info(
            Code::RepeatedRequirement,
            field.clone(),
            "the selector already has this requirement",
            "remove one of the two, or correct the one that should differ",
        );
    }
}

fn subjects(world: &World<'_>, report: &mut Report<'_, '_>) {
    let policy = report.policy;
    let namespace = &policy.key.namespace;
    let field = "spec.podSelector";
    let mut selected = world.selected(namespace, &policy.subjects).peekable();
    if selected.peek().is_some() {
        if selected.all(|group| !group.own_network) {
            report.warn(
                Code::HostNetwork,
                field,
                "only pods with hostNetwork are selected, which every policy treats as the node: \
                 nothing is isolated",
                "restrict them with a firewall on the node, or run them without hostNetwork",
            );
        }
        return;
    }
    if policy.subjects.is_everything() || !world.any_pods() {
        return;
    }
    let labels = words::selector(&policy.subjects);
    if world.pods(namespace).is_empty() {
        report.info(
            Code::NoSubjects,
            field,
            format!("no pod of namespace {namespace} is known here, so none is {labels}"),
            "correct metadata.namespace if the policy is for pods of another namespace",
        );
    } else {
        let elsewhere = world.every_pod().any(|group| policy.subjects.matches(group.labels));
        report.warn(
            Code::NoSubjects,
            field,
            format!("no pod of namespace {namespace} is {labels}: the policy isolates nothing"),
            if elsewhere {
                "pods of another namespace are: correct metadata.namespace, or the labels"
            } else {
                "correct the labels, or leave podSelector empty for every pod of the namespace"
            },
        );
    }
}

fn no_namespaces(
    world: &World<'_>,
    report: &mut Report<'_, '_>,
    field: String,
    selector: &Selector,
) {
    if !world.namespaces_known {
        return;
    }
    report.warn(
        Code::NoNamespaces,
        field,
        format!("no namespace is {}", words::selector(selector)),
        "correct the labels, label the namespace, or select it by its name: \
         kubernetes.io/metadata.name",
    );
}

fn no_peers(
    world: &World<'_>,
    report: &mut Report<'_, '_>,
    field: String,
    peer: &Peer,
    pods: &Selector,
) {
    let Peer::Pods { namespaces, .. } = peer else { return };
    let own = &report.policy.key.namespace;
    if pods.is_everything() || world.peers(own, peer).next().is_some() {
        return;
    }
    let places: Vec<&str> = world
        .namespaces(own, namespaces.as_ref())
        .filter(|namespace| !world.pods(namespace).is_empty())
        .collect();
    if places.is_empty() {
        return;
    }
    let host_network =
        places.iter().any(|namespace| world.selected(namespace, pods).next().is_some());
    let elsewhere = namespaces.is_none()
        && world.every_pod().any(|group| group.own_network && pods.matches(group.labels));
    let labels = words::selector(pods);
    let places = words::joined(&places);
    let (message, remedy) = if host_network {
        (
            format!("the pods {labels} of {places} have hostNetwork, which no selector matches"),
            "name their nodes' addresses in an ipBlock",
        )
    } else if elsewhere {
        (
            format!("no pod of namespace {places} is {labels}, and those of others are not meant"),
            "add a namespaceSelector to the same item if they are",
        )
    } else {
        (format!("no pod of {places} is {labels}"), "correct the labels of the selector")
    };
    report.warn(Code::NoPeers, field, message, remedy);
}

/// Reports requirements that contradict or imply each other; false when nothing can match.
fn sound(report: &mut Report<'_, '_>, field: &str, selector: &Selector) -> bool {
    let mut sound = true;
    let keys: BTreeSet<&str> = selector.requirements().map(key).collect();
    for name in keys {
        let demands = Demands::on(name, selector);
        if demands.contradictory() {
            sound = false;
            report.warn(
                Code::Contradiction,
                field,
                format!("the requirements on {name} exclude each other: nothing matches"),
                "keep one of them; write several values for one label as one In requirement",
            );
        } else if demands.redundant() {
            report.info(
                Code::RepeatedRequirement,
                field,
                format!("the requirements on {name} overlap"),
                "keep the stricter one",
            );
        }
    }
    sound
}

fn key(requirement: &Requirement) -> &str {
    match requirement {
        Requirement::In(key, _)
        | Requirement::NotIn(key, _)
        | Requirement::Exists(key)
        | Requirement::DoesNotExist(key) => key,
    }
}

/// What a selector demands of one label.
#[derive(Default)]
struct Demands<'a> {
    allowed: Vec<&'a Values>,
    excluded: BTreeSet<&'a str>,
    exists: bool,
    absent: bool,
}

impl<'a> Demands<'a> {
    fn on(name: &str, selector: &'a Selector) -> Self {
        let mut demands = Self::default();
        for requirement in selector.requirements().filter(|one| key(one) == name) {
            match requirement {
                Requirement::In(_, values) => demands.allowed.push(values),
                Requirement::NotIn(_, values) => {
                    demands.excluded.extend(values.iter().map(AsRef::as_ref));
                }
                Requirement::Exists(_) => demands.exists = true,
                Requirement::DoesNotExist(_) => demands.absent = true,
            }
        }
        demands
    }

    fn contradictory(&self) -> bool {
        if self.absent {
            return self.exists || !self.allowed.is_empty();
        }
        let Some((first, others)) = self.allowed.split_first() else { return false };
        !first.iter().any(|value| {
            others.iter().all(|values| values.contains(value)) && !self.excluded.contains(&**value)
        })
    }

    /// One requirement follows from the others.
    fn redundant(&self) -> bool {
        let given = !self.allowed.is_empty();
        (given && self.exists)
            || self.allowed.len() > 1
            || (self.absent && !self.excluded.is_empty())
            || (given
                && !self.excluded.is_empty()
                && self
                    .allowed
                    .iter()
                    .all(|values| values.iter().all(|value| !self.excluded.contains(&**value))))
    }
}
