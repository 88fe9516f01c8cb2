//! Programs at devices by pinned TCX links, Linux 6.6 and later.
//!
//! A link outlives the agent: what is attached filters on while the agent is down. So nothing
//! here ever detaches a program to attach it again: a program is replaced by one link update, which lets no
//! packet through in between, and a link that others have got in front of makes way for a new one
//! only when that is in force.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use super::error::AttachError;
use super::load::Program;
use super::pins::{Pins, Places};
use super::sys::{self, Attached, TcSide};
use np_policy::model::IfIndex;

pub(super) fn attach(
    places: &Places,
    program: &Program,
    ifindex: IfIndex,
    side: TcSide,
) -> Result<(), AttachError> {
    if take_over(places, program, ifindex, side)? {
        return Ok(());
    }
    let pin = places.own.link(ifindex, side);
    let link = create(program, ifindex, side, &pin)?;
    sys::pin(&link, &pin).map_err(AttachError::link("pin", &pin))
}

/// Puts the program in the place of what an agent of this or another version has attached. False
/// when there is nothing of that kind.
pub(super) fn take_over(
    places: &Places,
    program: &Program,
    ifindex: IfIndex,
    side: TcSide,
) -> Result<bool, AttachError> {
    let own = places.own.link(ifindex, side);
    if let Some(link) = open(&own)?
        && swap(&link, ifindex, side, program, &own)?
    {
        return Ok(true);
    }
    for other in &places.others {
        let pin = other.link(ifindex, side);
        let Some(link) = open(&pin)? else { continue };
        if swap(&link, ifindex, side, program, &pin)? {
            fs::rename(&pin, &own).map_err(AttachError::link("move", &pin))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Makes ours the first again. The new link is in force before the one that it replaces goes: in
/// between both judge, and judge alike. The old one is detached rather than left to the kernel,
/// which frees a link some time after its pin: until then it would read as another agent's.
pub(super) fn move_in_front(
    pins: &Pins,
    program: &Program,
    ifindex: IfIndex,
    side: TcSide,
) -> Result<(), AttachError> {
    let pin = pins.link(ifindex, side);
    let draft = pins.draft(ifindex, side);
    let old = open(&pin)?;
    let link = create(program, ifindex, side, &draft)?;
    sys::pin(&link, &draft).map_err(AttachError::link("pin", &draft))?;
    fs::rename(&draft, &pin).map_err(AttachError::link("move", &draft))?;
    old.map_or(Ok(()), |old| sever(&old, &pin))
}

fn sever(link: &OwnedFd, pin: &Path) -> Result<(), AttachError> {
    match sys::link_detach(link) {
        // The device went before.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(()),
        other => other.map_err(AttachError::link("detach", pin)),
    }
}

fn create(
    program: &Program,
    ifindex: IfIndex,
    side: TcSide,
    pin: &Path,
) -> Result<OwnedFd, AttachError> {
    sys::link_create(&program.fd, ifindex.0, side).map_err(|error| match error.raw_os_error() {
        Some(libc::ENODEV) => AttachError::Gone(ifindex),
        _ => AttachError::link("create", pin)(error),
    })
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
        // Indices are counted per network namespace: the same number says nothing yet.
        if !attached(ifindex, side)?.iter().any(|other| other.link == info.id) {
            return Err(AttachError::Elsewhere { path: pin.to_owned() });
        }
        if info.program == program.id {
            return Ok(true);
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
    let Some(link) = open(&pin)? else { return Ok(()) };
    let info = sys::link_info(&link).map_err(AttachError::link("read", &pin))?;
    if info.ifindex == 0 { unpin(&pin) } else { Ok(()) }
}

/// Takes ours off one side of a device that is to have none.
pub(super) fn detach(pins: &Pins, ifindex: IfIndex, side: TcSide) -> Result<(), AttachError> {
    let pin = pins.link(ifindex, side);
    let Some(link) = open(&pin)? else { return Ok(()) };
    sever(&link, &pin)?;
    unpin(&pin)
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
    let info = open(&pin)?.map(|link| sys::link_info(&link)).transpose();
    Ok(info.map_err(AttachError::link("read", &pin))?.map(|info| info.id))
}

fn open(pin: &Path) -> Result<Option<OwnedFd>, AttachError> {
    sys::open_pin(pin).map_err(AttachError::link("open", pin))
}

fn unpin(pin: &Path) -> Result<(), AttachError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(AttachError::link("unpin", pin)),
    }
}
