//! Datagrams larger than a packet.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use np_policy::model::IfIndex;
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::sockets;
use np_tests::wire::{Fragment, Ip, datagram, send_frames};

use crate::exchange::{PATIENCE, SILENT, ask};
use np_tests::trial::world::{ALLOWED, DENIED, World};

/// Four fragments on a link of 1,500 bytes.
const SIZE: usize = 5000;

fn check(world: &World, family: Family, policed: bool) -> Result<()> {
    let client = world.cluster.namespace("client")?;
    for server in ["near", "far", "internet"] {
        let to = world.address(server, family)?;
        for (port, expected) in [(ALLOWED, true), (DENIED, !policed)] {
            let patience = if expected { PATIENCE } else { SILENT };
            let whole = ask(client, SocketAddr::new(to, port), SIZE, patience)?;
            ensure!(whole == expected, "{server} {to}:{port}, policed {policed}: {whole}");
        }
    }
    Ok(())
}

/// Behind conntrack, which puts datagrams together and takes them apart again: to the own node, to
/// another one, and masqueraded to the outside.
#[test]
fn fragments_of_an_allowed_datagram_arrive_both_ways_and_of_no_other() -> Result<()> {
    let row = matrix::row("Traffic", "fragments of both families, in order, both ways");
    let mut world = World::new()?;
    for family in Family::BOTH {
        check(&world, family, false)?;
    }
    for family in Family::BOTH {
        world.police(family)?;
        check(&world, family, true)?;
    }
    row.holds();
    Ok(())
}

/// Each datagram's own: a child that another test is just starting may still hold the last one's.
fn sport(id: u32) -> u16 {
    5000 + id as u16
}

/// The two pieces of a datagram, as frames for the wire.
fn pieces(world: &World, family: Family, id: u32, port: u16) -> Result<[Vec<u8>; 2]> {
    let (src, dst) = (world.address("client", family)?, world.address("far", family)?);
    let whole = datagram(src, dst, sport(id), port, &[b'x'; 1600]);
    let (first, rest) = whole.payload.split_at(1200);
    let frame_of = world.cluster.frame_from("client")?;
    let frame = |payload: &[u8], offset, more| {
        let fragment = Some(Fragment { offset, more, id });
        frame_of(&Ip { payload: payload.to_vec(), fragment, ..whole.clone() })
    };
    Ok([frame(first, 0, true), frame(rest, 150, false)])
}

/// Sends frames from the client and says whether the server returns the datagram they make.
fn arrives(world: &World, from: SocketAddr, frames: &[Vec<u8>], wait: Duration) -> Result<bool> {
    world.cluster.namespace("client")?.run(|| {
        let socket = sockets::udp(from)?;
        socket.set_read_timeout(Some(wait))?;
        let device = nix::net::if_::if_nametoindex("eth0")?;
        send_frames(IfIndex(device), frames)?;
        Ok(socket.recv(&mut [0; 4096]).is_ok())
    })
}

/// With conntrack the pieces come to `to_*` in order whatever order they were sent in. Without it a
/// piece that overtakes its first one passes where a first one has passed before: the very first
/// datagram between two pods is all that can be lost.
#[test]
fn fragments_out_of_order_arrive() -> Result<()> {
    let behind = matrix::row("Traffic", "fragments out of order, behind conntrack");
    let without =
        matrix::row("Traffic", "fragments out of order without conntrack, after a first datagram");
    let mut world = World::new()?;
    let mut id = 100;
    let mut sent = |world: &World, family, port, reversed: bool, wait| {
        id += 1;
        let mut frames = pieces(world, family, id, port)?;
        if reversed {
            frames.reverse();
        }
        let from = SocketAddr::new(world.address("client", family)?, sport(id));
        arrives(world, from, &frames, wait)
    };
    for family in Family::BOTH {
        ensure!(sent(&world, family, ALLOWED, true, PATIENCE)?, "no agents: allowed");
        ensure!(sent(&world, family, DENIED, true, PATIENCE)?, "no agents: denied");
    }
    for family in Family::BOTH {
        world.police(family)?;
        ensure!(sent(&world, family, ALLOWED, true, PATIENCE)?, "{}", family.name());
        ensure!(!sent(&world, family, DENIED, true, SILENT)?, "{}", family.name());
    }
    behind.holds();

    // No rule of any kind is left that would make the nodes put datagrams together.
    let mut world = World::new()?;
    world.police(Family::V4)?;
    for node in ["node-1", "node-2"] {
        world.cluster.namespace(node)?.call("nft flush ruleset")?;
    }
    for family in Family::BOTH {
        let before = world.counted("fragment")?;
        ensure!(!sent(&world, family, ALLOWED, true, SILENT)?, "the first of all: {family:?}");
        ensure!(world.counted("fragment")? > before, "nobody put the pieces together");
        ensure!(sent(&world, family, ALLOWED, false, PATIENCE)?, "in order: {family:?}");
        ensure!(sent(&world, family, ALLOWED, true, PATIENCE)?, "out of order: {family:?}");
        ensure!(!sent(&world, family, DENIED, false, SILENT)?, "denied, in order: {family:?}");
        ensure!(!sent(&world, family, DENIED, true, SILENT)?, "denied: {family:?}");
    }
    without.holds();
    Ok(())
}
