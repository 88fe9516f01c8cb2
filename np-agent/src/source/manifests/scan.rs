//! The files of a directory of manifests, and everything whose change may change them.
//!
//! Names that begin with a dot are passed over: a mounted ConfigMap keeps its versions in
//! `..2024_05_06…` and swaps the link `..data` between them, editors keep drafts in such files.
//! Symbolic links are followed; every link on the way is named as something to watch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::source::invalid::Invalid;

/// Directories below each other.
const DEEPEST: usize = 16;
/// Files read in all.
const MOST_FILES: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Scan {
    /// In the order in which they claim objects.
    pub files: Vec<PathBuf>,
    pub invalid: Vec<Invalid>,
    /// Files and directories whose content cannot be known.
    pub unknown: Vec<PathBuf>,
    pub watches: BTreeMap<PathBuf, Interest>,
}

/// Which names in a watched directory matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interest {
    /// All manifests and directories.
    pub manifests: bool,
    /// Links and link targets, by name.
    pub names: BTreeSet<OsString>,
}

impl Interest {
    pub fn merge(&mut self, other: &Interest) {
        self.manifests |= other.manifests;
        self.names.extend(other.names.iter().cloned());
    }
}

pub(super) fn scan(dir: &Path) -> Scan {
    let mut walk = Walk::default();
    walk.watch_way(dir);
    walk.directory(dir, &mut Vec::new());
    walk.scan
}

/// Whether a file of this name is read.
pub(super) fn is_manifest(name: &OsStr) -> bool {
    let extension = Path::new(name).extension();
    !hidden(name) && extension.is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

pub(super) fn hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// A file to read from; none when it is gone since the scan.
pub(super) fn open(path: &Path) -> Result<Option<fs::File>, Box<Invalid>> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Box::new(unreadable(path, &error))),
    };
    let regular = file.metadata().map(|metadata| metadata.is_file());
    if !regular.map_err(|error| Box::new(unreadable(path, &error)))? {
        let remedy = "move it out of the directory";
        return Err(Box::new(Invalid::file(path, "not a regular file", remedy)));
    }
    Ok(Some(file))
}

#[derive(Default)]
struct Walk {
    scan: Scan,
    /// Device and inode of each directory read, and where.
    seen: BTreeMap<(u64, u64), PathBuf>,
}

impl Walk {
    /// `above` are the directories that lead here, by device and inode.
    fn directory(&mut self, dir: &Path, above: &mut Vec<(u64, u64)>) {
        let metadata = match fs::metadata(dir) {
            Ok(metadata) => metadata,
            Err(error) => return self.unknown(dir, unreadable(dir, &error)),
        };
        let id = (metadata.dev(), metadata.ino());
        if let Some(problem) = self.again(dir, id, above) {
            let remedy = "remove the link";
            return self.unknown(dir, Invalid::file(dir, problem, remedy));
        }
        self.interest(dir).manifests = true;
        let entries = fs::read_dir(dir)
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect());
        let mut names: Vec<OsString> = match entries {
            Ok(names) => names,
            Err(error) => return self.unknown(dir, unreadable(dir, &error)),
        };
        names.sort();
        above.push(id);
        for name in names.iter().filter(|name| !hidden(name)) {
            self.entry(&dir.join(name), name, above);
        }
        above.pop();
    }

    fn entry(&mut self, path: &Path, name: &OsStr, above: &mut Vec<(u64, u64)>) {
        let link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if link {
            self.watch_way(path);
        }
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound && link => {
                let remedy = "remove the link, or bring back what it points to";
                let dangling = Invalid::file(path, "the link points to nothing", remedy);
                return self.unknown(path, dangling);
            }
            // Gone since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return self.unknown(path, unreadable(path, &error)),
        };
        if metadata.is_dir() {
            return self.directory(path, above);
        }
        if !is_manifest(name) {
            return;
        }
        if !metadata.is_file() {
            let remedy = "move it out of the directory";
            return self.unknown(path, Invalid::file(path, "not a regular file", remedy));
        }
        if self.scan.files.len() >= MOST_FILES {
            if self.scan.files.len() == MOST_FILES && !self.scan.unknown.contains(&path.to_owned())
            {
                let problem = format!("more than {MOST_FILES} files in all: this one is not read");
                self.unknown(path, Invalid::file(path, problem, "join manifests into fewer files"));
            }
            return;
        }
        self.scan.files.push(path.to_owned());
    }

    /// Why a directory must not be entered (again).
    fn again(&mut self, dir: &Path, id: (u64, u64), above: &[(u64, u64)]) -> Option<String> {
        if let Some(earlier) = self.seen.get(&id) {
            let earlier = earlier.display();
            return Some(if above.contains(&id) {
                format!("a link loop: this is {earlier}, which leads here")
            } else {
                format!("the same directory as {earlier}, which is read already")
            });
        }
        if above.len() >= DEEPEST {
            return Some(format!("more than {DEEPEST} directories below each other"));
        }
        self.seen.insert(id, dir.to_owned());
        None
    }

    fn unknown(&mut self, path: &Path, invalid: Invalid) {
        self.scan.invalid.push(invalid);
        self.scan.unknown.push(path.to_owned());
    }

    fn interest(&mut self, dir: &Path) -> &mut Interest {
        self.scan.watches.entry(dir.to_owned()).or_default()
    }

    /// Names every step that leads to `path`, through all links: if one is replaced, `path` is
    /// another file.
    fn watch_way(&mut self, path: &Path) {
        let Ok(path) = std::path::absolute(path) else { return };
        let mut rest: VecDeque<OsString> = steps(&path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(step) = rest.pop_front() {
            if step == ".." {
                here.pop();
                continue;
            }
            self.interest(&here).names.insert(step.clone());
            let next = here.join(&step);
            match fs::read_link(&next) {
                Ok(target) if links < 40 => {
                    links += 1;
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    let mut target = steps(&target);
                    target.extend(rest);
                    rest = target;
                }
                Ok(_) => return,
                Err(_) if fs::symlink_metadata(&next).is_ok() => here = next,
                Err(_) => return,
            }
        }
    }
}

fn steps(path: &Path) -> VecDeque<OsString> {
    let step = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> Invalid {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "bring it back",
        io::ErrorKind::PermissionDenied => "let the agent's user read it",
        io::ErrorKind::NotADirectory => "make it a directory again",
        _ if error.raw_os_error() == Some(libc::ELOOP) => "remove the link that points to itself",
        _ => "make it readable, or remove it",
    };
    let problem = match error.raw_os_error() {
        Some(libc::ELOOP) => "a link loop".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    Invalid::file(path, problem, remedy)
}
