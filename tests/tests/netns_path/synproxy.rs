//! Another's firewall that shakes hands in a pod's name: SYNPROXY.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use np_tests::address::Family;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::raw::Raw;
use np_tests::trial::world::{ALLOWED, DENIED, RULES, World, ingress_only};

const PATIENCE: Duration = Duration::from_secs(5);
const SILENT: Duration = Duration::from_millis(1500);

/// The node answers a pod's clients by itself, and turns to the pod in their name once they have
/// proven to be there.
fn protect(world: &World, pod: &str) -> Result<()> {
    let node = world.cluster.node_of(pod)?;
    // What is in mid-stream begins no connection: it is for the rule below.
    node.sysctls(&[("net/netfilter/nf_conntrack_tcp_loose", "0")])?;
    for (program, family) in [("iptables", Family::V4), ("ip6tables", Family::V6)] {
        let to = world.address(pod, family)?;
        for rule in [
            format!("-t raw -A PREROUTING -d {to} -p tcp --syn -j CT --notrack"),
            format!(
                "-I FORWARD -d {to} -p tcp -m state --state INVALID,UNTRACKED \
                 -j SYNPROXY --sack-perm --timestamp --wscale 7 --mss 1460"
            ),
        ] {
            node.call(&format!("{program} {rule}"))?;
        }
    }
    Ok(())
}

/// Connects, which the node lets everybody do, says a word after a while and returns what is heard.
fn hears(
    from: &Namespace,
    to: SocketAddr,
    word: &str,
    silent: Duration,
    patience: Duration,
) -> Result<String> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
        stream.set_read_timeout(Some(patience))?;
        thread::sleep(silent);
        stream.write_all(word.as_bytes())?;
        let (mut heard, mut buffer) = (String::new(), [0; 512]);
        while !heard.contains(word) {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => heard.push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("receive"),
            }
        }
        Ok(heard)
    })
}

/// A client on the node and one outside, who speak first or let the pod greet them first.
fn meet(
    world: &mut World,
    family: Family,
    rules: Option<&str>,
    words: &mut impl Iterator<Item = u32>,
) -> Result<()> {
    if let Some(rules) = rules {
        world.police_by(rules, family)?;
    }
    let policed = rules.is_some();
    // The pod may greet whom it likes if its egress is open.
    let greets = rules.is_some_and(|rules| rules != RULES);
    for from in ["internet", "client"] {
        for (port, allowed) in [(ALLOWED, true), (DENIED, !policed)] {
            for (silent, number) in
                [Duration::ZERO, Duration::from_millis(300)].into_iter().zip(&mut *words)
            {
                let to = SocketAddr::new(world.address("near", family)?, port);
                let word = format!("<word {number}>");
                let what = format!("{from} to {to}, policed {policed}, silent for {silent:?}");
                let tap = Raw::open(world.cluster.namespace("near")?, "eth0")?;
                let before = world.counted("denied")?;
                let patience = if allowed { PATIENCE } else { SILENT };
                let heard = hears(world.cluster.namespace(from)?, to, &word, silent, patience)
                    .with_context(|| what.clone())?;
                let came = tap.capture(word.as_bytes(), 1, Duration::ZERO)?.len();
                if allowed {
                    ensure!(came > 0 && heard.contains(&word), "{what}: {came}, {heard}");
                    continue;
                }
                let answered = if greets { heard.contains(&word) } else { !heard.is_empty() };
                ensure!(came == 0 && !answered, "{what}: {came}, {heard}");
                let after = world.counted("denied")?;
                ensure!(after > before, "{what}: not counted");
            }
        }
    }
    Ok(())
}

/// The handshake with the pod is the node's own, which always passes: nothing tells for whom it is.
/// What a denied client then says does not come through, nor what the pod says to it.
#[test]
fn behind_synproxy_a_denied_client_gets_no_further_than_the_handshake() -> Result<()> {
    let row = matrix::row("Neighbours", "SYNPROXY before a pod, isolated both ways or for ingress");
    let mut world = World::new()?;
    protect(&world, "near")?;
    let mut words = 1..;
    for rules in [None, Some(RULES), Some(&ingress_only())] {
        for family in Family::BOTH {
            meet(&mut world, family, rules, &mut words)?;
        }
    }
    row.holds();
    Ok(())
}
