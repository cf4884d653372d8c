use super::*;
use crate::config::Count;
use crate::config::sample;
use crate::config::units::{Pattern, Rate};
use crate::model::Setting;

/// 2026-01-01.
pub(super) const BEGIN: Timestamp = Timestamp(1_767_225_600_000);

pub(super) fn group(name: &str, messages: u32, rate: u32, hidden: &str) -> Group {
    let mut provider = sample::provider(name);
    if rate > 0 {
        provider.rate = vec![Rate { count: rate, per: Duration::from_secs(1) }.into()];
    }
    let mut caps = Caps::default();
    if !hidden.is_empty() {
        Setting::list(hidden).expect("settings").iter().for_each(|s| caps.set(s));
    }
    Group {
        name: name.into(),
        messages,
        provider: Arc::new(provider),
        limits_from: "test".into(),
        domains: 1,
        persona: Persona::find(name).unwrap_or(Persona::generic()),
        caps,
        changes: Vec::new(),
    }
}

fn plan(groups: Vec<Group>) -> Plan {
    Plan {
        groups,
        begin: BEGIN,
        arrive: Duration::ZERO,
        senders: 1,
        limits: Vec::new(),
        bulk: 0.0,
        round_trip: Duration::from_millis(50),
        until: Duration::from_secs(7 * 86_400),
        seed: 1,
    }
}

#[test]
fn a_rate_decides_when_it_is_done_and_nothing_is_throttled() {
    let report = run(&plan(vec![group("gmail", 6000, 10, "rate=10/s,messages-per-connection=100")])).expect("a report");
    let gmail = &report.groups[0];
    assert!(report.complete);
    assert_eq!((gmail.delivered, gmail.failed, gmail.throttled), (6000, 0, 0));
    assert!((590..=615).contains(&gmail.done_seconds.expect("done")), "{:?}", gmail.done_seconds);
    assert_eq!(gmail.series.iter().map(|p| p.delivered).sum::<u64>(), 6000);
    assert_eq!(gmail.peak_depth, 6000);
    // Half way the lane is half empty.
    let half = gmail.series.iter().find(|p| p.at == 300).expect("five minutes");
    assert!((2900..=3100).contains(&half.depth), "{half:?}");
}

/// A share that holds back more than waits in memory: it goes on when its time comes, and delays nobody.
#[test]
fn a_limit_holds_one_sender_and_nobody_else() {
    let limit = Arc::new(Limit {
        sender: Pattern::new("*@news.example"),
        client: Vec::new(),
        user: None,
        provider: Pattern::any(),
        rate: vec!["1/s".parse().expect("a rate")],
        quota: Vec::new(),
        count: Count::Messages,
        each_user: false,
        over: crate::config::Over::Wait,
        each_domain: false,
    });
    let group = group("gmail", 3000, 0, "");
    let free = plan(vec![group]);
    let alone = run(&free).expect("a report");
    let held = run(&free.clone().with_limits(&[limit])).expect("a report");
    let (alone, gmail) = (&alone.groups[0], &held.groups[0]);
    assert_eq!((gmail.delivered, gmail.failed), (3000, 0));
    // A third of the mail, one a second.
    let done = gmail.done_seconds.expect("done");
    assert!((950..=1100).contains(&done), "{done}");
    let most = alone.done_seconds.expect("done") as f64;
    assert!(gmail.waits.median < most, "{} s, and all without the limit {most}", gmail.waits.median);
    let told = &held.limits[0];
    assert_eq!((told.allows.as_str(), told.about.as_str()), ("1/s", "sender 2, app2@news.example"));
}

#[test]
fn a_slow_provider_delays_nobody_else() {
    let alone = run(&plan(vec![group("yahoo", 2000, 20, "")])).expect("a report");
    let both = run(&plan(vec![group("gmail", 2000, 1, ""), group("yahoo", 2000, 20, "")])).expect("a report");
    let (a, b) = (alone.groups[0].done_seconds.expect("done"), both.groups[1].done_seconds.expect("done"));
    assert!(a.abs_diff(b) <= 1, "{a} {b}");
    assert!(both.groups[0].done_seconds.expect("done") >= 1990);
}

#[test]
fn a_hidden_cap_throttles_and_every_message_still_has_one_fate() {
    let mut hidden = group("microsoft", 3000, 0, "rate=5/s,fail=1%:5xx,messages-per-connection=7");
    hidden.changes = vec!["10m rate=50/s".parse().expect("a change")];
    let report = run(&plan(vec![hidden])).expect("a report");
    let g = &report.groups[0];
    assert!(report.complete);
    assert_eq!(g.delivered + g.failed, 3000);
    assert!((10..60).contains(&g.failed), "{}", g.failed);
    assert!(g.throttled > 100 && g.retries > 100, "{g:?}");
    // Never above the cap at the provider: 5/s for ten minutes.
    let first: u64 = g.series.iter().filter(|p| p.at <= 600).map(|p| p.delivered).sum();
    assert!(first <= 3005, "{first}");
}

/// What the relay does with it, the simulation does: the cap is found, used, and hardly exceeded.
#[test]
fn adaptive_finds_a_hidden_cap_and_one_that_doubles() {
    let mut hidden = group("anybody", 40_000, 0, "rate=20/s");
    let mut provider = sample::provider("anybody");
    provider.adaptive = true;
    hidden.provider = Arc::new(provider);
    hidden.changes = vec!["10m rate=40/s".parse().expect("a change")];
    let mut plan = plan(vec![hidden]);
    plan.until = Duration::from_secs(1200);
    let report = run(&plan).expect("a report");
    let g = &report.groups[0];
    let between =
        |from: u64, to: u64| g.series.iter().filter(|p| p.at > from && p.at <= to).map(|p| p.delivered).sum::<u64>();
    assert!(between(60, 600) >= 540 * 20 * 9 / 10, "{} in the first part", between(60, 600));
    assert!(between(720, 1200) >= 480 * 40 * 9 / 10, "{} after it doubled", between(720, 1200));
    assert!(g.throttled_share < 0.01, "{}", g.throttled_share);
    assert!(g.learned.iter().any(|line| line.starts_with("slow to ")), "{:?}", g.learned);
    assert!(g.limits.contains(", adaptive"), "{}", g.limits);
}

#[test]
fn a_rule_of_a_profile_pauses_the_lane() {
    let mut ruled = group("gmail", 500, 20, "rate=10/s");
    let mut provider = sample::provider("gmail");
    provider.rate = vec![Rate { count: 20, per: Duration::from_secs(1) }.into()];
    provider.rules = vec![crate::config::ReplyRule {
        origin: "built-in gmail".into(),
        stage: None,
        code: Some(421),
        enhanced: None,
        text: None,
        scope: crate::config::RuleScope::Provider,
        actions: vec![crate::config::RuleAction::Pause],
        lasting: Duration::from_secs(900),
        after: None,
    }];
    ruled.provider = Arc::new(provider);
    let report = run(&plan(vec![ruled])).expect("a report");
    let g = &report.groups[0];
    assert!(report.complete && g.delivered == 500);
    assert!(g.done_seconds >= Some(900), "it waits for the end of the pause: {g:?}");
    let during: u64 = g.series.iter().filter(|p| p.at > 120 && p.at <= 840).map(|p| p.delivered).sum();
    assert_eq!(during, 0, "nothing leaves during the pause");
}

#[test]
fn urgent_mail_overtakes_bulk_and_senders_take_turns() {
    let mut plan = plan(vec![group("yahoo", 6000, 10, "")]);
    (plan.senders, plan.bulk, plan.arrive) = (3, 0.9, Duration::from_secs(120));
    let report = run(&plan).expect("a report");
    let g = &report.groups[0];
    let bulk = g.bulk_waits.expect("there is bulk");
    assert_eq!(g.waits.messages + bulk.messages, 6000);
    assert!((450..750).contains(&g.waits.messages), "{:?}", g.waits);
    assert!(g.waits.p99 < 60.0 && bulk.median > 150.0, "{:?} {bulk:?}", g.waits);
}

/// As the relay does it: what a source has no room for today leaves from the other.
#[test]
fn what_is_over_a_days_number_leaves_from_another_source() {
    use crate::config::{LimitsPer, Overflow, Source, Warmup};
    let sources = |overflow| {
        let warmup = Warmup { start: BEGIN, days: vec![20], length: 30, overflow, before: Default::default() };
        let cold = Source { weight: 3, warmup: Some(warmup), ..Source::new([192, 0, 2, 1].into()) };
        let mut group = group("mailer", 6000, 0, "");
        let source = vec![cold, Source::new([192, 0, 2, 2].into())];
        let provider = Provider { source, limits_per: LimitsPer::Source, ..sample::provider("mailer") };
        group.provider = Arc::new(provider);
        let mut plan = plan(vec![group]);
        plan.until = Duration::from_secs(6 * 3600);
        run(&plan).expect("a report")
    };
    let moved = sources(Overflow::Source);
    assert_eq!((moved.complete, moved.delivered, moved.waiting), (true, 6000, 0));
    assert_eq!(moved.groups[0].series.iter().map(|point| point.delivered).sum::<u64>(), 6000);
    let waits = sources(Overflow::Wait);
    assert_eq!((waits.complete, waits.delivered, waits.waiting), (false, 1520, 4480), "a quarter, and a day's number");
}

/// A lane that a quota holds for days: what is stored behind its window expires in time, too.
#[test]
fn what_is_held_back_expires_in_time_and_is_counted_apart() {
    let mut held = group("slow", 9000, 0, "");
    let mut provider = sample::provider("slow");
    provider.quota = vec![Rate { count: 10, per: Duration::from_secs(86_400) }.into()];
    provider.retry.expire = Duration::from_secs(43_200);
    held.provider = Arc::new(provider);
    let report = run(&plan(vec![held])).expect("a report");
    let g = &report.groups[0];
    assert_eq!((report.complete, g.delivered, g.expired, g.bounced, g.waiting), (true, 10, 8990, 0, 0));
    // Within a fiftieth of the time it has, and an hour at which is looked.
    assert!(g.done_seconds.is_some_and(|s| (43_200..=43_200 + 864 + 3600).contains(&s)), "{:?}", g.done_seconds);
}

/// A stop ends while mail has become due behind it, and the claim that follows is not that of the feed.
#[test]
fn mail_goes_on_arriving_after_a_short_outage() {
    for (from, to) in [(20, 26), (20, 30), (20, 80)] {
        let mut hidden = group("p", 1200, 0, "");
        let provider = Provider { adaptive: true, connections: 5, ..sample::provider("p") };
        hidden.provider = Arc::new(provider);
        let change = |text: String| text.parse().expect("a change");
        hidden.changes = vec![change(format!("{from}s trouble=mail")), change(format!("{to}s trouble=none"))];
        let mut plan = plan(vec![hidden]);
        (plan.arrive, plan.until) = (Duration::from_secs(120), Duration::from_secs(3600));
        let report = run(&plan).expect("a report");
        let g = &report.groups[0];
        assert_eq!((report.complete, g.delivered, g.waiting), (true, 1200, 0), "{from} s to {to} s: {:?}", g.learned);
    }
}

#[test]
fn stops_when_it_is_told_to() {
    let mut plan = plan(vec![group("gmail", 1000, 1, "")]);
    plan.until = Duration::from_secs(300);
    let report = run(&plan).expect("a report");
    assert!(!report.complete && report.seconds == 300);
    assert!((299..=302).contains(&report.groups[0].delivered));
    assert_eq!(report.groups[0].series.last().map(|p| p.depth), Some(1000 - report.groups[0].delivered));
}

#[test]
fn messages_have_recipients_of_their_own_but_for_a_few() {
    let all: std::collections::BTreeSet<String> = (0..1600).map(|index| recipient(index, "a.example")).collect();
    assert_eq!(all.len(), 1500, "one of sixteen had mail before");
    // A receiver that puts off whom it does not know puts off all of them, once.
    let report = run(&plan(vec![group("yahoo", 1600, 0, "greylist=30s")])).expect("a report");
    let g = &report.groups[0];
    assert!((1500..1650).contains(&g.retries) && g.delivered == 1600, "{g:?}");
}

#[test]
fn shares_add_up_and_fall() {
    assert_eq!(sites::shares(100, 1), [100]);
    let shares = sites::shares(10_000, 50);
    assert_eq!(shares.iter().sum::<u32>(), 10_000);
    assert!(shares[0] > shares[10] && shares[10] > shares[40]);
}
