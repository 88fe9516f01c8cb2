//! What names are found by, as it was at one time: the main loop's answer to a question.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use np_policy::index::Index;
use np_policy::model::{NodeName, PodKey};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// The objects, and what the programs' numbers stand for.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub node: NodeName,
    pub index: Index,
    /// By endpoint id.
    pub pods: BTreeMap<u16, PodKey>,
    /// The names of devices by their index.
    pub devices: BTreeMap<u32, String>,
    /// How many changes there had been when it was asked for.
    pub changes: u64,
}

/// The question: where the answer is to go.
pub type Ask = oneshot::Sender<Snapshot>;

/// How often something has changed that a snapshot holds. The main loop counts before it writes
/// anything, so that what the programs say about the change is never named by what was before.
#[derive(Clone, Debug, Default)]
pub struct Changes(Arc<AtomicU64>);

impl Changes {
    pub fn count(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    pub fn counted(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The asking side.
#[derive(Debug)]
pub(super) struct Asking {
    pub asks: UnboundedSender<Ask>,
    pub changes: Changes,
}

impl Asking {
    /// Waits for the main loop's answer; none if it has gone.
    pub fn ask(&self) -> Option<Snapshot> {
        let (answer, answered) = oneshot::channel();
        self.asks.send(answer).ok()?;
        answered.blocking_recv().ok()
    }

    pub fn is_outdated(&self, snapshot: &Snapshot) -> bool {
        self.changes.counted() != snapshot.changes
    }
}
