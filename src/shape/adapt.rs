//! Feedback: what one lane learned from replies, and what follows for its limits. Pure.
//!
//! Two sources. Rules (the configuration's and the built-in ones) say what a reply means: their
//! effects hold for their time and come back little by little (`effects`). Beyond rules, with
//! `adaptive`, refusals are evidence (`signature`, `evidence`): what may be about the pace is tried
//! (`trial`), and what is teaches a rate (`pace`, `openings`); refused and closed connections teach a
//! number of connections and a number of messages per connection (`crowd`). [`Limits`] is the strictest of all; every one of them can be
//! explained, and none is ever wider than the configuration. When the wall clock is set back, all times
//! go back with it: nothing holds for longer than it would have. The whole state is stored as JSON:
//! fields that a later version adds are passed over, what has ended is dropped.

mod allowance;
mod before;
mod by_sender;
mod crowd;
mod effects;
mod evidence;
mod learn;
mod learned;
mod meter;
mod newcomers;
mod openings;
mod pace;
mod phase;
mod run;
mod senders;
mod signature;
mod trial;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::config::{Provider, ReplyRule, RuleAction};
use crate::mail::FeatureKeys;
use allowance::Allowances;
pub use allowance::{Amount, Attempted, Room, Says};
pub use crowd::Doubt;
use crowd::{Crowd, Spent};
use effects::Effects;
pub use effects::{Effect, What};
use evidence::Evidence;
pub use evidence::{Party, Verdict};
use learn::Experiment;
pub use learn::{Finding, Refused};
pub use newcomers::Newcomer;
use newcomers::Newcomers;
use pace::Pace;
pub use senders::SenderPace;
use senders::Senders;
pub use signature::{Prior, Signature, hash_of};
use trial::Watch;

/// First part of the names under which the states of lanes are stored.
pub const MEMOS: &str = "adapt/";
/// Version of the stored form; a greater one is not read.
const VERSION: u32 = 2;
/// A time that is earlier than the latest one by more than this was set back; by less, two who ask
/// at the same time have overtaken each other.
const SET_BACK: Duration = Duration::from_secs(2);
/// Refusals that are kept until it is known whether they are about connections.
const WITHHELD: usize = 64;
/// Bytes of a reply that are kept as a reason.
const REASON: usize = 200;

/// What limits of the configuration a lane has.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Configured {
    /// The strictest rate, in cells a second; `None`: no rate.
    pub rate: Option<f64>,
    /// Connections.
    pub connections: u32,
    /// Messages per connection.
    pub messages: u32,
    /// Learn beyond the rules.
    pub adaptive: bool,
}

impl Configured {
    /// Of a provider.
    pub fn of(provider: &Provider) -> Configured {
        // What is learned counts as `count` says; a limit of another unit tells nothing about it.
        let same = provider.rate.iter().filter(|r| r.count(provider.count) == Some(provider.count));
        let rates = same.map(|r| f64::from(r.rate.count) / r.per.as_secs_f64().max(0.001));
        Configured {
            rate: rates.min_by(f64::total_cmp),
            connections: provider.connections.max(1),
            messages: provider.messages_per_connection.max(1),
            adaptive: provider.adaptive,
        }
    }
}

/// What a throttle reply without a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum About {
    /// The pace: whatever says no more.
    Rate,
    /// The number of connections.
    Connections,
    /// The number of messages on this connection.
    Messages,
}

impl About {
    /// From the words of a reply; `early`: it was said before MAIL.
    pub fn told(text: &str, early: bool) -> About {
        let text = text.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
        let limit = ["too many", "maximum", "max ", "limit", "exceed", "concurren"];
        let per = ["per connection", "per session", "this session", "this connection", "on one connection"];
        if has(&["message", "mail", "transaction"]) && has(&per) {
            About::Messages
        } else if has(&["connection", "concurren", "session", "thread limit"])
            && has(&limit)
            && !has(&["closing connection"])
            || early && has(&["too many"])
        {
            About::Connections
        } else {
            About::Rate
        }
    }
}

/// The connection of a transaction that was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tried {
    /// Messages that it had carried before.
    pub before: u32,
    /// Connections open, this one included.
    pub open: u32,
}

/// What holds now.
#[derive(Clone, PartialEq, Debug)]
pub struct Limits {
    /// At most so many cells a second, besides the configured rates.
    pub rate: Option<f64>,
    /// Connections at most; never more than configured, at least 1.
    pub connections: u32,
    /// Whether further ones may be refused.
    pub doubt: Option<Doubt>,
    /// Messages per connection at most; never more than configured, at least 1.
    pub messages: u32,
    /// What else is counted on one.
    pub room: Room,
    /// Nothing leaves until then, and why.
    pub paused: Option<(Timestamp, String)>,
}

/// A refusal that may be about its connection.
#[derive(Clone, Debug, PartialEq)]
struct Withheld {
    sign: Signature,
    party: Party,
    cells: u32,
    sender: String,
    reply: String,
    began: Timestamp,
    now: Timestamp,
}

/// The feedback state of one lane.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapt {
    configured: Configured,
    pace: Pace,
    crowd: Crowd,
    newcomers: Newcomers,
    /// Nothing was known of any pace when the row of them began.
    paceless: bool,
    spent: Spent,
    allowances: Allowances,
    effects: Effects,
    evidence: Evidence,
    /// Paces of single senders.
    senders: Senders,
    /// The trial under way, and what to go back to.
    trial: Option<Experiment>,
    watch: Watch,
    /// Refusals since something passed that may be about connections.
    withheld: Vec<Withheld>,
    /// Verdicts that nobody was told yet.
    findings: Vec<Finding>,
    /// The latest time at which it was fed or asked.
    seen: Timestamp,
    changed: bool,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    #[serde(default)]
    pace: Pace,
    #[serde(default)]
    crowd: Crowd,
    #[serde(default)]
    spent: Spent,
    #[serde(default)]
    allowances: Allowances,
    #[serde(default)]
    effects: Effects,
    /// Since version 2.
    #[serde(default)]
    evidence: Evidence,
    #[serde(default)]
    senders: Senders,
    #[serde(default)]
    seen: Timestamp,
}

impl Adapt {
    /// Nothing is known.
    pub fn new(configured: Configured) -> Adapt {
        Adapt {
            configured,
            pace: Pace::default(),
            crowd: Crowd::default(),
            newcomers: Newcomers::default(),
            paceless: false,
            spent: Spent::default(),
            allowances: Allowances::default(),
            effects: Effects::default(),
            evidence: Evidence::default(),
            senders: Senders::default(),
            trial: None,
            watch: Watch::default(),
            withheld: Vec::new(),
            findings: Vec::new(),
            seen: Timestamp::default(),
            changed: false,
        }
    }

    /// From what [`Adapt::store`] gave; `None` if it cannot be read or nothing of it still holds.
    pub fn restore(configured: Configured, json: &[u8], now: Timestamp) -> Option<Adapt> {
        let stored: Stored = serde_json::from_slice(json).ok()?;
        if stored.version > VERSION {
            return None;
        }
        let Stored { pace, crowd, spent, allowances, effects, evidence, mut senders, seen, .. } = stored;
        senders.recall();
        let mut adapt =
            Adapt { pace, crowd, spent, allowances, effects, evidence, senders, seen, ..Adapt::new(configured) };
        if !configured.adaptive {
            adapt.unlearn();
        }
        adapt.advance(0, now);
        (!adapt.knows_nothing()).then_some(adapt)
    }

    /// For the queue; `None`: there is nothing to remember.
    pub fn store(&self) -> Option<Vec<u8>> {
        if self.knows_nothing() {
            return None;
        }
        let Adapt { pace, crowd, spent, effects, senders, seen, trial, .. } = self.clone();
        // A trial does not outlive the process: it would not be known what it compares.
        let pace = trial.map_or(pace, |trial| trial.former);
        let (evidence, senders, allowances) = (self.evidence.lasting(), senders.lasting(), self.allowances.lasting());
        let version = VERSION;
        serde_json::to_vec(&Stored { version, pace, crowd, spent, allowances, effects, evidence, senders, seen }).ok()
    }

    /// Forgets all that was learned; what rules did stays for its time.
    fn unlearn(&mut self) {
        self.changed |= !self.knows_nothing();
        let effects = std::mem::take(&mut self.effects);
        *self = Adapt { effects, seen: self.seen, changed: self.changed, ..Adapt::new(self.configured) };
    }

    /// Whether something was learned, done or dropped since this was last asked.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Nothing is known, nothing holds, and no time need pass for it.
    pub fn is_idle(&self) -> bool {
        self.knows_nothing() && !self.crowd.is_in_doubt() && !self.newcomers.is_in_doubt()
    }

    /// Nothing is known and nothing holds.
    fn knows_nothing(&self) -> bool {
        let learned = [self.pace.is_free(), self.crowd.is_free(), self.spent.is_free(), self.evidence.is_free()];
        let alone = self.trial.is_none() && self.senders.is_free() && self.allowances.is_free();
        learned.iter().all(|free| *free) && alone && self.effects.is_empty()
    }

    /// A rule matched a reply: whether it acts now (else its threshold is not reached, and the reply
    /// is judged as usual).
    pub fn counts(&mut self, rule: &ReplyRule, now: Timestamp) -> bool {
        self.changed |= rule.after.is_some();
        self.effects.counts(rule, now)
    }

    /// A rule acts; returns what it does to the lane.
    pub fn ruled(&mut self, rule: &ReplyRule, reply: &str, now: Timestamp) -> Vec<Effect> {
        let made = self.effects.act(rule, cut(reply), now);
        self.changed |= !made.is_empty();
        let slower = |effect: &&Effect| matches!(effect.what, What::Pause | What::SlowTo { .. });
        if self.configured.adaptive
            && let Some(until) = made.iter().filter(slower).map(|effect| effect.until).max()
        {
            // The pace that led there is remembered for the time after.
            let pause = made.iter().any(|effect| effect.what == What::Pause);
            self.pace.ruled(pause, until, now, self.configured.rate, cut(reply));
        }
        made
    }

    /// A connection has carried `messages`, the last one, of `sender`, just now.
    pub fn carried(&mut self, messages: u32, sender: u64) {
        self.spent.carried(messages, sender);
    }

    /// A reply after MAIL speaks of connections, or of messages on one, in words that are well known, and
    /// no rule says what it means. True if that is what it is taken for.
    pub fn told(&mut self, about: About, tried: Tried, now: Timestamp, reply: &str) -> bool {
        let reply = cut(reply);
        let taken = match about {
            _ if !self.configured.adaptive => false,
            About::Messages if tried.before > 0 => {
                self.spent.told(tried.before, now, reply);
                true
            }
            About::Connections => {
                // Whichever is opened after it, with as many open, shows that there may be more.
                self.crowd.refused((0, tried.open.saturating_sub(1)), true, now, reply);
                true
            }
            _ => false,
        };
        self.changed |= taken;
        taken
    }

    /// The connection of that number, in the order in which they began, was refused, as one too many (`said`: in these
    /// words) or for no reason, while `open` others were open.
    pub fn refused(&mut self, (number, open): (u64, u32), said: bool, now: Timestamp, reply: &str) {
        if self.configured.adaptive {
            self.crowd.refused((number, open), said, now, cut(reply));
            self.changed = true;
        }
    }

    /// The connection of that number was opened; `open` with it.
    pub fn opened(&mut self, (number, open): (u64, u32), now: Timestamp) {
        self.crowd.opened((number, open), now);
    }

    /// Mail was refused on a connection that had carried nothing, while others that had were open. `Some`: it is about
    /// the number of connections, and true if that is news.
    pub fn refused_newcomer(&mut self, one: Newcomer, now: Timestamp, reply: &str) -> Option<bool> {
        if !self.configured.adaptive {
            return None;
        }
        if self.crowd.is_too_many(one.working) {
            self.crowd.refused_late((one.number, one.working), one.number, now, cut(reply));
            self.changed = true;
            return Some(false);
        }
        let knows_no_pace = self.pace.is_free() && self.senders.is_free() && self.trial.is_none();
        if self.newcomers == Newcomers::default() {
            self.paceless = knows_no_pace;
        }
        let (most, first) = self.newcomers.refused(one, now)?;
        self.crowd.refused_late((one.number, most), first, now, cut(reply));
        // What a number explains says nothing of a pace.
        if std::mem::take(&mut self.paceless) {
            (self.pace, self.senders, self.evidence) = Default::default();
            (self.trial, self.watch) = (None, Watch::default());
        }
        self.changed = true;
        Some(true)
    }

    /// Mail was taken on a connection of that number, its first (`newcomer`) or a further one; `working` have carried
    /// something, with it.
    pub fn took(&mut self, (number, newcomer): (u64, bool), mail: FeatureKeys, working: u32, now: Timestamp) {
        if newcomer {
            self.newcomers.taken(number, working);
            self.crowd.took_first((number, working), now);
        } else {
            self.newcomers.served(mail);
        }
    }

    /// Mail was refused for now on a connection that had carried something, and it is not known that this is about what
    /// it had carried.
    pub fn refused_at_work(&mut self) {
        self.newcomers.refused_at_work();
    }

    /// Whether a newcomer that was refused is to be closed, for another one to show what that means.
    pub fn doubts_newcomers(&self) -> bool {
        self.newcomers.is_in_doubt()
    }

    /// The server closed a connection that was opened at `opened` and had carried `messages`, right after
    /// the last one; `sender`: it was to carry mail of that one. True: by now it is clear that it takes no more on one.
    pub fn closed(
        &mut self,
        (messages, opened): (u32, Timestamp),
        sender: Option<u64>,
        now: Timestamp,
        how: &str,
    ) -> bool {
        let narrower = self.configured.adaptive && messages < self.configured.messages;
        let learned = narrower && self.spent.closed((messages, opened), sender, now, cut(how));
        self.changed |= learned;
        learned
    }

    /// A message `next` of `sender` was accepted on a connection that had carried `before`.
    pub fn passed_on(&mut self, before: Amount, next: Amount, sender: u64, now: Timestamp) {
        self.changed |= self.allowances.passed(before, next, sender, now);
        self.give_back_withheld();
        self.withheld.clear();
    }

    /// What a server was found to take on one connection beside a number of messages, in words.
    pub fn per_connection(&self) -> Vec<String> {
        self.allowances.per_connection()
    }

    /// A refusal for now, or the end of a connection (`sign`: `None`): whether it is about what the connection has
    /// carried.
    pub fn refused_on(
        &mut self,
        sign: Option<&Signature>,
        attempt: &Attempted,
        now: Timestamp,
        reply: &str,
    ) -> (Says, Option<String>) {
        let is_pace = |sign: &Signature| {
            matches!(self.evidence.verdict_of(sign), Verdict::Pace | Verdict::SenderPace)
                || self.trial.as_ref().is_some_and(|experiment| experiment.is_of(sign.hash))
        };
        if !self.configured.adaptive || sign.is_some_and(is_pace) {
            return (Says::Nothing, None);
        }
        let hash = sign.map_or(allowance::ENDS, |sign| sign.hash);
        let says = self.allowances.refused(hash, attempt, now, cut(reply));
        self.changed |= matches!(says, Says::UsedUp { .. });
        self.give_back_withheld();
        let news = matches!(says, Says::UsedUp { news: true }).then(|| self.allowances.told(hash)).flatten();
        (says, news)
    }

    /// A refusal that is not to be evidence of anything else while it may be about its connection.
    pub fn withhold(&mut self, refused: &Refused<'_>, began: Timestamp, now: Timestamp) {
        if self.withheld.len() < WITHHELD {
            self.evidence.withheld(&refused.sign, &refused.party);
            let (sign, party, cells) = (refused.sign.clone(), refused.party, refused.cells);
            let (sender, reply) = (refused.sender.to_owned(), cut(refused.reply).to_owned());
            self.withheld.push(Withheld { sign, party, cells, sender, reply, began, now });
        }
    }

    /// They are not about connections: then they are evidence like others, as if they had come in a row just now.
    fn give_back_withheld(&mut self) {
        if !self.allowances.take_refuted() {
            return;
        }
        self.evidence.gives_back(self.withheld.len());
        for of in std::mem::take(&mut self.withheld) {
            let Withheld { sign, party, cells, sender, reply, began, now } = of;
            self.refused_for(&Refused { sign, party, sender: &sender, cells, reply: &reply }, began, now);
        }
    }

    /// Before it is fed at `now`: if the clock was set back since it was last fed or asked, all that
    /// holds goes back by as much.
    pub fn keep_time(&mut self, now: Timestamp) {
        let back = self.set_back(now);
        if !back.is_zero() {
            self.pace.go_back(back);
            self.crowd.go_back(back);
            self.newcomers.go_back(back);
            self.spent.go_back(back);
            self.allowances.go_back(back);
            self.effects.go_back(back);
            self.evidence.go_back(back);
            self.senders.go_back(back);
            if let Some(trial) = &mut self.trial {
                trial.go_back(back);
            }
            self.seen = now;
            self.changed |= !self.is_idle();
        }
        self.seen = self.seen.max(now);
    }

    /// By how much the clock was set back.
    fn set_back(&self, now: Timestamp) -> Duration {
        let back = self.seen.since(now);
        if back > SET_BACK { back } else { Duration::ZERO }
    }

    /// Lets time pass; `open` connections are open.
    pub fn advance(&mut self, open: u32, now: Timestamp) {
        self.keep_time(now);
        let configured = self.configured;
        self.end_trial(now);
        self.end_alone_trials(now);
        let held = self.trial.as_ref().is_some_and(Experiment::holds_its_pace);
        self.changed |= self.pace.advance(held, now, configured.rate);
        self.changed |= self.crowd.advance(open, configured.connections, now);
        self.newcomers.advance(now);
        self.changed |= self.spent.advance(now);
        self.changed |= self.allowances.advance(configured.messages, now);
        self.changed |= self.effects.advance(now, configured.rate, configured.connections);
        self.changed |= self.evidence.advance(now);
        self.changed |= self.senders.advance(now, configured.rate);
    }

    /// What holds at `now`.
    pub fn limits(&self, now: Timestamp) -> Limits {
        let configured = &self.configured;
        let paused = self.pause(now);
        let now = now.after(self.set_back(now));
        // While one sender is tried the lane may do what its own pace would not let it do.
        let pace = if self.senders.most().is_some() { self.senders.most() } else { self.pace.rate(now) };
        let rates = [pace, self.effects.rate(now)];
        let rate = rates.into_iter().flatten().min_by(f64::total_cmp);
        let connections = [self.crowd.cap(), self.effects.connections(now)].into_iter().flatten().min();
        let messages = [self.spent.cap(), self.allowances.messages(now), self.effects.messages()];
        let messages = messages.into_iter().flatten().min();
        Limits {
            rate: rate.filter(|rate| configured.rate.is_none_or(|limit| *rate < limit)),
            connections: connections.unwrap_or(u32::MAX).clamp(1, configured.connections),
            doubt: self.crowd.doubt(now).or_else(|| self.newcomers.doubt(now)),
            messages: messages.unwrap_or(u32::MAX).clamp(1, configured.messages),
            room: self.allowances.room(now),
            paused: paused.map(|p| (p.until, format!("{}: {}", p.rule.as_deref().unwrap_or("learned"), p.reply))),
        }
    }

    /// The rate now as a part of the configured one: in (0, 1]; 1 when no rate is configured.
    pub fn factor(&self, now: Timestamp) -> f64 {
        match (self.limits(now).rate, self.configured.rate) {
            (Some(rate), Some(limit)) if limit > 0.0 => (rate / limit).clamp(f64::MIN_POSITIVE, 1.0),
            _ => 1.0,
        }
    }

    /// Every effect in words: what, until when, because of what.
    pub fn explain(&self, now: Timestamp) -> Vec<String> {
        let mut out: Vec<String> = self
            .effects
            .list()
            .iter()
            .map(|e| if now < e.until { e.to_string() } else { format!("{e} (over, coming back)") })
            .collect();
        if let (Some(rate), Some(reason)) = (self.pace.rate(now), self.pace.reason()) {
            out.push(format!("slow to {} learned from: {reason}", readable(rate)));
        }
        if let (Some(cap), Some(reason)) = (self.crowd.cap(), self.crowd.reason()) {
            out.push(format!("{cap} connections learned from: {reason}"));
        }
        if let Some(cap) = self.spent.cap() {
            let (until, reason) = (self.spent.until(), self.spent.reason());
            out.push(format!("{cap} messages per connection until {until} learned from: {reason}"));
        }
        out.extend(self.allowances.explain());
        out.extend(self.senders.explain(now));
        out.extend(self.judged());
        out
    }
}

/// A pause in force: nothing leaves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pause {
    /// The rule that paused; `None`: it was learned.
    pub rule: Option<String>,
    /// The reply that led to it.
    pub reply: String,
    /// Its end.
    pub until: Timestamp,
}

impl Adapt {
    /// The pause in force at `now` that ends last.
    pub fn pause(&self, now: Timestamp) -> Option<Pause> {
        let back = self.set_back(now);
        let now = now.after(back);
        let ruled = self.effects.pause(now);
        let ruled = ruled.map(|e| Pause { rule: Some(e.rule.clone()), reply: e.reply.clone(), until: e.until });
        let learned = |until: Option<Timestamp>, reply: Option<&str>| {
            until.map(|until| Pause { rule: None, reply: reply.unwrap_or_default().to_owned(), until })
        };
        let pace = learned(self.pace.stopped(now), self.pace.reason());
        let crowd = learned(self.crowd.stopped(now), self.crowd.reason());
        let last = [ruled, pace, crowd].into_iter().flatten().max_by_key(|pause| pause.until)?;
        Some(Pause { until: last.until.before(back), ..last })
    }

    /// Ends every pause, of rules and learned ones; what else was learned stays.
    pub fn resume(&mut self, now: Timestamp) {
        self.effects.end_pauses();
        self.pace.end_stop(now);
        self.crowd.end_stop(now);
        self.senders.end_stops(now);
        self.changed = true;
    }

    /// Forgets everything that replies taught: what rules did, and what was learned beyond them.
    pub fn forget(&mut self) {
        *self = Adapt { seen: self.seen, changed: true, ..Adapt::new(self.configured) };
    }
}

/// Whether a rule slows, pauses or narrows the lane, or makes recipients wait.
pub fn is_throttle(rule: &ReplyRule) -> bool {
    rule.actions
        .iter()
        .any(|action| !matches!(action, RuleAction::Alert | RuleAction::Temporary | RuleAction::Permanent))
}

/// A rate for people.
pub fn readable(per_second: f64) -> String {
    match per_second {
        r if r >= 1.0 => format!("{r:.1}/s"),
        r if r >= 1.0 / 60.0 => format!("{:.1}/m", r * 60.0),
        r => format!("{:.1}/h", r * 3600.0),
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(REASON)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
#[path = "adapt_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "adapt_worlds.rs"]
mod worlds;
