//! TLS of hosts that is odd rather than wrong: certificates for addresses and wildcards, names that a host does not
//! know, handshakes in crumbs, certificates without measure, a second handshake.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use mailweir::config::{Provider, Relay, TlsMode};
use mailweir::deliver::Connection;
use rcgen::{CertificateParams, CustomExtension, SanType};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::common::*;
use crate::connecting::{connector, host, route};
use crate::encryption::{AGAIN, Authority, HELLO, serve, with_tls};
use crate::server::play;

/// A certificate of this authority for exactly these names.
fn named(authority: &Authority, names: Vec<SanType>) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.subject_alt_names = names;
    authority.sign(params)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().expect("ASCII"))
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().expect("an address"))
}

/// What becomes of a connection to a host of this name: the version of TLS, `clear`, or why there is none.
async fn outcome_at(name: &str, provider: &Provider, scripts: &[&str], tls: &Arc<ServerConfig>) -> String {
    let (port, server) = serve(scripts, tls).await;
    match connector().open(provider, &route(port, vec![host(name, 10, &["127.0.0.1"])])).await {
        Ok(connection) => {
            let version = connection.peer().tls.map_or("clear", |tls| tls.version).to_owned();
            connection.quit().await;
            server.done().await;
            version
        }
        Err(facts) => facts.iter().map(|f| format!("{}: {}", f.stage, f.event)).collect::<Vec<_>>().join("; "),
    }
}

#[tokio::test]
async fn certificates_for_addresses_and_wildcards_are_for_exactly_what_they_name() {
    let authority = Authority::new();
    let verified = Provider { tls_ca: Some(authority.trusted()), ..with_tls(TlsMode::Verified) };
    let good = HELLO.to_owned() + AGAIN;
    for (shown, name) in [
        (ip("127.0.0.1"), "127.0.0.1"),
        (ip("::1"), "::1"),
        (dns("*.mail.example"), "mx.mail.example"),
        (dns("*.MAIL.example"), "mx.mail.EXAMPLE"),
    ] {
        let told = outcome_at(name, &verified, &[&good], &named(&authority, vec![shown.clone()])).await;
        assert_eq!(told, "TLSv1.3", "{shown:?} is for {name}");
    }
    for (shown, name) in [
        // Another address, and an address that is said to be a name.
        (ip("127.0.0.2"), "127.0.0.1"),
        (dns("127.0.0.1"), "127.0.0.1"),
        (dns("*.0.0.1"), "127.0.0.1"),
        (ip("127.0.0.1"), "mx.mail.example"),
        // One label, whole, and the first one.
        (dns("*.mail.example"), "mail.example"),
        (dns("*.mail.example"), "a.mx.mail.example"),
        (dns("m*.mail.example"), "mx.mail.example"),
        (dns("mx.*.example"), "mx.mail.example"),
        (dns("*"), "mx.mail.example"),
        (dns("*.example"), "mail.example"),
    ] {
        let told = outcome_at(name, &verified, &[HELLO], &named(&authority, vec![shown.clone()])).await;
        assert!(told.starts_with("STARTTLS: TLS: the certificate"), "{shown:?} for {name}: {told}");
        // Who does not ask for a checked one is served all the same.
        let required = with_tls(TlsMode::Required);
        assert_eq!(outcome_at(name, &required, &[&good], &named(&authority, vec![shown])).await, "TLSv1.3");
    }
}

/// Notes the name that was asked for, and knows one only, or shows what it has to everybody.
#[derive(Debug)]
struct Names {
    asked: Mutex<Vec<Option<String>>>,
    only: Option<&'static str>,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        self.asked.lock().expect("no panic").push(asked.map(str::to_owned));
        let known = self.only.is_none_or(|only| asked == Some(only));
        known.then(|| self.key.clone())
    }
}

fn resolving(names: &Arc<Names>) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(names.clone());
    Arc::new(config)
}

#[tokio::test]
async fn a_server_that_does_not_know_the_name_asked_for_is_judged_by_its_certificate() {
    let authority = Authority::new();
    let verified = Provider { tls_ca: Some(authority.trusted()), ..with_tls(TlsMode::Verified) };
    let good = HELLO.to_owned() + AGAIN;
    let names = |only| {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names = vec![dns("mx.example"), ip("127.0.0.1")];
        Arc::new(Names { asked: Mutex::default(), only, key: authority.certified(params) })
    };
    // It looks at no name, or is asked by an address, for which there is none (RFC 6066 §3).
    let whatever = names(None);
    for (name, expected) in [("mx.example", "TLSv1.3"), ("127.0.0.1", "TLSv1.3")] {
        assert_eq!(outcome_at(name, &verified, &[&good], &resolving(&whatever)).await, expected);
    }
    let told = outcome_at("mx2.example", &verified, &[HELLO], &resolving(&whatever)).await;
    assert!(told.starts_with("STARTTLS: TLS: the certificate is not for mx2.example: it has mx.example"), "{told}");
    let asked = whatever.asked.lock().expect("no panic").clone();
    assert_eq!(asked, [Some("mx.example".to_owned()), None, Some("mx2.example".to_owned())]);
    // It ends the handshake at a name that it does not know, and without one.
    for name in ["mx2.example", "127.0.0.1"] {
        let strict = resolving(&names(Some("mx.example")));
        let told = outcome_at(name, &with_tls(TlsMode::Required), &[HELLO], &strict).await;
        assert!(told.starts_with("STARTTLS: TLS: "), "{told}");
    }
}

/// Each of whose reads gives one byte.
struct Crumbs(DuplexStream);

impl AsyncRead for Crumbs {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut one = [0];
        let mut small = ReadBuf::new(&mut one);
        std::task::ready!(Pin::new(&mut self.0).poll_read(cx, &mut small))?;
        buf.put_slice(small.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Crumbs {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Each read gives one byte, in both directions; and certificates as large as they come. 64 KiB is the largest message
/// of a handshake that is read, so that no host can fill the memory with one.
#[tokio::test]
async fn a_handshake_may_come_in_pieces_of_a_byte_and_with_a_large_certificate() {
    let authority = Authority::new();
    for (octets, fits) in [(0, true), (60_000, true), (100_000, false)] {
        let mut params = CertificateParams::new(vec!["mx.example".to_owned()]).expect("parameters");
        if octets > 0 {
            let filler = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4; octets]);
            params.custom_extensions = vec![filler];
        }
        let names = Names { asked: Mutex::default(), only: None, key: authority.certified(params) };
        let tls = resolving(&Arc::new(names));
        for mode in [TlsMode::Required, TlsMode::Verified] {
            let provider = Provider { tls_ca: Some(authority.trusted()), ..with_tls(mode) };
            let (near, far) = tokio::io::duplex(1 << 20);
            let shown = tls.clone();
            let script = HELLO.to_owned() + AGAIN;
            let host = tokio::spawn(async move { play(Crumbs(far), &script, Some(shown)).await });
            match Connection::establish(Crumbs(near), setup(&provider, "127.0.0.1")).await {
                Ok(connection) => {
                    assert!(fits, "{octets} octets");
                    assert_eq!(connection.peer().tls.map(|tls| tls.version), Some("TLSv1.3"));
                    connection.quit().await;
                    host.await.expect("no panic").expect("the script");
                }
                Err(failed) => {
                    assert!(!fits, "{octets} octets: {}", failed.fact.event);
                    assert!(failed.fact.to_string().contains("TLS: "), "{}", failed.fact);
                }
            }
        }
        if !fits {
            // To whom encryption is only better than none it is a host whose TLS is broken.
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let shown = tls.clone();
            tokio::spawn(async move {
                for script in [HELLO, "hello STARTTLS\nC: QUIT\nS: 221 bye"] {
                    let (stream, _) = listener.accept().await.expect("a client");
                    // The first handshake is given up in its middle.
                    let _ = play(stream, script, Some(shown.clone())).await;
                }
            });
            let provider = with_tls(TlsMode::Opportunistic);
            let connection = connector().open(&provider, &route(port, vec![host_of("mx.example")])).await;
            let connection = connection.expect("a session");
            assert_eq!(connection.peer().tls, None);
            connection.quit().await;
        }
    }
}

/// OpenSSL asks for another handshake (TLS 1.2) before it replies to the message. We take part in none, and go on.
#[tokio::test]
async fn a_server_that_asks_for_a_second_handshake_gets_none_and_takes_the_message() {
    let authority = Authority::new();
    let (certificate, key) = authority.files("mx.example");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut openssl = Command::new("sh")
        .args(["-c", "exec openssl s_server \"$@\" 2>&1", "sh", "-tls1_2", "-state", "-naccept", "1"])
        .args(["-accept", &format!("127.0.0.1:{port}"), "-cert"])
        .args([certificate.as_os_str(), std::ffi::OsStr::new("-key"), key.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl is installed: tests/run does that");
    let (mut says, hears) = (openssl.stdin.take().expect("a pipe"), openssl.stdout.take().expect("a pipe"));
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    // What the client says stands in its output; `R` on a line of its own asks for a handshake.
    let host = std::thread::spawn(move || {
        let (mut ready, mut heard) = (Some(ready), Vec::new());
        for line in BufReader::new(hears).lines().map_while(Result::ok) {
            let answer = match line.split(' ').next().unwrap_or_default().trim_end() {
                "ACCEPT" => {
                    ready.take().map(|ready| ready.send(()));
                    continue;
                }
                // The end of what it tells about the handshake.
                "Secure" => "220 mx.example\r\n",
                "EHLO" => "250 mx.example\r\n",
                "MAIL" | "RCPT" => "250 ok\r\n",
                "DATA" => "354 go\r\n",
                "." => "R\n",
                // It has asked; the client owes it nothing.
                _ if line.ends_with("write hello request") => "250 taken\r\n",
                _ => continue,
            };
            heard.push(line);
            if says.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        heard
    });
    is_ready.await.expect("it listens");
    let relay = Some(Relay::new("mx.example", port, true, None));
    let provider = Provider { relay, ..with_tls(TlsMode::Required) };
    let all = route(port, vec![host_of("mx.example")]);
    let mut connection = connector().open(&provider, &all).await.expect("a session");
    assert_eq!(connection.peer().tls.map(|tls| tls.version), Some("TLSv1.2"));
    let report = hello().send(&mut connection, &["a@x.example"]).await;
    assert_eq!(fates(&report), ["end of data: 250 taken"]);
    drop(connection);
    let heard = host.join().expect("no panic");
    assert!(heard.iter().any(|line| line.ends_with("write hello request")), "{heard:?}");
    openssl.wait().expect("it has ended");
}

fn host_of(name: &str) -> mailweir::route::Host {
    host(name, 10, &["127.0.0.1"])
}
