//! The second engine: mailin-embedded, behind the same policy, bodies and queue.
//!
//! mailin parses and answers; it knows no limits, cannot be stopped, keeps no account of who is
//! connected, and takes a bare LF for a line end. So nobody talks to it directly:
//!
//! ```text
//!  client ──► gate (this file, tokio) ──► mailin on a private loopback port ──► Hook ──► submit
//!             who, how many, how long,     one thread a session                policy, body,
//!             line length, shutdown                                            bare LF
//! ```
//!
//! - The private port lets in the gate alone ([`door`]). The gate opens each session with `EHLO` and
//!   a random ticket, by which the [`Hook`] finds the real client; it serves nobody without one.
//! - It fails closed: what mailin cannot do right ends the session. mailin stays in DATA after an
//!   error there, so every refusal at the end of data closes the connection (temporary ones as a
//!   421); a bare LF in a message is refused, since mailin ends messages at LF `.` CR LF (smuggling).
//! - mailin's accept loop never returns. It is ended by unwinding out of `Hook::clone`, which that
//!   loop calls for each connection; the unwinding is caught at the top of its thread.
//!
//! `docs/engines.md`, made by `tests/engines.rs`, lists how the two engines differ.

mod door;
mod hook;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use door::Door;
use hook::Hook;
use mailin_embedded::Server;
use memchr::{memchr, memrchr};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::hang_up::hang_up;
use super::memory::Upload;
use super::policy::{CLOSING, TIMEOUT, TOO_SLOW, stranger_sessions};
use super::session::{GOES_ON, Stop};
use super::submit::Shared;
use crate::smtp::command::Bad;
use crate::smtp::{Command, Reply};

/// Most sessions of clients that may relay. Each, and each of those beside them, has a thread from the start.
const MAX_SESSIONS: usize = 256;

/// Longest line, of commands and of data: mailin holds a whole line in memory.
const MAX_LINE: usize = 64 * 1024;

/// Time that mailin gets to answer what it has already read once the client may send no more.
const LAST_WORDS: Duration = Duration::from_secs(5);

const LINE_TOO_LONG: Reply = Reply::new(421, "4.5.2", "Line too long for this engine, closing connection");
const NO_BACKEND: Reply = Reply::new(421, "4.3.0", "The engine is not available, closing connection");

/// Where a session is, as its hook sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Transaction,
    Data,
}

/// A session between the gate and the hook.
struct Visit {
    ip: IpAddr,
    phase: watch::Sender<Phase>,
    /// The memory of the message that comes in.
    upload: Mutex<Upload>,
}

struct Registry {
    shared: Arc<Shared>,
    handle: Handle,
    visits: Mutex<HashMap<String, Arc<Visit>>>,
    stopping: AtomicBool,
}

/// The private port of mailin, before it is used.
pub(super) struct Prepared {
    door: Door,
    socket: TcpListener,
}

/// The front of a listener with this engine.
pub(super) struct Gate {
    registry: Arc<Registry>,
    door: Door,
    sessions: usize,
    thread: Option<thread::JoinHandle<()>>,
}

impl Gate {
    /// What [`Gate::start`] needs, and cannot be had everywhere.
    ///
    /// # Errors
    /// As of [`Door::new`].
    pub fn prepare() -> io::Result<Prepared> {
        Door::new().map(|(door, socket)| Prepared { door, socket })
    }

    /// Starts mailin. Must be called inside a tokio runtime.
    pub fn start(shared: Arc<Shared>, prepared: Prepared) -> io::Result<Gate> {
        let sessions = shared.listener.max_connections.clamp(1, MAX_SESSIONS);
        if sessions < shared.listener.max_connections {
            warn!(sessions, "engine \"mailin\" has a thread for each session: max_connections is limited");
        }
        let Prepared { door, socket } = prepared;
        let registry = Arc::new(Registry {
            shared,
            handle: Handle::current(),
            visits: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let mut server = Server::new(Hook::new(registry.clone()));
        server
            .with_name(registry.shared.hostname.to_string())
            .with_num_threads(u32::try_from(sessions + stranger_sessions(sessions)).unwrap_or(1))
            .with_tcp_listener(socket);
        let (stopping, thread) = (registry.clone(), thread::Builder::new().name("mailin".into()));
        let thread = thread.spawn(move || match catch_unwind(AssertUnwindSafe(|| server.serve())) {
            Ok(Err(error)) => warn!(%error, "the mailin engine ended"),
            _ if stopping.stopping.load(Ordering::Acquire) => {}
            _ => warn!("the mailin engine ended unexpectedly"),
        })?;
        Ok(Gate { registry, door, sessions, thread: Some(thread) })
    }

    /// Sessions it takes at once of clients that may relay; those of others are beside them.
    pub fn sessions(&self) -> usize {
        self.sessions
    }

    /// Ends mailin's accept loop and waits for its threads. All sessions must be over.
    pub async fn stop(mut self) {
        let thread = self.thread.take();
        drop(self);
        if let Some(thread) = thread {
            let joined = timeout(LAST_WORDS, tokio::task::spawn_blocking(move || thread.join())).await;
            if joined.is_err() {
                warn!("the mailin engine does not end");
            }
        }
    }

    /// Serves one client to its end.
    pub async fn session(&self, mut stream: TcpStream, ip: IpAddr, stop: Stop) {
        let (phase, phases) = watch::channel(Phase::Idle);
        let memory = self.registry.shared.intake.memory();
        let _counted = memory.session();
        let visit = Arc::new(Visit { ip, phase, upload: Mutex::new(memory.upload(ip)) });
        let mut line = Vec::new();
        match timeout(LAST_WORDS, self.enter(visit.clone())).await {
            Ok(Ok((greeting, backend))) => {
                let (mut from_client, mut to_client) = stream.into_split();
                let (from_backend, to_backend) = backend.into_inner().into_split();
                let told = to_client.write_all(&greeting).await;
                let mut up = Up {
                    shared: &self.registry.shared,
                    client: &mut from_client,
                    backend: to_backend,
                    visit: &visit,
                    phases,
                    stop,
                    deadline: Instant::now() + self.registry.shared.policy.session_time(ip),
                };
                let last = if told.is_ok() { exchange(&mut up, from_backend, &mut to_client).await } else { None };
                drop(up);
                if let Ok(whole) = from_client.reunite(to_client) {
                    stream = whole;
                } else {
                    return;
                }
                if let Some(reply) = last {
                    debug!(client = %ip, %reply, "session ended by us");
                    reply.write_to(&mut line);
                }
            }
            Ok(Err(error)) => {
                warn!(client = %ip, %error, "the mailin engine does not answer");
                NO_BACKEND.write_to(&mut line);
            }
            Err(_) => {
                warn!(client = %ip, "the mailin engine does not answer in time");
                NO_BACKEND.write_to(&mut line);
            }
        }
        if let Ok(Ok(())) = timeout(LAST_WORDS, stream.write_all(&line)).await {
            hang_up(&mut stream).await;
        }
    }

    /// Connects to mailin and shows the ticket; returns its greeting, not yet sent to the client.
    async fn enter(&self, visit: Arc<Visit>) -> io::Result<(Vec<u8>, BufReader<TcpStream>)> {
        let ticket = ticket()?;
        let (mut backend, greeting) = self.door.enter().await?;
        self.registry.visits.lock().insert(ticket.clone(), visit);
        let answer = async {
            backend.write_all(format!("EHLO {ticket}\r\n").as_bytes()).await?;
            loop {
                let mut line = Vec::new();
                backend.read_until(b'\n', &mut line).await?;
                match line.as_slice() {
                    [b'2', b'5', b'0', b' ', ..] => return Ok(()),
                    [b'2', b'5', b'0', b'-', ..] => {}
                    _ => return Err(io::Error::other("the engine refused the ticket")),
                }
            }
        }
        .await;
        self.registry.visits.lock().remove(&ticket);
        answer.map(|()| (greeting, backend))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.registry.stopping.store(true, Ordering::Release);
        // Wakes the accept loop, which then finds out.
        self.door.knock();
    }
}

/// 128 random bits that nobody can guess.
fn ticket() -> io::Result<String> {
    let mut bits = [0u8; 16];
    tokio_rustls::rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(&mut bits)
        .map_err(|_| io::Error::other("no random numbers"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

/// From the client to mailin.
struct Up<'a> {
    shared: &'a Shared,
    client: &'a mut OwnedReadHalf,
    backend: OwnedWriteHalf,
    visit: &'a Visit,
    phases: watch::Receiver<Phase>,
    stop: Stop,
    deadline: Instant,
}

impl Up<'_> {
    /// Passes lines on until the client closes (`None`) or the session must end with a reply.
    async fn pump(&mut self) -> Option<Reply> {
        let mut buffer = vec![0u8; 4096];
        let (mut column, mut line_since, mut read_since, mut stopping) = (0, Instant::now(), Instant::now(), false);
        // The first line is kept until it is known to be no browser's.
        let mut first = Some(Vec::new());
        loop {
            let now = Instant::now();
            // A client that never stops sending must not escape the time limit.
            if now >= self.deadline {
                return Some(if stopping { CLOSING } else { TIMEOUT });
            }
            let check = {
                let mut upload = self.visit.upload.lock();
                if upload.too_slow() {
                    return Some(TOO_SLOW);
                }
                upload.check_at()
            };
            let phase = *self.phases.borrow();
            let patience = match phase {
                Phase::Data => read_since + self.shared.listener.data_timeout,
                _ if stopping => line_since + GOES_ON.min(self.shared.listener.command_timeout),
                _ => line_since + self.shared.listener.command_timeout,
            };
            let read = tokio::select! {
                biased;
                () = self.stop.asked(), if !stopping => {
                    stopping = true;
                    self.deadline = self.deadline.min(Instant::now() + self.stop.drain);
                    continue;
                }
                _ = self.phases.wait_for(|phase| *phase == Phase::Idle), if stopping => return Some(CLOSING),
                read = self.client.read(&mut buffer) => read,
                () = tokio::time::sleep_until(check.map_or(patience, |at| at.min(patience)).min(self.deadline)) => {
                    // Its data may have begun meanwhile.
                    let other = phase != *self.visit.phase.borrow() && Instant::now() < self.deadline;
                    if other || check.is_some_and(|at| at < patience.min(self.deadline)) {
                        continue;
                    }
                    return Some(if stopping { CLOSING } else { TIMEOUT });
                }
            };
            let mut bytes = match read {
                Ok(n @ 1..) => buffer.get(..n)?,
                _ => return None,
            };
            read_since = Instant::now();
            match memrchr(b'\n', bytes) {
                Some(last) => {
                    column = bytes.len() - last - 1;
                    line_since = Instant::now();
                }
                None => column += bytes.len(),
            }
            // A line may be over by one read, which is what bounds mailin's memory.
            if column > MAX_LINE {
                return Some(LINE_TOO_LONG);
            }
            let held = match first.take() {
                Some(mut line) => {
                    line.extend_from_slice(bytes);
                    match memchr(b'\n', &line) {
                        Some(end) => {
                            if let Err(Bad::Close(reply)) = Command::parse(line.get(..end)?.trim_ascii_end()) {
                                return Some(reply);
                            }
                        }
                        None => {
                            first = Some(line);
                            continue;
                        }
                    }
                    line
                }
                None => Vec::new(),
            };
            if !held.is_empty() {
                bytes = &held;
            }
            let written = timeout(self.shared.listener.data_timeout, self.backend.write_all(bytes)).await;
            if !matches!(written, Ok(Ok(()))) {
                return None;
            }
        }
    }
}

/// Passes bytes both ways until one side ends; then mailin sees the end of input and its last
/// answers still go out. Returns what is left to say.
async fn exchange(up: &mut Up<'_>, mut from: OwnedReadHalf, to: &mut OwnedWriteHalf) -> Option<Reply> {
    let patience = up.shared.listener.command_timeout;
    let mut down = std::pin::pin!(async {
        let mut buffer = vec![0u8; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            let written = timeout(patience, to.write_all(buffer.get(..n).unwrap_or_default())).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    });
    let last = tokio::select! {
        () = &mut down => return None,
        last = up.pump() => last,
    };
    let _ = up.backend.shutdown().await;
    // A message that is being stored may take its time; it is bounded by the queue.
    let _ = timeout(patience, down).await;
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::tests_config;

    /// Whoever knocks at the inner port from elsewhere is not heard, however often, and the gate still is.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn mailin_hears_nobody_who_does_not_come_through_the_gate_and_ends_when_told() {
        let listener = Arc::new(crate::config::Listener { max_connections: 2, ..tests_config() });
        let intake = crate::listener::draft::tests::NoIntake::shared();
        let prepared = Gate::prepare().unwrap();
        let gate = Gate::start(Arc::new(Shared::new(listener, "relay.example", intake)), prepared).unwrap();
        let inner = gate.door.address();
        let mut strangers = Vec::new();
        for _ in 0..20 {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let asked = socket.connect(&inner.into());
            assert_eq!(asked.unwrap_err().raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
            strangers.push(socket);
        }
        let mut inside = Vec::new();
        for _ in 0..3 {
            let (stream, greeting) = gate.door.enter().await.unwrap();
            assert!(greeting.starts_with(b"220 "), "{}", greeting.escape_ascii());
            inside.push(stream);
        }
        for stranger in &strangers {
            let error = stranger.peer_addr().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotConnected, "a connection was made");
        }
        // Without a ticket not even from there.
        let mut stream = inside.pop().unwrap();
        stream.write_all(b"EHLO 00000000000000000000000000000000\r\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("421 4.3.0"), "{line}");
        drop((stream, inside, strangers));
        gate.stop().await;
        assert!(TcpStream::connect(inner).await.is_err());
    }
}
