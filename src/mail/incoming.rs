//! What a `[[route]]` may ask of a message besides its recipients: its sender, and where it came in.

use std::net::IpAddr;

use super::{Address, Message, Origin, TlsWish};

/// See the module. The default is a message of mailweir itself: of the null sender, from no client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Incoming<'a> {
    /// Reverse-path; `None` is the null one.
    pub sender: Option<&'a Address>,
    /// The client that handed it in.
    pub client: Option<IpAddr>,
    /// The `name` of the listener that took it; empty without one.
    pub listener: &'a str,
    /// As whom the client had logged in; empty without a login.
    pub user: &'a str,
    /// What its sender says of TLS.
    pub tls: TlsWish,
}

impl<'a> Incoming<'a> {
    /// The same of another sender, if there is one.
    pub fn sent_as(self, sender: Option<&'a Address>) -> Incoming<'a> {
        Incoming { sender: sender.or(self.sender), ..self }
    }
}

impl<'a> From<Option<&'a Address>> for Incoming<'a> {
    fn from(sender: Option<&'a Address>) -> Incoming<'a> {
        Incoming { sender, ..Incoming::default() }
    }
}

impl<'a> From<&'a Message> for Incoming<'a> {
    fn from(message: &'a Message) -> Incoming<'a> {
        let sender = message.envelope.reverse_path.as_ref();
        let tls = message.envelope.tls;
        match &message.origin {
            Origin::Client { ip, listener, user, .. } => Incoming { sender, client: Some(*ip), listener, user, tls },
            Origin::Dsn | Origin::Local => Incoming { tls, ..sender.into() },
        }
    }
}
