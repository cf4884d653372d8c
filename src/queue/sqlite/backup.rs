//! A copy of the queue while mailweir runs (or does not): one state of it, whole or not there at all.
//!
//! It is made by the process that asks for it ([`backup`]), on a connection of its own that only reads.
//! Only where the files have lost their names, the relay that has them open has to do it ([`save`]). The
//! relay has no part in it: a read transaction of the write-ahead log neither waits for the writer
//! nor holds it up, and keeps showing the state it began with. What it costs the relay is that the
//! log is not cut while it lasts, and the disk's time; so the copy is synced as it grows, lest a
//! commit of the queue waits behind gigabytes of it.
//!
//! - The copy has its name only once it is complete and on stable storage; until then it is
//!   `FILE.part`, locked, so that two do not write to one. What a killed one left is written over.
//! - A file is never replaced.
//! - Memory is bounded by [`STEP`] and SQLite's caches, whatever the size of the queue.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use super::read::Keeper;
use super::{CACHE, READERS_PART, rows, schema, sql, trust};
use crate::crash;
use crate::queue::{Counts, QueueError, SaveError};

/// Pages copied at once: 1 MiB.
const STEP: i32 = 128;
/// Steps after which what is written is synced: 16 MiB.
const STEPS_OF_A_SYNC: usize = 16;
/// How often, and how long after each time, a step is tried that finds a lock in its way.
const TRIES: usize = 500;
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// What was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Size of the copy.
    pub bytes: u64,
    /// What is in it.
    pub counts: Counts,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something of that name is there.
    #[error("{} is there already: a backup never replaces anything", .0.display())]
    Exists(PathBuf),
    /// Another process is writing it.
    #[error("another backup to {} is under way", .0.display())]
    Busy(PathBuf),
    /// The copy cannot be written.
    #[error("cannot write {}: {}", .0.display(), .1)]
    Target(PathBuf, io::Error),
    /// The queue cannot be read.
    #[error(transparent)]
    Store(#[from] QueueError),
}

impl BackupError {
    /// It may work later, without anybody's help.
    pub fn is_temporary(&self) -> bool {
        matches!(self, BackupError::Busy(_) | BackupError::Store(QueueError::Unavailable(_)))
    }
}

impl From<BackupError> for SaveError {
    fn from(e: BackupError) -> SaveError {
        SaveError { temporary: e.is_temporary(), message: format!("no backup: {e}") }
    }
}

impl From<rusqlite::Error> for BackupError {
    fn from(e: rusqlite::Error) -> BackupError {
        BackupError::Store(e.into())
    }
}

/// Copies the queue in the file `store` to the new file `copy` (mode 0600): the state of one moment
/// after the call began. It is on stable storage, with its name, when this returns.
///
/// # Errors
/// [`BackupError`]; then there is no `copy` (or another's).
pub fn backup(store: &Path, copy: &Path) -> Result<Copied, BackupError> {
    make(copy, |part, file| {
        trust::check(store)?;
        let source =
            schema::connect_reader(store, CACHE / READERS_PART).map_err(|e| super::error::at_path(store, e))?;
        fill(&source, store, part, file, || false)
    })
}

/// The same from what this process has open of `store`, whatever stands under its name now.
///
/// # Errors
/// As [`backup`]; the copy ends unfinished when the store is closed.
pub(super) fn save(keeper: &Keeper, store: &Path, copy: &Path) -> Result<Copied, BackupError> {
    make(copy, |part, file| match keeper.try_take().as_deref() {
        Some(Some(source)) => fill(source, store, part, file, || keeper.is_closing()),
        Some(None) => Err(QueueError::Closed.into()),
        None => Err(QueueError::Unavailable("another copy is being made".into()).into()),
    })
}

/// Makes the copy that `fill` writes, if that says what is in it.
fn make(copy: &Path, fill: impl FnOnce(&Path, &File) -> Result<Counts, BackupError>) -> Result<Copied, BackupError> {
    let target = |path: &Path, e: io::Error| BackupError::Target(path.to_owned(), e);
    // Only to say so early: what counts is the renaming at the end.
    if copy.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(copy.to_owned()));
    }
    let mut part = copy.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = claim(&part, copy)?;
    crash::point("backup.begin");
    let made = fill(&part, &file).and_then(|counts| {
        crash::point("backup.copied");
        file.sync_all().map_err(|e| target(&part, e))?;
        let bytes = file.metadata().map_err(|e| target(&part, e))?.len();
        crash::point("backup.synced");
        name(&part, copy)?;
        Ok(Copied { bytes, counts })
    });
    let copied = match made {
        Ok(copied) => copied,
        Err(e) => {
            // While it is still locked: nobody else's is removed.
            let _ = fs::remove_file(&part);
            return Err(e);
        }
    };
    crash::point("backup.named");
    let directory = copy.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|d| d.sync_all()).map_err(|e| {
        // It is ours: a name that was taken would not have been given.
        let _ = fs::remove_file(copy);
        target(directory, e)
    })?;
    Ok(copied)
}

/// The empty file `part`, of this user only, locked.
fn claim(part: &Path, copy: &Path) -> Result<File, BackupError> {
    let failed = |e: io::Error| BackupError::Target(part.to_owned(), e);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(part)
        .map_err(|e| match part.symlink_metadata() {
            Ok(there) if there.is_symlink() => {
                let text = "it is there, and is a symbolic link, which leads elsewhere: remove it";
                failed(io::Error::new(io::ErrorKind::PermissionDenied, text))
            }
            _ => failed(e),
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Err(BackupError::Busy(copy.to_owned())),
        Err(e) => return Err(failed(e.into())),
    }
    // The one that had it may have given it its name meanwhile: then it is a backup, and complete.
    let mine = file.metadata().map_err(failed)?;
    let named = part.symlink_metadata().map_err(|_| BackupError::Busy(copy.to_owned()))?;
    if (mine.dev(), mine.ino()) != (named.dev(), named.ino()) {
        return Err(BackupError::Busy(copy.to_owned()));
    }
    // Mail is not written into what somebody else has prepared, and may read.
    let foreign = (mine.uid() != rustix::process::geteuid().as_raw()).then(|| "is not a file of this user".to_owned());
    let directory = copy.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = directory.metadata().map_err(failed)?;
    if let Some(why) = foreign.or_else(|| trust::fault_of_file(&mine, &directory)) {
        let text = format!("it is there, and {why}: remove it");
        return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, text)));
    }
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    if mine.len() > 0 {
        file.set_len(0).map_err(failed)?;
    }
    Ok(file)
}

/// Copies the pages of one state of the store; returns what is in it.
fn fill(
    source: &Connection,
    store: &Path,
    part: &Path,
    file: &File,
    cancelled: impl Fn() -> bool,
) -> Result<Counts, BackupError> {
    let id: i64 = source.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if id != schema::APPLICATION_ID {
        let text = format!("{}: this is not a mailweir queue", store.display());
        return Err(QueueError::Damaged(text).into());
    }
    // Held to the end: every step sees the same state, and none has to begin again because the
    // queue has changed.
    let state = source.unchecked_transaction()?;
    // An older file can be copied before a newer mailweir changes it.
    let version: i64 = state.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let tally = if version < schema::OWES_REPORTS { sql::OLDER_TALLY } else { sql::TALLY };
    let counts = state.query_row(tally, [], rows::counts)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut copy = Connection::open_with_flags(part, flags)?;
    // It is worth nothing until it is complete, and synced here.
    copy.pragma_update(None, "synchronous", "off")?;
    copy.pragma_update_and_check(None, "journal_mode", "off", |_| Ok(()))?;
    let full = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => BackupError::Target(part.to_owned(), io::ErrorKind::StorageFull.into()),
        _ => e.into(),
    };
    let work = Backup::new(&state, &mut copy)?;
    let (mut steps, mut tries) = (0, 0);
    loop {
        if cancelled() {
            return Err(QueueError::Closed.into());
        }
        match work.step(STEP).map_err(full)? {
            StepResult::Done => break,
            StepResult::More => tries = 0,
            _ if tries < TRIES => {
                tries += 1;
                std::thread::sleep(BETWEEN_TRIES);
                continue;
            }
            _ => return Err(QueueError::Unavailable(format!("{} is locked", store.display())).into()),
        }
        steps += 1;
        if steps % STEPS_OF_A_SYNC == 0 {
            file.sync_data().map_err(|e| BackupError::Target(part.to_owned(), e))?;
        }
        crash::point("backup.step");
    }
    drop(work);
    copy.close().map_err(|(_, e)| full(e))?;
    Ok(counts)
}

/// Gives the complete copy its name, unless something has it.
fn name(part: &Path, copy: &Path) -> Result<(), BackupError> {
    let failed = |e: io::Error| match e.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(copy.to_owned()),
        _ => BackupError::Target(copy.to_owned(), e),
    };
    match renameat_with(CWD, part, CWD, copy, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Some file systems cannot; nearly all of those know a second name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            fs::hard_link(part, copy).map_err(failed)?;
            fs::remove_file(part).map_err(|e| BackupError::Target(part.to_owned(), e))
        }
        Err(e) => Err(failed(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::sqlite::Options;

    /// As whoever installs a newer mailweir does it: the copy first, then the start that changes the file.
    #[test]
    fn a_store_of_every_older_version_can_be_copied_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for version in 1..=schema::LADDER.len() {
            let (store, copy) = (dir.path().join(format!("{version}.db")), dir.path().join(format!("{version}.copy")));
            std::fs::write(&store, b"").unwrap();
            let mut conn = schema::connect_writer(&store, &Options::default()).unwrap();
            schema::climb(&mut conn, &schema::LADDER[..version]).unwrap();
            conn.execute_batch("UPDATE tally SET messages = 7, failed = 8").unwrap();
            let copied = backup(&store, &copy).unwrap();
            assert_eq!(copied.counts, Counts { messages: 7, failed: 8, ..Counts::default() }, "version {version}");
            let conn = Connection::open(&copy).unwrap();
            let kept: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(kept, i64::try_from(version).unwrap());
        }
    }
}
