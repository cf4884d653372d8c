//! Gives a message to the relay over SMTP, all or nothing: if a recipient is refused, nothing is queued.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::SmtpConnection;
use lettre::transport::smtp::commands::Data;
use lettre::transport::smtp::extension::{ClientId, Extension};

use crate::mail::{QueueId, Ret};

/// Longest wait for the relay to answer: it may be writing a large message to a busy disk.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pauses between tries while it is down: the first, and the longest.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What is handed over. Addresses may be local names: what these mean is the relay's affair.
#[derive(Clone, Debug, Default)]
pub(super) struct Parcel {
    /// Empty for the null sender.
    pub sender: String,
    pub recipients: Vec<String>,
    /// `NOTIFY=` of all recipients.
    pub notify: Option<String>,
    pub ret: Option<Ret>,
    /// `ENVID=`, decoded.
    pub envid: Option<String>,
    /// With CRLF line ends.
    pub content: Vec<u8>,
}

/// Why the relay does not have it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Nothing was queued, and that may change by itself.
    Later(String),
    /// Nothing was queued, and never will be.
    Refused(String),
    /// The connection was lost after the end of the message: it may or may not be queued.
    Unknown(String),
}

/// Where the relay is, and our name.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    pub address: SocketAddr,
    pub hostname: &'a str,
}

/// Tries until the relay has it, or has refused it, or `wait` is over.
pub(super) fn with_patience(server: &Server<'_>, parcel: &Parcel, wait: Duration) -> Result<String, Trouble> {
    patiently(wait, || once(server, parcel))
}

/// Calls until it is no longer a matter of time, with pauses that grow.
pub(super) fn patiently<T>(wait: Duration, mut call: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let began = Instant::now();
    let mut pause = PAUSE;
    loop {
        match call() {
            Err(Trouble::Later(_)) if began.elapsed() + pause <= wait => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            done => return done,
        }
    }
}

/// Makes one transaction; returns the text of the final reply.
pub(super) fn once(server: &Server<'_>, parcel: &Parcel) -> Result<String, Trouble> {
    let mut connection = connect(server)?;
    envelope(&mut connection, parcel)?;
    connection.command(Data).map_err(|e| refused("the message is refused", &e))?;
    // The final line end is sent with the dot that ends the message.
    let body = parcel.content.strip_suffix(b"\r\n").unwrap_or(&parcel.content);
    let reply = connection.message(body).map_err(|e| match e.status() {
        Some(_) => refused("the message is refused", &e),
        None => Trouble::Unknown(format!(
            "mailweir did not confirm the message, so it may or may not be queued: {}",
            text(&e)
        )),
    })?;
    let said = reply.message().collect::<Vec<_>>().join(" ");
    // The message is queued, whatever becomes of the goodbye.
    let _ = connection.quit();
    Ok(said)
}

/// A recipient, and whether it would be taken.
pub(super) type Answer = (String, Result<(), Trouble>);

/// Asks for each recipient whether it would be taken, without a message.
pub(super) fn verify(server: &Server<'_>, parcel: &Parcel) -> Result<Vec<Answer>, Trouble> {
    let mut connection = connect(server)?;
    connection.command(mail(&connection, parcel)).map_err(|e| refused("the sender is refused", &e))?;
    let ask = |recipient: &String| {
        let answer = connection.command(rcpt(recipient, None));
        (recipient.clone(), answer.map(|_| ()).map_err(|e| refused(recipient, &e)))
    };
    let answers = parcel.recipients.iter().map(ask).collect();
    let _ = connection.quit();
    Ok(answers)
}

fn connect(server: &Server<'_>) -> Result<SmtpConnection, Trouble> {
    let Server { address, hostname } = server;
    SmtpConnection::connect(address, Some(PATIENCE), &ClientId::Domain((*hostname).to_owned()), None, None)
        .map_err(|e| Trouble::Later(format!("nothing was queued: mailweir does not answer at {address}: {}", text(&e))))
}

fn envelope(connection: &mut SmtpConnection, parcel: &Parcel) -> Result<(), Trouble> {
    connection.command(mail(connection, parcel)).map_err(|e| refused("the sender is refused", &e))?;
    for (i, recipient) in parcel.recipients.iter().enumerate() {
        let command = rcpt(recipient, parcel.notify.as_deref());
        connection.command(command).map_err(|e| match e.status().map(u16::from) {
            // It will not be otherwise the next time (RFC 5321 §4.5.3.1.10).
            Some(452) if i > 0 => Trouble::Refused(format!(
                "nothing was queued: the relay takes {i} recipients at once (max_recipients), not {}",
                parcel.recipients.len()
            )),
            _ => refused(&format!("{recipient} is refused"), &e),
        })?;
    }
    Ok(())
}

fn mail(connection: &SmtpConnection, parcel: &Parcel) -> String {
    let mut command = format!("MAIL FROM:<{}>", parcel.sender);
    // For addresses only. Raw 8-bit text in a header, as old programs and scripts write it, reaches
    // hosts of any age without this parameter; with it, those that do not offer it are given up.
    if parcel.recipients.iter().chain([&parcel.sender]).any(|a| !a.is_ascii()) {
        command.push_str(" SMTPUTF8");
    }
    if !parcel.content.is_ascii() && connection.server_info().supports_feature(Extension::EightBitMime) {
        command.push_str(" BODY=8BITMIME");
    }
    match parcel.ret {
        Some(Ret::Full) => command.push_str(" RET=FULL"),
        Some(Ret::Headers) => command.push_str(" RET=HDRS"),
        None => {}
    }
    if let Some(envid) = &parcel.envid {
        command.push_str(&format!(" ENVID={}", Xtext(envid)));
    }
    command.push_str("\r\n");
    command
}

fn rcpt(recipient: &str, notify: Option<&str>) -> String {
    let notify = notify.map(|n| format!(" NOTIFY={n}")).unwrap_or_default();
    format!("RCPT TO:<{recipient}>{notify}\r\n")
}

/// RFC 3461 §4.
struct Xtext<'a>(&'a str);

impl fmt::Display for Xtext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for b in self.0.bytes() {
            match b {
                b'!'..=b'~' if b != b'+' && b != b'=' => write!(f, "{}", char::from(b))?,
                b => write!(f, "+{b:02X}")?,
            }
        }
        Ok(())
    }
}

fn refused(what: &str, error: &Error) -> Trouble {
    let message = format!("nothing was queued: {what}: {}", text(error));
    if error.is_permanent() { Trouble::Refused(message) } else { Trouble::Later(message) }
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
pub(super) fn queue_id(reply: &str) -> Option<String> {
    reply
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(|word| word.parse::<QueueId>().ok())
        .map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_id_is_found_in_the_reply() {
        let id = QueueId(1_795_250_940_123 << 20).to_string();
        assert_eq!(queue_id(&format!("2.0.0 Ok: queued as {id}.")), Some(id));
        assert_eq!(queue_id("Ok"), None);
    }

    #[test]
    fn an_envelope_id_cannot_break_its_line() {
        assert_eq!(Xtext("a+b=c \r\nRSET").to_string(), "a+2Bb+3Dc+20+0D+0ARSET");
    }

    #[test]
    fn only_what_may_change_by_itself_is_tried_again() {
        let mut tries = 0;
        let mut call = |end: Result<(), Trouble>| {
            tries = 0;
            let done = patiently(PAUSE * 4, || {
                tries += 1;
                if tries < 2 { Err(Trouble::Later("down".into())) } else { end.clone() }
            });
            (done, tries)
        };
        assert_eq!(call(Ok(())), (Ok(()), 2));
        let refused = Err(Trouble::Refused("no".into()));
        assert_eq!(call(refused.clone()), (refused, 2));
        let unknown = Err(Trouble::Unknown("lost".into()));
        assert_eq!(call(unknown.clone()), (unknown, 2));
        // No time: one try.
        let mut tries = 0;
        let later = patiently(Duration::ZERO, || -> Result<(), Trouble> {
            tries += 1;
            Err(Trouble::Later("down".into()))
        });
        assert!(matches!((later, tries), (Err(Trouble::Later(_)), 1)));
    }
}
