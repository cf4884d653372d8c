//! The socket of one connection with its buffers and time-outs.
//!
//! Writing never blocks reading: while the peer takes no more, what it says is taken in, so that
//! neither side waits for the other (RFC 2920 §3.1 warns of that), and a refusal in mid-body is
//! heard. The first thing that breaks the connection is kept; replies that came before it are
//! handed out first.
//!
//! Bounded: the parser bounds a reply, and a peer that sends more replies than there are commands
//! is given up as unintelligible.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout, timeout_at};

use super::fact::{Event, Reply};
use super::reply::{Received, ReplyParser};
use super::said::Said;
use crate::config::Redactor;

/// What a session can run over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Bytes taken from the socket at once.
const READ: usize = 8 * 1024;
/// A buffer that grew over this is given back after the flight.
const KEEP: usize = 64 * 1024;

/// What a peer may still say to a connection that is being closed, in bytes; one that never ends is cut off.
const THROWN_AWAY: usize = 256 * 1024;

/// Bytes a second that a peer takes at least, beside its time without progress: else one that takes a
/// byte now and then would hold a connection for days.
const SLOWEST: u64 = 500;

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// Everything is out.
    All,
    /// Not everything: the peer answered first, or the connection broke. [`Wire::read`] tells.
    Early,
}

/// See the module.
pub struct Wire {
    io: Box<dyn Io>,
    input: Box<[u8]>,
    parser: ReplyParser,
    replies: VecDeque<Received>,
    /// Replies that the commands sent so far may still bring.
    expected: usize,
    broken: Option<Event>,
    /// What the replies that were read so far said.
    said: Said,
    /// Commands of the flight being put together; reused.
    pub out: Vec<u8>,
}

/// What one look at the socket brought.
enum Step {
    Done,
    Progress,
    Stop,
}

impl Wire {
    /// Over a connected stream; one reply (the greeting) may come unasked. Replies are kept as
    /// `redactor` leaves them.
    pub fn new(io: Box<dyn Io>, redactor: &Redactor) -> Wire {
        Wire {
            io,
            input: vec![0; READ].into_boxed_slice(),
            parser: ReplyParser::new(redactor.clone()),
            replies: VecDeque::new(),
            expected: 1,
            broken: None,
            said: Said::default(),
            out: Vec::with_capacity(1024),
        }
    }

    /// The stream again, to put TLS on it. Only when nothing [`Wire::is_pending`].
    pub fn into_io(self) -> Box<dyn Io> {
        self.io
    }

    /// Whether replies keep their raw lines.
    pub fn keep_lines(&mut self, keep: bool) {
        self.parser.keep_lines(keep);
    }

    /// The peer said more than what has been read: a reply nobody asked for, or a part of one.
    pub fn is_pending(&self) -> bool {
        !self.replies.is_empty() || !self.parser.is_idle()
    }

    /// The connection is closed, timed out or unintelligible.
    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Without waiting: whether the peer has closed, said something, or broken.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if !self.is_broken() && !self.is_pending() {
            let _ = self.poll_read(&mut cx);
        }
        !self.is_broken() && !self.is_pending()
    }

    /// Without waiting: whether a reply lies there that no command asked for, other than a 421.
    pub fn has_stray(&mut self) -> bool {
        !self.is_quiet() && self.replies.front().is_some_and(|r| r.reply.code != 421)
    }

    /// Without waiting: takes the reply that lies there and that no command asked for, other than a 421.
    pub fn take_stray(&mut self) -> Option<Reply> {
        if self.has_stray() { self.replies.pop_front().map(|received| received.reply) } else { None }
    }

    /// Before the first command of a session, or between those that set it up: a success that lies there answers nothing.
    pub fn pass_over(&mut self) {
        if self.has_stray() && self.stray().is_some_and(Reply::is_positive) {
            self.replies.pop_front();
        }
    }

    /// The reply that lies there and that no command asked for, as far as it was taken in.
    pub fn stray(&self) -> Option<&Reply> {
        self.replies.front().map(|received| &received.reply)
    }

    /// Without waiting: whether the reply that lies there next has another sign than this one.
    pub fn has_opposite_of(&mut self, reply: &Reply) -> bool {
        !self.is_quiet() && self.stray().is_some_and(|other| contradict(reply, other))
    }

    /// Whether the host has said exactly this before on this connection.
    pub fn has_said(&self, reply: &Reply) -> bool {
        self.said.has(reply)
    }

    /// A host that repeats itself may say so many more than it is asked for.
    pub fn bear(&mut self, replies: usize) {
        self.expected = self.expected.max(self.replies.len()).saturating_add(replies);
    }

    /// All that was asked for has come.
    pub fn bear_no_more(&mut self) {
        self.expected = 0;
    }

    /// What was read last may be said again.
    pub fn may_say_again(&mut self, reply: &Reply) {
        self.said.forget(reply);
    }

    /// The reply to EHLO, which has several lines.
    pub fn note_hello(&mut self, reply: &Reply) {
        self.said.note_hello(reply);
    }

    /// Whether that is said again.
    pub fn is_hello_again(&self, reply: &Reply) -> bool {
        self.said.is_hello(reply)
    }

    /// Without waiting: whether a success lies there that nothing was waited for.
    pub fn has_success(&mut self) -> bool {
        !self.is_quiet() && self.replies.iter().any(|received| received.reply.is_positive())
    }

    /// Waits for up to `limit` for something that nobody asked for; true: the peer has said nothing, and not closed.
    pub async fn stays_quiet(&mut self, limit: Duration) -> bool {
        if self.is_quiet() {
            let _ = timeout(limit, poll_fn(|cx| self.poll_read(cx))).await;
        }
        self.is_quiet()
    }

    /// Writes the commands in `out`, then `rest`; `replies` more may be expected from now on.
    /// Fails (`Early`) after `limit` without progress, when the peer takes less than [`SLOWEST`] over
    /// longer than `limit`, or as soon as `stop_at` replies wait.
    pub async fn write(&mut self, rest: &[&[u8]], replies: usize, stop_at: usize, limit: Duration) -> Written {
        self.expected = self.expected.max(self.replies.len()).saturating_add(replies);
        let commands = std::mem::take(&mut self.out);
        let mut parts: [&[u8]; 4] = [&commands, &[], &[], &[]];
        for (slot, part) in parts[1..].iter_mut().zip(rest) {
            *slot = part;
        }
        let total: usize = parts.iter().map(|p| p.len()).sum();
        let whole = limit.saturating_add(Duration::from_secs(total as u64 / SLOWEST));
        let (began, mut done) = (Instant::now(), 0);
        let written = loop {
            if self.is_broken() {
                break Written::Early;
            }
            let left = whole.saturating_sub(began.elapsed());
            let step = poll_fn(|cx| self.poll_write(cx, &parts, total, &mut done, stop_at));
            match timeout(limit.min(left), step).await {
                Ok(Step::Done) => break Written::All,
                Ok(Step::Progress) => {}
                Ok(Step::Stop) => break Written::Early,
                Err(_) => {
                    self.broken = Some(Event::Timeout(if left < limit { whole } else { limit }));
                    break Written::Early;
                }
            }
        };
        self.out = commands;
        self.out.clear();
        if self.out.capacity() > KEEP {
            self.out = Vec::with_capacity(1024);
        }
        written
    }

    /// The next reply, waiting at most `limit` for all of it.
    pub async fn read(&mut self, limit: Duration) -> Result<Received, Event> {
        let mut deadline: Option<Instant> = None;
        loop {
            if let Some(mut received) = self.replies.pop_front() {
                self.expected = self.expected.saturating_sub(1);
                received.again = self.said.again(&received.reply);
                return Ok(received);
            }
            if let Some(event) = &self.broken {
                return Err(event.clone());
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limit);
            if timeout_at(deadline, poll_fn(|cx| self.poll_read(cx))).await.is_err() {
                self.broken = Some(Event::Timeout(limit));
            }
        }
    }

    /// Ends the connection from this side and waits up to `limit` for the peer to end it too: until
    /// then the peer counts it. What it still says is thrown away.
    pub async fn close(&mut self, limit: Duration) {
        let ended = async {
            if self.io.shutdown().await.is_ok() {
                let mut left = THROWN_AWAY;
                while let Ok(n @ 1..) = self.io.read(&mut self.input).await {
                    left = left.saturating_sub(n);
                    if left == 0 {
                        break;
                    }
                }
            }
        };
        let _ = timeout(limit, ended).await;
    }

    /// What the host says from now on is kept as this leaves it, too: it is to hear another secret.
    pub fn redact_also(&mut self, redactor: &Redactor) {
        self.parser.redact_also(redactor);
    }

    /// What a host said in another form than a reply's text, as it may be kept.
    pub fn redacted(&self, text: String) -> String {
        self.parser.redacted(text)
    }

    /// Overwrites the printed commands, for those that carried a secret.
    pub fn wipe(&mut self) {
        let spare = self.out.capacity();
        self.out.clear();
        self.out.resize(spare, 0);
        self.out.clear();
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[&[u8]; 4],
        total: usize,
        done: &mut usize,
        stop_at: usize,
    ) -> Poll<Step> {
        let start = *done;
        loop {
            let result = if *done == total {
                match Pin::new(&mut self.io).poll_flush(cx) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Step::Done),
                    Poll::Ready(Err(e)) => Err(e),
                    Poll::Pending => break,
                }
            } else {
                let slices = remaining(parts, *done);
                match Pin::new(&mut self.io).poll_write_vectored(cx, &slices) {
                    Poll::Ready(Ok(0)) => Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(n)) => {
                        *done += n;
                        Ok(())
                    }
                    Poll::Ready(Err(e)) => Err(e),
                    Poll::Pending => break,
                }
            };
            if let Err(e) = result {
                // A peer that hangs up on us often said why before.
                while let Poll::Ready(()) = self.poll_read(cx) {
                    if self.is_broken() {
                        break;
                    }
                }
                self.broken.get_or_insert_with(|| event_of(&e));
                return Poll::Ready(Step::Stop);
            }
        }
        // The peer takes no more for now: hear what it has to say.
        loop {
            let over = self.replies.len() >= stop_at || self.replies.back().is_some_and(|r| r.reply.code == 421);
            if over || self.is_broken() {
                return Poll::Ready(Step::Stop);
            }
            if self.poll_read(cx).is_pending() {
                break;
            }
        }
        if *done > start { Poll::Ready(Step::Progress) } else { Poll::Pending }
    }

    /// Reads once; ready when something came in or broke.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut buf = ReadBuf::new(&mut self.input);
        let read = Pin::new(&mut self.io).poll_read(cx, &mut buf);
        match read {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(e)) => self.broken = Some(event_of(&e)),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => self.broken = Some(Event::Closed),
            Poll::Ready(Ok(())) => {
                if let Err(why) = self.parser.feed(buf.filled(), &mut self.replies) {
                    self.broken = Some(Event::Garbled(why));
                } else if self.replies.len() > self.expected.saturating_add(1) {
                    // One more than expected may be a 421.
                    self.broken = Some(Event::Garbled("more replies than commands".to_owned()));
                }
            }
        }
        Poll::Ready(())
    }
}

fn remaining<'a>(parts: &[&'a [u8]; 4], mut skip: usize) -> [IoSlice<'a>; 4] {
    parts.map(|part| {
        let n = skip.min(part.len());
        skip -= n;
        IoSlice::new(&part[n..])
    })
}

/// One takes the message, the other does not. A 421 says that the host leaves, and a 3yz answers no message.
pub fn contradict(reply: &Reply, other: &Reply) -> bool {
    reply.is_positive() != other.is_positive() && !matches!(other.code, 421 | 300..=399)
}

/// An I/O error as a fact: whatever means that the peer is gone is [`Event::Closed`].
pub fn event_of(e: &io::Error) -> Event {
    use io::ErrorKind::*;
    match e.kind() {
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof | NotConnected | WriteZero => Event::Closed,
        _ => match e.get_ref().and_then(|inner| inner.downcast_ref::<tokio_rustls::rustls::Error>()) {
            Some(tls) => Event::Tls(tls.to_string()),
            None => Event::Io(e.to_string()),
        },
    }
}
