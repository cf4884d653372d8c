//! Limits for each sender or each recipient. Bounded: beyond [`MOST`] those that count for nothing any
//! more are forgotten, and all of them when that makes no room.

use std::collections::HashMap;
use std::time::Duration;

use super::limit::{Counters, Limit};

/// Senders or recipients that are remembered.
const MOST: usize = 20_000;

/// Counters by the hash of an address.
#[derive(Debug, Default)]
pub(super) struct Keyed {
    limits: Vec<Limit>,
    counters: HashMap<u64, Counters>,
}

impl Keyed {
    /// Each may have so many from now on; what was seen still counts.
    pub(super) fn set(&mut self, limits: &[Limit]) {
        self.limits = limits.to_vec();
        for counters in self.counters.values_mut() {
            *counters = Counters::new(limits, std::mem::take(counters));
        }
    }

    fn of(&mut self, now: Duration, key: u64) -> &mut Counters {
        if self.counters.len() >= MOST && !self.counters.contains_key(&key) {
            self.counters.retain(|_, counters| !counters.is_idle(now));
            if self.counters.len() >= MOST {
                self.counters.clear();
            }
        }
        self.counters.entry(key).or_insert_with(|| Counters::new(&self.limits, Counters::default()))
    }

    /// The length of the first window of `key` without room for `n`.
    pub(super) fn full(&mut self, now: Duration, key: u64, n: u64) -> Option<Duration> {
        if self.limits.is_empty() { None } else { self.of(now, key).full(now, n) }
    }

    /// Counts `n` for `key`.
    pub(super) fn take(&mut self, now: Duration, key: u64, n: u64) {
        if !self.limits.is_empty() {
            self.of(now, key).take(now, n);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_memory_is_bounded() {
        let mut keyed = Keyed::default();
        keyed.set(&["1/s".parse().expect("a limit")]);
        let second = Duration::from_secs(1);
        keyed.take(Duration::ZERO, 1, 1);
        assert_eq!((keyed.full(Duration::ZERO, 1, 1), keyed.full(Duration::ZERO, 2, 1)), (Some(second), None));
        assert_eq!(keyed.full(second, 1, 1), None);
        for key in 0..3 * MOST as u64 {
            keyed.take(Duration::from_millis(key), key, 1);
        }
        assert!(keyed.counters.len() <= MOST);
    }
}
