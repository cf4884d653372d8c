//! One connection to the sink: the dialog around the model.
//!
//! Replies are written when all input is used up (RFC 2920 §3.2), after the latency of the
//! provider: one answer, one delay. Message data is read with the framing of the listener.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Open, Shared, dump::Dump};
use crate::mail::BodyKind;
use crate::model::{Content, Refusal, Said};
use crate::smtp::command::Bad;
use crate::smtp::reply::write_lines;
use crate::smtp::{Command, DotReader, Fed, Line, LineEnds, LineReader, Reply};

/// Longest command line, AUTH included (RFC 4954 §4).
const MAX_LINE: usize = 12_288;
/// Recipients of a transaction, whatever the caps say.
const MAX_RECIPIENTS: usize = 100_000;
/// Bytes read at once.
const READ: usize = 64 * 1024;
/// Longest wait for a client.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for a client to hang up after our last word.
const GOOD_BYE: Duration = Duration::from_secs(1);

const OK: Reply = Reply::new(250, "2.0.0", "Ok");
const SENDER_OK: Reply = Reply::new(250, "2.1.0", "Sender ok");
const RECIPIENT_OK: Reply = Reply::new(250, "2.1.5", "Recipient ok");
const GO_ON: Reply = Reply::new(354, "", "End data with <CR><LF>.<CR><LF>");
const BYE: Reply = Reply::new(221, "2.0.0", "Bye");
const NESTED: Reply = Reply::new(503, "5.5.1", "Nested MAIL command");
const NO_MAIL: Reply = Reply::new(503, "5.5.1", "MAIL first");
const NO_RECIPIENTS: Reply = Reply::new(554, "5.5.1", "No valid recipients");
const NO_HOLD: Reply = Reply::new(555, "5.5.4", "FUTURERELEASE is not offered");
const NO_BINARY: Reply = Reply::new(555, "5.5.4", "BODY=BINARYMIME is not offered");
const BINARY_BY_BDAT: Reply = Reply::new(503, "5.5.1", "A message with BODY=BINARYMIME is sent by BDAT, not by DATA");
const TOO_BIG: Reply = Reply::new(552, "5.3.4", "Message too big");
const NOT_OFFERED: Reply = Reply::new(502, "5.5.1", "Command not implemented");
const TOO_LONG: Reply = Reply::new(500, "5.5.2", "Line too long");
const LOGGED_IN: Reply = Reply::new(235, "2.7.0", "Authentication successful");
const TOO_MANY: Reply = Reply::new(452, "4.5.3", "Too many recipients");
const NOT_DUMPED: Reply = Reply::new(452, "4.3.1", "The message could not be written to the dump directory");

/// What the dialog does next.
enum Next {
    Command,
    /// Message data follows.
    Data,
    /// A chunk follows.
    Chunk {
        size: u64,
        last: bool,
    },
    /// So many lines are answers to AUTH.
    Secrets(u8),
    /// Say what waits, then close.
    Close,
}

/// A transaction.
#[derive(Default)]
struct Transaction {
    sender: String,
    /// Their addresses, if they are dumped.
    recipients: Vec<String>,
    taken: usize,
    /// Its octets are kept as they come.
    binary: bool,
    /// DATA or the first chunk was let through.
    has_data: bool,
    body: Body,
}

/// What of the message came so far.
#[derive(Default)]
struct Body {
    content: Content,
    ends: LineEnds,
    dump: Option<Dump>,
    not_dumped: bool,
}

struct Session<'a> {
    stream: TcpStream,
    shared: &'a Shared,
    open: Open<'a>,
    lines: LineReader,
    input: Vec<u8>,
    start: usize,
    output: Vec<u8>,
    transaction: Option<Transaction>,
}

/// Runs a connection that was let in.
pub(super) async fn run(stream: TcpStream, open: Open<'_>) {
    let shared = open.shared;
    let mut session = Session {
        stream,
        shared,
        open,
        lines: LineReader::default(),
        input: Vec::with_capacity(READ),
        start: 0,
        output: Vec::new(),
        transaction: None,
    };
    Reply::with(220, "", format!("sink.invalid ESMTP mailweir sink as {}", shared.name)).write_to(&mut session.output);
    // How a client goes away is its own affair.
    let _ = session.serve().await;
}

/// Tells a connection why it is not let in.
pub(super) async fn turn_away(mut stream: TcpStream, shared: &Shared, reply: Option<Said>) {
    let mut line = Vec::new();
    if let Some(reply) = reply {
        reply.write_to(&mut line);
    }
    tokio::time::sleep(shared.latency()).await;
    if stream.write_all(&line).await.is_ok() {
        hang_up(&mut stream).await;
    }
}

/// Closes so that the last reply arrives (RFC 1122 §4.2.2.13).
pub(super) async fn hang_up(stream: &mut TcpStream) {
    if stream.shutdown().await.is_ok() {
        let mut rest = vec![0u8; READ];
        let drain = async { while let Ok(1..) = stream.read(&mut rest).await {} };
        let _ = timeout(GOOD_BYE, drain).await;
    }
}

impl Session<'_> {
    async fn serve(&mut self) -> io::Result<()> {
        loop {
            let next = match self.lines.next(&self.input[self.start..], MAX_LINE) {
                Line::Complete { len, used, .. } => {
                    let line = self.input[self.start..self.start + len].to_vec();
                    self.start += used;
                    self.command(&line)
                }
                Line::TooLong { used } => {
                    self.start += used;
                    self.say(&TOO_LONG)
                }
                Line::Incomplete { discard } => {
                    self.start += discard;
                    self.fill().await?;
                    continue;
                }
            };
            match next {
                Next::Command => {}
                Next::Data => {
                    if let Next::Close = self.data().await? {
                        break;
                    }
                }
                Next::Chunk { size, last } => {
                    if let Next::Close = self.chunk(size, last).await? {
                        break;
                    }
                }
                Next::Secrets(lines) => self.secrets(lines).await?,
                Next::Close => break,
            }
        }
        self.good_bye().await
    }

    /// Says the last word.
    async fn good_bye(&mut self) -> io::Result<()> {
        self.open.over();
        self.flush().await?;
        hang_up(&mut self.stream).await;
        Ok(())
    }

    fn say(&mut self, reply: &Reply) -> Next {
        reply.write_to(&mut self.output);
        Next::Command
    }

    fn refuse(&mut self, refusal: Refusal) -> Next {
        if let Some(reply) = &refusal.reply {
            reply.write_to(&mut self.output);
        }
        if refusal.close { Next::Close } else { Next::Command }
    }

    fn command(&mut self, line: &[u8]) -> Next {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(Bad::Refuse(reply)) => return self.say(&reply),
            Err(Bad::Close(reply)) => {
                let _ = self.say(&reply);
                return Next::Close;
            }
        };
        let extensions = &self.shared.extensions;
        match command {
            Command::Helo(_) => {
                self.transaction = None;
                self.say(&Reply::new(250, "", "sink.invalid"))
            }
            Command::Ehlo(_) => {
                self.transaction = None;
                write_lines(&mut self.output, 250, &extensions.lines(self.shared.max_size));
                Next::Command
            }
            Command::Mail(..) if self.transaction.is_some() => self.say(&NESTED),
            Command::Mail(_, params) if params.hold.is_some() => self.say(&NO_HOLD),
            Command::Mail(sender, params) => {
                let binary = params.body == BodyKind::BinaryMime;
                if binary && !extensions.takes_binary() {
                    return self.say(&NO_BINARY);
                }
                if params.size > self.shared.max_size {
                    return self.say(&TOO_BIG);
                }
                match self.open.mail(sender) {
                    Ok(()) => {
                        self.transaction =
                            Some(Transaction { sender: sender.to_owned(), binary, ..Transaction::default() });
                        self.say(&SENDER_OK)
                    }
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Command::Rcpt(recipient, _) => {
                let Some(transaction) = &mut self.transaction else { return self.say(&NO_MAIL) };
                if transaction.taken >= MAX_RECIPIENTS {
                    return self.say(&TOO_MANY);
                }
                match self.open.rcpt(recipient) {
                    Ok(()) => {
                        transaction.taken += 1;
                        if self.shared.dumps() {
                            transaction.recipients.push(recipient.to_owned());
                        }
                        self.say(&RECIPIENT_OK)
                    }
                    Err(refusal) => self.refuse(refusal),
                }
            }
            Command::Data => match &self.transaction {
                None => self.say(&NO_MAIL),
                Some(transaction) if transaction.binary => self.say(&BINARY_BY_BDAT),
                Some(transaction) if transaction.taken == 0 => self.say(&NO_RECIPIENTS),
                Some(_) => match self.open.data() {
                    Ok(()) => {
                        let _ = self.say(&GO_ON);
                        Next::Data
                    }
                    Err(refusal) => {
                        self.transaction = None;
                        self.refuse(refusal)
                    }
                },
            },
            Command::Bdat { .. } if !extensions.chunking => {
                let _ = self.say(&NOT_OFFERED);
                Next::Close
            }
            Command::Bdat { size, last } => Next::Chunk { size, last },
            Command::Rset => {
                self.transaction = None;
                self.say(&OK)
            }
            Command::Noop => self.say(&OK),
            Command::Quit => {
                let _ = self.say(&BYE);
                Next::Close
            }
            Command::Auth(_) if extensions.auth => self.auth(line),
            Command::Vrfy
            | Command::Expn
            | Command::Help
            | Command::StartTls
            | Command::Auth(_)
            | Command::Etrn
            | Command::XClient(_)
            | Command::XForward(_) => self.say(&NOT_OFFERED),
        }
    }

    /// Any user and any password will do.
    fn auth(&mut self, line: &[u8]) -> Next {
        let line = String::from_utf8_lossy(line).to_ascii_uppercase();
        let mut words = line.split_ascii_whitespace().skip(1);
        let missing = match (words.next(), words.next()) {
            (Some("PLAIN"), initial) => 1 - u8::from(initial.is_some()),
            (Some("LOGIN"), initial) => 2 - u8::from(initial.is_some()),
            _ => return self.say(&Reply::new(504, "5.5.4", "PLAIN and LOGIN are offered")),
        };
        if missing == 0 { self.say(&LOGGED_IN) } else { Next::Secrets(missing) }
    }

    async fn secrets(&mut self, lines: u8) -> io::Result<()> {
        for left in (0..lines).rev() {
            // `Username:` and `Password:`, which PLAIN does not read.
            let prompt = if left == 1 { "VXNlcm5hbWU6" } else { "UGFzc3dvcmQ6" };
            let _ = self.say(&Reply::new(334, "", prompt));
            loop {
                match self.lines.next(&self.input[self.start..], MAX_LINE) {
                    Line::Complete { used, .. } | Line::TooLong { used } => {
                        self.start += used;
                        break;
                    }
                    Line::Incomplete { discard } => {
                        self.start += discard;
                        self.fill().await?;
                    }
                }
            }
        }
        let _ = self.say(&LOGGED_IN);
        Ok(())
    }

    /// Reads message data to its end and answers.
    async fn data(&mut self) -> io::Result<Next> {
        let Some(mut transaction) = self.transaction.take() else { return Ok(Next::Command) };
        let mut reader = DotReader::new(false);
        loop {
            let body = &mut transaction.body;
            match reader.feed(&self.input[self.start..], |run| body.push(run, self.shared)) {
                Fed::End(used) => {
                    self.start += used;
                    break;
                }
                Fed::More => {
                    self.start = self.input.len();
                    self.fill().await?;
                }
            }
        }
        Ok(self.end(transaction))
    }

    /// Reads a chunk (RFC 3030) and answers.
    async fn chunk(&mut self, size: u64, last: bool) -> io::Result<Next> {
        let mut transaction = self.transaction.take();
        let mut left = size;
        while left > 0 {
            let waiting = &self.input[self.start..];
            let n = waiting.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if n == 0 {
                self.fill().await?;
                continue;
            }
            if let Some(Transaction { body, taken: 1.., binary: true, .. }) = &mut transaction {
                body.push(&waiting[..n], self.shared);
            } else if let Some(Transaction { body, taken: 1.., .. }) = &mut transaction {
                let mut ends = std::mem::take(&mut body.ends);
                ends.feed(&waiting[..n], |run| body.push(run, self.shared));
                body.ends = ends;
            }
            self.start += n;
            left -= n as u64;
        }
        match transaction {
            None => Ok(self.say(&NO_MAIL)),
            Some(Transaction { taken: 0, .. }) => Ok(self.say(&NO_RECIPIENTS)),
            // The first chunk is what DATA is elsewhere; it had to be read before it could be refused.
            Some(Transaction { has_data: false, .. }) if let Err(refusal) = self.open.data() => {
                Ok(self.refuse(refusal))
            }
            Some(mut transaction) if last => {
                let body = &mut transaction.body;
                let mut ends = std::mem::take(&mut body.ends);
                ends.finish(|run| body.push(run, self.shared));
                Ok(self.end(transaction))
            }
            Some(transaction) => {
                self.transaction = Some(Transaction { has_data: true, ..transaction });
                Ok(self.say(&Reply::with(250, "2.0.0", format!("{size} octets received"))))
            }
        }
    }

    /// The message is here: what becomes of it.
    fn end(&mut self, mut transaction: Transaction) -> Next {
        let body = &mut transaction.body;
        if body.content.bytes > self.shared.max_size {
            return self.say(&TOO_BIG);
        }
        let dumped = match body.dump.take() {
            _ if body.not_dumped => Err(()),
            Some(dump) => dump.close(&transaction.sender, &transaction.recipients).map(Some).map_err(|_| ()),
            None => Ok(None),
        };
        let Ok(dumped) = dumped else { return self.say(&NOT_DUMPED) };
        match self.open.end(transaction.taken as u64, body.content) {
            Ok(()) => {
                if let Some(file) = dumped {
                    file.keep();
                }
                self.say(&OK)
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Says what waits, then reads at least a byte.
    async fn fill(&mut self) -> io::Result<()> {
        self.flush().await?;
        if self.start == self.input.len() {
            self.input.clear();
        } else {
            self.input.drain(..self.start);
        }
        self.start = 0;
        if self.input.len() == self.input.capacity() {
            self.input.reserve(READ);
        }
        match timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(_)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let _ = self.say(&Reply::new(421, "4.4.2", "Timeout"));
                self.good_bye().await?;
                Err(io::ErrorKind::TimedOut.into())
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let latency = self.shared.latency();
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        let written = timeout(PATIENCE, self.stream.write_all(&self.output)).await;
        self.output.clear();
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Body {
    fn push(&mut self, run: &[u8], shared: &Shared) {
        self.content.push(run);
        if !shared.dumps() || self.content.bytes > shared.max_size || self.not_dumped {
            return;
        }
        if self.dump.is_none() {
            match shared.dump() {
                Ok(dump) => self.dump = Some(dump),
                Err(_) => self.not_dumped = true,
            }
        }
        if let Some(dump) = &mut self.dump {
            self.not_dumped = dump.write(run).is_err();
        }
    }
}
