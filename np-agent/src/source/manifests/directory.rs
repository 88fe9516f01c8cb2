//! What the directory says now against what is in force: one change, and the complaints.
//!
//! The last good version stays: an object goes away only when the files it came from can be read,
//! are understood, and do not have it any more. A directory in which nothing has been found yet,
//! such as one whose volume is not mounted, says nothing about what an earlier process read there.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, ErrorKind::NotFound};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use super::convert::{Claim, Parsed};
use super::memory::{self, Good};
use super::pieces;
use super::scan::{self, Scan};
use crate::source::invalid::Invalid;
use crate::source::{Batch, SourceError};
use np_policy::model::{Background, Change, ObjectKey};

const PARSER_STACK: usize = 16 << 20;

/// A directory of manifests, and what was last in force.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    good: BTreeMap<ObjectKey, Good>,
    /// Where the last good versions outlive the process.
    memory: Option<PathBuf>,
    /// `good` has not been handed on yet.
    fresh: bool,
    /// A document has been found: this is the directory that is meant.
    proven: bool,
}

/// Reads files and directories once, with the place of every field of a policy.
pub fn read(paths: &[PathBuf]) -> Result<Batch, SourceError> {
    let mut whole = Scan::default();
    for path in paths {
        let unreadable = |error| SourceError::Input { path: path.clone(), error };
        if fs::metadata(path).map_err(unreadable)?.is_dir() {
            fs::read_dir(path).map_err(unreadable)?;
            let Scan { files, invalid, unknown: _, watches: _ } = scan::scan(path);
            whole.files.extend(files);
            whole.invalid.extend(invalid);
        } else {
            fs::File::open(path).map_err(unreadable)?;
            whole.files.push(path.clone());
        }
    }
    // A file that is named itself and is in a named directory is read once.
    let mut seen = BTreeSet::new();
    whole.files.retain(|file| seen.insert(file.clone()));
    Ok(Manifests::new(PathBuf::new()).take(whole))
}

/// A document that names an object, and where it stands.
struct Seen {
    file: PathBuf,
    claim: Claim,
}

impl Manifests {
    fn new(dir: PathBuf) -> Self {
        Self { dir, good: BTreeMap::new(), memory: None, fresh: true, proven: false }
    }

    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let dir = dir.into();
        match fs::read_dir(&dir) {
            Ok(_) => Ok(Self::new(dir)),
            Err(_) if fs::metadata(&dir).is_ok_and(|metadata| !metadata.is_dir()) => {
                Err(SourceError::NotADirectory { dir })
            }
            Err(error) => Err(SourceError::Unreadable { dir, error }),
        }
    }

    /// Continues from what an earlier process left in `memory`, also while the directory is missing.
    pub fn resume(dir: impl Into<PathBuf>, memory: PathBuf) -> Result<Self, SourceError> {
        match Self::open(dir) {
            Ok(manifests) => Ok(manifests.remember_in(memory)),
            Err(SourceError::Unreadable { dir, error }) if error.kind() == NotFound => {
                let manifests = Self::new(dir.clone()).remember_in(memory);
                if manifests.good.is_empty() {
                    return Err(SourceError::Unreadable { dir, error });
                }
                Ok(manifests)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the last good versions in a file, and restores those that an earlier process left
    /// there: a manifest that is broken while the agent restarts must not lift its policy.
    pub fn remember_in(mut self, file: PathBuf) -> Self {
        let remembered =
            memory::read(&file).into_iter().filter(|good| good.file.starts_with(&self.dir));
        self.good = remembered.map(|good| (good.object.key(), good)).collect();
        self.memory = Some(file);
        self
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the directory. Nothing that is wrong with it is an error: it is in the batch.
    pub fn load(&mut self) -> Batch {
        let mut batch = self.take(scan::scan(&self.dir));
        batch.background.condense();
        batch
    }

    fn take(&mut self, scan: Scan) -> Batch {
        let Scan { files, mut invalid, mut unknown, watches: _ } = scan;
        let mut seen: BTreeMap<ObjectKey, Seen> = BTreeMap::new();
        let mut background = Background::default();
        let (mut ignored, mut documents) = (0, 0);
        for file in files {
            let parsed = match parsed(&file) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => continue,
                Err(problem) => {
                    invalid.push(*problem);
                    unknown.push(file);
                    continue;
                }
            };
            ignored += parsed.ignored;
            documents += parsed.documents;
            background.merge(parsed.background);
            invalid.extend(parsed.invalid);
            // Such a document may be the edit of any object of its file.
            let mut unclear = parsed.unidentified;
            for claim in parsed.claims {
                unclear |= self.claim(&mut seen, &file, claim, &mut invalid);
            }
            if unclear {
                unknown.push(file);
            }
        }
        self.proven |= documents > 0;
        let (good, held) = if self.proven || self.good.is_empty() {
            (self.next(seen, &unknown), None)
        } else {
            (self.good.clone(), Some(held(&self.dir, self.good.len())))
        };
        let changes =
            if self.fresh { changes(&BTreeMap::new(), &good) } else { changes(&self.good, &good) };
        self.fresh = false;
        let good_before = std::mem::replace(&mut self.good, good).len();
        if let Some(file) = &self.memory
            && (!changes.is_empty() || good_before != self.good.len())
            && let Err(error) = memory::write(file, self.good.values())
        {
            tracing::warn!(file = %file.display(), %error, "cannot remember the last good versions");
        }
        invalid.sort();
        Batch { changes, invalid, ignored, background, held, ..Batch::default() }
    }

    /// The first document that names an object has it, also when it is refused and the object's
    /// last good version therefore stays. Whether the claim leaves unclear which object its
    /// document was before: it is refused, and its name is new or another document's.
    fn claim(
        &self,
        seen: &mut BTreeMap<ObjectKey, Seen>,
        file: &Path,
        claim: Claim,
        invalid: &mut Vec<Invalid>,
    ) -> bool {
        let refused = claim.object.is_none();
        let known = self.good.contains_key(&claim.key);
        let mut first = match seen.entry(claim.key.clone()) {
            Entry::Vacant(place) => {
                place.insert(Seen { file: file.to_owned(), claim });
                return refused && !known;
            }
            Entry::Occupied(first) => first,
        };
        if refused {
            return true;
        }
        if first.get().claim.object.is_none() && !known {
            first.insert(Seen { file: file.to_owned(), claim });
            return false;
        }
        let Seen { file: other, claim: earlier } = first.get();
        let name = match &claim.key {
            ObjectKey::Pod(key) => key.name.as_ref(),
            ObjectKey::Policy(key) => &key.name,
            ObjectKey::Namespace(name) => name,
            ObjectKey::Node(name) => &name.0,
        };
        invalid.push(Invalid {
            file: file.to_owned(),
            line: claim.line,
            column: claim.column,
            object: Some(claim.key.to_string()),
            field: "metadata.name".to_owned(),
            value: name.to_owned(),
            problem: format!(
                "given already at {}:{}:{}, which counts",
                other.display(),
                earlier.line,
                earlier.column
            ),
            remedy: "remove one of the two, or rename it".to_owned(),
        });
        true
    }

    /// What is in force from now on.
    fn next(
        &self,
        seen: BTreeMap<ObjectKey, Seen>,
        unknown: &[PathBuf],
    ) -> BTreeMap<ObjectKey, Good> {
        let mut next = BTreeMap::new();
        for (key, Seen { file, claim }) in seen {
            let last = || self.good.get(&key).map(|good| good.object.clone());
            if let Some(object) = claim.object.or_else(last) {
                next.insert(key, Good { object, file });
            }
        }
        for (key, good) in &self.good {
            let hidden = unknown.iter().any(|path| good.file.starts_with(path));
            if hidden && !next.contains_key(key) {
                next.insert(key.clone(), good.clone());
            }
        }
        next
    }

    pub(super) fn watches(&self) -> BTreeMap<PathBuf, scan::Interest> {
        scan::scan(&self.dir).watches
    }
}

fn held(dir: &Path, objects: usize) -> String {
    format!(
        "{}: no manifest is there, and {objects} objects from there are in force: they stay so; \
         bring the manifests back, or if none is wanted any more say so by a file with \
         \"{{apiVersion: v1, kind: List, items: []}}\"",
        dir.display()
    )
}

/// What a file says; none when it is gone since the scan.
fn parsed(path: &Path) -> Result<Option<Parsed>, Box<Invalid>> {
    // Parsing recurses, about 30 KiB a level in a debug build: a stack of its own makes the bound
    // on nesting good wherever this runs, and keeps a fault of the parser to this file.
    thread::scope(|scope| {
        let reading = thread::Builder::new()
            .name("manifest".to_owned())
            .stack_size(PARSER_STACK)
            .spawn_scoped(scope, || at_rest(path))
            .map_err(|error| {
                let problem = format!("no thread to read it: {error}");
                Box::new(Invalid::file(path, problem, "raise the limit on threads (pids.max)"))
            })?;
        reading.join().unwrap_or_else(|_| {
            let remedy = "report it with this file, and write the manifest in another way";
            Err(Box::new(Invalid::file(path, "the parser failed on it", remedy)))
        })
    })
}

/// Reads a file that does not change while it is read: it is read twice, first for the places of
/// its pieces and then for the pieces.
fn at_rest(path: &Path) -> Result<Option<Parsed>, Box<Invalid>> {
    const TRIES: usize = 3;
    let version = |file: &File| -> io::Result<_> {
        let metadata = file.metadata()?;
        Ok((metadata.len(), metadata.mtime_nsec(), metadata.mtime(), metadata.ctime_nsec()))
    };
    for _ in 0..TRIES {
        let Some(file) = scan::open(path)? else { return Ok(None) };
        let read = || {
            let before = version(&file)?;
            let parsed = pieces::file(path, &file)?;
            Ok((version(&file)? == before).then_some(parsed))
        };
        match read() {
            Ok(Some(parsed)) => return Ok(Some(parsed)),
            Ok(None) => {}
            Err(error) => return Err(Box::new(scan::unreadable(path, &error))),
        }
    }
    let remedy = "write the new version under another name, then rename it to this one";
    Err(Box::new(Invalid::file(path, "changes while it is read", remedy)))
}

fn changes(old: &BTreeMap<ObjectKey, Good>, new: &BTreeMap<ObjectKey, Good>) -> Vec<Change> {
    let changed = |(key, good): &(&ObjectKey, &Good)| {
        old.get(*key).is_none_or(|old| old.object != good.object)
    };
    let applied = new.iter().filter(changed).map(|(_, good)| Change::Apply(good.object.clone()));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).cloned().map(Change::delete);
    gone.chain(applied).collect()
}
