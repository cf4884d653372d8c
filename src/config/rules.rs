//! When a reply rule applies: every condition that it states must hold. Pure. Also how it prints.

use std::fmt;

use super::fields::Field;
use super::units::Span;
use super::{ReplyRule, RuleAction};
use crate::smtp::upstream::{Reply, Stage};

impl ReplyRule {
    /// Whether every condition of this rule holds for what was replied at `stage`.
    ///
    /// `text` is looked for in the enhanced code and the words, as they stand on the wire: people
    /// copy both from a log.
    pub fn matches(&self, stage: Stage, reply: &Reply) -> bool {
        let printed = || reply.enhanced.map(|(class, subject, detail)| format!("{class}.{subject}.{detail}"));
        self.stage.is_none_or(|s| s == stage)
            && self.code.is_none_or(|code| code == reply.code)
            && self.enhanced.as_ref().is_none_or(|pattern| printed().is_some_and(|code| pattern.matches(&code)))
            && self.text.as_ref().is_none_or(|text| match printed() {
                Some(code) => contains(text, &format!("{code} {}", reply.text)),
                None => contains(text, &reply.text),
            })
    }
}

/// Conditions, an arrow, what follows: `421 4.7.28 "unusual rate" → provider: slow_to 10/m for 30m`.
impl fmt::Display for ReplyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code} ")?;
        }
        if let Some(enhanced) = &self.enhanced {
            write!(f, "{enhanced} ")?;
        }
        if let Some(text) = &self.text {
            write!(f, "\"{text}\" ")?;
        }
        if let Some(word) = self.stage.and_then(|stage| stage.to_val()) {
            write!(f, "at {} ", word.to_toml().as_str().unwrap_or_default())?;
        }
        if let Some(after) = self.after {
            write!(f, "after {after} ")?;
        }
        write!(f, "→ {}:", self.scope.as_str())?;
        for (i, action) in self.actions.iter().enumerate() {
            write!(f, "{} {action}", if i > 0 { "," } else { "" })?;
        }
        if self.lasting.is_zero() { Ok(()) } else { write!(f, " for {}", Span(self.lasting)) }
    }
}

impl fmt::Display for RuleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RuleAction::Delay(d) => write!(f, "delay {}", Span(*d)),
            RuleAction::SlowTo(rate) => write!(f, "slow_to {rate}"),
            RuleAction::Connections(n) => write!(f, "connections {n}"),
            RuleAction::MessagesPerConnection(n) => write!(f, "messages_per_connection {n}"),
            RuleAction::Pause => f.write_str("pause"),
            RuleAction::Temporary => f.write_str("temporary"),
            RuleAction::Permanent => f.write_str("permanent"),
            RuleAction::Alert => f.write_str("alert"),
        }
    }
}

/// Whether `text` has the parts of `pattern` between its `*` in it, in that order; case does not
/// matter. The leftmost place for each part leaves most room for the next, so this is linear in
/// the number of parts.
fn contains(pattern: &str, text: &str) -> bool {
    let text = text.to_lowercase();
    let mut rest = text.as_str();
    pattern.to_lowercase().split('*').all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::units::Pattern;
    use super::super::{RuleAction, RuleScope};
    use super::*;
    use std::time::Duration;

    fn rule(stage: Option<Stage>, code: Option<u16>, enhanced: Option<&str>, text: Option<&str>) -> ReplyRule {
        ReplyRule {
            origin: "test".into(),
            stage,
            code,
            enhanced: enhanced.map(Pattern::new),
            text: text.map(str::to_owned),
            scope: RuleScope::Provider,
            actions: vec![RuleAction::Pause],
            lasting: Duration::from_secs(1),
            after: None,
        }
    }

    #[test]
    fn every_condition_must_hold() {
        let text = "Our system has detected an Unusual Rate of mail";
        let reply = Reply { code: 421, enhanced: Some((4, 7, 28)), text: text.into() };
        let plain = Reply { enhanced: None, ..reply.clone() };
        let holds = |r: ReplyRule| r.matches(Stage::Mail, &reply);
        assert!(holds(rule(Some(Stage::Mail), Some(421), Some("4.7.28"), Some("unusual RATE"))));
        assert!(holds(rule(None, None, Some("4.7.*"), None)) && holds(rule(None, None, None, Some("4.7.28 our"))));
        assert!(holds(rule(None, None, None, Some("system*rate*mail"))));
        assert!(!holds(rule(None, None, None, Some("mail*system"))), "parts in order");
        assert!(!holds(rule(Some(Stage::Rcpt), Some(421), None, None)) && !holds(rule(None, Some(450), None, None)));
        assert!(!holds(rule(None, None, Some("4.7.2"), None)), "the whole code, not its beginning");
        assert!(!rule(None, None, Some("4.7.*"), None).matches(Stage::Mail, &plain));
    }

    #[test]
    fn no_text_is_expensive() {
        let pattern = "a*".repeat(500);
        assert!(!contains(&pattern, &"a".repeat(499)) && contains(&pattern, &"a".repeat(500)));
    }
}
