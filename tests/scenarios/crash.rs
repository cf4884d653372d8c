//! `kill -9` at any instant (invariant 6): mailweir under load is killed at random microseconds and
//! at named points of its code, over and over on one queue, and then every message is accounted for.
//! Some lives are told to take another configuration, good or refused, and die in the middle of it.
//!
//! - What got its `250` arrives. What got a 4xx, or was never sent, does not.
//! - It arrives once more than once only where a transaction was in flight at a kill: the last one
//!   of a connection that ended without QUIT.
//! - Each recipient that failed is in exactly one DSN, by its Message-ID, also where one DSN tells of
//!   several that failed in transactions of their own.
//! - The file is sound, as SQLite's own program sees it, and nothing of it is left over.
//!
//! `MAILWEIR_CRASH_CYCLES=1000 cargo test --test scenarios crash:: -- --nocapture` is the long run;
//! `MAILWEIR_CRASH_SEED` repeats the choices (not the scheduling) of another.
//! Kills while the file itself is made or brought to a newer version: `scenarios/migration.rs`.

#[path = "../crash/mod.rs"]
mod course;
use crate::support;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use course::account::Account;
use course::ledger::{Ledger, sender};
use course::life::Lives;
use course::plan::{Death, plan, shortest};
use support::daemon::Setup;
use support::sink::{Answer, Options, Sink};
use support::{Port, SOON, TestDir, program, run_ok, wait_for};

const SESSIONS: usize = 12;
/// Of the relay to the receiver: what may be in flight at a kill.
const CONNECTIONS: usize = 12;

#[test]
fn killed_at_any_moment_nothing_acknowledged_is_lost_and_nothing_is_done_twice() {
    let from_environment = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let seed = from_environment("MAILWEIR_CRASH_SEED").unwrap_or_else(|| fastrand::u64(..));
    let cycles = from_environment("MAILWEIR_CRASH_CYCLES").map_or(shortest(), |n| n as usize);
    println!("seed {seed}, {cycles} cycles");
    let mut random = fastrand::Rng::with_seed(seed);
    let (dir, port) = (TestDir::new(), Port::reserve());
    let options = Options {
        extensions: vec!["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "CHUNKING", "SIZE 60000000"],
        ..Options::script(|ask| match ask.verb {
            "RCPT" if ask.argument.starts_with("<nobody") => Answer::say("550 5.1.1 no such user"),
            _ => Answer::Yes,
        })
    };
    let sink = Sink::with(port.at(2), options);
    let limits =
        format!("connections = {CONNECTIONS}\nrate = []\nmessages_per_connection = 100\nrecipients_per_message = 1");
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
    let mut hits: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let deaths = plan(cycles, &mut random);
    let mut lives = Lives::new(daemon, random, port.at(3), sink.address);
    for death in deaths {
        let mut hit = lives.live_and_die(death);
        for _ in 0..3 {
            if !hit {
                // Nothing came by there, or not often enough: once more, at the first that does.
                let sooner = if let Death::Load(name, _) = death { Death::Load(name, 1) } else { death };
                hit = lives.live_and_die(sooner);
            }
        }
        let of = hits.entry(death.kind()).or_default();
        *of = (of.0 + 1, of.1 + usize::from(hit));
    }
    let mut daemon = lives.daemon;
    let took = began.elapsed();
    println!("killed at (asked, done): {hits:?}");
    daemon.start();
    // Over what the killed ones have left.
    daemon.command_ok(&["backup", &dir.join("copy.db").display().to_string()], b"");
    ledger.enough.store(true, Ordering::SeqCst);
    for sender in senders {
        sender.join().expect("a sender");
    }
    // Nothing waits any more, then everything that will arrive has arrived.
    wait_for("an empty queue", Duration::from_secs(120), || {
        let waiting = ["queued", "leased", "uncertain", "held"];
        thread::sleep(Duration::from_millis(50));
        let nothing_waits = || waiting.iter().all(|state| daemon.queue_list(&["--state", state]).is_empty());
        // A report that is owed comes to wait, so what is owed is looked at first.
        let told = daemon.command_ok(&["status", "--json"], b"");
        let nothing_owed = told.contains("\"owed\":0");
        (nothing_owed && nothing_waits()).then_some(())
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
        SELECT count(*) FROM owed;
        SELECT messages = (SELECT count(*) FROM message) AND failed = (SELECT count(*) FROM recipient)
            AND queued = 0 AND leased = 0 AND held = 0 AND uncertain = 0 AND owed = 0 FROM tally";
    let mut sqlite = Command::new(program("sqlite3"));
    sqlite.arg(dir.join("queue.db")).arg(sound);
    let output = run_ok(&mut sqlite, b"", SOON);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n0\n0\n0\n0\n1\n");
}
