//! `kill -9` at random moments under load: every message that was acknowledged arrives; a duplicate
//! is possible only for a transaction that was in flight at a kill.

mod support;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::client::Client;
use support::daemon::Setup;
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

const MESSAGES: usize = 20_000;
const SESSIONS: usize = 50;
const KILLS: usize = 10;
/// Of the relay to the receiver: what may be in flight at a kill.
const CONNECTIONS: usize = 20;

/// Every message that got its `250`, by subject, and how many submissions had no final reply.
#[derive(Default)]
struct Ledger {
    /// Numbers handed out; each try of a message has its own, so that a client's repetition is
    /// never taken for a duplicate of the relay.
    next: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
    count: AtomicUsize,
    unanswered: AtomicUsize,
}

/// One session after another until enough messages are acknowledged. Ends a session as its
/// connection ends, and opens another as soon as the relay is back.
fn sender(ledger: &Ledger, server: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(300);
    while ledger.count.load(Ordering::SeqCst) < MESSAGES && Instant::now() < end {
        let _ = session(ledger, server);
        thread::sleep(Duration::from_millis(10));
    }
}

fn session(ledger: &Ledger, server: SocketAddr) -> std::io::Result<()> {
    let mut client = Client::open(server)?;
    client.read()?;
    client.try_command("EHLO client.test")?;
    while ledger.count.load(Ordering::SeqCst) < MESSAGES {
        let subject = format!("m{:07}", ledger.next.fetch_add(1, Ordering::SeqCst));
        let reply = client.try_send("<sender@sender.test>", &["<somebody@example.test>"], &message(&subject));
        match reply {
            Ok(reply) if reply.code == 250 => {
                ledger.acknowledged.lock().expect("the ledger").push(subject);
                ledger.count.fetch_add(1, Ordering::SeqCst);
            }
            // 4xx: the client keeps it, and would send it again.
            Ok(reply) => assert!((400..500).contains(&reply.code), "{}", reply.text()),
            Err(e) => {
                ledger.unanswered.fetch_add(1, Ordering::SeqCst);
                return Err(e);
            }
        }
    }
    let _ = client.try_command("QUIT");
    Ok(())
}

#[test]
fn twenty_thousand_messages_survive_ten_kills() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = {CONNECTIONS}\nrate = []\nmessages_per_connection = 100");
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, &limits)
        .with("[retry]\nfirst = \"1s\"\nmax = \"2s\"")
        .start();

    let started = Instant::now();
    let ledger = Arc::new(Ledger::default());
    let senders: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (ledger, server) = (ledger.clone(), daemon.smtp);
            thread::spawn(move || sender(&ledger, server))
        })
        .collect();

    // A kill in each of ten equal parts of the way, at a random point of it.
    let part = MESSAGES / KILLS;
    for kill in 0..KILLS {
        let goal = kill * part + random.usize(1..part);
        let moment = Duration::from_micros(random.u64(0..20_000));
        wait_for(&format!("{goal} acknowledged messages"), Duration::from_secs(120), || {
            (ledger.count.load(Ordering::SeqCst) >= goal).then_some(())
        });
        thread::sleep(moment);
        daemon.kill();
        daemon.start();
    }
    for sender in senders {
        sender.join().expect("a sender");
    }
    let acknowledged = std::mem::take(&mut *ledger.acknowledged.lock().expect("the ledger"));
    println!("{} acknowledged after {:?}", acknowledged.len(), started.elapsed());
    assert!(acknowledged.len() >= MESSAGES);

    // Nothing waits any more, then everything that will arrive has arrived.
    let goal = acknowledged.len();
    wait_for("as many messages at the receiver", Duration::from_secs(240), || (sink.count() >= goal).then_some(()));
    daemon.wait_queue_empty(Duration::from_secs(60));
    daemon.stop();
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for received in sink.messages() {
        *arrived.entry(received.subject()).or_default() += 1;
    }
    let lost: Vec<&String> = acknowledged.iter().filter(|subject| !arrived.contains_key(*subject)).collect();
    let duplicates: usize = arrived.values().map(|n| n - 1).sum();
    let unasked = arrived.len() - (acknowledged.len() - lost.len());
    println!(
        "{} arrived in {:?}: {} lost, {duplicates} duplicates ({} transactions at most were in flight at {KILLS} kills), \
         {unasked} arrived of {} whose 250 was lost",
        arrived.len(),
        started.elapsed(),
        lost.len(),
        CONNECTIONS * KILLS,
        ledger.unanswered.load(Ordering::SeqCst)
    );
    assert!(lost.is_empty(), "acknowledged and lost: {:?}", &lost[..lost.len().min(20)]);
    assert!(duplicates <= CONNECTIONS * KILLS);
    assert!(unasked <= ledger.unanswered.load(Ordering::SeqCst), "what no client sent arrived");
    sink.assert_legal();

    // And the file is sound, as SQLite's own program sees it.
    let mut sqlite = Command::new(program("sqlite3"));
    sqlite.arg(dir.join("queue.db")).arg("PRAGMA integrity_check");
    let output = run_ok(&mut sqlite, b"", SOON);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ok");
}
