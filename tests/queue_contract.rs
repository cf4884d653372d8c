//! The contract of `mailweir::queue`, for each backend.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;

use std::sync::Arc;

use contract::Rig;
use mailweir::clock::Clock;
use mailweir::queue::Queue;
use mailweir::queue::sqlite::{InlineQueue, SqliteQueue};
use parking_lot::Mutex;

fn open_sqlite() -> Rig {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("queue.db");
    let open = Box::new(move || SqliteQueue::open(&path, Clock::System).map(|queue| queue as Arc<dyn Queue>));
    Rig { queue: open().expect("an empty store"), open, keep: Box::new(dir) }
}

/// The store that simulations use is in memory: the one before is what it is opened from again.
fn open_inline() -> Rig {
    let last: Mutex<Option<Arc<InlineQueue>>> = Mutex::new(None);
    let open = Box::new(move || {
        let mut last = last.lock();
        let queue = match last.take() {
            Some(before) => before.reopen(Clock::System)?,
            None => InlineQueue::open(Clock::System)?,
        };
        *last = Some(queue.clone());
        Ok(queue as Arc<dyn Queue>)
    });
    Rig { queue: open().expect("an empty store"), open, keep: Box::new(()) }
}

suite!(sqlite, open_sqlite);
suite!(inline, open_inline);

/// What only a store that answers later can be asked: the inline one has answered before anybody can go away.
mod in_flight {
    crate::suite!(@part sqlite, open_sqlite;
        life: a_lease_nobody_waited_for_goes_back,
    );
}
