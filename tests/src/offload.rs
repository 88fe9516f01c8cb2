//! What a device does by itself (include/uapi/linux/ethtool.h), switched on and off.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use anyhow::{Result, ensure};

use crate::netns::Namespace;

pub const SET_TSO: u32 = 0x1f;
pub const SET_GSO: u32 = 0x24;
pub const SET_GRO: u32 = 0x2c;

pub fn set_offload(inside: &Namespace, device: &str, command: u32, on: bool) -> Result<()> {
    inside.run(|| {
        let socket = UdpSocket::bind("[::]:0")?;
        let mut value = [command, u32::from(on)];
        // SAFETY: all zeros is a value of this plain structure.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: the request names its device and points to a value of two words, as the commands
        // used here want it; both outlive the call.
        let set = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        ensure!(set == 0, "set {command:#x} of {device}: {}", io::Error::last_os_error());
        Ok(())
    })
}
