//! Operations for the writer, their answers, and what becomes of an answer that nobody takes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::large_writes::Turns;
use crate::clock::Timestamp;
use crate::mail::{LaneName, NewMessage, Owed, QueueId, RecipientKey};
use crate::queue::{Counts, HEADS_EACH, Leased, Operation, QueueError, Retried, Settlement, Swap};

/// A probe asks whether a message of that size (bytes) could be stored: nearly all mail is smaller.
const PROBED: usize = 128 * 1024;

/// An operation for the writer.
pub(super) enum Op {
    Accept(NewMessage),
    Spill(QueueId, u32, Bytes),
    Unspill(QueueId),
    /// Deletes a few chunks of what is dropped.
    DropFew,
    Claim(LaneName, Timestamp, usize),
    ClaimOlder(LaneName, Timestamp, usize),
    Settle(Vec<Settlement>, Vec<Owed>),
    Report(Vec<(RecipientKey, Timestamp)>, Option<NewMessage>),
    MoveLane(LaneName, LaneName, i64),
    Operate(Operation, Vec<RecipientKey>, Vec<RecipientKey>, Timestamp),
    RetryAll(Option<RecipientKey>, Timestamp, usize),
    Forget(Timestamp, i64),
    GiveBack(Vec<RecipientKey>),
    /// Gives back all that is leased.
    EndLeases,
    Remember(Vec<(String, Option<Bytes>)>),
    /// Counts what was changed: all, or 0.
    Swap(Vec<Swap>),
    /// Writes what does not matter, to see whether a message could be stored.
    Probe,
    /// Ends the thread once everything before it is done.
    Close,
}

impl Op {
    /// Bytes that it holds until it is committed, for the budget.
    pub(super) fn weight(&self) -> usize {
        let message = |m: &NewMessage| 512 + m.head.len() + 512 * m.recipients.len();
        512 + match self {
            Op::Accept(m) => message(m),
            Op::Spill(_, _, chunk) => chunk.len(),
            Op::Settle(settlements, owed) => {
                512 * settlements.len() + owed.iter().map(|debt| 512 + debt.text.len()).sum::<usize>()
            }
            Op::Report(told, report) => 32 * told.len() + report.as_ref().map_or(0, message),
            // What it answers is in memory with it.
            Op::Claim(_, _, limit) => (512 + HEADS_EACH) * limit,
            Op::ClaimOlder(_, _, limit) => 512 * limit,
            Op::Remember(entries) => {
                entries.iter().map(|(name, value)| 64 + name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
            }
            Op::Swap(changes) => {
                let length = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
                changes.iter().map(|c| 64 + c.name.len() + length(&c.expected) + length(&c.value)).sum()
            }
            Op::Probe => PROBED,
            Op::Operate(_, keys, withdrawn, _) => 16 * (keys.len() + withdrawn.len()),
            _ => 0,
        }
    }

    /// It brings something in, for which somebody else is told that it is safe; all others are what
    /// mail needs on its way out, and operators.
    pub(super) fn enters(&self) -> bool {
        matches!(self, Op::Accept(_) | Op::Spill(..) | Op::Probe)
    }

    /// The leases that exist once it is committed.
    pub(super) fn leases(&self, answer: &Answer) -> Vec<RecipientKey> {
        fn of(message: &NewMessage) -> impl Iterator<Item = RecipientKey> + '_ {
            let id = message.message.id;
            let leased = (0u32..).zip(&message.recipients).filter(|(_, r)| r.leased && r.held.is_none());
            leased.map(move |(index, _)| RecipientKey { id, index })
        }
        match (self, answer) {
            (Op::Accept(message), _) => of(message).collect(),
            (Op::Report(_, Some(report)), _) => of(report).collect(),
            (_, Answer::Leased(leased)) => leased.iter().map(|l| l.key).collect(),
            _ => Vec::new(),
        }
    }
}

/// What an operation answers.
pub(super) enum Answer {
    Done,
    Count(usize),
    Retried(Retried),
    Leased(Vec<Leased>),
}

/// An answer on its way, with the leases it carries. If nobody is there to take it (the caller's
/// future was dropped) they go back to their lanes, or they would be stuck until the next start.
pub(super) struct Lent {
    pub(super) answer: Answer,
    /// What it answers, as long as nobody has taken it: that tells which leases there are.
    pub(super) op: Option<Op>,
    pub(super) shared: Arc<Shared>,
}

impl Lent {
    /// Takes the answer: the leases are the caller's now.
    pub(super) fn take(mut self) -> Answer {
        self.op = None;
        std::mem::replace(&mut self.answer, Answer::Done)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(op) = &self.op else { return };
        let mut keys = op.leases(&self.answer);
        if keys.is_empty() {
            return;
        }
        self.shared.returned.lock().append(&mut keys);
        // Wakes the writer. If its channel is full or gone, it is awake or does not matter.
        if let Some(jobs) = self.shared.wake.get().and_then(mpsc::WeakSender::upgrade) {
            let _ = jobs.try_send(Job { op: Op::GiveBack(Vec::new()), reply: None, budget: None });
        }
    }
}

/// An operation, whom to answer, and its part of the byte budget.
pub(super) struct Job {
    pub(super) op: Op,
    pub(super) reply: Option<oneshot::Sender<Result<Lent, QueueError>>>,
    pub(super) budget: Option<OwnedSemaphorePermit>,
}

/// What the writer and the callers share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) counts: Mutex<Counts>,
    pub(super) wake: OnceLock<mpsc::WeakSender<Job>>,
    pub(super) returned: Mutex<Vec<RecipientKey>>,
    pub(super) turns: Turns,
    /// Another process holds the lock: what is leased here is no longer ours.
    pub(super) taken: OnceLock<QueueError>,
}
