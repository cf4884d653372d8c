//! Content-transfer encodings (RFC 2045 §6) and line breaking, as pure functions over bytes.
//!
//! Quoted-printable is written here and not by a library because two things matter that general
//! encoders leave open: only CRLF is a line break (a lone CR or LF is data), and a line made by a
//! soft break must never look like a MIME boundary. Base64 is lettre's.

use lettre::message::Body;
use lettre::message::header::ContentTransferEncoding;
use memchr::{memchr, memmem};

/// Longest line without its CRLF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
pub const MAX_LINE: usize = 998;

/// Longest line of encoded text without its CRLF (RFC 2045 §6.7 rule 5, §6.8).
const MAX_ENCODED_LINE: usize = 76;

/// A byte over 127.
pub fn has_eight_bit(bytes: &[u8]) -> bool {
    !bytes.is_ascii()
}

/// A line of more than [`MAX_LINE`] bytes.
pub fn has_long_line(bytes: &[u8]) -> bool {
    lines(bytes).any(|line| content(line).len() > MAX_LINE)
}

/// The lines of `bytes`, each with its CRLF; the last may lack it. Only CRLF ends a line.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        let (line, after) = rest.split_at(end);
        rest = after;
        Some(line)
    })
}

/// A line without its CRLF.
pub fn content(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r\n").unwrap_or(line)
}

fn push_hex(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'=', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Text as quoted-printable. CRLF stays a line break; what decodes is `text`, byte for byte.
pub fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 8 + 16);
    for line in lines(text) {
        let body = content(line);
        let mut column = 0;
        for (i, &byte) in body.iter().enumerate() {
            let last = i + 1 == body.len();
            let plain = match byte {
                b' ' | b'\t' => !last,
                b'=' => false,
                33..=126 => true,
                _ => false,
            };
            qp_token(&mut out, &mut column, if plain { 1 } else { 3 }, last);
            if plain && !starts_boundary(column, &body[i..]) {
                out.push(byte);
                column += 1;
            } else {
                push_hex(&mut out, byte);
                column += 3;
            }
        }
        out.extend_from_slice(&line[body.len()..]);
    }
    out
}

/// Makes room for a token of `width` columns: a soft line break if it would not fit.
fn qp_token(out: &mut Vec<u8>, column: &mut usize, width: usize, last: bool) {
    // A line that goes on needs one more column for the `=` of its soft break.
    let limit = if last { MAX_ENCODED_LINE } else { MAX_ENCODED_LINE - 1 };
    if *column + width > limit {
        out.extend_from_slice(b"=\r\n");
        *column = 0;
    }
}

/// At the start of an encoded line, `--` could be taken for the delimiter of an enclosing multipart
/// (RFC 2046 §5.1.1), which the original line was not.
fn starts_boundary(column: usize, rest: &[u8]) -> bool {
    column == 0 && rest.starts_with(b"--")
}

/// Mends text that is labelled quoted-printable but has raw 8-bit bytes or over-long lines: those
/// lines are escaped and softly broken, all others stay as they are. What decodes is the same.
pub fn mend_quoted_printable(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + encoded.len() / 8 + 16);
    for line in lines(encoded) {
        let body = content(line);
        if body.is_ascii() && body.len() <= MAX_LINE {
            out.extend_from_slice(line);
            continue;
        }
        let (mut column, mut i) = (0, 0);
        while i < body.len() {
            let byte = body[i];
            let escape = match body.get(i + 1..i + 3) {
                Some(hex) if byte == b'=' && hex.iter().all(u8::is_ascii_hexdigit) => 3,
                _ => 1,
            };
            let last = i + escape >= body.len();
            qp_token(&mut out, &mut column, if byte.is_ascii() { escape } else { 3 }, last);
            // The start of the original line is left alone: if it is a delimiter, it was one.
            if !byte.is_ascii() || (i > 0 && starts_boundary(column, &body[i..])) {
                push_hex(&mut out, byte);
                column += 3;
            } else {
                out.extend_from_slice(&body[i..i + escape]);
                column += escape;
            }
            i += escape;
        }
        out.extend_from_slice(&line[body.len()..]);
    }
    out
}

/// Data as base64 in lines of 76. A CRLF at the end of `data` is encoded like any other byte, and
/// one is added after the last line so that the end of a message stays the end of a line.
pub fn base64(data: &[u8]) -> Vec<u8> {
    // Any data may become base64, so the error (the data itself) cannot occur.
    let mut out = match Body::new_with_encoding(data.to_vec(), ContentTransferEncoding::Base64) {
        Ok(body) => body.into_vec(),
        Err(data) => data,
    };
    if data.ends_with(b"\r\n") && !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Mends data that is labelled base64 but has raw 8-bit bytes or over-long lines. Decoders ignore
/// line breaks and bytes outside the alphabet (RFC 2045 §6.8), so the first are moved and the
/// second become `?`.
pub fn mend_base64(encoded: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded.len() + encoded.len() / 32 + 16);
    for line in lines(encoded) {
        let body = content(line);
        let width = if body.len() > MAX_LINE { MAX_ENCODED_LINE } else { MAX_LINE };
        for (i, chunk) in body.chunks(width).enumerate() {
            if i > 0 {
                out.extend_from_slice(b"\r\n");
            }
            out.extend(chunk.iter().map(|b| if b.is_ascii() { *b } else { b'?' }));
        }
        out.extend_from_slice(&line[body.len()..]);
    }
    out
}

/// Text that readers must ignore (RFC 2046 §5.1.1: before the first and after the last delimiter
/// of a multipart), without 8-bit bytes (`?` instead, if `ascii`) and over-long lines.
pub fn filler(text: &[u8], ascii: bool) -> Vec<u8> {
    let clean: Vec<u8> = text.iter().map(|b| if ascii && !b.is_ascii() { b'?' } else { *b }).collect();
    fold(&clean)
}

/// Breaks over-long lines with CRLF and a space: before white space if there is any to break at
/// (which keeps the meaning of a header field, RFC 5322 §2.2.3), else in the middle.
pub fn fold(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 256 + 16);
    for line in lines(text) {
        let mut rest = content(line);
        let tail = &line[rest.len()..];
        // A space that was put at the start of a line counts against it.
        let mut room = MAX_LINE;
        while rest.len() > room {
            // A break must not leave a line of white space alone, which would look blank.
            let at = rest[..=room]
                .iter()
                .rposition(|b| is_blank(*b))
                .filter(|at| rest[..*at].iter().any(|b| !is_blank(*b)) && rest[*at..].iter().any(|b| !is_blank(*b)));
            let (head, after) = rest.split_at(at.unwrap_or_else(|| middle(rest, room)));
            out.extend_from_slice(head);
            out.extend_from_slice(b"\r\n");
            rest = after;
            room = MAX_LINE;
            if at.is_none() {
                out.push(b' ');
                room -= 1;
            }
        }
        out.extend_from_slice(rest);
        out.extend_from_slice(tail);
    }
    out
}

fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

/// Where to break a line of more than `room` bytes that has no white space: not inside a character
/// of UTF-8.
fn middle(line: &[u8], room: usize) -> usize {
    (room - 3..=room).rev().find(|at| !matches!(line.get(*at), Some(0x80..=0xBF))).unwrap_or(room)
}

/// Whether `byte` occurs.
pub fn contains(bytes: &[u8], byte: u8) -> bool {
    memchr(byte, bytes).is_some()
}
