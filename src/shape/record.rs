//! What a gate's quotas leave to a later process: what left, in both units, what may have left since, and
//! what left today. It says nothing of the quotas themselves, so that it is the same whatever they become.
//!
//! Versions before this one had a record for each length of window and unit, and one for the day of a
//! warm-up. They are read while there is no record of today's kind. Of a message that only one unit
//! counted, the other counts the same.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cost::Cost;
use super::departures::{Bucket, Departures};
use super::quota::GRACE;
use crate::clock::{Mark, Timestamp};

/// Ends the name of a record.
pub(super) const NAME: &str = "departures";
const DAY_MS: i64 = 86_400_000;

/// What is stored. Times are in ms of the gate's own clock.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// When it was written.
    pub time: i64,
    /// The time then, for a later process.
    #[serde(flatten)]
    pub mark: Mark,
    /// How long what left is remembered.
    pub keep: i64,
    /// What left: how long before `time` it may have left at the earliest, for how long from then on,
    /// messages, and recipients.
    left: Vec<(i64, i64, u32, u32)>,
    /// What may have left besides: until how long after `time`, messages and recipients.
    reserved: (i64, u32, u32),
    /// Days since 1970 (UTC), and what may leave or has left on that day: messages and recipients.
    pub(super) day: (i64, u32, u32),
}

impl Record {
    pub(super) fn new(time: i64, mark: Mark, left: &Departures, reserved: (i64, Cost), day: (i64, Cost)) -> Record {
        let each = |b: &Bucket| {
            let (ago, length) = (time.saturating_sub(b.from), b.to.saturating_sub(b.from));
            (ago, length, b.cost.messages, b.cost.recipients)
        };
        let (until, cost) = reserved;
        Record {
            time,
            mark,
            keep: left.keep(),
            left: left.buckets().iter().map(each).collect(),
            reserved: (until.saturating_sub(time), cost.messages, cost.recipients),
            day: (day.0, day.1.messages, day.1.recipients),
        }
    }

    /// One by which more than any quota was used just now: for one that cannot be read.
    fn used_up(now: Timestamp, mark: Mark) -> Record {
        let (time, most) = (now.0, u32::MAX);
        Record {
            time,
            mark,
            keep: 0,
            left: vec![(0, 1, most, most)],
            reserved: (0, 0, 0),
            day: (time.div_euclid(DAY_MS), most, most),
        }
    }

    /// How old it is at `now`, in ms; never negative.
    pub(super) fn age(&self, now: &Mark) -> i64 {
        elapsed(&self.mark, now)
    }

    /// What left. What may have left counts as late as it may have: when the block might not be used any
    /// more, the longest transaction was over.
    pub(super) fn buckets(&self) -> impl Iterator<Item = Bucket> + '_ {
        let each = |(ago, length, messages, recipients): &(i64, i64, u32, u32)| {
            let from = self.time.saturating_sub(*ago);
            Bucket {
                from,
                to: from.saturating_add(*length),
                cost: Cost { messages: *messages, recipients: *recipients },
            }
        };
        let (until, messages, recipients) = self.reserved;
        let to = self.time.saturating_add(until).saturating_add(GRACE);
        let reserved = Bucket { from: self.time, to, cost: Cost { messages, recipients } };
        self.left.iter().map(each).chain(Some(reserved).filter(|reserved| reserved.cost != Cost::default()))
    }

    /// What may leave or has left on its day.
    pub(super) fn day_used(&self) -> Cost {
        Cost { messages: self.day.1, recipients: self.day.2 }
    }

    /// Whether nothing in it counts any more.
    pub fn is_over(&self, now: &Mark) -> bool {
        self.age(now) > self.keep.max(DAY_MS).saturating_add(2 * GRACE)
    }
}

/// Milliseconds from `from` to `to`; never negative.
fn elapsed(from: &Mark, to: &Mark) -> i64 {
    i64::try_from(to.since(from).as_millis()).unwrap_or(i64::MAX)
}

/// The record of a gate among what was found of it; names without the gate's own. `None`: there is none.
pub(super) fn read(found: &[(String, Bytes)], now: Timestamp, mark: &Mark) -> Option<Record> {
    let of_gate = found.iter().find(|(name, _)| name == NAME);
    let read = match of_gate {
        Some((_, value)) => serde_json::from_slice(value).ok(),
        None if found.is_empty() => return None,
        None => converted(found, now, mark),
    };
    Some(read.unwrap_or_else(|| {
        tracing::error!("the record of a quota cannot be read: it counts as used up, and today too");
        Record::used_up(now, mark.clone())
    }))
}

/// Whether a stored value, of this version or one before, counts nothing any more.
pub(super) fn is_over(value: &Bytes, mark: &Mark, now: Timestamp) -> bool {
    if let Ok(record) = serde_json::from_slice::<Record>(value) {
        return record.is_over(mark);
    }
    if let Ok(record) = serde_json::from_slice::<OldWindow>(value) {
        return record.is_over(mark);
    }
    serde_json::from_slice::<OldDay>(value).is_ok_and(|record| record.day + 1 < now.0.div_euclid(DAY_MS))
}

/// A quota as versions before stored it. Counts are per sub-window, named by its number since time 0.
#[derive(Deserialize)]
struct OldWindow {
    window: i64,
    slot: i64,
    time: i64,
    #[serde(flatten)]
    mark: Mark,
    used: Vec<(i64, u32)>,
    reserved: (i64, u32),
}

impl OldWindow {
    fn is_over(&self, now: &Mark) -> bool {
        let now = self.time.saturating_add(elapsed(&self.mark, now));
        let latest = self.used.iter().map(|(slot, _)| *slot).chain([self.reserved.0]).max().unwrap_or(i64::MIN);
        now > latest.saturating_add(2).saturating_mul(self.slot).saturating_add(self.window)
    }
}

/// The day of a warm-up as versions before stored it.
#[derive(Deserialize)]
struct OldDay {
    day: i64,
    count: u32,
}

/// What records of versions before say together; `None`: one of them cannot be read.
fn converted(found: &[(String, Bytes)], now: Timestamp, mark: &Mark) -> Option<Record> {
    let mut day = (now.0.div_euclid(DAY_MS), 0, 0);
    let (mut messages, mut recipients) = (Vec::new(), Vec::new());
    for (name, value) in found {
        if name == "warmup" {
            let old: OldDay = serde_json::from_slice(value).ok()?;
            day = (old.day, old.count, old.count);
        } else {
            let old: OldWindow = serde_json::from_slice(value).ok()?;
            if name.ends_with(" recipients") {
                recipients.push(old)
            } else {
                messages.push(old)
            };
        }
    }
    let (messages, recipients) = (counts(messages, now, mark), counts(recipients, now, mark));
    let mut left = Vec::new();
    for (from, length, count) in &messages {
        left.push((*from, *length, *count, if recipients.is_empty() { *count } else { 0 }));
    }
    for (from, length, count) in &recipients {
        left.push((*from, *length, if messages.is_empty() { *count } else { 0 }, *count));
    }
    let keep = left.iter().map(|(from, ..)| *from).max().unwrap_or_default();
    Some(Record { time: now.0, mark: mark.clone(), keep, left, reserved: (0, 0, 0), day })
}

/// What old records of one unit count, as [`Record::left`]: each longer one only what is older than the
/// shorter ones know.
fn counts(mut old: Vec<OldWindow>, now: Timestamp, mark: &Mark) -> Vec<(i64, i64, u32)> {
    old.sort_by_key(|record| record.window);
    let (mut known, mut all) = (i64::MIN, Vec::new());
    for record in &old {
        let ahead = record.time.saturating_add(elapsed(&record.mark, mark)).saturating_sub(now.0);
        for (slot, count) in record.used.iter().chain([&record.reserved]).filter(|(_, count)| *count > 0) {
            let from = slot.saturating_mul(record.slot.max(1)).saturating_sub(ahead);
            let ago = now.0.saturating_sub(from);
            if ago >= known {
                all.push((ago, record.slot.max(1), *count));
            }
        }
        known = record.window.saturating_add(elapsed(&record.mark, mark));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Count;
    use crate::shape::quota::{Account, At, Cap};

    const NOW: i64 = 1_790_000_000_000;

    fn found(entries: &[(&str, &str)]) -> Vec<(String, Bytes)> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from((*value).to_owned()))).collect()
    }

    fn room(quota: &str, of: Count, record: &Record) -> u32 {
        let cap = Cap { rate: quota.parse().expect("a rate"), of };
        let (mark, clock) = (Mark::from(Timestamp(NOW)), Timestamp(NOW));
        let (mut account, time) = Account::restore(vec![cap], None, 0, record, &mark, clock);
        let (used, most, _) = account.usage(0, At { time, clock }).expect("a quota");
        most - used
    }

    #[test]
    fn records_of_versions_before_go_on() {
        let slot = NOW / 60_000;
        let hour = format!(
            r#"{{"window":3600000,"slot":60000,"time":{NOW},"wall":{NOW},"used":[[{},30],[{slot},10]],"reserved":[{},5]}}"#,
            slot - 50,
            slot + 1
        );
        let day = NOW / 1_440_000;
        let longer = format!(
            r#"{{"window":86400000,"slot":1440000,"time":{NOW},"wall":{NOW},"used":[[{},100],[{day},40]],"reserved":[{day},5]}}"#,
            day - 20
        );
        let of_day = format!(r#"{{"day":{},"count":7}}"#, NOW / DAY_MS);
        let mark = Mark::from(Timestamp(NOW));
        let old = found(&[("1h", &hour), ("1d", &longer), ("warmup", &of_day)]);
        let record = read(&old, Timestamp(NOW), &mark).expect("a record");
        assert_eq!(room("100/h", Count::Messages, &record), 55);
        assert_eq!(room("1000/d", Count::Messages, &record), 1000 - 145);
        assert_eq!(room("1000/d", Count::Recipients, &record), 1000 - 145, "nobody knew better");
        assert_eq!((record.day.0, record.day_used()), (NOW / DAY_MS, Cost::from(7)));
        assert!(read(&found(&[]), Timestamp(NOW), &mark).is_none());
        for (name, value) in &old {
            assert!(!is_over(value, &mark, Timestamp(NOW)), "{name}");
            let later = Timestamp(NOW + 3 * DAY_MS);
            assert!(is_over(value, &later.into(), later), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_used_up_for_a_window() {
        let mark = Mark::from(Timestamp(NOW));
        for broken in [("departures", "rubbish"), ("1h", "{}")] {
            let record = read(&found(&[broken]), Timestamp(NOW), &mark).expect("a record");
            assert_eq!(room("1000000/h", Count::Messages, &record), 0);
            assert_eq!(record.day.0, NOW / DAY_MS);
        }
    }
}
