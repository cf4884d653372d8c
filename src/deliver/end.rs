//! Which reply is the one to the end of a message, at a host that says something again, later.
//!
//! Such a copy comes where only the reply to the end is awaited: one of a success would call a refused message delivered, one of
//! a refusal would bounce a message that was taken. What no message is answered with (the greeting, the reply to EHLO, a 354) is
//! passed over there. Anything else that the host has said in the same words before on this connection is doubted: many
//! honest hosts say `250 ok` to everything, so the words alone prove nothing. The host is asked instead:
//!
//! - EHLO follows. A host answers in the order of the commands, and no other reply looks like the one to EHLO, so what it says
//!   before that holds its reply to the message. Where that is nothing, the first one was it. A host that can show
//!   nothing by EHLO is not asked. One that is known to repeat itself is asked by QUIT: it may repeat its reply to EHLO, but no 221.
//! - Of several the reply is the last one that is no copy. Where all are, or some take the message and some do not, nobody can
//!   know: the message is kept and tried again, since it had better arrive twice than not at all. The second time the same message has such
//!   an end at the same host it fails, and its sender hears both: each further attempt might be a further copy.
//!   In between each of several recipients has a transaction of its own, where no neighbour's refusal is repeated.
//!   A refusal is taken for a copy only of a host that was seen to make such. Where nothing but
//!   such refusals is left beside copies, it may be the other way round.
//! - A refusal in the words of another one that is not shown to be about the message is nobody's fate.
//!
//! Honest hosts lose nothing: who answers MAIL and RCPT in the same words is not asked, and where those differ, the reply to a
//! message is worded like neither, as a rule; else it costs a round trip a message. A host that was seen to say something
//! twice (`quirks`) has to show each of its replies.
//!
//! What no client can know: the first copy of all of a host that is not known to repeat itself, in words that it has for every
//! command, or every message.

use std::time::Duration;

use lettre::transport::smtp::commands::Quit;

use super::command::print;
use super::fact::{Event, Reply, Stage};
use super::reply::Received;
use super::session::Connection;
use super::step::{Heard, PATIENCE, is_word_on_commands};
use super::stray::{COPIES, MOMENT};
use super::transaction::End;
use super::wire::contradict;

/// What the host has said behind a message, and how that ended.
struct Words {
    /// None of them is the reply to the question.
    all: Vec<Received>,
    /// Something was said that answers no message.
    copies: bool,
    /// A success in the words of another is not what the host says to everything.
    telling: bool,
    shown: bool,
    /// The question has no answer.
    silent: bool,
}

impl Connection {
    /// The reply to the end of a message, all of which is out.
    ///
    /// # Errors
    /// It cannot be told from something else, or the connection is over.
    pub(super) async fn reply_to_end(&mut self, heard: &mut Heard) -> Result<Reply, End> {
        self.wire.bear(COPIES);
        let (first, copies) = self.first_word().await?;
        self.wire.bear_no_more();
        let doubted = copies || self.known_quirks().is_doubted() || heard.shifted;
        // Who answers MAIL and RCPT in the same words answers everything so.
        let telling = heard.mail_form != heard.recipient;
        // That it was the reply to one message proves nothing of the next: a copy of that to MAIL may come with any.
        let of_chunks = heard.in_chunks && self.alike.as_ref() == Some(&first.reply);
        let alike = first.again && (telling || !first.reply.is_positive()) && !of_chunks;
        if !doubted && !alike && !self.wire.has_opposite_of(&first.reply) {
            if !first.again && !names_message(&first.reply) {
                self.wire.may_say_again(&first.reply);
            }
            self.heard_end(&first.reply);
            return Ok(first.reply);
        }
        let words = Words { all: vec![first], copies, telling, shown: false, silent: false };
        let words = self.question(words, doubted).await;
        heard.end_is_shown = words.shown;
        // Recipients and message went out at once: one reply too many may have come before any of theirs.
        let mixed = self.all_out && heard.recipients > 1 && words.all.len() > 1;
        let reply = match words.reply(doubted).filter(|_| !mixed) {
            Some(reply) => reply,
            None => return Err(self.left_open(&words, heard.recipients > 1)),
        };
        self.heard_end(&reply);
        Ok(reply)
    }

    /// The first that the host says behind a message and that may be about it, and whether there was anything else.
    async fn first_word(&mut self) -> Result<(Received, bool), End> {
        let mut copies = false;
        for _ in 0..=COPIES {
            let received =
                self.received(Stage::Final, self.timeouts.last).await.map_err(|event| (Stage::Final, event))?;
            match received.reply.code {
                421 => return Err((Stage::Final, Event::Reply(received.reply))),
                220 | 300..=399 => {}
                _ if received.again && self.wire.is_hello_again(&received.reply) => {}
                _ => return Ok((received, copies)),
            }
            tracing::debug!(host = self.host(), id = %self.message.0, reply = %received.reply, "no reply to a message: passed over");
            copies = true;
            self.note_copy();
        }
        Err((Stage::Final, Event::Garbled("more replies than commands".to_owned())))
    }

    /// The host repeats itself, and may have said what it says twice between a 354 and the message.
    fn note_copy(&mut self) {
        self.usable = false;
        self.note_late_go_ahead();
        self.note(|quirks| quirks.repeats = true);
    }

    /// Asks the host something that nothing else is answered like, and hears what it says until then.
    async fn question(&mut self, mut words: Words, doubted: bool) -> Words {
        if self.wire.is_broken() || !doubted && !self.can_prove() {
            self.take_in_rest(&mut words).await;
            return words;
        }
        self.wire.keep_lines(true);
        if !doubted {
            self.ask(&mut words, false).await;
        }
        // A host that repeats itself may have repeated its reply to the first EHLO, too.
        if doubted || words.shown && (words.copies || words.all.len() > 1) {
            self.ask(&mut words, true).await;
        }
        self.wire.keep_lines(false);
        if words.copies || words.all.len() > 1 {
            self.note_copy();
        }
        self.usable &= words.shown;
        words
    }

    /// EHLO, or QUIT: the last word on this connection.
    async fn ask(&mut self, words: &mut Words, by_quit: bool) {
        match by_quit {
            true => print(&mut self.wire.out, Quit),
            false => self.print_hello(),
        }
        self.usable &= !by_quit;
        self.wire.write(&[], 1, usize::MAX, self.timeouts.write).await;
        let before = words.all.len();
        while words.all.len() <= COPIES {
            let limit = match words.all.last() {
                // Its true reply takes as long as it takes.
                Some(last) if last.again => self.timeouts.last,
                // The reply to the question comes right behind that to the message.
                Some(last) if is_word_on_commands(&last.reply) => MOMENT,
                _ => PATIENCE,
            };
            let received = match self.received(Stage::Final, limit).await {
                Ok(received) => received,
                Err(event) => {
                    words.silent = matches!(event, Event::Timeout(_));
                    break;
                }
            };
            match received.reply.code {
                421 => break,
                221 if by_quit => return words.shown = true,
                220 | 300..=399 => words.copies = true,
                _ if self.is_hello(&received) && by_quit => words.copies = true,
                _ if self.is_hello(&received) => {
                    self.dirty = false;
                    return words.shown = true;
                }
                _ => words.all.push(received),
            }
        }
        // The question itself is refused, and nothing follows that.
        if words.all.len() > before.max(1) && words.all.last().is_some_and(|word| is_word_on_commands(&word.reply)) {
            words.all.pop();
            words.shown = true;
            self.usable = false;
        }
    }

    /// What lies there already.
    async fn take_in_rest(&mut self, words: &mut Words) {
        while words.all.len() <= COPIES && self.wire.has_stray() {
            let Ok(received) = self.received(Stage::Final, Duration::ZERO).await else { break };
            words.all.push(received);
        }
    }

    /// Nobody can tell which of these is about the message, which went to `several`.
    fn left_open(&mut self, words: &Words, several: bool) -> End {
        self.usable = false;
        let said = words.all.iter().map(|word| word.reply.to_string()).collect::<Vec<_>>().join("; ");
        let (contradiction, refused) = (words.contradict(), !words.all.iter().any(|word| word.reply.is_positive()));
        let before = self.quirks.as_ref().is_some_and(|(hosts, place)| hosts.was_open(place, self.message.0));
        tracing::warn!(
            host = self.host(), id = %self.message.0, %said,
            "which reply of the host is about the message cannot be told: it is tried again, as it may have arrived"
        );
        self.note(|quirks| {
            quirks.repeats = true;
            quirks.haste = quirks.haste.or_waits();
            quirks.contradicts |= contradiction;
            // The refusal of a neighbour comes behind no message that goes to one alone.
            quirks.unasked |= contradiction && several;
        });
        let why = match contradiction {
            true => "two replies to the end of a message",
            false => "a reply that may have been about something else",
        };
        let event = match before && (contradiction || refused) {
            true => Event::Unsendable {
                enhanced: "5.5.0",
                text: format!("time and again, {why}, so it may have arrived: {said}"),
            },
            false => Event::Garbled(format!("{why}: {said}")),
        };
        (Stage::Final, event)
    }
}

impl Words {
    /// Some take the message, some do not.
    fn contradict(&self) -> bool {
        self.all.iter().any(|word| self.all.first().is_some_and(|first| contradict(&first.reply, &word.reply)))
    }

    /// The one about the message; `None`: nobody can know.
    fn reply(&self, doubted: bool) -> Option<Reply> {
        // Hosts do refuse one message after the other in the same words: those are a copy at a host that makes such.
        let copy = |word: &Received| word.again && if word.reply.is_positive() { self.telling } else { doubted };
        let own = || self.all.iter().filter(|word| !copy(word));
        if !self.shown {
            // Good for what is no copy, and for a success of a host that leaves and never gave cause for doubt.
            let success = self.all.first().filter(|word| word.reply.is_positive() && !doubted && !self.silent);
            let holds = self.all.iter().find(|word| !word.again).or(success);
            return holds.filter(|_| !self.contradict()).map(|word| word.reply.clone());
        }
        // A refusal in the words of another one is no better known than the copy beside it.
        let candidates: Vec<&Received> = match own().any(|word| !word.again) {
            true => own().collect(),
            false => self.all.iter().collect(),
        };
        let last = candidates.last()?;
        let differs = |word: &&&Received| contradict(&last.reply, &word.reply);
        (!candidates.iter().any(|word| differs(&word))).then(|| last.reply.clone())
    }
}

/// Whether something in it looks like the id of a message, which no other one has.
fn names_message(reply: &Reply) -> bool {
    let is_id = |word: &str| word.len() >= 6 && word.bytes().any(|byte| byte.is_ascii_digit());
    reply.text.split_ascii_whitespace().any(is_id)
}
