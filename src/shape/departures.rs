//! When how much left through a gate: what every quota is counted from, whatever its number, its
//! length and its unit are now or were before. Pure: `now` is an argument.
//!
//! Invariants: what left at a time is counted in messages and in recipients, from that time or later,
//! never earlier; it leaves the list only when it is older than the longest window that was ever asked
//! for (`keep`). The configuration decides how finely times are known, never what is counted.
//!
//! **Bounded.** Times of the last second are known to the *grain*, older ones to a sixteenth of their
//! age, and those inside a configured window to a sixtieth of it: neighbours are put together, with the
//! later end. That is about 150 of them for a window of an hour and 400 for one of a year, whatever
//! leaves. So a cell comes back up to a sixtieth of the window later than it could.
//!
//! **At the receiver.** What leaves is put here when the server has answered, and counts as used until
//! then: whichever moment in between the receiver counts, no window of its own sees more. For a clock
//! that runs a little faster there, or a receiver that counts behind its answer, each window is longer
//! here by its [`slack`].

use super::cost::Cost;
use crate::config::Count;

/// Parts of a configured window that are told from each other.
const PARTS: i64 = 60;
/// What is older than every configured window: known to this part of its age.
const PART_OF_AGE: i64 = 16;
/// The finest and the coarsest grain of what leaves now, in ms.
const GRAIN: (i64, i64) = (1, 1000);

/// How much longer a window is counted than it is, in ms: a sixtieth, 100 ms to 1 s.
pub fn slack(window_ms: i64) -> i64 {
    (window_ms / 60).clamp(100, 1000)
}

/// What left between two times: not before `from`, and before `to`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bucket {
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) cost: Cost,
}

impl Bucket {
    /// The same on a clock that is ahead by `shift`. Nothing left later than `now`.
    pub(super) fn moved(self, shift: i64, now: i64) -> Bucket {
        let (from, to) = (self.from.saturating_add(shift), self.to.saturating_add(shift));
        Bucket { from: from.min(now), to: to.min(now.saturating_add(1)), cost: self.cost }
    }
}

/// What left, oldest first. Times in ms of a clock that never runs backwards.
#[derive(Clone, Debug)]
pub(super) struct Departures {
    buckets: Vec<Bucket>,
    /// Lengths of the configured windows, shortest first.
    windows: Vec<i64>,
    keep: i64,
}

impl Departures {
    /// None yet. `windows`: the lengths that are counted now; what is older than `keep` is forgotten.
    pub(super) fn new(mut windows: Vec<i64>, keep: i64) -> Departures {
        windows.sort_unstable();
        let keep = windows.last().copied().unwrap_or_default().max(keep);
        Departures { buckets: Vec::new(), windows, keep }
    }

    pub(super) fn keep(&self) -> i64 {
        self.keep
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// It left just now. No earlier than anything before.
    pub(super) fn add(&mut self, cost: Cost, now: i64) {
        if let Some(last) = self.buckets.last_mut().filter(|last| now < last.to) {
            last.cost = last.cost.and(cost);
            return;
        }
        let grain = self.windows.first().map_or(GRAIN.1, |shortest| (shortest / PARTS).clamp(GRAIN.0, GRAIN.1));
        let from = now - now.rem_euclid(grain);
        self.buckets.push(Bucket { from, to: from.saturating_add(grain), cost });
        self.compact(now);
    }

    /// It left at some time of these, in any order. [`Departures::compact`] when all of them are here.
    pub(super) fn insert(&mut self, bucket: Bucket) {
        let at = self.buckets.partition_point(|other| other.to <= bucket.to);
        self.buckets.insert(at, bucket);
    }

    /// Forgets what is over, and puts neighbours together whose times need not be told apart.
    pub(super) fn compact(&mut self, now: i64) {
        let (keep, windows) = (self.keep, &self.windows);
        self.buckets.retain(|bucket| is_inside(bucket, keep, now));
        let grain = windows.first().map_or(GRAIN.1, |shortest| (shortest / PARTS).clamp(GRAIN.0, GRAIN.1));
        let width = |age: i64| {
            // What counts only for the slack of a window is inside it, too.
            let inside = windows.iter().find(|window| window.saturating_add(slack(**window)) >= age);
            let inside = inside.map_or(i64::MAX, |window| window / PARTS);
            (age / PART_OF_AGE).min(inside).max(grain)
        };
        self.buckets.dedup_by(|newer, older| {
            let from = older.from.min(newer.from);
            let near = newer.to.saturating_sub(from) <= width(now.saturating_sub(newer.to));
            if near {
                *older = Bucket { from, to: newer.to, cost: older.cost.and(newer.cost) };
            }
            near
        });
    }

    /// What counts at `now` in a window of that length.
    pub(super) fn used(&self, of: Count, window: i64, now: i64) -> u64 {
        used(&self.buckets, of, window, now)
    }

    /// When so many of those that count at `now` do not count any more, `others` included (oldest first); `None`:
    /// there are fewer.
    pub(super) fn free(&self, others: &[Bucket], cells: u64, of: Count, window: i64, now: i64) -> Option<i64> {
        let mut freed = 0;
        let mut all: Vec<&Bucket> = Vec::new();
        if !others.is_empty() {
            all.extend(self.buckets.iter().chain(others));
            all.sort_by_key(|bucket| bucket.to);
        }
        // Without others, which is nearly always, nothing is copied.
        let own = self.buckets.iter().filter(|_| others.is_empty());
        let inside = own.chain(all).filter(|bucket| is_inside(bucket, window, now));
        for bucket in inside {
            freed += u64::from(bucket.cost.count(of));
            if freed >= cells {
                return Some(bucket.to.saturating_add(window).saturating_add(slack(window)));
            }
        }
        None
    }
}

/// What of these, oldest first, counts at `now` in a window of that length.
pub(super) fn used(buckets: &[Bucket], of: Count, window: i64, now: i64) -> u64 {
    let inside = buckets.iter().rev().take_while(|bucket| is_inside(bucket, window, now));
    inside.map(|bucket| u64::from(bucket.cost.count(of))).sum()
}

/// Whether it counts at `now` in a window of that length.
fn is_inside(bucket: &Bucket, window: i64, now: i64) -> bool {
    now < bucket.to.saturating_add(window).saturating_add(slack(window))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: i64 = 86_400_000;

    proptest! {
        /// Whatever is configured, no window of any length counts less than what left in it, and what is
        /// older than it by more than a part of its length not at all.
        #[test]
        fn no_window_counts_too_little(
            windows in proptest::collection::vec(prop_oneof![Just(1000i64), Just(60_000), Just(3_600_000), Just(DAY)], 0..3),
            steps in proptest::collection::vec((prop_oneof![0i64..50, 0i64..5000, 0i64..600_000, 0..DAY], 1u32..4, 1u32..9), 1..300),
            asked in prop_oneof![1000i64..100_000, 1000i64..40 * DAY],
        ) {
            let mut departures = Departures::new(windows.clone(), 31 * DAY);
            let mut left: Vec<(i64, Cost)> = Vec::new();
            let mut now = 1_790_000_000_123;
            for (pause, messages, recipients) in steps {
                now += pause;
                let cost = Cost { messages, recipients };
                departures.add(cost, now);
                left.push((now, cost));
            }
            for window in windows.iter().copied().chain([asked.min(31 * DAY)]) {
                for of in [Count::Messages, Count::Recipients] {
                    let count = |longest: i64| -> u64 {
                        let inside = left.iter().filter(|(at, _)| now - at < longest);
                        inside.map(|(_, cost)| u64::from(cost.count(of))).sum()
                    };
                    let used = departures.used(of, window, now);
                    prop_assert!(used >= count(window), "{used} of {} in {window} ms", count(window));
                    // In a configured window, or in another one.
                    let part = if windows.contains(&window) { window / PARTS } else { window / 8 };
                    let late = window + part + slack(window) + GRAIN.1 + 1;
                    prop_assert!(used <= count(late), "{used}, {} in {late} ms", count(late));
                }
            }
        }
    }

    #[test]
    fn a_year_of_departures_takes_little_memory() {
        let year = 366 * DAY;
        for windows in [vec![], vec![3_600_000], vec![1000, 60_000, DAY, year]] {
            let mut departures = Departures::new(windows, year);
            let mut most = 0;
            // Fast at last, so that every age has some.
            for now in (0..20_000).map(|n| n * (year / 20_000)).chain((0..20_000).map(|n| year + n * 100)) {
                departures.add(Cost::LEAST, now);
                most = most.max(departures.buckets.len());
            }
            assert!(most < 800, "{most}");
            assert!(departures.used(Count::Messages, year, year + 2_000_000) >= 39_900);
        }
    }
}
