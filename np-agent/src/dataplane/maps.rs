//! The pinned maps: operations into them, tables out of them.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;

use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray};
use ipnet::IpNet;
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord};
use np_common::maps::{self as specs, MapSpec};
use np_common::rules::{ALLOW, CidrKey, ClassId, RuleKey};
use np_common::source::SourceKey;
use np_common::tunnel::Encapsulation;

use super::counters::Counters;
use super::error::{ApplyError, DataplaneError};
use super::mapping::Mapping;
use super::pins::Pins;
use super::records;
use np_policy::plan::{Op, RulePrefix, Tables};

/// Every map that user space reads or writes. One agent at a time writes.
pub struct Maps {
    ifaces: Mapping,
    ifaces_more: HashMap<MapData, u32, Iface>,
    /// The devices that are in `ifaces_more`.
    more: BTreeSet<u32>,
    endpoints: Mapping,
    tunnels: Mapping,
    config: Mapping,
    records: Mapping,
    local: HashMap<MapData, Addr, u32>,
    sources: LpmTrie<MapData, SourceKey, u32>,
    peers: HashMap<MapData, Addr, u32>,
    cidrs: LpmTrie<MapData, CidrKey, u32>,
    rules: LpmTrie<MapData, RuleKey, u32>,
    counters: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Maps {
    /// Opens maps that [`Pins::check_maps`] has found to be ours.
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let mapping = |spec: &MapSpec| {
            let map = data(pins, spec)?;
            Mapping::new(map.fd(), spec)
                .map_err(|source| DataplaneError::Memory { map: spec.name, source })
        };
        let ifaces_more: HashMap<_, u32, Iface> = typed(pins, &specs::IFACES_MORE, Map::HashMap)?;
        let more = ifaces_more
            .keys()
            .collect::<Result<_, _>>()
            .map_err(DataplaneError::map("read", &specs::IFACES_MORE))?;
        Ok(Self {
            ifaces: mapping(&specs::IFACES)?,
            ifaces_more,
            more,
            endpoints: mapping(&specs::ENDPOINTS)?,
            tunnels: mapping(&specs::TUNNELS)?,
            config: mapping(&specs::CONFIG)?,
            records: mapping(&specs::RECORDS)?,
            local: typed(pins, &specs::LOCAL, Map::HashMap)?,
            sources: typed(pins, &specs::SOURCES, Map::LpmTrie)?,
            peers: typed(pins, &specs::PEERS, Map::HashMap)?,
            cidrs: typed(pins, &specs::CIDRS, Map::LpmTrie)?,
            rules: typed(pins, &specs::RULES, Map::LpmTrie)?,
            counters: typed(pins, &specs::COUNTERS, Map::PerCpuArray)?,
        })
    }

    /// Does one write. If it fails, the map holds what it held.
    pub fn apply(&mut self, op: &Op) -> Result<(), ApplyError> {
        self.write(op).map_err(|source| ApplyError { op: *op, source })
    }

    fn write(&mut self, op: &Op) -> io::Result<()> {
        match *op {
            Op::SetIface(iface) => self.set_iface(iface),
            Op::ClearIface(ifindex) => self.clear_iface(ifindex),
            Op::Bind(id, [first, second], born) => {
                let words = [words_of(first), words_of(second)].concat();
                store(&self.endpoints, ADDR_WORDS, id, &words)?;
                store(&self.endpoints, BORN_WORD, id, &[pair(born, 0)])
            }
            Op::SetPolicy(id, policy) => store(&self.endpoints, POLICY_WORD, id, &[policy.bits()]),
            Op::ClearEndpoint(id) => {
                store(&self.endpoints, POLICY_WORD, id, &[PolicyWord::FREE.bits()])?;
                store(&self.endpoints, ADDR_WORDS, id, &[0; 4])?;
                store(&self.endpoints, BORN_WORD, id, &[0])
            }
            Op::SetLocal(addr, id) => {
                self.local.insert(addr, u32::from(id.get()), 0).map_err(os_error)
            }
            Op::RemoveLocal(addr) => absent_is_fine(self.local.remove(&addr)),
            Op::SetSource(id, prefix) => {
                self.sources.insert(&source_key(id, prefix), 1, 0).map_err(os_error)
            }
            Op::RemoveSource(id, prefix) => {
                absent_is_fine(self.sources.remove(&source_key(id, prefix)))
            }
            Op::SetPeer(prefix, class) => match Peer::of(prefix) {
                Peer::Exact(addr) => self.peers.insert(addr, class.get(), 0),
                Peer::Cidr(key) => self.cidrs.insert(&key, class.get(), 0),
            }
            .map_err(os_error),
            Op::RemovePeer(prefix) => absent_is_fine(match Peer::of(prefix) {
                Peer::Exact(addr) => self.peers.remove(&addr),
                Peer::Cidr(key) => self.cidrs.remove(&key),
            }),
            Op::SetRule(rule) => self.rules.insert(&rule_key(&rule), ALLOW, 0).map_err(os_error),
            Op::RemoveRule(rule) => absent_is_fine(self.rules.remove(&rule_key(&rule))),
            Op::SetTunnel(encapsulation) => {
                let (index, held) = self.tunnel_word(encapsulation);
                word(&self.tunnels, index, held | encapsulation.bit())
            }
            Op::RemoveTunnel(encapsulation) => {
                let (index, held) = self.tunnel_word(encapsulation);
                word(&self.tunnels, index, held & !encapsulation.bit())
            }
            Op::SetConfig(config) => word(&self.config, 0, config.bits()),
        }
    }

    fn tunnel_word(&self, encapsulation: Encapsulation) -> (usize, u64) {
        let index = encapsulation.word() as usize;
        (index, self.tunnels.load(index))
    }

    /// A device is in its slot of IFACES unless another device is.
    fn set_iface(&mut self, iface: Iface) -> io::Result<()> {
        let ifindex = iface.ifindex();
        let slot = iface_slot(ifindex);
        let held = Iface::from_bits(self.ifaces.load(slot));
        if held != Iface::EMPTY && held.ifindex() != ifindex {
            self.ifaces_more.insert(ifindex, iface, 0).map_err(os_error)?;
            self.more.insert(ifindex);
            return Ok(());
        }
        word(&self.ifaces, slot, iface.bits())?;
        self.clear_more(ifindex)
    }

    fn clear_iface(&mut self, ifindex: u32) -> io::Result<()> {
        let slot = iface_slot(ifindex);
        if Iface::from_bits(self.ifaces.load(slot)).ifindex() == ifindex {
            word(&self.ifaces, slot, Iface::EMPTY.bits())?;
        }
        self.clear_more(ifindex)
    }

    fn clear_more(&mut self, ifindex: u32) -> io::Result<()> {
        if self.more.contains(&ifindex) {
            absent_is_fine(self.ifaces_more.remove(&ifindex))?;
            self.more.remove(&ifindex);
        }
        Ok(())
    }

    /// Puts a record in the place of the one in force; a reader finds one or the other, whole.
    pub fn store_record(&mut self, record: &[u8]) -> Result<(), DataplaneError> {
        records::store(&self.records, record)
    }

    /// The record in force; none if none was ever stored.
    pub fn record(&self) -> Option<Vec<u8>> {
        records::load(&self.records)
    }

    /// Reads every policy map.
    pub fn tables(&self) -> Result<Tables, DataplaneError> {
        let mut tables =
            Tables { config: Config::from_bits(self.config.load(0)), ..Tables::default() };
        for (slot, word) in self.ifaces.words().iter().enumerate() {
            let iface = Iface::from_bits(word.load(Ordering::Acquire));
            if iface == Iface::EMPTY {
                continue;
            }
            if iface_slot(iface.ifindex()) != slot {
                return Err(foreign(&specs::IFACES, format!("{iface:?} in slot {slot}")));
            }
            tables.ifaces.insert(iface.ifindex(), iface);
        }
        for entry in self.ifaces_more.iter() {
            let (ifindex, iface) = entry.map_err(reading(&specs::IFACES_MORE))?;
            // The programs look into the slot first.
            tables.ifaces.entry(ifindex).or_insert(iface);
        }
        for id in 1..=EndpointId::MAX.get() {
            let id = EndpointId::new(id);
            let endpoint = self.endpoint(id);
            if endpoint != Endpoint::FREE {
                tables.endpoints.insert(id, endpoint);
            }
        }
        for entry in self.local.iter() {
            let (addr, id) = entry.map_err(reading(&specs::LOCAL))?;
            let id = u16::try_from(id)
                .map_err(|_| foreign(&specs::LOCAL, format!("{addr:?} is endpoint {id}")))?;
            tables.local.insert(addr, EndpointId::new(id));
        }
        for entry in self.sources.iter() {
            let (key, _) = entry.map_err(reading(&specs::SOURCES))?;
            let source = source(&key).ok_or_else(|| {
                foreign(&specs::SOURCES, format!("{:?}/{}", key.data(), key.prefix_len()))
            })?;
            tables.sources.insert(source);
        }
        for entry in self.peers.iter() {
            let (addr, class) = entry.map_err(reading(&specs::PEERS))?;
            tables.peers.insert(IpNet::from(IpAddr::from(addr)), ClassId::new(class));
        }
        for entry in self.cidrs.iter() {
            let (key, class) = entry.map_err(reading(&specs::CIDRS))?;
            let prefix = cidr(&key).ok_or_else(|| {
                foreign(&specs::CIDRS, format!("{:?}/{}", key.data(), key.prefix_len()))
            })?;
            tables.peers.insert(prefix, ClassId::new(class));
        }
        for entry in self.rules.iter() {
            let (key, verdict) = entry.map_err(reading(&specs::RULES))?;
            let rule = RulePrefix::from_map(key.data(), key.prefix_len())
                .filter(|_| verdict == ALLOW)
                .ok_or_else(|| {
                    let (data, bits) = (key.data(), key.prefix_len());
                    foreign(&specs::RULES, format!("{data:?}/{bits} = {verdict}"))
                })?;
            tables.rules.insert(rule);
        }
        for word in 0..specs::TUNNELS.max_entries {
            let bits = self.tunnels.load(word as usize);
            tables.tunnels.extend(Encapsulation::of_word(word, bits));
        }
        Ok(tables)
    }

    fn endpoint(&self, id: EndpointId) -> Endpoint {
        let word = |offset| self.endpoints.load(endpoint_word(id) + offset);
        let addrs = [addr_of([word(0), word(1)]), addr_of([word(2), word(3)])];
        let (born, _) = split(word(BORN_WORD.start));
        Endpoint::new(addrs, PolicyWord::from_bits(word(POLICY_WORD.start)), born)
    }

    /// What the programs have counted since the maps were made.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        Counters::read(|index| {
            let each = self.counters.get(&index, 0).map_err(reading(&specs::COUNTERS))?;
            Ok(each.iter().sum())
        })
    }
}

/// Where an endpoint's addresses and policy lie, in words from its start.
const ADDR_WORDS: Range<usize> = 0..4;
const POLICY_WORD: Range<usize> = 4..5;
const BORN_WORD: Range<usize> = 5..6;
const ENDPOINT_WORDS: usize = size_of::<Endpoint>() / size_of::<u64>();
const _: () = assert!(ENDPOINT_WORDS == BORN_WORD.end);
const _: () = assert!(std::mem::offset_of!(Endpoint, born) == BORN_WORD.start * 8);
const _: () = assert!(std::mem::offset_of!(Endpoint, policy) == POLICY_WORD.start * 8);

fn endpoint_word(id: EndpointId) -> usize {
    usize::from(id.get()) * ENDPOINT_WORDS
}

const fn iface_slot(ifindex: u32) -> usize {
    (ifindex & (specs::IFACES.max_entries - 1)) as usize
}

fn store(map: &Mapping, at: Range<usize>, id: EndpointId, words: &[u64]) -> io::Result<()> {
    for (offset, value) in at.zip(words) {
        word(map, endpoint_word(id) + offset, *value)?;
    }
    Ok(())
}

fn word(map: &Mapping, index: usize, value: u64) -> io::Result<()> {
    if map.store(index, value) { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::E2BIG)) }
}

fn words_of(addr: Addr) -> [u64; 2] {
    let [first, second, third, fourth] = addr.words();
    [pair(first, second), pair(third, fourth)]
}

/// Two words of 32 bits as one, in memory order.
fn pair(low: u32, high: u32) -> u64 {
    let ([a, b, c, d], [e, f, g, h]) = (low.to_ne_bytes(), high.to_ne_bytes());
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

fn split(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
    (u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]))
}

fn addr_of([low, high]: [u64; 2]) -> Addr {
    let ((first, second), (third, fourth)) = (split(low), split(high));
    Addr::from_v6_words([first, second, third, fourth])
}

/// Which map a prefix is in, and under which key.
enum Peer {
    Exact(Addr),
    Cidr(Key<CidrKey>),
}

impl Peer {
    fn of(prefix: IpNet) -> Self {
        let addr = Addr::from(prefix.network());
        let len = u32::from(prefix.prefix_len());
        if prefix.prefix_len() == prefix.max_prefix_len() {
            Peer::Exact(addr)
        } else {
            Peer::Cidr(Key::new(CidrKey::FAMILY_BITS + len, CidrKey::of(&addr)))
        }
    }
}

fn cidr(key: &Key<CidrKey>) -> Option<IpNet> {
    prefix(&key.data(), key.prefix_len().checked_sub(CidrKey::FAMILY_BITS)?)
}

fn prefix(key: &CidrKey, len: u32) -> Option<IpNet> {
    IpNet::new(key.addr().into(), u8::try_from(len).ok()?).ok()
}

fn source_key(id: EndpointId, prefix: IpNet) -> Key<SourceKey> {
    let len = u32::from(prefix.prefix_len());
    let key = SourceKey::of(id, &Addr::from(prefix.network()));
    Key::new(SourceKey::ENDPOINT_BITS + len, key)
}

fn source(key: &Key<SourceKey>) -> Option<(EndpointId, IpNet)> {
    let len = key.prefix_len().checked_sub(SourceKey::ENDPOINT_BITS)?;
    let data = key.data();
    Some((data.endpoint()?, prefix(data.cidr(), len)?))
}

fn rule_key(rule: &RulePrefix) -> Key<RuleKey> {
    Key::new(rule.bits(), rule.key())
}

fn data(pins: &Pins, spec: &MapSpec) -> Result<MapData, DataplaneError> {
    MapData::from_pin(pins.map(spec)).map_err(DataplaneError::map("open pinned", spec))
}

/// Opens a map as one of aya's types, which compares the sizes of key and value once more.
fn typed<T>(pins: &Pins, spec: &MapSpec, kind: fn(MapData) -> Map) -> Result<T, DataplaneError>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(kind(data(pins, spec)?)).map_err(DataplaneError::map("open pinned", spec))
}

fn reading(spec: &MapSpec) -> impl FnOnce(MapError) -> DataplaneError {
    DataplaneError::map("read", spec)
}

fn foreign(spec: &MapSpec, entry: String) -> DataplaneError {
    DataplaneError::ForeignEntry { map: spec.name, entry }
}

/// The kernel's own word on a failed call.
fn os_error(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(syscall) => syscall.io_error,
        other => io::Error::other(other),
    }
}

fn absent_is_fine(result: Result<(), MapError>) -> io::Result<()> {
    match result.map_err(os_error) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_into_shared_words_and_back() {
        for text in ["100.68.1.10", "fd00:68:1::10", "::"] {
            let addr = Addr::from(text.parse::<IpAddr>().expect("valid address"));
            assert_eq!(addr_of(words_of(addr)), addr, "{text}");
        }
    }

    #[test]
    fn a_prefix_survives_the_way_into_a_key_and_back() {
        for text in ["0.0.0.0/0", "100.64.0.0/14", "10.0.0.0/31", "::/0", "fd00:68::/64"] {
            let prefix: IpNet = text.parse().expect("valid prefix");
            let Peer::Cidr(key) = Peer::of(prefix) else { panic!("{text} is no CIDR") };
            assert_eq!(cidr(&key), Some(prefix), "{text}");
        }
        let id = EndpointId::MAX;
        for text in ["10.0.0.1/32", "0.0.0.0/0", "10.8.0.0/24", "::/0", "fd00:8::1/128"] {
            let prefix: IpNet = text.parse().expect("valid prefix");
            assert_eq!(source(&source_key(id, prefix)), Some((id, prefix)), "{text}");
        }
        for text in ["10.0.0.1/32", "fd00::1/128"] {
            let prefix: IpNet = text.parse().expect("valid prefix");
            assert!(matches!(Peer::of(prefix), Peer::Exact(_)), "{text}");
        }
    }
}
