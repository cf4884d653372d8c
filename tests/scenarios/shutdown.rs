//! SIGTERM lets transactions in flight finish and keeps the rest; what must not start refuses with
//! its exit code and a reason.

use crate::support;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::Duration;

use support::client::Client;
use support::daemon::{Daemon, Setup, refused_start};
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

#[test]
fn sigterm_finishes_what_is_in_flight_and_keeps_the_rest() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (gate, dots) = (Gate::default(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let sink = {
        let (gate, dots) = (gate.clone(), dots.clone());
        Sink::with(
            port.at(2),
            Options::script(move |ask| match ask.verb {
                "DOT" => {
                    dots.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Answer::After(gate.clone())
                }
                _ => Answer::Yes,
            }),
        )
    };
    let mut daemon =
        Setup::new(&dir).via("example", "example.test", sink.address, "connections = 1\nrate = []").start();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &message(&format!("shutdown {n}")));
    }
    wait_for("a transaction in flight", SOON, || (dots.load(std::sync::atomic::Ordering::SeqCst) == 1).then_some(()));
    daemon.terminate();
    wait_for("the end of the listener", SOON, || {
        let refused = match Client::open(daemon.smtp) {
            Err(_) => true,
            Ok(mut client) => client.read().map_or(true, |greeting| greeting.code == 421),
        };
        refused.then_some(())
    });
    // Commands are answered as long as it is there, and claim nothing that will not be.
    let status = daemon.command_ok(&["status"], b"");
    assert!(status.contains("\nSTOPPING   "), "{status}");
    let reload = daemon.command(&["reload"], b"");
    assert_eq!(String::from_utf8_lossy(&reload.stderr), "mailweir: mailweir is stopping: nothing was reloaded\n");
    assert_eq!((reload.status.code(), reload.stdout.len()), (Some(69), 0));
    // The transaction in flight waits for its reply, and the daemon for the transaction.
    gate.open();
    let status = daemon.wait_exit(Duration::from_secs(30));
    assert_eq!(status.code(), Some(0));
    assert_eq!(sink.count(), 1, "the one in flight, and no new one");

    daemon.start();
    sink.wait(5, SOON);
    daemon.wait_queue_empty(SOON);
    let subjects: BTreeSet<String> = sink.messages().iter().map(|message| message.subject()).collect();
    assert_eq!((subjects.len(), sink.count()), (5, 5), "every message once: {subjects:?}");
    daemon.stop();
    assert!(sink.connections().iter().all(|connection| connection.quit), "each connection ends with QUIT");
}

/// A host that never answers cannot keep the daemon from ending, and the message is not lost.
#[test]
fn a_transaction_that_never_ends_holds_the_shutdown_only_for_the_drain_time() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (gate, stuck) = (Gate::default(), Gate::default());
    let sink = {
        let (gate, stuck) = (gate.clone(), stuck.clone());
        Sink::with(
            port.at(2),
            Options::script(move |ask| match ask.verb {
                "DOT" if !gate.is_open() => {
                    stuck.open();
                    Answer::After(gate.clone())
                }
                _ => Answer::Yes,
            }),
        )
    };
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, "connections = 1").start();
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("stuck"));
    wait_for("the transaction in flight", SOON, || stuck.is_open().then_some(()));
    daemon.terminate();
    let status = daemon.wait_exit(Duration::from_secs(90));
    assert_eq!(status.code(), Some(0));
    // From here on the receiver answers.
    gate.open();
    daemon.start();
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    daemon.wait_queue_empty(SOON);
    assert!(sink.messages().iter().any(|message| message.subject() == "stuck"));
}

#[test]
fn sigterm_while_a_client_sends_loses_nothing_that_was_acknowledged() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, "rate = []").start();
    let mut client = daemon.client();
    client.command(250, "MAIL FROM:<sender@sender.test>");
    client.command(250, "RCPT TO:<somebody@example.test>");
    daemon.terminate();
    // Whatever the session says now, a 250 is a promise.
    let reply = client.try_command("DATA").and_then(|reply| {
        if reply.code != 354 {
            return Ok(reply);
        }
        client.write(&support::client::stuffed(&message("late")))?;
        client.read()
    });
    assert_eq!(daemon.wait_exit(Duration::from_secs(60)).code(), Some(0));
    daemon.start();
    daemon.wait_queue_empty(SOON);
    match reply {
        Ok(reply) if reply.code == 250 => {
            sink.wait_subject("late", SOON);
        }
        Ok(reply) => {
            assert_eq!(reply.code, 421, "{}", reply.text());
            assert_eq!(sink.count(), 0);
        }
        Err(_) => assert_eq!(sink.count(), 0),
    }
}

/// Nothing of its mail was sent, so there is nothing to finish: an hour of `drain` is not waited for.
#[test]
fn a_host_that_says_nothing_keeps_neither_a_stop_nor_a_reload() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let silent = std::net::TcpListener::bind(port.at(2)).expect("a host");
    let setup = Setup::new(&dir).via("silent", "silent.test", silent.local_addr().expect("its address"), "");
    let path = setup.write("config.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    let mut daemon = setup.start();
    std::fs::write(&daemon.config, format!("drain = \"1h\"\n{text}")).expect("write");
    daemon.command_ok(&["reload"], b"");
    let connected = || {
        daemon.client().send("<sender@sender.test>", &["<somebody@silent.test>"], &message("held up"));
        silent.accept().expect("a connection").0
    };
    let first = connected();
    daemon.command_ok(&["reload"], b"");
    let second = silent.accept().expect("another connection, of the relay after the reload").0;
    daemon.stop();
    let cut_off = daemon.log_lines().into_iter().any(|line| line.event().contains("not all was finished"));
    assert!(!cut_off, "nothing of it may arrive twice");
    drop((first, second));
    daemon.start();
    assert_eq!(daemon.queue_list(&[]).len(), 1);
}

/// An hour of `drain` is not waited for where nothing is lost, and no transaction is told of that there is not.
#[test]
fn a_client_that_is_idle_before_its_data_does_not_hold_a_stop() {
    for engine in ["native", "mailin"] {
        let dir = TestDir::new();
        let setup = Setup::new(&dir).top("drain = \"1h\"").listener(&format!("engine = \"{engine}\""));
        let mut daemon = setup.start();
        let mut client = daemon.client();
        client.command(250, "MAIL FROM:<sender@sender.test>");
        client.command(250, "RCPT TO:<somebody@example.test>");
        daemon.terminate();
        assert_eq!(client.read().expect("a word").code, 421, "{engine}");
        assert_eq!(daemon.wait_exit(Duration::from_secs(60)).code(), Some(0), "{engine}");
        let cut_off = daemon.log_lines().into_iter().any(|line| line.event().contains("not all was finished"));
        assert!(!cut_off, "{engine}");
    }
}

#[test]
fn a_second_daemon_on_the_same_queue_refuses_to_start() {
    let dir = TestDir::new();
    let daemon = Setup::new(&dir).start();
    let second = Setup::new(&dir);
    let (code, said) = refused_start(&second.write("second.toml"));
    assert!([75, 78].contains(&code), "exit code {code}: {said}");
    assert!(said.contains("another mailweir") && said.contains("queue.db"), "{said}");
    assert!(TcpStream::connect(second.smtp()).is_err());
    daemon.client().command(250, "NOOP");
}

#[test]
fn a_listener_on_every_address_without_an_allow_list_refuses_to_start() {
    let dir = TestDir::new();
    let setup = Setup::new(&dir);
    let path = setup.write("open.toml");
    let text = std::fs::read_to_string(&path).expect("read");
    let open = text.replace(&setup.smtp().to_string(), &format!("0.0.0.0:{}", setup.smtp().port()));
    assert_ne!(open, text);
    std::fs::write(&path, open).expect("write");
    let (code, said) = refused_start(&path);
    assert_eq!(code, 78, "{said}");
    assert!(said.contains("allow") && said.contains("0.0.0.0"), "{said}");
}

#[test]
fn an_address_in_use_is_named() {
    let dir = TestDir::new();
    let setup = Setup::new(&dir);
    let _holder = std::net::TcpListener::bind(setup.smtp()).expect("bind");
    let (code, said) = refused_start(&setup.write("config.toml"));
    assert!([69, 75, 78].contains(&code), "exit code {code}: {said}");
    assert!(said.contains(&setup.smtp().to_string()), "{said}");
}

/// A pipe on standard error that nobody reads, and full from the start: mail flows, a reload is answered,
/// and the daemon ends.
#[test]
fn a_log_that_nobody_reads_holds_up_neither_mail_nor_reload_nor_the_end() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK).expect("flags");
    while rustix::io::write(&writer, &[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty()).expect("flags");
    let setup = Setup::new(&dir)
        .via("example", "example.test", sink.address, "auth = { user = 'u', password = 'warned-of-at-the-start' }")
        .via("other", "other.test", sink.address, "rate = []");
    let mut daemon = setup.prepare();
    daemon.launch_with_stderr(writer.into());
    assert!(daemon.wait_ready().is_none(), "it starts");
    daemon.client().send("<sender@sender.test>", &["<somebody@other.test>"], &message("flows"));
    sink.wait_subject("flows", SOON);
    daemon.command_ok(&["reload"], b"");
    daemon.terminate();
    assert_eq!(daemon.wait_exit(Duration::from_secs(60)).code(), Some(0));
    drop(reader);
}

/// A file of the configuration that is a pipe is refused by its name, at the start and at a reload,
/// and never waited for.
#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_the_relay_goes_on() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let pipe = dir.join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).expect("a pipe");
    let secret = dir.write("secret", "a password");
    let auth = format!("auth = {{ user = 'u', password = {{ file = '{}' }} }}", secret.display());
    let mut daemon = Setup::new(&dir)
        .via("smart", "smart.test", sink.address, &auth)
        .via("example", "example.test", sink.address, "")
        .start();
    let good = std::fs::read_to_string(&daemon.config).expect("the configuration");
    let is_refused = |daemon: &Daemon, key: &str| {
        let output = daemon.command(&["reload"], b"");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("it is a pipe: expected a file"), "{key}: {said}");
        let (code, at_start) = refused_start(&daemon.config);
        assert_eq!(code, 78, "{at_start}");
        for said in [said, at_start] {
            assert!(said.contains(&*pipe.to_string_lossy()) && said.contains(key), "{key}: {said}");
        }
    };
    let pipe_shown = pipe.display().to_string();
    let with_pipe = |from: &str, to: &str| {
        assert!(good.contains(from));
        std::fs::write(&daemon.config, good.replace(from, to)).expect("written");
    };
    with_pipe(&secret.display().to_string(), &pipe_shown);
    is_refused(&daemon, "provider.smart.auth.password");
    with_pipe("[provider.smart]\n", &format!("[provider.smart]\ntls_ca = '{pipe_shown}'\n"));
    is_refused(&daemon, "provider.smart.tls_ca");
    let tls = format!("tls = {{ mode = 'starttls', cert = '{pipe_shown}', key = '{pipe_shown}' }}\n");
    with_pipe("[queue]\n", &format!("{tls}[queue]\n"));
    is_refused(&daemon, "listener[1].tls.key");

    // The whole configuration, which then cannot be named to a command.
    std::fs::remove_file(&daemon.config).expect("removed");
    std::fs::rename(&pipe, &daemon.config).expect("in its place");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("the refusal", |line| {
        line.get("error").ends_with("config.toml: cannot read it: it is a pipe: expected a file")
    });
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("goes on"));
    sink.wait_subject("goes on", SOON);
    daemon.stop();
}
