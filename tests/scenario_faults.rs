//! The machine misbehaves under a running mailweir: its disk, its clock, its name servers, the
//! network, and mailweir itself. What the client hears, what is kept, and that it heals by itself.
//!
//! A full disk, a read-only one at start and a damaged store are in `scenario_store_faults`; the
//! kinds of wrong answers of name servers in `route_dns`.

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::servers::Nsd;
use support::shim::{EIO, EROFS, Shim};
use support::sink::{Answer, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

const DAY: i64 = 86_400;
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"\nwarn = \"0s\"";

/// A daemon whose disk and clock are in the test's hands, and its receiver.
fn with_shim(dir: &TestDir, sink: &Sink) -> (Daemon, Shim) {
    let disk = dir.subdir("disk");
    let shim = Shim::build(dir, &disk);
    let mut daemon = Setup::new(dir)
        .queue(&format!("store = \"sqlite:{}\"", disk.join("queue.db").display()))
        .via("example", "example.test", sink.address, "connections = 2\nrate = []")
        .with(RETRY)
        .start();
    daemon.stop();
    daemon.environment = shim.environment();
    daemon.start();
    (daemon, shim)
}

fn submit(daemon: &Daemon, subject: &str) -> u16 {
    let sent = daemon.client().try_send("<sender@sender.test>", &["<somebody@example.test>"], &message(subject));
    sent.expect("a reply").code
}

/// Everything in `sent` arrived, once, and nothing else.
fn assert_arrived(sink: &Sink, sent: &BTreeSet<String>) {
    let arrived: Vec<String> = sink.messages().iter().map(|m| m.subject()).collect();
    assert_eq!(&arrived.iter().cloned().collect::<BTreeSet<_>>(), sent);
    assert_eq!(arrived.len(), sent.len(), "each once");
}

/// While the disk fails clients hear 451; what was acknowledged before is delivered, its outcome
/// waits for the disk, and nothing is sent twice for that.
fn a_disk_that_fails_heals(fail: impl Fn(&Shim, i64), error: i64) {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let gate = support::sink::Gate::default();
    let sink = {
        let gate = gate.clone();
        let script = move |ask: &support::sink::Ask| match ask.verb {
            "DOT" => Answer::After(gate.clone()),
            _ => Answer::Yes,
        };
        Sink::with(port.at(2), Options::script(script))
    };
    let (mut daemon, shim) = with_shim(&dir, &sink);
    let mut sent = BTreeSet::new();
    for n in 0..2 {
        let subject = format!("before {n}");
        assert_eq!(submit(&daemon, &subject), 250);
        sent.insert(subject);
    }
    fail(&shim, error);
    // Both transactions end now, and neither outcome can be stored.
    gate.open();
    for n in 0..5 {
        assert_eq!(submit(&daemon, &format!("refused {n}")), 451);
    }
    daemon.wait_log("an outcome that waits", |line| line.event().contains("could not store an outcome"));
    assert!(shim.failed() > 0);
    fail(&shim, 0);
    for n in 0..5 {
        let subject = format!("after {n}");
        wait_for("an acknowledgement", SOON, || (submit(&daemon, &subject) == 250).then_some(()));
        sent.insert(subject);
    }
    sink.wait(sent.len(), SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
    // Nor does anything come back with the next process.
    daemon.kill();
    daemon.start();
    assert_eq!(submit(&daemon, "last"), 250);
    sent.insert("last".into());
    sink.wait_subject("last", SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
}

#[test]
fn fsyncs_that_fail_are_451_and_heal_and_nothing_is_lost_or_sent_twice() {
    a_disk_that_fails_heals(Shim::fail_syncs, EIO);
}

#[test]
fn a_file_system_that_turns_read_only_is_451_and_heals_and_nothing_is_lost_or_sent_twice() {
    a_disk_that_fails_heals(Shim::fail_writes, EROFS);
}

/// Two seconds a sync: everybody who waits shares the next one, and the rest of mailweir goes on.
#[test]
fn a_slow_disk_slows_acknowledgements_and_nothing_else() {
    const CLIENTS: usize = 40;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (daemon, shim) = with_shim(&dir, &sink);
    let mut idle = daemon.client();
    shim.slow_syncs(Duration::from_secs(2));
    let before = shim.syncs();
    let address = daemon.smtp;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            thread::spawn(move || {
                let mut client = support::client::Client::connect(address);
                client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("slow {n}")));
            })
        })
        .collect();
    idle.command(250, "NOOP");
    for client in clients {
        client.join().expect("a client");
    }
    let syncs = shim.syncs() - before;
    println!("{CLIENTS} messages acknowledged with {syncs} syncs");
    assert!(syncs < 15, "{syncs} syncs for {CLIENTS} messages: they do not share them");
    shim.slow_syncs(Duration::ZERO);
    sink.wait(CLIENTS, SOON);
    daemon.wait_queue_empty(SOON);
    assert_eq!(sink.count(), CLIENTS, "each once");
}

/// A day forward and a day back: mail that comes in leaves at once, nothing expires, ids stay unique.
#[test]
fn clock_jumps_of_a_day_lose_nothing_and_stop_nothing() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (mut daemon, shim) = with_shim(&dir, &sink);
    let mut sent = BTreeSet::new();
    for (n, offset) in [0, DAY, 0, -DAY, 0].into_iter().enumerate() {
        shim.shift_clock(offset);
        for m in 0..3 {
            let subject = format!("jump {n} {m}");
            assert_eq!(submit(&daemon, &subject), 250);
            sent.insert(subject.clone());
            sink.wait_subject(&subject, SOON);
        }
    }
    daemon.wait_queue_empty(SOON);
    // Also between two lives.
    daemon.kill();
    shim.shift_clock(-DAY);
    daemon.start();
    assert_eq!(submit(&daemon, "in the past"), 250);
    sent.insert("in the past".into());
    sink.wait_subject("in the past", SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
}

/// An operation that panics fails alone; everything else is stored.
#[test]
fn a_fault_in_one_operation_of_the_queue_is_one_451() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, "rate = []").with(RETRY).start();
    daemon.stop();
    // Later than what the start itself writes.
    daemon.environment = vec![("MAILWEIR_CRASH_AT", "commit.work:12:panic".into())];
    daemon.start();
    let mut sent = BTreeSet::new();
    for n in 0..20 {
        let subject = format!("fault {n}");
        match submit(&daemon, &subject) {
            250 => drop(sent.insert(subject)),
            code => assert_eq!(code, 451),
        }
    }
    assert!(sent.len() >= 19, "{} of 20", sent.len());
    daemon.wait_log("the fault", |line| line.event().contains("a fault of mailweir itself in the queue"));
    sink.wait(sent.len(), SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
}

/// Without the thread that writes nothing can be stored: the process ends for its supervisor to
/// start another, instead of saying 451 for ever.
#[test]
fn the_death_of_the_queues_thread_ends_the_process() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, "rate = []").with(RETRY).start();
    daemon.stop();
    daemon.environment = vec![("MAILWEIR_CRASH_AT", "writer.batch:15:panic".into())];
    daemon.start();
    let mut sent = BTreeSet::new();
    for n in 0..100 {
        let subject = format!("until then {n}");
        let Ok(mut client) = support::client::Client::open(daemon.smtp) else { break };
        let Ok(_) = client.read() else { break };
        let reply = client.try_send("<sender@sender.test>", &["<somebody@example.test>"], &message(&subject));
        match reply {
            Ok(reply) if reply.code == 250 => drop(sent.insert(subject)),
            Ok(reply) => assert_eq!(reply.code, 451, "{}", reply.text()),
            Err(_) => break,
        }
    }
    assert_eq!(daemon.wait_exit(SOON).code(), Some(75));
    let said = std::fs::read_to_string(&daemon.log).expect("the log");
    assert!(said.contains("the thread that writes the queue has ended"), "{said}");
    daemon.environment.clear();
    daemon.start();
    daemon.wait_queue_empty(SOON);
    let arrived: BTreeSet<String> = sink.messages().iter().map(|m| m.subject()).collect();
    assert!(!sent.is_empty() && sent.is_subset(&arrived), "{sent:?} {arrived:?}");
}

/// In front of a receiver, what a bad network does to connections.
struct Toxic {
    address: SocketAddr,
    mood: Arc<AtomicU8>,
    /// Connections so far.
    seen: Arc<AtomicUsize>,
}

const PASS: u8 = 0;
/// Cut without a word after this many bytes towards the server: in the middle of a body.
const CUT: u8 = 1;
/// A byte at a time, each 2 ms after the one before, both ways.
const TRICKLE: u8 = 2;
/// Accepts connections and lets nothing through; ends when the mood does.
const BLACK_HOLE: u8 = 3;

impl Toxic {
    fn start(address: SocketAddr, server: SocketAddr) -> Toxic {
        let listener = TcpListener::bind(address).expect("the address of the proxy");
        let (mood, seen) = (Arc::new(AtomicU8::new(PASS)), Arc::new(AtomicUsize::new(0)));
        let (of_thread, count) = (mood.clone(), seen.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                let mood = of_thread.clone();
                thread::spawn(move || {
                    let Ok(server) = TcpStream::connect(server) else { return };
                    let back = (server.try_clone().expect("a handle"), client.try_clone().expect("a handle"));
                    let mood_back = mood.clone();
                    thread::spawn(move || pump(back.0, back.1, &mood_back, usize::MAX));
                    pump(client, server, &mood, 1500);
                });
            }
        });
        Toxic { address, mood, seen }
    }

    fn set(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, mood: &AtomicU8, cut_after: usize) {
    let mut passed = 0;
    let mut buffer = [0; 1024];
    loop {
        let now = mood.load(Ordering::SeqCst);
        let size = if now == TRICKLE { 1 } else { buffer.len() };
        let Ok(n @ 1..) = from.read(&mut buffer[..size]) else { break };
        while mood.load(Ordering::SeqCst) == BLACK_HOLE {
            thread::sleep(Duration::from_millis(5));
        }
        passed += n;
        if now == CUT && passed > cut_after {
            break;
        }
        if now == TRICKLE {
            thread::sleep(Duration::from_millis(2));
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[test]
fn a_bad_network_delays_mail_and_neither_loses_nor_repeats_nor_bounces_it() {
    let (dir, port, other) = (TestDir::new(), Port::reserve(), Port::reserve());
    let (sink, healthy) = (Sink::start(port.at(2)), Sink::start(other.at(2)));
    let toxic = Toxic::start(port.at(3), sink.address);
    let limits = "connections = 2\nrate = []\nidle_timeout = \"0s\"";
    let daemon = Setup::new(&dir)
        .via("example", "example.test", toxic.address, limits)
        .via("healthy", "healthy.test", healthy.address, limits)
        .with(RETRY)
        .start();
    let mut big = message("");
    big.extend_from_slice("a line that makes it longer than what the proxy lets through\r\n".repeat(40).as_bytes());
    let mut sent = BTreeSet::new();
    for (mood, name) in [(CUT, "cut"), (TRICKLE, "trickle"), (BLACK_HOLE, "black hole"), (PASS, "pass")] {
        toxic.set(mood);
        let before = toxic.seen.load(Ordering::SeqCst);
        for n in 0..2 {
            let subject = format!("{name} {n}");
            let content = String::from_utf8_lossy(&big).replace("Subject: ", &format!("Subject: {subject}"));
            daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], content.as_bytes());
            sent.insert(subject);
        }
        wait_for("a connection into the bad network", SOON, || {
            (toxic.seen.load(Ordering::SeqCst) > before).then_some(())
        });
        // Nobody else notices.
        daemon.client().send("<sender@sender.test>", &["<somebody@healthy.test>"], &message(name));
        healthy.wait_subject(name, SOON);
        if mood == CUT {
            daemon.wait_row("deferred by the cut", |row| row.attempts() > 0);
            toxic.set(PASS);
        }
        if mood == BLACK_HOLE {
            assert!(!sink.messages().iter().any(|m| m.subject().starts_with("black hole")));
            toxic.set(PASS);
        }
        sink.wait(sent.len(), SOON);
        daemon.wait_queue_empty(SOON);
    }
    assert_arrived(&sink, &sent);
    sink.assert_legal();
}

/// Name servers that say SERVFAIL, or nothing, to everything: mail waits, none bounces, mail that
/// needs no name server leaves, and it all leaves once they answer.
#[test]
fn a_storm_of_servfail_and_silence_bounces_nothing_and_heals() {
    const DOMAINS: usize = 20;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let mut records = format!("mx A {}\n", port.at(2).ip());
    for n in 0..DOMAINS {
        records.push_str(&format!("d{n} MX 10 mx\n"));
    }
    let nsd = Nsd::start(&dir, &records);
    let front = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let address = front.local_addr().expect("its address");
    let mood = Arc::new(AtomicU8::new(0));
    let (of_thread, behind) = (mood.clone(), nsd.address);
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((n, client)) = front.recv_from(&mut buffer) {
            match of_thread.load(Ordering::SeqCst) {
                0 => {
                    // A response with the question and SERVFAIL.
                    (buffer[2], buffer[3]) = (buffer[2] | 0x80, 0x82);
                    let _ = front.send_to(&buffer[..n], client);
                }
                1 => {}
                _ => {
                    let (question, front) = (buffer[..n].to_vec(), front.try_clone().expect("a handle"));
                    thread::spawn(move || {
                        let mut answer = [0; 4096];
                        let upstream = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
                        let _ = upstream.set_read_timeout(Some(Duration::from_secs(2)));
                        let _ = upstream.send_to(&question, behind);
                        if let Ok(n) = upstream.recv(&mut answer) {
                            let _ = front.send_to(&answer[..n], client);
                        }
                    });
                }
            }
        }
    });
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .dns(address)
        .via("fixed", "fixed.test", sink.address, "rate = []")
        .with(&format!("[default]\nport = {}\nallow_private = true\nrate = []\ntls = \"off\"", port.number))
        .with("[retry]\nfirst = \"1s\"\nmax = \"2s\"")
        .start();
    let mut sent = BTreeSet::new();
    for storm in [0, 1] {
        mood.store(storm, Ordering::SeqCst);
        for n in 0..DOMAINS {
            let subject = format!("storm {storm} {n}");
            let to = format!("<somebody@d{n}.test>");
            daemon.client().send("<sender@sender.test>", &[&to], &message(&subject));
            sent.insert(subject);
        }
        let subject = format!("fixed {storm}");
        daemon.client().send("<sender@sender.test>", &["<somebody@fixed.test>"], &message(&subject));
        sink.wait_subject(&subject, SOON);
        sent.insert(subject);
        wait_for("all of it to have been tried", Duration::from_secs(60), || {
            let rows = daemon.queue_list(&[]);
            let tried = rows.iter().filter(|row| row.attempts() > 0 && row.reason().contains("name server")).count();
            (rows.iter().all(|row| row.state() != "failed") && tried == rows.len()).then_some(())
        });
    }
    mood.store(2, Ordering::SeqCst);
    sink.wait(sent.len(), Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
}
