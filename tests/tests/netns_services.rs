//! Every way by which traffic comes to a pod, behind the modes of kube-proxy that every kernel has.

use anyhow::Result;
use np_tests::proxy::Mode;
use np_tests::trial::services::every_way_is_judged;

#[test]
fn every_way_to_a_pod_is_judged_behind_iptables() -> Result<()> {
    every_way_is_judged(Mode::Iptables)
}

#[test]
fn every_way_to_a_pod_is_judged_behind_nftables() -> Result<()> {
    every_way_is_judged(Mode::Nftables)
}
