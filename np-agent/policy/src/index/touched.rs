//! What changes have moved since it was last asked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::{Pod, PodKey, PolicyKey};

/// Names whatever may have another answer than before; all else has the answer it had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Addresses that got another owner, or whose owner is another peer now.
    pub addresses: BTreeSet<IpAddr>,
    /// Pods that may be selected by other policies.
    pub pods: BTreeSet<PodKey>,
    /// Namespaces whose policies are others.
    pub policies_of: BTreeSet<Arc<str>>,
}

impl Touched {
    pub(super) fn pod(&mut self, pod: &Pod) {
        self.pods.insert(pod.key.clone());
        self.peer(pod);
    }

    pub(super) fn peer(&mut self, pod: &Pod) {
        self.addresses.extend(&pod.addresses);
    }

    pub(super) fn policy(&mut self, key: &PolicyKey) {
        self.policies_of.insert(key.namespace.clone());
    }
}
