//! The same conversion on a body in memory, by recursion over ranges: slower and simpler, to compare
//! the streaming one with.

use std::ops::Range;

use super::super::coder::{self, Coder, Coding, Text};
use super::super::encode::{MAX_LINE, content, fold, has_eight_bit, has_long_line, lines};
use super::super::header;
use super::super::kind::Kind;
use super::super::limits::{MAX_DEPTH, SHORT_EXCESS, SHORT_EXCESS_ALL};
use super::super::plan::Weight;
use super::super::structure::Head;
use super::super::whereabouts::MustGo;

/// What the body becomes, and whether that breaks a signature; `None`: it is nested too deep, or a
/// Content-Type is beyond its bounds.
pub(super) fn convert(body: &[u8], ascii: bool) -> Option<(Vec<u8>, bool)> {
    let mut walk = Walk { body, ascii, edits: Vec::new(), broke_signature: false, short: SHORT_EXCESS_ALL };
    let top = Place { depth: 0, message: true, signed: false, digest: false };
    walk.entity(0..body.len(), top).ok()?;
    let signed = Head::of(body, 0..body.len()).fields.iter().any(|f| f.is(body, "dkim-signature"));
    let broke = walk.broke_signature || (signed && !walk.edits.is_empty());
    Some((walk.apply(), broke))
}

/// What goes of text.
fn lines_only(ascii: bool) -> MustGo {
    MustGo { fields: ascii, content: ascii, long: true, binary: false }
}

/// Each line of `data` through a coder.
fn code(coding: Coding, data: &[u8]) -> Vec<u8> {
    let (mut coder, mut out) = (Coder::new(coding, false), Vec::new());
    for line in lines(data) {
        let bytes = content(line);
        coder.text(Text { bytes, first: true, last: true, long: bytes.len() > MAX_LINE }, &mut out);
        if bytes.len() < line.len() {
            coder.newline(&mut out);
        }
    }
    coder.finish(&mut out);
    out
}

fn clean(data: &[u8], ascii: bool) -> Vec<u8> {
    let (mut column, mut out) = (0, Vec::new());
    for line in lines(data) {
        let bytes = content(line);
        let text = Text { bytes, first: true, last: true, long: bytes.len() > MAX_LINE };
        coder::filler(&mut column, lines_only(ascii), text, &mut out);
        out.extend_from_slice(&line[bytes.len()..]);
    }
    out
}

/// Whether quoted-printable suits it.
fn suits(walk: &mut Walk<'_>, data: &[u8]) -> bool {
    let mut weight = Weight::new(lines_only(walk.ascii));
    for line in lines(data) {
        let bytes = content(line);
        weight.text(Text { bytes, first: true, last: true, long: bytes.len() > MAX_LINE }, false);
        if bytes.len() < line.len() {
            weight.newline();
        }
    }
    let excess = weight.excess();
    let fits = excess == 0 || (excess <= SHORT_EXCESS && excess <= walk.short);
    walk.short -= if fits { excess } else { 0 };
    fits
}

/// A replacement of a range of the body.
struct Edit {
    at: Range<usize>,
    with: Vec<u8>,
}

/// Nested too deep.
struct TooDeep;

/// Where an entity stands.
#[derive(Clone, Copy)]
struct Place {
    depth: u32,
    /// A message (top level, or inside message/rfc822), so it has a MIME-Version of its own.
    message: bool,
    /// Inside something whose bytes are signed.
    signed: bool,
    /// Directly inside multipart/digest, where parts are messages by default (RFC 2046 §5.1.5).
    digest: bool,
}

struct Walk<'a> {
    body: &'a [u8],
    /// Get rid of 8-bit bytes, too; else only of over-long lines.
    ascii: bool,
    edits: Vec<Edit>,
    /// An edit lies inside something signed.
    broke_signature: bool,
    short: u64,
}

impl Walk<'_> {
    fn breaks_limit(&self, range: Range<usize>) -> bool {
        let bytes = &self.body[range];
        (self.ascii && has_eight_bit(bytes)) || has_long_line(bytes)
    }

    fn edit(&mut self, at: Range<usize>, with: Vec<u8>, signed: bool) {
        self.broke_signature |= signed;
        self.edits.push(Edit { at, with });
    }

    /// Notes the edits of one entity; whether content (not only header fields) was re-encoded.
    fn entity(&mut self, range: Range<usize>, place: Place) -> Result<bool, TooDeep> {
        if place.depth > MAX_DEPTH as u32 {
            return Err(TooDeep);
        }
        let body = self.body;
        let head = Head::of(body, range.clone());
        let kind = match head.first(body, "content-type") {
            Some(field) => Kind::of(&body[field.all.clone()]).map_err(|_| TooDeep)?,
            None if place.digest => Kind { main: "message".into(), sub: "rfc822".into(), boundary: None },
            None => Kind { main: "text".into(), sub: "plain".into(), boundary: None },
        };
        let encoding = head.first(body, "content-transfer-encoding").map_or(String::new(), |field| {
            let value = body[field.name.end..field.all.end].trim_ascii_start();
            let value = value.strip_prefix(b":").unwrap_or(value);
            let value = value.split(|b| *b == b'(' || *b == b';').next().unwrap_or_default();
            String::from_utf8_lossy(value.trim_ascii()).to_ascii_lowercase()
        });
        let identity = !matches!(encoding.as_str(), "quoted-printable" | "base64");
        let content = head.body..range.end;
        let inner = Place {
            depth: place.depth + 1,
            message: false,
            signed: place.signed || kind.is("multipart", "signed"),
            digest: kind.is("multipart", "digest"),
        };

        let parts = match &kind.boundary {
            Some(boundary) if kind.main == "multipart" => split(body, content.clone(), boundary),
            _ => None,
        };
        let mut changed = false;
        let mut new_encoding = None;
        if let Some(parts) = parts {
            for filler in [parts.preamble, parts.epilogue] {
                if self.breaks_limit(filler.clone()) {
                    let clean = clean(&body[filler.clone()], self.ascii);
                    self.edit(filler, clean, place.signed);
                }
            }
            for part in parts.parts {
                changed |= self.entity(part, inner)?;
            }
            new_encoding = self.relabel(&encoding);
        } else if identity && (kind.is("message", "rfc822") || kind.is("message", "global")) {
            // Never encoded as a whole (RFC 2046 §5.2.1), only what is in it.
            changed |= self.entity(content, Place { message: true, digest: false, ..inner })?;
            new_encoding = self.relabel(&encoding);
        } else if self.breaks_limit(content.clone()) {
            changed = true;
            let signed = place.signed
                || kind.sub.ends_with("pkcs7-mime")
                || lines(&body[content.clone()]).any(|l| l.starts_with(b"-----BEGIN PGP SIGNED MESSAGE-----"));
            let data = &body[content.clone()];
            let coding = match encoding.as_str() {
                "quoted-printable" => Coding::MendQuotedPrintable,
                "base64" => Coding::MendBase64,
                _ if matches!(kind.main.as_str(), "text" | "message" | "multipart") && suits(self, data) => {
                    new_encoding = Some("quoted-printable");
                    Coding::QuotedPrintable
                }
                _ => {
                    new_encoding = Some("base64");
                    Coding::Base64
                }
            };
            let encoded = code(coding, data);
            self.edit(content, encoded, signed);
        }
        self.head(&head, place, changed, new_encoding, &range);
        Ok(changed)
    }

    /// A composite may only be labelled 7bit, 8bit or binary (RFC 2045 §6.4), and once its parts
    /// are 7-bit, only 7bit.
    fn relabel(&self, encoding: &str) -> Option<&'static str> {
        (self.ascii && matches!(encoding, "8bit" | "binary")).then_some("7bit")
    }

    /// The header section: fields that break a limit, the new Content-Transfer-Encoding, and what
    /// makes a message without MIME headers a MIME message.
    fn head(&mut self, head: &Head, place: Place, changed: bool, encoding: Option<&str>, range: &Range<usize>) {
        let body = self.body;
        let mut encoding = encoding.map(|e| format!("Content-Transfer-Encoding: {e}").into_bytes());
        let relabelled = encoding.is_some();
        for field in &head.fields {
            if relabelled && field.is(body, "content-transfer-encoding") {
                // The first is replaced; a second one would only contradict it and goes.
                match encoding.take() {
                    Some(with) => self.edit(field.all.clone(), with, place.signed),
                    None => {
                        let crlf = if body[field.all.end..range.end].starts_with(b"\r\n") { 2 } else { 0 };
                        self.edit(field.all.start..field.all.end + crlf, Vec::new(), place.signed);
                    }
                }
            } else if self.breaks_limit(field.all.clone()) {
                let text = &body[field.all.clone()];
                let with = if self.ascii && has_eight_bit(text) { header::to_ascii(text) } else { fold(text) };
                self.edit(field.all.clone(), with, place.signed);
            }
        }
        let mut added = Vec::new();
        if place.message && changed {
            if head.first(body, "mime-version").is_none() {
                added.extend_from_slice(b"MIME-Version: 1.0\r\n");
            }
            if head.first(body, "content-type").is_none() && relabelled {
                let content = &body[head.body..range.end];
                let charset = match (content.is_ascii(), std::str::from_utf8(content)) {
                    (true, _) => "us-ascii",
                    (_, Ok(_)) => "utf-8",
                    // RFC 1428: some charset that nobody named.
                    _ => "unknown-8bit",
                };
                added.extend_from_slice(format!("Content-Type: text/plain; charset={charset}\r\n").as_bytes());
            }
        }
        if let Some(encoding) = encoding {
            added.extend_from_slice(&encoding);
            added.extend_from_slice(b"\r\n");
        }
        if !added.is_empty() {
            if !head.separated {
                added.extend_from_slice(b"\r\n");
            }
            self.edit(head.end..head.end, added, place.signed);
        }
    }

    /// The body with all edits made.
    fn apply(mut self) -> Vec<u8> {
        // Stable: an insertion comes before a replacement that starts at the same place only if its
        // range is empty, which sorts first.
        // Of two insertions at one place that of the outer entity, which was noted later, comes first.
        self.edits.reverse();
        self.edits.sort_by_key(|e| (e.at.start, e.at.end));
        let grown: usize = self.edits.iter().map(|e| e.with.len()).sum();
        let mut out = Vec::with_capacity(self.body.len() + grown);
        let mut at = 0;
        for edit in &self.edits {
            out.extend_from_slice(&self.body[at..edit.at.start]);
            out.extend_from_slice(&edit.with);
            at = edit.at.end;
        }
        out.extend_from_slice(&self.body[at..]);
        out
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
