//! The side that takes mail in: accept and drain, sessions, admission policy, and the second
//! engine. A listener knows nothing of lanes or providers; it hands a message to an [`Intake`].

pub mod arrivals;
mod bulk;
mod client_network;
pub mod dedupe;
mod dialog;
pub mod draft;
mod hang_up;
mod local;
mod login;
mod mailin;
pub mod memory;
mod places;
pub mod policy;
// What reads bytes from outside is open to fuzz/, here and in `deliver::sasl`.
#[doc(hidden)]
pub mod proxy_header;
mod rewriting;
mod seat;
mod server;
mod session;
mod socket;
mod strangers;
mod stream;
mod submit;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::clock::Clock;
use crate::descriptors::Descriptors;
use crate::mail::{Message, QueueId, Recipient};
use crate::queue::{self, QueueError, Spool};
pub use arrivals::Arrivals;
pub use local::{Local, NotQueued};
pub use login::{Logins, Slowed};
pub use memory::Memory;
pub use server::Server;
pub use socket::{Place, Socket, bind, is_lacking};

/// What a listener hands its messages to.
#[async_trait]
pub trait Intake: Send + Sync + 'static {
    /// For queue ids, and to spill large bodies.
    fn spool(&self) -> &dyn Spool;

    /// Where it is kept who is locked.
    fn values(&self) -> &dyn queue::Memory;

    /// The clock.
    fn clock(&self) -> Clock;

    /// The memory of all listeners for what comes in.
    fn memory(&self) -> &Arc<Memory>;

    /// The budget of descriptors, of which each session has its part; `None`: there is none.
    fn descriptors(&self) -> Option<&Arc<Descriptors>> {
        None
    }

    /// The logins of all listeners; `None`: each listener has its own.
    fn logins(&self) -> Option<&Arc<Logins>> {
        None
    }

    /// The limits of all listeners on what comes in; `None`: there are none.
    fn arrivals(&self) -> Option<&Arc<Arrivals>> {
        None
    }

    /// Stores a message and hands it to the scheduler. Only after `Ok` may the listener say `250`.
    /// `head` is chunk 0 of the body; further chunks were spilled before. On `Err` the message was
    /// not queued (spilled chunks are dropped by the intake) and the client gets a 4xx. `held`: nothing of it leaves
    /// until an operator releases it, and why, which is told with it.
    async fn accept(
        &self,
        message: Message,
        recipients: Vec<Recipient>,
        head: Bytes,
        held: Option<Arc<str>>,
    ) -> Result<QueueId, QueueError>;
}

/// A listener as the tests of this module want it.
#[cfg(test)]
fn tests_config() -> crate::config::Listener {
    use std::time::Duration;
    crate::config::Listener {
        address: ([127, 0, 0, 1], 0).into(),
        max_message_size: 1 << 20,
        max_recipients: 100,
        max_connections: 100,
        session_timeout: Duration::from_secs(3600),
        names: Arc::new(crate::mail::LocalNames::new("relay.example", "relay.example")),
        ..crate::config::Listener::default()
    }
}
