//! Where lines come together: the last ones are kept, and followers get the next ones.
//!
//! No follower can delay the agent: one that is too slow misses lines, and learns how many.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use np_common::event::Report;
use tokio::sync::broadcast;

use super::line::Line;
use crate::dataplane::Reporting;

/// How many lines are kept.
const KEPT: usize = 4096;
/// How many lines a follower may be behind.
const BEHIND: usize = 1024;

/// A line, and its text.
#[derive(Debug)]
pub struct Entry {
    at: Instant,
    pub line: Line,
    /// One line of JSON.
    pub text: String,
}

#[derive(Debug)]
pub struct Hub {
    kept: Mutex<VecDeque<Arc<Entry>>>,
    live: broadcast::Sender<Arc<Entry>>,
    pub demand: Demand,
}

impl Hub {
    pub fn new(demand: Demand) -> Self {
        Self { kept: Mutex::default(), live: broadcast::Sender::new(BEHIND), demand }
    }

    pub fn tell(&self, line: Line) {
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        let entry = Arc::new(Entry { at: Instant::now(), line, text });
        let mut kept = locked(&self.kept);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(entry.clone());
        // Nobody may be following.
        self.live.send(entry).ok();
    }

    /// The lines of so much time up to now, or all that are kept, oldest first; and those that follow.
    /// None is in both, and none is missing.
    pub fn listen(
        &self,
        past: Option<Duration>,
    ) -> (Vec<Arc<Entry>>, broadcast::Receiver<Arc<Entry>>) {
        let kept = locked(&self.kept);
        let recent = kept.iter().filter(|entry| past.is_none_or(|past| entry.at.elapsed() <= past));
        let recent =
            if past == Some(Duration::ZERO) { Vec::new() } else { recent.cloned().collect() };
        (recent, self.live.subscribe())
    }
}

/// What makes events: what always does, and what somebody follows.
#[derive(Debug)]
pub struct Demand {
    reporting: Option<Reporting>,
    always: Report,
    followers: Mutex<[usize; 3]>,
}

impl Demand {
    pub fn new(reporting: Reporting, always: Report) -> Self {
        reporting.set(always);
        Self { reporting: Some(reporting), always, followers: Mutex::default() }
    }

    /// Makes the programs tell at least this, until what is returned is dropped.
    pub fn raise(&self, report: Report) -> Raised<'_> {
        self.change(report, |followers| followers.saturating_add(1));
        Raised { demand: self, report }
    }

    fn change(&self, report: Report, change: impl FnOnce(usize) -> usize) {
        let mut followers = locked(&self.followers);
        if let Some(followers) = followers.get_mut(report as usize) {
            *followers = change(*followers);
        }
        let wanted = Self::wanted(&followers).max(self.always);
        if let Some(reporting) = &self.reporting {
            reporting.set(wanted);
        }
    }

    fn wanted([_, denied, all]: &[usize; 3]) -> Report {
        match (denied, all) {
            (_, 1..) => Report::All,
            (1.., 0) => Report::Denied,
            (0, 0) => Report::Nothing,
        }
    }
}

/// Somebody follows.
#[derive(Debug)]
pub struct Raised<'a> {
    demand: &'a Demand,
    report: Report,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.demand.change(self.report, |followers| followers.saturating_sub(1));
    }
}

/// No holder leaves it half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::events::line::Content;

    fn hub() -> Hub {
        let followers = Mutex::default();
        Hub::new(Demand { reporting: None, always: Report::Nothing, followers })
    }

    fn numbers(hub: &Hub, numbers: std::ops::Range<u64>) {
        numbers.for_each(|lines| hub.tell(Line::new(Content::Lost { lines })));
    }

    fn number(entry: &Entry) -> u64 {
        match entry.line.content {
            Content::Lost { lines } => lines,
            _ => unreachable!("there are only numbers"),
        }
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let hub = hub();
        numbers(&hub, 0..KEPT as u64 + 10);
        let (kept, _) = hub.listen(None);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(number(&kept[0]), 10);
        let (none, _) = hub.listen(Some(Duration::ZERO));
        assert!(none.is_empty());
        let (all, _) = hub.listen(Some(Duration::from_secs(3600)));
        assert_eq!(all.len(), KEPT);
    }

    #[test]
    fn who_is_too_slow_misses_lines_and_learns_how_many() {
        let hub = hub();
        numbers(&hub, 0..1);
        let (kept, mut live) = hub.listen(None);
        numbers(&hub, 1..4);
        assert_eq!(kept.len(), 1);
        for expected in 1..4 {
            assert_eq!(number(&live.try_recv().expect("it is there")), expected);
        }
        numbers(&hub, 0..BEHIND as u64 + 7);
        let lost = live.try_recv().expect_err("it is behind");
        assert!(matches!(lost, TryRecvError::Lagged(7)), "{lost:?}");
        assert_eq!(number(&live.try_recv().expect("the next one")), 7);
    }

    #[test]
    fn the_programs_tell_as_much_as_the_most_demanding_follower_wants() {
        let wanted = |demand: &Demand| Demand::wanted(&locked(&demand.followers));
        let Hub { demand, .. } = hub();
        let denied = demand.raise(Report::Denied);
        assert_eq!(wanted(&demand), Report::Denied);
        let all = demand.raise(Report::All);
        assert_eq!(wanted(&demand), Report::All);
        drop(denied);
        assert_eq!(wanted(&demand), Report::All);
        drop(all);
        assert_eq!(wanted(&demand), Report::Nothing);
    }
}
