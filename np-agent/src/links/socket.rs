//! The netlink socket: options, and a receive that tells from which namespace a message came.
//! netlink-sys has no receive with control data, where the kernel puts the namespace's id.

use std::{
    io, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr,
    time::Duration,
};

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};

use super::LinksError;

/// Larger than any datagram the kernel makes (32 KiB).
pub(super) const DATAGRAM: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Socket(netlink_sys::Socket);

/// One datagram; it holds one or more messages.
#[derive(Debug)]
pub(super) struct Datagram<'a> {
    pub(super) bytes: &'a [u8],
    /// The namespace the messages come from; none for the socket's own.
    pub(super) nsid: Option<i32>,
    pub(super) truncated: bool,
}

/// One message, undecoded.
#[derive(Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) payload: &'a [u8],
}

impl Socket {
    pub(super) fn open() -> Result<Self, LinksError> {
        let mut socket = netlink_sys::Socket::new(NETLINK_ROUTE).map_err(cause("socket"))?;
        socket
            .set_netlink_get_strict_chk(true)
            .map_err(|source| LinksError::StrictCheck { source })?;
        socket.bind_auto().map_err(cause("bind"))?;
        Ok(Self(socket))
    }

    pub(super) fn join(&self, groups: &[u32]) -> Result<(), LinksError> {
        groups.iter().try_for_each(|group| {
            self.0.add_membership(*group).map_err(cause("NETLINK_ADD_MEMBERSHIP"))
        })
    }

    /// Also hears the namespaces that have an id here.
    pub(super) fn listen_all_namespaces(&self) -> Result<(), LinksError> {
        self.0
            .set_listen_all_namespaces(true)
            .map_err(privileged("NETLINK_LISTEN_ALL_NSID", "CAP_NET_BROADCAST"))
    }

    /// Sets the receive buffer beyond the system's limit.
    pub(super) fn set_buffer(&self, bytes: libc::c_int) -> Result<(), LinksError> {
        self.set_option(libc::SO_RCVBUFFORCE, &bytes)
            .map_err(privileged("SO_RCVBUFFORCE", "CAP_NET_ADMIN"))
    }

    pub(super) fn set_timeout(&self, after: Duration) -> Result<(), LinksError> {
        let value = libc::timeval {
            tv_sec: after.as_secs().try_into().unwrap_or(i64::MAX),
            tv_usec: after.subsec_micros().into(),
        };
        self.set_option(libc::SO_RCVTIMEO, &value).map_err(cause("SO_RCVTIMEO"))
    }

    pub(super) fn send(&self, bytes: &[u8]) -> Result<(), LinksError> {
        self.0.send_to(bytes, &SocketAddr::new(0, 0), 0).map_err(cause("send"))?;
        Ok(())
    }

    /// Whether a receive would return at once, with a datagram or an error. Consumes neither.
    pub(super) fn is_ready(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `poll` is one valid pollfd, as the count says.
        unsafe { libc::poll(&mut poll, 1, 0) > 0 }
    }

    /// Receives one datagram of the kernel's; `flags` as in recvmsg(2).
    pub(super) fn receive<'a>(
        &self,
        buffer: &'a mut [u8],
        flags: libc::c_int,
    ) -> io::Result<Datagram<'a>> {
        loop {
            let received = self.receive_message(buffer, flags)?;
            // Another process may send here too; only the kernel is believed.
            if received.port == 0 {
                let Received { length, nsid, truncated, .. } = received;
                let bytes = buffer.get(..length).unwrap_or_default();
                return Ok(Datagram { bytes, nsid, truncated });
            }
        }
    }

    fn receive_message(&self, buffer: &mut [u8], flags: libc::c_int) -> io::Result<Received> {
        // u64: cmsghdr wants the alignment of size_t.
        let mut control = [0u64; 8];
        let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: all zeroes is a valid value of both C structs.
        let (mut from, mut header): (libc::sockaddr_nl, libc::msghdr) = unsafe { mem::zeroed() };
        header.msg_name = ptr::from_mut(&mut from).cast();
        header.msg_namelen = size_of_val(&from) as libc::socklen_t;
        header.msg_iov = &mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        // Of another type in musl than in glibc.
        header.msg_controllen = size_of_val(&control) as _;

        let length = loop {
            // SAFETY: every pointer in `header` is to a live local or to `buffer`, with its length.
            let result = unsafe { libc::recvmsg(self.as_raw_fd(), &mut header, flags) };
            match usize::try_from(result) {
                Ok(length) => break length,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        };
        let mut nsid = None;
        // SAFETY: the kernel filled `control` up to msg_controllen; the macros walk only that.
        let mut item = unsafe { libc::CMSG_FIRSTHDR(&header) };
        // SAFETY: `item` is null or points at a whole cmsghdr within `control`.
        while let Some(control) = unsafe { item.as_ref() } {
            if control.cmsg_level == libc::SOL_NETLINK
                && control.cmsg_type == libc::NETLINK_LISTEN_ALL_NSID
            {
                // SAFETY: this control message carries one i32, perhaps unaligned.
                nsid = Some(unsafe { libc::CMSG_DATA(item).cast::<i32>().read_unaligned() });
            }
            // SAFETY: as for CMSG_FIRSTHDR.
            item = unsafe { libc::CMSG_NXTHDR(&header, item) };
        }
        let truncated = header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        Ok(Received { length, nsid, truncated, port: from.nl_pid })
    }

    fn set_option<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: `value` is a live T and its size is passed along.
        let result = unsafe {
            libc::setsockopt(
                self.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Received {
    length: usize,
    nsid: Option<i32>,
    truncated: bool,
    port: u32,
}

/// The messages of one datagram; ends at the first broken header.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = message.length() as usize;
        let item = Message {
            kind: message.message_type(),
            flags: message.flags(),
            sequence: message.sequence_number(),
            payload: bytes.get(NLMSG_HEADER..length)?,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(item)
    })
}

/// sizeof(struct nlmsghdr).
const NLMSG_HEADER: usize = 16;

fn cause(action: &'static str) -> impl FnOnce(io::Error) -> LinksError {
    move |source| LinksError::Socket { action, source }
}

fn privileged(
    option: &'static str,
    capability: &'static str,
) -> impl FnOnce(io::Error) -> LinksError {
    move |source| match source.raw_os_error() {
        Some(libc::EPERM) => LinksError::Capability { option, capability },
        _ => LinksError::Socket { action: option, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = (NLMSG_HEADER + payload.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn messages_of_a_datagram_are_split_at_aligned_lengths() {
        let bytes = [message(16, &[1, 2, 3]), message(17, &[4])].concat();
        let found: Vec<_> = messages(&bytes).map(|m| (m.kind, m.payload.to_vec())).collect();
        assert_eq!(found, [(16, vec![1, 2, 3]), (17, vec![4])]);
    }

    #[test]
    fn a_broken_header_ends_the_datagram_without_a_panic() {
        let mut bytes = [message(16, &[1]), message(17, &[4])].concat();
        for length in [0u32, 3, 15, u32::MAX] {
            let second = message(16, &[1]).len();
            bytes[second..second + 4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&bytes).map(|m| m.kind).collect::<Vec<_>>(), [16]);
        }
        assert_eq!(messages(&bytes[..7]).count(), 0);
    }
}
