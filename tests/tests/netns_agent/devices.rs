//! Devices other than the pods' own: which have programs, and that the others need none.

use std::net::Ipv4Addr;

use np_agent::dataplane::Mechanism;
use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::topology::host_device;

use crate::binding::FILE;
use crate::world::{BRIDGE, CLIENT, GATEWAY, Late, Shape, World, device_of};

/// `client` may reach servers at port 80, and anybody at port 443; nobody may reach it.
const SHAPED: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Ingress, Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: server}}}]
      ports: [{port: 80}]
    - ports: [{port: 443}]
";

/// Services at port 443: of a server, which the policy admits at its own port only, and of another
/// pod, which it admits at the Service's port only. And of a server at a port that nothing admits.
const OF_SERVER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const OF_STRANGER: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

fn add_services(world: &World) {
    let (server, stranger) = (world.address("server"), world.address("stranger"));
    let rules = format!(
        "table ip services {{\n chain prerouting {{\n  type nat hook prerouting priority dstnat - 5;\n  \
         ip daddr {OF_SERVER} tcp dport 80 dnat to {server}:80\n  \
         ip daddr {OF_STRANGER} tcp dport 443 dnat to {stranger}:80\n }}\n}}\n"
    );
    world.node().nft(&rules).expect("it can be done");
}

/// What the plugin `bandwidth` does for a pod's annotation `kubernetes.io/egress-bandwidth`: what
/// the pod sends goes by a device of its own, whose queue is slow, and from there on as before.
fn slow_down(world: &World, device: &str) {
    let ifb = format!("bwp{}", &device[device.len().saturating_sub(8)..]);
    world
        .node()
        .ip(&format!("link add {ifb} type ifb\nlink set {ifb} up"))
        .expect("it can be done");
    for line in [
        format!("tc qdisc add dev {device} ingress"),
        format!(
            "tc filter add dev {device} parent ffff: protocol all prio 1 u32 match u32 0 0 action \
             mirred egress redirect dev {ifb}"
        ),
        format!("tc qdisc add dev {ifb} root tbf rate 100mbit burst 1mb latency 25ms"),
    ] {
        world.node().call(&line).expect("it can be done");
    }
}

/// A device that hands on what pods send, before the node has translated it, is the wrong place for
/// a verdict: what is allowed at the pod's own port would be dropped, and what is allowed at the
/// Service's port would pass.
#[test]
fn a_device_that_slows_a_pod_down_changes_no_verdict() {
    if Mechanism::of_kernel().expect("the kernel can be asked") == Mechanism::Clsact {
        // The plugin cannot add its qdisc where the agent's is: another test's subject.
        return;
    }
    let row = matrix::row("Neighbours", "the plugin bandwidth: what pods send goes by an ifb");
    let mut world = World::new(CLIENT);
    world.add_bridge();
    add_services(&world);
    let bridged = Late::new("bridged", 140, Shape::Bridged);
    let served = Late::new("served", 150, Shape::Bridged);
    world.wire(&bridged);
    world.wire(&served);
    let objects = format!("{}---\n{}", bridged.object("client"), served.object("server"));
    world.apply(FILE, Some(&objects));
    for late in [&bridged, &served] {
        world.wait_role(&late.device(), "pod");
    }
    world.apply(POLICIES, Some(&format!("{CLIENT}---\n{SHAPED}")));
    let check = |world: &World| {
        let (server, stranger) = (world.address("server"), world.address("stranger"));
        for client in ["client", "bridged"] {
            world.assert_reaches(client, server, true);
            world.assert_reaches(client, served.address, true);
            world.assert_reaches(client, OF_SERVER, true);
            world.assert_reaches(client, stranger, false);
            let through = world.connects(world.pod(client), OF_STRANGER, 443, false);
            through.unwrap_or_else(|error| panic!("judged before it was translated: {error:#}"));
        }
        for denied in [world.address("client"), bridged.address] {
            world.assert_reaches("stranger", denied, false);
            world.assert_reaches("server", denied, false);
        }
        // Without egress policies of its own.
        world.assert_reaches("stranger", server, false);
        world.assert_reaches("guest", served.address, false);
        world.assert_reaches("guest", stranger, true);
        world.connects(world.pod("guest"), OF_STRANGER, 443, true).expect("it can be done");
    };
    check(&world);
    let slowed = ["client", "server", "guest", "stranger"].map(host_device);
    for device in slowed.iter().chain([&bridged.device(), &served.device()]) {
        slow_down(&world, device);
    }
    let status = world.wait("devices without a role", |status| {
        let ifb = |device: &&np_tests::agent::DeviceStatus| device.name.starts_with("bwp");
        status.devices.iter().filter(ifb).count() == 6
    });
    for device in status.devices.iter().filter(|device| device.name.starts_with("bwp")) {
        assert_eq!((device.role.as_str(), device.attached), ("none", false), "{}", device.name);
    }
    check(&world);
    // They were there before the agent.
    world.stop();
    world.start();
    check(&world);
    row.holds();
}

/// Gives the pods' gateway address to a device above their bridge.
fn lift_gateway(world: &World) {
    world
        .node()
        .ip(&format!(
            "addr del {GATEWAY}/25 dev {BRIDGE}\nlink add gw0 link {BRIDGE} type macvlan mode bridge\n\
             addr add {GATEWAY}/25 dev gw0\nlink set gw0 up"
        ))
        .expect("it can be done");
}

#[test]
fn a_device_above_the_pods_bridge_is_stacked_and_one_above_an_uplink_is_one() {
    let mut world = World::new(CLIENT);
    world.add_bridge();
    lift_gateway(&world);
    world.node().ip("link add up0 link eth0 type macvlan mode bridge").expect("it can be done");
    let status = world.wait("the devices are seen", |status| {
        device_of(status, "gw0").is_some_and(|device| device.attached)
            && device_of(status, "up0").is_some_and(|device| device.attached)
    });
    let role = |name| device_of(&status, name).expect("it is there").role.as_str();
    assert_eq!((role("gw0"), role("up0"), role(BRIDGE)), ("stacked", "uplink", "none"));
    assert_eq!((role("eth0"), role("lo")), ("uplink", "none"));
}

/// What pods send comes up by it with the tag that says whose it is.
#[test]
fn a_device_above_the_pods_bridge_hides_no_pod() {
    let row = matrix::row("Topologies", "the pods' gateway on a device above their bridge");
    let mut world = World::new(CLIENT);
    world.add_bridge();
    lift_gateway(&world);
    let jailed = Late::new("jailed", 140, Shape::Bridged);
    let free = Late::new("free", 150, Shape::Bridged);
    world.wire(&jailed);
    world.wire(&free);
    let objects = format!("{}---\n{}", jailed.object("jailed"), free.object("client"));
    world.apply(FILE, Some(&objects));
    world.wait_role(&jailed.device(), "pod");
    world.wait_role(&free.device(), "pod");
    let (server, stranger) = (world.address("server"), world.address("stranger"));
    world.assert_reaches("jailed", stranger, true);
    let jail = deny("jailed", "Egress");
    world.apply(POLICIES, Some(&format!("{CLIENT}---\n{jail}")));
    for round in 0..2 {
        world.assert_reaches("jailed", stranger, false);
        world.assert_reaches("jailed", server, false);
        world.assert_reaches("free", stranger, true);
        world.assert_reaches("free", server, true);
        world.assert_reaches("stranger", jailed.address, true);
        if round == 0 {
            world.stop();
            world.start();
        }
    }
    row.holds();
}

/// A policy without rules.
pub fn deny(app: &str, direction: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: deny-{app}-{}\n  \
         namespace: default\nspec:\n  podSelector:\n    matchLabels: {{app: {app}}}\n  \
         policyTypes: [{direction}]\n",
        direction.to_lowercase()
    )
}
