//! From an event to its line: who is at both ends, and which policies and rules are behind the verdict.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use np_common::endpoint::EndpointId;
use np_common::event::Event;
use np_common::flow::FlowKey;
use np_common::packet;
use np_common::verdict::{Action, posture};
use np_policy::explain::{
    End, Explain, Miss, Outcome, PeerList, PortList, Probe, Protocol, RuleRef, Why, Wrong,
};
use np_policy::model::{Direction, PodKey};

use super::line::{EndLine, EventLine, MissLine, RuleLine, Suppressed};
use super::snapshot::Snapshot;

/// A line has at most so many rules of a side; `explain` has them all.
const MOST_RULES: usize = 4;

/// Names what events say by one snapshot.
#[derive(Debug)]
pub struct Namer<'a> {
    snapshot: &'a Snapshot,
    explain: &'a Explain<'a>,
}

impl<'a> Namer<'a> {
    pub fn new(snapshot: &'a Snapshot, explain: &'a Explain<'a>) -> Self {
        Self { snapshot, explain }
    }

    /// The line of an event; none if it is not one of this version's.
    pub fn event(&self, event: &Event, now: SystemTime) -> Option<EventLine> {
        let (reason, hook) = (event.reason()?, event.hook()?);
        let tuple = event.connection();
        let source = self.pod(event.source());
        let destination = self.pod(event.destination());
        let mut line = EventLine {
            time: text(now.checked_sub(age(event.time)).unwrap_or(now)),
            node: self.snapshot.node.to_string(),
            verdict: match posture(reason) {
                Action::Drop => "denied".to_owned(),
                Action::Pass => "allowed".to_owned(),
            },
            reason: reason.name().to_owned(),
            hook: hook.name().to_owned(),
            direction: None,
            ifindex: event.ifindex,
            device: self.snapshot.devices.get(&event.ifindex).cloned(),
            generation: event.generation,
            protocol: tuple.map(|tuple| protocol_name(tuple.protocol as u8)),
            ethertype: format!("0x{:04x}", event.ethertype),
            src: unknown(source),
            dst: unknown(destination),
            reply: event.is_reply(),
            policies: Vec::new(),
            isolated_by: Vec::new(),
            allowed_by: Vec::new(),
            near: Vec::new(),
            changed: false,
        };
        let Some(FlowKey { src, dst, sport, dport, protocol }) = tuple else { return Some(line) };
        let (src, dst) = (IpAddr::from(src), IpAddr::from(dst));
        let from = self.explain.end_at(src, source);
        let to = self.explain.end_at(dst, destination);
        let has_ports = matches!(protocol as u8, packet::TCP | packet::UDP | packet::SCTP);
        let port = |port| has_ports.then(|| u16::from_be(port));
        line.src = end(&from, source, port(sport));
        line.dst = end(&to, destination, port(dport));
        let outcome = Outcome {
            connection: Probe {
                from,
                to,
                protocol: named_protocol(protocol as u8),
                port: port(dport).unwrap_or_default(),
            },
            reason,
            source_here: source.is_some(),
            destination_here: destination.is_some(),
        };
        tell_why(&mut line, &self.explain.why(&outcome));
        Some(line)
    }

    /// The line about events that were not made.
    pub fn suppressed(
        &self,
        endpoint: EndpointId,
        sends: bool,
        events: u64,
        now: SystemTime,
    ) -> Suppressed {
        let pod = self.pod(endpoint).map(ToString::to_string);
        Suppressed { time: text(now), node: self.snapshot.node.to_string(), pod, sends, events }
    }

    fn pod(&self, endpoint: EndpointId) -> Option<&'a PodKey> {
        self.snapshot.pods.get(&endpoint.get())
    }
}

fn tell_why(line: &mut EventLine, why: &Why<'_>) {
    line.changed = why.changed;
    line.policies = why.policies().iter().map(ToString::to_string).collect();
    let denies = line.verdict == "denied";
    for (direction, side) in &why.sides {
        if denies && why.sides.len() == 1 {
            let name = match direction {
                Direction::Egress => "egress",
                Direction::Ingress => "ingress",
            };
            line.direction = Some(name.to_owned());
        }
        line.isolated_by.extend(side.isolated_by.iter().map(|policy| policy.key.to_string()));
        line.allowed_by.extend(side.allowed_by.iter().take(MOST_RULES).map(rule));
        line.near.extend(side.near.iter().take(MOST_RULES).map(miss));
    }
}

fn rule(rule: &RuleRef<'_>) -> RuleLine {
    RuleLine { policy: rule.policy.key.to_string(), rule: rule.to_string() }
}

fn miss(Miss { rule, wrong }: &Miss<'_>) -> MissLine {
    let (wrong, wants) = match wrong {
        Wrong::Port => ("port", PortList(*rule).to_string()),
        Wrong::Peer => ("peer", PeerList(*rule).to_string()),
    };
    MissLine {
        policy: rule.policy.key.to_string(),
        rule: rule.to_string(),
        wrong: wrong.to_owned(),
        wants,
    }
}

/// An end of which at most the endpoint is known.
fn unknown(pod: Option<&PodKey>) -> EndLine {
    let kind = if pod.is_some() { "pod" } else { "unknown" };
    let (namespace, name) = names(pod);
    EndLine { kind: kind.to_owned(), namespace, pod: name, ..EndLine::default() }
}

fn end(end: &End<'_>, pod: Option<&PodKey>, port: Option<u16>) -> EndLine {
    let (kind, key, node) = match end {
        End::Pod { subject, .. } => ("pod", Some(&subject.pod.key), subject.pod.node.as_ref()),
        // Its object is gone, or not yet known.
        _ if pod.is_some() => ("pod", pod, None),
        End::Node { node, pod, .. } => ("node", pod.map(|pod| &pod.key), *node),
        End::Outside(_) => ("outside", None, None),
    };
    let (namespace, pod) = names(key);
    EndLine {
        kind: kind.to_owned(),
        ip: Some(end.address().to_string()),
        port,
        namespace,
        pod,
        node: node.map(ToString::to_string),
    }
}

fn names(pod: Option<&PodKey>) -> (Option<String>, Option<String>) {
    (pod.map(|pod| pod.namespace.to_string()), pod.map(|pod| pod.name.to_string()))
}

/// The protocol as rules know it: all that they cannot name they treat alike.
fn named_protocol(protocol: u8) -> Protocol {
    match protocol {
        packet::TCP => Protocol::Tcp,
        packet::UDP => Protocol::Udp,
        packet::SCTP => Protocol::Sctp,
        _ => Protocol::Icmp,
    }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        packet::ICMP => "ICMP".to_owned(),
        packet::ICMPV6 => "ICMPv6".to_owned(),
        packet::TCP | packet::UDP | packet::SCTP => named_protocol(protocol).name().to_owned(),
        other => other.to_string(),
    }
}

/// How long ago this time of CLOCK_MONOTONIC was.
fn age(time: u64) -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.saturating_sub(Duration::from_nanos(time))
}

/// RFC 3339, UTC, with microseconds.
fn text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| String::new(), |time| format!("{time:.6}"))
}
