//! A provider that does not move, with 200,000 recipients behind it, delays nobody else.

mod support;

use std::time::{Duration, Instant};

use support::daemon::Setup;
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
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
