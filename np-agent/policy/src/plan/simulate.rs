//! The maps without a kernel: `np_common::decide` runs on [`Tables`].

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::DerefMut;

use ipnet::IpNet;
use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Case, Maps};
use np_common::endpoint::{EndpointId, Iface, PolicyWord};
use np_common::flow::{Denied, Flow, FlowKey, Time};
use np_common::fragment::{FragmentKey, PortPair};
use np_common::rules::{ClassId, RuleKey};
use np_common::tunnel::Encapsulation;

use super::{PortPrefix, RulePrefix, Tables};

/// Tables, with flows, denials and fragments of their own.
#[derive(Debug)]
pub struct Simulated<'a> {
    pub tables: &'a Tables,
    pub flows: RefCell<BTreeMap<FlowKey, Flow>>,
    pub denied: RefCell<BTreeMap<FlowKey, Denied>>,
    pub fragments: RefCell<BTreeMap<FragmentKey, PortPair>>,
    /// What was found out about the last packet.
    pub case: RefCell<Case>,
}

impl<'a> Simulated<'a> {
    pub fn new(tables: &'a Tables) -> Self {
        Self {
            tables,
            flows: RefCell::default(),
            denied: RefCell::default(),
            fragments: RefCell::default(),
            case: RefCell::new(Case::EMPTY),
        }
    }
}

impl Maps for Simulated<'_> {
    fn config(&self) -> Config {
        self.tables.config
    }

    fn iface(&self, ifindex: u32) -> Iface {
        self.tables.ifaces.get(&ifindex).copied().unwrap_or(Iface::EMPTY)
    }

    fn owns(&self, id: EndpointId, addr: &Addr) -> bool {
        self.tables.endpoints.get(&id).is_some_and(|endpoint| endpoint.owns(addr))
    }

    fn policy(&self, id: EndpointId) -> PolicyWord {
        self.tables.endpoints.get(&id).map_or(PolicyWord::FREE, |endpoint| endpoint.policy)
    }

    fn has_lived(&self, id: EndpointId, generation: u32) -> bool {
        self.tables.endpoints.get(&id).is_some_and(|endpoint| endpoint.has_lived(generation))
    }

    fn local(&self, addr: &Addr) -> EndpointId {
        self.tables.local.get(addr).copied().unwrap_or(EndpointId::NONE)
    }

    fn forwards(&self, id: EndpointId, addr: &Addr) -> bool {
        let addr = IpAddr::from(*addr);
        self.tables.sources.iter().any(|(own, prefix)| *own == id && prefix.contains(&addr))
    }

    fn class(&self, addr: &Addr) -> ClassId {
        let addr = IpAddr::from(*addr);
        let longest = IpNet::from(addr).prefix_len();
        (0..=longest)
            .rev()
            .filter_map(|len| Some(IpNet::new(addr, len).ok()?.trunc()))
            .find_map(|prefix| self.tables.peers.get(&prefix).copied())
            .unwrap_or(ClassId::NONE)
    }

    fn allows(&self, key: &RuleKey) -> bool {
        let (protocol, port) = (key.protocol(), key.port());
        let ports = (0..=16)
            .map(|bits| {
                let mask = (u32::from(u16::MAX) << (16 - bits)) as u16;
                PortPrefix::ports(protocol, port & mask, bits)
            })
            .chain([PortPrefix::EVERYTHING]);
        ports
            .map(|ports| RulePrefix { rule_set: key.rule_set(), class: key.class(), ports })
            .any(|rule| self.tables.rules.contains(&rule))
    }

    fn unwraps(&self, encapsulation: Encapsulation) -> bool {
        self.tables.tunnels.contains(&encapsulation)
    }

    fn flow(&self, key: &FlowKey) -> Option<impl DerefMut<Target = Flow>> {
        RefMut::filter_map(self.flows.borrow_mut(), |flows| flows.get_mut(key)).ok()
    }

    fn record(&self, key: &FlowKey, flow: Flow) {
        self.flows.borrow_mut().insert(*key, flow);
    }

    fn denied(&self, key: &FlowKey, time: Time) -> bool {
        self.denied.borrow_mut().get_mut(key).is_some_and(|denied| denied.counts(time))
    }

    fn record_denied(&self, key: &FlowKey, time: Time) {
        self.denied.borrow_mut().insert(*key, Denied::new(time));
    }

    fn with_case<T>(&self, f: impl FnOnce(&mut Case) -> T) -> Option<T> {
        Some(f(&mut self.case.borrow_mut()))
    }

    fn ports(&self, key: &FragmentKey) -> Option<PortPair> {
        self.fragments.borrow().get(key).copied()
    }

    fn record_ports(&self, key: &FragmentKey, ports: PortPair) {
        self.fragments.borrow_mut().insert(*key, ports);
    }
}
