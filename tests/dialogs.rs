//! SMTP dialogs as text files, one for each thing that clients do wrong or rarely; and what cannot
//! be said in such a file: one write for a batch, noise, and the speed of the hot path.

#[path = "support/listener.rs"]
mod support;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use mailweir::clock::Clock;
use mailweir::config::{Engine, Listener};
use mailweir::listener::Server;
use proptest::prelude::*;
use support::{Compare, Dialog, HOSTNAME, Inbox, Mood};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::sync::watch;

#[test]
fn every_dialog_goes_as_written() {
    let dialogs = Dialog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs"));
    assert!(dialogs.len() >= 60, "only {} dialogs found", dialogs.len());
    let mut failures = Vec::new();
    for dialog in &dialogs {
        if let Err(mismatch) = dialog.play(Engine::Native, Compare::Text) {
            let support::Mismatch { line, after, expected, got } = mismatch;
            failures.push(format!(
                "{}.txt:{line}: after {after:.100}\n  expected {expected}\n  got      {got}",
                dialog.name
            ));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Counts the writes of a session.
struct Counting {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

struct Rig {
    inbox: Arc<Inbox>,
    client: DuplexStream,
    writes: Arc<AtomicUsize>,
    session: tokio::task::JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

fn rig(listener: Listener) -> Rig {
    let inbox = Inbox::new(Mood::Works, Clock::System);
    let server = Server::bind(Arc::new(listener), HOSTNAME, inbox.clone()).expect("a listener");
    let (client, inner) = tokio::io::duplex(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let (stop, stopped) = watch::channel(false);
    let stream = Counting { inner, writes: writes.clone() };
    let session = tokio::spawn(async move {
        server.serve(stream, [127, 0, 0, 1].into(), stopped, Duration::from_secs(1)).await;
    });
    Rig { inbox, client, writes, session, _stop: stop }
}

impl Rig {
    /// Sends, and reads until so many lines have come.
    async fn talk(&mut self, bytes: &[u8], lines: usize) -> String {
        self.client.write_all(bytes).await.expect("a session");
        let mut got = Vec::new();
        while got.iter().filter(|b| **b == b'\n').count() < lines {
            assert_ne!(
                self.client.read_buf(&mut got).await.expect("a reply"),
                0,
                "closed after {}",
                got.escape_ascii()
            );
        }
        String::from_utf8(got).expect("text")
    }
}

#[tokio::test]
async fn replies_of_a_batch_leave_in_one_write() {
    let mut rig = rig(support::listener());
    rig.talk(b"", 1).await;
    rig.talk(b"EHLO app.example\r\n", 11).await;
    let before = rig.writes.load(Ordering::Relaxed);
    let rcpts = b"RCPT TO:<a@b.example>\r\n".repeat(20);
    let batch = [b"MAIL FROM:<x@y.example>\r\n".as_slice(), &rcpts, b"DATA\r\n"].concat();
    let got = rig.talk(&batch, 22).await;
    assert!(got.ends_with("<CR><LF>\r\n"), "{got}");
    assert_eq!(rig.writes.load(Ordering::Relaxed) - before, 1);
    // The end of one message and the commands of the next.
    let got = rig.talk(&[b"Subject: x\r\n\r\ny\r\n.\r\n".as_slice(), &batch].concat(), 23).await;
    assert!(got.starts_with("250 2.0.0 Ok: queued as "), "{got}");
    assert_eq!(rig.writes.load(Ordering::Relaxed) - before, 2);
    rig.talk(b".\r\nQUIT\r\n", 2).await;
    rig.session.await.expect("no panic");
    assert_eq!(rig.inbox.memory.stored.lock().len(), 2);
}

#[tokio::test]
async fn a_large_message_is_the_same_however_it_comes() {
    let listener = Listener { max_message_size: 32 << 20, ..support::listener() };
    let mut rig = rig(listener);
    rig.talk(b"", 1).await;
    let line = b"..0123456789abcdef\r\n";
    let wire = line.repeat(500_000);
    let setup = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    rig.talk(setup, 14).await;
    let got = rig.talk(&[b"Date: x\r\nMessage-ID: <y>\r\n\r\n".as_slice(), &wire, b".\r\n"].concat(), 1).await;
    assert!(got.starts_with("250 "), "{got}");
    let stored = rig.inbox.memory.stored.lock();
    assert_eq!(rig.inbox.memory.chunks(), 0);
    let content = b".0123456789abcdef\r\n".repeat(500_000);
    assert!(stored[0].body.ends_with(&content));
    assert!(stored[0].message.traits.leading_dot && !stored[0].message.traits.eight_bit_body);
}

/// The words of a dialog, so that noise gets beyond the first command.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words = prop_oneof![
        Just(b"EHLO x\r\n".to_vec()),
        Just(b"MAIL FROM:<a@b>\r\n".to_vec()),
        Just(b"MAIL FROM:<a@b> BODY=8BITMIME SIZE=7\r\n".to_vec()),
        Just(b"RCPT TO:<c@d> NOTIFY=NEVER\r\n".to_vec()),
        Just(b"DATA\r\n".to_vec()),
        Just(b"BDAT 5\r\n".to_vec()),
        Just(b"BDAT 3 LAST\r\n".to_vec()),
        Just(b"RSET\r\n".to_vec()),
        Just(b"Bcc: x\r\n y\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b".\r\n".to_vec()),
        Just(b"\n.\r".to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop::collection::vec(words, 0..40).prop_map(|w| w.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever comes, the session ends in order, says only replies, and queues only clean bodies.
    #[test]
    fn noise_never_breaks_a_session(bytes in noise()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut rig = rig(support::listener());
            rig.client.write_all(&bytes).await.expect("room");
            rig.client.shutdown().await.expect("a session");
            let mut got = Vec::new();
            rig.client.read_to_end(&mut got).await.expect("replies");
            rig.session.await.expect("no panic");
            for line in String::from_utf8(got).expect("text").split_terminator("\r\n") {
                assert!(line.as_bytes()[..3].iter().all(u8::is_ascii_digit) && !line.contains(['\r', '\n']), "{line:?}");
            }
            for stored in rig.inbox.memory.stored.lock().iter() {
                let body = &stored.body;
                assert!(body.ends_with(b"\r\n"));
                let lone = memchr::memchr2_iter(b'\r', b'\n', body).filter(|i| match body[*i] {
                    b'\r' => body.get(i + 1) != Some(&b'\n'),
                    _ => *i == 0 || body[i - 1] != b'\r',
                });
                assert_eq!(lone.count(), 0, "{}", body.escape_ascii());
            }
            assert_eq!(rig.inbox.memory.chunks(), 0);
        });
    }
}

/// The hot path: a message of 2 KB in two flights. Prints what it takes; the bound is far below
/// what a release build does, and holds for a debug build on a busy machine.
#[tokio::test]
async fn the_hot_path_is_two_writes_a_message_and_quick() {
    const MESSAGES: usize = 2_000;
    let mut rig = rig(support::listener());
    rig.talk(b"", 1).await;
    rig.talk(b"EHLO app.example\r\n", 11).await;
    let body =
        [b"From: a@b.example\r\nSubject: x\r\n\r\n".as_slice(), &b"some text, not much\r\n".repeat(95), b".\r\n"]
            .concat();
    let before = rig.writes.load(Ordering::Relaxed);
    let began = std::time::Instant::now();
    for _ in 0..MESSAGES {
        rig.talk(b"MAIL FROM:<a@b.example> SIZE=2000\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", 3).await;
        rig.talk(&body, 1).await;
    }
    let took = began.elapsed();
    println!("{:.0} messages/s, client included", MESSAGES as f64 / took.as_secs_f64());
    assert_eq!(rig.writes.load(Ordering::Relaxed) - before, 2 * MESSAGES);
    let most = Duration::from_secs(if cfg!(debug_assertions) { 20 } else { 2 });
    assert!(took < most, "{took:?}");
}
