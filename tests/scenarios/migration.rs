//! Killed while the queue's file is made, or brought from an older version of the schema to today's
//! (`docs/queue.md`, Versions). The next start finds each step done or not begun, never by halves, and
//! takes it from there: all that was there is there, each once, and the version is the new one.
//! What a dead process leaves beside the file keeps nobody from starting.
//!
//! A change of the schema comes with a file in `schemas`: the version that it leaves behind.

#[path = "../migration/mod.rs"]
mod stores;
use crate::support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use stores::{OLDER, Store, TABLES, columns, recovered};
use support::client::Client;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::message;
use support::sink::{Answer, Gate, Options, Sink};
use support::{Port, SOON, TestDir, run, run_ok, wait_for};

/// Points of each step: before it, inside its transaction twice, and after it.
const IN_STEP: [&str; 4] = ["schema.begin", "schema.changed", "schema.numbered", "schema.done"];
const LIMITS: &str = "connections = 8\nrate = []";
/// Kills at random microseconds, of each kind.
const RANDOM: usize = 12;
/// Dead letters, so that a step takes its time.
const DEAD: usize = 4000;

/// A command that opens the store, there being no relay.
fn command(config: &Path) -> Command {
    let mut command = Command::new(MAILWEIR);
    command.args(["queue", "list", "--state", "held", "--json", "--config"]).arg(config);
    command
}

fn kill_at(config: &Path, point: &str, count: usize) {
    let output = run(command(config).env("MAILWEIR_CRASH_AT", format!("{point}:{count}")), b"", SOON);
    assert_eq!(output.status.signal(), Some(9), "{point}:{count}: {output:?}");
}

fn kill_after(config: &Path, moment: Duration) {
    let mut child = command(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start mailweir");
    thread::sleep(moment);
    child.kill().expect("kill");
    child.wait().expect("wait");
}

/// Mail in every state, as a `kill -9` of today's program leaves it; its providers are at `address`.
fn fill(dir: &TestDir, port: &Port) -> (Daemon, Store) {
    let gate = Gate::default();
    let script = {
        let gate = gate.clone();
        move |ask: &support::sink::Ask| match ask.verb {
            "RCPT" if ask.argument.starts_with("<nobody") => Answer::say("550 5.1.1 no such user"),
            "DOT" if ask.argument.contains("Subject: doubt") => Answer::Close,
            "DOT" if ask.argument.contains("Subject: stuck") => Answer::After(gate.clone()),
            _ => Answer::Yes,
        }
    };
    let sink = Sink::with(port.at(2), Options::script(script));
    let mut daemon = Setup::new(dir)
        .via("example", "example.test", sink.address, LIMITS)
        .via("paused", "paused.test", sink.address, LIMITS)
        .with("[retry]\nfirst = \"1h\"")
        .start();
    daemon.command_ok(&["provider", "pause", "paused"], b"");
    let send = |client: &mut Client, subject: &str, to: &[&str], lines: usize| {
        let mut content = message(subject);
        content.extend_from_slice("a line of a message that is big\r\n".repeat(lines).as_bytes());
        client.send("<sender@sender.test>", to, &content);
    };
    let rows = |daemon: &Daemon, n: usize, state: &str, provider: &str| {
        wait_for(state, SOON, || {
            (daemon.queue_list(&["--state", state, "--provider", provider]).len() == n).then_some(())
        });
    };
    let mut client = daemon.client();
    for n in 0..20 {
        let big = if n % 10 == 0 { 18_000 } else { 0 };
        send(&mut client, &format!("queued {n}"), &["<a@paused.test>", "<b@paused.test>"], big);
        send(&mut client, &format!("held {n}"), &["<held@paused.test>"], 0);
    }
    daemon.command_ok(&["queue", "hold", "--recipient", "held@paused.test"], b"");
    rows(&daemon, 20, "held", "paused");
    // What waited in memory is queued from here on.
    daemon.kill();
    daemon.start();
    let mut client = daemon.client();
    send(&mut client, "split", &["<somebody@example.test>", "<a@paused.test>"], 0);
    send(&mut client, "dead", &["<nobody@example.test> NOTIFY=NEVER"], 0);
    for n in 0..2 {
        send(&mut client, &format!("stuck {n}"), &["<somebody@example.test>"], 0);
    }
    rows(&daemon, 1, "failed", "example");
    sink.wait_subject("split", SOON);
    rows(&daemon, 2, "leased", "example");
    send(&mut client, "doubt", &["<somebody@example.test>"], 0);
    rows(&daemon, 1, "uncertain", "example");
    let store = Store(dir.join("queue.db"));
    let mut unfinished = Client::connect(daemon.smtp);
    unfinished.command(250, "MAIL FROM:<sender@sender.test>");
    unfinished.command(250, "RCPT TO:<a@paused.test>");
    unfinished.command(354, "DATA");
    unfinished.write("a line of a message that never ends\r\n".repeat(18_000).as_bytes()).expect("write");
    wait_for("a chunk of an unfinished message", SOON, || {
        let incoming = store.open().query_row("SELECT count(*) FROM incoming", [], |row| row.get::<_, i64>(0));
        incoming.is_ok_and(|n| n == 1).then_some(())
    });
    daemon.kill();
    gate.open();
    let made = Store(dir.join("made.db"));
    made.copy_of(&store);
    let states = made.open().query_row("SELECT count(DISTINCT state) FROM recipient", [], |row| row.get(0));
    assert_eq!(states, Ok(5), "mail in every state");
    (daemon, made)
}

/// The same mail in a store of an older version, part of it in the database and part in its log, as
/// a process leaves it that was killed.
fn older(version: usize, made: &Store, dir: &TestDir) -> Store {
    let work = Store(dir.join("work.db"));
    work.remove();
    let conn = work.open();
    conn.pragma_update(None, "page_size", 8192).expect("a page size");
    let settings = "PRAGMA journal_mode = wal; PRAGMA wal_autocheckpoint = 0; PRAGMA application_id = 1836542322";
    conn.execute_batch(settings).expect(settings);
    for step in &OLDER[..version] {
        conn.execute_batch(step).expect("a step");
    }
    conn.pragma_update(None, "user_version", version as i64).expect("a version");
    conn.execute("ATTACH ?1 AS made", [made.0.display().to_string()]).expect("attach");
    conn.execute_batch("DELETE FROM tally").expect("no tally");
    for table in TABLES {
        let columns = columns(&conn, table).join(", ");
        let copy = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM made.{table}");
        assert!(conn.execute(&copy, []).expect(&copy) > 0, "nothing in {table}");
        if table == "message" {
            conn.query_row("PRAGMA main.wal_checkpoint(PASSIVE)", [], |_| Ok(())).expect("a checkpoint");
        }
    }
    let more = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {DEAD})
         INSERT INTO recipient (message, idx, state, lane, bucket, due, attempts, warned, notify, address, reason)
         SELECT message, i, state, lane, bucket, due + i, attempts, warned, notify, 'nobody' || i || '@example.test',
         reason FROM main.recipient, n WHERE state = 3; UPDATE tally SET failed = failed + {DEAD}"
    );
    conn.execute_batch(&more).expect("more dead letters");
    if version > 1 {
        let doubt = "UPDATE recipient SET doubt = 1 WHERE state = 1 AND message IN
            (SELECT max(message) FROM main.recipient WHERE state = 1)";
        assert_eq!(conn.execute(doubt, []).expect(doubt), 1);
    }
    let old = Store(dir.join(&format!("version-{version}.db")));
    old.copy_of(&work);
    drop(conn);
    old
}

#[test]
fn killed_in_a_change_of_the_schema_all_that_was_there_is_there_once() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let (mut daemon, made) = fill(&dir, &port);
    let today = made.content();
    let newest = today.version as usize;
    assert_eq!(OLDER.len() + 1, newest, "tests/schemas has a file for each version before today's");
    let (store, config) = (Store(dir.join("queue.db")), daemon.config.clone());
    let finish = |expected: &[String]| {
        run_ok(&mut command(&config), b"", SOON);
        let content = store.content();
        assert_eq!((content.version as usize, &content.schema), (newest, &today.schema));
        assert!(content.rows == expected, "not what was there");
    };
    // The host of the next lives.
    let sink = Sink::start(port.at(3));
    daemon.replace_config(&port.at(2).to_string(), &sink.address.to_string());
    for version in 1..newest {
        let old = older(version, &made, &dir);
        let before = old.content();
        assert_eq!((before.version as usize, before.rows.len() > DEAD), (version, true));
        let after = old.after(&recovered(if version > 1 { "doubt" } else { "0" }));
        for (step, point) in (1..=newest - version).flat_map(|step| IN_STEP.map(|point| (step, point))) {
            store.copy_of(&old);
            kill_at(&config, point, step);
            let left = store.content();
            let done = step - usize::from(point != "schema.done");
            assert_eq!(left.version as usize, version + done, "{point}:{step}");
            assert!(left.rows == before.rows, "{point}:{step} of version {version}");
            // The start that goes on from there dies as well, in the recovery and after it.
            kill_at(&config, "recover", 1);
            let left = store.content();
            assert!(left.version as usize == newest && left.rows == before.rows, "{point}:{step}");
            kill_at(&config, "commit.after", 1);
            assert!(store.content().rows == after.rows, "{point}:{step}");
            finish(&after.rows);
        }
        store.copy_of(&old);
        let began = Instant::now();
        finish(&after.rows);
        let whole = began.elapsed().as_micros() as u64;
        for _ in 0..RANDOM {
            store.copy_of(&old);
            let moment = Duration::from_micros(fastrand::u64(..whole));
            kill_after(&config, moment);
            let left = store.content();
            assert!((version..=newest).contains(&(left.version as usize)), "{moment:?}: version {}", left.version);
            assert!(left.rows == before.rows || left.rows == after.rows, "{moment:?} into version {version}");
            finish(&after.rows);
        }

        // And mail leaves, each once, to whom it was for.
        store.copy_of(&old);
        kill_at(&config, "schema.numbered", 1);
        daemon.start();
        daemon.command_ok(&["provider", "resume", "paused"], b"");
        daemon.command_ok(&["queue", "retry", "--state", "uncertain"], b"");
        wait_for("mail that left", SOON, || {
            let waits = |state| !daemon.queue_list(&["--state", state]).is_empty();
            (!["queued", "leased", "uncertain"].into_iter().any(waits)).then_some(())
        });
        assert_eq!(daemon.queue_list(&["--state", "held"]).len(), 20);
        daemon.stop();
        let mut arrived: BTreeMap<(String, String), usize> = BTreeMap::new();
        for (m, to) in sink.messages().iter().flat_map(|m| m.to.iter().map(move |to| (m, to))) {
            *arrived.entry((m.subject(), to.clone())).or_default() += 1;
        }
        let queued = (0..20).flat_map(|n| ["<a@paused.test>", "<b@paused.test>"].map(|to| (format!("queued {n}"), to)));
        let rest = [("split", "<a@paused.test>"), ("stuck 0", ""), ("stuck 1", ""), ("doubt", "")]
            .map(|(subject, to)| (subject.to_owned(), if to.is_empty() { "<somebody@example.test>" } else { to }));
        let wanted = queued.chain(rest).map(|(subject, to)| ((subject, to.to_owned()), version)).collect();
        assert_eq!(arrived, wanted, "once for each of the versions so far");
    }
}

#[test]
fn killed_while_the_file_is_made_the_next_start_works() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::start(port.at(2));
    let mut daemon = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS).start();
    daemon.stop();
    let store = Store(dir.join("queue.db"));
    let today = store.content();
    let newest = today.version as usize;
    let mut sent = 0;
    let mut works = |daemon: &mut Daemon| {
        daemon.start();
        let subject = format!("mail {sent}");
        daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message(&subject));
        sink.wait_subject(&subject, SOON);
        daemon.wait_queue_empty(SOON);
        daemon.stop();
        sent += 1;
        let content = store.content();
        assert_eq!((content.version, &content.schema), (today.version, &today.schema));
        assert_eq!(sink.count(), sent);
    };
    let opening = ["open.created", "open.locked", "open.connected"].map(|point| (point, 1, 0));
    let steps =
        (1..=newest).flat_map(|n| IN_STEP.map(|point| (point, n, if point == "schema.done" { n } else { n - 1 })));
    let rest = ["recover", "commit.before", "commit.after", "start.opened"].map(|point| (point, 1, newest));
    for (point, count, version) in opening.into_iter().chain(steps).chain(rest) {
        store.remove();
        daemon.environment = vec![("MAILWEIR_CRASH_AT", format!("{point}:{count}"))];
        daemon.launch();
        daemon.environment.clear();
        let status = daemon.wait_exit(SOON);
        assert_eq!(status.signal(), Some(9), "{point}:{count}: {status}");
        assert_eq!(store.content().version as usize, version, "{point}:{count}");
        works(&mut daemon);
    }
    for n in 0..RANDOM {
        store.remove();
        // Every other time a second one dies over what the first has left.
        for _ in 0..=n % 2 {
            daemon.launch();
            thread::sleep(Duration::from_micros(fastrand::u64(..40_000)));
            daemon.kill();
        }
        works(&mut daemon);
    }
}

#[test]
fn what_a_dead_process_leaves_beside_the_file_blocks_nobody() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    // The host is down until the restart.
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", port.at(2), LIMITS)
        .with("[retry]\nfirst = \"1s\"\nmax = \"1s\"")
        .start();
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("kept"));
    daemon.kill();
    let store = Store(dir.join("queue.db"));
    for suffix in ["-wal", "-shm", ".lock", ".sock"] {
        assert!(store.beside(suffix).exists(), "no {suffix}");
    }
    // The number of the dead process may be another one's by now, and after a power cut SQLite's
    // index of the log, which is never synced, holds anything.
    fs::write(store.beside(".lock"), format!("{}\n", std::process::id())).expect("write");
    fs::write(store.beside("-shm"), [0xa5; 32 * 1024]).expect("write");
    let sink = Sink::start(port.at(2));
    daemon.start();
    sink.wait_subject("kept", SOON);
    daemon.wait_queue_empty(SOON);
    daemon.stop();
    assert_eq!(sink.count(), 1);
}
