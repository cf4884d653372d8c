//! How much of a quota, or of a warm-up's day, is used, and when some of it is free again: what is
//! shown of them. Pure.

use std::time::Duration;

use crate::clock::{Timestamp, When, grouped};

/// What was used of one quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// As in the configuration, such as `500/h`; of a warm-up, empty.
    pub quota: String,
    /// Of a warm-up: which day of how many.
    pub day: Option<(u32, u32)>,
    /// Of a warm-up that lets nothing leave before it begins: when that is, until it has.
    pub begins: Option<Timestamp>,
    /// Cells used (messages, or recipients where it counts those).
    pub used: u32,
    /// Cells there are in a window, or a day.
    pub most: u32,
    /// How long until the first of those used is free again, or until the warm-up begins; else zero.
    pub back: Duration,
}

impl Usage {
    /// Whether nothing more may leave.
    pub fn is_used_up(&self) -> bool {
        self.used >= self.most
    }

    /// What it is: `quota 500/h`, `warm-up day 3 of 14`, `warm-up begins on 2026-12-01`.
    pub fn title(&self) -> String {
        match (self.begins, self.day) {
            (Some(begins), _) => format!("warm-up begins on {}", begins.day_text()),
            (None, Some((day, days))) => format!("warm-up day {day} of {days}"),
            (None, None) => format!("quota {}", self.quota),
        }
    }

    /// Why it holds mail back while it [is used up](Usage::is_used_up): `quota 5/h used up: 5 of 5`.
    pub fn reason(&self) -> String {
        match self.begins {
            Some(_) => format!("{}: nothing leaves until then", self.title()),
            None => format!("{} used up: {}", self.title(), self.count()),
        }
    }

    /// `4,321 of 10,000`.
    pub fn count(&self) -> String {
        format!("{} of {}", grouped(self.used.into()), grouped(self.most.into()))
    }

    /// `quota 10000/d: 4,321 of 10,000, free again from 14:10:00Z (in 22 min)`.
    pub fn told(&self, now: Timestamp) -> String {
        let from = When { at: now.after(self.back), now };
        match self.used {
            _ if self.begins.is_some() => self.reason(),
            0 => format!("{}: {}", self.title(), self.count()),
            _ => format!("{}: {}, free again from {from}", self.title(), self.count()),
        }
    }
}

/// What makes the next transaction wait at a gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holding {
    /// A quota, or the day of a warm-up.
    Quota(Usage),
    /// A rate, as in the configuration.
    Rate(String),
    /// The pace that replies taught.
    Pace,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_says_what_is_used_and_when_some_of_it_is_back() {
        let now = Timestamp(1_795_250_940_123);
        let day = Usage {
            quota: "10000/d".into(),
            day: None,
            begins: None,
            used: 4321,
            most: 10_000,
            back: Duration::from_secs(22 * 60),
        };
        assert_eq!(day.told(now), "quota 10000/d: 4,321 of 10,000, free again from 09:11:00Z (in 22 min)");
        assert!(!day.is_used_up());
        let unused = Usage { used: 0, back: Duration::ZERO, ..day.clone() };
        assert_eq!(unused.told(now), "quota 10000/d: 0 of 10,000");
        let warmup = Usage { day: Some((3, 14)), used: 200, most: 200, ..day.clone() };
        assert_eq!(warmup.told(now), "warm-up day 3 of 14: 200 of 200, free again from 09:11:00Z (in 22 min)");
        assert!(warmup.is_used_up());
        let later = Usage { day: Some((1, 14)), begins: Some(Timestamp(1_795_305_600_000)), used: 0, most: 0, ..day };
        assert_eq!(later.told(now), "warm-up begins on 2026-11-22: nothing leaves until then");
        assert!(later.is_used_up());
    }
}
