//! Servers that tell a client who they are and as whom they saw it.
//!
//! Sockets are opened inside each host's namespace and stay there; one thread outside serves them
//! all. TCP answers a connection with `server source port`, then returns every line it gets. UDP
//! answers a datagram with the same three words and the datagram itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::dns;
use crate::netns::Namespace;

/// What a host listens on, in both families.
#[derive(Clone, Copy, Debug)]
pub struct Listen {
    pub tcp: &'static [u16],
    pub udp: &'static [u16],
    /// DNS on port 53, TCP and UDP.
    pub dns: bool,
}

impl Listen {
    pub const NOTHING: Self = Self { tcp: &[], udp: &[], dns: false };
}

/// The servers of a cluster. They stop when the value is dropped.
#[derive(Debug)]
pub struct Servers {
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The names a DNS server knows.
type Zone = Arc<Vec<(String, Ipv4Addr)>>;

impl Servers {
    pub fn new() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start the runtime of the servers")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("servers".into())
            .spawn(move || {
                // An error means that the sender is gone, which stops the servers likewise.
                runtime.block_on(async { stopped.await.unwrap_or_default() });
            })
            .context("start the thread of the servers")?;
        Ok(Self { runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Opens the sockets of one host and serves them from now on.
    pub fn start(
        &mut self,
        name: &'static str,
        inside: &Namespace,
        listen: Listen,
        zone: &[(String, Ipv4Addr)],
    ) -> Result<()> {
        let dns: &[u16] = if listen.dns { &[53] } else { &[] };
        let (tcp, udp) = inside
            .run(|| {
                let tcp = listen.tcp.iter().chain(dns).map(|&port| {
                    let listener = std::net::TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
                    listener.set_nonblocking(true)?;
                    Ok((port, listener))
                });
                let udp = listen.udp.iter().chain(dns).map(|&port| {
                    let socket = std::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
                    socket.set_nonblocking(true)?;
                    Ok((port, socket))
                });
                let tcp = tcp.collect::<io::Result<Vec<_>>>()?;
                Ok((tcp, udp.collect::<io::Result<Vec<_>>>()?))
            })
            .with_context(|| format!("listen in {name}"))?;
        let zone: Zone = Arc::new(zone.to_vec());
        // Sockets register with the runtime that is current where they are converted.
        let _entered = self.runtime.enter();
        for (port, listener) in tcp {
            let zone = listen.dns.then(|| Arc::clone(&zone)).filter(|_| port == 53);
            self.runtime.spawn(serve_tcp(name, port, TcpListener::from_std(listener)?, zone));
        }
        for (port, socket) in udp {
            let zone = listen.dns.then(|| Arc::clone(&zone)).filter(|_| port == 53);
            self.runtime.spawn(serve_udp(name, port, UdpSocket::from_std(socket)?, zone));
        }
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of the servers panicked");
        }
    }
}

async fn serve_tcp(name: &'static str, port: u16, listener: TcpListener, zone: Option<Zone>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let zone = zone.clone();
                tokio::spawn(async move {
                    let served = match zone {
                        Some(zone) => converse_dns(name, stream, peer, &zone).await,
                        None => converse(name, port, stream, peer).await,
                    };
                    // A client that leaves is no fault of the server; the client reports it.
                    served.unwrap_or_default();
                });
            }
            Err(error) => eprintln!("{name}: accept on port {port}: {error}"),
        }
    }
}

async fn converse(
    name: &str,
    port: u16,
    mut stream: TcpStream,
    peer: SocketAddr,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{name} {} {port}\n", seen(peer)).as_bytes()).await?;
    let mut buffer = vec![0; 16_384];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}

async fn converse_dns(
    name: &str,
    mut stream: TcpStream,
    peer: SocketAddr,
    zone: &Zone,
) -> io::Result<()> {
    let mut query = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut query).await?;
    match dns::answer(&query, name, seen(peer), zone) {
        Some(answer) => stream.write_all(&dns::framed(&answer)).await,
        None => Ok(()),
    }
}

async fn serve_udp(name: &'static str, port: u16, socket: UdpSocket, zone: Option<Zone>) {
    let mut buffer = vec![0; 65_535];
    loop {
        // An ICMP error of an earlier answer surfaces here; the next datagram is not its fault.
        let Ok((length, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = &buffer[..length];
        let answer = match &zone {
            Some(zone) => dns::answer(datagram, name, seen(peer), zone),
            None => {
                let mut answer = format!("{name} {} {port} ", seen(peer)).into_bytes();
                answer.extend_from_slice(datagram);
                Some(answer)
            }
        };
        if let Some(answer) = answer {
            socket.send_to(&answer, peer).await.unwrap_or_default();
        }
    }
}

fn seen(peer: SocketAddr) -> IpAddr {
    peer.ip().to_canonical()
}
