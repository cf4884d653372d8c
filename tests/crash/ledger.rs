//! Clients that never stop, and what they know of every message.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::Client;
use crate::support::mail::message;

/// Of so many messages, one has a body of two chunks, and one a recipient that does not exist.
const BIG: usize = 60;
const FAILING: usize = 10;

/// What clients know.
#[derive(Default)]
pub struct Ledger {
    /// Numbers handed out; each try of a message has its own, so that a client's repetition is
    /// never taken for a duplicate of the relay.
    pub next: AtomicUsize,
    pub acknowledged: Mutex<Vec<String>>,
    /// Sent at least in part, and no final reply came.
    pub unanswered: Mutex<BTreeSet<String>>,
    pub enough: AtomicBool,
}

/// What is wrong with the `n`th message of a client, if anything: its recipients, and its size.
pub fn recipients(n: usize) -> &'static [&'static str] {
    match n % FAILING {
        3 if n % (2 * FAILING) == 3 => &["<nobody@example.test>"],
        // Each of them fails in a transaction of its own.
        3 => &["<somebody@example.test>", "<nobody@example.test>", "<nobody2@example.test>", "<nobody3@example.test>"],
        _ => &["<somebody@example.test>"],
    }
}

pub fn number(subject: &str) -> usize {
    subject[1..].parse().expect("a subject of this test")
}

/// One session after another until the test has enough. A session ends as its connection ends, and
/// another is opened as soon as the relay is back.
pub fn sender(ledger: &Ledger, server: SocketAddr) {
    while !ledger.enough.load(Ordering::SeqCst) {
        let _ = session(ledger, server);
        thread::sleep(Duration::from_millis(5));
    }
}

fn session(ledger: &Ledger, server: SocketAddr) -> std::io::Result<()> {
    let mut client = Client::open(server)?;
    client.read()?;
    client.try_command("EHLO client.test")?;
    while !ledger.enough.load(Ordering::SeqCst) {
        let n = ledger.next.fetch_add(1, Ordering::SeqCst);
        let subject = format!("m{n:07}");
        let mut content = message(&subject);
        if n % BIG == 7 {
            content.extend_from_slice("a line of a big message\r\n".repeat(11_000).as_bytes());
        }
        match client.try_send("<sender@sender.test>", recipients(n), &content) {
            Ok(reply) if reply.code == 250 => ledger.acknowledged.lock().expect("the ledger").push(subject),
            // 4xx: the client keeps it, and would send it again.
            Ok(reply) => assert!((400..500).contains(&reply.code), "{}", reply.text()),
            Err(e) => {
                ledger.unanswered.lock().expect("the ledger").insert(subject);
                return Err(e);
            }
        }
    }
    let _ = client.try_command("QUIT");
    Ok(())
}
