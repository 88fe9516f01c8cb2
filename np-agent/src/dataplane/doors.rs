//! The first word about a new device, written while the agent may be busy with anything else.
//!
//! A device is default-deny from the moment it is seen, and what a device that is gone was must
//! not be what the next one with its index is. Two threads write IFACES: this one on the events
//! themselves, the agent by its plans. A plan may be made on what was before an event: until the
//! agent has heard of a device's end, nothing is written about its index but by the door.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::MapData;
use np_common::endpoint::Iface;
use np_common::maps::IFACES;

use super::error::DataplaneError;
use super::mapping::Mapping;
use super::pins::Pins;
use np_policy::model::IfIndex;
use np_policy::plan::Op;

/// The side of the events.
#[derive(Debug)]
pub struct Doors {
    ifaces: Mapping,
    unheard: Unheard,
}

/// How often each index has ended without the agent having heard of it. The agent holds the lock
/// while it writes about a device.
#[derive(Clone, Debug, Default)]
pub struct Unheard(Arc<Mutex<BTreeMap<IfIndex, u32>>>);

impl Doors {
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let map = MapData::from_pin(pins.map(&IFACES))
            .map_err(DataplaneError::map("open pinned", &IFACES))?;
        let ifaces = Mapping::new(map.fd(), &IFACES)
            .map_err(|source| DataplaneError::Memory { map: IFACES.name, source })?;
        Ok(Self { ifaces, unheard: Unheard::default() })
    }

    pub fn unheard(&self) -> Unheard {
        self.unheard.clone()
    }

    /// Says what a device is that has just appeared. Returns the write; none when another device
    /// has its slot: then the programs find no entry, which denies as well.
    pub fn close(&self, iface: Iface) -> Option<Op> {
        let slot = slot(iface.ifindex());
        let held = Iface::from_bits(self.ifaces.load(slot));
        let free = held == Iface::EMPTY || held.ifindex() == iface.ifindex();
        (free && self.ifaces.store(slot, iface.bits())).then_some(Op::SetIface(iface))
    }

    /// Forgets a device that is gone. Returns the write, if one was made.
    pub fn gone(&self, ifindex: IfIndex) -> Option<Op> {
        let mut unheard = self.unheard.lock();
        *unheard.entry(ifindex).or_insert(0) += 1;
        let slot = slot(ifindex.0);
        let held = Iface::from_bits(self.ifaces.load(slot));
        let ours = held != Iface::EMPTY && held.ifindex() == ifindex.0;
        (ours && self.ifaces.store(slot, Iface::EMPTY.bits())).then_some(Op::ClearIface(ifindex.0))
    }

    /// Whether the map knows a device.
    pub fn knows(&self, ifindex: IfIndex) -> bool {
        let held = Iface::from_bits(self.ifaces.load(slot(ifindex.0)));
        held != Iface::EMPTY && held.ifindex() == ifindex.0
    }
}

impl Unheard {
    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<IfIndex, u32>> {
        // The map is whole whatever its holder was doing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent has heard of a device's end.
    pub fn heard(&self, ifindex: IfIndex) {
        let mut unheard = self.lock();
        if let Some(times) = unheard.get_mut(&ifindex) {
            *times -= 1;
            if *times == 0 {
                unheard.remove(&ifindex);
            }
        }
    }
}

const fn slot(ifindex: u32) -> usize {
    (ifindex & (IFACES.max_entries - 1)) as usize
}
