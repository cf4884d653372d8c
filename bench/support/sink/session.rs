//! One session of the receiver.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailweir::deliver::Io;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::HandshakeKind;

use super::super::now_nanos;
use super::{Faults, Shared};

/// Bytes of input that are looked at at once.
const BUFFER: usize = 64 * 1024;

/// How a dialog ended.
enum End {
    Over,
    StartTls,
    Reset,
}

/// The connection goes away with RST as soon as it is dropped.
fn reset(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
}

/// Speaks with a client until it leaves or is thrown out.
pub(super) async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, shared, shared.options.tls.is_some());
    session.say(b"220 sink.example ESMTP\r\n");
    match session.talk().await? {
        End::Over => return Ok(()),
        End::Reset => return reset(&session.stream),
        End::StartTls => session.flush().await?,
    }
    let Some(config) = &shared.options.tls else { return Ok(()) };
    let stream = TlsAcceptor::from(config.clone()).accept(session.stream).await?;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    let counter = if resumed { &shared.seen.resumed } else { &shared.seen.full };
    counter.fetch_add(1, Ordering::SeqCst);
    let mut session = Session::new(stream, shared, false);
    if let End::Reset = session.talk().await? {
        return reset(session.stream.get_ref().0);
    }
    let _ = session.stream.shutdown().await;
    Ok(())
}

struct Session<'a, S> {
    stream: S,
    shared: &'a Shared,
    starttls: bool,
    input: Vec<u8>,
    /// Start of what is unread in `input`.
    start: usize,
    output: Vec<u8>,
    /// Flights of replies on their way.
    travelling: VecDeque<(tokio::time::Instant, Vec<u8>)>,
    /// Recipients of the transaction that got 250, and the numbers of the probes among them.
    recipients: usize,
    probes: Vec<u64>,
}

impl<'a, S: Io> Session<'a, S> {
    fn new(stream: S, shared: &'a Shared, starttls: bool) -> Self {
        Session {
            stream,
            shared,
            starttls,
            input: Vec::with_capacity(4096),
            start: 0,
            output: Vec::new(),
            travelling: VecDeque::new(),
            recipients: 0,
            probes: Vec::new(),
        }
    }

    fn say(&mut self, reply: &[u8]) {
        self.output.extend_from_slice(reply);
    }

    /// Sends what was said so far, now or when its time comes.
    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        if self.shared.options.delay.is_zero() {
            self.stream.write_all(&self.output).await?;
            self.output.clear();
            // TLS keeps what the socket did not take.
            return self.stream.flush().await;
        }
        let due = tokio::time::Instant::now() + self.shared.options.delay;
        self.travelling.push_back((due, std::mem::take(&mut self.output)));
        Ok(())
    }

    /// More input; false at its end.
    async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.input.drain(..self.start);
        self.start = 0;
        self.input.reserve(if self.input.capacity() > 4096 || !self.input.is_empty() { BUFFER } else { 4096 });
        loop {
            let Some((due, _)) = self.travelling.front() else {
                return Ok(self.stream.read_buf(&mut self.input).await? > 0);
            };
            tokio::select! {
                read = self.stream.read_buf(&mut self.input) => return Ok(read? > 0),
                () = tokio::time::sleep_until(*due) => {
                    if let Some((_, replies)) = self.travelling.pop_front() {
                        self.stream.write_all(&replies).await?;
                    }
                }
            }
        }
    }

    async fn talk(&mut self) -> io::Result<End> {
        loop {
            let waiting = self.input.get(self.start..).unwrap_or_default();
            let Some(end) = memchr::memchr(b'\n', waiting) else {
                if waiting.len() > BUFFER || !self.fill().await? {
                    return Ok(End::Over);
                }
                continue;
            };
            let line = waiting.get(..end).unwrap_or_default().to_ascii_uppercase();
            self.start += end + 1;
            let line = String::from_utf8_lossy(&line);
            match line.get(..4).unwrap_or_default() {
                "EHLO" => {
                    self.say(b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n");
                    if self.starttls {
                        self.say(b"250-STARTTLS\r\n");
                    }
                    self.say(b"250 CHUNKING\r\n");
                }
                "STAR" if self.starttls => {
                    self.say(b"220 2.0.0 go on\r\n");
                    return Ok(End::StartTls);
                }
                "MAIL" | "RSET" => {
                    self.recipients = 0;
                    self.probes.clear();
                    self.say(b"250 2.0.0 Ok\r\n");
                }
                "RCPT" if self.strikes(|faults| faults.refuse) => self.say(b"450 4.2.0 not now\r\n"),
                "RCPT" => {
                    self.recipients += 1;
                    let number = line.split_once("<PROBE-").and_then(|(_, rest)| rest.split_once('@'));
                    self.probes.extend(number.and_then(|(number, _)| number.parse::<u64>().ok()));
                    self.say(b"250 2.1.5 Ok\r\n");
                }
                "BDAT" => {
                    let mut words = line.split_whitespace().skip(1);
                    let size: u64 = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
                    let last = words.next() == Some("LAST");
                    if !self.skip(size).await? {
                        return Ok(End::Over);
                    }
                    if self.recipients == 0 {
                        self.say(b"503 5.5.1 nobody to take it\r\n");
                    } else if !last {
                        self.say(b"250 2.0.0 Ok\r\n");
                    } else if !self.finish().await? {
                        return Ok(End::Reset);
                    }
                }
                "DATA" if self.recipients == 0 => self.say(b"503 5.5.1 nobody to take it\r\n"),
                "DATA" => {
                    self.say(b"354 go on\r\n");
                    if !self.data().await? {
                        return Ok(End::Over);
                    }
                    if !self.finish().await? {
                        return Ok(End::Reset);
                    }
                }
                "QUIT" => {
                    self.say(b"221 2.0.0 Bye\r\n");
                    self.flush().await?;
                    while !self.travelling.is_empty() && self.fill().await? {}
                    return Ok(End::Over);
                }
                _ => self.say(b"250 2.0.0 Ok\r\n"),
            }
        }
    }

    async fn skip(&mut self, mut left: u64) -> io::Result<bool> {
        loop {
            let here = (self.input.len() - self.start) as u64;
            let taken = here.min(left);
            self.start += usize::try_from(taken).unwrap_or(0);
            left -= taken;
            if left == 0 {
                return Ok(true);
            }
            if !self.fill().await? {
                return Ok(false);
            }
        }
    }

    /// Reads up to the dot line.
    async fn data(&mut self) -> io::Result<bool> {
        // The reply to DATA goes out before the body can come.
        while self.input.len() - self.start < 3 {
            if !self.fill().await? {
                return Ok(false);
            }
        }
        if self.input.get(self.start..).is_some_and(|rest| rest.starts_with(b".\r\n")) {
            self.start += 3;
            return Ok(true);
        }
        loop {
            let waiting = self.input.get(self.start..).unwrap_or_default();
            if let Some(at) = memmem::find(waiting, b"\r\n.\r\n") {
                self.start += at + 5;
                return Ok(true);
            }
            // The end may begin in what is here.
            self.start += waiting.len().saturating_sub(4);
            if !self.fill().await? {
                return Ok(false);
            }
        }
    }

    /// Whether a fault happens here.
    fn strikes(&self, share: impl Fn(&Faults) -> f64) -> bool {
        let faults = &self.shared.options.faults;
        let strikes = faults.strikes(share(faults));
        if strikes {
            self.shared.seen.faults.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }

    /// A whole message is here and gets its reply; false if it gets a reset instead.
    async fn finish(&mut self) -> io::Result<bool> {
        self.recipients = 0;
        if self.strikes(|faults| faults.reset) {
            return Ok(false);
        }
        if self.strikes(|faults| faults.fail) {
            self.probes.clear();
            self.say(b"451 4.3.0 not now\r\n");
            return Ok(true);
        }
        self.received();
        if self.strikes(|faults| faults.slow) {
            tokio::time::sleep(self.shared.options.faults.slow_by).await;
        }
        self.say(b"250 2.0.0 Ok\r\n");
        Ok(true)
    }

    fn received(&mut self) {
        let (seen, now) = (&self.shared.seen, now_nanos());
        seen.last.fetch_max(now, Ordering::SeqCst);
        if !self.probes.is_empty() {
            let mut probes = seen.probes.lock();
            // The first receipt is the one that counts.
            self.probes.drain(..).for_each(|number| _ = probes.entry(number).or_insert(now));
        }
        seen.messages.fetch_add(1, Ordering::SeqCst);
    }
}
