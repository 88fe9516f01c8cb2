//! Follows the devices: keeps what was last read and what was last reported, and turns events into
//! the reads they call for.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use super::{
    LinksError,
    event::{Drained, Event, Subscription},
    facts::Entry,
    request::Requests,
};
use np_policy::model::{Device, DeviceChange, IfIndex};

/// The devices of one network namespace, and what happens to them.
#[derive(Debug)]
pub struct Monitor {
    own: Subscription,
    inside: Subscription,
    requests: Requests,
    entries: BTreeMap<IfIndex, Entry>,
    reported: BTreeMap<IfIndex, Entry>,
    pending: Pending,
    resyncs: u64,
}

impl Monitor {
    /// Opens the sockets in the calling thread's network namespace. Subscribes first, so nothing
    /// is missed between this and [`Monitor::devices`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with I/O enabled.
    pub fn open() -> Result<Self, LinksError> {
        Ok(Self {
            own: Subscription::own()?,
            inside: Subscription::inside()?,
            requests: Requests::open()?,
            entries: BTreeMap::new(),
            reported: BTreeMap::new(),
            pending: Pending { everything: true, ..Pending::default() },
            resyncs: 0,
        })
    }

    /// All devices, by index. What [`Monitor::next`] returns afterwards is relative to this.
    pub fn devices(&mut self) -> Result<Vec<Device>, LinksError> {
        self.pending.everything = true;
        self.settle()?;
        while self.pending.own_events_lost {
            self.settle()?;
        }
        Ok(self.reported.values().map(|entry| entry.device.clone()).collect())
    }

    /// Waits until something is different from what was last reported. What vanished comes first,
    /// so an index that is in use again is `Gone` before it is `Seen`.
    ///
    /// May be dropped at any time without losing a change. After an error the next call reads
    /// everything again.
    pub async fn next(&mut self) -> Result<Vec<DeviceChange>, LinksError> {
        loop {
            if self.pending.is_idle() {
                tokio::select! {
                    ready = self.own.ready() => ready?,
                    ready = self.inside.ready() => ready?,
                }
            } else {
                // Devices that change all the time must not keep the executor to themselves.
                tokio::task::yield_now().await;
            }
            let changes = self.settle()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
        }
    }

    /// How often the kernel had to drop events, and everything was read again.
    pub fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// Replies of the kernel that could not be read and were skipped.
    pub fn undecodable(&self) -> u64 {
        self.requests.undecodable()
    }

    /// Reads what events call for, or a part of it, and reports.
    ///
    /// It ends with a look at the events: when a read found a new device under a reused index, the
    /// event of the old one's end is there already, since the kernel sends it before it gives the
    /// index away. It does not wait for events to cease: a new device is to be isolated soon.
    fn settle(&mut self) -> Result<Vec<DeviceChange>, LinksError> {
        let step = self.hear().and_then(|()| self.read()).and_then(|()| self.hear());
        if let Err(error) = step {
            // Events may have been taken out and not acted upon.
            self.pending.everything = true;
            self.pending.own_events_lost = true;
            return Err(error);
        }
        // The end of a device just read may be among the lost events.
        Ok(if self.pending.own_events_lost { Vec::new() } else { self.report() })
    }

    fn hear(&mut self) -> Result<(), LinksError> {
        let Drained { events, overrun } = self.own.drain(usize::MAX)?;
        if overrun {
            self.overrun();
            self.pending.own_events_lost = true;
        }
        events.into_iter().for_each(|event| self.note(event));

        let Drained { events, overrun } = self.inside.drain(INSIDE_AT_ONCE)?;
        if overrun {
            self.overrun();
        }
        events.into_iter().for_each(|event| self.note(event));
        Ok(())
    }

    fn overrun(&mut self) {
        self.resyncs += 1;
        self.pending.everything = true;
        tracing::warn!(resyncs = self.resyncs, "device events were lost, reading all devices");
    }

    /// Marks what an event calls for.
    fn note(&mut self, event: Event) {
        match event {
            Event::Changed(index) => self.mark(index),
            Event::Left(index) => {
                self.entries.remove(&index);
                self.pending.gone.insert(index);
                self.mark(index);
            }
            Event::AddressGone(index) => {
                self.mark(index);
                self.pending.routes = true;
            }
            Event::Routes(devices) => devices.into_iter().for_each(|index| self.mark(index)),
            Event::AnyRoutes => self.pending.routes = true,
            Event::Namespace(id) => self.mark_where(|entry| match entry.link.peer() {
                Some((netnsid, _)) => netnsid == id || netnsid < 0,
                None => entry.link.is_pair(),
            }),
            Event::Inside { netnsid, other } => {
                self.mark_where(|entry| {
                    entry.leads_into(netnsid)
                        || (entry.link.is_pair() && Some(entry.link.index) == other)
                });
            }
        }
    }

    fn mark(&mut self, index: IfIndex) {
        self.pending.devices.insert(index);
    }

    fn mark_where(&mut self, concerned: impl Fn(&Entry) -> bool) {
        let concerned = self.entries.values().filter(|entry| concerned(entry));
        self.pending.devices.extend(concerned.map(|entry| entry.link.index));
    }

    /// Reads what is marked, many devices in several steps.
    fn read(&mut self) -> Result<(), LinksError> {
        if mem::take(&mut self.pending.everything) {
            return self.read_everything();
        }
        for _ in 0..DEVICES_AT_ONCE {
            let Some(index) = self.pending.devices.pop_first() else { break };
            match self.requests.entry(index)? {
                None => {
                    self.entries.remove(&index);
                }
                Some(entry) => {
                    let netnsid = entry.netnsid();
                    let before = self.entries.insert(index, entry);
                    if netnsid != before.and_then(|before| before.netnsid()) {
                        self.confirm(index, netnsid)?;
                    }
                }
            }
        }
        if mem::take(&mut self.pending.routes) {
            let routes = self.requests.routes(None)?;
            self.entries.values_mut().for_each(|entry| entry.set_routes(&routes));
        }
        Ok(())
    }

    /// Reads those again that are said to lead into the namespace which a device was just seen to
    /// lead into. That two devices have one namespace means something only while both have it: a
    /// namespace that dies gives up its id, another one gets it at once, and what was read before
    /// says of the old one what is true of the new. An id that is the same before and after has not
    /// changed hands.
    fn confirm(&mut self, index: IfIndex, netnsid: Option<i32>) -> Result<(), LinksError> {
        let mut seen: Vec<(IfIndex, i32)> = netnsid.map(|id| (index, id)).into_iter().collect();
        while let Some((index, netnsid)) = seen.pop() {
            let others = self.entries.values().filter(|entry| entry.leads_into(netnsid));
            let others: Vec<_> = others.map(|entry| entry.link.index).collect();
            for other in others.into_iter().filter(|other| *other != index) {
                let Some(entry) = self.requests.entry(other)? else {
                    self.entries.remove(&other);
                    continue;
                };
                let moved = entry.netnsid().filter(|now| *now != netnsid);
                seen.extend(moved.map(|now| (other, now)));
                self.entries.insert(other, entry);
            }
        }
        Ok(())
    }

    fn read_everything(&mut self) -> Result<(), LinksError> {
        self.pending.devices.clear();
        self.pending.routes = false;
        let entries: BTreeMap<_, _> =
            self.requests.entries()?.into_iter().map(|entry| (entry.link.index, entry)).collect();
        if mem::take(&mut self.pending.own_events_lost) {
            // The end of a device may be among the lost events, and another have its index.
            let replaced = self.reported.iter().filter(|(index, old)| {
                entries.get(*index).is_some_and(|new| !old.link.same_end(&new.link))
            });
            self.pending.gone.extend(replaced.map(|(index, _)| *index));
        }
        self.entries = entries;
        let ids: BTreeSet<i32> = self.entries.values().filter_map(Entry::netnsid).collect();
        for id in ids {
            if self.entries.values().filter(|entry| entry.leads_into(id)).nth(1).is_some() {
                self.confirm(IfIndex(0), Some(id))?;
            }
        }
        Ok(())
    }

    /// The differences to what was last reported.
    fn report(&mut self) -> Vec<DeviceChange> {
        let mut gone = mem::take(&mut self.pending.gone);
        gone.extend(self.reported.keys().filter(|index| !self.entries.contains_key(*index)));
        gone.retain(|index| self.reported.remove(index).is_some());
        let mut changes: Vec<_> = gone.into_iter().map(DeviceChange::Gone).collect();
        for (index, entry) in &self.entries {
            let before = self.reported.insert(*index, entry.clone());
            if before.is_none_or(|before| before.device != entry.device) {
                changes.push(DeviceChange::Seen(entry.device.clone()));
            }
        }
        changes
    }
}

/// What must be read, and what vanished since the last report.
#[derive(Debug, Default)]
struct Pending {
    /// These indices ended at least once; in use again or not.
    gone: BTreeSet<IfIndex>,
    devices: BTreeSet<IfIndex>,
    routes: bool,
    everything: bool,
    own_events_lost: bool,
}

impl Pending {
    /// Nothing to read.
    fn is_idle(&self) -> bool {
        self.devices.is_empty() && !self.routes && !self.everything
    }
}

/// Devices read before what is known is reported. Reading waits while others change devices.
const DEVICES_AT_ONCE: u32 = 64;

/// Datagrams taken from peer namespaces at once: pods can make them faster than we read.
const INSIDE_AT_ONCE: usize = 4096;
