//! Makes a message fit for a host that did not offer 8BITMIME (RFC 6152 §3), or for the limit of
//! 998 bytes a line (RFC 5321 §4.5.3.1.6), without changing what a reader sees.
//!
//! Invariants:
//! - Only what breaks a limit is rewritten: the body of such a part and its
//!   `Content-Transfer-Encoding`, such a header field. Every other byte stays as it is.
//! - The content of a part decodes to the same bytes as before.
//! - What was converted needs no conversion: [`convert`] of it is [`Conversion::NotNeeded`].
//!
//! The structure is walked here, by whole lines (RFC 2046 §5.1.1), and only header values are
//! parsed by mail-parser: its own walk takes `--boundary` in the middle of a line for a delimiter,
//! which is fine to read mail but not to rewrite it.
//!
//! The whole body is one slice in memory, and the result is a second one: the caller bounds how
//! many conversions run at once. Work is linear in the size, times the nesting depth (at most
//! [`MAX_DEPTH`]).

mod encode;
mod header;
mod parameter;
mod structure;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use super::BodyTraits;
use crate::config::SignedConversion;
pub use encode::{MAX_LINE, quoted_printable};
use encode::{base64, content, fold, has_eight_bit, has_long_line, lines};
use structure::{Head, Kind, split};

/// Deepest nesting of parts that is followed; no real mail comes near.
pub const MAX_DEPTH: u32 = 32;

/// What the next host takes, and what to do with a message that was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// It offered 8BITMIME.
    pub eight_bit: bool,
    /// It offered SMTPUTF8.
    pub smtputf8: bool,
    /// The envelope asked for SMTPUTF8 (RFC 6531 §3.4), so 8-bit headers are UTF-8 on purpose.
    pub smtputf8_asked: bool,
    /// Policy for signed messages.
    pub signed: SignedConversion,
}

/// What [`convert`] came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conversion {
    /// The host takes the body as it is.
    NotNeeded,
    /// Send this instead.
    Converted {
        /// The new body.
        body: Bytes,
        /// What it contains.
        traits: BodyTraits,
    },
    /// Send the body as it is and let the wire encoder fold its over-long lines: the message is
    /// signed, or nested too deep to be understood.
    Fold,
    /// The message cannot go to this host.
    Refused {
        /// Enhanced code, `5.6.3` or `5.6.7` (RFC 3463 §3.7, RFC 6531 §4).
        enhanced: &'static str,
        /// For people.
        text: String,
    },
}

/// Converts a body (CRLF line ends, not dot-stuffed) for the next host. `traits` are those of `body`.
pub fn convert(body: &[u8], traits: BodyTraits, hop: Hop) -> Conversion {
    // A transaction with SMTPUTF8 covers 8-bit headers and bodies (RFC 6531 §3.1: 8BITMIME comes with it).
    let covered = hop.eight_bit || (hop.smtputf8 && hop.smtputf8_asked);
    let eight_bit = !covered && (traits.eight_bit_header || traits.eight_bit_body);
    if hop.smtputf8_asked && !hop.smtputf8 && traits.eight_bit_header {
        return Conversion::Refused {
            enhanced: "5.6.7",
            text: "the message has internationalized headers and the host does not offer SMTPUTF8".into(),
        };
    }
    if !eight_bit && !traits.long_line {
        return Conversion::NotNeeded;
    }
    let mut walk = Walk { body, ascii: eight_bit, edits: Vec::new(), broke_signature: false };
    let top = Place { depth: 0, message: true, signed: false, digest: false };
    if walk.entity(0..body.len(), top).is_err() {
        return if eight_bit {
            Conversion::Refused {
                enhanced: "5.6.3",
                text: "the host does not take 8-bit data and the message is nested too deep to be converted".into(),
            }
        } else {
            Conversion::Fold
        };
    }
    if walk.broke_signature || (!walk.edits.is_empty() && has_signature_field(body)) {
        match hop.signed {
            SignedConversion::Bounce => {
                return Conversion::Refused {
                    enhanced: "5.6.3",
                    text: "the message is signed and would have to be converted for this host".into(),
                };
            }
            SignedConversion::Convert if !eight_bit => return Conversion::Fold,
            SignedConversion::Convert => {}
        }
    }
    let converted = walk.apply();
    let traits = scan(&converted);
    if eight_bit && (traits.eight_bit_header || traits.eight_bit_body) {
        // Not known to happen, but nothing illegal leaves because of a gap in this module.
        return Conversion::Refused { enhanced: "5.6.3", text: "the message could not be made 7-bit".into() };
    }
    if traits.long_line && !eight_bit {
        return Conversion::Fold;
    }
    Conversion::Converted { body: converted.into(), traits }
}

/// The traits of a whole body (CRLF line ends) in memory.
pub fn scan(body: &[u8]) -> BodyTraits {
    let mut traits = BodyTraits::default();
    let mut in_header = true;
    for line in lines(body) {
        let text = content(line);
        if has_eight_bit(text) {
            if in_header {
                traits.eight_bit_header = true;
            } else {
                traits.eight_bit_body = true;
            }
        }
        traits.long_line |= text.len() > MAX_LINE;
        traits.leading_dot |= text.starts_with(b".");
        in_header &= !text.is_empty();
    }
    traits
}

/// The header section of a stored message, without the blank line; `body` may be cut after it.
pub fn header_section(body: &[u8]) -> &[u8] {
    &body[..Head::of(body, 0..body.len()).end]
}

/// The value of the first field of that name, as it stands (folded, with the blanks around it).
pub fn header_field<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let head = Head::of(body, 0..body.len());
    let field = head.first(body, name)?;
    let rest = &body[field.name.end..field.all.end];
    rest.iter().position(|b| *b == b':').map(|colon| &rest[colon + 1..])
}

fn has_signature_field(body: &[u8]) -> bool {
    Head::of(body, 0..body.len()).fields.iter().any(|f| f.is(body, "dkim-signature"))
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
        if place.depth > MAX_DEPTH {
            return Err(TooDeep);
        }
        let body = self.body;
        let head = Head::of(body, range.clone());
        let kind = match head.first(body, "content-type") {
            Some(field) => Kind::of(&[&body[field.all.clone()], b"\r\n\r\n"].concat()),
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
                    let clean = encode::filler(&body[filler.clone()], self.ascii);
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
                || memmem::find(&body[content.clone()], b"-----BEGIN PGP SIGNED MESSAGE-----").is_some();
            let data = &body[content.clone()];
            let encoded = match encoding.as_str() {
                "quoted-printable" => encode::mend_quoted_printable(data),
                "base64" => encode::mend_base64(data),
                _ if matches!(kind.main.as_str(), "text" | "message" | "multipart") => {
                    new_encoding = Some("quoted-printable");
                    quoted_printable(data)
                }
                _ => {
                    new_encoding = Some("base64");
                    base64(data)
                }
            };
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
