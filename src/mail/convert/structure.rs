//! The structure of a message, by whole lines: header sections with their fields, and multiparts with
//! their delimiters. Nothing is copied; everything is ranges of the body.

use std::ops::Range;

use mail_parser::{HeaderValue, MessageParser};

use super::encode::{MAX_LINE, content, lines};

/// One header field; ranges are in the body.
pub(super) struct Field {
    /// From the name to the end, without the last CRLF.
    pub(super) all: Range<usize>,
    pub(super) name: Range<usize>,
}

impl Field {
    pub(super) fn is(&self, body: &[u8], name: &str) -> bool {
        body[self.name.clone()].eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The header section of an entity.
pub(super) struct Head {
    pub(super) fields: Vec<Field>,
    /// Where a further field would be inserted.
    pub(super) end: usize,
    /// Where the body begins.
    pub(super) body: usize,
    /// A blank line stands between them.
    pub(super) separated: bool,
}

impl Head {
    /// A line that is neither a field nor the continuation of one ends the header section although
    /// the blank line is missing, as most readers see it.
    pub(super) fn of(body: &[u8], range: Range<usize>) -> Head {
        let mut head = Head { fields: Vec::new(), end: range.end, body: range.end, separated: false };
        let mut at = range.start;
        for line in lines(&body[range.clone()]) {
            let text = content(line);
            let end = at + text.len();
            if text.is_empty() {
                return Head { end: at, body: at + line.len(), separated: true, ..head };
            }
            let continues = matches!(text.first(), Some(b' ' | b'\t'));
            match (continues, head.fields.last_mut(), field_name(text)) {
                (true, Some(last), _) => last.all.end = end,
                (false, _, Some(name)) => head.fields.push(Field { all: at..end, name: at..at + name }),
                _ => return Head { end: at, body: at, separated: false, ..head },
            }
            at += line.len();
        }
        head
    }

    pub(super) fn first<'a>(&'a self, body: &[u8], name: &str) -> Option<&'a Field> {
        self.fields.iter().find(|f| f.is(body, name))
    }
}

/// The length of the field name, if the line begins with one (RFC 5322 §2.2; blanks before the
/// colon are obsolete syntax). A `From ` line of a mailbox file passes as a field of its own.
fn field_name(line: &[u8]) -> Option<usize> {
    let name = line.iter().take_while(|b| matches!(b, 33..=57 | 59..=126)).count();
    let rest = line.get(name..)?.trim_ascii_start();
    let mailbox = line.starts_with(b"From ") || line.starts_with(b">From ");
    ((name > 0 && rest.first() == Some(&b':')) || mailbox).then_some(name)
}

/// What the walk needs to know of a Content-Type.
#[derive(Default)]
pub(super) struct Kind {
    pub(super) main: String,
    pub(super) sub: String,
    pub(super) boundary: Option<Vec<u8>>,
}

impl Kind {
    pub(super) fn of(field: &[u8]) -> Kind {
        let parsed = MessageParser::new().with_mime_headers().parse_headers(field);
        let value = parsed.as_ref().and_then(|m| m.headers().first()).map(|h| &h.value);
        let Some(HeaderValue::ContentType(ct)) = value else {
            return Kind { main: "text".into(), sub: "plain".into(), boundary: None };
        };
        Kind {
            main: ct.ctype().to_ascii_lowercase(),
            sub: ct.subtype().unwrap_or_default().to_ascii_lowercase(),
            // RFC 2046 §5.1.1: 1 to 70 characters of ASCII. Delimiter lines are never rewritten, so one
            // that could break a limit is not followed.
            boundary: ct
                .attribute("boundary")
                .map(|b| b.trim_end().as_bytes().to_vec())
                .filter(|b| (1..=200).contains(&b.len()) && b.is_ascii()),
        }
    }

    pub(super) fn is(&self, main: &str, sub: &str) -> bool {
        self.main == main && self.sub == sub
    }
}

/// The parts of a multipart, and what stands before and after them.
pub(super) struct Parts {
    pub(super) preamble: Range<usize>,
    pub(super) parts: Vec<Range<usize>>,
    pub(super) epilogue: Range<usize>,
}

/// Splits by delimiter lines; `None` if there is not one.
pub(super) fn split(body: &[u8], range: Range<usize>, boundary: &[u8]) -> Option<Parts> {
    let mut parts = Vec::new();
    let mut preamble = None;
    let mut start = range.start;
    let mut at = range.start;
    for line in lines(&body[range.clone()]) {
        let next = at + line.len();
        let text = content(line);
        let rest = if text.len() <= MAX_LINE { text.strip_prefix(b"--") } else { None };
        let rest = rest.and_then(|l| l.strip_prefix(boundary));
        let Some(rest) = rest else {
            at = next;
            continue;
        };
        let (rest, close) = rest.strip_prefix(b"--").map_or((rest, false), |r| (r, true));
        if rest.iter().all(|b| matches!(b, b' ' | b'\t')) {
            // The CRLF before a delimiter belongs to the delimiter.
            let end = if at >= start + 2 { at - 2 } else { start };
            match preamble {
                None => preamble = Some(start..end),
                Some(_) => parts.push(start..end),
            }
            start = next;
            if close {
                return Some(Parts { preamble: preamble?, parts, epilogue: next..range.end });
            }
        }
        at = next;
    }
    // The closing delimiter is missing: the last part goes to the end.
    parts.push(start..range.end);
    Some(Parts { preamble: preamble?, parts, epilogue: range.end..range.end })
}
