//! Several local addresses of one provider: who leaves from where, as the receiver sees it.

use crate::support;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use support::daemon::Setup;
use support::mail::message;
use support::sink::{Received, Sink};
use support::{Port, SOON, TestDir};

/// Where each message came from, by the domain of its sender.
fn origins(sink: &Sink, messages: &[Received]) -> HashMap<String, HashSet<(IpAddr, String)>> {
    let connections = sink.connections();
    let mut origins: HashMap<String, HashSet<_>> = HashMap::new();
    for message in messages {
        let domain = message.from.split(['@', '>']).nth(1).expect("a sender with a domain").to_owned();
        let from = connections[message.connection].from;
        origins.entry(domain).or_default().insert((from, message.helo.clone()));
    }
    origins
}

#[test]
fn each_sender_domain_keeps_its_address_and_name_also_after_a_restart() {
    const DOMAINS: usize = 24;
    const EACH: usize = 8;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    let sources = "source = [{ address = \"127.0.0.2\", name = \"out2.example.com\" }, \
                   { address = \"127.0.0.3\", name = \"out3.example.com\", weight = 2 }, \"127.0.0.4\"]\n\
                   connections = 3\nrate = []";
    let mut daemon = Setup::new(&dir).via("p", "p.test", sink.address, sources).start();
    let send = |daemon: &support::daemon::Daemon| {
        let mut client = daemon.client();
        for n in 0..EACH {
            for domain in 0..DOMAINS {
                let sender = format!("<s@d{domain}.test>");
                client.send(&sender, &["<somebody@p.test>"], &message(&format!("{domain} {n}")));
            }
        }
    };
    send(&daemon);
    sink.wait(DOMAINS * EACH, Duration::from_secs(60));
    daemon.wait_queue_empty(SOON);
    daemon.stop();
    daemon.start();
    send(&daemon);
    let messages = sink.wait(2 * DOMAINS * EACH, Duration::from_secs(60));

    let origins = origins(&sink, &messages);
    assert_eq!(origins.len(), DOMAINS);
    let mut used = HashSet::new();
    for (domain, from) in &origins {
        assert_eq!(from.len(), 1, "{domain} came from {from:?}");
        used.extend(from.iter().cloned());
    }
    let expected =
        [([127, 0, 0, 2], "out2.example.com"), ([127, 0, 0, 3], "out3.example.com"), ([127, 0, 0, 4], "relay.test")];
    assert_eq!(used, expected.map(|(ip, name)| (IpAddr::from(ip), name.to_owned())).into());
    assert!(sink.peak() <= 3, "{} connections", sink.peak());
    let connections = sink.connections().len();
    println!("{} messages of {DOMAINS} sender domains over {connections} connections", messages.len());
    assert!(connections * 2 < messages.len(), "{connections} connections for {} messages", messages.len());
}

#[test]
fn an_address_that_this_host_does_not_have_gives_way_to_the_next() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(9));
    // 192.0.2.0/24 is for documentation: no machine has it.
    let sources = "source = [{ address = \"192.0.2.1\", weight = 1000 }, \"127.0.0.3\"]\nconnections = 2\nrate = []";
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, sources).start();
    let mut client = daemon.client();
    for n in 0..20 {
        client.send(&format!("<s@d{n}.test>"), &["<somebody@p.test>"], &message(&format!("message {n}")));
    }
    let messages = sink.wait(20, SOON);
    daemon.wait_queue_empty(SOON);
    let used: HashSet<IpAddr> = origins(&sink, &messages).into_values().flatten().map(|(ip, _)| ip).collect();
    assert_eq!(used, [IpAddr::from([127, 0, 0, 3])].into());
    assert!(!daemon.log_lines().iter().any(|line| line.event() == "deferred"), "nothing waited for it");
    daemon.wait_log("the address that cannot be used", |line| line.get("source") == "192.0.2.1");
}
