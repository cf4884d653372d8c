//! The room of a store on its disk, as operators and whoever watches are told of it.

use crate::support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use rustix::fs::statvfs;
use support::daemon::{Daemon, MAILWEIR, Setup};
use support::mail::message;
use support::tmpfs::Tmpfs;
use support::{Port, SOON, TestDir, run, wait_for};

fn healthz(daemon: &Daemon) -> String {
    let mut client = TcpStream::connect(daemon.setup.admin()).expect("a connection");
    client.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("a request");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Sends until so large a message finds no room.
fn fill(daemon: &Daemon, bytes: usize) {
    let mut client = daemon.client();
    let mut content = message("fills the disk");
    content.extend(std::iter::repeat_n(b"a line of a message that fills the disk\r\n", bytes / 42).flatten());
    for _ in 0..2000 {
        let reply = client.try_send("<a@b.test>", &["<c@d.test>"], &content).expect("a reply");
        match reply.code {
            250 => {}
            452 => return,
            other => panic!("{other} {}", reply.text()),
        }
    }
    panic!("8 MB are not full");
}

#[test]
fn health_says_no_as_soon_as_a_message_of_ordinary_size_finds_no_room() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let disk = Tmpfs::mount(&dir, 8);
    let daemon = Setup::new(&dir).queue(&disk.store()).via("d", "d.test", port.at(2), "").start();
    assert!(healthz(&daemon).starts_with("HTTP/1.1 200 "));
    fill(&daemon, 94_000);
    // What it said a moment ago is good for a second.
    let told = wait_for("health to say so", SOON, || {
        Some(healthz(&daemon)).filter(|answer| answer.starts_with("HTTP/1.1 503 "))
    });
    assert!(told.contains("([queue] min_free)"), "{told}");

    // Down to the last: what is set aside is not told to be free.
    fill(&daemon, 400);
    let told = wait_for("the figures", SOON, || Some(healthz(&daemon)).filter(|answer| answer.contains(" free; ")));
    let free = told.split(" has ").nth(1).and_then(|rest| rest.split("KiB free").next()).expect("the figure");
    let free: u64 = free.parse().unwrap_or_else(|e| panic!("{e}: {told}"));
    let there = statvfs(disk.file("")).map(|disk| disk.f_bavail * disk.f_frsize / 1024).expect("a file system");
    assert!(free <= there, "{free} KiB are said to be free, and {there} are: {told}");
    assert!(told.contains("queue.db.reserve"), "{told}");
}

#[test]
fn a_min_free_that_the_disk_does_not_let_be_is_told_with_the_figure_in_force() {
    let dir = TestDir::new();
    let disk = Tmpfs::mount(&dir, 8);
    let wanted = |min_free: &str| format!("{}\nmin_free = \"{min_free}\"", disk.store());
    let mut daemon = Setup::new(&dir).queue(&wanted("1000GiB")).prepare();
    let told =
        "[queue] min_free = \"1000GiB\" is more than a tenth of the store's file system (8MiB): 819KiB are set aside";
    let mut check = Command::new(MAILWEIR);
    let said = run(check.args(["check", "--config"]).arg(&daemon.config), b"", SOON);
    assert!(said.status.success() && String::from_utf8_lossy(&said.stderr).contains(told), "{said:?}");
    let mut check = Command::new(MAILWEIR);
    let said = run(check.args(["check", "--json", "--config"]).arg(&daemon.config), b"", SOON);
    assert!(String::from_utf8_lossy(&said.stdout).contains("queue.min_free"), "{said:?}");
    daemon.start();
    let line = daemon.wait_log("the warning", |line| line.get("message") == told);
    assert_eq!(line.get("level"), "WARN");
    let status = daemon.command_ok(&["status"], b"");
    let shown = "set aside  819KiB for mail on its way out (not 1000GiB: a tenth of the file system at most)";
    assert!(status.contains(shown), "{status}");

    // What holds after a reload is shown after it, and what was counted goes on.
    daemon.client().send("<a@b.test>", &["<c@d.test>"], &message("counted"));
    daemon.replace_config("min_free = \"1000GiB\"", "min_free = \"512KiB\"");
    daemon.command_ok(&["reload"], b"");
    let status = daemon.command_ok(&["status"], b"");
    assert!(status.contains("set aside  512KiB for mail on its way out\n"), "{status}");
    assert!(status.contains("so far     1 messages accepted"), "{status}");
}
