//! ipBlocks: those that match nothing, and those that match what moves.

use ipnet::IpNet;

use super::code::Code;
use super::finding::{Report, RuleAt, Severity, rules};
use super::words;
use super::world::World;
use crate::model::{IpBlock, Peer, Service, TargetPort};

pub(super) fn check(world: &World<'_>, report: &mut Report<'_, '_>) {
    for rule in rules(report.policy) {
        for (field, peer) in rule.peers() {
            let Peer::IpBlock(block) = peer else { continue };
            if nothing_left(block) {
                report.warn(
                    Code::NothingLeft,
                    format!("{field}.ipBlock.except"),
                    format!("the excepts together remove all of {}", block.cidr),
                    "remove the ipBlock, or an except that should not be there",
                );
                continue;
            }
            let field = format!("{field}.ipBlock.cidr");
            // Everyone is meant, pods and Services included.
            if block.cidr.prefix_len() == 0 {
                continue;
            }
            service_cidr(world, report, &field, block);
            pod_cidr(world, report, &field, block);
            absent_family(world, report, &field, &rule, block);
        }
    }
}

fn nothing_left(block: &IpBlock) -> bool {
    covered(&block.except, &block.cidr)
}

/// Whether some blocks together hold all of another.
fn covered(blocks: &[IpNet], whole: &IpNet) -> bool {
    IpNet::aggregate(&blocks.to_vec()).iter().any(|block| block.contains(whole))
}

/// The part of the range that the block matches; none when it matches nothing of it.
fn overlap(block: &IpBlock, range: &IpNet) -> Option<IpNet> {
    let part = if range.contains(&block.cidr) {
        block.cidr
    } else if block.cidr.contains(range) {
        *range
    } else {
        return None;
    };
    (!covered(&block.except, &part)).then_some(part)
}

fn holds(block: &IpBlock, addr: std::net::IpAddr) -> bool {
    block.cidr.contains(&addr) && !block.except.iter().any(|except| except.contains(&addr))
}

fn host_bits(net: &IpNet) -> u8 {
    net.max_prefix_len() - net.prefix_len()
}

/// The API server takes no Service range with more: `pkg/controlplane/apiserver/options`
/// of kubernetes/kubernetes, `validateClusterIPFlags`.
const MOST_SERVICE_BITS: u8 = 20;

fn service_cidr(world: &World<'_>, report: &mut Report<'_, '_>, field: &str, block: &IpBlock) {
    let cidr = block.cidr;
    let ranges = world.service_ranges.iter();
    let range = ranges.filter(|range| overlap(block, range).is_some()).max_by_key(|range| {
        // A range that holds the whole block says more than one inside it.
        range.contains(&cidr)
    });
    let hit: Vec<&Service> = world
        .services()
        .filter(|service| service.addresses.iter().any(|addr| holds(block, *addr)))
        .collect();
    let severity = match (range, hit.is_empty()) {
        (Some(range), _) if range.contains(&cidr) => Severity::Warning,
        (None, false) if host_bits(&cidr) <= MOST_SERVICE_BITS => Severity::Warning,
        (None, true) => return,
        _ => Severity::Info,
    };
    let services = match range {
        Some(range) => format!("the range of Services {range}"),
        None => format!(
            "the address of Service {}",
            words::joined(
                hit.iter().map(|service| format!("{}/{}", service.namespace, service.name))
            )
        ),
    };
    let (message, remedy) = if severity == Severity::Warning {
        let relation = match range {
            Some(range) if range == &cidr => "is".to_owned(),
            Some(_) => "is inside".to_owned(),
            None => "contains".to_owned(),
        };
        (
            format!(
                "{cidr} {relation} {services}, but a policy is judged after a Service's address \
                 has been replaced by a pod's: it never matches"
            ),
            match hit.as_slice() {
                [service] => instead(service),
                _ => "select the pods behind the Service by their labels and namespace, and name \
                      the pods' own port"
                    .to_owned(),
            },
        )
    } else {
        (
            format!(
                "{cidr} contains {services}, which never match: the Service's address has been \
                 replaced by a pod's when the policy is judged"
            ),
            "leave it if other addresses of the block are meant; for a Service select its pods"
                .to_owned(),
        )
    };
    report.add((Code::ServiceCidr, severity), field, message, remedy);
}

/// What to write for a Service that is known.
fn instead(service: &Service) -> String {
    let Service { namespace, name, addresses: _, selector, ports } = service;
    let Some(selector) = selector else {
        return format!("name the addresses of the endpoints of Service {namespace}/{name}");
    };
    let labels = selector.iter().map(|(key, value)| format!("{key}={value}"));
    let targets = words::either(ports.iter().map(|port| match &port.target {
        TargetPort::Number(number) => number.to_string(),
        TargetPort::Named(name) => name.clone(),
    }));
    let port = if targets.is_empty() { String::new() } else { format!(", port {targets}") };
    format!(
        "select the pods behind Service {namespace}/{name}: pods {} of namespace {namespace}{port}",
        labels.collect::<Vec<_>>().join(",")
    )
}

/// A block of more (10.0.0.0/8, 172.16.0.0/12) is rarely meant for the pods in it; the pod ranges
/// of clusters are not larger.
fn narrow(cidr: &IpNet) -> bool {
    host_bits(cidr) <= if cidr.addr().is_ipv4() { 18 } else { 80 }
}

fn pod_cidr(world: &World<'_>, report: &mut Report<'_, '_>, field: &str, block: &IpBlock) {
    let cidr = block.cidr;
    let range = world.pod_ranges.iter().find(|range| overlap(block, range).is_some());
    let pods = world.pod_addresses.range(cidr.network()..=cidr.broadcast());
    let pod = pods.copied().find(|addr| holds(block, *addr));
    let what = match (range, pod) {
        (Some(range), _) if range.contains(&cidr) => format!("is inside the pods' range {range}"),
        (Some(range), _) => format!("contains the pods' range {range}"),
        (None, Some(addr)) => format!("contains addresses of pods ({addr})"),
        (None, None) => return,
    };
    if pod.is_none() && overlay(world, &cidr) {
        let message = format!(
            "{cidr} is the first address of a node's podCIDR: no pod has it, and the node itself \
             sends from it through an overlay such as flannel's"
        );
        let remedy = "leave it if traffic of the node itself is meant, such as an API server's to a \
                      webhook; otherwise select pods by podSelector and namespaceSelector";
        return report.add((Code::PodCidr, Severity::Info), field, message, remedy);
    }
    let severity = if narrow(&cidr) { Severity::Warning } else { Severity::Info };
    report.add(
        (Code::PodCidr, severity),
        field,
        format!("{cidr} {what}, and a pod's address may belong to another pod tomorrow"),
        "select pods by podSelector and namespaceSelector, and use ipBlock for what is not a pod",
    );
}

fn overlay(world: &World<'_>, cidr: &IpNet) -> bool {
    host_bits(cidr) == 0
        && world.pod_ranges.iter().any(|range| range.network() == cidr.addr() && range != cidr)
}

/// A block of a family that no pod has. With a block of the other family it is a manifest for
/// clusters of both kinds.
fn absent_family(
    world: &World<'_>,
    report: &mut Report<'_, '_>,
    field: &str,
    rule: &RuleAt<'_>,
    block: &IpBlock,
) {
    let ranges = world.pod_ranges.iter().map(|range| range.addr().is_ipv4());
    let mut families =
        world.pod_addresses.iter().map(|addr| addr.is_ipv4()).chain(ranges).peekable();
    let ipv4 = block.cidr.addr().is_ipv4();
    if families.peek().is_none() || families.any(|family| family == ipv4) {
        return;
    }
    let portable = rule.peers().any(
        |(_, peer)| matches!(peer, Peer::IpBlock(other) if other.cidr.addr().is_ipv4() != ipv4),
    );
    let (absent, present) = if ipv4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
    let severity = if portable { Severity::Info } else { Severity::Warning };
    report.add(
        (Code::AbsentFamily, severity),
        field,
        format!("{} is {absent}, but the pods have only {present} addresses", block.cidr),
        format!("name the {present} block of the same hosts as well"),
    );
}
