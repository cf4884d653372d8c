//! What a connection waits for: told to operators while a host says nothing.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::Stage;
use crate::mail::{FeatureKeys, QueueId};

/// The answer that a transaction waits for, shared by its connection with whoever looks.
#[derive(Debug, Default)]
pub struct Awaited(Mutex<Option<(QueueId, FeatureKeys, Stage, Instant)>>);

/// What [`Awaited`] shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Silence {
    /// The message of the transaction.
    pub message: QueueId,
    /// What the host has heard of it.
    pub features: FeatureKeys,
    /// What was said last, and has no answer.
    pub stage: Stage,
    /// For how long.
    pub lasts: Duration,
}

impl Awaited {
    /// An answer is waited for from now on.
    pub(crate) fn begins(&self, (message, features): (QueueId, FeatureKeys), stage: Stage) {
        *self.0.lock() = Some((message, features, stage, Instant::now()));
    }

    /// It came, or is not waited for any more.
    pub(crate) fn ends(&self) {
        *self.0.lock() = None;
    }

    /// What is waited for now.
    pub fn silence(&self) -> Option<Silence> {
        let (message, features, stage, since) = (*self.0.lock())?;
        let features = if stage > Stage::Mail { features } else { features.at_mail() };
        Some(Silence { message, features, stage, lasts: since.elapsed() })
    }
}
