//! The shapes of CNI that need kernel modules: Calico's IPIP, and WireGuard between the nodes. They
//! run on the kernels of `cargo xtask vm`; on a kernel without the module they fail and say so.

use anyhow::Result;
use np_tests::proxy::Mode::{Iptables, Nftables};
use np_tests::topology::Shape;
use np_tests::trial::judges_every_cell;

#[test]
fn calico_ipip_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::CALICO_IPIP, Iptables, &[("tunl0", "tunnel")])
}

#[test]
fn calico_ipip_behind_nftables_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::CALICO_IPIP, Nftables, &[("tunl0", "tunnel")])
}

#[test]
fn wireguard_between_nodes_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::FLANNEL_WIREGUARD, Iptables, &[("flannel-wg", "uplink")])
}
