//! Path MTU discovery: a router says what fits, and the sender must hear it.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use np_tests::address::Family;
use np_tests::agent::Agents;
use np_tests::matrix;

use crate::exchange::transfer;
use np_tests::trial::world::{ALLOWED, NODE_PORT, World};

const BYTES: usize = 200_000;

/// The last hop to the host outside takes 1,300 bytes, IPv6's least and a little. Packets towards it
/// are too big when a client behind masquerade sends, and when a server answers through a
/// node port: the router's complaint is recognised where it enters in the one case, where it leaves
/// in the other.
#[test]
fn a_narrow_hop_is_found_under_default_deny() -> Result<()> {
    let row = matrix::row("Traffic", "path MTU discovery, of requests and of replies");
    let mut world = World::new()?;
    world.cluster.narrow("internet", 1300)?;
    let outside = |world: &World, family| -> Result<SocketAddr> {
        Ok(SocketAddr::new(world.address("internet", family)?, ALLOWED))
    };
    let client = world.cluster.namespace("client")?.clone();
    let internet = world.cluster.namespace("internet")?.clone();
    for policed in [false, true] {
        for family in Family::BOTH {
            if policed {
                world.police(family)?;
            }
            for (hook, from, to) in [
                ("from_uplink", &client, outside(&world, family)?),
                ("to_pod", &internet, SocketAddr::new(world.address("node-2", family)?, NODE_PORT)),
            ] {
                forget_routes(&world)?;
                let before = related(&mut world, hook)?;
                transfer(from, to, BYTES)
                    .with_context(|| format!("to {to}, policed {policed}"))
                    .with_context(|| {
                        world.agents.as_mut().map(Agents::drops).unwrap_or_default()
                    })?;
                let after = related(&mut world, hook)?;
                ensure!(
                    policed == (after > before),
                    "{to}: {after} complaints recognised at {hook}"
                );
            }
        }
    }
    row.holds();
    Ok(())
}

/// What was learnt of paths so far.
fn forget_routes(world: &World) -> Result<()> {
    for name in ["client", "far", "node-1", "node-2"] {
        for family in ["-4", "-6"] {
            world.cluster.namespace(name)?.feed("ip", &[family, "route", "flush", "cache"], "")?;
        }
    }
    Ok(())
}

fn related(world: &mut World, hook: &str) -> Result<u64> {
    let Some(agents) = world.agents.as_mut() else { return Ok(0) };
    let mut sum = 0;
    for node in ["node-1", "node-2"] {
        sum += agents.on(node)?.status()?.count(hook, "related");
    }
    Ok(sum)
}
