//! Policy-based IPsec of the node, over the kernel's own netlink family for it. Layouts and numbers
//! are those of `include/uapi/linux/xfrm.h`.

use std::io;
use std::ops::ControlFlow;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_XFRM};

use super::LinksError;
use super::socket::DATAGRAM;

const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_POLICY_OUT: u8 = 1;
/// What is to be done to a packet; a policy without one lets it pass or drops it.
const XFRMA_TMPL: u16 = 5;
/// The xfrm interface that a policy is of; such a device shows what it wraps.
const XFRMA_IF_ID: u16 = 31;

/// `sizeof(struct xfrm_userpolicy_id)`
const POLICY_ID: usize = 64;
/// `sizeof(struct xfrm_userpolicy_info)`
const POLICY_INFO: usize = 168;
/// `offsetof(struct xfrm_userpolicy_info, dir)`
const DIRECTION: usize = 160;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// How many policies wrap what leaves the node before any device shows it. None also on a kernel
/// without IPsec.
pub fn wrapping_policies() -> Result<usize, LinksError> {
    let failed = |action| move |source| LinksError::Socket { action, source };
    let mut socket = match Socket::new(NETLINK_XFRM) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(0),
        Err(error) => return Err(failed("socket")(error)),
    };
    socket.bind_auto().map_err(failed("bind"))?;
    let mut request = [0; HEADER + POLICY_ID];
    let length = request.len() as u32;
    let mut header = NetlinkBuffer::new(&mut request);
    header.set_length(length);
    header.set_message_type(XFRM_MSG_GETPOLICY);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).map_err(failed("send"))?;
    let mut count = 0;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut &mut buffer[..], 0).map_err(failed("receive"))?;
        let read = read(buffer.get(..length).unwrap_or_default());
        match read.map_err(|source| LinksError::Refused { request: "GETPOLICY", source })? {
            ControlFlow::Continue(found) => count += found,
            ControlFlow::Break(found) => return Ok(count + found),
        }
    }
}

/// The policies of a datagram that wrap, and whether more follow.
fn read(mut datagram: &[u8]) -> io::Result<ControlFlow<usize, usize>> {
    let mut found = 0;
    while !datagram.is_empty() {
        let message = NetlinkBuffer::new_checked(datagram).map_err(io::Error::other)?;
        match message.message_type() {
            DONE => return Ok(ControlFlow::Break(found)),
            ERROR => {
                let code =
                    message.payload().first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                return Err(io::Error::from_raw_os_error(-code));
            }
            XFRM_MSG_NEWPOLICY => found += usize::from(wraps(message.payload())),
            _ => {}
        }
        let length = (message.length() as usize).next_multiple_of(4);
        datagram = datagram.get(length..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(found))
}

fn wraps(policy: &[u8]) -> bool {
    let attributes = policy.get(POLICY_INFO..).unwrap_or_default();
    let kinds: Vec<u16> =
        NlasIterator::new(attributes).filter_map(|nla| nla.ok().map(|nla| nla.kind())).collect();
    policy.get(DIRECTION) == Some(&XFRM_POLICY_OUT)
        && kinds.contains(&XFRMA_TMPL)
        && !kinds.contains(&XFRMA_IF_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let length = (HEADER + payload.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(payload);
        bytes
    }

    fn policy(direction: u8, attributes: &[u16]) -> Vec<u8> {
        let mut payload = vec![0; POLICY_INFO];
        payload[DIRECTION] = direction;
        for kind in attributes {
            payload.extend(8u16.to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend([0; 4]);
        }
        message(XFRM_MSG_NEWPOLICY, &payload)
    }

    #[test]
    fn policies_that_wrap_what_leaves_are_counted() {
        let datagram = [
            policy(XFRM_POLICY_OUT, &[XFRMA_TMPL]),
            policy(XFRM_POLICY_OUT, &[16, XFRMA_TMPL]),
            policy(0, &[XFRMA_TMPL]),
            policy(2, &[XFRMA_TMPL]),
            policy(XFRM_POLICY_OUT, &[]),
            policy(XFRM_POLICY_OUT, &[XFRMA_TMPL, XFRMA_IF_ID]),
        ]
        .concat();
        assert_eq!(read(&datagram).unwrap(), ControlFlow::Continue(2));
        let last = [datagram, message(DONE, &[0; 4])].concat();
        assert_eq!(read(&last).unwrap(), ControlFlow::Break(2));
    }

    #[test]
    fn a_refusal_and_a_cut_message_are_errors() {
        let refused = message(ERROR, &(-libc::EPERM).to_ne_bytes());
        assert_eq!(read(&refused).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(read(&policy(XFRM_POLICY_OUT, &[])[..40]).is_err());
        assert!(read(&[1, 2, 3]).is_err());
    }
}
