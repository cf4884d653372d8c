//! Chunks of messages that will not be accepted: uploads that were broken off, and what a process that is
//! gone had begun. They go a few at a time.
//!
//! To free a page of a chunk SQLite reads it, so hundreds of long messages take seconds, and what a
//! transaction takes everybody waits for. So a message is only marked as dropped where its client went
//! away, or at the start, and the writer deletes from there on:
//!
//! - [`FEW`] chunks in a transaction;
//! - while others write, a quarter of the time at most; else without a pause;
//! - at the end, as much as is done at once ([`AT_END`]); the next start goes on.

use std::time::{Duration, Instant};

use rusqlite::OptionalExtension;

use super::names::Moment;
use super::op::{Answer, Job, Op};
use super::sql;
use super::store::Store;
use super::writer::Writer;
use crate::queue::QueueError;

/// Chunks in one transaction.
pub(super) const FEW: usize = 8;
/// For each time that it takes, so many times as long goes to others.
const OTHERS: u32 = 3;
/// Others write if they did so long ago.
const LIVELY: Duration = Duration::from_millis(50);
/// How long the writer sleeps at most before it looks for work of others.
const NAP: Duration = Duration::from_micros(200);
/// Transactions at the end: 128 MiB.
const AT_END: usize = 64;

/// Whether there is something to drop, and when.
#[derive(Debug)]
pub(super) struct Dropped {
    /// There may be something.
    some: bool,
    /// Not before, while others write.
    next: Instant,
    /// When others wrote last.
    others: Instant,
}

/// What the writer may do while nothing waits.
pub(super) enum Rest {
    /// Look for work: something was done, and there may be more.
    Look,
    /// Look for work after so long.
    Nap(Duration),
    /// There is nothing to drop.
    Free,
}

impl Dropped {
    /// After a start: an earlier process may have left something.
    pub(super) fn new() -> Dropped {
        let now = Instant::now();
        Dropped { some: true, next: now, others: now }
    }

    /// Whether there may be something.
    pub(super) fn is_some(&self) -> bool {
        self.some
    }

    /// Others have written.
    pub(super) fn note(&mut self, batch: &[Job]) {
        self.some |= batch.iter().any(|job| matches!(job.op, Op::Unspill(_)));
        if self.some {
            self.others = Instant::now();
        }
    }

    /// How long others go first.
    fn pause(&self, now: Instant) -> Option<Duration> {
        let lively = now.duration_since(self.others) < LIVELY;
        let pause = self.next.saturating_duration_since(now);
        (lively && !pause.is_zero()).then_some(pause)
    }
}

impl Writer {
    /// To be called after each batch: drops a few, if it is time.
    pub(super) fn drop_in_turn(&mut self) {
        if self.dropped.some && self.dropped.pause(Instant::now()).is_none() {
            self.drop_few();
        }
    }

    /// To be called while nothing waits.
    pub(super) fn drop_at_rest(&mut self) -> Rest {
        if !self.dropped.some {
            return Rest::Free;
        }
        match self.dropped.pause(Instant::now()) {
            Some(pause) => Rest::Nap(pause.min(NAP)),
            None => {
                self.drop_few();
                Rest::Look
            }
        }
    }

    /// To be called at the end.
    pub(super) fn drop_at_end(&mut self) {
        self.dropped.some = true;
        for _ in 0..AT_END {
            if self.dropped.some {
                self.drop_few();
            }
        }
    }

    /// Drops a few. What cannot be dropped now is so after the next message that is, or at the next start.
    pub(super) fn drop_few(&mut self) {
        let began = Instant::now();
        let job = Job { op: Op::DropFew, reply: None, budget: None };
        let done = self.names.check(Moment::Before).map_err(QueueError::from).and_then(|()| self.alone(&job));
        self.dropped.some = match done {
            Ok(Answer::Count(more)) => more > 0,
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "chunks of unfinished messages stay for now");
                false
            }
        };
        self.dropped.next = Instant::now() + OTHERS * began.elapsed();
        if !self.dropped.some {
            self.tidy.soon();
        }
    }
}

impl Store<'_> {
    /// Deletes a few chunks of messages that are dropped, `limit` at most; false: there are no more.
    pub(super) fn drop_chunks(&mut self, limit: usize) -> Result<bool, QueueError> {
        let mut left = limit;
        while left > 0 {
            let next = self.statement(sql::NEXT_DROPPED)?.query_row([], |row| row.get::<_, i64>(0)).optional()?;
            let Some(id) = next else { return Ok(false) };
            let most = i64::try_from(left).unwrap_or(i64::MAX);
            let gone = self.statement(sql::DROP_CHUNKS)?.execute([id, most])?;
            if gone < left {
                self.statement(sql::DROP_OLDER_CHUNKS)?.execute([id])?;
                self.statement(sql::DROPPED)?.execute([id])?;
            }
            // One that has none costs something, too.
            left = left.saturating_sub(gone.max(1));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{CHUNK, QueueId};
    use crate::queue::sqlite::{Options, schema};
    use rusqlite::{Connection, params};

    fn store() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        // A small cache, so that what is needed is read.
        let options = Options { cache_bytes: 1 << 20, ..Options::default() };
        let mut conn = schema::connect_writer(&path, &options).unwrap();
        schema::prepare(&mut conn, &path).unwrap();
        conn.pragma_update(None, "synchronous", "off").unwrap();
        (dir, conn)
    }

    /// Bytes that this thread has read from files.
    fn read() -> u64 {
        let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok()).unwrap()
    }

    #[test]
    fn to_store_a_chunk_no_other_chunk_is_read() {
        let ((_dir, conn), neighbours) = (store(), Default::default());
        let chunk = vec![b'x'; CHUNK];
        for message in (0..120).step_by(2) {
            let mut store = Store::begin(&conn, &neighbours, 0).unwrap();
            store.spill(QueueId(message), 1, &chunk).unwrap();
            store.commit().unwrap();
            let older = "INSERT INTO older_chunk VALUES (?1, 1, ?2)";
            conn.execute(older, params![message, chunk]).unwrap();
        }
        let before = read();
        let mut store = Store::begin(&conn, &neighbours, 0).unwrap();
        store.spill(QueueId(61), 1, &chunk).unwrap();
        store.commit().unwrap();
        let now = read() - before;
        assert!(now < CHUNK as u64, "{now} bytes");
        // That this is seen: the table of earlier versions.
        let before = read();
        conn.execute("INSERT INTO older_chunk VALUES (61, 1, ?1)", [&chunk]).unwrap();
        let then = read() - before;
        assert!(then > 2 * CHUNK as u64, "{then} bytes");
    }

    #[test]
    fn what_is_dropped_goes_a_few_at_a_time_and_what_is_not_stays() {
        let ((_dir, conn), neighbours) = (store(), Default::default());
        let mut store = Store::begin(&conn, &neighbours, 0).unwrap();
        for message in 1..=3 {
            for index in 1..=5 {
                store.spill(QueueId(message), index, b"chunk").unwrap();
            }
        }
        store.unspill(QueueId(1)).unwrap();
        store.unspill(QueueId(3)).unwrap();
        let count = "SELECT count(*) FROM chunk";
        let left = |store: &Store<'_>| store.tx.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap();
        let mut seen = Vec::new();
        while store.drop_chunks(4).unwrap() {
            seen.push(left(&store));
        }
        assert_eq!(seen, [11, 7], "four at a time");
        assert_eq!(left(&store), 5, "those of the message that still comes in");
        let marks: i64 = store.tx.query_row("SELECT min(message) FROM incoming", [], |row| row.get(0)).unwrap();
        assert_eq!(marks, 2);
    }
}
