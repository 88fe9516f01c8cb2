//! The policy maps as values, and the writes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::direction::Direction;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord};
use np_common::rules::{ClassId, RuleKey, RuleSetId};
use np_common::tunnel::Encapsulation;

use super::Peers;
use crate::index::pack;

/// What the maps hold, or should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// By ifindex.
    pub ifaces: BTreeMap<u32, Iface>,
    pub endpoints: BTreeMap<EndpointId, Endpoint>,
    pub local: BTreeMap<Addr, EndpointId>,
    /// What endpoints may send from in addition to their own addresses.
    pub sources: BTreeSet<(EndpointId, IpNet)>,
    pub peers: Peers,
    /// What is allowed; there are no other rules.
    pub rules: BTreeSet<RulePrefix>,
    /// What tunnels of the node unwrap.
    pub tunnels: BTreeSet<Encapsulation>,
    pub config: Config,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            ifaces: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            local: BTreeMap::new(),
            sources: BTreeSet::new(),
            peers: Peers::default(),
            rules: BTreeSet::new(),
            tunnels: BTreeSet::new(),
            config: Config::new(0, false),
        }
    }
}

impl Tables {
    /// The same, whenever the endpoints were bound: desired tables do not say that, the map does.
    pub fn without_births(mut self) -> Self {
        self.endpoints.values_mut().for_each(|endpoint| endpoint.born = 0);
        self
    }

    /// Gives back what growing has left empty.
    pub fn pack(&mut self) {
        self.peers.pack();
        pack(&mut self.rules);
    }

    /// The rule sets that some endpoint is policed by.
    pub fn rule_sets(&self) -> BTreeSet<RuleSetId> {
        let both = [Direction::Ingress, Direction::Egress];
        self.endpoints
            .values()
            .flat_map(|endpoint| both.map(|direction| endpoint.policy.rule_set(direction)))
            .flatten()
            .collect()
    }
}

/// A key of RULES with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RulePrefix {
    pub rule_set: RuleSetId,
    pub class: ClassId,
    pub ports: PortPrefix,
}

/// Protocols and ports that one rule covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortPrefix {
    pub protocol: u8,
    pub port: u16,
    /// How many bits count: 0 for every protocol, 16 for every port of one, up to 32 for one port.
    pub bits: u8,
}

impl PortPrefix {
    pub const EVERYTHING: PortPrefix = PortPrefix { protocol: 0, port: 0, bits: 0 };

    pub const fn protocol(protocol: u8) -> Self {
        Self { protocol, port: 0, bits: 16 }
    }

    /// The ports that share the first `bits` bits with `port`.
    pub const fn ports(protocol: u8, port: u16, bits: u8) -> Self {
        Self { protocol, port, bits: 16 + bits }
    }
}

impl RulePrefix {
    /// The key, as it is in the map.
    pub fn key(&self) -> RuleKey {
        RuleKey::new(self.rule_set, self.class, self.ports.protocol, self.ports.port)
    }

    /// The prefix length, as it is in the map.
    pub fn bits(&self) -> u32 {
        RuleKey::CLASS_BITS + u32::from(self.ports.bits)
    }

    /// All rules that a rule set can have.
    pub fn of_rule_set(rule_set: RuleSetId) -> RangeInclusive<Self> {
        *Self::of_class(rule_set, ClassId::NONE).start()
            ..=*Self::of_class(rule_set, ClassId::new(u32::MAX)).end()
    }

    /// All rules that a rule set can have for a class.
    pub fn of_class(rule_set: RuleSetId, class: ClassId) -> RangeInclusive<Self> {
        let last = PortPrefix { protocol: u8::MAX, port: u16::MAX, bits: u8::MAX };
        Self { rule_set, class, ports: PortPrefix::EVERYTHING }..=Self {
            rule_set,
            class,
            ports: last,
        }
    }

    /// Reads a key and prefix length out of the map; none if no version of the agent wrote it.
    pub fn from_map(key: RuleKey, bits: u32) -> Option<Self> {
        let bits = bits.checked_sub(RuleKey::CLASS_BITS).filter(|bits| *bits <= 32)? as u8;
        let ports = PortPrefix { protocol: key.protocol(), port: key.port(), bits };
        Some(Self { rule_set: key.rule_set(), class: key.class(), ports })
    }
}

/// One write to one map. Each leaves every verdict what it was or what it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    SetIface(Iface),
    ClearIface(u32),
    /// Gives an id that is free a pod's addresses. Flows that were judged before this generation are
    /// of an earlier pod.
    Bind(EndpointId, [Addr; 2], u32),
    /// One store.
    SetPolicy(EndpointId, PolicyWord),
    /// Makes the id free: nobody, who is allowed nothing.
    ClearEndpoint(EndpointId),
    SetLocal(Addr, EndpointId),
    RemoveLocal(Addr),
    SetSource(EndpointId, IpNet),
    RemoveSource(EndpointId, IpNet),
    SetPeer(IpNet, ClassId),
    RemovePeer(IpNet),
    SetRule(RulePrefix),
    RemoveRule(RulePrefix),
    SetTunnel(Encapsulation),
    RemoveTunnel(Encapsulation),
    /// One store.
    SetConfig(Config),
}

impl Op {
    /// What the operation does to the tables.
    pub fn apply(&self, tables: &mut Tables) {
        match *self {
            Op::SetIface(iface) => {
                tables.ifaces.insert(iface.ifindex(), iface);
            }
            Op::ClearIface(ifindex) => {
                tables.ifaces.remove(&ifindex);
            }
            Op::Bind(id, addrs, born) => {
                tables.endpoints.insert(id, Endpoint::new(addrs, PolicyWord::FREE, born));
            }
            Op::SetPolicy(id, policy) => {
                tables.endpoints.entry(id).or_insert(Endpoint::FREE).policy = policy;
            }
            Op::ClearEndpoint(id) => {
                tables.endpoints.remove(&id);
            }
            Op::SetLocal(addr, id) => {
                tables.local.insert(addr, id);
            }
            Op::RemoveLocal(addr) => {
                tables.local.remove(&addr);
            }
            Op::SetSource(id, prefix) => {
                tables.sources.insert((id, prefix));
            }
            Op::RemoveSource(id, prefix) => {
                tables.sources.remove(&(id, prefix));
            }
            Op::SetPeer(prefix, class) => {
                tables.peers.insert(prefix, class);
            }
            Op::RemovePeer(prefix) => {
                tables.peers.remove(&prefix);
            }
            Op::SetRule(rule) => {
                tables.rules.insert(rule);
            }
            Op::RemoveRule(rule) => {
                tables.rules.remove(&rule);
            }
            Op::SetTunnel(encapsulation) => {
                tables.tunnels.insert(encapsulation);
            }
            Op::RemoveTunnel(encapsulation) => {
                tables.tunnels.remove(&encapsulation);
            }
            Op::SetConfig(config) => tables.config = config,
        }
    }

    /// The map that the operation writes.
    pub fn map(&self) -> &'static str {
        match self {
            Op::SetIface(_) | Op::ClearIface(_) => "IFACES",
            Op::Bind(..) | Op::SetPolicy(..) | Op::ClearEndpoint(_) => "ENDPOINTS",
            Op::SetLocal(..) | Op::RemoveLocal(_) => "LOCAL",
            Op::SetSource(..) | Op::RemoveSource(..) => "SOURCES",
            Op::SetPeer(prefix, _) | Op::RemovePeer(prefix) => {
                if prefix.prefix_len() == prefix.max_prefix_len() { "PEERS" } else { "CIDRS" }
            }
            Op::SetRule(_) | Op::RemoveRule(_) => "RULES",
            Op::SetTunnel(_) | Op::RemoveTunnel(_) => "TUNNELS",
            Op::SetConfig(_) => "CONFIG",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self:?}", self.map())
    }
}

#[cfg(test)]
mod tests {
    use np_common::tunnel::Encapsulation;

    use super::*;

    #[test]
    fn an_operation_names_its_map() {
        let prefix = |text: &str| text.parse().expect("a prefix");
        let (id, addr) = (EndpointId::new(1), Addr::UNSPECIFIED);
        let ports = PortPrefix::EVERYTHING;
        let rule = RulePrefix { rule_set: RuleSetId::new(1), class: ClassId::new(2), ports };
        for (op, map) in [
            (Op::ClearIface(5), "IFACES"),
            (Op::ClearEndpoint(id), "ENDPOINTS"),
            (Op::SetLocal(addr, id), "LOCAL"),
            (Op::SetSource(id, prefix("10.8.0.0/24")), "SOURCES"),
            (Op::RemoveSource(id, prefix("fd00:8::1/128")), "SOURCES"),
            (Op::SetPeer(prefix("10.0.0.1/32"), ClassId::new(1)), "PEERS"),
            (Op::RemovePeer(prefix("fd00::1/128")), "PEERS"),
            (Op::RemovePeer(prefix("10.0.0.0/31")), "CIDRS"),
            (Op::SetPeer(prefix("fd00::/32"), ClassId::new(1)), "CIDRS"),
            (Op::RemoveRule(rule), "RULES"),
            (Op::SetTunnel(Encapsulation::Udp(8472)), "TUNNELS"),
            (Op::SetConfig(Config::new(1, false)), "CONFIG"),
        ] {
            assert_eq!(op.map(), map, "{op:?}");
            assert_eq!(op.to_string(), format!("{map}: {op:?}"));
        }
    }

    #[test]
    fn a_rule_s_prefix_ends_where_its_ports_end() {
        for (ports, bits) in [
            (PortPrefix::EVERYTHING, 64),
            (PortPrefix::protocol(6), 80),
            (PortPrefix::ports(6, 0x1f00, 8), 88),
            (PortPrefix::ports(6, 80, 16), 96),
        ] {
            let rule = RulePrefix { rule_set: RuleSetId::new(1), class: ClassId::new(2), ports };
            assert_eq!(rule.bits(), bits, "{ports:?}");
            assert_eq!(
                rule.key(),
                RuleKey::new(rule.rule_set, rule.class, ports.protocol, ports.port)
            );
            assert_eq!(RulePrefix::from_map(rule.key(), bits), Some(rule));
        }
        let rule = RuleKey::new(RuleSetId::new(1), ClassId::new(2), 6, 80);
        for bits in [0, 63, 97, 128] {
            assert_eq!(RulePrefix::from_map(rule, bits), None, "nobody wrote {bits} bits");
        }
    }
}
