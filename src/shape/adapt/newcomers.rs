//! Learning that a server which greets every connection serves only so many: what is asked of a further one is
//! refused, whatever mail that is, while the connections that were there before go on being served.
//!
//! A refusal of mail on a connection that has carried nothing (a *newcomer*) may be about that mail, about the pace, or
//! about nothing. So it counts only with what shows that it is none of these:
//!
//! - mail of the same domain of senders (past MAIL: also to the same domain of recipients) was taken meanwhile by a
//!   connection that had carried something, or it has nothing in common with any other that counts;
//! - between two that count, one of the connections that had carried something took mail: a pace or a bad moment
//!   would have hit them, too;
//! - no newcomer was taken that made them more than worked at any of the refusals, and had begun after those;
//! - it would be chance that newcomers have all refusals (Fisher's exact test, [`CHANCE`]): those of connections that
//!   had carried something count against it, and are half as many at most.
//!
//! Bounded: [`WITNESSES`] refusals and [`SERVED`] messages that were taken are kept, and only while there is a row.
//! Pure.

use std::time::Duration;

use super::crowd::Doubt;
use crate::clock::Timestamp;
use crate::mail::FeatureKeys;

/// Refusals that are kept, and mail that was taken meanwhile.
const WITNESSES: usize = 16;
const SERVED: usize = 32;
/// So many must count, of so many connections; where the server speaks of connections, fewer.
const LEAST: usize = 6;
const LEAST_SAID: usize = 4;
const DIFFERENT: usize = 3;
/// And it would happen by chance less often.
const CHANCE: f64 = 1e-6;
const CHANCE_SAID: f64 = 1e-4;
/// Refusals further apart than this have nothing to do with each other.
const APART: Duration = Duration::from_secs(60);
/// From so many that were confirmed on, further connections are opened one at a time, so long after the last one; for
/// so long only if none is tried any more.
const DOUBT: usize = 2;
const GAP: Duration = Duration::from_millis(250);
const DOUBT_MOST: Duration = Duration::from_secs(2);

/// A refusal of mail on a connection that has carried nothing.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Newcomer {
    /// That of the connection, in the order in which they began.
    pub number: u64,
    /// Connections of the lane that have carried something and are open.
    pub working: u32,
    /// The mail, as far as the host has heard of it.
    pub mail: FeatureKeys,
    /// In words about connections.
    pub said: bool,
}

/// What is known of newcomers; nothing, unless one was refused lately.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Newcomers {
    row: Option<Box<Row>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Row {
    /// Those after which mail was taken by another connection, the latest first, and one that waits for that.
    witnesses: [Option<Newcomer>; WITNESSES],
    pending: Option<Newcomer>,
    /// What was taken meanwhile by connections that had carried something.
    served: [FeatureKeys; SERVED],
    taken: u32,
    /// What was refused on these.
    refused: u32,
    /// Connections that worked at most at one of the refusals.
    most: u32,
    last: Timestamp,
}

impl Row {
    fn confirmed(&self) -> impl Iterator<Item = &Newcomer> {
        self.witnesses.iter().flatten()
    }

    /// Whether its mail is not what the server has against it.
    fn is_cleared(&self, one: &Newcomer) -> bool {
        let known = || self.served.iter().filter(|served| !served.is_empty());
        let sender = known().any(|served| served.sender_domain() == one.mail.sender_domain());
        let to = one.mail.recipient_domain();
        sender && to.is_none_or(|to| known().any(|served| served.recipient_domain() == Some(to)))
    }

    /// Those that count.
    fn count(&self) -> (usize, usize) {
        let shares = |one: &Newcomer, other: &Newcomer| !one.mail.telling().common(other.mail.telling()).is_empty();
        let mut counted: Vec<&Newcomer> = Vec::new();
        for one in self.confirmed() {
            if self.is_cleared(one) || !counted.iter().any(|other| shares(one, other)) {
                counted.push(one);
            }
        }
        let mut numbers: Vec<u64> = counted.iter().map(|one| one.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        (counted.len(), numbers.len())
    }

    fn is_believed(&self) -> bool {
        let said = self.confirmed().all(|one| one.said);
        let (least, chance) = if said { (LEAST_SAID, CHANCE_SAID) } else { (LEAST, CHANCE) };
        let (counted, different) = self.count();
        if counted < least || different < DIFFERENT || 2 * self.refused as usize > counted {
            return false;
        }
        // That of all that was asked, all the newcomers' are among what was refused.
        let (of_theirs, refused) = (counted as f64, f64::from(self.refused));
        let all = of_theirs + refused + f64::from(self.taken);
        let share = |n: usize| (of_theirs + refused - n as f64) / (all - n as f64);
        (0..counted).map(share).product::<f64>() < chance
    }
}

impl Newcomers {
    /// One was refused. `Some`: no more than so many are served, and the number of the first that was too many.
    pub(super) fn refused(&mut self, one: Newcomer, now: Timestamp) -> Option<(u32, u64)> {
        self.advance(now);
        let row = self.row.get_or_insert_default();
        row.pending = row.pending.or(Some(one));
        (row.most, row.last) = (row.most.max(one.working), now);
        if !row.is_believed() {
            return None;
        }
        let first = row.confirmed().map(|one| one.number).min().unwrap_or(one.number);
        let most = row.most;
        self.row = None;
        Some((most, first))
    }

    /// A connection that had carried something took such mail.
    pub(super) fn served(&mut self, mail: FeatureKeys) {
        let Some(row) = &mut self.row else { return };
        row.taken = row.taken.saturating_add(1);
        row.served.rotate_right(1);
        row.served[0] = mail;
        if let Some(one) = row.pending.take() {
            row.witnesses.rotate_right(1);
            row.witnesses[0] = Some(one);
        }
    }

    /// A newcomer of that number took its first mail; `working` work with it.
    pub(super) fn taken(&mut self, number: u64, working: u32) {
        let Some(row) = &mut self.row else { return };
        // In the place of one that left by itself it says nothing.
        if working <= row.most && row.refused == 0 {
            return;
        }
        let is_before = |one: &Newcomer| number < one.number;
        row.pending = row.pending.filter(is_before);
        row.witnesses.iter_mut().for_each(|one| *one = one.filter(is_before));
        if row.pending.is_none() && row.confirmed().next().is_none() {
            self.row = None;
        }
    }

    /// One that had carried something was refused mail, or ended at that.
    pub(super) fn refused_at_work(&mut self) {
        if let Some(row) = &mut self.row {
            row.refused = row.refused.saturating_add(1);
        }
    }

    /// Lets time pass.
    pub(super) fn advance(&mut self, now: Timestamp) {
        self.row.take_if(|row| now.since(row.last) >= APART);
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        if let Some(row) = &mut self.row {
            row.last = row.last.before(back);
        }
    }

    /// Whether enough is known to open further ones one at a time.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.count().0 >= DOUBT)
    }

    /// Whether it is to be feared that further ones are refused.
    pub(super) fn doubt(&self, now: Timestamp) -> Option<Doubt> {
        let since = now.since(self.row.as_ref()?.last);
        let lasts = since < DOUBT_MOST && self.is_in_doubt();
        let (gap, left) = (GAP.saturating_sub(since), DOUBT_MOST.saturating_sub(since));
        lasts.then_some(Doubt { gap, lasts: left, open: 0 })
    }
}

#[cfg(test)]
#[path = "newcomers_tests.rs"]
mod tests;
