//! A verdict that the programs have reached, with the policies and rules behind it by name.
//!
//! The tables are not asked again: what was decided is known, and only the objects say why. They may
//! have changed since; then they no longer give a reason for the verdict.

use std::net::IpAddr;

use np_common::verdict::Reason;

use super::{End, Explain, Probe, Side, Standing};
use crate::model::{Direction, PodKey, PolicyKey};

/// A connection and what the programs of one node said of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'e> {
    pub connection: Probe<'e>,
    pub reason: Reason,
    /// Whether the pod that opened the connection is one of that node.
    pub source_here: bool,
    /// Whether the pod that answers is one of that node.
    pub destination_here: bool,
}

/// Why the programs said so, as far as policy is the reason.
#[derive(Clone, Debug, Default)]
pub struct Why<'e> {
    /// The sides that were asked and are isolated; of a denied connection, the one that denies.
    pub sides: Vec<(Direction, Side<'e>)>,
    /// The objects no longer give a reason for the verdict: they have changed since.
    pub changed: bool,
}

impl Why<'_> {
    /// The policies that the verdict rests on: where a rule allows, those with such a rule, else those
    /// that isolate.
    pub fn policies(&self) -> Vec<&PolicyKey> {
        let mut policies: Vec<&PolicyKey> = Vec::new();
        for (_, side) in &self.sides {
            if side.standing == Standing::Allowed {
                policies.extend(side.allowed_by.iter().map(|rule| &rule.policy.key));
            } else {
                policies.extend(side.isolated_by.iter().map(|policy| &policy.key));
            }
        }
        policies.sort_unstable();
        policies.dedup();
        policies
    }
}

impl Explain<'_> {
    /// Returns who is at an address: this pod, where the node knows it, or else the owner of the address.
    /// A pod that is not among the objects is only an address.
    pub fn end_at<'e>(&'e self, address: IpAddr, pod: Option<&PodKey>) -> End<'e> {
        if let Some(pod) = pod {
            return match self.by_key.get(&pod.to_string()) {
                Some(number) => End::Pod { subject: &self.subjects[*number], address },
                None => End::Outside(address),
            };
        }
        match (self.owner(address), self.node_of(address)) {
            (Some(subject), _) => End::Pod { subject, address },
            (None, Some(node)) => End::Node { node: Some(node), pod: None, address },
            (None, None) => End::Outside(address),
        }
    }

    /// Returns why the programs said what they said.
    pub fn why<'e>(&'e self, outcome: &Outcome<'e>) -> Why<'e> {
        let Outcome { connection, reason, source_here, destination_here } = outcome;
        let here = [(Direction::Egress, *source_here), (Direction::Ingress, *destination_here)];
        let asked = here.into_iter().filter_map(|(direction, here)| here.then_some(direction));
        let side = |direction, standing| (direction, self.side(connection, direction, standing));
        let isolated = |(_, side): &(Direction, Side<'_>)| !side.isolated_by.is_empty();
        let denied = |direction| {
            let denied = side(direction, Standing::Denied);
            let changed = !denied.1.is_consistent();
            Why { sides: vec![denied], changed }
        };
        match reason {
            Reason::EgressDenied => denied(Direction::Egress),
            Reason::IngressDenied => denied(Direction::Ingress),
            Reason::Allowed => {
                let sides = asked.map(|direction| side(direction, Standing::Allowed));
                let sides: Vec<_> = sides.filter(isolated).collect();
                let changed =
                    sides.is_empty() || sides.iter().any(|(_, side)| !side.is_consistent());
                Why { sides, changed }
            }
            // An isolated end is enough; what rules say does not matter.
            Reason::Fragment | Reason::IcmpError | Reason::NotAddressed | Reason::Unjudgeable => {
                let sides = asked.map(|direction| side(direction, Standing::Denied));
                let mut sides: Vec<_> = sides.filter(isolated).collect();
                for (_, side) in &mut sides {
                    side.near.clear();
                    side.allowed_by.clear();
                }
                Why { changed: sides.is_empty(), sides }
            }
            _ => Why::default(),
        }
    }
}
