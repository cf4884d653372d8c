//! Whether replies and commands are in step.
//!
//! A reply is known by its place alone. A host that says one more than it was asked for, such as `250` to a message and
//! its real verdict a moment later, shifts all that follow: the next message on the connection would have the
//! fate of the one before, or be called delivered for a reply to its recipient. So:
//!
//! - What a connection refuses that has carried a message before counts once the host has answered an EHLO behind it.
//!   That reply has several lines and names extensions: it is no answer to anything else. It costs a round trip for each such
//!   refusal, and ends the transaction as RSET does (RFC 5321 §4.1.4). Refused recipients need none where a later
//!   reply shows the same: a 354, or a refusal to go on without any.
//! - Where the host does not show it, the message goes again at once on a fresh connection, where nothing can
//!   be late, unless the body is out: then it may have arrived.
//! - A 354 answers nothing but DATA. BDAT has no such reply: a body leaves unasked only where the host's replies
//!   to RCPT and to the end of a message are told apart by their [`Form`], and no reply of the form of the first is the second.
//! - A host that was out of step gets one message a connection for some hours (`quirks`).
//!
//! - What comes between the 354 and the last octets of a message answers none of it: see `stray`.
//!
//! A reply too many that comes just where the one to the end of a message is due: see `end`.

use std::time::Duration;

use lettre::transport::smtp::commands::Ehlo;

use super::Capabilities;
use super::command::print;
use super::fact::{Event, Fact, Reply, Stage};
use super::reply::Received;
use super::session::Connection;
use super::transaction::Fates;

/// For the answer to what a host may not know what to do with.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What the replies of a transaction showed beside the fates of its recipients.
#[derive(Default)]
pub(super) struct Heard {
    /// The reply to MAIL, once it came.
    pub mail: Option<MailHeard>,
    /// The form of the positive reply to MAIL.
    pub mail_form: Option<Form>,
    /// The form of the last positive reply to RCPT.
    pub recipient: Option<Form>,
    /// What was said to DATA or BDAT without any recipient holds for now only.
    pub nobody_for_now: bool,
    /// A command at a time, a recipient was refused in the words of something before: maybe a late copy of that.
    pub refused_alike: bool,
    /// A 354 came to DATA: all replies before it were the ones to our commands.
    pub go_ahead: bool,
    /// There were more replies than commands, and a message that was out with its recipients.
    pub out_of_step: bool,
    /// Recipients of the transaction.
    pub recipients: usize,
    /// A chunk was answered in the words of something before: the answers to the others may be one too late.
    pub shifted: bool,
    /// Chunks before the last one had answers of their own.
    pub in_chunks: bool,
    /// An EHLO behind the end showed that the reply to that is the one taken for it.
    pub end_is_shown: bool,
}

/// What came of MAIL and its parameters.
#[derive(Clone, Copy)]
pub(super) struct MailHeard {
    /// It had some besides SMTPUTF8.
    pub had: bool,
    /// It was taken.
    pub begun: bool,
    /// The refusal may be about them.
    pub about: bool,
}

/// What replies to the same command have in common at a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Form {
    enhanced: Option<(u8, u16, u16)>,
    /// The beginning of the first word in lower case, if it is one: no queue id, no address.
    word: [u8; 12],
}

impl Form {
    pub(super) fn of(reply: &Reply) -> Form {
        let word =
            reply.text.split_ascii_whitespace().next().unwrap_or_default().trim_end_matches([':', ',', '.', ';']);
        let mut form = Form { enhanced: reply.enhanced, word: [0; 12] };
        if word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            form.word.iter_mut().zip(word.bytes()).for_each(|(slot, byte)| *slot = byte.to_ascii_lowercase());
        }
        form
    }

    /// Whether this may be a reply to the same command: by the enhanced code where there is one, whatever the words.
    pub(super) fn is_like(self, other: Form) -> bool {
        match (self.enhanced, other.enhanced) {
            (None, None) => self.word == other.word,
            (one, another) => one == another,
        }
    }
}

/// How a host answers an EHLO behind what it has said.
enum Proof {
    /// As an EHLO is answered: in step.
    InStep,
    /// With something else that it does not refuse anything by: one reply more than there were commands.
    OutOfStep,
    /// With a refusal, of this or of the command before, or it cannot be told from other replies.
    Refused,
    /// Not at all.
    Gone,
}

impl Connection {
    /// Prints the command whose reply cannot be taken for another one.
    pub(super) fn print_hello(&mut self) {
        print(&mut self.wire.out, Ehlo::new(self.hello.clone()));
    }

    /// The reply to EHLO, by what the host offered at first.
    pub(super) fn is_hello(&self, received: &Received) -> bool {
        let key = |caps: &Capabilities| [caps.pipelining, caps.chunking, caps.eight_bit_mime];
        let offered = key(&self.caps);
        received.reply.is_positive()
            && received.lines.len() > 1
            && offered.contains(&true)
            && key(&Capabilities::from_lines(&received.lines)) == offered
    }

    /// Whether the refusals of a transaction, all of whose replies were read, are known to be about it. If they are not, its
    /// recipients have another fate, and the connection has ended.
    pub(super) async fn refusals_hold(&mut self, open: &[usize], fates: &mut Fates, heard: &Heard) -> bool {
        if !self.doubts(open, fates, heard) {
            return true;
        }
        let used = self.sent > 1;
        let end = fates.of(open).any(|fact| fact.stage == Stage::Final);
        // In the middle of a body nothing can be asked.
        let cut_off = !self.usable && fates.of(open).any(|fact| fact.stage == Stage::Body);
        let proof = if cut_off { Proof::Refused } else { self.prove().await };
        if let Proof::InStep = proof {
            self.dirty = false;
            if !self.is_about_the_dialog(open, fates) {
                return true;
            }
            if fates.of(open).any(|fact| matches!(&fact.event, Event::Reply(reply) if reply.code == 503)) {
                self.note(|quirks| quirks.once = true);
            }
        }
        self.usable = false;
        let slower = match proof {
            Proof::OutOfStep => self.note_out_of_step(heard.go_ahead),
            // On a fresh connection nothing can be late; and whoever refuses a message may well leave.
            Proof::Refused if !used => return true,
            Proof::Gone if !used || end => return true,
            _ => false,
        };
        let refusal = fates.of(open).next().map(|fact| fact.event.clone());
        if let (Proof::OutOfStep, true, false, Some(Event::Reply(reply))) = (&proof, used, end, &refusal) {
            self.tell_stray(reply);
        }
        let does_not_count = refusal.map(|event| self.does_not_count(event));
        fates.forget(open, if heard.go_ahead { Stage::Body } else { Stage::Mail });
        let arrived = matches!(proof, Proof::OutOfStep) && (end || self.all_out);
        let stage = match arrived {
            true => Stage::Final,
            false if used || slower => Stage::Idle,
            false => Stage::Data,
        };
        let event = match proof {
            Proof::OutOfStep => Event::Garbled("more replies than commands".to_owned()),
            _ => does_not_count.unwrap_or(Event::Closed),
        };
        fates.rest(stage, event);
        false
    }

    /// Whether a used connection is refused for what was said on it, not for the message: hosts that do not end a
    /// transaction with its message say 503 to the next one ("nested MAIL"), or no longer know a command.
    fn is_about_the_dialog(&self, open: &[usize], fates: &Fates) -> bool {
        let about = |fact: &Fact| {
            matches!(fact.stage, Stage::Mail | Stage::Rcpt | Stage::Data)
                && matches!(&fact.event, Event::Reply(reply) if is_word_on_commands(reply))
        };
        self.sent > 1 && fates.of(open).any(about) && !fates.of(open).any(|fact| fact.stage == Stage::Final)
    }

    /// What becomes of a refusal that a fresh connection has to repeat.
    pub(super) fn does_not_count(&self, refusal: Event) -> Event {
        let why = match self.sent > 1 {
            true => "the refusal may have been about the message before",
            false => "the refusal came before the end of the message and may have been about a recipient",
        };
        tracing::debug!(host = self.host(), reply = %refusal, why, "a refusal does not count");
        Event::LeftOut(why)
    }

    /// Whether a refusal may be the answer to something before. DATA is rarely refused once it has recipients: there
    /// a reply to one of them may be taken for it, also on a fresh connection.
    fn doubts(&self, open: &[usize], fates: &Fates, heard: &Heard) -> bool {
        let refused = |stage| fates.of(open).any(|fact| fact.stage == stage && is_refusal(&fact.event));
        if heard.end_is_shown {
            return false;
        }
        if self.sent <= 1 {
            return refused(Stage::Data) || heard.refused_alike && !heard.go_ahead;
        }
        if self.is_about_the_dialog(open, fates) {
            return true;
        }
        if [Stage::Mail, Stage::Data, Stage::Body, Stage::Final].into_iter().any(refused) {
            return true;
        }
        let nobody = fates.of(open).all(|fact| fact.stage == Stage::Rcpt);
        let for_good = |wanted| fates.of(open).any(|fact| is_permanent(&fact.event) == wanted);
        // All for good, and DATA too: whichever is whose, they are refused.
        nobody && !heard.go_ahead && for_good(true) && (!self.pipelining || for_good(false) || heard.nobody_for_now)
    }

    async fn prove(&mut self) -> Proof {
        if self.wire.has_stray() {
            return Proof::OutOfStep;
        }
        if self.wire.is_broken() {
            return Proof::Gone;
        }
        self.wire.keep_lines(true);
        self.print_hello();
        self.wire.write(&[], 1, usize::MAX, self.timeouts.write).await;
        self.awaited.begins(self.message, Stage::Ehlo, false);
        let received = self.wire.read(self.timeouts.ehlo.min(PATIENCE)).await;
        self.awaited.ends();
        self.wire.keep_lines(false);
        match received {
            Err(Event::Garbled(_)) => Proof::OutOfStep,
            Err(_) => Proof::Gone,
            Ok(received) if received.reply.code == 421 => Proof::Gone,
            Ok(received) if self.is_hello(&received) && !self.wire.has_stray() => Proof::InStep,
            Ok(received) if received.reply.code < 400 && self.can_prove() => Proof::OutOfStep,
            Ok(_) => Proof::Refused,
        }
    }

    /// The host's reply to EHLO has something that others have not.
    pub(super) fn can_prove(&self) -> bool {
        self.caps.pipelining || self.caps.chunking || self.caps.eight_bit_mime
    }

    /// Remembers that the host says more than it is asked for: behind a message, or within one. Returns whether a first
    /// message will be sent to it in another way: each command behind the reply to the one before, then, where
    /// something is wrong before the `go_ahead`, a moment later.
    pub(super) fn note_out_of_step(&self, go_ahead: bool) -> bool {
        let (used, pipelining, before) = (self.sent > 1, self.pipelining, self.known_quirks());
        self.note(|quirks| {
            quirks.once |= used;
            quirks.serial |= !used && pipelining;
            quirks.doubles |= !used && !pipelining && !go_ahead;
        });
        let known = self.known_quirks();
        (known.serial, known.doubles) != (before.serial, before.doubles)
    }
}

fn is_refusal(event: &Event) -> bool {
    match event {
        Event::Reply(reply) => !reply.is_positive(),
        Event::Extension { .. } => true,
        _ => false,
    }
}

/// Unknown or out of order. 501 is for addresses and parameters as well, unless its enhanced code says the same.
pub(super) fn is_word_on_commands(reply: &Reply) -> bool {
    matches!(reply.code, 500 | 502 | 503) || reply.code == 501 && reply.enhanced == Some((5, 5, 1))
}

fn is_permanent(event: &Event) -> bool {
    matches!(event, Event::Reply(reply) | Event::Extension { reply, .. } if reply.is_permanent())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(enhanced: Option<(u8, u16, u16)>, text: &str) -> Form {
        Form::of(&Reply { code: 250, enhanced, text: text.to_owned() })
    }

    /// As Postfix, Exchange, Exim, and a host that says the same to everything.
    #[test]
    fn forms_tell_a_recipient_from_the_end_of_a_message() {
        let (recipient, end) = (Some((2, 1, 5)), Some((2, 0, 0)));
        for (one, another, like) in [
            (form(recipient, "Ok"), form(end, "Ok: queued as 4711"), false),
            (form(recipient, "Recipient OK"), form(Some((2, 6, 0)), "<1@x> Queued mail for delivery"), false),
            (form(recipient, "Ok"), form(recipient, "will forward"), true),
            (form(None, "Accepted"), form(None, "OK id=1abc-2"), false),
            (form(None, "ok"), form(None, "OK: queued"), true),
            // Of any recipient.
            (form(None, "<a@x.example> ok"), form(None, "<b@x.example> fine"), true),
            (form(None, ""), form(None, "4711 queued"), true),
        ] {
            assert_eq!(one.is_like(another), like, "{one:?} {another:?}");
        }
    }
}
