//! From the lane's turn to the right to send: taking permits and connections of a lane's limits.
//!
//! A job counts at its gates as on its way from the moment `next` gives it out until it has its
//! permit or gives up; every path out of here ends that count exactly once. Permits are given in the
//! order in which `next` gave the jobs out (`line`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::line::Standing;
use super::under_way::View;
use super::{LEAD, Lane, State};
use crate::schedule::Job;
use crate::shape::restart::Left;
use crate::shape::{Cost, Gate, Permit, Refused};

/// How often and how long the limiter held somebody back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limited {
    /// How often.
    pub waits: u64,
    /// How long in all.
    pub waited: Duration,
}

/// A quota or limit was used up while a job waited for its permit.
#[derive(Debug, PartialEq, Eq)]
pub struct NotNow;

impl Lane {
    /// Waits for the right to make the transaction of `job`, on an open connection. A job of higher
    /// priority that came meanwhile takes its place (if it goes to the same destination).
    ///
    /// # Errors
    /// A quota or limit was used up meanwhile: the job is to be given back, it is held in the lane.
    pub async fn permit(&self, job: &mut Job) -> Result<Permit, NotNow> {
        let mut standing = (!self.line.is_empty()).then(|| self.stand(job));
        loop {
            if let Some(standing) = standing.as_ref().filter(|standing| !standing.is_first()) {
                let began = Instant::now();
                standing.turn().await;
                self.note_limited(began.elapsed());
            }
            self.overtake(job);
            let (gate, cost, refused) = match self.try_take(job) {
                Ok(permit) => {
                    self.arrived(job);
                    return Ok(permit);
                }
                Err(refused) => refused,
            };
            match refused {
                Refused::Reserve => gate.reserve(cost).await,
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
                    // Nobody waited until now: from here on who comes later stands behind.
                    if standing.get_or_insert_with(|| self.stand(job)).is_first() {
                        self.note_limited(wait);
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
    }

    fn stand(&self, job: &Job) -> Standing<'_> {
        // Who was never given out by `next` stands last.
        self.line.stand(job.place.unwrap_or(u64::MAX), job.priority())
    }

    /// Takes of all gates of a job, or tells which one refuses what.
    fn try_take(&self, job: &Job) -> Result<Permit, (Arc<Gate>, Cost, Refused)> {
        let cost = Cost::of(job.recipients.len());
        let take = |gate: &Arc<Gate>| gate.try_take(cost).map_err(|refused| (gate.clone(), cost, refused));
        let own = take(&self.gate)?;
        // Without limits this allocates nothing.
        let more = job.gates.iter().map(take).collect::<Result<Vec<_>, _>>()?;
        Ok(own.and(more))
    }

    /// A job is no longer on its way to a permit.
    fn arrived(&self, job: &mut Job) {
        self.gate.arrived(Cost::of(job.recipients.len()));
        self.arrived_at_limits(job);
    }

    /// A job that is on its way has fewer recipients than `before`; without any, it is not.
    pub(super) fn fewer_on_their_way(&self, job: &mut Job, before: usize) {
        for gate in std::iter::once(&self.gate).chain(&job.gates) {
            gate.arrived(Cost::of(before));
            if !job.recipients.is_empty() {
                gate.let_through(Cost::of(job.recipients.len()));
            }
        }
        if job.recipients.is_empty() {
            job.gates.clear();
            self.changed.notify_one();
        }
    }

    /// A job is no longer on its way through the limits inside the provider.
    pub(super) fn arrived_at_limits(&self, job: &mut Job) {
        for gate in job.gates.drain(..) {
            gate.arrived(Cost::of(job.recipients.len()));
        }
    }

    /// Waits until a new connection may be opened; it counts from then on.
    pub async fn may_connect(&self) {
        let mut waiting = None;
        loop {
            match self.connects.try_take(1) {
                Ok(tokens) => return tokens.spend(),
                Err(wait) => {
                    waiting.get_or_insert_with(|| Unconnected::new(self));
                    self.note_limited(wait);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// A connection begins: its number, greater than those of all that began before.
    pub fn begin_connection(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    pub(super) fn note_limited(&self, wait: Duration) {
        let limited = &mut self.state.lock().limited;
        limited.waits += 1;
        limited.waited += wait;
    }

    /// Ends all rates: nothing is permitted any more. Returns what each lacks, by name.
    pub fn close_rates(&self) -> Vec<(String, Vec<Left>)> {
        let mut lacked = self.limits.close();
        lacked.push(self.gate.close());
        lacked.push((format!("{}/connections", self.name), self.connects.close()));
        lacked
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
        let (gates, most) = (self.gates(), self.most_recipients());
        let State { ready, circuit, unanswered, narrowed, answers, .. } = &mut *state;
        // It has the connection of the other.
        let but = Some(job.message.message.id);
        let view = View::of(unanswered, narrowed.most(self.provider.connections), answers, but);
        let keeps = |job: &Job| circuit.as_ref().is_some_and(|circuit| circuit.keeps(job)) || view.keeps(job);
        let Some(mut better) = ready.overtaking(&gates, job, most, &keeps) else { return };
        let given = view.given(&better);
        self.gate.let_through(Cost::of(better.recipients.len()));
        state.note_given(&mut better, given);
        // It takes the place, too; the other keeps it for the next time.
        better.place = better.place.into_iter().chain(job.place).min();
        state.in_flight = (state.in_flight + better.recipients.len()).saturating_sub(job.recipients.len());
        std::mem::swap(job, &mut better);
        self.arrived(&mut better);
        state.ready.push_front(better);
    }

    /// A worker gave its permit back because another job took the place, and will ask again.
    pub fn let_through_again(&self, job: &mut Job) {
        self.gate.let_through(Cost::of(job.recipients.len()));
        job.gates = self.gates().of(job.sender, &job.message.message);
        for gate in &job.gates {
            gate.let_through(Cost::of(job.recipients.len()));
        }
    }

    /// A worker let through by `next` will not ask for its permit (its job could not be tried).
    pub fn not_needed(&self, job: &mut Job) {
        self.arrived(job);
        self.changed.notify_one();
    }
}

/// Counts a worker as waiting for the rate of connections while it lives.
struct Unconnected<'a>(&'a Lane);

impl<'a> Unconnected<'a> {
    fn new(lane: &'a Lane) -> Unconnected<'a> {
        lane.state.lock().unconnected += 1;
        Unconnected(lane)
    }
}

impl Drop for Unconnected<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.unconnected = state.unconnected.saturating_sub(1);
        // What it waited for was no answer of a server.
        state.moved = Some(Instant::now());
    }
}
