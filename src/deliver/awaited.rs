//! What a connection waits for: told to operators while a host says nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Stage;
use crate::mail::QueueId;

/// The answer that a transaction waits for, shared by its connection with whoever looks.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<Option<(QueueId, Stage, Instant)>>);

/// What [`Awaited`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The message of the transaction.
    pub message: QueueId,
    /// What was said last, and has no answer.
    pub stage: Stage,
    /// For how long.
    pub lasts: Duration,
}

impl Awaited {
    /// An answer is waited for from now on.
    pub(super) fn begins(&self, message: QueueId, stage: Stage) {
        *self.0.lock() = Some((message, stage, Instant::now()));
    }

    /// It came, or is not waited for any more.
    pub(super) fn ends(&self) {
        *self.0.lock() = None;
    }

    /// What is waited for now.
    pub fn silence(&self) -> Option<Silence> {
        let (message, stage, since) = (*self.0.lock())?;
        Some(Silence { message, stage, lasts: since.elapsed() })
    }
}
