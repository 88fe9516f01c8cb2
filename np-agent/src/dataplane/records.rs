//! The record in RECORDS: two halves, and a word that says which one is in force.

use std::sync::atomic::{Ordering, fence};

use np_common::maps::{RECORD_CHUNK, RECORD_CHUNKS};

use super::error::DataplaneError;
use super::mapping::Mapping;

const WORD: usize = size_of::<u64>();
/// How long a record may be, in bytes.
pub const ROOM: usize = (RECORD_CHUNKS - 1) / 2 * RECORD_CHUNK;
/// Where the halves start, in bytes.
const HALVES: [usize; 2] = [RECORD_CHUNK, RECORD_CHUNK + ROOM];

/// Writes a record into the half that is not in force, then puts it in force.
pub(super) fn store(map: &Mapping, record: &[u8]) -> Result<(), DataplaneError> {
    if record.len() > ROOM {
        return Err(DataplaneError::RecordTooLarge { bytes: record.len(), room: ROOM });
    }
    let [first, second] = HALVES;
    let offset = if Header::load(map).offset == first { second } else { first };
    let words = map.words().iter().skip(offset / WORD);
    for (word, bytes) in words.zip(record.chunks(WORD)) {
        let mut padded = [0; WORD];
        padded.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        word.store(u64::from_ne_bytes(padded), Ordering::Relaxed);
    }
    let stored = map.store(0, Header { offset, length: record.len() }.bits());
    debug_assert!(stored, "RECORDS has an element 0");
    Ok(())
}

/// The record in force; none before the first.
pub(super) fn load(map: &Mapping) -> Option<Vec<u8>> {
    // Another process may put a record in force during the reading. It would have to do so twice within
    // the copy to change what is being copied.
    loop {
        let header = Header::load(map);
        if header.offset == 0 || header.length > ROOM {
            return None;
        }
        let words = map.words().iter().skip(header.offset / WORD);
        let mut record: Vec<u8> = words
            .take(header.length.div_ceil(WORD))
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        fence(Ordering::Acquire);
        if Header::load(map) == header {
            record.truncate(header.length);
            return Some(record);
        }
    }
}

/// The first word: offset and length of the record in force, in bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    offset: usize,
    length: usize,
}

impl Header {
    fn load(map: &Mapping) -> Self {
        let bits = map.load(0);
        Self { offset: (bits >> 32) as usize, length: bits as u32 as usize }
    }

    const fn bits(self) -> u64 {
        (self.offset as u64) << 32 | self.length as u64
    }
}
