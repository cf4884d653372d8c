//! What happened, without judgement: at which stage of which connection, with which reply or error.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::smtp::upstream::{Reply, Stage};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The server replied (positive or not).
    Reply(Reply),
    /// No answer within this time.
    Timeout(Duration),
    /// The connection was closed or reset by the peer.
    Closed,
    /// Could not connect or another I/O error; the text is the system's.
    Io(String),
    /// TLS failed (handshake, certificate, not offered though required).
    Tls(String),
    /// The server does not offer what the configuration asks for, e.g. `AUTH`; the text says what it is, and
    /// what is offered instead.
    Missing(String),
    /// The server refuses a command or parameter of an extension that it offers (`what`): that is no
    /// word on the message, which goes again without.
    Extension {
        /// E.g. `BDAT`.
        what: &'static str,
        /// What it said.
        reply: Reply,
    },
    /// There is no token to log in with; nobody was asked to take anything.
    NoToken {
        /// When its endpoint may be asked again.
        left: Duration,
        /// Why, and what to do.
        why: String,
    },
    /// The server's bytes make no sense: endless or unparsable reply, input pending at STARTTLS.
    Garbled(String),
    /// The message cannot be sent to this host as it is (e.g. SMTPUTF8 needed and not offered).
    Unsendable {
        /// Enhanced code, e.g. `5.6.7`.
        enhanced: &'static str,
        /// For people.
        text: String,
    },
    /// Our own side could not go on (body could not be read from the queue).
    Local(String),
    /// Our own rate, quota or limit (its text) held it back until it expired.
    Held(String),
    /// Nobody was asked: every address has failed lately and is left alone for a while.
    BackOff {
        /// For so long.
        left: Duration,
        /// What happened the last time.
        why: String,
    },
    /// This host was not asked, which says nothing of it; the text tells why.
    LeftOut(&'static str),
    /// DNS gave no way; permanent or not.
    NoRoute {
        /// Never will be a way.
        permanent: bool,
        /// Basic code, e.g. 556; 450 for temporary ones.
        code: u16,
        /// Enhanced code.
        enhanced: &'static str,
        /// For people.
        text: String,
    },
}

/// How the text of [`Event::BackOff`] begins, also in the queue.
pub const NOT_TRIED: &str = "not tried: the host does not answer or hangs up";

/// How [`Event::NoToken`] begins where it is the reason for which a host is left alone: it is not the host's.
const WITHOUT_TOKEN: &str = "AUTH: no token: ";

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Reply(r) => r.fmt(f),
            Event::Timeout(d) => write!(f, "no answer within {} s", d.as_secs()),
            Event::Closed => f.write_str("the server closed the connection"),
            Event::Io(e) => f.write_str(e),
            Event::Tls(e) => write!(f, "TLS: {e}"),
            Event::Missing(what) => write!(f, "the server does not offer {what}"),
            Event::Extension { what, reply } => write!(f, "the server offers {what} and refuses it: {reply}"),
            Event::NoToken { why, .. } => write!(f, "no token: {why}"),
            Event::Garbled(e) => write!(f, "unintelligible server: {e}"),
            Event::Unsendable { enhanced, text } => write!(f, "{enhanced} {text}"),
            Event::Local(e) => write!(f, "local: {e}"),
            Event::Held(by) => write!(f, "held back by {by}"),
            // When it is tried again is told by who knows the time now: this text is kept.
            Event::BackOff { why, .. } => match why.strip_prefix(WITHOUT_TOKEN) {
                Some(why) => write!(f, "not tried: there is no token to log in with: {why}"),
                None => write!(f, "{NOT_TRIED}; last: {why}"),
            },
            Event::LeftOut(why) => write!(f, "not tried: {why}"),
            Event::NoRoute { code, enhanced, text, .. } => write!(f, "{code} {enhanced} {text}"),
        }
    }
}

/// The host at the other end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Host name, or address as text.
    pub host: Arc<str>,
    /// Its address; `None` before there is one.
    pub ip: Option<IpAddr>,
    /// How it is encrypted; `None` in clear text.
    pub tls: Option<Tls>,
}

/// How a session is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tls {
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// What the host has shown.
    pub proof: Proof,
}

/// What a host has shown of who it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// Nothing: any certificate is taken.
    Encrypted,
    /// A valid certificate for its name, as the configuration demands.
    Verified,
    /// The same, as the MTA-STS policy of the domain demands, which names it.
    MtaSts,
    /// A certificate that one of its signed TLSA records matches.
    Dane,
}

impl Proof {
    /// For the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Encrypted => "encrypted",
            Proof::Verified => "verified",
            Proof::MtaSts => "mta-sts",
            Proof::Dane => "dane",
        }
    }
}

/// One thing that happened to a delivery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Where in the dialog.
    pub stage: Stage,
    /// What.
    pub event: Event,
    /// With whom; `None` if nobody was asked yet.
    pub peer: Option<Peer>,
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.peer {
            Some(Peer { host, ip: Some(ip), .. }) => write!(f, "{host}[{ip}] {}: {}", self.stage, self.event),
            Some(Peer { host, ip: None, .. }) => write!(f, "{host} {}: {}", self.stage, self.event),
            None => self.event.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who waits for a token is not told that the host is down.
    #[test]
    fn what_waits_for_a_token_says_so() {
        let left = Duration::from_secs(1);
        let no_token = Event::NoToken { left, why: "login.example refuses: invalid_client".into() };
        let waits = Event::BackOff { left, why: format!("{}: {no_token}", Stage::Auth) };
        let told = "not tried: there is no token to log in with: login.example refuses: invalid_client";
        assert_eq!(waits.to_string(), told);
        let host = Event::BackOff { left, why: format!("{}: {}", Stage::Auth, Event::Closed) };
        assert!(host.to_string().starts_with(NOT_TRIED), "{host}");
    }
}
