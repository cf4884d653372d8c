//! A policy is fetched over HTTPS, from `https://mta-sts.DOMAIN/.well-known/mta-sts.txt` (RFC 8461 §3.3).
//!
//! Invariants: the certificate is one of that host, from an authority that the system, Mozilla or `tls_ca` of the
//! domain's provider trusts; no redirect is followed; what is not `text/plain` or longer than [`MAX_BODY`] is no policy.
//! The caller bounds the time.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Request, Response};
use tokio::sync::OnceCell;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::config::Authorities;
use crate::https::{AGENT, Fault, exchange};
use crate::tls_report::ResultType;

/// Bytes of a policy (RFC 8461 §3.3 proposes this bound).
const MAX_BODY: usize = 64 * 1024;
/// Where the policy is on its host.
const PATH: &str = "/.well-known/mta-sts.txt";
/// The port of HTTPS.
const PORT: u16 = 443;

/// Where the host of a policy is, and who else may vouch for it.
#[derive(Clone, Debug, Default)]
pub struct PolicyHost {
    /// Its addresses, in the order to try.
    pub addresses: Vec<IpAddr>,
    /// `tls_ca` of the provider that the mail takes.
    pub trusted: Option<Authorities>,
}

/// Why there is no policy to be had: in the words of reports, and for people.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text}")]
pub struct Unfetched {
    /// What it is in a report.
    pub result: ResultType,
    /// For people.
    pub text: String,
}

impl From<String> for Unfetched {
    fn from(text: String) -> Unfetched {
        Unfetched { result: ResultType::StsPolicyFetchError, text }
    }
}

impl From<Fault> for Unfetched {
    fn from(fault: Fault) -> Unfetched {
        let result = match fault {
            Fault::Tls(_) => ResultType::StsWebpkiInvalid,
            Fault::Other(_) => ResultType::StsPolicyFetchError,
        };
        Unfetched { result, text: fault.to_string() }
    }
}

/// Who fetches policies; in tests not over HTTPS.
#[async_trait]
pub trait Fetch: Send + Sync + 'static {
    /// The text of the policy at `host`, which is there.
    ///
    /// # Errors
    /// There is none to be had: why.
    async fn fetch(&self, host: &str, at: PolicyHost) -> Result<String, Unfetched>;
}

/// Over HTTPS. The authorities of the system are read when the first policy is fetched.
pub struct Https {
    port: u16,
    known: OnceCell<Known>,
}

/// What is trusted for every domain, and the client that trusts nothing else.
struct Known {
    roots: RootCertStore,
    tls: Arc<ClientConfig>,
}

impl Known {
    fn new(roots: RootCertStore) -> Result<Known, String> {
        Ok(Known { tls: config(roots.clone())?, roots })
    }

    /// The client that trusts these, too.
    fn and(&self, more: &Authorities) -> Result<Arc<ClientConfig>, String> {
        let mut roots = self.roots.clone();
        for authority in more.certificates() {
            roots.add(authority.clone()).map_err(|e| format!("{}: {e}", more.path().display()))?;
        }
        config(roots)
    }
}

impl Default for Https {
    fn default() -> Https {
        Https::at_port(PORT)
    }
}

impl Https {
    /// From another port: for tests.
    #[doc(hidden)]
    pub fn at_port(port: u16) -> Https {
        Https { port, known: OnceCell::new() }
    }

    /// Trusting just these authorities: for tests.
    #[doc(hidden)]
    pub fn trusting(roots: RootCertStore, port: u16) -> Result<Https, String> {
        Ok(Https { port, known: OnceCell::new_with(Some(Known::new(roots)?)) })
    }

    async fn tls(&self, more: Option<&Authorities>) -> Result<Arc<ClientConfig>, String> {
        let load = || async {
            // Files of the system, which may be slow.
            tokio::task::spawn_blocking(|| Known::new(roots())).await.map_err(|e| e.to_string())?
        };
        let known = self.known.get_or_try_init(load).await?;
        more.map_or_else(|| Ok(known.tls.clone()), |more| known.and(more))
    }
}

#[async_trait]
impl Fetch for Https {
    async fn fetch(&self, host: &str, at: PolicyHost) -> Result<String, Unfetched> {
        let tls = self.tls(at.trusted.as_ref()).await?;
        let to: Vec<SocketAddr> = at.addresses.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect();
        let request = Request::get(PATH)
            .header(HOST, host)
            .header(USER_AGENT, AGENT)
            .header(ACCEPT, "text/plain")
            .body(Full::new(Bytes::new()))
            .map_err(|e| format!("the request cannot be made: {e}"))?;
        let response = exchange(&tls, host, &to, request, MAX_BODY).await?;
        text(&response).map_err(|why| format!("{host} {why}").into())
    }
}

fn roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn config(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

/// The body, if the response is one that RFC 8461 takes.
fn text(response: &Response<Bytes>) -> Result<String, String> {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if status.is_redirection() {
        let to: String = header(LOCATION).chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(format!("answers {} and leads to `{to}`: a redirect is not followed", status.as_u16()));
    }
    if status.as_u16() != 200 {
        return Err(format!("answers {}, expected 200", status.as_u16()));
    }
    let kind = header(CONTENT_TYPE);
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("text/plain") {
        let kind: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
        return Err(format!("answers with the type `{kind}`, expected text/plain"));
    }
    String::from_utf8(response.body().to_vec()).map_err(|_| "answers with what is no text".to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

    use super::*;

    fn response(status: u16, kind: &str, body: &'static [u8]) -> Response<Bytes> {
        let builder =
            Response::builder().status(status).header(CONTENT_TYPE, kind).header(LOCATION, "https://x.example/");
        builder.body(Bytes::from_static(body)).expect("a response")
    }

    #[test]
    fn only_a_200_of_plain_text_is_taken() {
        for kind in ["text/plain", "Text/Plain; charset=utf-8", "text/plain ;x=y"] {
            assert_eq!(text(&response(200, kind, b"a")).as_deref(), Ok("a"), "{kind}");
        }
        for (status, kind, body, why) in [
            (301, "text/plain", b"a".as_slice(), "leads to `https://x.example/`: a redirect is not followed"),
            (304, "text/plain", b"", "not followed"),
            (404, "text/plain", b"a", "answers 404, expected 200"),
            (204, "text/plain", b"", "answers 204"),
            (200, "text/html", b"a", "the type `text/html`, expected text/plain"),
            (200, "", b"a", "expected text/plain"),
            (200, "text/plainer", b"a", "expected text/plain"),
            (200, "text/plain", b"\xff", "no text"),
        ] {
            let error = text(&response(status, kind, body)).expect_err(kind);
            assert!(error.contains(why), "{status} {kind}: {error}");
        }
    }

    /// Answers one request over TLS with a policy, by a certificate for `host` that `by` has made.
    async fn serve(host: &str, by: &CertifiedIssuer<'static, KeyPair>) -> u16 {
        let key = KeyPair::generate().expect("a key");
        let made = CertificateParams::new(vec![host.to_owned()]).expect("a name").signed_by(&key, by).expect("signed");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let server = server.with_no_client_auth().with_single_cert(vec![made.der().clone()], key).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::new(server.clone()));
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
    }

    /// Who runs mail hosts with certificates of an authority of his own has that vouch for his policy, too.
    #[tokio::test]
    async fn what_tls_ca_of_the_provider_names_vouches_for_the_host_of_a_policy_and_for_nobody_elses() {
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let port = serve("mta-sts.a.example", &ours).await;
        let dir = tempfile::tempdir().expect("a directory");
        let trusted = |by: &CertifiedIssuer<'static, KeyPair>| {
            let file = dir.path().join("ca.pem");
            std::fs::write(&file, by.pem()).expect("written");
            Some(Authorities::load(&file).expect("authorities"))
        };
        let https = Https::at_port(port);
        let ask = |host: &'static str, trusted| {
            https.fetch(host, PolicyHost { addresses: vec![[127, 0, 0, 1].into()], trusted })
        };
        assert_eq!(ask("mta-sts.a.example", trusted(&ours)).await, Ok("abc".to_owned()));
        for (host, by) in [
            ("mta-sts.a.example", None),
            ("mta-sts.a.example", trusted(&theirs)),
            ("mta-sts.b.example", trusted(&ours)),
        ] {
            let why = ask(host, by).await.expect_err("refused");
            assert!(why.text.contains("TLS: the certificate is not"), "{why}");
            assert_eq!(why.result, ResultType::StsWebpkiInvalid);
        }
    }
}
