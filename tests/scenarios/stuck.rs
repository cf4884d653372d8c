//! What waits in the store leaves whatever happened to what stood before it in memory.

use crate::support;

use std::time::Duration;

use support::daemon::Setup;
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir};

/// A window full of one sender's mail, and behind it, in the store, another sender's. Nothing is in
/// a transaction, for the rate is slow: cancelling the first must make the second leave.
#[test]
fn what_is_stored_behind_a_full_window_leaves_after_the_window_is_cancelled() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = "connections = 2\nrecipients_per_message = 50\nrate = \"10/m\"\nburst = 1";
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, limits).start();
    let mut client = daemon.client();
    client.send("<first@sender.test>", &["<somebody@example.test>"], &message("takes the burst"));
    sink.wait_subject("takes the burst", SOON);

    let many = |name: &str, n: usize| -> Vec<String> { (0..n).map(|i| format!("<{name}{i}@example.test>")).collect() };
    for n in 0..5 {
        let recipients = many("bulk", 1000);
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        client.send("<bulk@sender.test>", &to, &message(&format!("bulk {n}")));
    }
    let recipients = many("behind", 40);
    let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
    client.send("<other@sender.test>", &to, &message("behind"));

    daemon.command_ok(&["queue", "cancel", "--sender", "bulk@sender.test"], b"");
    sink.wait_subject("behind", Duration::from_secs(30));
    daemon.wait_queue_empty(SOON);
}
