//! The limit of open files: as high as the system allows, and a warning where that is not enough for
//! what the configuration allows. What there is, is divided: neither clients nor hosts take all of it.

use crate::support;

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::client::Client;
use support::daemon::{MAILWEIR, Setup};
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir, run, run_ok, wait_for};

/// A relay whose limit is set before it starts; it is ended with the value.
struct Limited(Child);

impl Limited {
    fn start(set: &str, setup: &Setup, log: &Path) -> Limited {
        let config = setup.write("config.toml");
        let child = Command::new("sh")
            .args(["-c", &format!("{set} && exec \"$0\" run --config \"$1\""), MAILWEIR])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a log"))
            .spawn()
            .expect("start");
        let limited = Limited(child);
        wait_for("a relay that greets", SOON, || Client::open(setup.smtp()).ok()?.read().ok());
        limited
    }

    /// The soft and the hard limit.
    fn limits(&self) -> (String, String) {
        let text = std::fs::read_to_string(format!("/proc/{}/limits", self.0.id())).expect("its limits");
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the line");
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().expect("soft"), words.next().expect("hard"))
    }

    /// Its descriptors.
    fn open(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).expect("its descriptors").count()
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_limit_of_open_files_is_raised_and_one_that_is_too_low_is_told() {
    let dir = TestDir::new();
    let log = dir.join("stderr");
    let setup = Setup::new(&dir).with("[default]\nconnections = 5");
    let warning = "the limit of open files (LimitNOFILE of systemd, ulimit -n) is below";
    {
        let relay = Limited::start("ulimit -S -n 100", &setup, &log);
        let (soft, hard) = relay.limits();
        assert_ne!(soft, "100");
        assert_eq!(soft, hard);
    }
    // Less than max_connections of the listener alone.
    let relay = Limited::start("ulimit -n 900", &setup, &log);
    assert_eq!(relay.limits(), ("900".into(), "900".into()));
    let said = wait_for("the warning", SOON, || {
        let text = std::fs::read_to_string(&log).ok()?;
        text.lines().find(|line| line.contains(warning)).map(str::to_owned)
    });
    assert!(said.contains("\"WARN\"") && said.contains("900"), "{said}");
}

#[test]
fn a_limit_that_leaves_nothing_for_connections_is_refused_with_what_is_needed() {
    let dir = TestDir::new();
    let config = Setup::new(&dir).write("config.toml");
    let mut relay = Command::new("sh");
    relay.args(["-c", "ulimit -n 40 && exec \"$0\" run --config \"$1\"", MAILWEIR]).arg(config);
    let said = run(&mut relay, b"", SOON);
    let told = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(69), "{told}");
    assert!(told.contains("the limit of open files is 40: mailweir needs at least 64"), "{told}");
}

/// The descriptors of the clients are used up: who comes next hears so, and mail leaves, and the
/// operator and whoever watches are answered.
#[test]
fn clients_do_not_take_the_descriptors_of_the_way_out() {
    let dir = TestDir::new();
    let (log, port) = (dir.join("stderr"), Port::reserve());
    let sink = Sink::start(port.at(2));
    let setup = Setup::new(&dir).via("works", "works.test", port.at(2), "");
    let relay = Limited::start("ulimit -n 96", &setup, &log);
    let mut sender = Client::connect(setup.smtp());
    let mut clients: Vec<TcpStream> =
        (0..150).map(|_| TcpStream::connect(setup.smtp()).expect("a place in the kernel")).collect();
    let greeted = |client: &mut TcpStream| {
        let mut code = [0; 4];
        client.set_read_timeout(Some(SOON)).expect("a time-out");
        // More than are closed politely are just closed.
        client.read_exact(&mut code).ok().map(|()| String::from_utf8_lossy(&code).into_owned())
    };
    let greetings: Vec<_> = clients.iter_mut().map(greeted).collect();
    let count = |code: &str| greetings.iter().flatten().filter(|greeting| *greeting == code).count();
    assert!(count("220 ") >= 10 && count("421 ") >= 1, "{greetings:?}");
    assert!(relay.open() < 96, "{} of 96", relay.open());
    sender.send("a@b.test", &["c@works.test"], &message("out"));
    sink.wait_subject("out", SOON);
    let mut status = Command::new(MAILWEIR);
    run_ok(status.args(["status", "--config"]).arg(dir.join("config.toml")), b"", SOON);
    drop(clients);
    wait_for("a relay that greets", SOON, || Client::open(setup.smtp()).ok()?.read().ok().filter(|r| r.code == 220));
    let told = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(told.matches("no file descriptors left for clients").count(), 1, "{told}");
    assert!(!told.contains("cannot accept") && !told.contains("os error 24"), "{told}");
}

/// Hosts that take connections and say nothing, more of them than there are descriptors: their mail
/// waits and says for what, clients are served, and mail for a host that works leaves.
#[test]
fn silent_hosts_take_neither_the_descriptors_of_clients_nor_those_of_hosts_that_work() {
    let dir = TestDir::new();
    let (log, port) = (dir.join("stderr"), Port::reserve());
    let sink = Sink::start(port.at(2));
    // The kernel takes the connections, and nobody greets.
    let silent = TcpListener::bind(port.at(3)).expect("a silent host");
    let names: Vec<String> = (0..60).map(|n| format!("silent{n}")).collect();
    let setup = Setup::new(&dir).via("works", "works.test", port.at(2), "");
    let setup = names.iter().fold(setup, |setup, name| {
        setup.via(name, &format!("{name}.test"), silent.local_addr().expect("an address"), "")
    });
    let relay = Limited::start("ulimit -n 128", &setup, &log);
    let mut client = Client::connect(setup.smtp());
    client.send("a@b.test", &["c@works.test"], &message("before"));
    sink.wait_subject("before", SOON);
    for name in &names {
        for n in 0..3 {
            client.send("a@b.test", &[&format!("r{n}@{name}.test")], &message(name));
        }
    }
    let list = || {
        let mut list = Command::new(MAILWEIR);
        let said = run_ok(list.args(["provider", "list", "--config"]).arg(dir.join("config.toml")), b"", SOON);
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    wait_for("lanes that wait", SOON, || list().contains("wait for a file descriptor").then_some(()));
    assert!(relay.open() < 128, "{} of 128", relay.open());
    // So many as hosts never take from them.
    let mut others: Vec<Client> = (0..20).map(|_| Client::connect(setup.smtp())).collect();
    for (n, other) in others.iter_mut().enumerate() {
        let subject = format!("out {n}");
        other.send("a@b.test", &["c@works.test"], &message(&subject));
        sink.wait_subject(&subject, SOON);
    }
    assert!(relay.open() < 128, "{} of 128", relay.open());
    let told = std::fs::read_to_string(&log).expect("a log");
    assert_eq!(told.matches("connections to hosts wait for file descriptors").count(), 1, "{told}");
    for bad in ["cannot accept", "os error 24", "left for clients"] {
        assert!(!told.contains(bad), "{bad}: {told}");
    }
}

/// Commands with few descriptors of their own end, with what they were asked for or with the reason.
#[test]
fn commands_end_however_few_descriptors_they_have() {
    let dir = TestDir::new();
    let mut daemon = Setup::new(&dir).start();
    daemon.client().send("a@b.test", &["c@[127.0.0.1]"], &message("waits"));
    let config = daemon.config.clone();
    let with = |descriptors: u32, command: &str| {
        let mut limited = Command::new("sh");
        let script = format!("ulimit -n {descriptors} && exec \"$0\" {command} --config \"$1\"");
        let said = run(limited.args(["-c", &script, MAILWEIR]).arg(&config), b"", SOON);
        let told = String::from_utf8_lossy(&said.stderr).into_owned();
        let code = said.status.code().unwrap_or_else(|| panic!("{command} with {descriptors}: {said:?}"));
        assert!(code == 0 || !told.is_empty() && code < 100, "{command} with {descriptors}: {code} {told}");
        assert!(!told.contains("panicked"), "{command} with {descriptors}: {told}");
        code
    };
    let commands = ["status", "queue list", "provider list", "queue hold --all", "reload"];
    for command in commands {
        for descriptors in [6, 7, 8, 10, 12, 16] {
            with(descriptors, command);
        }
        assert_eq!(with(32, command), 0, "{command}");
    }
    daemon.stop();
    for command in ["queue list", "queue hold --all", "provider list"] {
        for descriptors in [7, 10, 14, 18, 24] {
            with(descriptors, command);
        }
    }
}

/// There is not one descriptor, against all plans: the operator is answered all the same, and the log is
/// not filled with it.
#[test]
fn status_answers_when_no_descriptor_is_left() {
    let dir = TestDir::new();
    let log = dir.join("stderr");
    let setup = Setup::new(&dir);
    let relay = Limited::start("ulimit -n 900", &setup, &log);
    let lower = Rlimit { current: Some(80), maximum: Some(900) };
    prlimit(Some(Pid::from_child(&relay.0)), Resource::Nofile, lower).expect("a lower limit");
    let clients: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(setup.smtp()).expect("a place in the kernel")).collect();
    wait_for("a relay without descriptors", SOON, || (relay.open() >= 80).then_some(()));
    let warned = || std::fs::read_to_string(&log).expect("a log").matches("cannot accept connections").count();
    wait_for("the warning", SOON, || (warned() > 0).then_some(()));
    for _ in 0..20 {
        let mut status = Command::new(MAILWEIR);
        status.args(["status", "--config"]).arg(dir.join("config.toml"));
        let said = run_ok(&mut status, b"", SOON);
        assert!(String::from_utf8_lossy(&said.stdout).contains("listening"), "{said:?}");
    }
    let (times, after) = (warned(), Instant::now());
    drop(clients);
    // It goes on by itself.
    wait_for("a relay that greets", SOON, || Client::open(setup.smtp()).ok()?.read().ok());
    assert!(warned() <= times + 1 + after.elapsed().as_secs() as usize / 10, "{} times", warned());
}
