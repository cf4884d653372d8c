//! What was seen since refusals of a kind began: how many were refused and passed, who was, and which simpler
//! explanations that leaves. Pure.

use super::evidence::{MEMORY, Party, SHARE};
use crate::clock::Timestamp;

/// Distinct witnesses that are kept.
const WITNESSES: usize = 8;
/// So many standard errors a share may be below what was seen.
const ERRORS: f64 = 1.5;
/// So many who were not refused before tell the share; with fewer all do.
const FRESH: f64 = 12.0;
/// Who is what a refusal is about is refused again so often. Natural logarithm of how much likelier that has to be
/// than that they are refused as often as all others, and how many they have to be; of the share of others no less
/// than this is believed.
const STAYS: f64 = 0.9;
const SURE: f64 = 6.9;
const STAY: usize = 3;
const OTHERS_LEAST: f64 = 0.05;

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
    /// Refused and passed of those who were refused before by the same kind.
    before: [f64; 2],
    /// Refused for something else, of the others.
    other: f64,
}

impl Counts {
    /// `before`: refused before, by the same kind.
    pub(super) fn pass(&mut self, again: bool, before: bool) {
        self.passed[usize::from(again)] += 1.0;
        self.before[1] += f64::from(u8::from(before));
    }

    pub(super) fn refuse(&mut self, again: bool, before: bool) {
        self.refused[usize::from(again)] += 1.0;
        self.before[0] += f64::from(u8::from(before));
    }

    pub(super) fn halve(&mut self) {
        let all = self.refused.iter_mut().chain(&mut self.passed).chain(&mut self.before);
        all.for_each(|n| *n /= 2.0);
        self.other /= 2.0;
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
        let (refused, attempts) = self.telling();
        let later = (attempts - 1.0).max(1.0);
        let share = ((refused - 1.0) / later).clamp(0.0, 1.0);
        let error = (share * (1.0 - share) / later).sqrt();
        (refused / attempts.max(1.0), share - ERRORS * error)
    }

    /// What is refused of how many. Those who were refused before come when the retry schedule says so, and are
    /// refused again where it is about them: what is refused of all rises with them and falls without. What was
    /// refused for something else was not refused for this: were it left out, the share would fall as soon as
    /// that ends.
    fn telling(&self) -> (f64, f64) {
        let (refused, fresh) = (self.refused() - self.before[0], self.attempts() - self.before.iter().sum::<f64>());
        let (refused, attempts) = if fresh >= FRESH { (refused, fresh) } else { (self.refused(), self.attempts()) };
        (refused, attempts + self.other)
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
    again: Again,
    /// Refused since anything passed.
    row: u32,
}

/// Those who were refused before by the same kind, where others pass meanwhile: a refusal counts that stands between
/// two that passed of those who were not. Else a window that is full when they come would look like this.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Again {
    refused: f64,
    passed: f64,
    who: Few<WITNESSES>,
    /// Others pass; and one that was refused waits for the next of them.
    pass: bool,
    waits: Option<u64>,
}

impl Again {
    fn pass(&mut self, before: bool) {
        if before {
            self.passed += 1.0;
            return;
        }
        self.pass = true;
        if let Some(who) = self.waits.take() {
            self.refused += 1.0;
            self.who.add(who);
        }
    }

    fn refuse(&mut self, who: u64, before: bool) {
        if before && self.pass {
            self.waits = Some(who);
        } else if !before {
            (self.pass, self.waits) = (false, None);
        }
    }

    /// By how much it is likelier (as a logarithm) that those who are refused are what it is about than that they
    /// are refused as all others, of whom this share is.
    fn speaks(&self, share: f64) -> f64 {
        let share = share.clamp(OTHERS_LEAST, STAYS);
        self.refused * (STAYS / share).ln() + self.passed * ((1.0 - STAYS) / (1.0 - share)).ln()
    }
}

impl Run {
    /// `before`: refused before, by the same kind. True if what is older counts half from now on.
    pub(super) fn pass(&mut self, party: Party, before: bool) -> bool {
        self.counts.pass(party.again, before);
        self.again.pass(before);
        if self.senders.first() != Some(party.sender) {
            self.others += 1.0;
        }
        self.fade()
    }

    /// The same for a refusal.
    pub(super) fn refuse(&mut self, party: Party, before: bool, now: Timestamp) -> bool {
        if self.counts.refused() == 0.0 {
            self.began = now;
        }
        self.counts.refuse(party.again, before);
        self.again.refuse(party.recipient, before);
        self.row = self.row.saturating_add(1);
        self.recipients.add(party.recipient);
        self.senders.add(party.sender);
        self.messages.add(party.message);
        self.fade()
    }

    /// The same for a refusal of another kind.
    pub(super) fn refuse_other(&mut self, before: bool) -> bool {
        if !before {
            self.counts.other += 1.0;
            self.again.refuse(0, false);
        }
        self.fade()
    }

    /// Something passed, of this kind's or not.
    pub(super) fn end_row(&mut self) {
        self.row = 0;
    }

    /// Counting begins anew.
    pub(super) fn restart(&mut self) {
        *self = Run { row: self.row, ..Run::default() };
    }

    /// Whether at least half of so many refusals in a row are of this kind.
    pub(super) fn is_most_of(&self, row: u32) -> bool {
        self.row >= row.div_ceil(2)
    }

    /// Whether those who are refused are refused again while others pass; `doubt`: surer, against what was found.
    pub(super) fn is_about_them(&self, doubt: bool) -> bool {
        let sure = if doubt { 2.0 * SURE } else { SURE };
        self.again.who.count() >= STAY && self.again.speaks(self.counts.share().0) >= sure
    }

    fn fade(&mut self) -> bool {
        let fades = self.counts.attempts() + self.counts.other > MEMORY;
        if fades {
            self.counts.halve();
            self.others /= 2.0;
            (self.again.refused, self.again.passed) = (self.again.refused / 2.0, self.again.passed / 2.0);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn party(n: u64) -> Party {
        Party { recipient: n, sender: 7, message: n, size: 1000, again: false }
    }

    /// Attempts after which it is found that those who were refused are what it is about, where they are one of
    /// ten and `theirs` of them is refused, and of all others `others`.
    fn about_them(theirs: f64, others: f64, seed: u64, doubt: bool) -> Option<u64> {
        let (mut random, mut run) = (fastrand::Rng::with_seed(seed), Run::default());
        run.refuse(party(0), false, Timestamp(0));
        (1..3000).find(|n| {
            let before = random.u8(..10) == 0;
            if random.f64() < if before { theirs } else { others } {
                run.refuse(party(*n), before, Timestamp(0));
            } else {
                run.pass(party(*n), before);
            }
            run.is_about_them(doubt)
        })
    }

    #[test]
    fn who_is_refused_again_while_others_pass_is_what_it_is_about() {
        for others in [0.01, 0.03, 0.1, 0.3] {
            // Where many others are refused, too, few stand alone: to be surer takes more than are remembered.
            let doubt = others < 0.3;
            let missed = (0..200).filter(|seed| about_them(1.0, others, *seed, doubt).is_none()).count();
            assert_eq!(missed, 0, "{others}");
            // As often as others, or less: then it is chance.
            for theirs in [0.0, others / 2.0, others] {
                let by_chance = (0..200).filter(|seed| about_them(theirs, others, *seed, false).is_some()).count();
                assert!(by_chance <= 2, "{theirs} {others}: {by_chance}");
            }
        }
    }

    /// A window lets all through and then nobody: whoever comes again while it is full is refused, and that says nothing.
    #[test]
    fn a_full_window_is_not_about_those_who_come_while_it_is_full() {
        let mut run = Run::default();
        run.refuse(party(0), false, Timestamp(0));
        let mut n = 0;
        for _ in 0..50 {
            (0..80).for_each(|_| _ = run.pass(party(0), false));
            for at in 0..12 {
                n += 1;
                run.refuse(party(n), at % 2 == 1, Timestamp(0));
                assert!(!run.is_about_them(false));
            }
        }
    }

    proptest::proptest! {
        /// What comes again, and how often, does not change how much is refused; what is refused for something else is
        /// not refused for this.
        #[test]
        fn retries_do_not_change_the_share(refused in 1u32..20, passed in 20u32..100, again in 0u32..60, other in 0u32..60) {
            let mut counts = Counts::default();
            (0..refused).for_each(|_| counts.refuse(false, false));
            (0..passed).for_each(|_| counts.pass(false, false));
            let without = counts.share();
            (0..again).for_each(|_| counts.refuse(true, true));
            proptest::prop_assert_eq!(counts.share(), without);
            counts.other = f64::from(other);
            proptest::prop_assert!(counts.share().0 <= without.0);
        }
    }
}
