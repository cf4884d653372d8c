//! Memory that the system limits (a control group, as in a container): a backlog many times as
//! large as the limit is accepted and delivered within it, and when the system ends mailweir for
//! want of memory all the same, that is a kill: nothing acknowledged is lost.

use crate::support;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use support::cgroup::MemoryGroup;
use support::daemon::{Daemon, Setup};
use support::mail::message;
use support::sink::Sink;
use support::{Port, SOON, TestDir, as_root, program, run_ok};

const MIB: u64 = 1 << 20;
const LIMITS: &str = "connections = 4\nrate = []";
const RETRY: &str = "[retry]\nfirst = \"1s\"\nmax = \"1s\"";

fn fill(daemon: &Daemon, name: &str, messages: usize, bytes: usize) -> BTreeSet<String> {
    let line = "a line of a message that is big, so that a backlog of them does not fit into memory\r\n";
    let text = line.repeat(bytes / line.len());
    let mut client = daemon.client();
    let send = |n| {
        let subject = format!("{name} {n}");
        let mut content = message(&subject);
        content.extend_from_slice(text.as_bytes());
        client.send("<sender@sender.test>", &["<somebody@example.test>"], &content);
        subject
    };
    (0..messages).map(send).collect()
}

fn assert_arrived(sink: &Sink, sent: &BTreeSet<String>) {
    let arrived: BTreeSet<String> = sink.messages().iter().map(|m| m.subject()).collect();
    assert_eq!(&arrived, sent);
}

#[test]
fn a_backlog_of_three_times_the_memory_is_accepted_and_delivered_within_it() {
    const LIMIT: u64 = 96 * MIB;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let mut daemon = Setup::new(&dir)
        .queue(&format!("store = \"sqlite:{}\"\nmemory = \"8MiB\"", dir.join("queue.db").display()))
        .via("example", "example.test", port.at(2), LIMITS)
        .with(RETRY)
        .start();
    let group = MemoryGroup::new(LIMIT);
    group.add(daemon.pid());
    let sent = fill(&daemon, "much", 144, 2 * MIB as usize);
    assert!(daemon.ended().is_none(), "the system has ended it");
    let sink = Sink::start(port.at(2));
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    sink.wait(sent.len(), 3 * SOON);
    daemon.wait_queue_empty(SOON);
    assert!(daemon.ended().is_none(), "the system has ended it");
    assert_arrived(&sink, &sent);
    assert_eq!(sink.count(), sent.len(), "each once");
    println!("288 MiB queued and delivered; the most in use {:?} of {LIMIT}", group.peak());
    daemon.kill();
}

/// Resident memory that is no file.
fn anonymous_memory(daemon: &Daemon) -> u64 {
    let status = format!("/proc/{}/status", daemon.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a number");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// A neighbour in the container takes all there is, and the kernel takes mailweir for it.
#[test]
fn ended_for_want_of_memory_nothing_acknowledged_is_lost() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let mut daemon = Setup::new(&dir).via("example", "example.test", port.at(2), LIMITS).with(RETRY).start();
    let group = MemoryGroup::new(64 * MIB);
    group.add(daemon.pid());
    let pid = daemon.pid().as_raw_nonzero();
    run_ok(as_root("tee").arg(format!("/proc/{pid}/oom_score_adj")), b"1000", SOON);
    let mut sent = fill(&daemon, "before", 20, 4096);
    let mut neighbour = as_root("sh");
    // A line without an end: all of it is kept.
    let hog = format!("echo $$ > {} && exec {} /dev/zero", group.procs().display(), program("tail").display());
    let neighbour: &mut Command = neighbour.args(["-c", &hog]);
    let mut neighbour = neighbour.stdout(Stdio::null()).spawn().expect("start the neighbour");
    assert_eq!(daemon.wait_exit(SOON).signal(), Some(9));
    // Without mailweir it takes the rest, and ends the same way.
    assert!(!neighbour.wait().expect("the end of the neighbour").success());

    let sink = Sink::start(port.at(2));
    daemon.start();
    sent.extend(fill(&daemon, "after", 1, 4096));
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    sink.wait(sent.len(), SOON);
    daemon.wait_queue_empty(SOON);
    assert_arrived(&sink, &sent);
    assert_eq!(sink.count(), sent.len(), "nothing was in flight, so each once");
}

/// Clients that begin large messages and never finish them have no more of mailweir than their part of
/// the budget, and others go on sending.
#[test]
fn uploads_that_never_end_stay_within_their_part_and_keep_nobody_out() {
    const UPLOADS: usize = 150;
    let (dir, port) = (TestDir::new(), Port::reserve());
    let mut daemon = Setup::new(&dir)
        .queue(&format!("store = \"sqlite:{}\"\nmemory = \"16MiB\"", dir.join("queue.db").display()))
        .via("example", "example.test", port.at(2), LIMITS)
        .with(RETRY)
        .start();
    let begin = |n: usize| {
        let mut stream = TcpStream::connect(daemon.smtp).expect("a connection");
        let hello = format!(
            "EHLO c{n}\r\nMAIL FROM:<sender@sender.test>\r\nRCPT TO:<somebody@example.test>\r\nBDAT 20000000 LAST\r\n"
        );
        stream.write_all(hello.as_bytes()).expect("commands");
        stream.set_nonblocking(true).expect("a socket");
        stream
    };
    let mut uploads: Vec<TcpStream> = (0..UPLOADS).map(begin).collect();
    let content = "a line of a message that does not end\r\n".repeat(1000);
    // As much as there is room for on the way, and what mailweir takes meanwhile.
    for _ in 0..200 {
        for upload in &mut uploads {
            let _ = upload.write(content.as_bytes());
        }
    }
    let sent = fill(&daemon, "others", 200, 4096);
    let sink = Sink::start(port.at(2));
    daemon.command_ok(&["queue", "retry", "--all"], b"");
    sink.wait(sent.len(), SOON);
    assert_arrived(&sink, &sent);
    let anonymous = anonymous_memory(&daemon);
    println!("{UPLOADS} uploads: {} MiB", anonymous / MIB);
    // The program itself, SQLite's caches, and 4 MiB for what comes in; without bounds 150 MiB.
    assert!(anonymous < 80 * MIB, "{anonymous} bytes");
    drop(uploads);
    // A large one comes in again as soon as they are gone.
    let large = fill(&daemon, "large", 1, 2 * MIB as usize);
    sink.wait(sent.len() + large.len(), SOON);
    daemon.kill();
}
