//! A warm-up plan: how much may leave on each UTC day while receivers learn to know a new source.
//! Pure: a quota of the day, with the same blocks as [`super::quota`] and the same promise: a
//! process that is killed forgets nothing that it used.
//!
//! Before the first day the number of day 1 holds, or nothing leaves, as the plan says; after the plan's
//! length nothing holds. What exceeds the day waits for the next one. The day is the wall clock's. A clock that is set back by
//! less than a day stays on the later day; one that is set back further takes the day's count with
//! it, so that going back frees nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::quota::Refusal;
use crate::clock::Timestamp;
use crate::config::{BeforeStart, Warmup};

const DAY_MS: i64 = 86_400_000;
/// Blocks of a day.
const BLOCKS: u32 = 200;

/// A day's count as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DayRecord {
    /// Days since 1970 (UTC).
    pub day: i64,
    /// What was used or reserved.
    pub count: u32,
}

/// A reservation under way.
#[must_use = "a reservation is of use only when it is durable and confirmed"]
#[derive(Debug)]
pub struct DayReservation {
    /// What has to be durable first.
    pub record: DayRecord,
    size: u32,
}

/// The count of the day.
#[derive(Clone, Debug)]
pub struct Day {
    plan: Warmup,
    day: i64,
    used: u32,
    block: u32,
    /// Cells that the stored record may count and that were not used, at most.
    unused: u32,
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

    /// Where the plan is at `now`, in words: `warm-up day 3 of 30: 200/d`; empty when it is over. The
    /// one text of it, for whoever shows it.
    pub fn status(&self, now: Timestamp) -> String {
        let Some(most) = self.allowance(now) else { return String::new() };
        match (self.day(now), most) {
            (0, 0) => format!("warm-up begins on {}: nothing leaves until then", self.start.day_text()),
            (0, _) => format!("warm-up begins on {}: {most}/d until then, as on its first day", self.start.day_text()),
            (day, _) => format!("warm-up day {day} of {}: {most}/d", self.length),
        }
    }
}

impl Day {
    /// A plan of whose day nothing is used, or what the record tells.
    pub fn new(plan: Warmup, record: Option<DayRecord>, now: Timestamp) -> Day {
        let today = now.0.div_euclid(DAY_MS);
        let record = record.unwrap_or(DayRecord { day: today, count: 0 });
        let mut day = Day { plan, day: record.day, used: record.count, block: 0, unused: 0 };
        day.advance(now);
        day
    }

    fn advance(&mut self, now: Timestamp) {
        let today = now.0.div_euclid(DAY_MS);
        if today > self.day {
            (self.day, self.used, self.block, self.unused) = (today, 0, 0, 0);
        } else if today + 1 < self.day {
            (self.day, self.block) = (today, 0);
        }
    }

    /// Midnight of the day that counts now.
    fn midnight(&self) -> Timestamp {
        Timestamp(self.day.saturating_mul(DAY_MS))
    }

    /// What may leave on the day that counts now.
    fn most(&self) -> u32 {
        self.plan.allowance(self.midnight()).unwrap_or(u32::MAX)
    }

    /// Cells that could be taken now.
    pub fn room(&mut self, now: Timestamp) -> u32 {
        self.advance(now);
        self.most().saturating_sub(self.used)
    }

    /// Cells that could be taken at `then`, not before `now`, if nobody takes any meanwhile.
    pub fn room_at(&mut self, now: Timestamp, then: Timestamp) -> u32 {
        let room = self.room(now);
        let tomorrow = then.0.div_euclid(DAY_MS) > self.day;
        if tomorrow { self.plan.allowance(then).unwrap_or(u32::MAX) } else { room }
    }

    /// How long until `cells` could be taken: nothing, or until the next day.
    pub fn wait_for(&mut self, cells: u32, now: Timestamp) -> Duration {
        if cells <= self.room(now) {
            return Duration::ZERO;
        }
        let tomorrow = Timestamp(self.midnight().0.saturating_add(DAY_MS));
        // On the days before the start nothing comes.
        let next = if self.most() == 0 { tomorrow.max(self.plan.start) } else { tomorrow };
        next.since(now).max(Duration::from_millis(1))
    }

    /// When the plan begins, while nothing leaves before.
    pub fn begins(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.advance(now);
        (self.most() == 0).then_some(self.plan.start)
    }

    /// Which day of how many counts now, cells that are used and cells there are, and how long until the
    /// next day, or the first one; `None`: the plan is over.
    pub fn usage(&mut self, now: Timestamp) -> Option<((u32, u32), u32, u32, Duration)> {
        self.advance(now);
        let most = self.plan.allowance(self.midnight())?;
        let day = self.plan.day(self.midnight()).max(1);
        let used = self.used.min(most);
        let back = if used == 0 && most > 0 { Duration::ZERO } else { self.wait_for(u32::MAX, now) };
        Some(((day, self.plan.length), used, most, back))
    }

    /// What it is called in reports, see [`Warmup::status`]; empty when the plan is over.
    pub fn text(&self) -> String {
        self.plan.status(self.midnight())
    }

    /// Whether `cells` could be taken now; takes nothing.
    ///
    /// # Errors
    /// What has to happen first.
    pub fn check(&mut self, cells: u32, now: Timestamp) -> Result<(), Refusal> {
        self.advance(now);
        if self.plan.allowance(self.midnight()).is_none() || cells <= self.block {
            return Ok(());
        }
        match cells <= self.room(now) {
            true => Err(Refusal::Reserve),
            false => Err(Refusal::Wait(self.wait_for(cells, now).max(Duration::from_millis(1)))),
        }
    }

    /// Takes `cells` from the block; returns the day they belong to.
    ///
    /// # Errors
    /// What has to happen first. Nothing was taken.
    pub fn try_take(&mut self, cells: u32, now: Timestamp) -> Result<i64, Refusal> {
        self.check(cells, now)?;
        // After the plan there is no block, and nothing to count.
        self.block = self.block.saturating_sub(cells);
        self.unused = self.unused.saturating_sub(cells);
        self.used = self.used.saturating_add(cells);
        Ok(self.day)
    }

    /// The cells, taken on `day`, were not used.
    pub fn give_back(&mut self, day: i64, cells: u32) {
        if day == self.day && self.plan.allowance(self.midnight()).is_some() {
            let cells = cells.min(self.used);
            self.used -= cells;
            self.block = self.block.saturating_add(cells);
            self.unused = self.unused.saturating_add(cells);
        }
    }

    /// Begins to reserve a block from which `cells` can be taken, if one is needed and there is room.
    pub fn reserve(&mut self, cells: u32, now: Timestamp) -> Option<DayReservation> {
        if self.check(cells, now) != Err(Refusal::Reserve) {
            return None;
        }
        let free = self.room(now).saturating_sub(self.block);
        let size = (self.most() / BLOCKS).max(1).max(cells.saturating_sub(self.block)).min(free);
        let reserved = self.block.saturating_add(size);
        let count = self.used.saturating_add(reserved);
        // Until it is confirmed, either of the two records may be the stored one.
        self.unused = self.unused.max(reserved);
        Some(DayReservation { record: DayRecord { day: self.day, count }, size })
    }

    /// The record is durable: the block may be used, if it still is that day.
    pub fn confirm(&mut self, reservation: &DayReservation, now: Timestamp) {
        self.advance(now);
        if self.day == reservation.record.day {
            self.block = self.block.saturating_add(reservation.size);
        }
    }

    /// Whether the stored record counts nothing that was not used.
    pub fn is_exact(&self) -> bool {
        self.unused == 0
    }

    /// Gives up the block; returns the record without it. From here on nothing is taken before
    /// another record is durable.
    #[must_use = "nothing is gained before it is durable and confirmed"]
    pub fn release(&mut self, now: Timestamp) -> DayRecord {
        self.advance(now);
        self.block = 0;
        DayRecord { day: self.day, count: self.used }
    }

    /// The record of [`Day::release`] is durable, and none was made since.
    pub fn released(&mut self) {
        self.unused = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(days: &[u32], length: u32) -> Warmup {
        Warmup {
            start: Timestamp(20_000 * DAY_MS),
            days: days.to_vec(),
            length,
            overflow: crate::config::Overflow::Wait,
            before: BeforeStart::DayOne,
        }
    }

    fn at(day: i64, ms: i64) -> Timestamp {
        Timestamp((20_000 + day - 1) * DAY_MS + ms)
    }

    #[test]
    fn each_day_has_its_number_and_the_plan_ends() {
        let plan = plan(&[50, 100, 200], 5);
        let allowed: Vec<_> = (-1..=7).map(|day| plan.allowance(at(day, 1))).collect();
        let expected = [50, 50, 50, 100, 200, 200, 200].map(Some);
        assert_eq!(allowed[..7], expected);
        assert_eq!(allowed[7..], [None, None]);
        assert_eq!(Day::new(plan.clone(), None, at(2, 5)).text(), "warm-up day 2 of 5: 100/d");
        assert_eq!(Day::new(plan, None, at(9, 5)).text(), "");
    }

    #[test]
    fn before_its_start_a_plan_gives_the_first_number_or_nothing() {
        let early = plan(&[50, 100], 5);
        let begins = early.start.day_text();
        assert_eq!(
            Day::new(early.clone(), None, at(-3, 5)).text(),
            format!("warm-up begins on {begins}: 50/d until then, as on its first day")
        );
        let held = Warmup { before: BeforeStart::Nothing, ..early };
        let mut day = Day::new(held.clone(), None, at(-3, 5));
        assert_eq!(day.text(), format!("warm-up begins on {begins}: nothing leaves until then"));
        let Err(Refusal::Wait(wait)) = day.check(1, at(-3, 5)) else { panic!("nothing leaves") };
        assert_eq!(at(-3, 5).after(wait), held.start, "not before it begins");
        assert_eq!((day.room_at(at(0, 0), at(1, 0)), day.room(at(1, 0))), (50, 50));
    }

    proptest! {
        #[test]
        fn no_day_exceeds_its_number_whenever_the_process_dies(
            days in proptest::collection::vec(1u32..500, 1..6),
            steps in proptest::collection::vec((0i64..DAY_MS / 3, 0u32..120, 1u32..4, 0u8..8), 1..120)
        ) {
            let plan = plan(&days, 20);
            let mut now = at(1, 0);
            let mut day = Day::new(plan.clone(), None, now);
            let mut stored = None;
            let mut used = std::collections::HashMap::<i64, u32>::new();
            for (pause, times, cells, event) in steps {
                now = Timestamp(now.0 + pause);
                for _ in 0..times {
                    if let Some(reservation) = day.reserve(cells, now) {
                        stored = Some(reservation.record);
                        if event == 0 {
                            break;
                        }
                        day.confirm(&reservation, now);
                    }
                    match day.try_take(cells, now) {
                        Ok(of) if event == 1 => day.give_back(of, cells),
                        Ok(_) => *used.entry(now.0.div_euclid(DAY_MS)).or_default() += cells,
                        Err(refusal) => prop_assert!(matches!(refusal, Refusal::Wait(_))),
                    }
                }
                if event <= 2 {
                    day = Day::new(plan.clone(), stored, now);
                }
                if event == 3 {
                    // A clock that goes back an hour across midnight frees nothing.
                    let room = day.room(now);
                    prop_assert!(day.room(Timestamp(now.0 - DAY_MS / 24)) <= room);
                }
            }
            for (day, used) in used {
                let most = plan.allowance(Timestamp(day * DAY_MS)).unwrap_or(u32::MAX);
                prop_assert!(used <= most, "{used} of {most}");
            }
            let tomorrow = Timestamp(now.0 + DAY_MS);
            prop_assert_eq!(day.room(tomorrow), plan.allowance(tomorrow).unwrap_or(u32::MAX));
        }
    }

    #[test]
    fn a_clock_set_back_by_days_takes_the_count_with_it() {
        let mut day = Day::new(plan(&[10], 100), Some(DayRecord { day: 20_050, count: 10 }), at(3, 0));
        assert_eq!(day.room(at(3, 0)), 0);
        assert!(day.wait_for(1, at(3, 0)) <= Duration::from_secs(86_400), "the next day frees");
        assert_eq!(day.room(at(4, 0)), 10);
    }
}
