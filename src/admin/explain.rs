//! `mailweir explain`: everything that decides when and where a message to somebody leaves.
//!
//! The times are estimates: they assume that rates stay as they are, that nothing more urgent comes,
//! and that the provider accepts what it gets.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{FeedbackStatus, LaneStatus};
use crate::clock::{Clock, Timestamp, When, grouped};
use crate::config::report::{Setting, provider_table};
use crate::config::{Config, CountedRate, Place, Provider, Rewritten, Warmup, sources};
use crate::mail::{Address, Incoming, TlsWish};
use crate::pipeline::COUNTED;
use crate::route::{Explained, Router};
use crate::schedule::lane::{Hold, Holds};
use crate::shape::adapt::readable;
use crate::shape::{Held, Usage};

const DAY: Duration = Duration::from_secs(86_400);

/// Keys of a provider that limit what leaves, in the order in which they are told.
const LIMITS: [&str; 14] = [
    "limits_per",
    "rate",
    "burst",
    "count",
    "quota",
    "warmup",
    "connections",
    "connection_rate",
    "messages_per_connection",
    "recipients_per_message",
    "max_message_size",
    "adaptive",
    "tls",
    "retry.expire",
];

/// The answer to `mailweir explain`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whom it is about.
    pub recipient: String,
    /// Who was asked for, where that is an address of `[srs]` that leads back; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub recipient_was: String,
    /// From whom, after `[[rewrite]]`; empty for `<>`.
    pub sender: String,
    /// From whom before a `[[rewrite]]` changed that; empty: none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sender_was: String,
    /// Who gets a copy by `[[copy]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<String>,
    /// The priority it would have.
    pub priority: i8,
    /// Where the `[[route]]` stands that gives it, whatever the client asks for; empty if none does.
    #[serde(default)]
    pub priority_from: String,
    /// The user by whom it is handed in; empty: nobody has logged in.
    #[serde(default)]
    pub user: String,
    /// What the sandbox does with it, if it does not let it out; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// What is counted today for a report on TLS with its hosts; empty: its domain wants none, as far as is known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tls_report: String,
    /// A running relay said this; else it is what would hold if one ran.
    pub running: bool,
    /// Where it goes and why.
    pub route: Explained,
    /// Where the `[[route]]` stands that decided; empty if none did.
    pub route_from: String,
    /// Local addresses for this sender domain, the first that works is used; empty: the system
    /// chooses.
    pub sources: Vec<IpAddr>,
    /// The limits of the provider.
    pub limits: Vec<LimitExplained>,
    /// What replies taught about the way there.
    #[serde(default)]
    pub feedback: FeedbackStatus,
    /// How the lane is now; `None` when no relay runs, or without a way.
    pub lane: Option<LaneExplained>,
}

/// A limit and who set it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitExplained {
    /// The key in the configuration.
    pub key: String,
    /// Its value, as in the configuration.
    pub value: String,
    /// `config.toml:12`, `[default], config.toml:7`, `default`.
    pub from: String,
}

/// The lane as it is, and when a message sent now would leave.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LaneExplained {
    /// Its state.
    pub status: LaneStatus,
    /// Recipients in memory that are as urgent or more.
    pub ahead_in_memory: u64,
    /// Recipients in the queue, as urgent or more, due or not; at most a million are counted.
    pub ahead_stored: u64,
    /// There are more than `ahead_stored`: not all were counted.
    pub more_stored: bool,
    /// What is used of quotas, and the `[[limit]]`s that hold this message back, in words.
    pub quota: Vec<String>,
    /// Why nothing leaves now, and until when; empty if something does.
    pub held: String,
    /// The pace by which what is ahead was divided, in words; empty if there is none.
    #[serde(default)]
    pub pace: String,
    /// Recipients of its sender that are ahead of it, where replies taught a pace of this sender alone.
    #[serde(default)]
    pub ahead_own: Option<u64>,
    /// Recipients ahead of it if it had the highest priority.
    #[serde(default)]
    pub ahead_at_most: u64,
    /// Other senders who have their turn before it: one message of each leaves first.
    #[serde(default)]
    pub turns: u64,
    /// Seconds to the earliest moment it may leave, if its sender has nothing else waiting.
    pub earliest: Option<u64>,
    /// Seconds until it leaves if all that is ahead goes first; `None` if nobody can tell.
    pub latest: Option<u64>,
}

/// Of a message with REQUIRETLS, or without.
pub(crate) fn tls_wish(requiretls: bool) -> TlsWish {
    if requiretls { TlsWish::Required } else { TlsWish::Usual }
}

/// What the configuration makes of a sender when it takes a message in; `None`: it stays.
pub fn rewritten(config: &Config, from: &Incoming<'_>) -> Option<Rewritten> {
    let user = config.user_of(from).map_or("", |user| &user.name);
    config.rewrites.of(from.sender?, Place::Envelope, user, Clock::System.now())
}

/// What the configuration and DNS say of a message whose sender was `rewritten`; whoever knows the lane adds it.
pub async fn explain(
    config: &Config,
    settings: &[Setting],
    router: &Router,
    from: Incoming<'_>,
    recipient: &Address,
    priority: i8,
) -> Explanation {
    // Where a recipient of `[srs]` leads.
    let (asked, back) = (recipient, config.rewrites.led_back(recipient, Clock::System.now()));
    let recipient = back.as_ref().and_then(|back| back.as_ref().ok()).unwrap_or(recipient);
    let sender = from.sender;
    let user = config.user_of(&from).map_or("", |user| &*user.name);
    let copies = config.copies.iter().filter(|copy| copy.is_for(sender, std::iter::once(recipient), user));
    let mut route = router.explain(from, recipient).await;
    if let Some(Err(error)) = back {
        (route.problem, route.permanent) = (format!("550 5.1.1 {error}"), true);
    }
    let provider = config.provider(&route.provider).unwrap_or(&config.default);
    let domain = sender.map_or("", Address::domain);
    let of_user = config.user_of(&from).and_then(|user| Some((user, user.priority?)));
    let ruled = config.priority_index(from, recipient).and_then(|at| config.priorities.get(at));
    let given = match (of_user, ruled) {
        (Some((user, priority)), _) => Some((priority, format!("[[user]] {}", user.name))),
        (None, Some(rule)) => Some((rule.priority, line_of_route(settings, "priority", rule.number))),
        (None, None) => None,
    };
    Explanation {
        recipient: recipient.as_str().to_owned(),
        recipient_was: if recipient == asked { String::new() } else { asked.to_string() },
        sender: sender.map_or("", Address::as_str).to_owned(),
        sender_was: String::new(),
        copies: copies.map(|copy| copy.to.to_string()).collect(),
        priority: given.as_ref().map_or(priority, |(given, _)| *given),
        priority_from: given.map(|(_, by)| by).unwrap_or_default(),
        user: user.to_owned(),
        sandbox: config.sandbox.as_ref().map(|sandbox| sandbox.told_of(recipient)).unwrap_or_default(),
        tls_report: String::new(),
        running: false,
        route_from: route.route.map(|number| line_of_route(settings, "via", number)).unwrap_or_default(),
        sources: sources::order(&provider.source, domain).into_iter().map(|source| source.address).collect(),
        limits: if route.provider.is_empty() { Vec::new() } else { limits(settings, &provider.name) },
        feedback: FeedbackStatus::default(),
        lane: None,
        route,
    }
}

/// Where the `[[route]]` of that number, from 1, says `key`.
fn line_of_route(settings: &[Setting], key: &str, number: usize) -> String {
    let all = settings.iter().filter(|s| s.table == "[[route]]" && s.key == key);
    number.checked_sub(1).and_then(|at| all.map(|s| s.from.clone()).nth(at)).unwrap_or_default()
}

fn limits(settings: &[Setting], provider: &str) -> Vec<LimitExplained> {
    let table = provider_table(provider);
    let told = LIMITS.iter().filter_map(|key| settings.iter().find(|s| s.table == table && s.key == **key));
    told.filter_map(|s| {
        let value = s.value.as_ref()?.to_string().trim().to_owned();
        Some(LimitExplained { key: s.key.clone(), value, from: s.from.clone() })
    })
    .collect()
}

/// A pace that replies taught for one sender, see [`crate::shape::adapt`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnPace {
    /// Messages (or recipients, where the provider counts those) a second, above 0.
    pub per_second: f64,
    /// Recipients of this sender that wait and are as urgent or more.
    pub ahead: usize,
    /// Not all of them were counted.
    pub more: bool,
}

/// What is known when somebody asks.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The time now.
    pub now: Timestamp,
    /// What holds the lane.
    pub holds: Holds,
    /// What is used of its quotas.
    pub usage: Vec<Usage>,
    /// The `[[limit]]`s that hold back a message of this sender.
    pub limits: Vec<Held>,
    /// Recipients that wait for the same `[[limit]]`s, and how long these take for them.
    pub behind_limits: (usize, Duration),
    /// The sender's own pace, if replies taught one.
    pub own: Option<OwnPace>,
    /// Recipients delivered a second lately.
    pub recent: Option<f64>,
    /// Recipients in memory, and in the queue, that are as urgent or more.
    pub ahead: (usize, usize),
    /// The same for the highest priority.
    pub ahead_at_most: usize,
    /// Other senders who have a turn before it, and recipients that leave until then.
    pub turns: (usize, usize),
    /// What keeps mail like it while other mail leaves.
    pub kept: Option<Hold>,
}

impl Facts {
    /// What lets nothing like it leave now.
    fn stop(&self) -> Option<&Hold> {
        let stop = self.holds.stop().or(self.kept.as_ref());
        stop.or_else(|| self.holds.iter().find(|hold| hold.keeps_what_comes()))
    }
}

impl LaneExplained {
    /// From the lane's state and what is known beside it.
    pub fn new(status: LaneStatus, facts: &Facts, provider: &Provider) -> LaneExplained {
        let now = facts.now;
        let stop = facts.stop();
        let mut held = stop.map(|hold| hold.told(now).to_string()).unwrap_or_default();
        if let Some(hold) = stop
            && hold.ends_by_resuming()
        {
            held.push_str(&format!(" (`mailweir provider resume {}` ends that)", status.name));
        }
        // One that is used up is what holds the lane.
        let used = facts.usage.iter().filter(|usage| !usage.is_used_up()).map(|usage| usage.told(now));
        let limits = facts
            .limits
            .iter()
            .map(|held| format!("{}, next one at {}", held.by, When { at: now.after(held.wait), now }));
        let behind = match facts.behind_limits.0 {
            0 => None,
            waiting => Some(format!("{} wait for the same [[limit]] at this provider", grouped(waiting as u64))),
        };
        let (in_memory, stored) = facts.ahead;
        let mut told = LaneExplained {
            ahead_in_memory: in_memory as u64,
            ahead_stored: stored as u64,
            more_stored: stored >= COUNTED,
            quota: used.chain(limits).chain(behind).collect(),
            held,
            ahead_at_most: facts.ahead_at_most as u64,
            turns: facts.turns.0 as u64,
            ahead_own: facts.own.as_ref().map(|own| own.ahead as u64),
            status,
            ..LaneExplained::default()
        };
        told.estimate(facts, provider);
        told
    }

    fn estimate(&mut self, facts: &Facts, provider: &Provider) {
        let stop = facts.stop();
        if stop.is_some_and(|hold| hold.until.is_none()) {
            return;
        }
        // Parts of the lane are others' matter, but for the limits of this sender.
        let of_all = facts.holds.iter().filter(|hold| hold.is_general());
        let waits = of_all
            .chain(&facts.kept)
            .filter_map(|hold| Some(hold.until?.since(facts.now)))
            .chain(facts.limits.iter().map(|held| held.wait));
        let first = waits.max().unwrap_or_default().as_secs_f64();
        let ahead = self.ahead_in_memory + self.ahead_stored;
        let pace = self.pace_of(facts, provider);
        // Whoever has something waiting has a turn before somebody new.
        let turn = pace.map_or(0.0, |pace| facts.turns.1 as f64 / pace);
        let quotas = |ahead| facts.usage.iter().map(move |usage| by_quota(usage, ahead, provider, facts.now));
        let by_turn = quotas(facts.turns.1 as u64).fold(first + turn, f64::max);
        self.earliest = Some(by_turn.ceil() as u64);
        let by_pace = pace.map(|pace| first + ahead as f64 / pace);
        let behind = Some(facts.behind_limits.1.as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let by_quota = quotas(ahead).chain(behind).max_by(f64::total_cmp);
        if let Some(own) = &facts.own {
            // Whoever else waits does so beside it: its own pace is what it waits for.
            self.pace = format!("{}, learned from replies to this sender", readable(own.per_second));
            let behind = first + own.ahead as f64 / own.per_second;
            let latest = by_quota.unwrap_or(0.0).max(behind).max(self.earliest.unwrap_or(0) as f64);
            self.latest = (!own.more).then_some(latest.ceil() as u64);
            return;
        }
        self.latest = match (by_pace, by_quota) {
            // What was not counted may take any time.
            _ if self.more_stored => None,
            (Some(pace), quota) => Some(pace.max(quota.unwrap_or(0.0)).ceil() as u64),
            _ if ahead == 0 => self.earliest,
            // A quota that is long enough for all tells nothing of the pace.
            (None, Some(quota)) if quota > 0.0 => Some(first.max(quota).ceil() as u64),
            (None, _) => None,
        };
    }

    /// The pace at which what is ahead leaves, in recipients a second: the slowest of the rates and of
    /// what replies taught, else what was seen lately.
    fn pace_of(&mut self, facts: &Facts, provider: &Provider) -> Option<f64> {
        let learned = self.status.feedback.per_second;
        let known = slowest(&provider.rate).into_iter().chain(learned).min_by(f64::total_cmp);
        let (pace, what) = match (known, facts.recent) {
            (Some(pace), _) if Some(pace) == learned => (pace, "learned from replies"),
            (Some(pace), _) => (pace, "the slowest rate"),
            (None, Some(recent)) => (recent, "as in the last minutes"),
            (None, None) => return None,
        };
        self.pace = format!("{}, {what}", readable(pace));
        (pace > 0.0).then_some(pace)
    }
}

/// A line about the pace of a sender, and not of this one. The name of one may have been cut.
pub fn is_of_another(line: &str, sender: &str) -> bool {
    let Some((name, _)) = line.strip_prefix("sender <").and_then(|rest| rest.split_once(">: ")) else { return false };
    !sender.eq_ignore_ascii_case(name) && !name.strip_suffix('…').is_some_and(|begins| sender.starts_with(begins))
}

/// Seconds until a quota lets one pass behind `ahead` others; 0: it has room for all.
fn by_quota(usage: &Usage, ahead: u64, provider: &Provider, now: Timestamp) -> f64 {
    let room = u64::from(usage.most.saturating_sub(usage.used));
    let Some(missing) = (ahead + 1).checked_sub(room).filter(|missing| *missing > 0) else { return 0.0 };
    let back = usage.back.as_secs_f64();
    if usage.day.is_some() {
        let Some(plan) = &provider.warmup else { return back };
        // The days before the first are none of the plan's.
        let today = usage.begins.filter(|_| usage.most == 0).map_or(now, |begins| begins.before(DAY));
        return back + f64::from(days_for(plan, missing, today)) * DAY.as_secs_f64();
    }
    let window = provider.quota.iter().find(|quota| quota.to_string() == usage.quota).map(|quota| quota.per);
    let whole = (missing - 1) / u64::from(usage.most.max(1));
    back + whole as f64 * window.unwrap_or_default().as_secs_f64()
}

/// Days after the one that follows `today` until `missing` have left by the plan.
fn days_for(plan: &Warmup, missing: u64, today: Timestamp) -> u32 {
    let mut left = missing;
    for days in 0..plan.length {
        let then = today.after(DAY * (days + 1));
        match plan.allowance(then).map(u64::from) {
            Some(most) if most < left => left -= most,
            _ => return days,
        }
    }
    plan.length
}

/// The lowest of the rates, in messages a second.
fn slowest(rates: &[CountedRate]) -> Option<f64> {
    let of_mail = rates.iter().filter(|rate| !rate.is_of_connections());
    let paces = of_mail.map(|rate| f64::from(rate.rate.count) / rate.per.as_secs_f64());
    paces.filter(|pace| *pace > 0.0).min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sample;
    use crate::schedule::lane::By;

    fn now() -> Timestamp {
        Timestamp(1_795_250_940_000)
    }

    fn told(facts: &Facts, provider: &Provider, feedback: FeedbackStatus) -> LaneExplained {
        let status = LaneStatus { name: "p".into(), feedback, ..LaneStatus::default() };
        LaneExplained::new(status, &Facts { now: now(), ..facts.clone() }, provider)
    }

    fn ahead(n: usize) -> Facts {
        Facts { ahead: (n, 0), ..Facts::default() }
    }

    fn holding(by: By, seconds: u64) -> Facts {
        let mut holds = Holds::default();
        holds.add(by, Some(now().after(Duration::from_secs(seconds))));
        Facts { holds, ..Facts::default() }
    }

    #[test]
    fn says_when_by_the_slowest_pace_that_is_known() {
        let mut provider = sample::provider("p");
        let times = |facts: &Facts, provider: &Provider, feedback| {
            let lane = told(facts, provider, feedback);
            (lane.earliest, lane.latest, lane.pace)
        };
        let none = FeedbackStatus::default;
        assert_eq!(times(&ahead(0), &provider, none()), (Some(0), Some(0), String::new()));
        assert_eq!(times(&ahead(9), &provider, none()), (Some(0), None, String::new()), "no pace is known");
        let seen = Facts { recent: Some(2.0), ..ahead(9) };
        assert_eq!(times(&seen, &provider, none()), (Some(0), Some(5), "2.0/s, as in the last minutes".into()));
        provider.rate = vec!["20/s".parse().unwrap(), "30/h".parse().unwrap()];
        assert_eq!(times(&ahead(684), &provider, none()), (Some(0), Some(82_080), "30.0/h, the slowest rate".into()));
        let slowed = FeedbackStatus { per_second: Some(0.001), ..none() };
        assert_eq!(times(&ahead(2), &provider, slowed), (Some(0), Some(2000), "3.6/h, learned from replies".into()));
        let paused = By::Learned { reply: "451 slow down".into() };
        let paused = Facts { ahead: (1, 0), ..holding(paused, 60) };
        assert_eq!(times(&paused, &provider, none()).0, Some(60));
        assert_eq!(times(&paused, &provider, none()).1, Some(180));
        // 1,200 of the sender's own mail at its own pace: that of the lane, which is faster, tells nothing.
        let own = OwnPace { per_second: 2.0, ahead: 1200, more: false };
        let own_pace = Facts { own: Some(own.clone()), recent: Some(90.0), ..ahead(5000) };
        let told_pace = "2.0/s, learned from replies to this sender".to_owned();
        let fast = sample::provider("p");
        assert_eq!(times(&own_pace, &fast, none()), (Some(0), Some(600), told_pace.clone()));
        let uncounted = Facts { own: Some(OwnPace { more: true, ..own }), ..own_pace };
        assert_eq!(times(&uncounted, &fast, none()), (Some(0), None, told_pace));
        // A client that invents a sender for each message: everybody has a turn before somebody new.
        let inventive = Facts { turns: (684, 684), ..ahead(684) };
        assert_eq!(times(&inventive, &provider, none()).0, Some(82_080));
        // Four wait for the same share of one an hour.
        let behind = Facts { behind_limits: (4, Duration::from_secs(5 * 3600)), ..ahead(4) };
        assert_eq!(times(&behind, &provider, none()).1, Some(5 * 3600));
        let many = Facts { ahead: (0, COUNTED), ..Facts::default() };
        assert_eq!(times(&many, &provider, none()).1, None);
    }

    #[test]
    fn a_quota_and_a_warm_up_count_in_windows_and_days() {
        let mut provider = sample::provider("p");
        provider.quota = vec!["100/h".parse().unwrap()];
        let usage = |used, day| Usage {
            quota: "100/h".into(),
            day,
            begins: None,
            used,
            most: 100,
            back: Duration::from_secs(600),
        };
        let latest = |usage: Usage, n: usize, provider: &Provider| {
            told(&Facts { usage: vec![usage], ..ahead(n) }, provider, FeedbackStatus::default()).latest
        };
        assert_eq!(latest(usage(10, None), 0, &provider), Some(0));
        assert_eq!(latest(usage(10, None), 50, &provider), None, "there is room, and no pace");
        assert_eq!(latest(usage(100, None), 50, &provider), Some(600));
        assert_eq!(latest(usage(100, None), 250, &provider), Some(600 + 2 * 3600));
        let day = now().0 / 86_400_000 * 86_400_000;
        provider.warmup = Some(Warmup {
            start: Timestamp(day),
            days: vec![100, 200, 400],
            length: 3,
            overflow: crate::config::Overflow::Wait,
            before: crate::config::BeforeStart::DayOne,
        });
        let first = || usage(100, Some((1, 3)));
        assert_eq!(latest(first(), 150, &provider), Some(600), "tomorrow has room for 200");
        assert_eq!(latest(first(), 250, &provider), Some(600 + 86_400));
        assert_eq!(latest(first(), 5000, &provider), Some(600 + 2 * 86_400), "then the plan is over");
        // It begins in three days, and nothing leaves before.
        let start = Timestamp(day + 3 * 86_400_000);
        let wait = start.since(now());
        let plan = provider.warmup.as_mut().expect("the plan of above");
        (plan.start, plan.before) = (start, crate::config::BeforeStart::Nothing);
        let none = || Usage { begins: Some(start), most: 0, back: wait, ..usage(0, Some((1, 3))) };
        assert_eq!(latest(none(), 9, &provider), Some(wait.as_secs()));
        assert_eq!(latest(none(), 250, &provider), Some(wait.as_secs() + 86_400), "100 on its first day");
    }

    #[test]
    fn what_is_stopped_has_a_time_if_anybody_knows_it() {
        let provider = sample::provider("p");
        let mut holds = Holds::default();
        holds.add(By::Operator, None);
        let lane = told(&Facts { holds, ..Facts::default() }, &provider, FeedbackStatus::default());
        assert_eq!((lane.earliest, lane.latest), (None, None));
        assert_eq!(lane.held, "paused by an operator (`mailweir provider resume p` ends that)");
        let refused = holding(By::Refused { reply: "535 no".into(), about: None }, 9);
        let lane = told(&refused, &provider, FeedbackStatus::default());
        assert!(
            lane.held.starts_with("the provider refuses us: 535 no; tried again at 08:49:09Z (in 9 s)"),
            "{}",
            lane.held
        );
        assert_eq!((lane.earliest, lane.latest), (Some(9), Some(9)));
        // What holds others back is not told of this one.
        let lane = told(
            &holding(By::Limit { limit: "limit *@a.example".into(), waiting: 3, others: (0, 0) }, 99),
            &provider,
            FeedbackStatus::default(),
        );
        assert_eq!((lane.held.as_str(), lane.quota.len(), lane.earliest), ("", 0, Some(0)));
    }

    /// Connections that get nowhere are no stop as long as nobody knows; what comes now waits for them all the same.
    #[test]
    fn what_comes_behind_connections_that_get_nowhere_does_not_leave_at_once() {
        let silent = Duration::from_secs;
        let opening = |seconds| By::Opening { host: "mx.example".into(), connections: 2, silent: silent(seconds) };
        let busy = |seconds| By::Connections { all: 4, silent: silent(seconds) };
        for (by, words) in [
            (opening(5), "2 connections are being opened to mx.example, which has not greeted since "),
            (busy(156), "all 4 connections are busy, without an answer for 2 min 36 s"),
        ] {
            let mut holds = Holds::default();
            holds.add(by, None);
            let lane = told(&Facts { holds, ..ahead(9) }, &sample::provider("p"), FeedbackStatus::default());
            assert!(lane.held.starts_with(words), "{}", lane.held);
            assert_eq!((lane.earliest, lane.latest), (None, None), "{words}");
        }
        let mut holds = Holds::default();
        holds.add(busy(5), None);
        let lane = told(&Facts { holds, ..ahead(0) }, &sample::provider("p"), FeedbackStatus::default());
        assert_eq!((lane.held.as_str(), lane.earliest), ("", Some(0)), "that ends in a moment");
    }

    #[test]
    fn the_pace_of_one_sender_is_no_reason_for_the_mail_of_another() {
        let line = "sender <big@shop.example>: slow to 2.0/s, learned from: 451 >: no";
        assert!(is_of_another(line, "small@shop.example") && is_of_another(line, ""));
        assert!(
            !is_of_another(line, "Big@shop.example") && !is_of_another("sender <big@s…>: slow", "big@shop.example")
        );
        assert!(!is_of_another("slow to 10/m learned from: 421 no", "small@shop.example"), "that is about all");
    }

    #[test]
    fn limits_say_who_set_them() {
        let text = "hostname = 'a.example'\n[default]\nconnections = 3\n[provider.\"p.q\"]\nmatch.domains = ['x.example']\nrate = '7/s'\n";
        let loaded = crate::config::Loaded::parse(text, "my.toml").unwrap();
        let limits = limits(&loaded.settings, "p.q");
        let of = |key: &str| limits.iter().find(|l| l.key == key).map(|l| (l.value.as_str(), l.from.as_str()));
        assert_eq!(of("rate"), Some(("[\"7/s\"]", "my.toml:6")));
        assert_eq!(of("connections"), Some(("3", "[default], my.toml:3")));
        assert_eq!(of("burst"), Some(("0", "default")));
    }

    #[test]
    fn routes_and_priorities_say_where_they_stand() {
        let text = "hostname = 'a.example'\n[provider.s]\nrelay = '192.0.2.1:25'\n[[route]]\nsender = '<>'\npriority = -3\n\
                    [[route]]\nsender = '*@a.example'\nvia = 's'\n[[route]]\nsender = '*@b.example'\npriority = 7\n";
        let loaded = crate::config::Loaded::parse(text, "my.toml").unwrap();
        let of = |key, number| line_of_route(&loaded.settings, key, number);
        // The second of the file is the first that says a way.
        assert_eq!(loaded.config.routes.iter().map(|route| route.number).collect::<Vec<_>>(), [2]);
        assert_eq!(loaded.config.priorities.iter().map(|rule| rule.number).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((of("via", 2), of("via", 9)), ("my.toml:9".into(), String::new()));
        assert_eq!((of("priority", 1), of("priority", 3)), ("my.toml:6".into(), "my.toml:12".into()));
        let (sender, to) = (Address::parse("x@b.example").unwrap(), Address::parse("y@c.example").unwrap());
        assert_eq!(loaded.config.priority_index(Some(&sender), &to), Some(1));
    }
}
