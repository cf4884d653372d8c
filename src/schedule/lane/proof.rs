//! What shows that a host will answer a message: that it answered mail with something of it lately, which no mail has
//! that it leaves without an answer.
//!
//! A sender whose mail hangs for some mailboxes, or a domain with such mailboxes, proves nothing while it does: what is
//! left is the mailbox, of which far more are remembered than of anything else. Where mail hung that was proven when it
//! left (a host that loses a part of its mailboxes), only what was answered after that began is proof.
//!
//! Bounded: [`HUNG`] transactions that had no answer and twice [`MAILBOXES`] mailboxes, those longest ago forgotten
//! first. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::answered::Answered;
use crate::mail::{FeatureKeys, QueueId};

/// Transactions without an answer, and mailboxes of a generation. A map of so many has 512 places.
const HUNG: usize = 32;
const MAILBOXES: usize = 448;
/// What was answered, or was not, longer ago shows nothing.
pub(super) const LATELY: Duration = Duration::from_secs(600);

/// A transaction that had no answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hung {
    pub(super) message: QueueId,
    pub(super) keys: FeatureKeys,
    pub(super) began: Instant,
    /// It was proven then.
    pub(super) proven: bool,
}

/// Those of the last ten minutes.
#[derive(Clone, Debug, Default)]
pub(super) struct LatelyHung {
    transactions: VecDeque<(Hung, Instant)>,
}

impl LatelyHung {
    pub(super) fn note(&mut self, hung: Hung, now: Instant) {
        self.forget(hung.message);
        if self.transactions.len() >= HUNG {
            self.transactions.pop_front();
        }
        self.transactions.push_back((hung, now));
    }

    /// It was answered.
    pub(super) fn forget(&mut self, message: QueueId) {
        self.transactions.retain(|(hung, _)| hung.message != message);
    }

    pub(super) fn all(&self, now: Instant) -> impl Iterator<Item = Hung> + Clone {
        let lately = move |(_, at): &&(Hung, Instant)| now.saturating_duration_since(*at) < LATELY;
        self.transactions.iter().filter(lately).map(|(hung, _)| *hung)
    }
}

/// Mailboxes that a host answered, and when. They are in two generations, of which the older one goes as a whole.
#[derive(Clone, Debug)]
pub(super) struct Mailboxes {
    young: HashMap<u32, u32>,
    old: HashMap<u32, u32>,
    since: Instant,
}

impl Default for Mailboxes {
    fn default() -> Mailboxes {
        Mailboxes { young: HashMap::new(), old: HashMap::new(), since: Instant::now() }
    }
}

impl Mailboxes {
    /// Half of a key is enough: one in millions is taken for another.
    fn short(key: u64) -> u32 {
        (key >> 32) as u32
    }

    /// In seconds.
    fn age(&self, at: Instant) -> u32 {
        u32::try_from(at.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }

    /// It was answered; true: that was not known.
    pub(super) fn note(&mut self, mailbox: u64, now: Instant) -> bool {
        let new = !self.knows_since(mailbox, None);
        let (short, age) = (Mailboxes::short(mailbox), self.age(now));
        if self.young.len() >= MAILBOXES && !self.young.contains_key(&short) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(short, age);
        new
    }

    /// Whether it was answered since then, or ever.
    pub(super) fn knows_since(&self, mailbox: u64, since: Option<Instant>) -> bool {
        let short = Mailboxes::short(mailbox);
        let at = self.young.get(&short).or_else(|| self.old.get(&short));
        at.is_some_and(|at| since.is_none_or(|since| *at >= self.age(since)))
    }
}

/// What proves mail at one moment.
#[derive(Debug)]
pub(super) struct Proof<'a> {
    answered: &'a Answered,
    /// It has to be so new.
    since: Instant,
    /// Mail hangs that has one of these, in order.
    hang: Vec<u64>,
}

impl<'a> Proof<'a> {
    /// Where these had no answer.
    pub(super) fn of(answered: &'a Answered, hung: impl Iterator<Item = Hung> + Clone, now: Instant) -> Proof<'a> {
        let lately = now.checked_sub(LATELY).unwrap_or(now);
        let since = hung.clone().filter(|hung| hung.proven).map(|hung| hung.began).min();
        // What all of it has explains it, if nothing of that was answered since.
        let open = |hung: Hung| hung.keys.without_size().without(|key| answered.knows_since(key, hung.began));
        let common = hung.clone().map(open).reduce(FeatureKeys::common).unwrap_or_default();
        let all = || hung.clone().flat_map(|hung| hung.keys.without_size().iter());
        let mut hang: Vec<u64> = if common.is_empty() { all().collect() } else { common.iter().collect() };
        hang.sort_unstable();
        hang.dedup();
        Proof { answered, since: since.map_or(lately, |since| since.max(lately)), hang }
    }

    /// Whether nothing hangs: then all that is known is proof.
    pub(super) fn is_of_all(&self) -> bool {
        self.hang.is_empty()
    }

    /// Whether mail hangs that has anything in common with such mail but a domain that all mail has.
    pub(super) fn is_like(&self, keys: FeatureKeys) -> bool {
        let telling = keys.without_size().without(|key| Some(key) == self.answered.only_domain());
        telling.iter().any(|key| self.hang.binary_search(&key).is_ok())
    }

    /// Whether such mail is proven. Who sends it has to be known as well: a mailbox says nothing of a stranger.
    pub(super) fn has(&self, keys: FeatureKeys) -> bool {
        let telling = keys.without_size().without(|key| self.hang.binary_search(&key).is_ok());
        let mailbox = || telling.recipient().is_some_and(|at| self.answered.knows_mailbox(at, Some(self.since)));
        self.knows(keys) && (mailbox() || telling.iter().any(|key| self.answered.knows_since(key, self.since)))
    }

    /// Whether the host has answered mail of its sender lately, or of his domain, be it that other mail of his hangs.
    pub(super) fn knows(&self, keys: FeatureKeys) -> bool {
        keys.of_sender().iter().any(|key| self.answered.knows_since(key, self.since))
    }
}
