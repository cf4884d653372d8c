//! `mailweir send`: hands a message to the running relay over SMTP, as sendmail does.
//!
//! All or nothing: if a recipient is refused, nothing is queued. Unlike sendmail a line with a
//! single dot is content, never the end, with or without `-i`.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lettre::transport::smtp::client::SmtpConnection;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use mail_parser::MessageParser;

use super::screen;
use super::{Code, Failed, Outcome};
use crate::config::{Config, Listener, ListenerTlsMode};
use crate::mail::{Address, QueueId};

/// Longest wait for the relay to answer: it may be writing a large message to a busy disk.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args, Debug)]
#[command(after_help = "A line with a single dot is content, with or without -i. Exit code 75: nothing was queued.")]
pub(super) struct Send {
    /// Envelope sender; "" or <> for none [default: the user at this host]
    #[arg(short = 'f', value_name = "SENDER")]
    from: Option<String>,
    /// Take recipients from To, Cc and Bcc too
    #[arg(short = 't')]
    from_headers: bool,
    /// Accepted for sendmail's sake: a line with a single dot never ends the message
    #[arg(short = 'i')]
    _ignore_dots: bool,
    /// Read the message from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Recipients
    #[arg(value_name = "RCPT")]
    recipients: Vec<String>,
}

pub(super) fn send(config: &Config, args: &Send) -> Outcome {
    let listener = config.listeners.iter().find(|listener| takes_clear_text(listener)).ok_or_else(|| {
        let message =
            "every listener wants TLS, which `send` does not speak: give it a [[listener]] on loopback without";
        Failed::new(Code::Config, message)
    })?;
    if args.recipients.is_empty() && !args.from_headers {
        return Err(Failed::new(Code::Usage, "to whom? Name recipients, or -t to take them from the message"));
    }
    let sender = sender(config, args.from.as_deref())?;
    let mut recipients = args.recipients.iter().map(|r| address(r)).collect::<Result<Vec<_>, _>>()?;
    let raw = read(args, listener.max_message_size)?;
    if args.from_headers {
        recipients.extend(header_recipients(&raw).iter().map(|r| address(r)).collect::<Result<Vec<_>, _>>()?);
    }
    let mut seen = std::collections::HashSet::new();
    recipients.retain(|r| seen.insert(r.clone()));
    if recipients.is_empty() {
        return Err(Failed::new(Code::Usage, "the message has no recipients in To, Cc or Bcc"));
    }
    let reply = submit(reachable(listener.address), &config.hostname, sender.as_ref(), &recipients, &with_crlf(&raw))?;
    writeln!(screen::stdout(), "{}", queue_id(&reply).unwrap_or(reply))?;
    Ok(())
}

fn takes_clear_text(listener: &Listener) -> bool {
    listener.tls.as_ref().is_none_or(|tls| tls.mode == ListenerTlsMode::StartTls && !tls.required)
}

fn address(text: &str) -> Result<Address, Failed> {
    let bare = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(text);
    Address::parse(bare).map_err(|e| Failed::new(Code::Usage, format!("`{text}`: {e}")))
}

fn sender(config: &Config, given: Option<&str>) -> Result<Option<Address>, Failed> {
    match given {
        Some("" | "<>") => Ok(None),
        Some(text) => address(text).map(Some),
        None => {
            let user = ["LOGNAME", "USER"].iter().find_map(|name| std::env::var(name).ok().filter(|u| !u.is_empty()));
            address(&format!("{}@{}", user.as_deref().unwrap_or("nobody"), config.hostname)).map(Some)
        }
    }
}

/// Reads the message; one byte more than the relay takes is enough to know that it is too large.
fn read(args: &Send, max: u64) -> Result<Vec<u8>, Failed> {
    let mut raw = Vec::new();
    match &args.file {
        Some(path) => {
            let cannot = |e: io::Error| Failed::new(Code::Unavailable, format!("cannot read {}: {e}", path.display()));
            std::fs::File::open(path)
                .map_err(cannot)?
                .take(max.saturating_add(1))
                .read_to_end(&mut raw)
                .map_err(cannot)?;
        }
        None => {
            io::stdin().lock().take(max.saturating_add(1)).read_to_end(&mut raw)?;
        }
    }
    if raw.len() as u64 > max {
        return Err(Failed::new(
            Code::Unavailable,
            format!("the message is larger than max_message_size, {max} bytes: nothing was queued"),
        ));
    }
    Ok(raw)
}

/// The addresses in To, Cc and Bcc.
fn header_recipients(raw: &[u8]) -> Vec<String> {
    let Some(message) = MessageParser::default().parse_headers(raw) else { return Vec::new() };
    [message.to(), message.cc(), message.bcc()]
        .into_iter()
        .flatten()
        .flat_map(|list| list.iter())
        .filter_map(|a| a.address())
        .map(str::to_owned)
        .collect()
}

/// Turns every line end, LF and CR alike, into CRLF (RFC 5321 §2.3.8 allows no other on the wire).
fn with_crlf(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32 + 2);
    let mut bytes = raw.iter().copied().peekable();
    while let Some(b) = bytes.next() {
        match b {
            b'\r' => {
                if bytes.peek() == Some(&b'\n') {
                    bytes.next();
                }
                out.extend_from_slice(b"\r\n");
            }
            b'\n' => out.extend_from_slice(b"\r\n"),
            b => out.push(b),
        }
    }
    out
}

/// Where to connect for a listener: one on all addresses is on loopback too.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

/// Makes one transaction; returns the text of the final reply.
fn submit(
    to: SocketAddr,
    helo: &str,
    sender: Option<&Address>,
    recipients: &[Address],
    message: &[u8],
) -> Result<String, Failed> {
    let mut connection = SmtpConnection::connect(to, Some(PATIENCE), &ClientId::Domain(helo.to_owned()), None, None)
        .map_err(|e| {
            Failed::new(Code::Temporary, format!("nothing was queued: mailweir does not answer at {to}: {}", text(&e)))
        })?;
    let refused = |what: &str, e: lettre::transport::smtp::Error| {
        let code = if e.is_permanent() { Code::Unavailable } else { Code::Temporary };
        Failed::new(code, format!("nothing was queued: {what}: {}", text(&e)))
    };
    let mut parameters = Vec::new();
    // For addresses only. Raw 8-bit text in a header, as old programs and scripts write it, reaches
    // hosts of any age without this parameter; with it, those that do not offer it are given up.
    if sender.into_iter().chain(recipients).any(|a| !a.is_ascii()) {
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !message.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    let mail = Mail::new(sender.map(Address::to_lettre), parameters);
    connection.command(mail).map_err(|e| refused("the sender is refused", e))?;
    for recipient in recipients {
        let rcpt = Rcpt::new(recipient.to_lettre(), Vec::new());
        connection.command(rcpt).map_err(|e| refused(&format!("{recipient} is refused"), e))?;
    }
    connection.command(Data).map_err(|e| refused("the message is refused", e))?;
    // The final line end is sent with the dot that ends the message.
    let body = message.strip_suffix(b"\r\n").unwrap_or(message);
    let reply = connection.message(body).map_err(|e| {
        if e.status().is_some() {
            return refused("the message is refused", e);
        }
        let message = format!("mailweir did not confirm the message, so it may or may not be queued: {}", text(&e));
        Failed::new(Code::Temporary, message)
    })?;
    let said = reply.message().collect::<Vec<_>>().join(" ");
    // The message is queued, whatever becomes of the goodbye.
    let _ = connection.quit();
    Ok(said)
}

/// The error with its causes, on one line.
fn text(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !out.contains(&cause_text) {
            out.push_str(": ");
            out.push_str(&cause_text);
        }
        source = cause.source();
    }
    out.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The queue id in a reply.
fn queue_id(reply: &str) -> Option<String> {
    reply
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(|word| word.parse::<QueueId>().ok())
        .map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(with_crlf(b"a\nb\r\nc\rd\n\n.\n"), b"a\r\nb\r\nc\r\nd\r\n\r\n.\r\n");
        assert_eq!(with_crlf(b""), b"");
    }

    #[test]
    fn recipients_of_headers() {
        let raw = b"To: A <a@x.example>,\n \"B, C\" <b@x.example>\nCc: g: c@x.example, d@x.example;\nBcc: e@x.example\nFrom: f@x.example\n\nTo: z@x.example\n";
        let want = ["a@x.example", "b@x.example", "c@x.example", "d@x.example", "e@x.example"];
        assert_eq!(header_recipients(raw), want);
        assert!(header_recipients(b"").is_empty());
        for from in ["From me@x.example Mon Sep 17 00:00:00 2001\n", ">From me@x.example\r\n"] {
            assert_eq!(header_recipients(&[from.as_bytes(), raw].concat()), want, "{from}");
        }
    }

    #[test]
    fn the_queue_id_is_found_in_the_reply() {
        let id = QueueId(1_795_250_940_123 << 20).to_string();
        assert_eq!(queue_id(&format!("2.0.0 Ok: queued as {id}.")), Some(id));
        assert_eq!(queue_id("Ok"), None);
    }
}
