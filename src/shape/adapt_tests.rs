//! What feedback promises: units, properties, and a simulation against receivers whose limits
//! nobody told us, on virtual time.

use std::time::Duration;

use proptest::prelude::*;

use super::testing::{judged, nth, refuse};
use super::*;
use crate::config::RuleScope;
use crate::config::units::Rate;

const START: i64 = 1_790_000_000_000;

fn at(seconds: f64) -> Timestamp {
    Timestamp(START + (seconds * 1000.0) as i64)
}

fn configured(rate: Option<f64>, connections: u32) -> Configured {
    Configured { rate, connections, messages: 100, adaptive: true }
}

fn tried(before: u32, open: u32) -> Tried {
    Tried { before, open }
}

/// A receiver with limits it does not tell.
#[derive(Clone, Copy)]
enum Hidden {
    /// A token bucket: so many a second, a burst of one second.
    PerSecond(f64),
    /// So many in each window of so many seconds.
    Window(u32, f64),
    /// So many in any window of so many seconds, without a burst beyond.
    Sliding(u32, f64),
    /// Connections; each carries 10 messages a second (the round trip).
    Connections(u32),
    /// Messages on a connection; then it is closed, silently or with a 421.
    Messages(u32, bool),
}

#[derive(PartialEq)]
enum Said {
    Ok,
    SlowDown,
    Closed,
}

struct Receiver {
    hidden: Hidden,
    tokens: f64,
    last: f64,
    window: (f64, u32),
    times: std::collections::VecDeque<f64>,
}

impl Receiver {
    fn message(&mut self, now: f64, before: u32) -> Said {
        match self.hidden {
            Hidden::PerSecond(rate) => {
                self.tokens = (self.tokens + (now - self.last) * rate).min(rate.max(1.0));
                self.last = now;
                if self.tokens < 1.0 {
                    return Said::SlowDown;
                }
                self.tokens -= 1.0;
                Said::Ok
            }
            Hidden::Window(most, length) => {
                let begin = (now / length).floor() * length;
                if self.window.0 != begin {
                    self.window = (begin, 0);
                }
                if self.window.1 >= most {
                    return Said::SlowDown;
                }
                self.window.1 += 1;
                Said::Ok
            }
            Hidden::Sliding(most, length) => {
                while self.times.front().is_some_and(|at| now - at >= length) {
                    self.times.pop_front();
                }
                if self.times.len() >= most as usize {
                    return Said::SlowDown;
                }
                self.times.push_back(now);
                Said::Ok
            }
            Hidden::Messages(most, told) if before >= most => {
                if told {
                    Said::SlowDown
                } else {
                    Said::Closed
                }
            }
            _ => Said::Ok,
        }
    }
}

#[derive(Clone, Copy)]
struct Worker {
    /// Connected, with messages carried.
    carried: Option<u32>,
    /// Busy until then with: connecting (false) or a transaction (true) begun at.
    busy: Option<(f64, bool, f64)>,
}

/// What happened in each second: accepted, tried and refused.
struct Run(Vec<(u32, u32, u32)>);

impl Run {
    fn rate(&self, from: usize, to: usize) -> f64 {
        self.0[from..to].iter().map(|s| f64::from(s.0)).sum::<f64>() / (to - from) as f64
    }

    fn throttled(&self, from: usize, to: usize) -> f64 {
        let (tried, refused) = self.0[from..to].iter().fold((0, 0), |a, s| (a.0 + s.1, a.1 + s.2));
        f64::from(refused) / f64::from(tried.max(1))
    }
}

/// A step of the simulation, in milliseconds.
const STEP: usize = 4;

/// The lane, its workers and the receiver in small steps; the limit changes to `then` at the given
/// second.
fn simulate(config: Configured, first: Hidden, then: Option<(usize, Hidden)>, seconds: usize, trip: f64) -> Run {
    let mut receiver = Receiver { hidden: first, tokens: 1.0, last: 0.0, window: (-1.0, 0), times: Default::default() };
    let mut adapt = Adapt::new(config);
    let mut workers = vec![Worker { carried: None, busy: None }; config.connections as usize];
    let mut arrival = [0.0f64; 2];
    let (mut number, mut connects) = (0, 0);
    let mut run = Run(vec![(0, 0, 0); seconds]);
    for ms in (0..seconds * 1000).step_by(STEP) {
        let now = ms as f64 / 1000.0;
        let stamp = at(now);
        if let Some((second, hidden)) = then
            && ms == second * 1000
        {
            receiver.hidden = hidden;
        }
        if ms % 500 == 0 {
            adapt.advance(workers.iter().filter(|w| w.carried.is_some()).count() as u32, stamp);
        }
        for index in 0..workers.len() {
            let Worker { carried, busy } = workers[index];
            if busy.is_some_and(|(end, ..)| now < end) || busy.is_none() && arrival.iter().any(|a| *a > now) {
                continue;
            }
            let open = workers.iter().filter(|w| w.carried.is_some()).count() as u32;
            if let Some((_, transaction, began)) = busy {
                workers[index].busy = None;
                let tally = &mut run.0[ms / 1000];
                tally.1 += 1;
                if !transaction {
                    // They take equally long.
                    connects += 1;
                    let full = matches!(receiver.hidden, Hidden::Connections(most) if open >= most);
                    if full {
                        tally.2 += 1;
                        adapt.refused((connects, open), true, stamp, "421 too many connections");
                    } else {
                        workers[index].carried = Some(0);
                        adapt.opened((connects, open + 1), stamp);
                        tally.1 -= 1;
                    }
                    continue;
                }
                let before = carried.unwrap_or(0);
                number += 1;
                match receiver.message(now, before) {
                    Said::Ok => {
                        tally.0 += 1;
                        workers[index].carried = Some(before + 1);
                        adapt.accepted(&[nth(number)], 1, at(began), stamp);
                        adapt.carried(before + 1, 0);
                    }
                    Said::Closed => {
                        tally.2 += 1;
                        workers[index].carried = None;
                        adapt.closed((before, stamp), None, stamp, "closed");
                    }
                    Said::SlowDown => {
                        tally.2 += 1;
                        let told = matches!(receiver.hidden, Hidden::Messages(..));
                        let text = if told { "421 too many messages per connection" } else { "slow down" };
                        if told {
                            workers[index].carried = None;
                            adapt.told(About::told(text, false), tried(before, open), stamp, text);
                        } else {
                            refuse(&mut adapt, number, text, at(began), stamp);
                        }
                    }
                }
                continue;
            }
            let limits = adapt.limits(stamp);
            if limits.paused.is_some() {
                continue;
            }
            match carried {
                None if workers.iter().filter(|w| w.carried.is_some() || w.busy.is_some()).count() as u32
                    >= limits.connections => {}
                None => workers[index].busy = Some((now + trip, false, now)),
                Some(_) if open > limits.connections => workers[index].carried = None,
                Some(n) if n >= limits.messages => workers[index].carried = None,
                Some(_) => {
                    // As exact as a limiter, whatever the step: what a step was late is not lost.
                    for (arrival, rate) in arrival.iter_mut().zip([config.rate, limits.rate]) {
                        let late = now - STEP as f64 / 1000.0;
                        *arrival = arrival.max(late) + rate.map_or(0.0, |rate| 1.0 / rate);
                    }
                    workers[index].busy = Some((now + trip, true, now));
                }
            }
        }
    }
    run
}

/// The figures asked for: 90 % of the hidden limit after 60 s, under 3 % throttled after that, and
/// a doubled limit found within 2 minutes.
fn prove(name: &str, config: Configured, first: Hidden, cap: f64, then: Hidden, trip: f64) -> bool {
    let run = simulate(config, first, Some((240, then)), 600, trip);
    let found = (0..230).find(|s| run.rate(*s, s + 10) >= 0.9 * cap);
    let doubled = (240..590).find(|s| run.rate(*s, s + 10) >= 1.8 * cap).map(|s| s - 240);
    println!(
        "{name:34} cap {cap:6.1}/s: reached after {found:?} s, goodput {:5.1} % of it, throttled {:.2} %; \
         doubled: reached after {doubled:?} s, goodput {:5.1} %, throttled {:.2} %",
        100.0 * run.rate(60, 240) / cap,
        100.0 * run.throttled(60, 240),
        50.0 * run.rate(360, 600) / cap,
        100.0 * run.throttled(360, 600),
    );
    found.is_some_and(|s| s <= 50)
        && run.rate(60, 240) >= 0.9 * cap
        && run.throttled(60, 240) < 0.03
        && run.throttled(240, 600) < 0.03
        && doubled.is_some_and(|s| s <= 110)
        && run.rate(360, 600) >= 1.8 * cap
}

#[test]
fn finds_limits_that_nobody_told() {
    let free = configured(None, 10);
    let told = configured(Some(100.0), 20);
    let proofs = [
        prove("rate, none configured", free, Hidden::PerSecond(20.0), 20.0, Hidden::PerSecond(40.0), 0.02),
        prove("rate, 100/s configured", told, Hidden::PerSecond(20.0), 20.0, Hidden::PerSecond(40.0), 0.02),
        prove("rate, slow round trips", told, Hidden::PerSecond(20.0), 20.0, Hidden::PerSecond(40.0), 0.2),
        prove("rate of 2/s", told, Hidden::PerSecond(2.0), 2.0, Hidden::PerSecond(4.0), 0.05),
        prove("rate of 150/s", configured(None, 20), Hidden::PerSecond(150.0), 150.0, Hidden::PerSecond(300.0), 0.03),
        prove("window of 10 s", told, Hidden::Window(200, 10.0), 20.0, Hidden::Window(400, 10.0), 0.05),
        prove("window of 10 s, none configured", free, Hidden::Window(50, 10.0), 5.0, Hidden::Window(100, 10.0), 0.05),
        prove("any second", free, Hidden::Sliding(20, 1.0), 20.0, Hidden::Sliding(40, 1.0), 0.02),
        prove("any second, 7", free, Hidden::Sliding(7, 1.0), 7.0, Hidden::Sliding(14, 1.0), 0.02),
        prove("any second, 33, slow trips", free, Hidden::Sliding(33, 1.0), 33.0, Hidden::Sliding(66, 1.0), 0.1),
        prove("any 10 s", told, Hidden::Sliding(200, 10.0), 20.0, Hidden::Sliding(400, 10.0), 0.02),
        prove("connections", free, Hidden::Connections(3), 30.0, Hidden::Connections(6), 0.1),
        prove("connections of 20", configured(None, 20), Hidden::Connections(2), 20.0, Hidden::Connections(4), 0.1),
    ];
    assert!(proofs.iter().all(|holds| *holds), "{proofs:?}");
    // A connection costs a round trip besides those of its 10 messages; each begins a step later.
    let most = 5.0 * 10.0 / (11.0 * (0.048 + STEP as f64 / 1000.0));
    for told in [false, true] {
        let run = simulate(configured(None, 5), Hidden::Messages(10, told), None, 240, 0.048);
        println!(
            "10 messages, told {told}: {:.1}/s of {most:.1}/s, throttled {:.2} %",
            run.rate(60, 240),
            100.0 * run.throttled(60, 240)
        );
        assert!(run.rate(60, 240) >= 0.9 * most && run.throttled(60, 240) < 0.03);
    }
}

/// A window of a minute is found in a few minutes, at a bounded price.
#[test]
fn finds_a_window_of_a_minute() {
    for (most, config) in [(90, configured(None, 10)), (600, configured(Some(100.0), 10))] {
        let run = simulate(config, Hidden::Sliding(most, 60.0), None, 900, 0.02);
        let cap = f64::from(most) / 60.0;
        println!(
            "{most} in any minute: {:.0} % in the first 5 minutes, {:.1} % after that, throttled {:.2} %",
            100.0 * run.rate(0, 300) / cap,
            100.0 * run.rate(300, 900) / cap,
            100.0 * run.throttled(300, 900)
        );
        assert!(run.rate(300, 900) >= 0.85 * cap && run.throttled(300, 900) < 0.03);
    }
}

/// A limit that is halved during the run is obeyed, too.
#[test]
fn finds_a_limit_that_became_narrower() {
    let run =
        simulate(configured(Some(100.0), 10), Hidden::PerSecond(40.0), Some((240, Hidden::PerSecond(10.0))), 600, 0.05);
    println!("40/s, then 10/s: {:.1}/s, throttled {:.2} %", run.rate(300, 600), 100.0 * run.throttled(300, 600));
    assert!(run.rate(300, 600) >= 9.0 && run.throttled(300, 600) < 0.03);
}

#[test]
fn a_burst_of_replies_counts_once() {
    let mut adapt = Adapt::new(configured(Some(100.0), 10));
    for i in 0..100 {
        adapt.accepted(&[nth(i)], 1, at(i as f64 / 50.0), at(i as f64 / 50.0));
    }
    for n in 100..150 {
        refuse(&mut adapt, n, "slow down", at(2.0), at(2.1));
    }
    let later = adapt.limits(at(10.0));
    assert!(later.rate.is_some_and(|r| r > 20.0), "{later:?}");
    assert!(adapt.limits(at(2.2)).paused.is_some() && later.paused.is_none());
    assert!(adapt.explain(at(10.0)).iter().any(|line| line.contains("450 slow down")), "{:?}", adapt.explain(at(10.0)));
}

fn rule(actions: Vec<RuleAction>, scope: RuleScope, after: Option<Rate>) -> ReplyRule {
    ReplyRule {
        origin: "built-in gmail".into(),
        stage: None,
        code: Some(421),
        enhanced: None,
        text: None,
        scope,
        actions,
        lasting: Duration::from_secs(1800),
        after,
    }
}

fn per_minute(count: u32) -> Rate {
    Rate { count, per: Duration::from_secs(60) }
}

#[test]
fn a_rule_acts_for_its_time_and_comes_back_by_itself() {
    let mut adapt = Adapt::new(configured(Some(20.0), 10));
    let actions = vec![RuleAction::SlowTo(per_minute(10)), RuleAction::Connections(1), RuleAction::Pause];
    let rule = rule(actions, RuleScope::Provider, None);
    assert!(adapt.counts(&rule, at(0.0)));
    assert_eq!(adapt.ruled(&rule, "421 4.7.28 unusual rate", at(0.0)).len(), 3);
    let during = adapt.limits(at(1799.0));
    assert_eq!((during.rate, during.connections), (Some(10.0 / 60.0), 1));
    assert!(during.paused.is_some_and(|(until, why)| until == at(1800.0) && why.contains("4.7.28")));
    let told = adapt.explain(at(10.0));
    assert!(told[0].starts_with("slow to 10/m until 20") && told[0].contains("because of built-in gmail: 421 4.7.28"));
    let back = adapt.limits(at(1830.0));
    assert!(
        back.paused.is_none() && back.connections == 4 && back.rate.is_some_and(|r| r > 0.3 && r < 1.0),
        "{back:?}"
    );
    adapt.advance(0, at(2100.0));
    assert!(adapt.is_idle() && adapt.limits(at(2100.0)).rate.is_none() && adapt.store().is_none());
}

#[test]
fn a_rule_reaches_no_further_than_its_scope() {
    for scope in [RuleScope::Recipient, RuleScope::Connection] {
        let mut adapt = Adapt::new(configured(None, 10));
        let actions = vec![RuleAction::SlowTo(per_minute(10)), RuleAction::Connections(1), RuleAction::Pause];
        assert!(adapt.ruled(&rule(actions, scope, None), "450", at(0.0)).is_empty());
        assert!(adapt.is_idle());
    }
}

#[test]
fn a_threshold_counts_in_a_sliding_window_and_survives_a_restart() {
    let three =
        rule(vec![RuleAction::Pause], RuleScope::Provider, Some(Rate { count: 3, per: Duration::from_secs(3600) }));
    let mut adapt = Adapt::new(configured(None, 10));
    assert!(!adapt.counts(&three, at(0.0)));
    assert!(!adapt.counts(&three, at(100.0)));
    let json = adapt.store().expect("counts are kept");
    let mut adapt = Adapt::restore(configured(None, 10), &json, at(200.0)).expect("restored");
    let mut late = adapt.clone();
    assert!(adapt.counts(&three, at(3599.0)), "the third in an hour");
    assert!(!late.counts(&three, at(3650.0)), "the first is over an hour ago");
}

/// The host turns away one sender, on connections that have carried something of others: that is no number.
#[test]
fn a_sender_at_whose_mail_connections_end_teaches_no_number_for_all() {
    let (bad, good) = (1, 2);
    let mut adapt = Adapt::new(configured(None, 10));
    let ends = |adapt: &mut Adapt, second: u32, sender| {
        let (opened, now) = (at(f64::from(second)), at(f64::from(second) + 0.5));
        adapt.carried(1, good);
        adapt.closed((1, opened), Some(sender), now, "closed")
    };
    assert!(!(0..20).any(|second| ends(&mut adapt, second, bad)));
    assert_eq!(adapt.limits(at(30.0)).messages, 100);
    // His mail passes on a new connection: it was the turn of the others to end.
    adapt.carried(1, bad);
    assert!(ends(&mut adapt, 31, bad));
    assert_eq!(adapt.limits(at(32.0)).messages, 1);
    // Of several senders none is to blame.
    let mut adapt = Adapt::new(configured(None, 10));
    let learned: Vec<bool> = (0..3).map(|n| ends(&mut adapt, n, u64::from(n))).collect();
    assert_eq!(learned, [false, false, true]);
}

#[test]
fn a_closed_connection_teaches_at_the_third_time_and_a_reply_at_once() {
    let mut adapt = Adapt::new(configured(None, 10));
    adapt.closed((20, at(0.0)), None, at(0.0), "closed");
    adapt.closed((7, at(1.0)), None, at(1.0), "closed");
    assert_eq!(adapt.limits(at(1.0)).messages, 100);
    adapt.closed((7, at(1.5)), None, at(1.5), "closed");
    assert_eq!(adapt.limits(at(1.5)).messages, 100);
    assert!(adapt.closed((7, at(2.0)), None, at(2.0), "closed"));
    assert_eq!(adapt.limits(at(2.0)).messages, 7);
    adapt.told(About::told("Max message per connection reached", false), tried(5, 2), at(3.0), "421");
    assert_eq!(adapt.limits(at(3.0)).messages, 5);
    assert!(adapt.limits(at(3.0)).rate.is_none());
    adapt.advance(0, at(4000.0));
    assert_eq!(adapt.limits(at(4000.0)).messages, 100);
}

/// Resets at any number, seven a second, as of a receiver that is reset now and then.
#[test]
fn connections_that_are_reset_now_and_then_teach_nothing() {
    for connections in [1_u32, 5, 50] {
        let mut adapt = Adapt::new(Configured { messages: 100_000, ..configured(None, 50) });
        let mut random = fastrand::Rng::with_seed(u64::from(connections));
        let mut carried = vec![(0, at(0.0)); connections as usize];
        for n in 0..3_000_000_u32 {
            let now = at(f64::from(n) / 7000.0);
            let (count, opened) = &mut carried[random.usize(..connections as usize)];
            match random.u32(..1000) {
                0 => {
                    adapt.closed((std::mem::take(count), std::mem::replace(opened, now)), None, now, "closed");
                    let messages = adapt.limits(now).messages;
                    assert_eq!(messages, 100_000, "after {n} messages on {connections} connections");
                }
                _ => {
                    *count += 1;
                    adapt.carried(*count, 0);
                }
            }
        }
    }
}

#[test]
fn a_restart_of_the_server_teaches_nothing() {
    let mut adapt = Adapt::new(configured(None, 50));
    for restart in 0..10 {
        let now = 100.0 * f64::from(restart + 1);
        for n in 0..50 {
            // All had carried about the same when it happened.
            adapt.closed((3 + n / 40, at(now - 50.0)), None, at(now + f64::from(n) / 100.0), "closed");
        }
        for n in 1..20 {
            adapt.carried(n, 0);
        }
        assert_eq!(adapt.limits(at(now)).messages, 100, "after restart {restart}");
    }
}

#[test]
fn words_tell_what_it_is_about() {
    assert_eq!(About::told("Too many connections from your IP", false), About::Connections);
    assert_eq!(About::told("4.7.0 too many", true), About::Connections);
    assert_eq!(About::told("sender thread limit exceeded", false), About::Connections);
    assert_eq!(About::told("Too many messages for this session", false), About::Messages);
    assert_eq!(About::told("Max message per connection reached", false), About::Messages);
    assert_eq!(About::told("Try again later, closing connection", false), About::Rate);
    assert_eq!(About::told("unusual rate", false), About::Rate);
}

#[test]
fn the_stored_form_bears_unknown_fields_and_refuses_later_versions() {
    let mut adapt = Adapt::new(configured(Some(20.0), 10));
    adapt.ruled(&rule(vec![RuleAction::SlowTo(per_minute(10))], RuleScope::Account, None), "421 x", at(0.0));
    judged(&mut adapt, at(0.0));
    (0..8).for_each(|n| adapt.refused((n, 3), false, at(0.0), "421 too many"));
    let mut json: serde_json::Value = serde_json::from_slice(&adapt.store().expect("stored")).expect("JSON");
    json["moon"] = serde_json::json!({"phase": 3});
    json["effects"]["list"][0]["colour"] = serde_json::json!("green");
    let bytes = serde_json::to_vec(&json).expect("JSON");
    let restored = Adapt::restore(configured(Some(20.0), 10), &bytes, at(1.0)).expect("restored");
    assert_eq!(restored.limits(at(5.0)), adapt.limits(at(5.0)));
    assert_eq!(restored.limits(at(5.0)).connections, 3);
    assert!(Adapt::restore(configured(None, 10), &bytes, at(9e6)).is_none(), "all of it is over");
    json["version"] = serde_json::json!(VERSION + 1);
    assert!(Adapt::restore(configured(None, 10), json.to_string().as_bytes(), at(1.0)).is_none());
    assert!(Adapt::restore(configured(None, 10), b"{", at(1.0)).is_none());
}

proptest! {
    /// Whatever comes: never wider than configured, never nothing, and free again in the end.
    #[test]
    fn invariant_3_feedback_never_widens_a_limit(
        events in proptest::collection::vec((0u8..8, 0u32..30, 0.0f64..60.0), 1..200),
        rate in proptest::option::of(0.01f64..1000.0), connections in 1u32..50,
    ) {
        let config = configured(rate, connections);
        let mut adapt = Adapt::new(config);
        let mut now = 0.0;
        for (number, (kind, n, pause)) in (0..).zip(events) {
            now += pause;
            let stamp = at(now);
            match kind {
                0 | 1 => adapt.accepted(&[nth(number)], 1, stamp, stamp),
                2 => (0..9).for_each(|i| _ = refuse(&mut adapt, number * 9 + i, "no", stamp, stamp)),
                3 => _ = adapt.told(About::Connections, tried(n, n), stamp, "450"),
                4 => adapt.refused((number, n), false, stamp, "421"),
                5 => adapt.opened((number, n), stamp),
                6 => _ = adapt.closed((n, stamp), None, stamp, "closed"),
                _ => drop(adapt.ruled(&rule(vec![RuleAction::SlowTo(per_minute(n + 1)), RuleAction::Connections(n)], RuleScope::Provider, None), "4", stamp)),
            }
            adapt.advance(n, stamp);
            // What is in doubt is no more after a restart.
            let limits = Limits { doubt: None, ..adapt.limits(stamp) };
            prop_assert!((1..=connections).contains(&limits.connections));
            prop_assert!((1..=100).contains(&limits.messages));
            if let (Some(learned), Some(limit)) = (limits.rate, rate) {
                prop_assert!(learned > 0.0 && learned < limit);
            }
            let factor = adapt.factor(stamp);
            prop_assert!(factor > 0.0 && factor <= 1.0);
            // A trial does not survive a restart.
            if adapt.trial.is_none() && let Some(json) = adapt.store() {
                let restored = Adapt::restore(config, &json, stamp).expect("restored");
                let mut again = restored.limits(stamp);
                if let (Some(a), Some(b)) = (again.rate, limits.rate) {
                    prop_assert!((a / b - 1.0).abs() < 1e-9);
                    again.rate = limits.rate;
                }
                prop_assert_eq!(again, limits);
            }
        }
        adapt.advance(0, at(now + 2.0 * 86_400.0));
        prop_assert!(adapt.is_idle(), "{:?}", adapt);
    }
}

proptest! {
    /// A rule with a threshold acts exactly when so many matches lie in the window that ends now,
    /// also across restarts; each rule counts its own.
    #[test]
    fn a_threshold_acts_at_its_count_in_any_window(
        count in 1u32..8, per in 1u64..4000,
        events in proptest::collection::vec((0i64..1_500_000, proptest::bool::ANY, proptest::bool::weighted(0.1)), 1..120)
    ) {
        let per = Duration::from_secs(per);
        let with = |code| ReplyRule {
            code: Some(code),
            ..rule(vec![RuleAction::Pause], RuleScope::Provider, Some(Rate { count, per }))
        };
        let rules = [with(421), with(450)];
        let mut adapt = Adapt::new(configured(None, 10));
        let mut seen = [Vec::new(), Vec::new()];
        let mut now = Timestamp(START);
        for (pause, which, restart) in events {
            now = now.after(Duration::from_millis(pause.unsigned_abs()));
            if restart && let Some(json) = adapt.store() {
                adapt = Adapt::restore(configured(None, 10), &json, now).unwrap_or(Adapt::new(configured(None, 10)));
            }
            let of = &mut seen[usize::from(which)];
            of.push(now);
            let inside = of.iter().filter(|t| now.since(**t) < per).count();
            prop_assert_eq!(adapt.counts(&rules[usize::from(which)], now), inside >= count as usize);
            adapt.advance(0, now);
        }
    }
}

/// What teaches a hold, when the clock is set back after that, and what is left of the hold then.
type Kind<'a> = (&'a dyn Fn(&mut Adapt), f64, f64);

/// The clock is set back by a day while something holds: that ends when it would have.
#[test]
fn a_clock_that_is_set_back_makes_no_hold_longer() {
    const DAY: f64 = 86_400.0;
    let pause = rule(vec![RuleAction::Pause], RuleScope::Provider, None);
    let rule = ReplyRule { lasting: Duration::from_secs(600), ..pause };
    let throttled = |adapt: &mut Adapt| judged(adapt, at(0.0));
    let refused = |adapt: &mut Adapt| (0..17).for_each(|n| adapt.refused((n, 0), false, at(0.0), "421 too many"));
    let ruled = |adapt: &mut Adapt| drop(adapt.ruled(&rule, "451 slow", at(0.0)));
    let kinds: [Kind<'_>; 3] = [(&throttled, 1200.0, 0.0), (&refused, 0.5, 0.5), (&ruled, 400.0, 200.0)];
    for (teach, after, left) in kinds {
        let mut adapt = Adapt::new(configured(Some(100.0), 10));
        adapt.keep_time(at(0.0));
        teach(&mut adapt);
        adapt.advance(0, at(after));
        let most = at(after - DAY + left);
        let until = |adapt: &Adapt| adapt.limits(at(after - DAY)).paused.map_or(Timestamp(0), |(until, _)| until);
        assert!(until(&adapt) <= most, "before anything is fed");
        let stored = adapt.store().expect("something is known");
        let restored = Adapt::restore(configured(Some(100.0), 10), &stored, at(after - DAY)).expect("and holds");
        assert!(until(&restored) <= most, "after a restart");
        adapt.advance(0, at(after - DAY));
        assert!(until(&adapt) <= most);
        assert_eq!(adapt.limits(at(after - DAY + left + 0.1)).paused, None);
        // Forward again: nothing holds, and all is forgotten in time.
        adapt.advance(0, at(after));
        assert_eq!(adapt.limits(at(after)).paused, None);
        adapt.advance(0, at(after - DAY));
        adapt.advance(0, at(after - DAY + 2.0 * 3600.0));
        assert!(adapt.is_idle(), "{adapt:?}");
    }
}
