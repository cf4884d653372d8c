//! Whose departures count in a lane besides its own: limits follow the receiver, whatever the provider is
//! called that leads to it. Pure.
//!
//! What a provider *holds* are its smart host, or its patterns of domains and of mail exchangers, each since
//! a time, and what it gave up until a time. What left under the name of another provider counts in a lane
//! if the other one held then what the lane's provider holds now:
//! - a smart host (with the user who logs in), once the other one has given it up. While both have it, their
//!   limits are two, as they are configured.
//! - an overlapping pattern that the other one gave up, or that it had before the lane's provider got its own.
//!   Between two different smart hosts nothing counts.
//!
//! Nobody knows which part of what left under another name went to the names that a pattern has in common, so
//! all of it counts: too much for one window, never too little. It stays in the other one's record and is
//! never written into the lane's own, so that nothing counts twice however often configurations change.

use serde::{Deserialize, Serialize};

use crate::clock::Mark;
use crate::config::units::Pattern;
use crate::mail::LaneName;

/// What a provider leads to.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Receiver {
    /// All that its smart host takes.
    SmartHost,
    /// The domains of a pattern.
    Domains(String),
    /// Whoever has a mail exchanger of a pattern.
    Exchangers(String),
}

/// A receiver that a provider holds, or held.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Holding {
    /// The smart host and who logs in there; empty: none.
    pub relay: String,
    /// What it leads to.
    pub receiver: Receiver,
    /// From when on.
    pub since: Mark,
    /// When it was given up.
    pub until: Option<Mark>,
}

/// Another lane (or the lanes of its sources) whose departures count: those before a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Other {
    /// The name without a source.
    pub(super) lane: String,
    /// `None`: all of them.
    pub(super) until: Option<Mark>,
    /// The provider is not configured any more.
    pub(super) is_gone: bool,
}

/// Who holds what, and held what. Bounded by the configurations of the last weeks.
#[derive(Clone, Debug, Default)]
pub struct Succession {
    providers: Vec<(String, Vec<Holding>)>,
}

impl Succession {
    /// What each provider, by name, holds and held.
    pub fn new(providers: Vec<(String, Vec<Holding>)>) -> Succession {
        Succession { providers }
    }

    /// Whose departures count in a lane, at `now`.
    pub(super) fn others_of(&self, lane: &LaneName, now: &Mark) -> Vec<Other> {
        match lane.as_domain() {
            Some(domain) => self.others_of_domain(domain),
            None => self.others_of_provider(lane.base(), now),
        }
    }

    /// The lane of a domain that no provider has: who had it before.
    fn others_of_domain(&self, domain: &str) -> Vec<Other> {
        let until = |holdings: &[Holding]| {
            let had = holdings.iter().filter(|held| match &held.receiver {
                Receiver::Domains(pattern) => Pattern::new(pattern).matches(domain),
                Receiver::SmartHost | Receiver::Exchangers(_) => false,
            });
            had.filter_map(|held| held.until.clone()).reduce(later)
        };
        let others = self.providers.iter().filter_map(|(name, holdings)| {
            let until = until(holdings)?;
            Some(Other { lane: name.clone(), until: Some(until), is_gone: is_gone(holdings) })
        });
        others.collect()
    }

    fn others_of_provider(&self, name: &str, now: &Mark) -> Vec<Other> {
        let Some((_, own)) = self.providers.iter().find(|(known, _)| known == name) else { return Vec::new() };
        let own = Own::new(own);
        let mut others = Vec::new();
        for (other, holdings) in self.providers.iter().filter(|(other, _)| other != name) {
            let until = holdings.iter().filter_map(|held| own.counts_until(held, now)).reduce(later);
            if let Some(until) = until {
                others.push(Other { lane: other.clone(), until: Some(until), is_gone: is_gone(holdings) });
            }
        }
        // Before this provider had a domain, it had a lane of its own.
        let domains = own.exact.iter().map(|(domain, _)| LaneName::domain(domain).as_str().to_owned());
        others.extend(domains.map(|lane| Other { lane, until: None, is_gone: true }));
        others
    }
}

fn is_gone(holdings: &[Holding]) -> bool {
    holdings.iter().all(|held| held.until.is_some())
}

/// Moves what a provider holds on to a configuration in which it leads to these; none: it has no such provider.
/// What it gave up before and holds again is there twice: until when it had it first, and since when it has it now.
pub fn moved_on(holdings: &mut Vec<Holding>, relay: &str, receivers: &[Receiver], now: &Mark) {
    let (past, mut current): (Vec<Holding>, Vec<Holding>) = holdings.drain(..).partition(|held| held.until.is_some());
    for held in &mut current {
        if held.relay != relay || !receivers.contains(&held.receiver) {
            held.until = Some(now.clone());
        }
    }
    let is_known = |all: &[Holding], held: &Holding| {
        all.iter().any(|known| (&known.relay, &known.receiver) == (&held.relay, &held.receiver))
    };
    // What ends now says more than what ended before.
    let (ended, mut current): (Vec<Holding>, Vec<Holding>) = current.into_iter().partition(|held| held.until.is_some());
    let past = past.into_iter().filter(|held| !is_known(&ended, held)).collect::<Vec<_>>();
    for receiver in receivers {
        let (relay, receiver) = (relay.to_owned(), receiver.clone());
        let held = Holding { relay, receiver, since: now.clone(), until: None };
        if !is_known(&current, &held) {
            current.push(held);
        }
    }
    holdings.extend(past.into_iter().chain(ended).chain(current));
}

/// The later one of two times.
fn later(a: Mark, b: Mark) -> Mark {
    if b.since(&a).is_zero() { a } else { b }
}

/// What a provider holds now.
struct Own<'a> {
    /// Its smart host.
    relay: Option<&'a str>,
    /// Domains without a `*`.
    exact: Vec<(&'a str, &'a Holding)>,
    /// All patterns.
    patterns: Vec<(Pattern, &'a Holding)>,
}

impl Own<'_> {
    fn new(holdings: &[Holding]) -> Own<'_> {
        let mut own = Own { relay: None, exact: Vec::new(), patterns: Vec::new() };
        for held in holdings.iter().filter(|held| held.until.is_none()) {
            match &held.receiver {
                Receiver::SmartHost => own.relay = Some(&held.relay),
                Receiver::Domains(pattern) => {
                    if !pattern.contains('*') {
                        own.exact.push((pattern, held));
                    }
                    own.patterns.push((Pattern::new(pattern), held));
                }
                Receiver::Exchangers(pattern) => own.patterns.push((Pattern::new(pattern), held)),
            }
        }
        own
    }

    /// Until when what another one holds or held makes its departures count; `None`: not at all.
    fn counts_until(&self, theirs: &Holding, now: &Mark) -> Option<Mark> {
        let (Receiver::Domains(text) | Receiver::Exchangers(text)) = &theirs.receiver else {
            return theirs.until.clone().filter(|_| self.relay == Some(theirs.relay.as_str()));
        };
        let pattern = Pattern::new(text);
        let common = self.patterns.iter().filter(|(own, held)| {
            std::mem::discriminant(&held.receiver) == std::mem::discriminant(&theirs.receiver)
                && (held.relay == theirs.relay || held.relay.is_empty() || theirs.relay.is_empty())
                && own.overlaps(&pattern)
        });
        let until = common.filter_map(|(_, held)| match &theirs.until {
            Some(until) => Some(until.clone()),
            // They had it first, and have now what is left of it.
            None => (now.since(&held.since) < now.since(&theirs.since)).then(|| held.since.clone()),
        });
        until.reduce(later)
    }
}

#[cfg(test)]
#[path = "succession_tests.rs"]
mod tests;
