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
/// (which keeps the meaning of a header field, RFC 5322 §2.2.3), else between two members of a list,
/// so that no address and no message id gets a space in it, else in the middle.
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
        let mut quoted = false;
        while rest.len() > room {
            // A break must not leave a line of white space alone, which would look blank.
            let at = rest[..=room]
                .iter()
                .rposition(|b| is_blank(*b))
                .filter(|at| rest[..*at].iter().any(|b| !is_blank(*b)) && whole - rest.len() + at < blank_from);
            let (head, after) =
                rest.split_at(at.or_else(|| seam(rest, room, quoted)).unwrap_or_else(|| middle(rest, room)));
            quoted = ends_quoted(head, quoted);
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

/// The last place within `room` bytes where a space says nothing: behind a comma or semicolon, or
/// between two message ids, and outside a quoted string. `quoted`: the line begins inside one.
fn seam(line: &[u8], room: usize, mut quoted: bool) -> Option<usize> {
    let (mut last, mut escaped) = (None, false);
    for (at, pair) in line[..=room].windows(2).enumerate() {
        (quoted, escaped) = quoting(pair[0], quoted, escaped);
        if !quoted && matches!(pair, [b',' | b';', _] | [b'>', b'<']) {
            last = Some(at + 1);
        }
    }
    last
}

/// Whether a line that begins with `text` is inside a quoted string behind it.
fn ends_quoted(text: &[u8], quoted: bool) -> bool {
    text.iter().fold((quoted, false), |(quoted, escaped), b| quoting(*b, quoted, escaped)).0
}

/// What a byte of a quoted string (RFC 5322 §3.2.4) does: whether the next one is quoted, and escaped.
fn quoting(b: u8, quoted: bool, escaped: bool) -> (bool, bool) {
    match b {
        _ if escaped => (quoted, false),
        b'\\' if quoted => (quoted, true),
        b'"' => (!quoted, false),
        _ => (quoted, false),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a field made of so many members without a blank between them.
    fn folded(member: impl Fn(usize) -> String, between: &str) -> Vec<String> {
        let members: Vec<String> = (0..300).map(member).collect();
        let text = format!("X: {}\r\n", members.join(between));
        let out = fold(text.as_bytes());
        assert!(!has_long_line(&out));
        let folds = String::from_utf8(out).expect("UTF-8");
        assert_eq!(folds.replace("\r\n ", "").replace(' ', ""), text.replace(' ', ""), "nothing but folds");
        let lines: Vec<String> = folds.lines().skip(1).map(|line| line.trim().to_owned()).collect();
        assert!(lines.len() > 2, "{folds}");
        lines
    }

    #[test]
    fn a_list_without_blanks_is_folded_between_its_members() {
        let cases: [(&dyn Fn(usize) -> String, &str); 4] = [
            (&|n| format!("recipient+{n}@example.com"), ","),
            (&|n| format!("\"a,\\\",{n}\"@example.com"), ","),
            (&|n| format!("<{n}.aaaaaaaaaaaa@example.com>"), ""),
            (&|n| format!("{{\"to\":\"a,b,{n}\"}}"), ","),
        ];
        for (member, between) in cases {
            let all: Vec<String> = (0..300).map(member).collect();
            let mut at = 0;
            // Whole members only, in their order.
            for line in folded(member, between) {
                let line = line.trim_end_matches(',');
                let mut whole = String::new();
                while whole.len() < line.len() {
                    whole = if whole.is_empty() { all[at].clone() } else { format!("{whole}{between}{}", all[at]) };
                    at += 1;
                }
                assert_eq!(whole, line, "a member is broken");
            }
            assert_eq!(at, all.len());
        }
    }

    #[test]
    fn what_is_no_list_is_folded_in_its_middle() {
        let text = format!("X: {}\r\n", "\u{fc}".repeat(2000));
        let out = fold(text.as_bytes());
        assert!(!has_long_line(&out) && String::from_utf8(out).is_ok(), "no character is broken");
    }
}
