//! Whose limits hold for whom, and what gates promise with a store behind them, on paused time.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::clock::{Clock, Timestamp};
use crate::config::Count;
use crate::config::sample::provider;
use crate::config::units::{Pattern, Rate};
use crate::mail::{BodyTraits, Envelope, QueueId};
use crate::shape::Refused;
use crate::shape::reserve::testing::{Store, ledger};

const HOUR: Duration = Duration::from_secs(3600);

fn limit(sender: &str, change: impl FnOnce(&mut Limit)) -> Arc<Limit> {
    let mut limit = Limit {
        each_user: false,
        over: crate::config::Over::Wait,
        sender: Pattern::new(sender),
        client: Vec::new(),
        user: None,
        provider: Pattern::any(),
        rate: Vec::new(),
        quota: Vec::new(),
        count: Count::Messages,
        each_domain: false,
    };
    change(&mut limit);
    Arc::new(limit)
}

fn message(sender: &str, ip: Option<&str>) -> Message {
    let origin = match ip {
        Some(ip) => Origin::Client {
            ip: ip.parse().expect("an address"),
            helo: "".into(),
            listener: "".into(),
            user: "".into(),
        },
        None => Origin::Dsn,
    };
    Message {
        id: QueueId(1),
        received: Timestamp(0),
        envelope: Envelope { reverse_path: Address::parse(sender).ok(), ..Envelope::default() },
        origin,
        size: 1,
        traits: BodyTraits::default(),
    }
}

fn limits(limits: &[Arc<Limit>]) -> Limits {
    Limits::new(&LaneName::from("gmail"), &provider("gmail"), limits, &ledger())
}

#[tokio::test(start_paused = true)]
async fn a_limit_holds_for_its_senders_clients_and_providers_only() {
    let limits = limits(&[
        limit("*@news.example", |_| {}),
        limit("*", |l| l.client = vec!["192.0.2.0/24".parse().expect("a network")]),
        limit("*", |l| l.provider = Pattern::new("yahoo")),
        limit("<>", |_| {}),
    ]);
    let names = |message: &Message| -> Vec<String> {
        let gates = limits.gates(message);
        gates
            .iter()
            .map(|gate| {
                limits.shares.iter().position(|s| Arc::ptr_eq(&s.common, gate)).expect("one of them").to_string()
            })
            .collect()
    };
    assert_eq!(limits.shares.len(), 3, "the one about yahoo is not here");
    assert_eq!(names(&message("a@news.example", Some("192.0.2.7"))), ["0", "1"]);
    assert_eq!(names(&message("a@news.example", Some("198.51.100.7"))), ["0"]);
    assert_eq!(names(&message("a@shop.example", Some("::ffff:192.0.2.7"))), ["1"]);
    assert_eq!(names(&message("", None)), ["2"], "a bounce has no client");
}

#[tokio::test(start_paused = true)]
async fn each_domain_has_its_own_and_there_are_never_too_many() {
    let rate = Rate { count: 1, per: HOUR };
    let limits = limits(&[limit("*", |l| {
        l.each_domain = true;
        l.rate = vec![rate.into()];
    })]);
    let gate = |domain: &str| limits.gates(&message(&format!("a@{domain}"), None)).remove(0);
    assert!(Arc::ptr_eq(&gate("one.example"), &gate("ONE.example")));
    assert!(!Arc::ptr_eq(&gate("one.example"), &gate("two.example")));
    gate("one.example").try_take(1).expect("the first").spend();
    assert!(gate("two.example").try_take(1).is_ok());
    for n in 0..MAX_DOMAINS + 5 {
        gate(&format!("d{n}.example")).try_take(1).map(crate::shape::Permit::spend).ok();
    }
    assert!(limits.shares[0].domains.lock().len() <= MAX_DOMAINS);
    assert!(matches!(gate("one.example").try_take(1), Err(Refused::Rate(_))), "the busy one was not forgotten");
    assert!(Arc::ptr_eq(&gate("new.example"), &limits.shares[0].common), "all are busy");
}

/// The reports on everybody's mail have one sender and no domain: one sender's bounces must not hold up those of others.
#[test]
fn a_limit_for_each_domain_is_not_about_the_null_sender_unless_it_says_so() {
    let about = |sender: &str, each_domain| {
        let limits = limits(&[limit(sender, |l| {
            l.each_domain = each_domain;
            l.rate = vec![Rate { count: 1, per: HOUR }.into()];
        })]);
        ["", "a@one.example"].map(|from| limits.gates(&message(from, None)).len())
    };
    assert_eq!(about("*", true), [0, 1]);
    assert_eq!(about("<>", true), [1, 0]);
    assert_eq!(about("*", false), [1, 1], "one for all is one for all");
}

/// Many takers, a slow store, a process that dies again and again: what is spent never exceeds.
#[tokio::test(start_paused = true)]
async fn invariant_3_quotas_hold_across_restarts_with_a_slow_store() {
    let store = Store { slow: Duration::from_millis(40), ..Store::default() };
    let clock = Clock::for_tests();
    let mut rules = provider("gmail");
    rules.quota = vec![Rate { count: 300, per: HOUR }.into(), Rate { count: 20, per: Duration::from_secs(60) }.into()];
    let start = tokio::time::Instant::now();
    let spent = Arc::new(Mutex::new(Vec::new()));
    for _life in 0..12 {
        let gate = Arc::new(Gate::of_provider(&Ledger::new(Arc::new(store.clone()), clock), "gmail", &rules));
        gate.load().await;
        let takers: Vec<_> = (0..8u64)
            .map(|n| {
                let (gate, spent) = (gate.clone(), spent.clone());
                tokio::spawn(async move {
                    loop {
                        match gate.try_take(1) {
                            Ok(unused) if fastrand::u8(..) < 60 => {
                                tokio::time::sleep(Duration::from_millis(n * 70)).await;
                                drop(unused);
                            }
                            Ok(permit) => {
                                permit.spend();
                                spent.lock().push(start.elapsed());
                            }
                            Err(Refused::Reserve) => gate.reserve(1).await,
                            Err(Refused::Rate(wait) | Refused::Quota(wait)) => tokio::time::sleep(wait).await,
                        }
                        tokio::time::sleep(Duration::from_millis(100 + n * 30)).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(fastrand::u64(1000..900_000))).await;
        for taker in takers {
            taker.abort();
        }
    }
    let spent = spent.lock();
    for (most, window) in [(300, HOUR), (20, Duration::from_secs(60))] {
        for (i, from) in spent.iter().enumerate() {
            let inside = spent[i..].iter().take_while(|at| **at - *from < window).count();
            assert!(inside <= most, "{inside} in {window:?} from {from:?}");
        }
    }
    assert!(spent.len() > 100, "live: {}", spent.len());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_let_through_while_the_store_fails_and_all_is_when_it_works() {
    let store = Store::default();
    let mut rules = provider("p");
    rules.quota = vec![Rate { count: 10, per: HOUR }.into()];
    let gate = Arc::new(Gate::of_provider(&Ledger::new(Arc::new(store.clone()), Clock::for_tests()), "p", &rules));
    store.broken.store(true, Ordering::Relaxed);
    gate.reserve(1).await;
    assert_eq!(gate.try_take(1).map(drop), Err(Refused::Reserve));
    store.broken.store(false, Ordering::Relaxed);
    for _ in 0..10 {
        gate.reserve(1).await;
        gate.try_take(1).expect("a cell").spend();
    }
    assert!(matches!(gate.try_take(1), Err(Refused::Quota(_))));
    let held = gate.held().expect("it is used up");
    assert!(held.to_string().starts_with("quota 10/h, next in 1h "), "{held}");
}

#[tokio::test(start_paused = true)]
async fn old_records_are_swept_and_a_record_that_cannot_be_read_counts_as_used_up() {
    let store = Store::default();
    let clock = Clock::for_tests();
    let ledger = Ledger::new(Arc::new(store.clone()), clock);
    let mut rules = provider("p");
    rules.quota = vec![Rate { count: 10, per: HOUR }.into()];
    let gate = Arc::new(Gate::of_provider(&ledger, "p", &rules));
    gate.reserve(1).await;
    assert_eq!(store.entries.lock().keys().cloned().collect::<Vec<_>>(), ["quota/p/provider/departures"]);
    tokio::time::advance(30 * 24 * HOUR).await;
    assert_eq!(ledger.sweep().await, Ok(0), "a month, for quotas to come");
    tokio::time::advance(2 * 24 * HOUR).await;
    assert_eq!(ledger.sweep().await, Ok(1));
    store.entries.lock().insert("quota/p/provider/departures".into(), "rubbish".into());
    let again = Arc::new(Gate::of_provider(&ledger, "p", &rules));
    again.load().await;
    assert!(matches!(again.try_take(1), Err(Refused::Quota(_))));
    tokio::time::advance(HOUR + HOUR / 30).await;
    again.reserve(1).await;
    assert!(again.try_take(1).is_ok());
}
