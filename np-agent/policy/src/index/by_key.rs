//! An object in the place of its key, which it holds itself.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::{Pod, PodKey, Policy, PolicyKey};

#[derive(Debug)]
pub struct ByKey<T>(pub Arc<T>);

pub trait Keyed {
    type Key: Ord;

    fn key(&self) -> &Self::Key;
}

impl Keyed for Pod {
    type Key = PodKey;

    fn key(&self) -> &PodKey {
        &self.key
    }
}

impl Keyed for Policy {
    type Key = PolicyKey;

    fn key(&self) -> &PolicyKey {
        &self.key
    }
}

impl Borrow<PodKey> for ByKey<Pod> {
    fn borrow(&self) -> &PodKey {
        self.0.key()
    }
}

impl Borrow<PolicyKey> for ByKey<Policy> {
    fn borrow(&self) -> &PolicyKey {
        self.0.key()
    }
}

impl<T> Clone for ByKey<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Keyed> PartialEq for ByKey<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.key() == other.0.key()
    }
}

impl<T: Keyed> Eq for ByKey<T> {}

impl<T: Keyed> PartialOrd for ByKey<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T: Keyed> Ord for ByKey<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key())
    }
}
