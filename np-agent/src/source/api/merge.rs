//! Five feeds into one: what of them reaches the agent, and in which order.
//!
//! An update that changes nothing that policy reads goes no further: a fingerprint of each object
//! is kept to tell. And a pod's name may be in both feeds of pods for a while, when a pod moves
//! from one node to another under its name: of the two the one with the greater resourceVersion is
//! the later, whichever feed is faster.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};

use super::read::Read;
use super::resource::Resource;
use crate::source::Batch;
use crate::source::narrowed::Narrowed;
use np_policy::model::{Change, NodeName, Object, ObjectKey, PodUid};

/// What a feed brings.
#[derive(Debug)]
pub enum Event {
    /// All there is.
    Replace(Resource, Vec<Read>),
    /// ADDED or MODIFIED.
    Set(Resource, Box<Read>),
    /// DELETED.
    Gone(Resource, Box<Read>),
}

#[derive(Debug)]
pub struct Merge {
    node: NodeName,
    hasher: RandomState,
    feeds: BTreeMap<Resource, Feed>,
    changes: Vec<Change>,
    /// What there is to report has changed since the last batch.
    news: bool,
    /// How many objects a list has not shown any more, by feed.
    pub removed: BTreeMap<Resource, u64>,
}

#[derive(Debug, Default)]
struct Feed {
    listed: bool,
    /// By the hash of the object's name.
    known: HashMap<u64, Known>,
    narrowed: BTreeMap<ObjectKey, Vec<Narrowed>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    uid: u64,
    content: u64,
    version: u64,
}

/// More than a user reads.
const MOST_TOLD: usize = 200;

impl Merge {
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            hasher: RandomState::new(),
            feeds: Resource::ALL.map(|resource| (resource, Feed::default())).into(),
            changes: Vec::new(),
            news: false,
            removed: BTreeMap::new(),
        }
    }

    /// Takes in what a feed brings.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Replace(resource, all) => self.replace(resource, all),
            Event::Set(resource, read) => self.set(resource, *read),
            Event::Gone(resource, read) => self.gone(resource, &read),
        }
    }

    fn replace(&mut self, resource: Resource, all: Vec<Read>) {
        let before = std::mem::take(self.feed(resource));
        let mut objects = Vec::new();
        let mut feed = Feed { listed: true, ..Feed::default() };
        for Read { key, uid, version, object, narrowed } in all {
            let name = self.hasher.hash_one(&key);
            if self.superseded(resource, name, &uid, version) {
                continue;
            }
            if !narrowed.is_empty() {
                feed.narrowed.insert(key, narrowed);
            }
            if let Some(object) = object {
                let uid = self.hasher.hash_one(&uid);
                let content = self.fingerprint(&object);
                feed.known.insert(name, Known { uid, content, version });
                objects.push(object);
            }
        }
        feed.known.shrink_to_fit();
        let gone = before.known.keys().filter(|name| !feed.known.contains_key(name)).count();
        if gone > 0 {
            *self.removed.entry(resource).or_default() += gone as u64;
        }
        if gone * 2 > before.known.len() {
            let were = before.known.len();
            tracing::warn!("{gone} of {were} objects are gone from the list of {resource}");
        }
        self.news |= !before.listed || before.narrowed != feed.narrowed;
        *self.feed(resource) = feed;
        self.changes.push(Change::Replace(resource.collection(&self.node), objects));
    }

    fn set(&mut self, resource: Resource, read: Read) {
        let name = self.hasher.hash_one(&read.key);
        if self.superseded(resource, name, &read.uid, read.version) {
            return;
        }
        let Some(object) = read.object else {
            let narrowed = read.narrowed.clone();
            let key = read.key.clone();
            self.gone(resource, &read);
            return self.tell(resource, key, narrowed);
        };
        let uid = self.hasher.hash_one(&read.uid);
        let content = self.fingerprint(&object);
        let known = Known { uid, content, version: read.version };
        let before = self.feed(resource).known.insert(name, known);
        self.tell(resource, read.key, read.narrowed);
        if before.is_none_or(|before| (before.uid, before.content) != (uid, content)) {
            self.changes.push(Change::Apply(object));
        }
    }

    fn gone(&mut self, resource: Resource, read: &Read) {
        let name = self.hasher.hash_one(&read.key);
        let uid = self.hasher.hash_one(&read.uid);
        let feed = self.feed(resource);
        if feed.known.get(&name).is_none_or(|known| known.uid != uid) {
            return;
        }
        feed.known.remove(&name);
        self.tell(resource, read.key.clone(), Vec::new());
        let uid = match read.key {
            ObjectKey::Pod(_) => Some(PodUid(read.uid.as_str().into())),
            ObjectKey::Namespace(_) | ObjectKey::Policy(_) | ObjectKey::Node(_) => None,
        };
        self.changes.push(Change::Delete(read.key.clone(), uid));
    }

    /// Whether the other feed of pods knows a later pod under this name.
    fn superseded(&self, resource: Resource, name: u64, uid: &str, version: u64) -> bool {
        let other =
            resource.other_pods().and_then(|other| self.feeds.get(&other)?.known.get(&name));
        other.is_some_and(|other| other.uid != self.hasher.hash_one(uid) && other.version > version)
    }

    fn tell(&mut self, resource: Resource, key: ObjectKey, narrowed: Vec<Narrowed>) {
        let told = &mut self.feed(resource).narrowed;
        self.news |= if narrowed.is_empty() {
            told.remove(&key).is_some()
        } else {
            told.get(&key) != Some(&narrowed) && {
                told.insert(key, narrowed);
                true
            }
        };
    }

    fn feed(&mut self, resource: Resource) -> &mut Feed {
        self.feeds.entry(resource).or_default()
    }

    fn fingerprint(&self, object: &Object) -> u64 {
        self.hasher.hash_one(object)
    }

    /// The feeds that have not been listed yet.
    pub fn missing(&self) -> impl Iterator<Item = Resource> {
        self.feeds.iter().filter(|(_, feed)| !feed.listed).map(|(resource, _)| *resource)
    }

    /// Hands over what has come together; none if that is nothing.
    pub fn batch(&mut self) -> Option<Batch> {
        if self.changes.is_empty() && !self.news {
            return None;
        }
        self.news = false;
        let narrowed = self.feeds.values().flat_map(|feed| feed.narrowed.values().flatten());
        Some(Batch {
            changes: std::mem::take(&mut self.changes),
            narrowed: narrowed.take(MOST_TOLD).cloned().collect(),
            missing: self.missing().map(|resource| resource.to_string()).collect(),
            ..Batch::default()
        })
    }
}
