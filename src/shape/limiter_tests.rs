//! Never above, all or nothing, and live, on paused time.

use super::*;
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep};

fn rate(count: u32, per_ms: u64) -> Rate {
    Rate { count, per: Duration::from_millis(per_ms) }
}

/// Every window that starts at one event and ends at another, edges included.
fn assert_never_above(events: &[Duration], rate: Rate, burst: u32) {
    for (i, from) in events.iter().enumerate() {
        for (j, to) in events.iter().enumerate().skip(i) {
            let seen = (j - i + 1) as f64;
            let window = (*to - *from).as_secs_f64();
            let most = window * f64::from(rate.count) / rate.per.as_secs_f64() + f64::from(burst);
            assert!(seen <= most + 1e-6, "{seen} in {window} s, allowed {most}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn invariant_3_never_above_the_limit_and_live() {
    let limiter = Arc::new(Limiter::new(&[rate(20, 1000)], 5));
    let start = Instant::now();
    let mut events = Vec::new();
    while events.len() < 200 {
        match limiter.try_take(1) {
            Ok(permit) => {
                permit.spend();
                events.push(start.elapsed());
            }
            Err(wait) => sleep(wait).await,
        }
    }
    assert_never_above(&events, rate(20, 1000), 5);
    let took = start.elapsed().as_secs_f64();
    assert!(took < 195.0 / 20.0 + 0.3, "only {} in {took} s", events.len());
}

#[tokio::test(start_paused = true)]
async fn several_rates_are_taken_all_or_none() {
    let limiter = Arc::new(Limiter::new(&[rate(10, 1000), rate(30, 60_000)], 3));
    for _ in 0..3 {
        limiter.try_take(1).expect("burst").spend();
    }
    // The slow rate refuses now for 2 s; the fast one must not lose cells to the refusals.
    for _ in 0..50 {
        assert!(limiter.try_take(1).is_err());
    }
    advance(Duration::from_millis(2000)).await;
    limiter.try_take(1).expect("one cell of the slow rate").spend();
    assert!(limiter.try_take(1).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_permit_goes_back_and_a_spent_one_does_not() {
    let limiter = Arc::new(Limiter::new(&[rate(1, 60_000)], 1));
    drop(limiter.try_take(1).expect("first"));
    let permit = limiter.try_take(1).expect("came back");
    permit.spend();
    assert!(limiter.try_take(1).is_err());
    assert!(limiter.wait_for(1) > Duration::from_secs(59));
}

#[tokio::test(start_paused = true)]
async fn giving_back_after_a_pause_permits_nothing_extra() {
    let limiter = Arc::new(Limiter::new(&[rate(1, 1000)], 2));
    let old = limiter.try_take(2).expect("burst");
    advance(Duration::from_secs(10)).await;
    limiter.try_take(2).expect("replenished").spend();
    drop(old);
    assert!(limiter.try_take(1).is_err(), "the old permit weighs nothing any more");
}

#[tokio::test(start_paused = true)]
async fn what_would_have_flowed_over_without_a_permit_does_not_come_back_with_it() {
    let limiter = Arc::new(Limiter::new(&[rate(1, 1000)], 2));
    limiter.try_take(1).expect("of the burst").spend();
    advance(Duration::from_millis(500)).await;
    let unused = limiter.try_take(1).expect("of the burst");
    advance(Duration::from_secs(1)).await;
    limiter.try_take(1).expect("the bucket was full again").spend();
    drop(unused);
    limiter.try_take(1).expect("came back").spend();
    assert_eq!(limiter.try_take(1).map(drop), Err(Duration::from_secs(1)), "two at once is the burst");
}

/// The pace changes all the time: the cells in a window are at most its integral, plus one and
/// what 10 ms bring; the configured rate holds besides; a stop holds.
#[tokio::test(start_paused = true)]
async fn invariant_3_a_changing_pace_permits_no_more_than_its_integral() {
    let limiter = Arc::new(Limiter::new(&[rate(50, 1000)], 1));
    let start = Instant::now();
    let (mut integral, mut taken) = (0.0f64, Vec::new());
    for step in 0..4000u32 {
        let pace = [5.0, 20.0, 0.5, 400.0][(step / 400) as usize % 4];
        limiter.set_pace(Some(pace));
        while limiter.try_take(1).map(Tokens::spend).is_ok() {
            taken.push((start.elapsed(), integral));
        }
        advance(Duration::from_millis(5)).await;
        integral += pace * 0.005;
    }
    assert_never_above(&taken.iter().map(|(at, _)| *at).collect::<Vec<_>>(), rate(50, 1000), 1);
    for (i, (_, from)) in taken.iter().enumerate() {
        for (j, (at, to)) in taken.iter().enumerate().skip(i) {
            assert!((j - i + 1) as f64 <= to - from + 1.0 + 4.0 + 1e-6, "{at:?}");
        }
    }
    assert!(taken.len() > 300, "live: {}", taken.len());
    limiter.stop_for(Duration::from_secs(2));
    advance(Duration::from_millis(1990)).await;
    assert!(limiter.try_take(1).is_err());
    limiter.set_pace(None);
    assert!(limiter.try_take(1).is_ok());
    // A stop that is computed anew is the one that holds.
    limiter.set_pace(Some(1000.0));
    advance(Duration::from_secs(1)).await;
    limiter.stop_for(Duration::from_secs(86_400));
    limiter.stop_for(Duration::from_secs(1));
    advance(Duration::from_millis(990)).await;
    assert!(limiter.try_take(1).is_err());
    advance(Duration::from_millis(10)).await;
    assert!(limiter.try_take(1).is_ok());
    limiter.stop_for(Duration::from_secs(86_400));
    limiter.stop_for(Duration::ZERO);
    advance(Duration::from_millis(10)).await;
    assert!(limiter.try_take(1).is_ok());
}

#[test]
fn natural_burst_lets_fast_rates_run() {
    assert_eq!(natural_burst(50_000_000), 1);
    assert_eq!(natural_burst(1_000_000), 10);
    assert_eq!(natural_burst(1_000), 10_000);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_takers_never_exceed_any_rate(
        count in 1u32..50, per in 1u64..5000, burst in 1u32..8, second in 1u32..200,
        steps in proptest::collection::vec((0u64..400, 1u32..4, proptest::bool::weighted(0.2)), 1..120)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rates = [rate(count, per), rate(second, 60_000)];
            let limiter = Arc::new(Limiter::new(&rates, burst));
            let start = Instant::now();
            let (mut events, mut held) = (Vec::new(), std::collections::VecDeque::new());
            for (pause, cells, unused) in steps {
                advance(Duration::from_millis(pause)).await;
                match limiter.try_take(cells) {
                    Ok(permit) if unused => held.push_back(permit),
                    Ok(permit) => {
                        permit.spend();
                        events.extend((0..cells.min(burst)).map(|_| start.elapsed()));
                    }
                    // Given back in another order than they were taken.
                    Err(_) if cells == 1 => drop(held.pop_back()),
                    Err(_) => drop(held.pop_front()),
                }
            }
            for rate in rates {
                assert_never_above(&events, rate, burst);
            }
        });
    }
}
