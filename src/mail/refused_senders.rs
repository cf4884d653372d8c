//! Whose mail was turned away in words that seem to be about all of ours, one after the other: connections
//! ended at MAIL or later, or "log in first".
//!
//! While it was one sender's alone, that says something of that sender and nothing of the host: mail of
//! others is tried at once, one at a time. After a second sender it is about all, and then whoever has not been
//! refused yet is asked before those who were.
//!
//! Bounded: [`KNOWN`] senders are remembered. Pure.

use std::sync::Arc;

use tokio::time::Instant;

use super::sender_key;

/// Senders remembered after the second one.
const KNOWN: usize = 8;

/// See the module. Empty: it came before MAIL, which is about all.
#[derive(Clone, Default, Debug)]
pub struct RefusedSenders {
    /// The keys of the senders, the latest first.
    senders: [Option<u64>; KNOWN],
    /// The address of the only one.
    one: Option<Arc<str>>,
    /// Since when mail of another one is tried.
    pub others: Option<Instant>,
}

impl RefusedSenders {
    /// The first time; `None`: before MAIL.
    pub fn first(sender: Option<&str>) -> RefusedSenders {
        let mut refused = RefusedSenders { one: sender.map(Arc::from), ..RefusedSenders::default() };
        refused.remember(sender);
        refused
    }

    /// What is known after another time, to mail of `sender`, and how many times in a row that is after `times`.
    /// What one sender's mail had to wait is not what all of it has to: then it begins anew.
    pub fn again(&self, times: u32, sender: Option<&str>) -> (u32, RefusedSenders) {
        let times = if self.is_beyond_one(sender) { 1 } else { times.saturating_add(1) };
        let mut refused = self.clone();
        refused.add(sender);
        (times, refused)
    }

    /// Another time in a row.
    fn add(&mut self, sender: Option<&str>) {
        if self.is_beyond_one(sender) {
            (self.one, self.others) = (None, None);
        }
        self.remember(sender);
    }

    fn remember(&mut self, sender: Option<&str>) {
        let Some(key) = sender.map(sender_key) else { return };
        let at = self.senders.iter().position(|known| *known == Some(key)).unwrap_or(KNOWN - 1);
        if let Some(until_there) = self.senders.get_mut(..=at) {
            until_there.rotate_right(1);
        }
        self.senders[0] = Some(key);
    }

    /// The only sender it was about.
    pub fn one(&self) -> Option<&Arc<str>> {
        self.one.as_ref()
    }

    /// Whether it was about one sender so far, and is not any more with this one.
    pub fn is_beyond_one(&self, sender: Option<&str>) -> bool {
        self.one.is_some() && sender.is_none_or(|sender| !self.has(sender_key(sender)))
    }

    /// Whether it was about other senders only, and mail of this one is to be tried at once.
    pub fn spares(&self, sender: u64) -> bool {
        self.one.is_some() && !self.has(sender)
    }

    /// Whether mail of this sender was refused among others: they go first.
    pub fn goes_last(&self, sender: u64) -> bool {
        self.one.is_none() && self.has(sender)
    }

    fn has(&self, sender: u64) -> bool {
        self.senders.contains(&Some(sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sender_keeps_nobody_else_and_two_keep_all_but_are_asked_last() {
        let key = |n: usize| sender_key(&format!("s{n}@a.example"));
        let mut refused = RefusedSenders::first(Some("s0@a.example"));
        assert!(refused.spares(key(1)) && !refused.spares(key(0)) && !refused.goes_last(key(0)));
        refused.add(Some("s0@a.example"));
        assert_eq!(refused.one().map(|one| &**one), Some("s0@a.example"));
        assert!(refused.is_beyond_one(Some("s1@a.example")) && refused.is_beyond_one(None));
        refused.add(Some("s1@a.example"));
        assert!(refused.one().is_none() && !refused.is_beyond_one(Some("s2@a.example")));
        assert!((0..3).all(|n| !refused.spares(key(n))));
        assert_eq!([0, 1, 2].map(|n| refused.goes_last(key(n))), [true, true, false]);
        // Who was refused again stays, who was refused long ago is forgotten.
        (2..KNOWN).for_each(|n| refused.add(Some(&format!("s{n}@a.example"))));
        refused.add(Some("s0@a.example"));
        refused.add(Some("s99@a.example"));
        assert_eq!([0, 1, 2, 99].map(|n| refused.goes_last(key(n))), [true, false, true, true]);
    }

    #[test]
    fn an_end_before_mail_is_about_all() {
        let mut refused = RefusedSenders::first(None);
        assert!(!refused.spares(1) && refused.one().is_none());
        refused.add(Some("s@a.example"));
        assert!(!refused.spares(1) && refused.one().is_none());
        let mut refused = RefusedSenders::first(Some("s@a.example"));
        refused.add(None);
        assert!(!refused.spares(1));
    }
}
