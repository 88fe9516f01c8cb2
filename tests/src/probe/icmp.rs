//! ICMP echo over a raw socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::Reply;

/// Sends one echo request and waits for its reply.
pub(super) fn echo(to: IpAddr, patience: Duration) -> io::Result<Reply> {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let (family, protocol, request, reply) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    // Connecting, sending and time-outs are the same calls on any datagram socket.
    let socket = UdpSocket::from(raw);
    socket.connect(SocketAddr::new(to, 0))?;
    let mut message = [request, 0, 0, 0, id[0], id[1], 0, 1, b'n', b'p'];
    if to.is_ipv4() {
        // The kernel sums ICMPv6 itself.
        let sum = checksum(&message).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
    }
    socket.send(&message)?;

    let end = Instant::now() + patience;
    let mut buffer = [0; 512];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        // A raw IPv4 socket hands out the IP header too.
        let start = if to.is_ipv4() { usize::from(buffer[0] & 15) * 4 } else { 0 };
        match buffer.get(start..length) {
            Some([kind, _, _, _, a, b, ..]) if *kind == reply && [*a, *b] == id => {
                return Ok(Reply::default());
            }
            _ => {}
        }
    }
}

fn checksum(message: &[u8]) -> u16 {
    let sum: u32 = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
