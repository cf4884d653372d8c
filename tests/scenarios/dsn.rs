//! Who is told what about a message that did not arrive, or did (RFC 3461, RFC 3464).

use crate::support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use support::daemon::{Daemon, Setup};
use support::mail::{Report, message};
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, SOON, TestDir};

/// Two hosts: one for the recipients' domain, which answers by a script, one for the senders', which
/// takes everything.
struct World {
    daemon: Daemon,
    recipients: Sink,
    senders: Sink,
    _port: Port,
    _dir: TestDir,
}

/// Recipients `no*` are refused for good, `later*` for now.
fn by_name(ask: &support::sink::Ask) -> Answer {
    match (ask.verb, ask.argument.trim_start_matches('<')) {
        ("RCPT", to) if to.starts_with("no") => Answer::say("550 5.1.1 no such mailbox"),
        ("RCPT", to) if to.starts_with("later") => Answer::say("450 4.2.1 not now"),
        _ => Answer::Yes,
    }
}

fn world(retry: &str, options: Options) -> World {
    world_with("", retry, options)
}

/// With further keys of the recipients' provider.
fn world_with(keys: &str, retry: &str, options: Options) -> World {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let hosts: [SocketAddr; 2] = [port.at(2), port.at(3)];
    let recipients = Sink::with(hosts[0], options);
    let senders = Sink::start(hosts[1]);
    let daemon = Setup::new(&dir)
        .via("example", "example.test", hosts[0], &format!("connections = 2\nrate = []\n{keys}"))
        .via("senders", "sender.test", hosts[1], "connections = 2\nrate = []")
        .with(&format!("[retry]\n{retry}"))
        .start();
    World { daemon, recipients, senders, _port: port, _dir: dir }
}

const QUICK: &str = "first = \"1s\"\nmax = \"1s\"\njitter = 0.0";

impl World {
    fn send(&self, from: &str, to: &[&str], subject: &str) -> String {
        self.daemon.client().send(from, to, &message(subject))
    }

    /// The next message to the senders' host comes, after which there is exactly that one: a second
    /// message, sent later than the first was settled, is used as a marker.
    fn assert_no_dsn(&self, id: &str, events: &[&str]) {
        self.daemon.wait_log("the fate", |line| line.get("id") == id && events.contains(&line.event().as_str()));
        self.daemon.client().send("<>", &["<marker@sender.test>"], &message("marker"));
        self.senders.wait_subject("marker", SOON);
        assert_eq!(self.senders.count(), 1, "the marker and no DSN");
    }

    /// The only DSN.
    fn dsn(&self) -> Report {
        let received = self.senders.wait(1, SOON).remove(0);
        assert_eq!(received.from.split(' ').next(), Some("<>"));
        assert_eq!(received.to[0].split(' ').next(), Some("<sender@sender.test>"));
        Report::parse(&received.content)
    }
}

#[test]
fn a_refused_recipient_is_reported_and_the_others_are_delivered() {
    let world = world(QUICK, Options::script(by_name));
    world.send("<sender@sender.test> RET=FULL", &["<yes@example.test>", "<nobody@example.test>"], "half");
    let report = world.dsn();
    assert_eq!(report.recipient_field("final-recipient"), "rfc822; nobody@example.test");
    assert_eq!((report.recipient_field("action"), report.recipient_field("status")), ("failed", "5.1.1"));
    assert_eq!(report.returned_type(), "message/rfc822");
    assert!(report.returned().contains("The body of half."), "RET=FULL: {}", report.returned());
    assert_eq!(world.recipients.wait_subject("half", SOON).to, ["<yes@example.test>"]);
}

#[test]
fn notify_never_means_never() {
    let world = world(QUICK, Options::script(by_name));
    let id = world.send("<sender@sender.test>", &["<nobody@example.test> NOTIFY=NEVER"], "quiet");
    world.assert_no_dsn(&id, &["bounced"]);
}

#[test]
fn notify_success_alone_means_no_failure_dsn() {
    let world = world(QUICK, Options::script(by_name));
    let id = world.send("<sender@sender.test>", &["<nobody@example.test> NOTIFY=SUCCESS"], "only good news");
    world.assert_no_dsn(&id, &["bounced"]);
}

/// RFC 3461 §5.2.2: who passes a message to a host without DSN says so with `relayed`.
#[test]
fn notify_success_to_a_host_without_dsn_gives_a_relayed_dsn() {
    let world = world(QUICK, Options::script(by_name));
    world.send(
        "<sender@sender.test> ENVID=QQ314159",
        &["<yes@example.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;You@example.test"],
        "good news",
    );
    let report = world.dsn();
    assert_eq!((report.recipient_field("action"), report.recipient_field("status")), ("relayed", "2.0.0"));
    assert_eq!(report.recipient_field("original-recipient"), "rfc822; You@example.test");
    assert_eq!(report.message_field("original-envelope-id"), "QQ314159");
}

/// RFC 3461 §5.2.1: a host with DSN gets the parameters and the duty.
#[test]
fn a_host_with_dsn_gets_the_parameters_and_no_relayed_dsn_is_sent() {
    let world = world(QUICK, Options::offering(&["PIPELINING", "8BITMIME", "DSN"]));
    let id = world.send(
        "<sender@sender.test> RET=HDRS ENVID=a+2Bb",
        &["<yes@example.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;You+2B@example.test"],
        "passed on",
    );
    let arrived = world.recipients.wait_subject("passed on", SOON);
    assert!(arrived.from.contains(" RET=HDRS") && arrived.from.contains(" ENVID=a+2Bb"), "{}", arrived.from);
    let to = &arrived.to[0];
    assert!(to.contains(" NOTIFY=SUCCESS,DELAY") && to.contains(" ORCPT=rfc822;You+2B@example.test"), "{to}");
    world.assert_no_dsn(&id, &["delivered"]);
}

/// RFC 5321 §6.1: never a DSN about a message with the null reverse-path; the dead letter is kept.
#[test]
fn a_bounce_that_bounces_is_kept_as_a_dead_letter_and_told_to_nobody() {
    let world = world(QUICK, Options::script(by_name));
    let id = world.send("<>", &["<nobody@example.test>"], "a bounce");
    world.assert_no_dsn(&id, &["bounced"]);
    let failed = world.daemon.queue_list(&["--state", "failed"]);
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].id(), failed[0].text("sender")), (id, String::new()));
    assert!(failed[0].reason().contains("550 5.1.1"), "{}", failed[0].0);
}

#[test]
fn what_expires_is_reported_with_the_last_reason() {
    let world = world(&format!("{QUICK}\nexpire = \"3s\"\nwarn = \"0s\""), Options::script(by_name));
    let id = world.send("<sender@sender.test>", &["<later@example.test>"], "too late");
    let report = world.dsn();
    assert_eq!(report.recipient_field("action"), "failed");
    assert!(["4.4.7", "5.4.7"].contains(&report.recipient_field("status")), "{}", report.recipient_field("status"));
    assert!(report.recipient_field("diagnostic-code").contains("450 4.2.1 not now"));
    let line = world.daemon.wait_log("expired", |line| line.is("expired", &id));
    assert_eq!(line.get("recipient"), "later@example.test");
    assert_eq!(world.daemon.queue_list(&["--state", "failed"]).len(), 1);
}

#[test]
fn a_delay_is_reported_once_and_the_message_still_tried() {
    let world = world(&format!("{QUICK}\nwarn = \"1s\""), Options::script(by_name));
    let id = world.send("<sender@sender.test>", &["<later@example.test> NOTIFY=FAILURE,DELAY"], "slow");
    let report = world.dsn();
    assert_eq!((report.recipient_field("action"), report.recipient_field("status")), ("delayed", "4.2.1"));
    assert!(!report.recipient_field("will-retry-until").is_empty());
    let warned_at: u32 = world.daemon.log_lines().iter().filter(|line| line.is("deferred", &id)).count() as u32;
    world.daemon.wait_log("two more attempts", |line| {
        line.is("deferred", &id) && line.get("attempt").parse().is_ok_and(|attempt: u32| attempt >= warned_at + 2)
    });
    assert_eq!(world.senders.count(), 1, "one delay DSN");
    assert!(["queued", "leased"].contains(&world.daemon.queue_list(&[])[0].state().as_str()));
}

#[test]
fn notify_failure_alone_means_no_delay_dsn() {
    let world = world(&format!("{QUICK}\nwarn = \"1s\""), Options::script(by_name));
    let id = world.send("<sender@sender.test>", &["<later@example.test> NOTIFY=FAILURE"], "patient");
    world.daemon.wait_log("the fourth attempt", |line| line.is("deferred", &id) && line.get("attempt") == "4");
    assert_eq!(world.senders.count(), 0);
}

/// What is larger than the provider takes goes back at once, and nobody is asked; what is smaller leaves.
#[test]
fn a_message_beyond_max_message_size_is_returned_without_a_try() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let hosts: [SocketAddr; 2] = [port.at(2), port.at(3)];
    let (recipients, senders) = (Sink::start(hosts[0]), Sink::start(hosts[1]));
    let daemon = Setup::new(&dir)
        .via("example", "example.test", hosts[0], "max_message_size = \"4KiB\"")
        .via("senders", "sender.test", hosts[1], "")
        .start();
    let mut large = message("large");
    large.extend(b"0123456789\r\n".repeat(400));
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &large);
    let report = Report::parse(&senders.wait(1, SOON).remove(0).content);
    assert_eq!((report.recipient_field("action"), report.recipient_field("status")), ("failed", "5.3.4"));
    assert!(recipients.connections().is_empty(), "nobody was asked");
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("small"));
    assert_eq!(recipients.wait(1, SOON).remove(0).subject(), "small");
    daemon.wait_queue_empty(SOON);
}

/// Every recipient fails in a transaction of its own; the sender has one report on all of them.
#[test]
fn many_refusals_of_one_message_are_one_report() {
    const REFUSED: usize = 200;
    let world = world_with("recipients_per_message = 1", QUICK, Options::script(by_name));
    let to: Vec<String> = (0..REFUSED).map(|n| format!("<no{n}@example.test>")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = world.send("<sender@sender.test> ENVID=QQ314159", &to, "to many");
    let report = world.dsn();
    let told: BTreeSet<String> = report.recipients().iter().map(|to| to.replace("rfc822; ", "")).collect();
    let expected: BTreeSet<String> = (0..REFUSED).map(|n| format!("no{n}@example.test")).collect();
    assert_eq!((report.recipients().len(), told), (REFUSED, expected), "each once");
    assert_eq!(report.message_field("original-envelope-id"), "QQ314159");
    let line = world.daemon.wait_log("the report", |line| line.event() == "accepted" && line.get("about") == id);
    assert_eq!(line.get("reports"), REFUSED.to_string());
    world.daemon.client().send("<>", &["<marker@sender.test>"], &message("marker"));
    world.senders.wait_subject("marker", SOON);
    assert_eq!(world.senders.count(), 2, "the report and the marker");
    assert_eq!(world.daemon.queue_list(&["--state", "failed"]).len(), REFUSED);
}

/// Invariant 2: a failure and the debt of a report are one. What is owed is shown, outlives a kill, and
/// is told once, with what failed after it.
#[test]
fn what_is_owed_is_shown_and_outlives_a_kill() {
    let gate = Gate::default();
    let later = gate.clone();
    let script = move |ask: &support::sink::Ask| match (ask.verb, ask.argument.trim_start_matches('<')) {
        ("RCPT", to) if to.starts_with("no-late") => match later.is_open() {
            true => Answer::say("550 5.1.1 no such mailbox"),
            false => Answer::After(later.clone()),
        },
        _ => by_name(ask),
    };
    let mut world = world_with("recipients_per_message = 1", QUICK, Options::script(script));
    let id = world.send("<sender@sender.test>", &["<no@example.test>", "<no-late@example.test>"], "owed");
    world.daemon.wait_log("the refusal", |line| line.is("bounced", &id));
    let shown = world.daemon.command_ok(&["queue", "show", &id], b"");
    assert!(shown.contains("report      owed to the sender on 1 of them, goes by "), "{shown}");
    assert!(world.daemon.command_ok(&["status"], b"").contains("reports    owed to senders; recipients: 1"));
    let failed = world.daemon.queue_list(&["--state", "failed"]);
    assert!(!failed[0].text("report_due").is_empty(), "{}", failed[0].0);
    assert_eq!(world.senders.count(), 0);

    world.daemon.kill();
    gate.open();
    world.daemon.start();
    let report = world.dsn();
    assert_eq!(report.recipients(), ["rfc822; no@example.test", "rfc822; no-late@example.test"]);
    let status = world.daemon.command_ok(&["status"], b"");
    assert!(!status.contains("reports "), "{status}");
    world.daemon.client().send("<>", &["<marker@sender.test>"], &message("marker"));
    world.senders.wait_subject("marker", SOON);
    assert_eq!(world.senders.count(), 2, "the report and the marker");
}

/// A dead letter that is not kept is gone before its report: the report has all that it needs.
#[test]
fn a_dead_letter_that_is_not_kept_is_reported() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let hosts: [SocketAddr; 2] = [port.at(2), port.at(3)];
    let (_recipients, senders) = (Sink::with(hosts[0], Options::script(by_name)), Sink::start(hosts[1]));
    let daemon = Setup::new(&dir)
        .queue("keep_failed = \"0s\"")
        .via("example", "example.test", hosts[0], "")
        .via("senders", "sender.test", hosts[1], "")
        .start();
    daemon.client().send("<sender@sender.test>", &["<nobody@example.test>"], &message("not kept"));
    let report = Report::parse(&senders.wait(1, SOON).remove(0).content);
    assert_eq!(report.recipient_field("status"), "5.1.1");
    assert!(report.returned().contains("Subject: not kept"), "{}", report.returned());
}
