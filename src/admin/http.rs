//! The HTTP side of administration: `/healthz`, for monitors and load balancers.
//!
//! It answers 200 while the queue answers, else 503 with the reason. It shows nothing of any
//! message; operators use the control socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::queue::Queue;

/// How long the queue may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Binds the address of `[admin]`.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves until `stopping` turns true.
pub async fn serve(listener: TcpListener, queue: Arc<dyn Queue>, mut stopping: watch::Receiver<bool>) {
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
