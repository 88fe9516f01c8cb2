//! Programs at devices of kernels before TCX (Linux 6.6): filters of the device's clsact qdisc.
//!
//! A filter lives as long as its device and needs no pin: it filters on while the agent is down,
//! and a device that has ours is the one that we attached to. Like a link's program it is replaced
//! in place, by one message with the priority and handle it has, which lets no packet through
//! (`cls_bpf_change`, net/sched/cls_bpf.c). It is first by the lowest priority there is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};

use super::filter::{Filter, HANDLE, NAME, PRIORITY};
use super::pins::AdoptedLink;
use super::rtnetlink::{TcReply, ask};
use super::sys::TcSide;
use np_policy::model::IfIndex;

const KIND: &str = "clsact";
/// `TC_H_CLSACT`, the parent of clsact and ingress qdiscs alike.
const PARENT: u32 = 0xffff_fff1;

/// Why a program is not attached.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A qdisc of this kind is where clsact should be.
    Qdisc(String),
    Failed(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Makes sure that a device has a clsact qdisc.
///
/// An ingress qdisc has the same handle, and takes filters for its egress side too: into its one
/// block, where to_pod would replace from_pod (`ingress_tcf_block`, net/sched/sch_ingress.c). So
/// what is there is read back.
pub(super) fn require_qdisc(ifindex: u32) -> Result<(), Refusal> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    message.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    let made = ask(RouteNetlinkMessage::NewQueueDiscipline(message), NLM_F_CREATE | NLM_F_EXCL);
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => drop(other?),
    }
    match qdisc(ifindex)? {
        Some(kind) if kind == KIND => Ok(()),
        Some(kind) => Err(Refusal::Qdisc(kind)),
        // It went this instant.
        None => Err(Refusal::Failed(io::Error::from_raw_os_error(libc::ENOENT))),
    }
}

/// The kind of the qdisc that is where clsact should be.
///
/// From the list of all: asked for one, older kernels answer to everybody who listens for changes
/// instead (`qdisc_notify`, net/sched/sch_api.c).
pub(super) fn qdisc(ifindex: u32) -> io::Result<Option<String>> {
    Ok(qdiscs()?.find(|reply| reply.ifindex == ifindex).map(|reply| reply.kind))
}

/// The clsact and ingress qdiscs of this network namespace.
fn qdiscs() -> io::Result<impl Iterator<Item = TcReply>> {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    Ok(ask(message, NLM_F_DUMP)?.into_iter().filter(|reply| reply.parent == PARENT))
}

/// Attaches a program as the first, or puts it in the place of the one we have there.
pub(super) fn attach(program: &impl AsFd, ifindex: u32, side: TcSide) -> Result<(), Refusal> {
    require_qdisc(ifindex)?;
    let mut filter = named(ifindex, side)?;
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(NAME.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE)?;
    Ok(())
}

/// Takes our filter off one side of a device. The qdisc stays: others may use it.
pub(super) fn detach(ifindex: u32, side: TcSide) -> io::Result<()> {
    ask(RouteNetlinkMessage::DelTrafficFilter(named(ifindex, side)?), 0).map(drop)
}

/// The filters at one side of a device, first to run first.
pub(super) fn filters(ifindex: u32, side: TcSide) -> io::Result<Vec<Filter>> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = parent(side);
    match ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP) {
        // The device has no such qdisc.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            Ok(Vec::new())
        }
        other => {
            let filters: Vec<_> = other?.iter().filter_map(Filter::read).collect();
            // An ingress qdisc answers with its one block for either side.
            let of_ingress = side == TcSide::Egress
                && !filters.is_empty()
                && qdisc(ifindex)?.as_deref() != Some(KIND);
            Ok(if of_ingress { Vec::new() } else { filters })
        }
    }
}

/// Our filters in this network namespace, also in ingress qdiscs: agents before this one have put
/// some there.
pub(super) fn ours() -> io::Result<Vec<AdoptedLink>> {
    let mut ours = Vec::new();
    for device in qdiscs()?.map(|reply| reply.ifindex) {
        for side in TcSide::ALL {
            if filters(device, side)?.iter().any(|filter| filter.ours) {
                ours.push(AdoptedLink { ifindex: IfIndex(device), side, severed: false });
            }
        }
    }
    Ok(ours)
}

/// A message about our filter.
fn named(ifindex: u32, side: TcSide) -> io::Result<TcMessage> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = parent(side);
    message.header.handle = HANDLE.into();
    message.header.info = PRIORITY << 16 | u32::from((libc::ETH_P_ALL as u16).to_be());
    message.attributes.push(TcAttribute::Kind("bpf".to_owned()));
    Ok(message)
}

fn parent(side: TcSide) -> TcHandle {
    let minor = match side {
        TcSide::Ingress => TcHandle::MIN_INGRESS,
        TcSide::Egress => TcHandle::MIN_EGRESS,
    };
    TcHandle { major: u16::MAX, minor }
}

fn index(ifindex: u32) -> io::Result<i32> {
    i32::try_from(ifindex).map_err(io::Error::other)
}
