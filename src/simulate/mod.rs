//! A day of mail in seconds: the real lanes, limiters and failure policy on virtual time, against
//! model providers.
//!
//! Real: [`Lane`] with its limiter, window, priorities and workers, the rules and the table that judge
//! replies, what a lane learns from them (`pipeline::lesson`), the plan of retries. Modelled: the
//! queue on disk (`store`), which source takes what another has no room for (`elsewhere`), the provider ([`crate::model`]), connections (a number of round trips).
//! There is no DNS, no body, no disk, and one recipient a message.
//!
//! One thread, paused time, seeded randomness: the same [`Plan`] gives the same result, always.

pub mod chart;
mod elsewhere;
mod feedback;
mod report;
mod sites;
mod store;
mod worker;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::{Clock, Timestamp};
use crate::config::{Limit, Provider};
use crate::mail::{Address, AddressError, BodyTraits, Envelope, Message, Origin, QueueId, Recipient};
use crate::model::{Caps, Change, Log, Model, Persona};
use crate::schedule::{Held, Job, Lane, NEW, Shared, WINDOW};
use crate::shape::{Ledger, Memos};
pub use report::{GroupReport, LimitReport, Point, Report, Waits};
use store::{Store, Waiting};

/// How often the lanes are looked at.
const SAMPLE: Duration = Duration::from_secs(60);
/// Recipients of one sender that go to the lane at once while more is stored, and the priority of
/// bulk, as in the relay.
const SHARE: usize = 16;
/// Senders at most.
const SENDERS: u16 = 64;
const BULK: i8 = -4;
/// One message of so many is for somebody who had one before; every other has a recipient of its own.
const AGAIN: u32 = 16;

/// Part of the mail: a provider, or many domains that no provider matches.
#[derive(Clone, Debug)]
pub struct Group {
    /// As in the mix.
    pub name: String,
    /// Messages for it.
    pub messages: u32,
    /// Whose limits hold.
    pub provider: Arc<Provider>,
    /// Where these limits are written, for the report.
    pub limits_from: String,
    /// Domains, each with a lane and a server of its own; 1 for a provider. Their sizes fall as 1/n.
    pub domains: u32,
    /// How its servers talk.
    pub persona: &'static Persona,
    /// What they enforce.
    pub caps: Caps,
    /// And when that changes.
    pub changes: Vec<Change>,
}

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The mail, in the order of the report.
    pub groups: Vec<Group>,
    /// When it begins: plans of warm-ups go by the day.
    pub begin: Timestamp,
    /// Messages arrive evenly over this time; zero: all at once.
    pub arrive: Duration,
    /// Senders, 1 to 64; their parts fall as 1, 1/2, 1/3, …
    pub senders: u16,
    /// Shares inside the providers. Whom the first of them is about is the second sender, and so on; the first
    /// sender is nobody special. See [`Plan::with_limits`].
    pub limits: Vec<Arc<Limit>>,
    /// The part of the mail that is bulk, of lower priority than the rest: 0 to 1.
    pub bulk: f64,
    /// A round trip to a provider, beside the latency of its model.
    pub round_trip: Duration,
    /// It ends then at the latest.
    pub until: Duration,
    /// Of all that is random.
    pub seed: u64,
}

/// Why there is nothing to simulate.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// A group's name cannot be a domain.
    #[error("`{0}` cannot stand in a mix: {1}")]
    Name(String, AddressError),
    /// The runtime could not be set up.
    #[error("cannot set up virtual time: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What happened in a group so far.
#[derive(Clone, Copy, Default, Debug)]
struct Tally {
    delivered: u64,
    expired: u64,
    bounced: u64,
    /// Attempts the provider refused to slow us down.
    throttled: u64,
    /// Recipients put off, to be tried again.
    deferred: u64,
    /// Connections opened.
    connections: u64,
    /// When the last message was done with.
    finished: Duration,
}

impl Tally {
    /// Messages that are done with.
    fn done(&self) -> u64 {
        self.delivered + self.expired + self.bounced
    }
}

/// How far a simulation has come.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Simulated time since its beginning.
    pub elapsed: Duration,
    /// Messages that are done with.
    pub done: u64,
    /// All messages.
    pub messages: u64,
}

/// How long what was delivered had waited, in milliseconds: bulk apart.
#[derive(Default, Debug)]
struct Waited {
    usual: Vec<u32>,
    bulk: Vec<u32>,
}

/// A lane, its server, and what waits for it.
struct Site {
    group: usize,
    /// The sites of the same destination, one a source address, itself among them.
    siblings: std::ops::Range<usize>,
    lane: Arc<Lane>,
    model: Mutex<Model>,
    store: Mutex<Store>,
    /// The domain of its recipients, and where they go.
    destination: Arc<str>,
    /// What is stored became due earlier.
    changed: Notify,
    /// Time passes for what it learned.
    ticking: AtomicBool,
    /// When something may have expired.
    expires: Mutex<Timestamp>,
}

struct World {
    sites: Vec<Arc<Site>>,
    senders: Vec<Address>,
    tallies: Mutex<Vec<Tally>>,
    waited: Mutex<Vec<Waited>>,
    /// Messages not done with.
    left: Mutex<u64>,
    done: Notify,
    rng: Mutex<fastrand::Rng>,
    begin: Timestamp,
    start: Instant,
    round_trip: Duration,
}

/// Runs the plan to its end.
///
/// # Errors
/// See [`SimulateError`].
pub fn run(plan: &Plan) -> Result<Report, SimulateError> {
    start(plan, false, &mut |_| {}).map(|(report, _)| report)
}

/// The same, and tells now and then how far it is.
///
/// # Errors
/// See [`SimulateError`].
pub fn run_telling(plan: &Plan, tell: &mut dyn FnMut(Progress)) -> Result<Report, SimulateError> {
    start(plan, false, tell).map(|(report, _)| report)
}

/// The same; tells besides what the server of each lane did, second by second, in the order of the groups.
///
/// # Errors
/// See [`SimulateError`].
pub fn watch(plan: &Plan) -> Result<(Report, Vec<Log>), SimulateError> {
    start(plan, true, &mut |_| {})
}

fn start(plan: &Plan, watched: bool, tell: &mut dyn FnMut(Progress)) -> Result<(Report, Vec<Log>), SimulateError> {
    // What the scheduler draws by itself follows the seed, too.
    fastrand::seed(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(simulate(plan, watched, tell))
}

async fn simulate(
    plan: &Plan,
    watched: bool,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Report, Vec<Log>), SimulateError> {
    let clock = Clock::Tokio { base: plan.begin, start: tokio::time::Instant::now() };
    let ledger = Ledger::new(Arc::new(Forgotten), clock);
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let sites = sites::sites(plan, &mut rng, &ledger)?;
    let total = plan.groups.iter().map(|group| u64::from(group.messages)).sum();
    let world = Arc::new(World {
        sites,
        senders: senders(plan)?,
        waited: Mutex::new(plan.groups.iter().map(|_| Waited::default()).collect()),
        tallies: Mutex::new(vec![Tally::default(); plan.groups.len()]),
        left: Mutex::new(total),
        done: Notify::new(),
        rng: Mutex::new(rng),
        begin: plan.begin,
        start: Instant::now(),
        round_trip: plan.round_trip,
    });
    for site in &world.sites {
        if watched {
            site.model.lock().watch();
        }
        tokio::spawn(feed(world.clone(), site.clone()));
    }
    let mut samples = vec![world.sample()];
    if total > 0 {
        let end = world.start + plan.until;
        for look in 1u32.. {
            let next = (world.start + SAMPLE * look).min(end);
            tokio::select! {
                biased;
                () = world.done.notified() => break,
                () = tokio::time::sleep_until(next) => {}
            }
            samples.push(world.sample());
            tell(Progress { elapsed: world.elapsed(), done: total - *world.left.lock(), messages: total });
            if Instant::now() >= end {
                break;
            }
        }
    }
    samples.push(world.sample());
    let waits = world.waited.lock().iter_mut().map(report::waits).collect();
    // The largest of each group tells what its lanes have learned.
    let learned =
        |group: usize| world.sites.iter().find(|site| site.group == group).map(|site| site.lane.explain(world.now()));
    let learned = (0..plan.groups.len()).map(|group| learned(group).unwrap_or_default()).collect();
    let logs = world.sites.iter().filter_map(|site| site.model.lock().take_log()).collect();
    Ok((report::report(plan, &samples, waits, learned), logs))
}

impl Plan {
    /// The same with these limits, and a sender for each.
    #[must_use]
    pub fn with_limits(self, limits: &[Arc<Limit>]) -> Plan {
        let wanted = if limits.is_empty() { 0 } else { u16::try_from(limits.len() + 1).unwrap_or(u16::MAX) };
        Plan { limits: limits.to_vec(), senders: self.senders.max(wanted).min(SENDERS), ..self }
    }

    /// Whom a limit is about, of the senders there are: its number, from 1, and address.
    fn sender_of(&self, limit: usize) -> Option<(usize, Address)> {
        let number = limit + 2;
        let of = self.limits.get(limit).filter(|_| number <= usize::from(self.senders))?;
        let text = of.sender.as_str();
        // Anybody is whom it is about.
        let named = (text != "*").then(|| text.replacen('*', &format!("app{number}"), 1).replace('*', "x"));
        Some((number, Address::parse(&named?).ok()?))
    }
}

fn senders(plan: &Plan) -> Result<Vec<Address>, SimulateError> {
    let address = |n| Address::parse(&format!("app{n}@sender{n}.example"));
    let senders: Result<Vec<Address>, _> = (1..=plan.senders.max(1)).map(address).collect();
    let mut senders = senders.map_err(|error| SimulateError::Name("sender".into(), error))?;
    for (number, address) in (0..plan.limits.len()).filter_map(|limit| plan.sender_of(limit)) {
        if let Some(sender) = senders.get_mut(number - 1) {
            *sender = address;
        }
    }
    Ok(senders)
}

/// Quotas of a simulation live as long as it does.
struct Forgotten;

#[async_trait::async_trait]
impl Memos for Forgotten {
    async fn remember(&self, _: Vec<(String, Option<bytes::Bytes>)>) -> Result<(), String> {
        Ok(())
    }

    async fn recall(&self, _: &str) -> Result<Vec<(String, bytes::Bytes)>, String> {
        Ok(Vec::new())
    }
}

/// Whom the message with this number at its destination is for.
fn recipient(index: u32, host: &str) -> String {
    let round = index / AGAIN;
    // One of the first half of the rounds so far, and there of those that are not repeated themselves.
    let number = if index % AGAIN == AGAIN - 1 { AGAIN * (round / 2) + round % (AGAIN - 1) } else { index };
    format!("user{number}@{host}")
}

/// The length of the message with this number at its destination, in bytes: from 2 to 34 kB.
fn size(index: u32) -> u64 {
    2000 + u64::from(index.wrapping_mul(2_654_435_761) >> 17)
}

/// Brings what is due into the lane's window, as the scheduler does.
async fn feed(world: Arc<World>, site: Arc<Site>) {
    let (due, mixed) = {
        let store = site.store.lock();
        (store.due(), store.is_mixed())
    };
    if let Some(due) = due {
        site.lane.note_stored(due);
    }
    loop {
        let changed = site.changed.notified();
        if mixed {
            admit(&world, &site);
        }
        claim(&world, &site);
        // Nothing is stored, the window is full or the lane is held: whoever changes that attends. What
        // is urgent may find a place in spite of that.
        let stored = site.lane.stored_due().filter(|due| *due > world.now());
        let urgent = if mixed { site.store.lock().next_urgent() } else { None };
        match stored.into_iter().chain(urgent).min().map(|due| due.since(world.now())) {
            Some(wait) => tokio::select! {
                biased;
                () = changed => {}
                () = tokio::time::sleep(wait) => {}
            },
            None => changed.await,
        }
    }
}

/// Urgent mail that has just arrived goes to the lane at once, as from a listener, if there is room.
fn admit(world: &Arc<World>, site: &Arc<Site>) {
    let taken = site.store.lock().take_urgent(world.now());
    for waiting in taken {
        let job = world.job(site, waiting);
        let room = job.as_ref().is_some_and(|job| {
            site.lane.has_room(job.sender, 1, WINDOW, SHARE) || site.lane.has_room_before(job.priority(), 1, WINDOW)
        });
        match job.filter(|_| room) {
            Some(job) => {
                let wake = site.lane.push([job]);
                world.wake(site, wake);
            }
            None => {
                site.store.lock().put_off(waiting);
                site.lane.note_stored(waiting.due);
            }
        }
    }
}

/// Claims what is due if there is room. For all but `feed`, which waits without a time while it could not
/// claim itself, and has to learn when more is due.
fn attend(world: &Arc<World>, site: &Arc<Site>) {
    if claim(world, site) {
        site.changed.notify_one();
    }
}

/// The same. True if something was claimed.
fn claim(world: &Arc<World>, site: &Arc<Site>) -> bool {
    let now = world.now();
    if site.lane.stored_due().is_none_or(|due| due > now) {
        return false;
    }
    let Some(room) = site.lane.begin_claim(now, WINDOW) else { return false };
    let (taken, due) = {
        let mut store = site.store.lock();
        (store.claim(now, room), store.due())
    };
    let wake = site.lane.push(taken.into_iter().filter_map(|waiting| world.job(site, waiting)));
    world.wake(site, wake);
    site.lane.end_claim(due);
    true
}

impl World {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn now(&self) -> Timestamp {
        self.begin.after(self.elapsed())
    }

    /// What the scheduler would make of a recipient that was claimed.
    fn job(&self, site: &Site, waiting: Waiting) -> Option<Job> {
        let arrival = site.store.lock().arrival(waiting.index)?;
        let sender = self.senders.get(usize::from(arrival.sender)).cloned();
        let priority = if arrival.bulk { BULK } else { 0 };
        let message = Message {
            id: QueueId(i64::from(waiting.index) + 1),
            received: arrival.at,
            envelope: Envelope { reverse_path: sender, priority, ..Envelope::default() },
            origin: Origin::Local,
            size: size(waiting.index),
            traits: BodyTraits::default(),
        };
        let shared = Shared { message: Arc::new(message), head: None, ticket: None };
        let mut job = Job::new(Arc::new(shared), site.destination.clone());
        let recipient = Recipient::new(Address::parse(&recipient(waiting.index, &site.destination)).ok()?);
        let held = Held { attempts: waiting.attempts, ..Held::fresh(waiting.index, recipient) };
        job.recipients.push(held);
        job.waited = waiting.attempts > 0 || waiting.due > arrival.at.after(NEW);
        Some(job)
    }

    fn tally(&self, site: &Site, count: impl FnOnce(&mut Tally)) {
        if let Some(tally) = self.tallies.lock().get_mut(site.group) {
            count(tally);
        }
    }

    fn note_wait(&self, site: &Site, bulk: bool, waited: Duration) {
        if let Some(of) = self.waited.lock().get_mut(site.group) {
            let line = if bulk { &mut of.bulk } else { &mut of.usual };
            line.push(u32::try_from(waited.as_millis()).unwrap_or(u32::MAX));
        }
    }

    fn finished(&self) {
        let mut left = self.left.lock();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.done.notify_one();
        }
    }

    fn sample(&self) -> report::Sample {
        let (at, now) = (self.elapsed(), self.now());
        let mut arrived = vec![0; self.tallies.lock().len()];
        // The sites of one destination share a list of what arrives.
        for site in self.sites.iter().enumerate().filter(|(at, site)| site.siblings.start == *at).map(|(_, site)| site)
        {
            arrived[site.group] += site.store.lock().arrived(now) as u64;
        }
        report::Sample { at, arrived, tallies: self.tallies.lock().clone() }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod source_tests;
#[cfg(test)]
mod tests;
