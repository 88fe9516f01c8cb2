//! Advice about the policies in force, in the log: what `np-agent lint` would tell of them.
//!
//! It has a thread of its own, because it looks at every policy against every pod, and enforcement
//! does not wait for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;
use tracing::warn;

use np_policy::index::Index;
use np_policy::lint::{self, News, Severity};
use np_policy::model::{Background, Change, Collection, Object, ObjectKey};

/// What advice is given about.
pub type Read = (Index, Background);

/// Asks for advice, not more often than the main loop can bear: what it is given about is copied.
#[derive(Debug)]
pub struct Advice {
    sender: Sender<Read>,
    every: Duration,
    asked: Option<Instant>,
    /// What is to be looked at when it is due.
    waiting: Option<Background>,
}

/// A large cluster changes all the time, and to copy it takes a while.
const SELDOM: Duration = Duration::from_secs(60);

impl Advice {
    /// Starts the thread; what is sent to it is looked at, the newest only.
    pub fn start(seldom: bool) -> anyhow::Result<Self> {
        let (sender, reads) = channel();
        let run = move || advise(&reads);
        thread::Builder::new()
            .name("advice".to_owned())
            .spawn(run)
            .context("no thread for advice; raise the limit on threads (pids.max)")?;
        let every = if seldom { SELDOM } else { Duration::ZERO };
        Ok(Self { sender, every, asked: None, waiting: None })
    }

    /// Asks for it, at once or when it is due.
    pub fn ask(&mut self, background: Background, index: &Index) {
        self.waiting = Some(background);
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.give(index);
        }
    }

    /// When to give what was asked for.
    pub fn due(&self) -> Option<Instant> {
        self.waiting.as_ref()?;
        // At first the lists of a cluster are still to come.
        Some(self.asked.map_or_else(Instant::now, |asked| asked + self.every))
    }

    pub fn give(&mut self, index: &Index) {
        self.asked = Some(Instant::now());
        let Some(background) = self.waiting.take() else { return };
        if self.sender.send((index.clone(), background)).is_err() {
            warn!("the thread for advice is gone: no more advice");
        }
    }
}

/// Whether a change can bring other advice: a pod's alone comes too often.
pub fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Apply(Object::Policy(_) | Object::Namespace(_))
            | Change::Delete(ObjectKey::Policy(_) | ObjectKey::Namespace(_), _)
            | Change::Replace(Collection::Policies | Collection::Namespaces, _)
    )
}

fn advise(reads: &Receiver<Read>) {
    let mut news = News::default();
    while let Ok(read) = reads.recv() {
        let (index, background) = reads.try_iter().last().unwrap_or(read);
        for finding in news.among(lint::check(&index, &background)) {
            if finding.severity >= Severity::Warning {
                warn!("{finding}");
            }
        }
    }
}
