//! The whole agent but its edges, without a kernel: objects through index, bind, compile and plan
//! to tables, and packets through `np_common::decide` on these tables, node by node.
//!
//! ```text
//!  pod ─ from_pod ─┬─ to_pod ─ pod                              the same node
//!                  └─ to_uplink ─ ‖ ─ from_uplink ─ to_pod ─ pod    another node
//!                                outside ─ from_uplink ─ to_pod ─ pod
//! ```

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use np_common::config::Config;
use np_common::decide::{Context, Maps as _, decide};
use np_common::direction::{Direction, Hook};
use np_common::endpoint::Role;
use np_common::flow::Time;
use np_common::packet;
use np_common::rules::{ClassId, RuleKey};
use np_common::tag::Tag;
use np_common::verdict::{Action, Reason};
use np_policy::bind::Settings;
use np_policy::index::{Index, Touched};
use np_policy::model::{
    Change, Device, DeviceChange, DevicePeer, HostRoute, IfIndex, Labels, NodeName, Phase, Pod,
    PodKey, PodUid,
};
use np_policy::plan::Tables;
use np_policy::plan::simulate::Simulated;
use np_policy::reconcile::Reconciler;

use crate::generate::Answer;
use crate::oracle::{Conn, End, Protocol};

const UPLINK: u32 = 2;
const FIRST_VETH: u32 = 100;
const CLIENT_PORT: u16 = 40_000;

/// The nodes that pods of a cluster are on, each with its tables.
#[derive(Debug)]
pub struct Simulation {
    nodes: BTreeMap<NodeName, Tables>,
    places: BTreeMap<String, Place>,
}

/// Where packets of an end enter or leave a node.
#[derive(Clone, Debug, PartialEq)]
enum Place {
    /// Behind a device of a node.
    Device(NodeName, u32),
    /// On a node itself.
    Node(NodeName),
    Outside,
}

/// A packet on its way.
struct Wire {
    bytes: Vec<u8>,
    ethertype: u16,
}

/// Why a packet got no further.
struct Dropped(Reason);

impl Simulation {
    pub fn new(changes: Vec<Change>) -> Self {
        let mut index = Index::default();
        for change in changes.iter().cloned() {
            index.apply(change, &mut Touched::default());
        }
        let mut simulation = Self { nodes: BTreeMap::new(), places: BTreeMap::new() };
        let nodes: BTreeSet<NodeName> = index.pods().filter_map(|pod| pod.node.clone()).collect();
        for node in nodes {
            simulation.add_node(&index, &changes, node);
        }
        for pod in index.pods().filter(|pod| pod.host_network) {
            if let Some(node) = &pod.node {
                simulation.places.insert(pod.key.to_string(), Place::Node(node.clone()));
            }
        }
        simulation
    }

    fn add_node(&mut self, index: &Index, changes: &[Change], node: NodeName) {
        let empty = Tables { config: Config::new(1, false), ..Tables::default() };
        let mut reconciler = Reconciler::new(node.clone(), Settings::default(), false, empty);
        reconciler.objects(changes.iter().cloned());
        reconciler.device(DeviceChange::Seen(device(UPLINK, None)));
        let mut routes: BTreeMap<&PodKey, Vec<IpAddr>> = BTreeMap::new();
        for (address, pod) in index.owners() {
            if pod.node.as_ref() == Some(&node) {
                routes.entry(&pod.key).or_default().push(address);
            }
        }
        for (ifindex, (pod, addresses)) in (FIRST_VETH..).zip(routes) {
            reconciler.device(DeviceChange::Seen(device(ifindex, Some(addresses))));
            self.places.insert(pod.to_string(), Place::Device(node.clone(), ifindex));
        }
        for op in reconciler.plan().ops {
            reconciler.written(&op);
        }
        self.nodes.insert(node, reconciler.actual().clone());
    }

    /// Opens a connection with one packet, and if that arrives answers with another.
    pub fn answer(&self, conn: &Conn) -> Answer {
        let src = self.place(&conn.src);
        let dst = self.place(&conn.dst);
        let maps = self.nodes.iter().map(|(node, tables)| (node, Simulated::new(tables))).collect();
        let path = Path { maps };
        match path.carry(&opening(conn), &src, &dst) {
            Ok(()) => {}
            Err(Dropped(Reason::EgressDenied)) => return Answer::EgressDenied,
            Err(Dropped(Reason::IngressDenied)) => return Answer::IngressDenied,
            Err(Dropped(reason)) => return Answer::Lost(reason.name().to_owned()),
        }
        // Only what has ports or an id can be distinguished from a connection the other way round.
        if matches!(conn.protocol, Protocol::Other(_)) {
            return Answer::Allowed;
        }
        match path.carry(&reply(conn), &dst, &src) {
            Ok(()) => Answer::Allowed,
            Err(Dropped(reason)) => Answer::Lost(format!("the reply, {}", reason.name())),
        }
    }

    fn place(&self, end: &End) -> Place {
        match end {
            End::Pod { pod, .. } => self.places.get(pod).cloned().unwrap_or(Place::Outside),
            End::Node { node, .. } => Place::Node(NodeName(node.as_str().into())),
            End::Address(_) => Place::Outside,
        }
    }
}

/// A running pod of `node-1`, in the namespace `default` and without labels.
pub fn pod(name: &str, address: IpAddr) -> Pod {
    Pod {
        key: PodKey::new("default", name),
        uid: PodUid(format!("uid-{name}").into()),
        node: Some(NodeName("node-1".into())),
        labels: Labels::new().into(),
        addresses: [address].into(),
        source_prefixes: None,
        named_ports: Vec::new().into(),
        host_network: false,
        phase: Phase::Active,
        terminating: false,
        created: 0,
    }
}

/// A device of a node: a pod's veth that routes lead to, or an uplink.
pub fn device(ifindex: u32, pod: Option<Vec<IpAddr>>) -> Device {
    let is_pod = pod.is_some();
    let peer = DevicePeer { netnsid: ifindex as i32, index: IfIndex(2), claims: Vec::new() };
    Device {
        index: IfIndex(ifindex),
        name: format!("dev{ifindex}"),
        kind: is_pod.then(|| "veth".to_owned()),
        hardware: !is_pod,
        layer3: false,
        loopback: false,
        encapsulations: Vec::new(),
        master: None,
        lower: None,
        peer: is_pod.then_some(peer),
        addresses: Vec::new(),
        gateway: !is_pod,
        host_routes: pod.unwrap_or_default().into_iter().map(HostRoute::from).collect(),
    }
}

/// Asks tables about one side of a connection, without packets.
#[derive(Debug)]
pub struct Judge<'a> {
    maps: Simulated<'a>,
    classes: RefCell<BTreeMap<IpAddr, ClassId>>,
}

impl<'a> Judge<'a> {
    pub fn new(tables: &'a Tables) -> Self {
        Self { maps: Simulated::new(tables), classes: RefCell::default() }
    }

    /// Whether the pod behind a device may talk with a peer, by its policies in one direction.
    /// Behind a device without a pod nobody may.
    pub fn allows(
        &self,
        device: u32,
        direction: Direction,
        peer: IpAddr,
        (protocol, port): (u8, u16),
    ) -> bool {
        let iface = self.maps.iface(device);
        if iface.role() != Some(Role::Pod) {
            return false;
        }
        let Some(rule_set) = self.maps.policy(iface.endpoint()).rule_set(direction) else {
            return true;
        };
        let mut classes = self.classes.borrow_mut();
        let class = *classes.entry(peer).or_insert_with(|| self.maps.class(&peer.into()));
        [class, ClassId::NONE]
            .iter()
            .any(|class| self.maps.allows(&RuleKey::new(rule_set, *class, protocol, port)))
    }
}

/// The hooks between two places, with the flow tables that a connection leaves behind.
struct Path<'a> {
    maps: BTreeMap<&'a NodeName, Simulated<'a>>,
}

impl Path<'_> {
    fn carry(&self, wire: &Wire, src: &Place, dst: &Place) -> Result<(), Dropped> {
        let (node, ifindex, tag) = match src {
            Place::Device(node, ifindex) => {
                let from = Ingress { ifindex: *ifindex, tag: Tag::LOST };
                (node, *ifindex, self.hook(Hook::FromPod, node, *ifindex, &from, wire)?)
            }
            Place::Node(node) => (node, 0, Tag::LOST),
            Place::Outside => return self.arrive(wire, dst),
        };
        let from = Ingress { ifindex, tag };
        match dst {
            Place::Device(there, veth) if there == node => {
                self.hook(Hook::ToPod, node, *veth, &from, wire)?;
                Ok(())
            }
            // Delivered on the node: no program sees it leave.
            Place::Node(there) if there == node => Ok(()),
            Place::Device(..) | Place::Node(_) | Place::Outside => {
                self.hook(Hook::ToUplink, node, UPLINK, &from, wire)?;
                self.arrive(wire, dst)
            }
        }
    }

    /// From the wire to a node.
    fn arrive(&self, wire: &Wire, dst: &Place) -> Result<(), Dropped> {
        let (node, veth) = match dst {
            Place::Device(node, veth) => (node, Some(veth)),
            Place::Node(node) => (node, None),
            Place::Outside => return Ok(()),
        };
        let from = Ingress { ifindex: UPLINK, tag: Tag::LOST };
        let tag = self.hook(Hook::FromUplink, node, UPLINK, &from, wire)?;
        if let Some(veth) = veth {
            let from = Ingress { ifindex: UPLINK, tag };
            self.hook(Hook::ToPod, node, *veth, &from, wire)?;
        }
        Ok(())
    }

    fn hook(
        &self,
        hook: Hook,
        node: &NodeName,
        ifindex: u32,
        from: &Ingress,
        wire: &Wire,
    ) -> Result<Tag, Dropped> {
        // A node without pods has no tables.
        let Some(maps) = self.maps.get(node) else { return Ok(from.tag) };
        let context = Context {
            ifindex,
            ingress_ifindex: from.ifindex,
            socket: from.ifindex == 0,
            tag: from.tag,
            ethertype: wire.ethertype,
            time: Time { now: 0, hz: 100 },
        };
        let verdict = decide(hook, maps, wire.bytes.as_slice(), &context);
        match verdict.action() {
            Action::Pass => Ok(verdict.tag),
            Action::Drop => Err(Dropped(verdict.reason)),
        }
    }
}

/// How a packet came to a hook.
struct Ingress {
    ifindex: u32,
    tag: Tag,
}

fn opening(conn: &Conn) -> Wire {
    let ports = (CLIENT_PORT, conn.port);
    packet(conn, conn.src.address(), conn.dst.address(), ports, packet::SYN, [8, 128])
}

fn reply(conn: &Conn) -> Wire {
    let ports = (conn.port, CLIENT_PORT);
    let flags = packet::SYN | packet::ACK;
    packet(conn, conn.dst.address(), conn.src.address(), ports, flags, [0, 129])
}

/// `echo` is the message type in ICMP and in ICMPv6.
fn packet(
    conn: &Conn,
    src: IpAddr,
    dst: IpAddr,
    (sport, dport): (u16, u16),
    tcp_flags: u8,
    echo: [u8; 2],
) -> Wire {
    let (protocol, mut upper) = match conn.protocol {
        Protocol::Tcp => (packet::TCP, vec![0; 20]),
        Protocol::Udp => (packet::UDP, vec![0; 8]),
        Protocol::Sctp => (packet::SCTP, vec![0; 12]),
        Protocol::IcmpEcho if src.is_ipv4() => (packet::ICMP, vec![echo[0], 0, 0, 0, 7, 7, 0, 1]),
        Protocol::IcmpEcho => (packet::ICMPV6, vec![echo[1], 0, 0, 0, 7, 7, 0, 1]),
        Protocol::Other(number) => (number, vec![0; 8]),
    };
    if conn.protocol.name().is_some() {
        upper[..2].copy_from_slice(&sport.to_be_bytes());
        upper[2..4].copy_from_slice(&dport.to_be_bytes());
    }
    if conn.protocol == Protocol::Tcp {
        upper[12] = 5 << 4;
        upper[13] = tcp_flags;
    }
    let mut bytes = vec![0; packet::ETH_HLEN as usize];
    let ethertype = match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let len = (20 + upper.len()) as u16;
            bytes.extend([0x45, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 64, protocol, 0, 0]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            packet::ETH_P_IPV4
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend((upper.len() as u16).to_be_bytes());
            bytes.extend([protocol, 64]);
            bytes.extend(src.octets());
            bytes.extend(dst.octets());
            packet::ETH_P_IPV6
        }
        _ => unreachable!("both ends of a connection are of one family"),
    };
    bytes.extend(upper);
    Wire { bytes, ethertype }
}
