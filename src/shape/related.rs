//! What a gate has to know of others when `limits_per` changed: the limits of one source address
//! begin where those of all together have been, and the other way round, so that no window and no
//! day sees more than its number because a configuration was changed in it. Pure.
//!
//! Records of the others count while they are newer than the gate's own; its own next record has
//! them in it. This may count something twice for one window, never too little.

use bytes::Bytes;

use super::quota::{Record, Window};
use super::warmup::DayRecord;
use crate::clock::Mark;
use crate::config::Count;
use crate::config::units::Span;
use crate::mail::LaneName;

/// Other gates' records: the lane, what the record is about (see [`about`], or `warmup`), and itself.
pub(super) type Others = Vec<(String, String, Bytes)>;

/// What a quota's record is about, which ends its name: `1h` counts messages, `1h recipients` recipients.
pub(super) fn about(per: Span, of: Count) -> String {
    match of {
        Count::Messages => per.to_string(),
        Count::Recipients => format!("{per} recipients"),
    }
}

/// The record that a quota starts from: its own, else that of the same length in another unit (before
/// quotas had units theirs was not told), else the longest.
pub(super) fn nearest<'a, R, I>(about: &str, records: impl Fn() -> I) -> Option<R>
where
    R: std::borrow::Borrow<Record>,
    I: Iterator<Item = (&'a str, R)>,
{
    let length = |about: &str| about.split(' ').next().unwrap_or_default().to_owned();
    let same = |what: &dyn Fn(&str) -> bool| records().find(|(other, _)| what(other)).map(|(_, record)| record);
    same(&|other| other == about)
        .or_else(|| same(&|other| length(other) == length(about)))
        .or_else(|| records().map(|(_, record)| record).max_by_key(|record| record.borrow().window))
}

/// Where the records of related gates are, for the gate `provider` of a lane: the first part of
/// their names behind `quota/`.
pub(super) fn prefix(lane: &LaneName) -> String {
    match lane.source() {
        Some(_) => format!("{}/provider/", lane.base()),
        None => format!("{}@", lane.base()),
    }
}

/// The related ones among what was found there; `found` without `quota/`.
pub(super) fn others(found: impl IntoIterator<Item = (String, Bytes)>) -> Others {
    let parts = |name: &str| {
        let (lane, rest) = name.split_once('/')?;
        Some((lane.to_owned(), rest.strip_prefix("provider/")?.to_owned()))
    };
    found.into_iter().filter_map(|(name, value)| parts(&name).map(|(lane, about)| (lane, about, value))).collect()
}

/// Adds to a quota what the others used after its own record was written (`own`: when; `None`: there
/// is none). `now` is the quota's own time.
pub(super) fn add(window: &mut Window, of: &str, others: &Others, own: Option<&Mark>, now: i64, mark: &Mark) {
    let mut lanes: Vec<&str> = others.iter().map(|(lane, ..)| lane.as_str()).collect();
    lanes.dedup();
    for lane in lanes {
        let records = || {
            let of_lane = others.iter().filter(|(other, about, _)| other == lane && about != "warmup");
            of_lane
                .filter_map(|(_, about, value)| Some((about.as_str(), serde_json::from_slice::<Record>(value).ok()?)))
        };
        let Some(record) = nearest(of, records) else { continue };
        if own.is_none_or(|own| !record.mark.since(own).is_zero()) {
            window.also(&record, now, mark);
        }
    }
}

/// A day's count with what the others used on it.
pub(super) fn day(own: Option<DayRecord>, others: &Others) -> Option<DayRecord> {
    let days = || {
        let of_day = others.iter().filter(|(_, about, _)| about == "warmup");
        of_day.filter_map(|(.., value)| serde_json::from_slice::<DayRecord>(value).ok())
    };
    let Some(latest) = days().map(|record| record.day).max() else { return own };
    let count = days().filter(|record| record.day == latest).fold(0u32, |sum, record| sum.saturating_add(record.count));
    match own {
        Some(own) if own.day > latest => Some(own),
        Some(own) if own.day == latest => Some(DayRecord { day: latest, count: count.max(own.count) }),
        _ => Some(DayRecord { day: latest, count }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::cost::Cost;
    use super::super::ledger::Ledger;
    use super::super::reserve::Quotas;
    use super::super::reserve::testing::Store;
    use crate::clock::{Clock, Timestamp};
    use crate::config::units::Rate;
    use crate::config::{Count, Overflow, Warmup};

    /// The quota of a lane in a process that starts now, and how much of it can be used.
    async fn use_up(store: &Store, clock: Clock, lane: &str, at_most: u32) -> u32 {
        // So that every record has a time of its own.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ledger = Ledger::new(Arc::new(store.clone()), clock);
        let quota: Rate = "100/d".parse().expect("a rate");
        let start = Timestamp(0);
        let plan =
            Warmup { start, days: vec![80], length: 100_000, overflow: Overflow::Wait, before: Default::default() };
        let quotas = Quotas::new(&ledger, lane, "provider", &[quota.into()], Count::Messages, Some(&plan));
        let quotas = quotas.expect("quotas");
        quotas.load().await;
        let mut used = 0;
        while used < at_most {
            match quotas.try_take(1) {
                Ok(_) => used += 1,
                Err(super::super::quota::Refusal::Reserve) => quotas.reserve(1).await,
                Err(super::super::quota::Refusal::Wait(_)) => break,
            }
        }
        used
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_key_frees_nothing() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(use_up(&store, clock, "p", 30).await, 30);
        // Each source begins with what all together had used.
        assert_eq!(use_up(&store, clock, "p@192.0.2.1", 10).await, 10);
        let second = use_up(&store, clock, "p@192.0.2.2", u32::MAX).await;
        assert!((49..=50).contains(&second), "{second} of 80 - 30");
        // And together they have used up what they may together.
        assert_eq!(use_up(&store, clock, "p", u32::MAX).await, 0);
        // Another provider, whose name begins the same, has its own.
        assert_eq!(use_up(&store, clock, "p2", u32::MAX).await, 80);
        let first = use_up(&store, clock, "p@192.0.2.1", u32::MAX).await;
        assert!((38..=40).contains(&first), "{first}: its own record is the newer one");
    }

    /// Takes transactions of so many recipients in a process that starts now; how many there were.
    async fn send(store: &Store, clock: Clock, quotas: &[&str], recipients: usize, at_most: u32) -> u32 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ledger = Ledger::new(Arc::new(store.clone()), clock);
        let quotas: Vec<_> = quotas.iter().map(|quota| quota.parse().expect("a quota")).collect();
        let quotas = Quotas::new(&ledger, "p", "provider", &quotas, Count::Messages, None).expect("quotas");
        quotas.load().await;
        let (mut sent, cost) = (0, Cost::of(recipients));
        while sent < at_most {
            match quotas.try_take(cost) {
                Ok(_) => sent += 1,
                Err(super::super::quota::Refusal::Reserve) => quotas.reserve(cost).await,
                Err(super::super::quota::Refusal::Wait(_)) => break,
            }
        }
        sent
    }

    /// Each of two units goes on over a restart where it was; what a killed process had reserved is lost.
    #[tokio::test(start_paused = true)]
    async fn invariant_3_each_unit_has_its_own_record() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        let both = ["40/d messages", "200/d recipients"];
        assert_eq!(send(&store, clock, &both, 5, 10).await, 10, "10 messages, 50 recipients");
        assert_eq!(send(&store, clock, &both, 10, 5).await, 5, "15 messages, 100 recipients");
        let recipients = send(&store, clock, &both, 20, u32::MAX).await;
        assert!((4..=5).contains(&recipients), "{recipients}: the recipients are used up");
        assert_eq!(send(&store, clock, &both, 1, u32::MAX).await, 0);
        let messages = send(&store, clock, &["40/d messages"], 1, u32::MAX).await;
        assert!((18..=20).contains(&messages), "{messages}: of messages there are some");
    }

    /// Records from before limits had units, and of a unit that was changed.
    #[tokio::test(start_paused = true)]
    async fn a_new_unit_starts_from_what_is_known() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(send(&store, clock, &["100/d"], 1, 60).await, 60);
        let recipients = send(&store, clock, &["100/d recipients"], 1, u32::MAX).await;
        assert!((39..=40).contains(&recipients), "{recipients}");
        assert_eq!(send(&store, clock, &["100/d recipients", "50/h recipients"], 1, u32::MAX).await, 0);
        let other = (Store::default(), Clock::for_tests());
        assert_eq!(send(&other.0, other.1, &["100/d recipients"], 10, 6).await, 6);
        let messages = send(&other.0, other.1, &["100/d messages"], 1, u32::MAX).await;
        assert!((39..=40).contains(&messages), "{messages}: a recipient is at most one message");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_left_the_window_counts_no_more() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(use_up(&store, clock, "p", u32::MAX).await, 80);
        tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
        assert_eq!(use_up(&store, clock, "p@192.0.2.1", u32::MAX).await, 80);
    }
}
