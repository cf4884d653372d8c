//! Reports on TLS (TLS-RPT): asks which domains want one, stores what is counted, and sends what is due.
//!
//! Invariants:
//! - No mail waits for any of it. Name servers are asked behind mail, [`ASKED_AT_ONCE`] at once, and [`SENT_AT_ONCE`]
//!   reports are under way.
//! - A report that is mailed is in the queue before it counts as sent; what a `kill -9` repeats has the same report-id.
//! - In memory is the name of each stored day and domain, of no more than [`MOST_PENDING`]; one that could not be
//!   delivered for a day is given up, and the log tells.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Relay;
use crate::clock::{Timestamp, When};
use crate::config::{Endpoint, TlsReport};
use crate::listener::Intake as _;
use crate::mail::Address;
use crate::queue::QueueError;
use crate::route::RouteError;
use crate::tls_report::day::{Day, Stored};
use crate::tls_report::message::{About, mail};
use crate::tls_report::post::{Https, Post as _};
use crate::tls_report::record::Target;
use crate::tls_report::report::{Reporter, compressed, json};
use crate::tls_report::{MOST_DOMAINS, PREFIX, Tally};

/// How often what is counted is stored, and looked for what is due.
const LOOK: Duration = Duration::from_secs(30);
/// Domains of which it is asked at once whether they want reports.
const ASKED_AT_ONCE: usize = 8;
/// Reports that are under way.
const SENT_AT_ONCE: usize = 8;
/// Reports that wait: of some days, since each is tried for a day.
const MOST_PENDING: usize = 4 * MOST_DOMAINS;
/// Days and domains that are stored in one operation.
const STORED_AT_ONCE: usize = 200;
/// How long a report waits of which the store says nothing.
const AGAIN: Duration = Duration::from_secs(300);

/// Reports that wait, by their names in the store.
#[derive(Default)]
pub(super) struct TlsReports {
    pending: Mutex<BTreeMap<String, Timestamp>>,
    last: Mutex<Option<(Timestamp, String)>>,
}

impl TlsReports {
    fn waits(&self, key: String, until: Timestamp) {
        let mut pending = self.pending.lock();
        if pending.len() < MOST_PENDING || pending.contains_key(&key) {
            pending.insert(key, until);
        } else if let Some(times) = crate::observe::seldom("TLS reports", "pending") {
            tracing::warn!(times, "a TLS report is left for the next start: too many wait");
        }
    }

    fn take_due(&self, now: Timestamp, most: usize) -> Vec<String> {
        let mut pending = self.pending.lock();
        let due: Vec<String> =
            pending.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).take(most).collect();
        for key in &due {
            pending.remove(key);
        }
        due
    }
}

/// A domain on a day.
type OfDay = (Day, Arc<str>);

/// What the task of reports has under way.
#[derive(Default)]
struct UnderWay {
    asked: JoinSet<(OfDay, Option<bool>)>,
    sent: JoinSet<Option<(String, Timestamp)>>,
    /// Those that nobody could tell of; asked again at the next look.
    unanswered: Vec<OfDay>,
}

impl Relay {
    /// Takes up what was counted, and which reports wait; forgets all of it where none are made any more.
    ///
    /// # Errors
    /// The queue could not be read or written.
    pub(super) async fn recall_tls_reports(&self) -> Result<(), QueueError> {
        let stored = self.queue.recall(PREFIX).await?;
        if stored.is_empty() {
            return Ok(());
        }
        let Some(tally) = self.connector.tally() else {
            return self.queue.remember(stored.into_iter().map(|(key, _)| (key, None)).collect()).await;
        };
        let today = Day::of(self.clock.now());
        for (key, json) in stored {
            let Some((day, domain)) = Day::of_key(&key) else { continue };
            let Ok(stored) = serde_json::from_slice::<Stored>(&json) else { continue };
            if day == today {
                tally.recall(day, domain, stored);
            } else {
                let due = stored.delivery.next.unwrap_or_else(|| day.due(domain, &self.config.hostname));
                self.tls_reports.waits(key, due);
            }
        }
        Ok(())
    }

    /// Makes reports until shutdown; for ever idle where none are made.
    pub async fn keep_tls_reports(self: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
        let (Some(tally), Some(config)) = (self.connector.tally().cloned(), self.config.tls_report.clone()) else {
            return;
        };
        let mut under_way = UnderWay::default();
        let mut looked: Option<Instant> = None;
        while !*stopping.borrow() {
            if looked.is_none_or(|at| at.elapsed() >= LOOK) {
                looked = Some(Instant::now());
                under_way.unanswered.drain(..).for_each(|key| tally.answer(&key, None));
                self.store_tally(&tally).await;
                for (day, domain) in tally.end(Day::of(self.clock.now())) {
                    self.tls_reports.waits(day.key(&domain), day.due(&domain, &self.config.hostname));
                }
            }
            self.go_on(&tally, &config, &mut under_way);
            let UnderWay { asked, sent, unanswered } = &mut under_way;
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                Some(answered) = asked.join_next() => match answered {
                    Ok((key, None)) => unanswered.push(key),
                    Ok((key, publishes)) => tally.answer(&key, publishes),
                    Err(_) => {}
                },
                Some(done) = sent.join_next() => if let Ok(Some((key, until))) = done {
                    self.tls_reports.waits(key, until);
                },
                () = tally.stirred() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        drop(under_way);
        // Sessions that end yet count, too.
        self.workers.none().await;
        self.store_tally(&tally).await;
    }

    /// Counts mail that found no way because of what its domain publishes on TLS.
    pub(super) fn count_refusal(&self, error: &RouteError) {
        if let (RouteError::Insecure { facts, .. }, Some(tally)) = (error, self.connector.tally()) {
            let now = self.clock.now();
            facts.failures().for_each(|(policy, failure)| tally.count(&facts.domain, policy, Some(failure), now));
        }
    }

    /// Begins what there is room for.
    fn go_on(self: &Arc<Self>, tally: &Arc<Tally>, config: &Arc<TlsReport>, under_way: &mut UnderWay) {
        for key in tally.unknown(ASKED_AT_ONCE.saturating_sub(under_way.asked.len())) {
            let router = self.router.clone();
            under_way.asked.spawn(async move {
                let targets = router.report_targets(&key.1).await;
                (key, targets.ok().map(|targets| !targets.is_empty()))
            });
        }
        let room = SENT_AT_ONCE.saturating_sub(under_way.sent.len());
        for key in self.tls_reports.take_due(self.clock.now(), room) {
            let (relay, config) = (self.clone(), config.clone());
            under_way.sent.spawn(async move { relay.send_tls_report(key, &config).await });
        }
    }

    async fn store_tally(&self, tally: &Tally) {
        let changes = tally.take_changes();
        for part in changes.chunks(STORED_AT_ONCE) {
            let json = |stored: &Stored| serde_json::to_vec(stored).ok().map(Bytes::from);
            let entries = part.iter().filter_map(|(day, domain, stored)| Some((day.key(domain), Some(json(stored)?))));
            if let Err(error) = self.queue.remember(entries.collect()).await {
                tracing::warn!(%error, "could not store what was counted for TLS reports; trying again");
                tally.put_back(part);
            }
        }
    }

    /// Sends one to all who have not got it. Returns when it is tried again; `None`: it is done with.
    async fn send_tls_report(self: Arc<Relay>, key: String, config: &TlsReport) -> Option<(String, Timestamp)> {
        let (day, domain) = Day::of_key(&key).map(|(day, domain)| (day, domain.to_owned()))?;
        let stored = match self.queue.recall(&key).await {
            Ok(stored) => stored.into_iter().find(|(name, _)| *name == key),
            Err(_) => return Some((key, self.clock.now().after(AGAIN))),
        };
        let mut stored = serde_json::from_slice::<Stored>(&stored?.1).unwrap_or_default();
        let outcome = match self.router.report_targets(&domain).await {
            // Nobody wants it any more, or there is nothing to tell.
            Ok(_) if stored.policies.is_empty() => Ok(()),
            Ok(targets) => self.send_to_all(day, &domain, &mut stored, &targets, config).await,
            Err(why) => Err(why),
        };
        let again = match &outcome {
            Ok(()) => None,
            Err(why) => {
                let again = stored.delivery.again(self.clock.now());
                let (day, tries) = (day.text(), stored.delivery.tries);
                match again {
                    Some(at) => tracing::info!(domain, day, tries, why, again = %at, "a TLS report waits"),
                    None => tracing::warn!(domain, day, tries, why, "a TLS report is given up"),
                }
                again
            }
        };
        let json = again.and_then(|_| serde_json::to_vec(&stored).ok()).map(Bytes::from);
        if let Err(error) = self.queue.remember(vec![(key.clone(), json)]).await {
            tracing::warn!(%error, domain, "could not store how far a TLS report is: it may be sent again");
        }
        Some((key, again?))
    }

    /// # Errors
    /// Somebody did not get it: why, for people.
    async fn send_to_all(
        &self,
        day: Day,
        domain: &str,
        stored: &mut Stored,
        targets: &[Target],
        config: &TlsReport,
    ) -> Result<(), String> {
        let reporter = Reporter {
            organization: &config.organization,
            contact: config.contact.as_str(),
            domain: config.from.domain(),
        };
        let gzip = Bytes::from(compressed(&json(day, domain, stored, reporter)?)?);
        let mut outcome = Ok(());
        for target in targets {
            if stored.delivery.done.contains(&target.to_string()) {
                continue;
            }
            let about = About { day, domain, stored, reporter };
            let sent = match target {
                Target::Mail(to) => self.mail_report(about, &gzip, config, to).await,
                Target::Https(to) => self.post_report(domain, to, gzip.clone()).await,
            };
            match sent {
                Ok(told) => {
                    tracing::info!(domain, day = day.text(), to = target.shown(), id = told, "a TLS report is sent");
                    *self.tls_reports.last.lock() = Some((self.clock.now(), format!("{domain} to {}", target.shown())));
                    stored.delivery.done.push(target.to_string());
                }
                Err(why) => outcome = Err(format!("{}: {why}", target.shown())),
            }
        }
        outcome
    }

    /// Queues it as a message of our own. Returns its id.
    async fn mail_report(
        &self,
        about: About<'_>,
        gzip: &[u8],
        config: &TlsReport,
        to: &Address,
    ) -> Result<String, String> {
        let now = self.clock.now();
        let id = self.queue.next_id(now);
        let mail = mail(about, gzip, &config.from, to, id, now)?;
        let head = self.spill_rest(&mail.message, &mail.body).await.map_err(|error| error.to_string())?;
        let accepted = self.accept(mail.message, vec![mail.recipient], head, None).await;
        accepted.map(|id| id.to_string()).map_err(|error| error.to_string())
    }

    /// Sends it by HTTPS. Returns no id.
    async fn post_report(&self, domain: &str, to: &Endpoint, gzip: Bytes) -> Result<String, String> {
        let (addresses, provider) = self.router.report_host(domain, to.host()).await?;
        let at: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, to.port())).collect();
        Https(self.connector.https(&provider)?).post(to, &at, gzip).await.map(|()| String::new())
    }

    /// What is counted and what waits, for operators; empty where no reports are made.
    pub fn tls_reports_told(&self) -> String {
        let Some(tally) = self.connector.tally() else { return String::new() };
        let now = self.clock.now();
        let today = tally.today(now);
        let mut told =
            format!("{} domains today, {} sessions good, {} failed", today.domains, today.successful, today.failed);
        if today.unknown > 0 {
            told.push_str(&format!("; {} domains to be asked", today.unknown));
        }
        let pending = self.tls_reports.pending.lock();
        if let Some(next) = pending.values().min() {
            told.push_str(&format!("; {} reports wait, next {}", pending.len(), When { at: *next, now }));
        }
        if let Some((at, what)) = &*self.tls_reports.last.lock() {
            told.push_str(&format!("; last: {what}, {}", When { at: *at, now }));
        }
        told
    }

    /// What is counted today of a recipient's domain, for people; empty: it wants no report, as far as is known.
    pub fn tls_report_of(&self, domain: &str) -> String {
        let now = self.clock.now();
        let Some((good, failed)) = self.connector.tally().and_then(|tally| tally.of(domain, now)) else {
            return String::new();
        };
        let at = Day::of(now).due(domain, &self.config.hostname);
        format!("{good} sessions good and {failed} failed today, reported {}", When { at, now })
    }
}
