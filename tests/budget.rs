//! What a message may cost, in what can be counted: calls to the system, syncs, allocations. The
//! counts hardly depend on the machine or on what else it does, so a change that makes the path of
//! a message longer is seen here, where a measured time would only tell one machine from another.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use support::client::Client;
use support::daemon::Setup;
use support::mail::message;
use support::shim::{Called, Calls};
use support::sink::{Options, Sink};
use support::{Port, SOON, TestDir, wait_for};

/// Only where a profiler runs does it count, so only in the copy of this program that is a relay.
#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// In the environment of that copy: its configuration.
const RELAY: &str = "MAILWEIR_TEST_RELAY";

/// Messages before it is counted: caches, pools and buffers reach their size.
const FIRST: usize = 50;
const MESSAGES: usize = 200;

/// One connection, without a limit of speed.
const LIMITS: &str = "connections = 1\nrate = []\nmessages_per_connection = 100000";

const CHUNKING: [&str; 4] = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING"];

fn send(client: &mut Client, messages: usize) {
    let mut content = message("costs little");
    while content.len() < 2048 {
        content.extend_from_slice(b"The quick brown fox jumps over the lazy dog, again and again.\r\n");
    }
    for _ in 0..messages {
        client.send("<a@sender.test>", &["<b@example.test>"], &content);
    }
}

/// A relay in a process of its own whose allocations are counted.
struct Counted {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Counted {
    fn start(config: &Path, smtp: SocketAddr) -> Counted {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "a_relay_that_counts", "--nocapture"])
            .env(RELAY, config)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a copy of this program");
        let (commands, answers) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let counted = Counted { child, commands, answers: BufReader::new(answers) };
        wait_for("a relay that greets", SOON, || Client::open(smtp).ok()?.read().ok());
        counted
    }

    /// Allocations so far, and their bytes.
    fn so_far(&mut self) -> (u64, u64) {
        self.commands.write_all(b"tell\n").expect("the relay listens");
        loop {
            let mut line = String::new();
            assert_ne!(self.answers.read_line(&mut line).expect("an answer"), 0, "the relay has ended");
            // The harness prints lines of its own.
            if let Some((blocks, bytes)) = line.trim().strip_prefix("counted ").and_then(|rest| rest.split_once(' ')) {
                return (blocks.parse().expect("a number"), bytes.parse().expect("a number"));
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Not a test by itself: the relay of [`allocations_of_a_message`].
#[test]
fn a_relay_that_counts() {
    let Some(config) = std::env::var_os(RELAY).map(PathBuf::from) else { return };
    let _profiler = dhat::Profiler::builder().testing().build();
    std::thread::spawn(|| {
        for _ in std::io::stdin().lines() {
            let stats = dhat::HeapStats::get();
            println!("counted {} {}", stats.total_blocks, stats.total_bytes);
        }
        std::process::exit(0);
    });
    let loaded = mailweir::config::Loaded::read(Some(&config)).expect("the configuration");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    runtime.block_on(mailweir::app::run(loaded, Some(config))).expect("it runs");
}

#[test]
fn allocations_of_a_message() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options::offering(&CHUNKING));
    let setup = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS);
    let (config, smtp) = (setup.write("config.toml"), setup.smtp());
    let mut relay = Counted::start(&config, smtp);
    let mut client = Client::connect(smtp);
    send(&mut client, FIRST);
    sink.wait(FIRST, SOON);
    let of_one = |now: u64, then: u64| (now - then) as f64 / MESSAGES as f64;
    // Of a debug build, and of messages that come one by one, so that each pays for its own commits. On a machine that does
    // something else besides, more happens in between: the best of some rounds counts.
    let (mut blocks, mut bytes, mut sent) = (f64::MAX, f64::MAX, FIRST);
    for _ in 0..ROUNDS {
        let before = relay.so_far();
        send(&mut client, MESSAGES);
        sent += MESSAGES;
        sink.wait(sent, SOON);
        let after = relay.so_far();
        (blocks, bytes) = (blocks.min(of_one(after.0, before.0)), bytes.min(of_one(after.1, before.1)));
        println!("{blocks} allocations, {bytes} bytes for each message");
        if blocks <= MOST_BLOCKS && bytes <= MOST_BYTES {
            return;
        }
    }
    panic!("{blocks} allocations and {bytes} bytes for each message of 2 KB, at most {MOST_BLOCKS} and {MOST_BYTES}");
}

/// Allocations of a message, and their bytes.
const MOST_BLOCKS: f64 = 62.0;
const MOST_BYTES: f64 = 16_000.0;

/// Rounds at most until each number was as small as it may be.
const ROUNDS: usize = 8;

/// Which calls are counted, and how many of them a message may cost.
type Calling = (&'static str, fn(&Called) -> i64, f64);
const BUDGET: [Calling; 7] = [
    // Two flights of the client, one of replies from the host.
    ("receives", |c| c.receives, 3.2),
    ("sends", |c| c.sends, 3.2),
    // What was just accepted is in memory; the head of the log's index is read in each transaction, and
    // after each that a client is told of.
    ("reads of files", |c| c.file_reads, 3.6),
    // The pages of two small commits.
    ("writes of files", |c| c.file_writes, 17.0),
    // One for the message, one for its outcome, unless that waits for the next message's.
    ("syncs", |c| c.syncs, 2.1),
    // None: the time of a write, which is all that they add, is nothing that a queue is read with.
    ("syncs of the inode", |c| c.inode_syncs, 0.1),
    // The database, its log, the index and the lock before a commit, the first two after it.
    ("looks at files", |c| c.looks, 12.5),
];

/// Sent and received on connections that are kept, with the replies to a flight in one write. The
/// client pipelines, so it needs two flights; towards a host with CHUNKING one is enough.
#[test]
fn calls_of_a_message() {
    let (dir, port) = (TestDir::new(), Port::reserve());
    let sink = Sink::with(port.at(2), Options::offering(&CHUNKING));
    let calls = Calls::build(&dir);
    let setup = Setup::new(&dir).via("example", "example.test", sink.address, LIMITS);
    let mut daemon = setup.start();
    daemon.stop();
    daemon.environment = calls.environment();
    daemon.start();
    let mut client = daemon.client();
    let stored = |n: usize| {
        wait_for("the outcomes", SOON, || {
            let lines = std::fs::read_to_string(&daemon.log).ok()?;
            (lines.matches("\"delivered\"").count() == n).then_some(())
        });
    };
    send(&mut client, FIRST);
    stored(FIRST);
    // Where the machine is busy a flight comes in two pieces, or an outcome gets a commit of its own: that is no cost
    // of the message. What it costs is what the best of several rounds finds, each number by itself.
    let mut least = [f64::INFINITY; BUDGET.len()];
    for round in 1..=ROUNDS {
        let before = calls.so_far();
        send(&mut client, MESSAGES);
        stored(FIRST + round * MESSAGES);
        let after = calls.so_far();
        for (least, (_, slot, _)) in least.iter_mut().zip(BUDGET) {
            *least = least.min((slot(&after) - slot(&before)) as f64 / MESSAGES as f64);
        }
        if least.iter().zip(BUDGET).all(|(found, (_, _, most))| *found <= most) {
            break;
        }
    }
    for (found, (what, _, _)) in least.iter().zip(BUDGET) {
        println!("{what} for each message: {found}");
    }
    for (found, (what, _, most)) in least.iter().zip(BUDGET) {
        assert!(*found <= most, "{found} {what} for each message, where {most} are enough");
    }
}
