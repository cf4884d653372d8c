//! Memory that the system limits (a control group, as in a container): a backlog many times as
//! large as the limit is accepted and delivered within it, and when the system ends mailweir for
//! want of memory all the same, that is a kill: nothing acknowledged is lost.

mod support;

use std::collections::BTreeSet;
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
