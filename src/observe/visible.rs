//! Characters that are not seen, or that turn, join or hide others: text from outside that people read
//! (log lines, tables, terminals) has them written out.
//!
//! These are the controls (Unicode category Cc), the format characters (Cf: what turns the direction of
//! writing, what has no width, tags) and the line and paragraph separators (Zl, Zp). They make one
//! address look like another, or a line look like two. Letters and marks of every language stay.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Cf, Zl and Zp, without those of Cc: DerivedGeneralCategory.txt of Unicode 16.0.
/// `tests/visible.rs` compares it with another list.
const FORMAT: [(char, char); 21] = [
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{2064}'),
    ('\u{2066}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e0001}'),
    ('\u{e0020}', '\u{e007f}'),
];

/// Whether people would not see it, or something else because of it.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || c >= '\u{ad}' && FORMAT.iter().any(|(first, last)| (*first..=*last).contains(&c))
}

/// Appends `\x1b` for an ESC, `\u{9b}` for a CSI, `\u{202e}` and so on.
pub fn show(c: char, out: &mut String) {
    // Writing to a String cannot fail.
    let _ = if c.is_ascii() { write!(out, "\\x{:02x}", u32::from(c)) } else { write!(out, "{}", c.escape_unicode()) };
}

/// The text in one line, with everything hidden written out.
pub fn shown(text: &str) -> Cow<'_, str> {
    written(text, &mut |c, out| show(c, out))
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// One JSON object a line.
    Json,
    /// Text; with `colours`, escape sequences are ours (tracing-subscriber writes those of values out).
    Text {
        /// For a terminal.
        colours: bool,
    },
}

/// A log line with everything hidden written out but its line ends: in JSON as JSON does it, so that
/// programs read what was there.
pub(super) fn line(bytes: &[u8], form: Form) -> Cow<'_, [u8]> {
    // Most lines are plain.
    if is_plain(bytes) {
        return Cow::Borrowed(bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return Cow::Borrowed(bytes) };
    let written = written(text, &mut |c, out| match (c, form) {
        ('\n' | '\t', _) | ('\x1b', Form::Text { colours: true }) => out.push(c),
        (_, Form::Text { .. }) => show(c, out),
        (_, Form::Json) => {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    });
    match written {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// Only ASCII that is seen, and line ends. A piece at a time without a look at each byte's result: the
/// compiler makes vector instructions of that, and every log line passes here.
fn is_plain(bytes: &[u8]) -> bool {
    let plain = |piece: &[u8]| piece.iter().fold(true, |plain, b| plain & matches!(b, b' '..=b'~' | b'\n' | b'\t'));
    bytes.chunks(64).all(plain)
}

fn written<'t>(text: &'t str, hidden: &mut dyn FnMut(char, &mut String)) -> Cow<'t, str> {
    let Some((at, _)) = text.char_indices().find(|(_, c)| is_hidden(*c)) else { return Cow::Borrowed(text) };
    let (plain, rest) = text.split_at(at);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(plain);
    for c in rest.chars() {
        if is_hidden(c) { hidden(c, &mut out) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVIL: &str = "a\u{202e}b\u{200b}c\u{61c}d\u{2028}e\u{2029}f\u{e0041}g\u{9b}h\u{feff}i\u{ad}";

    #[test]
    fn what_hides_is_written_out_and_letters_of_every_language_stay() {
        assert_eq!(
            shown(EVIL),
            "a\\u{202e}b\\u{200b}c\\u{61c}d\\u{2028}e\\u{2029}f\\u{e0041}g\\u{9b}h\\u{feff}i\\u{ad}"
        );
        assert_eq!(shown("a\r\nb\x1b\x7f"), "a\\x0d\\x0ab\\x1b\\x7f");
        let letters = "jörg ελλ שלום سلام नमस्ते ไทย 日本語 한국어 e\u{301} 😀 'x'";
        assert!(matches!(shown(letters), Cow::Borrowed(same) if same == letters));
    }

    #[test]
    fn one_byte_that_is_not_plain_is_found_wherever_it_is() {
        assert!(is_plain(b"") && is_plain(&[b'~'; 200]) && is_plain(b"\t{ }\n"));
        for at in 0..200 {
            for byte in [0, 0x1f, 0x7f, 0x80, 0xff] {
                let mut line = [b'x'; 200];
                line[at] = byte;
                assert!(!is_plain(&line), "{byte:#x} at {at}");
            }
        }
    }

    #[test]
    fn a_log_line_says_the_same_to_programs_and_shows_it_to_people() {
        let json = format!("{{\"reply\":{}}}\n", serde_json::to_string(EVIL).expect("text"));
        let safe = String::from_utf8(line(json.as_bytes(), Form::Json).into_owned()).expect("text");
        assert!(
            safe.contains("a\\u202eb\\u200bc\\u061cd\\u2028") && safe.contains("\\udb40\\udc41g\\u009bh"),
            "{safe}"
        );
        let read: serde_json::Value = serde_json::from_str(&safe).expect("JSON");
        assert_eq!(read["reply"], EVIL);
        let text = format!("\x1b[32mINFO\x1b[0m reply={EVIL}\n");
        let on = |colours| String::from_utf8(line(text.as_bytes(), Form::Text { colours }).into_owned()).expect("text");
        assert!(on(true).starts_with("\x1b[32mINFO\x1b[0m reply=a\\u{202e}b") && on(true).ends_with("\\u{ad}\n"));
        assert!(on(false).starts_with("\\x1b[32mINFO"));
    }
}
