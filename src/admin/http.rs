//! The HTTP side of administration: `/healthz`, for monitors and load balancers.
//!
//! It answers 200 while a message could be stored (a small value is written, as durably), else 503 with
//! the reason. It shows nothing of any message; operators use the control socket. Connections and their
//! times are bounded (`bounded`), and so are writes: one a second, whoever asks ([`Health`]).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::bounded::Bounded;
use crate::queue::Spool;

/// Time of a client to begin a request, and again to send it and to take the answer.
const TIME: Duration = Duration::from_secs(10);
/// How long the queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer of the queue is good for.
const FRESH: Duration = Duration::from_secs(1);

/// Binds the address of `[admin]`.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stopping` turns true, at most `connections` at once.
pub async fn serve(listener: TcpListener, connections: usize, queue: Arc<dyn Spool>, stopping: watch::Receiver<bool>) {
    serve_in(Bounded::new(listener, connections, TIME), queue, stopping).await;
}

async fn serve_in(listener: Bounded, queue: Arc<dyn Spool>, mut stopping: watch::Receiver<bool>) {
    let health = Arc::new(Health { queue, last: Mutex::default() });
    let app = Router::new().route("/healthz", get(answer)).with_state(health);
    let stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

async fn answer(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.ask().await {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

/// Whether the queue takes mail, asked at most once in [`FRESH`].
struct Health {
    queue: Arc<dyn Spool>,
    /// When it was asked, and what it said. Held while it is asked: the others wait for that answer.
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Health {
    async fn ask(&self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((_, told)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return told.clone();
        }
        let told = match tokio::time::timeout(PATIENCE, self.queue.probe()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the queue does not answer".into()),
        };
        *last = Some((Instant::now(), told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    const CONNECTIONS: usize = 64;

    use crate::clock::Clock;
    use crate::queue::sqlite::{InlineQueue, SqliteQueue};

    /// One request on a connection of its own; `None` if that is closed without an answer.
    fn ask(address: SocketAddr) -> Option<String> {
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_is_asked_once_a_second_however_often_health_is() {
        let queue = InlineQueue::open(Clock::System).expect("a queue");
        let earlier = (Instant::now(), Err("it was full then".to_owned()));
        let health = Health { queue, last: Mutex::new(Some(earlier)) };
        for _ in 0..3 {
            assert_eq!(health.ask().await, Err("it was full then".into()));
        }
        tokio::time::advance(FRESH).await;
        assert_eq!(health.ask().await, Ok(()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn connections_that_say_nothing_are_closed_and_keep_nobody_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = SqliteQueue::open(&dir.path().join("queue.db"), Clock::System).expect("a queue");
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopping) = watch::channel(false);
        // Little time, so that this does not take long; nothing is said about how much.
        let bounded = Bounded::new(listener, CONNECTIONS, Duration::from_millis(500));
        let server = tokio::spawn(serve_in(bounded, queue.clone(), stopping));
        let clients = tokio::task::spawn_blocking(move || {
            let mut silent: Vec<TcpStream> =
                (0..CONNECTIONS + 8).map(|_| TcpStream::connect(address).expect("a connection")).collect();
            // On a machine that is busy even a request may be too late.
            let answer = (0..100).find_map(|_| ask(address)).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("ok\n"), "{answer}");
            for client in &mut silent {
                client.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
                let end = client.read(&mut [0]).map_err(|error| error.kind());
                assert!(matches!(end, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "still open: {end:?}");
            }
        });
        clients.await.expect("the clients are content");
        stop.send(true).expect("it listens");
        server.await.expect("it ends");
    }
}
