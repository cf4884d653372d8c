//! Counts of the sessions with the hosts of each domain, by UTC day.
//!
//! A domain is counted before it is known whether it wants a report: no mail waits for that question. Who answers it
//! ([`Tally::unknown`], [`Tally::answer`]) is a task; a domain that publishes nothing is forgotten, and not counted
//! again that day.
//!
//! Bounded: [`MOST_DOMAINS`] domains of a day, of at most two days, with [`MOST_POLICIES`] policies each, and
//! [`MOST_BYTES`] of all that is told of them; [`MOST_WITHOUT`] domains that publish nothing. What is beyond that is not
//! counted, or without its details, and the log tells.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::day::{Counted, Day, Stored};
use super::seen::{Failure, Policy};
use crate::clock::Timestamp;
use crate::observe::seldom;

/// Domains of a day that are counted.
pub const MOST_DOMAINS: usize = 2000;
/// Policies of a domain that are told apart on a day: one has another when it changes, and one for each of its hosts
/// that has TLSA records.
const MOST_POLICIES: usize = 8;
/// Bytes of policies and failures.
const MOST_BYTES: usize = 4 << 20;
/// Domains without a record that are remembered.
const MOST_WITHOUT: u64 = 20_000;

/// What is known of a domain on a day.
#[derive(Default)]
struct Domain {
    /// It wants a report. Else it is not known yet.
    publishes: bool,
    /// Somebody asks.
    asked: bool,
    counted: Vec<Counted>,
}

impl Domain {
    fn bytes(&self) -> usize {
        self.counted.iter().map(Counted::bytes).sum()
    }
}

#[derive(Default)]
struct State {
    domains: BTreeMap<(Day, Arc<str>), Domain>,
    changed: BTreeSet<(Day, Arc<str>)>,
    bytes: usize,
}

impl State {
    fn forget(&mut self, key: &(Day, Arc<str>)) {
        if let Some(domain) = self.domains.remove(key) {
            self.bytes = self.bytes.saturating_sub(domain.bytes());
        }
        self.changed.remove(key);
    }

    fn of_day(&self, day: Day) -> impl Iterator<Item = (&(Day, Arc<str>), &Domain)> {
        self.domains.iter().filter(move |((of, _), _)| *of == day)
    }

    fn has_room(&self, key: &(Day, Arc<str>)) -> bool {
        self.domains.contains_key(key)
            || self.of_day(key.0).count() < MOST_DOMAINS && self.domains.len() < 2 * MOST_DOMAINS
    }
}

/// See the module.
pub struct Tally {
    state: Mutex<State>,
    /// Domains that publish nothing, with the day of that answer.
    without: Cache<Arc<str>, Day>,
    stirred: Notify,
}

/// What was counted today, for operators.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Today {
    /// Domains that want a report.
    pub domains: usize,
    /// Domains of which that is not known yet.
    pub unknown: usize,
    /// Good sessions with the hosts of the former.
    pub successful: u64,
    /// The others.
    pub failed: u64,
}

impl Default for Tally {
    fn default() -> Tally {
        let without = Cache::builder().max_capacity(MOST_WITHOUT).build();
        Tally { state: Mutex::default(), without, stirred: Notify::new() }
    }
}

impl Tally {
    /// Counts a session with a host of `domain`: a good one without a failure.
    pub fn count(&self, domain: &Arc<str>, policy: Policy, failure: Option<Failure>, now: Timestamp) {
        let day = Day::of(now);
        if self.without.get(domain) == Some(day) {
            return;
        }
        let (mut state, key) = (self.state.lock(), (day, domain.clone()));
        if !state.has_room(&key) {
            drop(state);
            return left_out("domains");
        }
        let room = MOST_BYTES.saturating_sub(state.bytes);
        if !state.domains.contains_key(&key) {
            self.stirred.notify_one();
        }
        let entry = state.domains.entry(key.clone()).or_default();
        let at = match entry.counted.iter().position(|counted| counted.policy == policy) {
            Some(at) => at,
            None if entry.counted.len() == MOST_POLICIES || policy.bytes() > room => {
                drop(state);
                return left_out("policies");
            }
            None => {
                entry.counted.push(Counted::new(policy));
                entry.counted.len() - 1
            }
        };
        if let Some(counted) = entry.counted.get_mut(at) {
            let new = if counted.successful == 0 && counted.failures.is_empty() { counted.bytes() } else { 0 };
            let more = new + counted.add(failure, room.saturating_sub(new));
            state.bytes += more;
        }
        state.changed.insert(key);
    }

    /// Returns when there is a domain of which it is not known yet.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Domains of which it is not known whether they want a report, at most `most`; to be answered.
    pub fn unknown(&self, most: usize) -> Vec<(Day, Arc<str>)> {
        let mut state = self.state.lock();
        let unknown = state.domains.iter_mut().filter(|(_, domain)| !domain.publishes && !domain.asked).take(most);
        unknown
            .map(|(key, domain)| {
                domain.asked = true;
                key.clone()
            })
            .collect()
    }

    /// Whether a domain wants a report; `None`: nobody knows now, so it is asked again.
    pub fn answer(&self, key: &(Day, Arc<str>), publishes: Option<bool>) {
        let mut state = self.state.lock();
        match publishes {
            Some(true) => {
                if let Some(domain) = state.domains.get_mut(key) {
                    domain.publishes = true;
                    state.changed.insert(key.clone());
                }
            }
            Some(false) => {
                state.forget(key);
                self.without.insert(key.1.clone(), key.0);
            }
            None => {
                if let Some(domain) = state.domains.get_mut(key) {
                    domain.asked = false;
                }
            }
        }
    }

    /// Takes up what was stored of a day.
    pub fn recall(&self, day: Day, domain: &str, stored: Stored) {
        let (mut state, key) = (self.state.lock(), (day, Arc::from(domain)));
        if state.domains.contains_key(&key) || !state.has_room(&key) {
            return;
        }
        let domain = Domain { publishes: true, asked: false, counted: stored.policies };
        state.bytes += domain.bytes();
        state.domains.insert(key, domain);
    }

    /// What is to be stored. What it tells of a day that is over is complete, and forgotten here with
    /// [`Tally::end`] once it is stored.
    pub fn take_changes(&self) -> Vec<(Day, Arc<str>, Stored)> {
        let mut state = self.state.lock();
        let changed = std::mem::take(&mut state.changed);
        let mut taken = Vec::new();
        for key in changed {
            // Of whom it is not known yet, all is told once it is.
            if let Some(domain) = state.domains.get(&key).filter(|domain| domain.publishes) {
                let stored = Stored { policies: domain.counted.clone(), ..Stored::default() };
                taken.push((key.0, key.1, stored));
            }
        }
        taken
    }

    /// They could not be stored: they still are to be.
    pub fn put_back(&self, changes: &[(Day, Arc<str>, Stored)]) {
        let mut state = self.state.lock();
        for (day, domain, _) in changes {
            let key = (*day, domain.clone());
            if state.domains.contains_key(&key) {
                state.changed.insert(key);
            }
        }
    }

    /// Forgets the days before this one but for what is still to be stored; the domains that have ended. Who never
    /// answered until then gets no report.
    pub fn end(&self, today: Day) -> Vec<(Day, Arc<str>)> {
        let mut state = self.state.lock();
        let over: Vec<(Day, Arc<str>)> = state.domains.keys().filter(|(day, _)| *day < today).cloned().collect();
        let mut ended = Vec::new();
        for key in over {
            let Some(domain) = state.domains.get(&key) else { continue };
            // Its last question is still open, for an hour at most.
            if domain.publishes && !state.changed.contains(&key) {
                state.forget(&key);
                ended.push(key);
            } else if !domain.publishes && key.0.0 + 1 < today.0 {
                state.forget(&key);
            }
        }
        ended
    }

    /// What was counted today of one domain that wants a report.
    pub fn of(&self, domain: &str, now: Timestamp) -> Option<(u64, u64)> {
        let state = self.state.lock();
        let domain = state.domains.get(&(Day::of(now), Arc::from(domain))).filter(|domain| domain.publishes)?;
        Some(sessions(domain))
    }

    /// What was counted today.
    pub fn today(&self, now: Timestamp) -> Today {
        let state = self.state.lock();
        let mut today = Today::default();
        for (_, domain) in state.of_day(Day::of(now)) {
            if !domain.publishes {
                today.unknown += 1;
                continue;
            }
            let (successful, failed) = sessions(domain);
            today.domains += 1;
            today.successful = today.successful.saturating_add(successful);
            today.failed = today.failed.saturating_add(failed);
        }
        today
    }
}

fn sessions(domain: &Domain) -> (u64, u64) {
    let sum = |count: fn(&Counted) -> u64| domain.counted.iter().map(count).fold(0, u64::saturating_add);
    (sum(|counted| counted.successful), sum(Counted::failed))
}

fn left_out(what: &str) {
    if let Some(times) = seldom("TLS reports", what) {
        tracing::warn!(what, times, "TLS reports have no room for more today: some sessions are not counted");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, PolicyType, ResultType};
    use super::*;

    const NOON: Timestamp = Timestamp(1_796_126_400_000);

    fn none(domain: &str) -> Policy {
        Policy::unknown(PolicyType::NoPolicyFound, domain)
    }

    fn failure(reason: &str) -> Option<Failure> {
        Some(Failure::of(&Fault::new(ResultType::ValidationFailure, reason)))
    }

    fn changes(tally: &Tally) -> Vec<(String, (u64, u64))> {
        tally.take_changes().into_iter().map(|(_, domain, stored)| (domain.to_string(), stored.sessions())).collect()
    }

    #[test]
    fn only_who_wants_a_report_is_stored_and_who_does_not_is_forgotten() {
        let (tally, a, b) = (Tally::default(), Arc::from("a.example"), Arc::from("b.example"));
        for domain in [&a, &b] {
            tally.count(domain, none(domain), None, NOON);
            tally.count(domain, none(domain), failure("x"), NOON);
        }
        assert!(changes(&tally).is_empty(), "nobody knows yet");
        let unknown = tally.unknown(9);
        assert_eq!(unknown.len(), 2);
        assert!(tally.unknown(9).is_empty(), "they are being asked");
        tally.answer(&unknown[0], Some(true));
        tally.answer(&unknown[1], Some(false));
        assert_eq!(changes(&tally), [("a.example".to_owned(), (1, 1))]);
        assert!(changes(&tally).is_empty());
        tally.count(&b, none(&b), None, NOON);
        assert_eq!(tally.today(NOON), Today { domains: 1, unknown: 0, successful: 1, failed: 1 });
        assert_eq!((tally.of("a.example", NOON), tally.of("b.example", NOON)), (Some((1, 1)), None));
        // On another day it is asked again.
        let tomorrow = Day::of(NOON).ends();
        tally.count(&b, none(&b), None, tomorrow);
        assert_eq!(tally.unknown(9).len(), 1);
    }

    #[test]
    fn who_could_not_be_asked_is_asked_again_and_then_given_up() {
        let (tally, a) = (Tally::default(), Arc::from("a.example"));
        tally.count(&a, none(&a), None, NOON);
        for _ in 0..3 {
            let unknown = tally.unknown(9);
            assert_eq!(unknown.len(), 1);
            tally.answer(&unknown[0], None);
        }
        let day = Day::of(NOON);
        assert!(tally.end(Day(day.0 + 1)).is_empty());
        assert_eq!(tally.unknown(9).len(), 1, "the day after it is asked still");
        tally.end(Day(day.0 + 2));
        assert!(tally.state.lock().domains.is_empty());
    }

    #[test]
    fn a_day_ends_when_it_is_stored_and_another_process_goes_on_with_one() {
        let (tally, a) = (Tally::default(), Arc::from("a.example"));
        tally.count(&a, none(&a), None, NOON);
        tally.answer(&tally.unknown(9)[0].clone(), Some(true));
        let tomorrow = Day(Day::of(NOON).0 + 1);
        assert!(tally.end(tomorrow).is_empty(), "it is not stored");
        let stored = tally.take_changes();
        tally.put_back(&stored);
        assert!(tally.end(tomorrow).is_empty(), "it could not be stored");
        let stored = tally.take_changes();
        let later = Tally::default();
        later.recall(stored[0].0, &stored[0].1, stored[0].2.clone());
        later.count(&a, none(&a), failure("y"), NOON);
        assert_eq!(changes(&later), [("a.example".to_owned(), (1, 1))]);
        assert_eq!(tally.end(tomorrow), [(Day::of(NOON), a)]);
        let state = tally.state.lock();
        assert_eq!((state.bytes, state.domains.len()), (0, 0));
    }

    /// What names and hosts others choose takes a bounded part of memory.
    #[test]
    fn domains_policies_and_bytes_are_bounded() {
        let tally = Tally::default();
        for n in 0..MOST_DOMAINS + 100 {
            let domain = Arc::from(format!("d{n}.example"));
            tally.count(&domain, none(&domain), None, NOON);
        }
        assert_eq!(tally.today(NOON).unknown, MOST_DOMAINS);
        let large = Tally::default();
        for n in 0..2000 {
            let domain = Arc::from(format!("d{n}.example"));
            for policy in 0..20 {
                let lines = (0..40).map(|line| format!("{policy} {line} {}", "x".repeat(300)));
                let policy = Policy::new(PolicyType::Sts, &domain, lines, Vec::new());
                for reason in 0..30 {
                    large.count(&domain, policy.clone(), failure(&format!("{reason} {}", "y".repeat(500))), NOON);
                }
            }
        }
        let state = large.state.lock();
        let held: usize = state.domains.values().map(Domain::bytes).sum();
        assert_eq!(held, state.bytes);
        assert!(held <= MOST_BYTES + MOST_POLICIES * 4096 && held > MOST_BYTES / 2, "{held}");
        assert!(state.domains.values().all(|domain| domain.counted.len() <= MOST_POLICIES));
    }
}
