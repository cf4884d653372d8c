//! The server's side of the dialog as a pure state machine: a command line in, replies out, and
//! what the session has to do next. No sockets, no time-outs, no queue.
//!
//! Order of commands (RFC 5321 §4.1.4): HELO may be left out on loopback; MAIL, then RCPT, then
//! DATA or BDAT; RSET and a new HELO go back to the start from anywhere.

mod auth;
mod proxied;

use std::sync::Arc;

use super::login::sasl::Response;
use super::policy::{LOCKED, OVER_LIMIT, TOO_MANY_COMMANDS, TOO_MANY_ERRORS};
use super::submit::{Client, Shared, Transaction};
pub(super) use auth::{Login, NoLogin};

use crate::mail::{Address, BodyKind, Caller, Envelope, TlsWish};
use crate::smtp::command::proxied::{XCLIENT, XFORWARD};
use crate::smtp::command::{Bad, MailParams, RcptParams};
use crate::smtp::{Command, Reply, reply};

/// Bad commands after which the client is cut off.
const MAX_BAD: u32 = 100;

/// Commands in a row that bring no message nearer (NOOP, RSET, VRFY, HELP, EHLO, MAIL) before the session
/// ends, of a client that may relay and of another. Postfix's `smtpd_junk_command_limit` is 100.
const MAX_IDLE: u32 = 1000;
const MAX_IDLE_STRANGER: u32 = 100;

/// Recipients refused for now in one transaction that are told in the log, one by one.
const REFUSALS_LOGGED: u32 = 20;

/// Longest name kept from HELO, in bytes.
const MAX_HELO: usize = 255;

/// What the session does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Look for the next command.
    Command,
    /// Send what is waiting at once, then as before (RFC 2920 §3.2).
    Flush,
    /// Send what is waiting and read message data up to the final dot.
    Data,
    /// The same for a client that has said its name for the first time.
    Greeted,
    /// Read a chunk of message data (RFC 3030 §2).
    Chunk { size: u64, last: bool },
    /// Read a chunk that belongs to no message, and only then refuse it (RFC 3030 §2).
    Discard { size: u64, reply: Reply },
    /// Greet a client whose address is another now: its time and its memory are too.
    Renamed,
    /// Go through a login.
    Auth(Box<Login>),
    /// The same by the certificate of the client; with the response that came with the command.
    External(Option<Response>),
    /// Tell the client why there is no login.
    NoLogin(Box<NoLogin>),
    /// Begin with TLS, if nothing came behind the command; says 220 or refuses.
    StartTls,
    /// Send what is waiting and close.
    Close,
}

/// State of one dialog.
pub(super) struct Dialog {
    shared: Arc<Shared>,
    /// Who has connected, whoever it speaks for.
    connected: Caller,
    pub client: Client,
    /// A login was good.
    logged_in: bool,
    /// The client's certificate has made it a user already; it may still say AUTH.
    by_certificate: bool,
    greeted: bool,
    pub transaction: Option<Transaction>,
    /// A BDAT has begun: only BDAT, RSET and the like may follow.
    pub chunking: bool,
    bad: u32,
    /// Commands since the last message that brought none nearer.
    idle: u32,
    /// Recipients refused in this transaction.
    refusals: u32,
}

/// Verbs that may stand in the log.
const VERBS: [&str; 17] = [
    "HELO", "EHLO", "MAIL", "RCPT", "DATA", "BDAT", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "STARTTLS", "AUTH",
    "ETRN", "XCLIENT", "XFORWARD",
];

/// Announced by EHLO behind those that depend on the listener; [`BINARYMIME`] does, too.
const EXTENSIONS: [&str; 7] =
    ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "CHUNKING", BINARYMIME, "MT-PRIORITY"];

/// Announced last.
const COMMANDS: [&str; 2] = ["VRFY", "HELP"];

/// Announced inside TLS alone (RFC 8689 §2).
const REQUIRETLS: &str = "REQUIRETLS";

/// Announced where octets are octets.
const BINARYMIME: &str = "BINARYMIME";

const OK: Reply = Reply::new(250, "2.0.0", "Ok");
const SENDER_OK: Reply = Reply::new(250, "2.1.0", "Sender ok");
const RECIPIENT_OK: Reply = Reply::new(250, "2.1.5", "Recipient ok");
const GO_AHEAD: Reply = Reply::new(354, "", "End data with <CR><LF>.<CR><LF>");
const BYE: Reply = Reply::new(221, "2.0.0", "Bye");
const CANNOT_VRFY: Reply = Reply::new(252, "2.0.0", "Cannot verify; send mail and see");
const NO_EXPN: Reply = Reply::new(502, "5.5.1", "EXPN is not available");
const NO_ETRN: Reply = Reply::new(502, "5.5.1", "ETRN is not available: what waits leaves by itself");
const NO_STARTTLS: Reply = Reply::new(502, "5.5.1", "STARTTLS is not offered");
const TLS_ALREADY: Reply = Reply::new(503, "5.5.1", "TLS is active already");
const TLS_FIRST: Reply = Reply::new(530, "5.7.0", "Must issue a STARTTLS command first");
const HELO_FIRST: Reply = Reply::new(503, "5.5.1", "Send HELO or EHLO first");
const NESTED_MAIL: Reply = Reply::new(503, "5.5.1", "Nested MAIL command");
const MAIL_FIRST: Reply = Reply::new(503, "5.5.1", "MAIL first");
const RCPT_FIRST: Reply = Reply::new(503, "5.5.1", "RCPT first");
const NO_RECIPIENTS: Reply = Reply::new(554, "5.5.1", "No valid recipients");
const BDAT_BEGUN: Reply = Reply::new(503, "5.5.1", "Only BDAT may follow BDAT in a transaction");
/// Of a listener without TLS it is an unknown parameter; else TLS comes first, as RFC 3207 §4 says it.
const NO_REQUIRETLS: Reply = Reply::new(555, "5.5.4", "REQUIRETLS is not offered");
const REQUIRETLS_NEEDS_TLS: Reply =
    Reply::new(530, "5.7.10", "REQUIRETLS in clear text (RFC 8689): must issue a STARTTLS command first");
const NO_BINARY: Reply = Reply::new(555, "5.5.4", "BODY=BINARYMIME is not offered");
const BINARY_BY_BDAT: Reply = Reply::new(503, "5.5.1", "A message with BODY=BINARYMIME is sent by BDAT, not by DATA");
const TOO_LONG: Reply = Reply::new(500, "5.5.2", "Line too long");
const BARE_LF: Reply = Reply::new(500, "5.5.2", "Line does not end in <CR><LF>");

impl Dialog {
    pub fn new(shared: Arc<Shared>, caller: Caller) -> Dialog {
        let client = Client::new(caller);
        let connected = caller;
        Dialog {
            shared,
            connected,
            client,
            logged_in: false,
            by_certificate: false,
            greeted: false,
            transaction: None,
            chunking: false,
            bad: 0,
            idle: 0,
            refusals: 0,
        }
    }

    /// The greeting.
    pub fn greet(&self, out: &mut Vec<u8>) {
        Reply::with(220, "", format!("{} ESMTP mailweir", self.shared.hostname)).write_to(out);
    }

    /// Takes a command line without its line end.
    pub fn command(&mut self, line: &[u8], crlf: bool, out: &mut Vec<u8>) -> Next {
        if !crlf && !self.shared.listener.lf_only {
            return self.refuse(&BARE_LF, out);
        }
        match Command::parse(line) {
            Ok(command) if self.is_too_idle(&command) => {
                tracing::info!(client = %self.client.caller, helo = &*self.client.helo, "too many commands without a message");
                TOO_MANY_COMMANDS.write_to(out);
                Next::Close
            }
            Ok(command) => self.serve(command, out),
            Err(Bad::Refuse(reply)) => {
                tracing::debug!(client = %self.client.caller, command = verb(line), bytes = line.len(), code = reply.code,
                    status = reply.enhanced, "command refused");
                self.refuse(&reply, out)
            }
            Err(Bad::Close(reply)) => {
                tracing::info!(client = %self.client.caller, command = verb(line), bytes = line.len(), reply = %reply,
                    "not a mail client");
                reply.write_to(out);
                Next::Close
            }
        }
    }

    /// Counts a command that brings no message nearer; true if there were too many of them.
    fn is_too_idle(&mut self, command: &Command<'_>) -> bool {
        let nearer = matches!(
            command,
            Command::Rcpt(..)
                | Command::Data
                | Command::Bdat { .. }
                | Command::Quit
                | Command::StartTls
                | Command::Auth(_)
        );
        self.idle += u32::from(!nearer);
        let most = if self.may_relay() { MAX_IDLE } else { MAX_IDLE_STRANGER };
        self.idle > most
    }

    fn may_relay(&self) -> bool {
        self.shared.policy.may_relay(self.client.caller.ip(), self.client.user.as_deref())
    }

    /// A line over the limit was skipped.
    pub fn too_long(&mut self, out: &mut Vec<u8>) -> Next {
        self.refuse(&TOO_LONG, out)
    }

    /// A message was accepted: its client is no nuisance, and earlier mistakes are forgotten.
    pub fn forgive(&mut self) {
        self.bad = 0;
        self.idle = 0;
    }

    /// Back to the start of a transaction.
    pub fn reset(&mut self) {
        self.transaction = None;
        self.chunking = false;
        self.refusals = 0;
    }

    /// TLS has begun: what the client said before may have been said by somebody else on the way,
    /// and is forgotten (RFC 3207 §4.2).
    pub fn encrypted(&mut self, version: &'static str) {
        self.client.caller = self.connected;
        self.client.forwarded = None;
        self.client.helo = "".into();
        self.client.esmtp = false;
        self.client.tls = version;
        self.log_out();
        self.greeted = false;
        self.reset();
    }

    /// In clear text, on a listener with a certificate. One with implicit TLS has no session in
    /// clear text.
    fn offers_tls(&self) -> bool {
        self.client.tls.is_empty() && self.shared.listener.tls.is_some()
    }

    /// Nothing but STARTTLS is served before it.
    fn waits_for_tls(&self) -> bool {
        self.offers_tls() && self.shared.listener.tls.as_ref().is_some_and(|tls| tls.required)
    }

    /// Nobody but the client and this end has read what it says.
    fn offers_require_tls(&self) -> bool {
        !self.client.tls.is_empty()
    }

    /// A listener for devices that know LF only does not let octets be what they are.
    fn offers_binary(&self) -> bool {
        !self.shared.listener.lf_only
    }

    /// The message that is announced is binary.
    fn is_binary(&self) -> bool {
        self.transaction.as_ref().is_some_and(|tx| tx.envelope.body == BodyKind::BinaryMime)
    }

    fn serve(&mut self, command: Command<'_>, out: &mut Vec<u8>) -> Next {
        let reply = match command {
            Command::Helo(name) => {
                self.hello(name, false);
                Reply::with(250, "", self.shared.hostname.to_string())
            }
            Command::Ehlo(name) => {
                let next = if self.greeted { Next::Flush } else { Next::Greeted };
                self.hello(name, true);
                self.write_extensions(out);
                return next;
            }
            Command::Mail(path, params) => match self.mail(path, params) {
                Ok(()) => SENDER_OK,
                Err(reply) => return self.refuse(&reply, out),
            },
            Command::Rcpt(path, params) => match self.rcpt(path, params) {
                Ok(()) => RECIPIENT_OK,
                // A bad address on a long list is not the client's mistake.
                Err(reply) if self.transaction.as_ref().is_some_and(|tx| !tx.recipients.is_empty()) => reply,
                Err(reply) => return self.refuse(&reply, out),
            },
            Command::Data => {
                return match self.may_send() {
                    _ if self.chunking => self.refuse(&BDAT_BEGUN, out),
                    // Before anything else: data that came behind it would be taken for commands (RFC 3030 §3).
                    _ if self.is_binary() => self.refuse(&BINARY_BY_BDAT, out),
                    Ok(()) => {
                        GO_AHEAD.write_to(out);
                        Next::Data
                    }
                    Err(reply) => self.refuse(&reply, out),
                };
            }
            Command::Bdat { size, last } => {
                return match self.may_send() {
                    Ok(()) => {
                        self.chunking = true;
                        Next::Chunk { size, last }
                    }
                    Err(reply) => Next::Discard { size, reply },
                };
            }
            Command::Rset => {
                self.reset();
                OK
            }
            Command::Noop => OK,
            Command::Quit => {
                BYE.write_to(out);
                return Next::Close;
            }
            Command::Vrfy => CANNOT_VRFY,
            Command::Help => Reply::new(214, "2.0.0", "This is mailweir; see RFC 5321"),
            Command::Expn => return self.refuse(&NO_EXPN, out),
            Command::StartTls if self.offers_tls() => return Next::StartTls,
            Command::StartTls if !self.client.tls.is_empty() => return self.refuse(&TLS_ALREADY, out),
            Command::StartTls => return self.refuse(&NO_STARTTLS, out),
            Command::Auth(words) => {
                return match self.auth(words.0) {
                    Ok(next) => next,
                    Err(reply) => self.refuse(&reply, out),
                };
            }
            Command::Etrn => return self.refuse(&NO_ETRN, out),
            Command::XClient(told) => match self.may_be_told() {
                Ok(()) => {
                    self.speak_for(*told);
                    self.greet(out);
                    return Next::Renamed;
                }
                Err(reply) => return self.refuse(&reply, out),
            },
            Command::XForward(told) => match self.may_be_told() {
                Ok(()) => {
                    self.forwarded(&told);
                    OK
                }
                Err(reply) => return self.refuse(&reply, out),
            },
        };
        reply.write_to(out);
        Next::Command
    }

    /// A mistake is answered; too many end the session.
    pub fn refuse(&mut self, reply: &Reply, out: &mut Vec<u8>) -> Next {
        reply.write_to(out);
        if reply.code >= 500 && reply.code != 552 {
            self.bad += 1;
        }
        if self.bad >= MAX_BAD {
            tracing::info!(client = %self.client.caller, helo = &*self.client.helo, "too many errors");
            TOO_MANY_ERRORS.write_to(out);
            return Next::Close;
        }
        Next::Command
    }

    fn hello(&mut self, name: &str, esmtp: bool) {
        let end = name.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= MAX_HELO).last();
        self.client.helo = name[..end.unwrap_or(0)].into();
        self.client.esmtp = esmtp;
        self.greeted = true;
        self.reset();
    }

    fn write_extensions(&self, out: &mut Vec<u8>) {
        let size = format!("SIZE {}", self.shared.policy.max_message_size(self.client.user.as_deref()));
        let auth = self.mechanisms().map(|names| [format!("AUTH {names}"), format!("AUTH={names}")]);
        let mut lines = vec![&*self.shared.hostname, "PIPELINING", &size];
        if self.offers_tls() {
            lines.push("STARTTLS");
        }
        if let Some([auth, old]) = &auth {
            lines.push(auth);
            lines.extend(self.shared.listener.auth_old_line.then_some(&**old));
        }
        lines.extend(EXTENSIONS.into_iter().filter(|keyword| *keyword != BINARYMIME || self.offers_binary()));
        if self.offers_require_tls() {
            lines.push(REQUIRETLS);
        }
        let limits = format!("LIMITS RCPTMAX={}", self.shared.listener.max_recipients);
        lines.push(&limits);
        let later = self.future_release();
        lines.extend(later.as_deref());
        lines.extend(COMMANDS);
        if self.shared.policy.may_proxy(self.connected.ip()) {
            lines.extend([XCLIENT, XFORWARD]);
        }
        reply::write_lines(out, 250, &lines);
    }

    /// FUTURERELEASE with how far ahead a time may be, in seconds and as a date (RFC 4865 §3).
    fn future_release(&self) -> Option<String> {
        let longest = self.shared.listener.future_release;
        let date = self.shared.intake.clock().now().after(longest).to_string();
        let date = date.split('.').next().unwrap_or_default();
        (!longest.is_zero()).then(|| format!("FUTURERELEASE {} {date}Z", longest.as_secs()))
    }

    fn mail(&mut self, path: &str, params: MailParams) -> Result<(), Reply> {
        if self.transaction.is_some() {
            return Err(NESTED_MAIL);
        }
        if !self.greeted && self.shared.policy.needs_helo(self.client.caller.ip()) {
            return Err(HELO_FIRST);
        }
        let user = self.client.user.as_deref();
        let may = if self.waits_for_tls() { Err(TLS_FIRST) } else { self.shared.policy.login(user) };
        if let Err(reply) = may {
            tracing::info!(client = %self.client.caller, helo = &*self.client.helo, %reply, "sender refused");
            return Err(reply);
        }
        if params.body == BodyKind::BinaryMime && !self.offers_binary() {
            return Err(NO_BINARY);
        }
        if params.require_tls && !self.offers_require_tls() {
            return Err(if self.offers_tls() { REQUIRETLS_NEEDS_TLS } else { NO_REQUIRETLS });
        }
        let reverse_path = self.shared.policy.sender(path, params.smtputf8)?;
        if let Err(reply) = self.shared.policy.sender_of(user, reverse_path.as_ref()) {
            tracing::info!(client = %self.client.caller, helo = &*self.client.helo, user = user.map(|user| &*user.name),
                sender = %escape(path.as_bytes()), %reply, "sender refused");
            return Err(reply);
        }
        let now = self.shared.intake.clock().now();
        let rewritten = self.shared.policy.rewritten(user, reverse_path.as_ref(), now);
        self.may_come_in(rewritten.as_ref().map(|it| &it.is).or(reverse_path.as_ref()))?;
        self.shared.policy.announced_size(params.size, user)?;
        let release = self.shared.policy.release(params.hold, now)?;
        let envelope = Envelope {
            reverse_path,
            body: params.body,
            smtputf8: params.smtputf8,
            ret: params.ret,
            envid: params.envid,
            priority: params.priority.unwrap_or(0),
            release,
            tls: if params.require_tls { TlsWish::Required } else { TlsWish::Usual },
        };
        let mut transaction =
            Transaction::new(envelope, params.size, self.shared.intake.memory().envelope()).sent_as(rewritten);
        transaction.priority_given = params.priority.is_some();
        transaction.hold_given = params.hold.is_some();
        self.transaction = Some(transaction);
        Ok(())
    }

    /// Whether the limits on what comes in let another message in; it is counted when it is there.
    fn may_come_in(&self, sender: Option<&Address>) -> Result<(), Reply> {
        let (arrivals, user) = (&self.shared.arrivals, self.client.user.as_deref().map(|user| &*user.name));
        let reply = match user {
            Some(user) if arrivals.is_locked(user) => LOCKED,
            _ if arrivals.is_over(self.client.sending(sender)).is_some() => OVER_LIMIT,
            _ => return Ok(()),
        };
        tracing::info!(client = %self.client.caller, helo = &*self.client.helo, user, %reply, "sender refused");
        Err(reply)
    }

    fn rcpt(&mut self, path: &str, params: RcptParams) -> Result<(), Reply> {
        if self.chunking {
            return Err(BDAT_BEGUN);
        }
        let may_relay = self.may_relay();
        let Some(tx) = &mut self.transaction else { return Err(MAIL_FIRST) };
        let (have, utf8, now) = (tx.recipients.len(), tx.envelope.smtputf8, self.shared.intake.clock().now());
        let forward = self.shared.policy.recipient(may_relay, have, path, utf8, now);
        match forward.and_then(|forward| tx.add(&forward, params.notify, params.orcpt.as_ref())) {
            Ok(()) => Ok(()),
            Err(reply) => {
                tx.refused = true;
                self.refusals += 1;
                if self.refusals > REFUSALS_LOGGED {
                    return Err(reply);
                }
                if self.refusals == REFUSALS_LOGGED {
                    tracing::info!(client = %self.client.caller, "more refused recipients of this message are not told one by one");
                }
                tracing::info!(client = %self.client.caller, helo = &*self.client.helo, sender = tx.envelope.sender(),
                    recipient = %escape(path.as_bytes()), reply = %reply, "recipient refused");
                Err(reply)
            }
        }
    }

    fn may_send(&self) -> Result<(), Reply> {
        match &self.transaction {
            None => Err(MAIL_FIRST),
            Some(tx) if tx.recipients.is_empty() && tx.refused => Err(NO_RECIPIENTS),
            Some(tx) if tx.recipients.is_empty() => Err(RCPT_FIRST),
            Some(_) => Ok(()),
        }
    }
}

/// All that a log may say of a line that was not served: it may be a line of a message, or of a
/// password, from a client that did not listen to the reply before.
fn verb(line: &[u8]) -> &'static str {
    let word = line.split(|b| matches!(b, b' ' | b'\t')).next().unwrap_or_default();
    let known = VERBS.into_iter().find(|verb| word.eq_ignore_ascii_case(verb.as_bytes()));
    known.unwrap_or("not a command")
}

/// A path of a client for a log line: printable, and not too many of them.
fn escape(line: &[u8]) -> impl std::fmt::Display + '_ {
    line.get(..100).unwrap_or(line).escape_ascii()
}
