//! Limits of different units side by side, against a naive model: lists of what was sent, looked
//! through for every window.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::time::Instant;

use crate::config::units::Rate;
use crate::config::{Count, CountedRate, Provider, Unit};
use crate::mail::LaneName;
use crate::schedule::Lane;
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

/// A transaction: when, and with how many recipients.
type Sent = (Duration, u32);

#[derive(Clone, Debug)]
struct Limits {
    rate: Vec<CountedRate>,
    quota: Vec<CountedRate>,
    burst: u32,
    count: Count,
    recipients_per_message: u32,
}

/// Everything is sent by so many workers; what the receiver saw, in order.
async fn send(limits: &Limits, messages: &[u32], workers: u64) -> Vec<Sent> {
    let mut provider: Provider = provider("p");
    provider.rate = limits.rate.clone();
    provider.quota = limits.quota.clone();
    provider.burst = limits.burst;
    provider.count = limits.count;
    provider.recipients_per_message = limits.recipients_per_message;
    let lane = Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()));
    for recipients in messages {
        let _ = lane.push([job("a@a", "x.example", 0, &(0..*recipients).collect::<Vec<_>>())]);
    }
    let total: u32 = messages.iter().sum();
    let start = Instant::now();
    let seen: Arc<Mutex<Vec<Sent>>> = Arc::default();
    let done = Arc::new(tokio::sync::Semaphore::new(0));
    let all = (0..workers).map(|_| {
        let (lane, seen, done) = (lane.clone(), seen.clone(), done.clone());
        tokio::spawn(async move {
            loop {
                let Ok((mut job, _)) = lane.next(None, Duration::from_secs(86_400)).await else { continue };
                let Ok(permit) = lane.permit(&mut job).await else {
                    let _ = lane.give_back(job);
                    continue;
                };
                permit.spend();
                let recipients = job.recipients.len();
                seen.lock().push((start.elapsed(), u32::try_from(recipients).expect("few")));
                lane.settled(recipients);
                done.add_permits(recipients);
            }
        })
    });
    let all: Vec<_> = all.collect();
    // Those that wait for more when all is sent are not waited for.
    done.acquire_many(total).await.expect("it stays open").forget();
    all.iter().for_each(tokio::task::JoinHandle::abort);
    seen.lock().clone()
}

fn cells(limit: &CountedRate, limits: &Limits, recipients: u32) -> u32 {
    match limit.count(limits.count) {
        Some(Count::Recipients) => recipients,
        _ => 1,
    }
}

fn burst(limit: &CountedRate, limits: &Limits) -> u32 {
    let natural = f64::from(limit.rate.count) / limit.per.as_secs_f64() / 100.0;
    if limits.burst == 0 { (natural as u32).max(1) } else { limits.burst }
}

/// The first time at which a transaction may follow those of `before`, window by window.
fn earliest(limits: &Limits, before: &[Sent], recipients: u32, slack: f64) -> f64 {
    let mut at = before.last().map_or(0.0, |(at, _)| at.as_secs_f64());
    for rate in &limits.rate {
        let pace = f64::from(rate.rate.count) / rate.per.as_secs_f64();
        let mut sum = cells(rate, limits, recipients);
        // In the window from each earlier one on there is no more than pace × length + burst.
        for (from, earlier) in before.iter().rev() {
            sum += cells(rate, limits, *earlier);
            let over = f64::from(sum) - f64::from(burst(rate, limits));
            at = at.max(from.as_secs_f64() + over / pace);
        }
    }
    for quota in &limits.quota {
        let mut sum = cells(quota, limits, recipients);
        for (from, earlier) in before.iter().rev() {
            sum += cells(quota, limits, *earlier);
            if sum > quota.rate.count {
                // It has to leave the window; sub-windows make that a little later.
                at = at.max(from.as_secs_f64() + quota.per.as_secs_f64() * slack);
                break;
            }
        }
    }
    at
}

fn assert_kept(limits: &Limits, sent: &[Sent]) {
    for (n, (at, recipients)) in sent.iter().enumerate() {
        let allowed = earliest(limits, &sent[..n], *recipients, 1.0);
        assert!(at.as_secs_f64() >= allowed - 0.002, "{n}: {at:?}, allowed from {allowed} on: {limits:?} {sent:?}");
    }
}

fn assert_not_idle(limits: &Limits, sent: &[Sent]) {
    for (n, (at, recipients)) in sent.iter().enumerate() {
        // Times are known to a 60th, a window is longer by its slack, and what fits a second later is not cut.
        let allowed = earliest(limits, &sent[..n], *recipients, 1.0 + 3.0 / 60.0);
        assert!(at.as_secs_f64() <= allowed + 0.1, "{n}: {at:?}, allowed from {allowed} on: {limits:?} {sent:?}");
    }
}

fn limit(count: u32, seconds: u64, unit: Option<Unit>) -> CountedRate {
    CountedRate { rate: Rate { count, per: Duration::from_secs(seconds) }, unit }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

/// A message for 30 recipients through a provider with 30 messages a minute and 10,000 recipients a day.
#[tokio::test(start_paused = true)]
async fn a_message_is_not_split_for_a_limit_that_counts_messages() {
    let limits = Limits {
        rate: vec![limit(30, 60, Some(Unit::Messages))],
        quota: vec![limit(100, 86_400, Some(Unit::Recipients))],
        burst: 0,
        count: Count::Recipients,
        recipients_per_message: 500,
    };
    let sent = send(&limits, &[30, 30, 30], 3).await;
    assert_eq!(sent.iter().map(|(at, n)| (at.as_secs(), *n)).collect::<Vec<_>>(), [(0, 30), (2, 30), (4, 30)]);
    // What is left of the day is used; the rest waits for the window.
    let sent = send(&limits, &[60, 60], 3).await;
    assert_eq!(sent.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [60, 40, 20]);
    assert!(sent[2].0 >= Duration::from_secs(86_400), "{sent:?}");
}

/// More recipients than a burst are never given at once: nobody waits for that.
#[tokio::test(start_paused = true)]
async fn what_can_never_fit_is_split_and_not_waited_for() {
    let limits = Limits {
        rate: vec![limit(10, 1, Some(Unit::Recipients)), limit(600, 60, Some(Unit::Messages))],
        quota: vec![],
        burst: 8,
        count: Count::Messages,
        recipients_per_message: 100,
    };
    let sent = send(&limits, &[20], 2).await;
    assert_eq!(sent.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [8, 8, 4]);
    assert_eq!(sent.iter().map(|(at, _)| at.as_millis() / 100).collect::<Vec<_>>(), [0, 8, 12]);
}

/// Times are told from each other for as long as they count, in the slack of their window too.
#[tokio::test(start_paused = true)]
async fn a_second_window_goes_on_at_the_rate_as_the_first_one() {
    let limits = Limits {
        rate: vec![limit(3, 1, None)],
        quota: vec![limit(16, 60, None)],
        burst: 0,
        count: Count::Messages,
        recipients_per_message: 1,
    };
    let sent = send(&limits, &[32], 2).await;
    let times: Vec<_> = sent.iter().map(|(at, _)| at.as_millis()).collect();
    let expected: Vec<_> = [0, 62_000].iter().flat_map(|from| (0..16).map(move |n| from + n * 334)).collect();
    assert_eq!(times, expected);
}

fn unit() -> impl Strategy<Value = Option<Unit>> {
    prop_oneof![Just(None), Just(Some(Unit::Messages)), Just(Some(Unit::Recipients))]
}

fn limits() -> impl Strategy<Value = Limits> {
    let rate = (1u32..40, prop_oneof![Just(1u64), Just(10), Just(60)], unit());
    let quota = (1u32..60, prop_oneof![Just(60u64), Just(600), Just(3600)], unit());
    let made = |of: Vec<(u32, u64, Option<Unit>)>| {
        of.into_iter().map(|(count, seconds, unit)| limit(count, seconds, unit)).collect::<Vec<_>>()
    };
    let count = prop_oneof![Just(Count::Messages), Just(Count::Recipients)];
    (
        proptest::collection::vec(rate, 0..3),
        proptest::collection::vec(quota, 0..3),
        prop_oneof![Just(0u32), 1u32..20],
        count,
        1u32..30,
    )
        .prop_map(move |(rate, quota, burst, count, recipients_per_message)| Limits {
            rate: made(rate),
            quota: made(quota),
            burst,
            count,
            recipients_per_message,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn limits_of_all_units_hold_and_nothing_waits_needlessly(
        limits in limits(), messages in proptest::collection::vec(1u32..40, 1..16), workers in 1u64..4
    ) {
        runtime().block_on(async {
            let sent = send(&limits, &messages, workers).await;
            assert_eq!(sent.iter().map(|(_, n)| n).sum::<u32>(), messages.iter().sum::<u32>());
            assert_kept(&limits, &sent);
            assert_not_idle(&limits, &sent);
            let of_recipients =
                |limit: &&CountedRate| limit.count(limits.count) == Some(Count::Recipients);
            if !limits.rate.iter().chain(&limits.quota).any(|limit| of_recipients(&limit)) {
                let least: u32 = messages.iter().map(|n| n.div_ceil(limits.recipients_per_message)).sum();
                assert_eq!(sent.len(), least as usize, "no message is split needlessly");
            }
        });
    }
}

/// A quota alone, with more waiting than it lets through.
fn quota() -> impl Strategy<Value = (u32, u64, Unit)> {
    let unit = prop_oneof![Just(Unit::Messages), Just(Unit::Recipients)];
    (1u32..80, prop_oneof![Just(6u64), Just(60), Just(90), Just(600), Just(3600), Just(86_400)], unit)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Times are known to a sixtieth of the window and each window is longer by its slack, another sixtieth at most:
    /// what is lost by both is never more than that, however many windows follow each other.
    #[test]
    fn a_quota_is_used_up_to_the_two_sixtieths_that_keep_it(
        (count, seconds, unit) in quota(), windows in 3u32..9, each in 1u32..6, workers in 1u64..4
    ) {
        runtime().block_on(async {
            let limits = Limits {
                rate: vec![],
                quota: vec![limit(count, seconds, Some(unit))],
                burst: 0,
                count: Count::Messages,
                recipients_per_message: 100,
            };
            // What counts as one: a message, or a recipient of it.
            let cells = |recipients: u32| if unit == Unit::Recipients { recipients } else { 1 };
            let messages = vec![each; (count * windows).div_ceil(cells(each)) as usize];
            let sent = send(&limits, &messages, workers).await;
            assert_kept(&limits, &sent);
            // So many windows begin before the last one is through, the first of them at once.
            let total: u32 = sent.iter().map(|(_, recipients)| cells(*recipients)).sum();
            let begun = f64::from(total.div_ceil(count) - 1);
            let last = sent.last().map_or(0.0, |(at, _)| at.as_secs_f64());
            let most = begun * seconds as f64 * 62.0 / 60.0;
            // Timers and what is looked at again cost a moment for each window.
            assert!(last <= most + 0.1 * (begun + 1.0), "{last} s instead of {most} s: {limits:?} {sent:?}");
        });
    }
}
