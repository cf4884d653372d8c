//! What was seen since refusals of a kind began: how many were refused and passed, who was, and which simpler
//! explanations that leaves. Pure.

use super::evidence::{MEMORY, Party, SHARE};
use crate::clock::Timestamp;

/// Distinct witnesses that are kept.
const WITNESSES: usize = 8;
/// So many standard errors a share may be below what was seen.
const ERRORS: f64 = 1.5;

/// At most `N` distinct values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Few<const N: usize> {
    of: [u64; N],
    count: usize,
}

impl<const N: usize> Default for Few<N> {
    fn default() -> Few<N> {
        Few { of: [0; N], count: 0 }
    }
}

impl<const N: usize> Few<N> {
    fn known(&self) -> &[u64] {
        self.of.get(..self.count).unwrap_or_default()
    }

    pub(super) fn add(&mut self, value: u64) {
        if !self.known().contains(&value)
            && let Some(place) = self.of.get_mut(self.count)
        {
            *place = value;
            self.count += 1;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn is_full(&self) -> bool {
        self.count == N
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.known().first().copied()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.known().iter().copied()
    }
}

/// Attempts; first ones and later ones apart. What is older counts less.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    refused: [f64; 2],
    passed: [f64; 2],
}

impl Counts {
    pub(super) fn pass(&mut self, again: bool) {
        self.passed[usize::from(again)] += 1.0;
    }

    pub(super) fn refuse(&mut self, again: bool) {
        self.refused[usize::from(again)] += 1.0;
    }

    pub(super) fn halve(&mut self) {
        self.refused.iter_mut().chain(&mut self.passed).for_each(|n| *n /= 2.0);
    }

    pub(super) fn refused(&self) -> f64 {
        self.refused.iter().sum()
    }

    pub(super) fn has_passed(&self) -> bool {
        self.passed.iter().any(|n| *n > 0.0)
    }

    pub(super) fn attempts(&self) -> f64 {
        self.refused() + self.passed.iter().sum::<f64>()
    }

    /// The share that is refused, and what it is at least: counting begins with a refusal, which says nothing of
    /// the share, and is looked at when there were many.
    pub(super) fn share(&self) -> (f64, f64) {
        let later = (self.attempts() - 1.0).max(1.0);
        let share = ((self.refused() - 1.0) / later).clamp(0.0, 1.0);
        let error = (share * (1.0 - share) / later).sqrt();
        (self.refused() / self.attempts().max(1.0), share - ERRORS * error)
    }

    fn part(&self, again: usize) -> f64 {
        self.refused[again] / (self.refused[again] + self.passed[again]).max(1.0)
    }

    /// First attempts are refused while later ones pass (RFC 6647).
    pub(super) fn is_greylisting(&self) -> bool {
        let later = self.refused[1] + self.passed[1];
        let [first, again] = [self.part(0), self.part(1)];
        later >= (3.0 / first.max(SHARE)).min(30.0) && again * 4.0 < first
    }
}

/// What was seen since refusals of a kind began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Run {
    pub(super) began: Timestamp,
    pub(super) counts: Counts,
    /// Passed, of other senders than the first that was refused.
    pub(super) others: f64,
    pub(super) recipients: Few<WITNESSES>,
    pub(super) senders: Few<WITNESSES>,
    pub(super) messages: Few<WITNESSES>,
}

impl Run {
    /// True if what is older counts half from now on.
    pub(super) fn pass(&mut self, party: Party) -> bool {
        self.counts.pass(party.again);
        if self.senders.first() != Some(party.sender) {
            self.others += 1.0;
        }
        self.fade()
    }

    /// The same for a refusal.
    pub(super) fn refuse(&mut self, party: Party, now: Timestamp) -> bool {
        if self.counts.refused() == 0.0 {
            self.began = now;
        }
        self.counts.refuse(party.again);
        self.recipients.add(party.recipient);
        self.senders.add(party.sender);
        self.messages.add(party.message);
        self.fade()
    }

    fn fade(&mut self) -> bool {
        let fades = self.counts.attempts() > MEMORY;
        if fades {
            self.counts.halve();
            self.others /= 2.0;
            // Witnesses of long ago are none.
            (self.recipients, self.messages) = Default::default();
        }
        fades
    }

    /// Only mail of one sender is refused, and of others more passed than would by chance.
    pub(super) fn is_of_one_sender(&self) -> bool {
        self.senders.count() == 1 && self.others >= (3.0 / self.counts.share().0.max(SHARE)).max(8.0)
    }

    /// Mail of more than one sender was tried.
    pub(super) fn has_several_senders(&self) -> bool {
        self.senders.count() > 1 || self.others > 0.0
    }
}
