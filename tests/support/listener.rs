//! A queue and an intake in memory, and a player of SMTP dialogs written as text files.
//!
//! A dialog file (see `tests/dialogs/`): the first line is its title after `# `; then
//!
//! ```text
//! @ key = value     an option of the listener, of the queue or of the client
//! C: text           sends text and CRLF; lines in a row go out in one write
//! C= text           the same without CRLF
//! S: pattern        one reply, its lines joined by " | "; `*` is any text
//! S-EOF             the server closes
//! C-EOF             the client closes its side
//! CONNECT           another connection, the ones before stay open
//! TLS               the client's handshake, and from then on everything is encrypted
//! WAIT 5m           time passes (the dialog then runs on paused time)
//! STOP              the listener is told to stop
//! Q: what it is     what was queued: count, sender, recipients, body, body has, body lacks, chunks
//! ```
//!
//! In C and Q lines `\r \n \t \0 \\ \xNN` are bytes and `{N*text}` is text N times.

// Each test program uses a part of this.
#![allow(dead_code)]

#[path = "identity.rs"]
pub mod identity;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mailweir::clock::{Clock, Timestamp};
use mailweir::config::units::Pattern;
use mailweir::config::{Engine, Listener, ListenerAuth, ListenerTlsMode, StoredPassword, User, Users};
use mailweir::listener::{Intake, Memory as Incoming, Server};
use mailweir::mail::{IdSource, LocalNames, Message, NewMessage, QueueId, Recipient};
use mailweir::queue::{self, QueueError, Spool};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

/// A message that was queued.
#[derive(Clone, Debug)]
pub struct Stored {
    pub message: Message,
    pub recipients: Vec<Recipient>,
    pub body: Vec<u8>,
}

/// What the queue does when asked to store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mood {
    #[default]
    Works,
    Full,
    Broken,
}

/// A queue that keeps everything in memory, as far as a listener needs one.
#[derive(Default)]
pub struct Memory {
    ids: Option<IdSource>,
    pub mood: Mood,
    chunks: Mutex<BTreeMap<(QueueId, u32), Bytes>>,
    pub stored: Mutex<Vec<Stored>>,
}

impl Memory {
    fn works(&self) -> Result<(), QueueError> {
        match self.mood {
            Mood::Works => Ok(()),
            Mood::Full => Err(QueueError::Full("disk full".into())),
            Mood::Broken => Err(QueueError::Unavailable("locked".into())),
        }
    }

    /// Chunks of messages that are neither queued nor coming in.
    pub fn chunks(&self) -> usize {
        self.chunks.lock().len()
    }
}

#[async_trait]
impl Spool for Memory {
    fn next_id(&self, now: Timestamp) -> QueueId {
        self.ids.as_ref().map_or(QueueId(now.0 << 20), |ids| ids.next(now))
    }
    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        self.works()?;
        self.chunks.lock().insert((id, index), chunk);
        Ok(())
    }
    async fn unspill(&self, id: QueueId) {
        self.chunks.lock().retain(|(of, _), _| *of != id);
    }
    async fn accept(&self, _: NewMessage) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
    async fn chunk(&self, _: QueueId, _: u32) -> Result<Option<Bytes>, QueueError> {
        Err(QueueError::Closed)
    }
    async fn probe(&self) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl queue::Memory for Memory {
    async fn remember(&self, _: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
    async fn swap(&self, _: Vec<queue::Swap>) -> Result<bool, QueueError> {
        Err(QueueError::Closed)
    }
    async fn recall(&self, _: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        Err(QueueError::Closed)
    }
}

/// Hands messages to a [`Memory`].
pub struct Inbox {
    pub memory: Arc<Memory>,
    clock: Clock,
    incoming: Arc<Incoming>,
}

impl Inbox {
    pub fn new(mood: Mood, clock: Clock) -> Arc<Inbox> {
        Inbox::with_memory(mood, clock, 64 << 20)
    }

    /// With so many bytes for what comes in.
    pub fn with_memory(mood: Mood, clock: Clock, bytes: u64) -> Arc<Inbox> {
        let memory = Arc::new(Memory { ids: Some(IdSource::new(None)), mood, ..Memory::default() });
        Arc::new(Inbox { memory, clock, incoming: Incoming::new(bytes) })
    }
}

#[async_trait]
impl Intake for Inbox {
    fn spool(&self) -> &dyn Spool {
        &*self.memory
    }
    fn values(&self) -> &dyn queue::Memory {
        &*self.memory
    }
    fn clock(&self) -> Clock {
        self.clock
    }
    fn memory(&self) -> &Arc<Incoming> {
        &self.incoming
    }
    async fn accept(
        &self,
        message: Message,
        recipients: Vec<Recipient>,
        head: Bytes,
        held: Option<Arc<str>>,
    ) -> Result<QueueId, QueueError> {
        assert_eq!(held, None, "nothing can be held here");
        let id = message.id;
        let mut body = head.to_vec();
        let mut chunks = self.memory.chunks.lock();
        for index in 1..message.chunks() {
            body.extend_from_slice(&chunks.remove(&(id, index)).expect("a chunk that was spilled"));
        }
        chunks.retain(|(of, _), _| *of != id);
        self.memory.works()?;
        assert_eq!(body.len() as u64, message.size);
        self.memory.stored.lock().push(Stored { message, recipients, body });
        Ok(id)
    }
}

/// A listener on a free port of the loopback, with room for tests.
pub fn listener() -> Listener {
    Listener {
        address: ([127, 0, 0, 1], 0).into(),
        allow: ["127.0.0.0/8", "::1"].iter().map(|n| n.parse().expect("a network")).collect(),
        max_message_size: 1 << 20,
        max_recipients: 100,
        max_connections: 20,
        session_timeout: Duration::from_secs(3600),
        names: Arc::new(LocalNames::new(HOSTNAME, HOSTNAME)),
        ..Listener::default()
    }
}

pub const HOSTNAME: &str = "relay.example";

/// One line of a dialog file.
#[derive(Clone, Debug)]
enum Step {
    Send(Vec<u8>),
    Reply(String),
    ServerCloses,
    ClientCloses,
    Connect,
    Tls,
    Wait(Duration),
    Stop,
    Queued(String),
}

/// A dialog file.
pub struct Dialog {
    pub name: String,
    pub title: String,
    options: Vec<(String, String)>,
    steps: Vec<(usize, String, Step)>,
}

/// Where a dialog went another way than the file says.
#[derive(Debug)]
pub struct Mismatch {
    pub line: usize,
    /// What the client sent last.
    pub after: String,
    pub expected: String,
    pub got: String,
}

/// How replies are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// With the whole pattern.
    Text,
    /// The three digits only.
    Code,
}

impl Dialog {
    /// Reads all dialogs of a folder, in order of name.
    pub fn load(folder: &Path) -> Vec<Dialog> {
        let mut files: Vec<_> =
            std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "txt"));
        files.sort();
        files.iter().map(|f| Dialog::parse(f)).collect()
    }

    fn parse(file: &Path) -> Dialog {
        let text = std::fs::read_to_string(file).expect("a dialog file");
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let (mut title, mut options, mut steps) = (String::new(), Vec::new(), Vec::new());
        for (i, line) in text.lines().enumerate() {
            let step = if let Some(comment) = line.strip_prefix('#') {
                if title.is_empty() {
                    title = comment.trim().to_owned();
                }
                continue;
            } else if let Some(option) = line.strip_prefix('@') {
                let (key, value) = option.split_once('=').unwrap_or_else(|| panic!("{name}:{}: {line}", i + 1));
                options.push((key.trim().to_owned(), value.trim().to_owned()));
                continue;
            } else if let Some(text) = line.strip_prefix("C:") {
                Step::Send([unescape(text.strip_prefix(' ').unwrap_or(text)).as_slice(), b"\r\n"].concat())
            } else if let Some(text) = line.strip_prefix("C= ") {
                Step::Send(unescape(text))
            } else if let Some(text) = line.strip_prefix("S: ") {
                Step::Reply(text.to_owned())
            } else if let Some(text) = line.strip_prefix("Q: ") {
                Step::Queued(text.to_owned())
            } else if let Some(span) = line.strip_prefix("WAIT ") {
                Step::Wait(parse_span(span))
            } else {
                match line {
                    "" => continue,
                    "S-EOF" => Step::ServerCloses,
                    "C-EOF" => Step::ClientCloses,
                    "CONNECT" => Step::Connect,
                    "TLS" => Step::Tls,
                    "STOP" => Step::Stop,
                    _ => panic!("{name}:{}: {line}", i + 1),
                }
            };
            steps.push((i + 1, line.to_owned(), step));
        }
        assert!(!title.is_empty() && !steps.is_empty(), "{name}: a title and steps");
        Dialog { name, title, options, steps }
    }

    /// It needs paused time or a client of another address, so it cannot run over a socket.
    pub fn needs_paused_time(&self) -> bool {
        self.steps.iter().any(|(_, _, s)| matches!(s, Step::Wait(_))) || self.options.iter().any(|(k, _)| k == "client")
    }

    fn listener(&self, engine: Engine) -> Listener {
        let mut l = Listener { engine, ..listener() };
        for (key, value) in &self.options {
            match key.as_str() {
                "max_message_size" => l.max_message_size = value.parse().expect(value),
                "max_hops" => l.max_hops = value.parse().expect(value),
                "future_release" => l.future_release = Duration::from_secs(value.parse().expect(value)),
                "max_recipients" => l.max_recipients = value.parse().expect(value),
                "max_connections" => l.max_connections = value.parse().expect(value),
                "allow" => l.allow = value.split_whitespace().map(|n| n.parse().expect(value)).collect(),
                "tls" => {
                    l.tls = Some(match value.as_str() {
                        "starttls" => identity::listener_tls(ListenerTlsMode::StartTls, false),
                        "required" => identity::listener_tls(ListenerTlsMode::StartTls, true),
                        "implicit" => identity::listener_tls(ListenerTlsMode::Implicit, false),
                        _ => panic!("{}: tls = {value}", self.name),
                    });
                }
                "auth" => {
                    let word = |auth: &ListenerAuth| auth.as_str() == value;
                    let all = [ListenerAuth::Off, ListenerAuth::Offered, ListenerAuth::Required];
                    l.auth = all.into_iter().find(word).expect(value);
                }
                "users" => l.users = Arc::new(Users::new(value.split_whitespace().map(|user| self.user(user)))),
                "accept_any" => l.accept_any = value == "true",
                "auth_old_line" => l.auth_old_line = value == "true",
                "xclient_from" => l.xclient_from = value.split_whitespace().map(|n| n.parse().expect(value)).collect(),
                "lf_only" => l.lf_only = value == "true",
                "command_timeout" => l.command_timeout = parse_span(value),
                "data_timeout" => l.data_timeout = parse_span(value),
                "session_timeout" => l.session_timeout = parse_span(value),
                "dedupe" => l.dedupe = parse_span(value),
                "queue" | "client" | "stored" | "senders" | "user_size" => {}
                _ => panic!("{}: no such option: {key}", self.name),
            }
        }
        l
    }

    /// `name:password`, stored as the options say.
    fn user(&self, text: &str) -> User {
        let (name, password) = text.split_once(':').expect("name:password");
        let stored = match self.option("stored") {
            Some("argon2") => StoredPassword::hash(password),
            Some("scram") => StoredPassword::scram(password),
            _ => Ok(password.to_owned()),
        };
        let stored = StoredPassword::parse(&stored.expect("a hash"), true).expect("a password");
        let senders = self.option("senders").unwrap_or_default().split_whitespace();
        let senders = senders.map(Pattern::new).collect();
        let max_message_size = self.option("user_size").map_or(0, |size| size.parse().expect("bytes"));
        User { senders, max_message_size, ..User::new(name, stored) }
    }

    fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Plays the dialog against an engine in a runtime of its own.
    pub fn play(&self, engine: Engine, compare: Compare) -> Result<(), Mismatch> {
        let paused = self.needs_paused_time();
        let runtime = if paused {
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
        } else {
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
        };
        runtime.expect("a runtime").block_on(async {
            let mood = match self.option("queue") {
                Some("full") => Mood::Full,
                Some("broken") => Mood::Broken,
                _ => Mood::Works,
            };
            let clock = if paused { Clock::for_tests() } else { Clock::System };
            let inbox = Inbox::new(mood, clock);
            let server = match Server::bind(Arc::new(self.listener(engine)), HOSTNAME, inbox.clone()) {
                Ok(server) => server,
                Err(error) => {
                    let expected = "the listener starts".to_owned();
                    return Err(Mismatch { line: 0, after: String::new(), expected, got: error.to_string() });
                }
            };
            let (stop, stopped) = watch::channel(false);
            let drain = Duration::from_secs(5);
            let result;
            if paused {
                let server = Arc::new(server);
                let ip: IpAddr = self.option("client").unwrap_or("127.0.0.1").parse().expect("an address");
                let connect = || {
                    let (ours, theirs) = tokio::io::duplex(64 * 1024);
                    let (server, stopped) = (server.clone(), stopped.clone());
                    tokio::spawn(async move { server.serve(theirs, ip, stopped, drain).await });
                    std::future::ready(Box::new(ours) as Box<dyn Link>)
                };
                result = self.run(connect, None, compare, &inbox.memory, &stop).await;
            } else {
                let address = server.local_addr().expect("an address");
                let serving = tokio::spawn(server.run(stopped, drain));
                let connect = || async move {
                    Box::new(tokio::net::TcpStream::connect(address).await.expect("a connection")) as Box<dyn Link>
                };
                let patience = if compare == Compare::Text { 10 } else { 4 };
                result = self.run(connect, Some(Duration::from_secs(patience)), compare, &inbox.memory, &stop).await;
                stop.send_replace(true);
                serving.await.expect("no panic").expect("a clean end");
            }
            result
        })
    }

    async fn run<F, Fut>(
        &self,
        connect: F,
        patience: Option<Duration>,
        compare: Compare,
        memory: &Memory,
        stop: &watch::Sender<bool>,
    ) -> Result<(), Mismatch>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Box<dyn Link>>,
    {
        let mut links = vec![Peer::new(connect().await)];
        let (mut batch, mut after) = (Vec::new(), "connect".to_owned());
        for (line, text, step) in &self.steps {
            let link = links.last_mut().expect("a connection");
            if let Step::Send(bytes) = step {
                batch.extend_from_slice(bytes);
                after.clone_from(text);
                continue;
            }
            if !batch.is_empty() {
                // The server may have closed already; the next reply tells.
                let _ = link.stream.write_all(&std::mem::take(&mut batch)).await;
            }
            let mismatch = |expected: &str, got: String| {
                Err(Mismatch { line: *line, after: after.clone(), expected: expected.to_owned(), got })
            };
            match step {
                Step::Send(_) => {}
                Step::Reply(pattern) => {
                    let got = link.reply(patience).await;
                    let same = match compare {
                        Compare::Text => Pattern::new(pattern).matches(&got),
                        // The lines of a reply matter where the file has them.
                        Compare::Code if pattern.contains(" | ") => Pattern::new(pattern).matches(&got),
                        Compare::Code => got.get(..3) == pattern.get(..3),
                    };
                    if !same {
                        return mismatch(pattern, got);
                    }
                }
                Step::ServerCloses => {
                    let got = link.reply(patience).await;
                    if got != "closed" {
                        return mismatch("closed", got);
                    }
                }
                Step::ClientCloses => {
                    let _ = link.stream.shutdown().await;
                }
                Step::Tls => {
                    if let Err(error) = link.encrypt().await {
                        return mismatch("TLS", error.to_string());
                    }
                }
                Step::Connect => links.push(Peer::new(connect().await)),
                Step::Wait(span) => tokio::time::sleep(*span).await,
                Step::Stop => {
                    stop.send_replace(true);
                }
                Step::Queued(what) => {
                    if let Err(got) = check(memory, what) {
                        return mismatch(what, got);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Any connection.
pub trait Link: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Link for T {}

struct Peer {
    stream: Box<dyn Link>,
    input: Vec<u8>,
}

impl Peer {
    fn new(stream: Box<dyn Link>) -> Peer {
        Peer { stream, input: Vec::new() }
    }

    /// Does the client's handshake, over the same connection.
    async fn encrypt(&mut self) -> std::io::Result<()> {
        assert!(self.input.is_empty(), "replies before TLS: {}", self.input.escape_ascii());
        let clear = std::mem::replace(&mut self.stream, Box::new(tokio::io::duplex(1).0));
        let connector = tokio_rustls::TlsConnector::from(identity::client());
        self.stream = Box::new(connector.connect(identity::server_name(), clear).await?);
        Ok(())
    }

    /// The next reply, its lines joined; `closed`, or `no reply`.
    async fn reply(&mut self, patience: Option<Duration>) -> String {
        let mut lines: Vec<String> = Vec::new();
        loop {
            while let Some(end) = self.input.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).into_owned();
                assert!(line.ends_with("\r\n"), "a reply ends in CRLF: {line:?}");
                let last = line.as_bytes().get(3) != Some(&b'-');
                lines.push(line.trim_end().to_owned());
                if last {
                    return lines.join(" | ");
                }
            }
            let read = self.stream.read_buf(&mut self.input);
            let read = match patience {
                Some(patience) => match tokio::time::timeout(patience, read).await {
                    Ok(read) => read,
                    Err(_) => return "no reply".into(),
                },
                None => read.await,
            };
            if !matches!(read, Ok(1..)) {
                return "closed".into();
            }
        }
    }
}

/// Checks what was queued; the error is what it is instead.
fn check(memory: &Memory, what: &str) -> Result<(), String> {
    let stored = memory.stored.lock();
    let (key, value) = what.split_once(' ').expect("Q: key value");
    if key == "count" {
        return if stored.len().to_string() == value { Ok(()) } else { Err(format!("{} queued", stored.len())) };
    }
    if key == "chunks" {
        let chunks = memory.chunks();
        return if chunks.to_string() == value { Ok(()) } else { Err(format!("{chunks} chunks left over")) };
    }
    let Some(last) = stored.last() else { return Err("nothing queued".into()) };
    let envelope = &last.message.envelope;
    let got = match key {
        "sender" => format!("<{}>", envelope.sender()),
        "recipients" => last.recipients.iter().map(|r| r.address.to_string()).collect::<Vec<_>>().join(" "),
        "tls" => format!("{:?}", envelope.tls),
        "envelope" => format!(
            "{:?} utf8={} ret={:?} envid={} priority={}",
            envelope.body,
            envelope.smtputf8,
            envelope.ret,
            envelope.envid.as_deref().unwrap_or("-"),
            envelope.priority
        ),
        "dsn" => last
            .recipients
            .iter()
            .map(|r| {
                let orcpt = r.orcpt.as_ref().map_or("-".to_owned(), |o| format!("{};{}", o.kind, o.address));
                format!("{:04b} {orcpt}", r.notify.to_bits())
            })
            .collect::<Vec<_>>()
            .join(" "),
        "body" => {
            let (how, text) = value.split_once(' ').expect("Q: body has/lacks/ends text");
            let text = unescape(text);
            let found = match how {
                "has" => memchr::memmem::find(&last.body, &text).is_some(),
                "lacks" => memchr::memmem::find(&last.body, &text).is_none(),
                "ends" => last.body.ends_with(&text),
                _ => panic!("{what}"),
            };
            let end = last.body.len().saturating_sub(300);
            if found {
                return Ok(());
            }
            // Queue ids are new each time.
            let shown = last.body[end..].escape_ascii().to_string();
            return Err(format!("…{}", shown.replace(&last.message.id.to_string(), "ID")));
        }
        _ => panic!("{what}"),
    };
    if got == value { Ok(()) } else { Err(got) }
}

fn parse_span(text: &str) -> Duration {
    let (n, unit) = text.split_at(text.len() - 1);
    let n: u64 = n.parse().expect(text);
    Duration::from_secs(match unit {
        "s" => n,
        "m" => n * 60,
        "h" => n * 3600,
        _ => panic!("{text}"),
    })
}

/// Escapes and repetitions.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let mut used = c.len_utf8();
        if c == '\\' {
            let escape = rest.as_bytes()[1];
            used = 2;
            match escape {
                b'r' => out.push(b'\r'),
                b'n' => out.push(b'\n'),
                b't' => out.push(b'\t'),
                b'0' => out.push(0),
                b'x' => {
                    out.push(u8::from_str_radix(&rest[2..4], 16).expect("two hexadecimal digits"));
                    used = 4;
                }
                other => out.push(other),
            }
        } else if let Some((n, (unit, end))) =
            rest.strip_prefix('{').and_then(|r| r.split_once('*')).and_then(|(n, r)| {
                Some((n.parse::<usize>().ok()?, (r.split_once('}')?.0, rest.len() - r.split_once('}')?.1.len())))
            })
        {
            out.extend(unescape(unit).repeat(n));
            used = end;
        } else {
            out.extend_from_slice(&rest.as_bytes()[..used]);
        }
        rest = &rest[used..];
    }
    out
}
