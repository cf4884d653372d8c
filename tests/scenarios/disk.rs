//! The disk under a running relay: full, limited, or with the queue's files taken away. What is queued
//! leaves, nothing is acknowledged that could be lost, and what is still open can be saved.

use crate::support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use rustix::process::{Resource, Rlimit, prlimit};
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::Sink;
use support::tmpfs::Tmpfs;
use support::{Port, SOON, TestDir, run, wait_for};

const LIMITS: &str = "connections = 2\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";
const FROM: &str = "<sender@sender.test>";
const TO: &[&str] = &["<somebody@example.test>"];

fn big(subject: &str) -> Vec<u8> {
    let mut content = message(subject);
    content.extend_from_slice("a line of a message that fills the disk of the test\r\n".repeat(1200).as_bytes());
    content
}

fn healthz(daemon: &Daemon) -> String {
    let mut client = TcpStream::connect(daemon.setup.admin()).expect("a connection");
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Sends until the store refuses big ones and small ones; what was acknowledged, and the last reply.
fn fill_queue(daemon: &Daemon) -> BTreeSet<String> {
    let mut acknowledged = BTreeSet::new();
    let mut client = daemon.client();
    for small in [false, true] {
        let mut refused = 0;
        for n in 0..2000 {
            let subject = format!("{small} {n}");
            let content = if small { message(&subject) } else { big(&subject) };
            let reply = client.try_send(FROM, TO, &content).expect("a reply");
            match reply.code {
                250 => drop(acknowledged.insert(subject)),
                452 => {
                    assert!(reply.text().contains("4.3.1"), "{}", reply.text());
                    refused += 1;
                }
                other => panic!("{other} {}", reply.text()),
            }
            if refused == 5 {
                break;
            }
        }
        assert_eq!(refused, 5, "8 MB are not full");
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    acknowledged
}

/// The receiver, with nothing left of what the relay remembers of a host that was down.
fn host_is_up(daemon: &Daemon, port: &Port) -> Sink {
    let sink = Sink::start(port.at(2));
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    sink
}

fn assert_each_once(sink: &Sink, acknowledged: &BTreeSet<String>) {
    let arrived: BTreeSet<String> = sink.messages().iter().map(|message| message.subject()).collect();
    assert_eq!(&arrived, acknowledged);
    assert_eq!(sink.count(), acknowledged.len(), "every message once");
}

#[test]
fn a_full_queue_drains_itself() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let disk = Tmpfs::mount(&dir, 8);
    let daemon = Setup::new(&dir).queue(&disk.store()).via("example", "example.test", port.at(2), LIMITS).with(RETRY);
    let mut daemon = daemon.start();
    let mut acknowledged = fill_queue(&daemon);
    wait_for("health to say so", SOON, || healthz(&daemon).starts_with("HTTP/1.1 503 ").then_some(()));
    assert!(healthz(&daemon).contains("set aside for mail on its way out"), "{}", healthz(&daemon));
    // Also after a kill; the start needs no room that is not there.
    daemon.kill();
    daemon.start();
    let sink = host_is_up(&daemon, &port);
    sink.wait(acknowledged.len(), SOON);
    daemon.wait_queue_empty(SOON);
    assert_each_once(&sink, &acknowledged);
    // It takes mail again, though the file has its size.
    wait_for("health", SOON, || healthz(&daemon).starts_with("HTTP/1.1 200 ").then_some(()));
    daemon.client().send(FROM, TO, &message("after"));
    acknowledged.insert("after".into());
    sink.wait(acknowledged.len(), SOON);
    assert_each_once(&sink, &acknowledged);
}

#[test]
fn a_disk_that_another_program_fills_leaves_the_reserve_to_the_way_out() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let disk = Tmpfs::mount(&dir, 8);
    let daemon = Setup::new(&dir).queue(&disk.store()).via("example", "example.test", port.at(2), LIMITS).with(RETRY);
    let mut daemon = daemon.start();
    let mut acknowledged = BTreeSet::new();
    let mut client = daemon.client();
    for n in 0..40 {
        let subject = format!("waits {n}");
        client.send(FROM, TO, &big(&subject));
        acknowledged.insert(subject);
    }
    assert!(disk.file("queue.db.reserve").exists());
    let ballast = disk.fill();
    let reply = client.try_send(FROM, TO, &message("no room")).expect("a reply");
    assert_eq!(reply.code, 452, "{}", reply.text());
    daemon.kill();
    daemon.start();
    let sink = host_is_up(&daemon, &port);
    sink.wait(acknowledged.len(), SOON);
    daemon.wait_queue_empty(SOON);
    fs::remove_file(&ballast).expect("remove the ballast");
    wait_for("the reserve", SOON, || {
        let code = daemon.client().try_send(FROM, TO, &message("after")).expect("a reply").code;
        (code == 250 && disk.file("queue.db.reserve").exists()).then_some(())
    });
    sink.wait_subject("after", SOON);
    let arrived: BTreeSet<String> = sink.messages().iter().map(|message| message.subject()).collect();
    acknowledged.insert("after".into());
    assert_eq!(arrived, acknowledged);
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let daemon = Setup::new(&dir).via("example", "example.test", port.at(2), LIMITS).with(RETRY);
    let mut daemon = daemon.start();
    let mut client = daemon.client();
    client.send(FROM, TO, &big("before"));
    let limit = |bytes| {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(daemon.pid()), Resource::Fsize, limit).expect("a limit");
    };
    for bytes in [2_000_000, 40_000] {
        limit(Some(bytes));
        let refused = (0..200).find_map(|n| {
            let reply = client.try_send(FROM, TO, &big(&format!("limited {bytes} {n}"))).expect("a reply");
            (reply.code != 250).then_some(reply)
        });
        let reply = refused.expect("the limit is one");
        assert_eq!(reply.code, 452, "{}", reply.text());
    }
    limit(None);
    client.send(FROM, TO, &big("after"));
    let sink = host_is_up(&daemon, &port);
    sink.wait_subject("before", SOON);
    sink.wait_subject("after", SOON);
    daemon.wait_queue_empty(SOON);
    assert!(daemon.ended().is_none());
}

#[test]
fn a_log_that_somebody_reads_without_end_is_told_once_and_shown() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    // Merged early, so that it is soon long.
    let setup =
        Setup::new(&dir).queue(&format!("store = \"sqlite:{}\"\nmin_free = \"1MiB\"", dir.join("queue.db").display()));
    let daemon = setup.via("example", "example.test", port.at(2), LIMITS).with(RETRY).start();
    let mut client = daemon.client();
    client.send(FROM, TO, &message("before"));
    let reader = rusqlite::Connection::open(dir.join("queue.db")).expect("another program");
    let count = "BEGIN; SELECT count(*) FROM message";
    reader.execute_batch(count).expect("a transaction that does not end");
    for n in 0..80 {
        client.send(FROM, TO, &big(&format!("big {n}")));
    }
    let told = |line: &support::daemon::LogLine| line.get("message").contains("the queue's log cannot be merged");
    let line = daemon.wait_log("a long log", told);
    assert!(line.get("message").contains("sqlite3") && line.get("size").ends_with("iB"), "{line:?}");
    let status = daemon.command_ok(&["status"], b"");
    assert!(status.contains("iB in its log"), "{status}");
    assert_eq!(daemon.log_lines().iter().filter(|line| told(line)).count(), 1);
}

fn backup(daemon: &Daemon, file: &Path) -> String {
    daemon.command_ok(&["backup", "--json", &file.display().to_string()], b"")
}

#[test]
fn a_store_that_is_taken_away_is_refused_told_and_saved() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let var = dir.subdir("var");
    let store = var.join("queue.db");
    let setup = Setup::new(&dir).queue(&format!("store = \"sqlite:{}\"", store.display()));
    let mut daemon = setup.via("example", "example.test", port.at(2), LIMITS).with(RETRY).start();
    let mut acknowledged = BTreeSet::new();
    let mut client = daemon.client();
    for n in 0..5 {
        client.send(FROM, TO, &message(&format!("before {n}")));
        acknowledged.insert(format!("before {n}"));
    }
    fs::remove_dir_all(&var).expect("rm -rf");
    for n in 0..40 {
        let reply = client.try_send(FROM, TO, &message(&format!("lost {n}"))).expect("a reply");
        assert_eq!(reply.code, 451, "{}", reply.text());
    }
    daemon.wait_log("what happened", |line| {
        let (text, error) = (line.get("message"), line.get("error"));
        text.contains("mailweir backup") && error.contains("queue.db was removed or moved away")
    });
    assert!(healthz(&daemon).starts_with("HTTP/1.1 503 "));
    // The way to the relay is made again as soon as there is a place for it.
    fs::create_dir(&var).expect("a directory");
    wait_for("the control socket", SOON, || var.join("queue.db.sock").exists().then_some(()));
    let status = daemon.command_ok(&["status"], b"");
    assert!(status.contains("TROUBLE") && status.contains("was removed or moved away"), "{status}");
    // A reload opens the store by its name: what is open, and all that waits in it, would go.
    let reload = daemon.command(&["reload"], b"");
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(!reload.status.success() && said.contains("was removed or moved away"), "{said}");
    daemon.signal(rustix::process::Signal::HUP);
    daemon.wait_log("the refused reload", |line| {
        line.get("by") == "SIGHUP" && line.get("error").contains("could not be opened again")
    });
    let copy = dir.join("saved.db");
    let told: serde_json::Value = serde_json::from_str(&backup(&daemon, &copy)).expect("JSON");
    assert!(told["queue"]["messages"].as_u64() >= Some(5), "{told}");
    daemon.stop();
    fs::rename(&copy, &store).expect("restore");
    daemon.start();
    let sink = host_is_up(&daemon, &port);
    for subject in &acknowledged {
        sink.wait_subject(subject, SOON);
    }
    let lost = sink.messages().iter().filter(|message| message.subject().starts_with("lost")).count();
    assert_eq!(lost, 0, "nothing is committed any more when the name is gone");
}

#[test]
fn status_tells_what_the_store_takes_of_its_disk() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let daemon = Setup::new(&dir).via("example", "example.test", port.at(2), LIMITS).with(RETRY).start();
    daemon.client().send(FROM, TO, &big("kept"));
    let told = daemon.command_ok(&["status", "--json"], b"");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    let storage = &told["storage"];
    assert!(storage["log"].as_u64() > Some(60_000) && storage["trouble"] == "", "{told}");
    assert!(storage["file"].is_u64() && storage["free"].is_u64(), "{told}");
    assert!(daemon.command_ok(&["status"], b"").contains("in the store's file"));
}

/// Root may read everything: then an ordinary user tries.
#[test]
fn a_backup_by_somebody_who_may_not_read_the_queue_says_so() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = TestDir::new();
    let var = dir.subdir("var");
    let setup = Setup::new(&dir).queue(&format!("store = \"sqlite:{}\"", var.join("queue.db").display()));
    let mut daemon = setup.start();
    let program = dir.join("program");
    fs::copy(support::daemon::MAILWEIR, &program).expect("a copy");
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("a mode");
    let try_it = |directory: u32| {
        fs::set_permissions(&var, PermissionsExt::from_mode(directory)).expect("a mode");
        let mut command = std::process::Command::new(&program);
        command.uid(65534).gid(65534).args(["backup", "/tmp/mailweir-test-no-such-copy.db", "--config"]);
        let output = run(command.arg(&daemon.config), b"", SOON);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for directory in [0o755, 0o700] {
        let (code, said) = try_it(directory);
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("user 65534 may not read") && said.contains("queue.db"), "{said}");
    }
    daemon.stop();
}
