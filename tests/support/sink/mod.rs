//! A receiver that records what a real server does not tell: when each connection, transaction and
//! message came, the raw bytes, and whatever on the wire was not legal. It answers as it is told.
//!
//! One thread a connection (`session`). What it records is in the order of the final replies.

mod session;

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::{mail, wait_for};

/// A question the sink answers: what came, where.
#[derive(Clone, Debug)]
pub struct Ask {
    /// `CONNECT`, `EHLO`, `HELO`, `AUTH`, `MAIL`, `RCPT`, `DATA`, or `DOT` for the end of a message (the
    /// last BDAT too).
    pub verb: &'static str,
    /// What followed the verb; the whole content as text for `DOT`.
    pub argument: String,
    /// Number of the connection, from 0.
    pub connection: usize,
    /// When it was complete at the receiver.
    pub at: Instant,
}

/// How the sink answers.
pub enum Answer {
    /// The usual positive reply.
    Yes,
    /// This reply, without the line end. A refused RCPT or message is not recorded as received.
    Say(String),
    /// The usual positive reply, once the gate is open.
    After(Gate),
    /// Close the connection without a reply.
    Close,
}

impl Answer {
    pub fn say(reply: &str) -> Answer {
        Answer::Say(reply.to_owned())
    }
}

/// Closed until it is opened; for good.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    pub fn is_open(&self) -> bool {
        *lock(&self.0.0)
    }

    /// At most ten minutes, so that no thread outlives a test that failed.
    fn wait(&self) {
        let guard = lock(&self.0.0);
        drop(self.0.1.wait_timeout_while(guard, Duration::from_secs(600), |open| !*open));
    }
}

/// One accepted transaction.
#[derive(Clone, Debug)]
pub struct Received {
    /// When MAIL was complete.
    pub began: Instant,
    /// When the end of the data was complete.
    pub at: Instant,
    /// Number of the connection, from 0.
    pub connection: usize,
    /// Number of the transaction on that connection, from 1.
    pub transaction: usize,
    /// The name given in EHLO or HELO.
    pub helo: String,
    /// What followed `MAIL FROM:`, with parameters.
    pub from: String,
    /// What followed `RCPT TO:`, with parameters, of each accepted recipient.
    pub to: Vec<String>,
    /// The message with the dots unstuffed, without the final dot line.
    pub content: Arc<[u8]>,
}

impl Received {
    pub fn subject(&self) -> String {
        mail::subject(&self.content)
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Where it came from.
    pub from: IpAddr,
    pub opened: Instant,
    /// `None` while it is open.
    pub closed: Option<Instant>,
    /// Transactions that reached MAIL.
    pub transactions: usize,
    /// It ended with QUIT.
    pub quit: bool,
}

/// How a [`Sink`] behaves.
pub struct Options {
    /// EHLO keywords.
    pub extensions: Vec<&'static str>,
    /// Further connections get a 421.
    pub max_connections: usize,
    /// Answers; the default says yes to everything.
    pub script: Box<dyn Fn(&Ask) -> Answer + Send + Sync>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            extensions: vec!["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE 60000000"],
            max_connections: 10_000,
            script: Box::new(|_| Answer::Yes),
        }
    }
}

impl Options {
    /// Answers by a script.
    pub fn script(script: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Options {
        Options { script: Box::new(script), ..Options::default() }
    }

    /// Offers just these extensions.
    pub fn offering(extensions: &[&'static str]) -> Options {
        Options { extensions: extensions.to_vec(), ..Options::default() }
    }
}

#[derive(Default)]
struct Record {
    connections: Vec<Connection>,
    messages: Vec<Received>,
    violations: Vec<String>,
}

struct Shared {
    options: Options,
    record: Mutex<Record>,
    /// Signalled at every new message.
    news: Condvar,
    open: AtomicUsize,
    peak: AtomicUsize,
    stop: AtomicBool,
}

/// A running receiver. Stops listening when dropped.
pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Sink {
    /// Accepts everything.
    pub fn start(address: SocketAddr) -> Sink {
        Sink::with(address, Options::default())
    }

    pub fn with(address: SocketAddr, options: Options) -> Sink {
        let listener =
            TcpListener::bind(address).unwrap_or_else(|e| panic!("the sink cannot listen on {address}: {e}"));
        let shared = Arc::new(Shared {
            options,
            record: Mutex::default(),
            news: Condvar::new(),
            open: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = of_thread.clone();
                thread::spawn(move || session::serve(&shared, stream));
            }
        });
        Sink { address, shared }
    }

    /// Everything received so far.
    pub fn messages(&self) -> Vec<Received> {
        lock(&self.shared.record).messages.clone()
    }

    /// How many messages were received so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.record).messages.len()
    }

    pub fn connections(&self) -> Vec<Connection> {
        lock(&self.shared.record).connections.clone()
    }

    /// The greatest number of connections that were open at once.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    /// Waits until at least `n` messages are there, and returns all of them. Panics at the deadline.
    pub fn wait(&self, n: usize, deadline: Duration) -> Vec<Received> {
        let guard = lock(&self.shared.record);
        let (guard, _) = self
            .shared
            .news
            .wait_timeout_while(guard, deadline, |record| record.messages.len() < n)
            .expect("the record");
        let have = guard.messages.len();
        assert!(have >= n, "{have} of {n} messages arrived at {} within {deadline:?}", self.address);
        guard.messages.clone()
    }

    /// Waits for a message with this subject.
    pub fn wait_subject(&self, subject: &str, deadline: Duration) -> Received {
        wait_for(&format!("the message `{subject}` at {}", self.address), deadline, || {
            lock(&self.shared.record).messages.iter().find(|m| m.subject() == subject).cloned()
        })
    }

    /// Panics if anything was not legal on the wire: bare CR or LF, a line over 998 bytes, 8-bit
    /// bytes or parameters that were not offered.
    pub fn assert_legal(&self) {
        let record = lock(&self.shared.record);
        assert!(record.violations.is_empty(), "not legal on the wire: {:#?}", record.violations);
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts, which then drops the listener.
        drop(TcpStream::connect_timeout(&self.address, Duration::from_secs(1)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
