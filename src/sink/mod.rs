//! A fake provider behind a socket, for trying a configuration without the Internet.
//!
//! [`crate::model`] decides; a session speaks SMTP around it; `seen` counts. It takes mail and keeps
//! none (unless it is told to dump it). Memory does not grow with what it has seen.

mod dump;
mod seen;
mod session;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::model::{Connection, Content, Model, Refusal};
use dump::Dump;
use seen::Seen;
pub use seen::{PerConnection, Report, Slot, WindowSeen};

/// Connections waiting in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// Pause after an error of `accept`.
const BREATHER: Duration = Duration::from_millis(50);

/// Extensions that are offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extensions {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 1870.
    pub size: bool,
    /// RFC 3030.
    pub chunking: bool,
    /// RFC 3030, offered beside CHUNKING only.
    pub binary_mime: bool,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// RFC 4954, PLAIN and LOGIN; anybody may log in.
    pub auth: bool,
}

impl Extensions {
    /// All but AUTH.
    pub const USUAL: Extensions = Extensions {
        pipelining: true,
        size: true,
        chunking: true,
        binary_mime: true,
        eight_bit_mime: true,
        smtputf8: true,
        dsn: true,
        auth: false,
    };

    /// BODY=BINARYMIME may be said.
    fn takes_binary(&self) -> bool {
        self.chunking && self.binary_mime
    }

    fn lines(&self, max_size: u64) -> Vec<String> {
        let offered = [
            (self.pipelining, "PIPELINING".to_owned()),
            (self.size, format!("SIZE {max_size}")),
            (self.chunking, "CHUNKING".to_owned()),
            (self.takes_binary(), "BINARYMIME".to_owned()),
            (self.eight_bit_mime, "8BITMIME".to_owned()),
            (self.smtputf8, "SMTPUTF8".to_owned()),
            (self.dsn, "DSN".to_owned()),
            (self.auth, "AUTH PLAIN LOGIN".to_owned()),
            (true, "ENHANCEDSTATUSCODES".to_owned()),
        ];
        let offered = offered.into_iter().filter_map(|(yes, line)| yes.then_some(line));
        std::iter::once("sink.invalid".to_owned()).chain(offered).collect()
    }
}

/// What the sink is to be.
#[derive(Debug)]
pub struct Options {
    /// Where it listens; loopback only. Port 0: any free one.
    pub listen: Vec<SocketAddr>,
    /// What it calls itself.
    pub name: String,
    /// How it behaves.
    pub model: Model,
    /// What it offers.
    pub extensions: Extensions,
    /// Where accepted messages are written.
    pub dump: Option<PathBuf>,
    /// Largest message in bytes.
    pub max_size: u64,
    /// Length of a slot of the series at the beginning, at least a second.
    pub slot: Duration,
}

/// The model and what was seen change together, at a time that never goes back.
struct State {
    model: Model,
    seen: Seen,
}

struct Shared {
    name: String,
    start: Instant,
    state: Mutex<State>,
    extensions: Extensions,
    dump: Option<PathBuf>,
    dumped: AtomicU64,
    max_size: u64,
}

/// A sink that is bound and not yet accepting.
pub struct Sink {
    sockets: Vec<std::net::TcpListener>,
    shared: Arc<Shared>,
}

impl Sink {
    /// Binds all addresses and makes the dump directory.
    ///
    /// # Errors
    /// An address is not loopback, or cannot be had; the directory cannot be made.
    pub fn bind(options: Options) -> io::Result<Sink> {
        if let Some(address) = options.listen.iter().find(|a| !a.ip().to_canonical().is_loopback()) {
            let text = format!("{address} is not a loopback address: the sink takes mail from anybody who reaches it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if let Some(dir) = &options.dump {
            std::fs::create_dir_all(dir)?;
        }
        let bind = |address: &SocketAddr| {
            let domain = socket2::Domain::for_address(*address);
            let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            let bound = socket.bind(&(*address).into()).and_then(|()| socket.listen(BACKLOG));
            bound.map_err(|e| io::Error::new(e.kind(), format!("{address}: {e}")))?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        };
        let sockets = options.listen.iter().map(bind).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            name: options.name,
            start: Instant::now(),
            state: Mutex::new(State { model: options.model, seen: Seen::new(options.slot) }),
            extensions: options.extensions,
            dump: options.dump,
            dumped: AtomicU64::new(0),
            max_size: options.max_size,
        });
        Ok(Sink { sockets, shared })
    }

    /// The addresses it is bound to.
    ///
    /// # Errors
    /// Those of the system.
    pub fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        self.sockets.iter().map(std::net::TcpListener::local_addr).collect()
    }

    /// Takes mail until `stop` is done; then cuts what is open off and tells what it saw.
    ///
    /// # Errors
    /// Those of the system with the listening sockets.
    pub async fn run(self, stop: impl Future<Output = ()>) -> io::Result<Report> {
        let mut accepting = JoinSet::new();
        for socket in self.sockets {
            let socket = TcpListener::from_std(socket)?;
            accepting.spawn(accept(socket, self.shared.clone()));
        }
        stop.await;
        accepting.shutdown().await;
        let state = self.shared.state.lock();
        Ok(state.seen.report(&self.shared.name, self.shared.start.elapsed()))
    }
}

/// Sessions end with the task that accepts them.
async fn accept(socket: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(_) = sessions.join_next(), if !sessions.is_empty() => continue,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                sessions.spawn(serve(stream, peer.ip(), shared.clone()));
            }
            Err(_) => tokio::time::sleep(BREATHER).await,
        }
    }
}

async fn serve(stream: TcpStream, client: IpAddr, shared: Arc<Shared>) {
    match shared.connect(client) {
        Ok(connection) => {
            session::run(stream, Open { shared: &shared, connection: Some(connection), accepted: 0 }).await
        }
        Err(refusal) => session::turn_away(stream, &shared, refusal.reply).await,
    }
}

/// A connection that was let in. Counted out when it is over, also when the session is cut off.
struct Open<'a> {
    shared: &'a Shared,
    connection: Option<Connection>,
    /// Messages accepted.
    accepted: u64,
}

impl Open<'_> {
    /// Before the last word is said: a client that heard it may connect again at once.
    fn over(&mut self) {
        if let Some(connection) = self.connection.take() {
            let mut state = self.shared.state.lock();
            state.seen.disconnected(self.accepted);
            state.model.disconnect(connection);
        }
    }

    /// Asks the model about this connection, and counts what it refuses.
    fn ask(
        &mut self,
        ask: impl FnOnce(&mut State, Duration, &mut Connection) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let mut state = self.shared.state.lock();
        let now = self.shared.now();
        let result = ask(&mut state, now, connection);
        if let Err(refusal) = &result {
            state.seen.refused(now, refusal.by);
        }
        result
    }

    fn mail(&mut self, sender: &str) -> Result<(), Refusal> {
        self.ask(|state, now, connection| {
            state.seen.begun(now);
            state.model.mail(now, connection, sender)
        })
    }

    fn rcpt(&mut self, recipient: &str) -> Result<(), Refusal> {
        self.ask(|state, now, connection| state.model.rcpt(now, connection, recipient))
    }

    fn data(&mut self) -> Result<(), Refusal> {
        self.ask(|state, now, connection| state.model.data(now, connection))
    }

    fn end(&mut self, recipients: u64, content: Content) -> Result<(), Refusal> {
        self.ask(|state, now, connection| {
            state.model.end(now, connection, content)?;
            state.seen.accepted(now, recipients, content.bytes);
            Ok(())
        })?;
        self.accepted += 1;
        Ok(())
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.over();
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn latency(&self) -> Duration {
        let mut state = self.state.lock();
        let now = self.now();
        state.model.latency(now)
    }

    fn connect(&self, client: IpAddr) -> Result<Connection, Refusal> {
        let mut state = self.state.lock();
        let now = self.now();
        let result = state.model.connect(now, client);
        match &result {
            Ok(_) => {
                let open = state.model.connections();
                state.seen.connected(now, open);
            }
            Err(refusal) => {
                state.seen.turned_away(now);
                state.seen.refused(now, refusal.by);
            }
        }
        result
    }

    fn dumps(&self) -> bool {
        self.dump.is_some()
    }

    fn dump(&self) -> io::Result<Dump> {
        let dir = self.dump.as_deref().ok_or(io::ErrorKind::NotFound)?;
        Dump::create(dir, self.dumped.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
