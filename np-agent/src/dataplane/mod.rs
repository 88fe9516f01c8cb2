//! The kernel's side: programs at devices, and maps that hold the policy.
//!
//! Links and maps are pinned in a bpffs, so enforcement goes on while the agent is down, killed or
//! being replaced. [`open`] adopts what an earlier agent pinned, and reads back what the maps
//! hold; the agent then writes the difference to what they should hold, and only that.
//!
//! ```text
//!  PIN_DIR/v{ABI}/maps/NAME          the maps of np_common::maps
//!  PIN_DIR/v{ABI}/links/7-ingress    what is attached to device 7
//!                 links/7-egress
//! ```
//!
//! The maps of events are not pinned: each load of the programs makes its own.
//!
//! Where the kernel has no TCX there are no links: filters stay at a device as long as it lives.
//!
//! Everything here blocks.

mod attach;
pub mod capabilities;
mod cleanup;
mod clsact;
mod counters;
mod doors;
mod error;
mod events;
mod filter;
mod load;
mod lock;
#[cfg(feature = "debug-log")]
mod log;
mod mapping;
mod maps;
mod mount;
mod pins;
pub mod probe;
mod records;
mod rivals;
mod rtnetlink;
mod sys;
mod tcevents;
mod tcx;
mod upgrade;
mod verify;

use std::path::{Path, PathBuf};

pub use attach::{Attacher, Chain, Mechanism, Side};
pub use cleanup::{CleanupReport, cleanup};
pub use counters::Counters;
pub use doors::{Doors, Unheard};
pub use error::{ApplyError, AttachError, DataplaneError, Shape};
pub use events::{Events, Reporting};
pub use load::OBJECT;
pub use lock::NamespaceLock;
pub use maps::Maps;
pub use mount::{Bpffs, mount_bpffs};
pub use pins::AdoptedLink;
pub use records::ROOM as RECORD_ROOM;
pub use sys::TcSide;
pub use tcevents::TcEvents;
pub use upgrade::RetireError;
pub use verify::{Checked, Finding};

use load::Object;
use np_common::ABI_VERSION;
use np_policy::model::IfIndex;
use np_policy::plan::Tables;
use pins::{Absent, Pins, Places};

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
    /// The links that earlier agents left, of whatever version. They run those agents' programs
    /// until they are attached anew.
    pub links: Vec<AdoptedLink>,
    /// For whoever sees devices first.
    pub doors: Doors,
    /// For whoever compares the maps with the plan.
    pub reader: Reader,
    /// For the thread that names events.
    pub events: Events,
    pub reporting: Reporting,
    /// The maps are new, and programs of another version judge by theirs.
    pub inherits: bool,
}

/// That this process may do what it must, where it must. Nothing is made by it.
pub fn require(options: &Options) -> Result<(), DataplaneError> {
    if OBJECT.is_empty() {
        return Err(DataplaneError::NoPrograms);
    }
    capabilities::require()?;
    pins::require_bpffs(&options.pin_dir)
}

/// Loads the programs, adopts the pinned maps and pins those that are missing.
pub fn open(options: &Options) -> Result<Opened, DataplaneError> {
    open_version(options, ABI_VERSION)
}

/// As [`open`], with the pins of another version than the programs'. For tests of upgrades.
pub fn open_version(options: &Options, abi: u32) -> Result<Opened, DataplaneError> {
    require(options)?;
    let Options { pin_dir, mechanism } = options;
    let mechanism = mechanism.map_or_else(Mechanism::of_kernel, Ok)?;
    let places = Places::of(pin_dir, abi)?;
    rivals::refuse(pin_dir, &places)?;
    let pins = &places.own;
    pins.create()?;
    pins.sweep()?;
    let inheritance = upgrade::inheritance(&places)?;
    if let Some(from) = &inheritance {
        from.keep_flows(pins)?;
    }
    pins.check_maps(Absent::Fine)?;
    let object = Object::open(pins)?;
    // Now also those that the object made.
    pins.check_maps(Absent::Error)?;
    let inherits = inheritance.is_some();
    let inherited = inheritance.map(|from| from.fill(pins)).transpose()?.flatten();
    let maps = Maps::open(pins)?;
    let tables = maps.tables()?;
    let record = maps.record().or(inherited);
    let links = attach::links(&places)?;
    let doors = Doors::open(pins)?;
    let reader = Reader(Maps::open(pins)?);
    let (events, reporting) = events::open(&object)?;
    let attacher = Attacher::new(mechanism, places, object)?;
    Ok(Opened { maps, attacher, tables, record, links, doors, reader, events, reporting, inherits })
}

/// Reads what the maps hold while another thread writes them.
#[derive(Debug)]
pub struct Reader(Maps);

impl Reader {
    /// What is written meanwhile may be in it or not.
    pub fn tables(&self) -> Result<Tables, DataplaneError> {
        self.0.tables()
    }
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
        attach::links(&Places { own: self.pins.clone(), others: Vec::new() })
    }

    /// As [`Attacher::order`].
    pub fn order(&self, ifindex: IfIndex) -> Result<Vec<Chain>, AttachError> {
        attach::order(&self.pins, ifindex)
    }
}
