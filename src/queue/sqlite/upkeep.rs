//! What the writer looks at besides the tables: whether its files are in place (`names`), whether
//! there is room (`room`), and whether the database is mostly empty inside.
//!
//! Invariants:
//! - Nothing that came in is acknowledged unless the files were in place after its commit.
//! - What is refused for room or for a missing file is what comes in; mail on its way out goes on.
//! - The database is made smaller only while nothing else waits, and only if that is quickly done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::names::Moment;
use super::op::{Answer, Job};
use super::room::{self, Layout};
use super::writer::{Writer, merge};
use super::{log, schema, trust};
use crate::config::units::Size;
use crate::queue::QueueError;

/// How often the free part of the database is looked at, at most.
const LOOK: Duration = Duration::from_secs(1);
/// How long after it was made smaller, or could not be.
const LATER: Duration = Duration::from_secs(60);
/// Bytes in use up to which it is made smaller: they are written anew, and held in memory meanwhile.
const SMALL: u64 = 2 << 20;
/// A log of so many times the size at which it is merged cannot be merged: one transaction adds less.
const LONG_LOG: u64 = 4;

/// Giving room back to the disk.
#[derive(Debug, Default)]
pub(super) struct Tidy {
    /// Not before.
    next: Option<Instant>,
    /// It was told that the log is long.
    long_log: bool,
}

impl Tidy {
    /// Much may have become free: it is looked at when nothing waits next, unless that was put off for longer.
    pub(super) fn soon(&mut self) {
        let soon = Instant::now() + LOOK;
        self.next = self.next.filter(|next| *next > soon);
    }
}

/// Something of that size (bytes) would touch what is set aside.
fn no_room(size: usize) -> QueueError {
    QueueError::Full(format!(
        "the disk has no room for {} more beside what is set aside for mail on its way out ([queue] min_free)",
        Size(size as u64 / 1024 * 1024)
    ))
}

impl Writer {
    /// Answers those of the batch that may not come in, and takes them out of it.
    pub(super) fn admit(&mut self, batch: &mut Vec<Job>) {
        self.room.set_aside();
        let placed = self.look(Moment::Before);
        if self.names.log_is_lost() {
            self.leave_as_it_is();
        }
        if let Err(e @ QueueError::InUse(_)) = &placed {
            let _ = self.shared.taken.set(e.clone());
        }
        if let Some(e) = self.shared.taken.get().cloned() {
            for job in batch.drain(..) {
                self.answer(job, Err(e.clone()));
            }
            return;
        }
        let entering = batch.iter().any(|job| job.op.enters());
        if !entering {
            match placed {
                Err(e) => self.tell(Some(&e)),
                Ok(()) if self.refusing.as_deref().is_some_and(|why| why != FULL) => self.tell(None),
                Ok(()) => {}
            }
            return;
        }
        let names = Arc::clone(&self.names);
        let sizes = || names.sizes();
        let mut left = placed.and_then(|()| self.room.left(self.conn.as_ref(), sizes));
        let asked: u64 = batch.iter().filter(|job| job.op.enters()).map(|job| job.op.weight() as u64).sum();
        let short = left.as_ref().map_or_else(|e| matches!(e, QueueError::Full(_)), |left| *left < asked);
        if short && self.empty_log() {
            left = self.room.left(self.conn.as_ref(), sizes);
        }
        self.tell(left.as_ref().err());
        let mut spent = 0;
        let refused: Vec<Job> = batch
            .extract_if(.., |job| {
                let Ok(left) = &mut left else { return job.op.enters() };
                let weight = if job.op.enters() { job.op.weight() as u64 } else { 0 };
                let fits = weight <= *left;
                let taken = if fits { weight } else { 0 };
                *left -= taken;
                spent += taken;
                !fits
            })
            .collect();
        self.room.spend(spent);
        for job in refused {
            let e = left.as_ref().err().cloned();
            let e = e.unwrap_or_else(|| no_room(job.op.weight()));
            self.answer(job, Err(e));
        }
    }

    /// Takes back what would be acknowledged though a file was taken away meanwhile.
    pub(super) fn confirm(&mut self, batch: &[Job], results: &mut [Result<Answer, QueueError>]) {
        if !batch.iter().any(|job| job.op.enters()) {
            return;
        }
        let Err(e) = self.look(Moment::After) else { return };
        self.tell(Some(&e));
        for (job, result) in batch.iter().zip(results) {
            if job.op.enters()
                && let Ok(answer) = result
            {
                // It may be there, should the file come back; nobody here is to hold it.
                self.shared.returned.lock().append(&mut job.op.leases(answer));
                *result = Err(e.clone());
            }
        }
    }

    /// Something is lost of a log that SQLite takes for whole. It must not merge that at the end, as it
    /// does: holes would go into the database.
    pub(super) fn leave_as_it_is(&self) {
        let never = |conn: &Connection| {
            let set = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = set {
                tracing::warn!(%error, "what is left of the queue may be damaged further when mailweir ends");
            }
        };
        self.readers.close_idle();
        self.conn.iter().for_each(never);
        if let Some(keeper) = self.readers.keeper.try_take() {
            keeper.iter().for_each(never);
        }
    }

    /// Whether the files are in place; a log that lost its name is begun anew.
    fn look(&mut self, moment: Moment) -> Result<(), QueueError> {
        let checked = if self.sight.suffices(moment) { Ok(()) } else { self.names.check(moment) };
        // Whoever waits now has seen nothing of what is answered next.
        self.sight.looked(moment, checked.is_ok() && !self.jobs.is_empty());
        let Err(trouble) = checked else {
            // After a commit it is too late: the next transaction does not begin.
            let lock = self.lock.as_ref().filter(|_| moment == Moment::Before);
            return lock.map_or(Ok(()), |lock| lock.keep());
        };
        if !trouble.renewable {
            return Err(trouble.into());
        }
        match self.renew() {
            Ok(()) => {
                let what = trouble.what;
                tracing::error!("{what}: all of it is merged into the database, and it is begun anew; nothing is lost");
                Ok(())
            }
            Err(e) => Err(QueueError::Unavailable(format!("{} ({e})", trouble.what))),
        }
    }

    /// Merges what is open of the log into the database, which is in place, and opens all anew.
    fn renew(&mut self) -> Result<(), QueueError> {
        self.wait_for_cut();
        let names = Arc::clone(&self.names);
        let busy = || QueueError::Unavailable("the queue is being read".into());
        trust::check_journal(&self.path)?;
        names
            .alone(|| {
                let readers = Arc::clone(&self.readers);
                let Some(mut keeper) = readers.keeper.try_take() else { return Err(busy()) };
                let conn = self.conn.take();
                if let Some(open) = conn.as_ref().or(keeper.as_ref()) {
                    match merge(open) {
                        Ok(true) => {}
                        Ok(false) | Err(_) => {
                            self.conn = conn;
                            return Err(busy());
                        }
                    }
                }
                // The last connections: with them goes what SQLite knows of the old log.
                readers.close_idle();
                *keeper = None;
                drop(conn);
                names.closed();
                let mut conn = schema::connect_writer(&self.path, &self.options)?;
                self.log.watch(&mut conn)?;
                schema::prepare(&mut conn, &self.path)?;
                *keeper = Some(log::anchor(&self.path)?);
                self.conn = Some(conn);
                names.learn(&self.path)
            })
            .unwrap_or_else(|| Err(busy()))
    }

    /// Logs, once, that the log grows and grows.
    pub(super) fn watch_log(&mut self) {
        let log = self.names.log_seen();
        let long = LONG_LOG * u64::from(self.options.log_pages) * schema::PAGE;
        if log > long && !self.tidy.long_log {
            self.tidy.long_log = true;
            tracing::warn!(
                size = %Size(log / 1024 * 1024),
                "the queue's log cannot be merged and grows: something reads the queue and does not end, a backup or \
                 another program (sqlite3); `mailweir status` shows the size"
            );
        } else if log <= long.min(schema::LOG_KEPT) {
            self.tidy.long_log = false;
        }
    }

    /// Logs that nothing may come in, and when it may again.
    fn tell(&mut self, refusal: Option<&QueueError>) {
        // The text of a full disk has numbers that change.
        let now = refusal.map(|e| if matches!(e, QueueError::Full(_)) { FULL.to_owned() } else { e.to_string() });
        if now == self.refusing {
            return;
        }
        match (refusal, self.refusing.as_deref()) {
            (Some(error @ QueueError::Full(_)), _) => {
                tracing::error!(%error, "no room: clients are told to retry; what is queued still leaves");
            }
            (Some(error), _) => tracing::error!(
                %error,
                "nothing is acknowledged: put the file back, or save what is still open with `mailweir backup FILE` \
                 before mailweir ends"
            ),
            (None, Some(FULL)) => tracing::info!("there is room again: messages are accepted"),
            (None, _) => tracing::info!("the queue's files are in place again: messages are accepted"),
        }
        self.refusing = now;
    }

    /// Empties a log that has come near the system's limit on the size of files, if nobody reads it.
    fn empty_log(&self) -> bool {
        room::log_is_in_the_way(self.names.sizes().1)
            && self.conn.as_ref().is_some_and(|conn| merge(conn).unwrap_or(false))
    }

    /// The way out found the disk full: gives up the reserve, or merges the log if there is none.
    pub(super) fn make_room(&mut self) -> bool {
        if !self.room.is_short() {
            return self.empty_log();
        }
        if self.room.give_up() {
            return true;
        }
        self.conn.as_ref().is_some_and(|conn| merge(conn).unwrap_or(false))
    }

    /// Does what can be done when nothing waits.
    pub(super) fn tidy(&mut self) {
        let early = self.tidy.next.is_some_and(|next| Instant::now() < next);
        if early || self.names.lost().is_some() || self.shared.taken.get().is_some() {
            return;
        }
        let names = Arc::clone(&self.names);
        let _index = names.use_index();
        self.after_cut();
        let again = match self.shrink() {
            Ok(false) => LOOK,
            Ok(true) => LATER,
            Err(error) => {
                tracing::debug!(%error, "the queue's file could not be made smaller");
                LATER
            }
        };
        self.tidy.next = Some(Instant::now() + again);
    }

    /// Free bytes from which it is worth while: fewer where the disk is full.
    fn shrink_from(&self) -> u64 {
        match self.refusing.as_deref() {
            Some(FULL) => self.room.aside().min(self.options.shrink_from),
            _ => self.options.shrink_from,
        }
    }

    /// Writes a database anew that is mostly empty inside, if that is quickly done; true if it was.
    ///
    /// As a whole: to give back single pages (`incremental_vacuum`) SQLite searches the list of all that are
    /// free for each of them, which takes the writer longer the more there are.
    fn shrink(&mut self) -> Result<bool, QueueError> {
        let Some(conn) = &self.conn else { return Ok(false) };
        let before = Layout::read(conn)?;
        let used = before.total - before.free;
        if before.free < self.shrink_from() || before.free < before.total / 2 || used > self.small() {
            return Ok(false);
        }
        // An earlier version kept a map of all pages, to give back single ones.
        conn.pragma_update(None, "auto_vacuum", 0)?;
        let written = conn.execute_batch("VACUUM");
        let after = written.and_then(|()| Ok(Layout::read(conn)?.total));
        if let Ok(after) = &after {
            self.names.expect_smaller(*after);
        }
        self.cut_file();
        let after = after?;
        tracing::info!(from = %Size(before.total), to = %Size(after), "the queue's file was made smaller");
        Ok(true)
    }

    /// Bytes in use up to which the database is made smaller.
    fn small(&self) -> u64 {
        SMALL.min(self.options.cache_bytes)
    }
}

/// The key in [`Writer::refusing`] of a disk without room.
const FULL: &str = "full";

pub(super) fn all_rows(conn: &Connection, text: &str) -> Result<(), QueueError> {
    let mut statement = conn.prepare(text)?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}
