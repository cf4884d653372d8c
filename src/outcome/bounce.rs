//! Delivery status notifications: a multipart/report (RFC 6522) of human text, message/delivery-status
//! (RFC 3464) and the returned header section or message; for internationalized addresses in the
//! media types of RFC 6533. Parts and top header are put together by lettre.
//!
//! Invariants:
//! - Never a DSN to the null reverse-path, never one that NOTIFY forbids, and the DSN itself goes
//!   out from `<>` with NOTIFY=NEVER, so that no DSN can cause another (RFC 3461 §6.1, RFC 5321 §4.5.5).
//! - Nothing that a server or sender wrote can add a line, a header field or a part: text from
//!   outside is stripped of controls and folded, and the boundary occurs in no part.
//! - 7-bit, except for what came 8-bit in the returned message, and for what SMTPUTF8 covers anyway
//!   when the sender's own address is not ASCII. Lines are at most 998 bytes.
//! - Size is bounded by the number of items and by [`FULL_MAX`] and [`HEADERS_MAX`].

mod report;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use lettre::message::header::{
    ContentTransferEncoding, ContentType, Date, HeaderName, HeaderValue, Headers, MIME_VERSION_1_0,
};
use lettre::message::{Body, MultiPart, SinglePart};
use memchr::memmem;

use crate::clock::Timestamp;
use crate::config::SignedConversion;
use crate::deliver::Reply;
pub use crate::mail::Action;
use crate::mail::convert::{self, Conversion, Hop, MAX_LINE, Octets, header_field, header_section, scan};
use crate::mail::{Address, BodyKind, BodyTraits, Envelope, Message, Notify, Origin, QueueId, Recipient, Ret, TlsWish};

/// Messages up to this size in bytes are returned whole when RET=FULL asks for it; of larger ones
/// the header section is, and the text says so. Less than [`CHUNK`](crate::mail::CHUNK), so the first chunk of the
/// stored body is all that a DSN ever needs.
pub const FULL_MAX: u64 = 192 * 1024;

/// At most this much of a header section is returned, in bytes; cut between lines.
pub const HEADERS_MAX: usize = 64 * 1024;

/// What led to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Diagnostic<'a> {
    /// What the remote server said.
    Smtp(&'a Reply),
    /// What we found ourselves: a time-out, no route, expiry.
    Local(&'a str),
}

/// One recipient to report on.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// Who, with NOTIFY and ORCPT.
    pub recipient: &'a Recipient,
    /// What happened.
    pub action: Action,
    /// Enhanced status code, e.g. `(5, 1, 1)`.
    pub status: (u8, u16, u16),
    /// Why.
    pub diagnostic: Option<Diagnostic<'a>>,
    /// The name of the host that said it.
    pub remote_mta: Option<&'a str>,
    /// When it was tried last; `None` if never.
    pub last_attempt: Option<Timestamp>,
    /// For a delay: when it will be given up.
    pub will_retry_until: Option<Timestamp>,
}

impl Item<'_> {
    /// NOTIFY asks for (or, when not given, allows) this report (RFC 3461 §4.1).
    fn wanted(&self) -> bool {
        let notify = &self.recipient.notify;
        match self.action {
            Action::Failed => notify.failure,
            Action::Delayed => notify.delay,
            Action::Relayed => notify.success,
        }
    }
}

/// A DSN ready to be queued.
#[derive(Clone, Debug)]
pub struct Dsn {
    /// Envelope, origin, size and traits.
    pub message: Message,
    /// The sender of the message reported on.
    pub recipient: Recipient,
    /// The whole body. With very many recipients it may be larger than one [`CHUNK`](crate::mail::CHUNK).
    pub body: Bytes,
}

/// Writes the one DSN about all `items` of a message, or `None` if there is nobody to tell or nobody
/// wants to be told.
///
/// `stored` is chunk 0 of the stored body. `reporting_mta` is our host name, `id` the queue id of
/// the DSN. That a delay is reported only once is the caller's matter.
pub fn dsn(
    original: &Message,
    stored: &[u8],
    items: &[Item<'_>],
    reporting_mta: &str,
    id: QueueId,
    now: Timestamp,
) -> Option<Dsn> {
    let sender = original.envelope.reverse_path.as_ref()?;
    let items: Vec<Item<'_>> = items.iter().filter(|item| item.wanted()).copied().collect();
    if items.is_empty() {
        return None;
    }
    let host = host_name(reporting_mta);
    let global = original.envelope.smtputf8
        && (!sender.is_ascii()
            || items.iter().any(|i| {
                !i.recipient.address.is_ascii() || i.recipient.orcpt.as_ref().is_some_and(|o| !o.address.is_ascii())
            }));
    // Only the sender's own address forces SMTPUTF8 (and with it 8BITMIME) on the way back.
    let utf8 = !sender.is_ascii();
    let style = Style { global, eight_bit: utf8 };

    let returned = returned(original, stored, &items, style);
    let text = report::human(&items, host, &original.id.to_string(), returned.what);
    let status = report::delivery_status(original, &items, host, style.global);
    let parts = [
        style.text("text/plain; charset=utf-8", text.into_bytes()),
        if global {
            style.text("message/global-delivery-status", status.into_bytes())
        } else {
            Part::plain("message/delivery-status", status.into_bytes())
        },
        returned.part,
    ];

    let content_type = format!("multipart/report; report-type=delivery-status; boundary=\"{}\"", boundary(id, &parts));
    // Cannot fail: the boundary is made of letters, digits and `=_-`.
    let mut builder =
        MultiPart::builder().header(ContentType::parse(&content_type).ok()?).header(MIME_VERSION_1_0).build();
    top(builder.headers_mut(), sender, stored, &items, host, id, now);
    for part in parts {
        // Likewise: the media types are those in this file.
        let kind = ContentType::parse(part.kind).ok()?;
        let body = Body::dangerous_pre_encoded(part.body, part.encoding);
        builder = builder.singlepart(SinglePart::builder().header(kind).body(body));
    }
    let body = Bytes::from(builder.formatted());

    let traits = scan(&body);
    let envelope = Envelope {
        reverse_path: None,
        body: if traits.eight_bit_body { BodyKind::EightBitMime } else { BodyKind::SevenBit },
        smtputf8: utf8,
        ret: None,
        envid: None,
        priority: 0,
        release: None,
        // It has the header section of what only hosts that keep REQUIRETLS may see (RFC 8689 §5).
        tls: if must_stay_private(original) { TlsWish::Required } else { TlsWish::Usual },
    };
    let size = body.len() as u64;
    Some(Dsn {
        message: Message { id, received: now, envelope, origin: Origin::Dsn, size, traits },
        recipient: Recipient { notify: Notify::NEVER, ..Recipient::new(sender.clone()) },
        body,
    })
}

fn must_stay_private(original: &Message) -> bool {
    original.envelope.tls == TlsWish::Required
}

/// How parts are written.
#[derive(Clone, Copy)]
struct Style {
    /// RFC 6533 media types.
    global: bool,
    /// 8-bit text is fine, because the DSN needs an SMTPUTF8 host anyway.
    eight_bit: bool,
}

impl Style {
    /// A part that may be encoded: as it is if that is legal, else quoted-printable.
    fn text(self, kind: &'static str, body: Vec<u8>) -> Part {
        let traits = scan(&body);
        self.encoded(kind, body, traits)
    }

    /// The same of a body with these traits.
    fn encoded(self, kind: &'static str, body: Vec<u8>, traits: BodyTraits) -> Part {
        let eight_bit = traits.eight_bit_header || traits.eight_bit_body;
        let encoding = match eight_bit {
            _ if traits.long_line || traits.binary => ContentTransferEncoding::QuotedPrintable,
            true if self.eight_bit => ContentTransferEncoding::EightBit,
            true => ContentTransferEncoding::QuotedPrintable,
            false => ContentTransferEncoding::SevenBit,
        };
        let body = match encoding {
            ContentTransferEncoding::QuotedPrintable => convert::quoted_printable(&body),
            _ => body,
        };
        Part { kind, encoding, body }
    }
}

/// One part, encoded.
struct Part {
    kind: &'static str,
    encoding: ContentTransferEncoding,
    body: Vec<u8>,
}

impl Part {
    fn plain(kind: &'static str, body: Vec<u8>) -> Part {
        Part { kind, encoding: ContentTransferEncoding::SevenBit, body }
    }
}

/// What of the message goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Returned {
    Full,
    Headers,
    /// RET=FULL was asked for, but it is over [`FULL_MAX`] or cannot be put into a message.
    HeadersInsteadOfFull,
}

struct ReturnedPart {
    what: Returned,
    part: Part,
}

fn returned(original: &Message, stored: &[u8], items: &[Item<'_>], style: Style) -> ReturnedPart {
    // RFC 3461 §4.3: RET holds for failures; of other DSNs only the header section is returned.
    // RFC 8689 §5: what requires TLS is returned as if with RET=HDRS.
    let whole = original.envelope.ret == Some(Ret::Full) && !must_stay_private(original);
    let full = whole && items.iter().any(|i| i.action == Action::Failed);
    if full
        && original.size <= FULL_MAX
        && stored.len() as u64 == original.size
        && let Some(part) = returned_message(original, stored, style)
    {
        return ReturnedPart { what: Returned::Full, part };
    }
    let mut header = header_section(stored);
    if header.len() > HEADERS_MAX {
        header = &header[..memmem::rfind(&header[..HEADERS_MAX], b"\r\n").map_or(HEADERS_MAX, |at| at + 2)];
    }
    let kind = if style.global { "message/global-headers" } else { "text/rfc822-headers" };
    let what = if full { Returned::HeadersInsteadOfFull } else { Returned::Headers };
    ReturnedPart { what, part: style.text(kind, header.to_vec()) }
}

/// The whole message as a part, or `None` if it cannot be one.
fn returned_message(original: &Message, stored: &[u8], style: Style) -> Option<Part> {
    let traits = BodyTraits { binary: original.traits.binary, ..scan(stored) };
    if style.global {
        // message/global may be encoded as a whole (RFC 6532 §3.7).
        return Some(style.encoded("message/global", stored.to_vec(), traits));
    }
    // message/rfc822 may not, so raw 8-bit headers, long lines and binary content are converted inside: the DSN
    // itself is lines, whatever host it goes to.
    let octets = match original.envelope.body {
        BodyKind::BinaryMime => Octets::NotTaken,
        BodyKind::SevenBit | BodyKind::EightBitMime => Octets::NotAnnounced,
    };
    let hop = Hop {
        octets,
        eight_bit: !traits.eight_bit_header,
        smtputf8: false,
        smtputf8_asked: false,
        signed: SignedConversion::Convert,
    };
    let body = match convert::convert(stored, traits, hop) {
        Conversion::NotNeeded => stored.to_vec(),
        Conversion::Converted { recipe, .. } => recipe.whole(stored).ok()?,
        Conversion::Fold | Conversion::Refused { .. } => return None,
    };
    let encoding = if body.is_ascii() { ContentTransferEncoding::SevenBit } else { ContentTransferEncoding::EightBit };
    Some(Part { kind: "message/rfc822", encoding, body })
}

/// A boundary that occurs in no part.
fn boundary(id: QueueId, parts: &[Part]) -> String {
    let mut n = 0u32;
    loop {
        // `=_` cannot occur in quoted-printable or base64.
        let candidate = format!("=_dsn-{id}-{n}");
        // Every turn of the loop takes an occurrence in a part of bounded size, so it ends.
        if parts.iter().all(|p| memmem::find(&p.body, candidate.as_bytes()).is_none()) {
            return candidate;
        }
        n += 1;
    }
}

/// The top header.
fn top(
    headers: &mut Headers,
    sender: &Address,
    stored: &[u8],
    items: &[Item<'_>],
    host: &str,
    id: QueueId,
    now: Timestamp,
) {
    let mut set = |name: &'static str, value: String| {
        let name = HeaderName::new_from_ascii_str(name);
        headers.insert_raw(HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value));
    };
    let worst = |action| items.iter().any(|i| i.action == action);
    set("Date", rfc5322_date(now));
    set("From", format!("Mail Delivery System <MAILER-DAEMON@{host}>"));
    // An address longer than a line has room for cannot stand in a header; the envelope has it.
    set(
        "To",
        match sender.as_str() {
            a if a.len() <= MAX_LINE - 98 => format!("<{a}>"),
            _ => "undisclosed-recipients:;".to_owned(),
        },
    );
    set(
        "Subject",
        if worst(Action::Failed) {
            "Your message could not be delivered"
        } else if worst(Action::Delayed) {
            "Your message is delayed: we keep trying"
        } else {
            "Your message was passed on"
        }
        .to_owned(),
    );
    set("Message-ID", format!("<{id}.dsn@{host}>"));
    // What automatic responses carry: RFC 3834 §3.1.
    set("Auto-Submitted", "auto-replied".to_owned());
    if let Some(message_id) = message_id(stored) {
        set("In-Reply-To", message_id.clone());
        set("References", message_id);
    }
}

/// The Message-ID of the original, if it is one that can be quoted safely.
fn message_id(stored: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(header_field(stored, "message-id")?).ok()?.trim();
    let inner = text.strip_prefix('<')?.strip_suffix('>')?;
    let safe = text.len() <= 900 && inner.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>');
    (safe && inner.contains('@')).then(|| text.to_owned())
}

/// Our host name, as far as it can stand in a header.
fn host_name(name: &str) -> &str {
    let safe =
        (1..=255).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    if safe { name } else { "localhost" }
}

/// A date as in a header, in UTC; years 1970 to 9999, which is what the format can say.
fn rfc5322_date(at: Timestamp) -> String {
    let at = Timestamp(at.0.clamp(0, 253_402_300_799_000));
    let mut headers = Headers::new();
    headers.set(Date::new(at.to_system()));
    headers.get_raw("Date").unwrap_or_default().to_owned()
}
