//! What keeps a link alive passes whatever policy says.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::probe::{IMPATIENCE, Kind, Outcome, PATIENCE, probe};
use np_tests::raw::Raw;
use np_tests::topology::Shape;
use np_tests::topology::plan::address;
use np_tests::trial::world::World;

const DENY_ALL: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nothing, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
"#;

/// The kernel waits a random time before it reports.
const ARRIVES: Duration = Duration::from_secs(4);
const SILENT: Duration = Duration::from_millis(400);

/// Forgets the neighbours of a host and says whether it finds one again when it sends to it.
fn finds(inside: &Namespace, neighbour: IpAddr) -> Result<bool> {
    inside.ip("neigh flush all")?;
    inside.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.send_to(b"?", SocketAddr::new(neighbour, 9))?;
        Ok(())
    })?;
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        let shown = inside.feed("ip", &["neigh", "show", &neighbour.to_string()], "")?;
        if shown.contains("lladdr") {
            return Ok(true);
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(false)
}

/// The pod is asked by its node, then asks its neighbour on a bridge, where no packet but those of
/// discovery may pass between the two.
#[test]
fn neighbours_find_each_other_under_deny_all() -> Result<()> {
    let row = matrix::row("Traffic", "neighbour discovery under deny-all, both ways");
    for shape in [Shape::PTP, Shape::BRIDGE] {
        let mut world = World::in_shape(shape)?;
        world.police_by(DENY_ALL, Family::V4)?;
        let [client, near] = ["client", "near"].map(|name| world.address(name, Family::V6));
        let (client, near) = (client?, near?);
        let node = world.cluster.namespace("node-1")?;
        ensure!(finds(node, client)?, "{}: the node finds the pod", shape.name);
        let outcome = probe(node, client, Kind::Echo, PATIENCE);
        ensure!(outcome.replied(), "{}: from the node: {outcome}", shape.name);
        let inside = world.cluster.namespace("client")?;
        let bridged = shape.name == Shape::BRIDGE.name;
        if bridged {
            let nobody = Family::V6.address(address("100.68.1.99"));
            ensure!(!finds(inside, nobody)?, "the pod finds a neighbour that is not there");
            ensure!(finds(inside, near)?, "the pod finds its neighbour");
        }
        let outcome = probe(inside, near, Kind::Echo, IMPATIENCE);
        ensure!(outcome == Outcome::Timeout, "{}: from the pod: {outcome}", shape.name);
        let agents = world.agents.as_mut().expect("agents run");
        let status = agents.on("node-1")?.status()?;
        ensure!(status.count("from_pod", "neighbor-discovery") > 0, "{}: from pods", shape.name);
        let to_pods = status.count("to_pod", "neighbor-discovery");
        ensure!((to_pods > 0) == bridged, "{}: {to_pods} to pods", shape.name);
    }
    row.holds();
    Ok(())
}

/// Whether a report of a group that the client joins comes to its neighbour and to their node. It may
/// come in one packet with reports of other groups.
fn reports(world: &World, group: Ipv6Addr) -> Result<(bool, bool)> {
    let neighbour = Raw::open(world.cluster.namespace("near")?, "eth0")?;
    let node = Raw::open(world.cluster.namespace("node-1")?, "cni0")?;
    let _joined = world.cluster.namespace("client")?.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.join_multicast_v6(&group, nix::net::if_::if_nametoindex("eth0")?)?;
        Ok(socket)
    })?;
    let hears = |tap: &Raw| anyhow::Ok(!tap.capture(&group.octets(), 1, ARRIVES)?.is_empty());
    Ok((hears(&neighbour)?, hears(&node)?))
}

/// Whether a datagram of the client's to a group comes to its neighbour.
fn speaks(world: &World, group: Ipv6Addr, wait: Duration) -> Result<bool> {
    let tap = Raw::open(world.cluster.namespace("near")?, "eth0")?;
    world.cluster.namespace("client")?.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        let index = nix::net::if_::if_nametoindex("eth0")?;
        socket.send_to(b"?", SocketAddrV6::new(group, 9, 0, index))?;
        Ok(())
    })?;
    Ok(!tap.capture(&group.octets(), 1, wait)?.is_empty())
}

/// On a bridge that knows nothing of groups all ports are sent what one says. What a pod reports comes to
/// the node, which is to know it, and not to its neighbours, to whom it may say nothing.
#[test]
fn listeners_report_under_deny_all() -> Result<()> {
    let row = matrix::row("Traffic", "multicast listener discovery under deny-all");
    let mut world = World::in_shape(Shape::BRIDGE)?;
    let node = world.cluster.namespace("node-1")?;
    node.ip("link set cni0 type bridge mcast_snooping 0")?;
    let group = |number| Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0xbeef, number);
    ensure!(reports(&world, group(1))? == (true, true), "no agents: a report");
    ensure!(speaks(&world, group(2), ARRIVES)?, "no agents: a datagram to a group");
    world.police_by(DENY_ALL, Family::V4)?;
    let reported = reports(&world, group(3))?;
    ensure!(reported == (false, true), "to the neighbour and the node: {reported:?}");
    ensure!(!speaks(&world, group(4), SILENT)?, "a datagram to a group is policy's");
    let agents = world.agents.as_mut().expect("agents run");
    let status = agents.on("node-1")?.status()?;
    ensure!(status.count("from_pod", "multicast-listener") > 0, "nothing counted");
    row.holds();
    Ok(())
}
