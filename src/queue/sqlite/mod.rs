//! The queue in one SQLite file: see `docs/queue.md` for the schema and what it promises.
//!
//! - `writer`: the one thread that changes anything, by group commit; `op`: what it is asked; `store` and `claim` are what
//!   it does to the tables, in a transaction (`begun`).
//! - `dropped`: chunks of messages that will not be accepted; `cut`: the file after it was written anew.
//! - `owed`: reports that are owed, in the tables.
//! - `read`: connections beside it for bodies and lists.
//! - `schema`: the file, its versions; `sql`: every statement; `rows`: values to columns and back.
//! - `large_writes`: large writes do not stand before small ones; `merging`: nor does the merging of the log.
//! - `inline`: the same in the calling task and in memory, for simulations.
//! - `backup`: a copy while it is in use.
//! - `lock`: one mailweir a file; `error`: what SQLite's faults mean; `log`: after a failed disk.
//! - `trust`: whose files are used; `names`: whether they are still in place, with
//!   what `log_index` tells of their sizes; `room`: what is left of the
//!   disk, and for whom; `upkeep`: what the writer makes of these.
//!
//! Memory: at most [`Options::pending_bytes`] of operations wait, plus SQLite's page caches
//! ([`Options::cache_bytes`] and four eighths of that). Start-up costs what the process before had in memory, not what is queued.

mod aside;
pub mod backup;
mod begun;
mod claim;
mod cut;
mod dropped;
mod error;
mod inline;
mod large_writes;
mod lock;
mod log;
mod log_index;
mod merging;
mod names;
mod neighbours;
mod op;
mod owed;
mod read;
mod room;
mod rows;
mod schema;
mod sight;
mod sql;
mod store;
mod trust;
mod turns;
mod upkeep;
mod writer;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

#[doc(hidden)]
pub use self::aside::Aside;
use self::cut::Cut;
use self::dropped::Dropped;
use self::error::at_path;
pub use self::inline::InlineQueue;
use self::lock::Lock;
use self::merging::Log;
use self::names::Names;
use self::neighbours::Neighbours;
use self::op::{Answer, Job, Op, Shared};
use self::read::Readers;
use self::room::{Layout, Room};
pub(super) use self::rows::{SLOTS, slot};
use self::sight::Sight;
use self::upkeep::Tidy;
use self::writer::Writer;
use super::turns::{Look, Turn};
use super::{
    Counts, Debt, Debts, Desk, Filter, LaneDue, Lanes, Leased, Leases, Memory, Operation, Owing, Page, QueueError,
    Retried, SaveError, Settlement, Spool, Storage, Swap, Upkeep,
};
use crate::clock::{Clock, Timestamp};
use crate::crash;
use crate::mail::{IdSource, LaneName, NewMessage, Owed, QueueId, RecipientKey};

/// Operations that may wait for the writer.
const PENDING: usize = 4096;

/// How often the lock is looked at while nothing is written.
const KEEP_LOCK: Duration = Duration::from_secs(1);

/// Most recipients one call may claim, move or forget: one call must not keep the writer for long.
const MOST: usize = 10_000;

/// Most lanes, and most rows, of one answer.
const MOST_LISTED: usize = 10_000;

/// 32 MiB: rare enough that what comes and goes meanwhile never reaches the database file.
const LOG_PAGES: u32 = 4096;

/// The largest page cache, in bytes: as much as the log holds.
const CACHE: u64 = 32 << 20;
/// The least that is useful.
const LEAST_CACHE: u64 = 2 << 20;
/// What each reader has of that.
const READERS_PART: u64 = 8;

/// Limits of a store.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Size of the database file in bytes beyond which nothing more is accepted
    /// ([`QueueError::Full`]); `None`: what the disk holds.
    pub max_bytes: Option<u64>,
    /// Bytes of operations that may wait for the writer before callers wait too; at least 1 MiB is
    /// taken.
    pub pending_bytes: usize,
    /// Pages of the write-ahead log after which it is merged into the database file.
    pub log_pages: u32,
    /// Bytes of the disk to set aside for mail on its way out, a tenth of a small file system at most;
    /// 0: none. `None`: what is set aside stays as it is, and nothing more is.
    pub min_free: Option<u64>,
    /// Bytes of free pages, half of the database at least, from which it is made smaller.
    pub shrink_from: u64,
    /// Bytes of the writer's page cache; each of the readers has an eighth of that.
    pub cache_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_bytes: None,
            pending_bytes: 64 << 20,
            log_pages: LOG_PAGES,
            min_free: None,
            shrink_from: 64 << 20,
            cache_bytes: CACHE,
        }
    }
}

impl Options {
    /// With page caches that go with a memory budget of `memory` bytes: an eighth of it for the writer's, 2 to
    /// 32 MiB, and a half of that for those of all readers.
    #[must_use]
    pub fn within(self, memory: u64) -> Options {
        Options { cache_bytes: (memory / 8).clamp(LEAST_CACHE, CACHE), ..self }
    }
}

/// A queue in a SQLite file. Dropping it does what was asked for before, without waiting;
/// [`Upkeep::close`] waits.
pub struct SqliteQueue {
    jobs: mpsc::Sender<Job>,
    /// KiB of operations that may still be sent.
    budget: Arc<Semaphore>,
    budget_total: u32,
    ids: IdSource,
    shared: Arc<Shared>,
    readers: Arc<Readers>,
    names: Arc<Names>,
    path: PathBuf,
    lock: Mutex<Option<Arc<Lock>>>,
    /// Its sender is the writer's thread: closed when that has ended.
    writer_gone: watch::Receiver<()>,
    /// [`Upkeep::close`] was called: then the thread ends as it should.
    closing: AtomicBool,
}

impl SqliteQueue {
    /// Opens the store at `path`, creating it (mode 0600) and its directories (0700) as needed.
    /// What a process that is gone held is queued again.
    ///
    /// # Errors
    /// [`QueueError::InUse`] with the process that has it; [`QueueError::Damaged`] for a file that
    /// is not a queue, is damaged or of a newer version; [`QueueError::Unavailable`] when it cannot
    /// be opened or written.
    pub fn open(path: &Path, clock: Clock) -> Result<Arc<SqliteQueue>, QueueError> {
        SqliteQueue::open_with(path, clock, Options::default())
    }

    /// For a command line tool while no mailweir runs: the same as [`SqliteQueue::open`], the lock
    /// included, so that a mailweir that does run refuses it with [`QueueError::InUse`].
    ///
    /// # Errors
    /// As [`SqliteQueue::open`], and [`QueueError::Unavailable`] if there is no such file: looking
    /// does not create one.
    pub fn open_for_inspection(path: &Path) -> Result<Arc<SqliteQueue>, QueueError> {
        if let Err(e) = std::fs::metadata(path) {
            return Err(at_path(path, QueueError::Unavailable(e.to_string())));
        }
        SqliteQueue::open(path, Clock::System)
    }

    /// [`SqliteQueue::open`] with limits.
    ///
    /// # Errors
    /// As [`SqliteQueue::open`].
    pub fn open_with(path: &Path, clock: Clock, options: Options) -> Result<Arc<SqliteQueue>, QueueError> {
        let path = create(path)?;
        crash::point("open.created");
        let lock = Arc::new(Lock::take(&path)?);
        crash::point("open.locked");
        let room = Room::open(&path, options.min_free);
        let options = Options { log_pages: room.log_pages(options.log_pages, schema::PAGE), ..options };
        trust::take_journal_name(&path)?;
        let mut conn = schema::connect_writer(&path, &options)?;
        let log = Log::default();
        log.watch(&mut conn)?;
        crash::point("open.connected");
        log::rewrite(&mut conn, &path).map_err(|e| at_path(&path, e))?;
        schema::prepare(&mut conn, &path)?;
        trust::take_journal_name(&path)?;
        let recovered = store::recover(&mut conn).map_err(|e| at_path(&path, e))?;
        if recovered.leases > 0 || recovered.incoming > 0 {
            tracing::info!(
                recipients = recovered.leases,
                unfinished = recovered.incoming,
                "the queue was not closed: what was in memory is queued again, unfinished messages are dropped"
            );
        }
        let names = Arc::new(Names::default());
        let keeper = log::anchor(&path).map_err(|e| at_path(&path, e))?;
        names.learn(&path)?;
        let readers =
            Arc::new(Readers::new(path.clone(), options.cache_bytes / READERS_PART, Some(keeper), Arc::clone(&names)));
        let shared = Arc::new(Shared { counts: Mutex::new(recovered.counts), ..Shared::default() });
        let (jobs, receiver) = mpsc::channel(PENDING);
        let _ = shared.wake.set(jobs.downgrade());
        let writer = Writer {
            path: path.clone(),
            options,
            clock,
            conn: Some(conn),
            readers: Arc::clone(&readers),
            room,
            tidy: Tidy::default(),
            dropped: Dropped::new(),
            refusing: None,
            names: Arc::clone(&names),
            sight: Sight::default(),
            cut: Cut::default(),
            log,
            neighbours: Neighbours::default(),
            jobs: receiver,
            shared: Arc::clone(&shared),
            last_id: recovered.last_id,
            lock: Some(Arc::clone(&lock)),
            ailing: false,
        };
        let (alive, writer_gone) = watch::channel(());
        let thread = std::thread::Builder::new().name("queue-writer".into()).spawn(move || {
            // Dropped as the thread ends, however that comes about.
            let _alive = alive;
            writer.run();
        });
        thread.map_err(|e| QueueError::Unavailable(format!("cannot start the queue's thread: {e}")))?;
        let budget_total = u32::try_from(options.pending_bytes.max(1 << 20) / 1024).unwrap_or(u32::MAX / 2);
        Ok(Arc::new(SqliteQueue {
            jobs,
            budget: Arc::new(Semaphore::new(budget_total as usize)),
            budget_total,
            ids: IdSource::new(Some(QueueId(recovered.last_id))),
            shared,
            readers,
            names,
            path,
            lock: Mutex::new(Some(lock)),
            writer_gone,
            closing: AtomicBool::new(false),
        }))
    }

    /// Hands an operation to the writer and waits for its commit.
    async fn write(&self, op: Op) -> Result<Answer, QueueError> {
        let bytes = op.weight();
        // Only what clients send takes turns: what leaves the queue makes room in it.
        let turn = match &op {
            Op::Accept(_) | Op::Spill(..) => self.shared.turns.of(bytes).await?,
            _ => None,
        };
        // Something heavier than the whole budget waits until it is alone.
        let weight = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.budget_total);
        let budget = Arc::clone(&self.budget).acquire_many_owned(weight).await.map_err(|_| QueueError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let job = Job { op, reply: Some(reply), budget: Some(budget) };
        self.jobs.send(job).await.map_err(|_| QueueError::Closed)?;
        let answer = answer.await;
        if let Some(turn) = turn {
            self.shared.turns.end(turn);
        }
        Ok(answer.map_err(|_| QueueError::Closed)??.take())
    }

    async fn count(&self, op: Op) -> Result<usize, QueueError> {
        match self.write(op).await? {
            Answer::Count(n) => Ok(n),
            Answer::Leased(leased) => Ok(leased.len()),
            Answer::Done | Answer::Retried(_) => Ok(0),
        }
    }
}

/// Makes sure that the file and its directories are there, and fit to write mail to; returns the path
/// with the directory's own name, so that the lock is the same by whatever name that is opened.
fn create(path: &Path) -> Result<PathBuf, QueueError> {
    let failed =
        |what: &str, e: std::io::Error| Err(QueueError::Unavailable(format!("cannot {what} {}: {e}", path.display())));
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let missing: Vec<&Path> = parent.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    if let Err(e) = DirBuilder::new().recursive(true).mode(0o700).create(parent) {
        return failed("create the directory of", e);
    }
    // SQLite syncs the directory of its files; those above it, if they are new, are up to us: a
    // queue in a directory that a power cut takes away is no queue.
    for made in missing {
        let above = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(e) = File::open(above).and_then(|directory| directory.sync_all()) {
            return failed("make durable the directory of", e);
        }
    }
    // Never opened when it is there: closing any descriptor of it would drop the locks that SQLite
    // may hold on it in this process (POSIX).
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return failed("create", e),
        _ => {}
    }
    let name = path.file_name().ok_or_else(|| QueueError::Unavailable(format!("{} names no file", path.display())))?;
    let path = std::fs::canonicalize(parent).or_else(|e| failed("open", e))?.join(name);
    trust::check(&path)?;
    Ok(path)
}

#[async_trait]
impl Spool for SqliteQueue {
    fn next_id(&self, now: Timestamp) -> QueueId {
        self.ids.next(now)
    }

    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        self.write(Op::Spill(id, index, chunk)).await.map(drop)
    }

    async fn unspill(&self, id: QueueId) {
        if let Err(e) = self.write(Op::Unspill(id)).await {
            tracing::warn!(%id, error = %e, "an unfinished message is dropped at the next start");
        }
    }

    async fn accept(&self, message: NewMessage) -> Result<(), QueueError> {
        self.write(Op::Accept(message)).await.map(drop)
    }

    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        self.readers.run(move |conn| read::chunk(conn, id, index)).await
    }

    async fn probe(&self) -> Result<(), QueueError> {
        self.write(Op::Probe).await.map(drop)
    }
}

#[async_trait]
impl Leases for SqliteQueue {
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        match self.write(Op::Claim(lane.clone(), now, limit.min(MOST))).await? {
            Answer::Leased(leased) => Ok(leased),
            _ => Ok(Vec::new()),
        }
    }

    async fn claim_older(&self, lane: &LaneName, received: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        match self.write(Op::ClaimOlder(lane.clone(), received, limit.min(MOST))).await? {
            Answer::Leased(leased) => Ok(leased),
            _ => Ok(Vec::new()),
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>, owed: Vec<Owed>) -> Result<(), QueueError> {
        self.write(Op::Settle(settlements, owed)).await.map(drop)
    }

    async fn end_leases(&self) -> Result<usize, QueueError> {
        self.count(Op::EndLeases).await
    }
}

#[async_trait]
impl Lanes for SqliteQueue {
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
        self.readers.run(move |conn| claim::lanes(conn, after, limit.min(MOST_LISTED))).await
    }

    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        let lane = lane.clone();
        self.readers.run(move |conn| claim::lane_due(conn, &lane)).await
    }

    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError> {
        self.readers.run(move |conn| turns::turns(conn, &look)).await
    }

    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError> {
        self.count(Op::MoveLane(from.clone(), to.clone(), limit.min(MOST) as i64)).await
    }
}

#[async_trait]
impl Debts for SqliteQueue {
    async fn owing(&self, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError> {
        self.readers.run(move |conn| owed::owing(conn, after, limit.min(MOST_LISTED))).await
    }

    async fn owed(&self, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError> {
        self.readers.run(move |conn| owed::owed(conn, id, limit.min(MOST_LISTED))).await
    }

    async fn is_under_way(&self, id: QueueId, until: Timestamp) -> Result<bool, QueueError> {
        self.readers.run(move |conn| owed::is_under_way(conn, id, until)).await
    }

    async fn report(&self, told: Vec<(RecipientKey, Timestamp)>, report: Option<NewMessage>) -> Result<(), QueueError> {
        self.write(Op::Report(told, report)).await.map(drop)
    }
}

#[async_trait]
impl Desk for SqliteQueue {
    async fn waiting(
        &self,
        lane: &LaneName,
        priority: i8,
        released: Timestamp,
        most: usize,
    ) -> Result<usize, QueueError> {
        let lane = lane.clone();
        self.readers.run(move |conn| read::waiting(conn, &lane, priority, released, most)).await
    }

    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError> {
        let filter = filter.clone();
        self.readers.run(move |conn| read::inspect(conn, &filter, after, limit.min(MOST_LISTED))).await
    }

    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError> {
        self.count(Op::Operate(op, keys.to_vec(), withdrawn.to_vec(), now)).await
    }

    async fn retry_all(
        &self,
        after: Option<RecipientKey>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Retried, QueueError> {
        match self.write(Op::RetryAll(after, now, limit.min(MOST))).await? {
            Answer::Retried(retried) => Ok(retried),
            _ => Ok(Retried::default()),
        }
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        if self.jobs.is_closed() {
            return Err(QueueError::Closed);
        }
        Ok(*self.shared.counts.lock())
    }

    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError> {
        self.count(Op::Forget(now.before(keep), limit.min(MOST) as i64)).await
    }
}

#[async_trait]
impl Memory for SqliteQueue {
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        self.write(Op::Remember(entries)).await.map(drop)
    }

    async fn swap(&self, changes: Vec<Swap>) -> Result<bool, QueueError> {
        self.count(Op::Swap(changes)).await.map(|done| done > 0)
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        let prefix = prefix.to_owned();
        self.readers.run(move |conn| read::recall(conn, &prefix)).await
    }
}

#[async_trait]
impl Upkeep for SqliteQueue {
    async fn may_reopen(&self) -> Result<(), QueueError> {
        match self.probe().await {
            Ok(()) | Err(QueueError::Full(_)) => {}
            Err(error) => return Err(error),
        }
        let path = self.path.clone();
        let checked =
            tokio::task::spawn_blocking(move || trust::check(&path).and_then(|()| trust::may_write(&path))).await;
        checked.map_err(|e| QueueError::Unavailable(e.to_string()))?
    }

    async fn storage(&self) -> Result<Storage, QueueError> {
        let trouble = self.names.look().err().map(|trouble| trouble.what).unwrap_or_default();
        let layout = match self.readers.run(|conn| Ok(Layout::read(conn)?)).await {
            Err(e) if trouble.is_empty() => return Err(e),
            layout => layout.unwrap_or_default(),
        };
        let (file, log) = self.names.sizes();
        Ok(Storage { file, free: layout.free.min(file), log, trouble })
    }

    async fn save(&self, copy: PathBuf) -> Result<(u64, Counts), SaveError> {
        let (readers, store) = (Arc::clone(&self.readers), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || backup::save(&readers.keeper, &store, &copy)).await;
        let copied = saved.map_err(|e| SaveError { message: e.to_string(), temporary: true })??;
        Ok((copied.bytes, copied.counts))
    }

    async fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job { op: Op::Close, reply: Some(reply), budget: None }).await.is_ok() {
            // An error means that the thread has ended: closed all the same.
            let _ = done.await;
        }
        self.shared.turns.close();
        self.budget.close();
        self.readers.close().await;
        self.names.closed();
        *self.lock.lock() = None;
    }

    async fn failed(&self) -> QueueError {
        let mut writer_gone = self.writer_gone.clone();
        // Nothing is ever sent: this is the end of the thread.
        while tokio::time::timeout(KEEP_LOCK, writer_gone.changed()).await.is_err() {
            // While nothing is written, too: what is in hand would go out a second time.
            if let Some(lock) = self.lock.lock().as_ref()
                && let Err(e @ QueueError::InUse(_)) = lock.keep()
            {
                let _ = self.shared.taken.set(e);
            }
            if self.shared.taken.get().is_some() {
                break;
            }
        }
        if let Some(taken) = self.shared.taken.get() {
            return taken.clone();
        }
        if self.closing.load(Ordering::SeqCst) {
            std::future::pending().await
        }
        let why = "the thread that writes the queue has ended by a fault of mailweir itself: please report it";
        QueueError::Unavailable(why.into())
    }
}
