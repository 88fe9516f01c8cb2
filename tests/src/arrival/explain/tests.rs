//! The rules of explanation on arrivals written down by hand: what they refuse is what the world is
//! there to find.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::json;

use super::*;
use crate::arrival::host::{Host, HostId};
use crate::arrival::seen::{ICMP, UDP};
use crate::arrival::tap::{SECOND, Time};
use crate::arrival::version::Version;
use crate::arrival::wishes;
use crate::proxy::{ExternalTrafficPolicy, Protocol, Service, ServicePort};
use crate::wire::{Ip as Packet, checksum, datagram};

const START: Time = 1000 * SECOND;

/// Two nodes, a host outside, and pods named by their app.
struct Little {
    chronicle: Chronicle,
    time: Time,
}

impl Little {
    fn new() -> Self {
        let mut little = Self { chronicle: Chronicle::default(), time: START };
        for (name, kind, node, address) in [
            ("node-1", Kind::Node, 0, "192.168.65.10"),
            ("node-2", Kind::Node, 1, "192.168.65.11"),
            ("internet", Kind::Outside, 9, "203.0.113.50"),
            ("open", Kind::Pod, 0, "100.68.1.10"),
            ("closed", Kind::Pod, 0, "100.68.1.12"),
            ("jailed", Kind::Pod, 0, "100.68.1.13"),
            ("far", Kind::Pod, 1, "100.68.2.10"),
        ] {
            little.add(name, kind, node, address);
        }
        little.wish(&["closed", "jailed"]);
        little
    }

    fn add(&mut self, app: &'static str, kind: Kind, node: usize, address: &str) -> HostId {
        let (born, v4) = (self.time, address.parse().expect("a literal"));
        let attached = Some(born);
        let name = format!("{app}-{}", self.chronicle.hosts.len());
        let labels = vec![("app", app)];
        let host =
            Host { name, kind, node, v4, labels, born, attached, bound: attached, died: None };
        self.time += SECOND;
        self.chronicle.add(host)
    }

    /// These policies are in force from now on: pods are closed for what comes in, or jailed.
    fn wish(&mut self, names: &[&str]) {
        let types = |name: &&str| if *name == "jailed" { "Egress" } else { "Ingress" };
        let policies: Vec<_> = names
            .iter()
            .map(|name| {
                json!({"metadata": {"name": name, "namespace": "default"}, "spec": {
                    "podSelector": {"matchLabels": {"app": name}}, "policyTypes": [types(name)]}})
            })
            .collect();
        let pods = || self.chronicle.hosts.iter().enumerate();
        let alive = || pods().filter(|(_, host)| host.kind == Kind::Pod && host.alive(self.time));
        let objects: Vec<_> = alive()
            .map(|(_, host)| wishes::pod(host, ["node-1", "node-2"][host.node], true))
            .collect();
        let version = Version {
            written: self.time,
            in_force: [Some(self.time); 2],
            pods: wishes::typed(&objects).expect("pods"),
            namespaces: Vec::new(),
            policies: wishes::typed(&policies).expect("policies"),
            listed: alive().map(|(id, _)| HostId(id)).collect(),
        };
        self.chronicle.versions.push(version);
        self.time += SECOND;
    }

    /// The youngest of that name.
    fn id(&self, app: &str) -> HostId {
        let at = self.chronicle.hosts.iter().rposition(|host| host.app() == app);
        HostId(at.expect("somebody of that name"))
    }

    fn address(&self, app: &str) -> IpAddr {
        self.chronicle.host(self.id(app)).v4.into()
    }

    /// A datagram with a new mark, sent by somebody.
    fn send(&mut self, by: &str, src: IpAddr, dst: IpAddr, ports: (u16, u16)) -> Packet {
        let mark = self.chronicle.mark();
        let packet = datagram(src, dst, ports.0, ports.1, &mark.bytes());
        self.sent(by, mark, packet)
    }

    fn sent(&mut self, by: &str, mark: Mark, packet: Packet) -> Packet {
        self.time += SECOND;
        let (id, bytes) = (self.id(by), packet.frame());
        self.chronicle.send(mark, id, "by hand", &bytes);
        if let Some(sent) = self.chronicle.sent.get_mut(&mark) {
            sent.time = self.time;
        }
        self.out(by, &packet);
        packet
    }

    /// A packet leaves somebody's device.
    fn out(&mut self, by: &str, packet: &Packet) {
        let (host, time) = (self.id(by), self.time);
        self.chronicle.hear(Frame { host, time, outgoing: true, bytes: packet.frame() });
    }

    /// A packet arrives at somebody's device.
    fn arrives(&mut self, at: &str, packet: &Packet) -> Result<Why, String> {
        self.time += SECOND / 1000;
        let (host, time) = (self.id(at), self.time);
        let frame = Frame { host, time, outgoing: false, bytes: packet.frame() };
        self.chronicle.hear(frame.clone());
        explain(&self.chronicle, &frame)
    }

    /// A datagram between two by their own addresses, sent and arrived.
    fn talk(&mut self, from: &str, to: &str, ports: (u16, u16)) -> Result<Why, String> {
        let packet = self.send(from, self.address(from), self.address(to), ports);
        self.arrives(to, &packet)
    }
}

fn echo(src: IpAddr, dst: IpAddr, message: u8, data: &[u8]) -> Packet {
    let mut upper = vec![message, 0, 0, 0, 0, 7, 0, 1];
    upper.extend(data);
    let sum = checksum(&upper);
    upper.splice(2..4, sum.to_be_bytes());
    Packet::new(src, dst, ICMP, upper)
}

#[test]
fn policy_explains_what_it_allows_and_nothing_else() {
    let mut little = Little::new();
    assert_eq!(little.talk("closed", "open", (1, 2)), Ok(Why::Allowed));
    assert!(little.talk("open", "closed", (1, 2)).is_err());
    assert!(little.talk("jailed", "far", (1, 2)).is_err());
    assert!(little.talk("internet", "closed", (1, 2)).is_err());
    assert_eq!(little.talk("node-1", "closed", (1, 2)), Ok(Why::OwnNode));
    assert!(little.talk("node-2", "closed", (1, 2)).is_err());
}

#[test]
fn while_an_edit_is_under_way_either_verdict_is_right_and_afterwards_only_the_new_one() {
    let mut little = Little::new();
    little.wish(&[]);
    little.chronicle.versions[1].in_force = [None; 2];
    assert_eq!(little.talk("open", "closed", (1, 2)), Ok(Why::Allowed));
    little.wish(&["closed"]);
    little.chronicle.versions[2].in_force = [None; 2];
    assert_eq!(little.talk("open", "closed", (1, 2)), Ok(Why::Allowed));
    little.chronicle.versions[2].in_force = [Some(little.time); 2];
    little.time += SECOND;
    assert!(little.talk("open", "closed", (1, 2)).is_err());
}

#[test]
fn an_answer_is_for_who_asked_in_this_life_and_as_long_as_asking_is_allowed() {
    let mut little = Little::new();
    assert_eq!(little.talk("closed", "internet", (7777, 53)), Ok(Why::Allowed));
    assert_eq!(little.talk("internet", "closed", (53, 7777)), Ok(Why::Reply));
    assert!(little.talk("internet", "closed", (54, 7777)).is_err());
    // A new pod with the old one's address has asked nobody.
    let old = little.id("closed");
    little.chronicle.host_mut(old).died = Some(little.time);
    little.add("closed", Kind::Pod, 0, "100.68.1.12");
    little.wish(&["closed", "jailed"]);
    assert!(little.talk("internet", "closed", (53, 7777)).is_err());
}

#[test]
fn who_may_not_ask_gets_no_answer_by_anybodys_translation() {
    let mut little = Little::new();
    // Its own packet was denied behind the translation, which keeps translating answers.
    little.talk("jailed", "internet", (4900, 7)).unwrap_err();
    little.wish(&["closed", "jailed", "jailed"]);
    let node = little.address("node-1");
    let answer = little.send("internet", little.address("internet"), node, (7, 4900));
    let translated = Packet { dst: little.address("jailed"), ..answer };
    // Nobody isolates it for what comes in, so this is for policy to allow.
    assert_eq!(little.arrives("jailed", &translated), Ok(Why::Allowed));
    let mut policy = little.chronicle.versions.pop().expect("versions");
    for one in &mut policy.policies {
        let types = one.spec.as_mut().and_then(|spec| spec.policy_types.as_mut());
        types.expect("types").push("Ingress".into());
    }
    little.chronicle.versions.push(policy);
    little.arrives("jailed", &translated).unwrap_err();
}

#[test]
fn a_payload_that_somebody_else_hands_on_is_the_handers_to_answer_for() {
    let mut little = Little::new();
    let (open, closed) = (little.address("open"), little.address("closed"));
    let mark = little.chronicle.mark();
    let request = echo(closed, open, 8, &mark.bytes());
    little.sent("internet", mark, request.clone());
    assert_eq!(little.arrives("open", &request), Ok(Why::Allowed));
    let reply = echo(open, closed, 0, &mark.bytes());
    little.out("open", &reply);
    let refused = little.arrives("closed", &reply).unwrap_err();
    assert!(refused.contains("handed on by open"), "{refused}");
}

/// Another node cannot know that a request was not the address's own; the receiver's node does.
#[test]
fn an_answer_to_a_forged_request_is_right_to_leave_and_wrong_to_arrive() {
    let mut little = Little::new();
    let (closed, open) = (little.address("closed"), little.address("open"));
    let far = little.address("far");
    let request = little.send("internet", open, far, (30, 40));
    assert_eq!(little.arrives("far", &request), Ok(Why::Allowed));
    // The answerer may say nothing of its own.
    for version in &mut little.chronicle.versions {
        let mut jail = version.policies.last().expect("policies").clone();
        let selector = jail.spec.as_mut().and_then(|spec| spec.pod_selector.as_mut());
        let labels = selector.and_then(|selector| selector.match_labels.as_mut());
        labels.expect("labels").insert("app".into(), "far".into());
        version.policies.push(jail);
    }
    assert!(little.talk("far", "open", (40, 31)).is_err());
    assert_eq!(little.talk("far", "open", (40, 30)), Ok(Why::Reply));
    let request = little.send("internet", closed, far, (30, 40));
    assert_eq!(little.arrives("far", &request), Ok(Why::Allowed));
    assert!(little.talk("far", "closed", (40, 30)).is_err());
}

#[test]
fn no_pod_speaks_as_another_and_nobody_outside_as_one_to_a_closed_pod() {
    let mut little = Little::new();
    let (open, far, closed) =
        (little.address("open"), little.address("far"), little.address("closed"));
    let forged = little.send("far", open, closed, (1, 2));
    assert!(little.arrives("closed", &forged).unwrap_err().contains("has sent as"));
    let forged = little.send("closed", far, open, (1, 2));
    assert!(little.arrives("open", &forged).unwrap_err().contains("has sent as"));
    let forged = little.send("internet", open, closed, (1, 2));
    assert!(little.arrives("closed", &forged).unwrap_err().contains("of the same node"));
    let forged = little.send("internet", closed, open, (1, 2));
    assert_eq!(little.arrives("open", &forged), Ok(Why::Allowed));
}

#[test]
fn a_frame_for_somebody_else_is_only_explained_where_no_policy_isolates() {
    let mut little = Little::new();
    let to = IpAddr::V4(Ipv4Addr::new(100, 68, 1, 99));
    let packet = little.send("far", little.address("far"), to, (1, 2));
    assert!(little.arrives("closed", &packet).unwrap_err().contains("is not an address of"));
    assert_eq!(little.arrives("open", &packet), Ok(Why::Allowed));
}

#[test]
fn before_any_program_is_attached_everything_is_explained_and_before_it_is_known_nothing() {
    let mut little = Little::new();
    let young = little.add("young", Kind::Pod, 0, "100.68.1.20");
    let host = little.chronicle.host_mut(young);
    (host.attached, host.bound) = (None, None);
    assert_eq!(little.talk("open", "young", (1, 2)), Ok(Why::Window));
    little.chronicle.host_mut(young).attached = Some(little.time);
    assert!(little.talk("open", "young", (1, 2)).is_err());
    assert!(little.talk("young", "open", (1, 2)).is_err());
    assert_eq!(little.talk("node-1", "young", (1, 2)), Ok(Why::OwnNode));
    little.wish(&["closed"]);
    assert_eq!(little.talk("open", "young", (1, 2)), Ok(Why::Allowed));
}

#[test]
fn an_error_is_explained_by_the_packet_it_is_about() {
    let mut little = Little::new();
    let (open, closed) = (little.address("open"), little.address("closed"));
    let internet = little.address("internet");
    little.talk("closed", "internet", (7777, 53)).unwrap();
    let error = |little: &mut Little, about: &Packet| {
        let mark = little.chronicle.mark();
        let quoted = [about.bytes(), mark.bytes().to_vec()].concat();
        let mut packet = echo(internet, closed, 3, &quoted);
        packet.payload.splice(4..8, [0; 4]);
        little.sent("internet", mark, packet)
    };
    let own = datagram(closed, internet, 7777, 53, b"");
    let packet = error(&mut little, &own);
    assert_eq!(little.arrives("closed", &packet), Ok(Why::Reply));
    let never_sent = datagram(closed, open, 7777, 53, b"");
    let packet = error(&mut little, &never_sent);
    assert!(little.arrives("closed", &packet).is_err());
    // About an answer, before there is one: right for who has asked, if he may.
    let answer = datagram(closed, internet, 53, 7777, b"");
    let packet = error(&mut little, &answer);
    assert!(little.arrives("closed", &packet).is_err());
    let port = json!({"metadata": {"name": "port", "namespace": "default"}, "spec": {
        "podSelector": {"matchLabels": {"app": "closed"}}, "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}});
    let port = wishes::typed(&[port]).expect("a policy");
    little.chronicle.versions.last_mut().expect("versions").policies.extend(port);
    let packet = error(&mut little, &answer);
    assert!(little.arrives("closed", &packet).is_err());
    assert_eq!(little.talk("internet", "closed", (7777, 53)), Ok(Why::Allowed));
    let packet = error(&mut little, &answer);
    assert_eq!(little.arrives("closed", &packet), Ok(Why::Reply));
    assert_eq!(own.protocol, UDP);
}

/// The bridge has learnt the author's hardware address at another pod's port since.
#[test]
fn the_nodes_error_about_a_pods_own_packet_is_the_nodes_at_any_of_its_ports() {
    let mut little = Little::new();
    let (open, closed, gone) =
        (little.address("open"), little.address("closed"), Ipv4Addr::new(100, 68, 1, 99));
    let gateway = IpAddr::V4(Ipv4Addr::new(100, 68, 1, 1));
    let error = |from, about: &Packet| {
        let mut packet = echo(from, about.src, 3, &about.bytes());
        packet.payload.splice(4..8, [0; 4]);
        packet
    };
    let own = little.send("open", open, gone.into(), (80, 30080));
    assert_eq!(little.arrives("closed", &error(gateway, &own)), Ok(Why::OwnNode));
    // Not where somebody else has sent in the pod's name, nor from anybody else.
    let internet = little.address("internet");
    assert!(little.arrives("closed", &error(internet, &own)).is_err());
    assert!(little.arrives("closed", &error(little.address("node-2"), &own)).is_err());
    // Nobody isolates this pod, so what is sent in its name from outside is not dropped.
    let forged = little.send("internet", open, gone.into(), (80, 30080));
    assert_eq!(little.arrives("closed", &error(gateway, &forged)), Ok(Why::OwnNode));
    let forged = little.send("internet", closed, gone.into(), (80, 30080));
    assert!(little.arrives("closed", &error(gateway, &forged)).is_err());
    let forged = little.send("jailed", closed, gone.into(), (80, 30080));
    assert!(little.arrives("closed", &error(gateway, &forged)).is_err());
}

/// The question is translated already: conntrack gives the answer to the untranslated one another port.
#[test]
fn an_answer_whose_source_port_was_taken_is_an_answer() {
    let mut little = Little::new();
    let (closed, internet) = (little.address("closed"), little.address("internet"));
    little.talk("closed", "internet", (8080, 7)).unwrap();
    let answer = little.send("internet", internet, closed, (7, 8080));
    let other_port = |answer: &Packet, port: u16| {
        let mut packet = answer.clone();
        packet.payload.splice(0..2, port.to_be_bytes());
        packet
    };
    assert_eq!(little.arrives("closed", &other_port(&answer, 93)), Ok(Why::Reply));
    let no_answer = little.send("internet", internet, closed, (8, 8080));
    assert!(little.arrives("closed", &other_port(&no_answer, 93)).is_err());
    assert!(little.arrives("closed", &no_answer).is_err());
}

/// A reset by the node, for instance, whose bridge has an address of its own.
#[test]
fn what_the_gateway_answers_to_a_pod_is_the_nodes() {
    let mut little = Little::new();
    let (closed, gateway) = (little.address("closed"), IpAddr::from([100, 68, 1, 1]));
    little.send("closed", closed, gateway, (8080, 4479));
    let answer = datagram(gateway, closed, 4479, 8080, b"");
    assert_eq!(little.arrives("closed", &answer), Ok(Why::Kernel));
    let no_answer = datagram(gateway, closed, 4478, 8080, b"");
    assert!(little.arrives("closed", &no_answer).is_err());
    // An address of somebody else is no gateway's.
    let internet = little.address("internet");
    little.send("closed", closed, internet, (8080, 4480));
    let answer = datagram(internet, closed, 4480, 8081, b"");
    assert!(little.arrives("closed", &answer).is_err());
}

/// The question's source port was taken, so the node gave it another, and has forgotten that since.
#[test]
fn an_answer_to_a_port_that_the_node_gave_a_question_is_an_answer() {
    let mut little = Little::new();
    let (closed, far) = (little.address("closed"), little.address("far"));
    let mut question = little.send("closed", closed, far, (8080, 7));
    question.payload.splice(0..2, 93u16.to_be_bytes());
    assert_eq!(little.arrives("far", &question), Ok(Why::Allowed));
    assert_eq!(little.talk("far", "closed", (7, 93)), Ok(Why::Reply));
    assert!(little.talk("far", "closed", (8, 93)).is_err());
    let other = little.send("internet", little.address("internet"), closed, (7, 93));
    assert!(little.arrives("closed", &other).is_err());
    // What somebody else has asked by that tuple opens nothing for the address's owner.
    let mut forged = little.send("internet", closed, far, (8080, 7));
    forged.payload.splice(0..2, 94u16.to_be_bytes());
    assert_eq!(little.arrives("far", &forged), Ok(Why::Allowed));
    assert!(little.talk("far", "closed", (7, 94)).is_err());
}

/// The node has forgotten the translation of the question that the error is about.
#[test]
fn an_error_about_a_question_to_a_service_is_explained_by_the_pod_that_it_led_to() {
    let mut little = Little::new();
    let (closed, far) = (little.address("closed"), little.address("far"));
    let port = ServicePort {
        name: "dns",
        protocol: Protocol::Udp,
        port: 53,
        target_port: 5353,
        node_port: None,
    };
    little.chronicle.services.push(Service {
        name: "dns",
        namespace: "default",
        address: Ipv4Addr::new(10, 96, 0, 53),
        ports: vec![port],
        external_traffic_policy: ExternalTrafficPolicy::Cluster,
        external: None,
        affinity: false,
        endpoints: vec!["far-6"],
    });
    little.send("closed", closed, Ipv4Addr::new(10, 96, 0, 53).into(), (30081, 53));
    let error = |little: &mut Little, ports: (u16, u16)| {
        let about = datagram(closed, far, ports.0, ports.1, b"");
        let mark = little.chronicle.mark();
        let mut packet = echo(far, closed, 3, &[about.bytes(), mark.bytes().to_vec()].concat());
        packet.payload.splice(4..8, [0; 4]);
        little.sent("far", mark, packet)
    };
    let packet = error(&mut little, (30081, 5353));
    assert_eq!(little.arrives("closed", &packet), Ok(Why::Reply));
    for ports in [(30081, 5354), (30082, 5353)] {
        let packet = error(&mut little, ports);
        assert!(little.arrives("closed", &packet).is_err(), "{ports:?}");
    }
}
