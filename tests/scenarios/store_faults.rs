//! A queue that cannot write: it says 4xx and never 250, keeps what it acknowledged, and goes on by
//! itself when it can write again. A store that cannot be used is named at start.

use crate::support;

use std::collections::BTreeSet;
use support::daemon::{Setup, refused_start};
use support::mail::message;
use support::sink::Sink;
use support::tmpfs::Tmpfs;
use support::{Port, SOON, TestDir, wait_for};

#[test]
fn a_full_disk_is_a_452_and_nothing_acknowledged_is_lost() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let disk = Tmpfs::mount(&dir, 8);
    // The host is down until the disk is full.
    let mut daemon = Setup::new(&dir)
        .queue(&disk.store())
        .via("example", "example.test", port.at(2), "connections = 2\nrate = []")
        .with("[retry]\nfirst = \"1s\"\nmax = \"1s\"")
        .start();
    let mut acknowledged = BTreeSet::new();
    let mut client = daemon.client();
    let refusal = (0..400).find_map(|n| {
        let subject = format!("full {n}");
        let mut content = message(&subject);
        for _ in 0..800 {
            content.extend_from_slice(
                b"0123456789012345678901234567890123456789012345678901234567890123456789012345678\r\n",
            );
        }
        let reply = client.try_send("<sender@sender.test>", &["<somebody@example.test>"], &content).expect("a reply");
        if reply.code == 250 {
            acknowledged.insert(subject);
            return None;
        }
        Some(reply)
    });
    let refusal = refusal.expect("400 messages of 64 KB cannot fit into 8 MB");
    assert_eq!(refusal.code, 452, "{}", refusal.text());
    assert!(refusal.text().contains("4.3.1"), "{}", refusal.text());
    println!("{} messages acknowledged before: {}", acknowledged.len(), refusal.text());
    assert!(acknowledged.len() > 10);
    // It is still there, and reports what it knows.
    client.command(250, "NOOP");
    // kill -9 in that state, and a start on the full disk, lose nothing either.
    daemon.kill();
    disk.remount("size=64m");
    daemon.start();

    let sink = Sink::start(port.at(2));
    let late = daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("after"));
    acknowledged.insert("after".into());
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    sink.wait(acknowledged.len(), SOON);
    daemon.wait_queue_empty(SOON);
    let arrived: BTreeSet<String> = sink.messages().iter().map(|message| message.subject()).collect();
    assert_eq!(arrived, acknowledged, "the last one was {late}");
    assert_eq!(sink.count(), acknowledged.len(), "every message once");
}

#[test]
fn a_full_disk_heals_while_the_daemon_runs() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let disk = Tmpfs::mount(&dir, 8);
    let sink = Sink::start(port.at(2));
    let daemon = Setup::new(&dir)
        .queue(&disk.store())
        .via("example", "example.test", sink.address, "connections = 2\nrate = []")
        .with("[retry]\nfirst = \"1s\"\nmax = \"1s\"")
        .start();
    daemon.client().send("<sender@sender.test>", &["<somebody@example.test>"], &message("before"));
    sink.wait(1, SOON);
    daemon.wait_queue_empty(SOON);
    // Something else fills the disk to the last byte.
    let ballast = disk.fill();
    let mut client = daemon.client();
    let reply = wait_for("a refusal", SOON, || {
        let reply = client
            .try_send("<sender@sender.test>", &["<somebody@example.test>"], &message("no room"))
            .expect("a reply");
        (reply.code != 250).then_some(reply)
    });
    assert_eq!(reply.code, 452, "{}", reply.text());
    std::fs::remove_file(&ballast).expect("remove the ballast");
    wait_for("an acknowledgement", SOON, || {
        let reply = client
            .try_send("<sender@sender.test>", &["<somebody@example.test>"], &message("room again"))
            .expect("a reply");
        (reply.code == 250).then_some(())
    });
    sink.wait_subject("room again", SOON);
    daemon.wait_queue_empty(SOON);
}

#[test]
fn a_read_only_store_is_named_at_start() {
    let dir = TestDir::new();
    let disk = Tmpfs::mount(&dir, 8);
    let mut daemon = Setup::new(&dir).queue(&disk.store()).start();
    daemon.stop();
    disk.remount("ro");
    let (code, said) = refused_start(&daemon.config);
    assert!([69, 75, 78].contains(&code), "exit code {code}: {said}");
    assert!(said.contains("queue.db") && said.to_lowercase().contains("read-only"), "{said}");
}

#[test]
fn a_damaged_store_is_named_at_start_and_left_as_it_is() {
    let dir = TestDir::new();
    let mut daemon = Setup::new(&dir).start();
    daemon.client().send("<sender@sender.test>", &["<x@[127.0.0.77]>"], &message("stored"));
    daemon.stop();
    let store = dir.join("queue.db");
    let garbage = b"this is no database, but somebody's only copy of something".repeat(100);
    std::fs::write(&store, &garbage).expect("write");
    let (code, said) = refused_start(&daemon.config);
    assert!([69, 75, 78].contains(&code), "exit code {code}: {said}");
    assert!(said.contains("queue.db"), "{said}");
    assert_eq!(std::fs::read(&store).expect("read"), garbage, "it must not be replaced");
}
