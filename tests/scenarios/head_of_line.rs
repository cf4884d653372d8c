//! A provider that does not move, with 200,000 recipients behind it, delays nobody else; nor does a sender whom a
//! host does not want.

use crate::support;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::daemon::{LogLine, Setup};
use support::mail::message;
use support::sink::{Answer, Ask, Gate, Options, Sink};
use support::{Port, SOON, TestDir};

const BACKLOG: usize = 200_000;
const RECIPIENTS: usize = 1_000;
/// The promise: another provider's mail leaves within a second.
const PROMISE: Duration = Duration::from_secs(1);

#[test]
fn two_hundred_thousand_for_a_stalled_provider_delay_nobody_else() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let gate = Gate::default();
    let stalled = {
        let gate = gate.clone();
        // It greets, takes the recipients, and never answers the data.
        Sink::with(
            port.at(2),
            Options::script(move |ask| match ask.verb {
                "DOT" => Answer::After(gate.clone()),
                _ => Answer::Yes,
            }),
        )
    };
    let quick = Sink::start(port.at(3));
    let mut daemon = Setup::new(&dir)
        .via(
            "stalled",
            "stalled.test",
            stalled.address,
            "connections = 3\nrate = \"20/s\"\nrecipients_per_message = 10",
        )
        .via("quick", "quick.test", quick.address, "connections = 3\nrate = []")
        .start();

    let began = Instant::now();
    let mut client = daemon.client();
    for n in 0..BACKLOG / RECIPIENTS {
        let recipients: Vec<String> = (0..RECIPIENTS).map(|r| format!("<r{n}-{r}@stalled.test>")).collect();
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        client.send("<bulk@sender.test>", &to, &message(&format!("bulk {n}")));
    }
    println!("{BACKLOG} recipients accepted in {:?}", began.elapsed());

    let mut worst = Duration::ZERO;
    let mut measure = |daemon: &support::daemon::Daemon, round: &str| {
        for n in 0..10 {
            let subject = format!("{round} {n}");
            daemon.client().send("<sender@sender.test>", &["<somebody@quick.test>"], &message(&subject));
            let acknowledged = Instant::now();
            let arrived = quick.wait_subject(&subject, SOON).at;
            worst = worst.max(arrived.saturating_duration_since(acknowledged));
        }
    };
    measure(&daemon, "behind the backlog");
    // Recovery does not scan the backlog, and the first message after it waits for nothing either.
    daemon.kill();
    let restarted = Instant::now();
    daemon.start();
    let start = restarted.elapsed();
    measure(&daemon, "after a restart");
    println!("start with the backlog: {start:?}; slowest message of another provider: {worst:?}");
    assert!(worst < PROMISE, "{worst:?} for another provider's message");
    assert!(start < Duration::from_secs(5), "{start:?} to start with a backlog of {BACKLOG}");
    assert_eq!(stalled.count(), 0);
    gate.open();
}

/// What it says of mail of one sender, or of senders at one domain who are new with each message (VERP), is nothing
/// about others: all of theirs leaves, tried or not, and none of it is put off; what is refused has a few connections.
#[test]
fn senders_whom_a_host_answers_with_421_stop_nobody_else() {
    const ROUNDS: usize = 30;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let table = [
        ("mail", "MAIL", "421 4.7.0 [TSS04] not from this user"),
        ("rcpt", "RCPT", "421 4.7.0 later"),
        ("dot", "DOT", "421 4.7.0 later"),
        ("verp-mail", "MAIL", "421 4.7.0 [TSS04] not from this user"),
        ("verp-rcpt", "RCPT", "421 4.7.0 later"),
        ("verp-dot", "DOT", "421 4.7.0 later"),
    ];
    let from = |name: &str, n: usize| match name.starts_with("verp") {
        true => format!("<bounces-{n}@bad.test>"),
        false => "<someone@bad.test>".to_owned(),
    };
    let sinks: Vec<Sink> = (2..)
        .zip(table)
        .map(|(n, (_, verb, reply))| {
            let bad = Mutex::new(HashSet::new());
            let script = move |ask: &Ask| {
                let mut bad = bad.lock().unwrap();
                if ask.verb == "MAIL" {
                    if ask.argument.contains("@bad.test") {
                        bad.insert(ask.connection)
                    } else {
                        bad.remove(&ask.connection)
                    };
                }
                if ask.verb == verb && bad.contains(&ask.connection) { Answer::say(reply) } else { Answer::Yes }
            };
            Sink::with(port.at(n), Options { extensions: vec!["PIPELINING"], ..Options::script(script) })
        })
        .collect();
    let mut setup = Setup::new(&dir).with("[retry]\nfirst = \"1h\"\njitter = 0.0");
    for (sink, (name, ..)) in sinks.iter().zip(table) {
        setup = setup.via(name, &format!("{name}.test"), sink.address, "connections = 4\nrate = []");
    }
    let mut daemon = setup.prepare();
    // Who was not tried has a line at this level only.
    let text = std::fs::read_to_string(&daemon.config).unwrap();
    std::fs::write(&daemon.config, text.replace("level = \"info\"", "level = \"debug\"")).unwrap();
    daemon.start();
    let mut client = daemon.client();
    let mut send = |from: &str, name: &str, subject: &str| {
        client.send(from, &[&format!("<somebody@{name}.test>")], &message(subject));
    };
    // His mail is put off before anybody else's comes.
    for (name, ..) in table {
        (0..20).for_each(|n| send(&from(name, n), name, &format!("first {n}")));
    }
    let put_off = |line: &LogLine, name: &str, sender: &str| {
        line.event() == "deferred" && line.get("provider") == name && line.get("sender").contains(sender)
    };
    for (name, ..) in table {
        daemon.wait_log("his to be put off", |line| {
            put_off(line, name, "@bad.test") && line.get("reply").starts_with("not tried")
        });
    }
    for n in 0..ROUNDS {
        for (name, ..) in table {
            send(&format!("<good{}@g.test>", n % 3), name, &format!("good {n}"));
            (0..4).for_each(|m| send(&from(name, 100 + 4 * n + m), name, &format!("bad {n}-{m}")));
        }
    }
    for (sink, (name, ..)) in sinks.iter().zip(table) {
        let got = sink.wait(ROUNDS, SOON);
        assert!(got.len() == ROUNDS && got.iter().all(|mail| mail.from.contains("good")), "{name}");
        let lines = daemon.log_lines();
        let deferred: Vec<&LogLine> = lines.iter().filter(|line| put_off(line, name, "good")).collect();
        assert!(deferred.is_empty(), "{name}: {} {}", deferred.len(), deferred[0].0);
    }
}

/// A smart host that asks one sender for a login has taken nobody's mail yet: others' is tried, and leaves. One that
/// asks everybody hears of two messages, whatever waits.
#[test]
fn a_sender_whom_a_smart_host_asks_for_a_login_stops_nobody_else() {
    const ROUNDS: usize = 30;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let refusing = |all: bool| {
        let script = move |ask: &Ask| match ask.verb == "MAIL" && (all || ask.argument.contains("bad@")) {
            true => Answer::say("530 5.7.0 authentication required"),
            false => Answer::Yes,
        };
        Options { extensions: vec!["PIPELINING"], ..Options::script(script) }
    };
    let (one, all) = (Sink::with(port.at(2), refusing(false)), Sink::with(port.at(3), refusing(true)));
    let keys = "connections = 4\nrate = []";
    let setup = Setup::new(&dir).with("[retry]\nfirst = \"1h\"\njitter = 0.0");
    let daemon = setup.via("one", "one.test", one.address, keys).via("all", "all.test", all.address, keys).start();
    let mut client = daemon.client();
    let mut send = |from: &str, domain: &str, subject: String| {
        client.send(from, &[&format!("<somebody@{domain}>")], &message(&subject));
    };
    for domain in ["one.test", "all.test"] {
        (0..20).for_each(|n| send("<bad@s.test>", domain, format!("first {n}")));
    }
    for name in ["one", "all"] {
        let line = daemon.wait_log("the refusal", |line| line.get("level") == "ERROR" && line.get("provider") == name);
        assert_eq!(line.get("about"), "of bad@s.test", "{}", line.0);
    }
    let list = daemon.command(&["provider", "list"], b"");
    let list = String::from_utf8_lossy(&list.stdout);
    let told = list.matches("the provider refuses us with mail of bad@s.test, others' is tried at once: ");
    assert_eq!(told.count(), 2, "{list}");
    for n in 0..ROUNDS {
        for domain in ["one.test", "all.test"] {
            send(&format!("<good{}@g.test>", n % 3), domain, format!("good {n}"));
        }
        send("<bad@s.test>", "one.test", format!("bad {n}"));
    }
    let got = one.wait(ROUNDS, SOON);
    assert!(got.len() == ROUNDS && got.iter().all(|mail| mail.from.contains("good")));
    daemon.wait_log("that all of it stops", |line| {
        line.event() == "the lane stops: nothing leaves" && line.get("provider") == "all" && line.get("by") == "refused"
    });
    // Those that were under way when the first was refused, and one of another sender.
    let connections = all.connections().len();
    assert!((2..=5).contains(&connections), "{connections}");
    let deferred = |line: &LogLine| line.event() == "deferred" && line.get("sender").contains("good");
    let lines = daemon.log_lines();
    let good: Vec<&LogLine> = lines.iter().filter(|line| deferred(line)).collect();
    assert!(good.len() == 1 && good[0].get("provider") == "all", "{}", good.len());
}
