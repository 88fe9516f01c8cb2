//! Packets larger than usual: jumbo frames, and what the kernel cuts to size only behind the hooks.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::UdpGsoSegment;
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::offload::{SET_GRO, SET_TSO, set_offload};

use crate::exchange::{PATIENCE, SILENT, any, ask, data, transfer};
use np_tests::trial::world::{ALLOWED, DENIED, World};

/// Where a node counts packets: before it puts fragments together, or on their way to `to_*`.
const FIRST: &str = "prerouting priority -450";
const LAST: &str = "forward priority 100";

/// Lets a node count the packets that match.
fn count(node: &Namespace, hook: &str, what: &str) -> Result<()> {
    let rules = format!(
        "table inet seen\ndelete table inet seen\ntable inet seen {{\n chain c {{\n \
         type filter hook {hook}\n {what} counter\n }}\n}}\n"
    );
    node.nft(&rules)
}

fn counted(node: &Namespace) -> Result<u64> {
    node.packets("table inet seen")
}

fn whole_frames(world: &World, family: Family, policed: bool) -> Result<()> {
    /// With all headers and what the server puts before its answer, just below 9,000.
    const DATAGRAM: usize = 8_900;
    const BYTES: usize = 200_000;
    let client = world.cluster.namespace("client")?;
    for server in ["near", "far"] {
        let node = world.cluster.node_of(server)?;
        for (port, expected) in [(ALLOWED, true), (DENIED, !policed)] {
            let to = SocketAddr::new(world.address(server, family)?, port);
            let what = format!("{server} {to}, policed {policed}");
            count(node, FIRST, &format!("udp dport {port} meta length > 8900"))?;
            let patience = if expected { PATIENCE } else { SILENT };
            ensure!(ask(client, to, DATAGRAM, patience)? == expected, "{what}: datagram");
            let reaches_node = expected || server == "near";
            ensure!((counted(node)? > 0) == reaches_node, "{what}: not one frame");
            if expected {
                count(node, FIRST, &format!("tcp dport {port} meta length > 8900"))?;
                transfer(client, to, BYTES).with_context(|| what.clone())?;
                ensure!(counted(node)? > 10, "{what}: no large segments");
            } else {
                let stream = client.run(|| Ok(TcpStream::connect_timeout(&to, SILENT)))?;
                ensure!(stream.is_err(), "{what}: a connection");
            }
        }
    }
    Ok(())
}

/// Each segment is a packet of its own: what is that large is a frame, not a batch.
#[test]
fn jumbo_frames_are_judged() -> Result<()> {
    let row = matrix::row("Traffic", "jumbo frames");
    let mut world = World::new()?;
    world.cluster.set_mtu(9000)?;
    world.cluster.namespace("client")?.ip("link set eth0 gso_max_segs 1")?;
    for family in Family::BOTH {
        whole_frames(&world, family, false)?;
    }
    for family in Family::BOTH {
        world.police(family)?;
        whole_frames(&world, family, true)?;
    }
    row.holds();
    Ok(())
}

const BULK: usize = 4_000_000;
/// What a packet carries at most.
const SEGMENT: usize = 1460;

/// Much on one connection, and how much of it were packets of more than this.
fn bulk(world: &World, server: &str, family: Family, more_than: u32) -> Result<u64> {
    let node = world.cluster.node_of(server)?;
    count(node, LAST, &format!("tcp dport {ALLOWED} meta length > {more_than}"))?;
    let to = SocketAddr::new(world.address(server, family)?, ALLOWED);
    transfer(world.cluster.namespace("client")?, to, BULK)
        .with_context(|| format!("{server}, {}", family.name()))?;
    counted(node)
}

/// All packets that came to pods of a node.
fn to_pod(world: &mut World, server: &str) -> Result<u64> {
    let node = world.cluster.spec.pod(server).context("a pod")?.node;
    let agents = world.agents.as_mut().context("agents run")?;
    let counters = agents.on(node)?.status()?.counters;
    Ok(counters.iter().filter(|c| c.hook == "to_pod").map(|c| c.packets).sum())
}

/// A connection that is full of data when it comes to be denied.
struct Full(TcpStream);

impl Full {
    fn open(world: &World, server: &str, family: Family) -> Result<Self> {
        let to = SocketAddr::new(world.address(server, family)?, DENIED);
        let mut full = world.cluster.namespace("client")?.run(|| {
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Self(stream))
        })?;
        for _ in 0..20 {
            full.0.write_all(&data(100_000))?;
            full.0.read_exact(&mut vec![0; 100_000])?;
        }
        Ok(full)
    }

    /// Sends more, and reads whatever comes back for it.
    fn more(&mut self) -> Result<usize> {
        // The greeting is still to be read.
        let mut back = vec![0; 1 << 16];
        self.0.set_read_timeout(Some(SILENT))?;
        let read = |stream: &mut TcpStream, back: &mut [u8]| match stream.read(back) {
            Ok(length) => Ok(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        };
        while read(&mut self.0, &mut back)? > 0 {}
        self.0.write_all(&data(100_000))?;
        Ok(read(&mut self.0, &mut back)?)
    }
}

/// The programs see what the sender's kernel made, up to 64 kB, and so do the counters.
#[test]
fn batches_of_segments_are_judged_whole() -> Result<()> {
    let row = matrix::row("Traffic", "GSO: TCP");
    let mut world = World::new()?;
    for family in Family::BOTH {
        for server in ["near", "far"] {
            let batches = bulk(&world, server, family, 40_000)?;
            ensure!(batches > 10, "no agent: {batches} batches to {server}");
        }
    }
    let mut open = Full::open(&world, "near", Family::V4)?;
    ensure!(open.more()? > 0, "no agent: the connection is open");
    for family in Family::BOTH {
        world.police(family)?;
        for server in ["near", "far"] {
            let before = to_pod(&mut world, server)?;
            let batches = bulk(&world, server, family, 40_000)?;
            ensure!(batches > 10, "{batches} batches to {server}");
            let packets = to_pod(&mut world, server)? - before;
            println!("{server}, {}: {BULK} bytes in {packets} packets", family.name());
            ensure!(packets < (BULK / SEGMENT) as u64, "{packets} packets to {server}: no batches");
        }
    }
    let node = world.cluster.node_of("near")?;
    count(node, LAST, &format!("tcp dport {DENIED} meta length > 2000"))?;
    let before = world.counted("denied")?;
    ensure!(open.more()? == 0, "the connection is closed");
    ensure!(counted(world.cluster.node_of("near")?)? > 0, "no batch was sent");
    ensure!(world.counted("denied")? > before, "no batch was dropped");
    row.holds();
    Ok(())
}

/// The sender's device takes single segments, and the node's puts them together again before any
/// program sees them.
#[test]
fn segments_that_the_node_puts_together_are_judged_whole() -> Result<()> {
    let row = matrix::row("Traffic", "GRO: TCP");
    let mut world = World::new()?;
    set_offload(world.cluster.namespace("client")?, "eth0", SET_TSO, false)?;
    for family in Family::BOTH {
        let batches = bulk(&world, "near", family, 10_000)?;
        ensure!(batches == 0, "no GRO, no agent: {batches} batches");
    }
    set_offload(world.cluster.namespace("node-1")?, "v-client", SET_GRO, true)?;
    for policed in [false, true] {
        for family in Family::BOTH {
            if policed {
                world.police(family)?;
            }
            for server in ["near", "far"] {
                let batches = bulk(&world, server, family, 10_000)?;
                ensure!(batches > 10, "policed {policed}: {batches} batches to {server}");
            }
        }
    }
    let to = SocketAddr::new(world.address("near", Family::V4)?, DENIED);
    let denied =
        world.cluster.namespace("client")?.run(|| Ok(TcpStream::connect_timeout(&to, SILENT)))?;
    ensure!(denied.is_err(), "a connection to the denied port");
    row.holds();
    Ok(())
}

/// Sends datagrams as one batch and says how many of them the server returned.
fn ask_by_batch(from: &Namespace, to: SocketAddr, patience: Duration) -> Result<usize> {
    const EACH: usize = 1_400;
    from.run(|| {
        let socket = UdpSocket::bind(any(to))?;
        setsockopt(&socket, UdpGsoSegment, &(EACH as i32))?;
        socket.set_read_timeout(Some(patience))?;
        let all = data(BATCH * EACH);
        socket.send_to(&all, to)?;
        let mut answer = [0; 1 << 16];
        for (number, question) in all.chunks(EACH).enumerate() {
            match socket.recv(&mut answer) {
                Ok(length) => {
                    ensure!(answer[..length].ends_with(question), "datagram {number}: {length}");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(number),
                Err(error) => return Err(error).context("receive"),
            }
        }
        Ok(BATCH)
    })
}

const BATCH: usize = 20;

/// One verdict for twenty datagrams.
#[test]
fn batches_of_datagrams_are_judged_whole() -> Result<()> {
    let row = matrix::row("Traffic", "GSO: UDP");
    let mut world = World::new()?;
    for policed in [false, true] {
        for family in Family::BOTH {
            if policed {
                world.police(family)?;
            }
            for (server, port) in
                [("near", ALLOWED), ("near", DENIED), ("far", ALLOWED), ("far", DENIED)]
            {
                let open = !policed || port == ALLOWED;
                let to = SocketAddr::new(world.address(server, family)?, port);
                let what = format!("{to}, policed {policed}");
                // Behind the client's own node nothing of what is denied is seen.
                count(
                    world.cluster.node_of("client")?,
                    LAST,
                    &format!("udp dport {port} meta length > 20000"),
                )?;
                let before = world.counted("denied")?;
                let patience = if open { PATIENCE } else { SILENT };
                let came = ask_by_batch(world.cluster.namespace("client")?, to, patience)?;
                ensure!(came == if open { BATCH } else { 0 }, "{what}: {came} of {BATCH}");
                let batches = counted(world.cluster.node_of("client")?)?;
                ensure!(batches == 1, "{what}: {batches} batches");
                let denied = world.counted("denied")? - before;
                ensure!(denied == u64::from(!open), "{what}: {denied} denied");
            }
        }
    }
    row.holds();
    Ok(())
}
