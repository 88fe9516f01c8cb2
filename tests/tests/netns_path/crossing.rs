//! Two pods that open one connection from both ends at once (RFC 9293 section 3.5).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use np_common::packet::SYN;
use np_tests::address::Family;
use np_tests::agent::Agents;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::raw::Raw;
use np_tests::topology::{Cluster, host_device};
use np_tests::trial::world::{RULES, World};
use np_tests::wire::segment;
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// How long a step may take that must come: the kernel sends again after one, two, four seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for what must not come, in which the kernel sends again.
const SILENT: Duration = Duration::from_secs(8);

/// Connection states as /proc/net/tcp has them (include/net/tcp_states.h).
const SYN_SENT: u8 = 2;
const SYN_RECEIVED: u8 = 3;

/// Nothing passes but what bears this hop limit, or one less behind the next node.
const LET_THROUGH: u8 = 200;
const HELD: &str = "table inet held {\n chain c {\n type filter hook prerouting priority raw;\n \
                    tcp dport 7000-7099 ip ttl < 128 drop\n \
                    tcp dport 7000-7099 ip6 hoplimit < 128 drop\n }\n}\n";

/// Who talks to whom, by one port at both ends.
struct Ends<'a> {
    cluster: &'a Cluster,
    family: Family,
    pods: [&'static str; 2],
    port: u16,
}

impl Ends<'_> {
    fn inside(&self, end: usize) -> Result<&Namespace> {
        self.cluster.namespace(self.pods[end])
    }

    fn address(&self, end: usize) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.cluster.address(self.pods[end], self.family)?, self.port))
    }

    /// None: nobody answered.
    fn connect(&self, end: usize, patience: Duration) -> Result<Option<TcpStream>> {
        let (own, other) = (self.address(end)?, self.address(1 - end)?);
        self.inside(end)?.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let connected = runtime.block_on(async {
                let v4 = own.is_ipv4();
                let socket = if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.bind(own)?;
                anyhow::Ok(timeout(patience, socket.connect(other)).await)
            })?;
            let Ok(connected) = connected else { return Ok(None) };
            let stream = connected?.into_std()?;
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Some(stream))
        })
    }

    /// The state of an end's connection.
    fn state(&self, end: usize) -> Result<Option<u8>> {
        let file = if self.family == Family::V4 { "/proc/net/tcp" } else { "/proc/net/tcp6" };
        let table = self.inside(end)?.feed("cat", &[file], "")?;
        let port = format!(":{:04X}", self.port);
        let state = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).find_map(
            |words| {
                let both = words.get(1)?.ends_with(&port) && words.get(2)?.ends_with(&port);
                both.then(|| u8::from_str_radix(words.get(3)?, 16).ok())?
            },
        );
        Ok(state)
    }

    /// Waits until an end's connection is in a state.
    fn comes_to(&self, end: usize, expected: u8) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let state = self.state(end)?;
            if state == Some(expected) {
                return Ok(());
            }
            let name = self.pods[end];
            ensure!(Instant::now() < until, "{name} is in {state:?}, not {expected}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the SYN of an end, with the sequence number that its kernel chose, past what holds all
    /// others.
    fn send_syn(&self, end: usize, sequence: u32) -> Result<()> {
        let (own, other) = (self.address(end)?.ip(), self.address(1 - end)?.ip());
        let mut packet = segment(own, other, (self.port, self.port), sequence, SYN, b"");
        packet.hop_limit = LET_THROUGH;
        self.cluster.send_from(self.pods[end], &[packet])
    }

    /// Both ends connect. Their own packets are held, so that each has sent its SYN before it hears
    /// of the other's. Then the SYNs go on one by one, and at last everything does: what is lost
    /// is sent again.
    ///
    /// `order`: whose SYN goes first, and whether it arrives.
    fn cross(
        &self,
        order: [(usize, bool); 2],
        agents: &mut Option<Agents>,
        patience: Duration,
    ) -> Result<[Option<TcpStream>; 2]> {
        let mut dropped = || agents.as_mut().map_or(Ok(0), |agents| agents.counted("denied"));
        let nodes = [self.cluster.node_of(self.pods[0])?, self.cluster.node_of(self.pods[1])?];
        for node in nodes {
            node.nft(&format!("table inet held\ndelete table inet held\n{HELD}"))?;
        }
        let taps = [0, 1].map(|end| Raw::open(nodes[end], &host_device(self.pods[end])));
        thread::scope(|scope| {
            let connecting = [0, 1].map(|end| scope.spawn(move || self.connect(end, patience)));
            let mut sequences = [0; 2];
            for (sequence, tap) in sequences.iter_mut().zip(taps) {
                *sequence = self.sequence_of_syn(&tap?)?;
            }
            for (end, arrives) in order {
                let before = dropped()?;
                self.send_syn(end, sequences[end])?;
                if arrives {
                    self.comes_to(1 - end, SYN_RECEIVED)?;
                    continue;
                }
                let until = Instant::now() + PATIENCE;
                while dropped()? == before {
                    ensure!(Instant::now() < until, "no SYN of {} is dropped", self.pods[end]);
                }
                self.comes_to(1 - end, SYN_SENT)?;
            }
            for node in nodes {
                node.nft("table inet held\ndelete table inet held\n")?;
            }
            let [one, other] =
                connecting.map(|end| end.join().expect("a connecting thread does not panic"));
            Ok([one?, other?])
        })
    }

    fn sequence_of_syn(&self, tap: &Raw) -> Result<u32> {
        let ports = [self.port.to_be_bytes(), self.port.to_be_bytes()].concat();
        let frames = tap.capture(&ports, 1, PATIENCE)?;
        let frame = frames.first().context("no SYN was sent")?;
        let header = 14 + if self.family == Family::V4 { 20 } else { 40 };
        let sequence = frame.get(header + 4..header + 8).context("a TCP header")?;
        Ok(u32::from_be_bytes(sequence.try_into()?))
    }
}

/// Says a word each way.
fn talk(streams: &mut [TcpStream; 2]) -> Result<()> {
    for from in [0, 1] {
        streams[from].write_all(b"word").context("send")?;
        let mut heard = [0; 4];
        streams[1 - from].read_exact(&mut heard).context("receive")?;
        ensure!(heard == *b"word", "heard {heard:?}");
    }
    Ok(())
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// All pods may talk to each other by the ports of this test.
fn both_ways() -> String {
    let both = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: both, namespace: default}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {}}]
      ports: [{port: 7000, endPort: 7099}]
  egress:
    - to: [{podSelector: {}}]
      ports: [{port: 7000, endPort: 7099}]
"#;
    format!("{RULES}---\n{both}")
}

/// [`RULES`] for the ports of this test too.
fn one_way() -> String {
    RULES.replace("ports: [", "ports: [{port: 7000, endPort: 7099}, ")
}

/// Where only one end may open, the other's SYN is dropped until the one's has come; then it is an
/// answer like any other. Either way the connection is the one that is allowed.
#[test]
fn a_simultaneous_open_is_one_connection() -> Result<()> {
    let both = matrix::row("Flows", "simultaneous open, allowed from both ends");
    let one = matrix::row("Flows", "simultaneous open, allowed from one end");
    let neither = matrix::row("Flows", "simultaneous open, allowed from no end");
    let mut world = World::new()?;
    let mut port = 7000;
    let mut opens = |world: &mut World, what: &str, order: [(usize, bool); 2]| -> Result<()> {
        for (family, server) in [(Family::V4, "near"), (Family::V6, "far")] {
            port += 1;
            let World { agents, cluster } = &mut *world;
            let ends = Ends { cluster, family, pods: ["client", server], port };
            let open = order.iter().any(|(_, arrives)| *arrives);
            let patience = if open { PATIENCE } else { SILENT };
            let what = || format!("{what}: {server}, {}", family.name());
            let crossed = ends.cross(order, agents, patience).with_context(what)?;
            match (crossed, open) {
                ([Some(client), Some(server)], true) => {
                    talk(&mut [client, server]).with_context(what)?;
                }
                ([None, None], false) => {}
                (crossed, _) => bail!("{}: {crossed:?}", what()),
            }
        }
        Ok(())
    };
    let [from_client, from_server] = [(CLIENT, true), (SERVER, true)];
    opens(&mut world, "no agents", [from_client, from_server])?;

    world.police_by(&both_ways(), Family::V4)?;
    opens(&mut world, "allowed from both", [from_client, from_server])?;
    opens(&mut world, "allowed from both", [from_server, from_client])?;
    both.holds();

    world.police_by(&one_way(), Family::V4)?;
    opens(&mut world, "allowed from the client", [(SERVER, false), from_client])?;
    opens(&mut world, "allowed from the client", [from_client, from_server])?;
    one.holds();

    world.police_by(RULES, Family::V4)?;
    opens(&mut world, "allowed from neither", [(SERVER, false), (CLIENT, false)])?;
    neither.holds();
    Ok(())
}
