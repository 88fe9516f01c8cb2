//! Frames by AF_PACKET: sent as they are, and captured where they arrive.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::netns::Namespace;

const VNET_HEADER: usize = 10;

/// A packet socket on one device of a namespace.
#[derive(Debug)]
pub struct Raw {
    socket: OwnedFd,
    vnet: bool,
}

impl Raw {
    pub fn open(inside: &Namespace, device: &str) -> Result<Self> {
        inside
            .run(|| {
                let every = (libc::ETH_P_ALL as u16).to_be();
                let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
                // SAFETY: the call takes no pointers.
                let fd = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(every)) };
                ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
                // SAFETY: the descriptor is new and nobody else's.
                let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                let ifindex = nix::net::if_::if_nametoindex(device)?;
                let address = link_address(ifindex as i32, every);
                let length = size_of_val(&address) as u32;
                // SAFETY: the address is a sockaddr_ll of the length given.
                let bound = unsafe { libc::bind(fd, (&raw const address).cast(), length) };
                ensure!(bound == 0, "bind: {}", io::Error::last_os_error());
                Ok(Self { socket, vnet: false })
            })
            .with_context(|| format!("a packet socket on {device} of {}", inside.name()))
    }

    /// Sends with only the Ethernet header in the skb's linear part, if a frame is of a page or
    /// more.
    pub fn with_short_linear_part(mut self) -> Result<Self> {
        const PACKET_VNET_HDR: libc::c_int = 15;
        let on: libc::c_int = 1;
        // SAFETY: the option's value is an int that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_VNET_HDR,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            )
        };
        ensure!(set == 0, "PACKET_VNET_HDR: {}", io::Error::last_os_error());
        self.vnet = true;
        Ok(self)
    }

    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        if self.vnet {
            // struct virtio_net_hdr: no offload, a header of 14 bytes.
            bytes.extend([0, 0]);
            bytes.extend(14u16.to_ne_bytes());
            bytes.resize(VNET_HEADER, 0);
        }
        bytes.extend(frame);
        let fd = self.socket.as_raw_fd();
        // SAFETY: the buffer is as long as the call says.
        let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), 0) };
        ensure!(sent == bytes.len() as isize, "send: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The frames that came in and hold `marker`, until there are `enough` or time is up.
    pub fn capture(&self, marker: &[u8], enough: usize, within: Duration) -> Result<Vec<Vec<u8>>> {
        let end = Instant::now() + within;
        let mut found = Vec::new();
        let mut buffer = vec![0u8; 1 << 16];
        while found.len() < enough {
            let left = end.saturating_duration_since(Instant::now());
            let mut poll =
                libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd that outlives the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
            ensure!(ready >= 0, "poll: {}", io::Error::last_os_error());
            if ready == 0 {
                break;
            }
            let mut from = link_address(0, 0);
            let mut length = size_of_val(&from) as u32;
            // SAFETY: both buffers are as long as the call says.
            let got = unsafe {
                libc::recvfrom(
                    poll.fd,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    0,
                    (&raw mut from).cast(),
                    &raw mut length,
                )
            };
            ensure!(got >= 0, "recv: {}", io::Error::last_os_error());
            // What the host itself sends (an error that quotes the packet, say) is no arrival.
            let frame = &buffer[..got as usize];
            if from.sll_pkttype != libc::PACKET_OUTGOING
                && frame.windows(marker.len()).any(|window| window == marker)
            {
                found.push(frame.to_vec());
            }
        }
        Ok(found)
    }
}

/// A device, and the protocol in network byte order, as packet sockets name them.
pub(crate) fn link_address(ifindex: i32, protocol: u16) -> libc::sockaddr_ll {
    libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol,
        sll_ifindex: ifindex,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    }
}
