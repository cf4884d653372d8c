//! What is given up comes back, and nothing else does.

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::config::{Overflow, Provider, Warmup, sample};
use crate::shape::Refused;
use crate::shape::reserve::testing::Store;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The gate of a lane in a process, or a life of the lane, that begins now.
async fn begin(store: &Store, clock: Clock, provider: &Provider) -> (Arc<Ledger>, Arc<Gate>) {
    let ledger = Ledger::new(Arc::new(store.clone()), clock);
    let gate = Arc::new(Gate::of_provider(&ledger, "p", provider));
    gate.load().await;
    (ledger, gate)
}

/// Takes up to `most` cells; returns how many there were.
async fn take(gate: &Arc<Gate>, most: u32) -> u32 {
    let mut taken = 0;
    while taken < most {
        match gate.try_take(1) {
            Ok(permit) => {
                permit.spend();
                taken += 1;
            }
            Err(Refused::Reserve) => gate.reserve(1).await,
            Err(_) => break,
        }
    }
    taken
}

/// A sliding quota, and the day of a warm-up with the same number.
fn kinds() -> [Provider; 2] {
    let provider = || Provider { rate: Vec::new(), ..sample::provider("p") };
    let plan = Warmup {
        start: Timestamp(0),
        days: vec![1000],
        length: 100_000,
        overflow: Overflow::Wait,
        before: Default::default(),
    };
    let quota = vec!["1000/d".parse().expect("a quota")];
    [Provider { quota, ..provider() }, Provider { warmup: Some(plan), ..provider() }]
}

#[tokio::test(start_paused = true)]
async fn a_life_that_ends_in_good_order_loses_nothing_and_one_that_is_killed_its_block() {
    for provider in kinds() {
        let (store, clock) = (Store::default(), Clock::for_tests());
        for _ in 0..100 {
            let (ledger, gate) = begin(&store, clock, &provider).await;
            assert_eq!(take(&gate, 2).await, 2);
            assert!(!gate.is_disposable(), "three of the five are reserved");
            ledger.release(std::slice::from_ref(&gate)).await.expect("the store works");
            assert!(gate.is_disposable());
            let writes = store.writes.load(Ordering::Relaxed);
            ledger.release(&[gate]).await.expect("the store works");
            assert_eq!(store.writes.load(Ordering::Relaxed), writes, "nothing more to tell");
        }
        let (_, gate) = begin(&store, clock, &provider).await;
        assert_eq!(take(&gate, 2).await, 2);
        let (_, gate) = begin(&store, clock, &provider).await;
        assert_eq!(take(&gate, u32::MAX).await, 1000 - 200 - 5);
    }
}

/// Whether the record without the block becomes durable or not, a kill right after it frees nothing,
/// and the gate itself may go on.
#[tokio::test(start_paused = true)]
async fn invariant_3_giving_up_is_safe_whenever_the_process_dies() {
    for provider in kinds() {
        for fails in [true, false] {
            let (store, clock) = (Store::default(), Clock::for_tests());
            let (ledger, gate) = begin(&store, clock, &provider).await;
            assert_eq!(take(&gate, 2).await, 2);
            let unspent = gate.try_take(1).expect("a third of the block");
            store.broken.store(fails, Ordering::Relaxed);
            assert_eq!(ledger.release(std::slice::from_ref(&gate)).await.is_err(), fails);
            store.broken.store(false, Ordering::Relaxed);
            assert!(matches!(gate.try_take(1), Err(Refused::Reserve)), "the block is given up in any case");
            drop(unspent);
            let at_least = if fails { 5 } else { 3 };
            let (_, after_kill) = begin(&store, clock, &provider).await;
            assert_eq!(take(&after_kill, u32::MAX).await, 1000 - at_least);
        }
        let (store, clock) = (Store::default(), Clock::for_tests());
        let (ledger, gate) = begin(&store, clock, &provider).await;
        assert_eq!(take(&gate, 2).await, 2);
        ledger.release(std::slice::from_ref(&gate)).await.expect("the store works");
        assert_eq!(take(&gate, u32::MAX).await, 998, "it goes on, up to the last cell");
        let (_, gate) = begin(&store, clock, &provider).await;
        assert_eq!(take(&gate, u32::MAX).await, 0);
    }
}

/// While one is being made durable nothing is reserved: the later record would be the older one.
#[tokio::test(start_paused = true)]
async fn who_reserves_waits_for_what_is_given_up() {
    let [provider, _] = kinds();
    let (store, clock) = (Store { slow: Duration::from_secs(5), ..Store::default() }, Clock::for_tests());
    let (ledger, gate) = begin(&store, clock, &provider).await;
    assert_eq!(take(&gate, 2).await, 2);
    let gates = [gate.clone()];
    let (released, taken) = tokio::join!(ledger.release(&gates), take(&gate, 3));
    released.expect("the store works");
    assert_eq!(taken, 3);
    let (_, after_kill) = begin(&store, clock, &provider).await;
    assert_eq!(take(&after_kill, u32::MAX).await, 1000 - 7, "two and a block of five");
}
