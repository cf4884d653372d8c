//! The upstream side: one connection, its transactions, TLS, and the body on the wire.
//!
//! This module reports facts ([`Fact`]) and judges nothing: what a fact means for a recipient is
//! decided by `outcome::classify` alone.
//!
//! - [`Connector`] (`connect`) finds a host of a route that answers: order and racing; `dead` remembers addresses
//!   that did not answer.
//! - [`Connection`] (`session`) is the dialog up to EHLO, STARTTLS and AUTH, and the idle time.
//! - `transaction` is MAIL to final reply: one fate for each recipient, whatever the server does.
//! - `step`: whether a reply is the one to what was asked; `stray`: one that answers nothing.
//! - `quirks` remembers what hosts offer and do not take.
//! - `wire` owns socket and buffers: it writes and reads at the same time and knows time-outs.
//! - `tls` encrypts; `demand` is what that has to show; `dane` checks certificates by TLSA records.
//! - `auth` logs in; `sasl` is what it says, mechanism by mechanism.
//! - `oauth` fetches and keeps tokens to log in with.
//! - `session_limits` is what a host takes in one session, by its own word.
//! - `probe` is the dialog up to MAIL, told to a person.
//! - `reply`, `encode`, `command`, `capabilities` are pure: bytes in, values out.

mod auth;
mod awaited;
pub mod capabilities;
mod chunks;
mod command;
pub mod connect;
mod dane;
mod dead;
pub mod demand;
pub mod encode;
mod end;
pub mod fact;
pub mod oauth;
mod order;
pub mod probe;
mod quirks;
pub mod reply;
mod said;
#[doc(hidden)]
pub mod sasl;
pub mod session;
pub mod session_limits;
mod shown;
mod source;
mod step;
mod stray;
mod tickets;
mod tls;
mod transaction;
mod watch;
mod wire;

use std::time::Duration;

use crate::mail::{Body, Features, Message, Recipient};
pub use awaited::{Awaited, Silence};
pub use capabilities::Capabilities;
pub use connect::{Admit, Connector, ConnectorError, Dialer, Freely};
pub use fact::{Event, Fact, NOT_TRIED, Peer, Proof, Reply, Stage, Tls};
pub use session::Connection;
pub use session_limits::SessionLimits;
pub use shown::Shown;
pub use tls::TlsSettings;
pub use wire::Io;

/// One transaction to make: a message and those of its recipients that go to this host.
pub struct Transaction<'a> {
    /// The message.
    pub message: &'a Message,
    /// Recipients, at most the provider's `recipients_per_message`; at least one.
    pub recipients: &'a [Recipient],
    /// Its body.
    pub body: &'a dyn Body,
}

impl<'a> Transaction<'a> {
    /// What it has in common with others.
    pub fn features(&self) -> Features<'a> {
        let recipients = self.recipients.iter().map(|recipient| recipient.address.as_str());
        Features::of(self.message.envelope.sender(), recipients, self.message.size)
    }
}

/// What came of a transaction.
#[derive(Debug)]
#[must_use = "the fates of recipients are in it"]
pub struct Report {
    /// One fact per recipient, in the order given. A positive reply at [`Stage::Final`] is
    /// acceptance; anything else is not.
    pub facts: Vec<Fact>,
    /// The host offered DSN (so it took over the duty to send success DSNs).
    pub dsn: bool,
    /// The connection had carried a transaction before: if the server closed it at
    /// [`Stage::Mail`], that says nothing about the server, only about the age of the connection.
    pub reused: bool,
    /// From the first byte of MAIL to the final reply.
    pub took: Duration,
}

/// How long to wait for the peer (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// TCP connect to one address.
    pub connect: Duration,
    /// The greeting.
    pub greeting: Duration,
    /// EHLO, HELO, STARTTLS, AUTH, RSET.
    pub ehlo: Duration,
    /// A TLS handshake.
    pub tls: Duration,
    /// MAIL.
    pub mail: Duration,
    /// Each RCPT.
    pub rcpt: Duration,
    /// DATA.
    pub data: Duration,
    /// Without progress while writing commands or the body.
    pub write: Duration,
    /// The reply to the final dot.
    pub last: Duration,
    /// The reply to QUIT.
    pub quit: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Timeouts {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            ehlo: minutes(5),
            tls: minutes(2),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            write: minutes(3),
            last: minutes(10),
            quit: Duration::from_secs(5),
        }
    }
}
