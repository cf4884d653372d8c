//! What mail has in common that was turned away in words that seem to be about all of ours, one message after the
//! other: connections ended at MAIL or later, or "log in first".
//!
//! As long as all of it has something in common (one sender, a domain of senders or of recipients, a size: see
//! [`Features`]), that may be what the host refuses, and says nothing of the host: mail that lacks some of it is
//! tried at once, one message at a time. If that is turned away as well, less is common to all, until nothing is:
//! then it is about all. Among mail that has to wait, senders who have not been refused yet are asked first.
//!
//! Bounded: [`KNOWN`] senders are remembered. Pure.

use std::sync::Arc;

use tokio::time::Instant;

use super::{FeatureKeys, Features};

/// Senders remembered.
const KNOWN: usize = 8;

/// See the module. Nothing in common: it came before MAIL, or is about all.
#[derive(Clone, Default, Debug)]
pub struct Refusals {
    /// What was turned away last, the latest first, a sender once.
    known: [Option<FeatureKeys>; KNOWN],
    common: FeatureKeys,
    /// The words for it.
    about: Option<Arc<str>>,
    /// Since when mail is tried that lacks some of that.
    pub others: Option<Instant>,
}

impl Refusals {
    /// The first time; `None`: before MAIL.
    pub fn first(of: Option<&Features<'_>>) -> Refusals {
        let mut refused = Refusals::default();
        if let Some(of) = of {
            refused.common = of.keys();
            refused.about = of.told(refused.common).map(Arc::from);
            refused.remember(refused.common);
        }
        refused
    }

    /// What is known after another time, and how many times in a row that is after `times`. What some mail had to
    /// wait is not what all of it has to: when it is about more than before, it begins anew.
    pub fn again(&self, times: u32, of: Option<&Features<'_>>) -> (u32, Refusals) {
        let mut refused = self.clone();
        let keys = of.map(Features::keys).unwrap_or_default();
        let more = self.spares(keys);
        if more {
            refused.common = self.common.common(keys);
            refused.about = of.and_then(|of| of.told(refused.common)).map(Arc::from);
            refused.others = None;
        }
        if !keys.is_empty() {
            refused.remember(keys);
        }
        (if more { 1 } else { times.saturating_add(1) }, refused)
    }

    fn remember(&mut self, keys: FeatureKeys) {
        let same = |known: &Option<FeatureKeys>| known.is_some_and(|known| known.sender() == keys.sender());
        let at = self.known.iter().position(same).unwrap_or(KNOWN - 1);
        if let Some(until_there) = self.known.get_mut(..=at) {
            until_there.rotate_right(1);
        }
        self.known[0] = Some(keys);
    }

    /// The mail that it is about, in words that follow "mail", if that is of one sender or domain, or to one
    /// recipient.
    pub fn about(&self) -> Option<&Arc<str>> {
        self.about.as_ref()
    }

    /// Whether there can be mail that is spared.
    pub fn spares_some(&self) -> bool {
        !self.common.is_empty()
    }

    /// Whether mail lacks something of what all that was turned away has in common, and is to be tried at once.
    /// If it is turned away, too, it is about more than before.
    pub fn spares(&self, keys: FeatureKeys) -> bool {
        self.spares_some() && !self.common.are_all_of(keys)
    }

    /// Whether mail of this sender, or of others at its domain, was turned away among that of others: they go
    /// first.
    pub fn goes_last(&self, keys: FeatureKeys) -> bool {
        let known = || self.known.iter().flatten();
        let several = |of: fn(FeatureKeys) -> u64| known().any(|one| known().any(|other| of(*one) != of(*other)));
        let among = |of: fn(FeatureKeys) -> u64| several(of) && known().any(|known| of(*known) == of(keys));
        among(FeatureKeys::sender) || among(FeatureKeys::sender_domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(refused: &mut Refusals, sender: &str) -> u32 {
        let (times, more) = refused.again(7, Some(&sender.into()));
        *refused = more;
        times
    }

    fn key(sender: &str) -> FeatureKeys {
        Features::from(sender).keys()
    }

    #[test]
    fn one_sender_keeps_nobody_else_two_of_a_domain_nobody_of_others_and_two_of_two_keep_all_but_are_asked_last() {
        let mut refused = Refusals::first(Some(&"s0@a.example".into()));
        assert!(refused.spares(key("s1@a.example")) && !refused.spares(key("s0@a.example")));
        assert_eq!(add(&mut refused, "s0@a.example"), 8);
        assert_eq!(refused.about().map(|about| &**about), Some("of s0@a.example"));
        assert!(!refused.goes_last(key("s0@a.example")));
        assert_eq!(add(&mut refused, "s1@a.example"), 1);
        assert_eq!(refused.about().map(|about| &**about), Some("of senders at a.example"));
        assert!(!refused.spares(key("s2@a.example")) && refused.spares(key("s@b.example")));
        let last = |refused: &Refusals, all: [&str; 4]| all.map(|sender| refused.goes_last(key(sender)));
        assert_eq!(
            last(&refused, ["s0@a.example", "s1@a.example", "s2@a.example", "s@b.example"]),
            [true, true, false, false]
        );
        assert_eq!(add(&mut refused, "s@b.example"), 1);
        assert!(refused.about().is_none() && !refused.spares(key("s@c.example")));
        // A domain whose senders are all new is no better than those of it that were refused.
        assert_eq!(
            last(&refused, ["s0@a.example", "s9@a.example", "s@b.example", "s@c.example"]),
            [true, true, true, false]
        );
        // Who was refused again stays, who was refused long ago is forgotten.
        for n in 3..KNOWN {
            add(&mut refused, &format!("s@{n}.example"));
        }
        add(&mut refused, "s0@a.example");
        add(&mut refused, "s@98.example");
        add(&mut refused, "s@99.example");
        assert_eq!(
            last(&refused, ["s0@a.example", "s@b.example", "s@98.example", "s@99.example"]),
            [true, false, true, true]
        );
    }

    #[test]
    fn an_end_before_mail_is_about_all() {
        let refused = Refusals::first(None);
        assert!(!refused.spares(key("s@a.example")) && refused.about().is_none());
        let (times, refused) = refused.again(1, Some(&"s@a.example".into()));
        assert!(times == 2 && !refused.spares(key("t@b.example")) && refused.about().is_none());
        let (times, refused) = Refusals::first(Some(&"s@a.example".into())).again(3, None);
        assert!(times == 1 && !refused.spares(key("t@b.example")));
    }

    /// A poisoned domain of recipients at a smart host: each of its messages is of another sender.
    #[test]
    fn what_recipients_have_in_common_spares_mail_to_others() {
        let to = |sender, recipient| Features::of(sender, [recipient], 1000);
        let refused = Refusals::first(Some(&to("a@a.example", "x@poison.example")));
        let (_, refused) = refused.again(1, Some(&to("b@b.example", "y@poison.example")));
        assert!(refused.spares(to("c@c.example", "z@other.example").keys()));
        assert!(!refused.spares(to("c@c.example", "z@poison.example").keys()));
        assert!(refused.about().is_none(), "of a lane where all mail is for one domain it would be no news");
        let (times, refused) = refused.again(4, Some(&to("c@c.example", "z@other.example")));
        assert!(times == 1 && !refused.spares(to("c@c.example", "z@third.example").keys()));
    }
}
