//! From the programs and maps of another ABI version to ours, without a gap.
//!
//! ```text
//!  open     fresh maps of ours; from the other version: its flows, devices, generation and record
//!  plan     the whole policy into our maps, while the other version's programs go on judging
//!  replace  each link's program by ours, and its pin into our directory; never a detach
//!  retire   what is left of the other version goes
//! ```
//!
//! A kill at any point leaves programs that judge by maps which are whole. Ours are whole once they
//! have a record, which is stored last; what has none is made again.

use std::fs;
use std::sync::atomic::Ordering;

use aya::maps::MapData;
use np_common::config::Config;
use np_common::maps::{CONFIG, FLOWS, IFACES, MapSpec, RECORDS};

use super::attach::Attacher;
use super::cleanup::remove_maps;
use super::error::{AttachError, DataplaneError, Shape};
use super::mapping::Mapping;
use super::pins::{Pins, Places, entries};
use super::{records, sys, tcx};

/// The first version whose flows mean what ours mean: version 1 counted their time otherwise. Flows that
/// name ids of another life do not count whatever their version: an endpoint says since when its id
/// is its own.
const FLOWS_SINCE: u32 = 2;
/// The first version whose IFACES, CONFIG and RECORDS mean what ours mean.
const DEVICES_SINCE: u32 = 1;

/// What another version leaves to us.
#[derive(Debug)]
pub(super) struct Inheritance {
    from: Pins,
    abi: u32,
}

/// The version that our maps are to follow; none when ours are whole, or there is no other.
pub(super) fn inheritance(places: &Places) -> Result<Option<Inheritance>, DataplaneError> {
    let whole = |pins: &Pins| -> Result<bool, DataplaneError> {
        Ok(record(pins)?.is_some() || !entries(&pins.links)?.is_empty())
    };
    if whole(&places.own)? {
        return Ok(None);
    }
    for other in &places.others {
        if whole(other)? {
            let abi = other.abi().unwrap_or(0);
            return Ok(Some(Inheritance { from: other.clone(), abi }));
        }
    }
    Ok(None)
}

impl Inheritance {
    /// Before our maps are made: those that are taken over as they are.
    pub(super) fn keep_flows(&self, own: &Pins) -> Result<(), DataplaneError> {
        // An upgrade that was broken off before it was whole.
        for pin in entries(&own.maps)? {
            fs::remove_file(&pin).map_err(DataplaneError::file("remove", &pin))?;
        }
        if self.abi < FLOWS_SINCE || !same_shape(&self.from, &FLOWS)? {
            return Ok(());
        }
        let path = self.from.map(&FLOWS);
        let flows = sys::open_pin(&path).map_err(DataplaneError::file("open", &path))?;
        let own = own.map(&FLOWS);
        match flows {
            Some(flows) => sys::pin(&flows, &own).map_err(DataplaneError::file("pin", &own)),
            None => Ok(()),
        }
    }

    /// Once our maps are there: devices, whose roles tell which bindings hold, and the generation,
    /// above which ours go on: the flows know it. Returns the record.
    pub(super) fn fill(&self, own: &Pins) -> Result<Option<Vec<u8>>, DataplaneError> {
        if self.abi < DEVICES_SINCE {
            return Ok(None);
        }
        if same_shape(&self.from, &IFACES)? {
            let (from, to) = (mapping(&self.from, &IFACES)?, mapping(own, &IFACES)?);
            for (from, to) in from.words().iter().zip(to.words()) {
                let word = from.load(Ordering::Acquire);
                if word != 0 {
                    to.store(word, Ordering::Release);
                }
            }
        }
        if same_shape(&self.from, &CONFIG)? {
            let config = Config::from_bits(mapping(&self.from, &CONFIG)?.load(0));
            let stored = mapping(own, &CONFIG)?.store(0, config.bits());
            debug_assert!(stored, "CONFIG has an element 0");
        }
        record(&self.from)
    }
}

impl Attacher {
    /// Removes what is left of other versions, once all devices have our programs. Their programs
    /// at devices that have none of ours any more judge by maps that nobody keeps.
    pub fn retire(&mut self) -> Result<usize, RetireError> {
        let others = std::mem::take(&mut self.places.others);
        for pins in &others {
            for link in pins.links()? {
                tcx::detach(pins, link.ifindex, link.side)?;
            }
            remove_maps(pins)?;
        }
        Ok(others.len())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    #[error(transparent)]
    Pins(#[from] DataplaneError),
    #[error(transparent)]
    Link(#[from] AttachError),
}

fn same_shape(pins: &Pins, spec: &MapSpec) -> Result<bool, DataplaneError> {
    Ok(pins.shape(spec)? == Some(Shape::from(spec)))
}

/// The record of a version; none if it has none, or none that we can read.
fn record(pins: &Pins) -> Result<Option<Vec<u8>>, DataplaneError> {
    // It says itself where it is, so it may have had another amount of room.
    let Some(shape) = pins.shape(&RECORDS)? else { return Ok(None) };
    let spec = MapSpec { max_entries: shape.max_entries, ..RECORDS };
    if shape != Shape::from(&spec) {
        return Ok(None);
    }
    Ok(records::load(&mapping(pins, &spec)?))
}

fn mapping(pins: &Pins, spec: &MapSpec) -> Result<Mapping, DataplaneError> {
    let map =
        MapData::from_pin(pins.map(spec)).map_err(DataplaneError::map("open pinned", spec))?;
    Mapping::new(map.fd(), spec).map_err(|source| DataplaneError::Memory { map: spec.name, source })
}
