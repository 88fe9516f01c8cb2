//! What the directory says now against what is in force: one change, and the complaints.
//!
//! The last good version stays: an object goes away only when the files it came from can be read,
//! are understood, and do not have it any more.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use super::SourceError;
use super::convert::{self, Claim, Parsed};
use super::invalid::Invalid;
use super::memory::{self, Good};
use super::scan::{self, Scan};
use crate::model::{Background, Change, ObjectKey};

const PARSER_STACK: usize = 16 << 20;

/// A directory of manifests, and what was last in force.
#[derive(Debug)]
pub struct Manifests {
    dir: PathBuf,
    good: BTreeMap<ObjectKey, Good>,
    /// Where the last good versions outlive the process.
    memory: Option<PathBuf>,
    /// Nobody has been told of `good` yet.
    fresh: bool,
}

/// What one reading of the directory brought: one change of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Against the last batch; at most one for each object.
    pub changes: Vec<Change>,
    /// Everything that is wrong now, in the order of files and lines.
    pub invalid: Vec<Invalid>,
    /// Documents of kinds that the agent does not enforce.
    pub ignored: usize,
    /// What the manifests say beyond that; without the places of fields.
    pub background: Background,
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
    // A file that is named and lies in a named directory is read once.
    let mut seen = BTreeSet::new();
    whole.files.retain(|file| seen.insert(file.clone()));
    let mut nothing =
        Manifests { dir: PathBuf::new(), good: BTreeMap::new(), memory: None, fresh: true };
    Ok(nothing.take(whole))
}

/// A document that names an object, and where it stands.
struct Seen {
    file: PathBuf,
    claim: Claim,
}

impl Manifests {
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, SourceError> {
        let dir = dir.into();
        match fs::read_dir(&dir) {
            Ok(_) => Ok(Self { dir, good: BTreeMap::new(), memory: None, fresh: true }),
            Err(_) if fs::metadata(&dir).is_ok_and(|metadata| !metadata.is_dir()) => {
                Err(SourceError::NotADirectory { dir })
            }
            Err(error) => Err(SourceError::Unreadable { dir, error }),
        }
    }

    /// Keeps the last good versions in a file, and takes up those that an earlier process left
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
        let mut ignored = 0;
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
        let good = self.next(seen, &unknown);
        let changes =
            if self.fresh { changes(&BTreeMap::new(), &good) } else { changes(&self.good, &good) };
        self.fresh = false;
        self.good = good;
        if let Some(file) = &self.memory
            && !changes.is_empty()
            && let Err(error) = memory::write(file, self.good.values())
        {
            tracing::warn!(file = %file.display(), %error, "cannot remember the last good versions");
        }
        invalid.sort();
        Batch { changes, invalid, ignored, background }
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

/// What a file says; none when it is gone since the scan.
fn parsed(file: &Path) -> Result<Option<Parsed>, Box<Invalid>> {
    let Some(bytes) = scan::read(file)? else { return Ok(None) };
    // Parsing recurses, about 30 KiB a level in a debug build: a stack of its own makes the bound
    // on nesting good wherever this runs, and keeps a fault of the parser to this file.
    thread::scope(|scope| {
        let reading = thread::Builder::new()
            .name("manifest".to_owned())
            .stack_size(PARSER_STACK)
            .spawn_scoped(scope, || convert::file(file, &bytes))
            .map_err(|error| {
                let problem = format!("no thread to read it: {error}");
                Box::new(Invalid::file(file, problem, "raise the limit on threads (pids.max)"))
            })?;
        reading.join().map(Some).map_err(|_| {
            let remedy = "report it with this file, and write the manifest in another way";
            Box::new(Invalid::file(file, "the parser failed on it", remedy))
        })
    })
}

fn changes(old: &BTreeMap<ObjectKey, Good>, new: &BTreeMap<ObjectKey, Good>) -> Vec<Change> {
    let changed = |(key, good): &(&ObjectKey, &Good)| {
        old.get(*key).is_none_or(|old| old.object != good.object)
    };
    let applied = new.iter().filter(changed).map(|(_, good)| Change::Apply(good.object.clone()));
    let gone = old.keys().filter(|key| !new.contains_key(*key)).cloned().map(Change::Delete);
    gone.chain(applied).collect()
}
