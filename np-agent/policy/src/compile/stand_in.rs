//! What counts in the place of a policy that is too large for the maps.
//!
//! A policy is never left out: its pods would be open. Its closed version isolates whom it selects
//! and allows nothing; its last good version, where one is known, still allows what it allowed
//! before the change that is too large.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Direction, Pod, Policy, PolicyKey};

pub type StandIns = BTreeMap<PolicyKey, StandIn>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StandIn {
    closed: Policy,
    last_good: Option<Arc<Policy>>,
}

impl StandIn {
    pub fn of(policy: &Policy, last_good: Option<Arc<Policy>>) -> Self {
        let no_rules = |rules: &Option<_>| rules.is_some().then(Box::default);
        let closed = Policy {
            key: policy.key.clone(),
            subjects: policy.subjects.clone(),
            ingress: no_rules(&policy.ingress),
            egress: no_rules(&policy.egress),
        };
        Self { closed, last_good }
    }

    fn versions(&self) -> impl Iterator<Item = &Policy> {
        self.last_good.as_deref().into_iter().chain([&self.closed])
    }
}

/// The versions that select a pod and carry a direction.
pub fn selecting<'a>(
    stand_ins: &'a StandIns,
    pod: &'a Pod,
    direction: Direction,
) -> impl Iterator<Item = &'a Policy> {
    let first = PolicyKey::new(pod.key.namespace.clone(), "");
    stand_ins
        .range(first..)
        .take_while(|(key, _)| key.namespace == pod.key.namespace)
        .flat_map(|(_, stand_in)| stand_in.versions())
        .filter(move |policy| {
            policy.rules(direction).is_some() && policy.subjects.matches(&pod.labels)
        })
}
