//! One request to a token endpoint: a form by POST over HTTPS ([`crate::https`]).
//!
//! Invariants: certificates are always checked; no redirect is followed, so that secrets go nowhere else; bounded
//! in time ([`LIMIT`]), addresses, header and body.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, DATE, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use zeroize::Zeroizing;

use crate::config::Endpoint;
use crate::https::{AGENT, exchange};
use crate::route::Router;

/// How long a request may take in all.
pub(super) const LIMIT: Duration = Duration::from_secs(30);
/// Bytes of a reply's body.
const MAX_BODY: usize = 64 * 1024;
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
        let addresses = self.names.addresses(host).await?;
        let addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, to.port())).collect();
        let response = exchange(&self.tls, host, &addresses, request(to, form)?, MAX_BODY).await;
        response.map(|response| answer(&response)).map_err(|fault| fault.to_string())
    }
}

fn request(to: &Endpoint, form: &Form) -> Result<Request<Full<Bytes>>, String> {
    let uri = to.uri();
    let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Request::post(path)
        .header(HOST, authority)
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(encoded(form))))
        .map_err(|e| format!("the request cannot be made: {e}"))
}

fn answer(response: &Response<Bytes>) -> Answer {
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let seconds = header(RETRY_AFTER).and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let (date, retry_after) = (header(DATE).map(str::to_owned), seconds.map(|wait| wait.min(LONGEST_WAIT)));
    let (status, body) = (response.status().as_u16(), Zeroizing::new(response.body().to_vec()));
    Answer { status, retry_after, date, body }
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
