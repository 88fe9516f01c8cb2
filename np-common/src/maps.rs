//! The table of maps: one row each. The programs declare them, the agent compares them with what
//! it finds pinned.

use crate::addr::Addr;
use crate::config::Config;
use crate::direction::Hook;
use crate::endpoint::{Endpoint, EndpointId, Iface};
use crate::event::{Bucket, MOST_BUCKETS};
use crate::flow::{Denied, Flow, FlowKey};
use crate::fragment::{FragmentKey, PortPair};
use crate::rules::{CidrKey, RuleKey};
use crate::source::{MOST_SOURCES, SourceKey};
use crate::tunnel::TUNNEL_WORDS;
use crate::verdict::Reason;

/// What the kernel must say of a pinned map for it to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// As the programs declare it and the kernel shows it.
    pub name: &'static str,
    /// The kernel's type of map.
    pub kind: Kind,
    /// The size of a key in bytes; a trie's includes the prefix length.
    pub key: u32,
    /// The size of a value in bytes.
    pub value: u32,
    /// How many elements it has room for.
    pub max_entries: u32,
    /// `BPF_F_…` of linux/bpf.h.
    pub flags: u32,
}

/// The types of maps in use, each `BPF_MAP_TYPE_…` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ARRAY`.
    Array,
    /// `PERCPU_ARRAY`.
    PerCpuArray,
    /// `HASH`.
    Hash,
    /// `LRU_HASH`.
    LruHash,
    /// `LPM_TRIE`.
    LpmTrie,
}

/// `BPF_F_NO_PREALLOC`: tries require it; for hashes it saves memory.
pub const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE`: user space stores words through a memory mapping, which does not tear.
pub const MMAPABLE: u32 = 1 << 10;

const LPM_PREFIX: usize = size_of::<u32>();

const fn spec<K, V>(name: &'static str, kind: Kind, max_entries: u32, flags: u32) -> MapSpec {
    MapSpec {
        name,
        kind,
        key: size_of::<K>() as u32,
        value: size_of::<V>() as u32,
        max_entries,
        flags,
    }
}

/// Devices, direct-mapped by `ifindex & 0xffff`; a slot says which ifindex it is about.
pub const IFACES: MapSpec = spec::<u32, Iface>("IFACES", Kind::Array, 1 << 16, MMAPABLE);
/// Devices whose slot in IFACES is taken by another.
pub const IFACES_MORE: MapSpec = spec::<u32, Iface>("IFACES_MORE", Kind::Hash, 4096, NO_PREALLOC);
/// Endpoint id → its addresses, and how it is policed.
pub const ENDPOINTS: MapSpec = spec::<u32, Endpoint>("ENDPOINTS", Kind::Array, 4096, MMAPABLE);
/// Address of a local pod → its endpoint id.
pub const LOCAL: MapSpec = spec::<Addr, u32>("LOCAL", Kind::Hash, 16384, NO_PREALLOC);
/// What endpoints may send from in addition to their own addresses.
pub const SOURCES: MapSpec = MapSpec {
    key: (LPM_PREFIX + size_of::<SourceKey>()) as u32,
    ..spec::<u32, u32>("SOURCES", Kind::LpmTrie, 1 << 17, NO_PREALLOC)
};
const _: () =
    assert!(EndpointId::MAX.get() as usize * MOST_SOURCES <= SOURCES.max_entries as usize);
/// Full-length prefixes → class.
pub const PEERS: MapSpec = spec::<Addr, u32>("PEERS", Kind::Hash, 1 << 18, NO_PREALLOC);
/// Shorter prefixes → class.
pub const CIDRS: MapSpec = MapSpec {
    key: (LPM_PREFIX + size_of::<CidrKey>()) as u32,
    ..spec::<u32, u32>("CIDRS", Kind::LpmTrie, 1 << 17, NO_PREALLOC)
};
/// Rule set, class, protocol and a prefix of ports → allowed.
pub const RULES: MapSpec = MapSpec {
    key: (LPM_PREFIX + size_of::<RuleKey>()) as u32,
    ..spec::<u32, u32>("RULES", Kind::LpmTrie, 1 << 20, NO_PREALLOC)
};
/// What was allowed, so that answers pass.
pub const FLOWS: MapSpec = spec::<FlowKey, Flow>("FLOWS", Kind::LruHash, 1 << 17, 0);
/// Tuples that were denied and did not show which side began, see [`Denied`].
pub const DENIED: MapSpec = spec::<FlowKey, Denied>("DENIED", Kind::LruHash, 1 << 13, 0);
/// What first fragments leave for the later ones of their datagrams.
pub const FRAGMENTS: MapSpec =
    spec::<FragmentKey, PortPair>("FRAGMENTS", Kind::LruHash, 1 << 13, 0);
/// What the tunnels of the node unwrap, as a set, see [`crate::tunnel`].
pub const TUNNELS: MapSpec = spec::<u32, u64>("TUNNELS", Kind::Array, TUNNEL_WORDS, MMAPABLE);
/// The one word about everything.
pub const CONFIG: MapSpec = spec::<u32, Config>("CONFIG", Kind::Array, 1, MMAPABLE);
/// Packets per hook and Reason, see [`counter_index`].
pub const COUNTERS: MapSpec =
    spec::<u32, u64>("COUNTERS", Kind::PerCpuArray, Hook::ALL.len() as u32 * REASONS, 0);
/// The agent's own record of what ids stand for, so that a map dump makes sense without it and a
/// restarted agent finds its bindings: see [`RECORD_CHUNK`].
pub const RECORDS: MapSpec =
    spec::<u32, [u8; RECORD_CHUNK]>("RECORDS", Kind::Array, RECORD_CHUNKS as u32, MMAPABLE);

/// Every map that is pinned.
pub const ALL: [MapSpec; 15] = [
    IFACES,
    IFACES_MORE,
    ENDPOINTS,
    LOCAL,
    SOURCES,
    PEERS,
    CIDRS,
    RULES,
    FLOWS,
    DENIED,
    FRAGMENTS,
    TUNNELS,
    CONFIG,
    COUNTERS,
    RECORDS,
];

// Those that are not pinned, and so not in ALL: each load makes its own, and what is in them is of
// no use to the next agent.

/// What makes events, see [`crate::event::Report`].
pub const REPORT: MapSpec = spec::<u32, u64>("REPORT", Kind::Array, 1, MMAPABLE);
/// How many events each endpoint may still make, see [`crate::event::bucket_of`].
pub const BUCKETS: MapSpec = spec::<u32, Bucket>("BUCKETS", Kind::Array, MOST_BUCKETS, MMAPABLE);
/// The ring buffer EVENTS, in bytes: room for some 3,600 events that nobody has read yet.
pub const EVENTS_BYTES: u32 = 1 << 18;

/// RECORDS is read as one stretch of memory: element 0 starts with a u64 `offset << 32 | length`
/// of the record in force, stored last; the record is in one of the two halves of the rest.
pub const RECORD_CHUNK: usize = 4096;
/// A half has 1 KiB for each endpoint: what it is found again by takes three quarters of that with
/// the longest names that there are.
pub const RECORD_CHUNKS: usize = 2049;
const _: () =
    assert!((RECORD_CHUNKS - 1) / 2 * RECORD_CHUNK >= (EndpointId::MAX.get() as usize + 1) * 1024);

/// The room for Reasons in COUNTERS, by their numbers.
pub const REASONS: u32 = 64;
const _: () = assert!(Reason::GREATEST < REASONS);

/// Where a hook counts a Reason.
#[inline(always)]
pub const fn counter_index(hook: Hook, reason: Reason) -> u32 {
    hook as u32 * REASONS + reason as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernel memory of one full element, measured on 6.18 for tries and hashes; arrays hold
    /// their values and nothing else.
    fn bytes(spec: &MapSpec) -> u64 {
        let each = match spec.kind {
            Kind::Array => spec.value.next_multiple_of(8),
            Kind::PerCpuArray => spec.value,
            Kind::Hash => 122,
            Kind::LruHash => 120,
            Kind::LpmTrie => 135,
        };
        u64::from(each) * u64::from(spec.max_entries)
    }

    #[test]
    fn memory_taken_at_load_stays_under_31_mib() {
        let preallocated: u64 =
            ALL.iter().filter(|spec| spec.flags & NO_PREALLOC == 0).map(bytes).sum();
        assert!(preallocated < 31 << 20, "{preallocated} bytes");
    }

    #[test]
    fn full_maps_stay_under_232_mib() {
        let full: u64 = ALL.iter().map(bytes).sum();
        assert!(full < 232 << 20, "{full} bytes");
    }
}
