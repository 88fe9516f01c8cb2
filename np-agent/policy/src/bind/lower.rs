//! From placements and bindings to the tables that carry them.

use std::collections::{BTreeMap, BTreeSet};

use np_common::addr::Addr;
use np_common::endpoint::{Endpoint, Iface, PolicyWord};
use np_common::tunnel::Encapsulation;

use super::{Bindings, Bound, Placement, Settings};
use crate::model::{Device, IfIndex};
use crate::plan::Tables;

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
    // The pod with the better claim to an address is written last.
    bound.sort_by_key(|bound| bound.pod.claim_to_address());
    for bound in bound {
        let mut addrs = [Addr::UNSPECIFIED; 2];
        for (slot, addr) in addrs.iter_mut().zip(&bound.pod.addresses) {
            *slot = Addr::from(*addr);
        }
        tables.endpoints.insert(bound.id, Endpoint::new(addrs, PolicyWord::OPEN, 0));
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
