//! The one thread that writes: it takes everything that waits, does it in one transaction, commits,
//! and answers all. The longer a commit takes the more waits for the next: group commit without a
//! timer.
//!
//! Invariants:
//! - An answer is sent only after the commit that contains what it answers.
//! - An operation that fails changes nothing and fails nobody else: the batch is rolled back and
//!   its operations are done again one by one. So the usual path needs no savepoints.
//! - After a fault of the disk or the file the connection is opened anew before the next batch: the
//!   queue serves again as soon as the disk does.
//! - A lease whose claimant has gone away before it knew of it is given back ([`Lent`]).
//! - An operation that panics is an operation that failed. Should the thread end all the same,
//!   `Queue::failed` resolves, and the process ends: nothing would be stored any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use super::error::connection_is_sound;
use super::lock::Lock;
use super::store::{Store, Tally};
use super::{Options, claim, schema};
use crate::clock::{Clock, Timestamp};
use crate::crash;
use crate::mail::{LaneName, NewMessage, QueueId, RecipientKey};
use crate::queue::{Counts, HEADS_EACH, Leased, Operation, QueueError, Retried, Settlement};

/// Operations of one transaction.
const BATCH: usize = 1024;

/// An operation for the writer.
pub(super) enum Op {
    Accept(NewMessage),
    Spill(QueueId, u32, Bytes),
    Unspill(QueueId),
    Claim(LaneName, Timestamp, usize),
    ClaimOlder(LaneName, Timestamp, usize),
    Settle(Vec<Settlement>, Vec<NewMessage>),
    MoveLane(LaneName, LaneName, i64),
    Operate(Operation, Vec<RecipientKey>, Vec<RecipientKey>, Timestamp),
    RetryAll(Option<RecipientKey>, Timestamp, usize),
    Forget(Timestamp, i64),
    GiveBack(Vec<RecipientKey>),
    Remember(Vec<(String, Option<Bytes>)>),
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
            Op::Settle(settlements, follow_ups) => {
                512 * settlements.len() + follow_ups.iter().map(message).sum::<usize>()
            }
            // What it answers is in memory with it.
            Op::Claim(_, _, limit) => (512 + HEADS_EACH) * limit,
            Op::ClaimOlder(_, _, limit) => 512 * limit,
            Op::Remember(entries) => {
                entries.iter().map(|(name, value)| 64 + name.len() + value.as_ref().map_or(0, Bytes::len)).sum()
            }
            Op::Operate(_, keys, withdrawn, _) => 16 * (keys.len() + withdrawn.len()),
            _ => 0,
        }
    }

    /// The leases that exist once it is committed.
    fn leases(&self, answer: &Answer) -> Vec<RecipientKey> {
        fn of(message: &NewMessage) -> impl Iterator<Item = RecipientKey> + '_ {
            let id = message.message.id;
            let leased = (0u32..).zip(&message.recipients).filter(|(_, r)| r.leased);
            leased.map(move |(index, _)| RecipientKey { id, index })
        }
        match (self, answer) {
            (Op::Accept(message), _) => of(message).collect(),
            (Op::Settle(_, follow_ups), _) => follow_ups.iter().flat_map(of).collect(),
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
    answer: Answer,
    /// What it answers, as long as nobody has taken it: that tells which leases there are.
    op: Option<Op>,
    shared: Arc<Shared>,
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
}

/// Why a transaction did not come about.
enum Failed {
    /// One of its operations: the others may work without it.
    Operation(QueueError),
    /// It could not begin or commit: true for every one of them.
    Whole(QueueError),
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) conn: Option<Connection>,
    /// See [`super::log::anchor`].
    pub(super) anchor: Option<Connection>,
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) shared: Arc<Shared>,
    pub(super) last_id: i64,
    /// Held until the last commit is done, also after the queue was dropped.
    pub(super) lock: Option<Arc<Lock>>,
    /// The last batch failed; to log the change only.
    pub(super) ailing: bool,
}

impl Writer {
    /// Serves until the last sender is gone or `Close` comes; whatever was sent before is done.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        let mut closing = Vec::new();
        while let Some(job) = self.jobs.blocking_recv() {
            batch.push(job);
            while batch.len() < BATCH
                && let Ok(job) = self.jobs.try_recv()
            {
                batch.push(job);
            }
            let closes = |job: &Job| matches!(job.op, Op::Close);
            if batch.iter().any(closes) {
                // Nothing new gets in; the loop goes on until what is in is done.
                self.jobs.close();
                closing.extend(batch.extract_if(.., |job| closes(job)));
            }
            crash::point("writer.batch");
            self.serve(&mut batch);
        }
        crash::point("close.begin");
        // What is still leased ends here as it would at the next start, so that a queue closed in
        // good order has nothing to recover.
        if let Some(conn) = &mut self.conn
            && let Err(e) = super::store::recover(conn)
        {
            tracing::warn!(error = %e, "leases could not be ended; the next start does it");
        }
        // So that closing the other one is the end of the log.
        self.anchor = None;
        if let Some(conn) = self.conn.take()
            && let Err(e) = checkpoint(&conn)
        {
            tracing::warn!(error = %e, "the queue's log could not be merged at the end; the next start does it");
        }
        crash::point("close.done");
        self.lock = None;
        for job in closing {
            self.answer(job, Ok(Answer::Done));
        }
    }

    /// Does a batch and answers it.
    pub(super) fn serve(&mut self, batch: &mut Vec<Job>) {
        let returned = std::mem::take(&mut *self.shared.returned.lock());
        if !returned.is_empty() {
            batch.push(Job { op: Op::GiveBack(returned), reply: None, budget: None });
        }
        let results = self.write(batch);
        let failure = results.iter().find_map(|r| r.as_ref().err()).filter(|e| !matches!(e, QueueError::Invalid(_)));
        match (failure, self.ailing) {
            (Some(e), false) => tracing::error!(error = %e, "the queue cannot be written; clients are told to retry"),
            (None, true) => tracing::info!("the queue can be written again"),
            _ => {}
        }
        self.ailing = failure.is_some();
        for (job, result) in batch.drain(..).zip(results) {
            self.answer(job, result);
        }
    }

    /// The results of the batch, one per job.
    fn write(&mut self, batch: &[Job]) -> Vec<Result<Answer, QueueError>> {
        let one_by_one = match self.transact(batch) {
            Ok(answers) => return answers.into_iter().map(Ok).collect(),
            Err(Failed::Operation(e)) if batch.len() == 1 => return vec![Err(e)],
            Err(Failed::Operation(_)) => batch,
            Err(Failed::Whole(e)) => return batch.iter().map(|_| Err(e.clone())).collect(),
        };
        let mut down: Option<QueueError> = None;
        let redo = |job: &Job| {
            if let Some(e) = &down {
                return Err(e.clone());
            }
            match self.transact(std::slice::from_ref(job)) {
                Ok(mut answers) => Ok(answers.pop().unwrap_or(Answer::Done)),
                Err(Failed::Operation(e)) => Err(e),
                Err(Failed::Whole(e)) => {
                    // A full disk may still have room for the next, smaller one; the rest would
                    // only wait for the same lock or disk again.
                    down = (!matches!(e, QueueError::Full(_))).then(|| e.clone());
                    Err(e)
                }
            }
        };
        one_by_one.iter().map(redo).collect()
    }

    /// One transaction: all of the batch, or nothing.
    ///
    /// If the commit fails, SQLite's log does not contain the transaction for anyone who reads it
    /// while this process runs. Should the machine stop before the next commit overwrites it, it
    /// may be there after all: a message whose client was told to send it again.
    fn transact(&mut self, batch: &[Job]) -> Result<Vec<Answer>, Failed> {
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => reopen(&self.path, &self.options).map_err(Failed::Whole)?,
        };
        let now = self.clock.now();
        // A fault of ours in one operation must not end the thread that all others need. The
        // transaction is rolled back as it is dropped; the connection is not used again.
        let caught = catch_unwind(AssertUnwindSafe(|| transact_on(&mut conn, batch, self.last_id, now)));
        let sound = match &caught {
            Ok(Ok(_)) => true,
            Ok(Err(Failed::Operation(e) | Failed::Whole(e))) => connection_is_sound(e) && conn.is_autocommit(),
            Err(_) => false,
        };
        let result = caught.unwrap_or_else(|_| {
            tracing::error!("a fault of mailweir itself in the queue: please report it");
            Err(Failed::Operation(QueueError::Invalid("a fault of mailweir itself".into())))
        });
        self.conn = sound.then_some(conn);
        let (answers, tally, last_id) = result?;
        self.last_id = last_id;
        tally.apply(&mut self.shared.counts.lock());
        Ok(answers)
    }

    fn answer(&self, job: Job, result: Result<Answer, QueueError>) {
        match (job.op, result, job.reply) {
            (op, Ok(answer), Some(reply)) => {
                // If it comes back, dropping it gives the leases back.
                let _ = reply.send(Ok(Lent { answer, op: Some(op), shared: Arc::clone(&self.shared) }));
            }
            (_, Err(e), Some(reply)) => {
                let _ = reply.send(Err(e));
            }
            (Op::GiveBack(keys), Err(_), None) => self.shared.returned.lock().extend(keys),
            (_, _, None) => {}
        }
        drop(job.budget);
    }
}

fn transact_on(
    conn: &mut Connection,
    batch: &[Job],
    last_id: i64,
    now: Timestamp,
) -> Result<(Vec<Answer>, Tally, i64), Failed> {
    let mut store = Store::begin(conn, last_id).map_err(|e| Failed::Whole(e.into()))?;
    crash::point("commit.work");
    let mut answers = Vec::with_capacity(batch.len());
    for job in batch {
        answers.push(perform(&mut store, &job.op, now).map_err(Failed::Operation)?);
    }
    let (tally, last_id) = store.commit().map_err(Failed::Whole)?;
    Ok((answers, tally, last_id))
}

fn perform(store: &mut Store<'_>, op: &Op, now: Timestamp) -> Result<Answer, QueueError> {
    Ok(match op {
        Op::Accept(message) => {
            store.accept(message)?;
            Answer::Done
        }
        Op::Spill(id, index, chunk) => {
            store.spill(*id, *index, chunk)?;
            Answer::Done
        }
        Op::Unspill(id) => {
            store.unspill(*id)?;
            Answer::Done
        }
        Op::Claim(lane, now, limit) => Answer::Leased(claim::claim(store, lane, *now, *limit)?),
        Op::ClaimOlder(lane, received, limit) => Answer::Leased(claim::claim_older(store, lane, *received, *limit)?),
        Op::Settle(settlements, follow_ups) => {
            store.settle(settlements, follow_ups, now)?;
            Answer::Done
        }
        Op::MoveLane(from, to, limit) => Answer::Count(store.move_lane(from, to, *limit)?),
        Op::Operate(op, keys, withdrawn, now) => Answer::Count(store.operate(*op, keys, withdrawn, *now)?),
        Op::RetryAll(after, now, limit) => Answer::Retried(store.retry_all(*after, *now, *limit)?),
        Op::Forget(before, limit) => Answer::Count(store.forget(*before, *limit)?),
        Op::GiveBack(keys) => Answer::Count(store.give_back(keys)?),
        Op::Remember(entries) => {
            store.remember(entries)?;
            Answer::Done
        }
        Op::Close => Answer::Done,
    })
}

/// A new connection after a fault. Its leases are still held, so nothing is recovered.
fn reopen(path: &std::path::Path, options: &Options) -> Result<Connection, QueueError> {
    let mut conn = schema::connect_writer(path, options)?;
    schema::prepare(&mut conn, path)?;
    Ok(conn)
}

/// Merges the log into the database file and truncates it.
fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}
