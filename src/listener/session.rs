//! One session of the native engine: the I/O around [`Dialog`].
//!
//! - One read and one write per flight: replies wait in a buffer until the input is used up
//!   (RFC 2920 §3.2), or until the client has to see one before it can go on (EHLO, DATA, the last
//!   BDAT, QUIT).
//! - Buffers are small while a session waits and grow only as its message gets memory (`memory`);
//!   what waits to be written is bounded. A message for which there is no memory now is not read:
//!   its client waits, at most `data_timeout`, and then hears a 421.
//! - A command has `command_timeout` from its first wait to its last byte, so that a byte a second
//!   does not keep a session open; data has `data_timeout` between reads; everything ends at
//!   `session_timeout`, and soon for a client that may not relay.
//! - STARTTLS with anything behind it that came in clear text ends the session: that could be from
//!   somebody on the way, to be taken for the client's words (CVE-2011-0411). A handshake has a time
//!   of its own, and one that fails ends the session without another word.
//! - At shutdown a session between transactions gets a 421 at once; one inside a transaction may
//!   finish it within the drain time, but before its data only as long as it goes on: nothing of it is lost.

mod encrypt;
mod input;
mod login;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info};
use zeroize::Zeroize as _;

use input::spill;

use super::dialog::{Dialog, Next};
use super::hang_up::{PATIENCE, hang_up};
use super::memory::{TINY_READ, Upload};
use super::policy::TOO_MANY_SESSIONS;
use super::seat::Seat;
use super::stream::Stream;
use super::submit::{Client, Shared};
use crate::config::ListenerTlsMode;
use crate::listener::draft::Draft;
use crate::mail::{BodyKind, Caller};
use crate::queue::QueueError;
use crate::smtp::{DotReader, Fed, Line, LineEnds, LineReader, Reply};

/// Longest command line in bytes with its line end: 512 (RFC 5321 §4.5.3.1.4) and what extensions
/// add, rounded up.
const MAX_COMMAND: usize = 2048;

/// Read buffer of a session that waits for commands.
const SMALL: usize = TINY_READ;

/// Commands of a session that are served before others have their turn.
const COMMANDS_AT_ONCE: u32 = 16;

/// Replies waiting to be written at most.
const MAX_WAITING: usize = 16 * 1024;

/// Why a session ended before its QUIT.
#[derive(Debug)]
enum End {
    /// The client closed, or the connection broke.
    Gone(io::Error),
    /// We close, and say so.
    Because(Reply),
    /// The dialog is over and everything was said.
    Over,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Gone(error)
    }
}

/// What a session is waiting for, which decides how long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The next command, until then.
    Command(Instant),
    Data,
}

/// At a stop a client before its data that says nothing for so long hears a 421.
pub(super) const GOES_ON: Duration = Duration::from_secs(2);

/// Tells sessions to stop, and how long they may take.
#[derive(Clone, Debug)]
pub(super) struct Stop {
    pub signal: watch::Receiver<bool>,
    pub drain: Duration,
}

impl Stop {
    /// Resolves when it is time to stop; never when nobody is left to say so.
    pub async fn asked(&mut self) {
        if self.signal.wait_for(|stop| *stop).await.is_err() {
            pending::<()>().await;
        }
    }
}

struct Session<S> {
    stream: Stream<S>,
    shared: Arc<Shared>,
    dialog: Dialog,
    lines: LineReader,
    input: Vec<u8>,
    /// Start of what is unread in `input`.
    start: usize,
    output: Vec<u8>,
    /// End of the whole session; comes closer at shutdown.
    deadline: Instant,
    stop: Stop,
    stopping: bool,
    /// The message that comes in by BDAT.
    chunks: Option<Box<Chunks>>,
    /// The memory of the message that comes in.
    upload: Upload,
    began: Instant,
    seat: Seat,
    /// Logins that failed.
    failures: u32,
}

struct Chunks {
    draft: Draft,
    /// `None`: octets are kept.
    ends: Option<LineEnds>,
    failed: Option<QueueError>,
}

/// Runs a session to its end.
pub(super) async fn run<S>(stream: S, caller: Caller, shared: Arc<Shared>, stop: Stop, seat: Seat)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let memory = shared.intake.memory();
    let (upload, _counted) = (memory.upload(caller.ip()), memory.session());
    let began = Instant::now();
    let mut session = Session {
        upload,
        began,
        seat,
        failures: 0,
        stream: Stream::Clear(stream),
        dialog: Dialog::new(shared.clone(), caller),
        lines: LineReader::default(),
        input: Vec::with_capacity(SMALL),
        start: 0,
        output: Vec::new(),
        deadline: began + shared.policy.session_time(caller.ip()),
        stop,
        stopping: false,
        chunks: None,
        shared,
    };
    let lost = session.seat.lost();
    let may_be_lost = session.seat.can_be_lost();
    let end = tokio::select! {
        biased;
        end = session.serve() => end,
        () = lost, if may_be_lost => {
            // Its place is somebody else's already: few hear of that at the same time.
            match session.seat.goodbye() {
                Some(_told) => session.close(Err(End::Because(TOO_MANY_SESSIONS))).await,
                None => debug!(client = %session.dialog.client.caller, "stood still and lost its place"),
            }
            return;
        }
    };
    session.close(end).await;
}

impl<S> Session<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn serve(&mut self) -> Result<(), End> {
        if self.shared.listener.tls.as_ref().is_some_and(|tls| tls.mode == ListenerTlsMode::Implicit) {
            Box::pin(self.handshake()).await?;
        }
        self.dialog.greet(&mut self.output);
        self.flush().await?;
        let mut commands = 0u32;
        loop {
            // A client may pipeline thousands of commands: others have their turn in between.
            commands = commands.wrapping_add(1);
            if commands.is_multiple_of(COMMANDS_AT_ONCE) {
                tokio::task::yield_now().await;
            }
            match self.next_command().await? {
                Next::Command => {}
                Next::Flush => self.flush().await?,
                Next::Greeted => {
                    self.seat.moved();
                    self.flush().await?;
                }
                Next::Data => {
                    self.flush().await?;
                    // Boxed, so that a waiting session has no room for what it does not do.
                    Box::pin(self.data()).await?;
                }
                Next::Chunk { size, last } => Box::pin(self.chunk(size, last)).await?,
                Next::Discard { size, reply } => {
                    self.skip(size).await?;
                    if self.dialog.refuse(&reply, &mut self.output) == Next::Close {
                        return Err(End::Over);
                    }
                }
                Next::Renamed => self.renamed(),
                Next::Auth(login) => Box::pin(self.log_in(*login)).await?,
                Next::External(initial) => Box::pin(self.external(initial)).await?,
                Next::NoLogin(why) => self.no_login(why.mechanism, None, &why.reply)?,
                Next::StartTls => Box::pin(self.start_tls()).await?,
                Next::Close => return Err(End::Over),
            }
            if self.output.len() > MAX_WAITING {
                self.flush().await?;
            }
            if self.dialog.transaction.is_none() {
                self.drop_chunks().await;
            }
        }
    }

    /// A proxy has told whose client this is: it has the time and the memory of that one.
    fn renamed(&mut self) {
        let ip = self.dialog.client.caller.ip();
        self.upload = self.shared.intake.memory().upload(ip);
        if !self.stopping {
            self.deadline = Instant::now() + self.shared.policy.session_time(ip);
        }
    }

    /// Reads and serves one command.
    async fn next_command(&mut self) -> Result<Next, End> {
        let patience = Instant::now() + self.shared.listener.command_timeout;
        loop {
            let waiting = &self.input[self.start..];
            let long = waiting.len() > MAX_COMMAND && self.dialog.has_auth() && is_auth(waiting);
            match self.lines.next(waiting, if long { login::MAX_LINE } else { MAX_COMMAND }) {
                Line::Complete { len, used, crlf } => {
                    let next = self.dialog.command(&waiting[..len], crlf, &mut self.output);
                    if matches!(next, Next::Auth(_) | Next::External(_) | Next::NoLogin(_)) {
                        self.input[self.start..self.start + len].zeroize();
                    }
                    self.start += used;
                    return Ok(next);
                }
                Line::TooLong { used } => {
                    self.start += used;
                    return Ok(self.dialog.too_long(&mut self.output));
                }
                Line::Incomplete { discard } => {
                    self.start += discard;
                    self.fill(Wait::Command(patience)).await?;
                }
            }
        }
    }

    /// Reads message data to its real end, whatever becomes of it, and answers.
    async fn data(&mut self) -> Result<(), End> {
        let Some(tx) = &self.dialog.transaction else { return Ok(()) };
        self.upload.begin(tx.announced);
        let mut draft = self.shared.draft(&self.dialog.client, tx);
        let mut reader = DotReader::new(self.shared.listener.lf_only);
        let mut failed: Option<QueueError> = None;
        loop {
            let fed = reader.feed(&self.input[self.start..], |run| {
                if failed.is_none() {
                    draft.push(run);
                }
            });
            let done = match fed {
                Fed::More => {
                    self.start = self.input.len();
                    false
                }
                Fed::End(used) => {
                    self.start += used;
                    true
                }
            };
            if failed.is_none() {
                failed = spill(&mut self.upload, &self.shared, &mut draft).await.err();
            }
            if done {
                break;
            }
            if let Err(end) = self.read_on(&draft).await {
                self.lost(&mut draft, &end).await;
                return Err(end);
            }
        }
        self.submit(draft, failed).await;
        Ok(())
    }

    /// Reads a chunk (RFC 3030) and answers.
    async fn chunk(&mut self, size: u64, last: bool) -> Result<(), End> {
        let Some(tx) = &self.dialog.transaction else { return Ok(()) };
        self.upload.begin(tx.announced.max(size));
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => {
                let draft = self.shared.draft(&self.dialog.client, tx);
                let ends = (tx.envelope.body != BodyKind::BinaryMime).then(LineEnds::new);
                Box::new(Chunks { draft, ends, failed: None })
            }
        };
        let mut left = size;
        while left > 0 {
            let waiting = &self.input[self.start..];
            let n = waiting.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if n == 0 {
                if let Err(end) = self.read_on(&chunks.draft).await {
                    self.lost(&mut chunks.draft, &end).await;
                    return Err(end);
                }
                continue;
            }
            let Chunks { draft, ends, failed } = &mut *chunks;
            if failed.is_none() {
                match ends {
                    Some(ends) => ends.feed(&waiting[..n], |run| draft.push(run)),
                    None => draft.push_exact(&waiting[..n]),
                }
                *failed = spill(&mut self.upload, &self.shared, draft).await.err();
            }
            self.start += n;
            left -= n as u64;
        }
        let Chunks { draft, ends, failed } = &mut *chunks;
        if last {
            if let (None, Some(ends)) = (failed, ends) {
                ends.finish(|run| draft.push(run));
            }
            let Chunks { draft, failed, .. } = *chunks;
            self.submit(draft, failed).await;
            return self.flush().await;
        }
        if failed.is_some() || draft.refusal().is_some() {
            // The transaction is over; further chunks find no MAIL (RFC 3030 §2).
            let Chunks { draft, failed, .. } = *chunks;
            self.submit(draft, failed).await;
            return Ok(());
        }
        Reply::with(250, "2.0.0", format!("{size} octets received")).write_to(&mut self.output);
        self.chunks = Some(chunks);
        Ok(())
    }

    /// Skips exactly `size` bytes, which are no commands.
    async fn skip(&mut self, size: u64) -> Result<(), End> {
        let mut left = size;
        while left > 0 {
            let waiting = self.input.len() - self.start;
            let n = waiting.min(usize::try_from(left).unwrap_or(usize::MAX));
            if n == 0 {
                self.fill(Wait::Data).await?;
            }
            self.start += n;
            left -= n as u64;
        }
        Ok(())
    }

    /// Queues the message and answers.
    async fn submit(&mut self, draft: Draft, failed: Option<QueueError>) {
        let Some(tx) = self.dialog.transaction.take() else { return };
        self.dialog.reset();
        let forwarded = self.dialog.client.forwarded.take();
        let client = Client { forwarded, ..self.dialog.client.clone() };
        match self.shared.submit(&client, tx, draft, failed).await {
            Ok(accepted) => {
                self.dialog.forgive();
                accepted.write_to(&mut self.output);
            }
            Err(reply) => reply.write_to(&mut self.output),
        }
        self.upload.end();
    }

    /// The client went away inside a message: nothing is queued (RFC 5321 §4.1.1.4).
    async fn lost(&mut self, draft: &mut Draft, end: &End) {
        draft.abandon(self.shared.queue()).await;
        self.upload.end();
        let tx = self.dialog.transaction.as_ref();
        let why = match end {
            End::Gone(error) => error.to_string(),
            End::Because(reply) => reply.to_string(),
            End::Over => "QUIT".to_owned(),
        };
        info!(sender = tx.map_or("", |t| t.envelope.sender()), recipients = tx.map_or(0, |t| t.recipients.len()),
            client = %self.dialog.client.caller, helo = &*self.dialog.client.helo, size = draft.content(), why,
            "disconnected before the end of the message, nothing queued");
    }

    async fn drop_chunks(&mut self) {
        if let Some(mut chunks) = self.chunks.take() {
            chunks.draft.abandon(self.shared.queue()).await;
            self.upload.end();
        }
    }

    /// Writes all replies that wait, in one write.
    async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let expires = (Instant::now() + self.shared.listener.command_timeout).min(self.deadline);
        let written = timeout_at(expires, async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        })
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        self.output.clear();
        self.output.shrink_to(1024);
        Ok(written?)
    }

    /// Says what is left to say and closes.
    async fn close(&mut self, end: Result<(), End>) {
        if let (Some(mut chunks), Err(end)) = (self.chunks.take(), &end) {
            self.lost(&mut chunks.draft, end).await;
        }
        match end {
            Ok(()) | Err(End::Over) => {}
            Err(End::Because(reply)) => {
                debug!(client = %self.dialog.client.caller, helo = &*self.dialog.client.helo, reply = %reply, "session ended by us");
                reply.write_to(&mut self.output);
            }
            Err(End::Gone(error)) => {
                debug!(client = %self.dialog.client.caller, helo = &*self.dialog.client.helo, %error, "client closed the connection");
                if matches!(self.stream, Stream::Tls(_)) {
                    // It may have closed only its side, and wait for ours (RFC 8446 §6.1).
                    let _ = timeout_at(Instant::now() + PATIENCE, self.stream.shutdown()).await;
                }
                return;
            }
        }
        // A session that ran out of time may still say so.
        self.deadline = self.deadline.max(Instant::now() + Duration::from_secs(1));
        if self.flush().await.is_ok() {
            hang_up(&mut self.stream).await;
        }
    }
}

/// The start of a command that may have a long line.
fn is_auth(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

#[cfg(test)]
#[path = "session/stop_tests.rs"]
mod stop_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::draft::tests::NoIntake;
    use crate::listener::tests_config;

    /// A thousand idle sessions must not need more than a few megabytes (invariant 5).
    #[tokio::test]
    async fn an_idle_session_is_small() {
        let shared = Arc::new(Shared::new(Arc::new(tests_config()), "relay.example", NoIntake::shared()));
        let (_client, stream) = tokio::io::duplex(1);
        let (_sender, signal) = watch::channel(false);
        let stop = Stop { signal, drain: Duration::ZERO };
        let task = run(stream, Caller::Ip([127, 0, 0, 1].into()), shared, stop, Seat::default());
        let bytes = std::mem::size_of_val(&task) + SMALL + 1024;
        assert!(bytes < 8 * 1024, "{bytes} bytes");
    }
}
