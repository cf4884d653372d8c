//! Lanes that are forgotten and come back have the room in their quotas that they had.

use super::*;
use crate::queue::sqlite::SqliteQueue;
use crate::shape::reserve::testing::Store;
use std::sync::atomic::Ordering;

/// A process that starts now, with a quota of 1000 a day in every lane.
fn start(dir: &tempfile::TempDir, store: &Store, clock: Clock) -> Scheduler {
    start_with(dir, store, clock, &["1000/d"])
}

fn start_with(dir: &tempfile::TempDir, store: &Store, clock: Clock, quota: &'static [&'static str]) -> Scheduler {
    let queue = SqliteQueue::open(&dir.path().join("q.db"), clock).expect("a queue");
    let scheduler = Scheduler::new(queue, clock, 1 << 20, Vec::new(), |_| {
        let quota = quota.iter().map(|quota| quota.parse().expect("a quota")).collect();
        Arc::new(Provider { quota, rate: Vec::new(), connections: 1, ..testing::provider("p") })
    });
    let mut scheduler = Arc::into_inner(scheduler).expect("nobody else has it");
    scheduler.ledger = Ledger::new(Arc::new(store.clone()), clock);
    scheduler
}

/// Sends up to `most` messages without a wait; returns how many.
async fn send(scheduler: &Scheduler, most: u32) -> u32 {
    let lane = scheduler.lane(&LaneName::from("p"));
    for sent in 0..most {
        let wake = lane.push([testing::job("a@a", "x.example", 0, &[sent])]);
        let got = lane.next(None, Duration::from_secs(1)).await;
        if let Ok((mut job, _)) = got {
            lane.permit(&mut job).await.expect("a permit").spend();
            lane.settled(1);
        }
        assert_eq!(wake, Wake::Start);
        if lane.snapshot().ready > 0 {
            return sent;
        }
        assert_eq!(lane.worker_gone(), Wake::Nobody);
    }
    most
}

async fn sweep(scheduler: &Scheduler) {
    scheduler.forget_unused();
    scheduler.release(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_forgotten_between_its_messages_uses_of_its_quota_what_it_sends() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, clock) = (Store::default(), Clock::for_tests());
    let scheduler = start(&dir, &store, clock);
    for n in 0..300 {
        assert_eq!(send(&scheduler, 1).await, 1, "message {n}");
        tokio::time::advance(Duration::from_secs(120)).await;
        sweep(&scheduler).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        sweep(&scheduler).await;
        assert!(scheduler.known(&LaneName::from("p")).is_none(), "forgotten after message {n}");
    }
    let writes = store.writes.load(Ordering::Relaxed);
    assert_eq!(writes, 600, "one to reserve and one to give up");
    assert_eq!(send(&scheduler, u32::MAX).await, 700);
}

#[tokio::test(start_paused = true)]
async fn a_lane_whose_part_cannot_be_given_up_stays_until_it_can() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, clock) = (Store::default(), Clock::for_tests());
    let scheduler = start(&dir, &store, clock);
    let name = LaneName::from("p");
    assert_eq!(send(&scheduler, 1).await, 1);
    store.broken.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        sweep(&scheduler).await;
    }
    assert!(scheduler.known(&name).is_some());
    store.broken.store(false, Ordering::Relaxed);
    for _ in 0..2 {
        sweep(&scheduler).await;
    }
    assert!(scheduler.known(&name).is_none());
    assert_eq!(send(&scheduler, u32::MAX).await, 999);
}

#[tokio::test(start_paused = true)]
async fn a_restart_in_good_order_uses_nothing_of_a_quota_and_a_kill_a_block() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    for _ in 0..50 {
        let dir = tempfile::tempdir().expect("a directory");
        let scheduler = start(&dir, &store, clock);
        scheduler.begin_rates(true).await.expect("the store works");
        assert_eq!(send(&scheduler, 1).await, 1);
        scheduler.end_rates().await.expect("the store works");
    }
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(send(&start(&dir, &store, clock), 1).await, 1);
    let dir = tempfile::tempdir().expect("a directory");
    assert_eq!(send(&start(&dir, &store, clock), u32::MAX).await, 1000 - 50 - 5);
}

/// A lane that always has something to do is never forgotten, and a kill comes without a word: what left there is
/// stored at each sweep, for a quota to come.
#[tokio::test(start_paused = true)]
async fn a_kill_forgets_of_a_busy_lane_without_a_quota_what_left_since_the_last_sweep() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    let dir = tempfile::tempdir().expect("a directory");
    let scheduler = start_with(&dir, &store, clock, &[]);
    let lane = scheduler.lane(&LaneName::from("p"));
    // One is always ready, and one under way.
    let _ = lane.push((0..2).map(|n| testing::job("a@a", "x.example", 0, &[n])));
    let (mut other, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
    let _under_way = lane.permit(&mut other).await.expect("a permit").spend();
    let leave = async |most: u32| {
        for n in 0..most {
            let _ = lane.push([testing::job("a@a", "x.example", 0, &[10 + n])]);
            let (mut job, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
            lane.permit(&mut job).await.expect("a permit").spend();
            lane.settled(1);
        }
    };
    leave(30).await;
    for _ in 0..2 {
        sweep(&scheduler).await;
    }
    assert!(scheduler.known(&LaneName::from("p")).is_some(), "it is busy");
    leave(5).await;
    let dir = tempfile::tempdir().expect("a directory");
    let left = send(&start(&dir, &store, clock), u32::MAX).await;
    assert_eq!(left, 1000 - 30 - 1, "what is under way counts, and the five since then are forgotten");
}
