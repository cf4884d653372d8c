//! What rules did: effects that end by themselves and ramp up again, and thresholds.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pace::growth;
use crate::clock::Timestamp;
use crate::config::{ReplyRule, RuleAction, RuleScope};

/// Effects at once; more rules than that at work pause the lane by themselves.
const MOST: usize = 32;
/// Matches remembered for one threshold, and rules whose matches are remembered.
const MATCHES: usize = 1000;
const RULES: usize = 256;
/// The longest time a rate needs to come back.
const RAMP: Duration = Duration::from_secs(300);
/// How long each connection more waits when a cap on connections has ended.
const RAMP_STEP: Duration = Duration::from_secs(10);

/// What an effect limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// At most so many cells a second; the text is as configured.
    SlowTo {
        /// Cells a second.
        per_second: f64,
        /// e.g. `10/m`.
        text: String,
    },
    /// At most so many connections.
    Connections(u32),
    /// At most so many messages on a connection.
    Messages(u32),
    /// Nothing leaves.
    Pause,
}

impl What {
    fn same_kind(&self, other: &What) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::SlowTo { text, .. } => write!(f, "slow to {text}"),
            What::Connections(n) => write!(f, "{n} connections"),
            What::Messages(n) => write!(f, "{n} messages per connection"),
            What::Pause => f.write_str("pause"),
        }
    }
}

/// One effect, with its end and its cause.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// What it limits.
    pub what: What,
    /// Its end; a rate and a number of connections come back little by little from then on.
    pub until: Timestamp,
    /// The rule: `built-in gmail` or `config.toml:12`.
    pub rule: String,
    /// The reply that brought it about.
    pub reply: String,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} until {} because of {}: {}", self.what, self.until, self.rule, self.reply)
    }
}

/// All effects of a lane, and what its thresholds have counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Effects {
    #[serde(default)]
    list: Vec<Effect>,
    /// By rule and what it looks for.
    #[serde(default)]
    matches: BTreeMap<String, VecDeque<Timestamp>>,
}

impl Effects {
    pub(super) fn list(&self) -> &[Effect] {
        &self.list
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty() && self.matches.is_empty()
    }

    /// The clock was set back by that much.
    pub(super) fn go_back(&mut self, back: Duration) {
        let ends = self.list.iter_mut().map(|effect| &mut effect.until);
        for time in ends.chain(self.matches.values_mut().flatten()) {
            *time = time.before(back);
        }
    }

    /// A rule matched: whether it acts, or its threshold is not reached yet.
    pub(super) fn counts(&mut self, rule: &ReplyRule, now: Timestamp) -> bool {
        let Some(after) = rule.after else { return true };
        let key = key(rule);
        if !self.matches.contains_key(&key) && self.matches.len() >= RULES {
            return true;
        }
        let times = self.matches.entry(key).or_default();
        times.retain(|t| now.since(*t) < after.per);
        times.push_back(now);
        while times.len() > MATCHES {
            times.pop_front();
        }
        times.len() >= (after.count as usize).min(MATCHES)
    }

    /// Lets a rule act; returns what it does to the lane. Never wider than its scope.
    pub(super) fn act(&mut self, rule: &ReplyRule, reply: &str, now: Timestamp) -> Vec<Effect> {
        let wide = matches!(rule.scope, RuleScope::Provider | RuleScope::Account);
        let narrow = rule.scope == RuleScope::Connection;
        let mut made = Vec::new();
        for action in &rule.actions {
            let what = match action {
                RuleAction::SlowTo(rate) if wide => What::SlowTo {
                    per_second: f64::from(rate.count) / rate.per.as_secs_f64().max(0.001),
                    text: rate.to_string(),
                },
                RuleAction::Pause if wide => What::Pause,
                RuleAction::Connections(n) if wide => What::Connections((*n).max(1)),
                RuleAction::MessagesPerConnection(n) if wide || narrow => What::Messages((*n).max(1)),
                _ => continue,
            };
            let until = now.after(rule.lasting);
            let effect = Effect { what, until, rule: rule.origin.clone(), reply: reply.to_owned() };
            self.list.retain(|old| !(old.rule == effect.rule && old.what.same_kind(&effect.what)));
            if self.list.len() >= MOST {
                self.list.remove(0);
            }
            self.list.push(effect.clone());
            made.push(effect);
        }
        made
    }

    /// The strictest rate in cells a second, with what has ended coming back.
    pub(super) fn rate(&self, now: Timestamp) -> Option<f64> {
        let rates = self.list.iter().filter_map(|effect| match effect.what {
            What::SlowTo { per_second, .. } => Some(per_second * growth(now.since(effect.until).as_secs_f64())),
            _ => None,
        });
        rates.min_by(f64::total_cmp)
    }

    pub(super) fn connections(&self, now: Timestamp) -> Option<u32> {
        let caps = self.list.iter().filter_map(|effect| match effect.what {
            What::Connections(n) => Some(n.saturating_add(more(effect, now))),
            _ => None,
        });
        caps.min()
    }

    pub(super) fn messages(&self) -> Option<u32> {
        let caps = self.list.iter().filter_map(|effect| match effect.what {
            What::Messages(n) => Some(n),
            _ => None,
        });
        caps.min()
    }

    /// The pause that ends last.
    pub(super) fn pause(&self, now: Timestamp) -> Option<&Effect> {
        let pauses = self.list.iter().filter(|e| e.what == What::Pause && e.until > now);
        pauses.max_by_key(|e| e.until)
    }

    /// Ends all pauses.
    pub(super) fn end_pauses(&mut self) {
        self.list.retain(|effect| effect.what != What::Pause);
    }

    /// Drops what is over and has come back. True if something was dropped.
    pub(super) fn advance(&mut self, now: Timestamp, rate: Option<f64>, connections: u32) -> bool {
        let before = self.list.len() + self.matches.len();
        self.list.retain(|effect| {
            if now < effect.until {
                return true;
            }
            let since = now.since(effect.until);
            match effect.what {
                What::SlowTo { per_second, .. } => {
                    since < RAMP && rate.is_none_or(|limit| per_second * growth(since.as_secs_f64()) < limit)
                }
                What::Connections(n) => n.saturating_add(more(effect, now)) < connections,
                What::Messages(_) | What::Pause => false,
            }
        });
        // No threshold looks back further than a day.
        self.matches.retain(|_, times| times.back().is_some_and(|t| now.since(*t) < Duration::from_secs(86_400)));
        before != self.list.len() + self.matches.len()
    }
}

/// Connections that are back since the effect ended.
fn more(effect: &Effect, now: Timestamp) -> u32 {
    let since = now.since(effect.until);
    if since.is_zero() {
        return 0;
    }
    u32::try_from(since.as_secs() / RAMP_STEP.as_secs()).unwrap_or(u32::MAX)
}

/// What tells one rule of a lane from another, also after a restart.
fn key(rule: &ReplyRule) -> String {
    let code = rule.code.map(|c| c.to_string()).unwrap_or_default();
    let enhanced = rule.enhanced.as_ref().map_or("", |p| p.as_str());
    let stage = rule.stage.map(|s| s.to_string()).unwrap_or_default();
    format!("{} {stage} {code} {enhanced} {}", rule.origin, rule.text.as_deref().unwrap_or(""))
}
