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
//! - Once another process holds the lock, no transaction begins and the thread ends: it takes our leases
//!   for its own.
//! - An operation that panics is an operation that failed. Should the thread end all the same,
//!   `Upkeep::failed` resolves, and the process ends: nothing would be stored any more.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::cut::Cut;
use super::dropped::{Dropped, FEW, Rest};
use super::error::connection_is_sound;
use super::lock::Lock;
use super::merging::Log;
use super::names::Names;
use super::neighbours::Neighbours;
use super::op::{Answer, Job, Lent, Op, Shared};
use super::read::Readers;
use super::room::{self, Room};
use super::sight::Sight;
use super::store::{Store, Tally};
use super::upkeep::Tidy;
use super::{Options, claim, schema};
use crate::clock::{Clock, Timestamp};
use crate::crash;
use crate::queue::QueueError;

/// Operations of one transaction.
const BATCH: usize = 1024;

/// Name of the value that [`Op::Probe`] writes.
const PROBED: &str = "probed";

/// Why a transaction did not come about.
pub(super) enum Failed {
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
    pub(super) readers: Arc<Readers>,
    pub(super) room: Room,
    pub(super) tidy: Tidy,
    pub(super) dropped: Dropped,
    /// Why nothing may come in just now; to log the change only.
    pub(super) refusing: Option<String>,
    pub(super) names: Arc<Names>,
    pub(super) sight: Sight,
    pub(super) cut: Cut,
    pub(super) log: Log,
    pub(super) neighbours: Neighbours,
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
        while let Some(job) = self.next() {
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
            self.drop_in_turn();
            if self.shared.taken.get().is_some() {
                break;
            }
        }
        if self.shared.taken.get().is_some() {
            // Leases and log are those of another process now.
            self.leave_as_it_is();
            return;
        }
        crash::point("close.begin");
        self.wait_for_cut();
        // What is still leased ends here as it would at the next start, so that a queue closed in
        // good order has nothing to recover.
        if let Err(trouble) = self.names.look() {
            tracing::error!("{}: what was not saved or put back ends with this process", trouble.what);
        }
        let (whole, mergeable) = (self.names.lost().is_none(), !self.names.log_is_lost());
        if !mergeable {
            self.leave_as_it_is();
        }
        if let Some(conn) = self.conn.as_mut().filter(|_| whole)
            && let Err(e) = super::store::recover(conn)
        {
            tracing::warn!(error = %e, "leases could not be ended; the next start does it");
        }
        if whole {
            self.drop_at_end();
        }
        // So that closing the writer's is the end of the log.
        self.readers.close_idle();
        self.readers.keeper.close();
        if let Some(conn) = self.conn.take()
            && mergeable
            && let Err(e) = merge(&conn)
        {
            tracing::warn!(error = %e, "the queue's log could not be merged at the end; the next start does it");
        }
        crash::point("close.done");
        if closing.is_empty() {
            // The queue was dropped, and with it whoever reads; else `close` waits for those.
            self.names.closed();
        }
        self.lock = None;
        for job in closing {
            self.answer(job, Ok(Answer::Done));
        }
    }

    /// The next job; what there is to drop and to tidy is done while there is none.
    fn next(&mut self) -> Option<Job> {
        loop {
            match self.jobs.try_recv() {
                Ok(job) => return Some(job),
                Err(mpsc::error::TryRecvError::Disconnected) => return None,
                Err(mpsc::error::TryRecvError::Empty) => {}
            }
            match self.drop_at_rest() {
                Rest::Look => {}
                Rest::Nap(time) => std::thread::sleep(time),
                Rest::Free => {
                    self.tidy();
                    return self.jobs.blocking_recv();
                }
            }
        }
    }

    /// Does a batch and answers it.
    pub(super) fn serve(&mut self, batch: &mut Vec<Job>) {
        let returned = std::mem::take(&mut *self.shared.returned.lock());
        if !returned.is_empty() {
            batch.push(Job { op: Op::GiveBack(returned), reply: None, budget: None });
        }
        self.admit(batch);
        let mut results = self.write(batch);
        self.confirm(batch, &mut results);
        let failure = results.iter().find_map(|r| r.as_ref().err()).filter(|e| !matches!(e, QueueError::Invalid(_)));
        match (failure, self.ailing) {
            (Some(e), false) => tracing::error!(error = %e, "the queue cannot be written; clients are told to retry"),
            (None, true) => tracing::info!("the queue can be written again"),
            _ => {}
        }
        self.ailing = failure.is_some();
        self.after_cut();
        self.dropped.note(batch);
        self.log.note(batch);
        self.watch_log();
        for (job, result) in batch.drain(..).zip(results) {
            self.answer(job, result);
        }
        self.merge_if_long();
    }

    /// The results of the batch, one per job.
    fn write(&mut self, batch: &[Job]) -> Vec<Result<Answer, QueueError>> {
        if batch.is_empty() {
            return Vec::new();
        }
        let one_by_one = match self.transact_in_need(batch) {
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
            match self.transact_in_need(std::slice::from_ref(job)) {
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

    /// One operation in a transaction of its own.
    pub(super) fn alone(&mut self, job: &Job) -> Result<Answer, QueueError> {
        let mut answers = self.transact(std::slice::from_ref(job)).map_err(|failed| match failed {
            Failed::Operation(e) | Failed::Whole(e) => e,
        })?;
        Ok(answers.pop().unwrap_or(Answer::Done))
    }

    /// One transaction. What the way out needs of a full disk, it is given.
    fn transact_in_need(&mut self, batch: &[Job]) -> Result<Vec<Answer>, Failed> {
        match self.transact(batch) {
            Err(Failed::Operation(QueueError::Full(_)) | Failed::Whole(QueueError::Full(_)))
                if batch.iter().any(|job| !job.op.enters()) && self.make_room() =>
            {
                self.transact(batch)
            }
            other => other,
        }
    }

    /// One transaction: all of the batch, or nothing.
    ///
    /// If the commit fails, SQLite's log does not contain the transaction for anyone who reads it
    /// while this process runs. Should the machine stop before the next commit overwrites it, it
    /// may be there after all: a message whose client was told to send it again.
    fn transact(&mut self, batch: &[Job]) -> Result<Vec<Answer>, Failed> {
        if let Some(e) = self.names.lost().or_else(|| self.shared.taken.get().cloned()) {
            return Err(Failed::Whole(e));
        }
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.reopen().map_err(Failed::Whole)?,
        };
        let now = self.clock.now();
        let names = Arc::clone(&self.names);
        let _index = names.use_index();
        let neighbours = &self.neighbours;
        // A fault of ours in one operation must not end the thread that all others need. The
        // transaction is rolled back as it is dropped; the connection is not used again.
        let caught =
            catch_unwind(AssertUnwindSafe(|| transact_on(&mut conn, batch, self.last_id, now, &names, neighbours)));
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
        let result = result.map_err(|failed| self.limited(failed));
        let (answers, tally, last_id) = result?;
        self.last_id = last_id;
        tally.apply(&mut self.shared.counts.lock());
        Ok(answers)
    }

    /// A new connection after a fault. Its leases are still held, so nothing is recovered.
    fn reopen(&self) -> Result<Connection, QueueError> {
        // By its name: what stands there must be what the others have open.
        self.names.may_open()?;
        let mut conn = schema::connect_writer(&self.path, &self.options)?;
        self.log.watch(&mut conn)?;
        schema::prepare(&mut conn, &self.path)?;
        Ok(conn)
    }

    /// A write that went beyond the system's limit on the size of files is a full disk, too.
    fn limited(&self, failed: Failed) -> Failed {
        let full = |e| match e {
            QueueError::Unavailable(text) if room::limited(self.names.sizes()) => {
                QueueError::Full(format!("{text}: the system limits the size of files (ulimit -f)"))
            }
            e => e,
        };
        match failed {
            Failed::Operation(e) => Failed::Operation(full(e)),
            Failed::Whole(e) => Failed::Whole(full(e)),
        }
    }

    pub(super) fn answer(&self, job: Job, result: Result<Answer, QueueError>) {
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
    names: &Names,
    neighbours: &Neighbours,
) -> Result<(Vec<Answer>, Tally, i64), Failed> {
    let mut store = Store::begin(conn, neighbours, last_id).map_err(|e| Failed::Whole(e.into()))?;
    names.note();
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
        Op::DropFew => Answer::Count(usize::from(store.drop_chunks(FEW)?)),
        Op::Claim(lane, now, limit) => Answer::Leased(claim::claim(store, lane, *now, *limit)?),
        Op::ClaimOlder(lane, received, limit) => Answer::Leased(claim::claim_older(store, lane, *received, *limit)?),
        Op::Settle(settlements, owed) => {
            store.settle(settlements, owed, now)?;
            Answer::Done
        }
        Op::Report(told, report) => {
            store.report(told, report.as_ref())?;
            Answer::Done
        }
        Op::MoveLane(from, to, limit) => Answer::Count(store.move_lane(from, to, *limit)?),
        Op::Operate(op, keys, withdrawn, now) => Answer::Count(store.operate(*op, keys, withdrawn, *now)?),
        Op::RetryAll(after, now, limit) => Answer::Retried(store.retry_all(*after, *now, *limit)?),
        Op::Forget(before, limit) => Answer::Count(store.forget(*before, *limit)?),
        Op::GiveBack(keys) => Answer::Count(store.give_back(keys)?),
        Op::EndLeases => Answer::Count(store.end_leases()?),
        Op::Remember(entries) => {
            store.remember(entries)?;
            Answer::Done
        }
        Op::Swap(changes) => Answer::Count(store.swap(changes)?),
        Op::Probe => {
            store.remember(&[(PROBED.to_owned(), Some(now.to_string().into()))])?;
            Answer::Done
        }
        Op::Close => Answer::Done,
    })
}

/// Merges the log into the database file and truncates it. False: somebody is reading it.
pub(super) fn merge(conn: &Connection) -> rusqlite::Result<bool> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}
