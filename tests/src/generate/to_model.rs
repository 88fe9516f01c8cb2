//! From Kubernetes' types to the agent's, for objects that the API would accept.
//!
//! The agent's own reading of manifests is tested with the agent; this is a second, simpler one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use np_policy::model::{
    Change, ContainerPort, IpBlock, Namespace, NodeName, Object, Peer, Phase, Pod, PodKey, PodUid,
    Policy, PolicyKey, PortMatch, Ports, Protocol, Requirement, Rule, Selector, Values,
};

use super::Cluster;

/// An object that the API would refuse, as shrinking can make one.
#[derive(Clone, Copy, Debug)]
pub struct Unconvertible;

type Converted<T> = Result<T, Unconvertible>;

/// Everything in a cluster, as the agent's index takes it.
pub fn changes(cluster: &Cluster) -> Converted<Vec<Change>> {
    let Cluster { namespaces, pods, policies } = cluster;
    let namespaces = namespaces.iter().map(|one| namespace(one).map(Object::Namespace));
    let pods = pods.iter().map(|one| pod(one).map(Object::Pod));
    let policies = policies.iter().map(|one| policy(one).map(Object::Policy));
    namespaces.chain(pods).chain(policies).map(|object| object.map(Change::Apply)).collect()
}

fn namespace(from: &v1::Namespace) -> Converted<Namespace> {
    Ok(Namespace {
        name: from.metadata.name.clone().ok_or(Unconvertible)?,
        labels: from.metadata.labels.clone().unwrap_or_default(),
    })
}

fn pod(from: &v1::Pod) -> Converted<Pod> {
    let (namespace, name) = name(&from.metadata)?;
    let spec = from.spec.clone().ok_or(Unconvertible)?;
    let status = from.status.clone().unwrap_or_default();
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|one| one.ports.iter().flatten());
    let named = ports.filter_map(|port| Some((port.name.clone()?, port)));
    let named = named.map(|(name, port)| {
        let protocol = protocol(port.protocol.as_deref())?;
        Ok(ContainerPort { name, protocol, port: number(port.container_port)? })
    });
    let named_ports = named.collect::<Converted<Vec<_>>>()?.into();
    let addresses = match (&status.pod_ips, &status.pod_ip) {
        (Some(all), _) => all.iter().map(|one| &one.ip).collect::<Vec<_>>(),
        (None, one) => one.iter().collect(),
    };
    let addresses = addresses.into_iter().map(|text| text.parse::<IpAddr>());
    // Nobody but its node gives a pod an address.
    if spec.node_name.is_none() && addresses.len() > 0 {
        return Err(Unconvertible);
    }
    let time = from.metadata.creation_timestamp.as_ref();
    let uid = from.metadata.uid.clone().unwrap_or_else(|| format!("{namespace}/{name}"));
    Ok(Pod {
        uid: PodUid(uid.into()),
        key: PodKey::new(namespace, name),
        node: spec.node_name.map(|name| NodeName(name.into())),
        labels: from.metadata.labels.clone().unwrap_or_default().into(),
        addresses: addresses.collect::<Result<_, _>>().map_err(|_| Unconvertible)?,
        source_prefixes: None,
        named_ports,
        host_network: spec.host_network == Some(true),
        phase: match status.phase.as_deref() {
            Some("Succeeded" | "Failed") => Phase::Finished,
            _ => Phase::Active,
        },
        terminating: from.metadata.deletion_timestamp.is_some(),
        created: time.map_or(0, |time| time.0.as_second()),
    })
}

fn policy(from: &NetworkPolicy) -> Converted<Policy> {
    let (namespace, name) = name(&from.metadata)?;
    let spec = from.spec.clone().unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    let has_egress_rules = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
    let (ingress, egress) = if types.is_empty() {
        (true, has_egress_rules)
    } else {
        (types.iter().any(|one| one == "Ingress"), types.iter().any(|one| one == "Egress"))
    };
    let ingress_rules = spec.ingress.unwrap_or_default().into_iter();
    let egress_rules = spec.egress.unwrap_or_default().into_iter();
    let ingress_rules = ingress_rules.map(|one| rule(one.from, one.ports));
    let egress_rules = egress_rules.map(|one| rule(one.to, one.ports));
    Ok(Policy {
        key: PolicyKey::new(namespace, name),
        subjects: spec.pod_selector.map_or(Ok(Selector::everything()), |one| selector(&one))?,
        ingress: ingress.then(|| ingress_rules.collect::<Converted<_>>()).transpose()?,
        egress: egress.then(|| egress_rules.collect::<Converted<_>>()).transpose()?,
    })
}

fn rule(
    peers: Option<Vec<NetworkPolicyPeer>>,
    ports: Option<Vec<NetworkPolicyPort>>,
) -> Converted<Rule> {
    let peers = peers.filter(|peers| !peers.is_empty());
    let ports = ports.filter(|ports| !ports.is_empty());
    Ok(Rule {
        peers: peers.map(|peers| peers.iter().map(peer).collect()).transpose()?,
        ports: ports.map(|ports| ports.iter().map(port).collect()).transpose()?,
    })
}

fn peer(from: &NetworkPolicyPeer) -> Converted<Peer> {
    let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = from;
    match (ip_block, namespace_selector, pod_selector) {
        (Some(block), None, None) => ip_block_of(block).map(Peer::IpBlock),
        (Some(_), _, _) | (None, None, None) => Err(Unconvertible),
        (None, namespaces, pods) => Ok(Peer::Pods {
            namespaces: namespaces.as_ref().map(selector).transpose()?,
            pods: pods.as_ref().map_or(Ok(Selector::everything()), selector)?,
        }),
    }
}

fn ip_block_of(from: &IPBlock) -> Converted<IpBlock> {
    // An IPv4-mapped block is an IPv4 block: to be read as such, not as what it looks like.
    let net = |text: &String| match text.parse::<IpNet>() {
        Ok(net) if net.addr().to_canonical() == net.addr() => Ok(net.trunc()),
        _ => Err(Unconvertible),
    };
    let cidr = net(&from.cidr)?;
    let except: BTreeSet<IpNet> =
        from.except.iter().flatten().map(net).collect::<Converted<_>>()?;
    if !except.iter().all(|except| cidr.contains(except) && *except != cidr) {
        return Err(Unconvertible);
    }
    Ok(IpBlock { cidr, except: except.into_iter().collect() })
}

fn port(from: &NetworkPolicyPort) -> Converted<PortMatch> {
    let ports = match (&from.port, from.end_port) {
        (None, None) => Ports::All,
        (Some(IntOrString::Int(first)), end) => {
            let (first, last) = (number(*first)?, number(end.unwrap_or(*first))?);
            if last < first {
                return Err(Unconvertible);
            }
            Ports::Range(first, last)
        }
        (Some(IntOrString::String(name)), None) => Ports::Named(name.clone()),
        (None | Some(IntOrString::String(_)), Some(_)) => return Err(Unconvertible),
    };
    Ok(PortMatch { protocol: protocol(from.protocol.as_deref())?, ports })
}

fn selector(from: &LabelSelector) -> Converted<Selector> {
    let labels = from.match_labels.iter().flatten();
    let labels = labels.map(|(key, value)| Ok(Requirement::equals(key.as_str(), value.as_str())));
    let expressions = from.match_expressions.iter().flatten().map(|one| {
        let key = one.key.as_str().into();
        let values: Values = one.values.iter().flatten().map(String::as_str).collect();
        match (one.operator.as_str(), values.is_empty()) {
            ("In", false) => Ok(Requirement::In(key, values)),
            ("NotIn", false) => Ok(Requirement::NotIn(key, values)),
            ("Exists", true) => Ok(Requirement::Exists(key)),
            ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
            _ => Err(Unconvertible),
        }
    });
    labels.chain(expressions).collect()
}

fn protocol(name: Option<&str>) -> Converted<Protocol> {
    match name {
        None | Some("TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(_) => Err(Unconvertible),
    }
}

fn number(port: i32) -> Converted<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or(Unconvertible)
}

fn name(metadata: &ObjectMeta) -> Converted<(String, String)> {
    metadata.namespace.clone().zip(metadata.name.clone()).ok_or(Unconvertible)
}
