//! The experiment: slower for a short while, counted in attempts, until it is clear whether fewer are
//! refused. Pure.
//!
//! Two hypotheses stand against each other: the share of refusals stays what it was, or it falls to a
//! quarter. Every attempt weighs for one of them (a sequential probability ratio test, Wald 1945): with a
//! share of 30 % some 16 acceptances in a row decide, with 3 % some 270. A share that only halves decides
//! nothing; [`MOST`] attempts end that, and then a share that is not small has fallen only if that is no chance.

use crate::clock::Timestamp;

/// The share under the hypothesis that it is about the pace, of what it was.
const FALLS: f64 = 0.25;
/// Natural logarithm of how much likelier one hypothesis has to be: a hundred times. Below this share five hundred
/// times that fewer are refused: many a thing that is no matter of pace is refused so rarely, and what was
/// suspected because there were more than usual is followed by fewer.
const SURE: f64 = 4.6;
const SMALL: f64 = 0.05;
const SURE_SMALL: f64 = 6.2;
/// Attempts at most.
const MOST: u32 = 600;
/// At the end a share below this part of the former one has fallen, if it is so many standard deviations below.
const FALLEN: f64 = 0.6;
const DEVIATIONS: f64 = 2.0;
/// How much must speak against a kind that was found to be about the pace before that is undone: more than for
/// a trial, as the search meets a true limit again and again.
const DOUBT: f64 = 2.0 * SURE;
/// A watched pace is judged in blocks of so many attempts; so many blocks in a row speak against it, if
/// at least such a share was refused in each.
const BLOCK: u32 = 40;
const BLOCKS: u32 = 3;
const BAD: f64 = 0.1;
/// So do fewer attempts at such a part of the rate that once helped.
const LOW: f64 = 0.1;
const LOW_LEAST: u32 = 8;
/// And so many, whatever the share was when it was judged, if more than this part is refused there.
const LOW_MANY: u32 = 120;
const LOW_BAD: f64 = 0.065;

/// What a trial has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Go on.
    Open,
    /// The share fell.
    Fewer,
    /// It did not.
    Same,
}

/// A trial under way.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Trial {
    /// The kind of refusal that is tried.
    pub(super) hash: u64,
    /// The share that was refused before.
    pub(super) share: f64,
    /// When it began, and its last attempt.
    pub(super) began: Timestamp,
    pub(super) last: Timestamp,
    /// Attempts at the slower pace, and those refused.
    pub(super) seen: u32,
    pub(super) refused: u32,
    score: f64,
}

impl Trial {
    pub(super) fn of(hash: u64, share: f64, now: Timestamp) -> Trial {
        Trial { hash, share: share.clamp(0.02, 0.95), began: now, last: now, seen: 0, refused: 0, score: 0.0 }
    }

    /// An attempt at the slower pace.
    pub(super) fn note(&mut self, refused: bool, now: Timestamp) -> Found {
        self.seen += 1;
        self.refused += u32::from(refused);
        self.last = now;
        self.score += weight(self.share, refused);
        match self.score {
            score if score >= sure(self.share) => Found::Fewer,
            score if score <= -SURE => Found::Same,
            _ if self.seen < MOST => Found::Open,
            _ if self.has_fallen() => Found::Fewer,
            _ => Found::Same,
        }
    }

    /// What has been found if `share` is refused of others meanwhile. Surer than else: a wrong answer concerns all
    /// senders, and there is another way to find a pace.
    pub(super) fn beside(&self, share: f64) -> Found {
        let share = share.clamp(0.02, 0.95);
        let (refused, passed) = (f64::from(self.refused), f64::from(self.seen - self.refused));
        match refused * weight(share, true) + passed * weight(share, false) {
            score if score >= SURE_SMALL => Found::Fewer,
            score if score <= -SURE => Found::Same,
            _ => Found::Open,
        }
    }

    fn has_fallen(&self) -> bool {
        let (refused, expected) = (f64::from(self.refused), f64::from(self.seen) * self.share);
        self.share >= SMALL && refused < expected * FALLEN && expected - refused >= DEVIATIONS * expected.sqrt()
    }

    /// The evidence in words.
    pub(super) fn evidence(&self) -> String {
        let part = 100.0 * f64::from(self.refused) / f64::from(self.seen.max(1));
        let before = 100.0 * self.share;
        format!("{before:.0} % refused at full speed, {part:.0} % of {} attempts when slower", self.seen)
    }
}

/// How sure it has to be that fewer are refused.
fn sure(share: f64) -> f64 {
    if share < SMALL { SURE_SMALL } else { SURE }
}

/// How much an attempt speaks for fewer refusals than `share`.
fn weight(share: f64, refused: bool) -> f64 {
    let (same, fewer) = (share, share * FALLS);
    if refused { (fewer / same).ln() } else { ((1.0 - fewer) / (1.0 - same)).ln() }
}

/// Whether a kind that was found to be about the pace is refused as often as before, however small that share
/// was: a cumulative sum, which forgets what spoke for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Doubt(f64);

impl Doubt {
    /// An attempt at the learned pace; `share` was refused before. True: it is no matter of pace.
    pub(super) fn note(&mut self, refused: bool, share: f64) -> bool {
        self.0 = (self.0 + weight(share.clamp(0.02, 0.95), refused)).min(0.0);
        self.0 <= -DOUBT
    }
}

/// Watches whether slowing down still helps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Watch {
    seen: u32,
    refused: u32,
    bad: u32,
    /// The rate when the watch began, and attempts far below it.
    rate: f64,
    low: u32,
    low_refused: u32,
}

impl Watch {
    /// An attempt while the lane is slowed down to `rate`; `share`: refused when it was judged. True:
    /// slowing down does not help any more.
    pub(super) fn note(&mut self, refused: bool, share: f64, rate: f64) -> bool {
        let bad = |refused: u32, seen: u32| f64::from(refused) >= f64::from(seen) * (share / 2.0).max(BAD);
        if self.rate == 0.0 {
            self.rate = rate;
        }
        if rate < self.rate * LOW {
            self.low += 1;
            self.low_refused += u32::from(refused);
        } else {
            (self.low, self.low_refused) = (0, 0);
        }
        self.seen += 1;
        self.refused += u32::from(refused);
        if self.seen >= BLOCK {
            self.bad = if bad(self.refused, self.seen) { self.bad + 1 } else { 0 };
            (self.seen, self.refused) = (0, 0);
        }
        let still = self.low >= LOW_MANY && f64::from(self.low_refused) >= f64::from(self.low) * LOW_BAD;
        self.bad >= BLOCKS || still || self.low >= LOW_LEAST && bad(self.low_refused, self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What trials find where `share` was refused before and `now` is.
    fn fewer(share: f64, then: f64, trials: u64) -> f64 {
        let found = (0..trials).filter(|seed| {
            let mut random = fastrand::Rng::with_seed(*seed);
            let mut trial = Trial::of(1, share, Timestamp(0));
            loop {
                match trial.note(random.f64() < then, Timestamp(0)) {
                    Found::Open => {}
                    found => break found == Found::Fewer,
                }
            }
        });
        found.count() as f64 / trials as f64
    }

    #[test]
    fn a_trial_takes_no_chance_for_a_cause() {
        for share in [0.02, 0.03, 0.1, 0.3, 0.9] {
            let (same, quarter) = (fewer(share, share, 2000), fewer(share, share / 8.0, 2000));
            println!("{share}: {same} of trials find something where nothing changed, {quarter} where it fell");
            assert!(same <= 0.04 && quarter >= 0.8, "{share}: {same} {quarter}");
        }
    }

    /// However small the share is: a verdict by chance is undone, and a true one stays.
    #[test]
    fn what_is_refused_as_before_is_doubted() {
        for share in [0.02, 0.03, 0.3] {
            let undone = |then: f64, attempts: usize| {
                let (mut random, mut doubt) = (fastrand::Rng::with_seed(7), Doubt::default());
                (0..attempts).find(|_| doubt.note(random.f64() < then, share))
            };
            assert!(undone(share, 3000).is_some(), "{share}");
            assert_eq!(undone(share / 4.0, 50_000), None, "{share}");
        }
    }
}
