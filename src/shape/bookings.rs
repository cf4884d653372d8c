//! When mail comes back that a limit holds back and for which there is no place beside it in memory:
//! it goes back to the queue, due about when the limit will let it pass.
//!
//! Those that have not waited yet are booked behind all others, those that come back too early before
//! them; so what waits leaves in the order in which it came. Times are spaced as the limit's average, so
//! that what comes due at once is little more than what may leave, however much waits.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::cost::Cost;
use crate::config::{Count, CountedRate};

/// What comes due together, at most about so many cells.
const BLOCK: u32 = 32;
/// The shortest and the longest time between two of them.
const BLOCK_LEAST: Duration = Duration::from_millis(100);
const BLOCK_MOST: Duration = Duration::from_secs(300);
/// Cells that may wait in memory for a limit: at least two blocks, and for fast ones no more than these.
const KEEP_MOST: u32 = 512;
/// Nothing is put off for much longer, so that a limit that was raised is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// A learned pace may be another one soon; and one that is tried none.
const LOOK_AGAIN_PACE: Duration = Duration::from_secs(60);
const LOOK_AGAIN_TRIED: Duration = Duration::from_secs(3);
/// Of very many, so that to look at them again stays a small part of the work.
const LOOK_EACH: Duration = Duration::from_millis(20);

/// A century.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Those that come back too early within so much time come one behind the other; what was given before
/// is over.
const ROUND: Duration = Duration::from_secs(10);

/// The times that were given.
#[derive(Debug)]
pub struct Bookings {
    each: Mutex<Each>,
    booked: Mutex<Booked>,
}

/// How long a limit takes for one, on average.
#[derive(Clone, Copy, Debug)]
struct Each {
    /// Message, recipient; zero: nothing counts them.
    messages: Duration,
    recipients: Duration,
    /// The longer one.
    interval: Duration,
    /// Nothing is put off for much longer.
    look_again: Duration,
}

impl Each {
    fn of(messages: Duration, recipients: Duration, look_again: Duration) -> Each {
        let interval = messages.max(recipients).max(Duration::from_micros(1));
        Each { messages, recipients, interval, look_again }
    }
}

#[derive(Debug, Default)]
struct Booked {
    /// Behind all.
    last: Option<Instant>,
    /// Behind those that came back too early.
    early: Option<Instant>,
    /// When the last of those was booked.
    round: Option<Instant>,
}

impl Bookings {
    /// For a limit of these rates and quotas, of which those without a unit count `count`: the slowest
    /// decides.
    pub fn new<'a>(rates: impl Iterator<Item = &'a CountedRate> + Clone, count: Count) -> Bookings {
        let slowest = |of: Count| {
            let same = rates.clone().filter(|rate| rate.count(count) == Some(of));
            same.map(|rate| rate.per / rate.rate.count.max(1)).max().unwrap_or_default()
        };
        let each = Each::of(slowest(Count::Messages), slowest(Count::Recipients), LOOK_AGAIN);
        Bookings { each: Mutex::new(each), booked: Mutex::default() }
    }

    /// For a learned pace of `count`, which [`Bookings::set_pace`] tells.
    pub fn of_pace(count: Count) -> Bookings {
        let each = match count {
            Count::Messages => Each::of(Duration::from_secs(1), Duration::ZERO, LOOK_AGAIN_PACE),
            Count::Recipients => Each::of(Duration::ZERO, Duration::from_secs(1), LOOK_AGAIN_PACE),
        };
        Bookings { each: Mutex::new(each), booked: Mutex::default() }
    }

    /// The learned pace is `per_second` now, `tried`: for a short while perhaps; what is booked stays so.
    pub fn set_pace(&self, per_second: Option<f64>, tried: bool) {
        let interval = per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        let interval = interval.unwrap_or_default().clamp(Duration::from_micros(1), FOR_EVER);
        let look_again = if tried { LOOK_AGAIN_TRIED } else { LOOK_AGAIN_PACE };
        let mut each = self.each.lock();
        *each = if each.messages.is_zero() {
            Each::of(Duration::ZERO, interval, look_again)
        } else {
            Each::of(interval, Duration::ZERO, look_again)
        };
    }

    fn interval(&self) -> Duration {
        self.each.lock().interval
    }

    /// How much time lies between two moments at which something comes due.
    pub fn block(&self) -> Duration {
        self.times(BLOCK).clamp(BLOCK_LEAST, BLOCK_MOST)
    }

    /// Cells that may wait for it in memory.
    pub fn keep(&self) -> u32 {
        let two = 2 * self.block().as_nanos() / self.interval().as_nanos().max(1);
        u32::try_from(two).unwrap_or(u32::MAX).clamp(2 * BLOCK, KEEP_MOST)
    }

    /// Books `cost` and returns how long it has to wait. The limit lets nothing pass for `wait`, and
    /// `ahead` cells wait in memory. `again`: it was booked before.
    pub fn book(&self, cost: impl Into<Cost>, wait: Duration, ahead: u32, again: bool) -> Duration {
        let cost = cost.into();
        let now = Instant::now();
        // So that those ahead are not all gone when they come.
        let soonest = now + wait + self.times(ahead / 2);
        let mut booked = self.booked.lock();
        if again && booked.round.replace(now).is_some_and(|round| now - round > ROUND) {
            booked.early = None;
        }
        let place = if again { &mut booked.early } else { &mut booked.last };
        let at = place.map_or(soonest, |behind| behind.max(soonest));
        *place = Some(at + self.time_of(cost));
        if again {
            booked.last = booked.last.max(booked.early);
        }
        let after = at - now;
        let before = after.as_nanos() / self.interval().as_nanos().max(1);
        let most = self
            .each
            .lock()
            .look_again
            .saturating_add(LOOK_EACH.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX)));
        after.min(most)
    }

    /// How long a limit takes for it on average.
    pub fn time_of(&self, cost: Cost) -> Duration {
        let each = *self.each.lock();
        let messages = each.messages.saturating_mul(cost.messages);
        let time = messages.max(each.recipients.saturating_mul(cost.recipients));
        time.clamp(Duration::from_micros(1), FOR_EVER)
    }

    fn times(&self, cells: u32) -> Duration {
        self.interval().saturating_mul(cells).min(FOR_EVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Rate;

    fn of(count: u32, per: u64) -> Bookings {
        let rate = Rate { count, per: Duration::from_secs(per) };
        Bookings::new([rate.into()].iter(), Count::Messages)
    }

    #[tokio::test(start_paused = true)]
    async fn times_follow_the_average_and_those_who_come_back_are_before_the_rest() {
        let bookings = of(10, 3600);
        let wait = Duration::from_secs(600);
        let minutes = |after: Duration| after.as_secs() / 60;
        assert_eq!(minutes(bookings.book(1, wait, 0, false)), 10);
        assert_eq!(minutes(bookings.book(2, wait, 0, false)), 16);
        assert_eq!(minutes(bookings.book(1, wait, 0, false)), 28);
        assert_eq!(minutes(bookings.book(1, wait, 0, true)), 10, "it was there before");
        assert_eq!(minutes(bookings.book(1, wait, 0, true)), 16);
        assert_eq!(minutes(bookings.book(1, wait, 0, false)), 34, "and keeps nobody's place");
        assert_eq!(minutes(bookings.book(1, wait, 4, true)), 22, "half of those in memory are before it");
        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(minutes(bookings.book(1, wait / 2, 0, true)), 5, "it is not behind itself");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_put_off_for_long_and_very_many_not_all_at_once() {
        let bookings = of(10, 3600);
        let most = (0..100_000).map(|_| bookings.book(1, Duration::ZERO, 0, false)).max().unwrap();
        assert!(most > Duration::from_secs(3600) && most < Duration::from_secs(2 * 3600), "{most:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn fast_limits_have_more_in_memory_and_slow_ones_look_seldom() {
        assert_eq!((of(1, 3600).keep(), of(1, 3600).block()), (64, BLOCK_MOST));
        assert_eq!((of(1000, 1).keep(), of(1000, 1).block()), (200, BLOCK_LEAST));
        assert_eq!(of(1_000_000, 1).keep(), KEEP_MOST);
    }
}
