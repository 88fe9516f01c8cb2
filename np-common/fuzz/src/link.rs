//! The messages between neighbours that pass unjudged, recognised by their bytes alone: what the RFCs say,
//! written down again without the parser.

use np_common::addr::Addr;

/// A message that a host on the link sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    Solicitation,
    Advertisement,
    Query,
    Report,
}

/// What the bytes from the IPv6 header to the end of the frame are.
pub fn message(ip: &[u8]) -> Option<Message> {
    let header = ip.get(..40)?;
    let (next, hop_limit) = (header[6], header[7]);
    let (src, dst) = (&header[8..24], &header[24..40]);
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // Nothing behind the packet, and nothing in front of the message but what a listener must put there.
    if header[0] >> 4 != 6 || ip.len() != 40 + length {
        return None;
    }
    let (alert, icmp) = match next {
        58 => (false, &ip[40..]),
        0 => {
            let options = ip.get(40..48)?;
            if options[..2] != [58, 0] || !is_router_alert(&options[2..]) {
                return None;
            }
            (true, &ip[48..])
        }
        _ => return None,
    };
    let &[kind, code, ..] = icmp else { return None };
    if code != 0 {
        return None;
    }
    let discovery = !alert && hop_limit == 255;
    let link_local = src[0] == 0xfe && src[1] & 0xc0 == 0x80;
    let nobody = src.iter().all(|byte| *byte == 0);
    let listener = alert && hop_limit == 1 && dst[0] == 0xff;
    match (kind, icmp.len()) {
        (133, 8 | 16 | 24) if discovery && dst[..2] == [0xff, 2] => Some(Message::Solicitation),
        (135, 24 | 32 | 40) if discovery => Some(Message::Solicitation),
        (136, 24 | 32) if discovery => Some(Message::Advertisement),
        (130, 24 | 28) if listener && link_local => Some(Message::Query),
        (131 | 132, 24) | (143, 28 | 48 | 68 | 88) if listener && (link_local || nobody) => {
            Some(Message::Report)
        }
        _ => None,
    }
}

/// The address that a frame with a solicitation takes for its sender's: the source, or the target of who
/// has none yet.
pub fn spoken_for(frame: &[u8]) -> Option<Addr> {
    let address = |at: usize| frame[at..at + 16].try_into().ok().map(Addr::from_v6);
    let nobody = frame[22..38].iter().all(|byte| *byte == 0);
    match (nobody, frame[54]) {
        (false, _) => address(22),
        (true, 135) => address(62),
        (true, _) => None,
    }
}

/// Whether a frame with a message of discovery, about this link-local address, says what everybody can
/// know from the address: at which hardware address it is. The frame comes from there, too.
pub fn is_formed_of_its_source(frame: &[u8], address: [u8; 16]) -> bool {
    let (source, message) = (&frame[6..12], &frame[54..]);
    let formed = [
        &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, source[0] ^ 2, source[1], source[2], 0xff, 0xfe][..],
        &source[3..],
    ];
    let options = &message[if message[0] == 133 { 8 } else { 24 }..];
    let mut addresses = options.chunks(8).filter(|option| [1, 2].contains(&option[0]));
    formed.concat() == address && addresses.all(|option| option[1] == 1 && &option[2..] == source)
}

/// RFC 2711, with its padding in front, behind, or as an option without length.
fn is_router_alert(options: &[u8]) -> bool {
    [[5, 2, 0, 0, 1, 0], [5, 2, 0, 0, 0, 0], [1, 0, 5, 2, 0, 0]]
        .iter()
        .any(|known| known == options)
}

/// Whether a frame with an Ethernet header is a request or an answer of ARP for IPv4 (RFC 826), alone or
/// with the zeros that make the shortest frame.
pub fn is_arp(frame: &[u8]) -> bool {
    let Some(arp) = frame.get(14..42) else { return false };
    let form = arp[..6] == [0, 1, 8, 0, 6, 4] && arp[6] == 0 && (arp[7] == 1 || arp[7] == 2);
    let rest = &frame[42..];
    form && (rest.is_empty() || rest.len() == 18 && rest.iter().all(|byte| *byte == 0))
}
