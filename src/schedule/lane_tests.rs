//! What a lane promises, on paused time.

use super::*;
use crate::clock::Timestamp;
use crate::config::units::Rate;
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

fn lane(change: impl FnOnce(&mut Provider)) -> Arc<Lane> {
    let mut provider = provider("p");
    change(&mut provider);
    Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()))
}

const IDLE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn starts_one_worker_a_job_up_to_the_limit_of_connections() {
    let lane = lane(|p| p.connections = 2);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[0])]), Wake::Start);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[1])]), Wake::Start);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[2])]), Wake::Nobody);
    assert_eq!(lane.worker_gone(), Wake::Start, "there is work left");
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_is_woken_instead_of_starting_another() {
    let lane = lane(|p| p.connections = 5);
    let worker = tokio::spawn({
        let lane = lane.clone();
        async move { lane.next(None, IDLE).await.map(|(job, _)| job.recipients.len()) }
    });
    tokio::task::yield_now().await;
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[0, 1])]), Wake::Nobody);
    assert_eq!(worker.await.expect("worker"), Ok(2));
}

#[tokio::test(start_paused = true)]
async fn ends_idle_and_while_paused() {
    let lane = lane(|_| {});
    assert_eq!(lane.next(None, IDLE).await.map(|_| ()), Err(Empty::Idle));
    let _ = lane.pause(true);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[0])]), Wake::Nobody);
    assert_eq!(lane.next(None, IDLE).await.map(|_| ()), Err(Empty::Idle));
    assert_eq!(lane.pause(false), Wake::Start);
    assert!(lane.next(None, IDLE).await.is_ok());
}

/// Workers with slow connections: what the receiver sees still keeps the rate.
#[tokio::test(start_paused = true)]
async fn invariant_3_rate_holds_with_many_workers() {
    let rate = Rate { count: 10, per: Duration::from_secs(1) };
    let lane = lane(|p| {
        p.connections = 20;
        p.rate = vec![rate.into()];
        p.burst = 3;
    });
    for i in 0..100 {
        let _ = lane.push([job("a@a", "x.example", 0, &[i])]);
    }
    let start = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..20u64)
        .map(|n| {
            let (lane, seen) = (lane.clone(), seen.clone());
            tokio::spawn(async move {
                while let Ok((mut job, _)) = lane.next(None, Duration::from_secs(5)).await {
                    tokio::time::sleep(Duration::from_millis(n * 13)).await;
                    lane.permit(&mut job).await.expect("a permit").spend();
                    seen.lock().push(start.elapsed());
                    tokio::time::sleep(Duration::from_millis(50 + n * 7)).await;
                    lane.settled(1);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("worker");
    }
    let seen = seen.lock();
    assert_eq!(seen.len(), 100);
    for (i, from) in seen.iter().enumerate() {
        for (j, to) in seen.iter().enumerate().skip(i) {
            let most = (*to - *from).as_secs_f64() * 10.0 + 3.0;
            assert!((j - i + 1) as f64 <= most + 1e-6);
        }
    }
    assert!(seen.last().is_some_and(|last| *last < Duration::from_millis(10_500)), "live: {:?}", seen.last());
    assert!(lane.take_limited().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_holds_neither_jobs_nor_connections() {
    let lane = lane(|p| p.rate = vec![Rate { count: 1, per: Duration::from_secs(60) }.into()]);
    for i in 0..10 {
        let _ = lane.push([job("a@a", "x.example", 0, &[i])]);
    }
    let (mut first, _) = lane.next(None, IDLE).await.expect("the first");
    assert!(lane.next(None, IDLE).await.is_err(), "one is on its way, the next is a minute off");
    lane.permit(&mut first).await.expect("a permit").spend();
    let began = Instant::now();
    assert!(lane.next(None, IDLE).await.is_err());
    assert!(began.elapsed() >= IDLE);
    assert!(lane.next(None, Duration::from_secs(40)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_urgent_job_overtakes_within_one_transaction() {
    let lane = lane(|p| p.rate = vec![Rate { count: 1, per: Duration::from_secs(1) }.into()]);
    for i in 0..5 {
        let _ = lane.push([job("bulk@a", "x.example", -2, &[i])]);
    }
    let (mut first, _) = lane.next(None, IDLE).await.expect("a job");
    lane.permit(&mut first).await.expect("a permit").spend();
    let (mut second, _) = lane.next(None, IDLE).await.expect("a job");
    let _ = lane.push([job("reset@b", "x.example", 5, &[99])]);
    lane.permit(&mut second).await.expect("a permit").spend();
    assert_eq!(second.recipients[0].index, 99);
}

/// Half a million of bulk are ready; an urgent one comes: it leaves within one transaction slot.
#[tokio::test(start_paused = true)]
async fn a_password_reset_overtakes_a_newsletter_and_the_newsletter_goes_on() {
    let slot = Duration::from_millis(50);
    let lane = lane(|p| {
        p.connections = 1;
        p.rate = vec![Rate { count: 20, per: Duration::from_secs(1) }.into()];
    });
    let _ = lane.push((0..500_000).map(|i| job("news@a", "x.example", -4, &[i])));
    let left = |lane: Arc<Lane>| async move {
        let (mut job, _) = lane.next(None, IDLE).await.expect("a job");
        lane.permit(&mut job).await.expect("a permit").spend();
        lane.settled(job.recipients.len());
        job.priority()
    };
    for _ in 0..100 {
        assert_eq!(left(lane.clone()).await, -4);
    }
    let came = Instant::now();
    let _ = lane.push([job("reset@b", "x.example", 4, &[0])]);
    assert_eq!(left(lane.clone()).await, 4);
    assert!(came.elapsed() <= slot, "{:?}", came.elapsed());
    // A flood of urgent mail: the newsletter keeps one of eight.
    let _ = lane.push((1..1000).map(|i| job("reset@b", "x.example", 4, &[i])));
    let mut bulk = 0;
    for _ in 0..160 {
        bulk += u32::from(left(lane.clone()).await == -4);
    }
    assert!((19..=21).contains(&bulk), "{bulk} of 160");
}

#[tokio::test(start_paused = true)]
async fn urgent_mail_finds_room_in_a_window_full_of_bulk_but_not_without_end() {
    let lane = lane(|_| {});
    let _ = lane.push((0..64).map(|i| job("news@a", "x.example", -4, &[i])));
    assert!(!lane.has_room(1, 1, 64, 16));
    assert!(!lane.has_room_before(-4, 1, 64), "more bulk has to wait in the queue");
    let mut came = 0;
    while lane.has_room_before(0, 1, 64) {
        let _ = lane.push([job("reset@b", "x.example", 0, &[came])]);
        came += 1;
    }
    assert_eq!(came, 8);
}

#[test]
fn claims_come_one_at_a_time_and_forget_nothing_noted_meanwhile() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("runtime");
    let _guard = runtime.enter();
    let lane = lane(|_| {});
    assert_eq!(lane.begin_claim(Timestamp(10), 100), None, "nothing is stored");
    lane.note_stored(Timestamp(10));
    assert_eq!(lane.begin_claim(Timestamp(9), 100), None, "not due");
    assert_eq!(lane.begin_claim(Timestamp(10), 100), Some(100));
    assert_eq!(lane.begin_claim(Timestamp(10), 100), None, "one at a time");
    lane.note_stored(Timestamp(7));
    lane.end_claim(None);
    assert_eq!(lane.stored_due(), Some(Timestamp(7)));
    let _ = lane.push((0..60).map(|i| job("a@a", "x.example", 0, &[i])));
    assert_eq!(lane.begin_claim(Timestamp(10), 100), None, "more than half of the window is full");
    assert_eq!(lane.begin_claim(Timestamp(10), 50), None, "urgent mail may stand beyond the window");
}

/// The MX of one domain changed: the thousand others of its old provider do not move with it.
#[tokio::test(start_paused = true)]
async fn only_the_lane_of_a_domain_moves_as_a_whole() {
    for (name, moved) in [("p", 1), ("@x.example", 3)] {
        let lane = Lane::new(LaneName::from(name), Arc::new(provider("p")), &[], &ledger());
        for i in 0..3 {
            let _ = lane.push([job("a@a", "x.example", 0, &[i])]);
        }
        let (first, _) = lane.next(None, IDLE).await.expect("a job");
        assert_eq!(lane.surrender(first).len(), moved, "{name}");
        assert_eq!(lane.in_memory(), 3 - moved, "{name}");
    }
}

fn shared(sender: &str, change: impl FnOnce(&mut Limit)) -> Arc<Limit> {
    let mut limit = Limit {
        each_user: false,
        over: crate::config::Over::Wait,
        sender: crate::config::units::Pattern::new(sender),
        client: Vec::new(),
        user: None,
        provider: crate::config::units::Pattern::any(),
        rate: Vec::new(),
        quota: Vec::new(),
        count: crate::config::Count::Messages,
        each_domain: false,
    };
    change(&mut limit);
    Arc::new(limit)
}

fn limited(limits: &[Arc<Limit>], change: impl FnOnce(&mut Provider)) -> Arc<Lane> {
    let mut provider = provider("p");
    change(&mut provider);
    Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), limits, &ledger()))
}

/// Works like a connection until nothing comes for `idle`; the recipients of each transaction.
async fn work(lane: &Lane, idle: Duration, start: Instant, seen: &Mutex<Vec<(String, Duration, usize)>>) {
    while let Ok((mut job, _)) = lane.next(None, idle).await {
        let Ok(permit) = lane.permit(&mut job).await else {
            let _ = lane.give_back(job);
            continue;
        };
        permit.spend();
        let sender = job.message.message.envelope.sender().to_owned();
        seen.lock().push((sender, start.elapsed(), job.recipients.len()));
        lane.settled(job.recipients.len());
    }
}

/// Two that hold the same mail are one entry only where the same one holds it back.
#[tokio::test(start_paused = true)]
async fn of_several_limits_that_hold_mail_the_one_that_holds_most_is_told_first() {
    let quota =
        |n: u64| move |l: &mut Limit| l.quota = vec![Rate { count: 1, per: Duration::from_secs(3600 * n) }.into()];
    let limits = [shared("*@a.example", quota(1)), shared("*@b.example", quota(9)), shared("*@c.example", quota(2))];
    let lane = limited(&limits, |p| p.connections = 1);
    for (domain, n) in [("a", 4), ("b", 9), ("c", 3)] {
        let _ = lane.push((0..n).map(|i| job(&format!("x@{domain}.example"), "d.example", 0, &[i])));
    }
    let (start, seen) = (Instant::now(), Mutex::default());
    work(&lane, IDLE, start, &seen).await;
    let told: Vec<_> = lane.limits_held().into_iter().map(|(held, n)| (held.by, n)).collect();
    let limit = |domain: &str, quota: &str, n| (format!("limit *@{domain}.example: quota {quota}"), n);
    assert_eq!(told, [limit("b", "1/9h", 8), limit("a", "1/h", 3), limit("c", "1/2h", 2)]);
    let holds = lane.holds(Timestamp(1_795_268_880_000));
    let first = holds.first().expect("limits").told(Timestamp(1_795_268_880_000)).to_string();
    assert!(first.starts_with("limit *@b.example") && first.ends_with(", and 2 others hold 5"), "{first}");
}

/// However many senders have a limit of their own: what is noted under the lane's lock is an entry for each group
/// aside, and what stops the whole lane is found without any of them.
#[tokio::test(start_paused = true)]
async fn who_asks_what_holds_a_lane_visits_a_bounded_number_of_groups() {
    const SENDERS: u32 = 3 * crate::schedule::WINDOW as u32 / 4;
    let limit = shared("*", |l| {
        l.each_domain = true;
        l.quota = vec![Rate { count: 1, per: Duration::from_secs(3600) }.into()];
    });
    let lane = limited(&[limit], |p| p.connections = 1);
    let mut beyond = 0;
    for round in 0..2 {
        let _ = lane.push((0..SENDERS).map(|n| job(&format!("x@d{n}.example"), "d.example", 0, &[round])));
        let (start, seen) = (Instant::now(), Mutex::default());
        loop {
            work(&lane, Duration::from_secs(1), start, &seen).await;
            let taken: usize = lane.take_beyond().iter().map(|beyond| beyond.job.recipients.len()).sum();
            lane.settled(taken);
            beyond += taken;
            if taken == 0 {
                break;
            }
        }
    }
    let groups = lane.state.lock().ready.groups();
    assert!(groups.len() <= crate::schedule::WINDOW / 2, "{}", groups.len());
    assert_eq!(groups.len() + beyond, SENDERS as usize, "the rest is in the queue");
    let held: usize = lane.limits_held().iter().map(|(_, waiting)| waiting).sum();
    assert_eq!(held, groups.len());
    let now = Timestamp(1_795_268_880_000);
    assert!(lane.holds(now).iter().count() > 1 && lane.holds_of_all(now).first().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_used_up_limit_holds_back_its_own_senders_only() {
    let hour = Duration::from_secs(3600);
    let limit = shared("*@news.example", |l| {
        l.rate = vec![Rate { count: 1, per: Duration::from_secs(10) }.into()];
        l.quota = vec![Rate { count: 3, per: hour }.into()];
    });
    let lane = limited(&[limit], |p| p.connections = 2);
    for i in 0..20 {
        let _ = lane.push([job("a@news.example", "x.example", 0, &[i]), job("b@shop.example", "x.example", 0, &[i])]);
    }
    let (start, seen) = (Instant::now(), Mutex::default());
    work(&lane, IDLE, start, &seen).await;
    let of = |sender: &str| seen.lock().iter().filter(|(s, ..)| s == sender).map(|(_, at, _)| *at).collect::<Vec<_>>();
    assert_eq!(of("b@shop.example").len(), 20);
    assert!(of("b@shop.example").iter().all(|at| *at < Duration::from_secs(1)), "nobody waited");
    let news = of("a@news.example");
    assert_eq!(news.len(), 3, "{news:?}");
    assert!(news[1] >= Duration::from_secs(10) && news[1] <= Duration::from_secs(11), "{news:?}");
    let told = lane.snapshot();
    assert_eq!((told.ready, told.in_flight), (17, 0));
    let (held, waiting) = lane.limits_held().swap_remove(0);
    assert_eq!((held.by.as_str(), waiting), ("limit *@news.example: quota 3/h", 17));
    // And it goes on by itself.
    work(&lane, 2 * hour, start, &seen).await;
    assert!(of("a@news.example").len() >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_quota_holds_neither_jobs_nor_connections_and_is_told() {
    let lane = lane(|p| {
        p.quota = vec![Rate { count: 5, per: Duration::from_secs(3600) }.into()];
        p.connections = 4;
    });
    for i in 0..9 {
        let _ = lane.push([job("a@a", "x.example", 0, &[i])]);
    }
    let seen = Mutex::default();
    work(&lane, IDLE, Instant::now(), &seen).await;
    assert_eq!(seen.lock().len(), 5);
    let told = lane.snapshot();
    assert_eq!((told.ready, told.in_flight), (4, 0));
    assert!(told.held.is_some_and(|held| held.to_string().starts_with("quota 5/h, next in 60m")));
    let began = Instant::now();
    assert!(lane.next(Some("x.example"), IDLE).await.is_err());
    assert!(began.elapsed() < Duration::from_millis(10), "an open connection is closed at once");
    work(&lane, Duration::from_secs(4000), Instant::now(), &seen).await;
    assert_eq!(seen.lock().len(), 9);
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_recipients_cuts_transactions_to_what_is_left() {
    let lane = lane(|p| {
        p.count = crate::config::Count::Recipients;
        p.quota = vec![Rate { count: 10, per: Duration::from_secs(3600) }.into()];
        p.recipients_per_message = 7;
    });
    let all: Vec<u32> = (0..25).collect();
    let _ = lane.push([job("a@a", "x.example", 0, &all)]);
    let (start, seen) = (Instant::now(), Mutex::default());
    work(&lane, Duration::from_secs(3700), start, &seen).await;
    let sizes: Vec<usize> = seen.lock().iter().map(|(.., n)| *n).collect();
    assert_eq!(sizes[..2], [7, 3], "the second is cut to what is left");
    assert_eq!(sizes.iter().sum::<usize>(), 25);
    let seen = seen.lock();
    for (i, (_, from, _)) in seen.iter().enumerate() {
        let inside = seen[i..].iter().take_while(|(_, at, _)| *at - *from < Duration::from_secs(3600));
        assert!(inside.map(|(.., n)| n).sum::<usize>() <= 10, "{seen:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_connections_holds_and_starts_no_workers_in_vain() {
    let lane = lane(|p| {
        p.connections = 5;
        p.connection_rate = vec![Rate { count: 6, per: Duration::from_secs(60) }];
    });
    let start = Instant::now();
    let mut times = Vec::new();
    for _ in 0..4 {
        lane.may_connect().await;
        times.push(start.elapsed().as_secs());
    }
    assert_eq!(times, [0, 10, 20, 30]);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[0])]), Wake::Start, "one may wait");
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[1])]), Wake::Nobody);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_back_expires_and_says_why() {
    let lane = limited(
        &[shared("*@news.example", |l| l.quota = vec![Rate { count: 1, per: Duration::from_secs(86_400) }.into()])],
        |_| {},
    );
    for i in 0..4 {
        let _ = lane.push([job("a@news.example", "x.example", 0, &[i, i + 10])]);
    }
    let expired = Timestamp(0).after(lane.provider.retry.expire);
    assert!(lane.expired(expired, 100).is_empty(), "nothing is held back yet");
    let seen = Mutex::default();
    work(&lane, IDLE, Instant::now(), &seen).await;
    assert_eq!(seen.lock().len(), 1);
    assert!(lane.expired(Timestamp(expired.0 - 1), 100).is_empty());
    let some = lane.expired(expired, 2);
    assert_eq!(some.iter().map(|(_, job)| job.recipients.len()).sum::<usize>(), 2);
    let rest = lane.expired(expired, 100);
    assert_eq!(rest.iter().map(|(_, job)| job.recipients.len()).sum::<usize>(), 4);
    assert_eq!(rest[0].0.by, "limit *@news.example: quota 1/d");
    assert_eq!((lane.snapshot().ready, lane.snapshot().in_flight), (0, 6));
}

/// What waited for a limit and may leave now is tried, whatever its age: it is nowhere else.
#[tokio::test(start_paused = true)]
async fn what_is_about_to_pass_its_limit_stays() {
    let hour = Duration::from_secs(3600);
    let lane = limited(&[shared("*@news.example", |l| l.rate = vec![Rate { count: 1, per: hour }.into()])], |_| {});
    for i in 0..3 {
        let _ = lane.push([job("a@news.example", "x.example", 0, &[i])]);
    }
    let seen = Mutex::default();
    work(&lane, IDLE, Instant::now(), &seen).await;
    let _ = lane.worker_gone();
    tokio::time::advance(2 * hour).await;
    assert!(lane.expired(Timestamp(0).after(lane.provider.retry.expire), 100).is_empty());
    work(&lane, IDLE, Instant::now(), &seen).await;
    assert_eq!((seen.lock().len(), lane.snapshot().ready), (2, 1), "one an hour");
}

/// Hosts that take connections and say nothing: what waits for those connections is not tried in its time.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_busy_connection_expires_in_time() {
    let lane = lane(|p| p.connections = 2);
    let wakes: Vec<Wake> = (0..4).map(|i| lane.push([job("a@a", "x.example", 0, &[i])])).collect();
    assert_eq!(wakes, [Wake::Start, Wake::Start, Wake::Nobody, Wake::Nobody]);
    let (first, _) = lane.next(None, IDLE).await.expect("a job");
    let (second, _) = lane.next(None, IDLE).await.expect("a job");
    let old = Timestamp(0).after(lane.provider.retry.expire);
    assert!(lane.expired(old, 100).is_empty(), "they are only at work");
    tokio::time::advance(Duration::from_secs(45)).await;
    assert!(lane.expired(Timestamp(old.0 - 1), 100).is_empty(), "and nothing is old");
    let expired = lane.expired(old, 1);
    assert_eq!(expired[0].0.by, "a busy connection (all 2 connections in use, none free for 45 s)");
    // One is free: what is left is tried once more, whatever its age.
    lane.settled(1);
    assert!(lane.next(None, IDLE).await.is_ok() && lane.expired(old, 100).is_empty());
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn a_lane_overflows_when_its_day_is_used_up_and_not_the_next_day() {
    let clock = crate::clock::Clock::for_tests();
    let ledger = crate::shape::Ledger::new(Arc::new(crate::shape::reserve::testing::Store::default()), clock);
    let plan = |overflow| crate::config::Warmup {
        start: Timestamp(0),
        days: vec![2],
        length: 100_000,
        overflow,
        before: Default::default(),
    };
    for (overflow, overflows) in [(Overflow::Source, true), (Overflow::Wait, false)] {
        let provider = Provider { warmup: Some(plan(overflow)), connections: 1, ..provider("p") };
        let lane = Lane::new(LaneName::from(overflow.as_str()), Arc::new(provider), &[], &ledger);
        assert!(!lane.overflows_now().await);
        for n in 0..2 {
            assert!(!lane.overflows(), "before message {n}");
            let _ = lane.push([job("a@x", "d", 0, &[n])]);
            let (mut job, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
            lane.permit(&mut job).await.expect("a permit").spend();
            lane.settled(1);
        }
        assert_eq!(lane.overflows_now().await, overflows);
        assert_eq!(lane.worker_gone(), Wake::Nobody);
        ledger.release(&lane.loose(true)).await.expect("the store works");
        assert_eq!(lane.is_disposable(), !overflows, "forgotten, it would take mail again");
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        assert!(!lane.overflows(), "a new day");
    }
}

/// What an operation took and the store refused to change is tried as before, and first.
#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_and_put_back_leaves_first() {
    let lane = lane(|_| {});
    let _ = lane.push([job("a@a", "x.example", 0, &[0, 1]), job("a@a", "x.example", 0, &[2])]);
    let taken = lane.withdraw(&mut |key| key.index < 2);
    assert_eq!((taken.len(), lane.in_memory()), (1, 1));
    for job in taken {
        let _ = lane.put_back(job);
    }
    assert_eq!(lane.in_memory(), 3);
    let (first, _) = lane.next(None, IDLE).await.expect("a job");
    assert_eq!(first.recipients.iter().map(|held| held.index).collect::<Vec<_>>(), [0, 1]);
}

/// A worker that ends because there were too many may still have its connection for a while.
#[tokio::test(start_paused = true)]
async fn while_workers_retire_there_are_no_more_than_configured() {
    let lane = lane(|p| {
        p.connections = 2;
        p.adaptive = true;
    });
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[0])]), Wake::Start);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[1])]), Wake::Start);
    assert!(!lane.retire(None));
    let now = Timestamp(1_000_000);
    let _ = lane.feedback(now, |adapt, _| (0..20).for_each(|n| adapt.refused((n, 1), false, now, "421 too many")));
    assert!(lane.retire(None), "there may be one");
    assert!(!lane.retire(None));
    // What was learned is forgotten: there may be two again, and one of them has not gone yet.
    let (_, wake) = lane.feedback(now.after(Duration::from_secs(7200)), |_, _| ());
    assert_eq!(wake, Wake::Nobody);
    assert_eq!(lane.push([job("a@a", "x.example", 0, &[2])]), Wake::Nobody);
    assert_eq!(lane.worker_gone(), Wake::Start);
}
