//! What happened to single packets, by name: from the programs' events to the clients that ask.
//!
//! ```text
//!  programs ─ ring buffer ─▶ thread "events": names them ─▶ hub ─▶ thread "monitor": its clients
//!                              ▲                             └─ the last ones, for who comes later
//!  main loop ─ snapshot ───────┘
//! ```
//!
//! The main loop copies what names are found by when it is asked, and does nothing else for events. What
//! is not read in time stays in the ring buffer; once that is full, the programs count what they suppress.

mod filter;
mod hub;
mod line;
mod name;
mod serve;
mod snapshot;

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use np_common::endpoint::EndpointId;
use np_common::event::{Event, Report};
use tracing::warn;

pub use filter::{BadFilter, Filter, Party, Verdict};
pub use line::{Content, EndLine, EventLine, Line, MissLine, RuleLine, Suppressed, VERSION};
pub use name::Namer;
pub use snapshot::{Ask, Changes, Snapshot};

use crate::dataplane::{Events, Reporting};
use hub::{Demand, Hub};
use np_policy::explain::Explain;
use snapshot::Asking;

/// Starts both threads. Returns where the main loop is asked, and where it says that something changes.
pub fn start(
    events: Events,
    reporting: Reporting,
    always: Report,
    listener: UnixListener,
) -> anyhow::Result<(tokio::sync::mpsc::UnboundedReceiver<Ask>, Changes)> {
    let (asks, asked) = tokio::sync::mpsc::unbounded_channel();
    let changes = Changes::default();
    let hub = Arc::new(Hub::new(Demand::new(reporting, always)));
    let asking = Asking { asks, changes: changes.clone() };
    let teller = Teller { events, hub: hub.clone(), suppressed: BTreeMap::new(), looked: None };
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || teller.run(&asking))
        .context("no thread for events; raise the limit on threads (pids.max)")?;
    serve::start(listener, hub)?;
    Ok((asked, changes))
}

/// How often it is looked for what was suppressed.
const LOOK: Duration = Duration::from_secs(1);
/// A snapshot is asked for at most so often.
const SELDOM: Duration = Duration::from_millis(100);
/// In a large cluster less often: making one then takes at most this part of the time.
const PART: u32 = 50;

/// Names events and hands the lines to the hub.
struct Teller {
    events: Events,
    hub: Arc<Hub>,
    /// How many suppressed events there have been lines about.
    suppressed: BTreeMap<(EndpointId, bool), u64>,
    looked: Option<Instant>,
}

impl Teller {
    /// Runs until the main loop has gone.
    fn run(mut self, asking: &Asking) {
        let mut next = None;
        loop {
            let event = match next.take().or_else(|| self.events.take()) {
                Some(event) => event,
                None => {
                    self.wait();
                    continue;
                }
            };
            let start = Instant::now();
            let Some(snapshot) = asking.ask() else { return };
            let explain = Explain::new(&snapshot.index);
            let namer = Namer::new(&snapshot, &explain);
            let pause = SELDOM.max(start.elapsed() * PART);
            self.tell(&namer, &event);
            while next.is_none() {
                match self.events.take() {
                    // What it was judged by may not be in the snapshot.
                    Some(event) if asking.is_outdated(&snapshot) => next = Some(event),
                    Some(event) => self.tell(&namer, &event),
                    None if asking.is_outdated(&snapshot) => break,
                    None => self.wait(),
                }
                self.tell_suppressed(&namer);
            }
            thread::sleep(pause.saturating_sub(start.elapsed()));
        }
    }

    fn wait(&self) {
        if let Err(error) = self.events.wait(LOOK) {
            warn!(%error, "cannot wait for events");
            thread::sleep(LOOK);
        }
    }

    fn tell(&self, namer: &Namer<'_>, event: &Event) {
        if let Some(event) = namer.event(event, SystemTime::now()) {
            self.hub.tell(Line::new(Content::Event(Box::new(event))));
        }
    }

    fn tell_suppressed(&mut self, namer: &Namer<'_>) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        for (endpoint, sends, all) in self.events.suppressed() {
            let known = self.suppressed.entry((endpoint, sends)).or_default();
            let events = all.saturating_sub(*known);
            if events > 0 {
                *known = all;
                let suppressed = namer.suppressed(endpoint, sends, events, SystemTime::now());
                self.hub.tell(Line::new(Content::Suppressed(suppressed)));
            }
        }
    }
}
