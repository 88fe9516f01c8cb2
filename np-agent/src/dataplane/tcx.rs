//! Programs at devices by pinned TCX links, Linux 6.6 and later.
//!
//! A link outlives the agent: what is attached filters on while the agent is down. So nothing
//! here ever detaches to attach anew: a program is replaced by one link update, which lets no
//! packet through in between.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::error::AttachError;
use super::load::Program;
use super::pins::Pins;
use super::sys::{self, Attached, TcSide};
use crate::model::IfIndex;

pub(super) fn attach(
    pins: &Pins,
    program: &Program,
    ifindex: IfIndex,
    side: TcSide,
) -> Result<(), AttachError> {
    let pin = pins.link(ifindex, side);
    if let Some(link) = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))?
        && swap(&link, ifindex, side, program, &pin)?
    {
        return Ok(());
    }
    let link = sys::link_create(&program.fd, ifindex.0, side).map_err(|error| {
        match error.raw_os_error() {
            Some(libc::ENODEV) => AttachError::Gone(ifindex),
            _ => AttachError::link("create", &pin)(error),
        }
    })?;
    sys::pin(&link, &pin).map_err(AttachError::link("pin", &pin))
}

/// Puts the program in the place of an adopted link's. False when the link is severed; then its
/// pin is gone.
fn swap(
    link: &OwnedFd,
    ifindex: IfIndex,
    side: TcSide,
    program: &Program,
    pin: &Path,
) -> Result<bool, AttachError> {
    let info = sys::link_info(link).map_err(AttachError::link("read", pin))?;
    if info.ifindex == ifindex.0 {
        if info.program == program.id {
            return Ok(true);
        }
        // Indices are counted per network namespace: the same number says nothing yet.
        if !attached(ifindex, side)?.iter().any(|other| other.link == info.id) {
            return Err(AttachError::Elsewhere { path: pin.to_owned() });
        }
        match sys::link_update(link, &program.fd) {
            Ok(()) => return Ok(true),
            // The device went this instant.
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => return Err(AttachError::link("update", pin)(error)),
        }
    } else if info.ifindex != 0 {
        return Err(AttachError::Elsewhere { path: pin.to_owned() });
    }
    unpin(pin)?;
    Ok(false)
}

/// Removes the pin of a link whose device is gone. One whose device lives stays as it is.
pub(super) fn reap(pins: &Pins, ifindex: IfIndex, side: TcSide) -> Result<(), AttachError> {
    let pin = pins.link(ifindex, side);
    let Some(link) = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))? else {
        return Ok(());
    };
    let info = sys::link_info(&link).map_err(AttachError::link("read", &pin))?;
    if info.ifindex == 0 { unpin(&pin) } else { Ok(()) }
}

/// The programs at one side of a device that are attached by links; none on a kernel without TCX.
pub(super) fn attached(ifindex: IfIndex, side: TcSide) -> Result<Vec<Attached>, AttachError> {
    sys::attached(ifindex.0, side).or_else(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => Ok(Vec::new()),
        Some(libc::ENODEV) => Err(AttachError::Gone(ifindex)),
        _ => Err(AttachError::Query { ifindex, source }),
    })
}

/// The id of the link that we have pinned for one side of a device.
pub(super) fn pinned(
    pins: &Pins,
    ifindex: IfIndex,
    side: TcSide,
) -> Result<Option<u32>, AttachError> {
    let pin = pins.link(ifindex, side);
    let link = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))?;
    let info = link.map(|link| sys::link_info(&link)).transpose();
    Ok(info.map_err(AttachError::link("read", &pin))?.map(|info| info.id))
}

fn unpin(pin: &Path) -> Result<(), AttachError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(AttachError::link("unpin", pin)),
    }
}
