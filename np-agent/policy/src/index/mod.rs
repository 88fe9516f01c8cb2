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
//! an object that another one speaks of, because watches give no order between kinds. What a change
//! makes worth asking again is returned as [`Touched`].

mod by_key;
mod claims;
mod pack;
mod shared;
mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use by_key::ByKey;
use claims::Claims;
pub use pack::pack;
use shared::Shared;
pub use touched::Touched;

use crate::model::{
    Change, Collection, Direction, Namespace, Node, NodeName, Object, ObjectKey, Pod, PodKey,
    PodUid, Policy, PolicyKey,
};

/// Holds all objects.
#[derive(Clone, Debug, Default)]
pub struct Index {
    pods: BTreeSet<ByKey<Pod>>,
    namespaces: BTreeMap<String, Namespace>,
    policies: BTreeSet<ByKey<Policy>>,
    nodes: BTreeMap<NodeName, Node>,
    claims: Claims,
    shared: Shared,
}

impl Index {
    /// Takes a change in, and adds to `touched` what it may have moved. A change that says what is
    /// known already touches nothing.
    pub fn apply(&mut self, change: Change, touched: &mut Touched) {
        match change {
            Change::Apply(Object::Pod(pod)) => self.set_pod(pod, touched),
            Change::Delete(ObjectKey::Pod(key), uid) => {
                let same = |pod: &ByKey<Pod>| uid.is_none_or(|uid| pod.0.uid == uid);
                if self.pods.get(&key).is_some_and(same)
                    && let Some(ByKey(old)) = self.pods.take(&key)
                {
                    self.claims.remove(&old);
                    touched.pod(&old);
                }
            }
            Change::Apply(Object::Namespace(namespace)) => {
                let name = namespace.name.clone();
                if self.namespaces.get(&name) != Some(&namespace) {
                    self.namespaces.insert(name.clone(), namespace);
                    self.touch_pods_of(&name, touched);
                }
            }
            Change::Delete(ObjectKey::Namespace(name), _) => {
                if self.namespaces.remove(&name).is_some() {
                    self.touch_pods_of(&name, touched);
                }
            }
            Change::Apply(Object::Policy(mut policy)) => {
                if self.policies.get(&policy.key).is_none_or(|known| *known.0 != policy) {
                    touched.policy(&policy.key);
                    self.shared.share_policy(&mut policy);
                    self.policies.replace(ByKey(Arc::new(policy)));
                }
            }
            Change::Delete(ObjectKey::Policy(key), _) => {
                if self.policies.remove(&key) {
                    touched.policy(&key);
                }
            }
            Change::Apply(Object::Node(node)) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Change::Delete(ObjectKey::Node(name), _) => {
                self.nodes.remove(&name);
            }
            Change::Replace(collection, objects) => {
                for change in self.replacing(&collection, objects) {
                    self.apply(change, touched);
                }
            }
        }
    }

    /// Takes a replacement apart: what goes, then all that is there.
    pub fn replacing(
        &self,
        collection: &Collection,
        objects: Vec<Object>,
    ) -> impl Iterator<Item = Change> + use<> {
        let there: BTreeSet<ObjectKey> = objects.iter().map(Object::key).collect();
        let pods = |on: &dyn Fn(&Pod) -> bool| {
            let pods = self.pods().filter(|pod| on(pod));
            pods.map(|pod| ObjectKey::Pod(pod.key.clone())).collect::<Vec<_>>()
        };
        let mut gone: Vec<ObjectKey> = match collection {
            Collection::Namespaces => {
                self.namespaces.keys().cloned().map(ObjectKey::Namespace).collect()
            }
            Collection::Policies => {
                self.policies().map(|policy| ObjectKey::Policy(policy.key.clone())).collect()
            }
            Collection::Nodes => self.nodes.keys().cloned().map(ObjectKey::Node).collect(),
            Collection::PodsOn(node) => pods(&|pod| pod.node.as_ref() == Some(node)),
            Collection::PodsNotOn(node) => pods(&|pod| pod.node.as_ref() != Some(node)),
        };
        gone.retain(|key| !there.contains(key));
        gone.into_iter().map(Change::delete).chain(objects.into_iter().map(Change::Apply))
    }

    fn set_pod(&mut self, mut pod: Pod, touched: &mut Touched) {
        let old = self.pods.take(&pod.key);
        if let Some(ByKey(old)) = old {
            if *old == pod {
                self.pods.insert(ByKey(old));
                return;
            }
            self.claims.remove(&old);
            touched.pod(&old);
        }
        self.shared.share_pod(&mut pod);
        let pod = Arc::new(pod);
        self.claims.insert(&pod);
        touched.pod(&pod);
        self.pods.insert(ByKey(pod));
    }

    fn touch_pods_of(&self, namespace: &str, touched: &mut Touched) {
        self.pods_of(namespace).for_each(|pod| touched.peer(pod));
    }

    /// Gives back what growing has left empty: worth it when most objects have been seen.
    pub fn pack(&mut self) {
        pack(&mut self.pods);
        pack(&mut self.policies);
        self.claims.pack();
    }

    pub fn pod(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.pods.get(key).map(|pod| &pod.0)
    }

    /// All pods, ascending by key.
    pub fn pods(&self) -> impl ExactSizeIterator<Item = &Pod> {
        self.pods.iter().map(|pod| pod.0.as_ref())
    }

    /// The pods of a namespace, ascending by key.
    pub fn pods_of<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        let first = PodKey::new(namespace, "");
        let pods = self.pods.range(first..).map(|pod| &pod.0);
        pods.take_while(move |pod| *pod.key.namespace == *namespace)
    }

    /// The names of namespaces that have pods, ascending: also of those not seen themselves.
    pub fn namespaces_of_pods(&self) -> impl Iterator<Item = &str> {
        let first = self.pods.first();
        std::iter::successors(first, |last| {
            // There is no name between the two.
            let next = PodKey::new(format!("{}\0", last.0.key.namespace), "");
            self.pods.range(next..).next()
        })
        .map(|pod| pod.0.key.namespace.as_ref())
    }

    /// The pod of a name if it is still the same one: names come again, uids do not.
    pub fn same_pod(&self, key: &PodKey, uid: &PodUid) -> Option<&Arc<Pod>> {
        self.pod(key).filter(|pod| pod.uid == *uid)
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
        self.policies.iter().map(|policy| policy.0.as_ref())
    }

    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<Policy>> {
        self.policies.get(key).map(|policy| &policy.0)
    }

    pub fn node(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name)
    }

    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> {
        self.nodes.values()
    }

    /// The policies that select a pod and carry a direction, ascending by key.
    pub fn selecting(&self, pod: &Pod, direction: Direction) -> impl Iterator<Item = &Policy> {
        let first = PolicyKey::new(pod.key.namespace.clone(), "");
        self.policies
            .range(first..)
            .map(|policy| policy.0.as_ref())
            .take_while(|policy| policy.key.namespace == pod.key.namespace)
            .filter(move |policy| {
                policy.rules(direction).is_some() && policy.subjects.matches(&pod.labels)
            })
    }

    /// Which pod an address belongs to, when several show it for a while.
    pub fn owner(&self, addr: IpAddr) -> Option<&Arc<Pod>> {
        self.claims.owner(addr)
    }

    /// The addresses from one to another, both included, that belong to pods.
    pub fn owned(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.claims.owned(first, last)
    }

    /// Every address that belongs to a pod, ascending.
    pub fn owners(&self) -> impl Iterator<Item = (IpAddr, &Arc<Pod>)> {
        self.claims.owners()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Labels, Phase};

    pub(super) fn pod(namespace: &str, name: &str, address: &str) -> Pod {
        Pod {
            key: PodKey::new(namespace, name),
            uid: PodUid(format!("uid-{name}").into()),
            node: None,
            labels: Labels::new().into(),
            addresses: [address.parse().expect("an address")].into(),
            source_prefixes: None,
            named_ports: Vec::new().into(),
            host_network: false,
            phase: Phase::Active,
            terminating: false,
            created: 0,
        }
    }

    #[test]
    fn what_was_taken_in_is_found() {
        let mut index = Index::default();
        let node = NodeName("node-1".into());
        let objects = [
            Object::Pod(pod("a", "one", "10.0.0.1")),
            Object::Pod(pod("b", "two", "10.0.0.9")),
            Object::Node(Node { name: node.clone(), addresses: Vec::new(), pod_cidrs: Vec::new() }),
        ];
        for object in objects {
            index.apply(Change::Apply(object), &mut Touched::default());
        }
        let key = PodKey::new("a", "one");
        assert_eq!(index.pod(&key).map(|pod| &pod.key), Some(&key));
        assert!(index.same_pod(&key, &PodUid("uid-one".into())).is_some());
        assert!(index.same_pod(&key, &PodUid("uid-of-old".into())).is_none());
        assert!(index.pod(&PodKey::new("b", "one")).is_none());
        assert_eq!(index.node(&node).map(|node| &node.name), Some(&node));
        assert_eq!(index.namespaces_of_pods().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(index.pods_of("b").count(), 1);

        let addr = |text: &str| text.parse::<IpAddr>().expect("an address");
        let owned = |first, last| index.owned(addr(first), addr(last)).collect::<Vec<_>>();
        assert_eq!(owned("10.0.0.0", "10.0.0.255"), [addr("10.0.0.1"), addr("10.0.0.9")]);
        assert_eq!(owned("10.0.0.1", "10.0.0.8"), [addr("10.0.0.1")]);
        assert_eq!(owned("10.0.0.2", "10.0.0.9"), [addr("10.0.0.9")]);
        assert!(owned("10.0.0.2", "10.0.0.8").is_empty());
        assert_eq!(index.owner(addr("10.0.0.9")).map(|pod| &*pod.key.name), Some("two"));
    }
}
