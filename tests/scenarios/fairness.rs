//! In which order mail leaves, at a real receiver.

use crate::support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Answer, Options, Received, Sink};
use support::{Port, SOON, TestDir};

const CONNECTIONS: usize = 5;

/// Senders as the receiver saw them, in order.
fn senders(received: &[Received]) -> Vec<String> {
    received
        .iter()
        .map(|one| one.from.trim_matches(['<', '>']).split('>').next().unwrap_or_default().to_owned())
        .collect()
}

/// One message to so many recipients, each of whom gets it in a transaction of its own.
fn mailing(daemon: &Daemon, sender: &str, recipients: usize, subject: &str) {
    let mut client = daemon.client();
    for from in (0..recipients).step_by(100) {
        let to: Vec<String> = (from..recipients.min(from + 100)).map(|n| format!("<r{n}@p.test>")).collect();
        client.send(&format!("<{sender}>"), &to.iter().map(String::as_str).collect::<Vec<_>>(), &message(subject));
    }
}

/// In the order in which MAIL came, whatever the end of each took.
fn in_order(sink: &Sink, count: usize) -> Vec<Received> {
    let mut received = sink.wait(count, Duration::from_secs(60));
    received.sort_by_key(|one| one.began);
    received
}

#[test]
fn no_message_is_overtaken_by_more_others_of_its_sender_than_there_are_connections() {
    const MESSAGES: usize = 300;
    let (dir, port) = (TestDir::new(), Port::reserve());
    // It takes a while to greet: connections are changed all the time, and somebody always waits.
    let sink = Sink::with(
        port.at(2),
        Options::script(|ask| {
            if ask.verb == "CONNECT" {
                std::thread::sleep(Duration::from_millis(150 * (ask.connection as u64 % 5)));
            }
            Answer::Yes
        }),
    );
    let limits = format!("connections = {CONNECTIONS}\nrate = \"40/s\"\nmessages_per_connection = 9");
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, &limits).start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        client.send("<news@sender.test>", &["<somebody@p.test>"], &message(&format!("{n}")));
    }
    let numbers: Vec<usize> =
        in_order(&sink, MESSAGES).iter().map(|one| one.subject().parse().expect("a number")).collect();
    let overtaken = |at: usize| numbers[..at].iter().filter(|earlier| **earlier > numbers[at]).count();
    let worst = (0..MESSAGES).map(overtaken).max().expect("some");
    println!("overtaken by {worst} at most");
    assert!(worst <= CONNECTIONS, "overtaken by {worst}: {numbers:?}");
}

#[test]
fn a_new_sender_has_its_turn_behind_five_thousand_of_another() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = {CONNECTIONS}\nrate = \"20/s\"\nrecipients_per_message = 1");
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, &limits).start();
    mailing(&daemon, "news@a.test", 5000, "news");
    let before = sink.count();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send("<shop@b.test>", &["<somebody@p.test>"], &message(&format!("order {n}")));
    }
    sink.wait_subject("order 4", SOON);
    let all = senders(&in_order(&sink, before));
    let places: Vec<usize> =
        (0..all.len()).filter(|at| all[*at] == "shop@b.test").map(|at| at.saturating_sub(before)).collect();
    println!("numbers {places:?} after it came");
    // Its turns, and those that were on their way.
    for (n, at) in places.iter().enumerate() {
        assert!(*at <= 2 * (n + 1) + 2 * CONNECTIONS, "{places:?}");
    }
}

#[test]
fn a_sender_over_its_limit_delays_nobody_also_after_a_restart() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = {CONNECTIONS}\nrate = \"100/s\"\nrecipients_per_message = 1");
    let mut daemon = Setup::new(&dir)
        .via("p", "p.test", sink.address, &limits)
        .with("[[limit]]\nsender = \"*@news.test\"\nquota = \"10/h\"\n")
        .start();
    mailing(&daemon, "list@news.test", 4200, "news");
    let others = |daemon: &Daemon, round: &str| {
        let mut client = daemon.client();
        for n in 0..50 {
            client.send(&format!("<clerk{n}@shop.test>"), &["<somebody@p.test>"], &message(&format!("{round} {n}")));
        }
        for n in 0..50 {
            sink.wait_subject(&format!("{round} {n}"), SOON);
        }
    };
    others(&daemon, "first");
    daemon.kill();
    daemon.start();
    others(&daemon, "second");
    let mut of_each: BTreeMap<String, usize> = BTreeMap::new();
    for sender in senders(&sink.messages()) {
        *of_each.entry(sender.rsplit_once('@').map_or(sender.clone(), |(_, domain)| domain.to_owned())).or_default() +=
            1;
    }
    println!("{of_each:?}");
    // What was in flight at the kill may come once more.
    let others = of_each.get("shop.test").copied().unwrap_or(0);
    assert!((100..=100 + CONNECTIONS).contains(&others), "{of_each:?}");
    assert!(of_each.get("news.test").is_some_and(|news| *news <= 10), "{of_each:?}");
    let waiting = daemon.queue_list(&["--limit", "1", "--reason", "*limit*"]);
    assert!(waiting[0].text("reason").contains("quota 10/h"), "{:?}", waiting[0].text("reason"));
}
