//! The limits of a provider, measured at the receiver, while smtp-source pushes about 100 times
//! faster than the relay may send.

use crate::support;

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use support::client::Client;
use support::daemon::Setup;
use support::mail::message;
use support::senders::{FROM, TO};
use support::sink::{Options, Received, Sink};
use support::{Port, SOON, TestDir, program, run_ok};

/// The time that may pass between the moment the relay takes a permit and the moment the receiver's
/// thread reads the clock: it differs from message to message and so shortens or stretches a window
/// as the receiver sees it. It is a time, not a number of messages: no message too many is excused.
const JITTER: Duration = Duration::from_millis(25);

/// What is measured is a matter of milliseconds: the tests of this file run one after another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The greatest excess over `rate × t + burst` in any window, in messages; `times` ascending.
fn worst_excess(times: &[Instant], rate: f64, burst: f64) -> f64 {
    let mut worst = f64::MIN;
    for (i, first) in times.iter().enumerate() {
        for (j, last) in times.iter().enumerate().skip(i) {
            let window = (*last - *first + JITTER).as_secs_f64();
            worst = worst.max((j - i + 1) as f64 - (rate * window + burst));
        }
    }
    worst
}

#[test]
fn rate_connections_and_messages_per_connection_hold_against_a_flood() {
    let _alone = alone();
    const RATE: f64 = 50.0;
    const BURST: f64 = 5.0;
    const MESSAGES: usize = 250;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = "connections = 3\nmessages_per_connection = 7\nrate = \"50/s\"\nburst = 5";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, limits).start();

    let pushed = Instant::now();
    let mut source = Command::new(program("smtp-source"));
    source.args(["-s", "20", "-m", &MESSAGES.to_string(), "-f", FROM, "-t", TO]).arg(daemon.smtp.to_string());
    run_ok(&mut source, b"", Duration::from_secs(60));
    println!("smtp-source pushed {MESSAGES} messages in {:?}", pushed.elapsed());

    let received = sink.wait(MESSAGES, Duration::from_secs(30));
    let mut times: Vec<Instant> = received.iter().map(|message| message.began).collect();
    times.sort();
    let took = times[MESSAGES - 1] - times[0];
    let worst = worst_excess(&times, RATE, BURST);
    println!(
        "{MESSAGES} messages in {took:?}; worst window: {worst:.2} messages over the limit; {} connections at most",
        sink.peak()
    );
    assert!(worst <= 0.0, "{worst:.2} messages too many in a window");
    // And the relay uses what it may: not more than a quarter slower than the limit.
    let ideal = Duration::from_secs_f64((MESSAGES as f64 - BURST) / RATE);
    assert!(took < ideal.mul_f64(1.25), "{took:?} for what the rate allows in {ideal:?}");
    assert!(sink.peak() <= 3, "{} connections at once", sink.peak());
    for connection in sink.connections() {
        assert!(connection.transactions <= 7, "{connection:?}");
    }
    assert!(sink.connections().iter().any(|connection| connection.transactions > 1), "connections are reused");
    daemon.wait_queue_empty(SOON);
    assert_eq!(sink.count(), MESSAGES);
    sink.assert_legal();
}

/// SES and others count recipients: a transaction of four costs four.
#[test]
fn a_rate_that_counts_recipients_holds_and_transactions_are_split() {
    let _alone = alone();
    const RATE: f64 = 40.0;
    const BURST: f64 = 4.0;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = "connections = 2\nrecipients_per_message = 4\nrate = \"40/s\"\nburst = 4\ncount = \"recipients\"";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, limits).start();
    let recipients: Vec<String> = (0..30).map(|n| format!("<r{n}@example.test>")).collect();
    let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send("<sender@sender.test>", &to, &message(&format!("list {n}")));
    }
    daemon.wait_queue_empty(Duration::from_secs(30));
    let received = sink.messages();
    let mut times: Vec<Instant> = received.iter().flat_map(|m| m.to.iter().map(|_| m.began)).collect();
    times.sort();
    assert_eq!(times.len(), 150, "every recipient once");
    assert!(received.iter().all(|message| message.to.len() <= 4));
    let worst = worst_excess(&times, RATE, BURST);
    println!("150 recipients in {:?}; worst window: {worst:.2} over the limit", times[149] - times[0]);
    assert!(worst <= 0.0, "{worst:.2} recipients too many in a window");
}

/// A server that takes two connections and answers 421 to more costs nobody an attempt.
#[test]
fn a_server_that_refuses_further_connections_loses_nothing() {
    let _alone = alone();
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options { max_connections: 2, ..Options::default() });
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 8\nrate = []")
        .with("[retry]\nfirst = \"1s\"\nmax = \"1s\"")
        .start();
    let mut client = daemon.client();
    for n in 0..100 {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("full {n}")));
    }
    sink.wait(100, Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    let mut subjects: Vec<String> = sink.messages().iter().map(|message| message.subject()).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!((subjects.len(), sink.count()), (100, 100), "every message once");
}

/// Bodies that have to be converted for the host take time: the permits must not pile up meanwhile
/// and leave together.
#[test]
fn a_rate_holds_while_bodies_are_converted() {
    let _alone = alone();
    const RATE: f64 = 5.0;
    const MESSAGES: usize = 8;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options { extensions: vec!["PIPELINING"], ..Options::default() });
    let limits = "connections = 8\nmessages_per_connection = 1\nrate = \"5/s\"\nburst = 1";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, limits).start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        // The larger ones first, so that who waited longest is done together with who came last.
        let mut content = message(&format!("converted {n}"));
        let lines = (MESSAGES - n) * 20_000;
        content.extend_from_slice("Grüße, die nicht durch sieben Bit passen\r\n".repeat(lines).as_bytes());
        client.send(FROM, &[TO], &content);
    }
    let mut times: Vec<Instant> = sink.wait(MESSAGES, Duration::from_secs(60)).iter().map(|m| m.began).collect();
    times.sort();
    let worst = worst_excess(&times, RATE, 1.0);
    // The conversions keep the machine busy, the receiver's threads too, so a message may be seen another
    // 100 ms late. Two that left together would be 0.87 too many.
    let busy = RATE * 4.0 * JITTER.as_secs_f64();
    assert!(worst <= busy, "{worst:.2} messages too many in a window");
    sink.assert_legal();
}

/// Every connection counts, those that the server turns away too.
#[test]
fn a_rate_of_connections_holds_at_the_receiver() {
    let _alone = alone();
    const RATE: f64 = 8.0;
    const MESSAGES: usize = 30;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options { max_connections: 2, ..Options::default() });
    let limits = "connections = 6\nmessages_per_connection = 1\nrate = []\nconnection_rate = \"8/s\"";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, limits).start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        client.send(FROM, &[TO], &message(&format!("connection {n}")));
    }
    sink.wait(MESSAGES, Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    let mut times: Vec<Instant> = sink.connections().iter().map(|c| c.opened).collect();
    times.sort();
    let (worst, took) = (worst_excess(&times, RATE, 1.0), times[times.len() - 1] - times[0]);
    println!("{} connections in {took:?}; worst window: {worst:.2} over the limit", times.len());
    assert!(worst <= 0.0, "{worst:.2} connections too many in a window");
    assert!(took < Duration::from_secs_f64(times.len() as f64 / RATE * 1.4), "and uses what it may: {took:?}");
    assert_eq!(sink.count(), MESSAGES);
}

/// The worst excess and the span of what was received of messages with this in their subject.
fn of(received: &[Received], what: &str, rate: f64) -> (f64, usize, Duration) {
    let mut times: Vec<Instant> = received.iter().filter(|m| m.subject().contains(what)).map(|m| m.began).collect();
    times.sort();
    let span = times.last().zip(times.first()).map_or(Duration::ZERO, |(last, first)| *last - *first);
    (worst_excess(&times, rate, 1.0), times.len(), span)
}

/// `each_domain`: every sender domain has the share for itself.
#[test]
fn a_share_of_each_sender_domain_holds_at_the_receiver() {
    let _alone = alone();
    const RATE: f64 = 6.0;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 4\nrate = []")
        .with("[[limit]]\nrate = \"6/s\"\neach_domain = true\nsender = \"*.example\"")
        .start();
    let mut client = daemon.client();
    for n in 0..20 {
        for domain in ["one", "two", "THREE"] {
            // Upper or lower case is the same domain.
            let domain = if n % 2 == 0 { domain.to_owned() } else { domain.to_lowercase() };
            let subject = format!("{} {n}", domain.to_lowercase());
            client.send(&format!("<app{n}@{domain}.example>"), &[TO], &message(&subject));
        }
        client.send("<free@elsewhere.test>", &[TO], &message(&format!("free {n}")));
    }
    let received = sink.wait(80, Duration::from_secs(60));
    for domain in ["one", "two", "three"] {
        let (worst, count, span) = of(&received, domain, RATE);
        println!("{domain}: {count} in {span:?}; worst window: {worst:.2} over the limit");
        assert!(count == 20 && worst <= 0.0, "{worst:.2} messages too many of {domain} in a window");
        let ideal = Duration::from_secs_f64(19.0 / RATE);
        assert!(span < ideal.mul_f64(1.4), "each domain has the whole share: {span:?} instead of {ideal:?}");
    }
    let (_, free, span) = of(&received, "free", RATE);
    assert!(free == 20 && span < Duration::from_secs(2), "who has no limit does not wait: {span:?}");
    daemon.wait_queue_empty(SOON);
}

/// `client`: who hands mail in from these addresses has a share; the others flow.
#[test]
fn a_share_of_a_client_network_holds_at_the_receiver() {
    let _alone = alone();
    const RATE: f64 = 8.0;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 4\nrate = []")
        .with("[[limit]]\nrate = \"8/s\"\nclient = [\"127.0.9.0/24\"]")
        .start();
    let mut clients =
        [[127, 0, 9, 1], [127, 0, 9, 200], [127, 0, 8, 1]].map(|ip| Client::connect_from(ip, daemon.smtp));
    for n in 0..15 {
        for (client, what) in clients.iter_mut().zip(["narrow", "narrow", "free"]) {
            client.send(FROM, &[TO], &message(&format!("{what} {n}")));
        }
    }
    let received = sink.wait(45, Duration::from_secs(60));
    let (worst, count, span) = of(&received, "narrow", RATE);
    println!("{count} of the network in {span:?}; worst window: {worst:.2} over the limit");
    assert!(count == 30 && worst <= 0.0, "both clients share it: {worst:.2} messages too many in a window");
    assert!(span < Duration::from_secs_f64(29.0 / RATE * 1.4), "and use it: {span:?}");
    let (_, free, span) = of(&received, "free", RATE);
    assert!(free == 15 && span < Duration::from_secs(2), "who has no limit does not wait: {span:?}");
    daemon.wait_queue_empty(SOON);
}
