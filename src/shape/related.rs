//! What a gate has to know of others when `limits_per` changed: the limits of one source address
//! begin where those of all together have been, and the other way round, so that no window and no
//! day sees more than its number because a configuration was changed in it. Pure.
//!
//! Of the others counts what left after the gate's own record was written; its own next record has
//! it in it. What is known to a grain only may count twice for one window, never too little.

use bytes::Bytes;

use super::quota::Account;
use super::record::{self, Record};
use crate::clock::{Mark, Timestamp};
use crate::mail::LaneName;

/// Where the records of related gates are, for the gate `provider` of a lane: the first part of
/// their names behind `quota/`.
pub(super) fn prefix(lane: &LaneName) -> String {
    match lane.source() {
        Some(_) => format!("{}/provider/", lane.base()),
        None => format!("{}@", lane.base()),
    }
}

/// The related ones among what was found there; names without `quota/`.
pub(super) fn others(found: Vec<(String, Bytes)>, now: Timestamp, mark: &Mark) -> Vec<Record> {
    let mut lanes: Vec<(String, Vec<(String, Bytes)>)> = Vec::new();
    for (name, value) in found {
        let Some((lane, rest)) = name.split_once('/') else { continue };
        let Some(about) = rest.strip_prefix("provider/") else { continue };
        let entry = (about.to_owned(), value);
        match lanes.iter_mut().find(|(known, _)| known == lane) {
            Some((_, entries)) => entries.push(entry),
            None => lanes.push((lane.to_owned(), vec![entry])),
        }
    }
    lanes.iter().filter_map(|(_, entries)| record::read(entries, now, mark)).collect()
}

/// Adds to an account what the others used after its own record was written. `now` is the account's own
/// time.
pub(super) fn add(account: &mut Account, others: &[Record], own: Option<&Record>, now: i64, mark: &Mark) {
    for other in others {
        let since = own.map_or(i64::MAX, |own| own.age(mark));
        if other.age(mark) >= since {
            continue;
        }
        let used = account.also(other, since, now, mark);
        match own {
            // All of it left on that day, too.
            Some(own) if own.day.0 == other.day.0 => account.join_day(other.day.0, used),
            _ => account.join_day(other.day.0, other.day_used()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::cost::Cost;
    use super::super::ledger::Ledger;
    use super::super::reserve::testing::Store;
    use super::super::reserve::{Quotas, Standing};
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
        let quotas =
            Quotas::new(&ledger, (lane, "provider", Standing::Named), &[quota.into()], Count::Messages, Some(&plan));
        let quotas = quotas.expect("quotas");
        quotas.load().await;
        let mut used = 0;
        while used < at_most {
            match quotas.try_take(1) {
                Ok(charge) => {
                    quotas.left(charge);
                    used += 1;
                }
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
        let quotas =
            Quotas::new(&ledger, ("p", "provider", Standing::Named), &quotas, Count::Messages, None).expect("quotas");
        quotas.load().await;
        let (mut sent, cost) = (0, Cost::of(recipients));
        while sent < at_most {
            match quotas.try_take(cost) {
                Ok(charge) => {
                    quotas.left(charge);
                    sent += 1;
                }
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

    /// What left is known in both units, whichever was counted.
    #[tokio::test(start_paused = true)]
    async fn a_new_unit_counts_what_really_left() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(send(&store, clock, &["100/d"], 1, 60).await, 60);
        let recipients = send(&store, clock, &["100/d recipients"], 1, u32::MAX).await;
        assert!((39..=40).contains(&recipients), "{recipients}");
        assert_eq!(send(&store, clock, &["100/d recipients", "50/h recipients"], 1, u32::MAX).await, 0);
        let other = (Store::default(), Clock::for_tests());
        assert_eq!(send(&other.0, other.1, &["100/d recipients"], 10, 6).await, 6);
        let messages = send(&other.0, other.1, &["100/d messages"], 1, u32::MAX).await;
        assert!((93..=94).contains(&messages), "{messages}: six messages left");
        assert_eq!(send(&other.0, other.1, &["150/d recipients"], 1, u32::MAX).await, 0, "60 and those");
        let third = (Store::default(), Clock::for_tests());
        assert_eq!(send(&third.0, third.1, &["20/d messages"], 50, 10).await, 10);
        assert_eq!(send(&third.0, third.1, &["500/d recipients"], 1, u32::MAX).await, 0, "500 recipients left");
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_left_the_window_counts_no_more() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        assert_eq!(use_up(&store, clock, "p", u32::MAX).await, 80);
        tokio::time::sleep(Duration::from_secs(2 * 86_400)).await;
        assert_eq!(use_up(&store, clock, "p@192.0.2.1", u32::MAX).await, 80);
    }
}
