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
use crate::config::units::Span;
use crate::mail::LaneName;

/// Other gates' records: the lane, what the record is about (`1h`, `warmup`), and itself.
pub(super) type Others = Vec<(String, String, Bytes)>;

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
pub(super) fn add(window: &mut Window, per: Span, others: &Others, own: Option<&Mark>, now: i64, mark: &Mark) {
    let mut lanes: Vec<&str> = others.iter().map(|(lane, ..)| lane.as_str()).collect();
    lanes.dedup();
    for lane in lanes {
        let records = || {
            let of_lane = others.iter().filter(|(other, about, _)| other == lane && about != "warmup");
            of_lane.filter_map(|(_, about, value)| Some((about, serde_json::from_slice::<Record>(value).ok()?)))
        };
        let same = records().find(|(about, _)| **about == per.to_string());
        let Some((_, record)) = same.or_else(|| records().max_by_key(|(_, record)| record.window)) else { continue };
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

    use super::super::ledger::Ledger;
    use super::super::reserve::Quotas;
    use super::super::reserve::testing::Store;
    use crate::clock::{Clock, Timestamp};
    use crate::config::units::Rate;
    use crate::config::{Overflow, Warmup};

    /// The quota of a lane in a process that starts now, and how much of it can be used.
    async fn use_up(store: &Store, clock: Clock, lane: &str, at_most: u32) -> u32 {
        // So that every record has a time of its own.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let ledger = Ledger::new(Arc::new(store.clone()), clock);
        let quota: Rate = "100/d".parse().expect("a rate");
        let start = Timestamp(0);
        let plan = Warmup { start, days: vec![80], length: 100_000, overflow: Overflow::Wait };
        let quotas = Quotas::new(&ledger, lane, "provider", &[quota], Some(&plan)).expect("quotas");
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

    #[tokio::test(start_paused = true)]
    async fn what_has_left_the_window_counts_no_more() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(use_up(&store, clock, "p", u32::MAX).await, 80);
        tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
        assert_eq!(use_up(&store, clock, "p@192.0.2.1", u32::MAX).await, 80);
    }
}
