//! The two texts of a DSN: one for people, one for programs. Everything from outside passes
//! [`clean`], and every line is folded or wrapped here.

use std::fmt::Write;

use super::{Action, Diagnostic, Item, Returned, host_name, rfc5322_date};
use crate::mail::{Address, Message, Orcpt, envid_bytes};

/// Longest line of the human text and of folded fields, where there is a blank to break at.
const WIDTH: usize = 74;

/// Longest word that is left whole.
const WORD: usize = 900;

/// Longest piece of text from outside that is quoted.
const QUOTE: usize = 1000;

/// `text` on one line: controls, line separators, and marks that turn the direction of writing or
/// take no room (which can make one address look like another) become spaces, runs of spaces one.
fn clean(text: &str, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len().min(QUOTE));
    for c in text.chars() {
        let c = match c {
            c if c.is_whitespace() || c.is_control() => ' ',
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => ' ',
            c if ascii && !c.is_ascii() => '?',
            c => c,
        };
        if c == ' ' && (out.is_empty() || out.ends_with(' ')) {
            continue;
        }
        if out.len() + c.len_utf8() > QUOTE {
            break;
        }
        out.push(c);
    }
    out.truncate(out.trim_end().len());
    out
}

/// Appends `text` in lines of at most [`WIDTH`], each after `indent`; `column` is where the first
/// one begins. Words over [`WORD`] bytes are cut.
fn wrap(out: &mut String, text: &str, mut column: usize, indent: &str) {
    for (n, word) in text.split(' ').filter(|w| !w.is_empty()).enumerate() {
        if n > 0 {
            if column + 1 + word.len() > WIDTH {
                out.push_str("\r\n");
                out.push_str(indent);
                column = indent.len();
            } else {
                out.push(' ');
                column += 1;
            }
        }
        let mut rest = word;
        while rest.len() > WORD {
            let mut at = WORD;
            while !rest.is_char_boundary(at) {
                at -= 1;
            }
            out.push_str(&rest[..at]);
            out.push_str("\r\n");
            out.push_str(indent);
            column = indent.len();
            rest = &rest[at..];
        }
        out.push_str(rest);
        column += rest.len();
    }
}

fn paragraph(out: &mut String, text: &str) {
    wrap(out, text, 0, "");
    out.push_str("\r\n\r\n");
}

/// The text for people.
pub(super) fn human(items: &[Item<'_>], host: &str, queue_id: &str, returned: Returned) -> String {
    let mut out = String::with_capacity(1024 + items.len() * 256);
    paragraph(&mut out, &format!("This is the mail system at {host}."));
    let of = |action| items.iter().filter(move |i| i.action == action);

    if of(Action::Failed).next().is_some() {
        paragraph(
            &mut out,
            "Your message could not be delivered to the following addresses. It will not be tried again.",
        );
        for item in of(Action::Failed) {
            person(&mut out, item);
            indented(&mut out, "What you can do: ", advice(item.status));
        }
    }
    if of(Action::Delayed).next().is_some() {
        paragraph(
            &mut out,
            "Your message has not been delivered to the following addresses yet. THIS IS ONLY A WARNING: you do \
             not need to send it again. If it cannot be delivered in the end, you will be told.",
        );
        for item in of(Action::Delayed) {
            person(&mut out, item);
            if let Some(until) = item.will_retry_until {
                indented(&mut out, "", &format!("We keep trying until {}.", rfc5322_date(until)));
            }
            out.push_str("\r\n");
        }
    }
    if of(Action::Relayed).next().is_some() {
        paragraph(
            &mut out,
            "Your message to the following addresses was accepted by the next mail system. That system does not \
             report deliveries, so you may hear nothing more about it.",
        );
        for item in of(Action::Relayed) {
            person(&mut out, item);
            out.push_str("\r\n");
        }
    }
    paragraph(
        &mut out,
        &format!("If you ask your postmaster for help, please pass on this whole report. Its reference is {queue_id}."),
    );
    let attached = match returned {
        Returned::Full => "Your message is attached.",
        Returned::Headers => "The header lines of your message are attached.",
        Returned::HeadersInsteadOfFull => {
            "Your message cannot be returned whole (it is too large, or of a form that cannot be attached), so only \
             its header lines are."
        }
    };
    wrap(&mut out, attached, 0, "");
    out.push_str("\r\n");
    out
}

/// The address and the reason.
fn person(out: &mut String, item: &Item<'_>) {
    out.push_str("  <");
    // Never a break inside, up to the longest address there is; cut for display beyond that.
    wrap(out, &clean(item.recipient.address.as_str(), false), 3, "    ");
    out.push_str(">\r\n");
    let remote = item.remote_mta.map(|r| clean(r, false)).filter(|r| !r.is_empty());
    match (item.diagnostic, remote) {
        (Some(Diagnostic::Smtp(reply)), Some(remote)) => {
            indented(out, &format!("The mail server {remote} said: "), &clean(&reply.to_string(), false));
        }
        (Some(Diagnostic::Smtp(reply)), None) => {
            indented(out, "The mail server said: ", &clean(&reply.to_string(), false));
        }
        (Some(Diagnostic::Local(text)), _) => indented(out, "Reason: ", &clean(text, false)),
        (None, Some(remote)) => indented(out, "Mail server: ", &remote),
        (None, None) => {}
    }
}

fn indented(out: &mut String, label: &str, text: &str) {
    out.push_str("    ");
    wrap(out, &format!("{label}{text}"), 4, "      ");
    out.push_str("\r\n");
    if label.starts_with("What") {
        out.push_str("\r\n");
    }
}

/// What a sender can do about a status (RFC 3463).
fn advice(status: (u8, u16, u16)) -> &'static str {
    match (status.1, status.2) {
        (1, 1 | 3 | 6) => "check the address for typing errors, and ask the recipient for the right one.",
        (1, 2 | 10) | (4, 4) => "check the part of the address after the @: it does not seem to take mail.",
        (2, 1) => "the mailbox is not in use at present; reach the recipient in another way.",
        (2, 2) => "the recipient's mailbox is full; tell the recipient in another way, then send it again.",
        (2, 3) | (3, 4) => "the message is too large; send it in smaller parts, or share the file as a link.",
        (6, _) => "send the message in plain text, or its attachments in another format.",
        (7, _) => "the receiving side refused the message by its rules; ask your postmaster or the recipient.",
        (4, _) if status.0 == 4 => {
            "the message could not be handed over for a long time; check the address, then send it again."
        }
        _ => "check the address, and ask your postmaster if it is right.",
    }
}

/// The fields for programs, RFC 3464 §2.1: a group for the message, then one for each recipient.
pub(super) fn delivery_status(original: &Message, items: &[Item<'_>], host: &str, utf8: bool) -> String {
    let mut out = String::with_capacity(256 + items.len() * 384);
    if let Some(envid) = &original.envelope.envid {
        field(&mut out, "Original-Envelope-Id", &envelope_id(envid));
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {host}"));
    field(&mut out, "X-Queue-Id", &original.id.to_string());
    field(&mut out, "Arrival-Date", &rfc5322_date(original.received));
    for item in items {
        out.push_str("\r\n");
        if let Some(orcpt) = &item.recipient.orcpt {
            field(&mut out, "Original-Recipient", &original_recipient(orcpt, utf8));
        }
        field(&mut out, "Final-Recipient", &final_recipient(&item.recipient.address, utf8));
        let action = match item.action {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
            Action::Relayed => "relayed",
        };
        field(&mut out, "Action", action);
        field(&mut out, "Status", &status_code(item));
        match item.remote_mta {
            // RFC 3464 §2.3.5 wants a name of the named type; anything else is not a `dns` name.
            Some(name) if host_name(name) == name => field(&mut out, "Remote-MTA", &format!("dns; {name}")),
            Some(name) => field(&mut out, "Remote-MTA", &format!("x-unknown; {}", clean(name, !utf8))),
            None => {}
        }
        match item.diagnostic {
            Some(Diagnostic::Smtp(reply)) => {
                field(&mut out, "Diagnostic-Code", &format!("smtp; {}", clean(&reply.to_string(), !utf8)));
            }
            Some(Diagnostic::Local(text)) => {
                field(&mut out, "Diagnostic-Code", &format!("x-mailweir; {}", clean(text, !utf8)));
            }
            None => {}
        }
        if let Some(at) = item.last_attempt {
            field(&mut out, "Last-Attempt-Date", &rfc5322_date(at));
        }
        if let (Action::Delayed, Some(until)) = (item.action, item.will_retry_until) {
            field(&mut out, "Will-Retry-Until", &rfc5322_date(until));
        }
    }
    out
}

/// The class of a status has to agree with the action (RFC 3464 §2.3.4): an expired recipient has
/// failed although the last reply was a 4yz, so its class is 5 (`4.4.7` becomes `5.4.7`).
fn status_code(item: &Item<'_>) -> String {
    let class = match item.action {
        Action::Failed => 5,
        Action::Delayed => 4,
        Action::Relayed => 2,
    };
    format!("{class}.{}.{}", item.status.1.min(999), item.status.2.min(999))
}

/// One field, folded at blanks.
fn field(out: &mut String, name: &str, value: &str) {
    out.push_str(name);
    out.push_str(": ");
    wrap(out, value, name.len() + 2, " ");
    out.push_str("\r\n");
}

/// ENVID is xtext on the wire only; the field has what the sender meant (RFC 3461 §4.4 limits it to
/// printable ASCII). What is not printable stays encoded, so that it cannot do harm here.
fn envelope_id(envid: &str) -> String {
    if envid.bytes().all(|b| b.is_ascii_graphic() || b == b' ') {
        return clean(envid, true);
    }
    let bytes: Vec<u8> = envid_bytes(envid).collect();
    let mut out = String::with_capacity(envid.len() * 3);
    for b in bytes {
        if b.is_ascii_graphic() && b != b'+' && b != b'=' {
            out.push(char::from(b));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "+{b:02X}");
        }
    }
    clean(&out, true)
}

fn final_recipient(address: &Address, utf8: bool) -> String {
    typed(if address.is_ascii() { "rfc822" } else { "utf-8" }, address.as_str(), utf8)
}

fn original_recipient(orcpt: &Orcpt, utf8: bool) -> String {
    // An address type is an atom (RFC 3464 §2.1.2).
    let kind: String = orcpt.kind.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    typed(if kind.is_empty() { "x-unknown" } else { &kind }, &orcpt.address, utf8)
}

/// `type; address`; outside of the RFC 6533 types a non-ASCII address is written as
/// utf-8-addr-xtext (RFC 6533 §3).
fn typed(kind: &str, address: &str, utf8: bool) -> String {
    if address.is_ascii() || utf8 {
        return format!("{kind}; {}", clean(address, false));
    }
    let mut out = format!("{kind}; ");
    for c in address.chars() {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            out.push(c);
        } else {
            let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
        }
    }
    out
}
