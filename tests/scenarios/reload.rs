//! Another configuration takes the place of the one in force: nobody is refused, nothing is lost,
//! limits hold across it; and what is refused changes nothing.

use crate::support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use support::client::Client;
use support::daemon::{Daemon, LogLine, Setup};
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

const CONNECTIONS: usize = 3;

fn relay(dir: &TestDir, sink: &Sink) -> Daemon {
    let keys = format!("connections = {CONNECTIONS}\nmessages_per_connection = 10\nrate = []");
    Setup::new(dir).via("example", "example.test", sink.address, &keys).start()
}

/// Sends one message after another, each over a connection of its own, until told to stop; returns
/// the subjects of those that were accepted. A 421 is no refusal of the message: it is tried again.
fn send_until(stop: &AtomicBool, daemon: std::net::SocketAddr, who: usize) -> Vec<String> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let subject = format!("{who}-{}", accepted.len());
        let mut client = Client::open(daemon).expect("no connection is refused during a reload");
        let greeted = client.read().expect("a greeting, be it late");
        if greeted.code == 220 {
            let reply = client.try_send("<sender@sender.test>", &["<somebody@example.test>"], &message(&subject));
            match reply {
                Ok(reply) if reply.code == 250 => accepted.push(subject),
                Ok(reply) => assert_eq!(reply.code, 421, "{}", reply.text()),
                // Closed after the 421 to an earlier command of the batch.
                Err(_) => {}
            }
        } else {
            assert_eq!(greeted.code, 421, "{}", greeted.text());
        }
    }
    accepted
}

#[test]
fn reloads_under_load_lose_nothing_and_refuse_nobody() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..4)
        .map(|who| {
            let (stop, smtp) = (stop.clone(), daemon.smtp);
            std::thread::spawn(move || send_until(&stop, smtp, who))
        })
        .collect();
    for n in 0..6 {
        let before = sink.count();
        wait_for("mail that flows", SOON, || (sink.count() > before + 20).then_some(()));
        daemon.replace_config(
            &format!("messages_per_connection = {}", 10 + n),
            &format!("messages_per_connection = {}", 11 + n),
        );
        let told = daemon.command_ok(&["reload"], b"");
        assert!(told.contains("[provider.example] messages_per_connection: "), "{told}");
    }
    stop.store(true, Ordering::SeqCst);
    let accepted: Vec<String> = senders.into_iter().flat_map(|s| s.join().expect("a sender")).collect();
    sink.wait(accepted.len(), SOON);
    daemon.wait_queue_empty(SOON);
    let arrived: Vec<String> = sink.messages().iter().map(|message| message.subject()).collect();
    let distinct: BTreeSet<&String> = arrived.iter().collect();
    assert!(accepted.iter().all(|subject| distinct.contains(subject)), "a message was lost");
    assert_eq!(arrived.len(), distinct.len(), "a message came twice");
    assert!(sink.peak() <= CONNECTIONS, "{} connections at once", sink.peak());
    daemon.stop();
    assert!(sink.connections().iter().all(|c| c.quit), "each connection ends with QUIT");
}

#[test]
fn what_is_refused_changes_nothing() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    let good = std::fs::read_to_string(&daemon.config).expect("read");
    let pid = daemon.command_ok(&["status", "--json"], b"");

    // A mistake: said by the command itself, with the line.
    daemon.replace_config("rate = []", "rate = \"0/s\"");
    let refused = daemon.command(&["reload"], b"");
    assert_eq!(refused.status.code(), Some(78));
    // And by the relay that reads it itself.
    daemon.signal(rustix::process::Signal::HUP);
    let line = daemon.wait_log("the refusal", |line| line.event().contains("the configuration in force stays"));
    assert!(line.get("error").contains("rate"), "{}", line.get("error"));

    // An address that somebody else has.
    let taken = std::net::TcpListener::bind(port.at(3)).expect("bind");
    let more = format!("{good}\n[[listener]]\naddress = \"{}\"\n", taken.local_addr().expect("an address"));
    std::fs::write(&daemon.config, &more).expect("write");
    let refused = daemon.command(&["reload"], b"");
    assert_eq!(refused.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot listen on"), "{refused:?}");

    // One that covers our own, which stays open for the clients.
    let everywhere = format!("address = \"0.0.0.0:{}\"\nallow = [\"127.0.0.0/8\"]", daemon.smtp.port());
    std::fs::write(&daemon.config, good.replace(&format!("address = \"{}\"", daemon.smtp), &everywhere))
        .expect("write");
    let refused = daemon.command(&["reload"], b"");
    assert_eq!(refused.status.code(), Some(69));
    let expected = format!(
        "cannot listen on 0.0.0.0:{}: this process listens on {}: restart it to change that",
        daemon.smtp.port(),
        daemon.smtp
    );
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&expected), "{refused:?}");

    // Another queue.
    std::fs::write(&daemon.config, &good).expect("write");
    let other = dir.join("other.db");
    let moved = good.replace(&dir.join("queue.db").display().to_string(), &other.display().to_string());
    std::fs::write(&daemon.config, &moved).expect("write");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("the refusal", |line| line.get("error").contains("[queue] store cannot change"));
    assert!(!other.exists());

    // Whoever asks by that file learns which relay runs with it, and how to reach it.
    let socket = dir.join("queue.db.sock");
    for command in [&["status"][..], &["queue", "list"], &["reload"]] {
        let asked = daemon.command(command, b"");
        let told = String::from_utf8_lossy(&asked.stderr).into_owned();
        assert!(!told.contains("not running") && told.contains("when it started"), "{command:?}: {told}");
        assert!(told.contains(&format!("add --socket {}", socket.display())), "{command:?}: {told}");
        assert_eq!(asked.status.code(), Some(69), "{told}");
    }

    // The same process still does its work, with the rate it had.
    std::fs::write(&daemon.config, &good).expect("write");
    let status: serde_json::Value = serde_json::from_str(&pid).expect("JSON");
    let now: serde_json::Value = serde_json::from_str(&daemon.command_ok(&["status", "--json"], b"")).expect("JSON");
    assert_eq!((&status["pid"], &status["started"]), (&now["pid"], &now["started"]));
    for n in 0..5 {
        daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("still {n}")));
    }
    sink.wait(5, SOON);
    daemon.stop();
}

/// Whoever asks learns that the file and what is in force are two things, and the relay keeps what it counted.
#[test]
fn commands_tell_how_the_file_differs_and_status_what_was_loaded_when() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("counted"));
    sink.wait(1, SOON);
    daemon.wait_queue_empty(SOON);
    let note = |daemon: &Daemon, args: &[&str]| {
        let done = daemon.command(args, b"");
        assert!(done.status.success(), "{done:?}");
        String::from_utf8_lossy(&done.stderr).into_owned()
    };
    let status = |daemon: &Daemon| -> serde_json::Value {
        serde_json::from_str(&daemon.command_ok(&["status", "--json"], b"")).expect("JSON")
    };
    assert_eq!(note(&daemon, &["status"]), "");
    let first = status(&daemon);
    assert_eq!((first["reloads"].as_u64(), first["refused"].as_str()), (Some(0), Some("")));

    // Changed, and not in force.
    daemon.replace_config("messages_per_connection = 10", "messages_per_connection = 11");
    for command in [&["status"][..], &["queue", "list"], &["provider", "list"], &["explain", "a@example.test"]] {
        let said = note(&daemon, command);
        let told = "has changes that are not in force ([provider.example] messages_per_connection: 10 → 11): `mailweir reload`";
        assert!(said.starts_with("mailweir: note: ") && said.contains(told), "{said}");
    }

    // Broken: the command is done, and the fault is told with its line.
    daemon.replace_config("messages_per_connection = 11", "messages_per_connection = 11/m");
    let said = note(&daemon, &["status"]);
    assert!(
        said.contains("cannot be taken as it is now") && said.contains(" | messages_per_connection = 11/m\n"),
        "{said}"
    );
    let shown = daemon.command_ok(&["provider", "show", "example"], b"");
    assert!(shown.contains("messages_per_connection = 10  # in force:"), "{shown}");
    let listed = daemon.command_ok(&["provider", "list"], b"");
    assert_eq!(listed.lines().count(), 2, "no profile that nobody asked for: {listed}");
    let refused = daemon.command(&["reload"], b"");
    assert_eq!(refused.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&refused.stderr).contains(" | messages_per_connection = 11/m\n"), "{refused:?}");
    // In the log too, in one line.
    let line = daemon.wait_log("the refusal", |line| line.event() == "reload: the configuration in force stays");
    assert_eq!(line.get("by"), "command");
    assert!(line.get("error").contains("is not TOML: ") && !line.get("error").contains('\n'), "{}", line.get("error"));
    let now = status(&daemon);
    assert!(now["refused"].as_str().is_some_and(|why| why.contains("Z: ") && why.contains("is not TOML")), "{now}");
    assert_eq!((&now["loaded"], &now["reloads"]), (&first["loaded"], &first["reloads"]));
    assert!(daemon.command_ok(&["status"], b"").contains("\nREFUSED    the last reload, at "));

    daemon.replace_config("messages_per_connection = 11/m", "messages_per_connection = 11");
    let told = daemon.command_ok(&["reload"], b"");
    assert_eq!(told, "reloaded\n[provider.example] messages_per_connection: 10 → 11\n");
    assert_eq!(note(&daemon, &["status"]), "");
    let then = status(&daemon);
    assert_eq!((then["reloads"].as_u64(), then["refused"].as_str()), (Some(1), Some("")));
    assert!(then["loaded"].as_str() > first["loaded"].as_str() && then["started"] == first["started"], "{then}");
    assert_eq!((then["accepted"].as_u64(), then["delivered"].as_u64()), (Some(1), Some(1)), "counted on");
    assert!(daemon.command_ok(&["status"], b"").contains(", 1 reload since the start\n"));
    daemon.stop();
}

/// Whoever asks while one relay has closed the queue and the next one has not opened it waits for that one.
#[test]
fn a_command_that_comes_during_a_reload_waits_for_the_new_configuration() {
    use std::io::{Read, Write};

    let dir = TestDir::new();
    let mut daemon = Setup::new(&dir).start();
    let socket = dir.join("queue.db.sock");
    let ask = |what: &str| {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("the control socket");
        stream.write_all(what.as_bytes()).expect("written");
        let mut told = String::new();
        stream.read_to_string(&mut told).expect("an answer");
        told
    };
    let stop = AtomicBool::new(false);
    let (asked, failed) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut asked, mut failed) = (0, Vec::new());
            while !stop.load(Ordering::SeqCst) {
                for what in ["{\"do\":\"status\"}\n", "{\"do\":\"list\",\"filter\":{},\"limit\":10}\n"] {
                    let told = ask(what);
                    asked += 1;
                    if told.contains("\"error\"") || !told.contains("\"done\"") {
                        failed.push(told);
                    }
                }
            }
            (asked, failed)
        });
        for _ in 0..10 {
            daemon.command_ok(&["reload"], b"");
        }
        stop.store(true, Ordering::SeqCst);
        asking.join().expect("no panic")
    });
    assert!(asked > 0 && failed.is_empty(), "{asked}: {failed:?}");
    daemon.stop();
}

/// An editor between taking the old file away and putting the new one there, or a link that leads
/// nowhere: the built-in values are no answer to that.
#[test]
fn a_file_that_is_gone_is_a_refusal_and_not_a_wish_for_the_built_in_values() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    // With the built-in store, so that only the file keeps the built-in values out.
    let setup = Setup::new(&dir).unnamed().queue("").via("example", "example.test", sink.address, "rate = []");
    let mut daemon = setup.start();
    let away = dir.join("config.toml.away");
    std::fs::rename(&daemon.config, &away).expect("rename");
    let refusals = |daemon: &Daemon| {
        let refused = |line: &LogLine| line.event() == "reload: the configuration in force stays";
        daemon.log_lines().iter().filter(|line| refused(line)).map(|line| line.get("error")).collect::<Vec<_>>()
    };
    for (n, link) in [(1, false), (2, true)] {
        if link {
            std::os::unix::fs::symlink(dir.join("nowhere"), &daemon.config).expect("a link");
        }
        daemon.signal(rustix::process::Signal::HUP);
        let told = wait_for("a refusal", SOON, || Some(refusals(&daemon)).filter(|all| all.len() == n));
        assert!(told.iter().all(|error| error.starts_with("config.toml: cannot read it: No such file")), "{told:?}");
    }
    // What a full disk or an editor leaves of a file is no wish for them either.
    std::fs::remove_file(&daemon.config).expect("the link");
    std::fs::write(&daemon.config, "# hostname = \"relay.test\"\n").expect("a file without a value");
    daemon.signal(rustix::process::Signal::HUP);
    let told = wait_for("a refusal", SOON, || Some(refusals(&daemon)).filter(|all| all.len() == 3));
    assert!(told[2].contains("no values at all"), "{told:?}");
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("by the route"));
    sink.wait(1, SOON);
    std::fs::rename(&away, &daemon.config).expect("rename");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("the reload", |line| line.event() == "reloaded");
    daemon.stop();
}

#[test]
fn sighup_takes_new_addresses_and_leaves_old_ones() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    let (old, new) = (daemon.smtp, port.at(4));
    daemon.command_ok(&["provider", "pause", "example"], b"");
    daemon.replace_config(&format!("address = \"{old}\""), &format!("address = \"{new}\""));
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("the reload", |line| line.event() == "reloaded");
    Client::connect(new).send("<sender@sender.test>", &["<somebody@example.test>"], &message("new address"));
    daemon.wait_row("what waits for the paused provider", |row| row.state() != "failed");
    assert_eq!(sink.count(), 0, "a paused provider stays paused");
    daemon.command_ok(&["provider", "resume", "example"], b"");
    sink.wait(1, SOON);
    assert!(Client::open(old).is_err(), "the old address is closed");
    daemon.stop();
}

/// A transaction that does not end is cut off after `drain`, and none of the old relay goes on
/// beside the new one; the message is tried again.
#[test]
fn a_transaction_that_never_ends_holds_the_reload_only_for_the_drain_time() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (gate, stuck) = (Gate::default(), Gate::default());
    let sink = {
        let (gate, stuck) = (gate.clone(), stuck.clone());
        Sink::with(
            port.at(2),
            Options::script(move |ask| match ask.verb {
                "DOT" if !stuck.is_open() => {
                    stuck.open();
                    Answer::After(gate.clone())
                }
                _ => Answer::Yes,
            }),
        )
    };
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 1\nrate = []\nretry = { first = \"1s\" }")
        .start();
    let text = std::fs::read_to_string(&daemon.config).expect("read");
    std::fs::write(&daemon.config, format!("drain = \"5s\"\n{text}")).expect("write");
    daemon.command_ok(&["reload"], b"");
    let id = daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("stuck"));
    wait_for("a transaction in flight", SOON, || stuck.is_open().then_some(()));
    let done = daemon.command(&["reload"], b"");
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && told.contains("waiting for 1 transaction to end (1 at example)"), "{told}");
    daemon.wait_log("the new relay's delivery", |line| line.is("delivered", &id));
    gate.open();
    daemon.wait_queue_empty(Duration::from_secs(30));
    daemon.stop();
}

/// One sender's mail that the host does not answer has all connections but one before a reload and after it, although
/// it is all that waits when the new relay begins.
#[test]
fn what_is_known_of_mail_that_hangs_lives_through_a_reload() {
    let (dir, port, never) = (TestDir::new(), Port::reserve(), Gate::default());
    let hung = Arc::new(AtomicUsize::new(0));
    let sink = {
        let (hung, never) = (hung.clone(), never.clone());
        let script = move |ask: &support::sink::Ask| match ask.verb == "MAIL" && ask.argument.contains("stuck@") {
            true => {
                hung.fetch_add(1, Ordering::SeqCst);
                Answer::After(never.clone())
            }
            false => Answer::Yes,
        };
        Sink::with(port.at(2), Options::script(script))
    };
    let keys = format!("connections = {CONNECTIONS}\nrate = []");
    let daemon = Setup::new(&dir).via("example", "example.test", sink.address, &keys).start();
    let text = std::fs::read_to_string(&daemon.config).expect("read");
    std::fs::write(&daemon.config, format!("drain = \"1s\"\n{text}")).expect("write");
    daemon.command_ok(&["reload"], b"");
    let mut count = 0;
    let mut others_leave = |client: &mut Client| {
        for n in 0..3 {
            count += 1;
            let from = format!("<good{n}@good.test>");
            client.send(&from, &["<somebody@example.test>"], &message("others"));
            sink.wait(count, SOON);
        }
    };
    others_leave(&mut daemon.client());
    let mut client = daemon.client();
    for n in 0..2 * CONNECTIONS {
        client.send("<stuck@sender.test>", &["<somebody@example.test>"], &message(&format!("stuck {n}")));
    }
    let all_but_one = |times: usize| {
        wait_for("mail that hangs", SOON, || (hung.load(Ordering::SeqCst) >= times * (CONNECTIONS - 1)).then_some(()));
    };
    all_but_one(1);
    others_leave(&mut client);
    daemon.command_ok(&["reload"], b"");
    all_but_one(2);
    others_leave(&mut daemon.client());
    assert_eq!(hung.load(Ordering::SeqCst), 2 * (CONNECTIONS - 1), "the last connection is not theirs");
    never.open();
    daemon.wait_queue_empty(Duration::from_secs(30));
}

/// A host whose first message waits for a word of the test; the others are taken at once.
fn host_with_a_gate(port: &Port, gate: &Gate, stuck: &Gate) -> Sink {
    let (gate, stuck) = (gate.clone(), stuck.clone());
    let script = move |ask: &support::sink::Ask| match ask.verb {
        "DOT" if !stuck.is_open() => {
            stuck.open();
            Answer::After(gate.clone())
        }
        _ => Answer::Yes,
    };
    Sink::with(port.at(2), Options::script(script))
}

/// The queue's file is moved away while the relay before finishes what is in flight: all that waits is behind
/// that open file, and an empty queue must not take its place.
#[test]
fn a_queue_that_is_moved_during_the_drain_goes_on_as_it_is_open() {
    let (dir, port, gate, stuck) = (TestDir::new(), Port::reserve(), Gate::default(), Gate::default());
    let sink = host_with_a_gate(&port, &gate, &stuck);
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, "connections = 1\nrate = []\nmessages_per_connection = 10")
        .start();
    let smtp = daemon.smtp;
    let send = |subject: &str| {
        Client::connect(smtp).try_send("<s@sender.test>", &["<somebody@example.test>"], &message(subject))
    };
    assert_eq!(send("in flight").expect("a reply").code, 250);
    wait_for("a transaction in flight", SOON, || stuck.is_open().then_some(()));
    for n in 0..3 {
        assert_eq!(send(&format!("waits in memory {n}")).expect("a reply").code, 250);
    }
    daemon.replace_config("messages_per_connection = 10", "messages_per_connection = 11");
    let (store, away) = (dir.join("queue.db"), dir.join("away.db"));
    let refused = std::thread::scope(|scope| {
        let reload = scope.spawn(|| daemon.command(&["reload"], b""));
        daemon.wait_log("the drain", |line| line.event() == "reload: finishing what is in flight");
        std::fs::rename(&store, &away).expect("moved");
        gate.open();
        reload.join().expect("no panic")
    });
    assert_eq!(refused.status.code(), Some(69), "{refused:?}");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("could not be opened again") && told.contains("was removed or moved away"), "{told}");
    daemon.wait_log("the refusal", |line| {
        line.event().contains("goes on with the queue as it is open") && line.get("error").contains("moved away")
    });
    // What waited leaves from the file that is open; nothing that nobody would find again is acknowledged.
    sink.wait(4, SOON);
    assert_eq!(send("into the open file").expect("a reply").code, 451);
    assert!(!store.exists(), "no other queue has begun");
    let asked = daemon.command(&["status"], b"");
    let (status, note) = (String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
    assert!(note.contains("not in force ([provider.example] messages_per_connection: 10 → 11)"), "{note}");
    assert!(status.contains("REFUSED") && status.contains("could not be opened again"), "{status}");

    // Put back: all is as before, and the reload can be asked for again.
    std::fs::rename(&away, &store).expect("put back");
    assert_eq!(send("after it").expect("a reply").code, 250);
    sink.wait(5, SOON);
    daemon.wait_queue_empty(SOON);
    assert!(daemon.command_ok(&["reload"], b"").contains("messages_per_connection: 10 → 11"));
    daemon.stop();
}

/// What is wrong with the store's files for whoever opens them is found before the queue is closed: after it
/// neither configuration could be started.
#[test]
fn a_queue_that_could_not_be_opened_again_is_not_closed() {
    use std::os::unix::fs::PermissionsExt;

    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    let (store, copy) = (dir.join("queue.db"), dir.join("copy.db"));
    let chmod = |mode| std::fs::set_permissions(&store, std::fs::Permissions::from_mode(mode)).expect("chmod");
    let refused = |daemon: &Daemon, why: &str| {
        let refused = daemon.command(&["reload"], b"");
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(69) && told.contains(why), "{refused:?}");
    };
    std::fs::hard_link(&store, &copy).expect("a second name");
    refused(&daemon, "hard links");
    std::fs::remove_file(&copy).expect("removed");
    chmod(0o666);
    refused(&daemon, "can be written by others");
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("it runs"));
    sink.wait(1, SOON);
    chmod(0o600);
    daemon.command_ok(&["reload"], b"");
    daemon.stop();
}

/// Nothing is to leave under limits that nobody configured: what waits for a provider that is gone is where the new
/// configuration sends it, with its due times and last replies, and what left by it stays counted.
#[test]
fn mail_of_a_provider_that_is_gone_goes_where_the_configuration_leads_now() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let old = Sink::with(
        port.at(2),
        Options::script(|ask| match ask.verb {
            "RCPT" if ask.argument.contains("later@") => Answer::Say("451 4.3.0 not now, says the old host".into()),
            _ => Answer::Yes,
        }),
    );
    let new = Sink::start(port.at(3));
    let keys = "connections = 1\nrate = []\nquota = \"2/d\"\nretry = { first = \"1h\", jitter = 0 }";
    let mut daemon = Setup::new(&dir).via("before", "example.test", old.address, keys).start();
    let send = |daemon: &Daemon, to: &str, subject: &str| {
        daemon.client().send("<sender@sender.test>", &[to], &message(subject))
    };
    let later = send(&daemon, "<later@example.test>", "later");
    daemon.wait_row("the deferral", |row| row.id() == later && row.attempts() == 1);
    send(&daemon, "<somebody@example.test>", "first");
    old.wait(1, SOON);
    for n in 0..5 {
        send(&daemon, "<somebody@example.test>", &format!("waits {n}"));
    }
    daemon.wait_log("the quota", |line| line.event() == "delivered");
    let with_it = std::fs::read_to_string(&daemon.config).expect("read");
    let without = with_it
        .replace("provider.before", "provider.after")
        .replace("via = \"before\"", "via = \"after\"")
        .replace("quota = \"2/d\"\n", "")
        .replace(&old.address.to_string(), &new.address.to_string());
    std::fs::write(&daemon.config, without).expect("write");
    daemon.command_ok(&["reload"], b"");
    new.wait(5, SOON);
    let deferred = daemon.wait_row("what is due later", |row| row.text("lane") == "after" && row.id() == later);
    assert!(deferred.attempts() == 1 && deferred.reason().contains("says the old host"), "{}", deferred.reason());
    let listed = daemon.command_ok(&["provider", "list"], b"");
    assert!(!listed.contains("before") && listed.contains("after"), "{listed}");
    // It comes back, and has used its quota still.
    std::fs::write(&daemon.config, with_it).expect("write");
    daemon.command_ok(&["reload"], b"");
    daemon.wait_row("what came back", |row| row.text("lane") == "before" && row.id() == later);
    let shown = daemon.command_ok(&["provider", "show", "before"], b"");
    assert!(shown.contains("of 2, free again"), "{shown}");
    send(&daemon, "<somebody@example.test>", "waits for the quota");
    daemon.wait_row("the quota", |row| row.text("waits").contains("quota 2/d used up"));
    assert_eq!((old.count(), new.count()), (1, 5));
    daemon.stop();
}

/// What waits for a host that is dead need not wait for its next retry when another way leads around it; what a host has
/// said of a recipient has its time.
#[test]
fn what_waits_for_a_dead_host_is_due_when_a_new_route_leads_around_it() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let busy = Sink::with(
        port.at(3),
        Options::script(|ask| match ask.verb {
            "RCPT" => Answer::Say("451 4.2.0 not now".into()),
            _ => Answer::Yes,
        }),
    );
    let new = Sink::start(port.at(4));
    let dead = port.at(2);
    let mut daemon = Setup::new(&dir)
        .with("[retry]\nfirst = \"1h\"\njitter = 0.0")
        .via("dead", "dead.test", dead, "connections = 1\nrate = []")
        .via("busy", "busy.test", busy.address, "connections = 1\nrate = []")
        .via("new", "new.test", new.address, "connections = 1\nrate = []")
        .start();
    let mut client = daemon.client();
    for n in 0..3 {
        client.send("<sender@sender.test>", &["<somebody@dead.test>"], &message(&format!("dead {n}")));
    }
    client.send("<sender@sender.test>", &["<somebody@busy.test>"], &message("busy"));
    let tried = |row: &support::daemon::Row| row.attempts() == 1 && row.text("recipient").contains("busy");
    daemon.wait_row("the deferral", tried);
    daemon.wait_row("the dead host", |row| row.attempts() == 1 && row.text("recipient").contains("dead"));
    let text = std::fs::read_to_string(&daemon.config).expect("read");
    let around = text.replace("via = \"dead\"", "via = \"new\"").replace("via = \"busy\"", "via = \"new\"");
    assert_ne!(around, text);
    std::fs::write(&daemon.config, around).expect("write");
    daemon.command_ok(&["reload"], b"");
    new.wait(3, SOON);
    let waits = |line: &LogLine| line.event() == "what waited for a host goes another way now: it is due";
    daemon.wait_log("what is due", waits);
    daemon.wait_row("the other", tried);
    assert_eq!(new.count(), 3, "an hour before their time");
    // Where nothing leads elsewhere, nothing is due.
    let again = std::fs::read_to_string(&daemon.config).expect("read");
    std::fs::write(&daemon.config, format!("drain = \"20s\"\n{again}")).expect("write");
    daemon.command_ok(&["reload"], b"");
    daemon.stop();
    assert_eq!(daemon.log_lines().iter().filter(|line| waits(line)).count(), 1);
}

/// A reload is about a file: one that lies elsewhere and names the same queue is not what the relay would read.
#[test]
fn a_reload_by_a_file_that_names_the_queue_of_another_relay_is_refused() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = relay(&dir, &sink);
    let own = std::fs::read_to_string(&daemon.config).expect("read");
    let other = dir.write("other.toml", own.replace("messages_per_connection = 10", "messages_per_connection = 12"));
    let mut command = std::process::Command::new(support::daemon::MAILWEIR);
    let refused = command.arg("-c").arg(&other).arg("reload").output().expect("it runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(69), "{said}");
    let its = daemon.config.display().to_string();
    assert!(said.contains("nothing was reloaded") && said.contains(&format!("runs with {its}")), "{said}");
    assert!(daemon.command_ok(&["status", "--json"], b"").contains("\"reloads\":0"));
    // Whoever names the relay means it, and its own file is its own by whatever way it is named.
    let link = dir.join("link.toml");
    std::os::unix::fs::symlink(&daemon.config, &link).expect("a link");
    for (file, socket) in [(&other, true), (&link, false)] {
        let mut command = std::process::Command::new(support::daemon::MAILWEIR);
        command.arg("-c").arg(file);
        if socket {
            command.arg("--socket").arg(dir.join("queue.db.sock"));
        }
        let done = command.arg("reload").output().expect("it runs");
        assert!(done.status.success(), "{done:?}");
    }
    daemon.stop();
}

/// A host that says nothing to MAIL, with `drain` as long as it may be: the new configuration is in force all the same, and what
/// waited for that host is tried as it says.
#[test]
fn a_host_that_hangs_before_a_message_holds_up_no_reload() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let never = Gate::default();
    let script = {
        let never = never.clone();
        Options::script(move |ask| match ask.verb {
            "MAIL" => Answer::After(never.clone()),
            _ => Answer::Yes,
        })
    };
    let hangs = Sink::with(port.at(2), script);
    let good = Sink::start(port.at(3));
    let mut daemon =
        Setup::new(&dir).top("drain = \"1h\"").via("p", "p.test", hangs.address, "connections = 2").start();
    let id = daemon.client().send("a@b.test", &["r@p.test"], &message("hangs"));
    wait_for("a transaction", SOON, || (hangs.connections().len() == 1).then_some(()));
    daemon.wait_row("the lease", |row| row.state() == "leased");
    daemon.replace_config(&port.at(2).to_string(), &port.at(3).to_string());
    daemon.command_ok(&["reload"], b"");
    good.wait_subject("hangs", SOON);
    daemon.wait_log("delivered", |line| line.is("delivered", &id));
    daemon.wait_queue_empty(SOON);
    never.open();
}
