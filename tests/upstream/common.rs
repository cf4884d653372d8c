//! What the upstream tests share: a provider, messages, and sessions over a pipe in memory, where
//! paused time makes a time-out of ten minutes pass at once.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mailweir::clock::Timestamp;
use mailweir::config::{Credentials, Provider, Secret};
use mailweir::deliver::demand::Demand;
use mailweir::deliver::oauth::Tokens;
use mailweir::deliver::session::{Setup, SetupFailure};
use mailweir::deliver::{Connection, Report, Timeouts, TlsSettings, Transaction};
use mailweir::mail::{Address, Body, BodyKind, BodyTraits, CHUNK, Envelope, Message, Origin, QueueId, Recipient};
use mailweir::route::TlsPolicy;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

use crate::server::{Seen, play};

/// A provider without limits, TLS or relay; everything that is offered may be used.
pub fn provider() -> Provider {
    Provider {
        connections: 1,
        messages_per_connection: 100,
        idle_timeout: Duration::from_secs(10),
        ..mailweir::config::sample::provider("test")
    }
}

/// Of the smart hosts of these tests.
pub fn credentials(password: &str) -> Credentials {
    Credentials { user: "user".into(), password: Secret::new(password.into()), mechanism: None }
}

/// A message with its body in memory.
pub struct Mail {
    pub message: Message,
    chunks: Vec<Bytes>,
}

#[async_trait]
impl Body for Mail {
    async fn chunk(&self, index: u32) -> Result<Bytes, String> {
        self.chunks.get(index as usize).cloned().ok_or_else(|| format!("chunk {index} cannot be read"))
    }
}

impl Mail {
    pub fn new(body: impl Into<Vec<u8>>) -> Mail {
        let body: Vec<u8> = body.into();
        let header = body.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(body.len());
        Mail {
            message: Message {
                id: QueueId(1),
                received: Timestamp(0),
                envelope: Envelope { reverse_path: Some(address("from@example.org")), ..Envelope::default() },
                origin: Origin::Local,
                size: body.len() as u64,
                traits: BodyTraits {
                    eight_bit_header: !body[..header].is_ascii(),
                    eight_bit_body: !body[header..].is_ascii(),
                    long_line: body.split(|b| *b == b'\n').any(|l| l.len() > 999),
                    leading_dot: body.split(|b| *b == b'\n').any(|l| l.starts_with(b".")),
                    binary: false,
                },
            },
            chunks: body.chunks(CHUNK).map(Bytes::copy_from_slice).collect(),
        }
    }

    /// Announced as BINARYMIME, and with content that needs it.
    pub fn octets(body: impl Into<Vec<u8>>) -> Mail {
        let mut mail = Mail::new(body);
        mail.message.envelope.body = BodyKind::BinaryMime;
        mail.message.traits.binary = true;
        mail
    }

    /// The first `n` chunks are there, the others cannot be read.
    pub fn truncate(&mut self, n: usize) {
        self.chunks.truncate(n);
    }

    pub async fn send(&self, connection: &mut Connection, to: &[&str]) -> Report {
        let recipients: Vec<Recipient> = to.iter().map(|a| Recipient::new(address(a))).collect();
        let tx = Transaction { message: &self.message, recipients: &recipients, body: self };
        let report = connection.send(&tx).await;
        assert_eq!(report.facts.len(), recipients.len());
        report
    }
}

pub fn hello() -> Mail {
    Mail::new("Subject: hello\r\n\r\nHello.\r\n")
}

pub fn address(text: &str) -> Address {
    Address::parse(text).expect("an address")
}

/// `stage: event` of every recipient.
pub fn fates(report: &Report) -> Vec<String> {
    report.facts.iter().map(|fact| format!("{}: {}", fact.stage, fact.event)).collect()
}

pub static TLS: LazyLock<TlsSettings> = LazyLock::new(TlsSettings::load);

/// None.
pub static TOKENS: LazyLock<Tokens> = LazyLock::new(Tokens::default);

pub fn setup<'a>(provider: &'a Provider, ip: &str) -> Setup<'a> {
    Setup {
        hostname: "relay.example",
        provider,
        host: "mx.example",
        ip: ip.parse::<IpAddr>().expect("an IP address"),
        demand: Box::leak(Box::new(Demand::new(provider, &TlsPolicy::None))),
        tls: &TLS,
        tokens: &TOKENS,
        timeouts: Timeouts::default(),
        clear_text: false,
        shown: Box::leak(Box::default()),
    }
}

/// A scripted server at the other end of a pipe.
pub struct Server(JoinHandle<Result<Seen, String>>);

impl Server {
    pub fn spawn(io: impl mailweir::deliver::Io + 'static, script: &str) -> Server {
        let script = script.to_owned();
        Server(tokio::spawn(async move { play(io, &script, None).await }))
    }

    /// Plays `script` to the first client.
    pub fn accept(listener: TcpListener, script: String, tls: Option<Arc<ServerConfig>>) -> Server {
        Server::accept_all(listener, &[&script], tls)
    }

    /// Plays each script to one client, one after the other; what they saw is put together.
    pub fn accept_all(listener: TcpListener, scripts: &[&str], tls: Option<Arc<ServerConfig>>) -> Server {
        let scripts: Vec<String> = scripts.iter().map(|s| (*s).to_owned()).collect();
        Server(tokio::spawn(async move {
            let mut all = Seen::default();
            for script in scripts {
                let (stream, _) = listener.accept().await.map_err(|e| e.to_string())?;
                let seen = play(stream, &script, tls.clone()).await?;
                all.bodies.extend(seen.bodies);
                all.resumed.extend(seen.resumed);
            }
            Ok(all)
        }))
    }

    /// The script went to its end.
    pub async fn done(self) -> Seen {
        match self.0.await.expect("the server does not panic") {
            Ok(seen) => seen,
            Err(why) => panic!("{why}"),
        }
    }
}

/// A session with a scripted server over a pipe of `capacity` bytes each way.
pub async fn over_pipe(
    provider: &Provider,
    capacity: usize,
    script: &str,
) -> (Result<Connection, SetupFailure>, Server) {
    let (near, far) = tokio::io::duplex(capacity);
    let server = Server::spawn(far, script);
    (Connection::establish(near, setup(provider, "127.0.0.1")).await, server)
}

/// A session that comes about, with a host that has shown that it obeys BDAT.
pub async fn session(script: &str) -> (Connection, Server) {
    let (connection, server) = new_session(script).await;
    (connection.obeys_bdat(), server)
}

/// A session that comes about.
pub async fn new_session(script: &str) -> (Connection, Server) {
    let (connection, server) = over_pipe(&provider(), 64 * 1024, script).await;
    match connection {
        Ok(connection) => (connection, server),
        Err(failure) => panic!("{}", failure.fact),
    }
}

/// What becomes of one message to `to` with this script.
pub async fn fates_of(script: &str, to: &[&str]) -> (Vec<String>, Connection) {
    let (mut connection, _server) = session(script).await;
    let report = hello().send(&mut connection, to).await;
    (fates(&report), connection)
}

/// What becomes of a session with this script, as text.
pub async fn failure_of(provider: &Provider, script: &str) -> String {
    match over_pipe(provider, 64 * 1024, script).await {
        (Ok(_), _) => panic!("the session came about"),
        (Err(failure), _) => format!("{}: {}", failure.fact.stage, failure.fact.event),
    }
}
