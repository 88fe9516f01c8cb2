//! Programs at devices of kernels before TCX (Linux 6.6): filters of the device's clsact qdisc.
//!
//! A filter lives as long as its device and needs no pin: it filters on while the agent is down,
//! and a device that has ours is the one that we attached to. Like a link's program it is replaced
//! in place, by one message with the priority and handle it has, which lets no packet through
//! (`cls_bpf_change`, net/sched/cls_bpf.c). It is first by the lowest priority there is.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpfOption, TcHandle, TcMessage, TcOption,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use super::pins::AdoptedLink;
use super::sys::TcSide;
use crate::model::IfIndex;

/// The first to run; of filters with one priority the newest runs first.
const PRIORITY: u32 = 1;
/// Tells our filter from another of the same priority: "np".
const HANDLE: u32 = 0x6e70;
const NAME: &str = "np-agent";
const KIND: &str = "clsact";
/// Larger than any datagram the kernel makes (32 KiB).
const DATAGRAM: usize = 64 * 1024;

/// A program at one side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    pub program: u32,
    pub ours: bool,
}

/// Attaches a program as the first, or puts it in the place of the one we have there.
pub(super) fn attach(program: &impl AsFd, ifindex: u32, side: TcSide) -> io::Result<()> {
    let mut qdisc = TcMessage::with_index(index(ifindex)?);
    qdisc.header.parent = TcHandle::CLSACT;
    qdisc.header.handle = TcHandle { major: u16::MAX, minor: 0 };
    qdisc.attributes.push(TcAttribute::Kind(KIND.to_owned()));
    let made = ask(RouteNetlinkMessage::NewQueueDiscipline(qdisc), NLM_F_CREATE | NLM_F_EXCL);
    match made {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        other => drop(other?),
    }
    let mut filter = named(ifindex, side)?;
    filter.attributes.push(TcAttribute::Options(vec![
        TcOption::Bpf(TcFilterBpfOption::ProgFd(program.as_fd().as_raw_fd() as u32)),
        TcOption::Bpf(TcFilterBpfOption::ProgName(NAME.to_owned())),
        TcOption::Bpf(TcFilterBpfOption::Flags(TcBpfFlags::DirectAction)),
    ]));
    ask(RouteNetlinkMessage::NewTrafficFilter(filter), NLM_F_CREATE).map(drop)
}

/// Takes our filter off one side of a device. The qdisc stays: others may use it.
pub(super) fn detach(ifindex: u32, side: TcSide) -> io::Result<()> {
    ask(RouteNetlinkMessage::DelTrafficFilter(named(ifindex, side)?), 0).map(drop)
}

/// The programs at one side of a device, first to run first.
pub(super) fn filters(ifindex: u32, side: TcSide) -> io::Result<Vec<Filter>> {
    let mut message = TcMessage::with_index(index(ifindex)?);
    message.header.parent = parent(side);
    let answer = ask(RouteNetlinkMessage::GetTrafficFilter(message), NLM_F_DUMP);
    let answer = match answer {
        // The device has no clsact qdisc.
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    let filters = answer.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewTrafficFilter(message) => read(&message),
        _ => None,
    });
    Ok(filters.collect())
}

/// Our filters in this network namespace.
pub(super) fn ours() -> io::Result<Vec<AdoptedLink>> {
    let mut ours = Vec::new();
    for device in devices()? {
        for side in TcSide::ALL {
            if filters(device, side)?.iter().any(|filter| filter.ours) {
                ours.push(AdoptedLink { ifindex: IfIndex(device), side, severed: false });
            }
        }
    }
    Ok(ours)
}

/// The devices of this network namespace that have a clsact qdisc.
fn devices() -> io::Result<Vec<u32>> {
    let message = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    let devices = ask(message, NLM_F_DUMP)?.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewQueueDiscipline(message) => {
            let kind = message.attributes.iter().find_map(|attribute| match attribute {
                TcAttribute::Kind(kind) => Some(kind.as_str()),
                _ => None,
            });
            (kind == Some(KIND)).then(|| u32::try_from(message.header.index).ok())?
        }
        _ => None,
    });
    Ok(devices.collect())
}

/// None for a filter that is not a program, or only the head of a list of them.
fn read(message: &TcMessage) -> Option<Filter> {
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options),
        _ => None,
    })?;
    let (mut program, mut name) = (None, None);
    for option in options {
        match option {
            TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => program = Some(*id),
            TcOption::Bpf(TcFilterBpfOption::ProgName(text)) => name = Some(text.as_str()),
            _ => {}
        }
    }
    let place = message.header.info >> 16 == PRIORITY && u32::from(message.header.handle) == HANDLE;
    Some(Filter { program: program?, ours: place && name == Some(NAME) })
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

/// Sends one message and gathers what the kernel answers, up to its acknowledgement.
fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    let mut header = NetlinkHeader::default();
    // A dump ends by itself.
    let end = if flags == NLM_F_DUMP { 0 } else { NLM_F_ACK };
    header.flags = NLM_F_REQUEST | flags | end;
    header.sequence_number = 1;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0)?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let (length, from) = socket.recv_from(&mut &mut buffer[..], 0)?;
        // Another process may send here too; only the kernel is believed.
        if from.port_number() != 0 {
            continue;
        }
        let mut rest = buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(answer),
                NetlinkPayload::Error(error) => {
                    return if error.code.is_some() { Err(error.to_io()) } else { Ok(answer) };
                }
                NetlinkPayload::InnerMessage(message) => answer.push(message),
                _ => {}
            }
        }
    }
}
