//! Load between two namespaces, and what it took.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use np_tests::netns::Namespace;
use np_tests::offload::{SET_GSO, SET_TSO, set_offload};

use crate::{median, quantile};

pub const CONNECT: u16 = 7000;
pub const EXCHANGE: u16 = 7001;
pub const SINK: u16 = 7002;
pub const STREAM: u16 = 7003;

const CONNECTIONS: usize = 400;
const EXCHANGES: usize = 1000;
const DATAGRAMS: usize = 20_000;
const STREAMED: usize = 192 << 20;
const STREAMED_BY_MTU: usize = 48 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// The names and units of what is measured, in the order of [`sample`].
pub const MEASURES: [(&str, &str); 7] = [
    ("connection, p50", "s"),
    ("connection, p99", "s"),
    ("UDP exchange, p50", "s"),
    ("UDP exchange, p99", "s"),
    ("one-way UDP, per packet", "s"),
    ("TCP stream, per byte", "s"),
    ("TCP stream in packets of the MTU, per byte", "s"),
];

pub type Sample = [f64; MEASURES.len()];

/// Starts servers that live as long as the process.
pub fn serve(inside: &Namespace) -> Result<()> {
    inside.run(|| {
        let connect = TcpListener::bind(("0.0.0.0", CONNECT))?;
        let stream = TcpListener::bind(("0.0.0.0", STREAM))?;
        let exchange = UdpSocket::bind(("0.0.0.0", EXCHANGE))?;
        let sink = UdpSocket::bind(("0.0.0.0", SINK))?;
        thread::spawn(move || {
            for mut client in connect.incoming().flatten() {
                let mut byte = [0];
                // A client that leaves is the client's to report.
                let _gone = client.read_exact(&mut byte).and_then(|()| client.write_all(&byte));
            }
        });
        thread::spawn(move || {
            for mut client in stream.incoming().flatten() {
                let mut buffer = vec![0; 1 << 18];
                while client.read(&mut buffer).is_ok_and(|length| length > 0) {}
                let _gone = client.write_all(&[1]);
            }
        });
        thread::spawn(move || {
            on_one_cpu();
            let mut buffer = [0; 2048];
            while let Ok((length, peer)) = exchange.recv_from(&mut buffer) {
                let _gone = exchange.send_to(&buffer[..length], peer);
            }
        });
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while sink.recv(&mut buffer).is_ok() {}
        });
        Ok(())
    })
}

/// Keeps both sides of an exchange on one CPU: to wake another takes longer than the exchange.
fn on_one_cpu() {
    let mut set = CpuSet::new();
    // Where that cannot be, they run anywhere: the control shows what that does.
    let _anywhere = set.set(0).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

/// One sample of each of [`MEASURES`].
pub fn sample(from: &Namespace, to: IpAddr) -> Result<Sample> {
    let [connect, connect_tail, exchange, exchange_tail, one_way, whole] = from.run(|| {
        let [connect, connect_tail] = connections(SocketAddr::new(to, CONNECT))?;
        let exchanges = thread::spawn(move || exchanges(SocketAddr::new(to, EXCHANGE)));
        let [exchange, exchange_tail] = exchanges.join().expect("it does not panic")?;
        let one_way = one_way(SocketAddr::new(to, SINK))?;
        let stream = stream(SocketAddr::new(to, STREAM), STREAMED)?;
        Ok([connect, connect_tail, exchange, exchange_tail, one_way, stream])
    })?;
    segment(from, true)?;
    let by_mtu = from.run(|| stream(SocketAddr::new(to, STREAM), STREAMED_BY_MTU));
    segment(from, false)?;
    Ok([connect, connect_tail, exchange, exchange_tail, one_way, whole, by_mtu?])
}

/// Lets the client's device take nothing longer than its MTU, or again what there is.
fn segment(from: &Namespace, on: bool) -> Result<()> {
    [SET_TSO, SET_GSO].into_iter().try_for_each(|command| set_offload(from, "eth0", command, !on))
}

/// Connect, one byte there, one back.
fn connections(to: SocketAddr) -> Result<[f64; 2]> {
    let mut took = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let start = Instant::now();
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
        stream.set_nodelay(true)?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        took.push(start.elapsed().as_secs_f64());
    }
    Ok([median(&mut took), quantile(&mut took, 0.99)])
}

fn exchanges(to: SocketAddr) -> Result<[f64; 2]> {
    on_one_cpu();
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut took = Vec::with_capacity(EXCHANGES);
    for _ in 0..EXCHANGES {
        let start = Instant::now();
        socket.send(&[1; 64])?;
        socket.recv(&mut [0; 64]).context("an answer by UDP")?;
        took.push(start.elapsed().as_secs_f64());
    }
    Ok([median(&mut took), quantile(&mut took, 0.99)])
}

/// On a veth the sender walks the whole path: what sending takes is what the path costs.
fn one_way(to: SocketAddr) -> Result<f64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(to)?;
    let start = Instant::now();
    for _ in 0..DATAGRAMS {
        socket.send(&[1; 64])?;
    }
    Ok(start.elapsed().as_secs_f64() / DATAGRAMS as f64)
}

fn stream(to: SocketAddr, bytes: usize) -> Result<f64> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
    let chunk = vec![1; 1 << 18];
    let start = Instant::now();
    for _ in 0..bytes / chunk.len() {
        stream.write_all(&chunk)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut end = [0];
    stream.read_exact(&mut end)?;
    ensure!(end == [1], "the server has all of it");
    Ok(start.elapsed().as_secs_f64() / bytes as f64)
}
