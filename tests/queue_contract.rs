//! The contract of `mailweir::queue`, for each backend.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;

use std::sync::Arc;

use contract::Rig;
use mailweir::clock::Clock;
use mailweir::queue::Queue;
use mailweir::queue::sqlite::SqliteQueue;

fn open_sqlite() -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let open = Box::new(move || SqliteQueue::open(&path, Clock::System).map(|queue| queue as Arc<dyn Queue>));
    Rig { queue: open().expect("an empty store"), open, keep: Box::new(dir) }
}

suite!(sqlite, super::open_sqlite);
