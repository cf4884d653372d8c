//! The policies that are known, and what follows from them when a domain is asked about: pure, `now` is an argument.
//!
//! Invariants: a policy that was fetched holds until its end whatever DNS or its host say meanwhile (RFC 8461 §5.1);
//! one is fetched by one task at a time, and not again within [`RETRY`] of a failure (§3.3).
//!
//! Bounded: [`MOST`] domains; beyond that the one that was not asked about for longest is forgotten.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fetch::Unfetched;
use super::policy::Policy;
use super::record::Record;
use crate::clock::Timestamp;

/// Domains that are remembered, with policies of at most [`super::policy::MAX_MX`] bytes of names.
const MOST: usize = 4000;
/// How long after a failure a policy is not fetched again.
const RETRY: Duration = Duration::from_secs(300);
/// A policy is fetched again at this age, or at half of its `max_age` if that is shorter.
const RENEW: Duration = Duration::from_secs(86_400);

/// What is known of a domain.
#[derive(Default)]
struct Entry {
    policy: Option<Arc<Policy>>,
    /// When it could not be fetched, the last time; forgotten when it could.
    failed: Option<Timestamp>,
    /// Why it could not, then.
    why: Option<Arc<Unfetched>>,
    /// The task that fetches it.
    fetching: Option<Fetching>,
    /// When it was asked about last.
    used: Timestamp,
}

/// A task that fetches a policy.
#[derive(Clone)]
struct Fetching {
    /// Ends when the task does.
    done: watch::Receiver<()>,
    /// When it was begun, and when it was its turn to ask.
    since: Timestamp,
    asked: Option<Timestamp>,
}

/// Since when a policy is being fetched, and since when its host is asked, if it is its turn.
pub(super) type Begun = (Timestamp, Option<Timestamp>);

impl Entry {
    fn is_fetching(&self) -> Option<&Fetching> {
        // A sender that is gone has ended, however it did.
        self.fetching.as_ref().filter(|fetching| fetching.done.has_changed().is_ok())
    }

    /// Somebody begins to fetch it, and ends the channel when that is over.
    fn begin(&mut self, now: Timestamp) -> (watch::Sender<()>, watch::Receiver<()>) {
        let (sender, done) = watch::channel(());
        self.fetching = Some(Fetching { done: done.clone(), since: now, asked: None });
        (sender, done)
    }

    fn holds(&self, now: Timestamp) -> Option<Arc<Policy>> {
        self.policy.clone().filter(|policy| now < policy.expires())
    }

    fn may_fetch(&self, now: Timestamp) -> bool {
        self.failed.is_none_or(|at| now.since(at) >= RETRY)
    }
}

/// What to do for a domain.
pub(super) enum Look {
    /// This holds: a policy, or none.
    Is(Option<Arc<Policy>>),
    /// The same, and it is to be fetched; nobody waits for that.
    Renew(Option<Arc<Policy>>, watch::Sender<()>),
    /// To be fetched, and waited for a moment.
    Fetch(watch::Sender<()>, watch::Receiver<()>),
    /// Somebody fetches it; to be waited for a moment.
    Wait(watch::Receiver<()>),
}

/// See the module.
#[derive(Default)]
pub(super) struct Known {
    domains: HashMap<Arc<str>, Entry>,
    /// What is to be stored.
    changed: BTreeSet<Arc<str>>,
}

impl Known {
    /// What holds for a domain of which DNS says `record`.
    pub(super) fn look(&mut self, domain: &Arc<str>, record: &Record, now: Timestamp) -> Look {
        let id = match record {
            Record::Id(id) => Some(id),
            Record::None | Record::Failed => None,
        };
        // Nothing is kept of the many that have no policy.
        if id.is_none() && !self.domains.contains_key(domain) {
            return Look::Is(None);
        }
        self.make_room(domain);
        let entry = self.domains.entry(domain.clone()).or_default();
        entry.used = entry.used.max(now);
        let held = entry.holds(now);
        let changed = id.is_some_and(|id| held.as_ref().is_none_or(|policy| *policy.id != **id));
        let due = held.as_ref().is_some_and(|policy| is_due(policy, now));
        if !changed && !due {
            return Look::Is(held);
        }
        // Who could not be asked before is not waited for again.
        let patient = changed && entry.failed.is_none();
        match entry.is_fetching() {
            Some(fetching) if patient => Look::Wait(fetching.done.clone()),
            Some(_) => Look::Is(held),
            None if !entry.may_fetch(now) => Look::Is(held),
            None => {
                let (done, fetching) = entry.begin(now);
                if patient { Look::Fetch(done, fetching) } else { Look::Renew(held, done) }
            }
        }
    }

    /// What holds now, and whether it is being fetched.
    pub(super) fn holds(&self, domain: &str, now: Timestamp) -> (Option<Arc<Policy>>, bool) {
        match self.domains.get(domain) {
            Some(entry) => (entry.holds(now), entry.is_fetching().is_some()),
            None => (None, false),
        }
    }

    /// The host of its policy is asked from now on.
    pub(super) fn asked(&mut self, domain: &str, now: Timestamp) {
        if let Some(fetching) = self.domains.get_mut(domain).and_then(|entry| entry.fetching.as_mut()) {
            fetching.asked = Some(now);
        }
    }

    /// Whether mail waits until the policy of a domain is there: it has none, and nobody has failed to fetch it.
    pub(super) fn awaited(&self, domain: &str, now: Timestamp) -> Option<Begun> {
        let entry = self.domains.get(domain).filter(|entry| entry.holds(now).is_none() && entry.failed.is_none())?;
        entry.is_fetching().map(|fetching| (fetching.since, fetching.asked))
    }

    /// What came of fetching it.
    pub(super) fn fetched(&mut self, domain: &Arc<str>, result: Result<Policy, Arc<Unfetched>>, now: Timestamp) {
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.fetching = None;
        match result {
            Ok(policy) => {
                entry.policy = Some(Arc::new(policy));
                (entry.failed, entry.why) = (None, None);
                self.changed.insert(domain.clone());
            }
            Err(why) => (entry.failed, entry.why) = (Some(now), Some(why)),
        }
    }

    /// Why the policy of a domain could not be fetched the last time.
    pub(super) fn why_not(&self, domain: &str) -> Option<Arc<Unfetched>> {
        self.domains.get(domain)?.why.clone()
    }

    /// Domains whose policy is to be fetched again although no mail asks for it, at most `most`: those to which mail
    /// went within the policy's `max_age`. What has ended is forgotten.
    pub(super) fn due(&mut self, now: Timestamp, most: usize) -> Vec<(Arc<str>, Arc<str>, watch::Sender<()>)> {
        let ended = |entry: &Entry| entry.policy.as_ref().is_some_and(|policy| now >= policy.expires());
        let over: Vec<Arc<str>> =
            self.domains.iter().filter(|(_, entry)| ended(entry)).map(|(domain, _)| domain.clone()).collect();
        for domain in over {
            self.domains.remove(&domain);
            self.changed.insert(domain);
        }
        let mut due = Vec::new();
        for (domain, entry) in &mut self.domains {
            let Some(policy) = entry.policy.as_ref().filter(|policy| is_due(policy, now)) else { continue };
            let wanted = now.since(entry.used) < policy.max_age;
            if due.len() < most && wanted && entry.may_fetch(now) && entry.is_fetching().is_none() {
                let id = Arc::from(&*policy.id);
                let (done, _) = entry.begin(now);
                due.push((domain.clone(), id, done));
            }
        }
        due
    }

    /// Who could not be asked may be asked at once.
    pub(super) fn forget_failures(&mut self) {
        self.domains.values_mut().for_each(|entry| entry.failed = None);
    }

    /// Takes up a policy that was stored.
    pub(super) fn recall(&mut self, policy: Policy, now: Timestamp) {
        let domain: Arc<str> = Arc::from(&*policy.domain);
        if now >= policy.expires() {
            self.changed.insert(domain);
            return;
        }
        self.make_room(&domain);
        let used = policy.fetched;
        self.domains.insert(domain, Entry { policy: Some(Arc::new(policy)), used, ..Entry::default() });
    }

    /// The policies that differ from what is stored; `None`: there is none any more.
    pub(super) fn take_changes(&mut self) -> Vec<(Arc<str>, Option<Arc<Policy>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|domain| (domain.clone(), self.domains.get(&domain).and_then(|e| e.policy.clone())))
            .collect()
    }

    /// They could not be stored.
    pub(super) fn put_back(&mut self, domains: impl Iterator<Item = Arc<str>>) {
        self.changed.extend(domains);
    }

    fn make_room(&mut self, domain: &Arc<str>) {
        if self.domains.len() < MOST || self.domains.contains_key(domain) {
            return;
        }
        // Those without a policy first: they would only be asked again.
        let oldest = self.domains.iter().min_by_key(|(_, entry)| (entry.policy.is_some(), entry.used));
        if let Some(oldest) = oldest.map(|(domain, _)| domain.clone()) {
            self.domains.remove(&oldest);
            self.changed.insert(oldest);
        }
    }
}

fn is_due(policy: &Policy, now: Timestamp) -> bool {
    now.since(policy.fetched) >= RENEW.min(policy.max_age / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_790_000_000_000).after(Duration::from_secs(seconds))
    }

    fn policy(domain: &str, id: &str, days: u64, now: Timestamp) -> Policy {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: {}\n", days * DAY);
        Policy::parse(&text, domain, id, now).expect("a policy")
    }

    fn failed() -> Arc<Unfetched> {
        Arc::new("it does not answer".to_owned().into())
    }

    fn id(id: &str) -> Record {
        Record::Id(id.into())
    }

    /// What is told of a look, in a word, with the id of the policy.
    fn told(look: Look) -> String {
        let shown = |policy: Option<Arc<Policy>>| policy.map_or("none".into(), |policy| policy.id.to_string());
        match look {
            Look::Is(policy) => format!("is {}", shown(policy)),
            Look::Renew(policy, _) => format!("renew {}", shown(policy)),
            Look::Fetch(..) => "fetch".into(),
            Look::Wait(_) => "wait".into(),
        }
    }

    #[test]
    fn a_policy_is_fetched_once_and_holds_to_its_end_whatever_dns_says() {
        let (mut known, domain) = (Known::default(), Arc::from("a.example"));
        assert_eq!(told(known.look(&domain, &Record::None, at(0))), "is none");
        assert!(known.domains.is_empty(), "nothing is kept of who has none");
        let Look::Fetch(done, _) = known.look(&domain, &id("1"), at(0)) else { panic!("not fetched") };
        assert_eq!(told(known.look(&domain, &id("1"), at(1))), "wait");
        known.fetched(&domain, Ok(policy("a.example", "1", 10, at(2))), at(2));
        drop(done);
        for record in [id("1"), Record::None, Record::Failed] {
            assert_eq!(told(known.look(&domain, &record, at(DAY))), "is 1", "{record:?}");
        }
        // A day later it is fetched again, by the way; when that fails it still holds.
        let Look::Renew(Some(_), done) = known.look(&domain, &Record::Failed, at(DAY + 2)) else { panic!() };
        assert_eq!(told(known.look(&domain, &Record::None, at(DAY + 3))), "is 1");
        known.fetched(&domain, Err(failed()), at(DAY + 4));
        drop(done);
        assert_eq!(told(known.look(&domain, &id("1"), at(DAY + 300))), "is 1");
        assert_eq!(told(known.look(&domain, &id("1"), at(DAY + 304))), "renew 1");
        assert_eq!(told(known.look(&domain, &Record::None, at(10 * DAY + 1))), "renew 1");
        assert_eq!(told(known.look(&domain, &Record::None, at(10 * DAY + 2))), "is none");
    }

    #[test]
    fn another_id_is_fetched_at_once_and_the_old_policy_holds_meanwhile() {
        let (mut known, domain) = (Known::default(), Arc::from("a.example"));
        known.recall(policy("a.example", "1", 10, at(0)), at(0));
        let Look::Fetch(done, _) = known.look(&domain, &id("2"), at(9)) else { panic!("not fetched") };
        assert_eq!(known.holds("a.example", at(9)).0.map(|policy| policy.id.to_string()).as_deref(), Some("1"));
        known.fetched(&domain, Err(failed()), at(10));
        drop(done);
        // The host of the new one does not answer: nobody waits for it a second time.
        assert_eq!(told(known.look(&domain, &id("2"), at(11))), "is 1");
        assert_eq!(told(known.look(&domain, &id("2"), at(311))), "renew 1");
    }

    #[test]
    fn who_cannot_be_asked_is_waited_for_once() {
        let (mut known, domain) = (Known::default(), Arc::from("a.example"));
        let Look::Fetch(done, _) = known.look(&domain, &id("1"), at(0)) else { panic!("not fetched") };
        known.fetched(&domain, Err(failed()), at(60));
        drop(done);
        assert_eq!(told(known.look(&domain, &id("1"), at(61))), "is none");
        assert_eq!(told(known.look(&domain, &id("1"), at(400))), "renew none");
        known.forget_failures();
        assert_eq!(told(known.look(&domain, &id("1"), at(401))), "fetch");
        // A task that died has ended.
        assert_eq!(told(known.look(&domain, &id("1"), at(402))), "fetch");
    }

    #[test]
    fn what_is_stored_comes_back_is_renewed_without_mail_and_forgotten_when_it_is_over() {
        let mut known = Known::default();
        known.recall(policy("a.example", "1", 10, at(0)), at(9 * DAY));
        known.recall(policy("b.example", "1", 2, at(0)), at(9 * DAY));
        assert_eq!(known.take_changes().len(), 1, "the second is over");
        let due = known.due(at(9 * DAY), 9);
        assert_eq!(due.iter().map(|(domain, ..)| &**domain).collect::<Vec<_>>(), ["a.example"]);
        assert!(known.due(at(9 * DAY), 9).is_empty(), "it is being fetched");
        known.fetched(&"a.example".into(), Ok(policy("a.example", "2", 10, at(9 * DAY))), at(9 * DAY));
        let changes = known.take_changes();
        assert_eq!(changes.iter().map(|(_, policy)| policy.is_some()).collect::<Vec<_>>(), [true]);
        drop(due);
        // Nobody has sent anything there for as long as the policy holds.
        assert!(known.due(at(18 * DAY), 9).is_empty());
        assert!(known.due(at(19 * DAY), 9).is_empty());
        assert!(matches!(known.take_changes().as_slice(), [(domain, None)] if &**domain == "a.example"));
    }

    #[test]
    fn domains_are_bounded_and_those_without_a_policy_go_first() {
        let mut known = Known::default();
        known.recall(policy("old.example", "1", 10, at(0)), at(1));
        for n in 0..MOST + 10 {
            let domain = Arc::from(format!("d{n}.example"));
            assert_eq!(told(known.look(&domain, &id("1"), at(n as u64))), "fetch");
        }
        assert_eq!(known.domains.len(), MOST);
        assert!(known.holds("old.example", at(1)).0.is_some());
    }
}
