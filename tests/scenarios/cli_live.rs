//! The command line while the daemon runs: look at the queue, hold, release, try again, cancel, and
//! hand a message in.

use crate::support;

use std::process::Command;
use std::time::Duration;

use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::{message, split_received};
use support::sink::{Answer, Options, Sink};
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

/// A relay whose one host is down and that tries again after an hour only.
fn relay_to_nobody(dir: &TestDir) -> (Daemon, Port) {
    let port = Port::reserve();
    let daemon = Setup::new(dir)
        .via("example", "example.test", port.at(2), "connections = 2")
        .with("[retry]\nfirst = \"1h\"\njitter = 0.0")
        .start();
    (daemon, port)
}

fn send_and_defer(daemon: &Daemon, subject: &str, to: &[&str]) -> String {
    let id = daemon.client().send("<sender@sender.test>", to, &message(subject));
    for recipient in to {
        let recipient = recipient.trim_matches(['<', '>']);
        daemon.wait_log("deferred", |line| line.is("deferred", &id) && line.get("recipient") == recipient);
    }
    id
}

fn state_of(daemon: &Daemon, id: &str) -> Vec<String> {
    daemon.queue_list(&[]).iter().filter(|row| row.id() == id).map(|row| row.state()).collect()
}

#[test]
fn queue_list_tells_everything_about_a_waiting_recipient() {
    let dir = TestDir::new();
    let (daemon, _port) = relay_to_nobody(&dir);
    assert_eq!(daemon.queue_list(&[]).len(), 0);
    let content = message("waiting");
    let id = send_and_defer(&daemon, "waiting", &["<one@example.test>", "<two@example.test>"]);
    let rows = daemon.queue_list(&[]);
    assert_eq!(rows.len(), 2);
    for (row, recipient) in rows.iter().zip(["one@example.test", "two@example.test"]) {
        assert_eq!(row.id(), id);
        assert_eq!(row.text("sender"), "sender@sender.test");
        assert_eq!(row.recipient(), recipient);
        assert_eq!(row.text("provider"), "example");
        assert_eq!(row.state(), "queued");
        assert_eq!(row.number("priority"), 0);
        assert_eq!(row.attempts(), 1);
        assert!(row.number("size") > content.len() as i64, "with its Received: {}", row.0);
        // RFC 3339 in UTC sorts as text.
        assert!(row.text("due") > row.text("received") && row.text("received").ends_with('Z'), "{}", row.0);
        assert!(!row.reason().is_empty());
    }
    let shown = daemon.command_ok(&["queue", "show", &id], b"");
    for part in [&id, "sender@sender.test", "one@example.test", "two@example.test", "example"] {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    let filters: [(&[&str], usize); 8] = [
        (&["--recipient", "one@*"], 1),
        (&["--recipient", "nobody@*"], 0),
        (&["--sender", "sender@sender.test"], 2),
        (&["--domain", "example.test"], 2),
        (&["--domain", "example.org"], 0),
        (&["--provider", "example"], 2),
        (&["--state", "queued"], 2),
        (&["--state", "failed"], 0),
    ];
    for (filter, expected) in filters {
        assert_eq!(daemon.queue_list(filter).len(), expected, "{filter:?}");
    }
}

#[test]
fn what_is_held_stays_and_what_is_released_leaves() {
    let dir = TestDir::new();
    let (daemon, port) = relay_to_nobody(&dir);
    let id = send_and_defer(&daemon, "held", &["<one@example.test>"]);
    daemon.command_ok(&["queue", "hold", &id], b"");
    assert_eq!(state_of(&daemon, &id), ["held"]);
    let sink = Sink::start(port.at(2));
    let free = send_and_defer_or_deliver(&daemon, &sink);
    assert_eq!(state_of(&daemon, &id), ["held"], "while {free} went out");
    // A retry does not touch what is held.
    let _ = daemon.command(&["queue", "retry", &id], b"");
    assert_eq!(state_of(&daemon, &id), ["held"]);
    daemon.command_ok(&["queue", "release", &id], b"");
    sink.wait_subject("held", SOON);
    wait_for("the end of the row", SOON, || state_of(&daemon, &id).is_empty().then_some(()));
    assert_eq!(sink.messages().iter().filter(|message| message.subject() == "held").count(), 1);
}

/// Sends a second message, now that the host is up, and waits until it is there. The relay may
/// remember that the host was down; an operator does not need to wait for that.
fn send_and_defer_or_deliver(daemon: &Daemon, sink: &Sink) -> String {
    let id = daemon.client().send("<sender@sender.test>", &["<two@example.test>"], &message("free"));
    // Who waits for a host has no line of its own in the log.
    let put_off = wait_for("an attempt", SOON, || {
        let delivered = daemon.log_lines().iter().any(|line| line.is("delivered", &id));
        let put_off = daemon.queue_list(&[]).iter().any(|row| row.id() == id && !row.reason().is_empty());
        (delivered || put_off).then_some(put_off)
    });
    if put_off {
        daemon.command_ok(&["queue", "retry", &id], b"");
    }
    sink.wait_subject("free", SOON);
    id
}

#[test]
fn retry_sends_at_once_what_would_wait_an_hour() {
    let dir = TestDir::new();
    let (daemon, port) = relay_to_nobody(&dir);
    let id = send_and_defer(&daemon, "again", &["<one@example.test>"]);
    let sink = Sink::start(port.at(2));
    daemon.command_ok(&["queue", "retry", &id], b"");
    sink.wait_subject("again", Duration::from_secs(5));
    let line = daemon.wait_log("delivered", |line| line.is("delivered", &id));
    assert_eq!(line.get("attempt"), "2");
}

#[test]
fn cancel_removes_one_recipient_or_the_message_and_tells_nobody() {
    let dir = TestDir::new();
    let (daemon, _port) = relay_to_nobody(&dir);
    let id = send_and_defer(&daemon, "cancelled", &["<one@example.test>", "<two@example.test>"]);
    daemon.command_ok(&["queue", "cancel", &id, "--recipient", "two@example.test"], b"");
    let rows = daemon.queue_list(&[]);
    assert_eq!(rows.iter().map(support::daemon::Row::recipient).collect::<Vec<_>>(), ["one@example.test"]);
    daemon.command_ok(&["queue", "cancel", &id], b"");
    // No DSN either: nothing at all is queued.
    assert_eq!(daemon.queue_list(&[]).len(), 0);
}

#[test]
fn send_hands_in_a_message_from_standard_input_as_sendmail_does() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 2").start();
    // A Unix program writes line feeds, and a dot alone in a line is content.
    let text = String::from_utf8(message("by command")).expect("ASCII").replace("\r\n", "\n") + ".\nafter the dot\n";
    let said = daemon.command_ok(
        &["send", "-v", "-f", "sender@sender.test", "one@example.test", "two@example.test"],
        text.as_bytes(),
    );
    let arrived = sink.wait_subject("by command", SOON);
    let id = arrived_id(&daemon);
    assert!(said.contains(&id), "the queue id {id} is told: {said}");
    let body = String::from_utf8(split_received(&arrived.content).1.to_vec()).expect("ASCII");
    assert_eq!(body, text.replace('\n', "\r\n"));
    daemon.wait_queue_empty(SOON);
    let mut to: Vec<String> = sink.messages().into_iter().flat_map(|message| message.to).collect();
    to.sort();
    assert_eq!(to, ["<one@example.test>", "<two@example.test>"]);
}

/// Raw UTF-8 in a header, as scripts write it, reaches hosts of any age.
#[test]
fn send_gets_an_eight_bit_subject_through_a_host_without_smtputf8() {
    let raw = "Subject: Bericht f\u{fc}r heute\r\n";
    for (offered, body, subject) in [
        (&["PIPELINING", "8BITMIME"][..], "", "Subject: Bericht =?utf-8?q?f=C3=BCr?= heute\r\n"),
        (&["PIPELINING", "8BITMIME", "SMTPUTF8"], " BODY=8BITMIME", raw),
        (&["PIPELINING"], "", "Subject: Bericht =?utf-8?q?f=C3=BCr?= heute\r\n"),
    ] {
        let (dir, port) = (TestDir::new(), Port::reserve());
        let sink = Sink::with(port.at(2), Options::offering(offered));
        let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 2").start();
        let text = format!("From: sender@sender.test\n{raw}\nfertig\n");
        daemon.command_ok(&["send", "-f", "sender@sender.test", "one@example.test"], text.as_bytes());
        daemon.wait_queue_empty(SOON);
        let messages = sink.messages();
        let [message] = messages.as_slice() else { panic!("{offered:?}: {} messages", messages.len()) };
        assert_eq!(message.to, ["<one@example.test>"], "{offered:?}: no bounce");
        assert_eq!(message.from, format!("<sender@sender.test>{body}"), "{offered:?}");
        let content = String::from_utf8_lossy(&message.content);
        assert!(content.contains(&format!("\r\n{subject}")), "{offered:?}: {content}");
    }
}

/// `git format-patch --stdout` and mailboxes have such a line.
#[test]
fn send_takes_a_message_as_it_stands_in_a_mailbox_file() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 2").start();
    let from = "From sender@sender.test Mon Sep 17 00:00:00 2001\n";
    let header = "From: sender@sender.test\nTo: one@example.test\nBcc: two@example.test\n";
    let text = "Date: Sat, 21 Nov 2026 09:00:00 +0000\nSubject: out of a box\n\nThe body.\n";
    daemon.command_ok(&["send", "-t", "-f", "sender@sender.test"], [from, header, text].concat().as_bytes());
    daemon.wait_queue_empty(SOON);
    let messages = sink.messages();
    let mut to: Vec<String> = messages.iter().flat_map(|message| message.to.clone()).collect();
    to.sort();
    assert_eq!(to, ["<one@example.test>", "<two@example.test>"]);
    for message in messages {
        let body = String::from_utf8(split_received(&message.content).1.to_vec()).expect("ASCII");
        let (header, _) = body.split_once("\r\n\r\n").expect("a header section");
        assert!(header.starts_with(&format!("X-Mailbox-Line: {}\r\n", from.trim_end())), "{body}");
        assert!(header.contains("\r\nSubject: out of a box") && !body.contains("two@example.test"), "{body}");
        assert_eq!(body.matches("Date: ").count(), 1, "{body}");
    }
}

fn arrived_id(daemon: &Daemon) -> String {
    daemon.wait_log("delivered", |line| line.event() == "delivered").get("id")
}

/// A reply that turns the direction of writing, or has a name with nothing to see in it: the log and tables
/// write it out, and programs read in the log what was there.
#[test]
fn what_hides_in_a_reply_is_written_out_in_the_log_and_in_tables() {
    const EVIL: &str = "450 4.2.0 no \u{202e}tset.elpmaxe\u{202c} a\u{200b}b\u{2028}c\u{61c}d\u{e0041}e jörg";
    let (dir, port) = (TestDir::new(), Port::reserve());
    let _sink =
        Sink::with(port.at(2), Options::script(|ask| if ask.verb == "RCPT" { Answer::say(EVIL) } else { Answer::Yes }));
    let daemon = Setup::new(&dir).via("example", "example.test", port.at(2), "").start();
    let id = daemon.client().send("<sender@sender.test>", &["<one@example.test>"], &message("evil"));
    let line = daemon.wait_log("deferred", |line| line.is("deferred", &id));
    assert_eq!(line.get("reply"), EVIL);
    let raw = std::fs::read_to_string(&daemon.log).expect("UTF-8");
    let row = daemon.wait_row("it waits again", |row| row.id() == id && row.state() == "queued");
    assert!(row.reason().ends_with(EVIL));
    let tables = [&["queue", "list"][..], &["queue", "show", &id], &["provider", "list"]]
        .map(|words| daemon.command_ok(words, b""));
    for text in tables.iter().chain([&raw]) {
        let hidden: Vec<char> = text.chars().filter(|c| mailweir::observe::is_hidden(*c) && *c != '\n').collect();
        assert!(hidden.is_empty() && text.contains("jörg"), "{hidden:?} {text}");
    }
    assert!(tables[0].contains("\\u{202e}tset"), "{}", tables[0]);
    assert!(raw.contains("\\u202etset"), "{raw}");
}

#[test]
fn a_bad_command_line_exits_with_64_and_shows_the_usage() {
    let dir = TestDir::new();
    let (daemon, _port) = relay_to_nobody(&dir);
    let cases: [&[&str]; 4] = [
        &["queue", "frobnicate"],
        &["queue", "show", "not-an-id"],
        &["queue", "list", "--state", "lost"],
        &["send", "-f"],
    ];
    for arguments in cases {
        let output = daemon.command(arguments, b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {said}");
        assert!(!said.trim().is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_daemon_the_queue_is_still_there_and_the_rest_exits_with_69() {
    let dir = TestDir::new();
    let (mut daemon, _port) = relay_to_nobody(&dir);
    let id = send_and_defer(&daemon, "asleep", &["<one@example.test>"]);
    daemon.stop();
    assert_eq!(state_of(&daemon, &id), ["queued"], "read from the store itself");
    assert!(daemon.command(&["queue", "hold", &id], b"").status.success());
    assert_eq!(state_of(&daemon, &id), ["held"]);
    assert!(daemon.command(&["queue", "release", &id], b"").status.success());
    for arguments in [&["status"][..], &["provider", "resume", "example"], &["provider", "pause", "example"]] {
        let output = daemon.command(arguments, b"");
        assert_eq!(output.status.code(), Some(69), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    daemon.start();
    // Released, so it is tried at once: leased for a moment, then queued again.
    daemon.wait_row("the message, queued again", |row| row.id() == id && row.state() == "queued");
}

/// What a message contains is obeyed by no terminal, and a pipe gets it byte for byte.
#[test]
fn terminal_escapes_of_a_message_are_shown_to_a_terminal_and_raw_to_a_pipe() {
    const EVIL: &str = "\u{1b}]0;owned\u{7}\u{9b}31m";
    let dir = TestDir::new();
    let (daemon, _port) = relay_to_nobody(&dir);
    let id = send_and_defer(&daemon, &format!("evil {EVIL} end"), &["<one@example.test>"]);
    let pipe = daemon.command_ok(&["queue", "show", &id, "--headers"], b"");
    assert!(pipe.contains(&format!("Subject: evil {EVIL} end\r\n")), "{pipe:?}");

    let on_a_terminal = |arguments: &[&str]| {
        let mut python = Command::new(program("python3"));
        python.args(["-c", "import pty, sys; pty.spawn(sys.argv[1:])", MAILWEIR]).args(arguments);
        let output = run_ok(python.arg("--config").arg(&daemon.config), b"", SOON);
        String::from_utf8(output.stdout).expect("UTF-8 from the command line")
    };
    let terminal = on_a_terminal(&["queue", "show", &id, "--headers"]);
    assert!(terminal.contains("Subject: evil \\x1b]0;owned\\x07\\u{9b}31m end"), "{terminal:?}");
    for arguments in [&["queue", "show", "no\u{1b}[2Jid"][..], &["explain", "a\u{1b}[2J@b.test"], &["\u{1b}[2J"]] {
        let terminal = on_a_terminal(arguments);
        assert!(!terminal.contains("\u{1b}[2J"), "{arguments:?} {terminal:?}");
    }
}
