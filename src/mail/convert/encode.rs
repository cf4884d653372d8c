//! Lines in memory and where they are broken, as pure functions over bytes. Only CRLF is a line break;
//! a lone CR or LF is data.

use memchr::{memchr, memmem};

/// Longest line without its CRLF (RFC 5321 §4.5.3.1.6, RFC 5322 §2.1.1).
pub const MAX_LINE: usize = 998;

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

/// Breaks over-long lines with CRLF and a space: before white space if there is any to break at
/// (which keeps the meaning of a header field, RFC 5322 §2.2.3), else in the middle.
pub fn fold(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 256 + 16);
    for line in lines(text) {
        let mut rest = content(line);
        let tail = &line[rest.len()..];
        // A space that was put at the start of a line counts against it.
        let mut room = MAX_LINE;
        // Found once: looking ahead at every break would be quadratic in a run of blanks.
        let blank_from = rest.iter().rposition(|b| !is_blank(*b)).map_or(0, |at| at + 1);
        let whole = rest.len();
        while rest.len() > room {
            // A break must not leave a line of white space alone, which would look blank.
            let at = rest[..=room]
                .iter()
                .rposition(|b| is_blank(*b))
                .filter(|at| rest[..*at].iter().any(|b| !is_blank(*b)) && whole - rest.len() + at < blank_from);
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
