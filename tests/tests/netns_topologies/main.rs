//! Every shape of CNI that this kernel can make, each with real traffic on two nodes: every cell
//! of one matrix in both families, without agents, with agents, and with policies.
//!
//! The shapes that need kernel modules (IPIP, WireGuard) are in `vm_topologies.rs`.

mod changes;
mod wrapped;

use anyhow::Result;
use np_tests::proxy::Mode::{Iptables, Nftables};
use np_tests::topology::Shape;
use np_tests::trial::judges_every_cell;

#[test]
fn ptp_routes_judge_every_cell() -> Result<()> {
    judges_every_cell(Shape::PTP, Iptables, &[])
}

#[test]
fn gke_routes_judge_every_cell() -> Result<()> {
    judges_every_cell(Shape::GKE, Iptables, &[])
}

#[test]
fn bridge_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::BRIDGE, Iptables, &[("cni0", "none")])
}

#[test]
fn bridge_behind_nftables_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::BRIDGE, Nftables, &[("cni0", "none")])
}

#[test]
fn bridge_past_netfilter_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::BRIDGE_WITHOUT_NETFILTER, Iptables, &[("cni0", "none")])
}

#[test]
fn kube_router_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::KUBE_ROUTER, Iptables, &[("kube-bridge", "none")])
}

#[test]
fn flannel_host_gw_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::FLANNEL_HOST_GW, Iptables, &[("cni0", "none")])
}

pub(crate) const FLANNEL_VXLAN: &[(&str, &str)] =
    &[("cni0", "none"), ("flannel.1", "tunnel"), ("flannel-v6.1", "tunnel")];

#[test]
fn flannel_vxlan_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::FLANNEL_VXLAN, Iptables, FLANNEL_VXLAN)
}

#[test]
fn flannel_vxlan_behind_nftables_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::FLANNEL_VXLAN, Nftables, FLANNEL_VXLAN)
}

#[test]
fn flannel_udp_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::FLANNEL_UDP, Iptables, &[("cni0", "none"), ("flannel0", "uplink")])
}

#[test]
fn calico_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::CALICO, Iptables, &[])
}

#[test]
fn calico_behind_nftables_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::CALICO, Nftables, &[])
}

#[test]
fn calico_vxlan_judges_every_cell() -> Result<()> {
    let roles = [("vxlan.calico", "tunnel"), ("vxlan-v6.calico", "tunnel")];
    judges_every_cell(Shape::CALICO_VXLAN, Iptables, &roles)
}

#[test]
fn canal_judges_every_cell() -> Result<()> {
    let roles = [("flannel.1", "tunnel"), ("flannel-v6.1", "tunnel")];
    judges_every_cell(Shape::CANAL, Iptables, &roles)
}
