//! Behind kube-proxy's ipvs mode: the same ways to a pod, cases and shapes as behind the others.
//! IPVS is a kernel module; on a kernel without it these fail and say so.

use anyhow::Result;
use np_tests::proxy::Mode;
use np_tests::topology::Shape;
use np_tests::trial::cases::every_case_holds;
use np_tests::trial::judges_every_cell;
use np_tests::trial::services::every_way_is_judged;

#[test]
fn every_way_to_a_pod_is_judged_behind_ipvs() -> Result<()> {
    every_way_is_judged(Mode::Ipvs)
}

#[test]
fn every_case_holds_behind_ipvs() -> Result<()> {
    every_case_holds(Mode::Ipvs)
}

#[test]
fn bridge_behind_ipvs_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::BRIDGE, Mode::Ipvs, &[("cni0", "none")])
}

#[test]
fn flannel_vxlan_behind_ipvs_judges_every_cell() -> Result<()> {
    let roles = [("cni0", "none"), ("flannel.1", "tunnel"), ("flannel-v6.1", "tunnel")];
    judges_every_cell(Shape::FLANNEL_VXLAN, Mode::Ipvs, &roles)
}

#[test]
fn calico_behind_ipvs_judges_every_cell() -> Result<()> {
    judges_every_cell(Shape::CALICO, Mode::Ipvs, &[])
}
