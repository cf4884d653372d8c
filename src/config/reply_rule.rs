//! `[[provider.NAME.on_reply]]`, checked: which replies, and what follows.

use std::time::Duration;

use super::units::{Pattern, Rate};

/// `[[provider.NAME.on_reply]]`, or a built-in rule: what a reply means and what follows.
#[derive(Clone, PartialEq, Debug)]
pub struct ReplyRule {
    /// Where it was written: `built-in gmail: vendor page` or `config.toml:12`.
    pub origin: String,
    /// Only at this stage.
    pub stage: Option<crate::smtp::upstream::Stage>,
    /// Only this basic code.
    pub code: Option<u16>,
    /// Only an enhanced code that matches, e.g. `4.7.28` or `4.7.*`.
    pub enhanced: Option<Pattern>,
    /// Only a text that contains this (case does not matter; `*` stands for any run of characters).
    pub text: Option<String>,
    /// How far it reaches.
    pub scope: RuleScope,
    /// What is done; at least one.
    pub actions: Vec<RuleAction>,
    /// How long the actions last.
    pub lasting: Duration,
    /// Only after that many matches in that time (`3/h`); before, the reply is judged as usual.
    pub after: Option<Rate>,
}

/// `scope` of a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RuleScope {
    /// The recipient that was refused.
    Recipient,
    /// The connection on which it was said.
    Connection,
    /// The provider (seen from one source address).
    Provider,
    /// The account at a smart host.
    Account,
}

/// One action of a rule.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RuleAction {
    /// `delay`: these recipients wait that long.
    Delay(Duration),
    /// `slow_to`: at most this rate.
    SlowTo(Rate),
    /// `connections`: at most so many.
    Connections(u32),
    /// `messages_per_connection`: at most so many.
    MessagesPerConnection(u32),
    /// `pause = true`: nothing leaves.
    Pause,
    /// `treat_as = "temporary"`: try again, whatever the code.
    Temporary,
    /// `treat_as = "permanent"`: bounce, whatever the code.
    Permanent,
    /// `alert = true`: an error line in the log, for somebody to look at.
    Alert,
}
