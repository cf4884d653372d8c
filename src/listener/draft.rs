//! A stored body in the making: content comes in as decoded runs, the header section is fixed up
//! once, and what is more than a chunk goes to the queue while the rest is still coming.
//!
//! Invariants:
//! - What is stored has CRLF line ends only and ends in CRLF, unless it was announced as BINARYMIME ([`exact`]): then
//!   that holds for the header section, and every octet of the body is kept. The readers of `smtp::dot` leave CRs that
//!   belong to no CRLF to this place: in a header section they are white space (so that nothing behind one
//!   becomes a field, and nothing ends the section), in a body they are line ends.
//! - No field has a NUL: it is a `?`. In a body it stays as it came.
//! - Every chunk but the last has exactly [`CHUNK`] bytes.
//! - Memory: chunk 0, plus at most one chunk and one read; a chunk that is done has a quarter of
//!   its length as slack at most. Of a header section no more than a line is held back.
//! - After a refusal the content is only counted: the session reads to the real end of the message
//!   and then says why.
//!
//! The fix-ups (RFC 6409 §8, RFC 5321 §4.4): `Received:` goes on top; `Date:` and `Message-ID:`
//! are added at the end of the header section where they are missing, and so is `From:`, from the
//! reverse-path. `Bcc:` goes away, and with it `Return-Path:` and `Content-Length:`, which say what only
//! the last host of a message can know. The header section ends at an empty line, or before the first line that cannot be part of one (then an
//! empty line is put in), so a body without any header survives as a body.

mod exact;

use std::hash::{DefaultHasher, Hasher};
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use memchr::{memchr, memchr_iter};

use super::rewriting::{MAX_FIELD, Rewriting};
use crate::clock::Timestamp;
use crate::mail::binary::BinaryScan;
use crate::mail::date::Rfc5322;
use crate::mail::header::{MAILBOX_FIELD, cut_out, field_name, is_mailbox_line};
use crate::mail::send_at::{self, SendAt, Unreadable};
use crate::mail::tls_required::TlsRequired;
use crate::mail::urgency::Urgency;
use crate::mail::{Address, BodyTraits, CHUNK, QueueId, Trace};
use crate::queue::{QueueError, Spool};
use crate::smtp::is_bare_cr;

/// Longest line in bytes without its CRLF (RFC 5321 §4.5.3.1.6).
const MAX_LINE: usize = 998;

/// Bytes that a header section may have, if nobody says otherwise.
const MAX_HEADER: u64 = 1 << 20;

/// Longest line of a header section, in bytes without its line end. It cannot go to the queue before it is complete.
const MAX_OPEN: usize = CHUNK / 2;

/// By so much a buffer grows that holds more than a chunk, in bytes.
const GROWTH: usize = 32 * 1024;

/// `Received:` fields over which a message is taken to loop, if nobody says otherwise: RFC 5321 §6.3
/// asks for at least as many.
const MAX_HOPS: u32 = 100;

/// Most bytes reserved for what a client only announced.
const MAX_EXPECTED: usize = 8 * 1024;

/// Fields that do not go on: blind recipients, and what the last host writes when it delivers.
const STRIPPED: [&[u8]; 4] = [b"bcc", b"resent-bcc", b"return-path", b"content-length"];

/// Why a message will not be taken, whatever else is in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// More content than allowed.
    TooLarge,
    /// A header section of more bytes than allowed.
    HeaderTooLarge,
    /// A line of more than 128 KiB in a header section.
    HeaderLineTooLong,
    /// Too many `Received:` fields.
    Loop,
    /// The field that says when it leaves names no time.
    NoTime,
    /// That time is further ahead than mail is held.
    TooFarAhead,
}

/// A finished body.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its queue id.
    pub id: QueueId,
    /// When it came.
    pub received: Timestamp,
    /// Chunk 0; the others are in the queue's spill.
    pub head: Bytes,
    /// Bytes of all chunks.
    pub size: u64,
    /// What is in it.
    pub traits: BodyTraits,
    /// The priority that header fields ask for, if any does; see [`super::urgency`].
    pub priority: Option<i8>,
    /// When it leaves, if a field says so and that is not over.
    pub release: Option<Timestamp>,
    /// Its header says `TLS-Required: No`.
    pub tls_optional: bool,
    /// Hash of the content as received, if one was asked for and the content had a `Message-ID:`
    /// (two messages without one cannot be told from one message sent twice).
    pub fingerprint: Option<u64>,
}

#[derive(Debug, Default)]
struct Header {
    /// Start of the line that is not complete yet.
    line: usize,
    /// Up to here there is no line end to be found any more.
    searched: usize,
    /// There was a field, so a line that starts with white space continues it.
    any: bool,
    /// Start of what is held back until the next line tells what it is: before any field a line from a mailbox file,
    /// else a field whose addresses may change.
    held: Option<usize>,
    received: u32,
    from: bool,
    date: bool,
    message_id: bool,
    urgency: Urgency,
    tls_required: TlsRequired,
    /// In a box, since it is rare.
    send_at: Option<Box<SendAt>>,
    /// The current field is that one.
    in_send_at: bool,
    /// The current field is one to strip.
    stripping: bool,
    /// Complete lines that are to go, in order.
    strip: Vec<Range<usize>>,
    /// There are bare CRs in what came.
    bare_cr: bool,
}

impl Header {
    /// Up to here all is complete and may go to the queue.
    fn complete(&self) -> usize {
        self.held.unwrap_or(self.line)
    }

    /// The start of a first line from a mailbox file.
    fn mailbox(&self) -> Option<usize> {
        self.held.filter(|_| !self.any)
    }

    /// So many bytes in front of what is complete have gone.
    fn gone(&mut self, n: usize) {
        self.line -= n;
        self.searched -= n;
        self.held = self.held.map(|at| at - n);
    }
}

/// Whether a line of a header section, with its end or not, has more bytes than one may have.
fn is_too_long(line: &[u8]) -> bool {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line).len() > MAX_OPEN
}

/// What becomes of the field that says when a message leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Later {
    /// It is one like others.
    Stays,
    /// It goes away, whatever it says.
    Goes,
    /// The same, and it is obeyed up to so far ahead.
    Counts(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Draft {
    id: QueueId,
    received: Timestamp,
    hostname: Arc<str>,
    sender: Option<Address>,
    limit: u64,
    max_hops: u32,
    max_header: u64,
    content: u64,
    buf: Vec<u8>,
    /// While the header section comes in.
    header: Option<Header>,
    message_id: bool,
    urgency: Urgency,
    tls_required: TlsRequired,
    rewriting: Option<Box<Rewriting>>,
    send_at: Later,
    release: Option<Timestamp>,
    /// Bytes of the current body line so far.
    column: usize,
    traits: BodyTraits,
    /// The octets of the body are kept; and what is found in them.
    exact: Option<BinaryScan>,
    refusal: Option<Refusal>,
    /// In a box, since it is rare.
    hash: Option<Box<DefaultHasher>>,
    head: Option<Bytes>,
    /// Chunks handed to the queue.
    spilled: u32,
    /// Bytes in chunks already cut off.
    cut: u64,
}

impl Draft {
    /// Starts a body with its `Received:` line. `limit`: most bytes of content; `expected`: bytes
    /// the client announced, 0 if it did not; `hash`: begin of the fingerprint, if one is wanted.
    pub fn new(
        id: QueueId,
        received: Timestamp,
        trace: &Trace<'_>,
        limit: u64,
        expected: u64,
        hash: Option<DefaultHasher>,
    ) -> Draft {
        // An announcement costs nothing, so it does not get much either.
        let expected = usize::try_from(expected).unwrap_or(MAX_EXPECTED).clamp(2048, MAX_EXPECTED);
        let mut buf = Vec::with_capacity(expected + 1024);
        trace.write(id, Rfc5322(received), &mut buf);
        let header = Header { line: buf.len(), searched: buf.len(), ..Header::default() };
        let traits = BodyTraits { eight_bit_header: !buf.is_ascii(), ..BodyTraits::default() };
        Draft {
            id,
            received,
            hostname: trace.hostname.clone(),
            sender: trace.sender.cloned(),
            limit,
            max_hops: MAX_HOPS,
            max_header: MAX_HEADER,
            content: 0,
            buf,
            header: Some(header),
            message_id: false,
            urgency: Urgency::default(),
            rewriting: None,
            send_at: Later::Stays,
            release: None,
            tls_required: TlsRequired::default(),
            column: 0,
            traits,
            exact: None,
            refusal: None,
            hash: hash.map(Box::new),
            head: None,
            spilled: 0,
            cut: 0,
        }
    }

    /// With another number of `Received:` fields over which it is taken to loop.
    pub fn with_max_hops(self, max_hops: u32) -> Draft {
        Draft { max_hops, ..self }
    }

    /// With another bound of the header section, in bytes.
    pub fn with_max_header(self, max_header: u64) -> Draft {
        Draft { max_header, ..self }
    }

    /// With a time to leave at that a field may name, up to so far ahead; zero: it may not. `given`: it has been named
    /// already, and the field only goes away.
    pub fn with_send_at(self, longest: Duration, given: bool) -> Draft {
        let send_at = match (longest.is_zero(), given) {
            (true, _) => Later::Stays,
            (_, true) => Later::Goes,
            (_, false) => Later::Counts(longest),
        };
        Draft { send_at, ..self }
    }

    /// With fields whose addresses may change.
    pub(super) fn with_rewriting(self, rewriting: Option<Box<Rewriting>>) -> Draft {
        Draft { rewriting, ..self }
    }

    /// The queue id it will have.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Bytes of content so far (RFC 1870: stuffing and dot line not counted).
    pub fn content(&self) -> u64 {
        self.content
    }

    /// Why it will not be taken, if that is already clear.
    pub fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Takes decoded content: CRLF line ends, and bare CRs by themselves ([`is_bare_cr`]).
    pub fn push(&mut self, run: &[u8]) {
        if is_bare_cr(run) {
            return self.push_bare_cr(run);
        }
        self.push_text(run);
    }

    /// CRs that belong to no line end.
    fn push_bare_cr(&mut self, run: &[u8]) {
        match &mut self.header {
            Some(header) => {
                header.bare_cr = true;
                self.push_text(run);
            }
            None => run.iter().for_each(|_| self.push_text(b"\r\n")),
        }
    }

    fn push_text(&mut self, run: &[u8]) {
        let from = self.buf.len();
        if self.append(run) {
            match self.header {
                Some(_) => self.scan_header(),
                None => self.scan_body(from),
            }
        }
    }

    /// Counts content and adds it to the buffer; false: it is only counted.
    fn append(&mut self, run: &[u8]) -> bool {
        self.content = self.content.saturating_add(run.len() as u64);
        if self.refusal.is_some() {
            return false;
        }
        if self.content > self.limit {
            self.refuse(Refusal::TooLarge);
            return false;
        }
        if let Some(hash) = &mut self.hash {
            hash.write(run);
        }
        let from = self.buf.len();
        if self.buf.capacity() - from < run.len() && from + run.len() > CHUNK {
            // Doubled, it would be more than its client has memory for.
            self.buf.reserve_exact(run.len().max(GROWTH));
        }
        self.buf.extend_from_slice(run);
        true
    }

    fn refuse(&mut self, why: Refusal) {
        self.refusal = Some(why);
        self.buf = Vec::new();
        self.head = None;
    }

    /// Classifies the header lines that are complete.
    fn scan_header(&mut self) {
        let Some(mut header) = self.header.take() else { return };
        while let Some(n) = memchr(b'\n', &self.buf[header.searched..]) {
            let (mut start, mut end) = (header.line, header.searched + n + 1);
            if let Some(at) = header.mailbox() {
                if field_name(&self.buf[start..end]).is_none() {
                    return self.end_header(header, at, false);
                }
                self.buf.splice(at..at, MAILBOX_FIELD);
                marks_for_nuls(&mut self.buf[at..start + MAILBOX_FIELD.len()]);
                (start, end) = (start + MAILBOX_FIELD.len(), end + MAILBOX_FIELD.len());
                self.traits.long_line |= start - at > MAX_LINE + 2;
                self.traits.eight_bit_header |= !self.buf[at..start].is_ascii();
                header.held = None;
            }
            if header.bare_cr {
                spaces_for_bare_crs(&mut self.buf[start..end], header.any);
            }
            // A line that goes on with no field ends it.
            let continues = header.any && matches!(self.buf.get(start), Some(b' ' | b'\t'));
            if let Some(at) = header.held.take_if(|_| !continues) {
                let longer = self.rewrite(at..start);
                (start, end) = (start.wrapping_add_signed(longer), end.wrapping_add_signed(longer));
            }
            let line = &self.buf[start..end];
            match line.first() {
                Some(b'\r') if line.len() == 2 => return self.end_header(header, start, true),
                Some(b' ' | b'\t') if header.any => {
                    if let Some(send_at) = header.send_at.as_mut().filter(|_| header.in_send_at) {
                        send_at.more(line);
                    }
                }
                _ => match field_name(line) {
                    Some(name) => {
                        header.any = true;
                        header.stripping = STRIPPED.iter().any(|stripped| name.eq_ignore_ascii_case(stripped));
                        header.in_send_at = self.send_at != Later::Stays && name.eq_ignore_ascii_case(send_at::FIELD);
                        if header.in_send_at {
                            header.stripping = true;
                            header.send_at.get_or_insert_default().begin(line);
                        }
                        if self.rewriting.as_ref().is_some_and(|rewriting| rewriting.wants(name)) {
                            header.held = Some(start);
                        }
                        header.from |= name.eq_ignore_ascii_case(b"from");
                        header.date |= name.eq_ignore_ascii_case(b"date");
                        header.message_id |= name.eq_ignore_ascii_case(b"message-id");
                        header.urgency.field(name, line);
                        header.tls_required.field(name, line);
                        header.received += u32::from(name.eq_ignore_ascii_case(b"received"));
                        if header.received > self.max_hops {
                            return self.refuse(Refusal::Loop);
                        }
                    }
                    None if !header.any && is_mailbox_line(line) => {
                        header.held = Some(start);
                        (header.line, header.searched) = (end, end);
                        continue;
                    }
                    None => return self.end_header(header, start, false),
                },
            }
            if is_too_long(line) {
                return self.refuse(Refusal::HeaderLineTooLong);
            }
            if header.stripping {
                match header.strip.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => header.strip.push(start..end),
                }
            } else {
                self.traits.leading_dot |= line.first() == Some(&b'.');
                self.traits.long_line |= line.len() > MAX_LINE + 2;
                self.traits.eight_bit_header |= !line.is_ascii();
            }
            // Readers that end a text there would lose what follows, a recipient or a type among it.
            marks_for_nuls(&mut self.buf[start..end]);
            header.line = end;
            header.searched = end;
            if header.held.is_some_and(|at| end - at > MAX_FIELD) {
                return self.refuse(Refusal::HeaderTooLarge);
            }
        }
        header.searched = self.buf.len();
        // What is cut out is in front of a field that is held back, which is none of it.
        header.gone(cut_out(&mut self.buf, &header.strip));
        header.strip.clear();
        let line = &self.buf[header.line..];
        // Behind the line of a mailbox file both are held back.
        let long = is_too_long(line) || header.mailbox().is_some_and(|at| is_too_long(&self.buf[at..]));
        if long || self.cut + self.buf.len() as u64 > self.max_header {
            // A long line that is no field is the start of a body without a header.
            let continued = header.any && matches!(line.first(), Some(b' ' | b'\t' | b'\r'));
            if !continued && line.len() > MAX_LINE && field_name(line).is_none() {
                let at = header.mailbox().unwrap_or(header.line);
                return self.end_header(header, at, false);
            }
            return self.refuse(if long { Refusal::HeaderLineTooLong } else { Refusal::HeaderTooLarge });
        }
        self.header = Some(header);
    }

    /// Another text for a whole field, if its addresses have others; returns by how much it is longer.
    fn rewrite(&mut self, field: Range<usize>) -> isize {
        let text = self.buf.get(field.clone()).unwrap_or_default();
        let Some(new) = self.rewriting.as_mut().and_then(|rewriting| rewriting.field(text)) else { return 0 };
        let longer = new.len() as isize - field.len() as isize;
        for line in new.split_inclusive(|b| *b == b'\n') {
            self.traits.long_line |= line.len() > MAX_LINE + 2;
            self.traits.eight_bit_header |= !line.is_ascii();
        }
        self.buf.splice(field, new);
        longer
    }

    /// Makes the fix-ups: the header lines end before `at`, where an empty line is or has to be put in.
    fn end_header(&mut self, header: Header, mut at: usize, empty_line: bool) {
        if let Some(from) = header.held.filter(|_| header.any) {
            at = at.wrapping_add_signed(self.rewrite(from..at));
        }
        at -= cut_out(&mut self.buf, &header.strip);
        if self.cut + at as u64 > self.max_header {
            return self.refuse(Refusal::HeaderTooLarge);
        }
        if let (Later::Counts(longest), Some(send_at)) = (self.send_at, &header.send_at) {
            match send_at.time() {
                Err(Unreadable) => return self.refuse(Refusal::NoTime),
                Ok(Some(time)) if time > self.received.after(longest) => return self.refuse(Refusal::TooFarAhead),
                Ok(time) => self.release = time.filter(|time| *time > self.received),
            }
        }
        if header.bare_cr && self.exact.is_none() {
            lines_for_bare_crs(&mut self.buf, at);
        }
        // Written at the end, then turned to their place.
        let end = self.buf.len();
        // Writing to a Vec cannot fail.
        if !header.from {
            let _ = match &self.sender {
                Some(sender) => write!(self.buf, "From: <{sender}>\r\n"),
                None => write!(self.buf, "From: MAILER-DAEMON@{}\r\n", self.hostname),
            };
        }
        if let Some(was) = self.rewriting.as_ref().and_then(|rewriting| rewriting.reply_to()) {
            let _ = write!(self.buf, "Reply-To: {was}\r\n");
        }
        if !header.date {
            let _ = write!(self.buf, "Date: {}\r\n", Rfc5322(self.received));
        }
        if !header.message_id {
            let _ = write!(self.buf, "Message-ID: <{}@{}>\r\n", self.id, self.hostname);
        }
        if !empty_line {
            self.buf.extend_from_slice(b"\r\n");
        }
        let extra = self.buf.len() - end;
        self.buf[at..].rotate_right(extra);
        self.traits.eight_bit_header |= !self.buf[at..at + extra].is_ascii();
        self.message_id = header.message_id;
        (self.urgency, self.tls_required) = (header.urgency, header.tls_required);
        self.scan_body(at + extra + if empty_line { 2 } else { 0 });
    }

    /// Notes the traits of body bytes that were appended at `from`.
    fn scan_body(&mut self, from: usize) {
        let bytes = self.buf.get(from..).unwrap_or_default();
        if let Some(exact) = &mut self.exact {
            exact.push(bytes);
        }
        self.traits.eight_bit_body = self.traits.eight_bit_body || !bytes.is_ascii();
        let mut start = 0;
        for lf in memchr_iter(b'\n', bytes) {
            self.traits.leading_dot |= self.column == 0 && bytes[start] == b'.';
            // CR and LF belong to the count here.
            self.traits.long_line |= self.column + (lf + 1 - start) > MAX_LINE + 2;
            self.column = 0;
            start = lf + 1;
        }
        if start < bytes.len() {
            self.traits.leading_dot |= self.column == 0 && bytes[start] == b'.';
            self.column += bytes.len() - start;
        }
    }

    /// A whole chunk waits to be handed to the queue.
    pub fn has_chunk(&self) -> bool {
        self.header.as_ref().map_or(self.buf.len(), Header::complete) >= CHUNK
    }

    /// Hands whole chunks to the queue; to be called after each read. On `Err` the body is lost and
    /// the caller goes on reading to the end of the message, without further pushes.
    pub async fn spill(&mut self, queue: &dyn Spool) -> Result<(), QueueError> {
        while self.has_chunk() {
            let rest = self.buf.get(CHUNK..).unwrap_or_default();
            let mut next = Vec::with_capacity(CHUNK + CHUNK / 4);
            next.extend_from_slice(rest);
            self.buf.truncate(CHUNK);
            let chunk = std::mem::replace(&mut self.buf, next);
            if let Some(header) = &mut self.header {
                header.gone(CHUNK);
            }
            self.hand_over(queue, chunk).await?;
        }
        Ok(())
    }

    async fn hand_over(&mut self, queue: &dyn Spool, mut chunk: Vec<u8>) -> Result<(), QueueError> {
        // Everybody behind counts its length as what it costs. A little slack is cheaper than a copy.
        if chunk.capacity() - chunk.len() > chunk.len() / 4 + 1024 {
            chunk.shrink_to_fit();
        }
        let chunk = Bytes::from(chunk);
        self.cut += chunk.len() as u64;
        if self.head.is_none() {
            self.head = Some(chunk);
            return Ok(());
        }
        self.spilled += 1;
        queue.spill(self.id, self.spilled, chunk).await
    }

    /// The content is complete. On `Err` the spilled chunks are still to be dropped by [`Spool::unspill`].
    pub async fn finish(&mut self, queue: &dyn Spool) -> Result<Result<Finished, Refusal>, QueueError> {
        if self.exact.is_some() {
            self.end_exact();
        } else if self.refusal.is_none() && self.content > 0 && self.buf.last().or(Some(&b'\n')) != Some(&b'\n') {
            // Only BDAT can end a message inside a line. The added CRLF is not content.
            let content = self.content;
            self.limit = u64::MAX;
            self.push(b"\r\n");
            self.content = content;
        }
        if let (None, Some(header)) = (self.refusal, self.header.take()) {
            let (at, empty_line) = header.mailbox().map_or((self.buf.len(), true), |at| (at, false));
            self.end_header(header, at, empty_line);
        }
        if let Some(why) = self.refusal {
            self.abandon(queue).await;
            return Ok(Err(why));
        }
        self.spill(queue).await?;
        if !self.buf.is_empty() || self.head.is_none() {
            let last = std::mem::take(&mut self.buf);
            self.hand_over(queue, last).await?;
        }
        Ok(Ok(Finished {
            id: self.id,
            received: self.received,
            head: self.head.take().unwrap_or_default(),
            size: self.cut,
            traits: BodyTraits { binary: self.exact.as_ref().is_some_and(BinaryScan::finish), ..self.traits },
            priority: self.urgency.priority(),
            release: self.release,
            tls_optional: self.tls_required.is_no(),
            fingerprint: self.hash.take().filter(|_| self.message_id).map(|h| h.finish()),
        }))
    }

    /// The message will not be queued: what was spilled is dropped.
    pub async fn abandon(&mut self, queue: &dyn Spool) {
        self.buf = Vec::new();
        self.head = None;
        if std::mem::take(&mut self.spilled) > 0 {
            queue.unspill(self.id).await;
        }
    }
}

/// In a line that belongs to a header section, each CR that is no part of its end becomes a space.
/// `any`: there was a field before it.
fn spaces_for_bare_crs(line: &mut [u8], any: bool) {
    let len = line.len().saturating_sub(2);
    let continues = any && len > 0 && matches!(line.first(), Some(b' ' | b'\t' | b'\r'));
    if memchr(b'\r', &line[..len]).is_some() && (continues || field_name(line).is_some()) {
        line[..len].iter_mut().filter(|b| **b == b'\r').for_each(|b| *b = b' ');
    }
}

/// Makes a `?` of each NUL.
fn marks_for_nuls(line: &mut [u8]) {
    line.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b'?');
}

/// Makes a line end of each CR behind `at` that is no part of one.
fn lines_for_bare_crs(buf: &mut Vec<u8>, at: usize) {
    let rest = buf.split_off(at);
    let mut bytes = rest.iter().peekable();
    while let Some(byte) = bytes.next() {
        buf.push(*byte);
        if *byte == b'\r' && bytes.peek() != Some(&&b'\n') {
            buf.push(b'\n');
        }
    }
}

#[cfg(test)]
#[path = "draft_tests.rs"]
pub(crate) mod tests;
