//! Takes everything of np-agent off the node, with or without an agent that runs.

use std::fs;
use std::io;
use std::path::Path;

use super::error::DataplaneError;
use super::pins::{AdoptedLink, Pins, entries, require_bpffs, versions};
use super::{clsact, sys};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanupReport {
    pub links: usize,
    pub maps: usize,
}

/// Detaches every link and filter, of every ABI version, and removes every pin: all traffic passes
/// afterwards. Finding nothing is success.
pub fn cleanup(pin_dir: &Path) -> Result<CleanupReport, DataplaneError> {
    let mut report = CleanupReport::default();
    report.links += filters()?;
    if !pin_dir.try_exists().map_err(DataplaneError::file("look for", pin_dir))? {
        return Ok(report);
    }
    require_bpffs(pin_dir)?;
    for (version, _) in versions(pin_dir)? {
        let pins = Pins::of_version(&version);
        for pin in entries(&pins.links)? {
            // Detached one by one before it is unpinned: removing pins in a row would queue up
            // their grace periods under RTNL and stop every CNI on the node for as long.
            if let Some(link) = sys::open_pin(&pin)
                .map_err(DataplaneError::file("open the link pinned at", &pin))?
            {
                sys::link_detach(&link).map_err(DataplaneError::file("detach the link", &pin))?;
            }
            removed(&pin, fs::remove_file(&pin))?;
            report.links += 1;
        }
        report.maps += remove_maps(&pins)?;
    }
    removed(pin_dir, fs::remove_dir(pin_dir))?;
    Ok(report)
}

/// Removes the pins of a version's maps, and its directories. Returns how many maps there were.
pub(super) fn remove_maps(pins: &Pins) -> Result<usize, DataplaneError> {
    let mut maps = 0;
    for pin in entries(&pins.maps)? {
        removed(&pin, fs::remove_file(&pin))?;
        maps += 1;
    }
    for directory in [&pins.links, &pins.maps, &pins.version] {
        removed(directory, fs::remove_dir(directory))?;
    }
    Ok(maps)
}

/// Takes our filters off all devices.
fn filters() -> Result<usize, DataplaneError> {
    let failed = |action| DataplaneError::file(action, "clsact".as_ref());
    let filters = clsact::ours().map_err(failed("list the filters of"))?;
    for AdoptedLink { ifindex, side, .. } in &filters {
        match clsact::detach(ifindex.0, *side) {
            // The device went this instant.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            other => other.map_err(failed("remove our filter from"))?,
        }
    }
    Ok(filters.len())
}

/// What is not there, or is the mount point itself, need not be removed.
fn removed(path: &Path, result: io::Result<()>) -> Result<(), DataplaneError> {
    match result {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy) =>
        {
            Ok(())
        }
        other => other.map_err(DataplaneError::file("remove", path)),
    }
}
