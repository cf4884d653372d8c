//! Who leaves next: lanes, and how they are fed from the queue.
//!
//! Every provider (and every domain without one) has a [`Lane`] with a bounded window of
//! recipients in memory. What does not fit stays in the queue and is claimed lane by lane when its
//! turn or its due time comes, so that a deep or slow lane takes nothing from the others
//! (invariant 4) and memory does not grow with the backlog (invariant 5).
//!
//! A timer holds one entry for each lane of a provider: the earliest due time of what the queue holds
//! for it. Domains may be more than memory has room for: what they wait for is in the store alone,
//! and a lane is there only while it works (`domains`; `places` bound how many, `turns` tell which is
//! next, `pace` how fast). `admission` decides what goes straight to memory, `claiming` brings the
//! rest.

mod admission;
pub mod backlog;
pub mod beyond;
pub mod budget;
mod claiming;
mod domains;
pub mod job;
pub mod lane;
mod pace;
mod places;
pub mod ready;
mod shelve;
pub mod stored;
mod timer;
mod turns;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use crate::clock::{Clock, Timestamp};
use crate::config::{Limit, LimitsPer, Provider, sources};
use crate::mail::{Address, LaneName, Message, RecipientKey, lowercase};
use crate::observe::Active;
use crate::queue::{Leased, Memory, Queue, Settlement, Verdict};
use crate::shape::{self, Ledger, Limits, Memos};
pub use admission::{Admission, Admitted};
use budget::{Budget, Ticket};
pub(crate) use claiming::NEW;
use domains::Domains;
pub use job::{Held, Job, Shared, sender_key};
pub use lane::{Empty, Lane, NotNow, Snapshot, Wake};
use places::{Class, Places};
use timer::Timer;

/// Recipients a lane has in memory at most, ready and in flight.
pub const WINDOW: usize = 4096;
/// What a recipient and its part of a message cost in memory, roughly, in bytes.
const RECIPIENT_COST: u64 = 512;
/// Longest sleep of the timer, so that a jump of the wall clock is noticed.
const TIMER_MAX: Duration = Duration::from_secs(10);
/// How often lanes that are no longer used are forgotten.
const SWEEP: Duration = Duration::from_secs(60);
/// The same while there are many of them.
const CROWDED_SWEEP: Duration = Duration::from_secs(2);
/// How long a lane waits after the queue failed.
const QUEUE_TROUBLE: Duration = Duration::from_secs(1);

/// Starts a worker for a lane.
type Start = Box<dyn Fn(Arc<Lane>) + Send + Sync>;
/// Whose limits hold in a lane.
type ProviderOf = Box<dyn Fn(&LaneName) -> Arc<Provider> + Send + Sync>;

/// Where mail goes that is claimed in a lane from which it is not to leave.
pub trait Ways: Send + Sync {
    /// Nothing leaves from a lane of that name, whatever is due: the configuration has no such provider any more.
    fn is_former(&self, lane: &LaneName) -> bool;

    /// The lane where this belongs now; `None`: it stays where it is.
    fn elsewhere(&self, lane: &LaneName, item: &Leased) -> Option<LaneName>;
}

/// Recipients that a lane has in memory at most: of a domain that is not known to take mail only as
/// many as find out whether it does.
fn window(lane: &Lane) -> usize {
    if lane.is_proven() { WINDOW } else { 2 * claiming::WITHOUT_BUDGET.max(2 * lane.provider.connections as usize) }
}

/// All lanes, and the timer.
pub struct Scheduler {
    queue: Arc<dyn Queue>,
    clock: Clock,
    budget: Arc<Budget>,
    provider_of: ProviderOf,
    limits: Vec<Arc<Limit>>,
    /// Those of one provider are the same in the lanes of all its sources.
    shares: Mutex<HashMap<String, Weak<Limits>>>,
    ways: OnceLock<Box<dyn Ways>>,
    /// Claims under way, and whether any may begin.
    claims: Active,
    claims_over: AtomicBool,
    /// Where quotas are kept.
    ledger: Arc<Ledger>,
    start: OnceLock<Start>,
    lanes: RwLock<HashMap<LaneName, Arc<Lane>>>,
    domains: Domains,
    timer: Mutex<Timer>,
    timer_changed: Notify,
    /// The lanes of providers are to be looked for in the queue again.
    find_again: AtomicBool,
}

impl Scheduler {
    /// `memory`: the budget in bytes. `limits`: shares inside providers. `provider_of`: whose
    /// limits hold in a lane of that name.
    pub fn new(
        queue: Arc<dyn Queue>,
        clock: Clock,
        memory: u64,
        limits: Vec<Arc<Limit>>,
        provider_of: impl Fn(&LaneName) -> Arc<Provider> + Send + Sync + 'static,
    ) -> Arc<Scheduler> {
        let budget = Budget::new(memory);
        Arc::new(Scheduler {
            domains: Domains::new(Places::new(budget.clone(), memory)),
            ledger: Ledger::new(Arc::new(QueueMemos(queue.clone())), clock),
            limits,
            queue,
            clock,
            budget,
            provider_of: Box::new(provider_of),
            shares: Mutex::default(),
            ways: OnceLock::new(),
            claims: Active::default(),
            claims_over: AtomicBool::new(false),
            start: OnceLock::new(),
            lanes: RwLock::default(),
            timer: Mutex::default(),
            timer_changed: Notify::new(),
            find_again: AtomicBool::new(false),
        })
    }

    /// Says how a worker is started; before this, nothing leaves.
    pub fn on_start(&self, start: impl Fn(Arc<Lane>) + Send + Sync + 'static) {
        if self.start.set(Box::new(start)).is_err() {
            tracing::error!("the scheduler was started twice");
        }
    }

    /// Says where mail goes from lanes that take none; before this, it stays.
    pub fn on_claim(&self, ways: impl Ways + 'static) {
        if self.ways.set(Box::new(ways)).is_err() {
            tracing::error!("the scheduler was told twice where mail goes");
        }
    }

    /// The lane of that name.
    pub fn lane(&self, name: &LaneName) -> Arc<Lane> {
        if let Some(lane) = self.known(name) {
            return lane;
        }
        let provider = (self.provider_of)(name);
        let mut lanes = self.lanes.write();
        if let Some(lane) = lanes.get(name) {
            return lane.clone();
        }
        let limits = self.shares(name, &provider);
        let lane = Arc::new(Lane::sharing(name.clone(), provider, limits, &self.ledger));
        lanes.insert(name.clone(), lane.clone());
        lane
    }

    /// Takes over what lanes knew of the mail that their hosts answer, as after a reload: of the providers that are
    /// `same`. Before anything leaves. Of domains lanes know that only while they work.
    pub fn go_on_from(&self, before: &Scheduler, same: impl Fn(&str) -> bool) {
        let providers = before.lanes().into_iter().filter(|lane| lane.name.as_domain().is_none());
        for old in providers.filter(|lane| same(lane.name.base()) && !self.is_former(&lane.name)) {
            if old.knows_answers() {
                self.lane(&old.name).go_on_from(&old);
            }
        }
    }

    /// The lane of that name, if it is in memory.
    pub fn known(&self, name: &LaneName) -> Option<Arc<Lane>> {
        self.lanes.read().get(name).cloned()
    }

    /// The shares of senders and clients: two lanes of one provider must not count them twice.
    fn shares(&self, name: &LaneName, provider: &Provider) -> Arc<Limits> {
        let base = LaneName::from(name.base());
        let new = || Arc::new(Limits::new(&base, provider, &self.limits, &self.ledger));
        if provider.limits_per == LimitsPer::Provider {
            return new();
        }
        let mut shares = self.shares.lock();
        if let Some(known) = shares.get(base.as_str()).and_then(Weak::upgrade) {
            return known;
        }
        shares.retain(|_, limits| limits.strong_count() > 0);
        let limits = new();
        shares.insert(base.as_str().to_owned(), Arc::downgrade(&limits));
        limits
    }

    /// All lanes, in order of name.
    pub fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes: Vec<_> = self.lanes.read().values().cloned().collect();
        lanes.sort_by(|a, b| a.name.cmp(&b.name));
        lanes
    }

    /// A ticket for a message in memory, with chunk 0 of its body if that is there and can be kept.
    fn afford(&self, overhead: u64, head: Option<&Bytes>) -> (Option<Bytes>, Option<Ticket>) {
        let whole = head.and_then(|head| Some((head, self.budget.reserve(overhead + head.len() as u64)?)));
        match whole {
            Some((head, ticket)) => (Some(head.clone()), Some(ticket)),
            None => (None, self.budget.reserve(overhead)),
        }
    }

    /// The queue has the message: its jobs become ready, and what stays there is known to be.
    pub fn submit(self: &Arc<Scheduler>, admitted: Admitted, now: Timestamp) {
        for (lane, job) in admitted.jobs {
            let wake = lane.push([job]);
            self.wake(&lane, wake);
        }
        let due = admitted.release.unwrap_or_else(|| admitted.received.min(now));
        for lane in &admitted.stored {
            self.note(lane, due);
        }
        self.domains.taken();
    }

    /// Starts a worker if one is needed.
    pub fn wake(&self, lane: &Arc<Lane>, wake: Wake) {
        if wake == Wake::Start
            && let Some(start) = self.start.get()
        {
            start(lane.clone());
        }
    }

    /// Moves jobs to the lane they belong in now that their provider is known.
    pub fn transfer(&self, jobs: Vec<Job>, to: &LaneName) {
        let lane = self.lane(to);
        let wake = lane.push(jobs);
        self.wake(&lane, wake);
    }

    /// The queue holds something in a lane of that name, in memory or not, that is due at `due`.
    pub fn note(self: &Arc<Scheduler>, name: &LaneName, due: Timestamp) {
        match (name.as_domain(), self.known(name)) {
            (_, Some(lane)) => self.note_stored(&lane, due),
            (Some(_), None) => self.note_waiting(due),
            (None, None) => self.note_stored(&self.lane(name), due),
        }
    }

    /// The queue may hold something in any lane that is due at `due`.
    pub fn note_all(self: &Arc<Scheduler>, due: Timestamp) {
        self.note_waiting(due);
        // And of the lanes of providers the queue tells.
        self.find_again.store(true, Ordering::Relaxed);
        self.timer_changed.notify_one();
    }

    /// The queue holds something for `lane` that is due at `due`.
    pub fn note_stored(self: &Arc<Scheduler>, lane: &Arc<Lane>, due: Timestamp) {
        if lane.name.as_domain().is_some() && due > self.clock.now() {
            self.note_waiting(due);
        } else {
            lane.note_stored(due);
        }
        self.attend(lane);
    }

    /// Claims if something is due and there is room; else sets the timer.
    pub fn attend(self: &Arc<Scheduler>, lane: &Arc<Lane>) {
        let now = self.clock.now();
        let domain = lane.name.as_domain().is_some();
        match lane.stored_due() {
            None => {}
            // Whoever resumes it asks again.
            Some(_) if domain && lane.is_paused() => {}
            Some(due) if domain && (due > now || !self.seat(lane, Class::Tried, lane.place_sender())) => {
                self.wait_for_turn(lane)
            }
            Some(due) if due <= now => {
                if let Some(room) = lane.begin_claim(now, window(lane)) {
                    tokio::spawn(self.clone().claim(lane.clone(), now, room));
                }
            }
            Some(due) => {
                let earliest = self.timer.lock().set(&lane.name, due);
                if earliest {
                    self.timer_changed.notify_one();
                }
            }
        }
        if domain {
            lane.leave_place();
        }
    }

    /// Takes what is older than `expire` of a lane that something holds back, out of memory and,
    /// when nothing is there any more, out of the queue: at most about `most` recipients at once,
    /// so that the window is not filled with them. They count as with a worker.
    pub async fn expired(&self, lane: &Lane, now: Timestamp, most: usize) -> Vec<(shape::Held, Job)> {
        let waiting = lane.expired(now, most);
        if !waiting.is_empty() || lane.stored_due().is_none() {
            return waiting;
        }
        let Some(held) = lane.held_back() else { return waiting };
        match self.queue.claim_older(&lane.name, now.before(lane.provider.retry.expire), most).await {
            Ok(leased) => {
                lane.take_in_hand(leased.len());
                self.jobs(lane, leased).into_iter().map(|job| (held.clone(), job)).collect()
            }
            Err(error) => {
                tracing::warn!(lane = lane.name.as_str(), %error, "could not look for what expires; trying again");
                Vec::new()
            }
        }
    }

    /// Takes waiting recipients out of memory for an operator. They stay leased: their leases have to
    /// be ended, or they have to be [`put_back`](Scheduler::put_back).
    #[must_use = "what is taken and not settled waits for the next start"]
    pub fn withdraw(self: &Arc<Scheduler>, keys: &[RecipientKey]) -> Vec<(Arc<Lane>, Job)> {
        let wanted: std::collections::HashSet<RecipientKey> = keys.iter().copied().collect();
        let mut taken = Vec::new();
        for lane in self.lanes() {
            let jobs = lane.withdraw(&mut |key| wanted.contains(&key));
            if !jobs.is_empty() {
                // There is room again, and perhaps no transaction whose end would notice.
                self.attend(&lane);
            }
            taken.extend(jobs.into_iter().map(|job| (lane.clone(), job)));
        }
        taken
    }

    /// What was withdrawn waits in its lanes again. The window may be exceeded by that much.
    pub fn put_back(&self, withdrawn: Vec<(Arc<Lane>, Job)>) {
        // The first of a lane is its first again.
        for (lane, job) in withdrawn.into_iter().rev() {
            self.wake(&lane, lane.put_back(job));
        }
    }

    /// Finds what the queue holds from before, then keeps the timer until `shutdown`.
    pub async fn run(self: Arc<Scheduler>, mut shutdown: watch::Receiver<bool>) {
        let mut after = None;
        let mut found = false;
        let mut reader = pace::Reader::new();
        let mut swept = tokio::time::Instant::now();
        // The timer does not wait for the store; what is under way at the end is cut off.
        let mut releasing = tokio::task::JoinSet::new();
        loop {
            if *shutdown.borrow() {
                return;
            }
            if self.find_again.swap(false, Ordering::Relaxed) {
                (found, after) = (false, None);
            }
            if !found {
                // A page at a time, so that mail to the first lanes leaves while others are found.
                match self.queue.lanes(after.clone(), 100).await {
                    Ok(page) => {
                        found = page.is_empty();
                        after = page.last().map(|l| l.lane.clone()).or(after);
                        for item in page {
                            if item.lane.as_domain().is_some() {
                                // Their turns are kept in the store: on behind the last of them.
                                after = after.max(Some(LaneName::after_domains()));
                                continue;
                            }
                            // What no provider has any more goes at once, due or not.
                            let due = if self.is_former(&item.lane) { self.clock.now() } else { item.due };
                            self.note_stored(&self.lane(&item.lane), due);
                        }
                        continue;
                    }
                    Err(error) => tracing::warn!(%error, "could not read the lanes of the queue; trying again"),
                }
            }
            let now = self.clock.now();
            while let Some(name) = { self.timer.lock().pop_due(now) } {
                self.attend(&self.lane(&name));
            }
            let domains = self.begin_domains(&mut reader).await;
            self.sweep_domains();
            if swept.elapsed() >= SWEEP || self.is_crowded() && swept.elapsed() >= CROWDED_SWEEP {
                swept = tokio::time::Instant::now();
                self.forget_unused();
                self.go_through_domains_again();
                while releasing.try_join_next().is_some() {}
                if releasing.is_empty() {
                    let scheduler = self.clone();
                    releasing.spawn(async move { scheduler.release(false).await });
                }
            }
            let next = self.timer.lock().first().map(|due| due.since(now));
            let mut wait = next.unwrap_or(TIMER_MAX).min(domains).min(TIMER_MAX).max(Duration::from_millis(1));
            if !found {
                wait = wait.min(QUEUE_TROUBLE);
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = self.timer_changed.notified() => {}
                () = self.domains.places.changed.notified() => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// See [`Ways::is_former`].
    fn is_former(&self, lane: &LaneName) -> bool {
        self.ways.get().is_some_and(|ways| ways.is_former(lane))
    }

    /// Claims nothing any more, and waits for claims under way: whoever ends all leases next ends theirs, too.
    pub async fn end_claims(&self) {
        self.claims_over.store(true, Ordering::SeqCst);
        self.claims.none().await;
    }

    fn forget_unused(&self) {
        self.lanes.write().retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.is_disposable());
    }

    /// Gives up what is reserved of quotas and not used: of lanes that would be forgotten else, or of
    /// all. They are forgotten at the next sweep, if they are still unused then.
    async fn release(&self, all: bool) {
        let gates: Vec<_> = self.lanes().iter().flat_map(|lane| lane.loose(all)).collect();
        if let Err(error) = self.ledger.release(&gates).await {
            tracing::warn!(error, "could not give up unused parts of quotas: they count as used for now");
        }
    }

    /// Removes records of quotas that count nothing any more; something for now and then.
    ///
    /// # Errors
    /// The queue's, as text.
    pub async fn sweep_quotas(&self) -> Result<usize, String> {
        self.ledger.sweep().await
    }

    /// Says whose departures count in which lane besides its own. Before the first lane.
    pub fn succeed(&self, succession: crate::shape::Succession) {
        self.ledger.succeed(succession);
    }

    /// Learns how far the process before had used the rates. Before the first lane; `new`: nothing is
    /// in the store.
    ///
    /// # Errors
    /// The queue's, as text; then nothing may be sent.
    pub async fn begin_rates(&self, new: bool) -> Result<(), String> {
        self.ledger.begin(new).await
    }

    /// The last act: nothing is permitted any more, and the next process learns how far rates and
    /// quotas were used.
    ///
    /// # Errors
    /// The queue's, as text: then the next process begins without bursts.
    pub async fn end_rates(&self) -> Result<(), String> {
        self.ledger.close();
        let lacked = self.lanes().iter().flat_map(|lane| lane.close_rates()).collect();
        self.release(true).await;
        self.ledger.end(lacked).await
    }

    /// The memory budget.
    pub(crate) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Bytes of the memory budget in use.
    pub fn memory_used(&self) -> u64 {
        self.budget.used()
    }
}

/// The end of a lease: the recipient waits in lane `to` from now on, and that was no attempt.
pub fn stored_in(key: RecipientKey, warned: bool, to: &LaneName, now: Timestamp) -> Settlement {
    let reason = match to.source() {
        Some(source) => format!("leaves from source address {source}"),
        None => format!("waits for {to}"),
    };
    let (lane, counts, uncertain) = (to.clone(), false, false);
    Settlement { key, verdict: Verdict::Deferred { due: now, reason, counts, uncertain, warned, lane } }
}

/// Quotas are kept in the queue's store, next to the mail they are about.
struct QueueMemos(Arc<dyn Memory>);

#[async_trait]
impl Memos for QueueMemos {
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), String> {
        self.0.remember(entries).await.map_err(|error| error.to_string())
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, String> {
        self.0.recall(prefix).await.map_err(|error| error.to_string())
    }
}

/// What may share a transaction and a connection: everything to a smart host, else the recipients
/// of one domain; from one source address, where there are several.
fn destination(provider: &Provider, message: &Message, address: &Address) -> Arc<str> {
    let to: Arc<str> = match &provider.relay {
        Some(relay) => relay.host.clone(),
        None => lowercase(address.domain()).into(),
    };
    let sender = message.envelope.reverse_path.as_ref().map_or("", |sender| sender.domain());
    match sources::affinity(&provider.source, sender).as_str() {
        "" => to,
        from => format!("{to} from {from}").into(),
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fairness_tests;

#[cfg(test)]
mod sweep_tests;

#[cfg(test)]
mod units_tests;

#[cfg(test)]
pub(crate) mod testing {
    //! Jobs for tests of this folder.
    use super::*;
    use crate::mail::{BodyTraits, Envelope, Origin, QueueId, Recipient};

    pub(crate) use crate::config::sample::provider;

    /// A job from `sender` to recipients with these indices at `destination`.
    pub(crate) fn job(sender: &str, destination: &str, priority: i8, indices: &[u32]) -> Job {
        let message = Arc::new(Message {
            id: QueueId(i64::from(indices[0])),
            received: Timestamp(0),
            envelope: Envelope { reverse_path: Address::parse(sender).ok(), priority, ..Envelope::default() },
            origin: Origin::Local,
            size: 1,
            traits: BodyTraits::default(),
        });
        let mut job = Job::new(Arc::new(Shared { message, head: None, ticket: None }), destination.into());
        job.recipients = indices
            .iter()
            .map(|i| {
                let address = Address::parse(&format!("r{i}@{destination}")).expect("an address");
                Held::fresh(*i, Recipient::new(address))
            })
            .collect();
        job
    }
}
