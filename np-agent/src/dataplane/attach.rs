//! Programs at devices, by pinned links.
//!
//! A link outlives the agent: what is attached filters on while the agent is down. So nothing
//! here ever detaches to attach anew: a program is replaced by one link update, which lets no
//! packet through in between.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use np_common::direction::Hook;

use super::error::AttachError;
use super::load::{Program, Programs};
use super::pins::Pins;
use super::sys::{self, TcSide};
use crate::model::IfIndex;

/// Attaches the programs of this agent. Attaching waits for two RCU grace periods under RTNL, so
/// it has a thread of its own.
#[derive(Debug)]
pub struct Attacher {
    pins: Pins,
    programs: Programs,
}

/// Which pair of programs a device gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The host end of a pod's veth: `from_pod` and `to_pod`.
    Pod,
    /// Every other device that brings packets in: `from_uplink` and `to_uplink`.
    Uplink,
}

impl Side {
    const fn hooks(self) -> [Hook; 2] {
        match self {
            Side::Pod => [Hook::FromPod, Hook::ToPod],
            Side::Uplink => [Hook::FromUplink, Hook::ToUplink],
        }
    }
}

/// The programs at one side of a device, as they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub side: TcSide,
    /// Kernel ids of the programs, first to run first.
    pub programs: Vec<u32>,
    /// Where ours stands; none when it is not attached.
    pub ours: Option<usize>,
}

impl Chain {
    /// The programs in front of ours: an OK of one of them hides packets from policy.
    pub fn before_ours(&self) -> &[u32] {
        self.ours.and_then(|ours| self.programs.get(..ours)).unwrap_or_default()
    }
}

impl Attacher {
    pub(super) fn new(pins: Pins, programs: Programs) -> Self {
        Self { pins, programs }
    }

    /// A loaded program, to be run on packets of one's own making.
    pub fn program(&self, hook: Hook) -> BorrowedFd<'_> {
        self.programs.of(hook).fd.as_fd()
    }

    /// Brings a pair of programs to a device: in place of what an agent attached there before, or
    /// as the first in the chain.
    pub fn attach(&mut self, ifindex: IfIndex, side: Side) -> Result<(), AttachError> {
        side.hooks().into_iter().try_for_each(|hook| self.attach_hook(ifindex, hook))
    }

    fn attach_hook(&self, ifindex: IfIndex, hook: Hook) -> Result<(), AttachError> {
        let program = self.programs.of(hook);
        let side = tc_side(hook);
        let pin = self.pins.link(ifindex, side);
        if let Some(link) = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))?
            && self.swap(&link, ifindex, side, program, &pin)?
        {
            return Ok(());
        }
        let link = sys::link_create(&program.fd, ifindex.0, side)
            .map_err(|error| refused(error, ifindex, &pin))?;
        sys::pin(&link, &pin).map_err(AttachError::link("pin", &pin))
    }

    /// Puts the program in the place of an adopted link's. False when the link is severed; then
    /// its pin is gone.
    fn swap(
        &self,
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
            let attached = sys::attached(ifindex.0, side)
                .map_err(|source| AttachError::Query { ifindex, source })?;
            if !attached.iter().any(|other| other.link == info.id) {
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

    /// Removes the pins of a device that is gone. A link whose device lives stays as it is.
    pub fn reap(&mut self, ifindex: IfIndex) -> Result<(), AttachError> {
        for side in TcSide::ALL {
            let pin = self.pins.link(ifindex, side);
            let Some(link) = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))? else {
                continue;
            };
            let info = sys::link_info(&link).map_err(AttachError::link("read", &pin))?;
            if info.ifindex == 0 {
                unpin(&pin)?;
            }
        }
        Ok(())
    }

    /// The programs at both sides of a device, and where ours stand among them.
    pub fn order(&self, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
        order(&self.pins, ifindex)
    }
}

pub(super) fn order(pins: &Pins, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
    let chain = |side| {
        let attached = sys::attached(ifindex.0, side)
            .map_err(|source| AttachError::Query { ifindex, source })?;
        let pin = pins.link(ifindex, side);
        let link = sys::open_pin(&pin).map_err(AttachError::link("open", &pin))?;
        let info = link.map(|link| sys::link_info(&link)).transpose();
        let info = info.map_err(AttachError::link("read", &pin))?;
        let ours = info.and_then(|info| attached.iter().position(|other| other.link == info.id));
        let programs = attached.iter().map(|other| other.program).collect();
        Ok(Chain { side, programs, ours })
    };
    TcSide::ALL.into_iter().map(chain).collect()
}

fn tc_side(hook: Hook) -> TcSide {
    if hook.is_tc_ingress() { TcSide::Ingress } else { TcSide::Egress }
}

fn unpin(pin: &Path) -> Result<(), AttachError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(AttachError::link("unpin", pin)),
    }
}

pub(super) fn refused(error: io::Error, ifindex: IfIndex, pin: &Path) -> AttachError {
    match error.raw_os_error() {
        Some(libc::ENODEV) => AttachError::Gone(ifindex),
        Some(libc::EINVAL) => AttachError::NoTcx(ifindex),
        _ => AttachError::link("create", pin)(error),
    }
}
