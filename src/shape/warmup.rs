//! A warm-up plan: how much may leave on each UTC day while receivers learn to know a new source, and the
//! count of the day. Pure: a quota of the day, kept with the sliding ones in [`super::quota`].
//!
//! Before the first day the number of day 1 holds, or nothing leaves, as the plan says; after the plan's
//! length nothing holds. What exceeds the day waits for the next one. The day is the wall clock's. A clock that is set back by
//! less than a day stays on the later day; one that is set back further takes the day's count with
//! it, so that going back frees nothing. What leaves is counted whether there is a plan or not, and in both
//! units: a plan that begins in the middle of a day, or changes, knows what left on it.

use super::cost::Cost;
use super::usage::warmup_title;
use crate::clock::Timestamp;
use crate::config::{BeforeStart, Warmup};

const DAY_MS: i64 = 86_400_000;
/// Blocks of a quota or a day: few enough writes, and little lost by a `kill -9`.
pub(super) const BLOCKS: u32 = 200;

/// What left on a day, or may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Day {
    /// Days since 1970 (UTC).
    number: i64,
    used: Cost,
}

impl Warmup {
    /// The number of the plan's day at `now`, from 1; 0 before it begins.
    pub fn day(&self, now: Timestamp) -> u32 {
        let days = (now.0.saturating_sub(self.start.0)).div_euclid(DAY_MS).saturating_add(1);
        u32::try_from(days.max(0)).unwrap_or(u32::MAX)
    }

    /// What may leave on the day of `now`; `None`: no limit any more.
    pub fn allowance(&self, now: Timestamp) -> Option<u32> {
        let day = match (self.day(now), self.before) {
            (0, BeforeStart::Nothing) => return Some(0),
            // A start that was written a year too late must not hold mail until it expires.
            (0, BeforeStart::DayOne) => 1,
            (day, _) if day > self.length => return None,
            (day, _) => day,
        };
        let at = usize::try_from(day - 1).unwrap_or(usize::MAX);
        self.days.get(at).or(self.days.last()).copied()
    }

    /// Where the plan is at `now`, in words: `warm-up day 3 of 30: 200/d`; empty when it is over. As whoever
    /// tells [what is used](super::Usage::title) of it says it.
    pub fn status(&self, now: Timestamp) -> String {
        let Some(most) = self.allowance(now) else { return String::new() };
        let day = self.day(now);
        let title = warmup_title((day, self.length), (day == 0).then_some(self.start), most, now);
        if most == 0 { title } else { format!("{title}: {most}/d") }
    }
}

impl Day {
    /// The day of `now`, on which nothing was used.
    pub fn new(now: Timestamp) -> Day {
        Day { number: now.0.div_euclid(DAY_MS), used: Cost::default() }
    }

    /// The day of `now`, and what an earlier process used of it.
    pub fn restore(number: i64, used: Cost, now: Timestamp) -> Day {
        let mut day = Day { number, used };
        day.advance(now);
        day
    }

    /// Moves on to `now`; whether another day counts.
    pub fn advance(&mut self, now: Timestamp) -> bool {
        let today = now.0.div_euclid(DAY_MS);
        if today > self.number {
            *self = Day { number: today, used: Cost::default() };
            return true;
        }
        let back = today + 1 < self.number;
        if back {
            self.number = today;
        }
        back
    }

    /// Days since 1970 (UTC).
    pub fn number(&self) -> i64 {
        self.number
    }

    /// What left on it.
    pub fn used(&self) -> Cost {
        self.used
    }

    /// So much more.
    pub fn add(&mut self, cost: Cost) {
        self.used = self.used.and(cost);
    }

    /// So much less.
    pub fn take_away(&mut self, cost: Cost) {
        self.used = self.used.without(cost);
    }

    /// Adds what others used on a day, if it is this one; a later one counts instead.
    pub fn join(&mut self, number: i64, used: Cost) {
        match number.cmp(&self.number) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => self.add(used),
            std::cmp::Ordering::Greater => *self = Day { number, used },
        }
    }

    /// Its midnight.
    pub fn midnight(&self) -> Timestamp {
        Timestamp(self.number.saturating_mul(DAY_MS))
    }

    /// That of the next one.
    pub fn tomorrow(&self) -> Timestamp {
        Timestamp(self.midnight().0.saturating_add(DAY_MS))
    }
}

#[cfg(test)]
#[path = "warmup_tests.rs"]
mod tests;
