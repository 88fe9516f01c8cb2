//! Programs of another np-agent at devices of this network namespace.
//!
//! Links of this pin directory, of whatever version, are ours to take over. Others' are not: both
//! agents' programs would run, and each writes its own ids over the other's tag.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use nix::net::if_::if_nameindex;

use super::error::DataplaneError;
use super::pins::{Pins, Places, entries, versions};
use super::sys::{self, TcSide};
use super::tcx;
use super::verify::is_ours;
use np_policy::model::IfIndex;

/// Refuses to run next to another np-agent's programs.
pub(super) fn refuse(pin_dir: &Path, places: &Places) -> Result<(), DataplaneError> {
    let mut ours = BTreeSet::new();
    for pins in places.all() {
        ours.extend(links(pins)?.into_keys());
    }
    let devices = if_nameindex()
        .map_err(|errno| DataplaneError::file("list", "devices".as_ref())(errno.into()))?;
    // Reading the other directories is for the rare case that something is there.
    let mut elsewhere: Option<BTreeMap<u32, PathBuf>> = None;
    for device in &devices {
        for side in TcSide::ALL {
            // A device that has gone since has no programs.
            for other in tcx::attached(IfIndex(device.index()), side).unwrap_or_default() {
                if ours.contains(&other.link) {
                    continue;
                }
                let elsewhere = match &mut elsewhere {
                    Some(known) => known,
                    none => none.insert(pinned_beside(pin_dir)),
                };
                let name = sys::program_name(other.program).filter(|name| is_ours(name));
                let pin = elsewhere.get(&other.link);
                if name.is_none() && pin.is_none() {
                    continue;
                }
                let program = match name {
                    Some(name) => format!("{name} (program {})", other.program),
                    None => format!("program {}", other.program),
                };
                let place = match pin {
                    Some(pin) => format!("pinned at {}", pin.display()),
                    None => {
                        format!("link {}, pinned nowhere near {}", other.link, pin_dir.display())
                    }
                };
                let device = device.name().to_string_lossy().into_owned();
                return Err(DataplaneError::Rival { device, program, place });
            }
        }
    }
    Ok(())
}

/// The links that other pin directories hold, as far as they can be read.
fn pinned_beside(pin_dir: &Path) -> BTreeMap<u32, PathBuf> {
    let siblings = pin_dir.parent().and_then(|parent| entries(parent).ok()).unwrap_or_default();
    let mut found = BTreeMap::new();
    for sibling in siblings.iter().filter(|sibling| *sibling != pin_dir) {
        for (version, _) in versions(sibling).unwrap_or_default() {
            found.extend(links(&Pins::of_version(&version)).unwrap_or_default());
        }
    }
    found
}

/// Id and place of each pinned link.
fn links(pins: &Pins) -> Result<BTreeMap<u32, PathBuf>, DataplaneError> {
    let mut links = BTreeMap::new();
    for pin in entries(&pins.links)? {
        let failed = DataplaneError::file("read the link pinned at", &pin);
        let link =
            sys::open_pin(&pin).and_then(|link| link.map(|l| sys::link_info(&l)).transpose());
        if let Some(info) = link.map_err(failed)? {
            links.insert(info.id, pin);
        }
    }
    Ok(links)
}
