//! Where maps and links are pinned: `PIN_DIR/v{ABI}/maps/NAME` and
//! `PIN_DIR/v{ABI}/links/IFINDEX-{ingress,egress}`.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use np_common::ABI_VERSION;
use np_common::maps::{self, MapSpec};

use super::error::{DataplaneError, Shape};
use super::sys::{self, TcSide};
use crate::model::IfIndex;

/// The directories of one ABI version.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub maps: PathBuf,
    pub links: PathBuf,
}

/// A link that an agent pinned before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AdoptedLink {
    pub ifindex: IfIndex,
    pub side: TcSide,
    /// The device is gone, or moved to another network namespace: nothing is filtered there any
    /// more, and a device that has this ifindex now is another.
    pub severed: bool,
}

impl Pins {
    pub(super) fn of(pin_dir: &Path) -> Self {
        Self::of_version(&pin_dir.join(format!("v{ABI_VERSION}")))
    }

    pub(super) fn of_version(version: &Path) -> Self {
        Self { maps: version.join("maps"), links: version.join("links") }
    }

    pub(super) fn create(&self) -> Result<(), DataplaneError> {
        for path in [&self.maps, &self.links] {
            // Nobody but root has business with what decides about packets.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(DataplaneError::file("create directory", path))?;
        }
        Ok(())
    }

    pub(super) fn map(&self, spec: &MapSpec) -> PathBuf {
        self.maps.join(spec.name)
    }

    pub(super) fn link(&self, ifindex: IfIndex, side: TcSide) -> PathBuf {
        self.links.join(format!("{}-{}", ifindex.0, side.name()))
    }

    /// Compares every pinned map with what it should be; aya would open anything of that name.
    pub(super) fn check_maps(&self, absent: Absent) -> Result<(), DataplaneError> {
        for spec in &maps::ALL {
            let path = self.map(spec);
            let exists =
                path.try_exists().map_err(DataplaneError::file("look for pinned map", &path))?;
            match (exists, absent) {
                (false, Absent::Fine) => continue,
                (false, Absent::Error) => return Err(DataplaneError::MapMissing(spec.name)),
                (true, _) => {}
            }
            let info =
                MapInfo::from_pin(&path).map_err(DataplaneError::map("open pinned", spec))?;
            let kind = info.map_type().map_err(DataplaneError::map("identify pinned", spec))?;
            let found = Shape {
                kind: kind as u32,
                key: info.key_size(),
                value: info.value_size(),
                max_entries: info.max_entries(),
                flags: info.map_flags(),
            };
            let wanted = Shape::from(spec);
            if found != wanted {
                return Err(DataplaneError::MapMismatch { path, found, wanted });
            }
        }
        Ok(())
    }

    /// The pinned links, ascending by device.
    pub(super) fn links(&self) -> Result<Vec<AdoptedLink>, DataplaneError> {
        let mut links = Vec::new();
        for (path, ifindex, side) in self.link_pins()? {
            let open = || -> io::Result<_> {
                match sys::open_pin(&path)? {
                    Some(link) => sys::link_info(&link).map(Some),
                    None => Ok(None),
                }
            };
            let info = open().map_err(DataplaneError::file("read the link pinned at", &path))?;
            if let Some(info) = info {
                links.push(AdoptedLink { ifindex, side, severed: info.ifindex == 0 });
            }
        }
        links.sort();
        Ok(links)
    }

    fn link_pins(&self) -> Result<Vec<(PathBuf, IfIndex, TcSide)>, DataplaneError> {
        let entries = entries(&self.links)?;
        Ok(entries
            .into_iter()
            .filter_map(|path| {
                let (ifindex, side) = path.file_name()?.to_str()?.split_once('-')?;
                let ifindex = IfIndex(ifindex.parse().ok()?);
                let side = TcSide::ALL.into_iter().find(|known| known.name() == side)?;
                Some((path, ifindex, side))
            })
            .collect())
    }
}

/// What a map that is not pinned means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    Fine,
    Error,
}

/// The paths in a directory, ascending; none if there is no such directory.
pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(directory)? {
            paths.push(entry?.path());
        }
        paths.sort();
        Ok(paths)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(DataplaneError::file("list directory", directory)),
    }
}

/// Refuses a pin directory that is, or would be made, on anything but a bpffs.
pub(super) fn require_bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    // The nearest directory that exists is where the others will be made.
    for path in pin_dir.ancestors() {
        match sys::is_bpffs(path) {
            Ok(true) => return Ok(()),
            Ok(false) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(DataplaneError::file("examine", path)(error)),
        }
    }
    Err(DataplaneError::NotBpffs { path: pin_dir.to_owned() })
}
