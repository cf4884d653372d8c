//! What a simulation says: sums and a series for each group.

use std::time::Duration;

use serde::Serialize;

use super::chart::{clock, grouped};
use super::{Plan, Tally, Waited};
use crate::clock::Timestamp;
use crate::config::{Limit, Warmup};
use crate::model::enforced;

/// Points of the series at most, as long as a step of a day allows it.
const POINTS: u64 = 48;
/// Steps of the series, in seconds.
const STEPS: [u64; 7] = [60, 300, 600, 1800, 3600, 6 * 3600, 86_400];

/// A look at everything.
pub(super) struct Sample {
    pub(super) at: Duration,
    /// By group.
    pub(super) arrived: Vec<u64>,
    pub(super) tallies: Vec<Tally>,
}

/// What came of a plan.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// The day on which it began, such as `2026-11-29` (UTC).
    pub begin: String,
    /// Messages of all groups.
    pub messages: u64,
    /// Of them accepted.
    pub delivered: u64,
    /// Given up because they were older than `retry.expire`.
    pub expired: u64,
    /// Refused for good.
    pub bounced: u64,
    /// Not done with when it was stopped.
    pub waiting: u64,
    /// Seconds until the last message was done with, or until the simulation was stopped.
    pub seconds: u64,
    /// All messages were done with.
    pub complete: bool,
    /// Seconds between the points of the series.
    pub step_seconds: u64,
    /// The groups of the plan.
    pub groups: Vec<GroupReport>,
    /// The `[[limit]]`s of the plan.
    pub limits: Vec<LimitReport>,
}

/// A `[[limit]]` that was simulated.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LimitReport {
    /// Its conditions.
    pub name: String,
    /// Its rates and quotas.
    pub allows: String,
    /// Which of the senders it is about.
    pub about: String,
}

/// What came of a group.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// The limits in force, and where they are written.
    pub limits: String,
    /// What its servers enforce.
    pub enforced: String,
    /// Messages for it.
    pub messages: u64,
    /// Accepted.
    pub delivered: u64,
    /// Given up because they were older than `retry.expire`.
    pub expired: u64,
    /// Refused for good.
    pub bounced: u64,
    /// Not done with when it was stopped.
    pub waiting: u64,
    /// Expired and bounced ones together.
    pub failed: u64,
    /// Attempts refused to slow us down.
    pub throttled: u64,
    /// `throttled / (throttled + delivered)`.
    pub throttled_share: f64,
    /// Recipients put off and tried again.
    pub retries: u64,
    /// Connections opened.
    pub connections: u64,
    /// Most that waited at any look (one a minute).
    pub peak_depth: u64,
    /// Seconds until its last message was done with; `None`: some are left.
    pub done_seconds: Option<u64>,
    /// Delivered a second until then.
    pub rate: f64,
    /// How long what was delivered had waited; bulk is told apart.
    pub waits: Waits,
    /// The same of bulk, if there was any.
    pub bulk_waits: Option<Waits>,
    /// What its largest lane had learned from replies at the end, in words.
    pub learned: Vec<String>,
    /// From the start on, a step apart; the last point is the end.
    pub series: Vec<Point>,
}

/// How long messages waited for their delivery, in seconds since they arrived.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
pub struct Waits {
    /// Messages delivered.
    pub messages: u64,
    /// Half of them waited no longer.
    pub median: f64,
    /// Of a hundred, 99 waited no longer.
    pub p99: f64,
    /// None waited longer.
    pub most: f64,
}

/// A group at a time.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Seconds since the start.
    pub at: u64,
    /// Messages that have arrived and are not done with.
    pub depth: u64,
    /// Delivered since the point before.
    pub delivered: u64,
    /// Expired since the point before.
    pub expired: u64,
    /// Bounced since the point before.
    pub bounced: u64,
    /// Throttled since the point before.
    pub throttled: u64,
    /// Put off since the point before.
    pub retries: u64,
}

/// Of a group: all but bulk, and bulk.
pub(super) type BothWaits = (Waits, Option<Waits>);

pub(super) fn waits(of: &mut Waited) -> BothWaits {
    (sorted(&mut of.usual), (!of.bulk.is_empty()).then(|| sorted(&mut of.bulk)))
}

fn sorted(ms: &mut [u32]) -> Waits {
    ms.sort_unstable();
    let at = |share: f64| {
        let index = (ms.len().saturating_sub(1) as f64 * share).ceil() as usize;
        ms.get(index).map_or(0.0, |ms| f64::from(*ms) / 1000.0)
    };
    Waits { messages: ms.len() as u64, median: at(0.5), p99: at(0.99), most: at(1.0) }
}

/// `waits` and `learned` by group.
pub(super) fn report(plan: &Plan, samples: &[Sample], waits: Vec<BothWaits>, learned: Vec<Vec<String>>) -> Report {
    let nothing = Sample { at: Duration::ZERO, arrived: Vec::new(), tallies: Vec::new() };
    let last = samples.last().unwrap_or(&nothing);
    let seconds = last.at.as_secs_f64().ceil() as u64;
    let step = STEPS.into_iter().find(|step| seconds.div_ceil(*step) <= POINTS).unwrap_or(86_400);
    let groups: Vec<GroupReport> =
        waits.into_iter().zip(learned).enumerate().map(|(i, of)| group(plan, i, samples, last, step, of)).collect();
    let sum = |of: &dyn Fn(&GroupReport) -> u64| groups.iter().map(of).sum();
    Report {
        begin: plan.begin.day_text(),
        messages: sum(&|g| g.messages),
        delivered: sum(&|g| g.delivered),
        expired: sum(&|g| g.expired),
        bounced: sum(&|g| g.bounced),
        waiting: sum(&|g| g.waiting),
        seconds,
        complete: groups.iter().all(|g| g.done_seconds.is_some()),
        step_seconds: step,
        groups,
        limits: plan.limits.iter().enumerate().map(|(at, limit)| of_limit(plan, at, limit)).collect(),
    }
}

fn group(
    plan: &Plan,
    i: usize,
    samples: &[Sample],
    last: &Sample,
    step: u64,
    ((waits, bulk_waits), learned): (BothWaits, Vec<String>),
) -> GroupReport {
    let of = &plan.groups[i];
    let depth = |s: &Sample| s.arrived[i].saturating_sub(s.tallies[i].done());
    let end = last.tallies[i];
    let mut series: Vec<Point> = Vec::new();
    let mut before = Tally::default();
    let is_last = |n: usize| n + 1 == samples.len();
    for (_, s) in samples.iter().enumerate().filter(|(n, s)| is_last(*n) || s.at.as_secs().is_multiple_of(step)) {
        let t = s.tallies[i];
        let point = Point {
            at: s.at.as_secs_f64().ceil() as u64,
            depth: depth(s),
            delivered: t.delivered - before.delivered,
            expired: t.expired - before.expired,
            bounced: t.bounced - before.bounced,
            throttled: t.throttled - before.throttled,
            retries: t.deferred - before.deferred,
        };
        match series.last_mut().filter(|p| p.at == point.at) {
            Some(same) => {
                let Point { delivered, expired, bounced, throttled, retries, .. } = point;
                *same = Point {
                    delivered: same.delivered + delivered,
                    expired: same.expired + expired,
                    bounced: same.bounced + bounced,
                    throttled: same.throttled + throttled,
                    retries: same.retries + retries,
                    ..point
                };
            }
            None => series.push(point),
        }
        before = t;
    }
    let done = end.done() >= u64::from(of.messages);
    let active = if done { end.finished } else { last.at };
    let limits = limits(&of.provider, plan.begin);
    GroupReport {
        name: of.name.clone(),
        limits: format!("{limits} ({})", of.limits_from),
        enforced: enforced(&of.caps, &of.changes),
        messages: u64::from(of.messages),
        delivered: end.delivered,
        expired: end.expired,
        bounced: end.bounced,
        waiting: u64::from(of.messages).saturating_sub(end.done()),
        failed: end.expired + end.bounced,
        throttled: end.throttled,
        throttled_share: share(end.throttled, end.throttled + end.delivered),
        retries: end.deferred,
        connections: end.connections,
        peak_depth: samples.iter().map(depth).max().unwrap_or(0),
        done_seconds: done.then(|| active.as_secs_f64().ceil() as u64),
        rate: if active.is_zero() { 0.0 } else { round(end.delivered as f64 / active.as_secs_f64()) },
        waits,
        bulk_waits,
        learned,
        series,
    }
}

impl Report {
    /// What became of the messages, in one line.
    pub fn fates(&self) -> String {
        let [messages, delivered, expired, bounced, waiting] =
            [self.messages, self.delivered, self.expired, self.bounced, self.waiting].map(|n| grouped(n as f64));
        format!("{messages} messages: {delivered} delivered, {expired} expired, {bounced} bounced, {waiting} waiting")
    }

    /// When it was over, in one line: `done after 2 h, begun on 2026-11-29`.
    pub fn end(&self) -> String {
        let end = if self.complete { "done after" } else { "stopped, not done, after" };
        format!("{end} {}, begun on {}", clock(self.seconds as f64), self.begin)
    }
}

/// Three digits after the point are enough for people, and the same everywhere.
fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1e6).round() / 1e6 }
}

fn of_limit(plan: &Plan, at: usize, limit: &Limit) -> LimitReport {
    let quotas = limit.quota.iter().map(|quota| format!("quota {quota}"));
    let mut all: Vec<String> = limit.rate.iter().map(ToString::to_string).chain(quotas).collect();
    if limit.each_domain {
        all.push("for each sender domain".into());
    }
    let about = match (limit.client.is_empty(), limit.sender.as_str(), plan.sender_of(at)) {
        // Nobody of those that are simulated comes from an address.
        (false, ..) => "nobody: clients are not simulated".into(),
        (true, "*", _) => "every sender".into(),
        (true, _, Some((number, address))) => format!("sender {number}, {address}"),
        (true, _, None) => "nobody: there are not so many senders".into(),
    };
    LimitReport { name: crate::shape::limits::name(limit), allows: all.join(", "), about }
}

/// The days of a warm-up, as far as they are of use to a reader.
fn warmup(plan: &Warmup, begin: Timestamp) -> String {
    let (first, last) = (plan.days.first().unwrap_or(&0), plan.days.last().unwrap_or(&0));
    match plan.status(begin) {
        over if over.is_empty() => format!("warm-up of {} days, over", plan.length),
        status => format!("{status} ({first}/d to {last}/d from {})", plan.start.day_text()),
    }
}

fn limits(provider: &crate::config::Provider, begin: Timestamp) -> String {
    let rates: Vec<String> = provider.rate.iter().map(ToString::to_string).collect();
    let quotas: Vec<String> = provider.quota.iter().map(|q| format!("quota {q}")).collect();
    let rate = if rates.is_empty() { "no rate".to_owned() } else { rates.join(" ") };
    let warmup = provider.warmup.iter().map(|plan| warmup(plan, begin)).collect();
    let all = [vec![rate], quotas, warmup, vec![format!("{} connections", provider.connections)]].concat();
    let adaptive = if provider.adaptive { "adaptive" } else { "not adaptive" };
    format!("{}, {} messages each, {adaptive}", all.join(", "), provider.messages_per_connection)
}
