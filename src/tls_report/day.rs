//! What the store keeps of a day and a domain: what was counted, and how far its report is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PREFIX;
use super::seen::{Failure, Policy};
use crate::clock::{Timestamp, doubled};

/// Failures of a policy that are told apart; further ones are told by their kind alone.
const MOST_FAILURES: usize = 20;
/// Reports leave within this after midnight UTC, each at a time of its own (RFC 8460 §4.1 proposes four hours).
pub const SPREAD: Duration = Duration::from_secs(4 * 3600);
/// The first wait before a delivery is tried again, and the longest one.
const FIRST_WAIT: Duration = Duration::from_secs(300);
const LONGEST_WAIT: Duration = Duration::from_secs(4 * 3600);
/// How long it is tried again (RFC 8460 §5.5).
pub const GIVE_UP: Duration = Duration::from_secs(86_400);

const DAY_MS: i64 = 86_400_000;

/// A UTC day, counted from 1970-01-01.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Day(pub i64);

impl Day {
    /// That of a moment.
    pub fn of(now: Timestamp) -> Day {
        Day(now.0.div_euclid(DAY_MS))
    }

    /// Its first millisecond.
    pub fn begins(self) -> Timestamp {
        Timestamp(self.0.saturating_mul(DAY_MS))
    }

    /// The first millisecond of the next one.
    pub fn ends(self) -> Timestamp {
        Timestamp(self.0.saturating_add(1).saturating_mul(DAY_MS))
    }

    /// As in `2026-12-01`.
    pub fn text(self) -> String {
        self.begins().day_text()
    }

    /// When the report on a domain is due: at the same time whichever process asks.
    pub fn due(self, domain: &str, hostname: &str) -> Timestamp {
        // FNV-1a: it only has to be spread, and the same in every version.
        let bytes = domain.bytes().chain([0]).chain(hostname.bytes()).chain(self.0.to_le_bytes());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        self.ends().after(Duration::from_millis(hash % (SPREAD.as_millis() as u64)))
    }

    /// The name in the store.
    pub fn key(self, domain: &str) -> String {
        format!("{PREFIX}{}/{domain}", self.text())
    }

    /// The day and the domain of a name in the store.
    pub fn of_key(key: &str) -> Option<(Day, &str)> {
        let (day, domain) = key.strip_prefix(PREFIX)?.split_once('/')?;
        Some((Day::of(Timestamp::of_day(day)?), domain))
    }
}

/// What was counted by one policy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counted {
    /// By which.
    pub policy: Policy,
    /// How many sessions were good.
    pub successful: u64,
    /// The others, by what was wrong.
    #[serde(default)]
    pub failures: Vec<(Failure, u64)>,
}

impl Counted {
    /// Nothing yet.
    pub fn new(policy: Policy) -> Counted {
        Counted { policy, successful: 0, failures: Vec::new() }
    }

    /// How many sessions failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().fold(0, |all, (_, count)| all.saturating_add(*count))
    }

    /// Adds one; what there is no room for, by `room`, is told by its kind alone. Returns the bytes that it took.
    pub(super) fn add(&mut self, failure: Option<Failure>, room: usize) -> usize {
        let Some(failure) = failure else {
            self.successful = self.successful.saturating_add(1);
            return 0;
        };
        let known = |failures: &mut Vec<(Failure, u64)>, failure: &Failure| {
            let found = failures.iter_mut().find(|(known, _)| known == failure);
            found.map(|(_, count)| *count = count.saturating_add(1)).is_some()
        };
        if known(&mut self.failures, &failure) {
            return 0;
        }
        let any = Failure::any(failure.result_type);
        let failure = if self.failures.len() < MOST_FAILURES && failure.bytes() <= room { failure } else { any };
        if known(&mut self.failures, &failure) {
            return 0;
        }
        let bytes = failure.bytes();
        self.failures.push((failure, 1));
        bytes
    }

    /// Bytes that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        self.policy.bytes() + self.failures.iter().map(|(failure, _)| failure.bytes()).sum::<usize>()
    }
}

/// How far the delivery of a report is.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Delivery {
    /// When it was tried first; `None`: not yet.
    pub first: Option<Timestamp>,
    /// How often it was tried.
    pub tries: u32,
    /// When it is tried again.
    pub next: Option<Timestamp>,
    /// Who has it.
    pub done: Vec<String>,
}

impl Delivery {
    /// It was tried, and somebody does not have it yet. When it is tried again; `None`: it is given up.
    pub fn again(&mut self, now: Timestamp) -> Option<Timestamp> {
        let first = *self.first.get_or_insert(now);
        let next = now.after(doubled(FIRST_WAIT, self.tries, LONGEST_WAIT));
        self.tries = self.tries.saturating_add(1);
        self.next = (next <= first.after(GIVE_UP)).then_some(next);
        self.next
    }
}

/// All of it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Stored {
    /// By policy.
    pub policies: Vec<Counted>,
    /// Once its day is over.
    pub delivery: Delivery,
}

impl Stored {
    /// Sessions that were good, and those that were not.
    pub fn sessions(&self) -> (u64, u64) {
        let all = |count: fn(&Counted) -> u64| self.policies.iter().map(count).fold(0, u64::saturating_add);
        (all(|counted| counted.successful), all(Counted::failed))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Fault, PolicyType, ResultType};
    use super::*;

    #[test]
    fn a_day_is_that_of_utc_and_its_name_leads_back_to_it() {
        let noon = Timestamp(1_796_126_400_000);
        let day = Day::of(noon);
        assert_eq!(
            (day.text().as_str(), Day::of(day.ends()), Day::of(Timestamp(day.ends().0 - 1))),
            ("2026-12-01", Day(day.0 + 1), day)
        );
        let key = day.key("a.example");
        assert_eq!((key.as_str(), Day::of_key(&key)), ("tls-report/2026-12-01/a.example", Some((day, "a.example"))));
        for other in ["tls-report/2026-12-01", "tls-report/2026-13-01/a.example", "mta-sts/a.example", ""] {
            assert_eq!(Day::of_key(other), None, "{other}");
        }
    }

    #[test]
    fn reports_leave_at_times_of_their_own_within_four_hours_of_midnight() {
        let day = Day(20_000);
        let due: Vec<u64> =
            (0..400).map(|n| day.due(&format!("d{n}.example"), "relay").since(day.ends()).as_secs()).collect();
        assert!(due.iter().all(|seconds| *seconds < 4 * 3600));
        for hour in 0..4 {
            let within = due.iter().filter(|seconds| **seconds / 3600 == hour).count();
            assert!((60..140).contains(&within), "{within} in hour {hour}");
        }
        assert_eq!(day.due("a.example", "relay"), day.due("a.example", "relay"));
        assert_ne!(day.due("a.example", "relay"), day.due("a.example", "other"));
    }

    #[test]
    fn a_delivery_is_tried_with_growing_waits_for_a_day() {
        let begin = Timestamp(1_796_126_400_000);
        let (mut delivery, mut now, mut waits) = (Delivery::default(), begin, Vec::new());
        while let Some(next) = delivery.again(now) {
            waits.push(next.since(now).as_secs() / 60);
            now = next;
        }
        assert_eq!(&waits[..7], [5, 10, 20, 40, 80, 160, 240]);
        assert!(waits.iter().sum::<u64>() <= 24 * 60 && waits.iter().sum::<u64>() > 20 * 60, "{waits:?}");
    }

    #[test]
    fn what_has_no_room_is_counted_by_its_kind() {
        let mut counted = Counted::new(Policy::unknown(PolicyType::NoPolicyFound, "a.example"));
        for n in 0..100 {
            let fault = Fault::new(ResultType::ValidationFailure, format!("reason {n}"));
            counted.add(Some(Failure::of(&fault)), usize::MAX);
        }
        assert_eq!((counted.failures.len(), counted.failed()), (MOST_FAILURES + 1, 100));
        assert_eq!(counted.failures.last(), Some(&(Failure::any(ResultType::ValidationFailure), 80)));
        let (failed, bytes) =
            (counted.failed(), counted.add(Some(Failure::of(&Fault::new(ResultType::TlsaInvalid, "x"))), 0));
        assert!(bytes > 0 && counted.failed() == failed + 1);
        assert_eq!(counted.failures.last().map(|(failure, _)| failure.failure_reason_code.as_str()), Some(""));
    }

    #[test]
    fn what_is_stored_comes_back() {
        let mut counted = Counted::new(Policy::unknown(PolicyType::Sts, "a.example"));
        counted.add(None, 0);
        let fault = Fault::new(ResultType::CertificateExpired, "it \u{7} has");
        let failure = Failure::of(&fault).with_host("mx.a.example", "mx", Some([192, 0, 2, 1].into()));
        counted.add(Some(failure), 1000);
        let delivery = Delivery { tries: 3, next: Some(Timestamp(7)), ..Delivery::default() };
        let stored = Stored { policies: vec![counted], delivery };
        let json = serde_json::to_vec(&stored).expect("JSON");
        assert_eq!(serde_json::from_slice::<Stored>(&json).expect("the same"), stored);
        assert_eq!(stored.sessions(), (1, 1));
        assert_eq!(serde_json::from_slice::<Stored>(b"{}").expect("empty"), Stored::default());
    }
}
