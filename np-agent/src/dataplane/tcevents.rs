//! Events of traffic control: somebody made, changed or removed a qdisc or a filter.

use std::collections::BTreeSet;
use std::io;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::error::DataplaneError;
use super::rtnetlink::{DATAGRAM, TcReply, messages};
use np_policy::model::IfIndex;

/// A subscription in the network namespace of the thread that opens it.
#[derive(Debug)]
pub struct TcEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

impl TcEvents {
    pub fn open() -> Result<Self, DataplaneError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.add_membership(libc::RTNLGRP_TC)?;
            Ok(socket)
        };
        let socket = open().map_err(DataplaneError::file("subscribe to", "RTNLGRP_TC".as_ref()))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Waits for the next ones: the devices that they are about, or none when that is unknown,
    /// because events were lost or are about a block of several devices.
    pub fn wait(&mut self) -> io::Result<Option<BTreeSet<IfIndex>>> {
        let (length, _): (usize, SocketAddr) =
            match self.socket.recv_from(&mut &mut self.buffer[..], 0) {
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                other => other?,
            };
        let mut devices = BTreeSet::new();
        for (_, payload) in messages(self.buffer.get(..length).unwrap_or_default()) {
            match TcReply::decode(payload) {
                Some(TcReply { ifindex, .. }) if i32::try_from(ifindex).is_ok() => {
                    devices.insert(IfIndex(ifindex));
                }
                // `TCM_IFINDEX_MAGIC_BLOCK`, include/uapi/linux/rtnetlink.h.
                _ => return Ok(None),
            }
        }
        Ok(Some(devices))
    }
}
