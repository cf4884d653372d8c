//! Feedback in the pipeline: what is logged about what a lane learned (see `lesson`), and the task that
//! lets effects end and stores the state.
//!
//! The state of a lane is written behind: within [`TICK`] of a change, at most every [`STORE`] for
//! one lane, and at shutdown. A `kill -9` forgets what was learned in the last moments, no more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Relay;
use super::lesson::{TICK, Teach};
use super::moves::source;
use crate::clock::Timestamp;
use crate::config::{ReplyRule, RuleScope};
use crate::deliver::Fact;
use crate::mail::LaneName;
use crate::schedule::{Lane, Wake};
use crate::shape::adapt::{Adapt, Configured, Effect, Finding, MEMOS, Verdict};

/// Least time between two writings of one lane.
const STORE: Duration = Duration::from_secs(3);
/// More throttle lines of one lane than one a second are counted instead, and told once a minute.
const QUIET: Duration = Duration::from_secs(1);
const SUMMARY: Duration = Duration::from_secs(60);
/// How often one rule alerts.
const ALERT: Duration = Duration::from_secs(3600);
/// Lanes of domains about which something is kept when they have nothing to do. What replies taught
/// of more than these lives as long as their lanes work.
const DOMAINS: usize = 1000;
/// Rules whose alerts are remembered.
const ALERTS: usize = 1000;

/// Lanes about which something is known. They stay alive by that.
#[derive(Default)]
pub(super) struct Feedback {
    active: Mutex<BTreeMap<LaneName, Active>>,
    /// The first of them came.
    stirred: Notify,
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
    /// The connections that it was last told are the most there may be.
    connections: Option<u32>,
}

impl Feedback {
    /// Does something to what is kept about a lane; `None`: nothing is, there are too many domains.
    fn with<T>(&self, lane: &Arc<Lane>, act: impl FnOnce(&mut Active) -> T) -> Option<T> {
        let mut active = self.active.lock();
        let domain = lane.name.as_domain().is_some();
        if domain && active.len() >= DOMAINS && !active.contains_key(&lane.name) {
            return None;
        }
        if active.is_empty() {
            self.stirred.notify_one();
        }
        let active = active.entry(lane.name.clone()).or_insert_with(|| Active {
            lane: lane.clone(),
            changed: false,
            stored: None,
            logged: None,
            left_out: 0,
            summary: Instant::now(),
            connections: None,
        });
        Some(act(active))
    }
}

impl OfLane<'_> {
    fn tell_connections(&self, most: Option<u32>) {
        let name = &self.lane.name;
        let (provider, source) = (name.base(), source(name));
        let Some(most) = most else {
            return tracing::info!(provider, source, "learned: all connections may be open again");
        };
        let lines = self.lane.explain(self.now());
        let why: Vec<&String> = lines.iter().filter(|line| line.contains("connection")).collect();
        tracing::info!(provider, source, connections = most, ?why, "learned: no more connections than these");
    }
}

/// A lane of the relay: what it learns is logged and stored.
pub(super) struct OfLane<'a> {
    relay: &'a Relay,
    lane: &'a Arc<Lane>,
}

impl Teach for OfLane<'_> {
    fn lane(&self) -> &Arc<Lane> {
        self.lane
    }

    fn now(&self) -> Timestamp {
        self.relay.clock.now()
    }

    /// What changed is stored soon.
    fn taught(&self, changed: bool, wake: Wake) {
        if changed {
            let now = self.lane.fewer_connections();
            let before = self.relay.feedback.with(self.lane, |active| {
                active.changed = true;
                std::mem::replace(&mut active.connections, now)
            });
            // That they come back one by one is no news before all are there.
            let fewer = now.is_some_and(|now| before.flatten().is_none_or(|before| now < before));
            if fewer || now.is_none() && before.flatten().is_some() {
                self.tell_connections(now);
            }
        }
        self.relay.scheduler.wake(self.lane, wake);
    }

    fn throttled(&self, fact: &Fact, rule: &str, effects: &[Effect]) {
        self.relay.log_throttled(self.lane, fact, rule, effects);
    }

    fn alert(&self, rule: &str, fact: &Fact) {
        self.relay.alert(self.lane, rule, fact);
    }

    fn spent(&self, messages: u32) {
        let name = &self.lane.name;
        tracing::info!(
            provider = name.base(),
            source = source(name),
            messages,
            "learned: the server closes a connection after so many messages"
        );
    }

    fn used_up(&self, most: &str) {
        let name = &self.lane.name;
        tracing::info!(
            provider = name.base(),
            source = source(name),
            most,
            "learned: the server takes no more than so much on a connection"
        );
    }

    fn found(&self, finding: &Finding) {
        let name = &self.lane.name;
        let about = match finding.verdict {
            Verdict::Pace => "the pace",
            Verdict::SenderPace => "the pace of each sender",
            Verdict::NotPace => "something else than the pace",
            Verdict::Unknown => "nobody knows what",
        };
        tracing::info!(
            provider = name.base(),
            source = source(name),
            refusal = finding.sample,
            about,
            evidence = finding.evidence,
            "learned what a kind of refusal is about"
        );
    }

    /// An account is one, from whatever address it is used.
    fn acted(&self, rule: &ReplyRule, reply: &str) {
        if rule.scope != RuleScope::Account {
            return;
        }
        let (relay, own) = (self.relay, &self.lane.name);
        let others = relay.router.lanes_of(&LaneName::from(own.base()));
        for name in others.into_iter().filter(|name| name != own) {
            let now = self.now();
            relay.of(&relay.scheduler.lane(&name)).teach(|adapt, _| adapt.ruled(rule, reply, now));
        }
    }
}

impl Relay {
    /// What is learned in a lane of this relay.
    pub(super) fn of<'a>(&'a self, lane: &'a Arc<Lane>) -> OfLane<'a> {
        OfLane { relay: self, lane }
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
        if loud.unwrap_or(true) {
            let mut effect: Vec<String> = effects.iter().map(|e| format!("{} until {}", e.what, e.until)).collect();
            if effects.is_empty() {
                effect = lane.explain(self.clock.now());
            }
            if effect.is_empty() {
                // A rule that only delays, or a trial that has just ended.
                effect.push("its recipients wait, the lane goes on as before".into());
            }
            tracing::info!(
                provider = lane.name.base(),
                source = source(&lane.name),
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
        let (provider, source) = (lane.name.base(), source(&lane.name));
        tracing::error!(provider, source, rule = origin, reply = %fact, "a reply that somebody should look at");
    }

    /// Takes up what was known before the last end. Lanes whose effects are over are forgotten.
    ///
    /// # Errors
    /// The queue could not be read; nothing is known then.
    pub(super) async fn recall_feedback(&self) -> Result<(), crate::queue::QueueError> {
        let mut over = Vec::new();
        let now = self.clock.now();
        let mut domains = 0;
        for (key, json) in self.queue.recall(MEMOS).await? {
            let former = LaneName::from(key.strip_prefix(MEMOS).unwrap_or_default());
            domains += usize::from(former.as_domain().is_some());
            if former.as_domain().is_some() && domains > DOMAINS {
                over.push((key, None));
                continue;
            }
            // What is not configured just now may come back.
            if former.as_domain().is_none() && self.config.provider(former.base()).is_none() {
                continue;
            }
            let lanes = self.lanes_for(&former);
            let kept = lanes.contains(&former);
            let mut holds = false;
            for name in lanes {
                let lane = self.scheduler.lane(&name);
                let Some(adapt) = Adapt::restore(Configured::of(&lane.provider), &json, now) else { continue };
                for effect in adapt.explain(now) {
                    let (provider, source) = (name.base(), source(&name));
                    tracing::info!(provider, source, effect, "feedback from before the start still holds");
                }
                holds = true;
                self.of(&lane).teach(|slot, _| *slot = adapt);
                self.feedback.with(&lane, |active| active.changed = !kept);
            }
            if !kept || !holds {
                over.push((key, None));
            }
        }
        if over.is_empty() { Ok(()) } else { self.queue.remember(over).await }
    }

    /// For which lanes the state of a lane of an earlier configuration holds: what was learned for all
    /// sources together holds for each; what was learned from one that is no longer used is of no use.
    pub(super) fn lanes_for(&self, former: &LaneName) -> Vec<LaneName> {
        let now = self.router.lanes_of(&LaneName::from(former.base()));
        match former.source() {
            Some(_) => now.into_iter().filter(|lane| lane == former).collect(),
            None => now,
        }
    }

    /// Lets time pass for feedback and stores it, until shutdown; then stores what is left.
    pub async fn keep_feedback(self: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            // Nothing to do for a relay that has no trouble, so it is not woken.
            let idle = self.feedback.active.lock().is_empty();
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = self.feedback.stirred.notified(), if idle => continue,
                () = tokio::time::sleep(TICK), if !idle => {}
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
            self.of(&lane).teach(|_, _| ());
            // A hold that has ended lets the queue be read again.
            self.scheduler.attend(&lane);
        }
        let now = Instant::now();
        for active in self.feedback.active.lock().values_mut() {
            if active.left_out > 0 && now - active.summary >= SUMMARY {
                let name = &active.lane.name;
                tracing::info!(
                    provider = name.base(),
                    source = source(name),
                    count = active.left_out,
                    "throttled, further times"
                );
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
                    let json = item.lane.learned(Adapt::store);
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
                    || !item.lane.learned(Adapt::is_idle)
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
