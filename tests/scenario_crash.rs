//! `kill -9` at any instant (invariant 6): mailweir under load is killed at random microseconds and
//! at named points of its code, over and over on one queue, and then every message is accounted for.
//!
//! - What got its `250` arrives. What got a 4xx, or was never sent, does not.
//! - It arrives once more than once only where a transaction was in flight at a kill: the last one
//!   of a connection that ended without QUIT.
//! - What failed has exactly one DSN, by its Message-ID.
//! - The file is sound, as SQLite's own program sees it, and nothing of it is left over.
//!
//! `MAILWEIR_CRASH_CYCLES=1000 cargo test --test scenario_crash -- --nocapture` is the long run;
//! `MAILWEIR_CRASH_SEED` repeats the choices (not the scheduling) of another.

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::client::Client;
use support::daemon::{Daemon, Setup};
use support::mail::{header, message};
use support::sink::{Answer, Options, Received, Sink};
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

/// Points that mail passes, and how often at most it passes one before the kill.
const UNDER_LOAD: [(&str, u64); 15] = [
    ("accept.begin", 60),
    ("accept.done", 60),
    ("chunk.written", 3),
    ("writer.batch", 60),
    ("commit.work", 60),
    ("commit.before", 60),
    ("commit.after", 60),
    ("dot.before", 60),
    ("dot.after", 60),
    ("reply.read", 60),
    ("settle.planned", 60),
    ("settle.begin", 60),
    ("settle.done", 60),
    ("dsn.made", 6),
    ("dsn.written", 6),
];
/// Points of the start; each is the first thing of its kind that the process does.
const AT_START: [&str; 4] = ["recover", "commit.before", "commit.after", "ready"];
/// Points of the way from SIGTERM to the end.
const AT_END: [&str; 4] = ["drain.begin", "drain.done", "close.begin", "close.done"];

const SESSIONS: usize = 12;
/// Of the relay to the receiver: what may be in flight at a kill.
const CONNECTIONS: usize = 12;
/// Of so many messages, one has a body of two chunks, and one a recipient that does not exist.
const BIG: usize = 60;
const FAILING: usize = 10;

/// How a life of the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// So long after it was started.
    After(Duration),
    Load(&'static str, u64),
    Start(&'static str),
    End(&'static str),
}

impl Death {
    fn point(self) -> Option<(&'static str, u64)> {
        match self {
            Death::After(_) => None,
            Death::Load(name, count) => Some((name, count)),
            Death::Start(name) | Death::End(name) => Some((name, 1)),
        }
    }
}

/// Random moments and points in turn; every point once in as many cycles as there are points.
fn plan(cycles: usize, random: &mut fastrand::Rng) -> Vec<Death> {
    let points: Vec<Death> = UNDER_LOAD
        .iter()
        .map(|(name, most)| Death::Load(name, *most))
        .chain(AT_START.map(Death::Start))
        .chain(AT_END.map(Death::End))
        .collect();
    let mut deaths = Vec::new();
    for n in 0..cycles {
        deaths.push(match points.get(n / 2 % points.len()) {
            Some(Death::Load(name, most)) if n % 2 == 0 => Death::Load(name, random.u64(1..=*most)),
            Some(point) if n % 2 == 0 => *point,
            _ => Death::After(Duration::from_micros(random.u64(0..400_000))),
        });
    }
    deaths
}

/// What clients know.
#[derive(Default)]
struct Ledger {
    /// Numbers handed out; each try of a message has its own, so that a client's repetition is
    /// never taken for a duplicate of the relay.
    next: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
    /// Sent at least in part, and no final reply came.
    unanswered: Mutex<BTreeSet<String>>,
    enough: AtomicBool,
}

/// What is wrong with the `n`th message of a client, if anything: its recipients, and its size.
fn recipients(n: usize) -> &'static [&'static str] {
    match n % FAILING {
        3 if n % (2 * FAILING) == 3 => &["<nobody@example.test>"],
        3 => &["<somebody@example.test>", "<nobody@example.test>"],
        _ => &["<somebody@example.test>"],
    }
}

fn number(subject: &str) -> usize {
    subject[1..].parse().expect("a subject of this test")
}

/// One session after another until the test has enough. A session ends as its connection ends, and
/// another is opened as soon as the relay is back.
fn sender(ledger: &Ledger, server: SocketAddr) {
    while !ledger.enough.load(Ordering::SeqCst) {
        let _ = session(ledger, server);
        thread::sleep(Duration::from_millis(5));
    }
}

fn session(ledger: &Ledger, server: SocketAddr) -> std::io::Result<()> {
    let mut client = Client::open(server)?;
    client.read()?;
    client.try_command("EHLO client.test")?;
    while !ledger.enough.load(Ordering::SeqCst) {
        let n = ledger.next.fetch_add(1, Ordering::SeqCst);
        let subject = format!("m{n:07}");
        let mut content = message(&subject);
        if n % BIG == 7 {
            content.extend_from_slice("a line of a big message\r\n".repeat(11_000).as_bytes());
        }
        match client.try_send("<sender@sender.test>", recipients(n), &content) {
            Ok(reply) if reply.code == 250 => ledger.acknowledged.lock().expect("the ledger").push(subject),
            // 4xx: the client keeps it, and would send it again.
            Ok(reply) => assert!((400..500).contains(&reply.code), "{}", reply.text()),
            Err(e) => {
                ledger.unanswered.lock().expect("the ledger").insert(subject);
                return Err(e);
            }
        }
    }
    let _ = client.try_command("QUIT");
    Ok(())
}

/// One life of the daemon. True: it died where it should.
fn live_and_die(daemon: &mut Daemon, death: Death) -> bool {
    if let Some((name, count)) = death.point() {
        daemon.environment = vec![("MAILWEIR_CRASH_AT", format!("{name}:{count}"))];
    }
    daemon.launch();
    daemon.environment.clear();
    let hit = match death {
        Death::After(moment) => {
            thread::sleep(moment);
            daemon.kill();
            return true;
        }
        Death::End(_) => {
            if let Some(status) = daemon.wait_ready() {
                panic!("mailweir ended at start: {status}");
            }
            thread::sleep(Duration::from_millis(50));
            daemon.terminate();
            daemon.wait_exit(Duration::from_secs(40))
        }
        Death::Start(_) | Death::Load(..) => {
            let end = Instant::now() + Duration::from_secs(10);
            loop {
                match daemon.ended() {
                    Some(status) => break status,
                    None if Instant::now() > end => {
                        daemon.kill();
                        return false;
                    }
                    None => thread::sleep(Duration::from_millis(1)),
                }
            }
        }
    };
    assert!(hit.signal() == Some(9) || death.point().is_some_and(|_| hit.code() == Some(0)), "{death:?}: {hit}");
    hit.signal() == Some(9)
}

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_done_twice() {
    let from_environment = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seed = from_environment("MAILWEIR_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let points = UNDER_LOAD.len() + AT_START.len() + AT_END.len();
    let cycles = from_environment("MAILWEIR_CRASH_CYCLES").map_or(2 * points, |n| n as usize);
    println!("seed {seed}, {cycles} cycles");
    let (dir, port) = (TestDir::new(), Port::reserve());
    let options = Options {
        extensions: vec!["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE 60000000"],
        ..Options::script(|ask| match ask.verb {
            "RCPT" if ask.argument.starts_with("<nobody") => Answer::say("550 5.1.1 no such user"),
            _ => Answer::Yes,
        })
    };
    let sink = Sink::with(port.at(2), options);
    let limits = format!("connections = {CONNECTIONS}\nrate = []\nmessages_per_connection = 100");
    let mut daemon = Setup::new(&dir)
        .via("example", "example.test", sink.address, &limits)
        .via("home", "sender.test", sink.address, &limits)
        .with("[retry]\nfirst = \"1s\"\nmax = \"2s\"")
        .start();
    daemon.stop();

    let began = Instant::now();
    let ledger = Arc::new(Ledger::default());
    let senders: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (ledger, server) = (ledger.clone(), daemon.smtp);
            thread::spawn(move || sender(&ledger, server))
        })
        .collect();
    let mut hits: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for death in plan(cycles, &mut fastrand::Rng::with_seed(seed)) {
        let mut hit = live_and_die(&mut daemon, death);
        for _ in 0..3 {
            if let (false, Some((name, _))) = (hit, death.point()) {
                // Nothing came by there, or not often enough: once more, at the first that does.
                hit = live_and_die(&mut daemon, if let Death::Load(..) = death { Death::Load(name, 1) } else { death });
            }
        }
        let of = hits.entry(death.point().map_or("a random moment", |(name, _)| name)).or_default();
        *of = (of.0 + 1, of.1 + usize::from(hit));
    }
    let took = began.elapsed();
    println!("killed at (asked, done): {hits:?}");
    daemon.start();
    ledger.enough.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("a sender");
    }
    // Nothing waits any more, then everything that will arrive has arrived.
    wait_for("an empty queue", Duration::from_secs(120), || {
        let waiting = ["queued", "leased", "uncertain", "held"];
        thread::sleep(Duration::from_millis(50));
        waiting.iter().all(|state| daemon.queue_list(&["--state", state]).is_empty()).then_some(())
    });
    daemon.stop();

    let account = Account::of(&ledger, &sink);
    println!("{cycles} kills in {took:?}: {account:?}");
    account.check();
    sink.assert_legal();
    for (name, (asked, done)) in &hits {
        assert!(*done > 0 && 10 * done >= 9 * asked, "{name}: {done} of {asked} kills took place");
    }

    // And the file is sound, as SQLite's own program sees it.
    let sound =
        "PRAGMA integrity_check; SELECT count(*) FROM incoming; SELECT count(*) FROM recipient WHERE state <> 3;
        SELECT count(*) FROM chunk WHERE message NOT IN (SELECT id FROM message);
        SELECT messages = (SELECT count(*) FROM message) AND failed = (SELECT count(*) FROM recipient)
            AND queued = 0 AND leased = 0 AND held = 0 AND uncertain = 0 FROM tally";
    let mut sqlite = Command::new(program("sqlite3"));
    sqlite.arg(dir.join("queue.db")).arg(sound);
    let output = run_ok(&mut sqlite, b"", SOON);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n0\n0\n0\n1\n");
}

/// What became of every message.
#[derive(Debug, Default)]
struct Account {
    acknowledged: usize,
    arrived: usize,
    reports: usize,
    lost: Vec<String>,
    without_report: Vec<String>,
    reported_twice: Vec<String>,
    /// Arrived though the client was told to keep it, or to somebody it was not for.
    unasked: Vec<String>,
    /// Arrived though the client heard nothing: allowed.
    unanswered_that_arrived: usize,
    /// Transactions that were in flight at a kill, and done again: allowed.
    repeated_in_flight: usize,
    repeated: Vec<String>,
}

impl Account {
    fn of(ledger: &Ledger, sink: &Sink) -> Account {
        let acknowledged: BTreeSet<String> = ledger.acknowledged.lock().expect("the ledger").iter().cloned().collect();
        let unanswered = ledger.unanswered.lock().expect("the ledger");
        let connections = sink.connections();
        let in_flight = |m: &Received| {
            let connection = &connections[m.connection];
            !connection.quit && connection.transactions == m.transaction
        };
        // What arrived, by its Message-ID; and the Message-IDs of the reports about each message.
        let mut arrivals: HashMap<String, Vec<Received>> = HashMap::new();
        let mut reports: HashMap<String, BTreeSet<String>> = HashMap::new();
        let mut account = Account { acknowledged: acknowledged.len(), ..Account::default() };
        let mut arrived: BTreeSet<String> = BTreeSet::new();
        for m in sink.messages() {
            let id = header(&m.content, "Message-ID").expect("a Message-ID");
            if m.from.starts_with("<>") {
                reports.entry(reported(&m)).or_default().insert(id.clone());
            } else {
                if m.to != ["<somebody@example.test>"] {
                    account.unasked.push(format!("{} to {:?}", m.subject(), m.to));
                }
                arrived.insert(m.subject());
            }
            arrivals.entry(id).or_default().push(m);
        }
        for (id, list) in &arrivals {
            let known = list.iter().filter(|m| !in_flight(m)).count();
            account.repeated_in_flight += list.len() - 1;
            if known > 1 {
                account.repeated.push(format!("{id}: {known} times"));
            }
        }
        for subject in &acknowledged {
            let to = recipients(number(subject));
            if to.contains(&"<somebody@example.test>") && !arrived.contains(subject) {
                account.lost.push(subject.clone());
            }
            if to.contains(&"<nobody@example.test>") && !reports.contains_key(subject) {
                account.without_report.push(subject.clone());
            }
        }
        for (subject, ids) in &reports {
            if ids.len() > 1 {
                account.reported_twice.push(subject.clone());
            }
            if !recipients(number(subject)).contains(&"<nobody@example.test>") {
                account.unasked.push(format!("a report about {subject}"));
            }
        }
        for subject in arrived.iter().chain(reports.keys()) {
            if !acknowledged.contains(subject) {
                match unanswered.contains(subject) {
                    true => account.unanswered_that_arrived += 1,
                    false => account.unasked.push(subject.clone()),
                }
            }
        }
        (account.arrived, account.reports) = (arrived.len(), reports.len());
        account
    }

    fn check(&self) {
        assert!(self.acknowledged > 500 && self.reports > 10, "too little to tell anything");
        assert!(self.lost.is_empty(), "acknowledged and lost: {:?}", self.lost);
        assert!(self.without_report.is_empty(), "failed without a report: {:?}", self.without_report);
        assert!(self.reported_twice.is_empty(), "reported more than once: {:?}", self.reported_twice);
        assert!(self.repeated.is_empty(), "done again though not in flight: {:?}", self.repeated);
        assert!(self.unasked.is_empty(), "not asked for: {:?}", self.unasked);
    }
}

/// The subject of the message that a report is about: in the header section that it returns.
fn reported(report: &Received) -> String {
    let text = String::from_utf8_lossy(&report.content);
    let returned = text.rsplit("\r\nSubject: ").next().expect("a subject");
    returned.split("\r\n").next().expect("a line").to_owned()
}
