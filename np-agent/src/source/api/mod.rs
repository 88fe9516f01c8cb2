//! An API server as the source: five lists, each followed by a watch.
//!
//! ```text
//! fetch, one for each resource                                 merge
//!   connection ─ client ─▶ wire ─ texts ─▶ prune, read ─ Event ──▶ what changes anything ─▶ Batch
//!        reflector: when to list, watch, wait                      health: what users see
//! ```
//!
//! Nothing is gone because it was not heard of: only a deletion or a list that is whole takes
//! something away. While the server is away nothing changes.

mod connection;
mod fetch;
mod health;
mod interner;
mod merge;
mod prune;
mod read;
mod reflector;
mod resource;
mod taint;
mod timing;
mod wire;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use self::connection::Connection;
use self::fetch::Fetch;
use self::health::Removed;
use self::merge::{Event, Merge};
use self::reflector::Reflector;
use self::taint::Taint;
use super::Batch;
use np_policy::model::NodeName;

pub use connection::{Access, AccessError};
pub use health::{FeedStatus, Health};
pub use resource::Resource;
pub use timing::Timing;

/// Follows the cluster until the batches' receiver is dropped.
#[derive(Debug)]
pub struct Source {
    node: NodeName,
    timing: Timing,
    connection: Arc<Connection>,
    health: Health,
    taint: Option<Taint>,
}

/// Events that wait to be merged: a slow agent holds its own readers up, and no more than so much
/// is held for it.
const QUEUE: usize = 256;
/// What one batch takes in before it is handed over.
const LARGEST_BATCH: usize = 10_000;

impl Source {
    /// Reads how to get to the server, without asking anything of it.
    pub async fn open(access: Access, node: NodeName, timing: Timing) -> Result<Self, AccessError> {
        let chance = RandomState::new();
        let seed = chance.hash_one("connection");
        let connection = Connection::open(access, node.clone(), timing.clone(), seed).await?;
        let reflector = |resource: Resource| {
            let seed = chance.hash_one(resource.to_string());
            let stagger = timing::Dice::new(seed).between(Duration::ZERO..timing.stagger);
            let late = (resource == Resource::OtherPods).then(|| Instant::now() + stagger);
            (resource, Arc::new(Mutex::new(Reflector::new(timing.clone(), seed, late))))
        };
        let feeds = Resource::ALL.map(reflector).into();
        let removed = Removed::new(Mutex::new(BTreeMap::new()));
        let connection = Arc::new(connection);
        Ok(Self { node, timing, connection, health: Health { feeds, removed }, taint: None })
    }

    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Takes a taint off this node when it hears that the agent has started.
    pub fn lift_taint(&mut self, key: String) -> oneshot::Sender<()> {
        let (sender, started) = oneshot::channel();
        self.taint = Some(Taint { key, started });
        sender
    }

    /// Sends what the server says, until the receiver is dropped.
    pub async fn run(self, batches: Sender<Batch>) {
        let Self { node, timing, connection, health, taint } = self;
        let (events, received) = channel(QUEUE);
        let mut tasks = tokio::task::JoinSet::new();
        for (resource, reflector) in &health.feeds {
            let fetch = Fetch {
                resource: *resource,
                node: node.clone(),
                timing: timing.clone(),
                connection: connection.clone(),
                reflector: reflector.clone(),
                events: events.clone(),
            };
            tasks.spawn(fetch.run());
        }
        drop(events);
        if let Some(taint) = taint {
            let dice = timing::Dice::new(RandomState::new().hash_one("taint"));
            tasks.spawn(taint::lift(taint, node.clone(), connection, timing.clone(), dice));
        }
        let merge = Merge::new(node);
        tokio::select! {
            () = hand_over(merge, received, &batches, &timing, &health.removed) => {}
            () = batches.closed() => {}
        }
    }
}

/// Hands over what comes: at once, and inside a burst what comes within a few milliseconds as one
/// batch.
async fn hand_over(
    mut merge: Merge,
    mut events: Receiver<Event>,
    batches: &Sender<Batch>,
    timing: &Timing,
    removed: &Removed,
) {
    let mut last: Option<Instant> = None;
    while let Some(event) = events.recv().await {
        merge.take(event);
        let burst = last.is_some_and(|last| last.elapsed() < timing.gather);
        let end = tokio::time::Instant::now() + if burst { timing.gather } else { Duration::ZERO };
        let mut taken = 1;
        while taken < LARGEST_BATCH
            && let Ok(Some(event)) = timeout_at(end, events.recv()).await
        {
            merge.take(event);
            taken += 1;
        }
        removed.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&merge.removed);
        if let Some(batch) = merge.batch() {
            if batches.send(batch).await.is_err() {
                return;
            }
            last = Some(Instant::now());
        }
    }
}
