//! Events of the programs: the ring buffer that they write, what makes them, and what was suppressed.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use aya::maps::{Map, MapData, RingBuf};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use np_common::endpoint::EndpointId;
use np_common::event::{Bucket, Event, Report, payer};
use np_common::maps::{self as specs, MapSpec};

use super::error::DataplaneError;
use super::load::Object;
use super::mapping::Mapping;

/// The reading side. Nobody else may read: what is read is gone.
pub struct Events {
    ring: RingBuf<MapData>,
    buckets: Mapping,
}

/// What makes events.
#[derive(Clone, Debug)]
pub struct Reporting(Arc<Mapping>);

/// The name of the ring buffer.
const EVENTS: &str = "EVENTS";

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// Opens the maps of events of an object. Nothing makes events yet.
pub(super) fn open(object: &Object) -> Result<(Events, Reporting), DataplaneError> {
    let failed = |source| DataplaneError::Map { action: "open", map: EVENTS, source };
    let Map::RingBuf(ring) = object.map(EVENTS)? else {
        return Err(DataplaneError::MapMissing(EVENTS));
    };
    // A descriptor of its own: the object's stays with the object.
    let ring = ring.fd().as_fd().try_clone_to_owned();
    let ring = ring.map_err(DataplaneError::file("keep map", EVENTS.as_ref()))?;
    let ring = MapData::from_fd(ring).map_err(failed)?;
    let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(failed)?;
    let mapping = |spec: &MapSpec| match object.map(spec.name)? {
        Map::Array(data) => Mapping::new(data.fd(), spec)
            .map_err(|source| DataplaneError::Memory { map: spec.name, source }),
        _ => Err(DataplaneError::MapMissing(spec.name)),
    };
    let (buckets, report) = (mapping(&specs::BUCKETS)?, mapping(&specs::REPORT)?);
    Ok((Events { ring, buckets }, Reporting(Arc::new(report))))
}

impl Reporting {
    /// Says what makes events from now on.
    pub fn set(&self, report: Report) {
        let stored = self.0.store(0, report as u64);
        debug_assert!(stored, "REPORT has an element 0");
    }
}

impl Events {
    /// Waits until there is an event, but not longer than so.
    pub fn wait(&self, longest: Duration) -> io::Result<()> {
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::MAX);
        let mut ring = [PollFd::new(self.ring.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ring, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the oldest event that has not been read yet; none if there is none.
    pub fn take(&mut self) -> Option<Event> {
        loop {
            let item = self.ring.next()?;
            if item.len() == size_of::<Event>() {
                // SAFETY: as many bytes are there, and any bytes are an event.
                return Some(unsafe { ptr::read_unaligned(item.as_ptr().cast()) });
            }
        }
    }

    /// How many events of each bucket were suppressed since the programs were loaded: whose bucket it
    /// is, and whether it is for what the endpoint sends. Those with none are left out.
    pub fn suppressed(&self) -> impl Iterator<Item = (EndpointId, bool, u64)> {
        let buckets = (0..specs::BUCKETS.max_entries).map(|bucket| {
            let (endpoint, sends) = payer(bucket);
            let word = bucket as usize * BUCKET_WORDS + SUPPRESSED_WORD;
            (endpoint, sends, self.buckets.load(word))
        });
        buckets.filter(|(_, _, suppressed)| *suppressed > 0)
    }
}

const BUCKET_WORDS: usize = size_of::<Bucket>() / size_of::<u64>();
const SUPPRESSED_WORD: usize = std::mem::offset_of!(Bucket, suppressed) / size_of::<u64>();
