//! Where maps and links are pinned: `PIN_DIR/v{ABI}/maps/NAME` and
//! `PIN_DIR/v{ABI}/links/IFINDEX-{ingress,egress}`. A link that is to replace another is pinned as
//! `…-new` until it does.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use np_common::ABI_VERSION;
use np_common::maps::{self, MapSpec};

use super::error::{DataplaneError, Shape};
use super::sys::{self, TcSide};
use np_policy::model::IfIndex;

/// The directories of one ABI version.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub version: PathBuf,
    pub maps: PathBuf,
    pub links: PathBuf,
}

/// The directories of this version, and of the others whose programs may still be at devices.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub own: Pins,
    /// Newest first.
    pub others: Vec<Pins>,
}

impl Places {
    pub(super) fn of(pin_dir: &Path, abi: u32) -> Result<Self, DataplaneError> {
        let mut others: Vec<u32> =
            versions(pin_dir)?.into_iter().map(|(_, of)| of).filter(|of| *of != abi).collect();
        others.sort_unstable_by(|one, other| other.cmp(one));
        let pins = |abi: u32| Pins::of_version(&pin_dir.join(format!("v{abi}")));
        Ok(Self { own: pins(abi), others: others.into_iter().map(pins).collect() })
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Pins> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// The pinned links of all versions, ascending by device.
    pub(super) fn links(&self) -> Result<Vec<AdoptedLink>, DataplaneError> {
        let mut links = Vec::new();
        for pins in self.all() {
            links.extend(pins.links()?);
        }
        // Of one side of a device that lives, one link lives.
        links.sort();
        links.dedup_by_key(|link| (link.ifindex, link.side));
        Ok(links)
    }
}

/// The directories of versions in a pin directory.
pub(super) fn versions(pin_dir: &Path) -> Result<Vec<(PathBuf, u32)>, DataplaneError> {
    let version = |path: PathBuf| {
        let abi = path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()?;
        Some((path, abi))
    };
    Ok(entries(pin_dir)?.into_iter().filter_map(version).collect())
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
        Self {
            version: version.to_owned(),
            maps: version.join("maps"),
            links: version.join("links"),
        }
    }

    /// The version; none for a directory that is none of a version.
    pub(super) fn abi(&self) -> Option<u32> {
        self.version.file_name()?.to_str()?.strip_prefix('v')?.parse().ok()
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

    /// Where the link is pinned that is to replace another.
    pub(super) fn draft(&self, ifindex: IfIndex, side: TcSide) -> PathBuf {
        self.links.join(format!("{}-{}{DRAFT}", ifindex.0, side.name()))
    }

    /// Removes links that an agent was killed over before they replaced others, which are there.
    pub(super) fn sweep(&self) -> Result<(), DataplaneError> {
        let is_draft = |path: &PathBuf| path.to_string_lossy().ends_with(DRAFT);
        for path in entries(&self.links)?.into_iter().filter(is_draft) {
            fs::remove_file(&path).map_err(DataplaneError::file("remove", &path))?;
        }
        Ok(())
    }

    /// What the kernel says of a pinned map; none if none is pinned.
    pub(super) fn shape(&self, spec: &MapSpec) -> Result<Option<Shape>, DataplaneError> {
        let path = self.map(spec);
        let exists = path.try_exists();
        if !exists.map_err(DataplaneError::file("look for pinned map", &path))? {
            return Ok(None);
        }
        let info = MapInfo::from_pin(&path).map_err(DataplaneError::map("open pinned", spec))?;
        let kind = info.map_type().map_err(DataplaneError::map("identify pinned", spec))?;
        Ok(Some(Shape {
            kind: kind as u32,
            key: info.key_size(),
            value: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        }))
    }

    /// Compares every pinned map with what it should be; aya would open anything of that name.
    pub(super) fn check_maps(&self, absent: Absent) -> Result<(), DataplaneError> {
        for spec in &maps::ALL {
            let wanted = Shape::from(spec);
            match self.shape(spec)? {
                None if absent == Absent::Fine => {}
                None => return Err(DataplaneError::MapMissing(spec.name)),
                Some(found) if found == wanted => {}
                Some(found) => {
                    let path = self.map(spec);
                    return Err(DataplaneError::MapMismatch { path, found, wanted });
                }
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

/// A bpffs takes no names with dots.
const DRAFT: &str = "-new";

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
