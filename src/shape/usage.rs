//! How much of a quota, or of a warm-up's day, is used, and when some of it is free again: what is
//! shown of them. Pure.

use std::time::Duration;

use crate::clock::{Timestamp, When, grouped};

const DAY_MS: i64 = 86_400_000;

/// What was used of one quota.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// As in the configuration, such as `500/h`; of a warm-up, empty.
    pub quota: String,
    /// Of a warm-up: which day of how many.
    pub day: Option<(u32, u32)>,
    /// Of a warm-up that has not begun: when it will.
    pub begins: Option<Timestamp>,
    /// Cells used (messages, or recipients where it counts those).
    pub used: u32,
    /// Cells there are in a window, or a day.
    pub most: u32,
    /// How long until the first of those used is free again, or until the warm-up begins that lets nothing leave
    /// before; else zero.
    pub back: Duration,
}

impl Usage {
    /// Whether nothing more may leave.
    pub fn is_used_up(&self) -> bool {
        self.used >= self.most
    }

    /// What it is: `quota 500/h`, `warm-up day 3 of 14`, `warm-up begins on 2026-12-01 (tomorrow)`.
    pub fn title(&self, now: Timestamp) -> String {
        match self.day {
            Some(day) => warmup_title(day, self.begins, self.most, now),
            None => format!("quota {}", self.quota),
        }
    }

    /// Why it holds mail back while it [is used up](Usage::is_used_up): `quota 5/h used up: 5 of 5`.
    pub fn reason(&self, now: Timestamp) -> String {
        match self.begins {
            Some(_) if self.most == 0 => self.title(now),
            Some(_) => format!("{}, used up: {}", self.title(now), self.count()),
            None => format!("{} used up: {}", self.title(now), self.count()),
        }
    }

    /// What comes when some of it is free again. On the last day of a warm-up that is its end.
    pub fn back_told(&self) -> &'static str {
        match self.day {
            Some((day, length)) if day >= length && self.begins.is_none() => "over from",
            _ => "free again from",
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
            _ if self.begins.is_some() && self.most == 0 => self.title(now),
            0 => format!("{}: {}", self.title(now), self.count()),
            _ => format!("{}: {}, {} {from}", self.title(now), self.count(), self.back_told()),
        }
    }
}

/// Where a warm-up is at `now`, the one text of it: on which day of how many, or when it begins and what leaves
/// until then, where `most` is what may leave on the day of `now`.
pub(super) fn warmup_title((day, length): (u32, u32), begins: Option<Timestamp>, most: u32, now: Timestamp) -> String {
    let Some(begins) = begins else { return format!("warm-up day {day} of {length}") };
    let in_days = begins.0.div_euclid(DAY_MS).saturating_sub(now.0.div_euclid(DAY_MS));
    let when = if in_days == 1 { "tomorrow".to_owned() } else { format!("in {in_days} days") };
    let until_then = if most == 0 { ": nothing leaves until then" } else { ", as on day 1 until then" };
    format!("warm-up begins on {} ({when}){until_then}", begins.day_text())
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
    }

    /// The same before the first day, on it, on the last one, and for whoever asks what holds mail back.
    #[test]
    fn a_warm_up_says_where_it_is_and_what_leaves_until_it_begins() {
        let now = Timestamp(1_795_250_940_123);
        let at = |day: i64| Timestamp((now.0 / DAY_MS + day) * DAY_MS);
        let base = Usage {
            quota: String::new(),
            day: Some((1, 14)),
            begins: None,
            used: 50,
            most: 50,
            back: Duration::from_secs(22 * 60),
        };
        let back = "from 09:11:00Z (in 22 min)";
        // Day, begin, used, most; told, and as a reason.
        let table = [
            (1, Some(at(1)), 0, 0, "warm-up begins on 2026-11-22 (tomorrow): nothing leaves until then".into(), None),
            (1, Some(at(9)), 0, 0, "warm-up begins on 2026-11-30 (in 9 days): nothing leaves until then".into(), None),
            (
                1,
                Some(at(1)),
                50,
                50,
                format!("warm-up begins on 2026-11-22 (tomorrow), as on day 1 until then: 50 of 50, free again {back}"),
                Some("warm-up begins on 2026-11-22 (tomorrow), as on day 1 until then, used up: 50 of 50"),
            ),
            (1, None, 0, 50, "warm-up day 1 of 14: 0 of 50".into(), None),
            (1, None, 3, 50, format!("warm-up day 1 of 14: 3 of 50, free again {back}"), None),
            (
                3,
                None,
                200,
                200,
                format!("warm-up day 3 of 14: 200 of 200, free again {back}"),
                Some("warm-up day 3 of 14 used up: 200 of 200"),
            ),
            (
                14,
                None,
                900,
                900,
                format!("warm-up day 14 of 14: 900 of 900, over {back}"),
                Some("warm-up day 14 of 14 used up: 900 of 900"),
            ),
        ];
        for (day, begins, used, most, told, reason) in table {
            let usage = Usage { day: Some((day, 14)), begins, used, most, ..base.clone() };
            assert_eq!(usage.told(now), told);
            assert_eq!(usage.is_used_up(), used == most, "{told}");
            if let Some(reason) = reason {
                assert_eq!(usage.reason(now), reason);
            } else if most == 0 {
                assert_eq!(usage.reason(now), told);
            }
        }
    }
}
