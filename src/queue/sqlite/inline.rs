//! The same store in the calling task, in memory: for simulations on paused time, which must not
//! depend on when a thread gets its turn.
//!
//! Every call is a transaction of its own, done by the code of the writer before the future is
//! first pending. There is no file, so nothing of this is durable beyond the value itself: a
//! simulated crash keeps the [`InlineQueue`] and [`InlineQueue::reopen`]s it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::cut::Cut;
use super::dropped::Dropped;
use super::merging::Log;
use super::names::Names;
use super::neighbours::Neighbours;
use super::op::{Answer, Job, Op, Shared};
use super::read::Readers;
use super::room::Room;
use super::sight::Sight;
use super::upkeep::Tidy;
use super::writer::Writer;
use super::{MOST, MOST_LISTED, claim, owed, read, schema, store, turns};
use crate::clock::{Clock, Timestamp};
use crate::mail::{IdSource, LaneName, NewMessage, Owed, QueueId, RecipientKey};
use crate::queue::turns::{Look, Turn};
use crate::queue::{
    Counts, Debt, Debts, Desk, Filter, LaneDue, Lanes, Leased, Leases, Memory, Operation, Owing, Page, QueueError,
    Retried, Settlement, Spool, Swap, Upkeep,
};

/// See the module.
pub struct InlineQueue {
    writer: Mutex<Writer>,
    /// [`Upkeep::close`] was called; the connection stays for [`InlineQueue::reopen`].
    closed: AtomicBool,
    shared: Arc<Shared>,
    ids: IdSource,
}

impl InlineQueue {
    /// An empty store.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(clock: Clock) -> Result<Arc<InlineQueue>, QueueError> {
        let mut conn = Connection::open_in_memory()?;
        schema::keep_statements(&conn, 64)?;
        schema::prepare(&mut conn, &PathBuf::from(":memory:"))?;
        InlineQueue::over(conn, clock)
    }

    /// What a new process finds after this one is gone: everything committed, nothing leased. The
    /// old value answers [`QueueError::Closed`] from now on.
    ///
    /// # Errors
    /// SQLite's; [`QueueError::Closed`] if it was opened anew before.
    pub fn reopen(&self, clock: Clock) -> Result<Arc<InlineQueue>, QueueError> {
        let conn = self.writer.lock().conn.take().ok_or(QueueError::Closed)?;
        InlineQueue::over(conn, clock)
    }

    fn over(mut conn: Connection, clock: Clock) -> Result<Arc<InlineQueue>, QueueError> {
        let recovered = store::recover(&mut conn)?;
        let shared = Arc::new(Shared { counts: Mutex::new(recovered.counts), ..Shared::default() });
        let (_, jobs) = mpsc::channel(1);
        let names = Arc::new(Names::default());
        let writer = Writer {
            path: PathBuf::from(":memory:"),
            options: super::Options::default(),
            clock,
            conn: Some(conn),
            readers: Arc::new(Readers::new(PathBuf::new(), 0, None, Arc::clone(&names))),
            room: Room::none(),
            tidy: Tidy::default(),
            dropped: Dropped::new(),
            refusing: None,
            names,
            sight: Sight::default(),
            cut: Cut::default(),
            log: Log::default(),
            neighbours: Neighbours::default(),
            jobs,
            shared: Arc::clone(&shared),
            last_id: recovered.last_id,
            lock: None,
            ailing: false,
        };
        let ids = IdSource::new(Some(QueueId(recovered.last_id)));
        Ok(Arc::new(InlineQueue { writer: Mutex::new(writer), closed: AtomicBool::new(false), shared, ids }))
    }

    fn write(&self, op: Op) -> Result<Answer, QueueError> {
        let mut writer = self.writer.lock();
        if self.is_closed() || writer.conn.is_none() {
            return Err(QueueError::Closed);
        }
        let (reply, mut answer) = oneshot::channel();
        writer.serve(&mut vec![Job { op, reply: Some(reply), budget: None }]);
        while writer.dropped.is_some() {
            writer.drop_few();
        }
        Ok(answer.try_recv().map_err(|_| QueueError::Closed)??.take())
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn count(&self, op: Op) -> Result<usize, QueueError> {
        match self.write(op)? {
            Answer::Count(n) => Ok(n),
            Answer::Leased(leased) => Ok(leased.len()),
            Answer::Done | Answer::Retried(_) => Ok(0),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, QueueError>) -> Result<T, QueueError> {
        let writer = self.writer.lock();
        read(writer.conn.as_ref().filter(|_| !self.is_closed()).ok_or(QueueError::Closed)?)
    }
}

#[async_trait]
impl Spool for InlineQueue {
    fn next_id(&self, now: Timestamp) -> QueueId {
        self.ids.next(now)
    }

    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        self.write(Op::Spill(id, index, chunk)).map(drop)
    }

    async fn unspill(&self, id: QueueId) {
        // What could not be dropped is dropped at the next start.
        let _ = self.write(Op::Unspill(id));
    }

    async fn accept(&self, message: NewMessage) -> Result<(), QueueError> {
        self.write(Op::Accept(message)).map(drop)
    }

    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        self.read(|conn| read::chunk(conn, id, index))
    }

    async fn probe(&self) -> Result<(), QueueError> {
        self.write(Op::Probe).map(drop)
    }
}

#[async_trait]
impl Leases for InlineQueue {
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        match self.write(Op::Claim(lane.clone(), now, limit.min(MOST)))? {
            Answer::Leased(leased) => Ok(leased),
            _ => Ok(Vec::new()),
        }
    }

    async fn claim_older(&self, lane: &LaneName, received: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        match self.write(Op::ClaimOlder(lane.clone(), received, limit.min(MOST)))? {
            Answer::Leased(leased) => Ok(leased),
            _ => Ok(Vec::new()),
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>, owed: Vec<Owed>) -> Result<(), QueueError> {
        self.write(Op::Settle(settlements, owed)).map(drop)
    }

    async fn end_leases(&self) -> Result<usize, QueueError> {
        self.count(Op::EndLeases)
    }
}

#[async_trait]
impl Lanes for InlineQueue {
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
        self.read(|conn| claim::lanes(conn, after, limit.min(MOST_LISTED)))
    }

    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        self.read(|conn| claim::lane_due(conn, lane))
    }

    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError> {
        self.read(|conn| turns::turns(conn, &look))
    }

    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError> {
        self.count(Op::MoveLane(from.clone(), to.clone(), limit.min(MOST) as i64))
    }
}

#[async_trait]
impl Debts for InlineQueue {
    async fn owing(&self, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError> {
        self.read(|conn| owed::owing(conn, after, limit.min(MOST_LISTED)))
    }

    async fn owed(&self, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError> {
        self.read(|conn| owed::owed(conn, id, limit.min(MOST_LISTED)))
    }

    async fn is_under_way(&self, id: QueueId, until: Timestamp) -> Result<bool, QueueError> {
        self.read(|conn| owed::is_under_way(conn, id, until))
    }

    async fn report(&self, told: Vec<(RecipientKey, Timestamp)>, report: Option<NewMessage>) -> Result<(), QueueError> {
        self.write(Op::Report(told, report)).map(drop)
    }
}

#[async_trait]
impl Desk for InlineQueue {
    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError> {
        self.read(|conn| read::inspect(conn, filter, after, limit.min(MOST_LISTED)))
    }

    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError> {
        self.count(Op::Operate(op, keys.to_vec(), withdrawn.to_vec(), now))
    }

    async fn retry_all(
        &self,
        after: Option<RecipientKey>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Retried, QueueError> {
        match self.write(Op::RetryAll(after, now, limit.min(MOST)))? {
            Answer::Retried(retried) => Ok(retried),
            _ => Ok(Retried::default()),
        }
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        let writer = self.writer.lock();
        let open = writer.conn.is_some() && !self.is_closed();
        open.then(|| *self.shared.counts.lock()).ok_or(QueueError::Closed)
    }

    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError> {
        self.count(Op::Forget(now.before(keep), limit.min(MOST) as i64))
    }
}

#[async_trait]
impl Memory for InlineQueue {
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        self.write(Op::Remember(entries)).map(drop)
    }

    async fn swap(&self, changes: Vec<Swap>) -> Result<bool, QueueError> {
        self.count(Op::Swap(changes)).map(|done| done > 0)
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        self.read(|conn| read::recall(conn, prefix))
    }
}

#[async_trait]
impl Upkeep for InlineQueue {
    async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}
