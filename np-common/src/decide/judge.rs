//! The judgement: what policy, and the node's tunnels, say of a tuple.

use super::Maps;
use super::case::Case;
use crate::addr::Addr;
use crate::direction::Direction;
use crate::endpoint::EndpointId;
use crate::flow::FlowKey;
use crate::packet::{SCTP, TCP, UDP};
use crate::rules::{ClassId, RuleKey};
use crate::tunnel::Encapsulation;

/// What rules are looked up by.
pub struct Tuple {
    src: Addr,
    dst: Addr,
    protocol: u8,
    /// Destination port in host order; 0 where the protocol has none or it is not known, which
    /// only rules for all ports cover.
    port: u16,
}

impl Tuple {
    #[inline(always)]
    pub const fn of(key: &FlowKey) -> Self {
        let FlowKey { src, dst, dport, protocol, .. } = *key;
        let protocol = protocol as u8;
        let port = match protocol {
            TCP | UDP | SCTP => u16::from_be(dport),
            _ => 0,
        };
        Self { src, dst, protocol, port }
    }
}

pub enum Judged {
    /// Neither end is isolated.
    Open,
    Allowed,
}

/// The sender's egress to the destination, and the receiver's ingress from the source: both must
/// allow. An end that is no local pod has no say.
///
/// A function of its own also in the kernel, as [`crate::packet::parse_into`].
#[inline(never)]
pub fn judge<M: Maps>(maps: &M, case: &Case) -> Result<Judged, Direction> {
    let tuple = &Tuple::of(&case.key);
    let mut judged = Judged::Open;
    if let Some(allowed) = side(maps, tuple, case.subject, Direction::Egress, &tuple.dst) {
        if !allowed {
            return Err(Direction::Egress);
        }
        judged = Judged::Allowed;
    }
    if let Some(allowed) = side(maps, tuple, case.destination, Direction::Ingress, &tuple.src) {
        if !allowed {
            return Err(Direction::Ingress);
        }
        judged = Judged::Allowed;
    }
    Ok(judged)
}

/// Whether either end has a say at all. An id that is free, of a pod that is gone, allows nothing.
#[inline(always)]
pub fn isolated<M: Maps>(maps: &M, source: EndpointId, destination: EndpointId) -> bool {
    let has = |id: EndpointId, direction| {
        let policy = maps.policy(id);
        !id.is_none() && (!policy.is_in_use() || policy.rule_set(direction).is_some())
    };
    has(source, Direction::Egress) || has(destination, Direction::Ingress)
}

/// One end's word; none when it is not isolated in that direction.
#[inline(always)]
fn side<M: Maps>(
    maps: &M,
    tuple: &Tuple,
    subject: EndpointId,
    direction: Direction,
    peer: &Addr,
) -> Option<bool> {
    if subject.is_none() {
        return None;
    }
    let policy = maps.policy(subject);
    if !policy.is_in_use() {
        return Some(false);
    }
    let rule_set = policy.rule_set(direction)?;
    let class = maps.class(peer);
    let allows = |class| maps.allows(&RuleKey::new(rule_set, class, tuple.protocol, tuple.port));
    // What a rule set allows everyone is written once, under no class: most classes then need no
    // rules of their own.
    Some(allows(class) || class != ClassId::NONE && allows(ClassId::NONE))
}

/// Whether another node would unwrap the packet and take what is inside for this node's: there
/// nobody could tell any more which pod it is from. A fragment without ports is no use to anybody
/// without the first one.
#[inline(always)]
pub fn to_tunnel<M: Maps>(maps: &M, tuple: &Tuple) -> bool {
    Encapsulation::of(tuple.protocol, tuple.port)
        .is_some_and(|encapsulation| maps.unwraps(encapsulation))
}
