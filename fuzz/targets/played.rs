//! A client and our listener, in memory and on paused time: what several targets play. A part of each of them, no target.

// Each target uses a part of this.
#![allow(dead_code)]

#[path = "../../tests/support/listener.rs"]
pub mod listener;

use std::sync::Arc;
use std::time::Duration;

use listener::{HOSTNAME, Inbox, Mood, Stored};
use mailweir::clock::Clock;
use mailweir::config::{Listener, StoredPassword, User, Users};
use mailweir::listener::Server;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

/// What a client heard, and what came of it.
pub struct Played {
    pub said: Vec<u8>,
    pub stored: Vec<Stored>,
    /// Chunks of messages that are not stored.
    pub left: usize,
    /// All that the client sent was read.
    pub read: bool,
}

/// Two users: `app`, whose password is known here, and `user`, of whose password SCRAM's keys are. Salting takes time.
pub fn users(app: &str, user: &str) -> Arc<Users> {
    let new = |name: &str, stored: &str| User::new(name, StoredPassword::parse(stored, true).expect("a password"));
    let scram = StoredPassword::scram(user).expect("a hash");
    Arc::new(Users::new([new("app", app), new("user", &scram)]))
}

/// What `talk` makes of its end of a connection with such a listener, and the queue behind it.
pub fn with_client<T>(
    options: Listener,
    mood: Mood,
    buffer: usize,
    talk: impl AsyncFnOnce(DuplexStream) -> T,
) -> (T, Arc<Inbox>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let inbox = Inbox::new(mood, Clock::for_tests());
        let server = Server::new(Vec::new(), Arc::new(options), HOSTNAME, inbox.clone()).expect("a listener");
        let (_stop, stopped) = watch::channel(false);
        let (client, theirs) = tokio::io::duplex(buffer);
        let serve = server.serve(theirs, [127, 0, 0, 1].into(), stopped, Duration::from_secs(5));
        let (said, ()) = tokio::join!(talk(client), serve);
        (said, inbox)
    })
}

/// A client that sends `pieces`, each as a packet, and then no more.
pub fn play(options: Listener, mood: Mood, pieces: &[&[u8]]) -> Played {
    let talk = async |mut client: DuplexStream| {
        let mut read = true;
        for piece in pieces {
            read = client.write_all(piece).await.is_ok();
            if !read {
                break;
            }
            // The server has taken it, as nothing else can happen before time passes.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = client.shutdown().await;
        let mut said = Vec::new();
        read &= client.read_to_end(&mut said).await.is_ok();
        (said, read)
    };
    let ((said, read), inbox) = with_client(options, mood, 1 << 20, talk);
    let stored = std::mem::take(&mut *inbox.memory.stored.lock());
    Played { said, stored, left: inbox.memory.chunks(), read }
}
