//! Cutting the database's file after it was written anew smaller, without the writer.
//!
//! SQLite cuts the file as it merges the log, in one call, and a file system takes half a second to free a
//! gigabyte. Any connection may merge, and commits go on meanwhile: they only add to the log. So a thread with
//! a connection of its own does it, and the writer merges nothing until that has ended.
//!
//! Invariants: at most one such thread; it ends before the writer does; should it fail, the writer merges, and
//! cuts, as it did before.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::names::Names;
use super::writer::Writer;
use super::{schema, upkeep};
use crate::queue::QueueError;

/// Bytes of the page cache of its connection, which reads nothing but the schema.
const CACHE: u64 = 512 << 10;

/// The thread, while there is one.
#[derive(Debug, Default)]
pub(super) struct Cut {
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Whether the log is being merged here: then nobody else does.
    pub(super) fn is_being_cut(&self) -> bool {
        self.cut.thread.is_some()
    }

    /// Merges the log, and with it cuts the file, in a thread of its own.
    pub(super) fn cut_file(&mut self) {
        let (path, names) = (self.path.clone(), Arc::clone(&self.names));
        let thread = std::thread::Builder::new().name("queue-cut".into()).spawn(move || {
            if let Err(error) = cut(&path, &names) {
                tracing::debug!(%error, "the queue's file is cut when its log is merged next");
            }
        });
        // Without a thread the writer merges when the log is long.
        self.cut.thread = thread.ok();
    }

    /// To be called between batches: once the file is cut, the writer merges again.
    pub(super) fn after_cut(&mut self) {
        if self.cut.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            self.wait_for_cut();
        }
    }

    /// To be called at the end, and before the files are opened anew.
    pub(super) fn wait_for_cut(&mut self) {
        if let Some(thread) = self.cut.thread.take() {
            let _ = thread.join();
        }
    }
}

fn cut(path: &Path, names: &Names) -> Result<(), QueueError> {
    // Held until the connection is closed.
    let _index = names.use_index();
    names.may_open()?;
    let conn = schema::connect_reader(path, CACHE)?;
    upkeep::all_rows(&conn, "PRAGMA wal_checkpoint(PASSIVE)")
}
