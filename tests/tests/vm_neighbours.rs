//! What else a kernel may do to forwarded packets, by modules that few builds have: software
//! flowtables and policy-based IPsec. On a kernel without them these fail and say so.

use anyhow::{Context as _, Result, ensure};
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::probe::conversation::Conversation;
use np_tests::probe::{IMPATIENCE, Kind, PATIENCE, probe};
use np_tests::trial::world::{ALLOWED, DENIED, RULES, World};

/// Connections that skip the node's forwarding pass our programs all the same.
#[test]
fn an_offloaded_connection_is_judged() -> Result<()> {
    let row = matrix::row("Neighbours", "nft flowtables: offloaded connections are judged");
    for family in Family::BOTH {
        let mut world = World::new()?;
        let node = world.cluster.namespace("node-1")?.clone();
        node.nft(
            "table inet fastpath {
                 flowtable fast { hook ingress priority 0; devices = { eth0, v-client }; }
                 counter slow { }
                 chain forward {
                     type filter hook forward priority 0;
                     counter name slow
                     ct state established flow add @fast
                 }
             }",
        )?;
        let (client, far) =
            (world.cluster.namespace("client")?.clone(), world.address("far", family)?);
        let allowed = Conversation::tcp(&client, far, ALLOWED)?;
        let denied = Conversation::tcp(&client, far, DENIED)?;
        ensure!(allowed.goes_on(100, PATIENCE * 5) && denied.goes_on(100, PATIENCE * 5), "open");
        let slow = node.packets("counter inet fastpath slow")?;
        ensure!(slow < 100, "400 packets or more went, {slow} of them by the slow path");

        world.police(family)?;
        ensure!(allowed.goes_on(100, PATIENCE * 5), "allowed: {:?}", allowed.progress());
        ensure!(!denied.goes_on(2, IMPATIENCE), "denied: {:?}", denied.progress());
        let none = RULES.replace(&ALLOWED.to_string(), "1");
        world.police_by(&none, family)?;
        ensure!(!allowed.goes_on(2, IMPATIENCE), "no more allowed: {:?}", allowed.progress());
        world.police(family)?;
        ensure!(allowed.goes_on(2, PATIENCE * 5), "allowed again: {:?}", allowed.progress());
    }
    row.holds();
    Ok(())
}

/// The nodes encrypt what goes between their pods, by policies and without a device. What a pod
/// isolated for egress sends there cannot be judged and is dropped; ingress is judged where the
/// packet is decrypted.
#[test]
fn what_ipsec_hides_is_dropped_where_egress_is_isolated() -> Result<()> {
    let row = matrix::row(
        "Neighbours",
        "policy-based IPsec: unjudgeable egress is dropped, ingress is judged",
    );
    let mut world = World::new()?;
    let nodes = [
        ("node-1", "192.168.65.10", "100.68.1.0/24"),
        ("node-2", "192.168.65.11", "100.68.2.0/24"),
    ];
    let [one, two] = nodes;
    for (own, other) in [(one, two), (two, one)] {
        encrypt(world.cluster.namespace(own.0)?, own, other)?;
    }
    let node = world.cluster.namespace("node-1")?.clone();
    let wrapped = || node.packets("counter inet seen wrapped");
    node.nft("table inet seen {
             counter wrapped { }
             chain out { type filter hook postrouting priority 0; meta l4proto esp counter name wrapped; }
         }")?;
    let check = |world: &World, when: &str, expected: [bool; 4]| -> Result<()> {
        let ways = [("near", ALLOWED), ("near", DENIED), ("far", ALLOWED), ("far", DENIED)];
        for ((to, port), expected) in ways.into_iter().zip(expected) {
            let patience = if expected { PATIENCE } else { IMPATIENCE };
            let from = world.cluster.namespace("client")?;
            let outcome = probe(from, world.address(to, Family::V4)?, Kind::Tcp(port), patience);
            ensure!(outcome.replied() == expected, "{when}: {to}:{port}: {outcome}");
        }
        Ok(())
    };
    check(&world, "no agents", [true; 4])?;
    let before = wrapped()?;
    ensure!(before > 0, "nothing was encrypted");

    world.police(Family::V4)?;
    check(&world, "the client is isolated for egress", [true, false, false, false])?;
    ensure!(world.counted("unjudgeable")? > 0, "the drops have their reason");
    ensure!(wrapped()? > before, "what was dropped had been encrypted");

    let (_, server) = RULES.split_once("---").context("two policies")?;
    world.police_by(server, Family::V4)?;
    check(&world, "the client is not isolated", [true, false, true, false])?;
    row.holds();
    Ok(())
}

type Node = (&'static str, &'static str, &'static str);

/// One node's side of a tunnel for what goes between the pods of two.
fn encrypt(
    inside: &Namespace,
    (_, own, own_pods): Node,
    (_, other, other_pods): Node,
) -> Result<()> {
    let mut batch = String::new();
    for (from, to) in [(own, other), (other, own)] {
        let spi = if from < to { "0x101" } else { "0x102" };
        batch += &format!(
            "xfrm state add src {from} dst {to} proto esp spi {spi} reqid 1 mode tunnel \
             aead rfc4106(gcm(aes)) 0x{} 128\n",
            "5a".repeat(20)
        );
    }
    let template = |from, to| format!("tmpl src {from} dst {to} proto esp reqid 1 mode tunnel");
    batch += &format!(
        "xfrm policy add src {own_pods} dst {other_pods} dir out {}\n",
        template(own, other)
    );
    for direction in ["in", "fwd"] {
        batch += &format!(
            "xfrm policy add src {other_pods} dst {own_pods} dir {direction} {}\n",
            template(other, own)
        );
    }
    inside.ip(&batch)
}
