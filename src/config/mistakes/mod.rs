//! What people meant who wrote something that is no TOML: a syntax error with its place, its cause and what
//! to write instead, where the parser can only say what it did not find.
//!
//! - `scan`: where strings, comments and brackets are.
//! - `marks`: characters that look like others, and such as nobody sees.
//! - `structure`: brackets, headers, strings and names that stand twice.
//! - `values`: what stands behind `=`, and how comments and names are written.
//! - `foreign`: files of other programs.
//! - `bytes`: files that are no UTF-8 text.
//! - `elsewhere`: keys that belong to another table.
//! - `other_words`: words for a key of the table that they stand in.
//! - `excerpt`: a line with a mark below it.
//!
//! Invariants:
//! - What is said begins at the place of the mistake, which may be before the parser's.
//! - A line that may have a secret in it is not repeated (`excerpt::may_show`).

mod bytes;
mod elsewhere;
mod excerpt;
mod foreign;
mod marks;
mod other_words;
mod scan;
mod structure;
mod values;

use std::ops::Range;

/// Longest text, in bytes, whose mistakes are looked into.
const LONGEST: usize = 1 << 20;

pub(super) use bytes::not_utf8;
pub(super) use elsewhere::elsewhere;
pub(super) use excerpt::Excerpts;
use excerpt::Excerpts as Shown;
pub(super) use other_words::other_word;
use scan::Scan;

/// A syntax error for people.
#[derive(Debug)]
pub(super) struct Meant {
    /// Where the mistake is, in bytes.
    pub span: Range<usize>,
    /// What is wrong and what was expected.
    pub message: String,
}

/// An error of the parser, with what helps to tell what it comes from.
struct Fault<'a> {
    scan: Scan<'a>,
    shown: Shown<'a>,
    /// The parser's place.
    at: Range<usize>,
    /// The parser's words.
    said: &'a str,
    /// The line of that place.
    line: Range<usize>,
}

type Told = Option<(Range<usize>, String)>;

/// What the parser's error `said` about the place `at` comes from.
pub(super) fn meant(text: &str, at: Option<Range<usize>>, said: &str) -> Meant {
    let at = at.unwrap_or(0..0);
    if text.len() > LONGEST {
        return Meant { span: at, message: format!("is not TOML: {}", said.replace('\n', ", ")) };
    }
    let scan = Scan::new(text);
    let line = scan.line(at.start);
    let fault = Fault { scan, shown: Shown::new(text), at, said, line };
    let known: [fn(&Fault<'_>) -> Told; 12] = [
        marks::control,
        structure::twice,
        |fault| foreign::told(&fault.scan, fault.at.start.min(fault.line.end)),
        marks::quotes,
        marks::invisible,
        values::leftover,
        structure::header,
        values::comment,
        structure::unclosed,
        structure::string,
        values::assignment,
        values::value,
    ];
    match known.iter().find_map(|told| told(&fault)) {
        Some((span, message)) => Meant { span, message: format!("is not TOML: {message}") },
        None => Meant { span: fault.at, message: format!("is not TOML: {}", said.replace('\n', ", ")) },
    }
}

impl<'a> Fault<'a> {
    /// The line as it was written.
    fn written(&self) -> &'a str {
        self.scan.text.get(self.line.clone()).unwrap_or_default()
    }

    /// The same with what stands in closed strings and comments covered.
    fn plain(&self) -> &str {
        self.scan.plain.get(self.line.clone()).unwrap_or_default()
    }

    /// The rest of the line from the parser's place.
    fn rest(&self) -> &'a str {
        self.scan.text.get(self.at.start..self.line.end).unwrap_or_default()
    }

    /// Where this part of the line stands.
    fn place(&self, from: usize, length: usize) -> Range<usize> {
        let start = self.line.start + from;
        start..start + length
    }

    /// `: expected LINE`, if that may be shown.
    fn instead(&self, line: &str) -> String {
        let line = line.trim();
        match self.shown.may_show(self.line.start, line) {
            true => format!(": expected {line}"),
            false => String::new(),
        }
    }

    fn number(&self, at: usize) -> usize {
        scan::number(self.scan.text, at)
    }
}

#[cfg(test)]
mod tests;
