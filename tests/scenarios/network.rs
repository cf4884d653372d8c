//! The network and the name servers misbehave around a running mailweir: mail is delayed, and
//! neither lost nor repeated nor bounced; other mail does not notice; it heals by itself.
//!
//! The kinds of wrong answers of name servers are in `route_dns`, time-outs of minutes on paused
//! time in `upstream`, all of it together in `simulation`.

use crate::support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::Duration;

use support::daemon::Setup;
use support::mail::message;
use support::servers::Nsd;
use support::sink::Sink;
use support::toxic::{Mood, Toxic};
use support::{Port, SOON, TestDir, as_root, wait_for};

const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"\nwarn = \"0s\"";

/// Everything in `sent` arrived, once, and nothing else.
fn assert_arrived(sink: &Sink, sent: &BTreeSet<String>) {
    let arrived: Vec<String> = sink.messages().iter().map(|m| m.subject()).collect();
    assert_eq!(&arrived.iter().cloned().collect::<BTreeSet<_>>(), sent);
    assert_eq!(arrived.len(), sent.len(), "each once");
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
    for mood in [Mood::Cut, Mood::Reset, Mood::Trickle, Mood::Late, Mood::BlackHole, Mood::Pass] {
        let name = format!("{mood:?}");
        toxic.set(mood);
        let before = toxic.seen();
        for n in 0..2 {
            let subject = format!("{name} {n}");
            let content = String::from_utf8_lossy(&big).replace("Subject: ", &format!("Subject: {subject}"));
            daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], content.as_bytes());
            sent.insert(subject);
        }
        wait_for("a connection into the bad network", SOON, || (toxic.seen() > before).then_some(()));
        // Nobody else notices.
        daemon.client().send("<sender@sender.test>", &["<somebody@healthy.test>"], &message(&name));
        healthy.wait_subject(&name, SOON);
        match mood {
            Mood::Cut | Mood::Reset => drop(daemon.wait_row("deferred by the cut", |row| row.attempts() > 0)),
            Mood::BlackHole => assert!(!sink.messages().iter().any(|m| m.subject().starts_with(&name))),
            Mood::Pass | Mood::Trickle | Mood::Late => {}
        }
        if ![Mood::Trickle, Mood::Late].contains(&mood) {
            toxic.set(Mood::Pass);
        }
        sink.wait(sent.len(), SOON);
        daemon.wait_queue_empty(SOON);
    }
    assert_arrived(&sink, &sent);
    sink.assert_legal();
}

/// A proxy whose end of every connection can go away without telling the other: the kernel forgets
/// the sockets (TCP_REPAIR), as a machine that lost its power does, or a firewall its table.
const FORGETFUL: &str = "
import socket, sys, threading
server = (sys.argv[3], int(sys.argv[4]))
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
kept = []
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def accept():
    while True:
        near = listener.accept()[0]
        far = socket.create_connection(server)
        pair = (near, far, [threading.Thread(target=pump, args=w, daemon=True) for w in ((near, far), (far, near))])
        kept.append(pair)
        for thread in pair[2]:
            thread.start()
threading.Thread(target=accept, daemon=True).start()
print('ready', flush=True)
for line in sys.stdin:
    gone = len(kept)
    for near, far, threads in kept:
        near.setsockopt(socket.IPPROTO_TCP, 19, 1)
        far.shutdown(socket.SHUT_RDWR)
        threads[1].join()
        near.shutdown(socket.SHUT_RD)
        threads[0].join()
        near.close()
    kept.clear()
    print('forgot', gone, flush=True)
";

/// The proxy's process; ends with its standard input.
struct Forgetful(Child);

impl Forgetful {
    fn start(port: &Port, server: &Sink) -> (Forgetful, BufReader<std::process::ChildStdout>) {
        let (here, there) = (port.at(3), server.address);
        let mut command = as_root("python3");
        command.args(["-c", FORGETFUL]);
        for address in [here, there] {
            command.arg(address.ip().to_string()).arg(address.port().to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the proxy");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        (Forgetful(child), said)
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A connection that was kept, and whose other end is gone without a word, costs nothing: the next
/// message meets a reset, and leaves at once on a new connection.
#[test]
fn a_half_open_connection_is_left_at_once_and_nothing_is_lost_or_repeated() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (mut proxy, mut said) = Forgetful::start(&port, &sink);
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let limits = "connections = 1\nrate = []\nidle_timeout = \"60s\"";
    let daemon = Setup::new(&dir)
        .via("example", "example.test", port.at(3), limits)
        .with("[retry]\nfirst = \"1h\"\nmax = \"1h\"")
        .start();
    let mut sent = BTreeSet::new();
    for n in 0..3 {
        let subject = format!("half open {n}");
        daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message(&subject));
        sink.wait_subject(&subject, SOON);
        daemon.wait_queue_empty(SOON);
        sent.insert(subject);
        proxy.0.stdin.as_mut().expect("a pipe").write_all(b"forget\n").expect("a line");
        line.clear();
        said.read_line(&mut line).expect("a line");
        assert_eq!(line, "forgot 1\n", "the connection was not kept");
    }
    assert_arrived(&sink, &sent);
    assert!(daemon.log_lines().iter().all(|line| line.event() != "deferred"), "it was an attempt");
    assert_eq!(sink.connections().len(), 3);
}

/// The same question with an answer about another name, which sends mail to 127.0.0.99.
fn lie(question: &[u8]) -> Vec<u8> {
    let mut end = 12;
    while let Some(n @ 1..) = question.get(end).copied() {
        end += 1 + usize::from(n);
    }
    let mut answer = question[..(end + 5).min(question.len())].to_vec();
    answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(b"\x04evil\x04test\x00\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04\x7f\x00\x00\x63");
    answer
}

/// NXDOMAIN, from somebody who cannot know the id of the question.
fn forged(question: &[u8]) -> Vec<u8> {
    let mut answer = question.to_vec();
    answer[0] ^= 0xff;
    (answer[2], answer[3]) = (answer[2] | 0x80, 0x83);
    answer
}

/// Name servers that say SERVFAIL to everything, or nothing, or lie: mail waits, none bounces, mail
/// that needs no name server leaves, and it all leaves once they answer.
#[test]
fn a_storm_of_servfail_and_silence_and_lies_bounces_nothing_and_heals() {
    /// SERVFAIL, silence, answers about other names, forged ones.
    const STORMS: u8 = 4;
    const DOMAINS: usize = 12;
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
                2 => drop(front.send_to(&lie(&buffer[..n]), client)),
                3 => drop(front.send_to(&forged(&buffer[..n]), client)),
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
    for storm in 0..STORMS {
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
    mood.store(STORMS, Ordering::SeqCst);
    sink.wait(sent.len(), Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
}
