//! Mail that a host takes and leaves without an answer until the time for it is over: minutes, in which a
//! connection carries nothing else. A message that does that, or a sender of whom several messages did in a
//! row, has no more than half of the connections, and a message never more than one: the rest are for mail
//! that is answered. The first answer to something of a sender ends that.
//!
//! Bounded: [`MESSAGES`] and [`SENDERS`] are remembered, those longest ago forgotten first. Pure.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use super::{Lane, State};
use crate::mail::{QueueId, sender_key};
use crate::schedule::Job;

/// Messages and senders remembered.
const MESSAGES: usize = 256;
const SENDERS: usize = 64;
/// So many in a row of one sender are no chance.
const FEW: u32 = 2;

/// What was left without an answer in a lane.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    messages: VecDeque<QueueId>,
    senders: VecDeque<Sender>,
    /// Those of it that are under way again.
    under_way: Vec<Weak<Again>>,
}

#[derive(Debug)]
struct Sender {
    key: u64,
    address: Arc<str>,
    /// In a row.
    times: u32,
}

/// Under way as long as somebody holds it: something that was left without an answer before.
#[derive(Debug)]
pub struct Again {
    message: QueueId,
}

/// A sender has less than all of the connections from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Confined {
    /// So many.
    pub connections: u32,
    /// Of so many.
    pub of: u32,
}

impl Confined {
    /// Of `connections` those that what was left without an answer may have.
    pub(super) fn of(connections: u32) -> Confined {
        Confined { connections: (connections / 2).max(1), of: connections }
    }
}

impl Unanswered {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.senders.is_empty()
    }

    /// Another one of a sender; true: it is the one that makes it too many.
    fn left(&mut self, message: QueueId, sender: &str) -> bool {
        self.messages.retain(|known| *known != message);
        push(&mut self.messages, message, MESSAGES);
        let key = sender_key(sender);
        let at = self.senders.iter().position(|known| known.key == key);
        let known = at.and_then(|at| self.senders.remove(at));
        let mut known = known.unwrap_or_else(|| Sender { key, address: sender.into(), times: 0 });
        known.times = known.times.saturating_add(1);
        let news = known.times == FEW;
        push(&mut self.senders, known, SENDERS);
        news
    }

    fn answered(&mut self, message: QueueId, sender: u64) {
        self.messages.retain(|known| *known != message);
        self.senders.retain(|known| known.key != sender);
    }

    /// Whether a job is of what was left without an answer.
    pub(super) fn concerns(&self, job: &Job) -> bool {
        let of_sender = |known: &Sender| known.key == job.sender && known.times >= FEW;
        self.senders.iter().any(of_sender) || self.messages.contains(&job.message.message.id)
    }

    /// Whether a job waits until something of the kind has ended; `connections` are there.
    pub(super) fn keeps(&self, job: &Job, connections: u32) -> bool {
        if self.is_empty() || !self.concerns(job) {
            return false;
        }
        let under_way: Vec<_> = self.under_way.iter().filter_map(Weak::upgrade).collect();
        let same = |again: &Arc<Again>| again.message == job.message.message.id;
        under_way.len() >= Confined::of(connections).connections as usize || under_way.iter().any(same)
    }

    /// A job is given out.
    pub(super) fn note_given(&mut self, job: &mut Job) {
        if self.is_empty() || !self.concerns(job) {
            return;
        }
        let again = Arc::new(Again { message: job.message.message.id });
        self.under_way.retain(|other| other.strong_count() > 0);
        self.under_way.push(Arc::downgrade(&again));
        job.again = Some(again);
    }
}

fn push<T>(known: &mut VecDeque<T>, new: T, most: usize) {
    if known.len() >= most {
        known.pop_front();
    }
    known.push_back(new);
}

impl Lane {
    /// The host took something of a job and left it without an answer. `Some`: it is the one in a row that
    /// leaves its sender with a part of the connections.
    pub fn left_unanswered(&self, job: &Job) -> Option<Confined> {
        let mut state = self.state.lock();
        let message = &job.message.message;
        let news = state.unanswered.left(message.id, message.envelope.sender());
        news.then(|| Confined::of(state.narrowed.most(self.provider.connections)))
    }

    /// The host answered a transaction, whatever it said.
    pub fn note_answered(&self, job: &Job) {
        let mut state = self.state.lock();
        if !state.unanswered.is_empty() {
            state.unanswered.answered(job.message.message.id, job.sender);
        }
    }
}

impl State {
    /// Whose mail in memory was left without an answer: the first such sender, how many others there are, the
    /// recipients of all of them that wait, and the connections that they may have.
    pub(super) fn confined(&self, connections: u32) -> Option<(Arc<str>, usize, usize, Confined)> {
        if self.unanswered.is_empty() {
            return None;
        }
        let (mut keys, mut first, mut waiting) = (Vec::new(), None, 0);
        self.ready.look(&mut |job, _| {
            if self.unanswered.concerns(job) {
                waiting += job.recipients.len();
                if !keys.contains(&job.sender) {
                    keys.push(job.sender);
                }
                first.get_or_insert_with(|| Arc::from(job.message.message.envelope.sender()));
            }
        });
        let known = |first: &Arc<str>| {
            let key = sender_key(first);
            self.unanswered.senders.iter().find(|known| known.key == key).map(|known| known.address.clone())
        };
        let first: Arc<str> = first?;
        let first = known(&first).unwrap_or(first);
        Some((first, keys.len() - 1, waiting, Confined::of(self.narrowed.most(connections))))
    }
}

#[cfg(test)]
#[path = "unanswered_tests.rs"]
mod tests;
