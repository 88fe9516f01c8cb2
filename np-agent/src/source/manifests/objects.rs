//! Pod, Namespace and Node: the fields that policy reads, strictly; all others are passed over.

use std::net::IpAddr;

use ipnet::IpNet;

use super::fields::{At, Fields, Problems, Refused, all};
use super::metadata::Metadata;
use super::tree::Value;
use crate::source::cidr;
use crate::source::names;
use np_policy::model::{
    ContainerPort, Namespace, Node, NodeName, Phase, Pod, PodKey, PodUid, Protocol,
};

pub(super) fn namespace(metadata: Metadata) -> Namespace {
    let mut labels = metadata.labels;
    // The API server sets this one, whatever the manifest says.
    labels.insert("kubernetes.io/metadata.name".to_owned(), metadata.name.clone());
    Namespace { name: metadata.name, labels }
}

pub(super) fn pod<'n>(
    object: &Fields<'n>,
    metadata: Metadata,
    problems: &mut Problems<'n>,
) -> Result<Pod, Refused> {
    let spec = object.fields("spec", problems);
    let status = object.fields("status", problems);
    let (spec, status) = (spec?, status?);
    let (mut node, mut host_network, mut named_ports) = (Ok(None), Ok(false), Ok(Vec::new()));
    if let Some(spec) = spec {
        node = spec.text("nodeName", problems);
        host_network = spec.get("hostNetwork").map_or(Ok(false), |at| at.bool(problems));
        named_ports = ports_of(&spec, problems);
    }
    let (mut addresses, mut phase) = (Ok(Vec::new()), Ok(Phase::Active));
    if let Some(status) = status {
        addresses = pod_addresses(&status, problems);
        phase = pod_phase(&status, problems);
    }
    let key = PodKey::new(metadata.namespace, metadata.name);
    let uid = metadata.uid.unwrap_or_else(|| key.to_string());
    Ok(Pod {
        key,
        uid: PodUid(uid.into()),
        node: node?.filter(|node| !node.is_empty()).map(|node| NodeName(node.into())),
        labels: metadata.labels.into(),
        addresses: addresses?.into(),
        source_prefixes: metadata.source_prefixes,
        named_ports: named_ports?.into(),
        host_network: host_network?,
        phase: phase?,
        terminating: metadata.terminating,
        created: metadata.created,
    })
}

pub(super) fn node<'n>(
    object: &Fields<'n>,
    metadata: Metadata,
    problems: &mut Problems<'n>,
) -> Result<Node, Refused> {
    let spec = object.fields("spec", problems);
    let status = object.fields("status", problems);
    let pod_cidrs = spec.and_then(|spec| match spec {
        Some(spec) => pod_cidrs(&spec, problems),
        None => Ok(Vec::new()),
    });
    let addresses = status.and_then(|status| match status {
        Some(status) => node_addresses(&status, problems),
        None => Ok(Vec::new()),
    });
    Ok(Node { name: NodeName(metadata.name.into()), addresses: addresses?, pod_cidrs: pod_cidrs? })
}

/// `protocol`, or its default.
pub(super) fn protocol<'n>(
    fields: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Protocol, Refused> {
    let Some(at) = fields.get("protocol") else { return Ok(Protocol::Tcp) };
    let text = at.text(problems)?;
    let known = |text: &str| match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    };
    known(text).ok_or_else(|| match known(&text.to_ascii_uppercase()) {
        Some(meant) => {
            at.refuse(problems, "protocols are written in capitals", format!("write \"{meant}\""))
        }
        None => at.refuse(
            problems,
            "not a protocol that policies and ports know",
            "write TCP, UDP or SCTP; a rule without \"ports\" is for every protocol",
        ),
    })
}

/// A number from 1 to 65535.
pub(super) fn port_number<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<u16, Refused> {
    match at.node.value {
        Value::Integer(number) => match u16::try_from(number) {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(at.refuse(problems, "not a port", "give a port from 1 to 65535")),
        },
        Value::Number => Err(at.refuse(problems, "not a port", "give a port from 1 to 65535")),
        _ => Err(at.refuse(problems, "a number is needed here", "give a port from 1 to 65535")),
    }
}

pub(super) fn network<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<IpNet, Refused> {
    let text = at.text(problems)?;
    cidr::cidr(text).map_err(|error| at.refuse(problems, error.problem(), error.remedy(text)))
}

pub(super) fn address<'n>(at: &At<'n>, problems: &mut Problems<'n>) -> Result<IpAddr, Refused> {
    let text = at.text(problems)?;
    cidr::address(text).ok_or_else(|| {
        at.refuse(problems, "not an IP address", "give one IPv4 or IPv6 address, without a length")
    })
}

fn pod_phase<'n>(status: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Phase, Refused> {
    let Some(at) = status.get("phase") else { return Ok(Phase::Active) };
    match at.text(problems)? {
        "" | "Pending" | "Running" | "Unknown" => Ok(Phase::Active),
        "Succeeded" | "Failed" => Ok(Phase::Finished),
        _ => Err(at.refuse(
            problems,
            "unknown phase",
            "write Pending, Running, Succeeded, Failed or Unknown",
        )),
    }
}

/// `podIPs`, or else the one `podIP`.
fn pod_addresses<'n>(
    status: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<IpAddr>, Refused> {
    let items = status.items("podIPs", problems)?;
    let mut places = all(items.iter().map(|item| {
        let fields = item.fields(problems)?;
        fields.get("ip").ok_or_else(|| {
            fields.missing("ip", problems, "write each address as \"- ip: 10.0.0.1\"")
        })
    }))?;
    if places.is_empty() {
        let set = |at: &At<'_>| !matches!(&at.node.value, Value::Text(text) if text.is_empty());
        places.extend(status.get("podIP").filter(set));
    }
    let mut families = [false; 2];
    all(places.iter().map(|at| {
        let address = address(at, problems)?;
        let family = &mut families[usize::from(address.is_ipv6())];
        if std::mem::replace(family, true) {
            return Err(at.refuse(
                problems,
                "a second address of the same family",
                "a pod has at most one IPv4 and one IPv6 address: remove one",
            ));
        }
        Ok(address)
    }))
}

/// Named ports of containers and of sidecars: init containers that go on running.
fn ports_of<'n>(
    spec: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<ContainerPort>, Refused> {
    let containers = containers(spec, "containers", problems);
    let init = containers_of_init(spec, problems);
    let (mut containers, init) = (containers?, init?);
    containers.extend(init);
    let mut ports = Vec::new();
    for container in all(containers.iter().map(|container| container_ports(container, problems)))? {
        ports.extend(container);
    }
    ports.sort();
    ports.dedup();
    Ok(ports)
}

fn containers<'n>(
    spec: &Fields<'n>,
    list: &str,
    problems: &mut Problems<'n>,
) -> Result<Vec<Fields<'n>>, Refused> {
    let items = spec.items(list, problems)?;
    all(items.iter().map(|item| item.fields(problems)))
}

fn containers_of_init<'n>(
    spec: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<Fields<'n>>, Refused> {
    let init = containers(spec, "initContainers", problems)?;
    let restarted = all(init.into_iter().map(|container| {
        let always = container.text("restartPolicy", problems)? == Some("Always");
        Ok((always, container))
    }))?;
    Ok(restarted.into_iter().filter_map(|(always, init)| always.then_some(init)).collect())
}

fn container_ports<'n>(
    container: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<ContainerPort>, Refused> {
    let items = container.items("ports", problems)?;
    let ports = all(items.iter().map(|item| {
        let fields = item.fields(problems)?;
        let Some(at) = fields.get("name") else { return Ok(None) };
        let name = at.text(problems)?;
        if name.is_empty() {
            return Ok(None);
        }
        if !names::port_name(name) {
            return Err(at.refuse(problems, "not a valid port name", names::PORT_NAME));
        }
        let protocol = protocol(&fields, problems);
        let port = match fields.get("containerPort") {
            Some(at) => port_number(&at, problems),
            None => Err(fields.missing("containerPort", problems, "give the port's number")),
        };
        Ok(Some(ContainerPort { name: name.to_owned(), protocol: protocol?, port: port? }))
    }))?;
    Ok(ports.into_iter().flatten().collect())
}

fn pod_cidrs<'n>(spec: &Fields<'n>, problems: &mut Problems<'n>) -> Result<Vec<IpNet>, Refused> {
    let mut places = spec.items("podCIDRs", problems)?;
    if places.is_empty() {
        let set = |at: &At<'_>| !matches!(&at.node.value, Value::Text(text) if text.is_empty());
        places.extend(spec.get("podCIDR").filter(set));
    }
    all(places.iter().map(|at| network(at, problems)))
}

fn node_addresses<'n>(
    status: &Fields<'n>,
    problems: &mut Problems<'n>,
) -> Result<Vec<IpAddr>, Refused> {
    let items = status.items("addresses", problems)?;
    let addresses = all(items.iter().map(|item| {
        let fields = item.fields(problems)?;
        match fields.text("type", problems)? {
            Some("InternalIP" | "ExternalIP") => match fields.get("address") {
                Some(at) => address(&at, problems).map(Some),
                None => Err(fields.missing("address", problems, "give the address")),
            },
            _ => Ok(None),
        }
    }))?;
    Ok(addresses.into_iter().flatten().collect())
}
