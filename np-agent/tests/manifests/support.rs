//! Directories of manifests, and short forms of what is in a batch.

use std::fs;
use std::path::{Path, PathBuf};

use np_agent::source::{Batch, Invalid, Manifests};
use np_policy::model::{Change, Object, Policy};
use tempfile::TempDir;

/// A directory of its own, removed in the end.
pub struct Dir(pub TempDir);

impl Dir {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn with(name: &str, content: impl AsRef<[u8]>) -> Self {
        let dir = Self::new();
        dir.write(name, content);
        dir
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn open(&self) -> Manifests {
        Manifests::open(self.0.path()).unwrap()
    }

    pub fn load(&self) -> Batch {
        self.open().load()
    }
}

/// The one object of a batch without complaints.
pub fn only(batch: Batch) -> Object {
    assert_eq!(messages(&batch.invalid, Path::new("")), Vec::<String>::new());
    match <[Change; 1]>::try_from(batch.changes) {
        Ok([Change::Apply(object)]) => object,
        other => panic!("not one object: {other:?}"),
    }
}

pub fn read(text: &str) -> Object {
    only(Dir::with("a.yaml", text).load())
}

pub fn policy(spec: &str) -> Policy {
    let indented: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    match read(&format!("{}spec:\n{indented}", HEAD)) {
        Object::Policy(policy) => policy,
        other => panic!("not a policy: {other:?}"),
    }
}

/// A policy named `default/web` up to its `spec`.
pub const HEAD: &str =
    "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: web\n";

pub fn namespace(name: &str, labels: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {{{labels}}}\n")
}

/// "+Namespace a" for an applied object, "-Namespace a" for a deleted one.
pub fn changes(batch: &Batch) -> Vec<String> {
    let shown = |change: &Change| match change {
        Change::Apply(object) => format!("+{}", object.key()),
        Change::Delete(key, _) => format!("-{key}"),
        Change::Replace(..) => unreachable!("a directory tells of each object"),
    };
    batch.changes.iter().map(shown).collect()
}

/// Messages with paths below `dir`.
pub fn messages(invalid: &[Invalid], dir: &Path) -> Vec<String> {
    let prefix = format!("{}/", dir.display());
    invalid.iter().map(|invalid| invalid.to_string().replace(&prefix, "")).collect()
}
