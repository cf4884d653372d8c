//! STARTTLS and implicit TLS with good, bad and broken certificates, on real sockets.

use std::path::PathBuf;
use std::sync::Arc;

use mailweir::config::{Authorities, Provider, Relay, TlsMode};
use mailweir::deliver::Connector;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::common::*;
use crate::connecting::{Sockets, connector, host, route};

/// A private authority, its PEM file, and certificates from it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Authority {
    pub fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, pem).expect("a file");
        Authority { issuer: Issuer::new(params, key), file, _dir: dir }
    }

    pub fn trusted(&self) -> Authorities {
        Authorities::load(&self.file).expect("a certificate")
    }

    pub fn server(&self, name: &str, expired: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        if expired {
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        showing(&params.signed_by(&key, &self.issuer).expect("a certificate"), &key)
    }

    /// A server with a certificate of these parameters.
    pub fn sign(&self, params: CertificateParams) -> Arc<ServerConfig> {
        let key = KeyPair::generate().expect("a key");
        showing(&params.signed_by(&key, &self.issuer).expect("a certificate"), &key)
    }

    /// A certificate of these parameters with its key, for a server that chooses.
    pub fn certified(&self, params: CertificateParams) -> Arc<CertifiedKey> {
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let key = aws_lc_rs::sign::any_supported_type(&key).expect("a key");
        Arc::new(CertifiedKey::new(vec![cert.der().clone()], key))
    }

    /// The files of a certificate and its key.
    pub fn files(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        let (certificate, of_key) = (self.file.with_file_name("host.pem"), self.file.with_file_name("host.key"));
        std::fs::write(&certificate, cert.pem()).expect("a file");
        std::fs::write(&of_key, key.serialize_pem()).expect("a file");
        (certificate, of_key)
    }
}

/// A server with this certificate.
fn showing(cert: &Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a configuration");
    Arc::new(config)
}

pub fn with_tls(mode: TlsMode) -> Provider {
    Provider { tls: mode, ..provider() }
}

pub const HELLO: &str = "hello STARTTLS|PIPELINING\nC: STARTTLS\nS: 220 go\ntls\n";
pub const AGAIN: &str = "C: EHLO relay.example\nS: 250-mx\nS: 250 PIPELINING\nC: QUIT\nS: 221 bye";

/// One listener that plays these scripts to one client after the other.
pub async fn serve(scripts: &[&str], tls: &Arc<ServerConfig>) -> (u16, Server) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (port, Server::accept_all(listener, scripts, Some(tls.clone())))
}

/// What becomes of a connection: `host/tls version`, or the facts.
async fn outcome(connector: &Connector, provider: &Provider, port: u16) -> String {
    match connector.open(provider, &route(port, vec![host("mx.example", 10, &["127.0.0.1"])])).await {
        Ok(connection) => {
            let result = format!("{}/{}", connection.host(), connection.peer().tls.map_or("clear", |tls| tls.version));
            connection.quit().await;
            result
        }
        Err(facts) => {
            let facts: Vec<String> = facts.iter().map(|f| format!("{}: {}", f.stage, f.event)).collect();
            facts.join("; ")
        }
    }
}

#[tokio::test]
async fn opportunistic_and_required_take_any_certificate() {
    let authority = Authority::new();
    for mode in [TlsMode::Opportunistic, TlsMode::Required] {
        let (port, server) = serve(&[&(HELLO.to_owned() + AGAIN)], &authority.server("wrong.example", true)).await;
        assert_eq!(outcome(&connector(), &with_tls(mode), port).await, "mx.example/TLSv1.3");
        server.done().await;
    }
}

#[tokio::test]
async fn opportunistic_retries_in_clear_text_once_when_tls_is_broken() {
    let authority = Authority::new();
    let broken = "hello STARTTLS\nC: STARTTLS\nS: 220 go\ntake 10\nraw: this is not TLS at all\\r\\n\nclose";
    let clear = "hello STARTTLS\nC: QUIT\nS: 221 bye";
    let (port, server) = serve(&[broken, clear], &authority.server("mx.example", false)).await;
    assert_eq!(outcome(&connector(), &with_tls(TlsMode::Opportunistic), port).await, "mx.example/clear");
    server.done().await;
    let (port, _server) = serve(&[broken, "close"], &authority.server("mx.example", false)).await;
    let result = outcome(&connector(), &with_tls(TlsMode::Opportunistic), port).await;
    assert_eq!(result, "greeting: the server closed the connection");
}

/// The second socket, in clear text, is asked for like any other.
#[tokio::test]
async fn the_retry_in_clear_text_needs_a_socket_of_its_own() {
    let authority = Authority::new();
    let broken = "hello STARTTLS\nC: STARTTLS\nS: 220 go\ntake 10\nraw: this is not TLS at all\\r\\n\nclose";
    let clear = "hello STARTTLS\nC: QUIT\nS: 221 bye";
    for (allowed, left) in [(1, 0), (3, 1)] {
        let scripts = [broken, clear];
        let (port, server) = serve(&scripts[..allowed.min(2)], &authority.server("mx.example", false)).await;
        let route = route(port, vec![host("mx.example", 10, &["127.0.0.1"])]);
        let sockets = Sockets(allowed.into());
        match connector().open_for(&with_tls(TlsMode::Opportunistic), &route, "".into(), &sockets).await {
            Ok(connection) if allowed > 1 => connection.quit().await,
            Err(facts) if allowed == 1 => assert_eq!(facts.len(), 1),
            other => panic!("{allowed} sockets: {:?}", other.err()),
        }
        assert_eq!(sockets.0.into_inner(), left);
        server.done().await;
    }
}

/// Instead of an answer to STARTTLS.
#[tokio::test]
async fn opportunistic_goes_on_in_clear_text_when_a_server_closes_at_starttls() {
    let authority = Authority::new();
    for broken in ["hello STARTTLS\nC: STARTTLS\nclose", "hello STARTTLS\nC: STARTTLS\nS: 421 4.3.0 no\nclose"] {
        let (port, server) =
            serve(&[broken, "hello STARTTLS\nC: QUIT\nS: 221 bye"], &authority.server("mx.example", false)).await;
        assert_eq!(outcome(&connector(), &with_tls(TlsMode::Opportunistic), port).await, "mx.example/clear");
        server.done().await;
    }
}

#[tokio::test]
async fn opportunistic_goes_on_when_starttls_is_refused_or_not_offered() {
    let authority = Authority::new();
    for script in ["hello STARTTLS\nC: STARTTLS\nS: 454 4.7.0 no\nC: QUIT\nS: 221 bye", "hello\nC: QUIT\nS: 221 bye"] {
        let (port, server) = serve(&[script], &authority.server("mx.example", false)).await;
        assert_eq!(outcome(&connector(), &with_tls(TlsMode::Opportunistic), port).await, "mx.example/clear");
        server.done().await;
    }
}

#[tokio::test]
async fn required_and_verified_never_go_on_in_clear_text() {
    let authority = Authority::new();
    for mode in [TlsMode::Required, TlsMode::Verified] {
        let (port, server) = serve(&["hello\nC: QUIT"], &authority.server("mx.example", false)).await;
        let result = outcome(&connector(), &with_tls(mode), port).await;
        assert_eq!(result, "STARTTLS: TLS: the server does not offer STARTTLS");
        server.done().await;
        let script = "hello STARTTLS\nC: STARTTLS\nS: 454 4.7.0 no\nC: QUIT";
        let (port, server) = serve(&[script], &authority.server("mx.example", false)).await;
        assert_eq!(outcome(&connector(), &with_tls(mode), port).await, "STARTTLS: 454 4.7.0 no");
        server.done().await;
        let script = "hello STARTTLS\nC: STARTTLS\nS: 220 go\nclose";
        let (port, server) = serve(&[script], &authority.server("mx.example", false)).await;
        assert_eq!(outcome(&connector(), &with_tls(mode), port).await, "STARTTLS: the server closed the connection");
        server.done().await;
    }
}

#[tokio::test]
async fn verified_wants_a_trusted_valid_certificate_for_the_name() {
    let authority = Authority::new();
    let good = Provider { tls_ca: Some(authority.trusted()), ..with_tls(TlsMode::Verified) };
    let (port, server) = serve(&[&(HELLO.to_owned() + AGAIN)], &authority.server("mx.example", false)).await;
    assert_eq!(outcome(&connector(), &good, port).await, "mx.example/TLSv1.3");
    server.done().await;

    let cases = [
        (&good, "mx.example", true, "the certificate has expired"),
        (&good, "other.example", false, "the certificate is not for mx.example: it has other.example"),
        (&with_tls(TlsMode::Verified), "mx.example", false, "the certificate is not from a trusted authority"),
    ];
    for (provider, name, expired, expected) in cases {
        let (port, _server) = serve(&[HELLO], &authority.server(name, expired)).await;
        let connector = connector();
        assert_eq!(outcome(&connector, provider, port).await, format!("STARTTLS: TLS: {expected}"));
        // One handshake, and not one for each message that waits.
        for _ in 0..10 {
            let told = outcome(&connector, provider, port).await;
            assert!(told.starts_with("connect: not tried: ") && told.ends_with(expected), "{told}");
        }
    }
}

/// What `openssl req -x509` makes: an authority that shows itself. Trusted if it is named, byte for byte.
#[tokio::test]
async fn a_certificate_that_is_named_itself_is_trusted_itself() {
    let authority = Authority::new();
    let ((own, file), (other, _)) = (self_signed(&authority, "own"), self_signed(&authority, "other"));
    let pinned = Provider { tls_ca: Some(Authorities::load(&file).expect("one")), ..with_tls(TlsMode::Verified) };
    let (port, server) = serve(&[&(HELLO.to_owned() + AGAIN)], &own).await;
    assert_eq!(outcome(&connector(), &pinned, port).await, "mx.example/TLSv1.3");
    server.done().await;
    let (port, _server) = serve(&[HELLO], &other).await;
    let told = outcome(&connector(), &pinned, port).await;
    assert!(told.starts_with("STARTTLS: TLS: the server shows the certificate of an authority as its own"), "{told}");
}

fn self_signed(authority: &Authority, name: &str) -> (Arc<ServerConfig>, PathBuf) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["whatever.example".to_owned()]).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let cert = params.self_signed(&key).expect("a certificate");
    let file = authority.file.with_file_name(format!("{name}.pem"));
    std::fs::write(&file, cert.pem()).expect("a file");
    (showing(&cert, &key), file)
}

#[tokio::test]
async fn plaintext_behind_the_starttls_reply_closes() {
    let authority = Authority::new();
    let script = "hello STARTTLS\nC: STARTTLS\nraw: 220 go\\r\\n250 injected\\r\\n\neof";
    for mode in [TlsMode::Opportunistic, TlsMode::Required, TlsMode::Verified] {
        let (port, server) = serve(&[script], &authority.server("mx.example", false)).await;
        let result = outcome(&connector(), &with_tls(mode), port).await;
        assert_eq!(result, "STARTTLS: unintelligible server: input behind the reply to STARTTLS");
        server.done().await;
    }
}

#[tokio::test]
async fn tickets_are_used_again_unless_switched_off() {
    let authority = Authority::new();
    let script = HELLO.to_owned() + AGAIN;
    for resume in [true, false] {
        let p = Provider { tls_resume: resume, ..with_tls(TlsMode::Required) };
        let (port, server) = serve(&[&script, &script], &authority.server("mx.example", false)).await;
        let connector = connector();
        for _ in 0..2 {
            assert_eq!(outcome(&connector, &p, port).await, "mx.example/TLSv1.3");
        }
        assert_eq!(server.done().await.resumed, [false, resume]);
    }
}

#[tokio::test]
async fn implicit_tls_and_auth_to_a_smart_host() {
    let authority = Authority::new();
    let script = "tls\nhello AUTH PLAIN|PIPELINING\nC: AUTH PLAIN AHVzZXIAcGFzcw==\nS: 235 ok\n\
                  C: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let (port, server) = serve(&[script], &authority.server("mx.example", false)).await;
    let p = Provider {
        tls_ca: Some(authority.trusted()),
        relay: Some(Relay::new("mx.example", port, true, Some(credentials("pass")))),
        ..with_tls(TlsMode::Verified)
    };
    let route = route(port, vec![host("mx.example", 0, &["127.0.0.1"])]);
    let mut connection = connector().open(&p, &route).await.expect("logged in");
    let report = hello().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&report), ["end of data: 250 ok"]);
    assert_eq!(report.facts[0].peer.as_ref().and_then(|p| p.tls).map(|tls| tls.version), Some("TLSv1.3"));
    connection.quit().await;
    assert_eq!(server.done().await.bodies.len(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_not_tried_at_the_next_address() {
    let authority = Authority::new();
    let script = "tls\nhello AUTH PLAIN\nC: AUTH PLAIN*\nS: 535 5.7.8 wrong\nC: QUIT";
    let (port, _server) = serve(&[script, script], &authority.server("mx.example", false)).await;
    let p = Provider {
        relay: Some(Relay::new("mx.example", port, true, Some(credentials("bad")))),
        ..with_tls(TlsMode::Required)
    };
    let all = route(port, vec![host("mx.example", 0, &["127.0.0.1"]), host("my.example", 0, &["127.0.0.1"])]);
    let facts = connector().open(&p, &all).await.err().expect("refused");
    assert_eq!(facts.len(), 1);
    assert_eq!(facts[0].event.to_string(), "535 5.7.8 wrong");
}
