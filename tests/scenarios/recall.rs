//! An operator's word about mail that is on its way: `queue cancel` and `queue hold` take effect at once
//! while nothing of it was sent, else after the host's reply.

use crate::support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};

use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

fn state_of(daemon: &Daemon, id: &str) -> Vec<String> {
    daemon.queue_list(&[]).iter().filter(|row| row.id() == id).map(|row| row.state()).collect()
}

fn relay_to(dir: &TestDir, port: &Port, host: u8) -> Daemon {
    Setup::new(dir).via("example", "example.test", port.at(host), "connections = 1").start()
}

/// The end of a connection without a byte on it.
fn is_closed(mut connection: TcpStream) {
    connection.set_read_timeout(Some(SOON)).expect("a time-out");
    let mut said = Vec::new();
    connection.read_to_end(&mut said).expect("it is closed");
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn mail_for_a_host_that_hangs_is_removed_or_put_aside_at_once() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let host = TcpListener::bind(port.at(3)).expect("a host that says nothing");
    let daemon = relay_to(&dir, &port, 3);
    let mut client = daemon.client();
    let two = client.send("a@b.test", &["one@example.test", "two@example.test"], &message("two"));
    let (connection, _) = host.accept().expect("the relay");
    let said = daemon.command_ok(&["queue", "cancel", &two, "--recipient", "one@*"], b"");
    assert_eq!(said, "1 of 1 recipients removed\n");
    assert_eq!(state_of(&daemon, &two), ["leased"], "the other still waits for the host");
    assert_eq!(daemon.command_ok(&["queue", "hold", &two], b""), "1 of 1 recipients put aside\n");
    assert_eq!(state_of(&daemon, &two), ["held"]);
    is_closed(connection);

    // The lane is free for other mail, and what was put aside leaves when it is released.
    let other = client.send("a@b.test", &["three@example.test"], &message("other"));
    let (connection, _) = host.accept().expect("the relay again");
    assert_eq!(daemon.command_ok(&["queue", "cancel", &other], b""), "1 of 1 recipients removed\n");
    is_closed(connection);
    assert!(state_of(&daemon, &other).is_empty());
    drop(host);
    let sink = Sink::start(port.at(3));
    daemon.command_ok(&["queue", "release", &two], b"");
    sink.wait_subject("two", SOON);
    daemon.wait_queue_empty(SOON);
    let to: Vec<String> = sink.messages().into_iter().flat_map(|message| message.to).collect();
    assert_eq!(to, ["<two@example.test>"]);
}

/// The transaction does not end, or its process does: what was ordered is done all the same.
#[test]
fn an_order_about_mail_in_a_transaction_holds_over_a_reload_and_a_kill() {
    for end in ["reload", "kill"] {
        let (dir, port, open) = (TestDir::new(), Port::reserve(), Gate::default());
        let asked = Arc::new(AtomicUsize::new(0));
        let (gate, dots) = (open.clone(), asked.clone());
        let sink = Sink::with(
            port.at(2),
            Options::script(move |ask| match ask.verb {
                "DOT" => {
                    dots.fetch_add(1, SeqCst);
                    Answer::After(gate.clone())
                }
                _ => Answer::Yes,
            }),
        );
        let host = port.at(2);
        let mut daemon =
            Setup::new(&dir).top("drain = \"1s\"").via("example", "example.test", host, "connections = 8").start();
        let mut client = daemon.client();
        let mut send = |to: &str| client.send("a@b.test", &[to], &message(to));
        let (held, removed, other) = (send("one@example.test"), send("two@example.test"), send("three@example.test"));
        wait_for("three messages that wait for the verdict", SOON, || (asked.load(SeqCst) == 3).then_some(()));
        daemon.command_ok(&["queue", "hold", &held], b"");
        daemon.command_ok(&["queue", "cancel", &removed], b"");
        daemon.command_ok(&["provider", "pause", "example"], b"");
        if end == "reload" {
            daemon.replace_config("connections = 8", "connections = 7");
            daemon.command_ok(&["reload"], b"");
        } else {
            daemon.kill();
            daemon.start();
        }
        assert_eq!(state_of(&daemon, &held), ["held"], "{end}");
        assert!(state_of(&daemon, &removed).is_empty(), "{end}");
        assert_ne!(state_of(&daemon, &other), ["held"], "{end}");
        // Nothing of the order is left behind it.
        daemon.command_ok(&["queue", "release", &held], b"");
        if end == "reload" {
            daemon.command_ok(&["reload"], b"");
        } else {
            daemon.kill();
            daemon.start();
        }
        assert_eq!(state_of(&daemon, &held), ["queued"], "{end}");
        open.open();
        drop(sink);
    }
}

#[test]
fn mail_in_a_transaction_is_removed_or_put_aside_after_the_reply() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (came, arrived) = mpsc::channel();
    let (answer, answers) = mpsc::channel::<&str>();
    let answers = Mutex::new(answers);
    let _sink = Sink::with(
        port.at(2),
        Options::script(move |ask| match ask.verb {
            "MAIL" => {
                let _ = came.send(());
                let reply = answers.lock().expect("one at a time").recv().unwrap_or("250 ok");
                Answer::say(reply)
            }
            _ => Answer::Yes,
        }),
    );
    let daemon = relay_to(&dir, &port, 2);
    let mut client = daemon.client();
    for (word, state) in [("hold", &["held"][..]), ("cancel", &[])] {
        let id = client.send("a@b.test", &["one@example.test"], &message(word));
        arrived.recv_timeout(SOON).expect("a transaction");
        let said = daemon.command_ok(&["queue", word, &id], b"");
        assert!(said.contains("0 of 1 recipients") && said.contains("1 in flight: after the reply"), "{said}");
        assert_eq!(state_of(&daemon, &id), ["leased"]);
        answer.send("450 4.3.2 later").expect("the host");
        wait_for("the order", SOON, || (state_of(&daemon, &id) == state).then_some(()));
    }
    // What the reply settles is settled, and nothing of the order is left.
    let id = client.send("a@b.test", &["one@example.test"], &message("taken"));
    arrived.recv_timeout(SOON).expect("a transaction");
    daemon.command_ok(&["queue", "hold", &id], b"");
    answer.send("250 ok").expect("the host");
    daemon.wait_log("delivered", |line| line.is("delivered", &id));
    wait_for("the end of the row", SOON, || state_of(&daemon, &id).is_empty().then_some(()));
}
