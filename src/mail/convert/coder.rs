//! Content-transfer encodings (RFC 2045 §6) that take a part line by line, or a long line piece by
//! piece, and keep a few bytes between them. The result does not depend on the pieces.
//!
//! Quoted-printable is written here and not by a library because two things matter that general
//! encoders leave open: only CRLF is a line break (a lone CR or LF is data), and a line made by a
//! soft break must never look like a MIME boundary. Base64 is lettre's.

use lettre::message::Body;
use lettre::message::header::ContentTransferEncoding;

use super::encode::{MAX_LINE, content, lines};
use super::whereabouts::MustGo;
use crate::mail::binary::is_binary;

/// Longest line of encoded text without its CRLF (RFC 2045 §6.7 rule 5, §6.8).
const MAX_ENCODED_LINE: usize = 76;

/// Bytes that become base64 at once: whole lines.
const BLOCK: usize = MAX_ENCODED_LINE / 4 * 3 * 64;

/// A line of a part, or a piece of one, without its CRLF.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) first: bool,
    pub(super) last: bool,
    /// Of a line over [`MAX_LINE`] bytes.
    pub(super) long: bool,
}

/// What is done to the content of a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Coding {
    /// Nothing.
    #[default]
    Keep,
    QuotedPrintable,
    Base64,
    /// It is labelled quoted-printable but has raw 8-bit bytes, over-long lines, or CR, LF or NUL alone: those lines
    /// are escaped and softly broken, all others stay as they are. What decodes is the same.
    MendQuotedPrintable,
    /// It is labelled base64 but has the same. Decoders ignore line breaks
    /// and bytes outside the alphabet (RFC 2045 §6.8), so the first are moved and the second become `?`.
    MendBase64,
}

/// One of them at work.
#[derive(Debug)]
pub(super) enum Coder {
    Keep,
    QuotedPrintable(QuotedPrintable),
    Base64(Box<Base64>),
    MendQuotedPrintable(MendQuotedPrintable),
    MendBase64 { column: usize },
}

impl Coder {
    /// `cut`: the last line has no end, and gets one that decodes to nothing.
    pub(super) fn new(coding: Coding, cut: bool) -> Coder {
        match coding {
            Coding::Keep => Coder::Keep,
            Coding::QuotedPrintable => Coder::QuotedPrintable(QuotedPrintable { cut, ..QuotedPrintable::default() }),
            Coding::Base64 => Coder::Base64(Box::default()),
            Coding::MendQuotedPrintable => {
                Coder::MendQuotedPrintable(MendQuotedPrintable { cut, ..MendQuotedPrintable::default() })
            }
            Coding::MendBase64 => Coder::MendBase64 { column: 0 },
        }
    }

    pub(super) fn text(&mut self, text: Text<'_>, out: &mut Vec<u8>) {
        match self {
            Coder::Keep => out.extend_from_slice(text.bytes),
            Coder::QuotedPrintable(coder) => coder.text(text, out),
            Coder::Base64(coder) => coder.push(text.bytes, out),
            Coder::MendQuotedPrintable(coder) => coder.text(text, out),
            Coder::MendBase64 { column } => mend_base64(column, text, out),
        }
    }

    /// A CRLF that belongs to the part.
    pub(super) fn newline(&mut self, out: &mut Vec<u8>) {
        match self {
            Coder::Base64(coder) => coder.push(b"\r\n", out),
            _ => out.extend_from_slice(b"\r\n"),
        }
    }

    /// The end of the part.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Coder::Base64(coder) => coder.finish(out),
            // The soft line break of a line that goes on, but ends here.
            Coder::QuotedPrintable(QuotedPrintable { cut: true, .. })
            | Coder::MendQuotedPrintable(MendQuotedPrintable { cut: true, .. }) => out.push(b'='),
            _ => {}
        }
    }
}

/// Text as quoted-printable. CRLF stays a line break; what decodes is `text`, byte for byte.
pub fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8 + 16);
    let mut coder = QuotedPrintable::default();
    for line in lines(text) {
        let bytes = content(line);
        coder.text(Text { bytes, first: true, last: true, long: bytes.len() > MAX_LINE }, &mut out);
        out.extend_from_slice(&line[bytes.len()..]);
    }
    out
}

#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    /// Of the encoded line.
    column: usize,
    /// The last byte so far of a line that goes on: what is done to it depends on the next.
    held: Option<u8>,
    cut: bool,
}

impl QuotedPrintable {
    fn text(&mut self, text: Text<'_>, out: &mut Vec<u8>) {
        if text.first {
            self.column = 0;
        }
        if let Some(held) = self.held {
            match text.bytes.first() {
                Some(next) => self.byte(held, Some(*next), out),
                None if text.last => self.byte(held, None, out),
                None => return,
            }
            self.held = None;
        }
        for pair in text.bytes.windows(2) {
            self.byte(pair[0], Some(pair[1]), out);
        }
        match text.bytes.last() {
            Some(last) if text.last => self.byte(*last, None, out),
            last => self.held = last.copied(),
        }
    }

    /// `next` is the byte after it in its line.
    fn byte(&mut self, byte: u8, next: Option<u8>, out: &mut Vec<u8>) {
        let plain = match byte {
            b' ' | b'\t' => next.is_some(),
            b'=' => false,
            33..=126 => true,
            _ => false,
        };
        make_room(out, &mut self.column, if plain { 1 } else { 3 }, next.is_none() && !self.cut);
        if plain && !starts_boundary(self.column, byte, next) {
            out.push(byte);
            self.column += 1;
        } else {
            push_hex(out, byte);
            self.column += 3;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct MendQuotedPrintable {
    column: usize,
    /// Inside a line that is mended, after its first byte.
    inside: bool,
    /// The last bytes so far of a line that goes on.
    held: Vec<u8>,
    cut: bool,
}

impl MendQuotedPrintable {
    fn text(&mut self, text: Text<'_>, out: &mut Vec<u8>) {
        if text.first {
            if !text.long && !has_raw(text.bytes) {
                return out.extend_from_slice(text.bytes);
            }
            (self.column, self.inside) = (0, false);
        }
        if self.held.is_empty() {
            return self.run(text.bytes, text.last, out);
        }
        let mut joined = std::mem::take(&mut self.held);
        joined.extend_from_slice(text.bytes);
        self.run(&joined, text.last, out);
    }

    fn run(&mut self, line: &[u8], last: bool, out: &mut Vec<u8>) {
        let mut at = 0;
        // Three bytes ahead are enough to know an escape, and whether it is the last.
        while at < line.len() && (last || at + 3 < line.len()) {
            let byte = line[at];
            let token = match line.get(at + 1..at + 3) {
                Some(hex) if byte == b'=' && hex.iter().all(u8::is_ascii_hexdigit) => 3,
                _ => 1,
            };
            let ends = last && !self.cut && at + token >= line.len();
            let raw = has_raw(&[byte]);
            make_room(out, &mut self.column, if raw { 3 } else { token }, ends);
            // The start of the original line is left alone: if it is a delimiter, it was one.
            let next = line.get(at + 1).copied();
            if raw || (self.inside && starts_boundary(self.column, byte, next)) {
                push_hex(out, byte);
                self.column += 3;
            } else {
                out.extend_from_slice(&line[at..at + token]);
                self.column += token;
            }
            self.inside = true;
            at += token;
        }
        self.held.extend_from_slice(&line[at.min(line.len())..]);
    }
}

/// Whether a line has bytes that no encoding leaves as they are.
fn has_raw(line: &[u8]) -> bool {
    !line.is_ascii() || is_binary(line)
}

/// Room for a token of `width` columns: a soft line break if it would not fit.
fn make_room(out: &mut Vec<u8>, column: &mut usize, width: usize, last: bool) {
    // A line that goes on needs one more column for the `=` of its soft break.
    let limit = if last { MAX_ENCODED_LINE } else { MAX_ENCODED_LINE - 1 };
    if *column + width > limit {
        out.extend_from_slice(b"=\r\n");
        *column = 0;
    }
}

/// At the start of an encoded line, `--` could be taken for the delimiter of an enclosing multipart
/// (RFC 2046 §5.1.1), which the original line was not.
fn starts_boundary(column: usize, byte: u8, next: Option<u8>) -> bool {
    column == 0 && byte == b'-' && next == Some(b'-')
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Data as base64 in lines of 76. A CRLF at the end of the data is encoded like any other byte, and
/// one is added after the last line so that the end of a message stays the end of a line.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// What makes no whole block yet.
    block: Vec<u8>,
    /// The last two bytes.
    end: [u8; 2],
    /// A block was written.
    begun: bool,
}

impl Base64 {
    fn push(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        if let Some(last) = data.last() {
            self.end = [data.len().checked_sub(2).map_or(self.end[1], |at| data[at]), *last];
        }
        while !data.is_empty() {
            if self.block.len() == BLOCK {
                self.write(out);
            }
            let (some, rest) = data.split_at((BLOCK - self.block.len()).min(data.len()));
            self.block.extend_from_slice(some);
            data = rest;
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"\r\n");
        }
        // Any data may become base64, so the error (the data itself) cannot occur.
        let block = std::mem::take(&mut self.block);
        match Body::new_with_encoding(block, ContentTransferEncoding::Base64) {
            Ok(body) => out.extend_from_slice(body.as_ref().trim_ascii_end()),
            Err(data) => self.block = data,
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if !self.block.is_empty() {
            self.write(out);
        }
        if self.begun && self.end == *b"\r\n" {
            out.extend_from_slice(b"\r\n");
        }
    }
}

fn mend_base64(column: &mut usize, text: Text<'_>, out: &mut Vec<u8>) {
    if text.first {
        *column = 0;
    }
    let width = if text.long { MAX_ENCODED_LINE } else { MAX_LINE };
    for byte in text.bytes {
        if *column == width {
            out.extend_from_slice(b"\r\n");
            *column = 0;
        }
        out.push(if has_raw(&[*byte]) { b'?' } else { *byte });
        *column += 1;
    }
}

/// Text that readers must ignore (RFC 2046 §5.1.1: before the first and after the last delimiter
/// of a multipart), without what must go: `?` instead of bytes, and over-long lines are
/// broken with CRLF and a space, which no delimiter begins with, and not inside a character of UTF-8.
pub(super) fn filler(column: &mut usize, must: MustGo, text: Text<'_>, out: &mut Vec<u8>) {
    if text.first {
        *column = 0;
    }
    if !must.is_in(text.bytes, text.long) {
        return out.extend_from_slice(text.bytes);
    }
    for byte in text.bytes {
        let byte = if must.is_in(&[*byte], false) { b'?' } else { *byte };
        let width = match byte {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        if *column + width > MAX_LINE {
            out.extend_from_slice(b"\r\n ");
            *column = 1;
        }
        out.push(byte);
        *column += 1;
    }
}
