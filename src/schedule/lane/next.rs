//! Giving out jobs: to one worker at a time, in the lane's order, when limits will let the job pass soon.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::under_way::{Given, View};
use super::{Circuit, Empty, LEAD, Lane, State, Wake};
use crate::schedule::Job;
use crate::schedule::backlog::Next;
use crate::shape::{Cost, Gate};

/// Jobs that go back to the queue together while others leave.
const BEYOND_AT_ONCE: usize = 128;

/// What is kept is looked at again after so long: mail is in doubt for a time.
const KEPT: Duration = Duration::from_secs(1);

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

impl Lane {
    /// The next job for a worker whose connection serves `destination`, at most `idle` from now,
    /// and whether another worker has to be started for what is left.
    pub async fn next(&self, destination: Option<&str>, idle: Duration) -> Result<(Job, Wake), Empty> {
        if self.is_beyond(BEYOND_AT_ONCE) {
            return Err(Empty::Beyond);
        }
        if let Ok(job) = self.try_next(destination) {
            return Ok((job, self.poke()));
        }
        self.tell_who_waits_for_others();
        let deadline = Instant::now() + idle;
        let waiting = Waiting::new(self);
        let _turn = tokio::time::timeout_at(deadline, self.turn.lock()).await.map_err(|_| Empty::Idle)?;
        let mut limited: Option<Instant> = None;
        let got = loop {
            let changed = self.changed.notified();
            let next = self.try_next(destination);
            if next.is_err() && self.is_beyond(1) {
                break Err(Empty::Beyond);
            }
            let until = match next {
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

    /// A worker that waits because of what others had under way looks again: one of them has ended.
    fn tell_who_waits_for_others(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.kept) && state.waiting > 0 {
            self.changed.notify_one();
        }
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
        if let Some(left) = self.shut(&state) {
            return Err(if left.is_zero() { Hold::Change } else { Hold::Circuit(left) });
        }
        if !self.gate.is_loaded() {
            return Err(Hold::Load(self.gate.clone()));
        }
        let wait = self.gate.wait(Cost::LEAST);
        if wait > LEAD {
            return Err(Hold::Limiter(wait - LEAD));
        }
        let next = self.take_ready(&mut state, destination);
        match next {
            (Next::Job(mut job), given) => {
                let cost = Cost::of(job.recipients.len());
                let wait = self.gate.wait(cost);
                if wait > LEAD {
                    // It has more recipients than may leave now: no connection waits for the rest of them.
                    self.arrived_at_limits(&mut job);
                    state.ready.push_front(job);
                    return Err(Hold::Limiter(wait - LEAD));
                }
                state.give_place(&mut job);
                if let Some(given) = given {
                    state.note_given(&mut job, given);
                }
                state.given = Some(Instant::now());
                if state.in_flight == 0 {
                    state.moved = Some(Instant::now());
                }
                state.note_login_begun();
                state.in_flight += job.recipients.len();
                if state.ready.ready_of(job.sender, job.priority()) == 0 {
                    state.absent.ran_out((job.sender, job.priority()));
                }
                self.gate.let_through(cost);
                Ok(job)
            }
            (Next::Load(gate), _) => Err(Hold::Load(gate)),
            (Next::Wait(until), _) => Err(Hold::Limiter(until.saturating_duration_since(Instant::now()))),
            // A probe is due then of what is kept.
            (Next::Nothing, _) => {
                let probe = state.circuit.as_ref().map(Circuit::left).filter(|left| !left.is_zero());
                let left = probe.into_iter().chain(state.unanswered.next_try()).min().unwrap_or(KEPT).min(KEPT);
                state.kept = true;
                Err(if left.is_zero() { Hold::Change } else { Hold::Circuit(left) })
            }
        }
    }

    /// The next job that nothing keeps, and how it is given out.
    fn take_ready(&self, state: &mut State, destination: Option<&str>) -> (Next, Option<Given>) {
        let (gates, most) = (self.gates(), self.most_recipients());
        let State { ready, circuit, unanswered, narrowed, answers, .. } = state;
        let view = &View::of(unanswered, narrowed.most(self.provider.connections), answers, None);
        let circuit = circuit.as_ref();
        let keeps = |job: &Job| circuit.is_some_and(|circuit| circuit.keeps(job)) || view.keeps(job);
        let given = |next: Next| {
            let given = if let Next::Job(job) = &next { Some(view.given(job)) } else { None };
            (next, given)
        };
        if circuit.is_none() && !view.prefers_some() {
            return given(ready.pop(&gates, most, destination, &keeps));
        }
        // A probe should tell more than the one before, and other mail be answered.
        let last = |unlike| {
            move |job: &Job| circuit.is_some_and(|circuit| circuit.goes_last(job)) || view.goes_last(job, unlike)
        };
        for unlike in [false, true].into_iter().take(1 + usize::from(view.some_hangs())) {
            let last = last(unlike);
            match ready.pop(&gates, most, destination, &|job| keeps(job) || last(job)) {
                Next::Nothing => {}
                next => return given(next),
            }
        }
        given(ready.pop(&gates, most, destination, &keeps))
    }
}

impl State {
    /// A job is given out: its place is behind all others, unless it has one.
    fn give_place(&mut self, job: &mut Job) {
        if job.place.is_none() {
            self.places += 1;
            job.place = Some(self.places);
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
