//! What waits in a lane: a message and those of its recipients that can share transactions.

use std::sync::Arc;

use bytes::Bytes;

use super::budget::Ticket;
use super::lane::UnderWay;
pub use crate::mail::sender_key;
use crate::mail::{Address, Features, Message, Recipient, RecipientKey};
use crate::shape::Gate;

/// A message in memory, shared by its jobs. The body may or may not be here too.
#[derive(Debug)]
pub struct Shared {
    /// The message.
    pub message: Arc<Message>,
    /// Chunk 0 of the body, while the budget allows it.
    pub head: Option<Bytes>,
    /// What the above costs.
    pub ticket: Option<Ticket>,
}

/// A recipient held by this process.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Its position in the envelope.
    pub index: u32,
    /// The forward-path.
    pub recipient: Recipient,
    /// Attempts before this one.
    pub attempts: u32,
    /// A delay DSN was sent.
    pub warned: bool,
    /// Times it came back untried since it was claimed: bounds requeueing in memory.
    pub untried: u8,
}

/// One message and recipients that go to the same destination.
#[derive(Clone, Debug)]
pub struct Job {
    /// The message.
    pub message: Arc<Shared>,
    /// At least one, unless it was just made by [`Job::without_recipients`].
    pub recipients: Vec<Held>,
    /// What may share a transaction and a connection: the recipient domain in lower case, or the
    /// smart host; and the source address where the provider has several.
    pub destination: Arc<str>,
    /// Hash of the reverse-path: whose turn it is.
    pub sender: u64,
    /// Its place in the order in which the lane gives jobs out, from the first time on: it keeps it when it
    /// comes back.
    pub place: Option<u64>,
    /// It has waited for a limit before: it comes before those that have not.
    pub waited: bool,
    /// It leaves as the share of a lower priority, so it is not overtaken.
    pub of_share: bool,
    /// What the host said of it on a connection may have been about the message before: it has one of its own.
    pub wants_fresh: bool,
    /// The limits at which it counts as on its way to a permit.
    pub gates: Vec<Arc<Gate>>,
    /// While it is under way: what other mail is compared with.
    pub under_way: Option<Arc<UnderWay>>,
}

impl Job {
    /// A job of `message` without recipients yet.
    pub fn new(message: Arc<Shared>, destination: Arc<str>) -> Job {
        let sender = sender_key(message.message.envelope.sender());
        Job {
            message,
            recipients: Vec::new(),
            destination,
            sender,
            place: None,
            waited: false,
            of_share: false,
            wants_fresh: false,
            gates: Vec::new(),
            under_way: None,
        }
    }

    /// Delivery priority.
    pub fn priority(&self) -> i8 {
        self.message.message.envelope.priority
    }

    /// The reverse-path; `None` for the null one.
    pub fn sender(&self) -> Option<&Address> {
        self.message.message.envelope.reverse_path.as_ref()
    }

    /// What it has in common with other mail.
    pub fn features(&self) -> Features<'_> {
        let message = &self.message.message;
        let recipients = self.recipients.iter().map(|held| held.recipient.address.as_str());
        Features::of(message.envelope.sender(), recipients, message.size)
    }

    /// The domain of the reverse-path; empty for the null one.
    pub fn sender_domain(&self) -> &str {
        self.sender().map_or("", Address::domain)
    }

    /// The same, without the recipients.
    pub fn without_recipients(&self) -> Job {
        Job {
            message: self.message.clone(),
            recipients: Vec::new(),
            destination: self.destination.clone(),
            sender: self.sender,
            place: self.place,
            waited: self.waited,
            of_share: false,
            wants_fresh: false,
            gates: Vec::new(),
            under_way: None,
        }
    }

    /// The key of one of its recipients.
    pub fn key(&self, index: u32) -> RecipientKey {
        RecipientKey { id: self.message.message.id, index }
    }
}
