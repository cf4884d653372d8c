//! What mail a host has answered lately, by its features, and how long that takes as a rule: what silence is
//! measured by.
//!
//! Bounded: [`DOMAINS`] domains and sizes and [`ADDRESSES`] senders and recipients are remembered, those first seen
//! longest ago forgotten first. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::mail::FeatureKeys;

/// Domains and sizes remembered.
const DOMAINS: usize = 128;
/// Addresses remembered.
const ADDRESSES: usize = 32;
/// A host that takes so many times as long as it does as a rule, and so long at least, is slow.
const TIMES: u32 = 10;
const LEAST: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Answered {
    domains: VecDeque<(u64, Instant)>,
    addresses: VecDeque<(u64, Instant)>,
    /// Answers since the lane began.
    times: u64,
    /// How long a transaction takes.
    usual: Duration,
    last: Option<Instant>,
}

impl Answered {
    /// A transaction was answered after it `took` so long.
    pub(super) fn note(&mut self, mail: FeatureKeys, took: Duration, now: Instant) {
        let (addresses, others) = mail.addresses_and_others();
        addresses.for_each(|key| push(&mut self.addresses, key, now, ADDRESSES));
        others.for_each(|key| push(&mut self.domains, key, now, DOMAINS));
        self.usual = if self.times == 0 { took } else { (self.usual * 7 + took) / 8 };
        self.times = self.times.saturating_add(1);
        self.last = Some(now);
    }

    /// How often anything was answered.
    pub(super) fn times(&self) -> u64 {
        self.times
    }

    /// Whether anything was since then.
    pub(super) fn any_since(&self, since: Instant) -> bool {
        self.last.is_some_and(|last| last > since)
    }

    /// From when on silence is more than a rule.
    pub(super) fn slow(&self) -> Duration {
        (self.usual * TIMES).max(LEAST)
    }

    /// Whether mail of this domain, or address, was answered.
    pub(super) fn knows(&self, key: u64) -> bool {
        self.last(key).is_some()
    }

    /// Whether it was since then.
    pub(super) fn knows_since(&self, key: u64, since: Instant) -> bool {
        self.last(key).is_some_and(|at| at > since)
    }

    fn last(&self, key: u64) -> Option<Instant> {
        let mut all = self.domains.iter().chain(&self.addresses);
        all.find(|(known, _)| *known == key).map(|(_, at)| *at)
    }
}

fn push(known: &mut VecDeque<(u64, Instant)>, key: u64, now: Instant, most: usize) {
    if let Some((_, at)) = known.iter_mut().find(|(other, _)| *other == key) {
        *at = now;
        return;
    }
    if known.len() >= most {
        known.pop_front();
    }
    known.push_back((key, now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Features;

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_slow_is_what_takes_far_longer_than_usual() {
        let (mut answered, began) = (Answered::default(), Instant::now());
        assert_eq!(answered.slow(), LEAST);
        let mail = |n: u32| format!("s@{n}.example");
        for n in 0..1000 {
            answered.note(Features::from(&*mail(n)).keys(), Duration::from_secs(2), began);
        }
        assert_eq!((answered.domains.len(), answered.addresses.len()), (DOMAINS, ADDRESSES));
        assert_eq!((answered.times(), answered.slow()), (1000, Duration::from_secs(20)));
        let keys = Features::from("s@999.example").keys();
        assert!(answered.knows(keys.sender_domain()) && answered.knows(keys.sender()));
        assert!(!answered.knows_since(keys.sender(), began));
        assert!(!answered.knows(Features::from("s@1.example").keys().sender_domain()));
    }
}
