//! A tunnel in a process, as flanneld's udp backend is one: packets from a tun device go to the
//! node that holds their destination as datagrams, and datagrams from nodes into the device.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::Namespace;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Forwarder {
    /// Closed to stop the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Forwarder {
    /// Makes the tun device and starts forwarding to each block's node on a UDP port.
    pub(super) fn start(
        inside: &Namespace,
        device: &str,
        port: u16,
        ways: Vec<(Ipv4Net, Ipv4Addr)>,
    ) -> Result<Self> {
        let (tun, socket) = inside
            .run(|| {
                let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
                socket.set_nonblocking(true)?;
                Ok((open_tun(device)?, socket))
            })
            .with_context(|| format!("make the tun device {device} in {}", inside.name()))?;
        let (stop, stopped) = UnixStream::pair().context("make a pair of sockets")?;
        let thread = thread::Builder::new()
            .name(format!("forwarder of {}", inside.name()))
            .spawn(move || {
                if let Err(error) = forward(tun, &socket, port, &stopped, &ways) {
                    eprintln!("a forwarder has ended: {error}");
                }
            })
            .context("start the thread of a forwarder")?;
        Ok(Self { stop: Some(stop.into()), thread: Some(thread) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the thread of a forwarder panicked");
        }
    }
}

fn forward(
    mut tun: File,
    socket: &UdpSocket,
    port: u16,
    stopped: &UnixStream,
    ways: &[(Ipv4Net, Ipv4Addr)],
) -> io::Result<()> {
    let mut packet = [0; 2048];
    loop {
        let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds = [stopped.as_fd(), tun.as_fd(), socket.as_fd()].map(wanted);
        poll(&mut fds, PollTimeout::NONE)?;
        let [stop, from_tun, from_node] = fds.map(|fd| fd.any().unwrap_or(true));
        if stop {
            return Ok(());
        }
        if from_tun {
            let length = tun.read(&mut packet)?;
            if let Some(to) = way(&packet[..length], ways) {
                // A datagram that cannot be sent is lost, like any packet.
                socket.send_to(&packet[..length], (to, port)).unwrap_or_default();
            }
        }
        if from_node && let Ok((length, _)) = socket.recv_from(&mut packet) {
            // As is one that the device does not take.
            tun.write(&packet[..length]).unwrap_or_default();
        }
    }
}

/// The node behind which an IPv4 packet's destination is.
fn way(packet: &[u8], ways: &[(Ipv4Net, Ipv4Addr)]) -> Option<Ipv4Addr> {
    let destination: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let destination = Ipv4Addr::from(destination);
    let version = packet.first()? >> 4;
    let (_, node) = ways.iter().find(|(block, _)| version == 4 && block.contains(&destination))?;
    Some(*node)
}

fn open_tun(device: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zeros are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives until after the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file) }
}
