//! One question to rtnetlink about traffic control, and its answer as raw messages.
//!
//! Answers are read attribute by attribute, not with the codec's `TcMessage`: that one gives up on
//! the whole message at any attribute it cannot decode, and others' filters can be of any kind.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlaBuffer,
    NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Larger than any datagram the kernel makes (32 KiB).
pub(super) const DATAGRAM: usize = 64 * 1024;
/// sizeof(struct nlmsghdr) and sizeof(struct tcmsg).
const HEADER: usize = 16;
const TC_HEADER: usize = 20;
/// `TCA_KIND`, `TCA_OPTIONS`.
const KIND: u16 = 1;
const OPTIONS: u16 = 2;

/// A message about a qdisc or a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TcReply {
    pub ifindex: u32,
    pub handle: u32,
    pub parent: u32,
    pub info: u32,
    pub kind: String,
    /// The payload of `TCA_OPTIONS`; none for the head of a list of filters.
    pub options: Option<Vec<u8>>,
}

impl TcReply {
    /// Nothing for a payload too short to be about anything.
    pub(super) fn decode(payload: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let bytes = payload.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        let mut reply = Self {
            ifindex: word(4)?,
            handle: word(8)?,
            parent: word(12)?,
            info: word(16)?,
            kind: String::new(),
            options: None,
        };
        for attribute in attributes(payload.get(TC_HEADER..)?) {
            match attribute.kind() {
                KIND => reply.kind = text(attribute.value()),
                OPTIONS => reply.options = Some(attribute.value().to_vec()),
                _ => {}
            }
        }
        Some(reply)
    }
}

pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// A C string.
pub(super) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

/// Type and payload of each message in a datagram.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let length = u32::from_ne_bytes(header.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(header.get(4..6)?.try_into().ok()?);
        let payload = datagram.get(HEADER..length.max(HEADER))?;
        datagram = datagram.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// Sends one message and gathers what the kernel answers, up to its acknowledgement.
pub(super) fn ask(message: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<TcReply>> {
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
        for (kind, payload) in messages(buffer.get(..length).unwrap_or_default()) {
            match i32::from(kind) {
                libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                    // A dump that failed half way says so only here.
                    let code = payload.get(..4).and_then(|code| code.try_into().ok());
                    return match code.map_or(0, i32::from_ne_bytes) {
                        0 => Ok(answer),
                        code => Err(io::Error::from_raw_os_error(code.saturating_abs())),
                    };
                }
                _ => answer.extend(TcReply::decode(payload)),
            }
        }
    }
}
