//! Real traffic: one probe is one connection, datagram, echo or lookup, and what came of it.
//!
//! A probe runs on a thread of its own inside the source's namespace, so that a whole matrix takes
//! about as long as its slowest cell. Servers answer with who they are and whom they saw
//! ([`server`]): a probe knows not only that it got through, but as whom and to whom.

pub mod conversation;
mod dns;
mod icmp;
pub mod server;

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::Result;

use crate::netns::Namespace;

/// How long an answer may take where one is expected, on however busy a machine.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait where none is expected: a hundred times what an answer takes here.
pub const IMPATIENCE: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp(u16),
    Udp(u16),
    /// An ICMP echo request.
    Echo,
    /// A lookup over TCP or UDP, port 53.
    Dns {
        tcp: bool,
    },
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Reply(Reply),
    /// Nothing came back: what a dropped packet looks like.
    Timeout,
    /// A reset or "port unreachable": someone said no.
    Refused,
    /// An ICMP error said that there is no way.
    Unreachable,
    /// The probe itself went wrong.
    Failed(String),
}

/// What the server said. An echo reply says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub server: Option<String>,
    /// The source address the server saw.
    pub source: Option<IpAddr>,
    /// The port the server was reached at, after translation.
    pub port: Option<u16>,
}

impl Outcome {
    pub fn replied(&self) -> bool {
        matches!(self, Outcome::Reply(_))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Reply(Reply { server, source, .. }) => {
                f.write_str("reply")?;
                if let Some(server) = server {
                    write!(f, " of {server}")?;
                }
                if let Some(source) = source {
                    write!(f, ", which saw {source}")?;
                }
                Ok(())
            }
            Outcome::Timeout => f.write_str("time-out"),
            Outcome::Refused => f.write_str("refused"),
            Outcome::Unreachable => f.write_str("unreachable"),
            Outcome::Failed(why) => f.write_str(why),
        }
    }
}

/// Sends one probe from inside a namespace and waits for what comes of it.
pub fn probe(from: &Namespace, to: IpAddr, kind: Kind, patience: Duration) -> Outcome {
    let outcome: Result<io::Result<Reply>> = from.run(|| {
        Ok(match kind {
            Kind::Tcp(port) => tcp(SocketAddr::new(to, port), patience),
            Kind::Udp(port) => udp(SocketAddr::new(to, port), patience),
            Kind::Echo => icmp::echo(to, patience),
            Kind::Dns { tcp } => dns::lookup(SocketAddr::new(to, 53), tcp, patience),
        })
    });
    match outcome {
        Ok(Ok(reply)) => Outcome::Reply(reply),
        Ok(Err(error)) => Outcome::from(error),
        Err(error) => Outcome::Failed(format!("{error:#}")),
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Outcome::Timeout,
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Outcome::Refused,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable,
            // An administrative prohibition, and the reject of a route.
            ErrorKind::PermissionDenied => Outcome::Unreachable,
            _ => Outcome::Failed(error.to_string()),
        }
    }
}

fn tcp(to: SocketAddr, patience: Duration) -> io::Result<Reply> {
    let mut stream = connect(to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"hello\n")?;
    let mut banner = String::new();
    BufReader::new((&stream).take(512)).read_line(&mut banner)?;
    if !banner.ends_with('\n') {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(told(&banner))
}

/// Opens a connection. A first packet that was dropped is a timeout, and not mended in silence.
fn connect(to: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, patience)?;
    if retransmissions(&stream)? > 0 { Err(ErrorKind::TimedOut.into()) } else { Ok(stream) }
}

/// How many segments TCP has sent more than once.
fn retransmissions(stream: &TcpStream) -> io::Result<u32> {
    // SAFETY: all zeros is a value of this plain structure.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&info) as libc::socklen_t;
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the kernel writes at most `length` bytes.
    let got = unsafe {
        libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut info).cast(), &raw mut length)
    };
    if got == 0 { Ok(info.tcpi_total_retrans) } else { Err(io::Error::last_os_error()) }
}

fn udp(to: SocketAddr, patience: Duration) -> io::Result<Reply> {
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.connect(mapped(to)).map(|()| socket))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello")?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    Ok(told(&String::from_utf8_lossy(&answer[..length])))
}

/// One socket type serves both families: IPv4 as mapped addresses.
fn mapped(to: SocketAddr) -> SocketAddr {
    match to.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), to.port()),
        IpAddr::V6(_) => to,
    }
}

/// Reads `server source port`, the words of a server's answer.
fn told(text: &str) -> Reply {
    let mut words = text.split_whitespace();
    Reply {
        server: words.next().map(str::to_string),
        source: words.next().and_then(|word| word.parse().ok()),
        port: words.next().and_then(|word| word.parse().ok()),
    }
}
