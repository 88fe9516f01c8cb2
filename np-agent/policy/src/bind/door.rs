//! What role a device has before anything is planned, judged from the device alone.
//!
//! Nothing here may open: a pod's veth is default-deny until evidence says whose it is. What the
//! node itself is reached by must not be closed, so what looks like that waits for its placement.

use np_common::endpoint::{EndpointId, Iface, Role};

use crate::model::Device;

/// None for a device whose placement can wait.
pub fn door(device: &Device, uplinks: &[String]) -> Option<Iface> {
    let of_the_node = device.gateway || uplinks.contains(&device.name);
    if device.peer.is_none() || of_the_node {
        return None;
    }
    let iface = Iface::new(device.index.0, Role::Pending, EndpointId::NONE);
    Some(if device.layer3 { iface.with_layer3() } else { iface })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DevicePeer, IfIndex};

    #[test]
    fn a_pair_into_another_namespace_is_closed_unless_the_node_is_reached_by_it() {
        let mut device = Device {
            index: IfIndex(7),
            name: "x".into(),
            kind: Some("veth".into()),
            layer3: false,
            loopback: false,
            encapsulations: Vec::new(),
            peer: Some(DevicePeer { netnsid: 1, index: IfIndex(2), claims: Vec::new() }),
            addresses: Vec::new(),
            gateway: false,
            host_routes: Vec::new(),
            hardware: false,
            lower: None,
            master: None,
        };
        let pending = Iface::new(7, Role::Pending, EndpointId::NONE);
        assert_eq!(door(&device, &[]), Some(pending));
        assert_eq!(door(&device, &["x".into()]), None);
        let gateway = Device { gateway: true, ..device.clone() };
        assert_eq!(door(&gateway, &[]), None);
        device.peer = None;
        assert_eq!(door(&device, &[]), None);
    }
}
