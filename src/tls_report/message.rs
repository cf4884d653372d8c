//! A report as a message (RFC 8460 §5.3): multipart/report of a text for people and the compressed report.
//!
//! Invariants: it goes out from `<>` with NOTIFY=NEVER, and as mail that published policies do not hold up (RFC 8460
//! §5.3.1, RFC 8689 §5), so that no report causes another message; nothing that others wrote adds a line to it.

use bytes::Bytes;
use lettre::message::header::{
    ContentTransferEncoding, ContentType, Date, Header, HeaderName, HeaderValue, Headers, MIME_VERSION_1_0,
};
use lettre::message::{Body, MultiPart, SinglePart};

use super::day::{Day, Stored};
use super::report::{self, Reporter};
use crate::clock::Timestamp;
use crate::mail::convert::scan;
use crate::mail::{Address, Envelope, Message, Notify, Origin, QueueId, Recipient, TlsWish};

/// A message to be queued.
#[derive(Debug)]
pub struct Mail {
    /// Envelope, origin and size.
    pub message: Message,
    /// Who gets it.
    pub recipient: Recipient,
    /// All of it.
    pub body: Bytes,
}

/// What a report is about, and who sends it.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The day.
    pub day: Day,
    /// The domain.
    pub domain: &'a str,
    /// What was counted.
    pub stored: &'a Stored,
    /// Who reports.
    pub reporter: Reporter<'a>,
}

#[derive(Clone)]
struct Disposition(String);

impl Header for Disposition {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Content-Disposition")
    }

    fn parse(s: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Disposition(s.to_owned()))
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::dangerous_new_pre_encoded(Self::name(), self.0.clone(), self.0.clone())
    }
}

/// The message that brings a report, compressed as `gzip`, to `to`.
///
/// # Errors
/// It cannot be written: why, for people.
pub fn mail(
    about: About<'_>,
    gzip: &[u8],
    from: &Address,
    to: &Address,
    id: QueueId,
    now: Timestamp,
) -> Result<Mail, String> {
    let content_type = format!("multipart/report; report-type=\"tlsrpt\"; boundary=\"=_tlsrpt-{id}\"");
    let kind = |text: &str| ContentType::parse(text).map_err(|e| e.to_string());
    let mut builder = MultiPart::builder().header(kind(&content_type)?).header(MIME_VERSION_1_0).build();
    top(builder.headers_mut(), about, from, to, id, now);
    let text = Body::dangerous_pre_encoded(words(about).into_bytes(), ContentTransferEncoding::SevenBit);
    let file = report::file_name(about.day, about.domain, about.reporter);
    let attached = Body::new_with_encoding(gzip.to_vec(), ContentTransferEncoding::Base64);
    let attached = attached.map_err(|_| "base64 takes any octets".to_owned())?;
    let builder =
        builder.singlepart(SinglePart::builder().header(kind("text/plain; charset=us-ascii")?).body(text)).singlepart(
            SinglePart::builder()
                .header(kind("application/tlsrpt+gzip")?)
                .header(Disposition(format!("attachment;\r\n filename=\"{file}\"")))
                .body(attached),
        );
    let body = Bytes::from(builder.formatted());
    let envelope = Envelope { tls: TlsWish::Optional, ..Envelope::default() };
    let (size, traits) = (body.len() as u64, scan(&body));
    Ok(Mail {
        message: Message { id, received: now, envelope, origin: Origin::Dsn, size, traits },
        recipient: Recipient { notify: Notify::NEVER, ..Recipient::new(to.clone()) },
        body,
    })
}

fn top(headers: &mut Headers, about: About<'_>, from: &Address, to: &Address, id: QueueId, now: Timestamp) {
    let mut set = |name: &'static str, value: String| {
        let name = HeaderName::new_from_ascii_str(name);
        headers.insert_raw(HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value));
    };
    let (domain, reporter) = (about.domain, about.reporter);
    let report = report::id(about.day, domain, reporter);
    set("From", format!("<{from}>"));
    set("To", format!("<{to}>"));
    let submitter = reporter.domain;
    set("Subject", format!("Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{report}>"));
    set("Message-ID", format!("<{id}.tlsrpt@{submitter}>"));
    set("TLS-Report-Domain", domain.to_owned());
    set("TLS-Report-Submitter", submitter.to_owned());
    set("TLS-Required", "No".to_owned());
    set("Auto-Submitted", "auto-generated".to_owned());
    headers.set(Date::new(now.to_system()));
}

/// The part for people.
fn words(about: About<'_>) -> String {
    let (good, failed) = about.stored.sessions();
    let (day, domain, submitter) = (about.day.text(), about.domain, about.reporter.domain);
    format!(
        "This is a report on TLS (RFC 8460) from {submitter}\r\non its sessions with the mail hosts of\r\n{domain}\r\n\
         on {day} (UTC): {good} were good, {failed} failed.\r\n"
    )
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders as _};

    use super::super::day::Counted;
    use super::super::{Policy, PolicyType};
    use super::*;

    fn made(domain: &str, submitter: &str) -> Mail {
        let mut counted = Counted::new(Policy::unknown(PolicyType::NoPolicyFound, domain));
        counted.add(None, 0);
        let stored = Stored { policies: vec![counted], ..Stored::default() };
        let reporter = Reporter { organization: "Shop", contact: "tls@shop.example", domain: submitter };
        let about = About { day: Day(20_788), domain, stored: &stored, reporter };
        let json = report::json(about.day, domain, &stored, reporter).expect("JSON");
        let address = |text: &str| Address::parse(text).expect("an address");
        let from = address(&format!("tls@{submitter}"));
        let gzip = report::compressed(&json).expect("gzip");
        mail(about, &gzip, &from, &address("rua@a.example"), QueueId(7), Timestamp(1_796_126_400_000)).expect("mail")
    }

    #[test]
    fn it_is_a_multipart_report_with_the_fields_of_the_rfc() {
        let mail = made("a.example", "shop.example");
        let parsed = MessageParser::default().parse(&mail.body[..]).expect("a message");
        let kind = parsed.content_type().expect("a type");
        assert_eq!(
            (kind.ctype(), kind.subtype(), kind.attribute("report-type")),
            ("multipart", Some("report"), Some("tlsrpt"))
        );
        assert_eq!(
            parsed.subject(),
            Some("Report Domain: a.example Submitter: shop.example Report-ID: <2026-12-01.a.example@shop.example>")
        );
        let field = |name: &str| parsed.header_raw(name).map(|value| value.trim().to_owned());
        for (name, value) in [
            ("TLS-Report-Domain", "a.example"),
            ("TLS-Report-Submitter", "shop.example"),
            ("TLS-Required", "No"),
            ("From", "<tls@shop.example>"),
            ("Auto-Submitted", "auto-generated"),
        ] {
            assert_eq!(field(name).as_deref(), Some(value), "{name}");
        }
        let report = parsed.attachment(0).expect("an attachment");
        let kind = report.content_type().expect("a type");
        assert_eq!((kind.ctype(), kind.subtype()), ("application", Some("tlsrpt+gzip")));
        assert_eq!(report.attachment_name(), Some("shop.example!a.example!1796083200!1796169599.json.gz"));
        assert_eq!(&report.contents()[..2], [0x1f, 0x8b]);
        assert!(mail.message.envelope.reverse_path.is_none() && mail.recipient.notify == Notify::NEVER);
        assert_eq!((mail.message.size, mail.message.envelope.tls), (mail.body.len() as u64, TlsWish::Optional));
    }

    #[test]
    fn the_longest_names_leave_lines_short() {
        let long = [&"x".repeat(63), &"y".repeat(63), &"z".repeat(63), "example"].map(str::to_owned).join(".");
        let mail = made(&long, &long);
        let longest = mail.body.split(|byte| *byte == b'\n').map(<[u8]>::len).max();
        assert!(longest.is_some_and(|bytes| bytes < 998), "{longest:?}");
        assert!(!mail.message.traits.long_line && !mail.message.traits.eight_bit_header);
    }
}
