//! The two gates of an arrival: what the sender's node and the receiver's may let through, and why.

use std::net::IpAddr;

use super::chronicle::Chronicle;
use super::explain::Why;
use super::host::{Host, HostId, Kind};
use super::seen::{Flow, Form, Ip};
use super::tap::{Frame, Time};
use super::version::{self, SLACK};
use crate::oracle::{End, Protocol};

/// Who let a packet out, and what it looked like then.
#[derive(Clone, Copy)]
pub struct Emitter {
    /// None for somebody off the cluster, another node, or the network: an address is all there is.
    pub pod: Option<HostId>,
    pub flow: Flow,
    pub form: Form,
    pub time: Time,
}

/// What somebody else's address as the source means.
enum Forgery {
    /// It must not leave the sender.
    Never(String),
    /// It must not reach a pod that is isolated.
    ToTheStrict(String),
    /// The packet counts as one from outside.
    AsAnybody,
}

/// An arrival that is to be explained.
pub struct Case<'a> {
    chronicle: &'a Chronicle,
    id: HostId,
    receiver: &'a Host,
    time: Time,
    ip: Ip,
    /// What its author has sent.
    sent: Option<Flow>,
    protocol: Protocol,
    /// The receiver's port.
    port: u16,
}

impl<'a> Case<'a> {
    pub fn new(
        chronicle: &'a Chronicle,
        frame: &Frame,
        ip: Ip,
        sent: Option<Flow>,
        form: Option<Form>,
    ) -> Self {
        let receiver = chronicle.host(frame.host);
        let (protocol, port) = match ip.form {
            Form::Ported => (version::protocol(ip.flow.protocol), ip.flow.dport),
            // A later piece has the ports of its datagram, which only its author knows.
            Form::Later => match (sent, form) {
                (Some(flow), Some(Form::Ported | Form::Later)) => {
                    (version::protocol(flow.protocol), chronicle.real_port(&flow, receiver))
                }
                _ => (Protocol::Other(ip.flow.protocol), 0),
            },
            Form::EchoRequest => (Protocol::IcmpEcho, 0),
            _ => (Protocol::Other(ip.flow.protocol), 0),
        };
        Self { chronicle, id: frame.host, receiver, time: frame.time, ip, sent, protocol, port }
    }

    /// A bridge floods what it does not know where to send: a frame for somebody else does not concern
    /// this pod, unless everybody may reach it anyway.
    pub fn is_addressed(&self) -> Result<(), String> {
        let dst = self.ip.flow.dst;
        let broadcast = matches!(dst, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[3] == 255);
        if self.receiver.kind != Kind::Pod
            || dst.is_multicast()
            || broadcast
            || self.receiver.has(dst)
            || self.is_open()
            || self.sent.is_some_and(|flow| self.asked_as_the_node(&flow).is_some())
        {
            return Ok(());
        }
        Err(format!("{dst} is not an address of {}", self.receiver.name))
    }

    pub fn explain(&self, emitter: Emitter) -> Result<Why, String> {
        let emitter = match self.forgery(&emitter) {
            Some(Forgery::Never(reason)) => return Err(reason),
            // A pod that everybody may reach has no use for the truth.
            Some(Forgery::ToTheStrict(reason)) if !self.is_open() => return Err(reason),
            Some(Forgery::ToTheStrict(_)) => return Ok(Why::Allowed),
            Some(Forgery::AsAnybody) => Emitter { pod: None, ..emitter },
            None => emitter,
        };
        let sender = emitter.pod.map(|id| self.chronicle.host(id));
        let (out, come_in) = (self.egress(&emitter), self.ingress());
        let (back_out, back_in) = (self.answers(&emitter), self.asked(&emitter));
        let through = emitter.flow.dst;
        let one_node = sender.is_some_and(|sender| sender.node == self.receiver.node)
            && self.receiver.kind == Kind::Pod
            && self.chronicle.node(through).is_none_or(|node| node == self.receiver.node);
        let gates = format!(
            "egress {out}, ingress {come_in}; as a reply: out {back_out}, in {back_in}; {}{:?} \
             port {}",
            if one_node { "one node, " } else { "" },
            self.protocol,
            self.port
        );
        match one_node {
            _ if out && come_in => Ok(Why::Allowed),
            true if back_out && back_in => Ok(Why::Reply),
            false if (out || back_out) && (come_in || back_in) => Ok(Why::Reply),
            _ => Err(gates),
        }
    }

    /// Whether the sender has used somebody else's address, and what follows.
    fn forgery(&self, emitter: &Emitter) -> Option<Forgery> {
        let src = emitter.flow.src;
        // Addresses of pods that a node has known for long.
        let known = |address: IpAddr, node: usize| {
            let mut owners = self.chronicle.owners(address, self.time);
            let found = owners.find(|(_, host)| {
                host.node == node && host.bound.is_some_and(|at| at + SLACK < emitter.time)
            });
            found.map(|(_, host)| &host.name)
        };
        if let Some(id) = emitter.pod {
            let sender = self.chronicle.host(id);
            if sender.has(src) || src.is_unspecified() {
                return None;
            }
            let reason = format!("{} has sent as {src}", sender.name);
            // Who comes while no agent runs is like somebody outside, but never another pod.
            let free = sender.unattached(emitter.time) && known(src, sender.node).is_none();
            return Some(if free { Forgery::AsAnybody } else { Forgery::Never(reason) });
        }
        let seen = self.ip.flow.src;
        let link_local = matches!(seen, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let pod = known(seen, self.receiver.node)?;
        let reason = || format!("somebody else has sent as {pod}, of the same node");
        (self.receiver.kind == Kind::Pod && !link_local).then(|| Forgery::ToTheStrict(reason()))
    }

    /// The receiver's node answers anyone who asks in the name of a pod that it does not know yet.
    pub fn is_the_nodes_to_an_unknown_pod(&self) -> bool {
        let own_node = self.chronicle.can_be_the_nodes(self.ip.flow.src, self.receiver.node);
        let known = self.receiver.bound.is_some_and(|at| at + SLACK < self.time);
        own_node && !known && self.receiver.kind == Kind::Pod
    }

    /// Whether no policy isolates the receiver.
    pub fn is_open(&self) -> bool {
        let (me, src) = (self.receiver, self.ip.flow.src);
        self.any_version(me.node, self.time, |version| {
            let dst = End::pod(me.key(), me.like(src));
            let verdict = version.verdict(End::Address(src), dst, self.protocol, self.port);
            version.listed.contains(&self.id) && !verdict.ingress.isolated()
        })
    }

    /// The sender's gate.
    fn egress(&self, emitter: &Emitter) -> bool {
        let Some(id) = emitter.pod else { return true };
        let sender = self.chronicle.host(id);
        if sender.unattached(emitter.time) {
            return true;
        }
        // Another node's port is translated there: to the sender's node it is what it says.
        let elsewhere = self
            .chronicle
            .node(emitter.flow.dst)
            .is_some_and(|node| node != sender.node && emitter.flow.dst != self.ip.flow.dst);
        if elsewhere {
            return self.may_send(
                id,
                emitter.flow.dst,
                self.protocol,
                emitter.flow.dport,
                emitter.time,
            );
        }
        self.may_send(id, self.ip.flow.dst, self.protocol, self.port, emitter.time)
    }

    /// The receiver's gate.
    fn ingress(&self) -> bool {
        self.receiver.kind != Kind::Pod
            || self.may_receive(self.id, self.ip.flow.src, self.protocol, self.port, self.time)
    }

    /// The receiver's gate for what answers it.
    fn asked(&self, emitter: &Emitter) -> bool {
        if self.receiver.kind != Kind::Pod {
            return true;
        }
        let Some(asked) = self.question(emitter) else { return false };
        let protocol = version::protocol(asked.protocol);
        // Where the question went, as the receiver's node judged it: behind a Service or the node's own
        // address it is the sender itself.
        let front = self.chronicle.is_service(asked.dst)
            || self.chronicle.node(asked.dst) == Some(self.receiver.node);
        let error = matches!(self.ip.form, Form::Error(_));
        let (to, port) = match emitter.pod.map(|id| self.chronicle.host(id)) {
            Some(sender) if front && !error => (sender.like(asked.dst), emitter.flow.sport),
            _ => (asked.dst, asked.dport),
        };
        self.may_send(self.id, to, protocol, port, emitter.time)
            // An error about an answer of the receiver's.
            || error && self.may_receive(self.id, asked.dst, protocol, asked.sport, emitter.time)
    }

    /// What the receiver sent that this is about, if the sender can be who it went to.
    fn question(&self, emitter: &Emitter) -> Option<Flow> {
        let sender = emitter.pod.map(|id| self.chronicle.host(id));
        match self.ip.form {
            Form::Ported | Form::EchoReply | Form::Other => {
                let asked = self.ip.flow.reversed();
                let known = self.chronicle.opened(self.id, &asked, self.time);
                let straight = known && self.is_of(sender, asked.dst, emitter.flow.sport);
                let straight = straight.then_some(asked);
                straight
                    .or_else(|| self.asked_before_a_port_was_taken(emitter))
                    .or_else(|| self.asked_by_another_port(emitter))
                    .or_else(|| self.asked_as_the_node(&emitter.flow))
                    .or_else(|| self.asked_by_a_service(sender?, emitter.flow.sport))
            }
            Form::Later => {
                let to = self.ip.flow.src;
                let mut flows =
                    self.chronicle.flows_to(self.id, to, self.ip.flow.protocol).copied();
                flows.find(|asked| self.is_of(sender, asked.dst, asked.dport))
            }
            // Anybody on the way may have to say that, and who has asked, before there is an answer.
            Form::Error(Some(quoted)) => {
                let asked = quoted.reversed();
                let awaited = match emitter.pod {
                    Some(id) => self.awaits(id, &asked, self.time),
                    None => self.chronicle.outsiders().any(|id| self.awaits(id, &asked, self.time)),
                };
                let known = self.chronicle.said(self.id, &quoted, self.time)
                    || self.asked_another_way(&quoted)
                    || quoted.src == self.ip.flow.dst && awaited;
                known.then_some(quoted)
            }
            Form::Error(None) | Form::EchoRequest | Form::Message(_) => None,
        }
    }

    /// Whether the receiver has sent what became this packet: to a Service, or from a port that its node
    /// has exchanged.
    fn asked_another_way(&self, packet: &Flow) -> bool {
        if !self.receiver.has(packet.src) {
            return false;
        }
        let mut answerers = self.chronicle.owners(packet.dst, self.time);
        self.chronicle.reached_somebody(packet, self.id)
            || answerers.any(|(_, pod)| {
                self.chronicle.flows_of(self.id).any(|flow| {
                    (flow.src, flow.sport, flow.protocol)
                        == (packet.src, packet.sport, packet.protocol)
                        && self.chronicle.stands_for(flow.dst, pod, packet.dport)
                })
            })
    }

    /// Whether somebody has asked the receiver this, itself or by a Service.
    fn awaits(&self, asker: HostId, asked: &Flow, before: Time) -> bool {
        let Flow { sport, dport, protocol, .. } = *asked;
        let mut all = self.chronicle.flows_of(asker);
        self.chronicle.opened(asker, asked, before)
            || all.any(|flow| {
                (flow.sport, flow.protocol) == (sport, protocol)
                    && self.chronicle.stands_for(flow.dst, self.receiver, dport)
            })
    }

    /// What the receiver has asked by the very tuple that this answers as it was sent. Where the node
    /// has translated the question already, the answer to the untranslated one gets another source
    /// port from conntrack, as two connections may not be answered by the same tuple.
    fn asked_before_a_port_was_taken(&self, emitter: &Emitter) -> Option<Flow> {
        let asked = emitter.flow.reversed();
        let outside = emitter.pod.is_none() && asked.dst == self.ip.flow.src;
        let known = self.chronicle.opened(self.id, &asked, self.time);
        (outside && known && asked.src == self.ip.flow.dst).then_some(asked)
    }

    /// What the receiver has asked, and the sender got by the very tuple that this answers. Where the
    /// receiver's port was taken, its node gives the question another, and once it has forgotten that,
    /// it leaves the answer as it is.
    fn asked_by_another_port(&self, emitter: &Emitter) -> Option<Flow> {
        if !self.receiver.has(self.ip.flow.dst) {
            return None;
        }
        let wire = emitter.flow.reversed();
        let asked = |host| self.chronicle.reached(host, &wire, self.id);
        match emitter.pod {
            Some(id) => asked(id),
            None => self.chronicle.outsiders().find_map(asked),
        }
    }

    /// What the receiver has asked by the very tuple that this answers on the wire, translated to its
    /// node's address, wherever the node's port of that number leads since.
    fn asked_as_the_node(&self, answer: &Flow) -> Option<Flow> {
        let Flow { src, dst, sport, dport, protocol } = *answer;
        let of_the_node = self.chronicle.node(dst) == Some(self.receiver.node);
        let own = self.receiver.like(src);
        let asked = Flow { src: own, dst: src, sport: dport, dport: sport, protocol };
        (of_the_node && self.chronicle.opened(self.id, &asked, self.time)).then_some(asked)
    }

    /// What the receiver has asked a Service, and one of its pods answers after the node has forgotten the
    /// translation.
    fn asked_by_a_service(&self, sender: &Host, port: u16) -> Option<Flow> {
        let Flow { dport, protocol, .. } = self.ip.flow;
        let mut asked = self.chronicle.flows_of(self.id).filter(|flow| {
            (flow.sport, flow.protocol) == (dport, protocol)
                && flow.src == self.ip.flow.dst
                && self.chronicle.stands_for(flow.dst, sender, port)
        });
        asked.next().copied()
    }

    /// The sender's gate for what answers somebody: what it has got itself, from the address that it
    /// now sends to, was allowed to come. Whether that address was true its node cannot know.
    fn answers(&self, emitter: &Emitter) -> bool {
        let Some(id) = emitter.pod else { return true };
        let time = emitter.time;
        let got = |flow: &Flow| {
            self.chronicle.got(id, flow, time + SLACK)
                && self.may_receive(
                    id,
                    flow.src,
                    version::protocol(flow.protocol),
                    flow.dport,
                    time,
                )
        };
        match emitter.form {
            _ if self.chronicle.host(id).unattached(time) => true,
            Form::Ported | Form::EchoReply | Form::Later | Form::Other => {
                got(&emitter.flow.reversed())
            }
            // About what came to it, or about an answer to what it has asked.
            Form::Error(Some(quoted)) => {
                let asked = quoted.reversed();
                let protocol = version::protocol(asked.protocol);
                got(&quoted)
                    || self.awaits(id, &asked, time + SLACK)
                        && self.may_send(id, asked.dst, protocol, asked.dport, time)
            }
            Form::Error(None) | Form::EchoRequest | Form::Message(_) => false,
        }
    }

    /// Whether the sender can be behind an address and port.
    fn is_of(&self, sender: Option<&Host>, front: IpAddr, port: u16) -> bool {
        sender.is_none_or(|pod| pod.has(front) || self.chronicle.stands_for(front, pod, port))
    }

    /// Whether a pod's egress allows it, under any version that may have been in force on the way.
    fn may_send(&self, pod: HostId, to: IpAddr, protocol: Protocol, port: u16, from: Time) -> bool {
        let me = self.chronicle.host(pod);
        self.any_version(me.node, from, |version| {
            let src = End::pod(me.key(), me.like(to));
            version.listed.contains(&pod)
                && version.verdict(src, End::Address(to), protocol, port).egress.allows()
        })
    }

    fn may_receive(
        &self,
        pod: HostId,
        by: IpAddr,
        protocol: Protocol,
        port: u16,
        from: Time,
    ) -> bool {
        let me = self.chronicle.host(pod);
        self.any_version(me.node, from, |version| {
            let dst = End::pod(me.key(), me.like(by));
            version.listed.contains(&pod)
                && version.verdict(End::Address(by), dst, protocol, port).ingress.allows()
        })
    }

    fn any_version(
        &self,
        node: usize,
        from: Time,
        holds: impl Fn(&version::Version) -> bool,
    ) -> bool {
        version::in_force(&self.chronicle.versions, node, from, self.time).any(holds)
    }
}

impl Chronicle {
    /// The port at which a receiver gets what was sent to a Service's or a node's.
    fn real_port(&self, sent: &Flow, receiver: &Host) -> u16 {
        if receiver.has(sent.dst) {
            return sent.dport;
        }
        let mut ports = self
            .services
            .iter()
            .filter(|service| service.endpoints.contains(&receiver.name.as_str()))
            .flat_map(|service| &service.ports)
            .filter(|port| port.port == sent.dport || port.node_port == Some(sent.dport));
        ports.next().map_or(sent.dport, |port| port.target_port)
    }
}
