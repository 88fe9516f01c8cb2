//! Programs at devices, by whichever way this kernel has: TCX links, or filters of a clsact qdisc.
//! Either stays when the agent goes.

use std::os::fd::{AsFd, BorrowedFd};

use np_common::direction::Hook;

use super::error::{AttachError, DataplaneError};
use super::load::Programs;
use super::pins::{AdoptedLink, Pins};
use super::sys::{self, TcSide};
use super::{clsact, tcx};
use crate::model::IfIndex;

/// Attaches the programs of this agent. Attaching waits for two RCU grace periods under RTNL, so
/// it has a thread of its own.
#[derive(Debug)]
pub struct Attacher {
    mechanism: Mechanism,
    pins: Pins,
    programs: Programs,
}

/// How programs get to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// Linux 6.6 and later.
    Tcx,
    /// Before.
    Clsact,
}

impl Mechanism {
    /// What this kernel has, found by trying.
    pub fn of_kernel() -> Result<Self, DataplaneError> {
        let has_tcx = sys::has_tcx()
            .map_err(DataplaneError::file("ask for TCX through", "bpf(2)".as_ref()))?;
        Ok(if has_tcx { Self::Tcx } else { Self::Clsact })
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcx => "TCX",
            Self::Clsact => "clsact",
        }
    }
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
    pub(super) fn new(mechanism: Mechanism, pins: Pins, programs: Programs) -> Self {
        Self { mechanism, pins, programs }
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
        match self.mechanism {
            Mechanism::Tcx => tcx::attach(&self.pins, program, ifindex, side),
            Mechanism::Clsact => {
                let filters = filters(ifindex, side)?;
                if filters.iter().any(|filter| filter.ours && filter.program == program.id) {
                    return Ok(());
                }
                clsact::attach(&program.fd, ifindex.0, side).map_err(AttachError::filter(ifindex))
            }
        }
    }

    /// Removes the pins of a device that is gone. A link whose device lives stays as it is, and a
    /// filter went with its device.
    pub fn reap(&mut self, ifindex: IfIndex) -> Result<(), AttachError> {
        TcSide::ALL.into_iter().try_for_each(|side| tcx::reap(&self.pins, ifindex, side))
    }

    /// The programs at both sides of a device, and where ours stand among them.
    pub fn order(&self, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
        order(&self.pins, ifindex)
    }
}

/// The kernel runs the links of a side, then the filters (`sch_handle_egress`, net/core/dev.c).
pub(super) fn order(pins: &Pins, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
    let chain = |side| {
        let links = tcx::attached(ifindex, side)?;
        let link = tcx::pinned(pins, ifindex, side)?;
        let filters = filters(ifindex, side)?;
        let ours = match link {
            Some(id) => links.iter().position(|other| other.link == id),
            None => filters.iter().position(|filter| filter.ours).map(|ours| links.len() + ours),
        };
        let programs = links.iter().map(|link| link.program);
        let programs = programs.chain(filters.iter().map(|filter| filter.program)).collect();
        Ok(Chain { side, programs, ours })
    };
    TcSide::ALL.into_iter().map(chain).collect()
}

/// What an agent attached before, ascending by device.
pub(super) fn links(pins: &Pins) -> Result<Vec<AdoptedLink>, DataplaneError> {
    let mut links = pins.links()?;
    links.extend(
        clsact::ours().map_err(DataplaneError::file("list the filters of", "clsact".as_ref()))?,
    );
    links.sort();
    Ok(links)
}

fn filters(ifindex: IfIndex, side: TcSide) -> Result<Vec<clsact::Filter>, AttachError> {
    clsact::filters(ifindex.0, side).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV) => AttachError::Gone(ifindex),
        _ => AttachError::Query { ifindex, source },
    })
}

fn tc_side(hook: Hook) -> TcSide {
    if hook.is_tc_ingress() { TcSide::Ingress } else { TcSide::Egress }
}
