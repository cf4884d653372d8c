//! Mail that expires while something holds it back: in time, wherever it waits, and it says what
//! held it.

use crate::support;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Answer, Ask, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

const RETRY: &str = "[provider.example.retry]\nfirst = \"1s\"\nmax = \"2s\"\nwarn = \"0s\"\nexpire = \"3s\"";

fn failed(daemon: &Daemon) -> Vec<String> {
    let dead = daemon.queue_list(&["--state", "failed"]);
    dead.iter().map(|row| row.text("reason")).collect()
}

#[test]
fn a_pause_after_a_reply_does_not_keep_mail_beyond_its_time() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let said = Mutex::new(false);
    let refuse_first = Options::script(move |ask: &Ask| {
        if ask.verb == "MAIL" && !std::mem::replace(&mut *said.lock().expect("the flag"), true) {
            return Answer::say("450 4.7.2 take a break");
        }
        Answer::Yes
    });
    let sink = Sink::with(port.at(2), refuse_first);
    let back = Sink::start(port.at(3));
    let rule = "[[provider.example.on_reply]]\ntext = \"take a break\"\npause = true\nfor = \"1h\"";
    let daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, &format!("connections = 1\n{RETRY}\n{rule}"))
        .via("back", "sender.test", back.address, "rate = []")
        .start();
    let mut client = daemon.client();
    client.send("<sender@sender.test>", &["<somebody@example.test>"], &message("first"));
    daemon.wait_log("the pause", |line| line.event() == "throttled");
    client.send("<sender@sender.test>", &["<somebody@example.test>"], &message("second"));
    for dsn in back.wait(2, SOON) {
        let text = String::from_utf8_lossy(&dsn.content).into_owned();
        assert!(text.contains("Status: 5.4.7") || text.contains("Status: 4.4.7"), "{text}");
        assert!(text.contains("held back by a pause after a reply") && text.contains("take a break"), "{text}");
    }
    let reasons = wait_for("both to be dead letters", SOON, || Some(failed(&daemon)).filter(|dead| dead.len() == 2));
    assert!(
        reasons.iter().all(|why| why.starts_with("expired while held back by a pause after a reply (")),
        "{reasons:?}"
    );
    assert_eq!(daemon.log_lines().iter().filter(|line| line.event() == "expired").count(), 2);
    assert_eq!(sink.count(), 0);
}

/// More than a lane keeps in memory: what is deep in the store expires as well, and the lane goes
/// on with what is younger.
#[test]
fn a_pause_by_an_operator_expires_also_what_is_deep_in_the_store() {
    const EACH: usize = 1000;
    const MESSAGES: usize = 5;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon =
        Setup::new(&dir).via("example", "example.test", sink.address, &format!("connections = 1\n{RETRY}")).start();
    daemon.command_ok(&["provider", "pause", "example"], b"");
    let began = Instant::now();
    let recipients: Vec<String> = (0..EACH).map(|n| format!("<r{n}@example.test>")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        client.send("<>", &recipients, &message(&format!("m{n}")));
    }
    let reasons = wait_for("all to be dead letters", Duration::from_secs(60), || {
        let dead = daemon.queue_list(&["--state", "failed", "--limit", "10000"]);
        (dead.len() == EACH * MESSAGES).then(|| dead.iter().map(|row| row.text("reason")).collect::<Vec<_>>())
    });
    println!("{} recipients expired {:?} after the pause", reasons.len(), began.elapsed());
    assert!(began.elapsed() >= Duration::from_secs(3), "not before their time");
    assert!(reasons.iter().all(|why| why == "expired while held back by a pause by an operator"), "{}", reasons[0]);
    assert_eq!(sink.count(), 0);
    // The lane has let go of all of them.
    client.send("<>", &["<late@example.test>"], &message("late"));
    daemon.command_ok(&["provider", "resume", "example"], b"");
    sink.wait(1, SOON);
    daemon.stop();
}
