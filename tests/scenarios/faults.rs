//! The machine misbehaves under a running mailweir: its disk, its clock, and mailweir itself. What
//! the client hears, what is kept, and that it heals by itself.
//!
//! A disk that is really full, a read-only one at start and a damaged store are in
//! `scenarios/store_faults.rs`, the network and the name servers in `scenarios/network.rs`, memory in
//! `scenarios/memory.rs`.

use crate::support;

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::shim::{EIO, ENOSPC, EROFS, Shim};
use support::sink::{Answer, Ask, Gate, Options, Sink};
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

/// A receiver that keeps every final reply back until the gate is open.
fn gated(port: &Port) -> (Sink, Gate) {
    let gate = Gate::default();
    let of_script = gate.clone();
    let script = move |ask: &Ask| match ask.verb {
        "DOT" => Answer::After(of_script.clone()),
        _ => Answer::Yes,
    };
    (Sink::with(port.at(2), Options::script(script)), gate)
}

/// While the disk fails clients hear 451 (452: it is full); what was acknowledged before is delivered, its outcome
/// waits for the disk, and nothing is sent twice for that.
fn a_disk_that_fails_heals(fail: impl Fn(&Shim, i64), error: i64, reply: u16) {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (sink, gate) = gated(&port);
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
        assert_eq!(submit(&daemon, &format!("refused {n}")), reply);
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
    a_disk_that_fails_heals(Shim::fail_syncs, EIO, 451);
}

#[test]
fn a_file_system_that_turns_read_only_is_451_and_heals_and_nothing_is_lost_or_sent_twice() {
    a_disk_that_fails_heals(Shim::fail_writes, EROFS, 451);
}

#[test]
fn writes_that_fail_are_451_and_heal_and_nothing_is_lost_or_sent_twice() {
    a_disk_that_fails_heals(Shim::fail_writes, EIO, 451);
}

#[test]
fn a_disk_without_room_is_452_and_heals_and_nothing_is_lost_or_sent_twice() {
    a_disk_that_fails_heals(Shim::fail_writes, ENOSPC, 452);
}

/// A body that cannot be read is put off, not bounced; the next attempt reads it.
#[test]
fn reads_that_fail_put_mail_off_and_heal_and_nothing_bounces() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (daemon, shim) = with_shim(&dir, &sink);
    daemon.command_ok(&["provider", "pause", "example"], b"");
    let mut content = message("big");
    // Longer than what stays in memory with the recipient.
    content.extend_from_slice("a line of a message of two chunks\r\n".repeat(20_000).as_bytes());
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &content);
    shim.fail_reads(EIO);
    // The lane goes on; which mail its hosts put off cannot be read, and the command says both.
    let resumed = daemon.command(&["provider", "resume", "example"], b"");
    let told = String::from_utf8_lossy(&resumed.stderr).into_owned();
    assert!(resumed.status.success() || told.contains("`example` is resumed, but"), "{told}");
    // The writer may need to read too, before it can store that the message is put off.
    daemon.wait_log("an attempt", |line| line.event() == "deferred" || line.event().contains("could not store"));
    assert!(shim.failed() > 0);
    assert_eq!(sink.count(), 0);
    shim.fail_reads(0);
    let arrived = sink.wait_subject("big", SOON);
    assert!(arrived.content.ends_with(&content), "it has changed");
    daemon.wait_queue_empty(SOON);
    let events: Vec<String> = daemon.log_lines().iter().map(|line| line.event()).collect();
    assert!(events.iter().any(|event| event == "deferred") && events.iter().all(|event| event != "bounced"));
    assert_arrived(&sink, &BTreeSet::from(["big".into()]));
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

/// The process stands still, with a client in the middle of a message and a transaction in the
/// middle of its reply, and eight hours are gone when it goes on.
#[test]
fn a_suspended_machine_goes_on_where_it_was() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (sink, gate) = gated(&port);
    let (daemon, shim) = with_shim(&dir, &sink);
    assert_eq!(submit(&daemon, "in flight"), 250);
    wait_for("a transaction in flight", SOON, || sink.connections().iter().any(|c| c.transactions > 0).then_some(()));
    let mut client = daemon.client();
    client.command(250, "MAIL FROM:<sender@sender.test>");
    client.command(250, "RCPT TO:<somebody@example.test>");
    client.command(354, "DATA");
    let content = message("in the middle");
    let (head, rest) = content.split_at(content.len() / 2);
    client.write(head).expect("half a message");

    daemon.signal(rustix::process::Signal::STOP);
    // What the network brings meanwhile waits in its buffers.
    gate.open();
    client.write(rest).expect("the other half");
    client.write(b".\r\n").expect("its end");
    shim.shift_clock(8 * 3600);
    sink.wait_subject("in flight", SOON);
    daemon.signal(rustix::process::Signal::CONT);

    client.reply_of(250, "the message");
    assert_eq!(submit(&daemon, "afterwards"), 250);
    let sent: BTreeSet<String> = ["in flight", "in the middle", "afterwards"].map(String::from).into();
    sink.wait(sent.len(), SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
    assert!(daemon.log_lines().iter().all(|line| !["bounced", "expired"].contains(&line.event().as_str())));
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
