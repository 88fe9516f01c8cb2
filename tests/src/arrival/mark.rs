//! The mark that every payload of the adversary holds: by it an arrival is known for what it is,
//! whatever NAT, a bridge or somebody's kernel has made of the packet around it.

/// The number of one sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(pub u64);

const MAGIC: [u8; 4] = [0xa7, 0x1e, 0xd5, 0x9c];

impl Mark {
    /// More than an address of a device, an option of neighbour discovery or the padding of an ARP
    /// message has room for: where a mark fits in, so does a message.
    pub const LENGTH: usize = 12;

    pub fn bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..].copy_from_slice(&self.0.to_be_bytes());
        bytes
    }

    /// All marks in a frame, each once.
    pub fn find(frame: &[u8]) -> Vec<Mark> {
        let mut found = Vec::new();
        for window in frame.windows(Self::LENGTH) {
            let (magic, number) = window.split_at(4);
            if magic != MAGIC {
                continue;
            }
            let mark = Mark(number.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
            if !found.contains(&mark) {
                found.push(mark);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mark_of_a_frame_is_found_once_and_where_it_is_cut_off_not_at_all() {
        let (one, two) = (Mark(7), Mark(u64::MAX));
        let frame = [b"x".as_slice(), &one.bytes(), b"--", &two.bytes(), &one.bytes()].concat();
        assert_eq!(Mark::find(&frame), [one, two]);
        assert_eq!(Mark::find(&one.bytes()[..11]), []);
    }
}
