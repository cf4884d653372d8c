//! Which cap refused, its name, and what it says where neither the caps nor a persona say otherwise.

use std::fmt;
use std::time::Duration;

use super::persona::{Persona, Text};
use crate::config::units::Span;

/// Windows of at least this length are quotas: they have a text of their own.
const QUOTA: Duration = Duration::from_secs(3600);

/// Which cap refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cap {
    /// Messages or recipients in a window of this length.
    Rate(Duration),
    /// The same, of one sender.
    SenderRate(Duration),
    /// Messages for one recipient.
    RecipientRate(Duration),
    /// Bytes in a window of this length.
    ByteRate(Duration),
    /// Connections at once.
    Connections,
    /// New connections in a window of this length.
    ConnectRate(Duration),
    /// Messages of one connection.
    MessagesPerConnection,
    /// Messages of one sender on one connection.
    SenderPerConnection,
    /// Recipients of one connection.
    RecipientsPerConnection,
    /// Bytes of one connection.
    BytesPerConnection,
    /// Recipients of one message.
    Recipients,
    /// Greylisting of recipients.
    Greylist,
    /// Greylisting of messages, after the data.
    GreylistData,
    /// A mailbox that is full.
    FullMailbox,
    /// A recipient that does not exist.
    UnknownRecipient,
    /// Too many recipients of the connection did not exist.
    TooManyErrors,
    /// A filter that does not like the message.
    Content,
    /// A sender it does not like.
    BlockedSender,
    /// It is in trouble, whoever sends what.
    Trouble,
    /// Busy now and then, at the greeting.
    Busy,
    /// Failed on purpose, for now.
    FailTemporary,
    /// Failed on purpose, for good.
    FailPermanent,
}

/// Names of texts, as in `say-rate`.
pub(super) const TEXTS: [&str; 23] = [
    "rate",
    "quota",
    "sender-rate",
    "recipient-rate",
    "byte-rate",
    "connections",
    "connect-rate",
    "messages-per-connection",
    "sender-per-connection",
    "recipients-per-connection",
    "bytes-per-connection",
    "recipients",
    "greylist",
    "greylist-data",
    "full",
    "unknown",
    "too-many-errors",
    "content",
    "blocked-sender",
    "trouble",
    "busy",
    "fail-temporary",
    "fail-permanent",
];

const fn text(code: u16, enhanced: &'static str, text: &'static str) -> Text {
    Text { code, enhanced, text }
}

impl Cap {
    /// Whether it means "slow down", and not something about this recipient, this message or the host.
    pub fn throttles(self) -> bool {
        matches!(
            self,
            Cap::Rate(_)
                | Cap::SenderRate(_)
                | Cap::ByteRate(_)
                | Cap::Connections
                | Cap::ConnectRate(_)
                | Cap::MessagesPerConnection
                | Cap::SenderPerConnection
                | Cap::RecipientsPerConnection
                | Cap::BytesPerConnection
        )
    }

    /// Whether it is about one connection, and ends it.
    pub(super) fn ends_connection(self) -> bool {
        matches!(
            self,
            Cap::MessagesPerConnection
                | Cap::SenderPerConnection
                | Cap::RecipientsPerConnection
                | Cap::BytesPerConnection
                | Cap::TooManyErrors
        )
    }

    /// Whether it is about what one connection has carried, whosever it was.
    pub(super) fn is_of_connection(self) -> bool {
        matches!(self, Cap::MessagesPerConnection | Cap::RecipientsPerConnection | Cap::BytesPerConnection)
    }

    /// The name of its text.
    pub(super) fn topic(self) -> &'static str {
        match self {
            Cap::Rate(per) if per >= QUOTA => "quota",
            Cap::Rate(_) => "rate",
            Cap::SenderRate(_) => "sender-rate",
            Cap::RecipientRate(_) => "recipient-rate",
            Cap::ByteRate(_) => "byte-rate",
            Cap::Connections => "connections",
            Cap::ConnectRate(_) => "connect-rate",
            Cap::MessagesPerConnection => "messages-per-connection",
            Cap::SenderPerConnection => "sender-per-connection",
            Cap::RecipientsPerConnection => "recipients-per-connection",
            Cap::BytesPerConnection => "bytes-per-connection",
            Cap::Recipients => "recipients",
            Cap::Greylist => "greylist",
            Cap::GreylistData => "greylist-data",
            Cap::FullMailbox => "full",
            Cap::UnknownRecipient => "unknown",
            Cap::TooManyErrors => "too-many-errors",
            Cap::Content => "content",
            Cap::BlockedSender => "blocked-sender",
            Cap::Trouble => "trouble",
            Cap::Busy => "busy",
            Cap::FailTemporary => "fail-temporary",
            Cap::FailPermanent => "fail-permanent",
        }
    }

    /// What it says unless told otherwise.
    pub(super) fn text(self, persona: &Persona) -> Text {
        match self {
            Cap::Rate(per) if per >= QUOTA => persona.quota,
            Cap::Rate(_) => persona.rate,
            Cap::Connections => persona.connections,
            Cap::ConnectRate(_) => persona.connect_rate,
            Cap::MessagesPerConnection | Cap::RecipientsPerConnection | Cap::BytesPerConnection => {
                persona.per_connection
            }
            Cap::Recipients => persona.recipients,
            Cap::Greylist => persona.greylist,
            Cap::FailTemporary => persona.temporary,
            Cap::FailPermanent => persona.permanent,
            Cap::SenderRate(_) => text(450, "4.7.1", "Too much mail from this sender"),
            Cap::SenderPerConnection => text(421, "4.7.1", "Too much mail from this sender on this connection"),
            Cap::RecipientRate(_) => text(450, "4.2.1", "This mailbox receives too much mail, try again later"),
            Cap::ByteRate(_) => text(452, "4.3.1", "Too much data, try again later"),
            Cap::GreylistData => text(451, "4.7.1", "Try again later"),
            Cap::FullMailbox => text(452, "4.2.2", "Mailbox full"),
            Cap::UnknownRecipient => text(550, "5.1.1", "User unknown"),
            Cap::TooManyErrors => text(421, "4.7.0", "Too many errors"),
            Cap::Content => text(451, "4.7.1", "The message looks odd, try again later"),
            Cap::BlockedSender => text(450, "4.1.8", "Sender address rejected, try again later"),
            Cap::Trouble => text(421, "4.3.2", "Service not available"),
            Cap::Busy => text(421, "4.3.2", "Busy, try again later"),
        }
    }
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cap::Rate(per) => write!(f, "rate/{}", Span(*per)),
            Cap::SenderRate(per) | Cap::RecipientRate(per) | Cap::ByteRate(per) | Cap::ConnectRate(per) => {
                write!(f, "{}/{}", self.topic(), Span(*per))
            }
            Cap::FailTemporary => f.write_str("fail/4xx"),
            Cap::FailPermanent => f.write_str("fail/5xx"),
            other => f.write_str(other.topic()),
        }
    }
}
