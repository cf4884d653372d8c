//! One lane: what is ready for one provider (or one domain without a provider), who works on it,
//! and what keeps it from leaving.
//!
//! Workers (one per connection) call [`Lane::next`]. Invariants: at most `connections` workers; a
//! worker is only let through when rates, quotas and limits will permit its transaction within
//! [`LEAD`], so that slow rates and used-up quotas hold no jobs and no connections open; nothing
//! leaves while the lane is paused.

mod absent;
mod announced;
mod answered;
mod answers;
mod circuit;
mod feedback;
mod holds;
mod lent;
mod line;
mod next;
mod patience;
mod permit;
mod place;
mod proof;
mod recent;
mod snapshot;
mod unanswered;
mod under_way;
mod window;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::backlog::Backlog;
pub use super::beyond::Beyond;
use super::places::Place;
use super::stored::Stored;
use super::{Held, Job};
use crate::clock::Timestamp;
use crate::config::{Limit, Overflow, Provider};
use crate::mail::LaneName;
use crate::shape::adapt::{Adapt, Configured};
use crate::shape::{Gate, Gates, Ledger, Limiter, Limits, Paced};
use absent::Absent;
pub use announced::Announced;
pub(crate) use announced::addresses;
use answers::Answers;
pub use circuit::{Circuit, Reached};
use circuit::{Ended, Login};
use feedback::Narrowed;
pub use feedback::OpenGuard;
pub use holds::{By, Hold, Holds};
pub use lent::Lent;
use lent::Loans;
use line::Line;
pub use patience::{GivenUp, Hangs};
pub use permit::{Limited, NotNow};
use recent::Recent;
pub use snapshot::Snapshot;
use unanswered::Unanswered;
pub use unanswered::{About, Confined, Left};
pub use under_way::UnderWay;
pub(super) use window::FETCH;

/// How long before its permit a worker is let through, to have time to connect.
/// A provider that took mail so lately takes our mail.
const LATELY: Duration = Duration::from_secs(600);
const LEAD: Duration = Duration::from_secs(1);

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
    /// Senders whose pace was learned; this lane's own.
    paced: Paced,
    /// New connections, and how many were begun.
    connects: Arc<Limiter>,
    begun: AtomicU64,
    state: Mutex<State>,
    /// What replies taught; locked before `state`.
    adapt: Mutex<Adapt>,
    /// A long hold began.
    held: Notify,
    /// Somebody may be let through now.
    changed: Notify,
    /// Those who wait for a permit.
    line: Line,
    /// Workers that have nothing to do are to end.
    dismissed: Notify,
    /// An operator has taken away jobs whose connections are being opened.
    recalled: Notify,
    /// Held by the one worker that waits for the lane; the others wait for it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    ready: Backlog,
    /// The place of the last job that was given out.
    places: u64,
    /// Jobs whose workers are opening connections.
    loans: Loans,
    /// Recipients with workers.
    in_flight: usize,
    workers: u32,
    /// Workers that wait in `next`.
    waiting: u32,
    /// One of them waits because of what others have under way.
    kept: bool,
    /// When a job was last given out, or could have been.
    given: Option<Instant>,
    paused: bool,
    circuit: Option<Circuit>,
    login: Login,
    ended: Ended,
    unanswered: Unanswered,
    /// What open connections wait for.
    answers: Answers,
    stored: Stored,
    /// What a host says of its sessions.
    announced: Option<Announced>,
    /// Senders in the queue who have nothing here.
    absent: Absent,
    /// Of the lane of a domain: its right to work, whether it was found out where the domain is, and
    /// whether that took mail lately.
    place: Option<Place>,
    place_sender: usize,
    found: bool,
    proven: bool,
    /// The last reply or error since something was delivered, and when it came.
    last_error: Option<(Timestamp, String)>,
    /// When recipients last left or came back from a transaction, one began while there was none, or a
    /// rate of connections gave one.
    moved: Option<Instant>,
    /// How fast it delivers.
    recent: Recent,
    limited: Limited,
    /// Workers whose connections a rate of connections holds back.
    unconnected: usize,
    /// What feedback narrowed.
    narrowed: Narrowed,
}

/// Why a worker was not given a job.
#[derive(Debug, PartialEq, Eq)]
pub enum Empty {
    /// Nothing came within the idle time.
    Idle,
    /// Limits hold back more than may wait here: take it with [`Lane::take_beyond`] and ask again.
    Beyond,
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
            paced: Paced::new(provider.count),
            connects: ledger.limiter(&format!("{name}/connections"), &provider.connection_rates(), 0),
            begun: AtomicU64::new(0),
            name,
            provider,
            state: Mutex::default(),
            adapt: Mutex::new(Adapt::new(configured)),
            held: Notify::new(),
            changed: Notify::new(),
            line: Line::default(),
            dismissed: Notify::new(),
            recalled: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Adds jobs at the end.
    pub fn push(&self, jobs: impl IntoIterator<Item = Job>) -> Wake {
        let mut state = self.state.lock();
        for job in jobs {
            // A place in another lane means nothing here.
            state.ready.push(Job { place: None, ..job });
        }
        self.wake(&mut state)
    }

    /// Gives a job back that was not tried: it has the place among those of its sender that it had.
    pub fn give_back(&self, job: Job) -> Wake {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(job.recipients.len());
        state.ready.push_front(job);
        self.wake(&mut state)
    }

    /// Puts back a job that was refused: behind those of its sender that were not.
    pub fn give_back_behind(&self, mut job: Job) -> Wake {
        (job.place, job.waited) = (None, false);
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(job.recipients.len());
        state.ready.push(job);
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
        let most = state.most_workers(self.provider.connections).min(self.first_ones(state).unwrap_or(u32::MAX));
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

    /// What its messages have to pass besides its own gate.
    fn gates(&self) -> Gates<'_> {
        Gates { limits: &self.limits, paced: &self.paced }
    }

    /// Recipients of one transaction.
    fn most_recipients(&self) -> usize {
        self.provider.recipients_per_message.min(self.gate.most_recipients(LEAD)).max(1) as usize
    }

    /// Stops or starts the lane on an operator's word.
    pub fn pause(&self, paused: bool) -> Wake {
        let mut state = self.state.lock();
        state.paused = paused;
        self.wake(&mut state)
    }

    /// Remembers the last reply or error for operators.
    pub fn note_error(&self, now: Timestamp, text: String) {
        self.state.lock().last_error = Some((now, text));
    }

    /// A recipient was delivered: what went wrong before is over.
    pub fn note_delivered(&self) {
        let mut state = self.state.lock();
        state.last_error = None;
        state.recent.delivered(Instant::now());
    }

    /// Whether the provider took mail of ours in the last ten minutes.
    pub fn took_lately(&self) -> bool {
        self.state.lock().recent.within(Instant::now(), LATELY)
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

    /// It is unused and nothing is remembered that is not in the store: may be forgotten.
    pub fn is_disposable(&self) -> bool {
        self.gate.is_disposable() && self.limits.is_disposable() && self.is_unused()
    }

    /// Gates of which something is reserved in the store that is not used, for `Ledger::release`:
    /// with `all` every one, else those that keep the lane, or others, from being forgotten. Also that which
    /// has no quota and only counts, busy or not: nothing else stores what left there.
    pub fn loose(&self, all: bool) -> Vec<Arc<Gate>> {
        let all = all || self.is_unused();
        let mut gates = self.limits.loose(all);
        let own = (all || self.gate.only_counts()) && !self.gate.is_exact();
        gates.extend(own.then(|| self.gate.clone()));
        gates
    }

    /// Nothing is here, nothing is stored, and nobody is on its way.
    fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.ready.is_empty()
            && state.in_flight == 0
            && state.workers == 0
            && !state.paused
            && state.circuit.is_none()
            && state.stored.due.is_none()
            && !state.stored.claiming
            && self.gate.is_idle()
            && self.limits.is_idle()
            && self.connects.is_full()
            // Forgotten, it would take mail again until it had asked the store.
            && !self.overflows()
    }
}

impl Held {
    /// A recipient that was just accepted.
    pub fn fresh(index: u32, recipient: crate::mail::Recipient) -> Held {
        Held { index, recipient, attempts: 0, warned: false, untried: 0 }
    }
}

#[cfg(test)]
#[path = "lane/hang_worlds.rs"]
mod hang_worlds;
#[cfg(test)]
#[path = "lane/paced_tests.rs"]
mod paced_tests;
#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
