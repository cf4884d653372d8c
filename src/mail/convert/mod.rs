//! Makes a message fit for a host that did not offer 8BITMIME (RFC 6152 §3), BINARYMIME (RFC 3030 §3) or SMTPUTF8
//! (RFC 6531), or for the limit of 998 bytes a line (RFC 5321 §4.5.3.1.6), without changing what a reader sees.
//!
//! Invariants:
//! - Only what breaks a limit is rewritten: the body of such a part and its
//!   `Content-Transfer-Encoding`, such a header field. Every other byte stays as it is.
//! - The content of a part decodes to the same bytes as before.
//! - What was converted needs no conversion: the same is asked of it, and the answer is [`Conversion::NotNeeded`].
//! - Work is linear in the size of the message, and what is kept is bounded by [`limits`]: the
//!   message is read chunk by chunk, once to plan, once to count, and once each time it is sent.
//!   Nothing of the result is kept.
//!
//! The structure is walked here, by whole lines (RFC 2046 §5.1.1), and only header values are
//! parsed by mail-parser: its own walk takes `--boundary` in the middle of a line for a delimiter,
//! which is fine to read mail but not to rewrite it.

mod coder;
mod emit;
mod encode;
mod header;
mod kind;
pub mod limits;
mod lines;
mod parameter;
mod plan;
mod structure;
#[cfg(test)]
mod tests;
mod visit;
mod walk;
mod whereabouts;
mod work;

use super::BodyTraits;
pub use coder::quoted_printable;
pub use emit::Emitter;
pub use encode::MAX_LINE;
use encode::{content, has_eight_bit, lines};
pub use limits::Limit;
use structure::Head;
pub use work::{Pass, Recipe, Work};

/// What the next host takes, and what to do with a message that was signed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// It offered 8BITMIME.
    pub eight_bit: bool,
    /// It offered SMTPUTF8.
    pub smtputf8: bool,
    /// The envelope asked for SMTPUTF8 (RFC 6531 §3.4): a host that offers it takes the header as it is, and
    /// for another UTF-8 in the header is written in ASCII. Where nobody asked, that is only done if the text
    /// is UTF-8 and no signature breaks: raw bytes mostly come through.
    pub smtputf8_asked: bool,
    /// Whether the message was announced as BINARYMIME, and what the host does about that.
    pub octets: Octets,
    /// Policy for signed messages.
    pub signed: SignedConversion,
}

/// What becomes of a message that was signed and has to be converted (`signed_conversion`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignedConversion {
    /// Convert although the signature breaks (what Postfix does).
    Convert,
    /// Bounce with 5.6.3 rather than break the signature.
    Bounce,
}

/// How a body goes that may be octets, not lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Octets {
    /// It was not announced as that: it has CRLF line ends.
    NotAnnounced,
    /// It was, and the host offers BINARYMIME: content goes as it is.
    Taken,
    /// It was, and the host takes lines only: what no DATA carries is encoded, and nothing is labelled `binary`.
    NotTaken,
}

/// What a conversion came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Conversion {
    /// The host takes the body as it is.
    NotNeeded,
    /// Send instead what this makes of it.
    Converted {
        /// How it is made.
        recipe: Recipe,
        /// Its size in bytes.
        size: u64,
        /// What it contains.
        traits: BodyTraits,
    },
    /// Send the body as it is and let the wire encoder fold its over-long lines: the message is
    /// signed, or beyond a [`Limit`].
    Fold,
    /// The message cannot go to this host.
    Refused {
        /// Enhanced code, `5.3.4`, `5.6.0` or `5.6.3` (RFC 3463 §3.4, §3.7).
        enhanced: &'static str,
        /// For people.
        text: String,
    },
}

/// Converts a body in memory (not dot-stuffed; CRLF line ends, but for [`Octets`]) for the next host. `traits` are
/// those of `body`.
pub fn convert(body: &[u8], traits: BodyTraits, hop: Hop) -> Conversion {
    let mut work = match Work::begin(body.len() as u64, traits, hop) {
        Ok(work) => work,
        Err(conversion) => return conversion,
    };
    loop {
        work.push(body);
        match work.end_pass() {
            Pass::Again(again) => work = *again,
            Pass::Done(conversion) => return conversion,
        }
    }
}

/// The traits of a whole body (CRLF line ends) in memory; that it is binary is not looked for.
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

/// The fields of a header section in their order: name, and value without folding and the blanks around it; `body` may be
/// cut after it. What is not UTF-8 is shown as such.
pub fn header_fields(body: &[u8]) -> impl Iterator<Item = (String, String)> {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Head::of(body, 0..body.len()).fields.into_iter().map(move |field| {
        let behind = &body[field.name.end..field.all.end];
        let value = behind.iter().position(|b| *b == b':').map_or(&[][..], |colon| &behind[colon + 1..]);
        (shown(&body[field.name]), shown(&header::unfold(value)))
    })
}

/// The value of the first field of that name, as it stands (folded, with the blanks around it).
pub fn header_field<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let head = Head::of(body, 0..body.len());
    let field = head.first(body, name)?;
    let rest = &body[field.name.end..field.all.end];
    rest.iter().position(|b| *b == b':').map(|colon| &rest[colon + 1..])
}
