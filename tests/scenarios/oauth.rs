//! The relay logs in with tokens: mail is kept while the token endpoint fails and leaves by itself when it is back,
//! a token is fetched once, `auth test` tells each step, and no secret is in anything that is written at `trace`.

// Other test programs look at the authority, too.
#[allow(dead_code)]
use crate::ca;
use crate::support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ca::{Authority, Certificate};
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::{Port, SOON, TestDir, wait_for};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

const SECRET: &str = "v3ry-s3cret-of-the-app";

/// A JWT as far as anybody looks.
fn token() -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let claims = "{\"aud\":\"https://outlook.example\",\"roles\":[\"SMTP.SendAsApp\"],\"exp\":1900000000}";
    format!("{}.{}.{}", part("{\"alg\":\"none\"}"), part(claims), part("sign-sign-sign-sign"))
}

fn tls(certificate: &Certificate) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&certificate.file).expect("PEM").collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    Arc::new(config)
}

/// What the token endpoint answers now, and how often it was asked.
#[derive(Default)]
struct Endpoint {
    gives: Mutex<bool>,
    asked: Mutex<Vec<bool>>,
}

impl Endpoint {
    fn start(address: SocketAddr, tls: Arc<ServerConfig>) -> Arc<Endpoint> {
        let endpoint: Arc<Endpoint> = Arc::default();
        let (listener, shared) = (TcpListener::bind(address).expect("an address"), endpoint.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = ServerConnection::new(tls.clone()).expect("a session");
                // Who goes away has no answer.
                let _ = shared.serve(StreamOwned::new(server, stream));
            }
        });
        endpoint
    }

    fn serve(&self, mut stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while !text.ends_with(format!("client_secret={SECRET}").as_bytes()) {
            let n = stream.read(&mut buffer)?;
            text.extend_from_slice(&buffer[..n]);
            if n == 0 {
                return Ok(());
            }
        }
        let gives = *self.gives.lock().expect("no panic");
        self.asked.lock().expect("no panic").push(gives);
        let (status, body) = match gives {
            true => ("200 OK", format!("{{\"access_token\":\"{}\",\"expires_in\":3600}}", token())),
            false => (
                "400 Bad Request",
                format!("{{\"error\":\"invalid_client\",\"error_description\":\"AADSTS7000222: {SECRET} is over\"}}"),
            ),
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        stream.flush()
    }
}

/// A smart host that takes this token alone, and says it back wherever it can.
fn smart_host(address: SocketAddr) -> Arc<Mutex<u32>> {
    let taken: Arc<Mutex<u32>> = Arc::default();
    let (listener, count) = (TcpListener::bind(address).expect("an address"), taken.clone());
    let serve = move |stream: TcpStream, count: &Mutex<u32>| -> std::io::Result<()> {
        let mut out = stream.try_clone()?;
        let mut lines = BufReader::new(stream).lines();
        let expected = STANDARD.encode(format!("user=app@shop.test\x01auth=Bearer {}\x01\x01", token()));
        let mut logged_in = false;
        write!(out, "220 {} ESMTP\r\n", token())?;
        while let Some(line) = lines.next().transpose()? {
            let verb = line.split([' ', ':']).next().unwrap_or_default();
            let reply = match verb {
                "EHLO" => "250-smart.test\r\n250 AUTH XOAUTH2".to_owned(),
                "AUTH" => {
                    logged_in = line == format!("AUTH XOAUTH2 {expected}");
                    if logged_in { format!("235 2.7.0 welcome {expected}") } else { "535 5.7.8 no".to_owned() }
                }
                "DATA" if logged_in => {
                    write!(out, "354 go\r\n")?;
                    while lines.next().transpose()?.is_some_and(|line| line != ".") {}
                    *count.lock().expect("no panic") += 1;
                    format!("250 ok {}", token())
                }
                "QUIT" => "221 bye".to_owned(),
                _ if logged_in => "250 ok".to_owned(),
                _ => "530 5.7.57 who are you".to_owned(),
            };
            write!(out, "{reply}\r\n")?;
        }
        Ok(())
    };
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, count) = (serve.clone(), count.clone());
            thread::spawn(move || serve(stream, &count));
        }
    });
    taken
}

struct World {
    daemon: Daemon,
    endpoint: Arc<Endpoint>,
    taken: Arc<Mutex<u32>>,
    dir: TestDir,
    _port: Port,
}

fn world() -> World {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (host, tokens) = (port.at(2), port.at(3));
    let authority = Authority::new(&dir, "test-ca");
    let endpoint = Endpoint::start(tokens, tls(&authority.certificate(&dir, &tokens.ip().to_string())));
    let secret = dir.write("secret", SECRET);
    let mut daemon = Setup::new(&dir)
        .with(&format!(
            "[provider.smart]\nrelay = \"{host}\"\ntls = \"off\"\ntls_ca = \"{}\"\nauth = {{ user = \"app@shop.test\", \
             client_id = \"app\", secret = {{ file = \"{}\" }}, oauth = {{ token_url = \"https://{tokens}/token\" }} }}\n\
             [[route]]\nvia = \"smart\"\n",
            authority.file.display(),
            secret.display()
        ))
        .prepare();
    daemon.replace_config("level = \"info\"", "level = \"trace\"");
    daemon.start();
    World { daemon, endpoint, taken: smart_host(host), dir, _port: port }
}

/// All files of the run and what commands print: none of them has a secret.
fn assert_clean(dir: &Path, printed: &[String]) {
    let token = token();
    let parts: Vec<&str> = token.split('.').collect();
    let hidden = [SECRET, parts[1], parts[2], &STANDARD.encode(&token)[8..40]];
    let clean = |what: &str, content: &[u8]| {
        for secret in hidden {
            let found = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{what} has `{secret}`");
        }
    };
    for entry in std::fs::read_dir(dir).expect("the directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_file() && name != "secret" {
            clean(&name, &std::fs::read(entry.path()).expect("a file"));
        }
    }
    printed.iter().for_each(|text| clean("a command", text.as_bytes()));
}

#[test]
fn mail_waits_for_a_token_and_leaves_by_itself_and_nothing_secret_is_told() {
    let world = world();
    let daemon = &world.daemon;
    for n in 0..5 {
        daemon.client().send("<a@shop.test>", &["<b@example.test>"], &message(&format!("message {n}")));
    }
    let waits = daemon.wait_row("a reason", |row| row.reason().contains("no token"));
    let (state, reason) = (waits.state(), waits.reason());
    assert_eq!(state, "queued");
    assert!(reason.contains("AADSTS7000222: *** is over (the client secret has expired: make a new one"), "{reason}");
    let shown = daemon.command_ok(&["provider", "show", "smart"], b"");
    assert!(shown.contains("AADSTS7000222"), "{shown}");
    let failed = daemon.command(&["auth", "test", "smart"], b"");
    let failed_out = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert_eq!(failed.status.code(), Some(69), "{failed_out}");
    for step in ["name   ok", "TCP    ok", "EHLO   ok", "token  FAILED"] {
        assert!(failed_out.contains(step), "{failed_out}");
    }
    assert_eq!(*world.taken.lock().expect("no panic"), 0);

    // Nobody tells the relay.
    *world.endpoint.gives.lock().expect("no panic") = true;
    wait_for("five messages at the smart host", SOON, || (*world.taken.lock().expect("no panic") == 5).then_some(()));
    daemon.wait_queue_empty(SOON);
    let given = || world.endpoint.asked.lock().expect("no panic").iter().filter(|gives| **gives).count();
    assert_eq!(given(), 1, "one token for all of them");
    let works = daemon.command_ok(&["auth", "test", "smart", "--from", "a@shop.test"], b"");
    for told in
        ["token  ok", "roles: SMTP.SendAsApp", "exp: 2030-03-17T", "AUTH   ok", "MAIL   ok", "RSET   ok", "smart works"]
    {
        assert!(works.contains(told), "{told}: {works}");
    }
    let check = daemon.command_ok(&["check", "--all"], b"");
    let log_in = daemon.command(&["auth", "login", "smart"], b"");
    assert_eq!(log_in.status.code(), Some(78));
    let log_in = String::from_utf8_lossy(&log_in.stderr).into_owned();
    assert!(log_in.contains("a person logs in where a refresh token is used"), "{log_in}");
    assert_clean(world.dir.path(), &[shown, failed_out, works, check, log_in]);
}
