//! One lane: what is ready for one provider (or one domain without a provider), who works on it,
//! and what keeps it from leaving.
//!
//! Workers (one per connection) call [`Lane::next`]. Invariants: at most `connections` workers; a
//! worker is only let through when rates, quotas and limits will permit its transaction within
//! [`LEAD`], so that slow rates and used-up quotas hold no jobs and no connections open; nothing
//! leaves while the lane is paused.

mod feedback;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::backlog::{Backlog, Next};
use super::stored::Stored;
use super::{Held, Job};
use crate::clock::Timestamp;
use crate::config::{Limit, Overflow, Provider};
use crate::mail::{LaneName, RecipientKey};
use crate::shape::adapt::{Adapt, Configured};
use crate::shape::{self, Gate, Ledger, Limiter, Limits, Permit, Refused};
use feedback::Narrowed;
pub use feedback::OpenGuard;

/// How long before its permit a worker is let through, to have time to connect.
const LEAD: Duration = Duration::from_secs(1);
/// Limits that a snapshot names.
const HELD_SHOWN: usize = 10;

/// This part of the window comes on top of it for mail more urgent than what fills it.
const URGENT_PART: usize = 8;

/// A lane. Shared by `Arc` between the scheduler and its workers.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: LaneName,
    /// Whose limits hold.
    pub provider: Arc<Provider>,
    gate: Arc<Gate>,
    /// Shared with the lanes of the provider's other sources.
    limits: Arc<Limits>,
    /// New connections.
    connects: Arc<Limiter>,
    state: Mutex<State>,
    /// What replies taught; locked before `state`.
    adapt: Mutex<Adapt>,
    /// A long hold began.
    held: Notify,
    /// Somebody may be let through now.
    changed: Notify,
    /// Held by the one worker that waits for the lane; the others wait for it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    ready: Backlog,
    /// Recipients with workers.
    in_flight: usize,
    workers: u32,
    /// Workers that wait in `next`.
    waiting: u32,
    paused: bool,
    circuit: Option<Circuit>,
    stored: Stored,
    last_error: Option<String>,
    limited: Limited,
    /// What feedback narrowed.
    narrowed: Narrowed,
}

/// How often and how long the limiter held somebody back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limited {
    /// How often.
    pub waits: u64,
    /// How long in all.
    pub waited: Duration,
}

/// Why nothing leaves for a while although nobody paused the lane.
#[derive(Clone, Debug)]
pub struct Circuit {
    /// A single job is tried then.
    pub until: Instant,
    /// What the server said.
    pub reason: String,
    /// How often in a row; the time grows with it.
    pub times: u32,
}

/// Why a worker was not given a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Empty {
    /// Nothing came within the idle time.
    Idle,
}

/// A quota or limit was used up while a job waited for its permit.
#[derive(Debug, PartialEq, Eq)]
pub struct NotNow;

/// What a worker waits for.
#[derive(Clone, Debug)]
enum Hold {
    /// A new job, the end of a pause, another worker.
    Change,
    /// The probe of an open circuit.
    Circuit(Duration),
    /// A rate, a quota or a limit.
    Limiter(Duration),
    /// What a quota has let through before is not known yet.
    Load(Arc<Gate>),
}

/// What a new job means for the lane's workers.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wake {
    /// Enough are there.
    Nobody,
    /// One more worker was counted in and has to be started.
    Start,
}

/// A lane as `provider show` and the page tell it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Recipients ready in memory.
    pub ready: usize,
    /// Recipients in transactions.
    pub in_flight: usize,
    /// Workers, that is connections.
    pub workers: u32,
    /// An operator paused it.
    pub paused: bool,
    /// Why nothing leaves for now, and for how long.
    pub circuit: Option<(String, Duration)>,
    /// The earliest due time of what waits in the queue.
    pub stored_due: Option<Timestamp>,
    /// The rate or quota that holds the next transaction back.
    pub held: Option<shape::Held>,
    /// Limits inside the provider that hold something back, and how many recipients.
    pub held_aside: Vec<(shape::Held, usize)>,
    /// The last reply or error that was not an acceptance.
    pub last_error: Option<String>,
}

impl Lane {
    /// A lane with the limits of `provider` and those of `limits` that are about it.
    pub fn new(name: LaneName, provider: Arc<Provider>, limits: &[Arc<Limit>], ledger: &Arc<Ledger>) -> Lane {
        let limits = Arc::new(Limits::new(&name, &provider, limits, ledger));
        Lane::sharing(name, provider, limits, ledger)
    }

    /// A lane with the limits of `provider` and shares that it may have in common with others.
    pub fn sharing(name: LaneName, provider: Arc<Provider>, limits: Arc<Limits>, ledger: &Arc<Ledger>) -> Lane {
        let configured = Configured::of(&provider);
        Lane {
            gate: Arc::new(Gate::of_provider(ledger, name.as_str(), &provider)),
            limits,
            connects: Arc::new(Limiter::new(&provider.connection_rate, 0)),
            name,
            provider,
            state: Mutex::default(),
            adapt: Mutex::new(Adapt::new(configured)),
            held: Notify::new(),
            changed: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds jobs at the end.
    pub fn push(&self, jobs: impl IntoIterator<Item = Job>) -> Wake {
        let mut state = self.state.lock();
        for job in jobs {
            state.ready.push(job);
        }
        self.wake(&mut state)
    }

    /// Gives jobs back that were not tried: they leave first.
    pub fn give_back(&self, job: Job) -> Wake {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(job.recipients.len());
        state.ready.push_front(job);
        self.wake(&mut state)
    }

    /// Puts a job back that was withdrawn: it leaves first.
    pub fn put_back(&self, job: Job) -> Wake {
        let mut state = self.state.lock();
        state.ready.push_front(job);
        self.wake(&mut state)
    }

    /// A job leaves the lane for another one. From the lane of a domain, whose provider became
    /// known, whatever is ready goes with it; in the lane of a provider the other domains stay.
    pub fn surrender(&self, job: Job) -> Vec<Job> {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(job.recipients.len());
        let mut jobs = vec![job];
        if self.name.as_domain().is_some() {
            jobs.extend(state.ready.drain());
        }
        jobs
    }

    fn wake(&self, state: &mut State) -> Wake {
        if state.ready.is_empty() || state.paused {
            return Wake::Nobody;
        }
        if state.waiting > 0 {
            self.changed.notify_one();
            return Wake::Nobody;
        }
        if state.narrowed.held().is_some() {
            return Wake::Nobody;
        }
        let most = state.most_workers(self.provider.connections);
        // One worker may wait for its connection; more would only hold jobs.
        if state.workers < most && (state.workers == 0 || self.connects.wait_for(1) <= LEAD) {
            state.workers += 1;
            return Wake::Start;
        }
        Wake::Nobody
    }

    /// Asks again whether a worker is needed (after a pause, or when one ended).
    pub fn poke(&self) -> Wake {
        self.wake(&mut self.state.lock())
    }

    /// A worker has ended.
    pub fn worker_gone(&self) -> Wake {
        let mut state = self.state.lock();
        state.workers = state.workers.saturating_sub(1);
        state.narrowed.gone();
        self.wake(&mut state)
    }

    /// The next job for a worker whose connection serves `destination`, at most `idle` from now,
    /// and whether another worker has to be started for what is left.
    pub async fn next(&self, destination: Option<&str>, idle: Duration) -> Result<(Job, Wake), Empty> {
        if let Ok(job) = self.try_next(destination) {
            return Ok((job, self.poke()));
        }
        let deadline = Instant::now() + idle;
        let waiting = Waiting::new(self);
        let _turn = tokio::time::timeout_at(deadline, self.turn.lock()).await.map_err(|_| Empty::Idle)?;
        let mut limited: Option<Instant> = None;
        let got = loop {
            let changed = self.changed.notified();
            let until = match self.try_next(destination) {
                Ok(job) => break Ok(job),
                Err(Hold::Change) => deadline,
                Err(Hold::Circuit(wait)) => Instant::now() + wait,
                Err(Hold::Limiter(wait)) => {
                    limited.get_or_insert_with(Instant::now);
                    let until = Instant::now() + wait;
                    // Longer than the connection would be kept: it is closed at once.
                    if destination.is_some() && until > deadline {
                        break Err(Empty::Idle);
                    }
                    until
                }
                Err(Hold::Load(gate)) => {
                    gate.load().await;
                    continue;
                }
            };
            tokio::select! {
                // What came at the last moment is still taken.
                biased;
                () = changed => {}
                () = tokio::time::sleep_until(until.min(deadline)) => {
                    // A wait beyond the idle time ends the connection: the server would close it.
                    if Instant::now() >= deadline {
                        break Err(Empty::Idle);
                    }
                }
            }
        };
        if let Some(since) = limited {
            self.note_limited(since.elapsed());
        }
        // Not waiting any more, so that what else is ready wakes somebody else.
        drop(waiting);
        got.map(|job| (job, self.poke()))
    }

    /// A job now, or what it waits for.
    fn try_next(&self, destination: Option<&str>) -> Result<Job, Hold> {
        let mut state = self.state.lock();
        if state.paused || state.ready.is_empty() {
            return Err(Hold::Change);
        }
        if let Some(left) = state.narrowed.held() {
            return Err(Hold::Circuit(left));
        }
        if let Some(circuit) = &state.circuit {
            let left = circuit.until.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                return Err(Hold::Circuit(left));
            }
            if state.in_flight > 0 {
                return Err(Hold::Change);
            }
        }
        if !self.gate.is_loaded() {
            return Err(Hold::Load(self.gate.clone()));
        }
        let wait = self.gate.wait(1);
        if wait > LEAD {
            return Err(Hold::Limiter(wait - LEAD));
        }
        match state.ready.pop(&self.limits, self.most_recipients(), destination) {
            Next::Job(job) => {
                state.in_flight += job.recipients.len();
                self.gate.let_through(self.gate.cells(job.recipients.len()));
                Ok(job)
            }
            Next::Load(gate) => Err(Hold::Load(gate)),
            Next::Wait(until) => Err(Hold::Limiter(until.saturating_duration_since(Instant::now()))),
            Next::Nothing => Err(Hold::Change),
        }
    }

    /// Recipients of one transaction.
    fn most_recipients(&self) -> usize {
        self.provider.recipients_per_message.min(self.gate.most_recipients()).max(1) as usize
    }

    /// Waits for the right to make the transaction of `job`, on an open connection. A job of higher
    /// priority that came meanwhile takes its place (if it goes to the same destination).
    ///
    /// # Errors
    /// A quota or limit was used up meanwhile: the job is to be given back, it is held in the lane.
    pub async fn permit(&self, job: &mut Job) -> Result<Permit, NotNow> {
        loop {
            self.overtake(job);
            let (gate, cells, refused) = match self.try_take(job) {
                Ok(permit) => {
                    self.arrived(job);
                    return Ok(permit);
                }
                Err(refused) => refused,
            };
            match refused {
                Refused::Reserve => gate.reserve(cells).await,
                // Too long to hold a connection: `next` sees the same and waits without one, or cuts
                // the job to what is left of a quota. A share of somebody never holds one.
                Refused::Rate(_) if !Arc::ptr_eq(&gate, &self.gate) || gate.wait_alone() > LEAD => {
                    self.not_needed(job);
                    return Err(NotNow);
                }
                Refused::Quota(wait) if !Arc::ptr_eq(&gate, &self.gate) || wait > LEAD => {
                    self.not_needed(job);
                    return Err(NotNow);
                }
                Refused::Rate(wait) | Refused::Quota(wait) => {
                    self.note_limited(wait);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Takes of all gates of a job, or tells which one refuses how many cells.
    fn try_take(&self, job: &Job) -> Result<Permit, (Arc<Gate>, u32, Refused)> {
        let take = |gate: &Arc<Gate>| {
            let cells = gate.cells(job.recipients.len());
            gate.try_take(cells).map_err(|refused| (gate.clone(), cells, refused))
        };
        let own = take(&self.gate)?;
        // Without limits this allocates nothing.
        let more = job.gates.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        Ok(own.and(more))
    }

    /// A job is no longer on its way to a permit.
    fn arrived(&self, job: &mut Job) {
        for gate in self.gates_of(job) {
            gate.arrived(gate.cells(job.recipients.len()));
        }
        job.gates.clear();
    }

    fn gates_of<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a Arc<Gate>> {
        std::iter::once(&self.gate).chain(&job.gates)
    }

    /// Waits until a new connection may be opened; it counts from then on.
    pub async fn may_connect(&self) {
        loop {
            match self.connects.try_take(1) {
                Ok(tokens) => return tokens.spend(),
                Err(wait) => {
                    self.note_limited(wait);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    fn note_limited(&self, wait: Duration) {
        let limited = &mut self.state.lock().limited;
        limited.waits += 1;
        limited.waited += wait;
    }

    /// What the limiter held back since this was last asked, if anything.
    pub fn take_limited(&self) -> Option<Limited> {
        let limited = std::mem::take(&mut self.state.lock().limited);
        (limited.waits > 0).then_some(limited)
    }

    fn overtake(&self, job: &mut Job) {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            return;
        }
        let Some(mut better) = state.ready.overtaking(&self.limits, job, self.most_recipients()) else { return };
        self.gate.let_through(self.gate.cells(better.recipients.len()));
        state.in_flight = (state.in_flight + better.recipients.len()).saturating_sub(job.recipients.len());
        std::mem::swap(job, &mut better);
        self.arrived(&mut better);
        state.ready.push_front(better);
    }

    /// A worker gave its permit back because another job took the place, and will ask again.
    pub fn let_through_again(&self, job: &mut Job) {
        self.gate.let_through(self.gate.cells(job.recipients.len()));
        job.gates = self.limits.gates(&job.message.message);
        for gate in &job.gates {
            gate.let_through(gate.cells(job.recipients.len()));
        }
    }

    /// A worker let through by `next` will not ask for its permit (its job could not be tried).
    pub fn not_needed(&self, job: &mut Job) {
        self.arrived(job);
        self.changed.notify_one();
    }

    /// Recipients were settled: they are no longer in memory.
    pub fn settled(&self, recipients: usize) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(recipients);
    }

    /// Takes waiting recipients out of memory for an operator.
    pub fn withdraw(&self, wanted: &mut dyn FnMut(RecipientKey) -> bool) -> Vec<Job> {
        self.state.lock().ready.withdraw(&mut |job, index| wanted(job.key(index)))
    }

    /// Takes everything that waits out of memory, for shutdown.
    pub fn drain(&self) -> Vec<Job> {
        self.state.lock().ready.drain()
    }

    /// Recipients in memory: ready and in flight.
    pub fn in_memory(&self) -> usize {
        let state = self.state.lock();
        state.ready.recipients() + state.in_flight
    }

    /// Whether `recipients` of `sender` may wait in memory: within the window, and when the queue
    /// holds more for this lane, only a few of each sender, so that what is stored gets its turn.
    pub fn has_room(&self, sender: u64, recipients: usize, window: usize, share: usize) -> bool {
        let state = self.state.lock();
        let held = state.ready.recipients() + state.in_flight;
        if held + recipients > window {
            return false;
        }
        state.stored.due.is_none() || state.ready.of_sender(sender) + recipients <= share
    }

    /// Whether recipients of `priority` may wait in memory although the window is full: a few of a
    /// higher priority than what fills it, so that they need not wait in the queue behind it.
    pub fn has_room_before(&self, priority: i8, recipients: usize, window: usize) -> bool {
        let state = self.state.lock();
        let held = state.ready.recipients() + state.in_flight;
        held + recipients <= window + window / URGENT_PART
            && state.ready.at_least(priority) + recipients <= window / URGENT_PART
            && state.ready.lowest_priority().is_some_and(|lowest| priority > lowest)
    }

    /// Stops or starts the lane on an operator's word.
    pub fn pause(&self, paused: bool) -> Wake {
        let mut state = self.state.lock();
        state.paused = paused;
        self.wake(&mut state)
    }

    /// The provider refuses us altogether (e.g. 535): nothing leaves until a probe succeeds.
    pub fn open_circuit(&self, reason: String, first: Duration, longest: Duration) {
        let mut state = self.state.lock();
        // Connections that were under way when it opened are no further probes.
        if state.circuit.as_ref().is_some_and(|c| c.until > Instant::now()) {
            return;
        }
        let times = state.circuit.as_ref().map_or(0, |c| c.times).saturating_add(1);
        let wait = first.saturating_mul(1 << times.saturating_sub(1).min(10)).min(longest);
        state.circuit = Some(Circuit { until: Instant::now() + wait, reason, times });
    }

    /// The provider accepts us again.
    pub fn close_circuit(&self) -> Wake {
        let mut state = self.state.lock();
        if state.circuit.take().is_none() {
            return Wake::Nobody;
        }
        self.wake(&mut state)
    }

    /// Remembers the last reply or error for operators.
    pub fn note_error(&self, text: String) {
        self.state.lock().last_error = Some(text);
    }

    /// Takes out of memory what is older than `expire` while a rate, quota or limit holds it back,
    /// at most about `most` recipients, with what held them back. They count as with a worker.
    pub fn expired(&self, now: Timestamp, most: usize) -> Vec<(shape::Held, Job)> {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            return Vec::new();
        }
        let expire = self.provider.retry.expire;
        let mut left = most;
        let mut old = |job: &Job, _: u32| {
            let old = left > 0 && job.message.message.received.after(expire) <= now;
            left -= usize::from(old);
            old
        };
        let out: Vec<(shape::Held, Job)> = match self.gate.held().filter(|held| held.wait > LEAD) {
            Some(held) => state.ready.withdraw(&mut old).into_iter().map(|job| (held.clone(), job)).collect(),
            None => {
                state.ready.withdraw_aside(&mut old).into_iter().filter_map(|(held, job)| Some((held?, job))).collect()
            }
        };
        state.in_flight += out.iter().map(|(_, job)| job.recipients.len()).sum::<usize>();
        out
    }

    /// Whether what waits should leave from another source: the day's number of a warm-up with that
    /// overflow is reached.
    pub fn overflows(&self) -> bool {
        self.may_overflow() && self.gate.day_is_used_up()
    }

    /// The same, once it is known what was used in earlier lives.
    pub async fn overflows_now(&self) -> bool {
        if self.may_overflow() && !self.gate.is_loaded() {
            self.gate.load().await;
        }
        self.overflows()
    }

    fn may_overflow(&self) -> bool {
        self.provider.warmup.as_ref().is_some_and(|plan| plan.overflow == Overflow::Source)
    }

    /// The queue holds something of this lane, due at `due`.
    pub fn note_stored(&self, due: Timestamp) {
        self.state.lock().stored.note(due);
    }

    /// The earliest due time of what the queue holds.
    pub fn stored_due(&self) -> Option<Timestamp> {
        self.state.lock().stored.due
    }

    /// Whether to claim now, and how many; at most one claim is under way.
    pub fn begin_claim(&self, now: Timestamp, window: usize) -> Option<usize> {
        let mut state = self.state.lock();
        let held = state.narrowed.held().is_some();
        if held && !state.ready.is_empty() {
            return None;
        }
        let held = state.ready.recipients() + state.in_flight;
        if state.paused || state.circuit.is_some() && !state.ready.is_empty() {
            return None;
        }
        // Below half of the window, so that claims come in batches.
        (held * 2 <= window && state.stored.begin_claim(now)).then(|| window - held)
    }

    /// Ends a claim: `due` is what the queue says now.
    pub fn end_claim(&self, due: Option<Timestamp>) {
        self.state.lock().stored.end_claim(due);
    }

    /// Nothing is here, nothing is stored, nothing is remembered that matters: may be forgotten.
    pub fn is_disposable(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty()
            && state.in_flight == 0
            && state.workers == 0
            && !state.paused
            && state.circuit.is_none()
            && state.stored.due.is_none()
            && !state.stored.claiming
            && self.gate.is_disposable()
            && self.limits.is_disposable()
            && self.connects.is_full()
            // Forgotten, it would take mail again until it had asked the store.
            && !self.overflows()
    }

    /// Recipients in memory that leave before new ones of this priority: those as urgent or more,
    /// and those in transactions.
    pub fn ahead_of(&self, priority: i8) -> usize {
        let state = self.state.lock();
        state.ready.at_least(priority) + state.in_flight
    }

    /// What an operator sees.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state.lock();
        Snapshot {
            ready: state.ready.recipients(),
            in_flight: state.in_flight,
            workers: state.workers,
            paused: state.paused,
            circuit: state
                .circuit
                .as_ref()
                .map(|c| (c.reason.clone(), c.until.saturating_duration_since(Instant::now()))),
            stored_due: state.stored.due,
            held: self.gate.held().filter(|held| held.wait > LEAD),
            held_aside: state.ready.held(HELD_SHOWN),
            last_error: state.last_error.clone(),
        }
    }
}

/// Counts a worker as waiting while it lives.
struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Waiting<'a> {
        lane.state.lock().waiting += 1;
        Waiting(lane)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.waiting = state.waiting.saturating_sub(1);
    }
}

impl Held {
    /// A recipient that was just accepted.
    pub fn fresh(index: u32, recipient: crate::mail::Recipient) -> Held {
        Held { index, recipient, attempts: 0, warned: false, untried: 0 }
    }
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
