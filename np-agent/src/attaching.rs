//! The thread that attaches programs and looks after those that are attached.
//!
//! Attaching waits for an RCU grace period under the kernel's network lock (`tcx_entry_sync`,
//! kernel/bpf/tcx.c), 8 to 16 ms each. What is asked by the doorkeeper goes past the agent, which
//! may be planning; what comes of it is a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::dataplane::{AttachError, Attacher, Checked, Side, TcEvents};
use crate::message::Message;
use np_policy::model::IfIndex;

/// A request to attach the programs of one side to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    pub ifindex: IfIndex,
    pub name: String,
    pub side: Side,
}

/// What the thread is asked.
#[derive(Debug)]
pub enum Request {
    Attach(Vec<Attach>),
    /// The device is to have no programs any more.
    Detach(IfIndex),
    /// The device is gone.
    Reap(IfIndex),
    /// Something about these devices has changed; none for all.
    Check(Option<BTreeSet<IfIndex>>),
    /// All devices have our programs: nothing of other versions is needed any more.
    Retire,
}

/// How it went, or what a look at a device showed.
#[derive(Debug)]
pub struct Report {
    pub attach: Attach,
    pub result: Result<Checked, String>,
}

/// Events come in bursts, and a check waits for nobody: so many of them a second.
const BETWEEN_CHECKS: Duration = Duration::from_millis(10);

/// Starts the thread. It ends when nobody can ask any more.
pub fn start(
    attacher: Attacher,
    check_every: Duration,
    out: UnboundedSender<Message>,
) -> anyhow::Result<Sender<Request>> {
    let (requests, incoming) = channel();
    let thread = Attaching {
        attacher,
        out,
        waiting: Vec::new(),
        done: BTreeMap::new(),
        reported: BTreeMap::new(),
        to_check: BTreeSet::new(),
        check_every,
        check_all: Instant::now() + check_every,
    };
    let named = thread::Builder::new().name("attach".into());
    named.spawn(move || thread.run(&incoming)).context("cannot start a thread")?;
    listen(requests.clone())?;
    Ok(requests)
}

/// Turns events of traffic control into checks.
fn listen(requests: Sender<Request>) -> anyhow::Result<()> {
    let mut events = TcEvents::open()?;
    let work = move || {
        loop {
            let devices = events.wait().unwrap_or_else(|error| {
                warn!(%error, "cannot follow qdiscs and filters: all are checked now and then");
                thread::sleep(Duration::from_secs(10));
                None
            });
            if requests.send(Request::Check(devices)).is_err() {
                return;
            }
        }
    };
    let named = thread::Builder::new().name("tc-events".into());
    named.spawn(work).map(drop).context("cannot start a thread")
}

struct Attaching {
    attacher: Attacher,
    out: UnboundedSender<Message>,
    /// Newest last.
    waiting: Vec<Attach>,
    done: BTreeMap<IfIndex, Attach>,
    /// What was last said of each device.
    reported: BTreeMap<IfIndex, Result<Checked, String>>,
    to_check: BTreeSet<IfIndex>,
    check_every: Duration,
    check_all: Instant,
}

impl Attaching {
    fn run(mut self, incoming: &Receiver<Request>) {
        loop {
            let patience = if !self.waiting.is_empty() {
                Duration::ZERO
            } else if !self.to_check.is_empty() {
                BETWEEN_CHECKS
            } else {
                self.check_all.saturating_duration_since(Instant::now())
            };
            match incoming.recv_timeout(patience) {
                Ok(request) => {
                    self.take(request);
                    incoming.try_iter().for_each(|request| self.take(request));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            // New devices before all else; a check a round, so that they need not wait for many.
            if let Some(attach) = self.next() {
                let attached = self.attacher.attach(attach.ifindex, attach.side);
                self.attached(attach, attached.map_err(in_full));
            } else if let Some(ifindex) = self.to_check.pop_first() {
                self.check(ifindex);
            } else if self.check_all <= Instant::now() {
                self.check_all = Instant::now() + self.check_every;
                self.to_check = self.done.keys().copied().collect();
            }
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Attach(wanted) => {
                let devices: Vec<_> = wanted.iter().map(|a| (a.ifindex, a.side)).collect();
                let replaced: BTreeSet<IfIndex> =
                    self.attacher.replace(&devices).into_iter().collect();
                for attach in wanted {
                    self.waiting.retain(|other| other.ifindex != attach.ifindex);
                    if replaced.contains(&attach.ifindex) {
                        self.attached(attach, Ok(()));
                    } else {
                        self.waiting.push(attach);
                    }
                }
            }
            Request::Detach(ifindex) => {
                self.forget(ifindex);
                match self.attacher.detach(ifindex) {
                    Ok(()) => info!(%ifindex, "detached"),
                    Err(error) => warn!(%ifindex, %error, "cannot detach"),
                }
            }
            Request::Reap(ifindex) => {
                self.forget(ifindex);
                if let Err(error) = self.attacher.reap(ifindex) {
                    warn!(%ifindex, %error, "cannot remove the pins of a device that is gone");
                }
            }
            Request::Check(None) => self.to_check = self.done.keys().copied().collect(),
            Request::Check(Some(devices)) => {
                self.to_check.extend(devices.into_iter().filter(|one| self.done.contains_key(one)));
            }
            Request::Retire => match self.attacher.retire() {
                Ok(0) => {}
                Ok(versions) => info!(versions, "removed what other versions had pinned"),
                Err(error) => warn!(%error, "cannot remove what other versions have pinned"),
            },
        }
    }

    fn forget(&mut self, ifindex: IfIndex) {
        self.waiting.retain(|attach| attach.ifindex != ifindex);
        self.done.remove(&ifindex);
        self.reported.remove(&ifindex);
        self.to_check.remove(&ifindex);
    }

    /// The newest pods first, because their containers are about to start. Uplinks last: what
    /// their programs see of a pod that has none yet has no tag.
    fn next(&mut self) -> Option<Attach> {
        let pod = self.waiting.iter().rposition(|attach| attach.side == Side::Pod);
        match pod {
            Some(at) => Some(self.waiting.remove(at)),
            None => self.waiting.pop(),
        }
    }

    fn attached(&mut self, attach: Attach, result: Result<(), String>) {
        let Attach { ifindex, side, .. } = attach;
        let checked = result
            .and_then(|()| self.attacher.check(ifindex, side).map_err(|error| error.to_string()));
        match &checked {
            Ok(_) => drop(self.done.insert(ifindex, attach.clone())),
            Err(_) => drop(self.done.remove(&ifindex)),
        }
        self.report(attach, checked);
    }

    fn check(&mut self, ifindex: IfIndex) {
        let Some(attach) = self.done.get(&ifindex).cloned() else { return };
        let result = self.attacher.check(ifindex, attach.side).map_err(in_full);
        let repaired = result.as_ref().is_ok_and(|checked| !checked.repaired.is_empty());
        if result.is_err() {
            self.done.remove(&ifindex);
        }
        if repaired || self.reported.get(&ifindex) != Some(&result) {
            self.report(attach, result);
        }
    }

    fn report(&mut self, attach: Attach, result: Result<Checked, String>) {
        let said = result.clone().map(|checked| Checked { repaired: Vec::new(), ..checked });
        self.reported.insert(attach.ifindex, said);
        // Without the agent the request channel ends as well.
        self.out.send(Message::Attachment(Report { attach, result })).ok();
    }
}

/// An error with its causes, on one line.
fn in_full(error: AttachError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}
