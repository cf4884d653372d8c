//! The upstream side: one connection (`session`), its transactions, TLS, and body encoding.
//!
//! This module reports facts ([`Fact`]) and judges nothing: what a fact means for a recipient is
//! decided by `outcome::classify` alone.

pub mod fact;

use std::time::Duration;

use crate::mail::{Body, Message, Recipient};
pub use fact::{Event, Fact, Peer, Reply, Stage};

/// One transaction to make: a message and those of its recipients that go to this host.
pub struct Transaction<'a> {
    /// The message.
    pub message: &'a Message,
    /// Recipients, at most the provider's `recipients_per_message`; at least one.
    pub recipients: &'a [Recipient],
    /// Its body.
    pub body: &'a dyn Body,
}

/// What came of a transaction.
#[derive(Debug)]
pub struct Report {
    /// One fact per recipient, in the order given. A positive reply at [`Stage::Final`] is
    /// acceptance; anything else is not.
    pub facts: Vec<Fact>,
    /// The host offered DSN (so it took over the duty to send success DSNs).
    pub dsn: bool,
    /// From the first byte of MAIL to the final reply.
    pub took: Duration,
}
