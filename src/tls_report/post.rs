//! A report by HTTPS (RFC 8460 §5.4): a POST of the compressed report.
//!
//! Invariants: certificates are checked, no redirect is followed; bounded in time ([`LIMIT`]); of the answer nothing but
//! the head is read; nothing is sent to an address that the caller does not allow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use crate::config::Endpoint;
use crate::https::{AGENT, exchange};

/// How long a request may take in all.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Who sends reports by HTTPS; in tests not over the network.
#[async_trait]
pub trait Post: Send + Sync + 'static {
    /// Sends a compressed report to one of these addresses of an endpoint.
    ///
    /// # Errors
    /// It was not taken: why, for people.
    async fn post(&self, to: &Endpoint, at: &[SocketAddr], gzip: Bytes) -> Result<(), String>;
}

/// By HTTPS, trusting what this trusts.
pub struct Https(pub Arc<ClientConfig>);

#[async_trait]
impl Post for Https {
    async fn post(&self, to: &Endpoint, at: &[SocketAddr], gzip: Bytes) -> Result<(), String> {
        let uri = to.uri();
        let authority = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(HOST, authority)
            .header(USER_AGENT, AGENT)
            .header(CONTENT_TYPE, "application/tlsrpt+gzip")
            .body(Full::new(gzip))
            .map_err(|e| format!("the request cannot be made: {e}"))?;
        let answer = timeout(LIMIT, exchange(&self.0, to.host(), at, request, 0)).await;
        match answer {
            Err(_) => Err(format!("{} has not answered within {} s", to.host(), LIMIT.as_secs())),
            Ok(Err(fault)) => Err(fault.to_string()),
            Ok(Ok(response)) if response.status().is_success() => Ok(()),
            Ok(Ok(response)) => Err(format!("{} answers {}", to.host(), response.status().as_u16())),
        }
    }
}
