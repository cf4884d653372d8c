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

#[path = "lines.rs"]
mod lines;
pub use lines::Lines;

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
