//! What a host says it takes in one session (LIMITS, RFC 9422) is kept before it has to refuse anything: no attempt is
//! lost, no recipient is told to try again, and nobody waits.

use crate::support;

use std::collections::BTreeSet;

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Options, Received, Sink};
use support::{Port, SOON, TestDir};

fn addresses(count: usize, domain: impl Fn(usize) -> String) -> Vec<String> {
    (0..count).map(|n| format!("<r{n:02}@{}>", domain(n))).collect()
}

fn start(dir: &TestDir, limits: &'static str, keys: &str) -> (Daemon, Sink) {
    let port = Port::reserve();
    let extensions = vec!["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", limits];
    let sink = Sink::with(port.at(2), Options { extensions, ..Options::default() });
    let keys = format!("rate = []\nconnections = 2\n{keys}");
    (Setup::new(dir).via("example", "*.test", sink.address, &keys).start(), sink)
}

fn send(daemon: &Daemon, subject: &str, to: &[String]) {
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    daemon.client().send("<sender@sender.test>", &to, &message(subject));
}

/// Everybody got it once, and nothing of it was tried twice or put off.
fn everybody_once(daemon: &Daemon, received: &[Received], to: &[String]) {
    let got: Vec<&String> = received.iter().flat_map(|message| &message.to).collect();
    let different: BTreeSet<&&String> = got.iter().collect();
    assert_eq!((got.len(), different.len()), (to.len(), to.len()), "{got:?}");
    daemon.wait_queue_empty(SOON);
    let lines = daemon.log_lines();
    let delivered: Vec<_> = lines.iter().filter(|line| line.event() == "delivered").collect();
    assert_eq!(delivered.len(), to.len());
    assert!(delivered.iter().all(|line| line.get("attempt") == "1"), "an attempt was lost");
    assert!(!lines.iter().any(|line| ["deferred", "requeued", "bounced"].contains(&line.event().as_str())));
}

/// As the host counts: recipients of a transaction, transactions and domains of a connection.
fn assert_within(received: &[Received], recipients: usize, messages: usize, domains: usize) {
    let connections: BTreeSet<usize> = received.iter().map(|message| message.connection).collect();
    for connection in connections {
        let its: Vec<&Received> = received.iter().filter(|message| message.connection == connection).collect();
        assert!(its.len() <= messages, "{} messages on connection {connection}", its.len());
        assert!(its.iter().all(|message| message.to.len() <= recipients && message.transaction <= messages));
        let to = its.iter().flat_map(|message| &message.to);
        let named: BTreeSet<&str> = to.filter_map(|to| to.rsplit_once('@').map(|(_, domain)| domain)).collect();
        assert!(named.len() <= domains, "{named:?} on connection {connection}");
    }
}

#[test]
fn recipients_and_messages_are_as_many_as_the_host_says() {
    let dir = TestDir::new();
    let (daemon, sink) = start(&dir, "LIMITS RCPTMAX=3 MAILMAX=2 X-FUTURE=1", "recipients_per_message = 100");
    let to = addresses(20, |_| "one.test".to_owned());
    send(&daemon, "to many", &to);
    // 3 each: six transactions and one of two, on four connections at least.
    let received = sink.wait(7, SOON);
    everybody_once(&daemon, &received, &to);
    assert_within(&received, 3, 2, 1);
    assert_eq!(received.len(), 7, "no more transactions than it takes");
    let shown = daemon.command_ok(&["provider", "show", "example"], b"");
    let line = shown.lines().find(|line| line.starts_with("announced")).unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(line, "announced    RCPTMAX=3 MAILMAX=2 (127.0.0.2)");
    sink.assert_legal();
}

#[test]
fn a_session_has_as_many_domains_as_the_host_says() {
    let dir = TestDir::new();
    let (daemon, sink) = start(&dir, "LIMITS RCPTDOMAINMAX=2", "recipients_per_message = 100");
    let to = addresses(12, |n| format!("d{}.test", n % 4));
    send(&daemon, "to four domains", &to);
    let received = sink.wait(2, SOON);
    everybody_once(&daemon, &received, &to);
    assert_within(&received, 100, 100, 2);
    // One message after the other, on connections that are there already or not.
    for n in 0..6 {
        send(&daemon, &format!("single {n}"), &addresses(1, |_| format!("s{n}.test")));
    }
    assert_within(&sink.wait(received.len() + 6, SOON), 100, 100, 2);
    sink.assert_legal();
}

/// A host that names limits that are none is treated as any other, and one without any is not told of.
#[test]
fn what_makes_no_sense_limits_nothing() {
    let dir = TestDir::new();
    let (daemon, sink) = start(&dir, "LIMITS RCPTMAX=0 MAILMAX=x RCPTDOMAINMAX", "recipients_per_message = 100");
    let to = addresses(20, |n| format!("d{n}.test"));
    send(&daemon, "to many", &to);
    let received = sink.wait(1, SOON);
    everybody_once(&daemon, &received, &to);
    assert_eq!(received.len(), 1);
    assert!(!daemon.command_ok(&["provider", "show", "example"], b"").contains("announced"));
}
