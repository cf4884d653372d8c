//! Where strings, comments and brackets are in a text that may be no TOML at all.
//!
//! A string of one line that is not closed ends with its line, so one mistake does not hide what follows it.

use std::ops::Range;

/// A text with what stands in strings and comments covered.
pub(super) struct Scan<'a> {
    /// As it was written.
    pub text: &'a str,
    /// The same, byte for byte, with the inside of closed strings as `_` and comments as spaces.
    pub plain: String,
    /// Strings in `"""` or `'''`, with their quotes; the last may have no end.
    pub long: Vec<Range<usize>>,
    lines: Vec<Line>,
}

/// How a line begins.
struct Line {
    start: usize,
    /// The outermost bracket that is open before it.
    open: Option<usize>,
    /// The start of the last header up to this line, with it.
    header: Option<usize>,
}

impl<'a> Scan<'a> {
    pub(super) fn new(text: &'a str) -> Scan<'a> {
        let bytes = text.as_bytes();
        let mut plain = Vec::with_capacity(bytes.len());
        let mut long = Vec::new();
        while let Some(byte) = bytes.get(plain.len()).copied() {
            let at = plain.len();
            let rest = bytes.get(at..).unwrap_or_default();
            let (end, cover) = match byte {
                b'#' => (at + line_length(rest), b' '),
                b'"' | b'\'' if rest.starts_with(&[byte; 3]) => {
                    let end = at + long_string(rest, byte);
                    long.push(at..end);
                    (end, b'_')
                }
                b'"' | b'\'' => match short_string(rest, byte) {
                    Some(length) => (at + length, b'_'),
                    None => (at + 1, byte),
                },
                _ => (at + 1, byte),
            };
            for (n, inner) in bytes.get(at..end).unwrap_or_default().iter().enumerate() {
                let quote = cover == b'_' && (n == 0 || at + n + 1 == end);
                plain.push(if quote || *inner == b'\n' { *inner } else { cover });
            }
        }
        // Only whole characters were covered, so this is text again.
        let plain = String::from_utf8(plain).unwrap_or_else(|_| text.to_owned());
        let lines = lines(&plain);
        Scan { text, plain, long, lines }
    }

    /// The line in which a byte stands, without its end; that of the end of the text is the last with anything in it.
    pub(super) fn line(&self, at: usize) -> Range<usize> {
        let mut at = at.min(self.text.len());
        if at == self.text.len() {
            at = self.text.trim_end().len();
        }
        line_around(self.text, at)
    }

    /// Brackets and braces that are open before `at`, outermost first.
    pub(super) fn open_before(&self, at: usize) -> Vec<usize> {
        let Some(line) = self.line_info(at) else { return Vec::new() };
        let mut open = Vec::new();
        let start = line.open.unwrap_or(line.start);
        let rest = self.plain.get(start..at).unwrap_or_default();
        if line.open.is_none() && rest.trim_start().starts_with('[') {
            return open;
        }
        nest(rest, start, &mut open);
        open
    }

    /// The header of the table in which `at` stands, and where that is.
    pub(super) fn header_before(&self, at: usize) -> Option<(usize, &'a str)> {
        let start = self.line_info(at.checked_sub(1)?)?.header?;
        let written = self.text.get(line_around(self.text, start))?;
        Some((start, written.split(']').next()?.trim().trim_start_matches('[').trim()))
    }

    /// The first header of the text.
    pub(super) fn first_header(&self) -> Option<(usize, &'a str)> {
        let start = self.lines.iter().find_map(|line| line.header)?;
        self.header_before(start + 1)
    }

    fn line_info(&self, at: usize) -> Option<&Line> {
        let after = self.lines.partition_point(|line| line.start <= at);
        self.lines.get(after.checked_sub(1)?)
    }
}

fn lines(plain: &str) -> Vec<Line> {
    let (mut lines, mut open, mut header, mut start) = (Vec::new(), Vec::new(), None, 0);
    for line in plain.split_inclusive('\n') {
        let is_header = open.is_empty() && line.trim_start().starts_with('[');
        if is_header {
            header = Some(start);
        }
        lines.push(Line { start, open: open.first().copied(), header });
        if !is_header {
            nest(line, start, &mut open);
        }
        start += line.len();
    }
    lines
}

/// Follows the brackets of a part of a text that begins at `start`.
fn nest(part: &str, start: usize, open: &mut Vec<usize>) {
    for (n, c) in part.char_indices() {
        match c {
            '[' | '{' => open.push(start + n),
            ']' | '}' => drop(open.pop()),
            _ => {}
        }
    }
}

/// The line around a byte of `text`, without its end.
pub(super) fn line_around(text: &str, at: usize) -> Range<usize> {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |n| n + 1);
    let end = text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| at + n);
    let line = text.get(start..end).unwrap_or_default();
    start..start + line.trim_end_matches('\r').len()
}

/// The number of the line of a byte, from 1.
pub(super) fn number(text: &str, at: usize) -> usize {
    text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1
}

fn line_length(rest: &[u8]) -> usize {
    rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len())
}

/// The length of a string in one quote on each side, with them; `None` if its line ends first.
fn short_string(rest: &[u8], quote: u8) -> Option<usize> {
    let mut escaped = false;
    for (n, byte) in rest.iter().enumerate().skip(1) {
        match byte {
            b'\n' => return None,
            b'\\' if quote == b'"' && !escaped => escaped = true,
            byte if *byte == quote && !escaped => return Some(n + 1),
            _ => escaped = false,
        }
    }
    None
}

/// The length of a string in three quotes on each side; to the end of the text if it has none.
fn long_string(rest: &[u8], quote: u8) -> usize {
    let found = rest.get(3..).and_then(|inner| inner.windows(3).position(|w| w == [quote; 3]));
    found.map_or(rest.len(), |n| n + 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_covered_and_brackets_counted() {
        let text = "a = \"x # [\" # {\nb = [ '{', \"y\\\"]\",\n  1 # ]\n[q]\nc = \"open [\nd = \"\"\"\n[\n\"\"\"\n";
        let scan = Scan::new(text);
        assert_eq!(scan.plain.len(), text.len());
        assert!(scan.plain.starts_with("a = \"_____\"    \nb = [ '_', \"____\",\n  1    \n[q]\nc = \"open [\nd = \""));
        assert_eq!(scan.open_before(text.find("1").unwrap()), [text.find("[ '").unwrap()]);
        assert_eq!(scan.long.len(), 1);
        let other = Scan::new("[a]\nx = 1\n[b.c] # d\ny = 2\n");
        assert_eq!(other.header_before(23), Some((10, "b.c")));
        assert_eq!(other.header_before(8), Some((0, "a")));
        assert_eq!(other.header_before(0), None);
        assert_eq!(number("a\nb\n", 2), 2);
        assert_eq!(line_around("a\r\nbc\n", 4), 3..5);
    }
}
