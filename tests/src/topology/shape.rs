//! The CNIs whose wiring a cluster can have, each as the parts it is made of.

use super::attach::{self, Attach};
use super::between::{self, Connect};
use super::{plugin, tunnel};
use crate::address::Family;

/// What a CNI makes of a cluster's nodes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub name: &'static str,
    /// Attaches a pod to its node.
    pub attach: Attach,
    /// Gives a node its ways to the pods of other nodes.
    pub connect: Connect,
    /// The network between the nodes routes pod addresses, as a cloud's does.
    pub fabric_knows_pods: bool,
    /// `net.bridge.bridge-nf-call-iptables`: the node's netfilter sees what its bridges switch.
    pub bridge_netfilter: bool,
    /// The pods' MTU.
    pub mtu: u32,
    /// The families that the original has.
    pub families: &'static [Family],
}

impl Shape {
    /// True when pods of one node talk past netfilter: an answer is then never translated back,
    /// and a connection to the own node's pod by its Service fails, with and without policies.
    pub fn switches_past_netfilter(&self) -> bool {
        !self.bridge_netfilter
    }

    pub const PTP: Shape = Shape {
        name: "ptp/kindnet routes",
        attach: attach::ptp,
        connect: between::routes_to_nodes,
        fabric_knows_pods: true,
        bridge_netfilter: true,
        mtu: 1500,
        families: &Family::BOTH,
    };

    /// The plugin ptp with host-local addresses; nodes know no more than their default route.
    pub const GKE: Shape = Shape {
        name: "GKE routes-based",
        attach: plugin::ptp,
        connect: between::default_route,
        ..Shape::PTP
    };

    pub const BRIDGE: Shape = Shape {
        name: "bridge CNI, bridge-nf-call-iptables=1",
        attach: plugin::bridge_cni0,
        fabric_knows_pods: false,
        ..Shape::PTP
    };

    pub const BRIDGE_WITHOUT_NETFILTER: Shape = Shape {
        name: "bridge CNI, bridge-nf-call-iptables=0 (Services of the own node's pods fail there)",
        bridge_netfilter: false,
        ..Shape::BRIDGE
    };

    pub const KUBE_ROUTER: Shape = Shape {
        name: "kube-router bridge with routes",
        attach: plugin::bridge_kube_router,
        ..Shape::BRIDGE
    };

    pub const FLANNEL_HOST_GW: Shape = Shape { name: "flannel host-gw", ..Shape::BRIDGE };

    pub const FLANNEL_VXLAN: Shape = Shape {
        name: "flannel vxlan",
        connect: tunnel::flannel_vxlan,
        mtu: 1430,
        ..Shape::FLANNEL_HOST_GW
    };

    pub const FLANNEL_UDP: Shape = Shape {
        name: "flannel udp (tun)",
        connect: tunnel::flannel_udp,
        mtu: 1472,
        families: &[Family::V4],
        ..Shape::FLANNEL_HOST_GW
    };

    pub const FLANNEL_WIREGUARD: Shape = Shape {
        name: "flannel wireguard",
        connect: tunnel::wireguard,
        mtu: 1420,
        ..Shape::FLANNEL_HOST_GW
    };

    pub const CALICO: Shape = Shape {
        name: "Calico, unencapsulated",
        attach: attach::calico,
        connect: between::calico_routes,
        fabric_knows_pods: false,
        ..Shape::PTP
    };

    pub const CALICO_VXLAN: Shape =
        Shape { name: "Calico VXLAN", connect: tunnel::calico_vxlan, mtu: 1430, ..Shape::CALICO };

    pub const CALICO_IPIP: Shape =
        Shape { name: "Calico IPIP", connect: tunnel::calico_ipip, mtu: 1480, ..Shape::CALICO };

    /// Calico's pods, flannel's way between the nodes.
    pub const CANAL: Shape =
        Shape { name: "canal", connect: tunnel::flannel_vxlan, mtu: 1430, ..Shape::CALICO };
}
