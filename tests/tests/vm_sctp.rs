//! SCTP by real associations: to pods of both nodes and through a Service, allowed by port and
//! denied. The kernel module is in few builds; on a kernel without it this fails and says so.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect,
    listen, socket,
};
use np_tests::address::Family;
use np_tests::agent::{Agents, POLICIES};
use np_tests::matrix;
use np_tests::netns::Namespace;
use np_tests::probe::{IMPATIENCE, PATIENCE};
use np_tests::proxy::{Mode, Protocol, Service};
use np_tests::topology::Cluster;
use np_tests::topology::plan::{address, pod, two_nodes};

const RULES: &str = r#"apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: client, namespace: default}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
    - to: [{podSelector: {matchLabels: {app: server}}}]
      ports: [{port: 3868, protocol: SCTP}, {port: 9868, protocol: TCP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: server, namespace: default}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
    - from: [{podSelector: {matchLabels: {app: client}}}]
      ports: [{port: 3868, protocol: SCTP}]
"#;

const ALLOWED: u16 = 3868;
/// Allowed for TCP, on one side.
const DENIED: u16 = 9868;
const SERVICE: u16 = 38_412;

#[test]
fn associations_are_judged_by_port() -> Result<()> {
    let row = matrix::row("Traffic", "SCTP: associations between pods and through a Service");
    let mut service =
        Service::new("diameter", "default", address("100.64.5.20"), (SERVICE, ALLOWED), &["far"]);
    service.ports.iter_mut().for_each(|port| port.protocol = Protocol::Sctp);
    let mut spec = two_nodes(vec![
        pod("client", "node-1", "100.68.1.10", &[("app", "client")]),
        pod("near", "node-1", "100.68.1.20", &[("app", "server")]),
        pod("far", "node-2", "100.68.2.20", &[("app", "server")]),
        pod("stranger", "node-2", "100.68.2.30", &[]),
    ]);
    spec.services.push(service);
    let cluster = Cluster::build(spec, Mode::Iptables)?;
    for name in ["near", "far"] {
        for family in Family::BOTH {
            let own = cluster.address(name, family)?;
            for port in [ALLOWED, DENIED] {
                serve(cluster.namespace(name)?, SocketAddr::new(own, port))?;
            }
        }
    }
    let client = ["near", "far"].map(|server| ("client", server));
    let all = client.into_iter().chain([("stranger", "far")]);
    let ways: Vec<_> =
        all.flat_map(|(from, to)| [(from, to, ALLOWED), (from, to, DENIED)]).collect();
    let ways = [ways, vec![("client", "diameter", SERVICE)]].concat();
    let check = |when: &str, expected: fn(&str, u16) -> bool| -> Result<()> {
        for family in Family::BOTH {
            for &(from, to, port) in &ways {
                let expected = expected(from, port);
                let address = SocketAddr::new(cluster.address(to, family)?, port);
                let answered = asks(cluster.namespace(from)?, address, expected)?;
                ensure!(answered == expected, "{when}: {from} → {to}:{port}: answered: {answered}");
            }
        }
        Ok(())
    };
    check("no agents", |_, _| true)?;
    let mut agents = Agents::start(&cluster)?;
    check("agents, no policy", |_, _| true)?;
    agents.apply(POLICIES, Some(RULES))?;
    check("policies", |from, port| from == "client" && port != DENIED)?;
    row.holds();
    Ok(())
}

fn sctp(own: IpAddr) -> Result<OwnedFd> {
    let family = if own.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Sctp)
        .context("an SCTP socket: the kernel module sctp")
}

/// Sends back what it gets, for as long as the test runs.
fn serve(inside: &Namespace, own: SocketAddr) -> Result<()> {
    // One-to-one sockets are those of TCP with another protocol.
    let listener = inside.run(|| {
        let socket = sctp(own.ip())?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(own))?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(TcpListener::from(socket))
    })?;
    thread::spawn(move || -> io::Result<()> {
        for stream in listener.incoming() {
            let mut stream = stream?;
            thread::spawn(move || io::copy(&mut stream.try_clone()?, &mut stream));
        }
        Ok(())
    });
    Ok(())
}

/// Whether an association comes about and carries data both ways.
fn asks(from: &Namespace, to: SocketAddr, expected: bool) -> Result<bool> {
    let patience = if expected { PATIENCE } else { IMPATIENCE };
    from.run(|| {
        let mut stream = TcpStream::from(sctp(to.ip())?);
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        if connect(stream.as_raw_fd(), &SockaddrStorage::from(to)).is_err() {
            return Ok(false);
        }
        let mut answer = [0; 5];
        stream.write_all(b"hello")?;
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"hello")
    })
}
