//! A whole session of a client, in memory: commands, message data by DATA and BDAT, logins, XCLIENT, in whatever pieces.
#![no_main]

#[path = "../../tests/support/listener.rs"]
mod listener;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use listener::{HOSTNAME, Inbox, Mood, Stored};
use mailweir::clock::Clock;
use mailweir::config::{Listener, ListenerAuth, StoredPassword, User, Users};
use mailweir::listener::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// Made once: salting takes time.
static USERS: LazyLock<Arc<Users>> = LazyLock::new(|| {
    let user = |name: &str, stored: &str| User::new(name, StoredPassword::parse(stored, true).expect("a password"));
    let scram = StoredPassword::scram("pencil").expect("a hash");
    Arc::new(Users::new([user("app", "pencil"), user("user", &scram)]))
});

/// What was said and what was stored when the client sends `pieces` and closes its side.
fn session(flags: u8, pieces: &[&[u8]]) -> (Vec<u8>, Vec<Stored>, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let mood = [Mood::Works, Mood::Works, Mood::Full, Mood::Broken][usize::from(flags >> 4 & 3)];
        let inbox = Inbox::new(mood, Clock::for_tests());
        let auth = if flags & 2 != 0 { ListenerAuth::Offered } else { ListenerAuth::Off };
        let xclient_from = if flags & 8 != 0 { vec!["127.0.0.1".parse().expect("an address")] } else { Vec::new() };
        let accept_any = flags & 4 != 0;
        let (lf_only, users) = (flags & 1 != 0, USERS.clone());
        let options = Listener { auth, accept_any, lf_only, users, xclient_from, ..listener::listener() };
        let server = Server::new(Vec::new(), Arc::new(options), HOSTNAME, inbox.clone()).expect("a listener");
        let (_stop, stopped) = watch::channel(false);
        let (mut client, theirs) = tokio::io::duplex(1 << 20);
        let talk = async {
            for piece in pieces {
                if client.write_all(piece).await.is_err() {
                    break;
                }
                // The server has taken it, as nothing else can happen before time passes.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let _ = client.shutdown().await;
            let mut said = Vec::new();
            let _ = client.read_to_end(&mut said).await;
            said
        };
        let serve = server.serve(theirs, [127, 0, 0, 1].into(), stopped, Duration::from_secs(5));
        let (said, ()) = tokio::join!(talk, serve);
        let stored = std::mem::take(&mut *inbox.memory.stored.lock());
        (said, stored, inbox.memory.chunks())
    })
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (flags, at, bytes) = input;
    let cut = usize::from(at).min(bytes.len());
    let (said, stored, left) = session(flags, &[bytes]);
    assert_eq!(left, 0, "pieces of a message that was not taken stay in the queue");
    assert!(said.is_empty() || said.starts_with(b"220 ") && said.ends_with(b"\r\n"), "replies are whole lines");
    let bare = said.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || said[i - 1] != b'\r'));
    assert!(!bare && !said.contains(&0) && !said.contains(&27), "nothing of the client's reaches a terminal");
    let count = |text: &[u8]| memchr::memmem::find_iter(&said, text).count();
    assert_eq!(count(b"Ok: queued as "), stored.len(), "a 250 for what is not stored, or none for what is");
    // The last line of a reply has a space behind its code. One is for the connection, one for a line that did not end.
    let replies = said.split(|b| *b == b'\n').filter(|line| line.get(3) == Some(&b' ')).count();
    let lines = memchr::memchr_iter(b'\n', bytes).count();
    assert!(replies <= lines + 3, "{replies} replies to {lines} lines");
    for one in &stored {
        assert!(count(one.message.id.to_string().as_bytes()) > 0, "a message that its client cannot name");
        assert!(!one.recipients.is_empty());
        let body = &one.body;
        let is_bare = |i: usize| match body[i] {
            b'\n' => i == 0 || body[i - 1] != b'\r',
            b'\r' => body.get(i + 1) != Some(&b'\n'),
            _ => false,
        };
        assert!(one.message.traits.binary || !(0..body.len()).any(is_bare), "a bare CR or LF is stored");
    }
    // Two writes are two packets: the same is stored.
    let (_, again, _) = session(flags, &[&bytes[..cut], &bytes[cut..]]);
    assert_eq!(stored.len(), again.len(), "a cut makes a difference");
    for (one, other) in stored.iter().zip(&again) {
        assert_eq!(one.recipients.len(), other.recipients.len());
        assert_eq!(one.body.len(), other.body.len());
    }
});
