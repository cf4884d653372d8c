//! The keys of `[[provider.NAME.on_reply]]` and of `[[limit]]`, and how a rule is put together.

use std::time::Duration;

use super::fields::{Field, STAGE_WORDS};
use super::keys::{Key, Table, keys};
use super::units::{Pattern, Rate};
use super::value::Kind;
use super::{Count, Limit, Over, ReplyRule, RuleAction, RuleScope};
use crate::smtp::upstream::Stage;

const SECOND: u64 = 1000;
const DAY: u64 = 86_400 * SECOND;

/// How long the same alert is not repeated where the rule does not say.
const ALERT_AGAIN: Duration = Duration::from_secs(3600);

/// `treat_as`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TreatAs {
    Temporary,
    Permanent,
}

/// A rule as it was written.
#[derive(Clone, Debug)]
pub(super) struct RuleDraft {
    /// Where it was written: `config.toml:12` or `built-in gmail`.
    pub origin: String,
    /// Kind of source of a built-in rule; empty for others.
    pub source: String,
    /// Its path in the file, such as `provider.gmail.on_reply[1]`.
    pub path: String,
    pub stage: Option<Stage>,
    pub code: Option<u16>,
    pub enhanced: Option<Pattern>,
    pub text: Option<String>,
    pub scope: Option<RuleScope>,
    pub delay: Option<Duration>,
    pub slow_to: Option<Rate>,
    pub connections: Option<u32>,
    pub messages_per_connection: Option<u32>,
    pub pause: bool,
    pub treat_as: Option<TreatAs>,
    pub alert: bool,
    pub lasting: Option<Duration>,
    pub after: Option<Rate>,
}

impl Table for RuleDraft {
    const NAME: &'static str = "on_reply";
    const KEYS: &'static [Key<RuleDraft>] = keys! {
        /// Only replies at this stage of the dialog; `final` is the reply to the whole message.
        "stage" stage: Kind::Word(STAGE_WORDS), example r#""mail""#;
        /// Only replies with this code.
        "code" code: Kind::Int(400, 599), example "421";
        /// Only replies with such an enhanced code.
        "enhanced" enhanced: Kind::Enhanced, example r#""4.7.28""#;
        /// Only replies with these words, which may be in upper or lower case and have * for any run
        /// of characters between them. No regular expression.
        "text" text: Kind::ReplyText, example r#""unusual rate""#;
        /// How far the rule reaches: the `recipient` that was refused, what is on this `connection`, all
        /// of the `provider` (from the same source address), or the `account` at a smart host.
        /// Default: `recipient` for `delay` and `treat_as` alone, else `provider`, or `account` at a
        /// smart host.
        "scope" scope: Kind::Word(RuleScope::WORDS), example r#""provider""#;
        /// Wait that long before the next attempt.
        "delay" delay: Kind::Span(SECOND, 7 * DAY), example r#""1h""#;
        /// At most this pace, for the time of `for`.
        "slow_to" slow_to: Kind::Rate, example r#""10/m""#;
        /// At most so many connections, for the time of `for`.
        "connections" connections: Kind::Int(1, 10_000), example "1";
        /// At most so many messages on a connection, for the time of `for`.
        "messages_per_connection" messages_per_connection: Kind::Int(1, 1_000_000), example "2";
        /// Send nothing for the time of `for`.
        "pause" pause: Kind::Flag, default "false";
        /// Take the reply as `temporary` (try again) or `permanent` (bounce), whatever its code says.
        "treat_as" treat_as: Kind::Word(TreatAs::WORDS), example r#""temporary""#;
        /// Log an error for somebody to look at, at most once in the time of `for`, or in an hour.
        "alert" alert: Kind::Flag, default "false";
        /// How long it lasts. After that, things speed up again.
        "for" lasting: Kind::Span(SECOND, 31 * DAY), example r#""30m""#;
        /// Only once there were so many such replies in that time; until then they are judged as usual.
        "after" after: Kind::Rate, example r#""3/h""#;
    };

    fn blank() -> RuleDraft {
        RuleDraft {
            origin: String::new(),
            source: String::new(),
            path: String::new(),
            stage: None,
            code: None,
            enhanced: None,
            text: None,
            scope: None,
            delay: None,
            slow_to: None,
            connections: None,
            messages_per_connection: None,
            pause: false,
            treat_as: None,
            alert: false,
            lasting: None,
            after: None,
        }
    }
}

impl RuleDraft {
    /// It has actions that hold for a while.
    pub(super) fn is_lasting(&self) -> bool {
        self.pause || self.slow_to.is_some() || self.connections.is_some() || self.messages_per_connection.is_some()
    }

    /// The scope where the rule does not say.
    pub(super) fn effective_scope(&self, smart_host: bool) -> RuleScope {
        match self.scope {
            Some(scope) => scope,
            None if !self.is_lasting() && !self.alert => RuleScope::Recipient,
            None if smart_host => RuleScope::Account,
            None => RuleScope::Provider,
        }
    }

    /// Actions in a fixed order: what decides about the message first.
    pub(super) fn actions(&self) -> Vec<RuleAction> {
        let treat = self.treat_as.map(|treat| match treat {
            TreatAs::Temporary => RuleAction::Temporary,
            TreatAs::Permanent => RuleAction::Permanent,
        });
        [
            treat,
            self.delay.map(RuleAction::Delay),
            self.pause.then_some(RuleAction::Pause),
            self.slow_to.map(RuleAction::SlowTo),
            self.connections.map(RuleAction::Connections),
            self.messages_per_connection.map(RuleAction::MessagesPerConnection),
            self.alert.then_some(RuleAction::Alert),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Where it came from, with the kind of source of a built-in one.
    pub(super) fn from(&self) -> String {
        if self.source.is_empty() { self.origin.clone() } else { format!("{}: {}", self.origin, self.source) }
    }

    /// The rule as it is applied, in a provider with or without a smart host.
    pub(super) fn assemble(&self, smart_host: bool) -> ReplyRule {
        let alert = if self.alert { ALERT_AGAIN } else { Duration::ZERO };
        ReplyRule {
            origin: self.from(),
            stage: self.stage,
            code: self.code,
            enhanced: self.enhanced.clone(),
            text: self.text.clone(),
            scope: self.effective_scope(smart_host),
            actions: self.actions(),
            lasting: self.lasting.unwrap_or(alert),
            after: self.after,
        }
    }
}

impl Table for Limit {
    const NAME: &'static str = "limit";
    const KEYS: &'static [Key<Limit>] = keys! {
        /// Messages whose sender matches. "<>" is the null sender of bounces.
        "sender" sender: Kind::MailPattern(true), default r#""*""#;
        /// Messages that such clients handed in. Empty: whoever did.
        "client" client: Kind::Networks, default "[]";
        /// Messages of clients that had logged in as this `[[user]]`. Without it: whoever did.
        "user" user: Kind::UserName, example r#""shop""#;
        /// On their way through such providers; "@*" are the destinations that have none. Each provider, and each
        /// domain without one, counts for itself: `quota = "100/d"` lets a hundred leave by every one of them.
        "provider" provider: Kind::LanePattern, default r#""*""#;
        /// Pace, or several that all hold, of messages or recipients, as in "60/m recipients".
        "rate" rate: Kind::CountedRates(false), default "[]";
        /// Caps that hold in every window of that length, wherever it begins.
        "quota" quota: Kind::CountedRates(false), default "[]";
        /// What those without a unit count: `messages` (transactions) or `recipients`.
        "count" count: Kind::Word(Count::WORDS), default r#""messages""#;
        /// Each sender domain has such a limit of its own, instead of one for all that match. The null sender has no
        /// domain: such a limit is about it only with `sender = "<>"`.
        "each_domain" each_domain: Kind::Flag, default "false";
        /// Each user has such a limit of its own; it is about nobody who has not logged in. For limits with another `over` than `wait`.
        "each_user" each_user: Kind::Flag, default "false";
        /// What becomes of more: it waits in the queue (`wait`); it is refused with 450 4.7.1 when it comes in (`reject`;
        /// 554 5.7.1 if its recipients alone are more than the number); it is taken, and put aside until `mailweir queue release` (`hold`); or it is
        /// refused and the user may neither send nor log in until `mailweir user unlock` (`lock`). What comes in is counted
        /// as one, whatever its provider, and in windows, also by `rate`.
        "over" over: Kind::Word(Over::WORDS), default r#""wait""#;
    };

    fn blank() -> Limit {
        Limit {
            sender: Pattern::any(),
            client: Vec::new(),
            user: None,
            provider: Pattern::any(),
            rate: Vec::new(),
            quota: Vec::new(),
            count: Count::Messages,
            each_domain: false,
            each_user: false,
            over: Over::Wait,
        }
    }
}
