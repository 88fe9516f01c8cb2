//! Devices and endpoints: what stands at an ifindex, and how a pod is policed.
//!
//! Both flip atomically: a device is one u64, and an endpoint's policy is one u64 next to addresses
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
    /// No pod of this node.
    pub const NONE: EndpointId = EndpointId(0);
    /// The greatest id; in a tag 4095 stands for "no pod of this node".
    pub const MAX: EndpointId = EndpointId(4094);

    /// Makes an id; 0 is [`EndpointId::NONE`].
    #[inline(always)]
    pub const fn new(id: u16) -> Self {
        Self(id)
    }

    /// Returns the number.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Says whether it names no pod.
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
    /// A device on top of others that have programs, such as a VLAN or a macvlan on the pods' bridge:
    /// those below have seen who sent a packet, and judge it again on its way out.
    Stacked = 6,
}

map_type! {
    /// An element of IFACES: ifindex (bits 0–31), endpoint id (32–43), role (44–47), flags (48–).
    pub struct Iface: 8 bytes {
        bits: u64,
    }
}

const LAYER3: u64 = 1 << 48;

impl Iface {
    /// A slot that is about no device.
    pub const EMPTY: Iface = Iface { bits: 0 };

    /// Makes the element of a device.
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

    /// Reads what [`Iface::bits`] gave.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    /// Returns the element as it is in the map.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Returns the index of the device that the slot is about.
    #[inline(always)]
    pub const fn ifindex(self) -> u32 {
        self.bits as u32
    }

    /// Returns the pod behind the device, if it is a pod's.
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
            6 => Some(Role::Stacked),
            _ => None,
        }
    }

    /// Says whether frames of the device have no link-layer header.
    #[inline(always)]
    pub const fn is_layer3(self) -> bool {
        self.bits & LAYER3 != 0
    }
}

map_type! {
    /// How a pod is policed: ingress isolated (bit 0), egress isolated (bit 1), in use (bit 2),
    /// ingress rule set (bits 8–35), egress rule set (bits 36–63).
    pub struct PolicyWord: 8 bytes {
        bits: u64,
    }
}

const IN_USE: u64 = 1 << 2;

impl PolicyWord {
    /// The id is free: it names nobody and allows nothing.
    pub const FREE: PolicyWord = PolicyWord { bits: 0 };
    /// Selected by no policy.
    pub const OPEN: PolicyWord = PolicyWord { bits: IN_USE };

    /// The policy of an id in use.
    #[inline(always)]
    pub const fn new(ingress: Option<RuleSetId>, egress: Option<RuleSetId>) -> Self {
        let mut bits = IN_USE;
        if let Some(id) = ingress {
            bits |= 1 | (id.get() as u64) << 8;
        }
        if let Some(id) = egress {
            bits |= 2 | (id.get() as u64) << 36;
        }
        Self { bits }
    }

    /// Reads what [`PolicyWord::bits`] gave.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        Self { bits }
    }

    /// Returns the word as it is in the map.
    #[inline(always)]
    pub const fn bits(self) -> u64 {
        self.bits
    }

    /// Whether a pod is bound to the id.
    #[inline(always)]
    pub const fn is_in_use(self) -> bool {
        self.bits & IN_USE != 0
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
    pub struct Endpoint: 48 bytes {
        /// The pod's own addresses, at most one per family; unspecified when it has none.
        pub addrs: [Addr; 2],
        /// How the pod is policed.
        pub policy: PolicyWord,
        /// The first generation whose flows are this pod's: what names the id and was judged under an
        /// older one is of a pod that had the id before.
        pub born: u32,
        spare: u32,
    }
}

impl Endpoint {
    /// A free id.
    pub const FREE: Endpoint = Endpoint::new([Addr::UNSPECIFIED; 2], PolicyWord::FREE, 0);

    /// A pod's endpoint, bound under the generation `born`.
    #[inline(always)]
    pub const fn new(addrs: [Addr; 2], policy: PolicyWord, born: u32) -> Self {
        Self { addrs, policy, born, spare: 0 }
    }

    /// Whether the id was bound to this pod already when a generation was in force. Generations wrap.
    #[inline(always)]
    pub const fn has_lived(&self, generation: u32) -> bool {
        self.policy.is_in_use() && generation.wrapping_sub(self.born) < 1 << 31
    }

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
    fn a_free_id_is_not_an_open_one() {
        assert!(!PolicyWord::FREE.is_in_use() && PolicyWord::OPEN.is_in_use());
        assert!(PolicyWord::new(Some(RuleSetId::new(1)), None).is_in_use());
        assert_eq!(PolicyWord::from_bits(0), PolicyWord::FREE, "what was never written is free");
    }

    #[test]
    fn what_was_judged_before_a_pod_was_bound_is_not_its_own() {
        let bound = |born| Endpoint::new([Addr::UNSPECIFIED; 2], PolicyWord::OPEN, born);
        assert!(bound(5).has_lived(5) && bound(5).has_lived(6) && !bound(5).has_lived(4));
        assert!(bound(u32::MAX).has_lived(0) && !bound(0).has_lived(u32::MAX));
        assert!(!Endpoint::FREE.has_lived(0), "a free id is nobody");
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
