//! When to list, to watch, to wait and to begin again: one collection's state, fed with what
//! happens and what time it is. Who sends requests and reads answers is [`super::fetch`]'s business.
//!
//! ```text
//!            410, a text that is no event, two silent watches, a server that is behind us
//!         ┌───────────────────────────────────────────────────┐
//!         ▼                                                   │
//!  ──▶ listing ── last page ──▶ watching ── end, error ──▶ watching from the same version
//! ```
//!
//! A server accepts a watch from a version that it has not reached, and is silent until it passes it.
//! After its etcd was restored from a backup, what it changed before then never comes. So a watch that
//! broke off is resumed only after a look at the server's version.
//!
//! A list never asks for `resourceVersion=0`: the answer may be older than what is in force, and an
//! older policy may allow more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::timing::{Dice, Timing};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Wait(Duration),
    /// Ask for a page; with none for a token it is the first one.
    List {
        token: Option<String>,
        limit: u32,
    },
    /// Ask for the version that the collection has now.
    Look,
    Watch {
        resource_version: String,
        timeout: Duration,
    },
}

/// Why a request did not bring what it was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, no answer in time, or one that breaks off.
    Unreachable(String),
    /// Not a byte came for as long as a watch may be silent.
    Silent,
    /// The server's own word.
    Status { code: u16, expired: bool, message: String, retry_after: Option<Duration> },
    /// The answer is no list, or a line no event.
    NotUnderstood(String),
    /// A page is larger than is held at a time.
    TooLarge,
}

/// Why everything is listed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    Expired,
    NotUnderstood,
    Silent,
    /// The server is behind what it has sent before.
    WentBack,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Cause::Expired => "expired",
            Cause::NotUnderstood => "not-understood",
            Cause::Silent => "silent",
            Cause::WentBack => "went-back",
        }
    }
}

/// What users see of it.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// There has been a whole list.
    pub listed: bool,
    pub listed_at: Option<Instant>,
    pub byte_at: Option<Instant>,
    /// Since when nothing works, and why.
    pub away: Option<(Instant, String)>,
    pub relists: BTreeMap<&'static str, u64>,
    /// Requests so far.
    pub requests: u64,
}

#[derive(Debug)]
pub struct Reflector {
    timing: Timing,
    dice: Dice,
    phase: Phase,
    not_before: Option<Instant>,
    /// When the last request was made, and whether it has brought anything.
    asked: Option<(Instant, bool)>,
    /// When the last watch was to end by itself.
    watch_until: Option<Instant>,
    /// A watch broke off: the server may have been restored to an older state.
    doubtful: bool,
    failures: u32,
    good_since: Option<Instant>,
    silent_watches: u32,
    /// Objects of which a list was made again because they could not be understood.
    relisted_at: Option<Instant>,
    limit: u32,
    /// The server does not know the field selector: ask with a plainer one.
    plain: bool,
    pub health: Health,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Listing { token: Option<String> },
    Watching { resource_version: String },
}

const PAGE: u32 = 500;
/// A watch that ends so long before its time was broken off.
const EARLY: Duration = Duration::from_secs(5);
/// A list that was made for the sake of one object is not made again so soon.
const RELIST_AGAIN: Duration = Duration::from_secs(600);

impl Reflector {
    pub fn new(timing: Timing, seed: u64, not_before: Option<Instant>) -> Self {
        Self {
            timing,
            dice: Dice::new(seed),
            phase: Phase::Listing { token: None },
            not_before,
            asked: None,
            watch_until: None,
            doubtful: false,
            failures: 0,
            good_since: None,
            silent_watches: 0,
            relisted_at: None,
            limit: PAGE,
            plain: false,
            health: Health::default(),
        }
    }

    pub fn next(&mut self, now: Instant) -> Step {
        let paced = match self.asked {
            Some((at, false)) => Some(at + self.timing.pace),
            Some((_, true)) | None => None,
        };
        let wait = self.not_before.max(paced).and_then(|until| until.checked_duration_since(now));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Step::Wait(wait);
        }
        self.not_before = None;
        self.asked = Some((now, false));
        self.health.requests += 1;
        match &self.phase {
            Phase::Listing { token } => Step::List { token: token.clone(), limit: self.limit },
            Phase::Watching { .. } if self.doubtful => Step::Look,
            Phase::Watching { resource_version } => {
                let timeout = self.dice.between(self.timing.watch.clone());
                self.watch_until = Some(now + timeout);
                Step::Watch { resource_version: resource_version.clone(), timeout }
            }
        }
    }

    /// Takes note of the version that the server has now.
    pub fn looked(&mut self, server: &str, now: Instant) {
        self.brought(now);
        self.doubtful = false;
        // Versions are numbers that grow (KEP-5504); of others nothing can be said.
        let behind = match (server.parse::<u64>(), self.resource_version().parse::<u64>()) {
            (Ok(server), Ok(ours)) => server < ours,
            _ => false,
        };
        if behind {
            self.relist(Cause::WentBack);
        }
    }

    /// Takes note of the end of a watch.
    pub fn ended(&mut self, now: Instant) {
        self.doubtful |= self.watch_until.is_none_or(|until| now + EARLY < until);
    }

    /// Notes that bytes have come.
    pub fn received(&mut self, now: Instant) {
        self.silent_watches = 0;
        self.brought(now);
    }

    fn brought(&mut self, now: Instant) {
        if let Some((_, brought)) = &mut self.asked {
            *brought = true;
        }
        self.health.byte_at = Some(now);
        self.works(now);
    }

    fn works(&mut self, now: Instant) {
        self.health.away = None;
        let since = *self.good_since.get_or_insert(now);
        if now.duration_since(since) >= self.timing.good {
            self.failures = 0;
        }
    }

    /// Notes the header of an answer that is no failure: a watch stands, if nothing has changed for
    /// a while it is silent all the same.
    pub fn answered(&mut self, now: Instant) {
        self.works(now);
    }

    /// Takes note of a page. True if it is the last one.
    pub fn page(&mut self, resource_version: String, token: Option<String>, now: Instant) -> bool {
        self.received(now);
        if token.is_some() {
            self.phase = Phase::Listing { token };
            return false;
        }
        self.phase = Phase::Watching { resource_version };
        self.doubtful = false;
        self.limit = PAGE;
        self.health.listed = true;
        self.health.listed_at = Some(now);
        true
    }

    /// Takes note of the version up to which everything is known.
    pub fn seen(&mut self, version: &str) {
        if let Phase::Watching { resource_version } = &mut self.phase
            && !version.is_empty()
        {
            version.clone_into(resource_version);
        }
    }

    /// Takes note of an object that cannot be understood. True if everything is to be listed again
    /// because of it; if that does not help, the object is passed over.
    pub fn nameless(&mut self, now: Instant) -> bool {
        let lately = |at| now.duration_since(at) < RELIST_AGAIN;
        if self.relisted_at.is_some_and(lately) {
            return false;
        }
        self.relisted_at = Some(now);
        self.relist(Cause::NotUnderstood);
        true
    }

    pub fn failed(&mut self, failure: &Failure, now: Instant) {
        let watching = matches!(self.phase, Phase::Watching { .. });
        self.doubtful |= watching;
        match failure {
            Failure::Silent => {
                self.silent_watches += 1;
                if self.silent_watches >= 2 {
                    self.silent_watches = 0;
                    self.relist(Cause::Silent);
                }
                self.away(now, "not a byte came for longer than bookmarks take".to_owned());
                return;
            }
            Failure::Status { expired: true, .. } if watching => {
                self.relist(Cause::Expired);
                if self.failures == 0 {
                    // Nothing is wrong but that we were away for long: the list follows at once.
                    self.asked = None;
                    self.good_since = None;
                    self.failures = 1;
                    return;
                }
            }
            Failure::Status { expired: true, .. } => {
                self.phase = Phase::Listing { token: None };
            }
            Failure::NotUnderstood(_) => {
                if watching {
                    self.relist(Cause::NotUnderstood);
                } else {
                    self.phase = Phase::Listing { token: None };
                }
            }
            Failure::TooLarge => {
                self.limit = (self.limit / 4).max(1);
                self.phase = Phase::Listing { token: None };
            }
            Failure::Status { code: 400, .. } if !self.plain => {
                self.plain = true;
                self.phase = Phase::Listing { token: None };
            }
            Failure::Unreachable(_) | Failure::Status { .. } => {}
        }
        self.back_off(failure, now);
        self.away(now, failure.to_string());
    }

    fn back_off(&mut self, failure: &Failure, now: Instant) {
        self.good_since = None;
        let longest = self.timing.backoff.start * 2_u32.saturating_pow(self.failures.min(16));
        let longest = longest.min(self.timing.backoff.end);
        self.failures += 1;
        let pause = self.dice.between(longest / 2..longest);
        let asked_for = match failure {
            Failure::Status { retry_after: Some(after), .. } => {
                let after = (*after).min(Duration::from_secs(600));
                self.dice.between(after..after + after / 2)
            }
            _ => Duration::ZERO,
        };
        self.not_before = Some(now + pause.max(asked_for));
    }

    fn relist(&mut self, cause: Cause) {
        *self.health.relists.entry(cause.name()).or_default() += 1;
        self.phase = Phase::Listing { token: None };
    }

    fn away(&mut self, now: Instant, why: String) {
        let since = self.health.away.take().map_or(now, |(since, _)| since);
        self.health.away = Some((since, why));
    }

    /// Whether the server knows only plain field selectors.
    pub fn plain(&self) -> bool {
        self.plain
    }

    pub fn state(&self) -> &'static str {
        match (&self.phase, &self.health.away) {
            (_, Some(_)) => "away",
            (Phase::Listing { .. }, None) => "listing",
            (Phase::Watching { .. }, None) => "watching",
        }
    }

    /// The version up to which everything is known; empty while it is listed.
    pub fn resource_version(&self) -> &str {
        match &self.phase {
            Phase::Listing { .. } => "",
            Phase::Watching { resource_version } => resource_version,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Unreachable(why) => f.write_str(why),
            Failure::Silent => f.write_str("the watch is silent"),
            Failure::Status { code, message, .. } if message.is_empty() => {
                write!(f, "the server answers {code}")
            }
            Failure::Status { code, message, .. } => {
                write!(f, "the server answers {code}: {message}")
            }
            Failure::NotUnderstood(why) => write!(f, "the answer is not understood: {why}"),
            Failure::TooLarge => f.write_str("the answer is too large"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn reflector() -> (Reflector, Instant) {
        (Reflector::new(Timing::default(), 7, None), Instant::now())
    }

    fn watching(reflector: &mut Reflector, now: Instant) {
        assert!(matches!(reflector.next(now), Step::List { token: None, .. }));
        assert!(reflector.page("5".to_owned(), None, now));
    }

    fn unreachable() -> Failure {
        Failure::Unreachable("no route".to_owned())
    }

    fn status(code: u16, retry_after: Option<Duration>) -> Failure {
        Failure::Status { code, expired: code == 410, message: String::new(), retry_after }
    }

    #[test]
    fn a_list_goes_page_by_page_and_a_watch_goes_on_from_what_was_seen() {
        let (mut reflector, now) = reflector();
        assert_eq!(reflector.next(now), Step::List { token: None, limit: 500 });
        assert!(!reflector.page("5".to_owned(), Some("t".to_owned()), now));
        assert_eq!(reflector.next(now), Step::List { token: Some("t".to_owned()), limit: 500 });
        assert!(!reflector.health.listed);
        assert!(reflector.page("5".to_owned(), None, now));
        assert!(reflector.health.listed);
        let version = |step| match step {
            Step::Watch { resource_version, timeout } => {
                assert!((300 * SECOND..600 * SECOND).contains(&timeout), "{timeout:?}");
                resource_version
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(version(reflector.next(now)), "5");
        reflector.received(now);
        reflector.seen("9");
        assert_eq!(version(reflector.next(now)), "9");
    }

    #[test]
    fn each_failure_has_its_consequence() {
        let not_understood = || Failure::NotUnderstood("?".to_owned());
        for (failure, relists) in [
            (unreachable(), None),
            (status(500, None), None),
            (status(403, None), None),
            (status(401, None), None),
            (status(410, None), Some("expired")),
            (not_understood(), Some("not-understood")),
        ] {
            let (mut reflector, now) = reflector();
            watching(&mut reflector, now);
            reflector.next(now);
            reflector.failed(&failure, now);
            let later = now + 31 * SECOND;
            let lists = matches!(reflector.next(later), Step::List { token: None, .. });
            assert_eq!(lists, relists.is_some(), "{failure:?}");
            assert_eq!(reflector.health.relists.keys().next().copied(), relists);
        }
    }

    #[test]
    fn a_second_silent_watch_in_a_row_makes_a_list_and_a_byte_between_makes_none() {
        for byte_between in [false, true] {
            let (mut reflector, mut now) = reflector();
            watching(&mut reflector, now);
            for _ in 0..2 {
                now += 151 * SECOND;
                let mut step = reflector.next(now);
                if step == Step::Look {
                    // This is no byte of a watch.
                    reflector.looked("5", now);
                    step = reflector.next(now);
                }
                assert!(matches!(step, Step::Watch { .. }));
                reflector.answered(now);
                if byte_between {
                    reflector.received(now);
                }
                reflector.failed(&Failure::Silent, now + 150 * SECOND);
                assert_eq!(reflector.state(), "away");
            }
            now += 400 * SECOND;
            let lists = matches!(reflector.next(now), Step::List { .. });
            assert_eq!(lists, !byte_between);
        }
    }

    #[test]
    fn a_watch_that_broke_off_goes_on_only_at_a_server_that_is_not_behind() {
        for (server, lists) in [("4", true), ("5", false), ("6", false), ("opaque", false)] {
            let (mut reflector, now) = reflector();
            watching(&mut reflector, now);
            assert!(matches!(reflector.next(now), Step::Watch { .. }));
            reflector.received(now);
            reflector.ended(now + SECOND);
            assert_eq!(reflector.next(now + SECOND), Step::Look);
            reflector.looked(server, now + SECOND);
            let next = reflector.next(now + SECOND);
            assert_eq!(matches!(next, Step::List { token: None, .. }), lists, "{server}: {next:?}");
            assert_eq!(reflector.health.relists.contains_key("went-back"), lists);
        }
    }

    #[test]
    fn a_watch_that_ended_when_it_was_to_costs_no_look() {
        let (mut reflector, now) = reflector();
        watching(&mut reflector, now);
        let Step::Watch { timeout, .. } = reflector.next(now) else { panic!("it is listed") };
        reflector.received(now);
        reflector.ended(now + timeout);
        assert!(matches!(reflector.next(now + timeout), Step::Watch { .. }));
    }

    #[test]
    fn pauses_grow_to_half_a_minute_and_begin_again_after_good_service() {
        let (mut reflector, mut now) = reflector();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(!matches!(reflector.next(now), Step::Wait(_)));
            reflector.failed(&unreachable(), now);
            let Step::Wait(pause) = reflector.next(now) else { panic!("it is too early") };
            pauses.push(pause);
            now += pause;
        }
        assert!(pauses[0] <= SECOND, "{pauses:?}");
        assert!(pauses[11] >= 15 * SECOND && pauses[11] <= 30 * SECOND, "{pauses:?}");
        // A server that works for a moment only is not worth more than before.
        reflector.next(now);
        reflector.received(now);
        reflector.received(now + SECOND);
        reflector.failed(&unreachable(), now + SECOND);
        assert!(matches!(reflector.next(now + SECOND), Step::Wait(pause) if pause >= 15 * SECOND));
        now += 60 * SECOND;
        reflector.next(now);
        reflector.received(now);
        now += 121 * SECOND;
        reflector.received(now);
        reflector.failed(&unreachable(), now);
        assert!(matches!(reflector.next(now), Step::Wait(pause) if pause <= SECOND));
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for_and_not_in_step() {
        let mut pauses: Vec<Duration> = (1..=20)
            .map(|seed| {
                let now = Instant::now();
                let mut reflector = Reflector::new(Timing::default(), seed, None);
                reflector.next(now);
                reflector.failed(&status(429, Some(20 * SECOND)), now);
                match reflector.next(now) {
                    Step::Wait(pause) => pause,
                    other => panic!("{other:?}"),
                }
            })
            .collect();
        pauses.sort();
        assert!(pauses[0] >= 20 * SECOND && pauses[19] <= 30 * SECOND, "{pauses:?}");
        assert!(pauses[19] - pauses[0] >= 3 * SECOND, "{pauses:?}");
    }

    #[test]
    fn a_request_that_brought_nothing_is_not_made_again_at_once() {
        let (mut reflector, now) = reflector();
        watching(&mut reflector, now);
        assert!(matches!(reflector.next(now), Step::Watch { .. }));
        reflector.answered(now);
        assert_eq!(reflector.next(now + SECOND / 4), Step::Wait(SECOND * 3 / 4));
        assert!(matches!(reflector.next(now + SECOND), Step::Watch { .. }));
        reflector.received(now + SECOND);
        assert!(matches!(reflector.next(now + SECOND), Step::Watch { .. }));
    }

    #[test]
    fn history_that_keeps_expiring_is_listed_at_a_pace() {
        let (mut reflector, now) = reflector();
        watching(&mut reflector, now);
        reflector.next(now);
        reflector.failed(&status(410, None), now);
        assert!(matches!(reflector.next(now), Step::List { .. }), "the first time at once");
        reflector.page("6".to_owned(), None, now);
        reflector.next(now);
        reflector.failed(&status(410, None), now);
        assert!(matches!(reflector.next(now), Step::Wait(_)));
    }

    #[test]
    fn a_page_that_is_too_large_is_asked_for_in_smaller_ones() {
        let (mut reflector, mut now) = reflector();
        let mut limits = Vec::new();
        for _ in 0..6 {
            now += 60 * SECOND;
            let Step::List { limit, .. } = reflector.next(now) else { panic!("it lists") };
            limits.push(limit);
            reflector.failed(&Failure::TooLarge, now);
        }
        assert_eq!(limits, [500, 125, 31, 7, 1, 1]);
    }

    #[test]
    fn since_when_it_is_away_does_not_change_with_the_reason() {
        let (mut reflector, now) = reflector();
        reflector.next(now);
        reflector.failed(&unreachable(), now);
        reflector.failed(&status(500, None), now + 9 * SECOND);
        let away = reflector.health.away.clone().expect("it is away");
        assert_eq!((away.0, away.1.contains("500")), (now, true));
        reflector.received(now + 10 * SECOND);
        assert_eq!(reflector.health.away, None);
    }
}
