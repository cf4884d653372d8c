//! AUTH (RFC 4954): who may say it and when, and what it opens with.
//!
//! Passwords are taken over TLS; in clear text only where nobody could listen: from a client of this machine, for
//! whom nobody else speaks (XCLIENT).

use std::sync::Arc;

use super::super::login::sasl::{self, Response};
use super::{Dialog, Next, TLS_FIRST};
use crate::config::{AuthMechanism, ListenerAuth, User};
use crate::smtp::Reply;

/// By what TLS has shown (RFC 4422, appendix A).
const EXTERNAL: &str = "EXTERNAL";
const NO_AUTH: Reply = Reply::new(502, "5.5.1", "AUTH is not offered");
const TWICE: Reply = Reply::new(503, "5.5.1", "Already authenticated");
const IN_TRANSACTION: Reply = Reply::new(503, "5.5.1", "Mail transaction in progress");
const SYNTAX: Reply = Reply::new(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]");
const UNKNOWN: Reply = Reply::new(504, "5.5.4", "Unrecognized authentication mechanism");
const NEEDS_TLS: Reply = Reply::new(538, "5.7.11", "Encryption required: send STARTTLS first");
const NO_CLEAR_TEXT: Reply = Reply::new(538, "5.7.11", "Encryption required, which this listener does not have");

/// A login that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::listener) struct Login {
    pub mechanism: AuthMechanism,
    /// The response that came with the command.
    pub initial: Option<Response>,
}

/// A login that was over before it began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::listener) struct NoLogin {
    /// `None`: one that is not offered here.
    pub mechanism: Option<AuthMechanism>,
    pub reply: Reply,
}

impl Dialog {
    /// Whether a client can log in here, some time.
    pub fn has_auth(&self) -> bool {
        self.shared.listener.auth != ListenerAuth::Off
    }

    /// Whether a password of this client could be heard by others.
    fn could_be_heard(&self) -> bool {
        let here = [self.connected, self.client.caller].iter().all(|who| who.ip().to_canonical().is_loopback());
        self.client.tls.is_empty() && !here
    }

    /// The line of EHLO that tells the mechanisms, without its verb; `None`: there is none now.
    pub(super) fn mechanisms(&self) -> Option<String> {
        if !self.has_auth() || self.logged_in || self.could_be_heard() || self.waits_for_tls() {
            return None;
        }
        let external = self.by_certificate.then_some(EXTERNAL);
        let names: Vec<_> = external.into_iter().chain(sasl::offered(&self.shared.listener).map(sasl::name)).collect();
        (!names.is_empty()).then(|| names.join(" "))
    }

    /// Begins with a login.
    pub(super) fn auth(&self, words: &str) -> Result<Next, Reply> {
        match () {
            () if !self.has_auth() => return Err(NO_AUTH),
            () if self.logged_in => return Err(TWICE),
            () if self.transaction.is_some() => return Err(IN_TRANSACTION),
            () if self.waits_for_tls() => return Err(TLS_FIRST),
            () if self.could_be_heard() && self.offers_tls() => return Err(NEEDS_TLS),
            () if self.could_be_heard() => return Err(NO_CLEAR_TEXT),
            () => {}
        }
        let mut words = words.split_ascii_whitespace();
        let mechanism = words.next().ok_or(SYNTAX)?;
        let initial = words.next();
        if words.next().is_some() {
            return Err(SYNTAX);
        }
        let mut offered = sasl::offered(&self.shared.listener);
        let initial = initial.map(|text| match text {
            // An empty one (RFC 4954 §4).
            "=" => Response::decode(b""),
            text => Response::decode(text.as_bytes()),
        });
        let never = |mechanism, reply| Ok(Next::NoLogin(Box::new(NoLogin { mechanism, reply })));
        if self.by_certificate && mechanism.eq_ignore_ascii_case(EXTERNAL) {
            return match initial.transpose() {
                Ok(initial) => Ok(Next::External(initial)),
                Err(reply) => never(None, reply),
            };
        }
        let Some(mechanism) = offered.find(|known| mechanism.eq_ignore_ascii_case(sasl::name(*known))) else {
            return never(None, UNKNOWN);
        };
        match initial.transpose() {
            Ok(initial) => Ok(Next::Auth(Box::new(Login { mechanism, initial }))),
            Err(reply) => never(Some(mechanism), reply),
        }
    }

    /// The login was good; `None`: any is, and it says nothing.
    pub fn log_in(&mut self, user: Option<Arc<User>>) {
        self.logged_in = true;
        self.client.user = user;
    }

    /// The certificate of the client is that of this user.
    pub fn certified(&mut self, user: Arc<User>) {
        self.by_certificate = true;
        self.client.user = Some(user);
    }

    /// Another client begins, or the same anew.
    pub(super) fn log_out(&mut self) {
        self.by_certificate = false;
        self.logged_in = false;
        self.client.user = None;
    }
}
