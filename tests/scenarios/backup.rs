//! `mailweir backup` under load: what is in the copy, what a new mailweir makes of it, and that the
//! relay does not notice. That a kill leaves no half of a copy is in `scenarios/crash.rs`.

use crate::support;

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use support::client::Client;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::message;
use support::shim::{EIO, ENOSPC, Shim};
use support::sink::Sink;
use support::{Port, SOON, TestDir, program, run, run_ok, wait_for};

const LIMITS: &str = "connections = 4\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";

fn backup(daemon: &Daemon, file: &Path) -> Command {
    let mut command = Command::new(MAILWEIR);
    command.args(["backup", "--json"]).arg(file).arg("--config").arg(&daemon.config);
    command
}

/// Runs a backup that must fail; returns its exit code and what it said.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = run(command, b"", SOON);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn assert_sound(file: &Path) {
    let mut sqlite = Command::new(program("sqlite3"));
    let output = run_ok(sqlite.arg(file).arg("PRAGMA integrity_check"), b"", SOON);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n");
}

fn big(subject: &str) -> Vec<u8> {
    let mut content = message(subject);
    content.extend_from_slice("a line of a message that is big\r\n".repeat(12_000).as_bytes());
    content
}

/// Sends one message after another, to the host that is up and to the one that is down in turn,
/// and notes what was acknowledged.
fn load(
    daemon: &Daemon,
    enough: &Arc<AtomicBool>,
    acknowledged: &Arc<Mutex<BTreeSet<String>>>,
) -> thread::JoinHandle<()> {
    let (server, enough, acknowledged) = (daemon.smtp, enough.clone(), acknowledged.clone());
    static CLIENTS: AtomicUsize = AtomicUsize::new(0);
    let client = CLIENTS.fetch_add(1, Ordering::SeqCst);
    thread::spawn(move || {
        let mut connection = Client::connect(server);
        for n in 0.. {
            if enough.load(Ordering::SeqCst) {
                return;
            }
            let domain = if n % 2 == 0 { "flows" } else { "waits" };
            let subject = format!("{domain} {client} {n}");
            connection.send("<sender@sender.test>", &[&format!("<x@{domain}.test>")], &message(&subject));
            acknowledged.lock().expect("the ledger").insert(subject);
        }
    })
}

/// The backup is stopped in its middle, so that what happens meanwhile is no matter of speed.
#[test]
fn a_backup_under_load_is_one_moment_and_a_new_mailweir_delivers_it() {
    const BIG: usize = 20;
    let (dir, elsewhere, port, restored) = (TestDir::new(), TestDir::new(), Port::reserve(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .via("flows", "flows.test", sink.address, LIMITS)
        .via("waits", "waits.test", port.at(3), LIMITS)
        .with("[retry]\nfirst = \"1h\"\nmax = \"1h\"")
        .start();
    let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
    for n in 0..BIG {
        let subject = format!("waits big {n}");
        daemon.client().send("<sender@sender.test>", &["<x@waits.test>"], &big(&subject));
        acknowledged.lock().expect("the ledger").insert(subject);
    }
    let enough = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4).map(|_| load(&daemon, &enough, &acknowledged)).collect();
    wait_for("some load", SOON, || (acknowledged.lock().expect("the ledger").len() > BIG + 200).then_some(()));

    let before = acknowledged.lock().expect("the ledger").clone();
    let file = dir.join("copy.db");
    let child = backup(&daemon, &file)
        .env("MAILWEIR_CRASH_AT", "backup.step:2:stop")
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the backup");
    let pid = Pid::from_child(&child);
    wait_for("the middle of the backup", SOON, || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).expect("its state");
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')).then_some(())
    });
    assert!(!file.exists(), "a name before it is complete");
    // Another one to the same file does not write into it.
    let (code, said) = refused(&mut backup(&daemon, &file));
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("under way"), "{said}");
    // Mail comes in and leaves as ever, and is not in the copy.
    let after: BTreeSet<String> = (0..200).map(|n| format!("waits after {n}")).collect();
    let mut client = daemon.client();
    for subject in &after {
        client.send("<sender@sender.test>", &["<x@waits.test>"], &message(subject));
    }
    client.send("<sender@sender.test>", &["<x@flows.test>"], &message("flows meanwhile"));
    sink.wait_subject("flows meanwhile", SOON);
    kill_process(pid, Signal::CONT).expect("a signal");
    let output = child.wait_with_output().expect("the end of the backup");
    assert!(output.status.success(), "{}", output.status);
    enough.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client");
    }
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let metadata = file.metadata().expect("the copy");
    assert_eq!(told["bytes"].as_u64(), Some(metadata.len()));
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(!dir.join("copy.db.part").exists());
    // What the first relay still does is no business of the copy.
    let mut daemon = daemon;
    daemon.kill();
    let delivered: BTreeSet<String> = sink.messages().iter().map(|m| m.subject()).collect();

    std::fs::rename(&file, elsewhere.join("queue.db")).expect("restore");
    assert_sound(&elsewhere.join("queue.db"));
    let new = Sink::start(restored.at(2));
    let second = Setup::new(&elsewhere)
        .via("flows", "flows.test", new.address, LIMITS)
        .via("waits", "waits.test", new.address, LIMITS)
        .with(RETRY)
        .start();
    second.command_ok(&["queue", "retry", "--all"], b"");
    second.wait_queue_empty(SOON);
    let messages = new.messages();
    let arrived: BTreeSet<String> = messages.iter().map(|m| m.subject()).collect();
    assert_eq!(arrived.len(), messages.len(), "each once");
    println!(
        "{} acknowledged before, {} in the copy, {} delivered by the first",
        before.len(),
        arrived.len(),
        delivered.len()
    );
    assert_eq!(told["queue"]["messages"].as_u64(), Some(arrived.len() as u64));
    let lost: Vec<_> = before.iter().filter(|m| !arrived.contains(*m) && !delivered.contains(*m)).collect();
    assert!(lost.is_empty(), "acknowledged before the backup, and nowhere: {lost:?}");
    let waiting: Vec<_> = before.iter().filter(|m| m.starts_with("waits") && !arrived.contains(*m)).collect();
    assert!(waiting.is_empty(), "it was waiting, and is not in the copy: {waiting:?}");
    assert!(arrived.is_disjoint(&after), "accepted after the moment of the copy");
    let acknowledged = acknowledged.lock().expect("the ledger");
    assert!(arrived.is_subset(&acknowledged), "nobody sent it");
    for m in messages.iter().filter(|m| m.subject().contains("big")) {
        assert!(m.content.ends_with(&big(&m.subject())), "{} has changed", m.subject());
    }
}

#[test]
fn a_backup_replaces_nothing_and_needs_no_relay() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let mut daemon = Setup::new(&dir).via("waits", "waits.test", port.at(2), LIMITS).with(RETRY).start();
    daemon.client().send("<sender@sender.test>", &["<x@waits.test>"], &message("kept"));
    let taken = dir.write("taken.db", "somebody's only copy of something");
    let dangling = dir.join("dangling.db");
    symlink(dir.join("nowhere"), &dangling).expect("a link");
    for file in [taken.clone(), dangling, dir.join("queue.db"), dir.path().to_owned()] {
        let (code, said) = refused(&mut backup(&daemon, &file));
        assert_eq!(code, Some(69), "{said}");
        assert!(said.contains("there already"), "{said}");
    }
    assert_eq!(std::fs::read(&taken).expect("read"), b"somebody's only copy of something");
    let (code, said) = refused(&mut backup(&daemon, &dir.join("no/such/directory.db")));
    assert_eq!((code, said.contains("no/such/directory.db")), (Some(69), true), "{said}");
    // What somebody else has put where the copy would grow is not written to.
    symlink(&taken, dir.join("linked.db.part")).expect("a link");
    let (code, said) = refused(&mut backup(&daemon, &dir.join("linked.db")));
    assert_eq!((code, said.contains("linked.db.part")), (Some(69), true), "{said}");
    assert_eq!(std::fs::read(&taken).expect("read"), b"somebody's only copy of something");

    // What a killed backup left is written over; a killed relay's log is part of the copy.
    dir.write("copy.db.part", vec![b'x'; 1 << 20]);
    daemon.kill();
    let file = dir.join("copy.db");
    let output = run_ok(&mut backup(&daemon, &file), b"", SOON);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(told["queue"]["messages"], 1, "{told}");
    assert_sound(&file);
    assert!(!dir.join("copy.db.part").exists());
    std::fs::remove_file(dir.join("queue.db")).expect("remove the queue");
    let (code, said) = refused(&mut backup(&daemon, &dir.join("other.db")));
    assert_eq!((code, said.contains("there is no queue at")), (Some(69), true), "{said}");
    let foreign =
        run_ok(Command::new(program("sqlite3")).arg(dir.join("queue.db")).arg("CREATE TABLE t (x)"), b"", SOON);
    assert!(foreign.stdout.is_empty());
    let (code, said) = refused(&mut backup(&daemon, &dir.join("other.db")));
    assert_eq!((code, said.contains("not a mailweir queue")), (Some(69), true), "{said}");
    assert!(!dir.join("other.db").exists() && !dir.join("other.db.part").exists());
}

/// On the disk of the copy, not that of the queue.
#[test]
fn a_disk_that_fails_leaves_no_copy_and_the_relay_alone() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir).via("flows", "flows.test", sink.address, LIMITS).with(RETRY).start();
    let disk = dir.subdir("backups");
    let shim = Shim::build(&dir, &disk);
    let file = disk.canonicalize().expect("the directory").join("copy.db");
    for (error, reason) in [(EIO, "copy.db.part: Input/output error"), (ENOSPC, "copy.db.part: no storage space")] {
        match error {
            EIO => shim.fail_syncs(error),
            _ => shim.fail_writes(error),
        }
        let (code, said) = refused(backup(&daemon, &file).envs(shim.environment()));
        shim.fail_syncs(0);
        shim.fail_writes(0);
        assert_eq!((code, said.contains(reason)), (Some(69), true), "{said}");
        assert_eq!(std::fs::read_dir(&disk).expect("the directory").count(), 0, "something was left");
        daemon.client().send("<sender@sender.test>", &["<x@flows.test>"], &message(reason));
        sink.wait_subject(reason, SOON);
    }
    run_ok(backup(&daemon, &file).envs(shim.environment()), b"", SOON);
    assert_sound(&file);
}
