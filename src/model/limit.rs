//! A limit and how it counts: in a sliding window, in windows that begin at fixed times, or with a bucket
//! of tokens. Pure; memory is bounded whatever the pace.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::window::Window;
use crate::config::units::Rate;

/// How a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// So many in every window of that length, wherever it begins.
    #[default]
    Sliding,
    /// So many in each window; they begin at the start and follow one another. Around the edge of two of
    /// them twice as many pass.
    Fixed,
    /// A bucket of so many tokens, full at first, filled evenly in that time.
    Bucket,
}

/// `20/s`, `90/m@fixed`, `600/m@bucket`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// How many in what time.
    pub rate: Rate,
    /// How that is counted.
    pub kind: Kind,
}

impl From<Rate> for Limit {
    fn from(rate: Rate) -> Limit {
        Limit { rate, kind: Kind::Sliding }
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(s: &str) -> Result<Limit, String> {
        let (rate, kind) = s.split_once('@').unwrap_or((s, "sliding"));
        let kind = match kind {
            "sliding" => Kind::Sliding,
            "fixed" => Kind::Fixed,
            "bucket" => Kind::Bucket,
            _ => return Err(format!("`{s}`: expected @sliding, @fixed or @bucket behind the rate")),
        };
        Ok(Limit { rate: rate.parse()?, kind })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Sliding => "",
            Kind::Fixed => "@fixed",
            Kind::Bucket => "@bucket",
        };
        write!(f, "{}{kind}", self.rate)
    }
}

/// What a limit has seen. Times are since some start and never go back.
#[derive(Clone, Debug)]
enum Seen {
    Sliding(Window),
    /// Number of the window, and what it had.
    Fixed(u128, u64),
    /// When the bucket is full again (the theoretical arrival time of GCRA).
    Bucket(Duration),
}

/// A limit with what it has seen.
#[derive(Clone, Debug)]
struct Counter {
    limit: Limit,
    seen: Seen,
}

impl Counter {
    fn new(limit: Limit) -> Counter {
        let seen = match limit.kind {
            Kind::Sliding => Seen::Sliding(Window::new(limit.rate.per)),
            Kind::Fixed => Seen::Fixed(0, 0),
            Kind::Bucket => Seen::Bucket(Duration::ZERO),
        };
        Counter { limit, seen }
    }

    /// How long `n` tokens take to come.
    fn worth(&self, n: u64) -> Duration {
        let nanos = self.limit.rate.per.as_nanos() * u128::from(n) / u128::from(self.limit.rate.count.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn window(&self, now: Duration) -> u128 {
        now.as_nanos() / self.limit.rate.per.as_nanos().max(1)
    }

    fn has_room(&mut self, now: Duration, n: u64) -> bool {
        let (most, at, worth) = (u64::from(self.limit.rate.count), self.window(now), self.worth(n));
        match &mut self.seen {
            Seen::Sliding(window) => window.count(now).saturating_add(n) <= most,
            Seen::Fixed(window, count) => (if *window == at { *count } else { 0 }).saturating_add(n) <= most,
            Seen::Bucket(full) => (*full).max(now).saturating_add(worth) <= now + self.limit.rate.per,
        }
    }

    fn take(&mut self, now: Duration, n: u64) {
        let (at, worth) = (self.window(now), self.worth(n));
        match &mut self.seen {
            Seen::Sliding(window) => {
                window.add(now, n);
            }
            Seen::Fixed(window, count) => {
                let before = if *window == at { *count } else { 0 };
                (*window, *count) = (at, before.saturating_add(n));
            }
            Seen::Bucket(full) => *full = (*full).max(now).saturating_add(worth),
        }
    }

    /// Whether it is as if nothing had been seen.
    fn is_idle(&mut self, now: Duration) -> bool {
        let at = self.window(now);
        match &mut self.seen {
            Seen::Sliding(window) => window.count(now) == 0,
            Seen::Fixed(window, count) => *window != at || *count == 0,
            Seen::Bucket(full) => *full <= now,
        }
    }
}

/// Limits that hold together.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters(Vec<Counter>);

impl Counters {
    /// Counters of `limits`; what one of the same length and kind in `before` has seen still counts.
    pub(super) fn new(limits: &[Limit], before: Counters) -> Counters {
        let mut before = before.0;
        let same = |old: &Counter, new: &Limit| old.limit.kind == new.kind && old.limit.rate.per == new.rate.per;
        let counter = |limit: &Limit| match before.iter().position(|old| same(old, limit)) {
            Some(at) => Counter { limit: *limit, ..before.swap_remove(at) },
            None => Counter::new(*limit),
        };
        Counters(limits.iter().map(counter).collect())
    }

    /// The length of the first window without room for `n`.
    pub(super) fn full(&mut self, now: Duration, n: u64) -> Option<Duration> {
        self.0.iter_mut().find_map(|counter| (!counter.has_room(now, n)).then_some(counter.limit.rate.per))
    }

    /// Counts `n` everywhere.
    pub(super) fn take(&mut self, now: Duration, n: u64) {
        self.0.iter_mut().for_each(|counter| counter.take(now, n));
    }

    /// Whether nothing of what was seen counts any more.
    pub(super) fn is_idle(&mut self, now: Duration) -> bool {
        self.0.iter_mut().all(|counter| counter.is_idle(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// How many of one every `step` ms pass until `end`.
    fn passed(limit: &str, step: u64, end: u64) -> Vec<u64> {
        let limit: Limit = limit.parse().expect("a limit");
        assert_eq!(limit.to_string().parse(), Ok(limit));
        let mut counters = Counters::new(&[limit], Counters::default());
        let mut passed = Vec::new();
        for now in (0..end).step_by(usize::try_from(step).expect("small")) {
            if counters.full(at(now), 1).is_none() {
                counters.take(at(now), 1);
                passed.push(now);
            }
        }
        passed
    }

    #[test]
    fn each_kind_counts_in_its_way() {
        // Ten at 0, 10, 20 … 90 ms: then a sliding window waits for the first to leave.
        let within = |passed: &[u64], from: u64, to: u64| passed.iter().filter(|t| (from..to).contains(*t)).count();
        let sliding = passed("10/s", 10, 3000);
        assert_eq!((sliding.len(), within(&sliding, 0, 1000), within(&sliding, 500, 1500)), (30, 10, 10));
        let fixed = passed("10/s@fixed", 100, 3000);
        assert_eq!((fixed.len(), within(&fixed, 0, 1000)), (30, 10));
        let mut counters = Counters::new(&["10/s@fixed".parse().expect("a limit")], Counters::default());
        for now in [999; 10].into_iter().chain([1000; 10]) {
            assert_eq!(counters.full(at(now), 1), None, "around an edge twice as many pass");
            counters.take(at(now), 1);
        }
        assert_eq!(counters.full(at(1999), 1), Some(at(1000)));
        // A bucket gives all it has, then one each 100 ms.
        let bucket = passed("10/s@bucket", 10, 3000);
        assert_eq!((within(&bucket, 0, 100), within(&bucket, 1000, 2000), within(&bucket, 2000, 3000)), (10, 10, 10));
    }

    #[test]
    fn a_limit_that_changes_keeps_what_was_seen_and_one_of_another_length_begins_anew() {
        let limits = |text: &str| [text.parse::<Limit>().expect("a limit")];
        for kind in ["", "@fixed", "@bucket"] {
            let mut counters = Counters::new(&limits(&format!("2/m{kind}")), Counters::default());
            counters.take(at(1), 2);
            assert!(counters.full(at(2), 1).is_some() && !counters.is_idle(at(2)));
            let mut counters = Counters::new(&limits(&format!("2/m{kind}")), counters);
            assert!(counters.full(at(3), 1).is_some(), "{kind}");
            let mut counters = Counters::new(&limits(&format!("2/s{kind}")), counters);
            assert!(counters.full(at(4), 2).is_none() && counters.is_idle(at(4)), "{kind}");
        }
    }

    proptest! {
        /// No aligned window has more than its count, and no stretch of time more than a bucket holds and gets.
        #[test]
        fn what_passes_never_exceeds_a_limit_and_what_fits_passes(
            count in 1u32..30, steps in prop::collection::vec((0u64..400, 1u64..4), 1..200)
        ) {
            let limit = |kind: &str| format!("{count}/s{kind}").parse::<Limit>().expect("a limit");
            let mut fixed = Counters::new(&[limit("@fixed")], Counters::default());
            let mut bucket = Counters::new(&[limit("@bucket")], Counters::default());
            let (mut now, mut in_fixed, mut in_bucket) = (0, Vec::<(u64, u64)>::new(), Vec::<(u64, u64)>::new());
            let most = u64::from(count);
            for (step, n) in steps {
                now += step;
                let here: u64 = in_fixed.iter().filter(|(t, _)| t / 1000 == now / 1000).map(|(_, n)| n).sum();
                let fits = here + n <= most;
                prop_assert_eq!(fixed.full(at(now), n).is_none(), fits);
                if fits {
                    fixed.take(at(now), n);
                    in_fixed.push((now, n));
                }
                if bucket.full(at(now), n).is_none() {
                    bucket.take(at(now), n);
                    in_bucket.push((now, n));
                    for (from, _) in &in_bucket {
                        let passed: u64 = in_bucket.iter().filter(|(t, _)| t >= from).map(|(_, n)| n).sum();
                        prop_assert!(passed * 1000 <= most * 1000 + (now - from) * most + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["10/s@", "10/s@sometimes", "@fixed", "0/s@fixed"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
