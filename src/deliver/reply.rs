//! Reading replies: bytes in, whole replies out. No socket, no clock.
//!
//! Each line is parsed by smtp-proto; what is ours are the bounds and the lenience that real
//! servers need: any text encoding, no text at all, bare LF, a line of any length (cut), lines
//! with different codes (the last one counts, RFC 5321 §4.2.1 asks for equal ones), empty lines before a reply, enhanced codes
//! with subjects over 255 and enhanced codes of another class than the basic code.
//!
//! What a reply repeats of the secrets that its host may have heard is taken out here, before anybody
//! keeps the text: it goes into the log, the queue and reports to senders.
//!
//! Fatal (the peer is unintelligible, nothing after it can be trusted): a line that does not start
//! with a code from 200 to 599, more than [`MAX_LINES`] lines or [`MAX_BYTES`] bytes in one reply.

use std::collections::VecDeque;

use smtp_proto::response::parser::ResponseReceiver;

use super::fact::Reply;
use crate::config::Redactor;

/// Bytes of a line that are kept; the rest is read and dropped.
pub const MAX_LINE: usize = 4096;
/// Lines of one reply at most.
pub const MAX_LINES: usize = 100;
/// Bytes of one reply at most.
pub const MAX_BYTES: usize = 64 * 1024;
/// Bytes of text that a [`Reply`] keeps.
pub const MAX_TEXT: usize = 1000;
/// Bytes shown of a line that is no reply.
const MAX_SHOWN: usize = 80;

/// A complete reply.
#[derive(Debug)]
pub struct Received {
    /// Code and text.
    pub reply: Reply,
    /// Its lines had different codes: the peer cannot be trusted with another transaction.
    pub mixed: bool,
    /// What follows the code in each line; empty unless [`ReplyParser::keep_lines`] is on.
    pub lines: Vec<Vec<u8>>,
    /// The host has said exactly this before on this connection: a copy, or what it says to everything.
    pub again: bool,
}

/// The state between two reads.
#[derive(Default)]
pub struct ReplyParser {
    receiver: ResponseReceiver,
    /// Start of a line whose end has not come yet, at most [`MAX_LINE`] bytes.
    line: Vec<u8>,
    /// Bytes and complete lines of the reply so far.
    bytes: usize,
    count: usize,
    code: u16,
    mixed: bool,
    enhanced: Option<(u8, u16, u16)>,
    text: String,
    keep_lines: bool,
    lines: Vec<Vec<u8>>,
    redactor: Redactor,
}

impl ReplyParser {
    /// For a host whose words are kept only as `redactor` leaves them.
    pub fn new(redactor: Redactor) -> ReplyParser {
        ReplyParser { redactor, ..ReplyParser::default() }
    }

    /// What is kept from now on is as this leaves it, too.
    pub fn redact_also(&mut self, redactor: &Redactor) {
        self.redactor = self.redactor.and(redactor);
    }

    /// A text of the peer as it may be kept.
    pub fn redacted(&self, text: String) -> String {
        self.redactor.redact(text)
    }

    /// Whether replies carry their raw lines from now on (EHLO needs them).
    pub fn keep_lines(&mut self, keep: bool) {
        self.keep_lines = keep;
    }

    /// No reply has been started.
    pub fn is_idle(&self) -> bool {
        self.bytes == 0
    }

    /// Takes in what was read; complete replies are put on `out`. The error says for people why
    /// the peer cannot be understood; after it nothing more may be fed.
    pub fn feed(&mut self, mut data: &[u8], out: &mut VecDeque<Received>) -> Result<(), String> {
        while !data.is_empty() {
            let end = memchr::memchr(b'\n', data);
            let (piece, rest) = data.split_at(end.map_or(data.len(), |at| at + 1));
            data = rest;
            self.bytes = self.bytes.saturating_add(piece.len());
            if self.bytes > MAX_BYTES {
                return Err(format!("a reply of more than {MAX_BYTES} bytes"));
            }
            if end.is_some() && self.line.is_empty() {
                self.finish_line(piece, out)?;
                continue;
            }
            let room = MAX_LINE.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if end.is_some() {
                let line = std::mem::take(&mut self.line);
                self.finish_line(&line, out)?;
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// `line` is one line, with or without its line end.
    fn finish_line(&mut self, line: &[u8], out: &mut VecDeque<Received>) -> Result<(), String> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let line = line.get(..MAX_LINE).unwrap_or(line);
        // Some hosts send an empty line before a reply; the bytes of these count, so it is not for ever.
        if line.is_empty() && self.count == 0 {
            return Ok(());
        }
        let (code, rest) = match line {
            [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] => {
                (u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0'), rest)
            }
            _ => return Err(format!("a reply line without a code: {:?}", self.clean(line))),
        };
        let (last, text) = match rest {
            [] => (true, rest),
            [b' ', text @ ..] => (true, text),
            [b'-', text @ ..] => (false, text),
            _ => return Err(format!("a reply line without a space after the code: {:?}", self.clean(line))),
        };
        self.count += 1;
        if self.count > MAX_LINES {
            return Err(format!("a reply of more than {MAX_LINES} lines"));
        }
        self.mixed |= self.count > 1 && code != self.code;
        self.code = code;
        self.take_text(&line[..3], text);
        if self.keep_lines {
            self.lines.push(text.to_vec());
        }
        if last {
            let class = (self.code / 100) as u8;
            out.push_back(Received {
                reply: Reply {
                    code: self.code,
                    enhanced: self.enhanced.take().filter(|(c, _, _)| *c == class),
                    text: self.redactor.redact(std::mem::take(&mut self.text)),
                },
                mixed: self.mixed,
                lines: std::mem::take(&mut self.lines),
                again: false,
            });
            self.bytes = 0;
            self.count = 0;
            self.mixed = false;
        }
        Ok(())
    }

    /// Splits a line's text into enhanced code and words.
    fn take_text(&mut self, code: &[u8], text: &[u8]) {
        // Every line is given to the receiver as a reply of its own: over several lines it would
        // keep the first code, where the last one counts.
        self.receiver.reset();
        let mut parsed = None;
        for part in [code, b" ", text, b"\n"] {
            if let Ok(response) = self.receiver.parse(&mut part.iter()) {
                parsed = Some(response);
            }
        }
        let Some(response) = parsed else { return };
        let class = code.first().map_or(0, |c| c - b'0');
        match response.esc {
            [0, ..] => self.add(response.message),
            [c, s, d] => {
                // The receiver's fields end at 255; Microsoft uses subjects and details up to 999.
                let enhanced = if s == u8::MAX || d == u8::MAX {
                    wide_enhanced(text)
                } else {
                    Some((c, u16::from(s), u16::from(d)))
                };
                match enhanced {
                    Some(e) if e.0 == class => {
                        self.enhanced = Some(e);
                        self.add(response.message);
                    }
                    // Of another class: the basic digit wins, and the code stays readable as text.
                    _ => append_clean(&mut self.text, text),
                }
            }
        }
    }

    /// A short printable form of bytes of a peer.
    fn clean(&self, bytes: &[u8]) -> String {
        let mut out = String::new();
        append_clean(&mut out, bytes);
        let mut out = self.redactor.redact(out);
        out.truncate(out.floor_char_boundary(MAX_SHOWN));
        out
    }

    /// Adds the words of a line. What needs no change is taken as it is: the first line of most replies.
    fn add(&mut self, words: String) {
        let fine = words.len() <= MAX_TEXT
            && words.trim_ascii().len() == words.len()
            && words.bytes().all(|b| (b' '..=b'~').contains(&b));
        if self.text.is_empty() && fine {
            self.text = words;
        } else {
            append_clean(&mut self.text, words.as_bytes());
        }
    }
}

/// `c.sss.ddd` at the start of a text.
fn wide_enhanced(text: &[u8]) -> Option<(u8, u16, u16)> {
    let word = text.split(|b| *b == b' ').next()?;
    let word = std::str::from_utf8(word).ok()?;
    let mut parts = word.splitn(3, '.');
    let mut field = || parts.next().filter(|p| p.len() <= 3)?.parse::<u16>().ok();
    let (class, subject, detail) = (field()?, field()?, field()?);
    Some((u8::try_from(class).ok()?, subject, detail))
}

/// Appends text after a space: decoded lossily, controls as spaces, up to [`MAX_TEXT`] in all.
fn append_clean(out: &mut String, text: &[u8]) {
    let decoded = String::from_utf8_lossy(text);
    let decoded = decoded.trim();
    if decoded.is_empty() || out.len() + 1 >= MAX_TEXT {
        return;
    }
    if !out.is_empty() {
        out.push(' ');
    }
    out.reserve(decoded.len().min(MAX_TEXT - out.len()));
    for c in decoded.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if out.len() + c.len_utf8() > MAX_TEXT {
            break;
        }
        out.push(c);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(bytes: &[u8]) -> Result<Vec<Received>, String> {
        let mut out = VecDeque::new();
        ReplyParser::default().feed(bytes, &mut out)?;
        Ok(out.into())
    }

    fn one(bytes: &[u8]) -> Reply {
        let mut all = parse(bytes).expect("intelligible");
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).reply
    }

    #[test]
    fn text_is_optional_and_need_not_be_utf8() {
        for bare in [&b"250\r\n"[..], b"250\n", b"250 \r\n", b"250-\r\n250\r\n"] {
            assert_eq!(one(bare), Reply { code: 250, enhanced: None, text: String::new() }, "{bare:?}");
        }
        assert_eq!(one(b"250 2.0.0 caf\xe9\x07 ok\r\n").text, "caf\u{fffd}  ok");
    }

    /// As some hosts send one before their reply; within a reply it is none.
    #[test]
    fn empty_lines_before_a_reply_are_passed_over() {
        assert_eq!(one(b"\r\n250 2.0.0 queued\r\n").code, 250);
        assert_eq!(parse(b"250 a\r\n\n\r\n354 b\r\n").expect("intelligible").len(), 2);
        assert!(parse(b"250-a\r\n\r\n250 b\r\n").is_err());
        assert!(parse(&b"\r\n".repeat(MAX_BYTES)).is_err(), "not for ever");
    }

    #[test]
    fn enhanced_codes() {
        assert_eq!(one(b"250 2.1.0 Ok\r\n").enhanced, Some((2, 1, 0)));
        assert_eq!(one(b"250 2.1.0\r\n").enhanced, Some((2, 1, 0)));
        let wide = one(b"550 5.7.708 Service unavailable\r\n");
        assert_eq!((wide.enhanced, wide.text.as_str()), (Some((5, 7, 708)), "Service unavailable"));
        let other = one(b"550 4.7.1 try later\r\n");
        assert_eq!((other.enhanced, other.text.as_str()), (None, "4.7.1 try later"));
        let lines = one(b"550-5.7.26 not\r\n550-5.7.26 aligned\r\n550 5.7.26 gsmtp\r\n");
        assert_eq!(lines.to_string(), "550 5.7.26 not aligned gsmtp");
    }

    #[test]
    fn mixed_codes_in_a_multi_line_reply_the_last_counts() {
        let all = parse(b"250-a\r\n550 5.1.1 b\r\n").expect("intelligible");
        assert_eq!(all[0].reply.code, 550);
        assert!(all[0].mixed);
        assert!(!parse(b"250-a\r\n250 b\r\n250 c\r\n").expect("intelligible")[0].mixed);
    }

    #[test]
    fn a_long_line_is_cut_and_an_endless_reply_is_given_up() {
        let mut long = b"250 ".to_vec();
        long.resize(10_000, b'x');
        long.extend_from_slice(b"\r\n220 next\r\n");
        let all = parse(&long).expect("intelligible");
        assert_eq!(all[0].reply.text.len(), MAX_TEXT);
        assert_eq!(all[1].reply.text, "next");
        assert!(parse(&b"250-x\r\n".repeat(MAX_LINES + 1)).is_err());
        assert!(parse(&b"250-".repeat(MAX_BYTES)).is_err());
        for bad in [&b"25\r\n"[..], b"hello\r\n", b"999 x\r\n", b"250x\r\n", b"150 x\r\n", b"\x16\x03\x01\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies(
            lines in proptest::collection::vec(("[2-5][0-9]{2}", "[ -]", "[ -~\\t]{0,40}"), 1..8),
            cuts in proptest::collection::vec(1usize..9, 1..60),
        ) {
            let mut bytes = Vec::new();
            for (code, sep, text) in &lines {
                bytes.extend_from_slice(format!("{code}{sep}{text}\r\n").as_bytes());
            }
            let whole = parse(&bytes).expect("intelligible");
            let (mut parser, mut out, mut rest) = (ReplyParser::default(), VecDeque::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                parser.feed(piece, &mut out).expect("intelligible");
                rest = tail;
            }
            let pieces: Vec<Reply> = out.into_iter().map(|r| r.reply).collect();
            prop_assert_eq!(pieces, whole.into_iter().map(|r| r.reply).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_taken_without_panic_and_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for reply in parse(&bytes).unwrap_or_default() {
                prop_assert!(reply.reply.text.len() <= MAX_TEXT);
                prop_assert!((200..600).contains(&reply.reply.code));
                prop_assert!(!reply.reply.text.chars().any(char::is_control));
            }
        }
    }
}
