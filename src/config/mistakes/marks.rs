//! Characters that look like others, such as an editor or a web page puts in their place, and those that nobody
//! sees.

use super::{Fault, Told};

/// Quotation marks of books, and what else is taken for one.
const QUOTES: &str = "“”„‟‘’‚‛«»‹›`´＂＇″′";

/// Zero bytes, ends of lines that are none, and other control characters.
pub(super) fn control(fault: &Fault<'_>) -> Told {
    let text = fault.scan.text;
    if let Some(at) = text.find('\0') {
        let message = "has a zero byte: the file is damaged, or is UTF-16: expected text in UTF-8 (a disk that was \
                       full, or a machine that lost power, leaves such files: take the copy)";
        return Some((at..at + 1, message.into()));
    }
    if fault.said.starts_with("carriage return") {
        let at = text.match_indices('\r').find(|(n, _)| !text.get(n + 1..).is_some_and(|rest| rest.starts_with('\n')));
        let message = "a line ends with a carriage return only: expected LF or CRLF (`tr '\\r' '\\n' <OLD >NEW`)";
        return at.map(|(n, _)| (n..n + 1, message.into()));
    }
    let control = |c: char| c.is_control() && c != '\t' && c != '\r';
    let (at, c) = fault.written().char_indices().find(|(_, c)| control(*c))?;
    let message = format!("has the control character U+{:04X}, which nobody sees: take it away", u32::from(c));
    Some((fault.place(at, c.len_utf8()), message))
}

/// Quotation marks that are none of TOML's.
pub(super) fn quotes(fault: &Fault<'_>) -> Told {
    let (at, c) = fault.plain().char_indices().find(|(_, c)| QUOTES.contains(*c))?;
    let written = fault.written();
    if written.trim_start().starts_with("```") {
        return None;
    }
    let straight: String = written.chars().map(|c| if QUOTES.contains(c) { '"' } else { c }).collect();
    let instead = fault.instead(&straight);
    let message = format!("{c} is no quotation mark of TOML, which takes plain \" and ' only{instead}");
    Some((fault.place(at, c.len_utf8()), message))
}

/// Marks that take no room, or turn the direction of what follows.
pub(super) fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Spaces that are none, marks that nobody sees, and signs that look like ASCII.
pub(super) fn invisible(fault: &Fault<'_>) -> Told {
    let lookalike = |c: char| match c {
        '＝' | '꞊' | '᐀' => Some('='),
        '［' => Some('['),
        '］' => Some(']'),
        '｛' => Some('{'),
        '｝' => Some('}'),
        '，' | '‚' => Some(','),
        '：' => Some(':'),
        '＃' => Some('#'),
        '–' | '—' | '−' | '‑' => Some('-'),
        '．' => Some('.'),
        _ => None,
    };
    for (at, c) in fault.plain().char_indices() {
        let message = if c == '\u{feff}' {
            "has a byte order mark in the middle (U+FEFF, from files that were put together): take it away".to_owned()
        } else if is_unseen(c) {
            format!("has the character U+{:04X}, which nobody sees: take it away", u32::from(c))
        } else if c != ' ' && c != '\t' && c.is_whitespace() {
            format!(
                "has a space that is none of TOML's (U+{:04X}, as web pages have it): expected a plain space",
                u32::from(c)
            )
        } else if let Some(meant) = lookalike(c) {
            format!("{c} (U+{:04X}) only looks like {meant}: expected a plain {meant}", u32::from(c))
        } else {
            continue;
        };
        return Some((fault.place(at, c.len_utf8()), message));
    }
    None
}
