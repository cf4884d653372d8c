//! Feedback in the pipeline: what a reply means here, what the lane learns from an attempt, what is
//! logged about it, and the task that lets effects end and stores the state.
//!
//! The state of a lane is written behind: within [`TICK`] of a change, at most every [`STORE`] for
//! one lane, and at shutdown. A `kill -9` forgets what was learned in the last moments, no more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Attempt, Relay};
use crate::config::{Count, RuleAction};
use crate::deliver::{Event, Fact, Stage};
use crate::mail::LaneName;
use crate::outcome::classify::{by_rule, judge, judge_unreached, learned};
use crate::outcome::{Fate, Judgement};
use crate::schedule::Lane;
use crate::shape::adapt::{About, Adapt, Configured, Effect, MEMOS, Tried};

/// How often time passes for lanes about which something is known.
const TICK: Duration = Duration::from_millis(500);
/// Least time between two writings of one lane.
const STORE: Duration = Duration::from_secs(3);
/// More throttle lines of one lane than one a second are counted instead, and told once a minute.
const QUIET: Duration = Duration::from_secs(1);
const SUMMARY: Duration = Duration::from_secs(60);
/// How often one rule alerts.
const ALERT: Duration = Duration::from_secs(3600);
/// Rules whose alerts are remembered.
const ALERTS: usize = 1000;

/// Lanes about which something is known. They stay alive by that.
#[derive(Default)]
pub(super) struct Feedback {
    active: Mutex<BTreeMap<LaneName, Active>>,
    alerts: Mutex<HashMap<String, Instant>>,
}

struct Active {
    lane: Arc<Lane>,
    changed: bool,
    stored: Option<Instant>,
    /// The last throttle line, those left out since, and since when they are counted.
    logged: Option<Instant>,
    left_out: u64,
    summary: Instant,
}

impl Feedback {
    fn with<T>(&self, lane: &Arc<Lane>, act: impl FnOnce(&mut Active) -> T) -> T {
        let mut active = self.active.lock();
        act(active.entry(lane.name.clone()).or_insert_with(|| Active {
            lane: lane.clone(),
            changed: false,
            stored: None,
            logged: None,
            left_out: 0,
            summary: Instant::now(),
        }))
    }
}

impl Relay {
    /// Feeds the lane's state; what changed is stored soon.
    fn teach<T>(&self, lane: &Arc<Lane>, with: impl FnOnce(&mut Adapt, u32) -> T) -> T {
        let ((result, changed), wake) = lane.feedback(self.clock.now(), |adapt, open| {
            let result = with(adapt, open);
            (result, adapt.take_changed())
        });
        if changed {
            self.feedback.with(lane, |active| active.changed = true);
        }
        self.scheduler.wake(lane, wake);
        result
    }

    /// What a fact means in this lane: by the first rule that matches and acts, else by the table.
    pub(super) fn judge(&self, lane: &Arc<Lane>, fact: &Fact) -> Judgement {
        let Event::Reply(reply) = &fact.event else { return judge(fact) };
        let rules = &lane.provider.rules;
        if !reply.is_positive() && rules.iter().any(|rule| rule.matches(fact.stage, reply)) {
            let now = self.clock.now();
            let acted = self.teach(lane, |adapt, _| {
                let rule = rules.iter().find(|r| r.matches(fact.stage, reply) && adapt.counts(r, now))?;
                Some((rule, adapt.ruled(rule, &reply.to_string(), now)))
            });
            if let Some((rule, effects)) = acted {
                if rule.actions.contains(&RuleAction::Alert) {
                    self.alert(lane, &rule.origin, fact);
                }
                let judgement = by_rule(rule, fact);
                if judgement.throttled {
                    self.log_throttled(lane, fact, &rule.origin, &effects);
                }
                return judgement;
            }
        }
        let judgement = judge(fact);
        if lane.provider.adaptive { learned(judgement) } else { judgement }
    }

    /// Judges a route that took nobody, and tells the lane when it was a connection too many.
    pub(super) fn unreached(&self, lane: &Arc<Lane>, facts: &[Fact]) -> (Judgement, Fact) {
        let smart_host = lane.provider.relay.is_some();
        let (mut judgement, told) = judge_unreached(facts, smart_host, &mut |fact| self.judge(lane, fact));
        let nobody = || Fact { stage: Stage::Connect, event: Event::Io("no host was tried".into()), peer: None };
        let fact = told.cloned().unwrap_or_else(nobody);
        if lane.provider.adaptive && !judgement.ruled {
            let now = self.clock.now();
            let too_many = self.teach(lane, |adapt, open| {
                let too_many = one_too_many(&fact, open);
                if too_many {
                    adapt.refused(open, now, &fact.event.to_string());
                }
                too_many
            });
            if too_many {
                judgement.fate = Fate::Back { counts: false };
                judgement.throttled = true;
            }
        }
        (judgement, fact)
    }

    /// A connection was opened.
    pub(super) fn note_opened(&self, lane: &Arc<Lane>, open: u32) {
        let now = self.clock.now();
        self.teach(lane, |adapt, _| adapt.opened(open, now));
    }

    /// The server closed a connection soon after its `messages`-th message.
    pub(super) fn note_closed(&self, lane: &Arc<Lane>, messages: u32) {
        let now = self.clock.now();
        self.teach(lane, |adapt, _| adapt.closed(messages, now, "the server closed the connection"));
    }

    /// What the lane learns from a transaction.
    pub(super) fn learn(&self, lane: &Arc<Lane>, attempt: &Attempt, judgements: &[Judgement]) {
        let now = self.clock.now();
        let took = i64::try_from(attempt.transaction.as_millis()).unwrap_or(i64::MAX);
        let began = crate::clock::Timestamp(now.0.saturating_sub(took).saturating_sub(1));
        let cells = |n: usize| match lane.provider.count {
            Count::Messages => 1,
            Count::Recipients => u32::try_from(n).unwrap_or(u32::MAX),
        };
        let accepted = judgements.iter().filter(|j| j.fate == Fate::Delivered).count();
        let slowed = |j: &Judgement| j.throttled && !j.ruled;
        let throttled = judgements.iter().filter(|j| slowed(j)).count();
        let told = judgements.iter().position(slowed).and_then(|at| attempt.facts.get(at));
        let closed = attempt.facts.first().filter(|f| f.stage <= Stage::Mail && ended(f)).and(attempt.carried);
        self.teach(lane, |adapt, open| {
            if accepted > 0 {
                adapt.delivered(cells(accepted), began, now);
            }
            if let Some(messages) = closed {
                adapt.closed(messages, now, "the server closed the connection");
            }
            // Before MAIL it is about connections, see `unreached`.
            if let Some(Fact { event: Event::Reply(reply), stage, .. }) = told
                && *stage >= Stage::Idle
            {
                let about = About::told(&reply.text, false);
                let tried = Tried { cells: cells(throttled), before: attempt.carried.unwrap_or(0), open, began };
                adapt.throttled(about, tried, now, &reply.to_string());
            }
        });
        if let Some(fact) = told {
            self.log_throttled(lane, fact, if lane.provider.adaptive { "learned" } else { "none" }, &[]);
        }
    }

    fn log_throttled(&self, lane: &Arc<Lane>, fact: &Fact, rule: &str, effects: &[Effect]) {
        self.stats.throttled.add(1);
        let now = Instant::now();
        let loud = self.feedback.with(lane, |active| {
            let loud = active.logged.is_none_or(|at| now - at >= QUIET);
            if loud {
                active.logged = Some(now);
            } else if active.left_out == 0 {
                active.summary = now;
            }
            active.left_out += u64::from(!loud);
            loud
        });
        if loud {
            let mut effect: Vec<String> = effects.iter().map(|e| format!("{} until {}", e.what, e.until)).collect();
            if effects.is_empty() {
                effect = lane.explain(self.clock.now());
            }
            tracing::info!(
                provider = %lane.name,
                stage = %fact.stage,
                rule,
                effect = effect.join("; "),
                reply = %fact.event,
                "throttled"
            );
        }
    }

    fn alert(&self, lane: &Lane, origin: &str, fact: &Fact) {
        let now = Instant::now();
        let mut alerts = self.feedback.alerts.lock();
        alerts.retain(|_, at| now - *at < ALERT);
        let key = format!("{} {origin}", lane.name);
        if alerts.contains_key(&key) || alerts.len() >= ALERTS {
            return;
        }
        alerts.insert(key, now);
        drop(alerts);
        tracing::error!(provider = %lane.name, rule = origin, reply = %fact, "a reply that somebody should look at");
    }

    /// Takes up what was known before the last end. Lanes whose effects are over are forgotten.
    ///
    /// # Errors
    /// The queue could not be read; nothing is known then.
    pub async fn recall_feedback(&self) -> Result<(), crate::queue::QueueError> {
        let mut over = Vec::new();
        let now = self.clock.now();
        for (key, json) in self.queue.recall(MEMOS).await? {
            let name = LaneName::from(key.strip_prefix(MEMOS).unwrap_or_default());
            let lane = self.scheduler.lane(&name);
            match Adapt::restore(Configured::of(&lane.provider), &json, now) {
                Some(adapt) => {
                    for effect in adapt.explain(now) {
                        tracing::info!(provider = %name, effect, "feedback from before the start still holds");
                    }
                    self.teach(&lane, |slot, _| *slot = adapt);
                    self.feedback.with(&lane, |active| active.changed = false);
                }
                None => over.push((key, None)),
            }
        }
        if over.is_empty() { Ok(()) } else { self.queue.remember(over).await }
    }

    /// Lets time pass for feedback and stores it, until shutdown; then stores what is left.
    pub async fn keep_feedback(self: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                _ = stopping.changed() => {}
            }
            self.pass_time();
            self.store_feedback(false).await;
        }
        self.workers.none().await;
        self.store_feedback(true).await;
    }

    fn pass_time(&self) {
        let lanes: Vec<Arc<Lane>> = self.feedback.active.lock().values().map(|active| active.lane.clone()).collect();
        for lane in lanes {
            self.teach(&lane, |_, _| ());
            // A hold that has ended lets the queue be read again.
            self.scheduler.attend(&lane);
        }
        let now = Instant::now();
        for active in self.feedback.active.lock().values_mut() {
            if active.left_out > 0 && now - active.summary >= SUMMARY {
                tracing::info!(provider = %active.lane.name, count = active.left_out, "throttled, further times");
                active.left_out = 0;
                active.summary = now;
            }
        }
    }

    async fn store_feedback(&self, all: bool) {
        let now = Instant::now();
        let mut entries = Vec::new();
        let mut stored = Vec::new();
        {
            let mut active = self.feedback.active.lock();
            for (name, item) in active.iter_mut() {
                if item.changed && (all || item.stored.is_none_or(|at| now - at >= STORE)) {
                    let json = item.lane.feedback(self.clock.now(), |adapt, _| adapt.store()).0;
                    entries.push((format!("{MEMOS}{name}"), json.map(Bytes::from)));
                    item.changed = false;
                    item.stored = Some(now);
                    stored.push(name.clone());
                }
            }
            // What is stored and idle is no longer kept.
            active.retain(|_, item| {
                item.changed
                    || item.left_out > 0
                    || item.logged.is_some_and(|at| now - at < QUIET)
                    || !item.lane.feedback(self.clock.now(), |adapt, _| adapt.is_idle()).0
            });
        }
        if !entries.is_empty()
            && let Err(error) = self.queue.remember(entries).await
        {
            tracing::warn!(%error, "could not store what was learned from replies; trying again");
            let mut active = self.feedback.active.lock();
            for name in stored {
                if let Some(item) = active.get_mut(&name) {
                    item.changed = true;
                }
            }
        }
    }
}

/// Whether a host that did not take a connection has too many of ours: it says so, or it refuses
/// one while it serves others.
fn one_too_many(fact: &Fact, open: u32) -> bool {
    match &fact.event {
        Event::Reply(reply) if matches!(fact.stage, Stage::Greeting | Stage::Ehlo) => {
            reply.is_transient()
                && (open > 0 && reply.code == 421 || About::told(&reply.text, true) == About::Connections)
        }
        Event::Io(_) | Event::Closed => open > 0 && matches!(fact.stage, Stage::Connect | Stage::Greeting),
        _ => false,
    }
}

/// The server ended the connection, with or without a word.
fn ended(fact: &Fact) -> bool {
    match &fact.event {
        Event::Closed | Event::Io(_) => true,
        Event::Reply(reply) => reply.code == 421,
        _ => false,
    }
}
