//! Traps that need the whole program: what it makes of an odd host with the queue behind it.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Mutex;

use support::daemon::Setup;
use support::mail::message;
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir};

/// Nothing is tried a second time within a test, so what is delivered was not put off.
const RETRY: &str = "[retry]\nfirst = \"1h\"\nmax = \"1h\"\nwarn = \"0s\"";

/// Whichever code a host says it with, beyond its limit is not refused: the rest goes next, at once.
#[test]
fn a_host_with_a_limit_of_recipients_gets_them_in_several_transactions() {
    for refusal in [
        "452 4.5.3 Too many recipients",
        "450 4.5.3 enough",
        "451 4.5.3 enough",
        "550 5.5.3 enough",
        "552 5.5.3 Too many recipients",
        "452 Too many recipients",
    ] {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let taken = Mutex::new(0);
        let script = move |ask: &Ask| {
            let mut taken = taken.lock().expect("no panic");
            match ask.verb {
                "MAIL" => *taken = 0,
                "RCPT" if *taken == 7 => return Answer::say(refusal),
                "RCPT" => *taken += 1,
                _ => {}
            }
            Answer::Yes
        };
        let sink = Sink::with(port.at(2), Options::script(script));
        let limits = "connections = 1\nrate = []\nrecipients_per_message = 50";
        let daemon = Setup::new(&dir).via("few", "few.test", sink.address, limits).with(RETRY).start();
        let to: Vec<String> = (0..30).map(|n| format!("<r{n}@few.test>")).collect();
        let named: Vec<&str> = to.iter().map(String::as_str).collect();
        daemon.client().send("<s@sender.test>", &named, &message("many"));
        daemon.wait_queue_empty(SOON);
        let got = sink.messages();
        assert!(got.iter().all(|m| m.to.len() <= 7), "{refusal}: never above its limit");
        let all: Vec<&String> = got.iter().flat_map(|m| &m.to).collect();
        assert_eq!(all.len(), 30, "{refusal}: each once");
        assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), to.iter().collect(), "{refusal}");
        assert!(daemon.log_lines().iter().all(|line| !matches!(line.event().as_str(), "deferred" | "bounced")));
        sink.assert_legal();
    }
}

/// The connection ends where the last reply should be: it may have arrived, and whoever looks is told that.
#[test]
fn a_message_without_its_last_reply_is_uncertain_and_tried_again() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let first = Mutex::new(true);
    let script = move |ask: &Ask| match ask.verb {
        "DOT" if std::mem::take(&mut *first.lock().expect("no panic")) => Answer::Close,
        _ => Answer::Yes,
    };
    let sink = Sink::with(port.at(2), Options::script(script));
    let daemon = Setup::new(&dir).via("odd", "odd.test", sink.address, "rate = []").with(RETRY).start();
    let id = daemon.client().send("<s@sender.test>", &["<x@odd.test>"], &message("perhaps"));
    let row = daemon.wait_row("what may have arrived", |row| row.state() == "uncertain");
    assert_eq!((row.id(), row.attempts()), (id.clone(), 1));
    assert!(row.reason().contains("closed the connection"), "{}", row.reason());
    assert_eq!(sink.count(), 0, "this time it had not");
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    assert_eq!(sink.wait_subject("perhaps", SOON).to, ["<x@odd.test>"]);
    daemon.wait_queue_empty(SOON);
    assert_eq!(sink.count(), 1);
    daemon.wait_log("that it was delivered", |line| line.is("delivered", &id));
}
