//! A password reset behind a newsletter to the same provider.

use crate::support;

use std::time::Duration;

use support::daemon::Setup;
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir};

const BULK: usize = 20_000;
const RECIPIENTS: usize = 1_000;
const CONNECTIONS: usize = 3;

#[test]
fn an_urgent_message_is_among_the_next_transactions_in_spite_of_twenty_thousand_before_it() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let limits = format!("connections = {CONNECTIONS}\nrate = \"20/s\"\nrecipients_per_message = 1");
    let daemon = Setup::new(&dir).via("p", "p.test", sink.address, &limits).start();
    let mut client = daemon.client();
    for n in 0..BULK / RECIPIENTS {
        let recipients: Vec<String> = (0..RECIPIENTS).map(|r| format!("<r{n}-{r}@p.test>")).collect();
        let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let content = [b"List-Unsubscribe: <https://a.test/u>\r\n".as_slice(), &message("newsletter")].concat();
        client.send("<news@sender.test>", &to, &content);
    }
    sink.wait(20, SOON);

    // Told by MT-PRIORITY, by a header field, and by nothing at all: a newsletter comes last.
    for (subject, parameter, header) in
        [("reset 1", " MT-PRIORITY=6", ""), ("reset 2", "", "X-Priority: 1\r\n"), ("reset 3", "", "")]
    {
        let content = [header.as_bytes(), &message(subject)].concat();
        client.send(&format!("<app@sender.test>{parameter}"), &["<somebody@p.test>"], &content);
        let before = sink.count();
        let arrived = sink.wait_subject(subject, SOON);
        let messages = sink.messages();
        let at = messages.iter().position(|m| m.subject() == subject).expect("it is there");
        // Those on their way when it came, and at most one that the clock of the test missed.
        let overtook = at.saturating_sub(before);
        println!(
            "{subject}: {overtook} transactions before it, {:?} after",
            arrived.at - messages[before.max(1) - 1].at
        );
        assert!(overtook <= CONNECTIONS + 1, "{subject}: {overtook} transactions went before it");
    }
    assert!(sink.count() < BULK / 2, "the newsletter is still under way");
    let bulk = daemon.queue_list(&["--limit", "1"]);
    assert_eq!(bulk[0].number("priority"), -4);
    // And bulk goes on.
    let had = sink.count();
    sink.wait(had + 20, Duration::from_secs(20));
}
