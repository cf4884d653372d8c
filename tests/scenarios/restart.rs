//! What holds over the end of the process, killed or stopped in good order: rates, measured at the
//! receiver, and what an operator has paused.

use crate::support;

use std::thread;
use std::time::{Duration, Instant};

use support::daemon::Setup;
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir};

/// Invariant 3 across `kill -9` for rates: a restart brings no second burst.
#[test]
fn killed_again_and_again_no_window_gets_more_than_the_rate_and_one_burst() {
    const RATE: f64 = 10.0;
    const BURST: usize = 15;
    const MESSAGES: usize = 120;
    const KILLS: usize = 5;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = 3\nrate = \"10/s\"\nburst = {BURST}");
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, &limits).start();
    let mut client = daemon.client();
    for n in 0..MESSAGES {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("m{n:03}")));
    }
    for kill in 0..KILLS {
        thread::sleep(Duration::from_millis(random.u64(100..900)));
        // Every other end is an orderly one.
        if kill % 2 == 0 {
            daemon.kill()
        } else {
            daemon.stop()
        }
        daemon.start();
    }
    daemon.wait_queue_empty(Duration::from_secs(60));
    let arrived = sink.messages();
    let mut times: Vec<Instant> = arrived.iter().map(|m| m.began).collect();
    times.sort();
    let took = times[times.len() - 1] - times[0];
    println!("{} messages in {took:?} at 10/s with a burst of {BURST}, {KILLS} restarts", times.len());
    assert!(times.len() >= MESSAGES, "nothing is lost");
    for (i, from) in times.iter().enumerate() {
        for (j, to) in times.iter().enumerate().skip(i) {
            // What the way from the permit to the receiver may differ.
            let most = (*to - *from + Duration::from_millis(50)).as_secs_f64() * RATE + BURST as f64;
            assert!((j - i + 1) as f64 <= most, "{} in {:?}, messages {i} to {j}", j - i + 1, *to - *from);
        }
    }
    daemon.stop();
    sink.assert_legal();
}

/// A slow rate keeps its pace over an orderly restart: neither earlier, nor a whole interval later.
#[test]
fn an_orderly_restart_neither_shortens_nor_begins_anew_the_wait_of_a_slow_rate() {
    const INTERVAL: Duration = Duration::from_secs(10);
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, "rate = \"6/m\"").start();
    let mut client = daemon.client();
    for n in 0..2 {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("m{n}")));
    }
    sink.wait(1, SOON);
    thread::sleep(Duration::from_secs(4));
    daemon.stop();
    let started = Instant::now();
    daemon.start();
    let mut times: Vec<Instant> = sink.wait(2, Duration::from_secs(30)).iter().map(|m| m.began).collect();
    times.sort();
    let apart = times[1] - times[0];
    println!("{apart:?} apart, the second {:?} after the restart", times[1] - started);
    assert!(apart + Duration::from_millis(50) >= INTERVAL, "{apart:?}");
    assert!(times[1] - started < INTERVAL, "what had passed before the restart counts");
    daemon.stop();
}

/// Whoever paused a provider did not mean "until the next restart", of which he may never hear.
#[test]
fn an_operators_pause_holds_until_an_operator_ends_it() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (paused, other) = (Sink::start(port.at(2)), Sink::start(port.at(3)));
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", paused.address, "rate = []")
        .via("other", "other.test", other.address, "rate = []")
        .start();
    daemon.command_ok(&["provider", "pause", "example"], b"");
    for round in ["killed", "stopped"] {
        match round {
            "killed" => daemon.kill(),
            _ => daemon.stop(),
        }
        daemon.start();
        let told = daemon.command_ok(&["provider", "show", "example"], b"");
        assert!(told.contains("state        paused by an operator\n"), "{round}: {told}");
        daemon.client().send("<sender@sender.test>", &["<a@example.test>"], &message(round));
        daemon.client().send("<sender@sender.test>", &["<a@other.test>"], &message(round));
        other.wait_subject(round, SOON);
        assert_eq!(paused.count(), 0, "{round}: a paused provider stays paused");
    }
    daemon.command_ok(&["provider", "resume", "example"], b"");
    paused.wait(2, SOON);
    daemon.kill();
    daemon.start();
    daemon.client().send("<sender@sender.test>", &["<a@example.test>"], &message("resumed"));
    paused.wait_subject("resumed", SOON);
}
