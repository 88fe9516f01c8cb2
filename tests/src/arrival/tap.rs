//! What goes in and out of hosts' devices, captured where it happens.
//!
//! One thread reads all taps. The time of a frame is the kernel's own, taken when it passed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use super::host::HostId;
use crate::netns::Namespace;
use crate::raw::link_address;

/// Nanoseconds since the epoch: the clock of the kernel's time stamps.
pub type Time = u64;

pub const MILLISECOND: Time = 1_000_000;
pub const SECOND: Time = 1000 * MILLISECOND;

pub fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as Time)
}

/// A frame on a host's device.
#[derive(Clone, Debug)]
pub struct Frame {
    pub host: HostId,
    pub time: Time,
    pub outgoing: bool,
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
struct Tap {
    host: HostId,
    socket: OwnedFd,
}

/// The thread that reads all taps. It ends when the value is dropped.
#[derive(Debug)]
pub struct Taps {
    all: Arc<Mutex<Vec<Tap>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Taps {
    pub fn new(hear: impl Fn(Frame) + Send + 'static) -> Result<Self> {
        let (all, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (taps, end) = (Arc::clone(&all), Arc::clone(&stop));
        let listen = move || {
            let mut buffer = vec![0; 1 << 16];
            while !end.load(Ordering::Relaxed) {
                let taps = taps.lock().unwrap_or_else(PoisonError::into_inner);
                if !drain(&taps, &mut buffer, &hear) {
                    drop(taps);
                    thread::sleep(std::time::Duration::from_millis(2));
                }
            }
        };
        let named = thread::Builder::new().name("taps".into());
        let thread = Some(named.spawn(listen).context("start the thread that captures")?);
        Ok(Self { all, stop, thread })
    }

    /// Captures on a device of a host from now on.
    pub fn add(&self, host: HostId, inside: &Namespace, device: &str) -> Result<()> {
        let tap = Tap { host, socket: open(inside, device)? };
        self.all.lock().unwrap_or_else(PoisonError::into_inner).push(tap);
        Ok(())
    }

    /// Ends the capture of a host, whose device is gone, and returns the frames that the kernel had
    /// no room for.
    pub fn remove(&self, host: HostId) -> Result<u32> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = 0;
        for tap in all.iter().filter(|tap| tap.host == host) {
            lost += lost_frames(&tap.socket)?;
        }
        all.retain(|tap| tap.host != host);
        Ok(lost)
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("the thread that captures panicked");
        }
    }
}

/// Reads what is there; false when nothing was.
fn drain(taps: &[Tap], buffer: &mut [u8], hear: &impl Fn(Frame)) -> bool {
    let mut any = false;
    for tap in taps {
        for _ in 0..256 {
            let Some(frame) = receive(tap, buffer) else { break };
            any = true;
            hear(frame);
        }
    }
    any
}

fn receive(tap: &Tap, buffer: &mut [u8]) -> Option<Frame> {
    let mut from = link_address(0, 0);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut control = [0u64; 16];
    // SAFETY: all zeros is a value of this plain structure.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = size_of_val(&from) as u32;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: every buffer of the message lives and is as long as it says.
    let got =
        unsafe { libc::recvmsg(tap.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    // Nothing there, or a device that went down, which is reported once.
    let length = usize::try_from(got).ok()?;
    let outgoing = from.sll_pkttype == libc::PACKET_OUTGOING;
    let time = time_stamp(&message).unwrap_or_else(now);
    Some(Frame { host: tap.host, time, outgoing, bytes: buffer[..length].to_vec() })
}

fn time_stamp(message: &libc::msghdr) -> Option<Time> {
    // SAFETY: the kernel filled in the message, whose control buffer is alive.
    let mut part = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !part.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return a header in the buffer, or null.
        let header = unsafe { *part };
        if header.cmsg_level == libc::SOL_SOCKET && header.cmsg_type == libc::SCM_TIMESTAMPNS {
            // SAFETY: the data of this type is a timespec, maybe not aligned.
            let time: libc::timespec =
                unsafe { libc::CMSG_DATA(part).cast::<libc::timespec>().read_unaligned() };
            return Some(time.tv_sec as Time * SECOND + time.tv_nsec as Time);
        }
        // SAFETY: as above.
        part = unsafe { libc::CMSG_NXTHDR(message, part) };
    }
    None
}

fn open(inside: &Namespace, device: &str) -> Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let open = || {
        // Protocol 0 hears nothing until it is bound: no frame of another device is among them.
        let socket = packet_socket()?;
        let fd = socket.as_raw_fd();
        option(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16 << 20)?;
        option(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let address = link_address(ifindex as i32, every);
        // SAFETY: the address is a sockaddr_ll of the length given.
        let bound =
            unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) };
        ensure!(bound == 0, "bind: {}", io::Error::last_os_error());
        Ok(socket)
    };
    inside.run(open).with_context(|| format!("a tap on {device} of {}", inside.name()))
}

fn packet_socket() -> Result<OwnedFd> {
    // SAFETY: the call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    ensure!(fd >= 0, "packet socket: {}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn option(fd: i32, level: i32, name: i32, value: libc::c_int) -> Result<()> {
    // SAFETY: the option's value is an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of_val(&value) as u32)
    };
    ensure!(set == 0, "option {name} of a packet socket: {}", io::Error::last_os_error());
    Ok(())
}

fn lost_frames(socket: &OwnedFd) -> Result<u32> {
    // tp_packets and tp_drops.
    let mut statistics = [0u32; 2];
    let mut length = size_of_val(&statistics) as u32;
    // SAFETY: the buffer is as long as the call says.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    ensure!(got == 0, "statistics of a packet socket: {}", io::Error::last_os_error());
    Ok(statistics[1])
}

/// A device to send frames by, from any thread.
#[derive(Debug)]
pub struct Muzzle {
    socket: OwnedFd,
    ifindex: i32,
}

impl Muzzle {
    pub fn open(inside: &Namespace, device: &str) -> Result<Self> {
        let open = || {
            let ifindex = nix::net::if_::if_nametoindex(device)? as i32;
            Ok(Self { socket: packet_socket()?, ifindex })
        };
        inside.run(open).with_context(|| format!("a socket on {device} of {}", inside.name()))
    }

    /// False when the device is gone or too busy.
    pub fn send(&self, frame: &[u8]) -> bool {
        let address = link_address(self.ifindex, 0);
        // SAFETY: both buffers are as long as the call says.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const address).cast(),
                size_of_val(&address) as u32,
            )
        };
        sent == frame.len() as isize
    }
}
