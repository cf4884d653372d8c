//! How much was tried and accepted lately, in cells a second. Pure.

use crate::clock::Timestamp;

/// What was tried and what was accepted lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Meter {
    since: Option<Timestamp>,
    last: Timestamp,
    /// Milliseconds that were halved away are no longer in `since`.
    tried: f64,
    accepted: f64,
    /// Since when the lane was never idle, and all that was accepted since.
    busy: Option<Timestamp>,
    whole: f64,
    /// The second that an acceptance fell in last, what was accepted in it and in the one before.
    second: i64,
    latest: (f64, f64),
}

impl Meter {
    pub(super) fn note(&mut self, cells: f64, accepted: bool, now: Timestamp) {
        let since = *self.since.get_or_insert(now);
        let age = now.since(since).as_secs_f64();
        let gap = now.since(self.last).as_secs_f64();
        if self.tried > 0.0 && gap > 10.0_f64.max(5.0 * age / self.tried) {
            // A lane that had nothing to do says nothing about what it may.
            *self = Meter { since: Some(now), busy: Some(now), ..Meter::default() };
        } else if age > 8.0 && self.tried > 40.0 {
            self.since = Some(Timestamp(since.0.midpoint(now.0)));
            self.tried /= 2.0;
            self.accepted /= 2.0;
        }
        self.last = now;
        self.busy.get_or_insert(now);
        self.tried += cells;
        if accepted {
            self.accepted += cells;
            self.whole += cells;
            let second = now.0.div_euclid(1000);
            self.latest = match second - self.second {
                0 => (self.latest.0 + cells, self.latest.1),
                1 => (cells, self.latest.0),
                _ => (cells, 0.0),
            };
            self.second = second;
        }
    }

    /// All that was accepted since the lane began, and in how many seconds, if that went on evenly: the last
    /// two seconds had no more than twice their part.
    pub(super) fn evenly(&self, now: Timestamp) -> Option<(f64, f64)> {
        let seconds = now.since(self.busy?).as_secs_f64();
        let usual = self.whole / seconds.max(1.0) * 2.0;
        (self.latest.0 + self.latest.1 <= usual * 2.0 + 2.0).then_some((self.whole, seconds))
    }

    /// How long it has measured, in seconds.
    pub(super) fn age(&self, now: Timestamp) -> f64 {
        self.since.map_or(0.0, |since| now.since(since).as_secs_f64())
    }

    /// Cells accepted while it measured.
    pub(super) fn accepted(&self) -> f64 {
        self.accepted
    }

    /// Tried and accepted a second.
    pub(super) fn rates(&self, now: Timestamp) -> (f64, f64) {
        let age = self.age(now).max(1.0);
        (self.tried / age, self.accepted / age)
    }

    pub(super) fn restart(&mut self, now: Timestamp) {
        *self = Meter { since: Some(now), last: now, busy: Some(now), ..Meter::default() };
    }
}
