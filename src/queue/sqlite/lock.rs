//! The lock that keeps a second mailweir off the store.
//!
//! SQLite's own locks would let two processes share the file, and each would take the other's
//! leases for those of a dead process. So an exclusive `flock` on `PATH.lock` is held as long as
//! the store is open. The kernel drops it with the process, however that ends. The file itself
//! stays: removing it would let a third process lock a new file while a second waits on the old. If
//! somebody else removes it, a new one is made and locked, too ([`Lock::keep`]).

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{FlockOperation, OFlags, flock};

use super::trust::beside;
use crate::queue::QueueError;

/// Held: no other process has the store open. Released on drop.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    /// Its device and its number there, which no other file has while it is open.
    identity: (u64, u64),
}

impl Drop for Lock {
    /// Closing the file would do, unless somebody else has it open as well: a child process that was
    /// forked a moment ago has, until it runs its program.
    fn drop(&mut self) {
        let _ = flock(&self.held.lock().file, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Locks `database`.lock, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Lock, QueueError> {
        let path = beside(database, ".lock");
        let held = Mutex::new(take(&path)?);
        Ok(Lock { path, held })
    }

    /// Locks the file that stands under the name now, if that is another one than was locked, or none.
    pub(super) fn keep(&self) -> Result<(), QueueError> {
        let mut held = self.held.lock();
        let named = self.path.symlink_metadata().map(|named| (named.dev(), named.ino()));
        if named.is_ok_and(|named| named == held.identity) {
            return Ok(());
        }
        *held = take(&self.path)?;
        tracing::warn!("{} was removed or replaced: it was made and locked again", self.path.display());
        Ok(())
    }
}

fn take(path: &Path) -> Result<Held, QueueError> {
    let failed = |e: std::io::Error| QueueError::Unavailable(format!("cannot lock {}: {e}", path.display()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            // Only for the message; whatever stands there, the lock itself is what counts.
            let _ = (&file).take(20).read_to_string(&mut text);
            let who = match text.trim().parse::<u32>() {
                Ok(pid) => format!("process {pid} has locked {}", path.display()),
                Err(_) => format!("another process has locked {}", path.display()),
            };
            return Err(QueueError::InUse(who));
        }
        Err(e) => return Err(failed(e.into())),
    }
    // Over what stands there: a start on a full disk has no room to ask for. It is only told to
    // people; without it the lock holds as well.
    let pid = format!("{}\n", std::process::id());
    if file.write_all_at(pid.as_bytes(), 0).is_ok() {
        let _ = file.set_len(pid.len() as u64);
    }
    let identity = file.metadata().map(|file| (file.dev(), file.ino())).map_err(failed)?;
    Ok(Held { file, identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_released_though_a_child_process_has_the_file_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("queue.db");
        let lock = Lock::take(&database).unwrap();
        assert!(matches!(Lock::take(&database), Err(QueueError::InUse(_))));
        // What a fork makes of it.
        let inherited = lock.held.lock().file.try_clone().unwrap();
        drop(lock);
        drop(Lock::take(&database).unwrap());
        drop(inherited);
    }

    #[test]
    fn a_lock_file_that_was_removed_is_made_and_locked_again() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("queue.db");
        let lock = Lock::take(&database).unwrap();
        lock.keep().unwrap();
        std::fs::remove_file(beside(&database, ".lock")).unwrap();
        lock.keep().unwrap();
        assert!(matches!(Lock::take(&database), Err(QueueError::InUse(_))));
        // Somebody else was quicker.
        std::fs::remove_file(beside(&database, ".lock")).unwrap();
        let other = Lock::take(&database).unwrap();
        assert!(matches!(lock.keep(), Err(QueueError::InUse(_))));
        drop(other);
        lock.keep().unwrap();
    }
}
