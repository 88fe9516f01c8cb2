//! Peers and rules: what an address is, and what a rule set allows it.
//!
//! Both are longest-prefix questions. PEERS and CIDRS together are one trie from address to
//! [`ClassId`] (PEERS holds the full-length prefixes, because an exact hash answers faster); RULES
//! is a trie from (rule set, class, protocol, port) to a verdict.

use crate::abi::map_type;
use crate::addr::Addr;

/// The set of peer tests that an address satisfies; equal sets share one id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ClassId(u32);

impl ClassId {
    /// Satisfies nothing: the class of every address without an entry.
    pub const NONE: ClassId = ClassId(0);

    /// Makes an id.
    #[inline(always)]
    pub const fn new(id: u32) -> Self {
        Self(id)
    }

    /// Returns the number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The content of all policies that select a pod in one direction: 28 bits, 0 is never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RuleSetId(u32);

impl RuleSetId {
    /// The greatest number.
    pub const MAX: u32 = 0x0fff_ffff;

    /// Makes an id; only the lowest 28 bits count.
    #[inline(always)]
    pub const fn new(id: u32) -> Self {
        Self(id & Self::MAX)
    }

    /// Returns the number.
    #[inline(always)]
    pub const fn get(self) -> u32 {
        self.0
    }
}

map_type! {
    /// The key of CIDRS behind the prefix length. The family comes first, so that `::/0` does not
    /// cover IPv4.
    pub struct CidrKey: 20 bytes {
        family: u32,
        addr: [u32; 4],
    }
}

impl CidrKey {
    /// The bits in front of the address.
    pub const FAMILY_BITS: u32 = 32;
    /// The prefix length of a lookup.
    pub const BITS: u32 = 160;

    /// Makes the key of an address, at its full length.
    #[inline(always)]
    pub const fn of(addr: &Addr) -> Self {
        let words = addr.words();
        if addr.is_v4() {
            let [.., v4] = words;
            Self { family: 4, addr: [v4, 0, 0, 0] }
        } else {
            Self { family: 6, addr: words }
        }
    }

    /// Says whether it is of the IPv4 family.
    pub const fn is_v4(&self) -> bool {
        self.family == 4
    }

    /// The address that the key was made of.
    pub const fn addr(&self) -> Addr {
        if self.is_v4() {
            let [v4, ..] = self.addr;
            Addr::from_v4(v4.to_ne_bytes())
        } else {
            Addr::from_v6_words(self.addr)
        }
    }
}

map_type! {
    /// The key of RULES behind the prefix length: every field in network order.
    pub struct RuleKey: 12 bytes {
        rule_set: u32,
        class: u32,
        protocol: u16,
        port: u16,
    }
}

impl RuleKey {
    /// The prefix length of a lookup, and of a rule for one port.
    pub const BITS: u32 = 96;
    /// The prefix length of a rule for every port of a protocol.
    pub const PROTOCOL_BITS: u32 = 80;
    /// The prefix length of a rule for every protocol.
    pub const CLASS_BITS: u32 = 64;

    /// Makes the key of a port, which is in host byte order here.
    #[inline(always)]
    pub const fn new(rule_set: RuleSetId, class: ClassId, protocol: u8, port: u16) -> Self {
        Self {
            rule_set: rule_set.get().to_be(),
            class: class.get().to_be(),
            protocol: (protocol as u16).to_be(),
            port: port.to_be(),
        }
    }

    /// Returns the rule set.
    pub const fn rule_set(&self) -> RuleSetId {
        RuleSetId::new(u32::from_be(self.rule_set))
    }

    /// Returns the class of peers.
    pub const fn class(&self) -> ClassId {
        ClassId::new(u32::from_be(self.class))
    }

    /// Returns the protocol's number.
    pub const fn protocol(&self) -> u8 {
        u16::from_be(self.protocol) as u8
    }

    /// Returns the port in host byte order.
    pub const fn port(&self) -> u16 {
        u16::from_be(self.port)
    }
}

/// The value of RULES. A rule set lists what it allows; what has no rule is denied.
pub const ALLOW: u32 = 1;
