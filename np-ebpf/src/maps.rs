//! The BPF maps, declared by the rows of [`np_common::maps`], and the verdict's view of them.

use core::arch::asm;
use core::ops::DerefMut;
use core::ptr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::Key;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Case, Maps};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord};
use np_common::flow::{Denied, Flow, FlowKey, Time};
use np_common::fragment::{FragmentKey, PortPair};
use np_common::maps as specs;
use np_common::rules::{ALLOW, CidrKey, ClassId, RuleKey};
use np_common::source::SourceKey;
use np_common::tunnel::Encapsulation;
use np_common::verdict::Reason;

macro_rules! declare {
    ($($name:ident: $type:ty;)*) => {
        $(
            #[map]
            static $name: $type =
                <$type>::with_max_entries(specs::$name.max_entries, specs::$name.flags);
        )*
    };
}

declare! {
    IFACES: Array<Iface>;
    IFACES_MORE: HashMap<u32, Iface>;
    ENDPOINTS: Array<Endpoint>;
    LOCAL: HashMap<Addr, u32>;
    SOURCES: LpmTrie<SourceKey, u32>;
    PEERS: HashMap<Addr, u32>;
    CIDRS: LpmTrie<CidrKey, u32>;
    RULES: LpmTrie<RuleKey, u32>;
    FLOWS: LruHashMap<FlowKey, Flow>;
    DENIED: LruHashMap<FlowKey, Denied>;
    FRAGMENTS: LruHashMap<FragmentKey, PortPair>;
    TUNNELS: Array<u64>;
    CONFIG: Array<Config>;
    COUNTERS: PerCpuArray<u64>;
    // No program reads it; it lies with the others so that it lives and dies with them.
    RECORDS: Array<[u8; specs::RECORD_CHUNK]>;
}

/// Where a program keeps what it finds out while it runs. It is not pinned: nobody else reads it.
#[map]
pub static CASE: PerCpuArray<Case> = PerCpuArray::with_max_entries(1, 0);

/// The slot of IFACES that an ifindex shares with those that differ by a multiple of 65,536.
const IFACE_SLOTS: u32 = specs::IFACES.max_entries - 1;

/// What the agent stores as one word is read as one word.
macro_rules! word {
    ($pointer:expr) => {
        // SAFETY: the pointer comes from a map lookup, and an element of an array map is never
        // freed.
        unsafe { core::ptr::read_volatile($pointer.cast::<u64>()) }
    };
}
pub(crate) use word;

pub struct KernelMaps;

impl Maps for KernelMaps {
    #[inline(always)]
    fn config(&self) -> Config {
        CONFIG.get_ptr(0).map_or(Config::new(0, false), |config| Config::from_bits(word!(config)))
    }

    #[inline(always)]
    fn iface(&self, ifindex: u32) -> Iface {
        if let Some(slot) = IFACES.get_ptr(ifindex & IFACE_SLOTS) {
            let iface = Iface::from_bits(word!(slot));
            if iface.ifindex() == ifindex {
                return iface;
            }
        }
        // SAFETY: the map does not preallocate, so an element that is replaced meanwhile stays
        // readable until the program ends.
        unsafe { IFACES_MORE.get(ifindex) }.map_or(Iface::EMPTY, |iface| *iface)
    }

    #[inline(always)]
    fn owns(&self, id: EndpointId, addr: &Addr) -> bool {
        ENDPOINTS.get(u32::from(id.get())).is_some_and(|endpoint| endpoint.owns(addr))
    }

    #[inline(always)]
    fn policy(&self, id: EndpointId) -> PolicyWord {
        ENDPOINTS.get_ptr(u32::from(id.get())).map_or(PolicyWord::FREE, |endpoint| {
            // SAFETY: a field of the element that the lookup returned.
            let policy = unsafe { &raw const (*endpoint).policy };
            PolicyWord::from_bits(word!(policy))
        })
    }

    #[inline(always)]
    fn has_lived(&self, id: EndpointId, generation: u32) -> bool {
        ENDPOINTS.get(u32::from(id.get())).is_some_and(|endpoint| endpoint.has_lived(generation))
    }

    #[inline(always)]
    fn local(&self, addr: &Addr) -> EndpointId {
        // SAFETY: not preallocated, as in `iface`.
        unsafe { LOCAL.get(addr) }.map_or(EndpointId::NONE, |id| EndpointId::new(*id as u16))
    }

    #[inline(always)]
    fn forwards(&self, id: EndpointId, addr: &Addr) -> bool {
        SOURCES.get(Key::new(SourceKey::BITS, SourceKey::of(id, addr))).is_some()
    }

    #[inline(always)]
    fn class(&self, addr: &Addr) -> ClassId {
        // SAFETY: not preallocated, as in `iface`.
        if let Some(class) = unsafe { PEERS.get(addr) } {
            return ClassId::new(*class);
        }
        let key = Key::new(CidrKey::BITS, CidrKey::of(addr));
        CIDRS.get(key).map_or(ClassId::NONE, |class| ClassId::new(*class))
    }

    #[inline(always)]
    fn allows(&self, key: &RuleKey) -> bool {
        RULES.get(Key::new(RuleKey::BITS, *key)).is_some_and(|verdict| *verdict == ALLOW)
    }

    #[inline(always)]
    fn unwraps(&self, encapsulation: Encapsulation) -> bool {
        let word = TUNNELS.get_ptr(encapsulation.word());
        word.is_some_and(|word| word!(word) & encapsulation.bit() != 0)
    }

    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<impl DerefMut<Target = Flow>> {
        let flow = FLOWS.get_ptr_mut(key)?;
        // SAFETY: the element stays readable and writable until the program ends. Another CPU may
        // work on it at the same time: every field is one aligned word, and any mix of two
        // packets' notes is a state that the flow was in.
        Some(unsafe { &mut *flow })
    }

    #[inline(always)]
    fn record(&self, key: &FlowKey, flow: Flow) {
        // A flow that cannot be recorded is judged again with its next packet.
        let _full = FLOWS.insert(key, flow, 0);
    }

    #[inline(always)]
    fn denied(&self, key: &FlowKey, time: Time) -> bool {
        // SAFETY: as in `flow`.
        DENIED.get_ptr_mut(key).is_some_and(|denied| unsafe { &mut *denied }.counts(time))
    }

    #[inline(always)]
    fn record_denied(&self, key: &FlowKey, time: Time) {
        // Without it, the other side is taken to begin what it says next.
        let _full = DENIED.insert(key, Denied::new(time), 0);
    }

    #[inline(always)]
    fn with_case<T>(&self, f: impl FnOnce(&mut Case) -> T) -> Option<T> {
        let case = CASE.get_ptr_mut(0)?;
        // SAFETY: this CPU's own element, and TC programs of one CPU do not interrupt each other. It
        // holds zeros or what an earlier program left, a case either way.
        Some(f(unsafe { &mut *case }))
    }

    #[inline(always)]
    fn settled<'a>(&self, case: &'a mut Case) -> &'a mut Case {
        let mut place = ptr::from_mut(case);
        // SAFETY: the pointer that comes out is the one that went in; the compiler does not know, nor
        // what is there, and has to read it.
        unsafe {
            asm!("{place} = {place}", place = inout(reg) place, options(nostack));
            &mut *place
        }
    }

    #[inline(always)]
    fn ports(&self, key: &FragmentKey) -> Option<PortPair> {
        // SAFETY: the element stays readable until the program ends. Were it given to another key
        // meanwhile, a fragment would be judged by ports that are not its own.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn record_ports(&self, key: &FragmentKey, ports: PortPair) {
        // Without it, later fragments are judged as of unknown ports.
        let _full = FRAGMENTS.insert(key, ports, 0);
    }
}

/// Counts a packet.
#[inline(always)]
pub fn count(hook: Hook, reason: Reason) {
    if let Some(counter) = COUNTERS.get_ptr_mut(specs::counter_index(hook, reason)) {
        // SAFETY: this CPU's own element, and TC programs of one CPU do not interrupt each other.
        unsafe { *counter += 1 };
    }
}
