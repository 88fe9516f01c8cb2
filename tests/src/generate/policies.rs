//! NetworkPolicies of every shape that the API accepts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
    NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    LabelSelector, LabelSelectorRequirement, ObjectMeta,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::dice::Dice;
use super::objects::{
    NAMESPACE_LABELS, NAMESPACE_NAME, NAMESPACES, NODES, POD_LABELS, PORT_NAMES, PORT_NUMBERS,
    Vocabulary, node_addresses,
};

const V4_LENGTHS: [u8; 11] = [0, 4, 8, 16, 22, 23, 24, 29, 30, 31, 32];
const V6_LENGTHS: [u8; 11] = [0, 8, 16, 32, 47, 48, 64, 112, 125, 127, 128];
/// Off the cluster, yet near its ranges.
pub const OUTSIDE: [&str; 8] = [
    "10.1.0.200",
    "10.1.2.1",
    "10.2.0.1",
    "192.0.2.7",
    "fd00:1::c8",
    "fd00:1:2::1",
    "fd00:2::1",
    "2001:db8::7",
];

pub fn generate(dice: &mut Dice<'_>, namespaces: &[Namespace], pods: &[Pod]) -> Vec<NetworkPolicy> {
    let world = World { addresses: addresses(pods) };
    let homes: Vec<String> = namespaces
        .iter()
        .filter_map(|namespace| namespace.metadata.name.clone())
        .chain(pods.iter().filter_map(|pod| pod.metadata.namespace.clone()))
        .collect();
    let count = dice.between(1, 5);
    (0..count)
        .map(|i| NetworkPolicy {
            metadata: ObjectMeta {
                namespace: Some(dice.pick(&homes).clone()),
                name: Some(format!("policy.{i}")),
                ..ObjectMeta::default()
            },
            spec: (!dice.chance(2)).then(|| world.spec(dice)),
        })
        .collect()
}

/// The addresses that blocks are made around.
struct World {
    addresses: Vec<IpAddr>,
}

/// An object's list that can be absent, empty, or have some entries.
fn list<T>(
    dice: &mut Dice<'_>,
    absent: usize,
    empty: usize,
    make: impl FnMut(&mut Dice<'_>) -> T,
) -> Option<Vec<T>> {
    match dice.below(100) {
        roll if roll < absent => None,
        roll if roll < absent + empty => Some(Vec::new()),
        _ => Some(dice.several(1, 3, make)),
    }
}

impl World {
    fn spec(&self, dice: &mut Dice<'_>) -> NetworkPolicySpec {
        let types: Option<&[&str]> = dice.weighted(&[
            (25, None),
            (5, Some(&[][..])),
            (20, Some(&["Ingress"])),
            (25, Some(&["Egress"])),
            (23, Some(&["Ingress", "Egress"])),
            (2, Some(&["Egress", "Egress"])),
        ]);
        NetworkPolicySpec {
            pod_selector: match dice.below(10) {
                0 => None,
                1..4 => Some(LabelSelector::default()),
                _ => Some(selector(dice, POD_LABELS)),
            },
            policy_types: types.map(|types| types.iter().map(|one| (*one).into()).collect()),
            ingress: list(dice, 15, 8, |dice| NetworkPolicyIngressRule {
                from: self.peers(dice),
                ports: ports(dice),
            }),
            egress: list(dice, 20, 8, |dice| NetworkPolicyEgressRule {
                to: self.peers(dice),
                ports: ports(dice),
            }),
        }
    }

    fn peers(&self, dice: &mut Dice<'_>) -> Option<Vec<NetworkPolicyPeer>> {
        list(dice, 12, 5, |dice| {
            let pods = |dice: &mut Dice<'_>| Some(maybe_everything(dice, POD_LABELS));
            let namespaces = |dice: &mut Dice<'_>| Some(maybe_everything(dice, NAMESPACE_LABELS));
            let mut peer = NetworkPolicyPeer::default();
            match dice.below(100) {
                0..22 => peer.pod_selector = pods(dice),
                22..37 => peer.namespace_selector = namespaces(dice),
                37..60 => {
                    peer.pod_selector = pods(dice);
                    peer.namespace_selector = namespaces(dice);
                }
                _ => peer.ip_block = Some(self.block(dice)),
            }
            peer
        })
    }

    fn block(&self, dice: &mut Dice<'_>) -> IPBlock {
        let address = *dice.pick(&self.addresses);
        let length = match address {
            IpAddr::V4(_) => *dice.pick(&V4_LENGTHS),
            IpAddr::V6(_) => *dice.pick(&V6_LENGTHS),
        };
        let cidr = IpNet::new(address, length).expect("a length of the address's family");
        let except = if length == cidr.max_prefix_len() {
            None
        } else {
            list(dice, 35, 5, |dice| self.except(dice, &cidr))
        };
        IPBlock { cidr: spelt(dice, cidr), except }
    }

    /// A longer prefix inside a block, around a known address when there is one.
    fn except(&self, dice: &mut Dice<'_>, cidr: &IpNet) -> String {
        let inside: Vec<IpAddr> =
            self.addresses.iter().copied().filter(|address| cidr.contains(address)).collect();
        let address = *dice.pick(&inside);
        let shortest = usize::from(cidr.prefix_len()) + 1;
        let longest = usize::from(cidr.max_prefix_len());
        let length = match dice.below(3) {
            0 => longest,
            1 => shortest,
            _ => dice.between(shortest, longest),
        };
        let except = IpNet::new(address, length as u8).expect("no longer than the longest");
        spelt(dice, except)
    }
}

/// Host bits may stand in a block: old API servers stored what they were given.
fn spelt(dice: &mut Dice<'_>, net: IpNet) -> String {
    if dice.chance(30) { net.to_string() } else { net.trunc().to_string() }
}

fn addresses(pods: &[Pod]) -> Vec<IpAddr> {
    let of_pods = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| status.pod_ips.iter().flatten())
        .filter_map(|one| one.ip.parse().ok());
    let of_nodes = (0..NODES.len()).flat_map(node_addresses);
    let outside = OUTSIDE.iter().filter_map(|address| address.parse().ok());
    of_pods.chain(of_nodes).chain(outside).collect()
}

fn maybe_everything(dice: &mut Dice<'_>, vocabulary: Vocabulary) -> LabelSelector {
    if dice.chance(20) { LabelSelector::default() } else { selector(dice, vocabulary) }
}

fn selector(dice: &mut Dice<'_>, vocabulary: Vocabulary) -> LabelSelector {
    let labels = dice.chance(45).then(|| {
        let labels = dice.several(1, 2, |dice| {
            let (key, values) = word(dice, vocabulary);
            (key.to_owned(), (*dice.pick(values)).to_owned())
        });
        BTreeMap::from_iter(labels)
    });
    let least = usize::from(labels.is_none());
    let expressions = dice.several(least, 2, |dice| requirement(dice, vocabulary));
    let mut expressions = (!expressions.is_empty() || dice.chance(10)).then_some(expressions);
    if let Some(expressions) = &mut expressions
        && dice.chance(4)
    {
        let contradiction = |value: &str| LabelSelectorRequirement {
            key: vocabulary[0].0.into(),
            operator: "In".into(),
            values: Some(vec![value.into()]),
        };
        expressions.extend([contradiction("a"), contradiction("b")]);
    }
    LabelSelector { match_labels: labels, match_expressions: expressions }
}

fn requirement(dice: &mut Dice<'_>, vocabulary: Vocabulary) -> LabelSelectorRequirement {
    let (key, values) = word(dice, vocabulary);
    let operator = *dice.pick(&["In", "NotIn", "Exists", "DoesNotExist"]);
    let values = match operator {
        "In" | "NotIn" => Some(dice.several(1, 2, |dice| (*dice.pick(values)).into())),
        _ => dice.chance(20).then(Vec::new),
    };
    LabelSelectorRequirement { key: key.into(), operator: operator.into(), values }
}

/// A key with its values: of the vocabulary, or one that every namespace or no object has.
fn word(dice: &mut Dice<'_>, vocabulary: Vocabulary) -> (&'static str, &'static [&'static str]) {
    match dice.below(100) {
        0..6 => ("ghost", &["boo"]),
        6..20 if vocabulary == NAMESPACE_LABELS => (NAMESPACE_NAME, &NAMESPACES),
        _ => *dice.pick(vocabulary),
    }
}

fn ports(dice: &mut Dice<'_>) -> Option<Vec<NetworkPolicyPort>> {
    list(dice, 30, 5, |dice| {
        let protocol =
            dice.weighted(&[(20, None), (45, Some("TCP")), (20, Some("UDP")), (15, Some("SCTP"))]);
        let (port, end_port) = match dice.below(100) {
            0..15 => (None, None),
            15..45 => (Some(IntOrString::String(port_name(dice).into())), None),
            _ => {
                let first = port_number(dice);
                let end = first.saturating_add(*dice.pick(&[0, 1, 2, 100, u16::MAX]));
                let end = dice.chance(40).then_some(i32::from(end));
                (Some(IntOrString::Int(i32::from(first))), end)
            }
        };
        NetworkPolicyPort { protocol: protocol.map(Into::into), port, end_port }
    })
}

fn port_name(dice: &mut Dice<'_>) -> &'static str {
    if dice.chance(6) { "nobody" } else { dice.pick::<&str>(&PORT_NAMES) }
}

fn port_number(dice: &mut Dice<'_>) -> u16 {
    if dice.chance(10) { 1 } else { *dice.pick(&PORT_NUMBERS) }
}
