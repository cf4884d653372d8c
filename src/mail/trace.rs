//! The `Received:` field that goes on top of each message (RFC 5321 §4.4).

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use super::{Address, Caller, QueueId};

/// Longest forward-path that is worth a `for` clause: it must fit a header line.
const MAX_FOR: usize = 320;

/// What the `Received:` line says (RFC 5321 §4.4, RFC 3848, RFC 6531 §3.7.3).
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// Name the client gave; empty without HELO.
    pub helo: &'a str,
    /// Who it is.
    pub caller: Caller,
    /// Our name.
    pub hostname: &'a Arc<str>,
    /// EHLO rather than HELO.
    pub esmtp: bool,
    /// The session is encrypted.
    pub tls: bool,
    /// The client has logged in.
    pub authenticated: bool,
    /// The transaction has SMTPUTF8.
    pub smtputf8: bool,
    /// The reverse-path, which is who wrote a message that does not say so; `None` is the null one.
    pub sender: Option<&'a Address>,
    /// Nothing is said of the client, nor for whom it is.
    pub minimal: bool,
    /// The only recipient, if there is only one: two must not learn of each other (RFC 5321 §7.2).
    pub recipient: Option<&'a Address>,
}

impl Trace<'_> {
    /// Appends the field.
    pub(crate) fn write(&self, id: QueueId, date: impl fmt::Display, out: &mut Vec<u8>) {
        let helo = if self.helo.is_empty() { "unknown" } else { self.helo };
        // Nothing of ours makes a message one that needs SMTPUTF8 all the way.
        let plain = |c| if is_plain(c) { c } else { '?' };
        // There is no word for HELO and TLS.
        let with = match (self.smtputf8, self.esmtp || self.authenticated, self.tls, self.authenticated) {
            (true, _, true, false) => "UTF8SMTPS",
            (true, _, false, false) => "UTF8SMTP",
            (true, _, true, true) => "UTF8SMTPSA",
            (true, _, false, true) => "UTF8SMTPA",
            (false, true, true, false) => "ESMTPS",
            (false, true, false, false) => "ESMTP",
            (false, true, true, true) => "ESMTPSA",
            (false, true, false, true) => "ESMTPA",
            (false, false, _, _) => "SMTP",
        };
        // Writing to a Vec cannot fail.
        if self.minimal {
            let _ = write!(out, "Received: by {} with {with} id {id};\r\n\t{date}\r\n", self.hostname);
            return;
        }
        if let Caller::Spool { uid } = self.caller {
            let _ = write!(out, "Received: by {} (spool, from userid {uid})\r\n\tid {id}", self.hostname);
        } else {
            out.extend_from_slice(b"Received: from ");
            for c in helo.chars().take(255).map(plain) {
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            }
            let _ = match self.caller {
                Caller::User { uid, .. } => write!(out, " (local, userid {uid})"),
                caller => {
                    let ip = caller.ip().to_canonical();
                    write!(out, " ([{}{ip}])", if ip.is_ipv6() { "IPv6:" } else { "" })
                }
            };
            let _ = write!(out, "\r\n\tby {} with {with} id {id}", self.hostname);
        }
        match self.recipient {
            Some(to) if to.as_str().len() <= MAX_FOR && to.is_ascii() => {
                let _ = write!(out, "\r\n\tfor <{to}>; {date}\r\n");
            }
            _ => {
                let _ = write!(out, ";\r\n\t{date}\r\n");
            }
        }
    }
}

/// May stand in the `from` clause: visible ASCII that neither opens a comment nor ends the clause.
fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;\\\"".contains(c)
}
