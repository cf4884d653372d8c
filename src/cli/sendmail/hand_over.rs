//! Gives a message to the relay over SMTP, all or nothing: if a recipient is refused, nothing is queued.
//!
//! A message to more recipients than the relay takes at once goes in several transactions. All recipients
//! are asked for before the first of these is made; what can go wrong after it is told with those who
//! are left ([`Trouble::Partly`]).

use std::fmt;
use std::time::{Duration, Instant};

use super::connection::{Connection, Fault};
use crate::clock::span;
use crate::config::ListenAddress;
use crate::mail::{QueueId, Ret};

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
    /// It is queued for all but these recipients.
    Partly {
        /// For whom it is not.
        left: Vec<String>,
        /// Why.
        why: Box<Trouble>,
    },
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Later(why) | Trouble::Refused(why) | Trouble::Unknown(why) => f.write_str(why),
            Trouble::Partly { why, .. } => why.fmt(f),
        }
    }
}

/// Where the relay is, and our name.
#[derive(Clone, Debug)]
pub(super) struct Server<'a> {
    pub address: &'a ListenAddress,
    pub hostname: &'a str,
}

/// Tries until the relay has it, or has refused it, or `wait` is over.
pub(super) fn with_patience(server: &Server<'_>, parcel: &Parcel, wait: Duration) -> Result<String, Trouble> {
    let began = Instant::now();
    patiently(wait, || once(server, parcel)).map_err(|trouble| match trouble {
        Trouble::Later(why) if wait >= PAUSE => {
            let tried = Duration::from_secs_f64(began.elapsed().as_secs_f64().round());
            Trouble::Later(format!("{why}; tried for {}", span(tried)))
        }
        other => other,
    })
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

/// Hands it in once; returns the text of the final replies.
pub(super) fn once(server: &Server<'_>, parcel: &Parcel) -> Result<String, Trouble> {
    let mut connection = connect(server)?;
    let all = &parcel.recipients[..];
    let first = envelope(&mut connection, parcel, all)?;
    let said = if first == all.len() {
        message(&mut connection, parcel)?
    } else {
        in_several(&mut connection, parcel, first)?
    };
    // The message is queued, whatever becomes of the goodbye.
    connection.quit();
    Ok(said)
}

/// The relay has taken the `first` recipients and no more. It is asked for the others, then the message
/// goes to all of them.
fn in_several(connection: &mut Connection, parcel: &Parcel, first: usize) -> Result<String, Trouble> {
    let (mut parts, mut rest) = (Vec::new(), &parcel.recipients[..]);
    let mut taken = first;
    loop {
        let (part, others) = rest.split_at(taken);
        parts.push(part);
        rest = others;
        reset(connection)?;
        if rest.is_empty() {
            break;
        }
        taken = envelope(connection, parcel, rest)?;
    }
    let (mut told, mut done) = (Vec::new(), 0);
    for part in parts {
        let queued = envelope(connection, parcel, part).and_then(|taken| {
            if taken == part.len() {
                return message(connection, parcel);
            }
            Err(Trouble::Later("nothing was queued: the relay takes fewer recipients than before".to_owned()))
        });
        match queued {
            Ok(said) => told.push(said),
            Err(why) if done == 0 => return Err(why),
            // Whether these have it or not, nobody else may get it again.
            Err(why) => return Err(Trouble::Partly { left: parcel.recipients[done..].to_vec(), why: Box::new(why) }),
        }
        done += part.len();
    }
    Ok(told.join(", "))
}

fn reset(connection: &mut Connection) -> Result<(), Trouble> {
    connection.command("RSET\r\n").map(|_| ()).map_err(|e| refused("the relay does not go on", &e))
}

/// The message of a transaction whose recipients were taken; the text of the final reply.
fn message(connection: &mut Connection, parcel: &Parcel) -> Result<String, Trouble> {
    connection.data().map_err(|e| refused("the message is refused", &e))?;
    connection.message(&parcel.content).map_err(|e| match e.code {
        Some(_) => refused("the message is refused", &e),
        None => Trouble::Unknown(format!(
            "mailweir did not confirm the message, so it may or may not be queued: {}",
            e.text
        )),
    })
}

/// A recipient, and whether it would be taken.
pub(super) type Answer = (String, Result<(), Trouble>);

/// Asks for each recipient whether it would be taken, without a message.
pub(super) fn verify(server: &Server<'_>, parcel: &Parcel) -> Result<Vec<Answer>, Trouble> {
    let mut connection = open(server)?;
    let sender = |connection: &mut Connection| {
        let command = mail(connection, parcel);
        connection.command(command).map_err(|e| said(format!("the sender is refused: {}", e.text), &e))
    };
    sender(&mut connection)?;
    let (mut answers, mut taken) = (Vec::new(), 0);
    for recipient in &parcel.recipients {
        let mut answer = connection.command(rcpt(recipient, None));
        if taken > 0 && answer.as_ref().is_err_and(Fault::is_full) {
            taken = 0;
            reset(&mut connection)?;
            sender(&mut connection)?;
            answer = connection.command(rcpt(recipient, None));
        }
        taken += usize::from(answer.is_ok());
        answers.push((recipient.clone(), answer.map(|_| ()).map_err(|e| said(e.text.clone(), &e))));
    }
    connection.quit();
    Ok(answers)
}

fn open(server: &Server<'_>) -> Result<Connection, Trouble> {
    let Server { address, hostname } = server;
    Connection::open(address, hostname)
        .map_err(|e| Trouble::Later(format!("mailweir does not answer at {address}: {}", e.text)))
}

fn connect(server: &Server<'_>) -> Result<Connection, Trouble> {
    open(server).map_err(|trouble| Trouble::Later(format!("nothing was queued: {trouble}")))
}

/// Sender and recipients; how many of these the relay takes at once (RFC 5321 §4.5.3.1.10), which is one
/// at least.
fn envelope(connection: &mut Connection, parcel: &Parcel, recipients: &[String]) -> Result<usize, Trouble> {
    connection.command(mail(connection, parcel)).map_err(|e| refused("the sender is refused", &e))?;
    for (i, recipient) in recipients.iter().enumerate() {
        match connection.command(rcpt(recipient, parcel.notify.as_deref())) {
            Ok(_) => {}
            Err(e) if i > 0 && e.is_full() => return Ok(i),
            Err(e) => return Err(refused(&format!("{recipient} is refused"), &e)),
        }
    }
    Ok(recipients.len())
}

fn mail(connection: &Connection, parcel: &Parcel) -> String {
    let mut command = format!("MAIL FROM:<{}>", parcel.sender);
    // For addresses only. Raw 8-bit text in a header, as old programs and scripts write it, reaches
    // hosts of any age without this parameter; with it, those that do not offer it are given up.
    if parcel.recipients.iter().chain([&parcel.sender]).any(|a| !a.is_ascii()) {
        command.push_str(" SMTPUTF8");
    }
    if !parcel.content.is_ascii() && connection.takes_eight_bit() {
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

fn refused(what: &str, error: &Fault) -> Trouble {
    said(format!("nothing was queued: {what}: {}", error.text), error)
}

/// Told of a refusal for now, or for ever.
fn said(message: String, error: &Fault) -> Trouble {
    if error.is_permanent() { Trouble::Refused(message) } else { Trouble::Later(message) }
}

/// The queue ids in replies.
pub(super) fn queue_ids(replies: &str) -> Option<String> {
    let words = replies.split(|c: char| !c.is_ascii_alphanumeric());
    let ids: Vec<String> = words.filter_map(|word| word.parse::<QueueId>().ok()).map(|id| id.to_string()).collect();
    (!ids.is_empty()).then(|| ids.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_id_is_found_in_the_reply() {
        let id = QueueId(1_795_250_940_123 << 20).to_string();
        assert_eq!(queue_ids(&format!("2.0.0 Ok: queued as {id}.")), Some(id.clone()));
        assert_eq!(queue_ids(&format!("Ok: queued as {id}, Ok: queued as {id}")), Some(format!("{id} {id}")));
        assert_eq!(queue_ids("Ok"), None);
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
