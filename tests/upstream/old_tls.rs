//! Servers whose TLS or certificates are of the kinds that people really have: self-signed, old,
//! weak. OpenSSL makes the certificates and plays the server.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mailweir::config::{Authorities, Provider, Relay, TlsMode};

use crate::common::*;
use crate::connecting::{connector, host, route};

/// A server that ends with the test.
struct Openssl(Child, u16);

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes `name.pem` and `name.key`.
fn made(dir: &Path, name: &str, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(["req", "-x509", "-nodes", "-days", "30"]);
    command.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")]).args(arguments);
    let output = command.output().expect("openssl is installed: tests/run does that");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn serve(dir: &Path, name: &str, arguments: &[&str]) -> Openssl {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port").port();
    let mut command = Command::new("openssl");
    command.current_dir(dir).args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")]);
    command.args(["-cert", &format!("{name}.pem"), "-key", &format!("{name}.key")]).args(arguments);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("openssl");
    let mut server = Openssl(child, port);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert_eq!(server.0.try_wait().expect("its state"), None, "openssl s_server has ended at its start");
        std::thread::sleep(Duration::from_millis(10));
    }
    server
}

/// Why there is no session.
async fn failure(provider: &Provider, server: &Openssl) -> String {
    // TLS from the first byte: OpenSSL plays no SMTP.
    let relay = Some(Relay::new("mx.example", server.1, true, None));
    let provider = &Provider { relay, ..provider.clone() };
    let facts = connector().open(provider, &route(server.1, vec![host("mx.example", 10, &["127.0.0.1"])])).await;
    facts.err().expect("no session").iter().map(|f| format!("{}: {}", f.stage, f.event)).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let verified = |ca: &str| Provider {
        tls: TlsMode::Verified,
        tls_ca: Some(Authorities::load(&dir.path().join(format!("{ca}.pem"))).expect("a certificate")),
        ..provider()
    };
    made(
        dir.path(),
        "own",
        &["-newkey", "rsa:2048", "-subj", "/CN=mx.example", "-addext", "subjectAltName=DNS:mx.example"],
    );
    made(
        dir.path(),
        "other",
        &["-newkey", "rsa:2048", "-subj", "/CN=mx.example", "-addext", "subjectAltName=DNS:mx.example"],
    );
    made(
        dir.path(),
        "weak",
        &["-newkey", "rsa:1024", "-subj", "/CN=mx.example", "-addext", "subjectAltName=DNS:mx.example"],
    );
    // An authority, and a certificate from it without names.
    let sign = |name: &str, extensions: &str| {
        std::fs::write(dir.path().join("ext"), extensions).expect("a file");
        let run = |arguments: &[&str]| {
            let output = Command::new("openssl").current_dir(dir.path()).args(arguments).output().expect("openssl");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        let (key, csr, pem) = (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
        run(&[
            "req",
            "-new",
            "-nodes",
            "-newkey",
            "rsa:2048",
            "-keyout",
            &key,
            "-out",
            &csr,
            "-subj",
            "/CN=mx.example",
        ]);
        let mut arguments = vec!["x509", "-req", "-in", &csr, "-CA", "own.pem", "-CAkey", "own.key", "-out", &pem];
        if !extensions.is_empty() {
            arguments.extend(["-extfile", "ext"]);
        }
        run(&arguments);
    };
    sign("nameless", "basicConstraints=CA:FALSE\n");
    sign("first", "");
    for (shown, trusted, expected) in [
        ("own", "other", "the server shows the certificate of an authority as its own: "),
        ("nameless", "own", "the certificate is not for mx.example: it names no host (a common name does not count)"),
        ("first", "own", "the certificate is of version 1, which is not accepted: expected X.509 version 3"),
        ("weak", "other", "the server shows the certificate of an authority as its own: "),
        (
            "weak",
            "weak",
            "the handshake is not signed by the key of the certificate, or the key is too weak: RSA needs 2048 bits",
        ),
    ] {
        let weak: &[&str] = if shown == "weak" { &["-cipher", "ALL:@SECLEVEL=0"] } else { &[] };
        let server = serve(dir.path(), shown, weak);
        let told = failure(&verified(trusted), &server).await;
        assert!(told.starts_with(&format!("STARTTLS: TLS: {expected}")), "{shown}: {told}");
    }
}

#[tokio::test]
async fn a_server_with_old_tls_only_is_told_as_that() {
    let dir = tempfile::tempdir().expect("a directory");
    made(dir.path(), "own", &["-newkey", "rsa:2048", "-subj", "/CN=mx.example"]);
    let required = Provider { tls: TlsMode::Required, ..provider() };
    for arguments in [
        ["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        ["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA256"],
    ] {
        let server = serve(dir.path(), "own", &arguments);
        let told = failure(&required, &server).await;
        let expected = "STARTTLS: TLS: the server and we have no version or cipher suite in common: ";
        assert!(told.starts_with(expected), "{arguments:?}: {told}");
    }
}
