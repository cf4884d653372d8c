//! A refusal that speaks of the order of commands, though ours came in order: "503 bad sequence of commands" and its like.
//!
//! It is about a session that has lost its state, or a box on the way that lost some of what was sent in one write; nothing
//! is wrong with the message. So it goes again, at once, on a fresh connection, as often as `outcome` has anything that was not
//! tried go again, then by its schedule; the [`PATIENCE`]th time it is the host's word, since some have no other word for "no".
//! The count is of a message and a recipient, and not of a host: one may have many recipients and one bad session.
//!
//! - Where commands had gone out together, they go one at a time to that host for some hours (`quirks`): what is lost of a
//!   batch is not lost of a single command.
//! - 501, 504 and 555 are about an address or a parameter, as a rule (see `transaction` on parameters).
//! - A refusal on a connection that was used before is taken for one of the dialog anyway, see `step`.
//! - What asks for a login is `outcome`'s, at once: no other connection has one.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::fact::{Event, Reply, Stage};
use super::session::Connection;
use super::transaction::Fates;
use crate::mail::Recipient;

/// How often in all it is heard before it counts: twice on fresh connections at once, once after a wait.
const PATIENCE: u8 = 4;

impl Connection {
    /// Gives those another fate who were refused in words on the order of commands. They and the others of the transaction
    /// have had theirs.
    pub(super) fn spare_the_disordered(&mut self, recipients: &[Recipient], open: &[usize], fates: &mut Fates) {
        let disordered = |index: &usize| {
            let fact = fates.of(std::slice::from_ref(index)).next()?;
            match &fact.event {
                Event::Reply(reply) if is_asked(fact.stage) && speaks_of_order(reply) => Some((*index, reply.clone())),
                _ => None,
            }
        };
        let all: Vec<(usize, Reply)> = open.iter().filter_map(disordered).collect();
        if all.is_empty() {
            return;
        }
        self.usable = false;
        for (index, reply) in all {
            let Some(recipient) = recipients.get(index) else { continue };
            let Some((hosts, _)) = &self.quirks else { return };
            if hosts.disordered(self.message.0, key(recipient)) >= PATIENCE {
                continue;
            }
            tracing::debug!(host = self.host(), id = %self.message.0, %reply, "a refusal that speaks of the order of commands, which was right");
            fates.forget(&[index], Stage::Connect);
            fates.set(
                index,
                Stage::Idle,
                Event::Garbled(format!("commands in order are refused as out of order: {reply}")),
            );
            if self.pipelining {
                self.note(|quirks| quirks.serial = true);
            }
        }
    }
}

/// Refusals of these are about a command.
fn is_asked(stage: Stage) -> bool {
    matches!(stage, Stage::Mail | Stage::Rcpt | Stage::Data)
}

fn key(recipient: &Recipient) -> u64 {
    let mut hasher = DefaultHasher::new();
    recipient.address.as_str().hash(&mut hasher);
    hasher.finish()
}

/// Unknown, not implemented, or out of order: by the code, unless the words or the enhanced code say something else.
fn speaks_of_order(reply: &Reply) -> bool {
    let text = reply.text.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    // MailEnable and others say 503 where 530 is meant, or 550.
    if has(&["auth", "log in", "login", "logged in", "relay", "starttls", "encrypt"]) {
        return false;
    }
    match (reply.code, reply.enhanced) {
        (503, None | Some((_, 5, 0 | 1))) => true,
        (500..=502 | 504, Some((_, 5, 1))) => true,
        (500 | 502, None | Some((_, 5, 0 | 2))) => has(&["command", "unrecogni", "implement"]),
        // As Postfix says it, of a batch that has lost its RCPT.
        (554, None | Some((_, 5, 1))) => has(&["no valid recipient"]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_on_the_order_of_commands_are_told_from_words_on_mail() {
        let of = |code, enhanced, text: &str| speaks_of_order(&Reply { code, enhanced, text: text.into() });
        let invalid = Some((5, 5, 1));
        for (code, enhanced, text) in [
            (503, invalid, "Error: send HELO/EHLO first"),
            (503, None, "Bad sequence of commands"),
            (503, Some((5, 5, 0)), "<DATA>: Data command rejected: Improper use of SMTP command pipelining"),
            (500, Some((5, 5, 2)), "Error: bad syntax: unrecognized command"),
            (500, None, "Syntax error, command unrecognized"),
            (502, invalid, "VRFY command is disabled"),
            (554, invalid, "Error: no valid recipients"),
        ] {
            assert!(of(code, enhanced, text), "{code} {text}");
        }
        for (code, enhanced, text) in [
            (
                503,
                None,
                "This mail server requires authentication when attempting to send to a non-local e-mail address",
            ),
            (503, invalid, "Authentication required"),
            (503, Some((5, 7, 1)), "your address is on a list"),
            (500, None, "no such user here"),
            (501, Some((5, 1, 3)), "Bad recipient address syntax"),
            (501, None, "Syntax error in parameters or arguments"),
            (504, Some((5, 5, 2)), "<x>: Helo command rejected: need fully-qualified hostname"),
            (550, invalid, "Protocol error"),
            (554, Some((5, 7, 1)), "no valid recipients of spam"),
            (451, None, "command not implemented today"),
        ] {
            assert!(!of(code, enhanced, text), "{code} {text}");
        }
    }
}
