//! BDAT (RFC 3030): bodies of known length, without a dot line and without a go-ahead.
//!
//! What makes it quick makes it dangerous. A host that announces CHUNKING and does not know BDAT (behind a proxy, on an
//! old gateway) would take the body for commands, and obey those that somebody wrote into it. One that answers
//! more often than it is asked would give a message the reply to something else. So nothing is taken on trust; each
//! connection shows it by itself, since behind one address there may be several programs:
//!
//! 1. The first message of a connection goes by DATA: its 354 cannot be the answer to anything else, so it shows the
//!    form of the host's replies to RCPT and to the end of a message (`step`). Where they are alike, DATA it is.
//! 2. Before the second one, outside of any transaction, a chunk of [`TRIAL`] is sent, with EHLO behind it
//!    ([`Connection::try_bdat`]). Who obeys BDAT reads the chunk before it refuses it for want of a recipient (RFC 3030
//!    §2 demands that), and says no more until it answers EHLO, which no other reply looks like. Who does not, or thanks
//!    for everything, answers what is in the chunk, which is nothing that could do harm.
//! 3. From then on a message of one chunk leaves in one write.
//!
//! That costs no round trip, as DATA needs two, too. A message as octets cannot go by DATA, so it needs the
//! trial before the first one. (`BDAT 0` would show nothing, Postfix refuses it, and Exim 4.96 crashes at RSET behind it.)

use bytes::Bytes;

use super::Transaction;
use super::command::print;
use super::fact::{Event, Reply, Stage};
use super::session::Connection;
use super::step::{Form, Heard, PATIENCE};
use super::stray::MOMENT;
use super::transaction::{End, Fates};
use super::wire::Written;
use crate::crash;

/// What a host does not obey may be read as commands: those do nothing.
const TRIAL: &str = "NOOP\r\nNOOP\r\n";

/// What a connection has shown of BDAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunks {
    /// Nothing.
    Untried,
    /// It takes the octets of a chunk for what they are.
    Obeyed,
}

impl Connection {
    /// Whether a message of lines may go by BDAT now.
    pub(super) fn sends_chunks(&self) -> bool {
        self.chunking && self.chunks == Chunks::Obeyed && self.apart.is_some()
    }

    /// Says what has to be said before this transaction and is no part of it: whether the host obeys BDAT is found
    /// out. To be called before the permit: what takes a round trip behind it makes the next message follow by so much
    /// too soon. [`Connection::send`] does it if nobody has, and has the result if this ends the connection.
    pub async fn make_ready(&mut self, tx: &Transaction<'_>) {
        // Octets have another connection than lines (`gone`), and what the host has said meanwhile is heard by `send`.
        if self.usable {
            self.wait_before_mail().await;
        }
        let leaves = self.sent > 0 && self.apart.is_none() && self.sends_octets(tx);
        if self.usable && self.is_untried() && !leaves && self.is_quiet() {
            self.message = (tx.message.id, tx.features().keys());
            self.learn_of_chunks(tx).await;
        }
    }

    /// The same of a connection that was looked at.
    pub(super) async fn learn_of_chunks(&mut self, tx: &Transaction<'_>) {
        let octets = self.sends_octets(tx);
        let in_one = self.pipelining && tx.body.pieces(tx.message) == 1;
        if self.is_untried() && (octets || in_one && self.apart.is_some()) {
            self.unready = match self.try_bdat().await {
                Ok(()) if octets && !self.takes_octets() => {
                    Some((Stage::Idle, Event::LeftOut("the host does not obey BDAT: octets have to be converted")))
                }
                tried => tried.err(),
            };
        }
    }

    /// Nobody has tried yet whether it obeys BDAT, which it offers.
    fn is_untried(&self) -> bool {
        self.chunking && self.chunks == Chunks::Untried && self.unready.is_none()
    }

    /// Finds out whether the host obeys BDAT. If not, this connection goes on without.
    ///
    /// # Errors
    /// It did not stand that: nothing more can be said to it.
    async fn try_bdat(&mut self) -> Result<(), End> {
        print(&mut self.wire.out, format_args!("BDAT {} LAST\r\n{TRIAL}", TRIAL.len()));
        self.print_hello();
        self.wire.keep_lines(true);
        let tried = self.hear_trial().await;
        self.wire.keep_lines(false);
        if matches!(tried, Ok(true)) {
            self.chunks = Chunks::Obeyed;
        } else {
            self.chunking = false;
            self.note(|quirks| quirks.no_bdat = true);
        }
        // EHLO has ended whatever was begun.
        self.dirty = false;
        tried.map(drop)
    }

    /// True: one refusal, which is none of the command as such, then the reply to EHLO.
    async fn hear_trial(&mut self) -> Result<bool, End> {
        let most = 2 + TRIAL.lines().count();
        let limit = self.timeouts.ehlo.min(PATIENCE);
        self.wire.write(&[], most, usize::MAX, self.timeouts.write).await;
        let mut refused = false;
        for n in 0..most {
            self.awaited.begins(self.message, Stage::Ehlo, false);
            let received = self.wire.read(limit).await;
            self.awaited.ends();
            let received = received.map_err(|event| (Stage::Idle, event))?;
            match received.reply.code {
                421 => return Err((Stage::Idle, Event::Reply(received.reply))),
                // It waits for a message.
                300..=399 => break,
                // Whatever lies behind it, a 421 too, would pass for the answer to MAIL.
                _ if self.is_hello(&received) && self.wire.is_quiet() => return Ok(n == 1 && refused),
                code => refused = code >= 400 && !matches!(code, 500 | 502 | 504 | 555),
            }
        }
        Err((Stage::Idle, Event::LeftOut("the host does not know BDAT, and has not said what it does know")))
    }

    /// Writes the body as it is, one BDAT for each chunk of it, and waits for the reply to each.
    pub(super) async fn octets(
        &mut self,
        tx: &Transaction<'_>,
        head: Bytes,
        accepted: usize,
        fates: &mut Fates,
        heard: &mut Heard,
    ) -> Result<(), End> {
        if accepted == 0 {
            return Ok(());
        }
        let chunks = tx.body.pieces(tx.message);
        let mut chunk = head;
        // It would pass for the reply to the first chunk.
        if self.wire.has_stray() {
            return Err((Stage::Data, Event::Garbled("more replies than commands".to_owned())));
        }
        for index in 0..chunks {
            if index > 0 {
                chunk = tx.body.chunk(index).await.map_err(|why| (Stage::Body, Event::Local(why)))?;
            }
            let last = index + 1 == chunks;
            print(&mut self.wire.out, format_args!("BDAT {}{}\r\n", chunk.len(), if last { " LAST" } else { "" }));
            if last {
                crash::point("dot.before");
            }
            let written = self.wire.write(&[&chunk], 1, 1, self.timeouts.write).await;
            if last {
                crash::point("dot.after");
                self.end_of_bdat(written, accepted, fates, heard).await?;
                // The next one could not be told from this one.
                self.usable &= self.apart.is_some();
                return Ok(());
            }
            let (reply, again) = self.reply_again(Stage::Body, self.timeouts.last).await?;
            let Some(reply) = self.takes_bdat(reply, Stage::Body, accepted, fates) else { return Ok(()) };
            heard.in_chunks = true;
            // In place of its answer, the last chunk would get this one's. A host says the same to each chunk, as a rule.
            match index {
                0 if !again => self.alike = Some(reply.clone()),
                _ if again && self.alike.as_ref() != Some(&reply) => heard.shifted = heard.mail_form != heard.recipient,
                _ => {}
            }
            if !reply.is_positive() {
                // What was sent so far is thrown away by RSET (RFC 3030 §2).
                self.usable &= written == Written::All;
                fates.rest(Stage::Body, Event::Reply(reply));
                return Ok(());
            }
            if written == Written::Early || self.wire.has_stray() {
                let why = format!("a positive reply before the end of a chunk: {reply}");
                return Err((Stage::Body, Event::Garbled(why)));
            }
            chunk = Bytes::new();
        }
        Ok(())
    }

    /// The reply to a BDAT whose chunk is out; `None`: the host does not take BDAT, and everyone has that fate.
    fn takes_bdat(&mut self, reply: Reply, stage: Stage, accepted: usize, fates: &mut Fates) -> Option<Reply> {
        if accepted > 0 && refuses_command(&reply) {
            self.note(|quirks| quirks.no_bdat = true);
            self.usable = false;
            fates.rest(stage, Event::Extension { what: "CHUNKING", reply });
            return None;
        }
        Some(reply)
    }

    /// The reply to `BDAT n LAST`, whose body is out already.
    pub(super) async fn end_of_bdat(
        &mut self,
        whole: Written,
        accepted: usize,
        fates: &mut Fates,
        heard: &mut Heard,
    ) -> Result<(), End> {
        let stage = if whole == Written::All { Stage::Final } else { Stage::Body };
        // Who has no recipient is refused, and nobody's fate depends on it.
        let reply = match whole == Written::All && accepted > 0 {
            true => self.reply_to_end(heard).await?,
            false => self.reply(stage, self.timeouts.last).await?,
        };
        crash::point("reply.read");
        let Some(reply) = self.takes_bdat(reply, stage, accepted, fates) else { return Ok(()) };
        // A failed BDAT leaves the transaction in an undefined state until RSET (RFC 3030 §2).
        self.dirty = !reply.is_positive();
        heard.nobody_for_now = accepted == 0 && reply.is_transient();
        if reply.is_positive() && (accepted == 0 || whole == Written::Early) {
            let why = format!("a positive reply to what cannot have worked: {reply}");
            // With one more behind it, it is the answer to something before, and the refusals may be, too.
            heard.out_of_step = accepted == 0 && !self.wire.stays_quiet(MOMENT).await && self.wire.has_stray();
            return Err((stage, Event::Garbled(why)));
        }
        if reply.is_positive() {
            let of_recipient = matches!(reply.code, 251 | 252);
            match self.apart {
                Some(recipient) if !heard.end_is_shown && (of_recipient || recipient.is_like(Form::of(&reply))) => {
                    let why = format!("a reply to RCPT where the one to the end of a message is due: {reply}");
                    return Err((stage, Event::Garbled(why)));
                }
                // Octets, right behind the trial.
                None => self.learn_of_forms(&reply, heard),
                Some(_) => {}
            }
        }
        // Refused before all of the body was out: the rest of it would be taken for commands.
        self.usable &= whole == Written::All;
        fates.rest(stage, Event::Reply(reply));
        Ok(())
    }

    /// `end` is the positive reply to the end of a message, and known to be.
    pub(super) fn learn_of_forms(&mut self, end: &Reply, heard: &Heard) {
        let end = Form::of(end);
        self.apart = heard.recipient.filter(|recipient| !recipient.is_like(end));
    }
}

/// The command is not known, not implemented or not wanted here.
fn refuses_command(reply: &Reply) -> bool {
    matches!(reply.code, 500..=504 | 555) || reply.is_permanent() && matches!(reply.enhanced, Some((_, 5, 1 | 2 | 4)))
}
