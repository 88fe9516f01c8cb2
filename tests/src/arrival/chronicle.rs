//! The chronicle: everything that was sent, that happened and that was wished for, in order, to
//! explain arrivals by.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use super::host::{Host, HostId, Kind};
use super::mark::Mark;
use super::seen::{Flow, Form, Ip, Seen};
use super::tap::{Frame, SECOND, Time, now};
use super::version::Version;
use crate::proxy::Service;

/// For how long a packet can be under way, in queues and in what quotes it.
const REMEMBERED: Time = 120 * SECOND;
/// For how long what a host got may be answered.
const LONG: Time = 3600 * SECOND;
const STORY: usize = 400;

/// One sending of the adversary.
#[derive(Clone, Debug)]
pub struct Sent {
    pub author: HostId,
    pub time: Time,
    /// What the adversary had in mind.
    pub plot: &'static str,
    /// As it was sent; none when it is not IP.
    pub flow: Option<Flow>,
    pub form: Option<Form>,
}

/// A payload that went out of a host that had not written it: its kernel answered, or quoted.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    pub host: HostId,
    pub time: Time,
    pub flow: Flow,
    pub form: Form,
}

#[derive(Debug, Default)]
pub struct Chronicle {
    pub hosts: Vec<Host>,
    pub services: Vec<Service>,
    pub versions: Vec<Version>,
    pub sent: BTreeMap<Mark, Sent>,
    pub carried: BTreeMap<Mark, Vec<Carried>>,
    /// When a host first sent what can open a flow.
    opened: BTreeMap<(HostId, Flow), Time>,
    /// When a host first sent an answer that opens none: an echo reply.
    answered: BTreeMap<(HostId, Flow), Time>,
    /// When a host first and last got a packet.
    got: BTreeMap<(HostId, Flow), (Time, Time)>,
    /// As what a host got what another had sent, and how that one had sent it: nodes translate on the way.
    reached: BTreeMap<(HostId, Flow, HostId), Flow>,
    pub story: VecDeque<(Time, String)>,
    pub arrivals: VecDeque<Frame>,
    /// From when until when a stranger's program was attached.
    pub visits: Vec<(Time, Option<Time>)>,
    next: u64,
}

impl Chronicle {
    pub fn add(&mut self, host: Host) -> HostId {
        self.hosts.push(host);
        HostId(self.hosts.len() - 1)
    }

    pub fn host(&self, id: HostId) -> &Host {
        &self.hosts[id.0]
    }

    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        &mut self.hosts[id.0]
    }

    pub fn mark(&mut self) -> Mark {
        self.next += 1;
        Mark(self.next)
    }

    pub fn tell(&mut self, what: String) {
        self.story.push_back((now(), what));
        if self.story.len() > STORY {
            self.story.pop_front();
        }
    }

    /// Whether a stranger's program was attached.
    pub fn strangers(&self, time: Time) -> bool {
        let there = |(from, to): &(Time, Option<Time>)| {
            *from <= time && to.is_none_or(|to| time <= to + SECOND)
        };
        self.visits.iter().any(there)
    }

    /// Records what is about to be sent.
    pub fn send(&mut self, mark: Mark, author: HostId, plot: &'static str, bytes: &[u8]) {
        let ip = Seen::read(bytes).and_then(|seen| seen.ip);
        let (flow, form) = (ip.map(|ip| ip.flow), ip.map(|ip| ip.form));
        let sent = Sent { author, time: now(), plot, flow, form };
        self.sent.insert(mark, sent);
        if mark.0.is_multiple_of(1024) {
            self.forget(now().saturating_sub(REMEMBERED));
        }
    }

    fn forget(&mut self, before: Time) {
        let old = |sent: &Sent| sent.time < before;
        while self.sent.first_key_value().is_some_and(|(_, sent)| old(sent)) {
            if let Some((mark, _)) = self.sent.pop_first() {
                self.carried.remove(&mark);
            }
        }
    }

    /// Takes what a tap has captured.
    pub fn hear(&mut self, frame: Frame) {
        let ip = Seen::read(&frame.bytes).and_then(|seen| seen.ip);
        if !frame.outgoing {
            if let Some(ip) = ip {
                let (_, last) = self.got.entry((frame.host, ip.flow)).or_insert((frame.time, 0));
                *last = frame.time;
                self.reach(&frame, ip);
            }
            self.arrivals.push_back(frame);
            return;
        }
        let Some(ip) = ip else { return };
        if ip.form == Form::EchoReply {
            self.answered.entry((frame.host, ip.flow)).or_insert(frame.time);
        }
        if matches!(ip.form, Form::Ported | Form::EchoRequest | Form::Other) {
            self.opened.entry((frame.host, ip.flow)).or_insert(frame.time);
        }
        for mark in Mark::find(&frame.bytes) {
            if self.sent.get(&mark).is_some_and(|sent| sent.author != frame.host) {
                let carried =
                    Carried { host: frame.host, time: frame.time, flow: ip.flow, form: ip.form };
                self.carried.entry(mark).or_default().push(carried);
            }
        }
    }

    fn reach(&mut self, frame: &Frame, ip: Ip) {
        if ip.form != Form::Ported {
            return;
        }
        for mark in Mark::find(&frame.bytes) {
            if let Some(Sent { author, flow: Some(flow), form: Some(Form::Ported), .. }) =
                self.sent.get(&mark)
            {
                self.reached.insert((frame.host, ip.flow, *author), *flow);
            }
        }
    }

    /// What an author had sent that a host got as this.
    pub fn reached(&self, host: HostId, flow: &Flow, author: HostId) -> Option<Flow> {
        self.reached.get(&(host, *flow, author)).copied()
    }

    /// Whether anybody got as this what an author had sent.
    pub fn reached_somebody(&self, flow: &Flow, author: HostId) -> bool {
        (0..self.hosts.len()).any(|host| self.reached(HostId(host), flow, author).is_some())
    }

    /// Whether a host had sent a packet of this flow before.
    pub fn opened(&self, host: HostId, flow: &Flow, before: Time) -> bool {
        self.opened.get(&(host, *flow)).is_some_and(|first| *first <= before)
    }

    /// What a host has asked, and when first, the latest first.
    pub fn asked_by(&self, host: HostId) -> Vec<(Time, Flow)> {
        let all = self.opened.iter().filter(|((by, _), _)| *by == host);
        let mut all: Vec<(Time, Flow)> = all.map(|((_, flow), first)| (*first, *flow)).collect();
        all.sort_unstable_by_key(|(first, _)| std::cmp::Reverse(*first));
        all
    }

    /// Hosts off the cluster.
    pub fn outsiders(&self) -> impl Iterator<Item = HostId> {
        let all = self.hosts.iter().enumerate();
        all.filter(|(_, host)| host.kind == Kind::Outside).map(|(id, _)| HostId(id))
    }

    /// The same, or an answer.
    pub fn said(&self, host: HostId, flow: &Flow, before: Time) -> bool {
        let answered = self.answered.get(&(host, *flow));
        self.opened(host, flow, before) || answered.is_some_and(|first| *first <= before)
    }

    /// Whether a host had got a packet of this flow before.
    pub fn got(&self, host: HostId, flow: &Flow, before: Time) -> bool {
        self.got.get(&(host, *flow)).is_some_and(|(first, _)| *first <= before)
    }

    /// The flows of a host to an address by a protocol.
    pub fn flows_to(&self, host: HostId, to: IpAddr, protocol: u8) -> impl Iterator<Item = &Flow> {
        let all = self.opened.keys();
        all.filter(move |(by, flow)| *by == host && flow.dst == to && flow.protocol == protocol)
            .map(|(_, flow)| flow)
    }

    /// All that a host has asked.
    pub fn flows_of(&self, host: HostId) -> impl Iterator<Item = &Flow> {
        self.opened.keys().filter(move |(by, _)| *by == host).map(|(_, flow)| flow)
    }

    /// Forgets the flows of a host that is gone for long.
    pub fn bury(&mut self, host: HostId) {
        self.opened.retain(|(by, _), _| *by != host);
        self.answered.retain(|(by, _), _| *by != host);
        self.reached.retain(|(by, _, author), _| *by != host && *author != host);
        let old = now().saturating_sub(LONG);
        self.got.retain(|(by, _), (_, last)| *by != host && *last > old);
    }

    /// The pods of a node that have this address at a time.
    pub fn owners(&self, address: IpAddr, time: Time) -> impl Iterator<Item = (HostId, &Host)> {
        let all = self.hosts.iter().enumerate().map(|(id, host)| (HostId(id), host));
        all.filter(move |(_, host)| host.kind == Kind::Pod && host.has(address) && host.alive(time))
    }

    /// The node that has an address.
    pub fn node(&self, address: IpAddr) -> Option<usize> {
        let mut nodes = self.hosts.iter().filter(|host| host.kind == Kind::Node);
        nodes.find(|host| host.like(address) == address).map(|host| host.node)
    }

    /// Whether an address is a node's, or a gateway's and so nobody else's.
    pub fn can_be_the_nodes(&self, address: IpAddr, node: usize) -> bool {
        let mut strangers = self.hosts.iter().filter(|host| host.kind != Kind::Node);
        self.node(address).is_none_or(|own| own == node) && !strangers.any(|host| host.has(address))
    }

    /// Whether a Service has this cluster address.
    pub fn is_service(&self, address: IpAddr) -> bool {
        self.services.iter().any(|service| match address {
            IpAddr::V4(v4) => service.address == v4,
            IpAddr::V6(v6) => crate::address::twin(service.address) == v6,
        })
    }

    /// Whether what comes from a Service's or a node's address and bears its port can be of a pod
    /// that answers at this port of its own.
    pub fn stands_for(&self, front: IpAddr, pod: &Host, port: u16) -> bool {
        if !self.is_service(front) && self.node(front).is_none() {
            return false;
        }
        self.services.iter().any(|service| {
            service.endpoints.contains(&pod.name.as_str())
                && service.ports.iter().any(|one| one.target_port == port)
        })
    }
}
