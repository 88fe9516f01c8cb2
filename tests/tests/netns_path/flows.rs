//! What live connections feel: edits that do not concern them, floods, and an agent that starts after
//! they did.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use np_common::maps::FLOWS;
use np_tests::address::Family;
use np_tests::agent::POLICIES;
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::trial::world::{ALLOWED, DENIED, RULES, World, ingress_only};
use np_tests::wire::datagram;
use tokio::net::TcpSocket;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(2);

/// A connection that says a line at a time.
struct Line {
    stream: BufReader<TcpStream>,
}

impl Line {
    fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = Self { stream: BufReader::new(stream) };
        line.hear().context("the server's greeting")?;
        Ok(line)
    }

    fn hear(&mut self) -> Result<String> {
        let mut heard = String::new();
        let length = self.stream.read_line(&mut heard)?;
        ensure!(length > 0, "the other side has hung up");
        Ok(heard)
    }

    fn talk(&mut self, word: u64) -> Result<()> {
        writeln!(self.stream.get_mut(), "{word}").context("send")?;
        let heard = self.hear().context("receive")?;
        ensure!(heard.trim() == word.to_string(), "{word} came back as {heard}");
        Ok(())
    }
}

fn open_line(
    from: &Namespace,
    world: &World,
    server: &str,
    family: Family,
    port: u16,
) -> Result<Line> {
    let to = SocketAddr::new(world.address(server, family)?, port);
    from.run(|| Line::open(to))
}

fn open_lines(from: &Namespace, to: SocketAddr, count: usize) -> Result<Vec<Line>> {
    // Both ends are this process's, and by default it may open 1,024 files.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    from.run(|| (0..count).map(|_| Line::open(to)).collect())
}

const LINES: usize = 1000;
const EDITS: u32 = 100;

/// Each edit is another policy for the client and the servers: their flows are judged again and
/// stay allowed.
#[test]
fn a_thousand_connections_live_through_a_hundred_edits() -> Result<()> {
    let row = matrix::row("Flows", "1,000 connections through 100 unrelated edits: no reset");
    let mut world = World::new()?;
    world.police(Family::V4)?;
    let to = SocketAddr::new(world.address("far", Family::V4)?, ALLOWED);
    let mut lines = open_lines(world.cluster.namespace("client")?, to, LINES)?;
    let done = AtomicBool::new(false);
    let (rounds, slowest) = thread::scope(|scope| {
        let talking = scope.spawn(|| -> Result<(u64, Duration)> {
            let (mut rounds, mut slowest) = (0, Duration::ZERO);
            // Whatever is edited last, every connection talks after it.
            for last in [false, true] {
                while last || !done.load(Ordering::Relaxed) {
                    rounds += 1;
                    for (number, line) in lines.iter_mut().enumerate() {
                        let start = Instant::now();
                        line.talk(rounds).with_context(|| format!("connection {number}"))?;
                        slowest = slowest.max(start.elapsed());
                    }
                    if last {
                        break;
                    }
                }
            }
            Ok((rounds, slowest))
        });
        let agents = world.agents.as_mut().context("agents run")?;
        for edit in 0..EDITS {
            let extra = RULES.replace("name: server", &format!("name: server-{edit}"));
            let extra = extra.replace("name: client", &format!("name: client-{edit}"));
            let wider = extra.replace("ports: [", &format!("ports: [{{port: {}}}, ", 9000 + edit));
            agents.apply(POLICIES, Some(&format!("{RULES}---\n{wider}")))?;
        }
        done.store(true, Ordering::Relaxed);
        talking.join().expect("the talking thread does not panic")
    })?;
    println!("{LINES} connections, {EDITS} edits, {rounds} rounds, slowest answer {slowest:?}");
    ensure!(rounds > 2, "they talked while policies were edited");
    row.holds();
    Ok(())
}

/// Datagrams that are all allowed and each a flow of its own.
fn flood(world: &World, from: u32, count: u32) -> Result<()> {
    let (src, dst) = (world.address("client", Family::V4)?, world.address("near", Family::V4)?);
    let packets: Vec<_> = (from..from + count)
        .map(|number| {
            let (sport, dport) =
                (1024 + (number % 60_000) as u16, 20_000 + (number / 60_000) as u16);
            datagram(src, dst, sport, dport, b"flood")
        })
        .collect();
    world.cluster.send_from("client", &packets)
}

/// The flow table is least-recently-used: connections that talk at least once while an eighth of
/// it is filled again keep their place, and one that lost it is judged again by its next packet.
#[test]
fn live_connections_survive_a_flood_of_new_flows() -> Result<()> {
    const LIVE: usize = 64;
    const ROUNDS: u32 = 16;
    let row = matrix::row("Flows", "live connections through a flood of twice the flow table");
    let mut world = World::new()?;
    // Conntrack has a table of its own, which is not in question.
    let untracked = "table ip flood {\n chain c {\n type filter hook prerouting priority raw;\n \
                     udp dport 20000-30000 notrack\n }\n}\n";
    world.cluster.namespace("node-1")?.nft(untracked)?;
    let rules = RULES.replace(
        "{port: 8443, protocol: UDP}",
        "{port: 8443, protocol: UDP}, {port: 20000, endPort: 30000, protocol: UDP}",
    );
    world.police_by(&rules, Family::V4)?;
    let to = SocketAddr::new(world.address("near", Family::V4)?, ALLOWED);
    let mut lines = open_lines(world.cluster.namespace("client")?, to, LIVE)?;
    let denied = world.counted("denied")?;
    let allowed = world.counted("allowed")?;
    let eighth = FLOWS.max_entries / 8;
    for round in 0..ROUNDS {
        flood(&world, round * eighth, eighth)?;
        for line in &mut lines {
            line.talk(round.into()).with_context(|| format!("after round {round}"))?;
        }
    }
    let new = world.counted("allowed")? - allowed;
    let lost = world.counted("denied")? - denied;
    println!("{new} new flows, {LIVE} live connections, {lost} packets of them dropped");
    ensure!(new >= u64::from(FLOWS.max_entries), "only {new} flows: no flood");
    row.holds();
    Ok(())
}

/// The agent meets connections it has not seen begin: what its policies allow continues.
#[test]
fn connections_older_than_the_agent_go_on_where_they_are_allowed() -> Result<()> {
    let row = matrix::row("Flows", "connections older than the agent, allowed and denied");
    let mut world = World::new()?;
    let client = world.cluster.namespace("client")?.clone();
    let mut lines = Vec::new();
    for family in Family::BOTH {
        for server in ["near", "far"] {
            lines.push(open_line(&client, &world, server, family, ALLOWED)?);
        }
    }
    let mut denied = open_line(&client, &world, "far", Family::V4, DENIED)?;
    world.police(Family::V4)?;
    for line in &mut lines {
        line.talk(1)?;
    }
    ensure!(denied.talk(1).is_err(), "a denied connection is cut");
    row.holds();
    Ok(())
}

/// What a server says on a connection that no rule allows, before any packet of the client was judged,
/// does not make the client's packets replies, whatever the server's port is.
#[test]
fn a_server_that_speaks_first_opens_nothing_for_its_denied_client() -> Result<()> {
    let row =
        matrix::row("Flows", "a denied connection older than the agent, and the server speaks");
    for (port, policed) in [(9555, false), (9555, true), (50_051, false), (50_051, true)] {
        let mut world = World::new()?;
        // Nobody else listens there, so nothing is said before it should be.
        let to = SocketAddr::new(world.address("far", Family::V4)?, port);
        let listener = world
            .cluster
            .namespace("far")?
            .run(|| Ok(TcpListener::bind(("0.0.0.0", to.port()))?))?;
        let mut client =
            world.cluster.namespace("internet")?.run(|| Ok(TcpStream::connect(to)?))?;
        let (mut server, _) = listener.accept()?;
        if policed {
            world.police_by(&ingress_only(), Family::V4)?;
        }
        client.set_read_timeout(Some(PATIENCE))?;
        server.set_read_timeout(Some(PATIENCE))?;
        let mut heard = [0; 6];
        server.write_all(b"banner")?;
        client.read_exact(&mut heard).context("the server may say what it likes")?;
        client.write_all(b"attack")?;
        ensure!(server.read_exact(&mut heard).is_err() == policed, "{port}, policed: {policed}");
    }
    row.holds();
    Ok(())
}

/// The same of datagrams. Where no port shows which side began, the client has tried since.
#[test]
fn a_datagram_of_a_server_opens_nothing_for_its_denied_client() -> Result<()> {
    let row = matrix::row("Flows", "a denied client of datagrams, and the server sends one");
    for (port, policed) in [(9555, false), (9555, true), (50_051, false), (50_051, true)] {
        let mut world = World::new()?;
        let to = SocketAddr::new(world.address("far", Family::V4)?, port);
        let bound = |namespace: &Namespace, port: u16| {
            let socket = namespace.run(|| Ok(UdpSocket::bind(("0.0.0.0", port))?))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            anyhow::Ok(socket)
        };
        let server = bound(world.cluster.namespace("far")?, port)?;
        let client = bound(world.cluster.namespace("internet")?, 40_000)?;
        let mut heard = [0; 6];
        client.send_to(b"before", to)?;
        let (_, from) = server.recv_from(&mut heard).context("nobody is policed yet")?;
        if policed {
            world.police_by(&ingress_only(), Family::V4)?;
        }
        if port > 32_768 {
            client.send_to(b"attack", to)?;
            ensure!(server.recv_from(&mut heard).is_err() == policed, "{port}: {policed}");
        }
        for _ in 0..2 {
            server.send_to(b"banner", from)?;
            client.recv_from(&mut heard).context("the server may say what it likes")?;
            client.send_to(b"attack", to)?;
            ensure!(server.recv_from(&mut heard).is_err() == policed, "{port}: {policed}");
        }
    }
    row.holds();
    Ok(())
}

/// A client that uses its port again at once, after a reset, has a new connection.
#[test]
fn a_port_is_used_again_at_once() -> Result<()> {
    let row = matrix::row("Flows", "a client's port used again right after a reset");
    let mut world = World::new()?;
    world.police(Family::V4)?;
    let to = SocketAddr::new(world.address("far", Family::V4)?, ALLOWED);
    world.cluster.namespace("client")?.run(|| {
        let from: SocketAddr = "0.0.0.0:5001".parse()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for round in 0..10 {
            let connect = async || {
                let socket = TcpSocket::new_v4()?;
                socket.set_reuseaddr(true)?;
                // Closing it resets.
                socket.set_zero_linger()?;
                socket.bind(from)?;
                timeout(PATIENCE, socket.connect(to)).await?
            };
            // A child that another test is just starting may hold the last one for a moment.
            let held = [ErrorKind::AddrInUse, ErrorKind::AddrNotAvailable];
            let mut attempts = 0..20;
            let stream = loop {
                match runtime.block_on(connect()) {
                    Err(error) if held.contains(&error.kind()) && attempts.next().is_some() => {
                        thread::sleep(Duration::from_millis(20));
                    }
                    connected => {
                        break connected.with_context(|| format!("round {round}"))?.into_std()?;
                    }
                }
            };
            stream.set_nonblocking(false)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut line = Line { stream: BufReader::new(stream) };
            line.hear().with_context(|| format!("round {round}"))?;
            line.talk(round)?;
        }
        Ok(())
    })?;
    row.holds();
    Ok(())
}
