//! What many objects have in common is held once: replicas have equal labels and ports, policies
//! equal selectors, and all of them few namespaces and nodes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::{ContainerPort, Labels, NodeName, Peer, Pod, Policy, Requirement, Selector};

#[derive(Clone, Debug, Default)]
pub struct Shared {
    names: Pool<str>,
    labels: Pool<Labels>,
    named_ports: Pool<[ContainerPort]>,
    selectors: Pool<[Requirement]>,
}

impl Shared {
    pub fn share_pod(&mut self, pod: &mut Pod) {
        self.names.share(&mut pod.key.namespace);
        if let Some(NodeName(name)) = &mut pod.node {
            self.names.share(name);
        }
        self.labels.share(&mut pod.labels);
        self.named_ports.share(&mut pod.named_ports);
    }

    pub fn share_policy(&mut self, policy: &mut Policy) {
        self.names.share(&mut policy.key.namespace);
        self.share_selector(&mut policy.subjects);
        let rules = [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten();
        for peer in rules.filter_map(|rule| rule.peers.as_mut()).flatten() {
            match peer {
                Peer::Pods { namespaces, pods } => {
                    namespaces.iter_mut().for_each(|selector| self.share_selector(selector));
                    self.share_selector(pods);
                }
                Peer::IpBlock(_) => {}
            }
        }
    }

    fn share_selector(&mut self, selector: &mut Selector) {
        self.selectors.share(&mut selector.requirements);
    }
}

/// Equal values, held once.
#[derive(Debug)]
struct Pool<T: ?Sized> {
    all: HashSet<Arc<T>>,
    /// At this size the pool lets go of what nobody else holds: it is never twice as large as it
    /// need be, and a value costs the same however many there are.
    full: usize,
}

impl<T: ?Sized + Hash + Eq> Pool<T> {
    fn share(&mut self, own: &mut Arc<T>) {
        if let Some(shared) = self.all.get(own) {
            *own = shared.clone();
            return;
        }
        if self.all.len() >= self.full {
            self.all.retain(|value| Arc::strong_count(value) > 1);
            self.full = Self::default().full.max(2 * self.all.len());
        }
        self.all.insert(own.clone());
    }
}

impl<T: ?Sized> Clone for Pool<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), full: self.full }
    }
}

impl<T: ?Sized> Default for Pool<T> {
    fn default() -> Self {
        Self { all: HashSet::new(), full: 64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::pod;
    use crate::model::{PolicyKey, Rule};

    #[test]
    fn what_equals_is_held_once_and_what_nobody_holds_is_let_go_of() {
        let mut pool = Pool::<str>::default();
        let (mut first, mut second): (Arc<str>, Arc<str>) = ("kept".into(), "kept".into());
        pool.share(&mut first);
        pool.share(&mut second);
        assert!(Arc::ptr_eq(&first, &second));
        for i in 0..10_000 {
            pool.share(&mut Arc::from(i.to_string()));
            assert!(pool.all.len() <= 64, "{} names", pool.all.len());
        }
        assert!(pool.all.contains("kept"));
        // A copy continues from what there is.
        let mut third: Arc<str> = "kept".into();
        pool.clone().share(&mut third);
        assert!(Arc::ptr_eq(&first, &third));
    }

    #[test]
    fn pods_and_policies_share_what_they_have_in_common() {
        let pod = |name: &str| Pod {
            node: Some(NodeName("node-1".into())),
            labels: Labels::from([("app".into(), "web".into())]).into(),
            ..pod("default", name, "10.0.0.1")
        };
        let selector = || Selector { requirements: [Requirement::Exists("app".into())].into() };
        let policy = |name: &str| Policy {
            key: PolicyKey::new("default", name),
            subjects: selector(),
            ingress: Some(
                [Rule {
                    peers: Some(
                        [Peer::Pods { namespaces: Some(selector()), pods: selector() }].into(),
                    ),
                    ports: None,
                }]
                .into(),
            ),
            egress: None,
        };
        let mut shared = Shared::default();
        let (mut a, mut b) = (pod("a"), pod("b"));
        let (mut c, mut d) = (policy("c"), policy("d"));
        for pod in [&mut a, &mut b] {
            shared.share_pod(pod);
        }
        for policy in [&mut c, &mut d] {
            shared.share_policy(policy);
        }
        assert!(Arc::ptr_eq(&a.labels, &b.labels));
        assert!(Arc::ptr_eq(&a.key.namespace, &b.key.namespace));
        assert!(Arc::ptr_eq(&a.key.namespace, &c.key.namespace));
        let of_peer = |policy: &Policy| match policy.ingress.iter().flatten().next() {
            Some(Rule { peers: Some(peers), .. }) => match &peers[..] {
                [Peer::Pods { namespaces: Some(namespaces), pods }] => {
                    [namespaces.requirements.clone(), pods.requirements.clone()]
                }
                _ => unreachable!("one pair of selectors"),
            },
            _ => unreachable!("one rule"),
        };
        for requirements in [of_peer(&c), of_peer(&d)].iter().flatten() {
            assert!(Arc::ptr_eq(requirements, &c.subjects.requirements));
        }
    }
}
