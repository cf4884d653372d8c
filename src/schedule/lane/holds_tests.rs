//! The words of each hold, their order, and what a lane says of itself.

use std::sync::Arc;

use super::*;
use crate::clock::Clock;
use crate::config::{ReplyRule, RuleAction, RuleScope};
use crate::mail::LaneName;
use crate::schedule::lane::Reached;
use crate::schedule::testing::{job, provider};
use crate::shape::reserve::testing::ledger;

/// 2026-11-21T13:48:00Z
const NOW: Timestamp = Timestamp(1_795_268_880_000);

fn minutes(n: u64) -> Option<Timestamp> {
    Some(NOW.after(Duration::from_secs(60 * n)))
}

fn usage(quota: &str, day: Option<(u32, u32)>, most: u32) -> Usage {
    Usage { quota: quota.into(), day, begins: None, used: most, most, back: Duration::from_secs(22 * 60) }
}

#[test]
fn each_hold_has_its_words_and_says_until_when() {
    let reply = || "421 4.7.0 slow down".to_owned();
    let host = |all| By::Host { host: "mx.example".into(), why: "takes no connection: connection refused".into(), all };
    let silent = |all, seconds| By::Connections { all, silent: Duration::from_secs(seconds) };
    let limit = |waiting| By::Limit { limit: "limit *@news.example: rate 5/s".into(), waiting, others: (0, 0) };
    let rule = || By::Rule { rule: "config.toml:12".into(), reply: reply() };
    // Name, whether it stops the lane, whether `resume` ends it, and the words.
    type Case = (By, Option<Timestamp>, &'static str, bool, bool, &'static str);
    let table: Vec<Case> = vec![
        (By::Operator, None, "operator", true, true, "paused by an operator"),
        (By::Shutdown, None, "shutdown", true, false, "mailweir is stopping"),
        (
            rule(),
            minutes(22),
            "rule",
            true,
            true,
            "paused by the rule config.toml:12 after \"421 4.7.0 slow down\", until 14:10:00Z (in 22 min)",
        ),
        (
            By::Learned { reply: reply() },
            minutes(22),
            "learned",
            true,
            true,
            "paused by what was learned from \"421 4.7.0 slow down\", until 14:10:00Z (in 22 min)",
        ),
        (
            By::Refused { reply: "AUTH: 535 no".into(), about: None },
            minutes(22),
            "refused",
            true,
            true,
            "the provider refuses us: AUTH: 535 no; tried again at 14:10:00Z (in 22 min)",
        ),
        (
            By::Refused { reply: "AUTH: 535 no".into(), about: None },
            minutes(0),
            "refused",
            true,
            true,
            "the provider refuses us: AUTH: 535 no; the next message tries it",
        ),
        (
            host(true),
            minutes(22),
            "host",
            true,
            true,
            "mx.example takes no connection: connection refused; tried again at 14:10:00Z (in 22 min)",
        ),
        (
            host(false),
            minutes(0),
            "host",
            false,
            true,
            "mx.example takes no connection: connection refused; the next message tries it",
        ),
        (
            By::Source(IpAddr::from([192, 0, 2, 1])),
            None,
            "source",
            true,
            false,
            "the source address 192.0.2.1 does not work",
        ),
        (
            By::Quota(usage("10000/d", None, 10_000)),
            minutes(22),
            "quota",
            true,
            false,
            "quota 10000/d used up: 10,000 of 10,000, free again from 14:10:00Z (in 22 min)",
        ),
        (
            By::Quota(usage("", Some((3, 14)), 200)),
            minutes(24 * 60),
            "warmup",
            true,
            false,
            "warm-up day 3 of 14 used up: 200 of 200, free again from 2026-11-22 13:48:00Z (in 1 d)",
        ),
        (
            By::Quota(Usage { begins: minutes(612), used: 0, ..usage("", Some((1, 3)), 0) }),
            minutes(612),
            "warmup",
            true,
            false,
            "warm-up begins on 2026-11-22 (tomorrow): nothing leaves until then",
        ),
        (By::Pace, minutes(1), "pace", false, false, "the pace that replies taught, next one at 13:49:00Z (in 1 min)"),
        (By::Rate("30/h".into()), minutes(2), "rate", false, false, "rate 30/h, next one at 13:50:00Z (in 2 min)"),
        (
            By::ConnectionRate("6/h".into()),
            minutes(9),
            "connection_rate",
            false,
            false,
            "rate 6/h connections, next connection at 13:57:00Z (in 9 min)",
        ),
        (silent(1, 2), None, "connections", false, false, "the one connection is busy"),
        (
            silent(4, 130),
            None,
            "connections",
            false,
            false,
            "all 4 connections are busy, without an answer for 2 min 10 s",
        ),
        (
            limit(1300),
            minutes(2),
            "limit",
            false,
            false,
            "limit *@news.example: rate 5/s: 1,300 waiting, next one at 13:50:00Z (in 2 min)",
        ),
        (
            limit(0),
            minutes(2),
            "limit",
            false,
            false,
            "limit *@news.example: rate 5/s, next one at 13:50:00Z (in 2 min)",
        ),
        (
            By::Descriptors { waiting: 3 },
            None,
            "descriptors",
            true,
            false,
            "3 connections wait for a file descriptor (limit of open files)",
        ),
        (By::Others { ahead: 0 }, None, "priority", false, false, "its turn is next"),
        (By::Others { ahead: 1200 }, None, "priority", false, false, "1,200 as urgent or more may go first"),
    ];
    for (by, until, name, stops, resumes, words) in table {
        let hold = Hold { by, until };
        assert_eq!(hold.told(NOW).to_string(), words);
        assert_eq!((hold.name(), hold.stops(), hold.ends_by_resuming()), (name, stops, resumes), "{words}");
    }
}

#[test]
fn what_has_to_be_acted_on_comes_first_then_what_lasts_longest() {
    let mut holds = Holds::default();
    assert_eq!((holds.stop(), holds.first()), (None, None));
    holds.add(By::Limit { limit: "limit x".into(), waiting: 3, others: (0, 0) }, minutes(90));
    holds.add(By::Connections { all: 2, silent: Duration::ZERO }, None);
    holds.add(By::Rate("1/m".into()), minutes(1));
    assert_eq!(holds.stop(), None, "an open lane is not stopped by what holds a part of it, or a rate");
    holds.add(By::Quota(usage("5/h", None, 5)), minutes(22));
    holds.add(By::Refused { reply: "535".into(), about: None }, minutes(60));
    assert_eq!(holds.stop().map(Hold::name), Some("refused"));
    holds.add(By::Operator, None);
    let names: Vec<_> = holds.iter().map(Hold::name).collect();
    assert_eq!(names, ["operator", "refused", "quota", "rate", "connections", "limit"]);
}

/// The one that holds most is the one that is named where there is room for one only.
#[test]
fn of_several_limits_the_one_that_holds_most_comes_first_and_counts_the_others() {
    let limit = |name: &str, waiting, others| By::Limit { limit: format!("limit {name}"), waiting, others };
    let mut holds = Holds::default();
    holds.add(limit("few", 2, (0, 0)), minutes(90));
    holds.add(limit("most", 12, (2, 5)), minutes(2));
    holds.add(limit("some", 3, (0, 0)), minutes(60));
    let told: Vec<_> = holds.iter().map(|hold| hold.told(NOW).to_string()).collect();
    assert_eq!(told[0], "limit most: 12 waiting, next one at 13:50:00Z (in 2 min), and 2 others hold 5");
    assert!(told[1].starts_with("limit some: 3 ") && told[2].starts_with("limit few: 2 "), "{told:?}");
    let one = Hold { by: limit("most", 12, (1, 5)), until: None };
    assert_eq!(one.told(NOW).to_string(), "limit most: 12 waiting, and another holds 5");
}

fn lane(provider: crate::config::Provider) -> Arc<Lane> {
    Arc::new(Lane::new(LaneName::from("p"), Arc::new(provider), &[], &ledger()))
}

/// Also while there is less mail than connections.
#[tokio::test(start_paused = true)]
async fn a_host_that_takes_connections_and_says_nothing_is_told() {
    let clock = Clock::for_tests();
    let lane = lane(crate::config::Provider { connections: 5, ..provider("p") });
    let _ = lane.push([job("a@x.example", "d.example", 0, &[1, 2])]);
    let (job, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
    let keys: HashMap<RecipientKey, mail::State> = [(job.key(1), mail::State::Leased)].into();
    let route = Arc::new(crate::route::Route {
        lane: lane.name.clone(),
        provider: lane.provider.clone(),
        destination: "d.example".into(),
        hosts: Vec::new().into(),
        port: 25,
        facts: None,
    });
    let connections = || (lane.snapshot().connections, lane.snapshot().opening);
    assert_eq!(connections(), (0, 0));
    let number = lane.lend(job, route);
    assert_eq!(connections(), (0, 1));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(lane.holds(clock.now()), Holds::default(), "that takes a moment");
    tokio::time::advance(Duration::from_secs(57)).await;
    let holds = lane.holds(clock.now());
    let opening = holds.first().expect("a word about it");
    assert_eq!((opening.name(), holds.stop(), opening.keeps_what_comes()), ("opening", None, true), "it may be slow");
    let since = When { at: clock.now().before(Duration::from_secs(59)), now: clock.now() };
    let patience = "a host has 30 s to take a connection and 5 min to greet";
    let told = format!("one connection is being opened to the host, which has not greeted since {since}; {patience}");
    assert_eq!(opening.told(clock.now()).to_string(), told);
    assert_eq!(lane.waits(&keys, &holds, clock.now()).len(), 1, "also within the first minute");
    tokio::time::advance(Duration::from_secs(31)).await;
    let holds = lane.holds(clock.now());
    let stop = holds.stop().expect("nothing leaves");
    let told = stop.told(clock.now()).to_string();
    assert_eq!(told, format!("the host says nothing: one connection without an answer for 1 min 30 s; {patience}"));
    assert_eq!(lane.waits(&keys, &holds, clock.now()).len(), 1, "who waits for it is told so");
    lane.take_back(number).expect("it is there");
    assert_eq!(lane.holds(clock.now()), Holds::default(), "it has said something");
    let (_, open) = lane.opened("mx.d.example");
    assert_eq!(connections(), (1, 0));
    drop(open);
    assert_eq!(connections(), (0, 0), "one that is closed counts no more");
}

#[tokio::test(start_paused = true)]
async fn a_lane_tells_all_that_holds_it() {
    let clock = Clock::for_tests();
    let lane = lane(crate::config::Provider { quota: vec!["2/h".parse().expect("a quota")], ..provider("p") });
    let names = || lane.holds(clock.now()).iter().map(Hold::name).collect::<Vec<_>>();
    lane.load_usage().await;
    assert_eq!(names(), [""; 0]);
    assert_eq!(lane.usage().iter().map(Usage::count).collect::<Vec<_>>(), ["0 of 2"]);
    let _ = lane.push([job("a@x.example", "d.example", 0, &[1, 2]), job("a@x.example", "d.example", 0, &[3])]);
    for n in [2, 1] {
        let (mut job, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
        assert_eq!(job.recipients.len(), n);
        lane.permit(&mut job).await.expect("a permit").spend();
        lane.settled(n);
    }
    assert_eq!(lane.usage().iter().map(Usage::count).collect::<Vec<_>>(), ["2 of 2"], "of messages");
    assert_eq!(names(), ["quota"]);
    lane.open_circuit(
        "AUTH: 535 no".into(),
        Reached::Session,
        None,
        Duration::from_secs(9000),
        Duration::from_secs(9000),
    );
    let _ = lane.pause(true);
    assert_eq!(names(), ["operator", "refused", "quota"]);
    let rule = ReplyRule {
        actions: vec![RuleAction::Pause],
        scope: RuleScope::Provider,
        lasting: Duration::from_secs(7200),
        origin: "config.toml:12".into(),
        stage: None,
        code: None,
        enhanced: None,
        text: None,
        after: None,
    };
    let _ = lane.feedback(clock.now(), |adapt, _| adapt.ruled(&rule, "421 slow", clock.now()));
    assert_eq!(names(), ["operator", "refused", "rule", "quota"]);
    // What a person can end.
    let _ = (lane.pause(false), lane.close_circuit());
    let _ = lane.feedback(clock.now(), |adapt, _| adapt.resume(clock.now()));
    assert_eq!(names(), ["quota"]);
    tokio::time::advance(Duration::from_secs(3700)).await;
    assert_eq!(names(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_warm_up_before_which_nothing_leaves_stops_the_lane_until_its_day() {
    const DAY_MS: i64 = 86_400_000;
    let clock = Clock::for_tests();
    let start = Timestamp((clock.now().0.div_euclid(DAY_MS) + 2) * DAY_MS);
    let warmup = crate::config::Warmup {
        start,
        days: vec![5, 10],
        length: 2,
        overflow: crate::config::Overflow::Wait,
        before: crate::config::BeforeStart::Nothing,
    };
    let lane = lane(crate::config::Provider { warmup: Some(warmup), ..provider("p") });
    lane.load_usage().await;
    let holds = lane.holds(clock.now());
    let stop = holds.stop().expect("nothing leaves");
    assert_eq!((stop.name(), stop.until), ("warmup", Some(start)));
    let words = format!("warm-up begins on {} (in 2 days): nothing leaves until then", start.day_text());
    assert_eq!(stop.told(clock.now()).to_string(), words);
    assert_eq!(lane.usage().iter().map(|usage| usage.told(clock.now())).collect::<Vec<_>>(), [words]);
    let _ = lane.push([job("a@x.example", "d.example", 0, &[1])]);
    let due = HashMap::from([(job("a@x.example", "d.example", 0, &[1]).key(1), mail::State::Leased)]);
    let waits = lane.waits(&due, &holds, clock.now());
    assert_eq!(waits.iter().map(|(_, hold)| hold.name()).collect::<Vec<_>>(), ["warmup"]);
    tokio::time::advance(start.since(clock.now())).await;
    assert_eq!(lane.holds(clock.now()), Holds::default());
    assert_eq!(lane.usage().iter().map(|usage| usage.title(clock.now())).collect::<Vec<_>>(), ["warm-up day 1 of 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_connections_holds_who_waits_for_one_and_says_when_the_next_comes() {
    let clock = Clock::for_tests();
    let connection_rate = vec!["6/h".parse().expect("a rate")];
    let lane = lane(crate::config::Provider { connections: 1, connection_rate, ..provider("p") });
    let holds = || {
        let told =
            |hold: &Hold| (hold.name(), hold.stops(), hold.until.map(|until| until.since(clock.now()).as_secs()));
        lane.holds(clock.now()).iter().map(told).collect::<Vec<_>>()
    };
    let _ = lane.push((1..=2).map(|n| job("a@x.example", "d.example", 0, &[n])));
    lane.may_connect().await;
    assert_eq!(holds(), [], "nobody waits for the next one");
    // It has served its number of messages and is to be followed by another one.
    let (first, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
    let route = Arc::new(crate::route::Route {
        lane: lane.name.clone(),
        provider: lane.provider.clone(),
        destination: "d.example".into(),
        hosts: Arc::from([]),
        port: 25,
        facts: None,
    });
    let number = lane.lend(first, route);
    {
        let connects = tokio::spawn({
            let lane = lane.clone();
            async move { lane.may_connect().await }
        });
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(holds(), [("connection_rate", false, Some(540))], "the one connection is not busy: it is none");
        assert_eq!(lane.snapshot().opening, 0, "nor is it being opened");
        let due: HashMap<RecipientKey, mail::State> =
            (1..=2).map(|n| (job("a@x.example", "d.example", 0, &[n]).key(n), mail::State::Leased)).collect();
        let waits = lane.waits(&due, &lane.holds(clock.now()), clock.now());
        let mut waits: Vec<_> = waits.iter().map(|(key, hold)| (key.index, hold.name())).collect();
        waits.sort_unstable();
        assert_eq!(waits, [(1, "connection_rate"), (2, "connection_rate")], "also whose worker waits");
        connects.await.expect("a connection");
    }
    assert_eq!(holds().first().map(|hold| hold.0), None);
    assert!(lane.take_back(number).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_recipients_is_awaited_by_all_of_the_next_message() {
    let clock = Clock::for_tests();
    let (rate, count) = (vec!["50/h recipients".parse().expect("a rate")], 20);
    let lane = lane(crate::config::Provider { rate, burst: count, ..provider("p") });
    let all: Vec<u32> = (0..count).collect();
    let _ = lane.push((0..2).map(|_| job("a@x.example", "d.example", 0, &all)));
    let (mut first, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
    lane.permit(&mut first).await.expect("a permit").spend();
    lane.settled(first.recipients.len());
    let wait = || {
        let holds = lane.holds(clock.now());
        assert_eq!(holds.iter().map(Hold::name).collect::<Vec<_>>(), ["rate"]);
        holds.first().and_then(|hold| hold.until).map(|until| until.since(clock.now()).as_secs())
    };
    assert_eq!(wait(), Some(20 * 72));
    // One recipient could leave, but nobody has just one.
    tokio::time::advance(Duration::from_secs(80)).await;
    assert_eq!(wait(), Some(20 * 72 - 80));
    tokio::time::advance(Duration::from_secs(20 * 72 - 80)).await;
    assert_eq!(lane.holds(clock.now()), Holds::default());
    assert!(lane.next(None, Duration::from_secs(1)).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn recipients_hear_what_they_wait_for() {
    let clock = Clock::for_tests();
    let lane = lane(crate::config::Provider { connections: 1, ..provider("p") });
    let _ = lane.push((1..=3).map(|n| job("a@x.example", "d.example", 0, &[n])));
    let (first, _) = lane.next(None, Duration::from_secs(1)).await.expect("a job");
    let due: HashMap<RecipientKey, mail::State> = (1..=3)
        .map(|n| (job("a@x.example", "d.example", 0, &[n]).key(n), mail::State::Leased))
        .chain([(job("a@x.example", "d.example", 0, &[9]).key(9), mail::State::Queued)])
        .collect();
    let told = |lane: &Lane| {
        let holds = lane.holds(clock.now());
        let mut told: Vec<_> = lane
            .waits(&due, &holds, clock.now())
            .into_iter()
            .map(|(key, hold)| (key.index, hold.told(clock.now()).to_string()))
            .collect();
        told.sort();
        told
    };
    let words = |words: &str| [2, 3, 9].map(|n| (n, words.to_owned())).to_vec();
    assert_eq!(told(&lane)[0].1, "1 as urgent or more may go first");
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(told(&lane), words("the one connection is busy"), "the one in a transaction does not wait");
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(told(&lane), words("the one connection is busy, without an answer for 10 min"));
    let _ = lane.pause(true);
    assert_eq!(told(&lane), words("paused by an operator"));
    let _ = lane.pause(false);
    lane.settled(first.recipients.len());
    assert_eq!(told(&lane)[2].1, "2 as urgent or more may go first", "it is in the queue behind them");
}
