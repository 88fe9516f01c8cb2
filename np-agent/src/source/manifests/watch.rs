//! When to read the directory again: on inotify events, never by polling.
//!
//! A burst of events is one reading. It settles after a few quiet milliseconds; a file that is
//! being written is waited for, so that half of it is not taken for the whole, but not for long.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;
use tokio::task;
use tokio::time::{Instant, timeout_at};

use super::directory::Manifests;
use super::scan::{self, Interest};
use crate::source::invalid::Invalid;
use crate::source::{Batch, SourceError};

const QUIET: Duration = Duration::from_millis(3);
const LONGEST_BURST: Duration = Duration::from_millis(100);

/// Sends what the directory says, at once and after each change, until the receiver is dropped.
pub async fn run(mut manifests: Manifests, batches: Sender<Batch>) -> Result<(), SourceError> {
    let dir = manifests.dir().to_owned();
    let failed = |error| SourceError::Watch { dir: dir.clone(), error };
    let mut watcher = Watcher::new().map_err(failed)?;
    let mut first = true;
    loop {
        let batch;
        (watcher, manifests, batch) = task::spawn_blocking(move || {
            // Watches first: what changes after them brings an event.
            let unwatched = watcher.follow(&manifests);
            let mut batch = manifests.load();
            batch.invalid.extend(unwatched);
            (watcher, manifests, batch)
        })
        .await?;
        if !batch.changes.is_empty() || first {
            let Batch { changes, invalid, ignored, .. } = &batch;
            let (changes, refused) = (changes.len(), invalid.len());
            tracing::info!(changes, refused, ignored, "read the manifests");
        }
        first = false;
        if batches.send(batch).await.is_err() {
            return Ok(());
        }
        tokio::select! {
            () = batches.closed() => return Ok(()),
            settled = watcher.settled() => settled.map_err(failed)?,
        }
    }
}

struct Watcher {
    inotify: AsyncFd<Instance>,
    watched: BTreeMap<i32, Watched>,
    /// Files that were opened for writing and not closed yet.
    writing: BTreeSet<(i32, OsString)>,
}

#[derive(PartialEq, Eq)]
struct Watched {
    descriptor: WatchDescriptor,
    dir: PathBuf,
    interest: Interest,
}

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Watcher {
    fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        // SAFETY: the instance owns its descriptor, always names the same one, and closes it only
        // when dropped.
        let inotify = unsafe { AsyncFd::register(Instance(inotify)) }?;
        Ok(Self { inotify, watched: BTreeMap::new(), writing: BTreeSet::new() })
    }

    /// Watches what the directory consists of now, and says what cannot be watched.
    fn follow(&mut self, manifests: &Manifests) -> Vec<Invalid> {
        let mut unwatched = Vec::new();
        // What appeared between the scan and its watches brings no event: scan again until a
        // scan finds nothing new. The bound only stops a directory that never rests.
        for _ in 0..8 {
            unwatched.clear();
            let mut now = BTreeMap::new();
            for (dir, interest) in manifests.watches() {
                self.watch(dir, &interest, &mut now, &mut unwatched);
            }
            let settled = now == self.watched;
            for (wd, old) in std::mem::replace(&mut self.watched, now) {
                if !self.watched.contains_key(&wd) {
                    // Fails when the directory is gone, and the watch with it.
                    self.inotify.get_ref().0.rm_watch(old.descriptor).unwrap_or_default();
                }
            }
            if settled {
                break;
            }
        }
        unwatched
    }

    fn watch(
        &self,
        dir: PathBuf,
        interest: &Interest,
        watched: &mut BTreeMap<i32, Watched>,
        unwatched: &mut Vec<Invalid>,
    ) {
        let structure =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        let content = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        let rest = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_ONLYDIR;
        match self.inotify.get_ref().0.add_watch(&dir, structure | content | rest) {
            Ok(descriptor) => watched
                .entry(descriptor.as_raw())
                .or_insert_with(|| Watched { descriptor, dir, interest: Interest::default() })
                .interest
                .merge(interest),
            // Gone again: its parent's watch tells.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => {
                let problem = format!("changes in it are not noticed: {error}");
                let remedy = match error {
                    Errno::ENOSPC => "raise fs.inotify.max_user_watches, then touch a manifest",
                    _ => "let the agent's user read it",
                };
                unwatched.push(Invalid::file(&dir, problem, remedy));
            }
        }
    }

    /// Waits for a change and for the end of the burst that it begins.
    async fn settled(&mut self) -> io::Result<()> {
        while !self.read().await? {}
        let end = Instant::now() + LONGEST_BURST;
        let mut quiet = Instant::now() + QUIET;
        loop {
            let until = if self.writing.is_empty() { quiet.min(end) } else { end };
            match timeout_at(until, self.read()).await {
                Ok(matters) => {
                    if matters? {
                        quiet = Instant::now() + QUIET;
                    }
                }
                Err(_) => break,
            }
        }
        self.writing.clear();
        Ok(())
    }

    /// Reads what events there are; whether one of them matters.
    async fn read(&mut self) -> io::Result<bool> {
        let events = loop {
            let mut ready = self.inotify.readable().await?;
            let read = ready.try_io(|inotify| Ok(inotify.get_ref().0.read_events()?));
            if let Ok(events) = read {
                break events?;
            }
        };
        let mut matters = false;
        for event in events {
            matters |= self.matters(event);
        }
        Ok(matters)
    }

    fn matters(&mut self, event: InotifyEvent) -> bool {
        let InotifyEvent { wd, mask, cookie: _, name } = event;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        let (Some(watched), Some(name)) = (self.watched.get(&wd.as_raw()), name) else {
            return false;
        };
        let path = watched.dir.join(&name);
        let appears = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        let directory = || {
            mask.contains(AddWatchFlags::IN_ISDIR)
                || (appears && fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()))
        };
        let matters = watched.interest.names.contains(&name)
            || (watched.interest.manifests
                && (scan::is_manifest(&name) || (!scan::hidden(&name) && directory())));
        if !matters {
            return false;
        }
        let begun = mask.contains(AddWatchFlags::IN_MODIFY)
            || (mask.contains(AddWatchFlags::IN_CREATE)
                && fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_file()));
        let file = (wd.as_raw(), name);
        if begun {
            self.writing.insert(file);
        } else if !mask.contains(AddWatchFlags::IN_ATTRIB) {
            self.writing.remove(&file);
        }
        true
    }
}
