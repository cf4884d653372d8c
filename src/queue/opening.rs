//! The one place that knows which kinds of stores there are: it opens what `[queue] store` names, copies it, and tells
//! what can be told of it before it is open.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::sqlite::{Aside, Options, SqliteQueue, backup};
use super::{Counts, Queue, QueueError, SaveError};
use crate::clock::Clock;
use crate::config::{self, Store};

/// Opens the store for a relay, which makes what is not there. Blocks.
///
/// # Errors
/// As [`SqliteQueue::open`].
pub fn open(of: &config::Queue, clock: Clock) -> Result<Arc<dyn Queue>, QueueError> {
    match &of.store {
        Store::Sqlite(path) => {
            let options = Options { min_free: Some(of.min_free), ..Options::default() }.within(of.memory);
            Ok(SqliteQueue::open_with(path, clock, options)?)
        }
    }
}

/// Opens the store for a command while no relay runs: nothing is made, and nothing changes of what a relay would set
/// aside. Blocks.
///
/// # Errors
/// As [`SqliteQueue::open_for_inspection`].
pub fn open_for_command(store: &Store) -> Result<Arc<dyn Queue>, QueueError> {
    match store {
        Store::Sqlite(path) => Ok(SqliteQueue::open_for_inspection(path)?),
    }
}

/// Why a user cannot have a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutOfReach {
    /// Nothing is there.
    Missing(PathBuf),
    /// This user may not.
    Forbidden(PathBuf),
    /// It cannot be looked at.
    Unknown(PathBuf, Errno),
}

/// Whether this user may read the store, and write it (`write`): to be asked before it is opened, as whoever opens it
/// would say only that it cannot be opened.
///
/// # Errors
/// Why not.
pub fn within_reach(store: &Store, write: bool) -> Result<(), OutOfReach> {
    match store {
        Store::Sqlite(path) => {
            let wanted = if write { Access::READ_OK | Access::WRITE_OK } else { Access::READ_OK };
            access(path, wanted).map_err(|error| match error {
                Errno::NOENT | Errno::NOTDIR => OutOfReach::Missing(path.clone()),
                Errno::ACCESS => OutOfReach::Forbidden(path.clone()),
                error => OutOfReach::Unknown(path.clone(), error),
            })
        }
    }
}

/// What the store sets aside for mail on its way out.
pub fn aside(of: &config::Queue) -> Aside {
    match &of.store {
        Store::Sqlite(path) => Aside::of(path, of.min_free),
    }
}

/// Copies the store, in use or not, to the new file `copy`. Returns the bytes of the copy, and what is in it. Blocks.
///
/// # Errors
/// It cannot be read, or the copy cannot be written.
pub fn copy(store: &Store, copy: &Path) -> Result<(u64, Counts), SaveError> {
    match store {
        Store::Sqlite(path) => {
            let copied = backup::backup(path, copy)?;
            Ok((copied.bytes, copied.counts))
        }
    }
}
