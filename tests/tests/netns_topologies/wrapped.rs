//! Pods that wrap packets themselves, to let them come out of a node's tunnel with another's source.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use np_common::packet::UDP;
use np_tests::address::Family;
use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::proxy::Mode::Iptables;
use np_tests::sockets;
use np_tests::topology::Shape;
use np_tests::trial::Trial;
use np_tests::wire::{self, Ip};

/// Servers hear only from `stranger`, who is on node-2, and `client`, who is on node-1.
const ONLY_CLIENTS: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-clients, namespace: beta}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {}
          podSelector: {matchLabels: {app: client}}
"#;

const PORT: u16 = 7777;
const MARKER: &[u8] = b"wrapped by a pod";

/// A packet of `source` for the victim in a datagram from the attacker to a node's tunnel.
struct Wrapped {
    attacker: &'static str,
    node: &'static str,
    source: &'static str,
    victim: &'static str,
}

/// An attacker's packet in VXLAN to its own node: its tag survives the decapsulation.
#[test]
fn a_pod_cannot_forge_what_its_own_nodes_vxlan_unwraps() -> Result<()> {
    let row = matrix::row("Attacks", "VXLAN from a pod to its own node");
    let mut trial = Trial::set_up(Shape::FLANNEL_VXLAN, Iptables)?;
    let attack =
        Wrapped { attacker: "other", node: "node-2", source: "client", victim: "server-2" };
    trial.agents.apply(POLICIES, Some(ONLY_CLIENTS))?;
    let before = trial.agents.counted("tunnel-forged")?;
    ensure!(!arrives(&trial, &attack)?, "the wrapped packet has arrived");
    let after = trial.agents.counted("tunnel-forged")?;
    ensure!(after > before, "it is not counted as tunnel-forged: {before}, {after}");
    row.holds();
    Ok(())
}

/// To another node: there it comes in like any node's, so the attacker's own node has to stop it.
#[test]
fn a_pod_cannot_forge_what_another_nodes_vxlan_unwraps() -> Result<()> {
    let row = matrix::row("Attacks", "VXLAN from a pod to another node");
    let mut trial = Trial::set_up(Shape::FLANNEL_VXLAN, Iptables)?;
    let attack =
        Wrapped { attacker: "other", node: "node-1", source: "stranger", victim: "server-1" };
    trial.agents.apply(POLICIES, Some(ONLY_CLIENTS))?;
    let before = trial.agents.counted("tunnel-from-pod")?;
    ensure!(!arrives(&trial, &attack)?, "the wrapped packet has arrived");
    let after = trial.agents.counted("tunnel-from-pod")?;
    ensure!(after > before, "it is not counted as tunnel-from-pod: {before}, {after}");
    row.holds();
    Ok(())
}

/// flannel's udp backend: a datagram to the process on a node comes out of its tun device. No device
/// tells its port, so an option has to name it. From the pod's own node it leaves by no device.
#[test]
fn a_pod_cannot_forge_what_flannels_process_on_another_node_unwraps() -> Result<()> {
    let row = matrix::row("Attacks", "a pod's datagram to flannel's udp backend on another node");
    let mut trial = Trial::set_up(Shape::FLANNEL_UDP, Iptables)?;
    trial.agents.apply(POLICIES, Some(ONLY_CLIENTS))?;
    let address = |name| trial.cluster.address(name, Family::V4);
    let payload = datagram(address("stranger")?, address("server-1")?, MARKER);
    let arrives = |trial: &Trial| hears(trial, "server-1", "other", "node-1", 8285, &payload);
    ensure!(arrives(&trial)?, "it does not even arrive when the agent knows of no tunnel");

    let agent = trial.agents.on("node-2")?;
    agent.terminate()?;
    agent.extra_args = vec!["--tunnel-port".into(), "8285".into()];
    agent.start()?;
    trial.agents.find_pods(&trial.cluster)?;
    ensure!(!arrives(&trial)?, "the wrapped packet has arrived");
    ensure!(trial.agents.counted("tunnel-from-pod")? > 0, "it is not counted as tunnel-from-pod");
    trial.agents.apply(POLICIES, None)?;
    trial.check_open("with --tunnel-port")?;
    row.holds();
    Ok(())
}

/// Sends it and waits for the victim to get it.
fn arrives(trial: &Trial, attack: &Wrapped) -> Result<bool> {
    let Wrapped { attacker, node, source, victim } = *attack;
    let address = |name| trial.cluster.address(name, Family::V4);
    let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
    payload.extend(trial.cluster.namespace(node)?.hardware_address("flannel.1")?);
    payload.extend([0x0e, 1, 2, 3, 4, 5, 8, 0]);
    payload.extend(datagram(address(source)?, address(victim)?, MARKER));
    hears(trial, victim, attacker, node, 8472, &payload)
}

/// Sends a datagram to a node's tunnel; true when the victim hears what is in it.
fn hears(
    trial: &Trial,
    victim: &str,
    attacker: &str,
    node: &str,
    port: u16,
    payload: &[u8],
) -> Result<bool> {
    let ears = trial.cluster.namespace(victim)?.run(|| {
        let socket = sockets::udp(("0.0.0.0", PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        Ok(socket)
    })?;
    let to = trial.cluster.address(node, Family::V4)?;
    trial
        .cluster
        .namespace(attacker)?
        .run(|| UdpSocket::bind("0.0.0.0:0")?.send_to(payload, (to, port)).context("send it"))?;
    let mut heard = [0; 64];
    Ok(ears.recv(&mut heard).is_ok_and(|length| heard[..length] == *MARKER))
}

fn datagram(source: IpAddr, destination: IpAddr, data: &[u8]) -> Vec<u8> {
    let mut upper = wire::udp(5000, PORT);
    upper.extend(data);
    let length = (upper.len() as u16).to_be_bytes();
    upper.splice(4..6, length);
    // No checksum: IPv4 allows it.
    upper.splice(6..8, [0, 0]);
    Ip::new(source, destination, UDP, upper).bytes()
}
