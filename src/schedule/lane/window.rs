//! The part of a lane that is in memory, and how it goes with the part that is in the queue.
//!
//! Invariant: what is claimed never makes the lane hold more than its window; at most one claim
//! is under way.

use std::time::Duration;

use tokio::time::Instant;

use super::under_way::View;
use super::{Beyond, LEAD, Lane, State};
use crate::clock::Timestamp;
use crate::mail::RecipientKey;
use crate::schedule::Job;
use crate::shape;

/// This part of the window comes on top of it, for mail more urgent than what fills it, and for senders
/// who have nothing or little in it.
const EXTRA_PART: usize = 8;
/// Recipients of such a sender that have a place there.
const FEW: usize = 4;
/// Connections that are all busy for so long hold mail back: what expires meanwhile is not tried.
const BUSY: Duration = Duration::from_secs(10);
/// So many of a message to several, if it is all that the sender has here.
const FEW_OF_ONE: usize = 16;
/// Recipients that are fetched for senders who have nothing here: at least one for each of the slots
/// into which the queue sorts senders.
pub const FETCH: usize = 64;

impl Lane {
    /// Recipients were settled: they are no longer in memory.
    pub fn settled(&self, recipients: usize) {
        let mut state = self.state.lock();
        state.in_flight = state.in_flight.saturating_sub(recipients);
        state.moved = Some(Instant::now());
    }

    /// Takes waiting recipients out of memory for an operator.
    pub fn withdraw(&self, wanted: &mut dyn FnMut(RecipientKey) -> bool) -> Vec<Job> {
        self.state.lock().ready.withdraw(&mut |job, index| wanted(job.key(index)))
    }

    /// Takes everything that waits out of memory, for shutdown.
    pub fn drain(&self) -> Vec<Job> {
        self.state.lock().ready.drain()
    }

    /// Whether at least so many jobs are to go back to the queue until a limit lets them pass.
    pub(super) fn is_beyond(&self, jobs: usize) -> bool {
        self.state.lock().ready.beyond() >= jobs
    }

    /// Takes what is to go back to the queue until a limit lets it pass. It counts as with a worker.
    pub fn take_beyond(&self) -> Vec<Beyond> {
        let mut state = self.state.lock();
        let beyond = state.ready.take_beyond();
        state.in_flight += beyond.iter().map(|beyond| beyond.job.recipients.len()).sum::<usize>();
        beyond
    }

    /// Recipients in memory: ready and in flight.
    pub fn in_memory(&self) -> usize {
        self.state.lock().in_memory()
    }

    /// Recipients in memory, or `None` while some are on their way there from the queue.
    pub fn settled_in_memory(&self) -> Option<usize> {
        let state = self.state.lock();
        (!state.stored.claiming).then(|| state.in_memory())
    }

    /// Whether `recipients` of `sender` may wait in memory: within the window, and when the queue
    /// holds more for this lane, only a few of each sender, so that what is stored gets its turn.
    pub fn has_room(&self, sender: u64, recipients: usize, window: usize, share: usize) -> bool {
        let state = self.state.lock();
        let held = state.in_memory();
        if held + recipients > window {
            return false;
        }
        state.stored.due.is_none() || state.ready.of_sender(sender) + recipients <= share
    }

    /// Whether recipients of `priority` may wait in memory although the window is full: a few of a
    /// higher priority than what fills it, so that they need not wait in the queue behind it.
    pub fn has_room_before(&self, priority: i8, recipients: usize, window: usize) -> bool {
        let state = self.state.lock();
        let held = state.in_memory();
        held + recipients <= window + window / EXTRA_PART
            && state.ready.at_least(priority) + recipients <= window / EXTRA_PART
            && state.ready.lowest_priority().is_some_and(|lowest| priority > lowest)
    }

    /// Whether recipients of `sender` may wait in memory although the window is full: a few of a sender
    /// who has little in it, so that it has its turn.
    pub fn has_room_for_a_few(&self, sender: u64, priority: i8, recipients: usize, window: usize) -> bool {
        let state = self.state.lock();
        let held = state.in_memory();
        let has = state.ready.ready_of(sender, priority);
        let few = if has == 0 { FEW_OF_ONE } else { FEW };
        held + recipients <= window + window / EXTRA_PART && has + recipients <= few
    }

    /// Recipients of `sender` stay in the queue.
    pub fn note_absent(&self, sender: u64, priority: i8, recipients: usize) {
        let mut state = self.state.lock();
        let here = state.ready.ready_of(sender, priority) > 0;
        state.absent.stored((sender, priority), recipients, here);
    }

    /// Whether the queue is known to have something of `sender`: what is new is behind it.
    pub fn is_absent(&self, sender: u64, priority: i8) -> bool {
        self.state.lock().absent.knows((sender, priority))
    }

    /// A claim brought these; `more`: there may be more of them.
    pub fn fetched(&self, jobs: &[Job], more: bool) {
        let mut state = self.state.lock();
        if !more {
            state.absent.nobody();
        }
        for job in jobs.iter().filter(|_| more) {
            state.absent.fetched((job.sender, job.priority()), job.recipients.len());
        }
    }

    /// What keeps all of the lane from leaving for more than a moment: an operator, a reply, a
    /// provider that refuses us, a rate or a quota.
    pub fn stopped_by(&self) -> Option<shape::Held> {
        self.stopped(&self.state.lock())
    }

    pub(super) fn stopped(&self, state: &State) -> Option<shape::Held> {
        let held = |by: String, wait| Some(shape::Held { by, wait });
        if state.paused {
            return held("a pause by an operator".into(), Duration::MAX);
        }
        if let Some((left, why)) = state.narrowed.hold() {
            return held(format!("a pause after a reply ({why})"), left);
        }
        if let Some(circuit) = state.circuit.as_ref().filter(|circuit| circuit.about().is_none()) {
            return held(format!("a refusal of everything ({})", circuit.reason), circuit.left());
        }
        self.gate.held().filter(|held| held.wait > LEAD)
    }

    /// What keeps mail from leaving whatever its age: see [`Lane::stopped_by`], or connections that are
    /// all busy.
    pub fn held_back(&self) -> Option<shape::Held> {
        let state = self.state.lock();
        self.stopped(&state).or_else(|| self.no_connection_free(&state))
    }

    /// All connections are busy, with hosts that do not answer or are slow, and none was free for long.
    fn no_connection_free(&self, state: &State) -> Option<shape::Held> {
        let most = state.most_workers(self.provider.connections);
        let since = state.given?.elapsed();
        let all_busy = state.workers >= most && state.waiting == 0 && state.in_flight > 0;
        (all_busy && since >= BUSY).then(|| {
            let (s, connections) = (since.as_secs(), if most == 1 { "connection" } else { "connections" });
            let by = format!("a busy connection (all {most} {connections} in use, none free for {s} s)");
            // Nobody knows when one is free: looked at again like all that is held.
            shape::Held { by, wait: BUSY }
        })
    }

    /// Takes out of memory what is older than `expire` while something holds it back, at most about
    /// `most` recipients, with what held them back. They count as with a worker.
    pub fn expired(&self, now: Timestamp, most: usize) -> Vec<(shape::Held, Job)> {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            return Vec::new();
        }
        let expire = self.provider.retry.expire;
        let mut left = most;
        let mut old = |job: &Job, _: u32| {
            let old = left > 0 && job.message.message.age_from().after(expire) <= now;
            left -= usize::from(old);
            old
        };
        let mut out = Vec::new();
        // Limits inside the lane tell of their own; what stops all of it tells of the rest.
        let stopped = self.stopped(&state);
        if stopped.is_none() {
            out.extend(state.ready.withdraw_held(&mut old));
            out.extend(state.withdraw_kept(self.provider.connections, &mut old));
        }
        if let Some(held) = stopped.or_else(|| self.no_connection_free(&state)) {
            out.extend(state.ready.withdraw(&mut old).into_iter().map(|job| (held.clone(), job)));
        }
        state.in_flight += out.iter().map(|(_, job)| job.recipients.len()).sum::<usize>();
        out
    }

    /// Recipients came from the queue that will not wait here: they count as with a worker.
    pub fn take_in_hand(&self, recipients: usize) {
        self.state.lock().in_flight += recipients;
    }

    /// The queue holds something of this lane, due at `due`.
    pub fn note_stored(&self, due: Timestamp) {
        let mut state = self.state.lock();
        state.absent.unknown();
        state.stored.note(due);
    }

    /// The earliest due time of what the queue holds.
    pub fn stored_due(&self) -> Option<Timestamp> {
        self.state.lock().stored.due
    }

    /// Whether to claim now, and how many; at most one claim is under way. More than the window has room
    /// for only when a sender is wanted who has nothing here.
    pub fn begin_claim(&self, now: Timestamp, window: usize) -> Option<usize> {
        let mut state = self.state.lock();
        let held = state.narrowed.held().is_some();
        if held && !state.ready.is_empty() {
            return None;
        }
        let held = state.in_memory();
        let refused = state.circuit.as_ref().is_some_and(|circuit| circuit.about().is_none());
        if state.paused || refused && !state.ready.is_empty() {
            return None;
        }
        // Below half of the window, so that claims come in batches.
        let room = match held * 2 <= window {
            true => window - held,
            false if state.absent.is_wanted() && held + FETCH <= window + window / EXTRA_PART => FETCH,
            false => return None,
        };
        let begins = state.stored.begin_claim(now);
        if begins {
            state.absent.set_wanted(false);
        }
        begins.then_some(room)
    }

    /// Whether a sender who has nothing in memory is known to wait in the queue.
    pub fn wants_somebody(&self) -> bool {
        self.state.lock().absent.is_wanted()
    }

    /// A claim was given up for want of memory.
    pub fn give_up_claim(&self, now: Timestamp) {
        let mut state = self.state.lock();
        state.stored.end_claim(Some(now));
        state.absent.set_wanted(true);
    }

    /// Ends a claim: `due` is what the queue says now.
    pub fn end_claim(&self, due: Option<Timestamp>) {
        self.state.lock().stored.end_claim(due);
    }
}

impl State {
    /// Recipients in memory: ready and in flight.
    pub(super) fn in_memory(&self) -> usize {
        self.ready.recipients() + self.in_flight
    }

    /// Takes out what is kept until a probe of it, or until what is like it has ended, with the reason.
    fn withdraw_kept(
        &mut self,
        connections: u32,
        wanted: &mut dyn FnMut(&Job, u32) -> bool,
    ) -> Vec<(shape::Held, Job)> {
        let State { ready, circuit, unanswered, narrowed, answers, given, .. } = self;
        let mut out = Vec::new();
        if let Some(circuit) = circuit.as_ref().filter(|circuit| circuit.about().is_some()) {
            let mail = circuit.about().map_or("like it", |about| &**about);
            let held =
                shape::Held { by: format!("a refusal of mail {mail} ({})", circuit.reason), wait: circuit.left() };
            let jobs = ready.withdraw(&mut |job, index| circuit.keeps(job) && wanted(job, index));
            out.extend(jobs.into_iter().map(|job| (held.clone(), job)));
        }
        // What keeps it for a moment holds nothing back.
        if given.is_some_and(|at| at.elapsed() >= BUSY) || !unanswered.is_empty() {
            let view = View::of(unanswered, narrowed.most(connections), answers, None);
            let jobs = ready.withdraw(&mut |job, index| view.keeps(job) && wanted(job, index));
            out.extend(jobs.into_iter().map(|job| (unanswered.held(&job), job)));
        }
        out
    }
}
