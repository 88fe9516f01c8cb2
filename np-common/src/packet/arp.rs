//! ARP, in the one form that hosts of an IPv4 link send (RFC 826): it passes without a verdict, so
//! there must be no room in it for anything else.

use super::{ETH_HLEN, PacketReader};
use crate::addr::Addr;

/// The length of an ARP packet for IPv4 on Ethernet.
const LENGTH: u32 = 28;
/// The shortest frame on a wire, without its checksum: what is shorter is filled up with zeros.
const SHORTEST_FRAME: u32 = 60;

/// The address that an ARP packet says is its sender's; none if it is not a request or an answer for
/// IPv4 on Ethernet, is cut off, or has something behind it.
#[inline(always)]
pub fn arp_sender<R: PacketReader + ?Sized>(reader: &R, offset: u32) -> Option<Addr> {
    let [hardware, lengths] = reader.read_words(offset)?;
    let ([a, b, c, d], [e, f, g, h]) = (hardware.to_ne_bytes(), lengths.to_ne_bytes());
    if [a, b, c, d, e, f, g] != [0, 1, 8, 0, 6, 4, 0] || !matches!(h, 1 | 2) {
        return None;
    }
    let end = offset.wrapping_add(LENGTH);
    let length = reader.length();
    let filled = length == SHORTEST_FRAME && offset == ETH_HLEN && {
        let zeros: [u8; 16] = reader.read(end)?;
        let last: [u8; 2] = reader.read(end.wrapping_add(16))?;
        u128::from_ne_bytes(zeros) == 0 && last == [0; 2]
    };
    if length != end && !filled {
        return None;
    }
    Some(Addr::from_v4(reader.read(offset.wrapping_add(14))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(operation: u8) -> Vec<u8> {
        let mut frame = vec![0; 14];
        frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
        frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
        frame
    }

    fn sender(frame: &[u8]) -> Option<Addr> {
        arp_sender(frame, ETH_HLEN)
    }

    #[test]
    fn requests_and_answers_name_their_sender() {
        let expected = Some(Addr::from_v4([10, 0, 0, 1]));
        assert_eq!((sender(&frame(1)), sender(&frame(2))), (expected, expected));
        // RARP and the others are nobody's here.
        assert_eq!((sender(&frame(3)), sender(&frame(0))), (None, None));
    }

    #[test]
    fn only_the_zeros_of_the_shortest_frame_may_follow() {
        for length in 0..200 {
            let mut frame = frame(1);
            frame.resize(length, 0);
            assert_eq!(sender(&frame).is_some(), length == 42 || length == 60, "{length}");
        }
        for at in 42..60 {
            let mut frame = frame(1);
            frame.resize(60, 0);
            frame[at] = 1;
            assert_eq!(sender(&frame), None, "a byte at {at}");
        }
    }
}
