//! The tables of one node, and the way of a packet through the hooks.
//!
//! ```text
//!  pod ─ from_pod ─┬─ to_pod ─ pod                                  the same node
//!                  └─ to_uplink ─ ‖ ─ from_uplink ─ to_pod ─ pod    another node
//! ```
//!
//! Each pod stands behind a device of its own: which veth is whose is not in question here.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::DerefMut;

use np_common::addr::Addr;
use np_common::config::Config;
use np_common::decide::{Context, Maps, decide};
use np_common::direction::Hook;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::flow::{Flow, FlowKey, Time};
use np_common::fragment::{FragmentKey, PortPair};
use np_common::rules::{ClassId, RuleKey};
use np_common::tag::Tag;
use np_common::tunnel::Encapsulation;
use np_common::verdict::{Reason, Verdict};

use super::opening::Opening;
use super::{End, Explain, Hop, Probe, Standing, Subject, passes};
use crate::compile::Compiled;
use crate::index::Touched;
use crate::model::Direction;
use crate::plan::simulate::Simulated;
use crate::plan::{Lowered, Scope, Tables};

const UPLINK: u32 = 1;

/// More answers than this are not remembered.
const MOST_REMEMBERED: usize = 1 << 20;

/// What the agent of a node would write, with the answers of its tries remembered: the same
/// questions come again with every probe of an endpoint.
#[derive(Debug)]
pub struct Tabled {
    tables: Tables,
    classes: RefCell<HashMap<Addr, ClassId>>,
    allows: RefCell<HashMap<Rule, bool>>,
}

type Rule = (u32, u32, u8, u16);

/// What the hooks say, before anybody asks why.
pub struct Decided {
    pub allowed: bool,
    pub reason: Option<Reason>,
    pub egress: Standing,
    pub ingress: Standing,
    pub hops: Vec<Hop>,
}

impl Tabled {
    pub fn new<'e>(
        explain: &Explain<'_>,
        members: impl Iterator<Item = &'e Subject<'e>> + Clone,
    ) -> Self {
        let mut tables = Tables { config: Config::new(1, false), ..Tables::default() };
        let uplink = Iface::new(UPLINK, Role::Uplink, EndpointId::NONE);
        tables.ifaces.insert(UPLINK, uplink);
        let mut ids = BTreeMap::new();
        for member in members.clone() {
            let device = device(member);
            tables.ifaces.insert(device, Iface::new(device, Role::Pod, member.id));
            let mut addrs = [Addr::UNSPECIFIED; 2];
            for (slot, addr) in addrs.iter_mut().zip(&member.pod.addresses) {
                *slot = Addr::from(*addr);
                if explain.by_address.get(addr) == Some(&member.number) {
                    tables.local.insert(*slot, member.id);
                }
            }
            tables.endpoints.insert(member.id, Endpoint::new(addrs, PolicyWord::OPEN, 0));
            ids.insert(member.id, member.pod.uid.clone());
        }
        let mut compiled = Compiled::default();
        let pods = members.map(|member| member.pod);
        let peers = compiled.update(explain.index, &Touched::default(), pods);
        Lowered::default().update(&compiled, &peers, &ids, &mut tables, &mut Scope::default());
        Self { tables, classes: RefCell::default(), allows: RefCell::default() }
    }

    fn isolates(&self, subject: &Subject<'_>, direction: Direction) -> bool {
        self.policy(subject.id).rule_set(direction).is_some()
    }

    /// A side that was judged and not denied.
    fn standing(&self, subject: &Subject<'_>, direction: Direction) -> Standing {
        if self.isolates(subject, direction) { Standing::Allowed } else { Standing::NotIsolated }
    }

    fn hook(&self, hook: Hook, ifindex: u32, from: (u32, Tag), packet: &Opening) -> Verdict {
        let (ingress_ifindex, tag) = from;
        let context = Context {
            ifindex,
            ingress_ifindex,
            socket: ingress_ifindex == 0,
            tag,
            ethertype: packet.ethertype,
            time: Time { now: 0, hz: 100 },
        };
        decide(hook, self, packet.bytes(), &context)
    }
}

/// The veth of a pod.
fn device(subject: &Subject<'_>) -> u32 {
    UPLINK + u32::from(subject.id.get())
}

/// No flows: what is asked is whether a connection may be opened.
impl Maps for Tabled {
    fn config(&self) -> Config {
        self.tables.config
    }

    fn iface(&self, ifindex: u32) -> Iface {
        Simulated::new(&self.tables).iface(ifindex)
    }

    fn owns(&self, id: EndpointId, addr: &Addr) -> bool {
        Simulated::new(&self.tables).owns(id, addr)
    }

    fn policy(&self, id: EndpointId) -> PolicyWord {
        Simulated::new(&self.tables).policy(id)
    }

    fn local(&self, addr: &Addr) -> EndpointId {
        Simulated::new(&self.tables).local(addr)
    }

    fn forwards(&self, id: EndpointId, addr: &Addr) -> bool {
        Simulated::new(&self.tables).forwards(id, addr)
    }

    fn class(&self, addr: &Addr) -> ClassId {
        remembered(&self.classes, *addr, || Simulated::new(&self.tables).class(addr))
    }

    fn allows(&self, key: &RuleKey) -> bool {
        let rule = (key.rule_set().get(), key.class().get(), key.protocol(), key.port());
        remembered(&self.allows, rule, || Simulated::new(&self.tables).allows(key))
    }

    fn unwraps(&self, encapsulation: Encapsulation) -> bool {
        Simulated::new(&self.tables).unwraps(encapsulation)
    }

    fn flow(&self, _: &FlowKey) -> Option<impl DerefMut<Target = Flow>> {
        None::<Box<Flow>>
    }

    fn record(&self, _: &FlowKey, _: Flow) {}

    fn has_lived(&self, id: EndpointId, generation: u32) -> bool {
        Simulated::new(&self.tables).has_lived(id, generation)
    }

    fn denied(&self, _: &FlowKey, _: Time) -> bool {
        false
    }

    fn record_denied(&self, _: &FlowKey, _: Time) {}

    fn ports(&self, _: &FragmentKey) -> Option<PortPair> {
        None
    }

    fn record_ports(&self, _: &FragmentKey, _: PortPair) {}
}

fn remembered<K: std::hash::Hash + Eq, V: Copy>(
    answers: &RefCell<HashMap<K, V>>,
    key: K,
    answer: impl FnOnce() -> V,
) -> V {
    if let Some(known) = answers.borrow().get(&key) {
        return *known;
    }
    let answer = answer();
    let mut answers = answers.borrow_mut();
    if answers.len() >= MOST_REMEMBERED {
        answers.clear();
    }
    answers.insert(key, answer);
    answer
}

/// A packet on its way, and what was said of it.
struct Way {
    packet: Opening,
    hops: Vec<Hop>,
}

impl Way {
    /// Asks a hook and writes it down; the tag is what the packet carries from there on.
    fn pass(
        &mut self,
        at: (&Tabled, bool),
        hook: Hook,
        ifindex: u32,
        from: (u32, Tag),
    ) -> (Reason, Tag) {
        let (tables, at_sender) = at;
        let verdict = tables.hook(hook, ifindex, from, &self.packet);
        self.hops.push(Hop { hook, at_sender, reason: verdict.reason });
        (verdict.reason, verdict.tag)
    }

    fn decided(self, egress: Standing, ingress: Standing) -> Decided {
        let reasons = || self.hops.iter().map(|hop| hop.reason);
        let dropped = reasons().find(|reason| !passes(*reason));
        // Two hooks judge on two nodes: that a rule was needed says more than that none was.
        let allowed = || reasons().find(|reason| *reason == Reason::Allowed);
        Decided {
            allowed: dropped.is_none(),
            reason: dropped.or_else(allowed).or_else(|| reasons().next_back()),
            egress,
            ingress,
            hops: self.hops,
        }
    }
}

impl Explain<'_> {
    /// Leads the packet through every hook it would meet.
    pub(super) fn decide(&self, probe: &Probe<'_>) -> Decided {
        let mut way = Way { packet: Opening::new(probe), hops: Vec::with_capacity(4) };
        match (probe.from, probe.to) {
            (End::Pod { subject, .. }, to) => self.depart(way, subject, to),
            (End::Node { node, .. }, End::Pod { subject, .. })
                if node.is_some() && node == subject.pod.node.as_ref() =>
            {
                // What the node makes itself has entered by no device and bears no tag.
                let at = (self.tables(subject), false);
                let own = way.pass(at, Hook::ToPod, device(subject), (0, Tag::LOST));
                let ingress =
                    if own.0 == Reason::Own { Standing::OwnNode } else { Standing::Denied };
                way.decided(Standing::NotSubject, ingress)
            }
            (_, End::Pod { subject, .. }) => {
                let ingress = self.arrive(&mut way, subject);
                way.decided(Standing::NotSubject, ingress)
            }
            (_, End::Node { .. } | End::Outside(_)) => {
                way.decided(Standing::NotSubject, Standing::NotSubject)
            }
        }
    }

    /// From a pod to wherever it goes.
    fn depart(&self, mut way: Way, subject: &Subject<'_>, to: End<'_>) -> Decided {
        let tables = self.tables(subject);
        let here = (tables, true);
        let veth = device(subject);
        let (reason, tag) = way.pass(here, Hook::FromPod, veth, (0, Tag::LOST));
        if !passes(reason) {
            return way.decided(Standing::Denied, Standing::NotSubject);
        }
        let from = (veth, tag);
        match to {
            End::Pod { subject: other, .. } if other.number == subject.number => {
                way.pass(here, Hook::ToPod, veth, from);
                way.decided(Standing::SamePod, Standing::SamePod)
            }
            End::Pod { subject: other, .. } if other.group == subject.group => {
                let (reason, _) = way.pass((tables, false), Hook::ToPod, device(other), from);
                // One hook judges both ends and names the first that denies.
                let ingress = || {
                    let judged = (veth, Tag::judged(tag.sender()));
                    tables.hook(Hook::ToPod, device(other), judged, &way.packet).reason
                };
                let (egress, ingress) = match reason {
                    Reason::EgressDenied => (reason, ingress()),
                    reason => (Reason::Allowed, reason),
                };
                let egress = side(tables, subject, Direction::Egress, egress);
                let ingress = side(tables, other, Direction::Ingress, ingress);
                way.decided(egress, ingress)
            }
            // Delivered on the node: no hook sees it leave.
            End::Node { node, .. } if node.is_some() && node == subject.pod.node.as_ref() => {
                way.decided(Standing::OwnNode, Standing::NotSubject)
            }
            End::Pod { .. } | End::Node { .. } | End::Outside(_) => {
                let (reason, _) = way.pass(here, Hook::ToUplink, UPLINK, from);
                let egress = side(tables, subject, Direction::Egress, reason);
                let ingress = match to {
                    End::Pod { subject: other, .. } if passes(reason) => {
                        self.arrive(&mut way, other)
                    }
                    // It never gets there; what would be said of it all the same is worth knowing.
                    End::Pod { subject: other, .. } => {
                        let mut beyond = Way { packet: way.packet.clone(), hops: Vec::new() };
                        self.arrive(&mut beyond, other)
                    }
                    End::Node { .. } | End::Outside(_) => Standing::NotSubject,
                };
                way.decided(egress, ingress)
            }
        }
    }

    /// From the wire to a pod.
    fn arrive(&self, way: &mut Way, subject: &Subject<'_>) -> Standing {
        let tables = self.tables(subject);
        let there = (tables, false);
        let (_, tag) = way.pass(there, Hook::FromUplink, UPLINK, (UPLINK, Tag::LOST));
        let (reason, _) = way.pass(there, Hook::ToPod, device(subject), (UPLINK, tag));
        side(tables, subject, Direction::Ingress, reason)
    }
}

fn side(tables: &Tabled, subject: &Subject<'_>, direction: Direction, reason: Reason) -> Standing {
    if passes(reason) { tables.standing(subject, direction) } else { Standing::Denied }
}
