//! Isolated egress that cannot ask for names.

use std::collections::BTreeSet;

use super::code::Code;
use super::finding::{Report, Severity};
use super::ports::behind;
use super::world::World;
use crate::model::{Direction, Peer, Policy, Ports, Protocol, Rule, Selector, TargetPort};

/// Where DNS servers listen: the well-known port, and that of OpenShift's.
const USUAL: [u16; 2] = [53, 5353];

const REMEDY: &str = "add a rule for UDP and TCP port 53 to the cluster's DNS pods \
                      (namespace kube-system, k8s-app=kube-dns)";

pub(super) fn check(world: &World<'_>, report: &mut Report<'_, '_>) {
    let policy = report.policy;
    let rules = policy.rules(Direction::Egress).unwrap_or_default();
    // A policy that denies all egress intends to deny DNS.
    if rules.is_empty() {
        return;
    }
    let ports = ports(world);
    let allowed = |protocol| {
        allows(policy, &ports, protocol)
            || world.policies_of(&policy.key.namespace).iter().any(|other| {
                allows(other, &ports, protocol) && selects_all_of(world, other, policy)
            })
    };
    match (allowed(Protocol::Udp), allowed(Protocol::Tcp)) {
        (true, true) => {}
        (true, false) => report.info(
            Code::NoDns,
            "spec.egress",
            "DNS is allowed over UDP but not over TCP, which answers that are too long for UDP need",
            "add port 53 with \"protocol: TCP\" to the same rule",
        ),
        (false, _) => {
            let (severity, message) = match by_name(world, policy, rules) {
                Some(service) => (
                    Severity::Warning,
                    format!(
                        "egress is isolated and no rule allows DNS, so the name of Service \
                         {service} cannot be looked up"
                    ),
                ),
                None => (
                    Severity::Info,
                    "egress is isolated and no rule allows DNS, so no name can be looked up"
                        .to_owned(),
                ),
            };
            report.add((Code::NoDns, severity), "spec.egress", message, REMEDY);
        }
    }
}

/// The numbers and names under which the DNS servers of this cluster may be meant.
struct DnsPorts<'a> {
    numbers: BTreeSet<u16>,
    names: BTreeSet<&'a str>,
}

fn ports<'a>(world: &World<'a>) -> DnsPorts<'a> {
    let mut ports =
        DnsPorts { numbers: USUAL.into(), names: ["dns", "dns-tcp", "dns-udp", "domain"].into() };
    for target in &world.dns {
        match target {
            TargetPort::Number(number) => ports.numbers.insert(*number),
            TargetPort::Named(name) => ports.names.insert(name),
        };
    }
    ports
}

fn allows(policy: &Policy, ports: &DnsPorts<'_>, protocol: Protocol) -> bool {
    let rules = policy.rules(Direction::Egress).unwrap_or_default();
    rules.iter().any(|rule| {
        let by_port = rule.ports.iter().flatten().filter(|port| port.protocol == protocol);
        let explicit = by_port.clone().any(|port| match &port.ports {
            Ports::Range(first, last) if first == last => ports.numbers.contains(first),
            Ports::Named(name) => ports.names.contains(name.as_str()),
            Ports::Range(..) | Ports::All => false,
        });
        let among_others = rule.ports.is_none()
            || by_port.into_iter().any(|port| match &port.ports {
                Ports::Range(first, last) => ports.numbers.range(first..=last).next().is_some(),
                Ports::All => true,
                Ports::Named(_) => false,
            });
        // A rule that names port 53 intends DNS, whatever the peer; a rule for all ports of a
        // database does not.
        explicit || (among_others && may_reach_dns(rule))
    })
}

fn may_reach_dns(rule: &Rule) -> bool {
    let Some(peers) = &rule.peers else { return true };
    peers.iter().any(|peer| match peer {
        Peer::IpBlock(block) => block.cidr.prefix_len() == 0,
        Peer::Pods { namespaces: None, .. } => false,
        Peer::Pods { namespaces: Some(namespaces), pods } => {
            let name = ("kubernetes.io/metadata.name".to_owned(), "kube-system".to_owned());
            let dns = ("k8s-app".to_owned(), "kube-dns".to_owned());
            namespaces.matches(&[name].into()) && pods.matches(&[dns].into())
        }
    })
}

/// Whether one policy selects every pod that another one selects.
fn selects_all_of(world: &World<'_>, one: &Policy, other: &Policy) -> bool {
    let wider = |one: &Selector, other: &Selector| {
        one.requirements().all(|required| other.requirements().any(|given| given == required))
    };
    if wider(&one.subjects, &other.subjects) {
        return true;
    }
    let mut pods = world.selected(&other.key.namespace, &other.subjects).peekable();
    pods.peek().is_some() && pods.all(|group| one.subjects.matches(group.labels))
}

/// A Service of pods that this policy may connect to: they are reached by its name.
fn by_name(world: &World<'_>, policy: &Policy, rules: &[Rule]) -> Option<String> {
    let own = &policy.key.namespace;
    let peers = rules.iter().flat_map(|rule| rule.peers.iter().flatten());
    peers
        .filter_map(|peer| match peer {
            Peer::IpBlock(_) => None,
            Peer::Pods { namespaces, pods } => {
                world.namespaces(own, namespaces.as_ref()).find_map(|namespace| {
                    let mut services = world.services_of(namespace).iter();
                    let service =
                        services.find(|one| behind(world, namespace, pods, one).is_some())?;
                    Some(format!("{namespace}/{}", service.name))
                })
            }
        })
        .next()
}
