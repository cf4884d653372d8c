//! Lives that end in any way, one after another: never above, and live.

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::shape::reserve::testing::Store;
use proptest::prelude::*;
use std::sync::atomic::Ordering;
use tokio::time::advance;

const T0: i64 = 1_790_000_000_000;

fn rate(count: u32, per_ms: u64) -> Rate {
    Rate { count, per: Duration::from_millis(per_ms) }
}

/// The next process on that store. Its wall clock is `skew` ms off.
async fn start(store: &Store, clock: Clock, skew: i64) -> Arc<Ledger> {
    let clock = match clock {
        Clock::Tokio { base, start } => Clock::Tokio { base: Timestamp(base.0 + skew), start },
        Clock::System => clock,
    };
    let ledger = Ledger::new(Arc::new(store.clone()), clock);
    ledger.begin(true).await.expect("the store works");
    ledger
}

async fn stop(ledger: &Ledger, limiters: &[(&str, &Arc<Limiter>)]) {
    ledger.close();
    let lacked = limiters.iter().map(|(name, limiter)| ((*name).to_owned(), limiter.close())).collect();
    ledger.end(lacked).await.expect("the store works");
}

#[tokio::test(start_paused = true)]
async fn invariant_3_a_killed_process_gives_the_next_one_no_second_burst() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    let rates = [rate(1, 60_000)];
    let ledger = start(&store, clock, 0).await;
    let limiter = ledger.limiter("p/provider", &rates, 5);
    limiter.try_take(5).expect("a new store begins full").spend();
    advance(Duration::from_secs(30)).await;
    let ledger = start(&store, clock, 0).await;
    let limiter = ledger.limiter("p/provider", &rates, 5);
    assert_eq!(limiter.try_take(1).map(drop), Err(Duration::from_secs(60)), "empty, nobody knows better");
    advance(Duration::from_secs(300)).await;
    // A lane that begins later has had the time since the start.
    let other = ledger.limiter("q/provider", &rates, 5);
    for limiter in [limiter, other] {
        limiter.try_take(5).expect("full again").spend();
    }
    assert_eq!(store.writes.load(Ordering::Relaxed), 2, "one write a start, none a message");
}

#[tokio::test(start_paused = true)]
async fn an_orderly_restart_goes_on_where_it_was() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    let (slow, fast) = ([rate(24, 86_400_000)], [rate(10, 1000), rate(1, 60_000)]);
    let ledger = start(&store, clock, 0).await;
    let limiter = ledger.limiter("p/provider", &slow, 0);
    let (two, unused) = (ledger.limiter("q/provider", &fast, 3), ledger.limiter("r/provider", &slow, 0));
    limiter.try_take(1).expect("the first").spend();
    two.try_take(2).expect("of the burst").spend();
    advance(Duration::from_secs(600)).await;
    two.try_take(2).expect("of the burst").spend();
    stop(&ledger, &[("p/provider", &limiter), ("q/provider", &two), ("r/provider", &unused)]).await;
    assert!(limiter.try_take(1).is_err() && unused.try_take(1).is_err(), "nothing leaves after that");
    assert!(ledger.limiter("s/provider", &slow, 0).try_take(1).is_err(), "nor in new lanes");
    let stored: Vec<String> = store.entries.lock().keys().cloned().collect();
    assert_eq!(stored, ["rates/", "rates/p/provider", "rates/q/provider"], "what is full is not worth a record");

    advance(Duration::from_secs(1200)).await;
    let ledger = start(&store, clock, 0).await;
    assert_eq!(store.entries.lock().len(), 1, "taken up once");
    let limiter = ledger.limiter("p/provider", &slow, 0);
    let wait = limiter.try_take(1).map(drop).expect_err("the hour is not over");
    assert!(wait > Duration::from_secs(1799) && wait <= Duration::from_millis(1_800_002), "{wait:?}");
    ledger.limiter("q/provider", &fast, 3).try_take(3).expect("20 minutes brought it all back").spend();
    ledger.limiter("r/provider", &slow, 0).try_take(1).expect("never used").spend();
    // A rate that is new where something was used begins empty.
    let changed = ledger.limiter("p/provider", &[rate(12, 86_400_000)], 0);
    assert!(changed.wait_for(1) > Duration::from_secs(5900), "{:?}", changed.wait_for(1));

    // The record does not count for a second process.
    let ledger = start(&store, clock, 0).await;
    assert_eq!(ledger.limiter("r/provider", &slow, 0).wait_for(1), Duration::from_secs(3600));
}

#[tokio::test(start_paused = true)]
async fn a_rate_goes_on_where_limits_begin_or_cease_to_hold_for_each_source() {
    let (store, clock) = (Store::default(), Clock::for_tests());
    let (hourly, hour) = ([rate(1, 3_600_000)], Duration::from_secs(3600));
    let ledger = start(&store, clock, 0).await;
    let limiter = ledger.limiter("p/provider", &hourly, 2);
    limiter.try_take(2).expect("the burst").spend();
    stop(&ledger, &[("p/provider", &limiter)]).await;

    let ledger = start(&store, clock, 0).await;
    let sources = ["p@192.0.2.1/provider", "p@192.0.2.2/provider", "p2@192.0.2.1/provider"];
    let [first, second, other] = sources.map(|name| ledger.limiter(name, &hourly, 2));
    assert!(first.wait_for(1) >= hour && second.wait_for(1) >= hour, "as all together were");
    assert_eq!(other.wait_for(2), Duration::ZERO, "another provider");
    advance(2 * hour + Duration::from_millis(2)).await;
    first.try_take(1).expect("full again").spend();
    let named = [(sources[0], &first), (sources[1], &second), (sources[2], &other)];
    // Shared by several lanes, it is asked more than once: the first answer counts.
    ledger.close();
    let again = named.iter().chain(&named).map(|(name, limiter)| ((*name).to_owned(), limiter.close())).collect();
    ledger.end(again).await.expect("the store works");

    let ledger = start(&store, clock, 0).await;
    assert_eq!(ledger.limiter(sources[1], &hourly, 2).wait_for(2), Duration::ZERO, "was full");
    assert!(ledger.limiter(sources[0], &hourly, 2).wait_for(2) <= hour + Duration::from_millis(2), "lacked one");
    assert_eq!(ledger.limiter("p/provider", &hourly, 2).wait_for(1), hour, "nobody knows what all together sent");
}

#[tokio::test(start_paused = true)]
async fn without_a_marker_only_an_empty_store_begins_full() {
    let rates = [rate(1, 60_000)];
    for (new, rubbish, wait) in [(true, None, 0), (false, None, 60), (true, Some("rubbish"), 60)] {
        let store = Store::default();
        if let Some(text) = rubbish {
            store.entries.lock().insert(PREFIX.into(), text.into());
        }
        let ledger = Ledger::new(Arc::new(store.clone()), Clock::for_tests());
        ledger.begin(new).await.expect("the store works");
        assert_eq!(ledger.limiter("p/provider", &rates, 0).wait_for(1), Duration::from_secs(wait));
    }
    let store = Store::default();
    store.broken.store(true, Ordering::Relaxed);
    assert!(Ledger::new(Arc::new(store), Clock::for_tests()).begin(true).await.is_err(), "nothing may be sent");
}

/// How a life ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    Stop,
    /// In good order, but the store fails.
    StopUnstored,
    /// Killed between the records and the marker.
    KillInStop,
}

/// What is taken (after a pause, cells, given back); its end; how long it is down, how far its wall
/// clock is set back, and when its limiter is made, all in ms.
type Life = (Vec<(u64, u32, bool)>, End, u64, i64, u64);

fn life() -> impl Strategy<Value = Life> {
    let step = (0u64..400, 1u32..4, proptest::bool::weighted(0.2));
    let end =
        prop_oneof![Just(End::Kill), Just(End::Stop), Just(End::Stop), Just(End::StopUnstored), Just(End::KillInStop)];
    let down = prop_oneof![Just(0u64), 0u64..500, 0u64..20_000];
    (proptest::collection::vec(step, 0..30), end, down, -5000i64..1, 0u64..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn invariant_3_no_window_across_lives_gets_more_than_the_rate_and_its_burst(
        count in 1u32..50, per in 1u64..5000, burst in 1u32..8, second in 1u32..200,
        lives in proptest::collection::vec(life(), 1..12)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rates = [rate(count, per), rate(second, 60_000)];
            let store = Store::default();
            let began = Instant::now();
            let clock = Clock::Tokio { base: Timestamp(T0), start: began };
            let mut events: Vec<Duration> = Vec::new();
            let mut skew = 0;
            let mut last = None;
            for (steps, end, down, back, late) in lives {
                store.broken.store(false, Ordering::Relaxed);
                let ledger = start(&store, clock, skew).await;
                advance(Duration::from_millis(late)).await;
                let limiter = ledger.limiter("p/provider", &rates, burst);
                let mut held = Vec::new();
                for (pause, cells, unused) in steps {
                    advance(Duration::from_millis(pause)).await;
                    match limiter.try_take(cells) {
                        Ok(tokens) if unused => held.push(tokens),
                        Ok(tokens) => {
                            tokens.spend();
                            events.extend((0..cells.min(burst)).map(|_| began.elapsed()));
                        }
                        Err(_) => held.clear(),
                    }
                }
                match end {
                    End::Kill => {}
                    End::Stop => stop(&ledger, &[("p/provider", &limiter)]).await,
                    End::StopUnstored => {
                        store.broken.store(true, Ordering::Relaxed);
                        ledger.close();
                        assert!(ledger.end(vec![("p/provider".into(), limiter.close())]).await.is_err());
                    }
                    End::KillInStop => {
                        let record = (format!("{PREFIX}p/provider"), Some(json(&limiter.close())));
                        ledger.memos.remember(vec![record]).await.expect("the store works");
                    }
                }
                // What was taken and not begun is given back after the end, or never.
                drop(held);
                advance(Duration::from_millis(down)).await;
                skew += back;
                last = Some(ledger);
            }
            for rate in rates {
                for (i, from) in events.iter().enumerate() {
                    for (j, to) in events.iter().enumerate().skip(i) {
                        let window = (*to - *from).as_secs_f64();
                        let most = window * f64::from(rate.count) / rate.per.as_secs_f64() + f64::from(burst);
                        assert!((j - i + 1) as f64 <= most + 1e-6, "{} in {window} s, allowed {most}", j - i + 1);
                    }
                }
            }
            // Live: the next process has a full burst again as soon as that time has passed.
            drop(last);
            store.broken.store(false, Ordering::Relaxed);
            let ledger = start(&store, clock, skew).await;
            let limiter = ledger.limiter("p/provider", &rates, burst);
            let slowest = rates.iter().map(|rate| rate.per / rate.count).max().unwrap_or_default();
            advance(slowest * (burst + 1) + Duration::from_millis(2)).await;
            assert!(limiter.try_take(burst).map(drop).is_ok());
        });
    }
}

/// What a lane lacked that nobody made in a process holds in the one after it, whether that was known or not.
#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_make_a_lane_frees_nothing() {
    let hourly = [rate(1, 3_600_000)];
    for killed in [false, true] {
        let (store, clock) = (Store::default(), Clock::for_tests());
        let ledger = start(&store, clock, 0).await;
        let limiter = ledger.limiter("@x.example/provider", &hourly, 0);
        limiter.try_take(1).expect("the first").spend();
        if !killed {
            stop(&ledger, &[("@x.example/provider", &limiter)]).await;
        }
        for _ in 0..3 {
            advance(Duration::from_secs(300)).await;
            let ledger = start(&store, clock, 0).await;
            stop(&ledger, &[]).await;
        }
        let ledger = start(&store, clock, 0).await;
        let limiter = ledger.limiter("@x.example/provider", &hourly, 0);
        let wait = limiter.wait_for(1);
        let expected = Duration::from_secs(if killed { 3000 } else { 2700 });
        assert!(wait >= expected && wait < expected + Duration::from_secs(1), "{wait:?}, killed: {killed}");
        stop(&ledger, &[("@x.example/provider", &limiter)]).await;
        advance(Duration::from_secs(3001)).await;
        let ledger = start(&store, clock, 0).await;
        assert!(ledger.limiter("@x.example/provider", &hourly, 0).is_full());
    }
}
