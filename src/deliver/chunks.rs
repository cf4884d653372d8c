//! BDAT (RFC 3030): bodies of known length, without a dot line and without a go-ahead.
//!
//! What makes it quick makes it dangerous. A host that announces CHUNKING and does not know BDAT (behind a proxy, on an
//! old gateway) would take the body for commands, and obey those that somebody wrote into it. One that answers
//! BDAT twice would give the next message the fate of this one. So nothing is taken on trust; each
//! connection shows it by itself ([`Chunks`]), since behind one address there may be several programs:
//!
//! 1. The first message by BDAT sends its first line alone, and the rest only once that was taken. The line is the
//!    `Received:` field's, which is no command ([`first_chunk`]). `BDAT 0` would send less, but Postfix
//!    refuses it ("551 Null BDAT request"), and Exim 4.96 crashes at RSET behind it.
//! 2. The message after it goes by DATA: its 354 cannot be the answer to anything else, so replies and
//!    commands are in step.
//! 3. From then on a message of one chunk leaves in one write.
//!
//! That costs no round trip, as DATA needs two, too. A message as octets cannot go by DATA, so a connection that has
//! got its first one and shown no more is closed behind it.

use bytes::Bytes;

use super::Transaction;
use super::command::print;
use super::fact::{Event, Reply, Stage};
use super::session::Connection;
use super::transaction::{End, Fates};
use super::wire::Written;
use crate::crash;

/// Bytes of a line that may go ahead; RFC 5321 §4.5.3.1.6 allows no longer ones.
const LINE: usize = 1000;
/// What the first line of every message begins with that came to us as one.
const FIELD: &[u8] = b"Received:";

/// What a connection has shown of BDAT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Chunks {
    /// Nothing.
    Untried,
    /// It took a message; whether it answered once will show at the next.
    Took,
    /// It takes BDAT, and replies came as often as commands.
    InStep,
}

/// How much of a body may follow BDAT before anybody has answered it: the whole first line if that is a field, which
/// no host takes for a command; else an octet, which is no line.
fn first_chunk(body: &[u8]) -> usize {
    let line = body.iter().take(LINE).position(|octet| *octet == b'\n').map_or(1, |end| end + 1);
    if body.starts_with(FIELD) { line } else { body.len().min(1) }
}

impl Connection {
    /// Whether a message of lines may go by BDAT now.
    pub(super) fn sends_chunks(&self) -> bool {
        self.chunking && self.chunks != Chunks::Took
    }

    /// Prints the BDAT of the first chunk of a first message; returns the length of that.
    pub(super) fn put_first_chunk(&mut self, body: &[u8]) -> usize {
        let first = first_chunk(body);
        print(&mut self.wire.out, format_args!("BDAT {first}\r\n"));
        first
    }

    /// What is behind the first line, if that is taken.
    pub(super) async fn rest_of_chunk(
        &mut self,
        rest: Bytes,
        end: Bytes,
        accepted: usize,
        fates: &mut Fates,
    ) -> Result<(), End> {
        if !self.first_is_taken(accepted, fates).await? {
            return Ok(());
        }
        print(&mut self.wire.out, format_args!("BDAT {} LAST\r\n", rest.len() + end.len()));
        crash::point("dot.before");
        let written = self.wire.write(&[&rest, &end], 1, 1, self.timeouts.write).await;
        crash::point("dot.after");
        self.end_of_bdat(written, accepted, fates).await
    }

    /// Reads the reply to the first chunk. False: there will be no more of it, and everyone has that fate.
    async fn first_is_taken(&mut self, accepted: usize, fates: &mut Fates) -> Result<bool, End> {
        let stage = Stage::Data;
        let reply = self.reply(stage, self.timeouts.data).await.inspect_err(|(_, event)| {
            // Some do not know what to do with it.
            if matches!(event, Event::Closed | Event::Io(_) | Event::Reply(_)) {
                self.note(|quirks| quirks.no_bdat = true);
            }
        })?;
        if reply.is_positive() {
            let why = match (accepted, self.wire.has_stray()) {
                (0, _) => format!("a positive reply to what cannot have worked: {reply}"),
                (_, true) => "more replies than commands".to_owned(),
                (_, false) => return Ok(true),
            };
            self.note(|quirks| quirks.no_bdat = true);
            return Err((stage, Event::Garbled(why)));
        }
        if accepted == 0 {
            // It may have refused the chunk for want of a recipient. If it took the line for a command, its answer to
            // that is read as the one to RSET, which ends the connection.
            return Ok(false);
        }
        self.usable = false;
        // It has seen nothing yet that it could judge for good.
        let event = if reply.is_permanent() {
            self.note(|quirks| quirks.no_bdat = true);
            Event::Extension { what: "CHUNKING", reply }
        } else {
            Event::Reply(reply)
        };
        fates.rest(stage, event);
        Ok(false)
    }

    /// Writes the body as it is, one BDAT for each chunk of it, and waits for the reply to each.
    pub(super) async fn octets(
        &mut self,
        tx: &Transaction<'_>,
        head: Bytes,
        accepted: usize,
        fates: &mut Fates,
    ) -> Result<(), End> {
        if accepted == 0 {
            return Ok(());
        }
        let chunks = tx.body.pieces(tx.message);
        let mut chunk = head;
        if self.chunks == Chunks::Untried {
            let first = self.put_first_chunk(&chunk);
            self.wire.write(&[&chunk[..first]], 1, usize::MAX, self.timeouts.write).await;
            if !self.first_is_taken(accepted, fates).await? {
                return Ok(());
            }
            chunk = chunk.slice(first..);
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
                self.end_of_bdat(written, accepted, fates).await?;
                self.usable &= self.chunks == Chunks::InStep;
                return Ok(());
            }
            let Some(reply) = self.reply_to_bdat(Stage::Body, accepted, fates).await? else { return Ok(()) };
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
    async fn reply_to_bdat(&mut self, stage: Stage, accepted: usize, fates: &mut Fates) -> Result<Option<Reply>, End> {
        let reply = self.reply(stage, self.timeouts.last).await?;
        if accepted > 0 && refuses_command(&reply) {
            self.note(|quirks| quirks.no_bdat = true);
            self.usable = false;
            fates.rest(stage, Event::Extension { what: "CHUNKING", reply });
            return Ok(None);
        }
        Ok(Some(reply))
    }

    /// The reply to `BDAT n LAST`, whose body is out already.
    pub(super) async fn end_of_bdat(&mut self, whole: Written, accepted: usize, fates: &mut Fates) -> Result<(), End> {
        let stage = if whole == Written::All { Stage::Final } else { Stage::Body };
        let reply = self.reply_to_bdat(stage, accepted, fates).await?;
        crash::point("reply.read");
        let Some(reply) = reply else { return Ok(()) };
        if reply.is_positive() && self.chunks == Chunks::Untried {
            self.chunks = Chunks::Took;
        }
        // A failed BDAT leaves the transaction in an undefined state until RSET (RFC 3030 §2).
        self.dirty = !reply.is_positive();
        if reply.is_positive() && (accepted == 0 || whole == Written::Early) {
            let why = format!("a positive reply to what cannot have worked: {reply}");
            return Err((stage, Event::Garbled(why)));
        }
        if reply.is_positive() && self.wire.has_stray() {
            self.note_stray();
            if self.chunks == Chunks::InStep || !self.wire.has_stray_success() {
                // This one may have been the answer to a RCPT.
                return Err((stage, Event::Garbled("more replies than commands".to_owned())));
            }
            // Only BDAT was not answered yet when it was written, and each of its answers says that it was taken.
            self.usable = false;
        }
        // Refused before all of the body was out: the rest of it would be taken for commands.
        self.usable &= whole == Written::All;
        fates.rest(stage, Event::Reply(reply));
        Ok(())
    }
}

/// The command is not known, not implemented or not wanted here.
fn refuses_command(reply: &Reply) -> bool {
    matches!(reply.code, 500..=504 | 555) || reply.is_permanent() && matches!(reply.enhanced, Some((_, 5, 1 | 2 | 4)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_ahead_is_no_command() {
        assert_eq!(first_chunk(b"Received: from a by b\r\n\tid c\r\nX: y\r\n"), 23);
        for other in [&b"RSET\r\nMAIL FROM:<a@b.example>\r\n"[..], b"Received", b"X: y\r\n"] {
            assert_eq!(first_chunk(other), 1);
        }
        let endless = [FIELD, &[b'x'; 2 * LINE]].concat();
        assert_eq!((first_chunk(&endless), first_chunk(b"")), (1, 0));
    }
}
