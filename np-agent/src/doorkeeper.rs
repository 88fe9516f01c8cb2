//! The thread that sees devices first, and closes new ones before anybody plans.
//!
//! It writes one word per new device and asks for its programs; then it tells the agent. Nothing
//! that the agent does can delay it. An error of netlink makes it read everything again.

use std::collections::BTreeSet;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{info, warn};

use crate::attaching::{Attach, Request};
use crate::dataplane::{Doors, Side};
use crate::links::{LinksError, Monitor};
use crate::message::Message;
use np_policy::bind;
use np_policy::model::{Device, DeviceChange, IfIndex};
use np_policy::plan::Op;

/// A change of a device, and what was done about it.
#[derive(Debug)]
pub struct Heard {
    pub change: DeviceChange,
    /// What was written about the device.
    pub door: Option<Op>,
    /// Which programs were asked for.
    pub asked: Option<Side>,
}

#[derive(Debug)]
pub struct Doorkeeper {
    pub doors: Doors,
    /// Devices that are uplinks because the user says so.
    pub uplinks: Vec<String>,
    /// Leave those alone that are there at the start: nothing has been enforced on this node yet, it
    /// may take minutes until it is known whose they are, and they would be cut off until then.
    pub spare_present: bool,
    pub requests: Sender<Request>,
    pub out: UnboundedSender<Message>,
}

impl Doorkeeper {
    /// Starts the thread. Returns once all devices that are there have been seen to.
    pub fn start(mut self) -> anyhow::Result<()> {
        let (first, listed) = std::sync::mpsc::channel();
        let work = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let mut monitor = None;
            let mut spared = BTreeSet::new();
            let result = runtime.context("cannot start a runtime").and_then(|runtime| {
                runtime.block_on(async {
                    let mut opened = Monitor::open()?;
                    let devices = opened.devices().context("cannot list the node's devices")?;
                    monitor = Some(opened);
                    if self.spare_present {
                        spared.extend(devices.iter().map(|device| device.index));
                    }
                    self.hear(devices.into_iter().map(DeviceChange::Seen).collect(), &mut spared);
                    anyhow::Ok(())
                })?;
                Ok(runtime)
            });
            let (runtime, result) = match result {
                Ok(runtime) => (Some(runtime), Ok(())),
                Err(error) => (None, Err(error)),
            };
            first.send(result).ok();
            if let (Some(runtime), Some(mut monitor)) = (runtime, monitor) {
                let out = self.out.clone();
                let hear = |changes| self.hear(changes, &mut spared);
                runtime.block_on(follow(async move || monitor.next().await, &out, hear));
            }
        };
        let named = thread::Builder::new().name("devices".into());
        named.spawn(work).context("cannot start a thread")?;
        listed.recv().context("the thread for devices is gone")?
    }

    fn hear(&mut self, changes: Vec<DeviceChange>, spared: &mut BTreeSet<IfIndex>) {
        let mut wanted = Vec::new();
        let mut requests = Vec::new();
        let mut heard = Vec::new();
        for change in changes {
            let (mut door, mut asked) = (None, None);
            match &change {
                DeviceChange::Gone(ifindex) => {
                    wanted.retain(|attach: &Attach| attach.ifindex != *ifindex);
                    spared.remove(ifindex);
                    door = self.doors.gone(*ifindex);
                    requests.push(Request::Reap(*ifindex));
                }
                DeviceChange::Seen(device) => {
                    let Device { index, name, .. } = device;
                    let known = self.doors.knows(*index) || spared.contains(index);
                    if !known && let Some(iface) = bind::door(device, &self.uplinks) {
                        door = self.doors.close(iface);
                        asked = Some(Side::Pod);
                        let (ifindex, name) = (*index, name.clone());
                        wanted.push(Attach { ifindex, name, side: Side::Pod });
                    } else {
                        requests.push(Request::Check(Some(BTreeSet::from([*index]))));
                    }
                }
            }
            heard.push(Heard { change, door, asked });
        }
        // The agent has to know of a device before it hears how its programs have got on.
        self.out.send(Message::Devices(heard)).ok();
        requests.push(Request::Attach(wanted));
        for request in requests {
            self.requests.send(request).ok();
        }
    }
}

/// A new device is open as long as nobody hears of it.
const BLIND_AT_MOST: Duration = Duration::from_secs(1);

/// Follows the devices for as long as somebody listens. After an error the next call reads
/// everything again.
async fn follow(
    mut next: impl AsyncFnMut() -> Result<Vec<DeviceChange>, LinksError>,
    out: &UnboundedSender<Message>,
    mut hear: impl FnMut(Vec<DeviceChange>),
) {
    let mut failures = 0;
    while !out.is_closed() {
        match next().await {
            Ok(changes) => {
                if failures > 0 {
                    info!(failures, "the devices can be followed again");
                    out.send(Message::Blind(None)).ok();
                }
                failures = 0;
                hear(changes);
            }
            Err(error) => {
                failures += 1;
                let pause = backoff(failures).min(BLIND_AT_MOST);
                warn!(%error, failures, ?pause, "cannot follow the devices: all are read again");
                out.send(Message::Blind(Some(error.to_string()))).ok();
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// 100 ms, doubling to 10 s.
pub fn backoff(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.saturating_sub(1).min(7)).min(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn an_error_of_netlink_is_reported_and_what_comes_after_it_is_heard() {
        let (out, mut told) = unbounded_channel();
        let failure = || LinksError::Unstable { request: "RTM_GETLINK", tries: 50 };
        let script = RefCell::new(VecDeque::from([
            Ok(vec![DeviceChange::Gone(IfIndex(1))]),
            Err(failure()),
            Err(failure()),
            Ok(vec![DeviceChange::Gone(IfIndex(2))]),
        ]));
        let mut heard = Vec::new();
        let next = async || match script.borrow_mut().pop_front() {
            Some(result) => result,
            None => {
                told.close();
                Ok(Vec::new())
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.block_on(follow(next, &out, |changes| heard.extend(changes)));
        assert_eq!(heard, [1, 2].map(|index| DeviceChange::Gone(IfIndex(index))));
        let mut blind = Vec::new();
        while let Ok(Message::Blind(problem)) = told.try_recv() {
            blind.push(problem.is_some());
        }
        assert_eq!(blind, [true, true, false], "not ready until it works again");
    }

    #[test]
    fn a_pause_grows_to_ten_seconds_and_no_further() {
        assert_eq!(backoff(1), Duration::from_millis(100));
        assert_eq!(backoff(3), Duration::from_millis(400));
        assert_eq!(backoff(u32::MAX), Duration::from_secs(10));
    }
}
