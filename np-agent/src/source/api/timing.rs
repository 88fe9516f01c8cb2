//! How long is waited for what, and a little chance, so that a thousand agents drift apart.

use std::ops::Range;
use std::time::Duration;

/// The deadlines and pauses of a source. Tests have shorter ones.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Until a connection stands.
    pub connect: Duration,
    /// From a request to the header of its answer.
    pub header: Duration,
    /// From one byte of a list to the next.
    pub page: Duration,
    /// From one byte of a watch to the next. Bookmarks come each minute.
    pub line: Duration,
    /// What a server is asked to end a watch after.
    pub watch: Range<Duration>,
    /// After a failure; doubled after each further one up to the end.
    pub backoff: Range<Duration>,
    /// At least so long after a request that brought nothing.
    pub pace: Duration,
    /// A failure after so much good service is the first one again.
    pub good: Duration,
    /// How long changes are gathered into one batch.
    pub gather: Duration,
    /// How old a client gets: a new one may go to another server, and reads certificates again.
    pub client: Range<Duration>,
    /// Before the first list of other nodes' pods, drawn at random: the larger it is, the better for
    /// a server whose agents all start at once.
    pub stagger: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        Self {
            connect: s(10),
            header: s(60),
            page: s(60),
            line: s(150),
            watch: s(300)..s(600),
            backoff: ms(800)..s(30),
            pace: s(1),
            good: s(120),
            gather: ms(20),
            client: s(3600)..s(7200),
            stagger: Duration::ZERO,
        }
    }
}

/// Random numbers that need not be good ones, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// Draws from a range; its start if it is empty.
    pub fn between(&mut self, range: Range<Duration>) -> Duration {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let part = (self.0 >> 40) as f64 / (1_u64 << 24) as f64;
        range.start + range.end.saturating_sub(range.start).mul_f64(part)
    }
}
