//! Programs at devices, by whichever way this kernel has: TCX links, or filters of a clsact qdisc.
//! Either stays when the agent goes.

use std::os::fd::{AsFd, BorrowedFd};

use np_common::direction::Hook;

use super::error::{AttachError, DataplaneError};
use super::filter::Filter;
use super::load::{Object, Program, Programs};
use super::pins::{AdoptedLink, Pins, Places};
use super::sys::{self, TcSide};
use super::{clsact, tcx};
use np_policy::model::IfIndex;

/// Attaches the programs of this agent. Attaching waits for two RCU grace periods under RTNL, so
/// it has a thread of its own.
#[derive(Debug)]
pub struct Attacher {
    mechanism: Mechanism,
    pub(super) places: Places,
    object: Object,
    programs: Programs,
    /// The same once more: the kernel takes a program only once at each side of a device, and one
    /// that is to go in front of itself needs a double.
    doubles: Option<Programs>,
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
    /// What judges comes before what tags: see [`Attacher::replace`].
    pub(super) const fn hooks(self) -> [Hook; 2] {
        match self {
            Side::Pod => [Hook::ToPod, Hook::FromPod],
            Side::Uplink => [Hook::ToUplink, Hook::FromUplink],
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
    pub(super) fn new(
        mechanism: Mechanism,
        places: Places,
        mut object: Object,
    ) -> Result<Self, DataplaneError> {
        let programs = object.programs()?;
        Ok(Self { mechanism, places, object, programs, doubles: None })
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

    /// Puts our programs in the places of those that an agent before this one has attached, at all
    /// of these devices at once. Returns the devices where there was something to replace.
    ///
    /// First every program that judges, then every one that tags: a tag of another version is
    /// lost to the new judges, which grants nothing, while the old judges would read in a new tag
    /// what it does not say.
    pub fn replace(&mut self, devices: &[(IfIndex, Side)]) -> Vec<IfIndex> {
        let mut replaced: Vec<(IfIndex, Side)> = devices.to_vec();
        for nth in 0..2 {
            replaced.retain(|(ifindex, side)| {
                let hook = side.hooks().into_iter().nth(nth);
                hook.is_some_and(|hook| self.take_over(*ifindex, hook).unwrap_or(false))
            });
        }
        replaced.into_iter().map(|(ifindex, _)| ifindex).collect()
    }

    fn take_over(&self, ifindex: IfIndex, hook: Hook) -> Result<bool, AttachError> {
        let (program, side) = (self.programs.of(hook), tc_side(hook));
        match self.mechanism {
            Mechanism::Tcx => tcx::take_over(&self.places, program, ifindex, side),
            Mechanism::Clsact => {
                let there = filters(ifindex, side)?.iter().any(|filter| filter.ours);
                if there {
                    self.attach_hook(ifindex, hook)?;
                }
                Ok(there)
            }
        }
    }

    pub(super) fn attach_hook(&self, ifindex: IfIndex, hook: Hook) -> Result<(), AttachError> {
        let program = self.programs.of(hook);
        let side = tc_side(hook);
        match self.mechanism {
            Mechanism::Tcx => tcx::attach(&self.places, program, ifindex, side),
            Mechanism::Clsact => {
                clsact::require_qdisc(ifindex.0).map_err(AttachError::filter(ifindex))?;
                let filters = filters(ifindex, side)?;
                if filters.iter().any(|filter| filter.ours && filter.program == Some(program.id)) {
                    return Ok(());
                }
                clsact::attach(&program.fd, ifindex.0, side).map_err(AttachError::filter(ifindex))
            }
        }
    }

    /// Takes our programs, of whatever version, off a device that is to have none any more.
    pub fn detach(&mut self, ifindex: IfIndex) -> Result<(), AttachError> {
        for side in TcSide::ALL {
            for pins in self.places.all() {
                tcx::detach(pins, ifindex, side)?;
            }
            match clsact::filters(ifindex.0, side) {
                Ok(filters) if filters.iter().any(|filter| filter.ours) => {
                    let failed = AttachError::filter(ifindex);
                    clsact::detach(ifindex.0, side).map_err(|error| failed(error.into()))?;
                }
                Err(error) if error.raw_os_error() != Some(libc::ENODEV) => {
                    return Err(AttachError::Query { ifindex, source: error });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Removes the pins of a device that is gone. A link whose device lives stays as it is, and a
    /// filter went with its device.
    pub fn reap(&mut self, ifindex: IfIndex) -> Result<(), AttachError> {
        for pins in self.places.all() {
            TcSide::ALL.into_iter().try_for_each(|side| tcx::reap(pins, ifindex, side))?;
        }
        Ok(())
    }

    /// The programs at both sides of a device, and where ours stand among them.
    pub fn order(&self, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
        order(&self.places.own, ifindex)
    }

    pub(super) fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// Whether a program is one of ours.
    pub(super) fn is_loaded(&self, hook: Hook, id: u32) -> bool {
        let doubles = self.doubles.as_ref();
        self.programs.of(hook).id == id || doubles.is_some_and(|other| other.of(hook).id == id)
    }

    /// A program that does the same as the one of ours that is attached.
    pub(super) fn double(&mut self, hook: Hook, attached: u32) -> Result<&Program, DataplaneError> {
        if self.programs.of(hook).id != attached {
            return Ok(self.programs.of(hook));
        }
        let doubles = match self.doubles.take() {
            Some(doubles) => doubles,
            None => self.object.programs()?,
        };
        Ok(self.doubles.insert(doubles).of(hook))
    }
}

/// The kernel runs the links of a side, then the filters (`sch_handle_egress`, net/core/dev.c).
pub(super) fn order(pins: &Pins, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
    let chain = |side| {
        let links = tcx::attached(ifindex, side)?;
        let link = tcx::pinned(pins, ifindex, side)?;
        // Of the filters, those that are programs.
        let filters: Vec<Filter> = filters(ifindex, side)?;
        let filters: Vec<&Filter> = filters.iter().filter(|f| f.program.is_some()).collect();
        let ours = match link {
            Some(id) => links.iter().position(|other| other.link == id),
            None => filters.iter().position(|filter| filter.ours).map(|ours| links.len() + ours),
        };
        let programs = links.iter().map(|link| link.program);
        let programs = programs.chain(filters.iter().filter_map(|filter| filter.program)).collect();
        Ok(Chain { side, programs, ours })
    };
    TcSide::ALL.into_iter().map(chain).collect()
}

/// What agents of whatever version attached before, ascending by device.
pub(super) fn links(places: &Places) -> Result<Vec<AdoptedLink>, DataplaneError> {
    let mut links = places.links()?;
    links.extend(
        clsact::ours().map_err(DataplaneError::file("list the filters of", "clsact".as_ref()))?,
    );
    links.sort();
    Ok(links)
}

pub(super) fn filters(ifindex: IfIndex, side: TcSide) -> Result<Vec<Filter>, AttachError> {
    clsact::filters(ifindex.0, side).map_err(|source| match source.raw_os_error() {
        Some(libc::ENODEV) => AttachError::Gone(ifindex),
        _ => AttachError::Query { ifindex, source },
    })
}

pub(super) fn tc_side(hook: Hook) -> TcSide {
    if hook.is_tc_ingress() { TcSide::Ingress } else { TcSide::Egress }
}
