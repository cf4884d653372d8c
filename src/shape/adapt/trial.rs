//! The experiment: slower for a short while, counted in attempts, until it is clear whether fewer are
//! refused. Pure.
//!
//! Two hypotheses stand against each other: the share of refusals stays what it was, or it falls to a
//! quarter. Every attempt weighs for one of them (a sequential probability ratio test, Wald 1945): with a
//! share of 30 % some 14 acceptances in a row decide, with 3 % some 150. A share that only halves decides
//! nothing; [`MOST`] attempts end that.

use crate::clock::Timestamp;

/// The share under the hypothesis that it is about the pace, of what it was.
const FALLS: f64 = 0.25;
/// Natural logarithm of how much likelier one hypothesis has to be: fifty times.
const SURE: f64 = 3.9;
/// Attempts at most.
const MOST: u32 = 150;
/// At the end a share below this part of the former one has fallen.
const FALLEN: f64 = 0.6;
/// A watched pace is judged in blocks of so many attempts; so many blocks in a row speak against it, if
/// at least such a share was refused in each.
const BLOCK: u32 = 40;
const BLOCKS: u32 = 3;
const BAD: f64 = 0.1;
/// So do fewer attempts at such a part of the rate that once helped.
const LOW: f64 = 0.1;
const LOW_LEAST: u32 = 8;

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
        let (same, fewer) = (self.share, self.share * FALLS);
        self.seen += 1;
        self.refused += u32::from(refused);
        self.last = now;
        self.score += if refused { (fewer / same).ln() } else { ((1.0 - fewer) / (1.0 - same)).ln() };
        match self.score {
            score if score >= SURE => Found::Fewer,
            score if score <= -SURE => Found::Same,
            _ if self.seen < MOST => Found::Open,
            _ if f64::from(self.refused) < f64::from(self.seen) * self.share * FALLEN => Found::Fewer,
            _ => Found::Same,
        }
    }

    /// The evidence in words.
    pub(super) fn evidence(&self) -> String {
        let part = 100.0 * f64::from(self.refused) / f64::from(self.seen.max(1));
        let before = 100.0 * self.share;
        format!("{before:.0} % refused at full speed, {part:.0} % of {} attempts when slower", self.seen)
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
        self.bad >= BLOCKS || self.low >= LOW_LEAST && bad(self.low_refused, self.low)
    }
}
