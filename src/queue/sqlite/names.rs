//! Whether the files that SQLite has open are still those that stand under the store's names.
//!
//! A file that is removed, moved or replaced stays open: SQLite goes on writing to it, syncs succeed,
//! and all of it is gone with the process. One that is cut stays open, too, and has lost what it held.
//! So before anything is acknowledged the names are looked up ([`Names::check`]): same device and
//! inode (which no other file gets while this one is open), and not shorter than it was.
//!
//! - Only `stat` of names, and never a descriptor of the database: closing one would drop SQLite's
//!   locks on it (POSIX). The index is held open from beginning to end for the same reason.
//! - A file that is put back is in place again. One that was cut is never whole again, also when it
//!   has grown past its old size.
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

use super::schema::LOG_KEPT;
use super::trust::{beside, check_journal};
use crate::queue::QueueError;

/// Bytes of the log's header.
const LOG_HEADER: usize = 32;
/// Bytes of the index's header: twice what it knows of the log, and once of its merging.
const INDEX_HEADER: usize = 136;
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

impl Known {
    fn learn(path: PathBuf) -> std::io::Result<Known> {
        let file = path.symlink_metadata()?;
        Ok(Known { path, identity: Identity::of(&file), least: 0 })
    }

    /// The size of the file, if it is the one under its name.
    fn size(&self) -> Result<u64, String> {
        let shown = self.path.display();
        match self.path.symlink_metadata() {
            Ok(file) if Identity::of(&file) == self.identity => Ok(file.len()),
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
        Ok(Beside { log: known(log, &log_file)?, index: known(index, &index_file)?, log_file, index_file })
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

    /// Whether the files are in place, and whole as far as their sizes tell. A log without a byte is
    /// whole if `emptied` says that SQLite holds it for empty: another program may have merged it.
    /// What was cut is remembered.
    pub(super) fn check(&self, emptied: impl FnOnce() -> bool) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        if let Some(trouble) = &state.cut {
            return Err(trouble.clone());
        }
        let mut found = state.check();
        if let Err(trouble) = &found
            && trouble.cut
        {
            if state.log_is_bare() && emptied() {
                state.beside.iter_mut().for_each(|beside| beside.log.least = 0);
                found = state.check();
            }
            state.cut = found.clone().err().filter(|trouble| trouble.cut);
        }
        found
    }

    /// The same, only to tell.
    pub(super) fn look(&self) -> Result<(), Trouble> {
        let mut state = self.state.lock();
        let Some(state) = state.as_mut() else { return Ok(()) };
        state.cut.clone().map_or_else(|| state.check(), Err)
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

    /// The log was emptied on purpose.
    pub(super) fn log_emptied(&self) {
        if let Some(beside) = self.state.lock().as_mut().and_then(|state| state.beside.as_mut()) {
            beside.log.least = 0;
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

    /// The last connection is closed: the log and its index are not those any more.
    pub(super) fn closed(&self) {
        if let Some(state) = self.state.lock().as_mut() {
            state.beside = None;
        }
    }
}

impl State {
    fn log_is_bare(&self) -> bool {
        self.beside.as_ref().is_some_and(|beside| beside.log.size() == Ok(0))
    }

    fn check(&mut self) -> Result<(), Trouble> {
        let size = self.database.size().map_err(Trouble::gone)?;
        if let Some(to) = self.shrinking.filter(|to| size <= self.database.least && size >= *to) {
            self.database.least = size;
            self.shrinking = (size > to).then_some(to);
        }
        self.database.grown(size, u64::MAX)?;
        let missing = || Trouble::renewable("the queue's log could not be begun anew yet".into());
        let beside = self.beside.as_mut().ok_or_else(missing)?;
        let size = beside.log.size().map_err(Trouble::renewable)?;
        let mut header = [0; LOG_HEADER];
        // Cut to nothing and written on: what was before the new is a hole.
        if size > 0 && beside.log_file.read_at(&mut header, 0).is_ok() && header == [0; LOG_HEADER] {
            return Err(Trouble { log: true, ..beside.log.cut_to(0) });
        }
        // SQLite itself cuts it to no less than that.
        beside.log.grown(size, LOG_KEPT).map_err(|trouble| Trouble { log: true, ..trouble })?;
        beside.index.size().map(drop).map_err(Trouble::renewable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Files as SQLite leaves them; nothing of it is a database.
    fn files() -> (tempfile::TempDir, PathBuf, Names) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        for suffix in ["", "-wal", "-shm"] {
            fs::write(beside(&path, suffix), vec![b'x'; 1000]).unwrap();
        }
        let names = Names::default();
        names.learn(&path).unwrap();
        (dir, path, names)
    }

    fn cut(path: &Path, to: u64) {
        OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
    }

    #[test]
    fn a_file_without_its_name_is_missed_until_it_is_back() {
        for (suffix, renewable) in [("", false), ("-wal", true), ("-shm", true)] {
            let (dir, path, names) = files();
            let (file, away) = (beside(&path, suffix), dir.path().join("away"));
            fs::rename(&file, &away).unwrap();
            let trouble = names.check(|| false).unwrap_err();
            assert!(trouble.what.contains("removed or moved away"), "{trouble:?}");
            assert!(trouble.what.contains(&*file.to_string_lossy()), "{trouble:?}");
            assert_eq!(trouble.renewable, renewable);
            assert!(names.may_open().is_err());
            fs::write(&file, vec![b'x'; 1000]).unwrap();
            assert!(names.check(|| false).unwrap_err().what.contains("replaced by another file"));
            fs::rename(&away, &file).unwrap();
            names.check(|| false).unwrap();
            names.may_open().unwrap();
        }
    }

    #[test]
    fn what_was_cut_is_never_whole_again() {
        for suffix in ["", "-wal"] {
            let (_dir, path, names) = files();
            let file = beside(&path, suffix);
            cut(&file, 10);
            assert!(names.check(|| false).unwrap_err().what.contains("was cut from 1000 to 10 bytes"));
            fs::write(&file, vec![b'x'; 2000]).unwrap();
            assert!(names.check(|| false).is_err(), "{suffix}");
        }
    }

    #[test]
    fn a_hole_at_the_beginning_of_the_log_is_found_however_long_it_has_grown() {
        let (_dir, path, names) = files();
        let log = beside(&path, "-wal");
        cut(&log, 0);
        cut(&log, 4000);
        assert!(names.check(|| false).unwrap_err().what.contains("-wal was cut from 1000 to 0"));
    }

    #[test]
    fn sqlite_itself_may_make_its_files_smaller() {
        let (_dir, path, names) = files();
        let log = beside(&path, "-wal");
        cut(&log, LOG_KEPT + 100);
        names.check(|| false).unwrap();
        cut(&log, LOG_KEPT);
        names.check(|| false).unwrap();
        // By another program; or by this one, which tells.
        cut(&log, 0);
        names.check(|| true).unwrap();
        fs::write(&log, b"x").unwrap();
        names.check(|| false).unwrap();
        names.log_emptied();
        cut(&log, 0);
        names.check(|| false).unwrap();
        names.expect_smaller(400);
        names.check(|| false).unwrap();
        cut(&path, 400);
        names.check(|| false).unwrap();
        cut(&path, 300);
        assert!(names.check(|| false).is_err());
    }

    #[test]
    fn an_index_that_was_cut_has_its_size_again_before_it_is_used() {
        let (_dir, path, names) = files();
        drop(names.use_index());
        let index = beside(&path, "-shm");
        for to in [0, 130, 500] {
            cut(&index, to);
            drop(names.use_index());
            let whole = fs::read(&index).unwrap();
            assert_eq!(whole.len(), 1000);
            assert!(whole[..136].iter().all(|byte| *byte == 0), "cut to {to}, its head would be believed");
        }
    }
}
