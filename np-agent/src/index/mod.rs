//! What the agent knows of the cluster: the join point of three kinds of objects that arrive in
//! any order.
//!
//! ```text
//!  Pod ──────── its labels, addresses, ports ─────────┐
//!  Namespace ── its labels ───────────────────────────┼─▶ who is selected, what an address is
//!  Policy ───── selects pods of its own namespace ────┘
//! ```
//!
//! A plain struct: changes go in, questions are answered. Every question tolerates the absence of
//! an object that another one speaks of, because watches give no order between kinds.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::model::{
    Change, Direction, Namespace, Node, NodeName, Object, ObjectKey, Pod, PodKey, PodUid, Policy,
    PolicyKey,
};

/// Holds all objects.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pods: BTreeMap<PodKey, Pod>,
    namespaces: BTreeMap<String, Namespace>,
    policies: BTreeMap<PolicyKey, Policy>,
    nodes: BTreeMap<NodeName, Node>,
}

impl Index {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Apply(Object::Pod(pod)) => {
                self.pods.insert(pod.key.clone(), pod);
            }
            Change::Apply(Object::Namespace(namespace)) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
            Change::Apply(Object::Policy(policy)) => {
                self.policies.insert(policy.key.clone(), policy);
            }
            Change::Apply(Object::Node(node)) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Change::Delete(ObjectKey::Pod(key)) => {
                self.pods.remove(&key);
            }
            Change::Delete(ObjectKey::Namespace(name)) => {
                self.namespaces.remove(&name);
            }
            Change::Delete(ObjectKey::Policy(key)) => {
                self.policies.remove(&key);
            }
            Change::Delete(ObjectKey::Node(name)) => {
                self.nodes.remove(&name);
            }
        }
    }

    pub fn pod(&self, key: &PodKey) -> Option<&Pod> {
        self.pods.get(key)
    }

    /// All pods, ascending by key.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Pod> {
        self.pods.values()
    }

    pub fn pod_by_uid(&self, uid: &PodUid) -> Option<&Pod> {
        self.pods.values().find(|pod| pod.uid == *uid)
    }

    /// None until the object has been seen: its pods then match no namespaceSelector, because a
    /// missing namespace is a race, not one without labels.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    pub fn namespaces(&self) -> impl ExactSizeIterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// All policies, ascending by key.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Policy> {
        self.policies.values()
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// The pods of a node that policy knows, ascending by key.
    pub fn local_pods(&self, node: &NodeName) -> impl Iterator<Item = &Pod> {
        self.pods.values().filter(move |pod| pod.enforceable() && pod.node.as_ref() == Some(node))
    }

    /// The policies that select a pod and carry a direction, ascending by key.
    pub fn selecting(&self, pod: &Pod, direction: Direction) -> impl Iterator<Item = &Policy> {
        let first = PolicyKey::new(pod.key.namespace.clone(), String::new());
        self.policies
            .range(first..)
            .map(|(_, policy)| policy)
            .take_while(|policy| policy.key.namespace == pod.key.namespace)
            .filter(move |policy| {
                policy.rules(direction).is_some() && policy.subjects.matches(&pod.labels)
            })
    }

    /// Which pod each address belongs to, when several show it for a while.
    pub fn owners(&self) -> BTreeMap<IpAddr, &Pod> {
        let mut owners: BTreeMap<IpAddr, &Pod> = BTreeMap::new();
        for pod in self.pods.values().filter(|pod| pod.enforceable()) {
            for addr in &pod.addresses {
                let owner = owners.entry(*addr).or_insert(pod);
                if pod.claim_to_address() > owner.claim_to_address() {
                    *owner = pod;
                }
            }
        }
        owners
    }
}
