//! Networks that are slow, or go away without a word, on paused time.

use std::time::Duration;

use mailweir::deliver::session::SetupFailure;
use mailweir::deliver::{Connection, Event, Report, Stage};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::common::{Mail, Server, hello, provider, setup};

const TO: &str = "to@example.net";
const TAKEN: &str =
    "hello PIPELINING\nC: MAIL*\nC: RCPT*\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\ndata\nS: 250 taken";

/// One byte, a pause, the next.
async fn trickle(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, pause: Duration) {
    while let Ok(byte) = from.read_u8().await {
        tokio::time::sleep(pause).await;
        if to.write_u8(byte).await.is_err() {
            return;
        }
    }
}

/// A session through a network that carries a byte in each pause, both ways, and keeps none back.
async fn slow(pause: Duration, script: &str) -> (Result<Connection, SetupFailure>, Server) {
    let (near, left) = tokio::io::duplex(1);
    let (right, far) = tokio::io::duplex(1);
    let ((left_in, left_out), (right_in, right_out)) = (tokio::io::split(left), tokio::io::split(right));
    tokio::spawn(trickle(left_in, right_out, pause));
    tokio::spawn(trickle(right_in, left_out, pause));
    let server = Server::spawn(far, script);
    (Connection::establish(near, setup(&provider(), "127.0.0.1")).await, server)
}

fn fate(report: &Report) -> (Stage, &Event) {
    (report.facts[0].stage, &report.facts[0].event)
}

#[tokio::test(start_paused = true)]
async fn one_byte_a_second_is_slow_and_delivers() {
    let began = Instant::now();
    let (connection, server) = slow(Duration::from_secs(1), TAKEN).await;
    let mut connection = connection.unwrap_or_else(|failure| panic!("{}", failure.fact));
    let mail = hello();
    let report = mail.send(&mut connection, &[TO]).await;
    assert!(matches!(fate(&report), (Stage::Final, Event::Reply(reply)) if reply.code == 250), "{:?}", fate(&report));
    assert!(began.elapsed() > Duration::from_secs(100), "{:?}", began.elapsed());
    assert!(server.done().await.bodies[0].starts_with(b"Subject: hello\r\n"));
}

/// A byte a second is progress, but a message of 20 KB would hold the connection for six hours.
#[tokio::test(start_paused = true)]
async fn a_message_that_would_take_hours_is_given_up() {
    let (connection, _server) = slow(Duration::from_secs(1), TAKEN).await;
    let mut connection = connection.unwrap_or_else(|failure| panic!("{}", failure.fact));
    let mail = Mail::new(format!("Subject: big\r\n\r\n{}", "a line of text\r\n".repeat(1280)));
    let began = Instant::now();
    let report = mail.send(&mut connection, &[TO]).await;
    let (stage, event) = fate(&report);
    assert!(matches!(event, Event::Timeout(_)), "{event}");
    assert_ne!(stage, Stage::Final, "it cannot have arrived");
    // The commands, then three minutes and 41 seconds for 20 KB.
    assert!(began.elapsed() < Duration::from_secs(400), "{:?}", began.elapsed());
    assert!(!connection.is_usable());
}

/// The peer is gone and nobody says so: what is written goes nowhere, and no reply comes.
#[tokio::test(start_paused = true)]
async fn a_half_open_connection_costs_a_time_out_and_nothing_is_in_doubt() {
    let script = format!("{TAKEN}\nstall");
    let (connection, _server) = slow(Duration::from_millis(1), &script).await;
    let mut connection = connection.unwrap_or_else(|failure| panic!("{}", failure.fact));
    let report = hello().send(&mut connection, &[TO]).await;
    assert!(matches!(fate(&report), (Stage::Final, Event::Reply(_))), "{:?}", fate(&report));
    let began = Instant::now();
    let report = hello().send(&mut connection, &[TO]).await;
    let (stage, event) = fate(&report);
    assert!(matches!(event, Event::Timeout(_)), "{event}");
    assert_eq!(stage, Stage::Mail, "before the final dot: it is tried again without doubt");
    assert!(began.elapsed() <= Duration::from_secs(5 * 60), "{:?}", began.elapsed());
    assert!(!connection.is_usable());
}
