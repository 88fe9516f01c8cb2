//! What earlier packets did, noted by a clock that does not come round and by lives, which are not
//! used again: what flows and denials are measured against.

use np_common::decide::Maps as _;
use np_common::endpoint::EndpointId;
use np_common::flow::{Flow, FlowKey, State, Time};

use crate::scenario::Tuple;
use crate::world::World;

/// Two of the kernel's ticks of [`Time`]: one is lost where a packet is noted, one where it is asked.
const SLACK: u64 = 512;
const DENIED_SECONDS: u64 = 180;

/// Kernel ticks since the node started.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub jiffies: u64,
    pub hz: u32,
}

impl Clock {
    pub fn time(self) -> Time {
        Time::new(self.jiffies, self.hz)
    }

    fn is_past(self, seen: u64, seconds: u64) -> bool {
        self.jiffies - seen > seconds * u64::from(self.hz) + SLACK
    }

    fn is_within(self, seen: u64, seconds: u64) -> bool {
        self.jiffies - seen + SLACK < seconds * u64::from(self.hz)
    }
}

#[derive(Clone, Debug, Default)]
pub struct History {
    flows: Vec<Noted>,
    denied: Vec<(FlowKey, u64)>,
    pub packets: Vec<(Tuple, u16)>,
}

/// A flow as it was when it was opened.
#[derive(Clone, Copy, Debug)]
struct Noted {
    key: FlowKey,
    lives: (u32, u32),
    seen: u64,
    /// It was opened, or judged again, by a packet whose egress had been judged at another device, or
    /// that came back from outside: its sender's egress was not asked.
    egress_elsewhere: bool,
}

impl Noted {
    /// Whether both ends are the pods that they were. Nobody is somebody only for what was judged while
    /// he was nobody already: what is on its way as a pod goes.
    fn is_of_now(&self, world: &World, flow: &Flow) -> bool {
        let current = flow.generation == world.config().generation();
        let gone = |id: EndpointId| !id.is_none() && !world.policy(id).is_in_use();
        let nobody = gone(flow.source()) || gone(flow.destination());
        self.lives == lives(world, flow) && (current || !nobody)
    }
}

impl History {
    fn noted(&self, key: &FlowKey) -> Option<&Noted> {
        self.flows.iter().find(|noted| noted.key == *key)
    }

    /// Whether the flow is of the pods that have its ids now, and has not been idle for too long.
    pub fn lives(&self, world: &World, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
        self.noted(key).is_some_and(|noted| {
            noted.is_of_now(world, flow) && !clock.is_past(noted.seen, seconds(flow))
        })
    }

    /// The same, and no rounding of ticks can make it lapse.
    pub fn certainly_lives(&self, world: &World, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
        self.noted(key).is_some_and(|noted| {
            noted.is_of_now(world, flow) && clock.is_within(noted.seen, seconds(flow))
        })
    }

    /// Whether the flow counts for nothing: an end is another pod or nobody, or it has lapsed.
    pub fn is_dead(&self, world: &World, key: &FlowKey, clock: Clock) -> bool {
        world.flow(key).is_some_and(|flow| !self.lives(world, key, &flow, clock))
    }

    /// Whether a flow that is there now was not there before, or was another one.
    pub fn is_new(&self, old: &World, key: &FlowKey, flow: &Flow, clock: Clock) -> bool {
        let Some(before) = old.flow(key) else { return true };
        let ends = |flow: &Flow| (flow.source(), flow.destination());
        ends(&before) != ends(flow)
            || before.in_doubt() != flow.in_doubt()
            || !self.lives(old, key, &before, clock)
    }

    pub fn egress_elsewhere(&self, key: &FlowKey) -> bool {
        self.noted(key).is_some_and(|noted| noted.egress_elsewhere)
    }

    /// Whether this tuple's denial counts for certain.
    pub fn is_denied(&self, key: &FlowKey, clock: Clock) -> bool {
        let denied = self.denied.iter().find(|(own, _)| own == key);
        denied.is_some_and(|(_, seen)| clock.is_within(*seen, DENIED_SECONDS))
    }

    /// A packet with this tuple was denied.
    pub fn deny(&mut self, key: FlowKey, clock: Clock) {
        self.denied.retain(|(own, _)| *own != key);
        self.denied.push((key, clock.jiffies));
    }

    /// The other side of a denied tuple goes on sending.
    pub fn keep_denied(&mut self, key: &FlowKey, clock: Clock) {
        if let Some((_, seen)) = self.denied.iter_mut().find(|(own, _)| own == key)
            && clock.is_within(*seen, DENIED_SECONDS)
        {
            *seen = clock.jiffies;
        }
    }

    /// Notes what a packet did to the flows.
    pub fn note(&mut self, old: &World, new: &World, clock: Clock, egress_elsewhere: bool) {
        for (key, flow) in new.flows.borrow().iter() {
            if old.flow(key) == Some(*flow) {
                continue;
            }
            let fresh = self.is_new(old, key, flow, clock);
            let rejudged = old.flow(key).is_none_or(|old| old.generation != flow.generation);
            match self.flows.iter_mut().find(|noted| noted.key == *key) {
                Some(noted) if !fresh => {
                    noted.seen = clock.jiffies;
                    if rejudged {
                        noted.egress_elsewhere = egress_elsewhere;
                    }
                }
                _ => {
                    self.flows.retain(|noted| noted.key != *key);
                    let (lives, seen) = (lives(new, flow), clock.jiffies);
                    self.flows.push(Noted { key: *key, lives, seen, egress_elsewhere });
                }
            }
        }
    }
}

fn lives(world: &World, flow: &Flow) -> (u32, u32) {
    let life = |id: EndpointId| world.life(id);
    (life(flow.source()), life(flow.destination()))
}

/// What SECURITY.md promises of idle flows.
fn seconds(flow: &Flow) -> u64 {
    match flow.state() {
        State::Opening | State::Answered | State::Closing | State::Reset => 120,
        State::Established => 5 * 24 * 3600,
        State::Datagram => 180,
    }
}
