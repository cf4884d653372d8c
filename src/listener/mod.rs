//! The side that takes mail in: accept and drain, sessions, admission policy, and the second
//! engine. A listener knows nothing of lanes or providers; it hands a message to an [`Intake`].

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Clock;
use crate::mail::{Message, QueueId, Recipient};
use crate::queue::{Queue, QueueError};

/// What a listener hands its messages to.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// For queue ids, and to spill large bodies.
    fn queue(&self) -> &Arc<dyn Queue>;

    /// The clock.
    fn clock(&self) -> Clock;

    /// Stores a message and hands it to the scheduler. Only after `Ok` may the listener say `250`.
    /// `head` is chunk 0 of the body; further chunks were spilled before. On `Err` the message was
    /// not queued (spilled chunks are dropped by the intake) and the client gets a 4xx.
    async fn accept(&self, message: Message, recipients: Vec<Recipient>, head: Bytes) -> Result<QueueId, QueueError>;
}
