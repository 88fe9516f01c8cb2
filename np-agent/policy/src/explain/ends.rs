//! Who is at an end of a connection: from what a user names to what the datapath tells apart.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use thiserror::Error;

use super::{Explain, Protocol, Subject};
use crate::index::Index;
use crate::model::{NodeName, Phase, Pod, PodKey};

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub enum End<'e> {
    /// A pod that policy knows, by an address that is its own.
    Pod { subject: &'e Subject<'e>, address: IpAddr },
    /// A process of a node, a hostNetwork pod for one.
    Node { node: Option<&'e NodeName>, pod: Option<&'e Pod>, address: IpAddr },
    /// An address that no pod has.
    Outside(IpAddr),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// Why a probe cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EndError {
    #[error(
        "{0:?} is not a valid end of a connection; give namespace/pod, an address, or node:NAME"
    )]
    Form(String),
    #[error(
        "there is no pod {0} among the objects; `kubectl get pods -A -o yaml` writes pods as a manifest"
    )]
    UnknownPod(String),
    #[error(
        "there is no Node {0} among the objects, and no hostNetwork pod on it; give its address"
    )]
    UnknownNode(String),
    #[error("pod {0} has no address (status.podIPs): policy does not know it yet")]
    NoAddress(PodKey),
    #[error("pod {0} has finished: its address is no longer its own; give the address")]
    Finished(PodKey),
    #[error("{address} of pod {pod} belongs to pod {owner} now; give that one")]
    Inherited { pod: PodKey, address: IpAddr, owner: PodKey },
    #[error("{from} and {to} have no address of the same family{}", of(.family))]
    Families { from: String, to: String, family: Option<Family> },
    #[error("{0} is never on the wire between a pod and its peer; give an address that is")]
    Unroutable(IpAddr),
    #[error(
        "{0:?} is not a port; give a number up to 65535 or the name of a port of the destination pod"
    )]
    Port(String),
    #[error("a port is needed with {0}; add --port, or \"port\" to the probe")]
    NoPort(Protocol),
    #[error("ICMP has no ports; leave the port out")]
    IcmpPort,
    #[error("port {name:?}: only a destination pod can resolve a named port; give the number")]
    NameWithoutPod { name: String },
    #[error("port {name:?}: pod {pod} has no {protocol} port of that name; {has}")]
    UnknownName { name: String, pod: PodKey, protocol: Protocol, has: String },
    #[error("port {name:?}: pod {pod} gives this name to {numbers}; give one of the numbers")]
    Ambiguous { name: String, pod: PodKey, numbers: String },
}

fn of(family: &Option<Family>) -> String {
    family.map_or(String::new(), |family| format!(", {family}"))
}

impl Family {
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

impl End<'_> {
    pub fn address(&self) -> IpAddr {
        match self {
            End::Pod { address, .. } | End::Node { address, .. } | End::Outside(address) => {
                *address
            }
        }
    }
}

/// "x/a (10.1.0.1, on n1)"
impl fmt::Display for End<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Pod { subject, address } => match &subject.pod.node {
                Some(node) => write!(f, "{} ({address}, on {node})", subject.pod.key),
                None => write!(f, "{} ({address})", subject.pod.key),
            },
            End::Node { node, pod, address } => {
                match (pod, node) {
                    (Some(pod), Some(node)) => write!(f, "{} (hostNetwork: node {node}", pod.key),
                    (Some(pod), None) => write!(f, "{} (hostNetwork", pod.key),
                    (None, Some(node)) => write!(f, "node {node} ("),
                    (None, None) => f.write_str("a node ("),
                }?;
                let comma = if pod.is_some() { ", " } else { "" };
                write!(f, "{comma}{address})")
            }
            End::Outside(address) => write!(f, "{address}"),
        }
    }
}

/// The addresses of nodes, from their objects and their hostNetwork pods.
pub(super) fn node_addresses(index: &Index) -> HashMap<IpAddr, &NodeName> {
    let mut addresses = HashMap::new();
    for pod in index.pods().filter(|pod| pod.host_network) {
        let Some(node) = &pod.node else { continue };
        addresses.extend(pod.addresses.iter().map(|address| (*address, node)));
    }
    for node in index.nodes() {
        addresses.extend(node.addresses.iter().map(|address| (*address, &node.name)));
    }
    addresses
}

/// An end before its family is chosen.
enum Party<'e> {
    Pod(&'e Subject<'e>),
    Node { node: Option<&'e NodeName>, pod: Option<&'e Pod>, addresses: Vec<IpAddr> },
    Address { owner: Option<&'e Subject<'e>>, address: IpAddr },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    From,
    To,
}

impl<'e> Party<'e> {
    fn first(&self) -> Option<IpAddr> {
        match self {
            Party::Pod(subject) => subject.pod.addresses.first().copied(),
            Party::Node { addresses, .. } => addresses.first().copied(),
            Party::Address { address, .. } => Some(*address),
        }
    }

    fn by(&self, family: Family) -> Option<End<'e>> {
        let pick = |addresses: &[IpAddr]| {
            addresses.iter().copied().find(|address| Family::of(*address) == family)
        };
        match self {
            Party::Pod(subject) => {
                let address = pick(&subject.pod.addresses)?;
                Some(End::Pod { subject, address })
            }
            Party::Node { node, pod, addresses } => {
                Some(End::Node { node: *node, pod: *pod, address: pick(addresses)? })
            }
            Party::Address { owner, address } => {
                let address = pick(&[*address])?;
                Some(match owner {
                    Some(subject) => End::Pod { subject, address },
                    None => End::Outside(address),
                })
            }
        }
    }
}

impl Explain<'_> {
    /// Both ends, by addresses of one family: the one asked for, or the first that both have.
    ///
    /// # Errors
    /// If an end names nobody, or there is no such family.
    pub fn ends<'e>(
        &'e self,
        from: &str,
        to: &str,
        family: Option<Family>,
    ) -> Result<(End<'e>, End<'e>), EndError> {
        let source = self.party(from, Place::From)?;
        let destination = self.party(to, Place::To)?;
        let first = source.first().map(Family::of);
        let families = match (family, first) {
            (Some(family), _) => [family, family],
            (None, Some(Family::V6)) => [Family::V6, Family::V4],
            (None, _) => [Family::V4, Family::V6],
        };
        let both = |family| Some((source.by(family)?, destination.by(family)?));
        let missing = || EndError::Families { from: from.to_owned(), to: to.to_owned(), family };
        let (from, to) = families.into_iter().find_map(both).ok_or_else(missing)?;
        for end in [&from, &to] {
            self.belongs(end)?;
        }
        Ok((from, to))
    }

    /// A port's number; a name is looked up at the destination, as a policy's would be.
    ///
    /// # Errors
    /// If the protocol and the port do not go together, or nobody gives the name a number.
    pub fn port(
        &self,
        text: Option<&str>,
        protocol: Protocol,
        to: &End<'_>,
    ) -> Result<u16, EndError> {
        let Some(named) = protocol.named() else {
            return match text {
                None | Some("0") => Ok(0),
                Some(_) => Err(EndError::IcmpPort),
            };
        };
        let text = text.ok_or(EndError::NoPort(protocol))?;
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        if digits && !text.is_empty() {
            return text.parse().map_err(|_| EndError::Port(text.to_owned()));
        }
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(EndError::Port(text.to_owned()));
        }
        let name = text.to_owned();
        let End::Pod { subject: Subject { pod, .. }, .. } = to else {
            return Err(EndError::NameWithoutPod { name });
        };
        let ports = pod.named_ports.iter().filter(|port| port.protocol == named);
        let mut numbers: Vec<u16> =
            ports.filter(|port| port.name == name).map(|port| port.port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        match numbers[..] {
            [number] => Ok(number),
            [] => {
                let all: Vec<String> = pod
                    .named_ports
                    .iter()
                    .map(|port| format!("{} ({} {})", port.name, port.protocol, port.port))
                    .collect();
                let has = if all.is_empty() {
                    "it names none".to_owned()
                } else {
                    format!("it has {}", all.join(", "))
                };
                Err(EndError::UnknownName { name, pod: pod.key.clone(), protocol, has })
            }
            _ => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                let numbers = numbers.join(" and ");
                Err(EndError::Ambiguous { name, pod: pod.key.clone(), numbers })
            }
        }
    }

    fn party<'e>(&'e self, text: &str, place: Place) -> Result<Party<'e>, EndError> {
        if let Some(number) = self.by_key.get(text) {
            return Ok(Party::Pod(&self.subjects[*number]));
        }
        if let Some(name) = text.strip_prefix("node:") {
            return self.node(name);
        }
        if let Some((namespace, name)) = text.split_once('/') {
            return self.pod(PodKey::new(namespace, name));
        }
        let address: IpAddr = text.parse().map_err(|_| EndError::Form(text.to_owned()))?;
        let address = address.to_canonical();
        if address.is_loopback()
            || address.is_unspecified()
            || (address.is_multicast() && place == Place::From)
        {
            return Err(EndError::Unroutable(address));
        }
        // A packet to a node's address is for that node. One that comes from it need not be made
        // there: a masqueraded client bears it too.
        match self.node_addresses.get(&address) {
            Some(node) if place == Place::To && !self.by_address.contains_key(&address) => {
                Ok(Party::Node { node: Some(node), pod: None, addresses: vec![address] })
            }
            _ => Ok(Party::Address { owner: self.owner(address), address }),
        }
    }

    /// A pod that policy does not know, or none at all.
    fn pod(&self, key: PodKey) -> Result<Party<'_>, EndError> {
        let Some(pod) = self.index.pod(&key) else {
            return Err(EndError::UnknownPod(key.to_string()));
        };
        // A node keeps its address when a pod of its network ends.
        if pod.phase == Phase::Finished && !pod.host_network {
            return Err(EndError::Finished(key));
        }
        let mut addresses = pod.addresses.to_vec();
        if let (true, Some(node)) = (addresses.is_empty() && pod.host_network, &pod.node) {
            addresses = self.index.node(node).map_or(addresses, |node| node.addresses.clone());
        }
        if addresses.is_empty() {
            return Err(EndError::NoAddress(key));
        }
        Ok(Party::Node { node: pod.node.as_ref(), pod: Some(pod), addresses })
    }

    fn node(&self, name: &str) -> Result<Party<'_>, EndError> {
        let wanted = NodeName(name.into());
        let object = self.index.node(&wanted);
        let mut known = self.node_addresses.values().copied();
        let node = object.map(|object| &object.name).or_else(|| known.find(|n| **n == wanted));
        let mut addresses = object.map_or(Vec::new(), |object| object.addresses.clone());
        let host = self.index.pods().filter(|pod| pod.host_network && pod.node.as_ref() == node);
        addresses.extend(host.flat_map(|pod| &pod.addresses));
        if node.is_none() || addresses.is_empty() {
            return Err(EndError::UnknownNode(name.to_owned()));
        }
        Ok(Party::Node { node, pod: None, addresses })
    }

    /// An address that two pods show belongs to one.
    fn belongs(&self, end: &End<'_>) -> Result<(), EndError> {
        let End::Pod { subject, address } = end else { return Ok(()) };
        match self.by_address.get(address) {
            Some(owner) if *owner != subject.number => Err(EndError::Inherited {
                pod: subject.pod.key.clone(),
                address: *address,
                owner: self.subjects[*owner].pod.key.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// The pod that an address belongs to, if policy knows one.
    pub(super) fn owner(&self, address: IpAddr) -> Option<&Subject<'_>> {
        self.by_address.get(&address).map(|number| &self.subjects[*number])
    }
}
