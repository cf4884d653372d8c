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
    /// Cells used (messages, or recipients where it counts those).
    pub used: u32,
    /// Cells there are in a window, or a day.
    pub most: u32,
    /// How long until the first of those used is free again; zero when none is used.
    pub back: Duration,
}

impl Usage {
    /// Whether nothing more may leave.
    pub fn is_used_up(&self) -> bool {
        self.used >= self.most
    }

    /// What it is: `quota 500/h`, `warm-up day 3 of 14`.
    pub fn title(&self) -> String {
        match self.day {
            Some((day, days)) => format!("warm-up day {day} of {days}"),
            None => format!("quota {}", self.quota),
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
        let day =
            Usage { quota: "10000/d".into(), day: None, used: 4321, most: 10_000, back: Duration::from_secs(22 * 60) };
        assert_eq!(day.told(now), "quota 10000/d: 4,321 of 10,000, free again from 09:11:00Z (in 22 min)");
        assert!(!day.is_used_up());
        let unused = Usage { used: 0, back: Duration::ZERO, ..day.clone() };
        assert_eq!(unused.told(now), "quota 10000/d: 0 of 10,000");
        let warmup = Usage { day: Some((3, 14)), used: 200, most: 200, ..day };
        assert_eq!(warmup.told(now), "warm-up day 3 of 14: 200 of 200, free again from 09:11:00Z (in 22 min)");
        assert!(warmup.is_used_up());
    }
}
