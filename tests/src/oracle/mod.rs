//! The test oracle: networking.k8s.io/v1 read straight from its specification, one connection at
//! a time, on Kubernetes' own types.
//!
//! It is slow and plain on purpose, and shares no code with the agent: what both got wrong in the
//! same way would never show. Label selectors are kube's, address blocks its own arithmetic.
//!
//! ```text
//!  conn ─ who is at each end? ─┬─ egress:  policies that select the source pod
//!                              └─ ingress: policies that select the destination pod
//!                  side allows = not isolated, or some rule's peers and ports both match
//! ```

mod cidr;
mod conn;
mod pods;
mod selector;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use self::cidr::Block;
pub use self::conn::{Conn, End, Protocol, Side, Verdict};
use self::selector::matches;

/// What `spec: {}` says, and a policy without spec.
static EMPTY: NetworkPolicySpec =
    NetworkPolicySpec { egress: None, ingress: None, pod_selector: None, policy_types: None };

/// The objects of a cluster, to be asked about connections.
#[derive(Clone, Debug)]
pub struct Oracle<'a> {
    pods: &'a [Pod],
    /// The pod that each address belongs to.
    owners: BTreeMap<IpAddr, &'a Pod>,
    namespaces: &'a [Namespace],
    policies: &'a [NetworkPolicy],
}

/// One end of a connection, resolved.
#[derive(Clone, Copy)]
struct Party<'a> {
    address: IpAddr,
    /// The pod that policies are enforced on.
    subject: Option<&'a Pod>,
    /// The pod that the other side sees: the one that the address belongs to.
    peer: Option<&'a Pod>,
    /// The node whose own process this is.
    node: Option<&'a str>,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ingress,
    Egress,
}

impl<'a> Oracle<'a> {
    pub fn new(
        pods: &'a [Pod],
        namespaces: &'a [Namespace],
        policies: &'a [NetworkPolicy],
    ) -> Self {
        let owners = pods
            .iter()
            .flat_map(pods::addresses)
            .filter_map(|address| Some((address, pods::owner(pods, address)?)))
            .collect();
        Self { pods, owners, namespaces, policies }
    }

    /// Judges who opens the connection; replies of an allowed connection are allowed.
    pub fn verdict(&self, conn: &Conn) -> Verdict {
        let src = self.party(&conn.src);
        let dst = self.party(&conn.dst);
        let (egress, ingress) = match (src.subject, dst.subject) {
            // Loopback, its own address, or its own Service: a pod cannot block itself.
            (Some(a), Some(b)) if std::ptr::eq(a, b) => (Side::SamePod, Side::SamePod),
            _ => (
                self.side(&src, &dst, &dst, Direction::Egress, conn),
                self.side(&dst, &src, &dst, Direction::Ingress, conn),
            ),
        };
        Verdict { egress, ingress }
    }

    /// The pod that an address belongs to, if it belongs to one that policy knows.
    pub fn owner(&self, address: IpAddr) -> Option<&'a Pod> {
        self.owners.get(&address.to_canonical()).copied()
    }

    fn party<'b>(&'b self, end: &'b End) -> Party<'b> {
        let address = end.address().to_canonical();
        let peer = self.owner(address);
        let stranger = Party { address, subject: None, peer: None, node: None };
        match end {
            End::Address(_) => Party { subject: peer, peer, ..stranger },
            End::Node { node, .. } => Party { node: Some(node), ..stranger },
            End::Pod { pod: key, .. } => match pods::named(self.pods, key) {
                Some(pod) if pods::host_network(pod) => Party { node: pods::node(pod), ..stranger },
                Some(pod) if pods::enforceable(pod) => {
                    Party { subject: Some(pod), peer, ..stranger }
                }
                _ => stranger,
            },
        }
    }

    /// One side's answer. `dst` is the connection's destination: the port is always its own.
    fn side(
        &self,
        me: &Party<'_>,
        other: &Party<'_>,
        dst: &Party<'_>,
        direction: Direction,
        conn: &Conn,
    ) -> Side {
        let Some(pod) = me.subject else { return Side::NotSubject };
        if other.node.is_some() && other.node == pods::node(pod) {
            return Side::OwnNode;
        }
        let mut isolated = false;
        for policy in self.policies {
            let spec = policy.spec.as_ref().unwrap_or(&EMPTY);
            if !selects(policy, spec, pod) || !has_type(spec, direction) {
                continue;
            }
            isolated = true;
            for (rule, (peers, ports)) in rules(spec, direction).into_iter().enumerate() {
                let peers_match = peers.is_empty()
                    || peers.iter().any(|peer| self.peer_matches(peer, policy, other));
                let ports_match =
                    ports.is_empty() || ports.iter().any(|port| port_matches(port, dst.peer, conn));
                if peers_match && ports_match {
                    return Side::Allowed { policy: key(policy), rule };
                }
            }
        }
        if isolated { Side::Denied } else { Side::NotIsolated }
    }

    fn peer_matches(
        &self,
        peer: &NetworkPolicyPeer,
        policy: &NetworkPolicy,
        other: &Party<'_>,
    ) -> bool {
        let NetworkPolicyPeer { ip_block, namespace_selector, pod_selector } = peer;
        match (ip_block, namespace_selector, pod_selector) {
            (Some(block), None, None) => block_matches(block, other.address),
            (None, None, None) | (Some(_), _, _) => false,
            (None, namespaces, pods) => {
                let Some(pod) = other.peer else { return false };
                let namespace_matches = match namespaces {
                    Some(selector) => self
                        .namespace_labels(pods::namespace(pod))
                        .is_some_and(|labels| matches(selector, labels)),
                    None => pods::namespace(pod) == namespace(policy),
                };
                let pod_matches = match pods {
                    Some(selector) => matches(selector, pod.metadata.labels.as_ref()),
                    None => true,
                };
                namespace_matches && pod_matches
            }
        }
    }

    /// None while the Namespace has not been seen: no namespaceSelector matches it then, not even
    /// the empty one.
    fn namespace_labels(&self, name: &str) -> Option<Option<&BTreeMap<String, String>>> {
        self.namespaces
            .iter()
            .find(|namespace| namespace.metadata.name.as_deref() == Some(name))
            .map(|namespace| namespace.metadata.labels.as_ref())
    }
}

/// Whether the pod is a subject. An absent podSelector selects every pod of the namespace.
fn selects(policy: &NetworkPolicy, spec: &NetworkPolicySpec, pod: &Pod) -> bool {
    pods::namespace(pod) == namespace(policy)
        && spec
            .pod_selector
            .as_ref()
            .is_none_or(|selector| matches(selector, pod.metadata.labels.as_ref()))
}

/// Whether the policy's effective policyTypes contain the direction.
fn has_type(spec: &NetworkPolicySpec, direction: Direction) -> bool {
    let given = spec.policy_types.as_deref().unwrap_or_default();
    let name = match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    };
    match direction {
        _ if !given.is_empty() => given.iter().any(|given| given == name),
        Direction::Ingress => true,
        Direction::Egress => spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

/// The rules of one direction as (peers, ports). Absent and empty lists mean the same everywhere.
fn rules(
    spec: &NetworkPolicySpec,
    direction: Direction,
) -> Vec<(&[NetworkPolicyPeer], &[NetworkPolicyPort])> {
    match direction {
        Direction::Ingress => spec
            .ingress
            .iter()
            .flatten()
            .map(|rule| {
                (
                    rule.from.as_deref().unwrap_or_default(),
                    rule.ports.as_deref().unwrap_or_default(),
                )
            })
            .collect(),
        Direction::Egress => spec
            .egress
            .iter()
            .flatten()
            .map(|rule| {
                (rule.to.as_deref().unwrap_or_default(), rule.ports.as_deref().unwrap_or_default())
            })
            .collect(),
    }
}

/// A block of which some part cannot be read matches nothing: to read it without an except would
/// widen it.
fn block_matches(block: &IPBlock, address: IpAddr) -> bool {
    let Some(cidr) = Block::parse(&block.cidr) else { return false };
    let excepts: Option<Vec<Block>> =
        block.except.iter().flatten().map(|except| Block::parse(except)).collect();
    excepts.is_some_and(|excepts| {
        cidr.contains(address) && !excepts.iter().any(|except| except.contains(address))
    })
}

/// `destination` is the pod that the connection goes to, if it goes to one.
fn port_matches(port: &NetworkPolicyPort, destination: Option<&Pod>, conn: &Conn) -> bool {
    if conn.protocol.name() != Some(port.protocol.as_deref().unwrap_or("TCP")) {
        return false;
    }
    match (&port.port, port.end_port) {
        (None, None) => true,
        (Some(IntOrString::Int(first)), end) => {
            *first >= 1 && (*first..=end.unwrap_or(*first)).contains(&i32::from(conn.port))
        }
        (Some(IntOrString::String(name)), None) => destination.is_some_and(|pod| {
            pods::named_ports(pod).any(|port| {
                port.name.as_ref() == Some(name)
                    && port.container_port == i32::from(conn.port)
                    && conn.protocol.name() == Some(port.protocol.as_deref().unwrap_or("TCP"))
            })
        }),
        (None | Some(IntOrString::String(_)), Some(_)) => false,
    }
}

fn namespace(policy: &NetworkPolicy) -> &str {
    policy.metadata.namespace.as_deref().unwrap_or("default")
}

fn key(policy: &NetworkPolicy) -> String {
    format!("{}/{}", namespace(policy), policy.metadata.name.as_deref().unwrap_or_default())
}
