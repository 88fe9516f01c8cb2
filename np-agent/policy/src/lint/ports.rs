//! Ports: the Service's written for the pod's, and names that no container has.

use super::code::Code;
use super::finding::{Report, RuleAt, rules};
use super::words;
use super::world::{Group, World};
use crate::model::{
    Direction, Peer, Policy, PortMatch, Ports, Protocol, Selector, Service, TargetPort,
};

pub(super) fn check(world: &World<'_>, report: &mut Report<'_, '_>) {
    let policy = report.policy;
    for rule in rules(policy) {
        for (number, port) in rule.rule.ports.iter().flatten().enumerate() {
            let field = format!("{}.ports[{number}].port", rule.field);
            let PortMatch { protocol, ports } = port;
            match ports {
                Ports::Range(first, last) if first == last => {
                    service_port(world, report, &rule, field, (*protocol, *first));
                }
                Ports::Named(name) => unknown_name(world, report, &rule, field, (*protocol, name)),
                Ports::Range(..) | Ports::All => {}
            }
        }
    }
}

/// Where the destination pods of a rule are to be found: a namespace, and a selector in it.
fn destinations<'a>(
    world: &'a World<'_>,
    policy: &'a Policy,
    rule: &RuleAt<'a>,
) -> Vec<(&'a str, &'a Selector)> {
    let own = policy.key.namespace.as_ref();
    match rule.direction {
        Direction::Ingress => vec![(own, &policy.subjects)],
        Direction::Egress => {
            let peers = rule.rule.peers.as_deref().unwrap_or_default().iter();
            peers
                .flat_map(|peer| match peer {
                    Peer::IpBlock(_) => Vec::new(),
                    Peer::Pods { namespaces, pods } => world
                        .namespaces(own, namespaces.as_ref())
                        .map(|namespace| (namespace, pods))
                        .collect(),
                })
                .collect()
        }
    }
}

/// A Service of `namespace` that selects some of the selected pods, and those pods. If no pods are
/// known, the Service's own labels take their place.
pub(super) fn behind<'w, 'a>(
    world: &'w World<'a>,
    namespace: &str,
    selector: &Selector,
    service: &'w Service,
) -> Option<Vec<&'w Group<'a>>> {
    let wanted = service.selector.as_ref()?;
    let fronts =
        |group: &&Group<'_>| wanted.iter().all(|(key, value)| group.labels.get(key) == Some(value));
    if world.pods(namespace).is_empty() {
        return selector.matches(wanted).then(Vec::new);
    }
    let (key, value) = wanted.first_key_value()?;
    let pods: Vec<_> = world
        .labelled(namespace, key, value)
        .filter(|group| selector.matches(group.labels))
        .filter(fronts)
        .collect();
    (!pods.is_empty()).then_some(pods)
}

/// The port is what clients of a Service connect to, and no pod of the rule listens there.
fn service_port(
    world: &World<'_>,
    report: &mut Report<'_, '_>,
    rule: &RuleAt<'_>,
    field: String,
    (protocol, number): (Protocol, u16),
) {
    let mut mistaken: Option<(&Service, Vec<u16>, &TargetPort)> = None;
    for (namespace, selector) in destinations(world, report.policy, rule) {
        if world.selected(namespace, selector).any(|pods| pods.declares(protocol, number)) {
            return;
        }
        for service in world.services_of(namespace) {
            if !service.ports.iter().any(|port| port.protocol == protocol) {
                continue;
            }
            let Some(pods) = behind(world, namespace, selector, service) else { continue };
            for port in service.ports.iter().filter(|port| port.protocol == protocol) {
                let numbers: Vec<u16> = match &port.target {
                    TargetPort::Number(number) => vec![*number],
                    TargetPort::Named(name) => {
                        pods.iter().flat_map(|pods| pods.numbers(protocol, name)).collect()
                    }
                };
                if numbers.contains(&number) {
                    return;
                }
                if port.port == number && !numbers.is_empty() && mistaken.is_none() {
                    mistaken = Some((service, numbers, &port.target));
                }
            }
        }
    }
    let Some((service, numbers, target)) = mistaken else { return };
    let Service { namespace, name, .. } = service;
    let numbers = words::either(numbers);
    report.warn(
        Code::ServicePort,
        field,
        format!(
            "{number} is the port of Service {namespace}/{name}, whose pods listen on {numbers}, \
             but a policy is judged on the pod's port"
        ),
        match target {
            TargetPort::Number(_) => format!("write the Service's targetPort: {numbers}"),
            TargetPort::Named(name) => {
                format!("write the Service's targetPort: {name}, which is {numbers}")
            }
        },
    );
}

fn unknown_name(
    world: &World<'_>,
    report: &mut Report<'_, '_>,
    rule: &RuleAt<'_>,
    field: String,
    (protocol, name): (Protocol, &str),
) {
    // A name is looked for on every pod that a block of addresses may hold, too.
    let everyone = rule.direction == Direction::Egress
        && rule
            .rule
            .peers
            .as_ref()
            .is_none_or(|peers| peers.iter().any(|peer| matches!(peer, Peer::IpBlock(_))));
    let pods: Vec<&Group<'_>> = if everyone {
        world.every_pod().collect()
    } else {
        destinations(world, report.policy, rule)
            .into_iter()
            .flat_map(|(namespace, selector)| world.selected(namespace, selector))
            .collect()
    };
    // Without a pod, what is missing is the pod: another finding says so.
    if pods.is_empty() || pods.iter().any(|pods| pods.numbers(protocol, name).next().is_some()) {
        return;
    }
    let whose = match rule.direction {
        Direction::Ingress => "selected",
        Direction::Egress if everyone => "known",
        Direction::Egress => "named",
    };
    let ports = pods.iter().flat_map(|pods| &pods.ports);
    let other = ports.clone().find(|port| port.name == Some(name)).map(|port| port.protocol);
    let remedy = match (other, of_service(world, name)) {
        (Some(other), _) => format!("it is a port of {other}: add \"protocol: {other}\""),
        (None, Some((service, target))) => {
            format!("it is a port of Service {service}: write its targetPort, {target}")
        }
        (None, None) => {
            let names: Vec<&str> = ports
                .filter(|port| port.protocol == protocol)
                .filter_map(|port| port.name)
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect();
            if names.is_empty() {
                "write the port's number, or give the container's port this name".to_owned()
            } else {
                format!("the known names are: {}", words::joined(names))
            }
        }
    };
    report.warn(
        Code::UnknownPortName,
        field,
        format!("no container of the {whose} pods has a {protocol} port named \"{name}\""),
        remedy,
    );
}

/// The Service that has a port of this name, and the target of that port.
fn of_service(world: &World<'_>, name: &str) -> Option<(String, String)> {
    world.services().find_map(|service| {
        let port = service.ports.iter().find(|port| port.name.as_deref() == Some(name))?;
        let target = match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Named(name) => name.clone(),
        };
        Some((format!("{}/{}", service.namespace, service.name), target))
    })
}
