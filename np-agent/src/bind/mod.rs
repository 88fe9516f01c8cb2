//! Which role each device has, and which pod stands behind it.
//!
//! Evidence made by the node comes first: a host route `/32 dev X` names the pod of X. Else an
//! address inside the peer's namespace does, but that is the claim of whoever is inside: it counts
//! only when exactly one device makes it. A binding holds for the life of the device, whatever is
//! claimed later, and across restarts of the agent. What cannot be told is pending: default-deny.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use np_common::addr::Addr;
use np_common::endpoint::{Endpoint, EndpointId, Iface, PolicyWord, Role};
use np_common::tunnel::Encapsulation;

pub use sources::{RefusedSource, granted, refused_sources, sources};

use crate::index::Index;
use crate::model::{Device, IfIndex, NodeName, Phase, Pod, PodUid, SourcePrefixes};
use crate::plan::Tables;
use crate::plan::record::EndpointRecord;

/// Device kinds that unwrap packets which another node, or a pod, wrapped.
const TUNNELS: [&str; 12] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "erspan",
    "ip6gre",
    "ip6gretap",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "bareudp",
];

/// What a device is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// None: the device has no programs.
    pub role: Option<Role>,
    pub endpoint: EndpointId,
    pub pod: Option<PodUid>,
    pub why: String,
}

/// A pod and the device that it is behind, for as long as the device lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    pub id: EndpointId,
    pub device: String,
    /// The pod as last seen: its object may be gone before the pod is.
    pub pod: Arc<Pod>,
}

/// Holds all bindings of the node.
#[derive(Clone, Debug, Default)]
pub struct Bindings {
    bound: BTreeMap<IfIndex, Bound>,
    /// Devices that have once claimed an address of the node's pod ranges: a pod that drops its
    /// address must not become foreign by it.
    in_pod_range: BTreeSet<IfIndex>,
    last_id: u16,
}

/// What the agent was told about the node's devices.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Devices that are uplinks because the user says so.
    pub uplinks: Vec<String>,
    /// UDP ports of tunnels that no device tells of: processes that unwrap by themselves.
    pub tunnel_ports: Vec<u16>,
    /// Ranges that pods which forward for others may send from, when they say so.
    pub source_prefixes: Vec<IpNet>,
}

impl Bindings {
    /// Takes up a binding that an earlier run of the agent made and the kernel still carries.
    pub fn restore(&mut self, record: &EndpointRecord, index: &Index, node: &NodeName) {
        let EndpointRecord {
            id,
            pod,
            uid,
            addresses,
            source_prefixes,
            labels,
            named_ports,
            device,
            ifindex,
            ingress: _,
            egress: _,
        } = record;
        let source_prefixes = (!source_prefixes.is_empty()).then(|| {
            let prefixes = source_prefixes.clone();
            Box::new(SourcePrefixes { prefixes, refused: Vec::new() })
        });
        let last_seen = Pod {
            key: pod.clone(),
            uid: uid.clone(),
            node: Some(node.clone()),
            labels: labels.clone(),
            addresses: addresses.as_slice().into(),
            source_prefixes,
            named_ports: named_ports.clone(),
            host_network: false,
            phase: Phase::Active,
            terminating: true,
            created: 0,
        };
        let pod = index.same_pod(pod, uid).cloned().unwrap_or_else(|| Arc::new(last_seen));
        let bound = Bound { id: EndpointId::new(*id), device: device.clone(), pod };
        self.last_id = self.last_id.max(*id);
        self.in_pod_range.insert(*ifindex);
        self.bound.insert(*ifindex, bound);
    }

    /// Forgets a device that is gone: its index may come again as another.
    pub fn release(&mut self, ifindex: IfIndex) {
        self.bound.remove(&ifindex);
        self.in_pod_range.remove(&ifindex);
    }

    /// Binds what the evidence now allows, lets go of what is gone, and says what every device is.
    pub fn place(
        &mut self,
        devices: &BTreeMap<IfIndex, Device>,
        index: &Index,
        node: &NodeName,
        settings: &Settings,
    ) -> BTreeMap<IfIndex, Placement> {
        self.bound.retain(|ifindex, _| devices.contains_key(ifindex));
        self.in_pod_range.retain(|ifindex| devices.contains_key(ifindex));
        for bound in self.bound.values_mut() {
            if let Some(pod) = index.same_pod(&bound.pod.key, &bound.pod.uid) {
                bound.pod = pod.clone();
            }
        }
        let evidence = Evidence::gather(devices, index, node);
        devices
            .values()
            .map(|device| (device.index, self.placement(device, &evidence, index, node, settings)))
            .collect()
    }

    fn placement(
        &mut self,
        device: &Device,
        evidence: &Evidence<'_>,
        index: &Index,
        node: &NodeName,
        settings: &Settings,
    ) -> Placement {
        if let Some(bound) = self.bound.get(&device.index) {
            return Placement::pod(bound, "bound".to_owned());
        }
        if device.loopback {
            return Placement::of(None, "loopback");
        }
        if device.kind.as_deref() == Some("bridge") {
            return Placement::of(None, "a bridge: its ports have the programs");
        }
        let Some(peer) = &device.peer else {
            return match device.kind.as_deref() {
                Some("veth") => Placement::of(None, "both ends are on the node"),
                Some(kind) if TUNNELS.contains(&kind) => Placement::of(Some(Role::Tunnel), kind),
                kind => Placement::of(Some(Role::Uplink), kind.unwrap_or("physical")),
            };
        };
        if settings.uplinks.contains(&device.name) {
            return Placement::of(Some(Role::Uplink), "named by --uplink");
        }
        if let Some((pod, addr)) = evidence.by_route(device) {
            return self.bind(device, pod, format!("host route to {addr}"));
        }
        let node = index.node(node);
        let held = node
            .and_then(|node| device.addresses.iter().find(|addr| node.addresses.contains(addr)));
        if let Some(addr) = held {
            return Placement::of(Some(Role::Uplink), &format!("holds the node's address {addr}"));
        }
        if device.gateway {
            return Placement::of(Some(Role::Uplink), "a route leads through a gateway behind it");
        }
        match evidence.by_claim(device) {
            Claim::Alone(pod, addr) => match self.device_of(&pod.uid) {
                None => return self.bind(device, pod, format!("alone claims {addr}")),
                Some(other) => {
                    let why = format!("claims {addr} of pod {}, which is behind {other}", pod.key);
                    return Placement::of(Some(Role::Pending), &why);
                }
            },
            Claim::Contested(pod, addr) => {
                let why = format!("several devices claim {addr} of pod {}", pod.key);
                return Placement::of(Some(Role::Pending), &why);
            }
            Claim::None => {}
        }
        let ranges = node.map_or(&[][..], |node| &node.pod_cidrs);
        if peer.claims.iter().any(|addr| ranges.iter().any(|range| range.contains(addr))) {
            self.in_pod_range.insert(device.index);
        }
        let foreign = !ranges.is_empty()
            && !peer.claims.is_empty()
            && !self.in_pod_range.contains(&device.index);
        if foreign {
            return Placement::of(Some(Role::Foreign), "no address in the node's pod ranges");
        }
        Placement::of(Some(Role::Pending), "no pod is known to be behind it")
    }

    fn bind(&mut self, device: &Device, pod: &Arc<Pod>, why: String) -> Placement {
        let Some(id) = self.free_id() else {
            let why = format!("all {} endpoint ids are in use", EndpointId::MAX.get());
            return Placement::of(Some(Role::Pending), &why);
        };
        self.in_pod_range.insert(device.index);
        let bound = Bound { id, device: device.name.clone(), pod: pod.clone() };
        let placement = Placement::pod(&bound, why);
        self.bound.insert(device.index, bound);
        placement
    }

    /// Goes round all ids before one is used again: flows may still name an old one.
    fn free_id(&mut self) -> Option<EndpointId> {
        let used: BTreeSet<u16> = self.bound.values().map(|bound| bound.id.get()).collect();
        let max = EndpointId::MAX.get();
        let id =
            (0..max).map(|step| (self.last_id + step) % max + 1).find(|id| !used.contains(id))?;
        self.last_id = id;
        Some(EndpointId::new(id))
    }

    fn device_of(&self, uid: &PodUid) -> Option<&str> {
        self.bound.values().find(|bound| bound.pod.uid == *uid).map(|bound| bound.device.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (IfIndex, &Bound)> {
        self.bound.iter().map(|(ifindex, bound)| (*ifindex, bound))
    }

    /// The pod of every id. A pod can have two for a while, when its sandbox was made anew.
    pub fn ids(&self) -> BTreeMap<EndpointId, PodUid> {
        self.bound.values().map(|bound| (bound.id, bound.pod.uid.clone())).collect()
    }
}

impl Placement {
    fn of(role: Option<Role>, why: &str) -> Self {
        Self { role, endpoint: EndpointId::NONE, pod: None, why: why.to_owned() }
    }

    fn pod(bound: &Bound, why: String) -> Self {
        let pod = Some(bound.pod.uid.clone());
        Self { role: Some(Role::Pod), endpoint: bound.id, pod, why }
    }
}

/// Gives tables the devices, endpoints and local addresses of these placements and no others; the
/// endpoints' policy is `plan::Lowered`'s to set.
pub fn lower(
    placements: &BTreeMap<IfIndex, Placement>,
    devices: &BTreeMap<IfIndex, Device>,
    bindings: &Bindings,
    tables: &mut Tables,
) {
    tables.ifaces.clear();
    tables.endpoints.clear();
    tables.local.clear();
    for (ifindex, placement) in placements {
        let Some(role) = placement.role else { continue };
        let mut iface = Iface::new(ifindex.0, role, placement.endpoint);
        if devices.get(ifindex).is_some_and(|device| device.layer3) {
            iface = iface.with_layer3();
        }
        tables.ifaces.insert(ifindex.0, iface);
    }
    let mut bound: Vec<&Bound> = bindings.iter().map(|(_, bound)| bound).collect();
    // Whoever has the better claim to an address is written last.
    bound.sort_by_key(|bound| bound.pod.claim_to_address());
    for bound in bound {
        let mut addrs = [Addr::UNSPECIFIED; 2];
        for (slot, addr) in addrs.iter_mut().zip(&bound.pod.addresses) {
            *slot = Addr::from(*addr);
        }
        tables.endpoints.insert(bound.id, Endpoint { addrs, policy: PolicyWord::OPEN });
        for addr in &bound.pod.addresses {
            tables.local.insert(Addr::from(*addr), bound.id);
        }
    }
}

/// What the tunnels of the node unwrap.
pub fn tunnels(
    devices: &BTreeMap<IfIndex, Device>,
    settings: &Settings,
) -> BTreeSet<Encapsulation> {
    let of_devices = devices.values().flat_map(|device| &device.encapsulations).copied();
    let of_processes = settings.tunnel_ports.iter().copied().map(Encapsulation::Udp);
    of_devices.chain(of_processes).collect()
}

/// What the devices say about the node's pods.
struct Evidence<'a> {
    index: &'a Index,
    node: &'a NodeName,
    claimants: BTreeMap<IpAddr, usize>,
}

enum Claim<'a> {
    Alone(&'a Arc<Pod>, IpAddr),
    Contested(&'a Arc<Pod>, IpAddr),
    None,
}

impl<'a> Evidence<'a> {
    fn gather(devices: &BTreeMap<IfIndex, Device>, index: &'a Index, node: &'a NodeName) -> Self {
        let mut claimants = BTreeMap::new();
        for addr in devices.values().flat_map(|device| &device.peer).flat_map(|peer| &peer.claims) {
            *claimants.entry(*addr).or_insert(0) += 1;
        }
        Self { index, node, claimants }
    }

    /// The pod of this node that an address belongs to.
    fn pod(&self, addr: IpAddr) -> Option<&'a Arc<Pod>> {
        self.index.owner(addr).filter(|pod| pod.node.as_ref() == Some(self.node))
    }

    fn by_route(&self, device: &Device) -> Option<(&'a Arc<Pod>, IpAddr)> {
        device.host_routes.iter().find_map(|addr| Some((self.pod(*addr)?, *addr)))
    }

    fn by_claim(&self, device: &Device) -> Claim<'a> {
        let claims = device.peer.iter().flat_map(|peer| &peer.claims);
        let mut contested = Claim::None;
        for addr in claims {
            let Some(pod) = self.pod(*addr) else { continue };
            if self.claimants.get(addr) == Some(&1) {
                return Claim::Alone(pod, *addr);
            }
            contested = Claim::Contested(pod, *addr);
        }
        contested
    }
}

#[cfg(test)]
mod tests;
