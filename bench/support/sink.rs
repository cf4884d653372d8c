//! A receiver that counts: PIPELINING, CHUNKING and 8BITMIME, STARTTLS if it has a certificate.
//!
//! A recipient `probe-N@…` has the time of its receipt noted under N, so that single messages can be
//! followed among many. With a delay every flight of replies leaves so much later than its commands
//! came, as over a link with that round trip; commands that were pipelined are answered together.
//! With faults it is as bad a receiver as it is told, at random.

mod session;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_rustls::rustls::ServerConfig;

/// How it behaves.
#[derive(Clone, Default)]
pub struct Options {
    /// Replies leave so much later.
    pub delay: Duration,
    /// Offers STARTTLS.
    pub tls: Option<Arc<ServerConfig>>,
    /// What goes wrong.
    pub faults: Faults,
}

/// Shares of all messages, from 0 to 1, to which something happens while `on`.
#[derive(Clone, Default)]
pub struct Faults {
    /// Whether anything goes wrong now.
    pub on: Arc<AtomicBool>,
    /// The connection is reset when the message is here, before the final reply; it does not count
    /// as received.
    pub reset: f64,
    /// The recipient gets 450.
    pub refuse: f64,
    /// The message gets 451.
    pub fail: f64,
    /// The final reply comes late.
    pub slow: f64,
    /// By so much.
    pub slow_by: Duration,
}

impl Faults {
    fn strikes(&self, share: f64) -> bool {
        share > 0.0 && self.on.load(Ordering::Relaxed) && fastrand::f64() < share
    }
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
    /// Faults that were made.
    pub faults: AtomicU64,
    probes: Mutex<HashMap<u64, u64>>,
}

impl Seen {
    /// Messages so far.
    pub fn count(&self) -> u64 {
        self.messages.load(Ordering::SeqCst)
    }

    /// When the last message came, on the clock of [`super::now_nanos`].
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::SeqCst)
    }

    /// When the probe came; takes it out.
    pub fn take_probe(&self, number: u64) -> Option<u64> {
        self.probes.lock().remove(&number)
    }

    /// All probes that came since the last call, with their times.
    pub fn take_probes(&self) -> HashMap<u64, u64> {
        std::mem::take(&mut *self.probes.lock())
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
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
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
                        let _ = session::serve(stream, &shared).await;
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
