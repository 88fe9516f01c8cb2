//! Devices whose pod is gone, while the node's evidence names another pod for them.
//!
//! A pod's device can be seen before its API object is, while the object of the address's former pod
//! still exists: then it is bound to the former pod. Once that object is gone, the device goes over
//! to the pod that the evidence names, in two plans: the first makes it pending, and the next binds
//! it when that is in force. So no packet is ever judged by one pod's policies under another's name.

use std::collections::BTreeMap;
use std::sync::Arc;

use np_common::endpoint::Role;

use super::evidence::{Pods, Routed, Routes};
use super::{Bindings, Bound, Facts};
use crate::model::{Device, IfIndex, Pod};

impl Bindings {
    /// Frees the devices that the maps do not give to their former pods any more.
    pub(super) fn free_let_go(&mut self, facts: &Facts<'_>) {
        self.let_go.retain(|ifindex, _| {
            let iface = facts.in_force.ifaces.get(&ifindex.0);
            facts.devices.contains_key(ifindex)
                && iface.is_some_and(|iface| iface.role() == Some(Role::Pod))
        });
    }

    /// Drops the bindings that another pod is to succeed to: one that no other device is found to be of.
    pub(super) fn succeed(&mut self, facts: &Facts<'_>, routes: &Routes<'_>) {
        let Facts { devices, index, .. } = *facts;
        let let_go: BTreeMap<IfIndex, String> = self
            .bound
            .iter()
            .filter(|(_, bound)| index.same_pod(&bound.pod.key, &bound.pod.uid).is_none())
            .filter_map(|(ifindex, bound)| {
                let device = devices.get(ifindex)?;
                let heir = &self.heir(device, facts, routes)?.key;
                let former = &bound.pod.key;
                let why = format!("pod {former} is gone, and it seems to be pod {heir}'s by now");
                let all = self.together(device, bound, facts).into_iter();
                Some(all.map(move |each| (each, why.clone())))
            })
            .flatten()
            .collect();
        self.bound.retain(|ifindex, _| !let_go.contains_key(ifindex));
        self.let_go.extend(let_go);
    }

    /// The devices that a pod has in one namespace: they are bound, and go over, together.
    fn together(&self, device: &Device, bound: &Bound, facts: &Facts<'_>) -> Vec<IfIndex> {
        let namespace = |ifindex: &IfIndex| {
            let peer = facts.devices.get(ifindex)?.peer.as_ref()?;
            (peer.netnsid >= 0).then_some(peer.netnsid)
        };
        let here = namespace(&device.index);
        let others = self.bound.iter().filter(|(ifindex, other)| {
            other.pod.uid == bound.pod.uid && here.is_some() && namespace(ifindex) == here
        });
        others.map(|(ifindex, _)| *ifindex).chain([device.index]).collect()
    }

    /// The pod whose device this is, if not its former pod's: by the node's routes; without any, by
    /// the addresses that were there first, which those inside had no part in.
    fn heir<'a>(
        &self,
        device: &Device,
        facts: &Facts<'a>,
        routes: &Routes<'a>,
    ) -> Option<&'a Arc<Pod>> {
        let pod = match routes.by_route(device) {
            Routed::To(pod, _) => pod,
            Routed::Nowhere if device.host_routes.is_empty() => {
                self.first_claimed(device.index, facts)?
            }
            Routed::Nowhere | Routed::Contested(_) | Routed::Several(..) => return None,
        };
        (self.device_of(&pod.uid).is_none() && !self.has_left(pod)).then_some(pod)
    }

    /// The one pod whose addresses were there first, if no other device claims or claimed them.
    fn first_claimed<'a>(&self, ifindex: IfIndex, facts: &Facts<'a>) -> Option<&'a Arc<Pod>> {
        let pods = Pods::of(facts);
        let mut owners =
            self.first_claims.get(&ifindex)?.iter().filter_map(|addr| pods.owner(*addr));
        let pod = owners.next()?;
        let alone = facts.devices.values().filter(|other| other.index != ifindex).all(|other| {
            let claims = other.peer.as_ref().map_or(&[][..], |peer| &peer.claims);
            let first = self.first_claims.get(&other.index).map_or(&[][..], Vec::as_slice);
            !claims.iter().chain(first).any(|addr| pod.addresses.contains(addr))
        });
        (alone && owners.all(|other| other.uid == pod.uid)).then_some(pod)
    }

    /// A pod that is going and whose device went before it: a device that comes now with its address
    /// is another pod's.
    pub(super) fn has_left(&self, pod: &Pod) -> bool {
        pod.terminating && self.left.contains_key(&pod.uid)
    }
}
