//! Whether the files that SQLite has open are still those that stand under the store's names.
//!
//! A file that is removed, moved or replaced stays open: SQLite goes on writing to it, syncs succeed,
//! and all of it is gone with the process. One that is cut stays open, too, and has lost what it held.
//! So before anything is acknowledged the names are looked up ([`Names::check`]): same device and
//! inode (which no other file gets while this one is open), and not shorter than it was.
//!
//! - Nearly always a `stat` of each name is all: what has become no shorter has lost nothing. Only else
//!   the index of the log is asked why, and after a commit whether the log has all of it.
//! - Only `stat` of names, and never a descriptor of the database: closing one would drop SQLite's
//!   locks on it (POSIX). The index is held open from beginning to end for the same reason.
//! - A file that is put back is in place again. One that was cut is never whole again, also when it
//!   has grown past its old size.
//! - Another program may merge the log, empty it, or make the database smaller by SQLite's own means
//!   (`sqlite3`, VACUUM): `log_index` tells that from a cut.
//! - A log or an index without its name, beside a database that has it, can be begun anew: all of the
//!   log is merged first ([`Trouble::renewable`]).
//! - The index (`-shm`) is mapped into memory: a page of it that the file has lost ends the process
//!   (SIGBUS). [`Names::use_index`] gives it its size back, before a transaction touches it; the zeros
//!   make SQLite build it again from the log. That leaves the moment of a transaction.

use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use rustix::fs::OFlags;

use super::log_index::{LogIndex, Raw};
use super::schema::LOG_KEPT;
use super::trust::{beside, check_journal};
use crate::queue::QueueError;

/// Bytes of the log's header.
const LOG_HEADER: usize = 32;
/// Bytes of the index's header: twice what it knows of the log, and once of its merging.
const INDEX_HEADER: usize = 136;
/// How often the index is read until it is the same before and after a look at the files.
const LOOKS: usize = 10_000;
/// How long transactions of others are waited for before files are changed.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file is what its device and its number there say, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity {
    device: u64,
    number: u64,
}

impl Identity {
    fn of(file: &Metadata) -> Identity {
        Identity { device: file.dev(), number: file.ino() }
    }
}

/// A file that SQLite has open.
#[derive(Debug)]
struct Known {
    path: PathBuf,
    identity: Identity,
    /// Bytes that it has at least, unless it was cut.
    least: u64,
}

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// The file, and what happened to it.
    pub(super) what: String,
    /// The database itself is in place, and whole: a log or an index without a name.
    pub(super) renewable: bool,
    /// Something is lost.
    pub(super) cut: bool,
    /// Of the log: what is left of that must not be merged.
    log: bool,
}

impl Trouble {
    fn gone(what: String) -> Trouble {
        Trouble { what, renewable: false, cut: false, log: false }
    }

    fn renewable(what: String) -> Trouble {
        Trouble { what, renewable: true, cut: false, log: false }
    }
}

impl From<Trouble> for QueueError {
    fn from(trouble: Trouble) -> QueueError {
        QueueError::Unavailable(trouble.what)
    }
}

/// A file as it stands under its name.
#[derive(Clone, Copy, Debug)]
struct Seen {
    bytes: u64,
    /// It has fewer blocks than it is long: something may have been cut off, and written behind that.
    holes: bool,
}

/// Which look at the files: before a commit, or after one that somebody is told of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Moment {
    Before,
    After,
}

impl Known {
    fn learn(path: PathBuf) -> std::io::Result<Known> {
        let file = path.symlink_metadata()?;
        Ok(Known { path, identity: Identity::of(&file), least: 0 })
    }

    /// The size of the file, if it is the one under its name.
    fn size(&self) -> Result<u64, String> {
        self.seen().map(|seen| seen.bytes)
    }

    /// The file, if it is the one under its name.
    fn seen(&self) -> Result<Seen, String> {
        let shown = self.path.display();
        match self.path.symlink_metadata() {
            Ok(file) if Identity::of(&file) == self.identity => {
                Ok(Seen { bytes: file.len(), holes: file.blocks().saturating_mul(512) < file.len() })
            }
            Ok(_) => Err(format!("{shown} was replaced by another file while mailweir has the old one open")),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                Err(format!("{shown} was removed or moved away while mailweir has it open"))
            }
            Err(e) => Err(format!("{shown} cannot be looked at: {e}")),
        }
    }

    /// It has `size` bytes now, and so many, or `kept`, at least from now on.
    fn grown(&mut self, size: u64, kept: u64) -> Result<(), Trouble> {
        if size < self.least.min(kept) {
            return Err(self.cut_to(size));
        }
        self.least = size;
        Ok(())
    }

    fn cut_to(&self, size: u64) -> Trouble {
        let (shown, before) = (self.path.display(), self.least);
        let what = format!("{shown} was cut from {before} to {size} bytes while mailweir has it open");
        Trouble { what, renewable: false, cut: true, log: false }
    }
}

/// What SQLite keeps beside the database.
#[derive(Debug)]
struct Beside {
    log: Known,
    index: Known,
    /// To read its header; there are no POSIX locks on it that closing could drop.
    log_file: File,
    /// Closed only after SQLite's connections: it has locks on it.
    index_file: File,
    /// Which log the least size of `log` is about, once the index has told.
    salts: Option<[u8; 8]>,
    /// Bytes that the log had at the last look, with what is left in it of an earlier one.
    log_seen: u64,
}

impl Beside {
    fn learn(database: &Path) -> std::io::Result<Beside> {
        let open = |path: &Path, write| {
            let flags = OFlags::NOFOLLOW.bits().cast_signed();
            OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)
        };
        let (log, index) = (beside(database, "-wal"), beside(database, "-shm"));
        let (log_file, index_file) = (open(&log, false)?, open(&index, true)?);
        let known = |path, file: &File| {
            Ok::<_, std::io::Error>(Known { path, identity: Identity::of(&file.metadata()?), least: 0 })
        };
        Ok(Beside {
            log: known(log, &log_file)?,
            index: known(index, &index_file)?,
            log_file,
            index_file,
            salts: None,
            log_seen: 0,
        })
    }
}

#[derive(Debug)]
struct State {
    database: Known,
    /// `None` while they are begun anew.
    beside: Option<Beside>,
    /// A file lost something that SQLite had written: that does not heal.
    cut: Option<Trouble>,
    /// The database is being made smaller: down to this size it may be.
    shrinking: Option<u64>,
}

/// The names of a store that is open. In memory there are none, and nothing is ever wrong.
#[derive(Debug, Default)]
pub(super) struct Names {
    state: Mutex<Option<State>>,
    /// Held for reading while a transaction may touch the index, and for writing while that changes.
    index: RwLock<()>,
}

impl Names {
    /// Learns which files SQLite has opened; to be called as soon as it has, also again after it
    /// has opened others beside the same database.
    pub(super) fn learn(&self, database: &Path) -> Result<(), QueueError> {
        let failed = |e: std::io::Error| QueueError::Unavailable(format!("cannot look at the queue's files: {e}"));
        let mut state = self.state.lock();
        match state.as_mut() {
            Some(state) => state.beside = Some(Beside::learn(database).map_err(failed)?),
            None => {
                let known = Known::learn(database.to_owned()).map_err(failed)?;
                let beside = Some(Beside::learn(database).map_err(failed)?);
                *state = Some(State { database: known, beside, cut: None, shrinking: None });
            }
        }
        drop(state);
        self.look().map_err(QueueError::from)
    }

    /// Whether the files are in place, and whole as far as their sizes tell. What was cut is remembered.
    pub(super) fn check(&self, moment: Moment) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        if let Some(trouble) = &state.cut {
            return Err(trouble.clone());
        }
        let found = state.check(moment);
        state.cut = found.clone().err().filter(|trouble| trouble.cut);
        found
    }

    /// The same, only to tell.
    pub(super) fn look(&self) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        state.cut.clone().map_or_else(|| state.explain(), Err)
    }

    /// Something of the database or the log is lost: writing on would only add to the damage.
    pub(super) fn lost(&self) -> Option<QueueError> {
        self.state.lock().as_ref()?.cut.clone().map(QueueError::from)
    }

    /// The log has holes, which must not be merged. One that is whole may save what the database lost.
    pub(super) fn log_is_lost(&self) -> bool {
        self.state.lock().as_ref().and_then(|state| state.cut.as_ref()).is_some_and(|trouble| trouble.log)
    }

    /// The database will be cut by SQLite itself, down to `bytes`.
    pub(super) fn expect_smaller(&self, bytes: u64) {
        if let Some(state) = self.state.lock().as_mut() {
            state.shrinking = Some(state.shrinking.map_or(bytes, |before| before.min(bytes)));
        }
    }

    /// Learns, with the right to write, which log there is and how long, and to which size another program
    /// may have brought the database: by the next look it may be greater, and the file not have followed.
    pub(super) fn note(&self) {
        if let Some(state) = self.state.lock().as_mut()
            && let Some(index) = state.raw().and_then(|raw| raw.parse())
        {
            state.may_shrink(&index);
            if let Some(beside) = &mut state.beside {
                beside.learn_log(&index);
            }
        }
    }

    /// Whether opening the store by its name gives what is open already: else a new connection would
    /// be one to another store, or with a log of its own.
    pub(super) fn may_open(&self) -> Result<(), QueueError> {
        let state = self.state.lock();
        let Some(state) = state.as_ref() else { return Ok(()) };
        let beside = state.beside.iter().flat_map(|beside| [&beside.log, &beside.index]);
        for known in std::iter::once(&state.database).chain(beside) {
            known.size().map_err(QueueError::Unavailable)?;
        }
        check_journal(&state.database.path)
    }

    /// To be held while a transaction lasts. Before that, the index gets back what was cut off.
    pub(super) fn use_index(&self) -> RwLockReadGuard<'_, ()> {
        if self.mend_index(false)
            && let Some(_alone) = self.index.try_write_for(PATIENCE)
        {
            self.mend_index(true);
        }
        self.index.read()
    }

    /// Whether the index is shorter than it was; gives it its size again if `mend`.
    fn mend_index(&self, mend: bool) -> bool {
        let mut state = self.state.lock();
        let Some(beside) = state.as_mut().and_then(|state| state.beside.as_mut()) else { return false };
        let Ok(size) = beside.index_file.metadata().map(|file| file.len()) else { return false };
        if size >= beside.index.least {
            beside.index.least = size;
            return false;
        }
        if mend {
            let path = beside.index.path.display();
            // Its head may be left, and would be believed though what it tells of is gone.
            let mended = beside.index_file.set_len(beside.index.least);
            match mended.and_then(|()| beside.index_file.write_all_at(&[0; INDEX_HEADER], 0)) {
                Ok(()) => tracing::error!(
                    "{path} was cut while mailweir has it open: it has its size again, and is built anew from the log"
                ),
                Err(error) => tracing::error!(%error, "{path} was cut, and cannot be given its size again"),
            }
        }
        true
    }

    /// Does `work` while nobody is in a transaction nor begins one; `None` if somebody stays in one.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let _alone = self.index.try_write_for(PATIENCE)?;
        Some(work())
    }

    /// Sizes of the database and of its log.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let state = self.state.lock();
        let Some(state) = state.as_ref() else { return (0, 0) };
        let log = state.beside.as_ref().map_or(0, |beside| beside.log.size().unwrap_or(0));
        (state.database.size().unwrap_or(0), log)
    }

    /// Bytes that the log had at the last look.
    pub(super) fn log_seen(&self) -> u64 {
        self.state.lock().as_ref().and_then(|state| state.beside.as_ref()).map_or(0, |beside| beside.log_seen)
    }

    /// The last connection is closed: the log and its index are not those any more.
    pub(super) fn closed(&self) {
        if let Some(state) = self.state.lock().as_mut() {
            state.beside = None;
        }
    }
}

impl State {
    fn raw(&self) -> Option<Raw> {
        self.beside.as_ref().and_then(|beside| Raw::read(&beside.index_file))
    }

    fn check(&mut self, moment: Moment) -> Result<(), Trouble> {
        let (database, log) = self.seen();
        if let (Ok(database), Some(Ok(log))) = (&database, &log)
            && self.has_all(*database, *log)
        {
            match (moment, &self.beside) {
                (Moment::Before, Some(beside)) => return beside.index.size().map(drop).map_err(Trouble::renewable),
                (Moment::After, _) if self.agrees(log.bytes) => return Ok(()),
                _ => {}
            }
        }
        self.explain()
    }

    /// Nothing has become shorter since the last look, so that nothing is to be explained.
    fn has_all(&mut self, database: Seen, log: Seen) -> bool {
        let Some(beside) = &mut self.beside else { return false };
        let all = self.shrinking.is_none()
            && database.bytes >= self.database.least
            && log.bytes >= beside.log_seen
            && !log.holes;
        if all {
            (self.database.least, beside.log_seen) = (database.bytes, log.bytes);
        }
        all
    }

    /// The log has all that the index says, and no other program has made the database smaller.
    fn agrees(&self, log: u64) -> bool {
        let index = self.raw().and_then(|raw| raw.parse());
        index.is_some_and(|index| log >= index.log && (index.database == 0 || index.database >= self.database.least))
    }

    fn seen(&self) -> (Result<Seen, String>, Option<Result<Seen, String>>) {
        (self.database.seen(), self.beside.as_ref().map(|beside| beside.log.seen()))
    }

    /// The files, and what the index says of them: of one moment.
    fn explain(&mut self) -> Result<(), Trouble> {
        let mut before = self.raw();
        for look in 1..=LOOKS {
            let sizes = self.sizes();
            let after = self.raw();
            let settled = before == after && after.is_none_or(|raw| raw.is_settled() || look == LOOKS);
            if settled {
                return self.judge(sizes, after.and_then(|raw| raw.parse()));
            }
            before = after;
            std::thread::yield_now();
        }
        Err(Trouble::gone("the queue's files are being changed all the time by another program".into()))
    }

    fn sizes(&self) -> (Result<u64, String>, Option<Result<u64, String>>) {
        (self.database.size(), self.beside.as_ref().map(|beside| beside.log.size()))
    }

    fn judge(
        &mut self,
        (database, log): (Result<u64, String>, Option<Result<u64, String>>),
        index: Option<LogIndex>,
    ) -> Result<(), Trouble> {
        let size = database.map_err(Trouble::gone)?;
        if let Some(index) = &index {
            self.may_shrink(index);
        }
        if let Some(to) = self.shrinking.filter(|to| size <= self.database.least && size >= *to) {
            self.database.least = size;
            self.shrinking = (size > to).then_some(to);
        }
        self.database.grown(size, u64::MAX)?;
        if index.is_some_and(|index| index.merged && index.database > 0 && size >= index.database) {
            // It has been cut, or will not be.
            self.shrinking = self.shrinking.filter(|to| *to >= size);
        }
        let missing = || Trouble::renewable("the queue's log could not be begun anew yet".into());
        let beside = self.beside.as_mut().ok_or_else(missing)?;
        let size = log.ok_or_else(missing)?.map_err(Trouble::renewable)?;
        let mut header = [0; LOG_HEADER];
        // Cut to nothing and written on: what was before the new is a hole.
        if size > 0 && beside.log_file.read_at(&mut header, 0).is_ok() && header == [0; LOG_HEADER] {
            return Err(Trouble { log: true, ..beside.log.cut_to(0) });
        }
        beside.judge_log(size, index).map_err(|trouble| Trouble { log: true, ..trouble })?;
        beside.log_seen = size;
        beside.index.size().map(drop).map_err(Trouble::renewable)
    }

    fn may_shrink(&mut self, index: &LogIndex) {
        if index.database > 0 && index.database < self.database.least {
            self.shrinking = Some(self.shrinking.map_or(index.database, |to| to.min(index.database)));
        }
    }
}

impl Beside {
    fn learn_log(&mut self, index: &LogIndex) {
        // An index that was built from an empty log knows of no other before.
        let anew = self.salts != Some(index.salts) && (index.salts != [0; 8] || self.salts.is_none());
        self.log.least = if anew { index.log } else { index.log.max(self.log.least) };
        self.salts = if anew { Some(index.salts) } else { self.salts };
    }

    fn judge_log(&mut self, size: u64, index: Option<LogIndex>) -> Result<(), Trouble> {
        match index {
            Some(index) => self.learn_log(&index),
            // SQLite itself cuts it to no less than that.
            None if self.salts.is_none() => return self.log.grown(size, LOG_KEPT),
            None => {}
        }
        if size < self.log.least { Err(self.log.cut_to(size)) } else { Ok(()) }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
