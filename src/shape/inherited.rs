//! What left under the names of other lanes and counts in an account, too, see [`super::succession`]. Read once
//! from their records; never written into the account's own. Pure.

use super::cost::Cost;
use super::departures::Bucket;
use super::record::Record;
use super::succession::Other;
use crate::clock::{Mark, Timestamp};
use crate::config::Count;

const DAY_MS: i64 = 86_400_000;

/// What counts besides an account's own, on the account's clock: oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    buckets: Vec<Bucket>,
    /// Days since 1970 (UTC), and what left on that day.
    day: (i64, Cost),
}

impl Inherited {
    /// Adds what left by a record of another lane as long as that counts. `now`: of the account's clock.
    pub(super) fn add(&mut self, record: &Record, other: &Other, now: i64, mark: &Mark, clock: Timestamp) {
        let ago = other.until.as_ref().map(|until| i64::try_from(mark.since(until).as_millis()).unwrap_or(i64::MAX));
        let end = ago.map_or(i64::MAX, |ago| now.saturating_sub(ago));
        let shift = now.saturating_sub(record.time.saturating_add(record.age(mark)));
        let midnight = now.saturating_sub(clock.0.rem_euclid(DAY_MS));
        let today = clock.0.div_euclid(DAY_MS);
        if self.day.0 != today {
            self.day = (today, Cost::default());
        }
        for bucket in record.buckets().map(|bucket| bucket.moved(shift, now)).filter(|bucket| bucket.from <= end) {
            let at = self.buckets.partition_point(|earlier| earlier.to <= bucket.to);
            self.buckets.insert(at, bucket);
            if bucket.to > midnight {
                self.day.1 = self.day.1.and(bucket.cost);
            }
        }
    }

    /// Cells that left on a day.
    pub(super) fn on_day(&self, number: i64, of: Count) -> u32 {
        if self.day.0 == number { self.day.1.count(of) } else { 0 }
    }

    pub(super) fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }
}
