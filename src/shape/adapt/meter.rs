//! How much was tried and accepted lately, in cells a second; and in the last window, where its length is
//! known. Pure.

use crate::clock::Timestamp;

/// Parts of a window in which what was accepted is counted apart.
const SLOTS: i64 = 24;

/// What was accepted in the last window, in slots.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Recent {
    /// Milliseconds of a slot, and when counting began.
    slot: i64,
    since: Timestamp,
    /// The slot that was counted last.
    latest: i64,
    cells: [f32; SLOTS as usize],
}

impl Recent {
    /// Counts for windows of so many seconds from now on.
    fn of(window: f64, now: Timestamp) -> Recent {
        let slot = ((window * 1000.0 / (SLOTS - 2) as f64) as i64).max(1);
        Recent { slot, since: now, latest: now.0.div_euclid(slot), ..Recent::default() }
    }

    /// `cells` were accepted; the window has so many seconds (0: that is not known).
    pub(super) fn note(&mut self, cells: f64, window: f64, now: Timestamp) {
        if window <= 0.0 {
            self.slot = 0;
            return;
        }
        let fresh = Recent::of(window, now);
        if self.slot != fresh.slot {
            *self = fresh;
        }
        let at = now.0.div_euclid(self.slot);
        for skipped in (self.latest + 1..=at).take(SLOTS as usize) {
            self.cells[skipped.rem_euclid(SLOTS) as usize] = 0.0;
        }
        self.latest = self.latest.max(at);
        self.cells[at.rem_euclid(SLOTS) as usize] += cells as f32;
    }

    /// What was accepted in so many seconds up to `now`; `None`: it was not counted for so long.
    pub(super) fn within(&self, seconds: f64, now: Timestamp) -> Option<f64> {
        let from = now.0 - (seconds * 1000.0) as i64;
        if self.slot == 0 || self.since.0 > from {
            return None;
        }
        let of = |slot: i64| f64::from(self.cells[slot.rem_euclid(SLOTS) as usize]);
        let first = from.div_euclid(self.slot).max(self.latest - SLOTS + 1);
        // Of the slot in which it begins, the part that is in it.
        let part = 1.0 - (from - first * self.slot).max(0) as f64 / self.slot as f64;
        Some(of(first) * part.max(0.0) + (first + 1..=self.latest).map(of).sum::<f64>())
    }
}

/// The last attempts whose times are kept.
const LAST: usize = 4;
/// So many times as long as they would take at a rate they may have taken, if it is used.
const SLACK: f64 = 2.0;
/// Attempts from which on it is known how large those are that are accepted.
const SIZED: f64 = 20.0;

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
    /// When the last attempts ended, and the cells of each.
    last_few: [(Timestamp, f64); LAST],
    /// Attempts and bytes of what was tried and of what was accepted.
    sizes: [(f64, f64); 2],
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
            self.sizes = self.sizes.map(|(attempts, bytes)| (attempts / 2.0, bytes / 2.0));
        }
        self.last_few.rotate_left(1);
        self.last_few[LAST - 1] = (now, cells);
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

    /// Such an attempt was for a message of so many bytes.
    pub(super) fn note_size(&mut self, bytes: f64, accepted: bool) {
        let [tried, passed] = &mut self.sizes;
        *tried = (tried.0 + 1.0, tried.1 + bytes);
        if accepted {
            *passed = (passed.0 + 1.0, passed.1 + bytes);
        }
    }

    /// How large what was accepted is on average, as a part of what was tried: below 1 where bytes are counted,
    /// as small messages still pass when large ones do not. 1 where too little is known.
    pub(super) fn smaller(&self) -> f64 {
        let [tried, passed] = self.sizes;
        if passed.0 < SIZED || tried.1 <= 0.0 { 1.0 } else { (passed.1 / passed.0) / (tried.1 / tried.0) }.min(1.0)
    }

    /// Whether the last few attempts came about as fast as this rate permits. Told sooner than by an average over
    /// long, where the rate is slow and grows.
    pub(super) fn keeps_up(&self, rate: f64, now: Timestamp) -> bool {
        let (first, _) = self.last_few[0];
        let cells: f64 = self.last_few.iter().map(|(_, cells)| cells).sum();
        first > Timestamp::default() && now.since(first).as_secs_f64() * rate <= SLACK * cells
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
