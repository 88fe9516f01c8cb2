//! The kernel's side: programs at devices, and maps that hold the policy.
//!
//! Links and maps are pinned in a bpffs, so enforcement goes on while the agent is down, killed or
//! being replaced. [`open`] adopts what an earlier agent pinned, and reads back what the maps
//! hold; the agent then writes the difference to what they should hold, and only that.
//!
//! ```text
//!  PIN_DIR/v1/maps/NAME              the maps of np_common::maps
//!  PIN_DIR/v1/links/7-ingress        what is attached to device 7
//!             links/7-egress
//! ```
//!
//! Where the kernel has no TCX there are no links: filters stay at a device as long as it lives.
//!
//! Everything here blocks.

mod attach;
mod cleanup;
mod clsact;
mod counters;
mod error;
mod load;
#[cfg(feature = "debug-log")]
mod log;
mod mapping;
mod maps;
mod pins;
pub mod probe;
mod records;
mod sys;
mod tcx;

use std::path::{Path, PathBuf};

pub use attach::{Attacher, Chain, Mechanism, Side};
pub use cleanup::{CleanupReport, cleanup};
pub use counters::Counters;
pub use error::{ApplyError, AttachError, DataplaneError, Shape};
pub use load::OBJECT;
pub use maps::Maps;
pub use pins::AdoptedLink;
pub use sys::TcSide;

use crate::model::IfIndex;
use crate::plan::Tables;
use load::Programs;
use pins::{Absent, Pins};

#[derive(Clone, Debug)]
pub struct Options {
    /// A directory on a bpffs; it is made if it does not exist.
    pub pin_dir: PathBuf,
    /// How programs get to devices; none for [`Mechanism::of_kernel`].
    pub mechanism: Option<Mechanism>,
}

/// The kernel's side, ready for use.
#[derive(Debug)]
pub struct Opened {
    pub maps: Maps,
    pub attacher: Attacher,
    /// What the maps hold now: what an earlier agent left, or nothing.
    pub tables: Tables,
    /// The record that an earlier agent left.
    pub record: Option<Vec<u8>>,
    /// The links that an earlier agent left. They run its programs until they are attached anew.
    pub links: Vec<AdoptedLink>,
}

/// Loads the programs, adopts the pinned maps and pins those that are missing.
pub fn open(options: &Options) -> Result<Opened, DataplaneError> {
    let Options { pin_dir, mechanism } = options;
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms);
    }
    load::require_capabilities()?;
    pins::require_bpffs(pin_dir)?;
    let mechanism = mechanism.map_or_else(Mechanism::of_kernel, Ok)?;
    let pins = Pins::of(pin_dir);
    pins.create()?;
    pins.check_maps(Absent::Fine)?;
    let programs = Programs::load(&pins)?;
    // Now also those that the object made.
    pins.check_maps(Absent::Error)?;
    let maps = Maps::open(&pins)?;
    let tables = maps.tables()?;
    let record = maps.record();
    let links = attach::links(&pins)?;
    Ok(Opened { maps, attacher: Attacher::new(mechanism, pins, programs), tables, record, links })
}

/// What is pinned, for reading while no agent runs.
#[derive(Debug)]
pub struct Pinned {
    pins: Pins,
    maps: Maps,
}

impl Pinned {
    pub fn open(pin_dir: &Path) -> Result<Self, DataplaneError> {
        let pins = Pins::of(pin_dir);
        let exists = pins.maps.try_exists();
        if !exists.map_err(DataplaneError::file("look for", &pins.maps))? {
            return Err(DataplaneError::NothingPinned { path: pins.maps });
        }
        pins.check_maps(Absent::Error)?;
        let maps = Maps::open(&pins)?;
        Ok(Self { pins, maps })
    }

    pub fn tables(&self) -> Result<Tables, DataplaneError> {
        self.maps.tables()
    }

    pub fn record(&self) -> Option<Vec<u8>> {
        self.maps.record()
    }

    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        self.maps.counters()
    }

    pub fn links(&self) -> Result<Vec<AdoptedLink>, DataplaneError> {
        attach::links(&self.pins)
    }

    /// As [`Attacher::order`].
    pub fn order(&self, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
        attach::order(&self.pins, ifindex)
    }
}
