//! What the gates of all lanes share: the store for what must outlive the process, and the time.
//!
//! Time here never runs backwards within a process, whatever is done to the wall clock; across
//! processes it is measured from a [`Mark`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::record;
use super::restart::Earlier;
use super::succession::{Other, Succession};
use crate::clock::{Clock, Mark, Timestamp};
use crate::mail::LaneName;

/// First part of the names of the records of quotas.
pub(super) const PREFIX: &str = "quota/";

/// A store for small named values; see [`crate::queue::Memory::remember`].
#[async_trait]
pub trait Memos: Send + Sync + 'static {
    /// Stores or removes; durable before `Ok`. The error is text for a log line.
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), String>;
    /// The values whose name starts with `prefix`.
    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, String>;
}

/// What all gates share: the store, the time, and what an earlier process left.
pub struct Ledger {
    pub(super) memos: Arc<dyn Memos>,
    pub(super) clock: Clock,
    started: Timestamp,
    start: tokio::time::Instant,
    /// Written by who removes old records, read by who writes one.
    pub(super) sweeping: tokio::sync::RwLock<()>,
    /// What an earlier process left of the rates.
    pub(super) rates: Mutex<Earlier>,
    /// Whose departures count where.
    succession: Mutex<Arc<Succession>>,
}

/// One instant, on three clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Milliseconds since the ledger began; never jumps.
    pub(super) steady: i64,
    /// The wall clock, but never behind what the steady one has counted since the start.
    pub(super) wall: Timestamp,
    /// The wall clock as it is: whose day it is.
    pub(super) clock: Timestamp,
}

impl Ledger {
    /// A ledger kept in `memos`. Its rates begin with a full burst unless [`Ledger::begin`] says otherwise.
    pub fn new(memos: Arc<dyn Memos>, clock: Clock) -> Arc<Ledger> {
        let (started, start) = (clock.now(), tokio::time::Instant::now());
        let (sweeping, rates, succession) = Default::default();
        Arc::new(Ledger { memos, clock, started, start, sweeping, rates, succession })
    }

    /// Says whose departures count in which lane. Before the first gate is made.
    pub fn succeed(&self, succession: Succession) {
        *self.succession.lock() = Arc::new(succession);
    }

    /// Whose departures count in a lane besides its own.
    pub(super) fn others_of(&self, lane: &LaneName) -> Vec<Other> {
        let succession = self.succession.lock().clone();
        succession.others_of(lane, &self.mark(self.now()))
    }

    pub(super) fn now(&self) -> Now {
        let elapsed = self.start.elapsed();
        let clock = self.clock.now();
        let steady = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        Now { steady, wall: clock.max(self.started.after(elapsed)), clock }
    }

    /// The time, for a record that a later process measures from.
    pub(super) fn mark(&self, now: Now) -> Mark {
        Mark { wall: now.wall, ..self.clock.mark() }
    }

    /// Removes records that count nothing any more; returns how many. Reads all records at once:
    /// something for now and then.
    ///
    /// # Errors
    /// The store's, as text.
    pub async fn sweep(&self) -> Result<usize, String> {
        let _alone = self.sweeping.write().await;
        let now = self.now();
        let mark = self.mark(now);
        let over = |value: &Bytes| record::is_over(value, &mark, now.clock);
        let found = self.memos.recall(PREFIX).await?;
        let old: Vec<_> = found.into_iter().filter(|(_, value)| over(value)).map(|(name, _)| (name, None)).collect();
        let count = old.len();
        if count > 0 {
            self.memos.remember(old).await?;
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("started", &self.started).finish_non_exhaustive()
    }
}
