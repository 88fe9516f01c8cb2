//! New devices while the agent has more to do than it can: they are closed all the same.

use std::fmt::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use np_agent::dataplane::{Pinned, probe};
use np_common::endpoint::Role;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::sandbox::ifindex;
use np_tests::sockets;

use crate::world::{CLIENT, Late, Shape, World};

/// As many pods of another node as keep the agent busy for seconds: it reads them all again with
/// every change of the file.
fn heavy() -> String {
    let mut text = String::new();
    for n in 0..10_000u32 {
        let address = Ipv4Addr::from(0x6446_0000 + n);
        write!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: far-{n}\n  namespace: default\n  \
             labels: {{app: far}}\nspec:\n  nodeName: elsewhere\nstatus:\n  phase: Running\n  \
             podIP: {address}\n"
        )
        .expect("a String");
    }
    text
}

/// Gives the agent these pods, and time to have begun with it.
fn keep_busy(world: &mut World) {
    world.write("heavy.yaml", Some(&heavy()));
    thread::sleep(Duration::from_millis(300));
}

/// Waits until both programs of a device run; how long it took.
fn attached_within(world: &World, pins: &Path, device: &str, within: Duration) -> Duration {
    let start = Instant::now();
    loop {
        let chains = world.node().run(|| Ok(probe::chains(pins, ifindex(device)?)?));
        if chains.is_ok_and(|chains| chains.iter().all(|chain| chain.ours == Some(0))) {
            return start.elapsed();
        }
        assert!(start.elapsed() < within, "{device} has no programs after {within:?}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Datagrams from inside a pod with another pod's address as their source.
fn forge(inside: &Namespace, source: Ipv4Addr, to: Ipv4Addr, for_so_long: Duration) -> u64 {
    inside.ip(&format!("addr add {source}/32 dev lo")).expect("it has a loopback device");
    let send = || {
        let socket = UdpSocket::bind((source, 0))?;
        let (end, mut sent) = (Instant::now() + for_so_long, 0);
        while Instant::now() < end {
            // Until the link is up, there is no route.
            sent += u64::from(socket.send_to(b"forged", (to, 7777)).is_ok());
            thread::sleep(Duration::from_millis(1));
        }
        Ok(sent)
    };
    inside.run(send).expect("the address is there")
}

fn listen(pod: &Namespace) -> UdpSocket {
    let bind = || {
        let socket = sockets::udp((Ipv4Addr::UNSPECIFIED, 7777))?;
        socket.set_read_timeout(Some(Duration::from_millis(300)))?;
        Ok(socket)
    };
    pod.run(bind).expect("the port is free")
}

#[test]
fn a_new_device_is_closed_at_once_however_busy_the_agent_is() {
    let row = matrix::row("Life", "a new device while the agent reads ten thousand pods");
    let mut world = World::new(CLIENT);
    keep_busy(&mut world);
    let pins = world.agent().pin_dir().to_owned();
    let heard = listen(world.pod("server"));
    let (client, server) = (world.address("client"), world.address("server"));
    let mut longest = Duration::ZERO;
    let pods = [("late-a", 51), ("late-b", 52), ("late-c", 53), ("late-d", 54), ("late-e", 55)];
    for (name, last) in pods {
        let late = Late::new(name, last, Shape::Routed);
        let start = Instant::now();
        world.wire(&late);
        let wired = start.elapsed();
        attached_within(&world, &pins, &late.device(), Duration::from_secs(10));
        let took = start.elapsed();
        println!("{name}: wired after {wired:?}, closed after {took:?}");
        longest = longest.max(took.saturating_sub(wired));
        let sent = forge(world.pod(name), client, server, Duration::from_millis(500));
        assert!(sent > 100, "only {sent} sent");
    }
    println!("longest after it was wired: {longest:?}");
    // Not to time it: a program that waits for a plan takes seconds here.
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    assert!(heard.recv(&mut [0; 16]).is_err(), "a forged datagram was delivered");
    row.holds();
}

/// What the agent logs when a plan is written.
const PLANNED: &str = "the maps are up to date";

/// A pod that has come while no agent ran is closed before the first plan.
#[test]
fn a_pod_that_came_while_no_agent_ran_is_closed_from_the_start() {
    let row = matrix::row("Life", "a pod that came while no agent ran");
    let mut world = World::new(CLIENT);
    let talk = world.talk("client", "server");
    world.stop();
    // The log is that of all starts.
    let plans = world.agent().log().matches(PLANNED).count();
    let late = Late::new("late", 50, Shape::Routed);
    world.wire(&late);
    world.write("heavy.yaml", Some(&heavy()));
    let pins = world.agent().pin_dir().to_owned();
    world.agent().start().expect("it is not running");
    let took = attached_within(&world, &pins, &late.device(), Duration::from_secs(15));
    println!("closed {took:?} after the start of the process");
    assert_eq!(world.agent().log().matches(PLANNED).count(), plans, "that was before any plan");
    let heard = listen(world.pod("server"));
    let (client, server) = (world.address("client"), world.address("server"));
    assert!(forge(world.pod("late"), client, server, Duration::from_millis(300)) > 50);
    assert!(heard.recv(&mut [0; 16]).is_err(), "a forged datagram was delivered");
    // Those whose programs have judged all the time go on.
    assert!(talk.goes_on(10, Duration::from_secs(5)), "{:?}", talk.progress());
    row.holds();
}

/// A plan that was made while the old device was there writes nothing about the new one.
#[test]
fn a_device_with_the_index_of_a_bound_one_is_nobody_however_busy_the_agent_is() {
    const INDEX: u32 = 4242;
    let mut world = World::new(CLIENT);
    let before = Late { index: Some(INDEX), ..Late::new("before", 50, Shape::Routed) };
    world.wire(&before);
    world.apply("before.yaml", Some(&before.object("client")));
    world.wait_role(&before.device(), "pod");
    world.assert_reaches("before", world.address("server"), true);
    keep_busy(&mut world);

    let pins = Pinned::open(world.agent().pin_dir()).expect("an agent runs");
    let role = || {
        let tables = pins.tables().expect("they can be read");
        tables.ifaces.get(&INDEX).and_then(|iface| iface.role())
    };
    assert_eq!(role(), Some(Role::Pod));
    let after = Late { index: Some(INDEX), ..Late::new("after", 51, Shape::Routed) };
    world.unwire(&before);
    world.wire(&after);
    let heard = listen(world.pod("server"));
    let (old, server) = (before.address, world.address("server"));
    let directory = world.agent().pin_dir().to_owned();
    attached_within(&world, &directory, &after.device(), Duration::from_secs(10));
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert!(matches!(role(), None | Some(Role::Pending)), "{:?}", role());
        thread::sleep(Duration::from_millis(5));
    }
    assert!(forge(world.pod("after"), old, server, Duration::from_millis(300)) > 50);
    assert!(heard.recv(&mut [0; 16]).is_err(), "it was taken for the pod before");
}
