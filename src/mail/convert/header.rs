//! Header fields without 8-bit bytes: encoded words (RFC 2047) for text, phrases and comments,
//! extended parameters (RFC 2231), empty groups for addresses that cannot be written in ASCII
//! (RFC 6857 §3.1, RFC 6854).
//!
//! Legacy software puts raw 8-bit bytes into headers. When they are UTF-8 the words say so, else
//! their charset is `unknown-8bit` (RFC 1428): no bit is stripped and no charset guessed. In fields
//! of machine-readable tokens (Message-ID, Received, Date …), where no encoding exists, each such
//! byte becomes `?`.

use super::encode::{contains, fold};
use super::parameter::parameters;
use crate::mail::{Address, in_ascii};

/// Longest encoded word (RFC 2047 §2), and the line length that folding aims at.
const MAX_WORD: usize = 75;
const LINE: usize = 76;

/// The field `name: value` (folded or not, without its last CRLF) in ASCII, folded anew.
pub fn to_ascii(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|b| *b == b':').unwrap_or(field.len());
    let name = String::from_utf8_lossy(&field[..colon]).trim().to_ascii_lowercase();
    let value: Vec<u8> = unfold(&field[(colon + 1).min(field.len())..]);
    let mut out = Out { bytes: field[..(colon + 1).min(field.len())].to_vec(), line: 0, blank: false };
    match name.as_str() {
        "from"
        | "to"
        | "cc"
        | "bcc"
        | "sender"
        | "reply-to"
        | "resent-from"
        | "resent-to"
        | "resent-cc"
        | "resent-bcc"
        | "resent-sender"
        | "resent-reply-to"
        | "disposition-notification-to"
        | "return-receipt-to"
        | "errors-to"
        | "mail-followup-to"
        | "mail-reply-to"
        | "list-id"
        | "keywords" => {
            addresses(&value, &mut out);
        }
        "content-type" | "content-disposition" => parameters(&value, &mut out),
        "message-id"
        | "in-reply-to"
        | "references"
        | "resent-message-id"
        | "content-id"
        | "received"
        | "return-path"
        | "date"
        | "resent-date"
        | "mime-version"
        | "content-transfer-encoding"
        | "authentication-results"
        | "received-spf"
        | "dkim-signature" => tokens(&value, &mut out),
        n if n.starts_with("arc-") => tokens(&value, &mut out),
        n if n.starts_with("list-") => uris(&value, &mut out),
        _ => text(&value, &mut out),
    }
    // A line name that is itself not ASCII (not a field at all) must not slip through.
    let ascii: Vec<u8> = out.bytes.iter().map(|b| if b.is_ascii() { *b } else { b'?' }).collect();
    fold(&ascii)
}

/// Removes folding; any other CR or LF becomes a space.
pub(super) fn unfold(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut i = 0;
    while i < value.len() {
        match value[i] {
            b'\r' if value.get(i + 1) == Some(&b'\n') => i += 1,
            b'\r' | b'\n' => out.push(b' '),
            b => out.push(b),
        }
        i += 1;
    }
    out
}

/// The field as it grows; knows where its last line starts.
pub(super) struct Out {
    bytes: Vec<u8>,
    line: usize,
    /// The last line has nothing but white space so far. Known, since looking at each token would be
    /// quadratic.
    blank: bool,
}

impl Out {
    fn column(&self) -> usize {
        self.bytes.len() - self.line
    }

    /// Appends `bytes`, which hold no line break.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.blank = self.blank && bytes.iter().all(|b| is_blank(*b));
        self.bytes.extend_from_slice(bytes);
    }

    pub(super) fn newline(&mut self) {
        self.bytes.extend_from_slice(b"\r\n");
        self.line = self.bytes.len();
        self.blank = true;
    }

    fn ends_with_space(&self) -> bool {
        matches!(self.bytes.last(), Some(b' ' | b'\t'))
    }

    /// Appends `token`; if the line would get too long and a space precedes, folds before it.
    pub(super) fn token(&mut self, token: &[u8]) {
        if self.column() + token.len() > LINE && self.ends_with_space() && self.column() > 1 {
            let blank = self.bytes.pop().unwrap_or(b' ');
            // No line may consist of white space alone (RFC 5322 §3.2.2).
            if !self.blank && !self.bytes.ends_with(b":") {
                self.newline();
            }
            self.bytes.push(blank);
        }
        self.raw(token);
    }

    /// `run` as one or more encoded words with folding between them.
    fn words(&mut self, run: &[u8]) {
        let utf8 = std::str::from_utf8(run).ok();
        let prefix: &[u8] = if utf8.is_some() { b"=?utf-8?q?" } else { b"=?unknown-8bit?q?" };
        let most = MAX_WORD - prefix.len() - 2;
        // The first word shares its line with what precedes it, if a useful piece of it fits.
        let left = LINE.saturating_sub(self.column() + prefix.len() + 2);
        let mut room = if left >= 12 { left.min(most) } else { most };
        let mut word: Vec<u8> = Vec::with_capacity(MAX_WORD);
        let mut first = true;
        let mut flush = |out: &mut Out, word: &mut Vec<u8>| {
            if !first {
                out.newline();
                out.raw(b" ");
            }
            first = false;
            let whole = [prefix, word.as_slice(), b"?="].concat();
            out.token(&whole);
            word.clear();
        };
        let mut start = 0;
        while start < run.len() {
            // A multi-byte character must not be split between words (RFC 2047 §5).
            let end = match utf8 {
                Some(s) => (start + 1..=run.len()).find(|i| s.is_char_boundary(*i)).unwrap_or(run.len()),
                None => start + 1,
            };
            let mut piece = Vec::with_capacity(12);
            for &b in &run[start..end] {
                match b {
                    b' ' => piece.push(b'_'),
                    b if b.is_ascii_alphanumeric() || b"!*+-/".contains(&b) => piece.push(b),
                    b => piece.extend_from_slice(format!("={b:02X}").as_bytes()),
                }
            }
            if word.len() + piece.len() > room {
                flush(self, &mut word);
                room = most;
            }
            word.extend_from_slice(&piece);
            start = end;
        }
        if !word.is_empty() {
            flush(self, &mut word);
        }
    }
}

pub(super) fn is_blank(b: u8) -> bool {
    b == b' ' || b == b'\t'
}

fn is_encoded_word(word: &[u8]) -> bool {
    word.len() > 6 && word.starts_with(b"=?") && word.ends_with(b"?=")
}

/// Unstructured text, or the words of a phrase.
fn text(value: &[u8], out: &mut Out) {
    // (start of the blanks before, start of the word, end of the word)
    let mut words: Vec<(usize, usize, usize)> = Vec::new();
    let mut i = 0;
    while i < value.len() {
        let blanks = i;
        while i < value.len() && is_blank(value[i]) {
            i += 1;
        }
        let start = i;
        while i < value.len() && !is_blank(value[i]) {
            i += 1;
        }
        words.push((blanks, start, i));
    }
    let mut w = 0;
    while w < words.len() {
        let (blanks, start, end) = words[w];
        if value[start..end].is_ascii() {
            out.raw(&value[blanks..start]);
            out.token(&value[start..end]);
            w += 1;
            continue;
        }
        let mut last = w;
        while last + 1 < words.len() && !value[words[last + 1].1..words[last + 1].2].is_ascii() {
            last += 1;
        }
        // Blanks between two encoded words vanish when shown (RFC 2047 §6.2), so those next to an
        // encoded word that was there before go into the new one.
        let after_word = w > 0 && is_encoded_word(&value[words[w - 1].1..words[w - 1].2]);
        let before_word = words.get(last + 1).is_some_and(|n| is_encoded_word(&value[n.1..n.2]));
        let from = if after_word { blanks } else { start };
        let to = if before_word { words[last + 1].1 } else { words[last].2 };
        out.raw(if after_word { b" " } else { &value[blanks..start] });
        out.words(&value[from..to]);
        w = last + 1;
        if before_word {
            let next = words[w];
            out.raw(b" ");
            out.token(&value[next.1..next.2]);
            w += 1;
        }
    }
}

/// Address lists: display names, comments and quoted strings become encoded words; a mailbox whose
/// address itself is not ASCII becomes an empty group that shows the address (RFC 6857 §3.1).
fn addresses(value: &[u8], out: &mut Out) {
    let mut i = 0;
    while i < value.len() {
        match value[i] {
            b'"' => {
                let end = quoted_end(value, i);
                let whole = &value[i..end];
                if whole.is_ascii() {
                    out.token(whole);
                } else if value.get(end) == Some(&b'@') {
                    let end = address_end(value, end);
                    group(&value[i..end], out);
                    i = end;
                    continue;
                } else {
                    apart(out);
                    out.words(&unquote(whole));
                    space_before(value.get(end), out);
                }
                i = end;
            }
            b'(' => {
                let end = comment_end(value, i);
                let whole = &value[i..end];
                if whole.is_ascii() {
                    out.token(whole);
                } else {
                    out.raw(b"(");
                    out.words(whole.get(1..).map_or(&[][..], |w| w.strip_suffix(b")").unwrap_or(w)));
                    out.raw(b")");
                }
                i = end;
            }
            b'<' => {
                let end = value[i..].iter().position(|b| *b == b'>').map_or(value.len(), |at| i + at + 1);
                let whole = &value[i..end];
                if whole.is_ascii() {
                    out.token(whole);
                } else {
                    let inner = whole.strip_prefix(b"<").unwrap_or(whole);
                    group(inner.strip_suffix(b">").unwrap_or(inner), out);
                }
                i = end;
            }
            b',' | b';' | b':' => {
                out.raw(&value[i..=i]);
                i += 1;
            }
            _ => {
                let end = value[i..].iter().position(|b| b"\"(<,;:".contains(b)).map_or(value.len(), |at| i + at);
                let run = &value[i..end];
                if run.is_ascii() || !contains(run, b'@') {
                    let first_is_raw = run.iter().find(|b| !is_blank(**b)).is_some_and(|b| !b.is_ascii());
                    if first_is_raw && !is_blank(run[0]) {
                        apart(out);
                    }
                    text(run, out);
                    if run.last().is_some_and(|b| !b.is_ascii()) {
                        space_before(value.get(end), out);
                    }
                } else {
                    let blanks = run.iter().take_while(|b| is_blank(**b)).count();
                    out.raw(&run[..blanks]);
                    group(run[blanks..].trim_ascii_end(), out);
                }
                i = end;
            }
        }
    }
}

/// An address that is not ASCII: with A-labels, where only its domain is not; else, as ASCII cannot
/// write it, an empty group whose name it is.
fn group(address: &[u8], out: &mut Out) {
    let parsed = std::str::from_utf8(address).ok().and_then(|address| Address::parse(address).ok());
    if let Some(ascii) = parsed.as_ref().and_then(in_ascii) {
        apart(out);
        return out.token(format!("<{ascii}>").as_bytes());
    }
    apart(out);
    out.words(address);
    out.raw(b" :;");
}

/// An encoded word in a phrase stands apart from what precedes it (RFC 2047 §5 rule 3).
fn apart(out: &mut Out) {
    if !out.ends_with_space() {
        out.raw(b" ");
    }
}

fn space_before(next: Option<&u8>, out: &mut Out) {
    if next.is_some_and(|b| !is_blank(*b)) {
        out.raw(b" ");
    }
}

pub(super) fn quoted_end(value: &[u8], start: usize) -> usize {
    let mut i = start + 1;
    while i < value.len() {
        match value[i] {
            b'\\' => i += 1,
            b'"' => return i + 1,
            _ => {}
        }
        i += 1;
    }
    value.len()
}

fn comment_end(value: &[u8], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0usize);
    while i < value.len() {
        match value[i] {
            b'\\' => i += 1,
            b'(' => depth += 1,
            b')' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return i + 1;
                }
            }
            _ => {}
        }
        i += 1;
    }
    value.len()
}

fn address_end(value: &[u8], from: usize) -> usize {
    value[from..].iter().position(|b| is_blank(*b) || b",;()<>".contains(b)).map_or(value.len(), |at| from + at)
}

/// The content of a quoted string.
pub(super) fn unquote(quoted: &[u8]) -> Vec<u8> {
    let inner = quoted.strip_prefix(b"\"").unwrap_or(quoted);
    let inner = inner.strip_suffix(b"\"").unwrap_or(inner);
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'\\' => out.extend(bytes.next()),
            b => out.push(b),
        }
    }
    out
}

/// Fields of machine-readable tokens: nothing can encode them.
fn tokens(value: &[u8], out: &mut Out) {
    folded(value, out, |b, piece| piece.push(if b.is_ascii() { b } else { b'?' }));
}

/// Fields of URIs (RFC 2369): percent-encoding (RFC 3986 §2.1).
fn uris(value: &[u8], out: &mut Out) {
    folded(value, out, |b, piece| {
        if b.is_ascii() {
            piece.push(b);
        } else {
            piece.extend_from_slice(format!("%{b:02X}").as_bytes());
        }
    });
}

fn folded(value: &[u8], out: &mut Out, write: impl Fn(u8, &mut Vec<u8>)) {
    let mut i = 0;
    while i < value.len() {
        let blanks = value[i..].iter().take_while(|b| is_blank(**b)).count();
        out.raw(&value[i..i + blanks]);
        i += blanks;
        let word = value[i..].iter().take_while(|b| !is_blank(**b)).count();
        let mut piece = Vec::with_capacity(word);
        for &b in &value[i..i + word] {
            write(b, &mut piece);
        }
        out.token(&piece);
        i += word;
    }
}
