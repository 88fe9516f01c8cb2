//! One agent in a network namespace: held by a socket whose name the namespace has once.
//!
//! A file would tell agents of one directory from each other, not those that share devices.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use super::error::DataplaneError;

const NAME: &[u8] = b"np-agent.lock";

/// Held by the one agent of a network namespace; the kernel lets go of it with the process.
#[derive(Debug)]
pub struct NamespaceLock {
    _held: Option<UnixListener>,
}

impl NamespaceLock {
    /// Takes the lock in the network namespace of the calling thread.
    pub fn take() -> Result<Self, DataplaneError> {
        let failed = || DataplaneError::file("take the lock", "@np-agent.lock".as_ref());
        let address = SocketAddr::from_abstract_name(NAME).map_err(failed())?;
        match UnixListener::bind_addr(&address) {
            Ok(held) => Ok(Self { _held: Some(held) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let holder = UnixStream::connect_addr(&address).and_then(|it| peer(&it));
                match holder {
                    // Anybody in the namespace can take the name; that must not keep policy off.
                    Ok(holder) if holder.uid != 0 => {
                        tracing::warn!(
                            pid = holder.pid,
                            uid = holder.uid,
                            "a process that is not root's holds np-agent's lock: ignored"
                        );
                        Ok(Self { _held: None })
                    }
                    Ok(holder) => Err(DataplaneError::Running { pid: holder.pid }),
                    // It went this instant, or is full of connections.
                    Err(_) => Err(DataplaneError::Running { pid: 0 }),
                }
            }
            Err(error) => Err(failed()(error)),
        }
    }
}

/// Who listens at the other end.
fn peer(stream: &UnixStream) -> io::Result<libc::ucred> {
    let mut ucred = MaybeUninit::<libc::ucred>::uninit();
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `ucred` has room for `length` bytes, and both live through the call.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ucred.as_mut_ptr().cast(),
            &mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it filled in `ucred`.
    Ok(unsafe { ucred.assume_init() })
}
