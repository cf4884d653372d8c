//! The lock that keeps a second mailweir off the store.
//!
//! SQLite's own locks would let two processes share the file, and each would take the other's
//! leases for those of a dead process. So an exclusive `flock` on `PATH.lock` is held as long as
//! the store is open. The kernel drops it with the process, however that ends. The file itself
//! stays: removing it would let a third process lock a new file while a second waits on the old.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::queue::QueueError;

/// Held: no other process has the store open. Released on drop.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    /// Closing the file would do, unless somebody else has it open as well: a child process that was
    /// forked a moment ago has, until it runs its program.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Locks `database`.lock, or says who has it.
    pub(super) fn take(database: &Path) -> Result<Lock, QueueError> {
        let mut name = database.as_os_str().to_owned();
        name.push(".lock");
        let path = Path::new(&name);
        let failed = |e: std::io::Error| QueueError::Unavailable(format!("cannot lock {}: {e}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                // Only for the message; whatever stands there, the lock itself is what counts.
                let _ = (&mut file).take(20).read_to_string(&mut text);
                let who = match text.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid} has locked {}", path.display()),
                    Err(_) => format!("another process has locked {}", path.display()),
                };
                return Err(QueueError::InUse(who));
            }
            Err(e) => return Err(failed(e.into())),
        }
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Lock(file))
    }
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
        let inherited = lock.0.try_clone().unwrap();
        drop(lock);
        drop(Lock::take(&database).unwrap());
        drop(inherited);
    }
}
