//! The write-ahead log after a disk that failed: what stands in it must be on the disk before
//! anything is built on it.
//!
//! When an fsync fails, Linux marks the pages that it could not write as clean: they read well from
//! memory, the next fsync succeeds, and they never reach the disk. SQLite takes the log as it reads
//! it. So a commit that failed might be found valid, later commits be written behind it and
//! acknowledged, and all of those be lost with the power, for the log ends at its first hole.
//!
//! - While the process runs, a second connection ([`anchor`]) keeps SQLite's index of the log
//!   alive, which ends at the last commit that succeeded: the next one overwrites what failed.
//! - At start the log is written over itself and synced ([`rewrite`]), for who knows what happened
//!   to the disk under the process before. That costs nothing after a close in good order, and
//!   otherwise as much as the log is long (32 MiB, seldom more).

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use super::schema;
use crate::queue::QueueError;

/// Bytes of the page cache of [`anchor`], which seldom reads.
const ANCHOR_CACHE: u64 = 512 * 1024;

/// Bytes written at once.
const BLOCK: usize = 256 * 1024;

/// Makes durable what can be read of the log. Nobody else may be writing to it: that is what the
/// transaction is for.
pub(super) fn rewrite(conn: &mut Connection, database: &Path) -> Result<(), QueueError> {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    let failed = |e: std::io::Error| QueueError::Unavailable(format!("cannot make the queue's log durable: {e}"));
    let _alone = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // SQLite has no POSIX locks on this file that closing it could drop.
    match OpenOptions::new().read(true).write(true).open(Path::new(&name)) {
        Ok(file) => over_itself(&file).map_err(failed),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed(e)),
    }
}

fn over_itself(file: &File) -> std::io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    loop {
        let n = file.read_at(&mut block, at)?;
        let Some(read) = block.get(..n).filter(|read| !read.is_empty()) else { break };
        file.write_all_at(read, at)?;
        at += n as u64;
    }
    if at > 0 { file.sync_all() } else { Ok(()) }
}

/// A connection that only is there. Without it, closing the writer's after a fault would be closing
/// the last one, and opening it again would read the log from the start, with what failed in it.
pub(super) fn anchor(database: &Path) -> Result<Connection, QueueError> {
    let conn = schema::connect_reader(database, ANCHOR_CACHE)?;
    // Opens the log and its index.
    conn.query_row("SELECT count(*) FROM tally", [], |_| Ok(()))?;
    Ok(conn)
}
