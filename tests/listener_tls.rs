//! TLS on listeners beyond what a dialog file can say: versions, resumption, writes, ends that are
//! cut off, and what the log tells.

#[path = "support/rig.rs"]
mod rig;
#[path = "support/listener.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mailweir::clock::Clock;
use mailweir::config::{Listener, ListenerTlsMode};
use mailweir::listener::Server;
use proptest::prelude::*;
use rig::{Lines, Rig, rig, rig_with};
use support::identity::{client, client_of, listener_tls, server_name};
use support::{HOSTNAME, Inbox, Mood};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

fn implicit() -> Listener {
    Listener { tls: Some(listener_tls(ListenerTlsMode::Implicit, false)), ..support::listener() }
}

/// The client's handshake.
async fn encrypted(rig: Rig, config: Arc<ClientConfig>) -> std::io::Result<Rig<TlsStream<DuplexStream>>> {
    let Rig { inbox, client, writes, session, stop } = rig;
    let client = TlsConnector::from(config).connect(server_name(), client).await?;
    Ok(Rig { inbox, client, writes, session, stop })
}

const MESSAGE: &[u8] = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n";

#[tokio::test]
async fn replies_of_an_encrypted_batch_leave_in_one_write() {
    let mut rig = encrypted(rig(implicit()), client()).await.expect("a handshake");
    rig.talk(b"", 1).await;
    rig.talk(b"EHLO app.example\r\n", 15).await;
    let before = rig.writes.load(Ordering::Relaxed);
    let rcpts = b"RCPT TO:<a@b.example>\r\n".repeat(20);
    let batch = [b"MAIL FROM:<x@y.example>\r\n".as_slice(), &rcpts, b"DATA\r\n"].concat();
    rig.talk(&batch, 22).await;
    assert_eq!(rig.writes.load(Ordering::Relaxed) - before, 1);
    rig.talk(&[b"Subject: x\r\n\r\ny\r\n.\r\n".as_slice(), &batch].concat(), 23).await;
    assert_eq!(rig.writes.load(Ordering::Relaxed) - before, 2);
    rig.talk(b".\r\nQUIT\r\n", 2).await;
    // Without a close_notify this would be an error: somebody cut the connection.
    let mut rest = Vec::new();
    assert_eq!(rig.client.read_to_end(&mut rest).await.expect("close_notify"), 0);
    rig.session.await.expect("no panic");
    assert_eq!(rig.inbox.memory.stored.lock().len(), 2);
}

/// Nothing is lost or mixed up where the network takes a few bytes at a time.
#[tokio::test]
async fn a_message_is_the_same_over_a_thin_line() {
    let mut rig = encrypted(rig_with(implicit(), 7), client()).await.expect("a handshake");
    rig.talk(b"", 1).await;
    rig.talk(b"EHLO app.example\r\n", 15).await;
    rig.talk(MESSAGE, 3).await;
    let content = b"0123456789 abcdefghijklmnopqrstuvwxyz\r\n".repeat(2_000);
    let got = rig.talk(&[b"Subject: x\r\n\r\n".as_slice(), &content, b".\r\n"].concat(), 1).await;
    assert!(got.starts_with("250 2.0.0 Ok: queued as "), "{got}");
    assert!(rig.inbox.memory.stored.lock()[0].body.ends_with(&content));
}

#[tokio::test]
async fn both_versions_are_spoken_and_sessions_are_resumed() {
    let listener = implicit();
    for (version, name) in [(&TLS13, "TLSv1_3"), (&TLS12, "TLSv1_2")] {
        let config = Arc::new(client_of(&[version], true));
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut rig = encrypted(rig(listener.clone()), config.clone()).await.expect("a handshake");
            let tls = rig.client.get_ref().1;
            assert_eq!(format!("{:?}", tls.protocol_version()), format!("Some({name})"));
            // One that asked for another group first counts as full, too.
            let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, expected == HandshakeKind::Resumed, "{name}: {:?}", tls.handshake_kind());
            // The tickets of TLS 1.3 come before the greeting.
            rig.talk(b"", 1).await;
            rig.talk(b"QUIT\r\n", 1).await;
            rig.session.await.expect("no panic");
        }
    }
}

/// Who can cut a connection must not be able to end a message, or to end it early.
#[tokio::test]
async fn a_connection_that_is_cut_inside_a_message_queues_nothing() {
    for polite in [false, true] {
        let (lines, _guard) = Lines::collect();
        let mut rig = encrypted(rig(implicit()), client()).await.expect("a handshake");
        rig.talk(b"", 1).await;
        rig.talk(b"EHLO app.example\r\n", 15).await;
        rig.talk(MESSAGE, 3).await;
        rig.client.write_all(b"Subject: x\r\n\r\nhalf of it").await.expect("a session");
        rig.client.flush().await.expect("a session");
        if polite {
            rig.client.shutdown().await.expect("close_notify");
            let mut rest = Vec::new();
            rig.client.read_to_end(&mut rest).await.expect("close_notify comes back");
        } else {
            // Without close_notify.
            rig.client.into_inner().0.shutdown().await.expect("a session");
        }
        rig.session.await.expect("no panic");
        assert_eq!(rig.inbox.memory.stored.lock().len(), 0);
        let log = lines.text();
        assert!(log.contains("nothing queued") && log.contains("why=\"unexpected end of file\""), "{log}");
    }
}

#[tokio::test]
async fn the_log_tells_the_version_of_a_message_and_why_there_is_no_tls() {
    // Of the same client and reason there is a line at `info` once an hour, whichever test was first.
    let (lines, _guard) = Lines::collect_from(tracing::Level::DEBUG);
    let mut rig1 = encrypted(rig(implicit()), client()).await.expect("a handshake");
    rig1.talk(b"", 1).await;
    rig1.talk(b"EHLO app.example\r\n", 15).await;
    rig1.talk(MESSAGE, 3).await;
    rig1.talk(b"Subject: x\r\n\r\n.\r\n", 1).await;
    rig1.talk(b"QUIT\r\n", 1).await;
    rig1.session.await.expect("no panic");
    let log = lines.text();
    let accepted = log.lines().find(|l| l.contains(" accepted ")).expect("the line of the message");
    assert!(accepted.contains("helo=\"app.example\" tls=\"TLSv1.3\" size="), "{accepted}");

    let stranger = rig(implicit());
    let Rig { client: pipe, session, .. } = stranger;
    let connected = TlsConnector::from(Arc::new(client_of(&[&TLS13], false))).connect(server_name(), pipe).await;
    assert!(connected.is_err(), "a certificate that nobody trusts");
    drop(connected);
    session.await.expect("no panic");
    let log = lines.text();
    assert!(
        log.contains("no TLS with a client") && log.contains("the client does not accept the certificate: UnknownCA"),
        "{log}"
    );

    let mut plain = rig(implicit());
    plain.client.write_all(b"EHLO app.example\r\n").await.expect("a session");
    let mut got = Vec::new();
    plain.client.read_to_end(&mut got).await.expect("an alert, and the end");
    assert!(got.starts_with(&[21, 3]) && got.len() == 7, "a TLS alert and nothing more: {}", got.escape_ascii());
    plain.session.await.expect("no panic");
    assert!(lines.text().contains("why=\"the client does not speak TLS\""), "{}", lines.text());
}

/// Who says nothing is waited for beside the others, and counts as a session.
#[tokio::test]
async fn a_silent_client_holds_up_nobody_but_takes_a_place() {
    let listener = Listener { max_connections: 3, ..implicit() };
    let inbox = Inbox::new(Mood::Works, Clock::System);
    let server = Server::bind(Arc::new(listener), HOSTNAME, inbox).expect("a listener");
    let address = server.local_addr().expect("an address");
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.run(stopped, Duration::from_secs(5)));
    let connect = || async { tokio::net::TcpStream::connect(address).await.expect("a connection") };
    let (one, two) = (connect().await, connect().await);
    let connector = TlsConnector::from(client());
    let mut served = connector.connect(server_name(), connect().await).await.expect("a handshake");
    let mut greeting = [0; 4];
    served.read_exact(&mut greeting).await.expect("a greeting");
    assert_eq!(&greeting, b"220 ");
    let refused = connector.connect(server_name(), connect().await).await;
    assert!(refused.is_err(), "a fourth session");
    drop(one);
    // Its place is free as soon as the listener has seen that.
    tokio::time::timeout(Duration::from_secs(10), async {
        while connector.connect(server_name(), connect().await).await.is_err() {}
    })
    .await
    .expect("a place");
    // Handshakes do not hold up the end.
    stop.send_replace(true);
    serving.await.expect("no panic").expect("in order");
    drop(two);
}

/// Bytes that are no handshake, though some begin like one.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just(vec![0x16, 3, 1, 0, 4]),
        Just(vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0]),
        Just(vec![0x16, 3, 3, 0xff, 0xff]),
        Just(vec![0x15, 3, 3, 0, 2, 1, 0]),
        Just(vec![0x17, 3, 3, 0, 1, 0]),
        Just(b"EHLO x\r\n".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(words, 0..8).prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes instead of a handshake, the session ends in order and says at most an alert.
    #[test]
    fn noise_instead_of_a_handshake_ends_the_session(bytes in noise()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let Rig { inbox, mut client, session, stop: _stop, .. } = rig(implicit());
            client.write_all(&bytes).await.expect("room");
            client.shutdown().await.expect("a session");
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.expect("an end");
            session.await.expect("no panic");
            assert!(got.len() <= 14 && got.first().is_none_or(|first| *first == 0x15), "{}", got.escape_ascii());
            assert_eq!(inbox.memory.stored.lock().len(), 0);
        });
    }
}
