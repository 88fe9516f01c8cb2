//! Devices and endpoints: what stands at an ifindex, and how a pod is policed.
//!
//! Both flip atomically: a device is one u64, and an endpoint's policy is one u64 beside addresses
//! that do not change while the id is in use.

use crate::abi::map_type;
use crate::addr::Addr;
use crate::direction::Direction;
use crate::rules::RuleSetId;

/// A local pod, as the programs name it: 1 to 4094.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct EndpointId(u16);

impl EndpointId {
    pub const NONE: EndpointId = EndpointId(0);
    /// The greatest id; 4095 is the tag's ENTERED.
    pub const MAX: EndpointId = EndpointId(4094);

    #[inline(always)]
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// What a device is to policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// A veth into another namespace, not yet known to be a pod's or not: default-deny.
    Pending = 1,
    /// The host end of a pod's veth.
    Pod = 2,
    /// A veth into a container that Kubernetes does not know: no policy.
    Foreign = 3,
    /// A device that brings packets in from outside the node.
    Uplink = 4,
    /// An uplink whose packets come out of a tunnel that ends on this node.
    Tunnel = 5,
}

map_type! {
    /// An element of IFACES: ifindex (bits 0–31), endpoint id (32–43), role (44–47), flags (48–).
    pub struct Iface: 8 bytes {
        bits: u64,
    }
}

const LAYER3: u64 = 1 << 48;

impl Iface {
    pub const EMPTY: Iface = Iface { bits: 0 };

    #[inline(always)]
    pub const fn new(ifindex: u32, role: Role, endpoint: EndpointId) -> Self {
        let id = endpoint.get() as u64 & 0xfff;
        Self { bits: ifindex as u64 | id << 32 | (role as u64) << 44 }
    }

    /// The device has no Ethernet header.
    #[inline(always)]
    pub const fn with_layer3(self) -> Self {
        Self { bits: self.bits | LAYER3 }
    }

    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        self.bits as u32
    }

    #[inline(always)]
    pub const fn endpoint(self) -> EndpointId {
        EndpointId::new((self.bits >> 32) as u16 & 0xfff)
    }

    /// None for an empty slot, and for a role this version does not know.
    #[inline(always)]
    pub const fn role(self) -> Option<Role> {
        match (self.bits >> 44) as u8 & 0xf {
            1 => Some(Role::Pending),
            2 => Some(Role::Pod),
            3 => Some(Role::Foreign),
            4 => Some(Role::Uplink),
            5 => Some(Role::Tunnel),
            _ => None,
        }
    }

    #[inline(always)]
    pub const fn is_layer3(self) -> bool {
        self.bits & LAYER3 != 0
    }
}

map_type! {
    /// How a pod is policed: ingress isolated (bit 0), egress isolated (bit 1), ingress rule set
    /// (bits 8–35), egress rule set (bits 36–63).
    pub struct PolicyWord: 8 bytes {
        bits: u64,
    }
}

impl PolicyWord {
    /// Selected by no policy.
    pub const OPEN: PolicyWord = PolicyWord { bits: 0 };

    #[inline(always)]
    pub const fn new(ingress: Option<RuleSetId>, egress: Option<RuleSetId>) -> Self {
        let mut bits = 0;
        if let Some(id) = ingress {
            bits |= 1 | (id.get() as u64) << 8;
        }
        if let Some(id) = egress {
            bits |= 2 | (id.get() as u64) << 36;
        }
        Self { bits }
    }

    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// The rule set of an isolated direction; none when the direction is not isolated.
    #[inline(always)]
    pub const fn rule_set(self, direction: Direction) -> Option<RuleSetId> {
        let (flag, shift) = match direction {
            Direction::Ingress => (1, 8),
            Direction::Egress => (2, 36),
        };
        if self.bits & flag == 0 {
            return None;
        }
        Some(RuleSetId::new((self.bits >> shift) as u32))
    }
}

map_type! {
    /// An element of ENDPOINTS.
    pub struct Endpoint: 40 bytes {
        /// The pod's own addresses, at most one per family; unspecified when it has none.
        pub addrs: [Addr; 2],
        pub policy: PolicyWord,
    }
}

impl Endpoint {
    pub const EMPTY: Endpoint =
        Endpoint { addrs: [Addr::UNSPECIFIED; 2], policy: PolicyWord::OPEN };

    /// Whether the pod may send from this address.
    #[inline(always)]
    pub fn owns(&self, addr: &Addr) -> bool {
        let [first, second] = &self.addrs;
        !addr.is_unspecified() && (addr == first || addr == second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_iface_keeps_its_parts_apart() {
        let iface = Iface::new(0xffff_fffe, Role::Tunnel, EndpointId::MAX).with_layer3();
        assert_eq!(iface.ifindex(), 0xffff_fffe);
        assert_eq!(iface.role(), Some(Role::Tunnel));
        assert_eq!(iface.endpoint(), EndpointId::MAX);
        assert!(iface.is_layer3());
        assert_eq!(Iface::EMPTY.role(), None);
    }

    #[test]
    fn a_policy_word_keeps_its_directions_apart() {
        let (ingress, egress) = (RuleSetId::new(0x0fff_ffff), RuleSetId::new(0x0123_4567));
        let word = PolicyWord::new(Some(ingress), Some(egress));
        assert_eq!(word.rule_set(Direction::Ingress), Some(ingress));
        assert_eq!(word.rule_set(Direction::Egress), Some(egress));
        assert_eq!(PolicyWord::OPEN.rule_set(Direction::Egress), None);
        let only = PolicyWord::new(None, Some(egress));
        assert_eq!(only.rule_set(Direction::Ingress), None);
        assert_eq!(only.rule_set(Direction::Egress), Some(egress));
    }
}
