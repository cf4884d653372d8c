//! Merging the log into the database file when it is long, behind the answers of a batch.
//!
//! SQLite does this by itself within the commit that makes the log long: everybody of that batch would wait for
//! a write of the whole log and two calls that reach the disk. Here they have their answers before it begins.
//!
//! What large writes add to the log lands on pages of their own, while that of small ones is mostly the same
//! few pages again: so the time of a merge is theirs by their part of the log, and they rest for it
//! (`large_writes`).
//!
//! Invariants:
//! - Nothing is merged of a log of which something is lost, nor while another thread merges (`cut`).
//! - A merge that somebody's reading holds up is tried again behind the next batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::large_writes;
use super::names::Moment;
use super::op::Job;
use super::schema;
use super::upkeep::all_rows;
use super::writer::Writer;

/// How long the log is, and who made it so.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Pages since it was begun anew, as of the last commit.
    pages: Arc<AtomicU32>,
    /// Bytes of large writes since it was merged.
    large: u64,
}

impl Log {
    /// Counts the commits of a new connection from now on, which merges nothing by itself.
    pub(super) fn watch(&self, conn: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.pages);
        conn.wal_hook(Some(move |_: &mut _, now: i32| {
            pages.store(u32::try_from(now).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }

    /// These were written.
    pub(super) fn note(&mut self, batch: &[Job]) {
        let large = batch
            .iter()
            .filter(|job| job.op.enters())
            .map(|job| job.op.weight())
            .filter(|bytes| large_writes::is_large(*bytes));
        self.large += large.map(|bytes| bytes as u64).sum::<u64>();
    }

    /// What part of `took` is due to large writes. The next merge begins to count.
    fn share(&mut self, took: Duration, pages: u32) -> Duration {
        let log = u64::from(pages) * schema::PAGE;
        let large = std::mem::take(&mut self.large).min(log);
        took.mul_f64(large as f64 / log.max(1) as f64)
    }
}

impl Writer {
    /// Merges the log if it is long. To be called between batches.
    pub(super) fn merge_if_long(&mut self) {
        let pages = self.log.pages.load(Ordering::Relaxed);
        if pages < self.options.log_pages || self.is_being_cut() {
            return;
        }
        if self.names.lost().is_some() || self.names.log_is_lost() || self.shared.taken.get().is_some() {
            return;
        }
        let Some(conn) = &self.conn else { return };
        let names = Arc::clone(&self.names);
        let _index = names.use_index();
        let began = Instant::now();
        // What is merged is not counted again; as long as somebody reads it, the next commit tells that it is long.
        self.log.pages.store(0, Ordering::Relaxed);
        if let Err(error) = all_rows(conn, "PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::debug!(%error, "the queue's log could not be merged; it is tried again");
        }
        let rest = self.log.share(began.elapsed(), pages);
        // The sizes from which on a cut is seen are those after it. What is wrong stops the next transaction.
        let _ = self.names.check(Moment::After);
        self.shared.turns.merged(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;
    use crate::queue::sqlite::op::Op;

    fn spill(bytes: usize) -> Job {
        Job { op: Op::Spill(QueueId(1), 1, vec![0; bytes].into()), reply: None, budget: None }
    }

    #[test]
    fn a_merge_is_due_to_large_writes_by_their_part_of_the_log() {
        let mut log = Log::default();
        let pages = u32::try_from((1 << 20) / schema::PAGE).unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(log.share(second, pages), Duration::ZERO);
        log.note(&[spill(100), spill(256 << 10), spill(256 << 10)]);
        let part = log.share(second, pages).as_secs_f64();
        assert!((0.49..0.51).contains(&part), "{part}");
        assert_eq!(log.share(second, pages), Duration::ZERO, "the next one begins anew");
        log.note(&[spill(4 << 20)]);
        assert_eq!(log.share(second, pages), second);
    }
}
