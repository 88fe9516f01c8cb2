//! Lists of rules and peers: one item where two were meant, two where one was, and the same twice.

use super::code::Code;
use super::finding::{Report, RuleAt, rules};
use super::words;
use super::world::World;
use crate::model::{Peer, Policy, Selector};

pub(super) fn check(world: &World<'_>, report: &mut Report<'_, '_>) {
    let policy = report.policy;
    for rule in rules(policy) {
        two_items(world, report, &rule);
        for (field, peer) in rule.peers() {
            if let Peer::Pods { namespaces: Some(namespaces), pods } = peer
                && should_be_two(world, policy, peer)
            {
                report.warn(
                    Code::OneItem,
                    field,
                    format!(
                        "one item means pods {} in namespaces {}; there are none, although each \
                         of the two by itself matches pods",
                        words::selector(pods),
                        words::selector(namespaces)
                    ),
                    "make two items if either may match: give podSelector a \"- \" of its own",
                );
            }
        }
    }
    repeated(report);
}

/// A namespaceSelector followed by a podSelector as the two items of a list: the pods of some
/// namespaces, or pods of the policy's own. It is a warning only if the world knows better.
fn two_items(world: &World<'_>, report: &mut Report<'_, '_>, rule: &RuleAt<'_>) {
    let Some((field, namespaces, pods)) = pair(rule) else { return };
    let (names, labels) = (words::selector(namespaces), words::selector(pods));
    let meaning = format!(
        "two items mean every pod of namespaces {names}, or pods {labels} of the policy's own \
         namespace"
    );
    let remedy = "remove the \"- \" before podSelector if the pods of those namespaces are meant";
    if should_be_one(world, report.policy, namespaces, pods) {
        let message = format!("{meaning}; it has none, but those namespaces have such pods");
        report.warn(Code::TwoItems, field, message, remedy);
    } else {
        report.info(Code::TwoItems, field, meaning, remedy);
    }
}

/// The field of the second item, and the selectors of both.
fn pair<'a>(rule: &RuleAt<'a>) -> Option<(String, &'a Selector, &'a Selector)> {
    let peers: Vec<_> = rule.peers().collect();
    let [(_, first), (field, second)] = peers.as_slice() else { return None };
    match (first, second) {
        (
            Peer::Pods { namespaces: Some(namespaces), pods: every },
            Peer::Pods { namespaces: None, pods },
        ) if every.is_everything() && !namespaces.is_everything() && !pods.is_everything() => {
            Some((field.clone(), namespaces, pods))
        }
        _ => None,
    }
}

/// The podSelector matches no pod where it looks, but matches some where its neighbour looks.
fn should_be_one(
    world: &World<'_>,
    policy: &Policy,
    namespaces: &Selector,
    pods: &Selector,
) -> bool {
    let own = &policy.key.namespace;
    !world.pods(own).is_empty()
        && world.selected(own, pods).next().is_none()
        && world
            .namespaces(own, Some(namespaces))
            .any(|namespace| world.selected(namespace, pods).next().is_some())
}

/// Together the selectors match no pod, while each by itself matches some.
fn should_be_two(world: &World<'_>, policy: &Policy, peer: &Peer) -> bool {
    let Peer::Pods { namespaces: Some(namespaces), pods } = peer else { return false };
    let own = &policy.key.namespace;
    !pods.is_everything()
        && !namespaces.is_everything()
        && world.selected(own, pods).next().is_some()
        && world.peers(own, peer).next().is_none()
        && world
            .namespaces(own, Some(namespaces))
            .any(|namespace| !world.pods(namespace).is_empty())
}

/// Whether another finding of this file says already why a peer matches nothing.
pub(super) fn explains(world: &World<'_>, policy: &Policy, rule: &RuleAt<'_>, peer: &Peer) -> bool {
    let paired = pair(rule).filter(
        |(_, _, second)| matches!(peer, Peer::Pods { namespaces: None, pods } if pods == *second),
    );
    paired.is_some_and(|(_, namespaces, pods)| should_be_one(world, policy, namespaces, pods))
        || should_be_two(world, policy, peer)
}

fn repeated(report: &mut Report<'_, '_>) {
    let all: Vec<RuleAt<'_>> = rules(report.policy).collect();
    for (number, rule) in all.iter().enumerate() {
        let same = |earlier: &&RuleAt<'_>| {
            earlier.direction == rule.direction && earlier.rule == rule.rule
        };
        if let Some(earlier) = all[..number].iter().find(same) {
            report.info(
                Code::RepeatedRule,
                rule.field.clone(),
                format!("the same rule as {}", earlier.field),
                "remove one of the two, or correct the one that should differ",
            );
            continue;
        }
        let peers: Vec<_> = rule.peers().collect();
        for (number, (field, peer)) in peers.iter().enumerate() {
            if let Some((earlier, _)) = peers[..number].iter().find(|(_, other)| other == peer) {
                report.info(
                    Code::RepeatedRule,
                    field.clone(),
                    format!("the same peer as {earlier}"),
                    "remove one of the two, or correct the one that should differ",
                );
            }
        }
        let ports = rule.rule.ports.as_deref().unwrap_or_default();
        for (number, port) in ports.iter().enumerate() {
            if let Some(earlier) = ports[..number].iter().position(|other| other == port) {
                report.info(
                    Code::RepeatedRule,
                    format!("{}.ports[{number}]", rule.field),
                    format!("the same port as {}.ports[{earlier}]", rule.field),
                    "remove one of the two, or correct the one that should differ",
                );
            }
        }
    }
}
