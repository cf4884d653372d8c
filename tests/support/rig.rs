//! One session over a pipe in memory whose writes are counted.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mailweir::clock::Clock;
use mailweir::config::Listener;
use mailweir::listener::Server;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::watch;

use super::support::{HOSTNAME, Inbox, Mood};

/// Counts the writes of a session.
struct Counting {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A session and its client, in clear text or whatever the test puts on top.
pub struct Rig<C = DuplexStream> {
    pub inbox: Arc<Inbox>,
    pub client: C,
    pub writes: Arc<AtomicUsize>,
    pub session: tokio::task::JoinHandle<()>,
    pub stop: watch::Sender<bool>,
}

/// Starts a session whose pipe holds so many bytes.
pub fn rig_with(listener: Listener, capacity: usize) -> Rig {
    let inbox = Inbox::new(Mood::Works, Clock::System);
    let server = Server::bind(Arc::new(listener), HOSTNAME, inbox.clone()).expect("a listener");
    let (client, inner) = tokio::io::duplex(capacity);
    let writes = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = watch::channel(false);
    let stream = Counting { inner, writes: writes.clone() };
    let session = tokio::spawn(async move {
        server.serve(stream, [127, 0, 0, 1].into(), stopped, Duration::from_secs(1)).await;
    });
    Rig { inbox, client, writes, session, stop }
}

/// Starts a session that never waits for its client to read.
pub fn rig(listener: Listener) -> Rig {
    rig_with(listener, 1 << 20)
}

impl<C: AsyncRead + AsyncWrite + Unpin> Rig<C> {
    /// Sends, and reads until so many lines have come.
    pub async fn talk(&mut self, bytes: &[u8], lines: usize) -> String {
        self.client.write_all(bytes).await.expect("a session");
        self.client.flush().await.expect("a session");
        let mut got = Vec::new();
        while got.iter().filter(|b| **b == b'\n').count() < lines {
            assert_ne!(
                self.client.read_buf(&mut got).await.expect("a reply"),
                0,
                "closed after {}",
                got.escape_ascii()
            );
        }
        String::from_utf8(got).expect("text")
    }
}

/// Log lines of this thread.
#[derive(Clone, Default)]
pub struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// Collects those of level info and above until the guard is dropped.
    pub fn collect() -> (Lines, tracing::subscriber::DefaultGuard) {
        Lines::collect_from(tracing::Level::INFO)
    }

    /// Collects those of that level and above until the guard is dropped.
    pub fn collect_from(level: tracing::Level) -> (Lines, tracing::subscriber::DefaultGuard) {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    /// All of them so far.
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("text")
    }
}
