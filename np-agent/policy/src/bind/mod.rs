//! Which role each device has, and which pod stands behind it.
//!
//! Evidence made by the node comes first: a host route `/32 dev X` names the pod of X. Then the
//! network namespace that a veth leads into: where one veth of a pod leads, all lead that lead
//! there. Last an address inside: that is the claim of those inside, and counts only when exactly
//! one namespace makes it that is not known to be a pod's, and the node has no host route to it. A
//! binding holds for as long as the device or the pod's object is there, whatever is claimed later,
//! and across restarts of the agent; without the object, another pod may succeed. What nothing proves
//! is pending: default-deny. No container is foreign for lack of a proof, only by the user's word.

mod door;
mod evidence;
mod lower;
mod missing;
mod roles;
mod sources;
mod succession;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use np_common::endpoint::{EndpointId, Role};

pub use door::door;
pub use lower::{lower, tunnels};
pub use missing::{Missing, missing};
pub use sources::{RefusedSource, granted, refused_sources, sources};

use crate::index::Index;
use crate::model::{Device, IfIndex, NodeName, Phase, Pod, PodKey, PodUid, SourcePrefixes};
use crate::plan::Tables;
use crate::plan::record::EndpointRecord;
use evidence::{Claim, Evidence, Routed, Routes};

/// What a device is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// None: the device has no programs.
    pub role: Option<Role>,
    pub endpoint: EndpointId,
    pub pod: Option<PodUid>,
    pub why: String,
    /// The role is a guess, or not what the user said: somebody should look at it.
    pub doubtful: bool,
}

/// A pod and a device that it is behind. A pod with several devices has the same id behind each, as
/// long as all lead into one namespace.
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
    /// The addresses that were there first behind a device, when it was not bound. Most were given
    /// by the node, before anybody inside ran; a sandbox takes them off the device later.
    first_claims: BTreeMap<IfIndex, Vec<IpAddr>>,
    /// Devices that were bound to a pod which is gone, until the maps do not say so any more.
    let_go: BTreeMap<IfIndex, String>,
    /// Pods that had a device and have none any more.
    left: BTreeMap<PodUid, PodKey>,
    last_id: u16,
}

/// What the operator has said about the node's devices.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Devices that are uplinks because the user says so.
    pub uplinks: Vec<String>,
    /// Devices, and bridges with their ports, that lead to containers that are not pods.
    pub foreign: Vec<String>,
    /// UDP ports of tunnels that no device tells of: processes that unwrap by themselves.
    pub tunnel_ports: Vec<u16>,
    /// Ranges that pods which forward for others may send from, when they say so.
    pub source_prefixes: Vec<IpNet>,
}

/// All that bindings are concluded from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub devices: &'a BTreeMap<IfIndex, Device>,
    pub index: &'a Index,
    pub node: &'a NodeName,
    /// Pods of the node.
    pub local: &'a BTreeSet<PodKey>,
    pub settings: &'a Settings,
    /// What the kernel's maps hold.
    pub in_force: &'a Tables,
}

impl Bindings {
    /// Continues after the id that an earlier run gave last.
    pub fn resume_after(&mut self, last_id: u16) {
        self.last_id = last_id;
    }

    /// The id that was given last.
    pub fn last_id(&self) -> u16 {
        self.last_id
    }

    /// Restores a binding that an earlier run of the agent made and the kernel still carries.
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
        self.bound.insert(*ifindex, bound);
    }

    /// Forgets a device that is gone: its index may come again as another.
    pub fn release(&mut self, ifindex: IfIndex) {
        self.first_claims.remove(&ifindex);
        self.let_go.remove(&ifindex);
        if let Some(bound) = self.bound.remove(&ifindex)
            && self.device_of(&bound.pod.uid).is_none()
        {
            self.left.insert(bound.pod.uid.clone(), bound.pod.key.clone());
        }
    }

    /// Whether devices wait for a plan to be in force before they can be bound.
    pub fn wait(&self) -> bool {
        !self.let_go.is_empty()
    }

    /// Binds what the evidence now allows, lets go of what is gone, and says what every device is.
    pub fn place(&mut self, facts: &Facts<'_>) -> BTreeMap<IfIndex, Placement> {
        let Facts { devices, index, .. } = *facts;
        self.bound.retain(|ifindex, _| devices.contains_key(ifindex));
        for bound in self.bound.values_mut() {
            if let Some(pod) = index.same_pod(&bound.pod.key, &bound.pod.uid) {
                bound.pod = pod.clone();
            }
        }
        self.left.retain(|uid, key| index.same_pod(key, uid).is_some());
        self.remember_first_claims(devices);
        self.free_let_go(facts);

        let routes = Evidence::of_routes(facts);
        let mut placements = self.bind_by_routes(facts, &routes);
        self.bind_by_claims(facts, &mut placements);
        self.succeed(facts, &routes);
        self.bind_by_namespaces(facts, &mut placements);
        for (ifindex, bound) in &self.bound {
            let placement = || Placement::pod(bound, "bound".to_owned());
            placements.entry(*ifindex).or_insert_with(placement);
        }
        for (ifindex, why) in &self.let_go {
            placements.insert(*ifindex, pending(why.clone()));
        }
        let foreign = Foreign::of(self, facts);
        for device in devices.values().filter(|device| device.peer.is_some()) {
            let placement = || foreign.place(device, facts);
            placements.entry(device.index).or_insert_with(placement);
        }
        for device in devices.values().filter(|device| device.peer.is_none()) {
            if !placements.contains_key(&device.index) {
                let placement = roles::place(device, devices, &placements);
                placements.insert(device.index, placement);
            }
        }
        placements
    }

    fn remember_first_claims(&mut self, devices: &BTreeMap<IfIndex, Device>) {
        self.first_claims.retain(|ifindex, _| devices.contains_key(ifindex));
        for device in devices.values() {
            let claims = device.peer.as_ref().map_or(&[][..], |peer| &peer.claims);
            if claims.is_empty() || self.bound.contains_key(&device.index) {
                continue;
            }
            let first = || claims.iter().take(MOST_FIRST_CLAIMS).copied().collect();
            self.first_claims.entry(device.index).or_insert_with(first);
        }
    }

    /// Devices that lead into a namespace and are neither bound nor the node's own uplinks.
    fn open<'a>(&self, facts: &Facts<'a>) -> impl Iterator<Item = &'a Device> {
        let Facts { devices, index, node, settings, .. } = *facts;
        let node = index.node(node);
        devices.values().filter(move |device| {
            device.peer.is_some()
                && !self.bound.contains_key(&device.index)
                && !self.let_go.contains_key(&device.index)
                && uplink(device, settings, node).is_none()
        })
    }

    fn bind_by_routes(
        &mut self,
        facts: &Facts<'_>,
        routes: &Routes<'_>,
    ) -> BTreeMap<IfIndex, Placement> {
        let mut placements = BTreeMap::new();
        let open: Vec<&Device> = self.open(facts).collect();
        for device in open {
            let placement = match routes.by_route(device) {
                Routed::Nowhere => continue,
                Routed::To(pod, addr) if self.has_left(pod) => {
                    let pod = &pod.key;
                    pending(format!("host route to {addr}, but pod {pod} has lost its device"))
                }
                Routed::To(pod, addr) => {
                    let shared = self.behind_same_namespace(device, facts.devices);
                    let id = shared.filter(|bound| bound.pod.uid == pod.uid).map(|bound| bound.id);
                    self.bind(device, pod, id, facts, format!("host route to {addr}"))
                }
                Routed::Contested(addr) => {
                    pending(format!("host routes to {addr} lead to several devices"))
                }
                Routed::Several(one, other) => {
                    pending(format!("host routes to pods {one} and {other} lead to it"))
                }
            };
            placements.insert(device.index, placement);
        }
        placements
    }

    fn bind_by_claims(&mut self, facts: &Facts<'_>, placements: &mut BTreeMap<IfIndex, Placement>) {
        let known: BTreeSet<i32> = self.namespaces(facts.devices).map(|(id, _)| id).collect();
        // Where the node has routes to what is behind a device, what is said inside is not asked.
        let of_nobody = self.open(facts).filter(|device| {
            device.host_routes.is_empty()
                && device.peer.as_ref().is_some_and(|peer| !known.contains(&peer.netnsid))
        });
        let of_nobody: Vec<&Device> = of_nobody.collect();
        let evidence = Evidence::of_claims(facts, &of_nobody, &self.first_claims);
        for device in of_nobody {
            // A device that routes lead to in two ways is not bound by less.
            if placements.contains_key(&device.index) {
                continue;
            }
            let placement = match evidence.by_claim(device) {
                Claim::None => continue,
                Claim::Alone(pod, addr) if self.has_left(pod) => {
                    let pod = &pod.key;
                    pending(format!("claims {addr}, but pod {pod} has lost its device"))
                }
                Claim::Alone(pod, addr) => {
                    // The first device of a namespace binds it; the others follow it.
                    if self.behind_same_namespace(device, facts.devices).is_some() {
                        continue;
                    }
                    match self.device_of(&pod.uid) {
                        None => self.bind(device, pod, None, facts, format!("alone claims {addr}")),
                        Some(other) => pending(format!(
                            "claims {addr} of pod {}, which is behind {other}",
                            pod.key
                        )),
                    }
                }
                Claim::Contested(pod, addr) => {
                    pending(format!("claims {addr}, and others claim addresses of pod {}", pod.key))
                }
                Claim::Several(one, other) => {
                    pending(format!("claims addresses of both pod {one} and pod {other}"))
                }
            };
            placements.insert(device.index, placement);
        }
    }

    fn bind_by_namespaces(
        &mut self,
        facts: &Facts<'_>,
        placements: &mut BTreeMap<IfIndex, Placement>,
    ) {
        let open: Vec<&Device> = self.open(facts).collect();
        for device in open {
            let Some(first) = self.behind_same_namespace(device, facts.devices).cloned() else {
                continue;
            };
            let why = format!("leads into the network namespace of {}", first.device);
            let placement = self.bind(device, &first.pod, Some(first.id), facts, why);
            placements.insert(device.index, placement);
        }
    }

    /// The namespaces that are known to be a pod's. An id that is negative is that of a namespace
    /// which is dying, and no name for it.
    fn namespaces(
        &self,
        devices: &BTreeMap<IfIndex, Device>,
    ) -> impl Iterator<Item = (i32, &Bound)> {
        self.bound.iter().filter_map(|(ifindex, bound)| {
            let netnsid = devices.get(ifindex)?.peer.as_ref()?.netnsid;
            (netnsid >= 0).then_some((netnsid, bound))
        })
    }

    /// Who is bound behind the namespace that a device leads into, if it is one endpoint.
    fn behind_same_namespace(
        &self,
        device: &Device,
        devices: &BTreeMap<IfIndex, Device>,
    ) -> Option<&Bound> {
        let netnsid = device.peer.as_ref()?.netnsid;
        let mut there = self.namespaces(devices).filter(|(id, _)| *id == netnsid);
        let (_, first) = there.next()?;
        there.all(|(_, bound)| bound.id == first.id).then_some(first)
    }

    /// Binds a device to a pod, under the id that the pod has already or a free one.
    fn bind(
        &mut self,
        device: &Device,
        pod: &Arc<Pod>,
        id: Option<EndpointId>,
        facts: &Facts<'_>,
        why: String,
    ) -> Placement {
        let Some(id) = id.or_else(|| self.free_id(facts.in_force)) else {
            return pending(format!("all {} endpoint ids are in use", EndpointId::MAX.get()));
        };
        let bound = Bound { id, device: device.name.clone(), pod: pod.clone() };
        let placement = Placement::pod(&bound, why);
        self.bound.insert(device.index, bound);
        self.left.remove(&pod.uid);
        placement
    }

    /// Goes round all ids before one is used again: flows may still name an old one. One whose
    /// policy or addresses are still in the kernel's tables is not free either.
    fn free_id(&mut self, in_force: &Tables) -> Option<EndpointId> {
        let used: BTreeSet<EndpointId> = self.bound.values().map(|bound| bound.id).collect();
        let max = EndpointId::MAX.get();
        let mut ids = (0..max).map(|step| EndpointId::new((self.last_id + step) % max + 1));
        let id = ids.find(|id| !used.contains(id) && !in_force.endpoints.contains_key(id))?;
        self.last_id = id.get();
        Some(id)
    }

    fn device_of(&self, uid: &PodUid) -> Option<&str> {
        self.bound.values().find(|bound| bound.pod.uid == *uid).map(|bound| bound.device.as_str())
    }

    /// Ascending by device.
    pub fn iter(&self) -> impl Iterator<Item = (IfIndex, &Bound)> {
        self.bound.iter().map(|(ifindex, bound)| (*ifindex, bound))
    }

    /// The pod of every id. A pod can have two for a while, when its sandbox is replaced.
    pub fn ids(&self) -> BTreeMap<EndpointId, PodUid> {
        self.bound.values().map(|bound| (bound.id, bound.pod.uid.clone())).collect()
    }
}

/// Why a device that leads into a namespace is the node's uplink whatever is inside.
fn uplink(
    device: &Device,
    settings: &Settings,
    node: Option<&crate::model::Node>,
) -> Option<String> {
    if settings.uplinks.contains(&device.name) {
        return Some("named by --uplink".to_owned());
    }
    let addresses = &node?.addresses;
    let held = device.addresses.iter().find(|addr| addresses.contains(addr))?;
    Some(format!("holds the node's address {held}"))
}

/// What the user's word makes of devices that nothing proves to be a pod's.
struct Foreign<'a> {
    /// A pod that one of them may be of.
    homeless: Option<&'a Pod>,
    /// Bridges that are said to have no pods, with the pods that they have.
    contradicted: BTreeMap<IfIndex, PodKey>,
}

impl<'a> Foreign<'a> {
    fn of(bindings: &Bindings, facts: &Facts<'a>) -> Self {
        let masters = bindings.bound.iter().filter_map(|(ifindex, bound)| {
            Some((facts.devices.get(ifindex)?.master?, bound.pod.key.clone()))
        });
        Self { homeless: missing::pods(bindings, facts).next(), contradicted: masters.collect() }
    }

    /// What a device is that leads into a namespace of nobody known.
    fn place(&self, device: &Device, facts: &Facts<'_>) -> Placement {
        let Facts { devices, index, node, settings, .. } = *facts;
        if let Some(why) = uplink(device, settings, index.node(node)) {
            return Placement::of(Some(Role::Uplink), &why);
        }
        let master = device.master.and_then(|master| devices.get(&master));
        let mut names = [Some(device), master].into_iter().flatten().map(|device| &device.name);
        if let Some(name) = names.find(|name| settings.foreign.contains(name)) {
            let has_pods = device.master.and_then(|master| self.contradicted.get(&master));
            return match (has_pods, self.homeless) {
                (Some(pod), _) => {
                    let why = format!("--foreign names {name}, which has pod {pod}");
                    Placement { doubtful: true, ..pending(why) }
                }
                (None, Some(pod)) => pending(format!(
                    "--foreign names {name}, but it may be pod {}'s, which has no device yet",
                    pod.key
                )),
                (None, None) => {
                    Placement::of(Some(Role::Foreign), &format!("--foreign names {name}"))
                }
            };
        }
        if device.gateway {
            return Placement::of(Some(Role::Uplink), "a route leads through a gateway behind it");
        }
        Placement::of(Some(Role::Pending), "no pod is known to be behind it")
    }
}

fn pending(why: String) -> Placement {
    Placement::of(Some(Role::Pending), &why)
}

impl Placement {
    fn of(role: Option<Role>, why: &str) -> Self {
        let endpoint = EndpointId::NONE;
        Self { role, endpoint, pod: None, why: why.to_owned(), doubtful: false }
    }

    fn pod(bound: &Bound, why: String) -> Self {
        let pod = Some(bound.pod.uid.clone());
        Self { role: Some(Role::Pod), endpoint: bound.id, pod, why, doubtful: false }
    }

    /// For a device of which nothing is known. What leaves by it is judged; what comes in is from
    /// outside, and is dropped if a pod of this node has wrapped it.
    fn doubtful(why: &str) -> Self {
        let placement = Self::of(Some(Role::Tunnel), &format!("taken for a tunnel: {why}"));
        Self { doubtful: true, ..placement }
    }
}

/// First claims that are kept of a device: a pod has two addresses, and may have others.
const MOST_FIRST_CLAIMS: usize = 64;

#[cfg(test)]
mod tests;
