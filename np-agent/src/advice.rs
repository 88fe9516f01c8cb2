//! Advice about the policies in force, in the log: what `np-agent lint` would tell of them.
//!
//! It has a thread of its own, because it looks at every policy against every pod, and enforcement
//! does not wait for it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;
use tracing::warn;

use crate::index::Index;
use crate::lint::{self, News, Severity};
use crate::model::{Background, Change, Object, ObjectKey};

/// What advice is given about.
pub type Read = (Index, Background);

/// Starts the thread; what is sent to it is looked at, the newest only.
pub fn thread() -> anyhow::Result<Sender<Read>> {
    let (sender, reads) = channel();
    let run = move || advise(&reads);
    thread::Builder::new()
        .name("advice".to_owned())
        .spawn(run)
        .context("no thread for advice; raise the limit on threads (pids.max)")?;
    Ok(sender)
}

/// Whether a change can bring other advice: a pod's alone comes too often.
pub fn concerns(change: &Change) -> bool {
    matches!(
        change,
        Change::Apply(Object::Policy(_) | Object::Namespace(_))
            | Change::Delete(ObjectKey::Policy(_) | ObjectKey::Namespace(_))
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
