//! The addresses that a pod may send from in addition to its own: those that it forwards for.
//!
//! A VPN gateway, a router or a virtual machine sends what others made. SOURCES is a trie from
//! (endpoint, address), in which only prefixes lie that the pod names and the operator grants.

use crate::abi::map_type;
use crate::addr::Addr;
use crate::endpoint::EndpointId;
use crate::rules::CidrKey;

/// What one pod may name: all endpoint ids together never fill SOURCES.
pub const MOST_SOURCES: usize = 32;

map_type! {
    /// The key of SOURCES behind the prefix length.
    pub struct SourceKey: 24 bytes {
        endpoint: u32,
        cidr: CidrKey,
    }
}

impl SourceKey {
    /// The bits in front of the address.
    pub const ENDPOINT_BITS: u32 = 32 + CidrKey::FAMILY_BITS;
    /// The prefix length of a lookup.
    pub const BITS: u32 = 32 + CidrKey::BITS;

    /// Makes the key of an address that an endpoint sends from, at its full length.
    #[inline(always)]
    pub const fn of(endpoint: EndpointId, addr: &Addr) -> Self {
        Self { endpoint: endpoint.get() as u32, cidr: CidrKey::of(addr) }
    }

    /// None for what no version of the agent wrote.
    pub fn endpoint(&self) -> Option<EndpointId> {
        let id = u16::try_from(self.endpoint).ok().map(EndpointId::new)?;
        (!id.is_none() && id <= EndpointId::MAX).then_some(id)
    }

    /// Returns the address part.
    pub const fn cidr(&self) -> &CidrKey {
        &self.cidr
    }
}
