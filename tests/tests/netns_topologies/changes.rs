//! What changes under a running agent: sandboxes recreated by the CNI's plugin, tunnel devices
//! recreated by its daemon, host ports by the plugin for them.

use anyhow::{Result, ensure};
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};
use np_tests::proxy::Mode::Iptables;
use np_tests::topology::{Shape, plugin};
use np_tests::trial::Trial;

/// Attaches pods of both nodes again and plays the policies.
fn a_new_sandbox_is_judged(shape: Shape) -> Result<()> {
    let row = matrix::row("Topologies", format!("{}: a sandbox made anew", shape.name));
    let mut trial = Trial::set_up(shape, Iptables)?;
    for pod in ["client", "server-1", "server-2"] {
        trial.cluster.attach_again(pod)?;
    }
    trial.agents.find_pods(&trial.cluster)?;
    trial.check_policies()?;
    row.holds();
    Ok(())
}

#[test]
fn a_new_sandbox_on_a_bridge_is_judged() -> Result<()> {
    a_new_sandbox_is_judged(Shape::BRIDGE)
}

#[test]
fn a_new_sandbox_of_the_plugin_ptp_is_judged() -> Result<()> {
    a_new_sandbox_is_judged(Shape::GKE)
}

#[test]
fn a_new_sandbox_in_the_shape_of_calico_is_judged() -> Result<()> {
    a_new_sandbox_is_judged(Shape::CALICO)
}

/// The daemon starts again, its device is another: what comes out of it is judged as before.
#[test]
fn a_tunnel_that_is_recreated_is_judged() -> Result<()> {
    let shape = Shape::FLANNEL_VXLAN;
    let row = matrix::row("Topologies", format!("{}: the tunnel recreated", shape.name));
    let mut trial = Trial::set_up(shape, Iptables)?;
    trial.cluster.connect_again(&["flannel.1", "flannel-v6.1"])?;
    for node in trial.cluster.spec.nodes.clone() {
        let back = |device: &str| ["flannel.1", "flannel-v6.1"].contains(&device);
        trial.agents.on(node.name)?.wait(PATIENCE * 10, |status| {
            status.devices.iter().filter(|d| back(&d.name) && d.attached).count() == 2
        })?;
    }
    trial.check_roles(crate::FLANNEL_VXLAN)?;
    trial.check_policies()?;
    row.holds();
    Ok(())
}

/// The plugin's own rules lead to the pod; who may come is the policies' to say.
#[test]
fn host_ports_of_the_plugin_portmap_are_judged() -> Result<()> {
    let shape = Shape::BRIDGE;
    let row = matrix::row("Topologies", format!("{}: portmap", shape.name));
    let mut trial = Trial::set_up(shape, Iptables)?;
    let ports = [(8444, 8443), (9444, 9443)];
    plugin::portmap(&trial.cluster.wiring("server-1")?, &ports)?;
    let through = |trial: &Trial, from: &str, port: u16, patience| -> Result<[Outcome; 2]> {
        let inside = trial.cluster.namespace(from)?;
        let [v4, v6] = Family::BOTH.map(|family| trial.cluster.address("node-1", family));
        Ok([v4?, v6?].map(|node| probe(inside, node, Kind::Tcp(port), patience)))
    };
    for from in ["client", "other", "internet"] {
        for (port, _) in ports {
            let seen = through(&trial, from, port, PATIENCE)?;
            ensure!(seen.iter().all(Outcome::replied), "{from}, no policy, {port}: {seen:?}");
        }
    }
    // They end with the IPv6 blocks in force.
    trial.check_policies()?;
    let [_, outside] = through(&trial, "internet", 8444, PATIENCE)?;
    ensure!(outside.replied(), "the allowed host outside: {outside}");
    for (from, port) in [("other", 8444), ("elsewhere", 8444), ("internet", 9444)] {
        let seen = through(&trial, from, port, IMPATIENCE)?;
        ensure!(seen.iter().all(|seen| *seen == Outcome::Timeout), "{from}, {port}: {seen:?}");
    }
    row.holds();
    Ok(())
}
