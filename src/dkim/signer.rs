//! Reads a message once, piece by piece, and writes its `DKIM-Signature` fields (RFC 6376 §3.5).
//!
//! Invariants:
//! - What is kept are the fields that are signed: at most [`MAX_KEPT`] bytes, and [`MOST_OF_A_NAME`] of a name. A
//!   body is hashed as it passes.
//! - Of several fields of a name the last ones are signed, from the bottom up (RFC 6376 §5.4.2). Names of
//!   [`SIGNED`] that are sealed are listed once more than they occur, so that adding one breaks the signature
//!   (RFC 6376 §8.15).
//! - A field of ours has lines of 78 characters where it can, and is ASCII.

use std::collections::VecDeque;
use std::fmt::Write as _;

use aws_lc_rs::digest::{self, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::canonical::{self, Body};
use super::{KeyFault, SigningKey};

/// Bytes of the fields to be signed that are kept at most; what a ticket of a conversion has room for.
pub const MAX_KEPT: usize = 256 * 1024;

/// Fields of one name that are signed at most: the last ones. No message has that many on purpose.
const MOST_OF_A_NAME: usize = 20;

/// Longest line of a field that is written here, where there is a place to break it.
const WIDTH: usize = 76;

/// Fields that are signed where they occur (RFC 6376 §5.4.1), and whether one more would break the signature: those
/// that a reader sees or acts upon. Not among them: what hosts on the way add or change (`Received`, `Return-Path`),
/// and the signatures and results of others.
const SIGNED: [(&str, bool); NAMES] = [
    ("From", true),
    ("Reply-To", true),
    ("Subject", true),
    ("Date", true),
    ("To", true),
    ("Cc", true),
    ("Content-Type", true),
    ("List-Unsubscribe", true),
    ("List-Unsubscribe-Post", true),
    ("Sender", false),
    ("Message-ID", false),
    ("In-Reply-To", false),
    ("References", false),
    ("MIME-Version", false),
    ("Content-Transfer-Encoding", false),
    ("Content-ID", false),
    ("Content-Description", false),
    ("Auto-Submitted", false),
    ("Feedback-ID", false),
    ("List-Id", false),
    ("List-Help", false),
    ("List-Subscribe", false),
    ("List-Post", false),
    ("List-Owner", false),
    ("List-Archive", false),
    ("Resent-From", false),
    ("Resent-To", false),
    ("Resent-Date", false),
];

/// Whether a field of this name is signed where it occurs.
pub fn is_signed(name: &str) -> bool {
    SIGNED.iter().any(|(signed, _)| signed.eq_ignore_ascii_case(name))
}

/// How many names that are.
const NAMES: usize = 28;

/// The place of `From` in it.
const FROM: usize = 0;

/// A signature to make.
#[derive(Clone, Copy, Debug)]
pub struct Signature<'a> {
    /// `d=`, in A-labels.
    pub domain: &'a str,
    /// `s=`.
    pub selector: &'a str,
    /// What it is made with.
    pub key: &'a SigningKey,
    /// `t=`: seconds since 1970.
    pub at: u64,
    /// `x=`: until when it holds, in the same; `None`: without an end.
    pub until: Option<u64>,
}

/// The fields that would be signed have more than [`MAX_KEPT`] bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the header fields that a DKIM signature covers have more than {MAX_KEPT} bytes")]
pub struct TooLarge;

/// See the module.
#[derive(Debug)]
pub struct Signer {
    /// While the header section comes in.
    head: Option<Head>,
    /// Canonical fields by their place in [`SIGNED`], in the order of the message, and how many there were.
    fields: [(VecDeque<Vec<u8>>, u64); NAMES],
    kept: usize,
    body: Body,
    hash: Hash,
}

struct Hash(digest::Context);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<hash>")
    }
}

#[derive(Default, Debug)]
struct Head {
    /// The start of a line that is not complete.
    line: Vec<u8>,
    /// The field at hand, if it is one to sign: its place in [`SIGNED`].
    field: Option<(usize, Vec<u8>)>,
}

impl Default for Signer {
    fn default() -> Signer {
        Signer::new()
    }
}

impl Signer {
    /// Nothing has come yet.
    pub fn new() -> Signer {
        let fields = std::array::from_fn(|_| (VecDeque::new(), 0));
        let hash = Hash(digest::Context::new(&SHA256));
        Signer { head: Some(Head::default()), fields, kept: 0, body: Body::default(), hash }
    }

    /// Takes the next piece of the message (CRLF line ends in its header section, no dot-stuffing).
    ///
    /// # Errors
    /// The header section has too much that is to be signed.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), TooLarge> {
        let mut rest = piece;
        while self.head.is_some() {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if let Some(head) = &mut self.head {
                    head.line.extend_from_slice(rest);
                    within(self.kept + head.line.len())?;
                }
                return Ok(());
            };
            let (line, after) = rest.split_at(end + 1);
            rest = after;
            let begun = self.head.as_mut().map(|head| std::mem::take(&mut head.line)).unwrap_or_default();
            if begun.is_empty() {
                self.line(line)?;
            } else {
                self.line(&[&begun, line].concat())?;
            }
        }
        let hash = &mut self.hash.0;
        self.body.push(rest, &mut |bytes| hash.update(bytes));
        Ok(())
    }

    /// A whole line of the header section.
    fn line(&mut self, line: &[u8]) -> Result<(), TooLarge> {
        let Some(head) = &mut self.head else { return Ok(()) };
        if matches!(line, b"\r\n" | b"\n") {
            self.end_field()?;
            self.head = None;
            return Ok(());
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            if let Some((_, field)) = &mut head.field {
                field.extend_from_slice(line);
                return within(self.kept + field.len());
            }
            return Ok(());
        }
        self.end_field()?;
        let name = line[..memchr::memchr(b':', line).unwrap_or(line.len())].trim_ascii_end();
        let place = SIGNED.iter().position(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name));
        if let (Some(head), Some(place)) = (&mut self.head, place) {
            head.field = Some((place, line.to_vec()));
        }
        within(self.kept + line.len())
    }

    fn end_field(&mut self) -> Result<(), TooLarge> {
        let field = self.head.as_mut().and_then(|head| head.field.take());
        let Some((place, raw)) = field else { return Ok(()) };
        let Some((same, count)) = self.fields.get_mut(place) else { return Ok(()) };
        let field = canonical::header(&raw);
        *count += 1;
        self.kept += field.len();
        same.push_back(field);
        if same.len() > MOST_OF_A_NAME {
            self.kept -= same.pop_front().map_or(0, |first| first.len());
        }
        within(self.kept)
    }

    /// Whether the header section is complete; then it is known whose the message is.
    pub fn knows_header(&self) -> bool {
        self.head.is_none()
    }

    /// There is no more of it: a message may have no body, nor a line that would begin one.
    ///
    /// # Errors
    /// As [`Signer::push`].
    pub fn end_header(&mut self) -> Result<(), TooLarge> {
        let begun = self.head.as_mut().map(|head| std::mem::take(&mut head.line)).unwrap_or_default();
        if !begun.is_empty() {
            self.line(&begun)?;
        }
        self.end_field()?;
        self.head = None;
        Ok(())
    }

    /// The value of `From`, if there is exactly one: of two, readers show one or the other.
    ///
    /// # Errors
    /// How many there are instead.
    pub fn from(&self) -> Result<&[u8], u64> {
        let Some((fields, count)) = self.fields.get(FROM) else { return Err(0) };
        match fields.front() {
            Some(field) if *count == 1 => Ok(field.strip_prefix(b"from:").unwrap_or(field).trim_ascii_end()),
            _ => Err(*count),
        }
    }

    /// The signature fields, to be put on top of the message, in the order of `signatures`.
    ///
    /// # Errors
    /// A key cannot sign: its place in `signatures`.
    pub fn finish(mut self, signatures: &[Signature<'_>]) -> Result<Vec<u8>, (usize, KeyFault)> {
        let mut hash = self.hash.0;
        self.body.finish(&mut |bytes| hash.update(bytes));
        let body_hash = STANDARD.encode(hash.finish());
        let (mut names, mut signed) = (Vec::new(), Vec::with_capacity(self.kept + 1024));
        for ((name, sealed), (fields, count)) in SIGNED.iter().zip(&mut self.fields) {
            for field in std::mem::take(fields).into_iter().rev() {
                names.push(*name);
                signed.extend_from_slice(&field);
            }
            // One that is there and was not signed must not be what the name is listed for.
            if *sealed && *count <= MOST_OF_A_NAME as u64 {
                names.push(*name);
            }
        }
        let (mut out, covered) = (Vec::new(), signed.len());
        for (place, signature) in signatures.iter().enumerate() {
            let mut field = unsigned_field(signature, &names, &body_hash);
            signed.truncate(covered);
            let canonical = canonical::header(field.as_bytes());
            signed.extend_from_slice(canonical.strip_suffix(b"\r\n").unwrap_or(&canonical));
            let value = STANDARD.encode(signature.key.sign(&signed).map_err(|fault| (place, fault))?);
            let mut rest = value.as_str();
            while !rest.is_empty() {
                let (line, more) = rest.split_at(rest.len().min(WIDTH - 4));
                // The first one follows `b=`.
                let _ = write!(field, "{}{line}", if rest.len() == value.len() { "" } else { "\r\n\t" });
                rest = more;
            }
            field.push_str("\r\n");
            out.extend_from_slice(field.as_bytes());
        }
        Ok(out)
    }
}

fn within(bytes: usize) -> Result<(), TooLarge> {
    if bytes > MAX_KEPT { Err(TooLarge) } else { Ok(()) }
}

/// The field up to `b=`.
fn unsigned_field(signature: &Signature<'_>, names: &[&str], body_hash: &str) -> String {
    let Signature { domain, selector, key, at, until } = signature;
    let algorithm = key.algorithm().as_str();
    let mut field =
        format!("DKIM-Signature: v=1; a={algorithm}; c=relaxed/relaxed;\r\n\td={domain}; s={selector};\r\n\tt={at};");
    if let Some(until) = until {
        let _ = write!(field, " x={until};");
    }
    field.push_str("\r\n\th=");
    let mut width = 10;
    for (n, name) in names.iter().enumerate() {
        if n > 0 {
            field.push(':');
        }
        if width + name.len() + 2 > WIDTH {
            field.push_str("\r\n\t");
            width = 8;
        }
        field.push_str(name);
        width += name.len() + 1;
    }
    let _ = write!(field, ";\r\n\tbh={body_hash};\r\n\tb=");
    field
}

#[cfg(test)]
#[path = "signer_tests.rs"]
mod tests;
