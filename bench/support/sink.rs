//! A receiver that counts: PIPELINING, CHUNKING and 8BITMIME, STARTTLS if it has a certificate.
//!
//! A recipient `probe-N@…` has the time of its receipt noted under N, so that single messages can be
//! followed among many. With a delay every flight of replies leaves so much later than its commands
//! came, as over a link with that round trip; commands that were pipelined are answered together.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mailweir::deliver::Io;
use memchr::memmem;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{HandshakeKind, ServerConfig};

use super::now_nanos;

/// Bytes of input that are looked at at once.
const BUFFER: usize = 64 * 1024;

/// How it behaves.
#[derive(Clone, Default)]
pub struct Options {
    /// Replies leave so much later.
    pub delay: Duration,
    /// Offers STARTTLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// The port; 0 lets the system choose.
    pub port: u16,
}

/// What it saw since it started.
#[derive(Default)]
pub struct Seen {
    /// Messages.
    pub messages: AtomicU64,
    last: AtomicU64,
    /// Connections.
    pub connections: AtomicU64,
    /// Connections open now.
    pub open: AtomicU64,
    /// Connections open at once.
    pub most_open: AtomicU64,
    /// Handshakes in which a session was resumed.
    pub resumed: AtomicU64,
    /// The other handshakes.
    pub full: AtomicU64,
    probes: Mutex<HashMap<u64, u64>>,
}

impl Seen {
    /// Messages so far.
    pub fn count(&self) -> u64 {
        self.messages.load(Ordering::SeqCst)
    }

    /// When the last message came, on [`now_nanos`]'s clock.
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// When the probe came; takes it out.
    pub fn take_probe(&self, number: u64) -> Option<u64> {
        self.probes.lock().remove(&number)
    }

    /// Waits until that many messages came, at most `limit`; how many came.
    pub fn wait(&self, messages: u64, limit: Duration) -> u64 {
        let began = Instant::now();
        while self.count() < messages && began.elapsed() < limit {
            thread::sleep(Duration::from_millis(1));
        }
        self.count()
    }
}

/// A receiver that runs as long as the program does.
pub struct Sink {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it saw.
    pub seen: Arc<Seen>,
}

struct Shared {
    options: Options,
    seen: Arc<Seen>,
}

impl Sink {
    /// Starts it on a thread of its own.
    pub fn start(options: Options) -> io::Result<Sink> {
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        listener.set_reuse_address(true)?;
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], options.port)).into())?;
        listener.listen(4096)?;
        listener.set_nonblocking(true)?;
        let listener: std::net::TcpListener = listener.into();
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen::default());
        let shared = Arc::new(Shared { options, seen: seen.clone() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("sink".into()).spawn(move || {
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        let seen = &shared.seen;
                        seen.connections.fetch_add(1, Ordering::SeqCst);
                        let open = seen.open.fetch_add(1, Ordering::SeqCst) + 1;
                        seen.most_open.fetch_max(open, Ordering::SeqCst);
                        let _ = serve(stream, &shared).await;
                        seen.open.fetch_sub(1, Ordering::SeqCst);
                    });
                }
                #[allow(unreachable_code)]
                io::Result::Ok(())
            })
        })?;
        Ok(Sink { address, seen })
    }
}

/// How a dialog ended.
enum End {
    Over,
    StartTls,
}

async fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session::new(stream, shared, shared.options.tls.is_some());
    session.say(b"220 sink.example ESMTP\r\n");
    if let End::StartTls = session.talk().await? {
        let Some(config) = &shared.options.tls else { return Ok(()) };
        session.flush().await?;
        let stream = TlsAcceptor::from(config.clone()).accept(session.stream).await?;
        let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
        let counter = if resumed { &shared.seen.resumed } else { &shared.seen.full };
        counter.fetch_add(1, Ordering::SeqCst);
        let mut session = Session::new(stream, shared, false);
        session.talk().await?;
        let _ = session.stream.shutdown().await;
    }
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
                "RCPT" => {
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
                    if last {
                        self.received();
                    }
                    self.say(b"250 2.0.0 Ok\r\n");
                }
                "DATA" => {
                    self.say(b"354 go on\r\n");
                    if !self.data().await? {
                        return Ok(End::Over);
                    }
                    self.received();
                    self.say(b"250 2.0.0 Ok\r\n");
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

    fn received(&mut self) {
        let (seen, now) = (&self.shared.seen, now_nanos());
        seen.last.fetch_max(now, Ordering::SeqCst);
        if !self.probes.is_empty() {
            let mut probes = seen.probes.lock();
            probes.extend(self.probes.drain(..).map(|number| (number, now)));
        }
        seen.messages.fetch_add(1, Ordering::SeqCst);
    }
}
