//! The HTTP side of administration: `/healthz`, for monitors and load balancers.
//!
//! It answers 200 while the queue answers, else 503 with the reason. It shows nothing of any
//! message; operators use the control socket. Connections and their times are bounded (`bounded`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::bounded::Bounded;
use crate::queue::Queue;

/// Connections at once.
const CONNECTIONS: usize = 64;
/// Time of a client to begin a request, and again to send it and to take the answer.
const TIME: Duration = Duration::from_secs(10);
/// How long the queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Binds the address of `[admin]`.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stopping` turns true, 64 connections at once.
pub async fn serve(listener: TcpListener, queue: Arc<dyn Queue>, stopping: watch::Receiver<bool>) {
    serve_in(Bounded::new(listener, CONNECTIONS, TIME), queue, stopping).await;
}

async fn serve_in(listener: Bounded, queue: Arc<dyn Queue>, mut stopping: watch::Receiver<bool>) {
    let app = Router::new().route("/healthz", get(health)).with_state(queue);
    let stop = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    if let Err(error) = axum::serve(listener, app).with_graceful_shutdown(stop).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

async fn health(State(queue): State<Arc<dyn Queue>>) -> (StatusCode, String) {
    match tokio::time::timeout(PATIENCE, queue.counts()).await {
        Ok(Ok(_)) => (StatusCode::OK, "ok\n".into()),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the queue does not answer\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use crate::clock::Clock;
    use crate::queue::sqlite::SqliteQueue;

    /// One request on a connection of its own; `None` if that is closed without an answer.
    fn ask(address: SocketAddr) -> Option<String> {
        let mut client = TcpStream::connect(address).expect("a connection");
        client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).ok()?;
        Some(answer).filter(|answer| !answer.is_empty())
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
