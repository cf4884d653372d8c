//! MTA-STS (RFC 8461): the policies of recipients' domains, which say whom mail may be given to and that the host has to
//! show a valid certificate.
//!
//! - `record` reads the TXT record, `policy` the policy, `fetch` fetches it, `known` decides what holds.
//!
//! Invariants: without a policy that could be fetched once, a domain is as one that has none; a policy that was fetched
//! holds to its end. Fetching is bounded in number ([`AT_ONCE`]) and time ([`LIMIT`]), and mail waits a moment for it
//! ([`PATIENCE`]), then it is put off: no worker is held by a host that does not answer.

mod fetch;
mod known;
mod policy;
mod record;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, timeout};

use crate::clock::{Clock, Timestamp, When};
use crate::observe::seldom;
use crate::tls_report::ResultType;
pub use fetch::{Fetch, Https, PolicyHost, Unfetched};
use known::{Known, Look};
pub use policy::{Mode, Policy};
pub use record::{Record, id_of};

/// The first part of the names under which policies are stored.
pub const PREFIX: &str = "mta-sts/";
/// Policies that are fetched at the same time.
const AT_ONCE: usize = 8;
/// How long fetching one may take, the look-up of its host included (RFC 8461 §3.3), from its turn on: who waits for
/// that was not asked, and is no domain without a policy.
const LIMIT: Duration = Duration::from_secs(60);
/// The same while others wait for their turn, so that a few hosts that say nothing do not hold up all of them.
const LIMIT_BUSY: Duration = Duration::from_secs(10);
/// How long mail waits for that before it is put off.
const PATIENCE: Duration = Duration::from_secs(5);

/// What holds for a domain.
#[derive(Clone, Debug)]
pub enum Standing {
    /// No policy.
    None,
    /// DNS says that there is one, which could not be had: as without.
    Unfetched(Arc<Unfetched>),
    /// This one, of whatever mode.
    Policy(Arc<Policy>),
    /// It has one, which is being fetched for the first time and takes long.
    Awaited,
}

/// A policy that mail to its domain waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Awaited {
    domain: String,
    since: Timestamp,
    /// When its host was asked; `None`: it is not its turn yet.
    asked: Option<Timestamp>,
    /// How long it has to answer, as it looks just now.
    limit: Duration,
}

impl Awaited {
    /// In words: from whom, since when, and until when at the latest.
    pub fn told(&self, now: Timestamp) -> String {
        let (domain, host) = (&self.domain, host_of(&self.domain));
        let since = When { at: self.since, now };
        let policy = format!("the MTA-STS policy of {domain} is being fetched from {host} since {since}");
        match self.asked {
            Some(asked) => format!("{policy}, until {} at the latest", When { at: asked.after(self.limit), now }),
            None => format!("{policy}; {AT_ONCE} others are asked before, each for {} s at most", LIMIT_BUSY.as_secs()),
        }
    }
}

/// The policies, and who fetches them.
pub struct Sts {
    known: Mutex<Known>,
    fetch: Arc<dyn Fetch>,
    slots: Semaphore,
    /// Those that wait for their turn.
    waiting: AtomicUsize,
    clock: Clock,
    changed: Notify,
}

impl Sts {
    /// None is known yet.
    pub fn new(fetch: Arc<dyn Fetch>, clock: Clock) -> Sts {
        let (slots, waiting) = (Semaphore::new(AT_ONCE), AtomicUsize::new(0));
        Sts { known: Mutex::default(), fetch, slots, waiting, clock, changed: Notify::new() }
    }

    /// What holds for a domain of which DNS says `record`; `host` finds its host of policies.
    pub async fn standing<F>(self: &Arc<Self>, domain: &Arc<str>, record: &Record, host: F) -> Standing
    where
        F: Future<Output = Result<PolicyHost, String>> + Send + 'static,
    {
        let id = match record {
            Record::Id(id) => Some(id.clone()),
            Record::None | Record::Failed => None,
        };
        let now = self.clock.now();
        let look = self.known.lock().look(domain, record, now);
        let has_record = id.is_some();
        let mut fetching = match look {
            Look::Is(policy) => return self.told(policy, domain, has_record),
            Look::Renew(policy, done) => {
                let id = id.or_else(|| policy.as_ref().map(|policy| Arc::from(&*policy.id)));
                let told = self.told(policy, domain, has_record);
                self.begin(domain.clone(), id.unwrap_or_else(|| "".into()), host, done);
                return told;
            }
            Look::Fetch(done, fetching) => {
                self.begin(domain.clone(), id.unwrap_or_else(|| "".into()), host, done);
                fetching
            }
            Look::Wait(fetching) => fetching,
        };
        // Ends when its sender is gone.
        let _ = timeout(PATIENCE, fetching.changed()).await;
        let holds = self.known.lock().holds(domain, self.clock.now());
        match holds {
            (None, true) => Standing::Awaited,
            (policy, _) => self.told(policy, domain, has_record),
        }
    }

    /// What holds; of one that DNS has and that could not be had, why.
    fn told(&self, policy: Option<Arc<Policy>>, domain: &str, has_record: bool) -> Standing {
        let why = || self.known.lock().why_not(domain);
        match policy {
            None if has_record => why().map_or(Standing::None, Standing::Unfetched),
            policy => of(policy),
        }
    }

    /// What holds for a domain, nobody is asked.
    pub fn holds(&self, domain: &str) -> Option<Arc<Policy>> {
        self.known.lock().holds(domain, self.clock.now()).0
    }

    /// The policy of a domain, if mail waits for it.
    pub fn awaited(&self, domain: &str) -> Option<Awaited> {
        let now = self.clock.now();
        let (since, asked) = self.known.lock().awaited(domain, now)?;
        let limit = match self.waiting.load(Ordering::Relaxed) {
            0 => LIMIT,
            // Whether others wait is looked at each time that this is over.
            _ => {
                let times = now.since(asked.unwrap_or(now)).as_secs() / LIMIT_BUSY.as_secs() + 1;
                LIMIT_BUSY.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX)).min(LIMIT)
            }
        };
        Some(Awaited { domain: domain.to_owned(), since, asked, limit })
    }

    /// Domains whose policy is to be fetched again without mail that asks for it, see [`Sts::renew`].
    pub fn due(&self) -> Vec<Due> {
        let due = self.known.lock().due(self.clock.now(), AT_ONCE / 2);
        due.into_iter().map(|(domain, id, done)| Due { domain, id, done }).collect()
    }

    /// Fetches one of those.
    pub fn renew<F>(self: &Arc<Self>, due: Due, host: F)
    where
        F: Future<Output = Result<PolicyHost, String>> + Send + 'static,
    {
        self.begin(due.domain, due.id, host, due.done);
    }

    /// Fetches a policy in a task of its own, whose end `done` tells.
    fn begin<F>(self: &Arc<Self>, domain: Arc<str>, id: Arc<str>, host: F, done: watch::Sender<()>)
    where
        F: Future<Output = Result<PolicyHost, String>> + Send + 'static,
    {
        let sts = self.clone();
        tokio::spawn(async move {
            let fetched = sts.fetch(&domain, &id, host).await;
            match &fetched {
                Ok(policy) => tracing::info!(
                    domain = &*domain,
                    mode = %policy.mode,
                    id = &*id,
                    mx = policy.hosts(),
                    max_age_s = policy.max_age.as_secs(),
                    "the MTA-STS policy of a domain"
                ),
                Err(why) => {
                    if let Some(times) = seldom("MTA-STS", &domain) {
                        tracing::warn!(
                            domain = &*domain,
                            why = why.text,
                            times,
                            "the MTA-STS policy of a domain cannot be fetched"
                        );
                    }
                }
            }
            sts.known.lock().fetched(&domain, fetched.map_err(Arc::new), sts.clock.now());
            drop(done);
            sts.changed.notify_one();
        });
    }

    async fn fetch(
        &self,
        domain: &Arc<str>,
        id: &Arc<str>,
        host: impl Future<Output = Result<PolicyHost, String>>,
    ) -> Result<Policy, Unfetched> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let slot = self.slots.acquire().await;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let _slot = slot.map_err(|_| "shutting down".to_owned())?;
        self.known.lock().asked(domain, self.clock.now());
        let mut asked = pin!(async { self.fetch.fetch(&host_of(domain), host.await?).await });
        let began = Instant::now();
        let text = loop {
            if let Ok(text) = timeout(LIMIT_BUSY, &mut asked).await {
                break text?;
            }
            let lasts = began.elapsed();
            if lasts >= LIMIT || self.waiting.load(Ordering::Relaxed) > 0 {
                return Err(format!("no policy within {} s", lasts.as_secs()).into());
            }
        };
        let policy = Policy::parse(&text, domain, id, self.clock.now());
        policy.map_err(|why| Unfetched {
            result: ResultType::StsPolicyInvalid,
            text: format!("what {} has is no policy: {why}", host_of(domain)),
        })
    }

    /// Who could not be asked is asked again.
    pub fn forget_failures(&self) {
        self.known.lock().forget_failures();
    }

    /// Returns when there may be something to store.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes up what was stored; what cannot be read is fetched again.
    pub fn recall(&self, stored: &[(String, Bytes)]) {
        let now = self.clock.now();
        let mut known = self.known.lock();
        for (_, json) in stored {
            if let Ok(policy) = serde_json::from_slice::<Policy>(json) {
                known.recall(policy, now);
            }
        }
    }

    /// What is to be stored: names and values, `None` of those that are gone.
    pub fn take_changes(&self) -> Vec<(String, Option<Bytes>)> {
        let changes = self.known.lock().take_changes();
        let json = |policy: Arc<Policy>| serde_json::to_vec(&*policy).ok().map(Bytes::from);
        changes.into_iter().map(|(domain, policy)| (format!("{PREFIX}{domain}"), policy.and_then(json))).collect()
    }

    /// It could not be stored: it is still to be.
    pub fn put_back(&self, entries: &[(String, Option<Bytes>)]) {
        let domains = entries.iter().filter_map(|(key, _)| key.strip_prefix(PREFIX).map(Arc::from));
        self.known.lock().put_back(domains);
    }
}

/// A policy that is to be fetched again.
pub struct Due {
    domain: Arc<str>,
    id: Arc<str>,
    done: watch::Sender<()>,
}

impl Due {
    /// Whose.
    pub fn domain(&self) -> &Arc<str> {
        &self.domain
    }
}

/// A policy in mode none says that there is none any more.
fn of(policy: Option<Arc<Policy>>) -> Standing {
    policy.filter(|policy| policy.mode != Mode::None).map_or(Standing::None, Standing::Policy)
}

/// The host that has a domain's policy.
pub fn host_of(domain: &str) -> String {
    format!("mta-sts.{domain}")
}

#[cfg(test)]
mod tests;
