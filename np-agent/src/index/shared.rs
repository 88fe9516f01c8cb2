//! What many pods have in common is held once: replicas have equal labels and ports.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::model::{ContainerPort, Labels, Pod, PodKey};

/// A pod in the place of its key, which it holds itself.
#[derive(Clone, Debug)]
pub struct ByKey(pub Arc<Pod>);

#[derive(Clone, Debug, Default)]
pub struct Shared {
    labels: HashSet<Arc<Labels>>,
    named_ports: HashSet<Arc<[ContainerPort]>>,
}

impl Shared {
    pub fn share(&mut self, pod: &mut Pod) {
        share(&mut self.labels, &mut pod.labels);
        share(&mut self.named_ports, &mut pod.named_ports);
    }

    /// The last pod that has something takes it along. Others may still know the pod, and then keep
    /// a copy of their own.
    pub fn forget(&mut self, pod: Arc<Pod>) {
        forget(&mut self.labels, &pod.labels);
        forget(&mut self.named_ports, &pod.named_ports);
    }
}

fn share<T: ?Sized + Hash + Eq>(all: &mut HashSet<Arc<T>>, own: &mut Arc<T>) {
    match all.get(own) {
        Some(shared) => *own = shared.clone(),
        None => {
            all.insert(own.clone());
        }
    }
}

fn forget<T: ?Sized + Hash + Eq>(all: &mut HashSet<Arc<T>>, own: &Arc<T>) {
    // Held here and by this pod.
    if Arc::strong_count(own) <= 2 {
        all.remove(own);
    }
}

impl Borrow<PodKey> for ByKey {
    fn borrow(&self) -> &PodKey {
        &self.0.key
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}
