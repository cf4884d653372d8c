//! What mail a host has answered lately, by its features, and how long that takes as a rule: what silence is
//! measured by.
//!
//! What is usual is learned from mail that differs: for each feature (senders, their domains, …) the median over those
//! that were answered lately, and of these medians the least. So one kind of mail that a host is slow with, however
//! much there is of it, makes slowness usual only where the host answers nothing else. An answer that came far later
//! than usual counts as one, but it is no sign that mail of its kind is answered like other mail.
//!
//! Bounded: [`KNOWN`] senders, domains of senders, recipients, domains of recipients and sizes are remembered, each,
//! those not seen for longest forgotten first. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::proof::Mailboxes;
use crate::mail::{FEATURE_KINDS, FeatureKeys, RECIPIENT_DOMAIN};

/// Remembered of each kind.
const KNOWN: usize = 64;
/// A host that takes so many times as long as it does as a rule, and so long at least, is slow.
const TIMES: u32 = 10;
const LEAST: Duration = Duration::from_secs(3);
/// It is late after so many times, and so long.
const LATE_TIMES: u32 = 4;
const LATE_LEAST: Duration = Duration::from_millis(250);
/// What was answered longer ago says nothing of what is usual.
const LATELY: Duration = Duration::from_secs(600);
/// After so many answers it is reckoned anew what is usual: each time would cost more than it tells.
const EACH: u64 = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered {
    kinds: [VecDeque<Known>; FEATURE_KINDS],
    /// Answers since the lane began.
    times: u64,
    /// How long a transaction takes.
    usual: Duration,
    /// When one last did not take much longer.
    last: Option<Instant>,
    /// The longest that one took, and when, in the last minutes.
    longest: Option<(Duration, Instant)>,
    /// The recipients of those that did not.
    mailboxes: Mailboxes,
    /// When one of those last was new, and when mail of a sender was who was new as well.
    new_mailbox: Option<Instant>,
    new_sender: Option<Instant>,
}

/// Something that mail was answered of.
#[derive(Clone, Debug)]
struct Known {
    key: u64,
    at: Instant,
    /// When it was last answered as soon as other mail is.
    quick: Option<Instant>,
    /// How long it takes.
    took: Duration,
}

impl Answered {
    /// A transaction was answered after it `took` so long.
    pub(super) fn note(&mut self, mail: FeatureKeys, took: Duration, now: Instant) {
        let stranger = !self.knows(mail.sender()) && !self.knows(mail.sender_domain());
        let quick = (self.times == 0 || took < self.slow()).then_some(now);
        for (known, key) in self.kinds.iter_mut().zip(mail.by_kind()).filter(|(_, key)| *key > 0) {
            let before = known.iter().rposition(|one| one.key == key).and_then(|at| known.remove(at));
            if known.len() >= KNOWN {
                known.pop_front();
            }
            known.push_back(match before {
                Some(one) => Known { key, at: now, quick: quick.or(one.quick), took: (one.took + took) / 2 },
                None => Known { key, at: now, quick, took },
            });
        }
        if quick.is_some() && mail.recipient().is_none_or(|mailbox| self.mailboxes.note(mailbox, now)) {
            self.new_mailbox = Some(now);
            self.new_sender = if stranger { Some(now) } else { self.new_sender };
        }
        if took >= self.longest_lately(now) {
            self.longest = Some((took, now));
        }
        self.times = self.times.saturating_add(1);
        self.last = quick.or(self.last);
        if self.times < EACH || self.times.is_multiple_of(EACH) {
            self.usual = self.kinds.iter().filter_map(|kind| median(kind, now)).min().unwrap_or(took);
        }
    }

    /// How often anything was answered.
    pub(super) fn times(&self) -> u64 {
        self.times
    }

    /// Whether anything was since then, and not late.
    pub(super) fn any_since(&self, since: Instant) -> bool {
        self.last.is_some_and(|last| last > since)
    }

    /// How long a transaction takes as a rule.
    pub(super) fn usual(&self) -> Duration {
        self.usual
    }

    /// From when on silence is more than a rule.
    pub(super) fn slow(&self) -> Duration {
        (self.usual * TIMES).max(LEAST)
    }

    /// From when on it is worth keeping a connection for other mail.
    pub(super) fn late(&self) -> Duration {
        (self.usual * LATE_TIMES).max(LATE_LEAST)
    }

    /// How long one took at most in the last minutes: what waits for less is answered yet, as a rule.
    pub(super) fn longest_lately(&self, now: Instant) -> Duration {
        let lately = self.longest.filter(|(_, at)| now.saturating_duration_since(*at) < LATELY);
        lately.map_or(Duration::ZERO, |(took, _)| took)
    }

    /// Whether mail of this domain, or address, was ever answered.
    pub(super) fn knows(&self, key: u64) -> bool {
        self.known(key).is_some()
    }

    /// Whether it was since then, and not late.
    pub(super) fn knows_since(&self, key: u64, since: Instant) -> bool {
        self.known(key).and_then(|known| known.quick).is_some_and(|at| at > since)
    }

    /// The domain that all recipients have had whose mail was answered: it tells nothing.
    pub(super) fn only_domain(&self) -> Option<u64> {
        let domains = &self.kinds[RECIPIENT_DOMAIN];
        domains.front().filter(|_| domains.len() == 1 && self.times >= EACH).map(|known| known.key)
    }

    /// Whether mail to this mailbox was, since then or ever, and not late.
    pub(super) fn knows_mailbox(&self, mailbox: u64, since: Option<Instant>) -> bool {
        self.mailboxes.knows_since(mailbox, since)
    }

    /// Whether mail to a mailbox that was new was since then, and not late.
    pub(super) fn new_mailbox_since(&self, since: Instant) -> bool {
        self.new_mailbox.is_some_and(|at| at > since)
    }

    /// The same of a sender who was new as well.
    pub(super) fn new_sender_since(&self, since: Instant) -> bool {
        self.new_sender.is_some_and(|at| at > since)
    }

    fn known(&self, key: u64) -> Option<&Known> {
        // No feature has the number of one of another kind.
        self.kinds.iter().find_map(|kind| kind.iter().rev().find(|known| known.key == key))
    }
}

/// How long half of those take that were answered lately.
fn median(kind: &VecDeque<Known>, now: Instant) -> Option<Duration> {
    let lately = kind.iter().filter(|known| now.saturating_duration_since(known.at) < LATELY);
    let mut took: Vec<Duration> = lately.map(|known| known.took).collect();
    let middle = took.len().checked_sub(1)? / 2;
    Some(*took.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Features;

    const SECOND: Duration = Duration::from_secs(1);

    fn of(sender: &str) -> FeatureKeys {
        Features::from(sender).keys()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_slow_is_what_takes_far_longer_than_usual() {
        let (mut answered, began) = (Answered::default(), Instant::now());
        assert_eq!(answered.slow(), LEAST);
        let mail = |n: u32| format!("s@{n}.example");
        for n in 0..1000 {
            answered.note(of(&mail(n)), 2 * SECOND, began);
        }
        assert!(answered.kinds.iter().all(|kind| kind.len() <= KNOWN));
        assert_eq!((answered.times(), answered.slow(), answered.late()), (1000, 20 * SECOND, 8 * SECOND));
        let keys = of("s@999.example");
        assert!(answered.knows(keys.sender_domain()) && answered.knows(keys.sender()));
        assert!(!answered.knows_since(keys.sender(), began));
        assert!(!answered.knows(of("s@1.example").sender_domain()));
    }

    /// Three senders whom it answers at once, and one whom it answers after 20 s, ten times as often.
    #[tokio::test(start_paused = true)]
    async fn what_is_usual_is_what_others_have_to_wait() {
        let mut answered = Answered::default();
        let quick = Duration::from_millis(20);
        for n in 0..100 {
            answered.note(of(&format!("shop@{}.example", n % 3)), quick, Instant::now());
            (0..10).for_each(|_| answered.note(of("one@slow.example"), 20 * SECOND, Instant::now()));
            tokio::time::advance(SECOND).await;
        }
        assert_eq!((answered.slow(), answered.late()), (LEAST, LATE_LEAST));
        let (long_ago, slow) = (Instant::now() - 100 * SECOND, of("one@slow.example").sender());
        assert!(answered.knows(slow) && !answered.knows_since(slow, long_ago), "an answer that is late clears nothing");
        assert!(answered.knows_since(of("shop@0.example").sender(), long_ago));
        // When all of it is, that is how the host is.
        for _ in 0..10 {
            (0..3).for_each(|n| answered.note(of(&format!("shop@{n}.example")), 20 * SECOND, Instant::now()));
        }
        assert!(answered.slow() > 100 * SECOND, "{:?}", answered.slow());
    }
}
