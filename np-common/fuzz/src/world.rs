//! A node's maps, small enough to be copied for every packet.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::ops::DerefMut;

use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Case, Maps};
use np_common::direction::Direction;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Denied, Flow, FlowKey, Time};
use np_common::fragment::{FragmentKey, PortPair};
use np_common::rules::{ClassId, RuleKey, RuleSetId};
use np_common::tunnel::{Encapsulation, GRE, IPIP, SIT};

use crate::frame;
use crate::scenario::{self, Scenario};

/// IPv4 as v4-mapped. The first three of each family are the endpoints'.
pub const ADDRS: [[u8; 16]; 16] = [
    v4([10, 1, 0, 1]),
    v4([10, 1, 0, 2]),
    v4([10, 1, 0, 3]),
    v4([10, 2, 0, 1]),
    v4([192, 0, 2, 1]),
    v4([203, 0, 113, 7]),
    v4([0, 0, 0, 0]),
    v4([224, 0, 0, 1]),
    v6(0xfd01, 1),
    v6(0xfd01, 2),
    v6(0xfd01, 3),
    v6(0xfd02, 1),
    v6(0x2001, 7),
    v6(0xfe80, 1),
    v6(0, 0),
    v6(0xff02, 1),
];

const fn v4([a, b, c, d]: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

const fn v6(first: u16, last: u8) -> [u8; 16] {
    let [a, b] = first.to_be_bytes();
    [a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
}

/// The index of the address that a choice stands for.
pub fn addr(choice: u8, v4: bool) -> usize {
    usize::from(choice % 8) + if v4 { 0 } else { 8 }
}

/// No 0: a rule cannot name it.
const PORTS: [u16; 8] = [53, 80, 443, VXLAN, 8, 40_000, 40_001, 65_535];
const VXLAN: u16 = 4789;

pub fn port(choice: u8) -> u16 {
    PORTS[usize::from(choice) % PORTS.len()]
}

/// The last one is the greatest there is.
pub const IDS: [EndpointId; 3] = [EndpointId::new(1), EndpointId::new(2), EndpointId::MAX];

pub fn endpoint_id(choice: u8) -> EndpointId {
    IDS[usize::from(choice) % IDS.len()]
}

const TUNNELS: [Encapsulation; 4] = [
    Encapsulation::Udp(VXLAN),
    Encapsulation::Protocol(IPIP),
    Encapsulation::Protocol(SIT),
    Encapsulation::Protocol(GRE),
];

/// What a rule set allows a class; none stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    rule_set: RuleSetId,
    class: ClassId,
    protocol: Option<u8>,
    port: Option<u16>,
}

impl Rule {
    fn of(choice: scenario::Rule) -> Self {
        let protocol = frame::protocol(choice.protocol, choice.breadth & 4 == 0);
        let (protocol, port) = match choice.breadth % 4 {
            0 => (None, None),
            1 => (Some(protocol), None),
            _ => (Some(protocol), Some(port(choice.port))),
        };
        Self { rule_set: rule_set(choice.rule_set), class: class(choice.class), protocol, port }
    }

    fn covers(&self, protocol: u8, port: u16) -> bool {
        self.protocol.is_none_or(|own| own == protocol) && self.port.is_none_or(|own| own == port)
    }
}

fn rule_set(choice: u8) -> RuleSetId {
    RuleSetId::new(u32::from(choice % 4) + 1)
}

fn class(choice: u8) -> ClassId {
    ClassId::new(u32::from(choice % 4))
}

fn known(index: usize) -> Addr {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = ADDRS[index];
    Addr::from_v6_words([
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
    ])
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    config: Config,
    endpoints: [Endpoint; 3],
    /// Which life each id is in: it is another's each time it is bound, and nobody's in between.
    lives: [u32; 3],
    ifaces: [Iface; 6],
    classes: [ClassId; 16],
    alias: (Addr, EndpointId),
    /// One address that an endpoint forwards for.
    forwarded: (EndpointId, Addr),
    rules: Vec<Rule>,
    tunnels: u8,
    pub flows: RefCell<Vec<(FlowKey, Flow)>>,
    pub denied: RefCell<Vec<(FlowKey, Denied)>>,
    pub fragments: RefCell<Vec<(FragmentKey, PortPair)>>,
    scratch: Scratch,
}

/// The place of a case: what a packet leaves there is nothing to the next.
#[derive(Clone)]
struct Scratch(RefCell<Case>);

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}

impl PartialEq for Scratch {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Scratch {}

impl World {
    pub fn new(scenario: &Scenario) -> Self {
        let mut ifindex = 0;
        let ifaces = scenario.devices.map(|device| {
            ifindex += 1;
            iface(ifindex, device)
        });
        let (addr, owner) = scenario.alias;
        let mut world = Self {
            config: Config::new(scenario.generation, scenario.pending_allowed),
            endpoints: [Endpoint::FREE; 3],
            lives: [0; 3],
            ifaces,
            classes: scenario.classes.map(class),
            alias: (known(usize::from(addr % 16)), endpoint_id(owner)),
            forwarded: (endpoint_id(owner / 3), known(usize::from(addr / 16))),
            rules: scenario.rules.iter().copied().take(16).map(Rule::of).collect(),
            tunnels: scenario.tunnels,
            flows: RefCell::default(),
            denied: RefCell::default(),
            fragments: RefCell::default(),
            scratch: Scratch(RefCell::new(Case::EMPTY)),
        };
        for (at, choice) in scenario.endpoints.into_iter().enumerate() {
            if choice.flags >> 6 != 3 {
                world.occupy(at, choice);
            }
        }
        world
    }

    /// Another pod gets the id: it is its own from this generation on.
    fn occupy(&mut self, at: usize, choice: scenario::Endpoint) {
        let whose = (at + usize::from(choice.flags >> 4 & 3)) % IDS.len();
        let addr = |family: usize| {
            let addr = known(whose + 8 * family);
            let wanted = choice.flags >> family & 1 != 0;
            if wanted && self.local(&addr).is_none() { addr } else { Addr::UNSPECIFIED }
        };
        let addrs = [addr(0), addr(1)];
        self.endpoints[at] = Endpoint::new(addrs, policy(choice), self.config.generation());
        self.lives[at] += 1;
    }

    /// The pod goes: its device and addresses first, then the generation rises.
    pub fn free(&mut self, endpoint: u8) {
        let at = usize::from(endpoint) % IDS.len();
        if !self.endpoints[at].policy.is_in_use() {
            return;
        }
        self.endpoints[at] = Endpoint::FREE;
        self.lives[at] += 1;
        for iface in &mut self.ifaces {
            if iface.role() == Some(Role::Pod) && iface.endpoint() == IDS[at] {
                *iface = Iface::EMPTY;
            }
        }
        let nobody = (Addr::UNSPECIFIED, EndpointId::NONE);
        if self.alias.1 == IDS[at] {
            self.alias = nobody;
        }
        if self.forwarded.0 == IDS[at] {
            self.forwarded = (nobody.1, nobody.0);
        }
        self.next_generation();
    }

    /// A free id is bound; nothing that is there before the generation rises is of the new pod.
    pub fn bind(&mut self, endpoint: u8, to: scenario::Endpoint, device: u8) {
        let at = usize::from(endpoint) % IDS.len();
        if self.endpoints[at].policy.is_in_use() {
            return;
        }
        self.next_generation();
        self.occupy(at, to);
        let slot = usize::from(device) % self.ifaces.len();
        self.ifaces[slot] = Iface::new(slot as u32 + 1, Role::Pod, IDS[at]);
    }

    /// Which life the id is in; 0 for what is no pod's.
    pub fn life(&self, id: EndpointId) -> u32 {
        IDS.iter().position(|own| *own == id).map_or(0, |at| self.lives[at])
    }

    /// The same tables without some flows, and with nothing in the place of a case.
    pub fn without(&self, dead: impl Fn(&FlowKey) -> bool) -> Self {
        let world = self.clone();
        world.flows.borrow_mut().retain(|(key, _)| !dead(key));
        *world.scratch.0.borrow_mut() = Case::EMPTY;
        world
    }

    pub fn change(&mut self, endpoint: u8, to: scenario::Endpoint, tunnels: u8) {
        let own = &mut self.endpoints[usize::from(endpoint) % IDS.len()];
        if own.policy.is_in_use() {
            own.policy = policy(to);
        }
        self.tunnels = tunnels;
        self.next_generation();
    }

    pub fn add(&mut self, rule: scenario::Rule) {
        self.rules.push(Rule::of(rule));
        self.next_generation();
    }

    pub fn remove_rules(&mut self) {
        self.rules.clear();
        self.next_generation();
    }

    /// Rises with every change of policy, and wraps.
    fn next_generation(&mut self) {
        let generation = self.config.generation().wrapping_add(1);
        self.config = Config::new(generation, self.config.pending_allowed());
    }

    pub fn flow(&self, key: &FlowKey) -> Option<Flow> {
        self.flows.borrow().iter().find(|(known, _)| known == key).map(|(_, flow)| *flow)
    }

    pub fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Whether policy has a say about an end. Nobody allows a free id anything.
    pub fn is_isolated(&self, subject: EndpointId, direction: Direction) -> bool {
        let policy = self.policy(subject);
        !subject.is_none() && (!policy.is_in_use() || policy.rule_set(direction).is_some())
    }

    /// What policy says of a tuple at one end, without tries: some rule for the peer's class or for
    /// everyone. True for an end that is not isolated.
    pub fn permits(&self, subject: EndpointId, direction: Direction, key: &FlowKey) -> bool {
        if !self.is_isolated(subject, direction) {
            return true;
        }
        let Some(rule_set) = self.policy(subject).rule_set(direction) else { return false };
        let peer = match direction {
            Direction::Ingress => key.src,
            Direction::Egress => key.dst,
        };
        let class = self.class(&peer);
        let protocol = key.protocol as u8;
        let port = if matches!(protocol, 6 | 17 | 132) { u16::from_be(key.dport) } else { 0 };
        self.rules.iter().any(|rule| {
            let peers = rule.class == class || rule.class == ClassId::NONE;
            rule.rule_set == rule_set && peers && rule.covers(protocol, port)
        })
    }

    /// Whether a tunnel of the node would take such packets.
    pub fn wraps(&self, key: &FlowKey) -> bool {
        let protocol = key.protocol as u8;
        let udp = protocol == 17 && u16::from_be(key.dport) == VXLAN;
        TUNNELS.iter().enumerate().any(|(bit, tunnel)| {
            let same = match *tunnel {
                Encapsulation::Udp(_) => udp,
                Encapsulation::Protocol(own) => own == protocol,
            };
            same && self.tunnels >> bit & 1 != 0
        })
    }
}

fn policy(choice: scenario::Endpoint) -> PolicyWord {
    let isolated = |bit: u8, of: u8| (choice.flags >> bit & 1 != 0).then(|| rule_set(of));
    PolicyWord::new(isolated(2, choice.ingress), isolated(3, choice.egress))
}

fn iface(ifindex: u32, device: scenario::Device) -> Iface {
    let none = EndpointId::NONE;
    let iface = match device.role % 8 {
        0 => return Iface::EMPTY,
        1..=3 => Iface::new(ifindex, Role::Pod, endpoint_id(device.endpoint)),
        4 => Iface::new(ifindex, Role::Pending, none),
        5 => Iface::new(ifindex, Role::Foreign, none),
        6 if device.endpoint >= 128 => Iface::new(ifindex, Role::Stacked, none),
        6 => Iface::new(ifindex, Role::Uplink, none),
        _ => Iface::new(ifindex, Role::Tunnel, none),
    };
    if device.layer3 { iface.with_layer3() } else { iface }
}

impl Maps for World {
    fn config(&self) -> Config {
        self.config
    }

    fn iface(&self, ifindex: u32) -> Iface {
        let slot = (ifindex as usize).checked_sub(1);
        slot.and_then(|slot| self.ifaces.get(slot)).copied().unwrap_or(Iface::EMPTY)
    }

    fn owns(&self, id: EndpointId, addr: &Addr) -> bool {
        IDS.iter().position(|own| *own == id).is_some_and(|at| self.endpoints[at].owns(addr))
    }

    fn policy(&self, id: EndpointId) -> PolicyWord {
        let at = IDS.iter().position(|own| *own == id);
        at.map_or(PolicyWord::FREE, |at| self.endpoints[at].policy)
    }

    fn has_lived(&self, id: EndpointId, generation: u32) -> bool {
        let at = IDS.iter().position(|own| *own == id);
        at.is_some_and(|at| self.endpoints[at].has_lived(generation))
    }

    fn local(&self, addr: &Addr) -> EndpointId {
        let (alias, owner) = self.alias;
        if *addr == alias && self.policy(owner).is_in_use() {
            return owner;
        }
        IDS.into_iter().find(|id| self.owns(*id, addr)).unwrap_or(EndpointId::NONE)
    }

    fn forwards(&self, id: EndpointId, addr: &Addr) -> bool {
        self.forwarded == (id, *addr)
    }

    fn class(&self, addr: &Addr) -> ClassId {
        (0..ADDRS.len())
            .find(|index| known(*index) == *addr)
            .map_or(ClassId::NONE, |index| self.classes[index])
    }

    fn allows(&self, key: &RuleKey) -> bool {
        self.rules.iter().any(|rule| {
            rule.rule_set == key.rule_set()
                && rule.class == key.class()
                && rule.covers(key.protocol(), key.port())
        })
    }

    fn unwraps(&self, encapsulation: Encapsulation) -> bool {
        let at = TUNNELS.iter().position(|tunnel| *tunnel == encapsulation);
        at.is_some_and(|bit| self.tunnels >> bit & 1 != 0)
    }

    fn flow(&self, key: &FlowKey) -> Option<impl DerefMut<Target = Flow>> {
        RefMut::filter_map(self.flows.borrow_mut(), |flows| {
            flows.iter_mut().find(|(known, _)| known == key).map(|(_, flow)| flow)
        })
        .ok()
    }

    fn record(&self, key: &FlowKey, flow: Flow) {
        put(&mut self.flows.borrow_mut(), *key, flow);
    }

    fn denied(&self, key: &FlowKey, time: Time) -> bool {
        let mut denied = self.denied.borrow_mut();
        denied.iter_mut().find(|(known, _)| known == key).is_some_and(|(_, it)| it.counts(time))
    }

    fn record_denied(&self, key: &FlowKey, time: Time) {
        put(&mut self.denied.borrow_mut(), *key, Denied::new(time));
    }

    fn with_case<T>(&self, f: impl FnOnce(&mut Case) -> T) -> Option<T> {
        Some(f(&mut self.scratch.0.borrow_mut()))
    }

    fn ports(&self, key: &FragmentKey) -> Option<PortPair> {
        let fragments = self.fragments.borrow();
        fragments.iter().find(|(known, _)| known == key).map(|(_, ports)| *ports)
    }

    fn record_ports(&self, key: &FragmentKey, ports: PortPair) {
        put(&mut self.fragments.borrow_mut(), *key, ports);
    }
}

fn put<K: PartialEq, V>(table: &mut Vec<(K, V)>, key: K, value: V) {
    match table.iter_mut().find(|(known, _)| *known == key) {
        Some((_, old)) => *old = value,
        None => table.push((key, value)),
    }
}
