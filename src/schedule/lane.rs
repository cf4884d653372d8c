//! One lane: what is ready for one provider (or one domain without a provider), who works on it,
//! and what keeps it from leaving.
//!
//! Workers (one per connection) call [`Lane::next`]. Invariants: at most `connections` workers; a
//! worker is only let through when the limiter will permit its transaction within [`LEAD`], so
//! that slow rates hold no jobs and no connections open; nothing leaves while the lane is paused.

mod feedback;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ready::Ready;
use super::{Held, Job};
use crate::clock::Timestamp;
use crate::config::{Count, Provider};
use crate::mail::{LaneName, RecipientKey};
use crate::shape::adapt::{Adapt, Configured};
use crate::shape::{Limiter, Permit};
use feedback::Narrowed;
pub use feedback::OpenGuard;

/// How long before its permit a worker is let through, to have time to connect.
const LEAD: Duration = Duration::from_secs(1);

/// A lane. Shared by `Arc` between the scheduler and its workers.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub name: LaneName,
    /// Whose limits hold.
    pub provider: Arc<Provider>,
    limiter: Arc<Limiter>,
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
    ready: Ready,
    /// Recipients with workers.
    in_flight: usize,
    workers: u32,
    /// Workers that wait in `next`.
    waiting: u32,
    /// Workers let through that have no permit yet.
    let_through: u32,
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

/// What is known about this lane in the queue.
#[derive(Debug, Default)]
struct Stored {
    /// Earliest due time; `None`: nothing is stored.
    due: Option<Timestamp>,
    claiming: bool,
    /// Something was stored while a claim was under way.
    noted: Option<Timestamp>,
}

/// Why a worker was not given a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Empty {
    /// Nothing came within the idle time.
    Idle,
}

/// What a worker waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Hold {
    /// A new job, the end of a pause, another worker.
    Change,
    /// The probe of an open circuit.
    Circuit(Duration),
    /// The limiter.
    Limiter(Duration),
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
    /// How long until the limiter would permit a transaction.
    pub limiter_wait: Duration,
    /// The last reply or error that was not an acceptance.
    pub last_error: Option<String>,
}

impl Lane {
    /// A lane with the limits of `provider`.
    pub fn new(name: LaneName, provider: Arc<Provider>) -> Lane {
        let limiter = Arc::new(Limiter::new(&provider.rate, provider.burst));
        let configured = Configured::of(&provider);
        Lane {
            name,
            provider,
            limiter,
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

    /// Jobs leave the lane for another one (the provider became known), with whatever is ready.
    pub fn surrender(&self, job: Job) -> Vec<Job> {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(job.recipients.len());
        let mut jobs = vec![job];
        jobs.extend(std::iter::from_fn(|| state.ready.pop(usize::MAX, None)));
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
        if state.workers < state.most_workers(self.provider.connections) {
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
                    Instant::now() + wait
                }
            };
            tokio::select! {
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
        let wait = self.limiter.wait_for(state.let_through.saturating_add(1));
        if wait > LEAD {
            return Err(Hold::Limiter(wait - LEAD));
        }
        let Some(job) = state.ready.pop(self.most_recipients(), destination) else { return Err(Hold::Change) };
        state.in_flight += job.recipients.len();
        state.let_through += 1;
        Ok(job)
    }

    /// Recipients of one transaction.
    fn most_recipients(&self) -> usize {
        let most = match self.provider.count {
            Count::Messages => self.provider.recipients_per_message,
            Count::Recipients => self.provider.recipients_per_message.min(self.limiter.largest()),
        };
        most.max(1) as usize
    }

    /// Waits for the right to make the transaction of `job`, on an open connection. A job of higher
    /// priority that came meanwhile takes its place (if it goes to the same destination).
    pub async fn permit(&self, job: &mut Job) -> Permit {
        loop {
            let cells = match self.provider.count {
                Count::Messages => 1,
                Count::Recipients => u32::try_from(job.recipients.len()).unwrap_or(u32::MAX),
            };
            match self.limiter.try_take(cells) {
                Ok(permit) => {
                    let mut state = self.state.lock();
                    state.let_through = state.let_through.saturating_sub(1);
                    self.overtake(&mut state, job);
                    return permit;
                }
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

    fn overtake(&self, state: &mut State, job: &mut Job) {
        if state.ready.best_priority().is_none_or(|best| best <= job.priority()) {
            return;
        }
        let most = match self.provider.count {
            Count::Messages => self.most_recipients(),
            Count::Recipients => job.recipients.len(),
        };
        let Some(better) = state.ready.pop(most, Some(&*job.destination)) else { return };
        if better.destination == job.destination {
            state.in_flight = (state.in_flight + better.recipients.len()).saturating_sub(job.recipients.len());
            state.ready.push_front(std::mem::replace(job, better));
        } else {
            state.ready.push_front(better);
        }
    }

    /// A worker let through by `next` will not ask for its permit (its job could not be tried).
    pub fn not_needed(&self) {
        let mut state = self.state.lock();
        state.let_through = state.let_through.saturating_sub(1);
        drop(state);
        self.changed.notify_one();
    }

    /// Recipients were settled: they are no longer in memory.
    pub fn settled(&self, recipients: usize) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(recipients);
    }

    /// Takes waiting recipients out of memory for an operator; returns their keys.
    pub fn withdraw(&self, wanted: &mut dyn FnMut(RecipientKey) -> bool) -> Vec<RecipientKey> {
        let jobs = self.state.lock().ready.withdraw(&mut |job, index| wanted(job.key(index)));
        jobs.iter().flat_map(|job| job.recipients.iter().map(|held| job.key(held.index))).collect()
    }

    /// Takes everything that waits out of memory, for shutdown.
    pub fn drain(&self) -> Vec<Job> {
        let mut state = self.state.lock();
        std::iter::from_fn(|| state.ready.pop(usize::MAX, None)).collect()
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

    /// Stops or starts the lane on an operator's word.
    pub fn pause(&self, paused: bool) -> Wake {
        let mut state = self.state.lock();
        state.paused = paused;
        self.wake(&mut state)
    }

    /// The provider refuses us altogether (e.g. 535): nothing leaves until a probe succeeds.
    pub fn open_circuit(&self, reason: String, first: Duration, longest: Duration) {
        let mut state = self.state.lock();
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

    /// The queue holds something of this lane, due at `due`.
    pub fn note_stored(&self, due: Timestamp) {
        let mut state = self.state.lock();
        let stored = &mut state.stored;
        stored.due = Some(stored.due.map_or(due, |d| d.min(due)));
        if stored.claiming {
            stored.noted = Some(stored.noted.map_or(due, |d| d.min(due)));
        }
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
        if state.paused || state.stored.claiming || state.circuit.is_some() && !state.ready.is_empty() {
            return None;
        }
        // Below half of the window, so that claims come in batches.
        if held * 2 > window || state.stored.due.is_none_or(|due| due > now) {
            return None;
        }
        state.stored.claiming = true;
        Some(window - held)
    }

    /// Ends a claim: `due` is what the queue says now; what was noted meanwhile counts, too.
    pub fn end_claim(&self, due: Option<Timestamp>) {
        let mut state = self.state.lock();
        let stored = &mut state.stored;
        stored.claiming = false;
        stored.due = match (due, stored.noted.take()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
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
            && self.limiter.is_full()
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
            limiter_wait: self.limiter.wait_for(1),
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
