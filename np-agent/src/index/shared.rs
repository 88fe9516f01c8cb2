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
    }
}
