//! The commands of a transaction, printed by lettre into our buffer.
//!
//! xtext (RFC 3461 §4) is encoded here: lettre's encoder writes one digit for controls and leaves
//! bytes over 126 as they are.

use std::io::Write as _;

use lettre::transport::smtp::commands::{Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, MailBodyParameter, MailParameter, RcptParameter};

use super::Capabilities;
use crate::mail::{Address, BodyKind, Message, Orcpt, Recipient, Ret, TlsWish, envid_bytes, in_ascii};

/// Prints a command. Writing into memory does not fail.
pub fn print(out: &mut Vec<u8>, command: impl std::fmt::Display) {
    let _ = write!(out, "{command}");
}

/// The EHLO name: a host name, or an address literal for an IP address.
pub fn client_id(hostname: &str) -> ClientId {
    match hostname.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(std::net::IpAddr::V4(ip)) => ClientId::Ipv4(ip),
        Ok(std::net::IpAddr::V6(ip)) => ClientId::Ipv6(ip),
        Err(_) => ClientId::Domain(hostname.to_owned()),
    }
}

/// MAIL with the parameters that the host takes, of the capabilities as they hold for this transaction; `plain`: none but SMTPUTF8
/// and REQUIRETLS. Returns whether it has any besides.
pub fn mail(out: &mut Vec<u8>, message: &Message, caps: &Capabilities, smtputf8: bool, plain: bool) -> bool {
    let envelope = &message.envelope;
    let mut parameters = Vec::new();
    if caps.size.is_some() && !plain {
        parameters.push(MailParameter::Size(usize::try_from(message.size).unwrap_or(usize::MAX)));
    }
    if caps.binary_mime && !plain && message.envelope.body == BodyKind::BinaryMime {
        parameters.push(MailParameter::Other { keyword: "BODY=BINARYMIME".to_owned(), value: None });
    } else if caps.eight_bit_mime && !plain && (message.traits.eight_bit_body || message.traits.eight_bit_header) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    if smtputf8 {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if caps.dsn {
        if let Some(ret) = envelope.ret {
            let word = match ret {
                Ret::Full => "RET=FULL",
                Ret::Headers => "RET=HDRS",
            };
            parameters.push(MailParameter::Other { keyword: word.to_owned(), value: None });
        }
        if let Some(envid) = &envelope.envid {
            let mut word = "ENVID=".to_owned();
            xtext(&mut word, envid_bytes(envid));
            parameters.push(MailParameter::Other { keyword: word, value: None });
        }
    }
    let has_more = parameters.len() > usize::from(smtputf8);
    // Never left out: a host that refuses it does not get the message.
    if envelope.tls == TlsWish::Required {
        parameters.push(MailParameter::Other { keyword: "REQUIRETLS".to_owned(), value: None });
    }
    let sender = envelope.reverse_path.as_ref();
    print(out, Mail::new(sender.map(|a| for_host(a, caps)), parameters));
    has_more
}

/// RCPT with the parameters that the host takes.
pub fn rcpt(out: &mut Vec<u8>, recipient: &Recipient, caps: &Capabilities, smtputf8: bool) {
    let mut parameters = Vec::new();
    if caps.dsn {
        if recipient.notify.given {
            parameters.push(RcptParameter::Other { keyword: notify(recipient), value: None });
        }
        if let Some(orcpt) = &recipient.orcpt {
            parameters.push(RcptParameter::Other { keyword: print_orcpt(orcpt, smtputf8), value: None });
        }
    }
    print(out, Rcpt::new(for_host(&recipient.address, caps), parameters));
}

/// An address as the host takes it: without SMTPUTF8, its domain in A-labels.
fn for_host(address: &Address, caps: &Capabilities) -> lettre::Address {
    match in_ascii(address).filter(|_| !caps.smtputf8) {
        Some(ascii) => ascii.to_lettre(),
        None => address.to_lettre(),
    }
}

fn notify(recipient: &Recipient) -> String {
    let n = recipient.notify;
    let words = [(n.success, "SUCCESS"), (n.failure, "FAILURE"), (n.delay, "DELAY")];
    let words: Vec<&str> = words.into_iter().filter_map(|(on, word)| on.then_some(word)).collect();
    if words.is_empty() { "NOTIFY=NEVER".to_owned() } else { format!("NOTIFY={}", words.join(",")) }
}

/// `ORCPT=type;xtext`, RFC 3461 §4.2; an address of type `utf-8` as RFC 6533 §3 has it.
fn print_orcpt(orcpt: &Orcpt, smtputf8: bool) -> String {
    let mut word = format!("ORCPT={};", orcpt.kind);
    if orcpt.kind.eq_ignore_ascii_case("utf-8") && !orcpt.address.is_ascii() {
        for c in orcpt.address.chars() {
            match c {
                '!'..='~' if !matches!(c, '+' | '=' | '\\') => word.push(c),
                c if !c.is_ascii() && smtputf8 => word.push(c),
                c => word.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
            }
        }
    } else {
        xtext(&mut word, orcpt.address.bytes());
    }
    word
}

fn xtext(out: &mut String, bytes: impl IntoIterator<Item = u8>) {
    for byte in bytes {
        match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => out.push(char::from(byte)),
            _ => out.push_str(&format!("+{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::mail::{Address, BodyTraits, Envelope, Notify, Origin, QueueId};

    fn printed(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn parameters_only_where_offered() {
        let message = Message {
            id: QueueId(1),
            received: Timestamp(0),
            envelope: Envelope {
                reverse_path: None,
                ret: Some(Ret::Headers),
                envid: Some("a+b=c d\u{1}\u{ff}\u{c3}".into()),
                ..Envelope::default()
            },
            origin: Origin::Local,
            size: 77,
            traits: BodyTraits { eight_bit_body: true, ..BodyTraits::default() },
        };
        let all =
            Capabilities { size: Some(0), eight_bit_mime: true, smtputf8: true, dsn: true, ..Capabilities::default() };
        assert_eq!(
            printed(|out| assert!(!mail(out, &message, &Capabilities::default(), false, false))),
            "MAIL FROM:<>\r\n"
        );
        assert_eq!(
            printed(|out| assert!(!mail(out, &message, &Capabilities { dsn: false, ..all }, true, true))),
            "MAIL FROM:<> SMTPUTF8\r\n"
        );
        assert_eq!(
            printed(|out| assert!(mail(out, &message, &all, true, false))),
            "MAIL FROM:<> SIZE=77 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc+20d+01+FF+C3\r\n"
        );
        let mut recipient = Recipient::new(Address::parse("a+b@example.com").expect("address"));
        recipient.notify = Notify { given: true, success: true, failure: false, delay: true };
        recipient.orcpt = Some(Orcpt { kind: "rfc822".into(), address: "x+y@example.com".into() });
        assert_eq!(
            printed(|out| rcpt(out, &recipient, &Capabilities::default(), false)),
            "RCPT TO:<a+b@example.com>\r\n"
        );
        assert_eq!(
            printed(|out| rcpt(out, &recipient, &all, false)),
            "RCPT TO:<a+b@example.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+2By@example.com\r\n"
        );
        recipient.notify = Notify::NEVER;
        recipient.orcpt = Some(Orcpt { kind: "utf-8".into(), address: "jö+@x".into() });
        assert_eq!(
            printed(|out| rcpt(out, &recipient, &all, false)),
            "RCPT TO:<a+b@example.com> NOTIFY=NEVER ORCPT=utf-8;j\\x{F6}\\x{2B}@x\r\n"
        );
        assert!(printed(|out| rcpt(out, &recipient, &all, true)).contains("ORCPT=utf-8;jö\\x{2B}@x"));
    }

    #[test]
    fn ehlo_name_may_be_an_address() {
        assert_eq!(client_id("relay.example").to_string(), "relay.example");
        assert_eq!(client_id("[192.0.2.1]").to_string(), "[192.0.2.1]");
        assert_eq!(client_id("2001:db8::1").to_string(), "[IPv6:2001:db8::1]");
    }
}
