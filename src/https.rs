//! One request over HTTPS, on hyper and the TLS of this program: for token endpoints (OAuth) and for policies of
//! MTA-STS.
//!
//! Invariants: no redirect is followed; a connection carries one request; header and body are bounded. The caller says
//! whom to trust, which addresses to try, and bounds the time.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error};

use crate::smtp::tls::explain;

/// How long an address may take to answer before the next one is tried.
const CONNECT: Duration = Duration::from_secs(8);
/// Addresses that are tried.
const MOST_ADDRESSES: usize = 4;
/// Bytes of a reply's header.
const MAX_HEADER: usize = 32 * 1024;

/// Why there was no answer, for people, beginning with the host.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// The host did not show a certificate that is taken, or there was no TLS with it.
    #[error("{0}")]
    Tls(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::Other(text)
    }
}

/// What a client calls itself.
pub const AGENT: &str = concat!("mailweir/", env!("CARGO_PKG_VERSION"));

/// Sends `request` to the first of the addresses that answers, whose certificate has to be one of `host` that `tls`
/// takes, and returns the response with a body of at most `most` bytes; 0: nothing of it is read.
///
/// # Errors
/// There was no answer: why.
pub async fn exchange(
    tls: &Arc<ClientConfig>,
    host: &str,
    to: &[SocketAddr],
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Bytes>, Fault> {
    let stream = connect(host, to).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name of a host"))?;
    let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(|e| {
        let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        Fault::Tls(format!("{host}: TLS: {}", tls.map_or_else(|| e.to_string(), |tls| explain(host, tls))))
    })?;
    let failed = |e: &dyn std::fmt::Display| format!("{host} answers no HTTP: {e}");
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_HEADER)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let (head, body) = response.into_parts();
        if most == 0 {
            return Ok(Response::from_parts(head, Bytes::new()));
        }
        let body =
            Limited::new(body, most).collect().await.map_err(|e| match e.downcast_ref::<LengthLimitError>() {
                Some(_) => format!("{host} answers with more than {most} bytes"),
                None => format!("{host} breaks off its answer: {e}"),
            })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
    tokio::select! {
        biased;
        answer = &mut exchange => return answer,
        // What it has brought is there still; what is missing is an error of the exchange.
        _ = &mut connection => {}
    }
    exchange.await
}

async fn connect(host: &str, to: &[SocketAddr]) -> Result<TcpStream, String> {
    let mut why = format!("{host} has no address");
    for address in to.iter().take(MOST_ADDRESSES) {
        match timeout(CONNECT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => why = format!("{host}[{address}]: {e}"),
            Err(_) => why = format!("{host}[{address}] does not answer"),
        }
    }
    Err(why)
}
