//! What the walk reads of header fields: the name, the media type, the transfer encoding. Values are
//! parsed by mail-parser, whose work is not linear in the parameters of a field, so it only gets
//! fields within [`MAX_CONTENT_TYPE`] and [`MAX_PARAMETERS`].

use mail_parser::{HeaderValue, MessageParser};

use super::encode::MAX_LINE;
use super::limits::{Limit, MAX_CONTENT_TYPE, MAX_PARAMETERS};

/// The length of the field name, if the line begins with one (RFC 5322 §2.2; blanks before the
/// colon are obsolete syntax). A `From ` line of a mailbox file passes as a field of its own. A
/// name that is longer than a line may be is none, so that the start of a line tells.
pub(super) fn field_name(line: &[u8]) -> Option<usize> {
    let line = &line[..line.len().min(MAX_LINE)];
    let name = line.iter().take_while(|b| matches!(b, 33..=57 | 59..=126)).count();
    let rest = line.get(name..)?.trim_ascii_start();
    let mailbox = line.starts_with(b"From ") || line.starts_with(b">From ");
    ((name > 0 && rest.first() == Some(&b':')) || mailbox).then_some(name)
}

/// The fields that the walk knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Name {
    ContentType,
    ContentTransferEncoding,
    MimeVersion,
    DkimSignature,
    Other,
}

impl Name {
    pub(super) fn of(name: &[u8]) -> Name {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        match name.len() {
            12 if is("content-type") => Name::ContentType,
            12 if is("mime-version") => Name::MimeVersion,
            25 if is("content-transfer-encoding") => Name::ContentTransferEncoding,
            14 if is("dkim-signature") => Name::DkimSignature,
            _ => Name::Other,
        }
    }
}

/// A Content-Type.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) main: String,
    pub(super) sub: String,
    pub(super) boundary: Option<Vec<u8>>,
}

impl Kind {
    /// Without a Content-Type: text, but in a digest a message (RFC 2046 §5.1.5).
    pub(super) fn default_in(digest: bool) -> Kind {
        let (main, sub) = if digest { ("message", "rfc822") } else { ("text", "plain") };
        Kind { main: main.into(), sub: sub.into(), boundary: None }
    }

    /// Of a field without its last CRLF.
    pub(super) fn of(field: &[u8]) -> Result<Kind, Limit> {
        if field.len() > MAX_CONTENT_TYPE {
            return Err(Limit::ContentType);
        }
        if memchr::memchr_iter(b';', field).count() > MAX_PARAMETERS {
            return Err(Limit::Parameters);
        }
        let section = [field, b"\r\n\r\n"].concat();
        let parsed = MessageParser::new().with_mime_headers().parse_headers(&section);
        let value = parsed.as_ref().and_then(|m| m.headers().first()).map(|h| &h.value);
        let Some(HeaderValue::ContentType(ct)) = value else {
            return Ok(Kind::default_in(false));
        };
        Ok(Kind {
            main: ct.ctype().to_ascii_lowercase(),
            sub: ct.subtype().unwrap_or_default().to_ascii_lowercase(),
            // RFC 2046 §5.1.1: 1 to 70 characters of ASCII. Delimiter lines are never rewritten, so one
            // that could break a limit is not followed.
            boundary: ct
                .attribute("boundary")
                .map(|b| b.trim_end().as_bytes().to_vec())
                .filter(|b| (1..=200).contains(&b.len()) && b.is_ascii() && !b.iter().any(u8::is_ascii_control)),
        })
    }

    pub(super) fn is(&self, main: &str, sub: &str) -> bool {
        self.main == main && self.sub == sub
    }
}

/// A Content-Transfer-Encoding, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Encoding {
    /// The content is what it is: 7bit, nothing, or a word that nobody knows.
    #[default]
    Identity,
    /// The same, labelled 8bit.
    EightBit,
    /// The same, labelled binary.
    Binary,
    QuotedPrintable,
    Base64,
}

impl Encoding {
    /// Of a field; `name` is the length of its name.
    pub(super) fn of(field: &[u8], name: usize) -> Encoding {
        let value = field.get(name..).unwrap_or_default().trim_ascii_start();
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.split(|b| *b == b'(' || *b == b';').next().unwrap_or_default().trim_ascii();
        let is = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
        match () {
            () if is("quoted-printable") => Encoding::QuotedPrintable,
            () if is("base64") => Encoding::Base64,
            () if is("8bit") => Encoding::EightBit,
            () if is("binary") => Encoding::Binary,
            () => Encoding::Identity,
        }
    }

    pub(super) fn is_identity(self) -> bool {
        matches!(self, Encoding::Identity | Encoding::EightBit | Encoding::Binary)
    }
}
