//! One request to a token endpoint: a form by POST over HTTPS, on hyper and the TLS of this program.
//!
//! Invariants: certificates are always checked; no redirect is followed, so that secrets go nowhere else; bounded
//! in time ([`LIMIT`]), addresses, header and body.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, Error};
use zeroize::Zeroizing;

use crate::config::Endpoint;
use crate::route::Router;
use crate::smtp::tls::explain;

/// How long a request may take in all.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// How long an address may take to answer before the next one is tried.
const CONNECT: Duration = Duration::from_secs(8);
/// Addresses of the endpoint that are tried.
const MOST_ADDRESSES: usize = 4;
/// Bytes of a reply's body.
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a reply's header.
const MAX_HEADER: usize = 32 * 1024;
/// A wait that the endpoint asks for is kept up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// A form: names and values.
pub(super) type Form = Vec<(&'static str, Zeroizing<String>)>;

/// What came back.
pub(super) struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` in seconds.
    pub retry_after: Option<Duration>,
    /// `Date`, as it stands there.
    pub date: Option<String>,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

/// Who can be asked; by HTTPS, or in a test by nothing.
#[async_trait]
pub(super) trait Post: Send + Sync {
    /// Sends a form.
    ///
    /// # Errors
    /// There was no answer: why, for people.
    async fn post(&self, to: &Endpoint, form: &Form) -> Result<Answer, String>;
}

/// Finds the addresses of a name.
#[async_trait]
pub trait Names: Send + Sync {
    /// At least one.
    ///
    /// # Errors
    /// There is none, or nobody knows now: why, for people.
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String>;
}

#[async_trait]
impl Names for Router {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        Router::addresses(self, host).await
    }
}

/// By HTTPS, trusting what `tls` trusts.
pub(super) struct Https {
    pub tls: Arc<ClientConfig>,
    pub names: Arc<dyn Names>,
}

#[async_trait]
impl Post for Https {
    async fn post(&self, to: &Endpoint, form: &Form) -> Result<Answer, String> {
        match timeout(LIMIT, self.request(to, form)).await {
            Ok(done) => done,
            Err(_) => Err(format!("{} has not answered within {} s", to.host(), LIMIT.as_secs())),
        }
    }
}

impl Https {
    async fn request(&self, to: &Endpoint, form: &Form) -> Result<Answer, String> {
        let host = to.host();
        let stream = self.connect(host, to.port()).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("{host} is no name of a host"))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|e| {
            let tls = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
            format!("{host}: TLS: {}", tls.map_or_else(|| e.to_string(), |tls| explain(host, tls)))
        })?;
        let failed = |e: &dyn std::fmt::Display| format!("{host} answers no HTTP: {e}");
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEADER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| failed(&e))?;
        // The connection is one request long, and gone with it.
        let request = request(to, form)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            answer(response).await.map_err(|why| format!("{host} {why}"))
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

    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let mut why = String::new();
        for ip in self.names.addresses(host).await?.into_iter().take(MOST_ADDRESSES) {
            let address = SocketAddr::new(ip, port);
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(e)) => why = format!("{host}[{address}]: {e}"),
                Err(_) => why = format!("{host}[{address}] does not answer"),
            }
        }
        Err(why)
    }
}

fn request(to: &Endpoint, form: &Form) -> Result<Request<Full<Bytes>>, String> {
    let uri = to.uri();
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let agent = concat!("mailweir/", env!("CARGO_PKG_VERSION"));
    Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, agent)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(encoded(form))))
        .map_err(|e| format!("the request cannot be made: {e}"))
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<Answer, String> {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let (date, retry_after) = (header(DATE).map(str::to_owned), seconds.map(|wait| wait.min(LONGEST_WAIT)));
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| match e.downcast_ref::<http_body_util::LengthLimitError>() {
        Some(_) => format!("answers with more than {MAX_BODY} bytes"),
        None => format!("breaks off its answer: {e}"),
    })?;
    Ok(Answer { status, retry_after, date, body: Zeroizing::new(body.to_bytes().to_vec()) })
}

/// `application/x-www-form-urlencoded`, where everything is quoted that need not be as it is.
fn encoded(form: &Form) -> Vec<u8> {
    let length = form.iter().map(|(name, value)| name.len() + 3 * value.len() + 2).sum();
    let mut out = Vec::with_capacity(length);
    for (n, (name, value)) in form.iter().enumerate() {
        out.extend_from_slice(if n > 0 { b"&" } else { b"" });
        out.extend_from_slice(name.as_bytes());
        out.push(b'=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte),
                _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_has_nothing_in_it_that_ends_a_value() {
        let form: Form = vec![
            ("scope", Zeroizing::new("https://mail.example/ x".to_owned())),
            ("client_secret", Zeroizing::new("a&b=c+d%é".to_owned())),
        ];
        let text = String::from_utf8(encoded(&form)).expect("ASCII");
        assert_eq!(text, "scope=https%3A%2F%2Fmail.example%2F%20x&client_secret=a%26b%3Dc%2Bd%25%C3%A9");
    }
}
