//! A sliding window: how many in the last so and so long. Pure, and bounded whatever the pace.
//!
//! Events that are closer together than 1/16384 of the window share an entry, which leaves the
//! window with the last of them. So a count is never too low, an entry holds an event at most that
//! fraction of the window too long, and there are at most 16,385 entries or so.

use std::collections::VecDeque;
use std::time::Duration;

/// Entries of a full window.
const GRAIN: u32 = 16_384;

/// Events close together.
#[derive(Clone, Copy, Debug)]
struct Entry {
    first: Duration,
    last: Duration,
    count: u64,
}

/// The events of the last `per`. Times are since some start and never go back.
#[derive(Clone, Debug)]
pub struct Window {
    per: Duration,
    entries: VecDeque<Entry>,
    total: u64,
}

impl Window {
    /// An empty window of this length.
    pub fn new(per: Duration) -> Window {
        Window { per, entries: VecDeque::new(), total: 0 }
    }

    /// Its length.
    pub fn per(&self) -> Duration {
        self.per
    }

    /// Events in the window that ends at `now` (and begins after `now − per`).
    pub fn count(&mut self, now: Duration) -> u64 {
        while let Some(oldest) = self.entries.front().filter(|e| e.last + self.per <= now) {
            self.total -= oldest.count;
            self.entries.pop_front();
        }
        self.total
    }

    /// Adds `n` events at `now`; returns what the window now has.
    pub fn add(&mut self, now: Duration, n: u64) -> u64 {
        self.count(now);
        let grain = self.per / GRAIN;
        match self.entries.back_mut() {
            Some(entry) if now.saturating_sub(entry.first) < grain || now <= entry.last => {
                entry.count += n;
                entry.last = entry.last.max(now);
            }
            _ => self.entries.push_back(Entry { first: now, last: now, count: n }),
        }
        self.total += n;
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_event_leaves_after_exactly_the_length() {
        let mut window = Window::new(SECOND);
        assert_eq!(window.add(Duration::ZERO, 1), 1);
        assert_eq!(window.add(Duration::from_millis(500), 2), 3);
        assert_eq!(window.count(Duration::from_nanos(999_999_999)), 3);
        assert_eq!(window.count(SECOND), 2);
    }

    #[test]
    fn memory_is_bounded_at_any_pace() {
        let mut window = Window::new(SECOND);
        for i in 0..200_000u64 {
            window.add(Duration::from_micros(i * 10), 1);
        }
        assert!(window.entries.len() <= GRAIN as usize + 2, "{}", window.entries.len());
        let seen = window.count(Duration::from_micros(1_999_990));
        assert!((100_000..100_020).contains(&seen), "{seen}");
    }

    proptest! {
        #[test]
        fn never_below_the_true_count_and_never_above_that_of_a_hair_more(
            steps in prop::collection::vec(0u64..300_000, 1..200)
        ) {
            let mut window = Window::new(SECOND);
            let mut times: Vec<u64> = Vec::new();
            let mut now = 0;
            for step in steps {
                now += step;
                times.push(now);
                let seen = window.add(Duration::from_micros(now), 1);
                let within = |us: u64| times.iter().filter(|t| **t + us > now).count() as u64;
                prop_assert!(seen >= within(1_000_000) && seen <= within(1_000_000 + 62));
            }
        }
    }
}
