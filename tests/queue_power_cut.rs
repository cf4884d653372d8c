//! The power fails (invariant 1): a real workload on the real SQLite store, cut at every sync, with
//! everything that was not synced dropped, kept, or kept in part.
//!
//! A child process works on the store under a shim that writes a journal of every change of the
//! disk, every sync, and every promise that the store made. From that journal a model of the disk
//! makes the images that a power cut could leave. Each is opened, and must hold what was promised
//! until then, nothing that was never asked for, and nothing by halves; then it must serve on. Some
//! images are opened under the shim again, and the power fails in the middle of that, too.
//!
//! The workload has four tasks (so that commits carry several operations), bodies in one and in two
//! chunks, settlements with and without a DSN, operators' commands, quota records, checkpoints of
//! the log every 512 KiB, a close and an open in good order, times in which every fsync fails (and
//! what it was for may be lost for good, as on Linux), and a process that ends in such a time.
//!
//! `MAILWEIR_POWER_CUTS=all cargo test --test queue_power_cut -- --nocapture` takes every kind of
//! image at every sync; without it, each sync has three. `MAILWEIR_POWER_SEED` repeats the choices.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;
mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use contract::debts::owed;
use contract::{T0, deferred, delivered, failed, key, letter, list};
use mailweir::clock::Clock;
use mailweir::mail::{CHUNK, QueueId};
use mailweir::queue::sqlite::{Options, SqliteQueue};
use mailweir::queue::{Debts, Desk, Filter, Leases, Memory, Operation, QueueError, Settlement, Spool, Upkeep, Verdict};
use rusqlite::Connection;
use support::power::{Disk, Image, Unsynced, write_image};
use support::shim::{EIO, Shim, Step, journal};
use support::{TestDir, run_ok};

/// What the child is to do, where, and its choices.
const ROLE: &str = "MAILWEIR_TEST_ROLE";
const ROOT: &str = "SHIM_ROOT";
const SEED: &str = "MAILWEIR_TEST_SEED";
/// Below the root; two directories that the store has to make.
const STORE: &str = "var/spool/queue.db";

const TASKS: u64 = 4;
/// Rounds of each task: before the store is closed and opened, after that, twice while the disk
/// fails for a time, while it fails until the process is gone, and in the next process.
const ROUNDS: [usize; 6] = [8, 3, 2, 2, 1, 4];
/// Of so many images, one is opened under the shim and cut again.
const AGAIN: usize = 60;

fn options() -> Options {
    Options { log_pages: 64, ..Options::default() }
}

fn open(root: &Path) -> Result<Arc<SqliteQueue>, QueueError> {
    SqliteQueue::open_with(&root.join(STORE), Clock::System, options())
}

fn body(id: QueueId, size: usize) -> Vec<u8> {
    vec![b'a' + (id.0 % 26) as u8; size]
}

// ---- The child ----

/// Tells the journal what is begun and what was promised, a line a write.
struct Teller(Mutex<File>);

impl Teller {
    fn say(&self, line: &str) {
        self.0.lock().unwrap().write_all(line.as_bytes()).unwrap();
    }
}

/// A message with what follows from it, or a named value: what changes as a whole.
struct Unit<'a> {
    name: String,
    teller: &'a Teller,
}

impl Unit<'_> {
    /// One call that leads to `state`: the rows it leaves, or `-`.
    async fn step<F: Future<Output = Result<(), QueueError>>>(&self, state: &str, call: impl FnMut() -> F) {
        self.teller.say(&format!("begin {} {state}", self.name));
        until_done(call).await;
        self.teller.say(&format!("done {}", self.name));
    }
}

/// An error changes nothing: what failed for want of a disk can be asked for again, as it is.
async fn until_done<F: Future<Output = Result<(), QueueError>>>(mut call: impl FnMut() -> F) {
    for _ in 0..10_000 {
        match call().await {
            Ok(()) => return,
            Err(QueueError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(2)).await,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk never healed");
}

/// The life of one message up to some point of it.
async fn message(queue: &SqliteQueue, teller: &Teller, name: String, n: usize, random: &mut fastrand::Rng) {
    let (id, dsn) = (queue.next_id(T0), queue.next_id(T0));
    let size = if n % 6 == 5 { CHUNK + 99 } else { random.usize(1..9000) };
    let to = [("a@x.example", name.as_str()), ("b@x.example", name.as_str())];
    let post = letter("s@here.example", "x").to(&to).leased().body(body(id, size));
    let unit = Unit { name: name.clone(), teller };
    for (index, chunk) in (1u32..).zip(post.body.chunks(CHUNK).skip(1)) {
        until_done(|| queue.spill(id, index, Bytes::copy_from_slice(chunk))).await;
    }
    unit.step(&format!("{id}/0=queued*0,{id}/1=queued*0"), || queue.accept(post.build(id))).await;
    let lane = name.as_str();
    let uncertain = |k| {
        let Settlement { key, verdict } = deferred(k, T0, lane);
        let Verdict::Deferred { due, reason, counts, warned, lane, .. } = verdict else { unreachable!() };
        Settlement { key, verdict: Verdict::Deferred { due, reason, counts, uncertain: true, warned, lane } }
    };
    match random.u32(0..5) {
        0 => {
            let settlements = vec![delivered(key(id, 0)), delivered(key(id, 1))];
            unit.step("-", || queue.settle(settlements.clone(), vec![])).await;
        }
        1 => {
            let settlements = vec![delivered(key(id, 0)), uncertain(key(id, 1))];
            unit.step(&format!("{id}/1=uncertain*1"), || queue.settle(settlements.clone(), vec![])).await;
            until_done(async || queue.claim(&lane.into(), T0, 5).await.map(|leased| assert_eq!(leased.len(), 1))).await;
            unit.step("-", || queue.settle(vec![delivered(key(id, 1))], vec![])).await;
        }
        2 => {
            // A failure and the debt of a report are there together; the DSN and the end of the debt.
            let report = letter("", "dsn").to(&[("s@here.example", "dsn")]).body(body(dsn, 2000)).build(dsn);
            let settlements = vec![failed(key(id, 0), "550 no"), delivered(key(id, 1))];
            let debt = owed(key(id, 0), T0);
            let state = format!("{id}/0=failed*0,{id}/owed");
            unit.step(&state, || queue.settle(settlements.clone(), vec![debt.clone()])).await;
            let told = vec![(debt.key, debt.due)];
            let state = format!("{id}/0=failed*0,{dsn}/0=queued*0");
            unit.step(&state, || queue.report(told.clone(), Some(report.clone()))).await;
            let only = [key(id, 0)];
            let retry = async || queue.operate(Operation::Retry, &only, &[], T0).await.map(|n| assert_eq!(n, 1));
            unit.step(&format!("{id}/0=queued*0,{dsn}/0=queued*0"), retry).await;
        }
        3 => {
            let settlements = vec![deferred(key(id, 0), T0, lane), deferred(key(id, 1), T0, lane)];
            let state = format!("{id}/0=queued*1,{id}/1=queued*1");
            unit.step(&state, || queue.settle(settlements.clone(), vec![])).await;
            let only = [key(id, 0)];
            let hold = async || queue.operate(Operation::Hold, &only, &[], T0).await.map(|n| assert_eq!(n, 1));
            unit.step(&format!("{id}/0=held*1,{id}/1=queued*1"), hold).await;
        }
        _ => {}
    }
}

/// Each task's messages and values of a phase.
fn tasks(queue: &Arc<SqliteQueue>, teller: &Arc<Teller>, phase: usize, seed: u64) -> tokio::task::JoinSet<()> {
    let mut set = tokio::task::JoinSet::new();
    for t in 0..TASKS {
        let (queue, teller) = (queue.clone(), teller.clone());
        set.spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed ^ t << 8 ^ (phase as u64) << 16);
            for n in 0..ROUNDS[phase] {
                message(&queue, &teller, format!("m{phase}-{t}-{n}"), n, &mut random).await;
                let (value, name) = (format!("{phase}.{n}"), format!("value{t}"));
                let unit = Unit { name: name.clone(), teller: &teller };
                let entries = vec![(name, Some(Bytes::from(value.clone())))];
                unit.step(&value, || queue.remember(entries.clone())).await;
            }
        });
    }
    set
}

async fn rounds(queue: &Arc<SqliteQueue>, teller: &Arc<Teller>, phase: usize, seed: u64) {
    tasks(queue, teller, phase, seed).join_all().await;
}

/// The faults of the disk, from inside the process that suffers from them.
struct Control(File);

impl Control {
    fn fail_syncs(&self, error: i64) {
        self.0.write_all_at(&error.to_ne_bytes(), 0).unwrap();
    }

    /// Waits for so many more syncs that failed.
    async fn failures(&self, n: i64) {
        let failed = || {
            let mut value = [0; 8];
            self.0.read_exact_at(&mut value, 5 * 8).unwrap();
            i64::from_ne_bytes(value)
        };
        let enough = failed() + n;
        while failed() < enough {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn work(root: &Path, teller: &Arc<Teller>, seed: u64) {
    let control = std::env::var("SHIM_CONTROL").unwrap();
    let control = Control(File::options().read(true).write(true).open(control).unwrap());
    let queue = open(root).unwrap();
    rounds(&queue, teller, 0, seed).await;
    queue.close().await;
    let queue = open(root).unwrap();
    rounds(&queue, teller, 1, seed).await;
    // The disk fails, and heals, and what failed is asked for again.
    for (phase, failures) in [(2, 7), (3, 20)] {
        control.fail_syncs(EIO);
        let tasks = tasks(&queue, teller, phase, seed);
        control.failures(failures).await;
        control.fail_syncs(0);
        tasks.join_all().await;
    }
    // It fails once more, and the process is gone before it heals.
    control.fail_syncs(EIO);
    let tasks = tasks(&queue, teller, 4, seed);
    control.failures(5).await;
    drop(tasks);
    std::process::exit(0);
}

/// Another process, on what the one before left on the disk and in memory.
async fn resume(root: &Path, teller: &Arc<Teller>, seed: u64) {
    let queue = open(root).unwrap();
    rounds(&queue, teller, 5, seed).await;
    std::process::exit(0);
}

async fn recover(root: &Path, teller: &Arc<Teller>) {
    let queue = open(root).unwrap();
    let mut random = fastrand::Rng::with_seed(0);
    message(&queue, teller, "after".into(), 1, &mut random).await;
    queue.close().await;
    std::process::exit(0);
}

#[test]
#[ignore = "a process of its own for the other test"]
fn child() {
    let (Ok(role), Ok(root)) = (std::env::var(ROLE), std::env::var(ROOT)) else { return };
    let notes = File::options().create(true).append(true).open(Path::new(&root).join("notes")).unwrap();
    let teller = Arc::new(Teller(Mutex::new(notes)));
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role.as_str() {
        "work" => runtime.block_on(work(Path::new(&root), &teller, seed)),
        "resume" => runtime.block_on(resume(Path::new(&root), &teller, seed)),
        "recover" => runtime.block_on(recover(Path::new(&root), &teller)),
        other => panic!("no role {other}"),
    }
}

// ---- What was promised ----

/// The states that a unit goes through; the first is that it is not there.
#[derive(Clone)]
struct Chain {
    states: Vec<String>,
    /// Which of them was promised last.
    done: usize,
}

#[derive(Clone, Default)]
struct Promises {
    units: BTreeMap<String, Chain>,
    /// Whose each queue id is.
    of: BTreeMap<String, String>,
    made: usize,
}

impl Promises {
    fn hear(&mut self, note: &str) {
        let words: Vec<&str> = note.split(' ').collect();
        match words[..] {
            ["begin", name, state] => {
                let none = || Chain { states: vec!["-".into()], done: 0 };
                self.units.entry(name.into()).or_insert_with(none).states.push(state.into());
                for row in state.split(',') {
                    if let Some((id, _)) = row.split_once('/') {
                        self.of.insert(id.into(), name.into());
                    }
                }
            }
            ["done", name] => {
                let chain = self.units.get_mut(name).expect("begun before");
                chain.done = chain.states.len() - 1;
                self.made += 1;
            }
            _ => panic!("not a note: {note}"),
        }
    }

    /// Whether what was found may be there now.
    fn check(&self, found: &BTreeMap<String, String>) -> Result<(), String> {
        for (name, chain) in &self.units {
            let state = found.get(name).map_or("-", String::as_str);
            let allowed = &chain.states[chain.done..];
            if !allowed.iter().any(|s| s == state) {
                return Err(format!("{name} is `{state}`, not one of {allowed:?}"));
            }
        }
        match found.keys().find(|name| !self.units.contains_key(*name)) {
            Some(name) => Err(format!("{name} was never asked for")),
            None => Ok(()),
        }
    }
}

/// Opens what a power cut left, looks at all of it, and goes on with it.
async fn inspect(root: &Path, promises: &Promises) -> Result<(), String> {
    let text = |e: QueueError| e.to_string();
    let queue = open(root).map_err(text)?;
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for row in list(&*queue, &Filter::default(), 500).await {
        let id: QueueId = row.id.parse().expect("a queue id");
        let unit = promises.of.get(&row.id).ok_or(format!("{} was never asked for", row.id))?;
        let state = found.entry(unit.clone()).or_default();
        let comma = if state.is_empty() { "" } else { "," };
        state.push_str(&format!("{comma}{}/{}={}*{}", row.id, row.index, row.state, row.attempts));
        let mut stored = Vec::new();
        for index in 0..(row.size as usize).div_ceil(CHUNK).max(1) as u32 {
            stored.extend_from_slice(&queue.chunk(id, index).await.map_err(text)?.ok_or("a chunk is missing")?);
        }
        if stored != body(id, row.size as usize) {
            return Err(format!("the body of {id} is not what was stored"));
        }
    }
    for owing in queue.owing(None, 500).await.map_err(text)? {
        let debt = queue.owed(owing.id, 10).await.map_err(text)?.ok_or("a debt without items")?;
        let unit = promises.of.get(&owing.id.to_string()).ok_or(format!("{} never owed anything", owing.id))?;
        let state = found.entry(unit.clone()).or_default();
        debt.items.iter().for_each(|item| state.push_str(&format!(",{}/owed", item.key.id)));
    }
    for (name, value) in queue.recall("value").await.map_err(text)? {
        found.insert(name, String::from_utf8_lossy(&value).into_owned());
    }
    promises.check(&found)?;
    // And it serves.
    let post = letter("s@here.example", "later").leased();
    let id = queue.next_id(T0);
    queue.accept(post.build(id)).await.map_err(text)?;
    queue.settle(vec![delivered(key(id, 0))], vec![]).await.map_err(text)?;
    queue.close().await;
    let conn = Connection::open(root.join(STORE)).map_err(|e| e.to_string())?;
    let sound: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).map_err(|e| e.to_string())?;
    let left: i64 = conn
        .query_row(
            "SELECT (SELECT count(*) FROM incoming) + (SELECT count(*) FROM recipient WHERE state = 1)
                + (SELECT count(*) FROM chunk WHERE message NOT IN (SELECT id FROM message))
                + (SELECT count(*) FROM recipient WHERE message NOT IN (SELECT id FROM message))
                + (SELECT count(*) FROM owed WHERE message NOT IN (SELECT id FROM message))
                + (SELECT owed <> (SELECT count(*) FROM owed) FROM tally)
                + (SELECT messages <> (SELECT count(*) FROM message) FROM tally)
                + (SELECT queued <> (SELECT count(*) FROM recipient WHERE state = 0) FROM tally)
                + (SELECT uncertain <> (SELECT count(*) FROM recipient WHERE state = 4) FROM tally)",
            [],
            |r| r.get(0),
        )
        .map_err(|e| e.to_string())?;
    if sound != "ok" || left != 0 {
        return Err(format!("integrity: {sound}; left over or miscounted: {left}"));
    }
    Ok(())
}

// ---- The cuts ----

/// A directory in memory, where syncs of the test itself cost nothing.
fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let at = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("mailweir-power-").tempdir_in(at).unwrap()
}

fn run_child(shim: &Shim, role: &str, journal: &Path, seed: u64) {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"]);
    child.envs(shim.environment()).env(ROLE, role).env(SEED, seed.to_string()).env("SHIM_JOURNAL", journal);
    run_ok(&mut child, b"", Duration::from_secs(120));
}

struct Cutter {
    runtime: tokio::runtime::Runtime,
    random: fastrand::Rng,
    all: bool,
    dir: TestDir,
    images: usize,
    again: usize,
    syncs_again: usize,
}

impl Cutter {
    /// Lets the power fail before and after every sync of a journal, on a disk that was `base`.
    /// Returns how many syncs there were, and how many promises.
    fn cut_everywhere(&mut self, base: &Image, steps: &[Step], mut promises: Promises, deep: bool) -> (usize, usize) {
        let mut disk = Disk::from_image(base);
        let mut syncs = 0;
        for (at, step) in steps.iter().enumerate() {
            if let Step::Note(note) = step {
                promises.hear(note);
            }
            if matches!(step, Step::Sync(_) | Step::SyncFailed(_)) {
                syncs += 1;
                let torn = [Unsynced::Torn(512), Unsynced::Torn(4096), Unsynced::Kept];
                let kinds = if self.all {
                    vec![Unsynced::Dropped, torn[0], torn[1], torn[2]]
                } else {
                    vec![Unsynced::Dropped, torn[self.random.usize(..3)]]
                };
                for kind in kinds {
                    self.one(&disk, kind, &promises, at, deep);
                }
                disk.apply(step, &mut self.random);
                self.one(&disk, Unsynced::Dropped, &promises, at + 1, deep);
            } else {
                disk.apply(step, &mut self.random);
            }
        }
        self.one(&disk, Unsynced::Dropped, &promises, steps.len(), deep);
        (syncs, promises.made)
    }

    fn one(&mut self, disk: &Disk, kind: Unsynced, promises: &Promises, at: usize, deep: bool) {
        let image = disk.cut(kind, &mut self.random);
        self.images += 1;
        let root = scratch();
        write_image(&image, root.path());
        if let Err(e) = self.runtime.block_on(inspect(root.path(), promises)) {
            let kept = root.keep();
            panic!("power cut at step {at}, unsynced {kind:?}: {e}\nthe store is in {}", kept.display());
        }
        drop(root);
        if deep && self.images.is_multiple_of(AGAIN) {
            self.again += 1;
            let root = scratch();
            write_image(&image, root.path());
            let shim = Shim::build(&self.dir, root.path());
            let log: PathBuf = self.dir.join(&format!("journal-{}", self.images));
            run_child(&shim, "recover", &log, 0);
            let steps = journal(&log, root.path());
            std::fs::remove_file(&log).unwrap();
            let (syncs, made) = self.cut_everywhere(&image, &steps, promises.clone(), false);
            assert!(made > promises.made, "the recovered store promised something");
            self.syncs_again += syncs;
        }
    }
}

#[test]
fn after_a_power_cut_at_any_sync_everything_promised_is_there() {
    let seed = std::env::var("MAILWEIR_POWER_SEED").ok().and_then(|n| n.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let all = std::env::var("MAILWEIR_POWER_CUTS").is_ok_and(|all| all == "all");
    println!("seed {seed}, all {all}");
    let began = Instant::now();
    let dir = TestDir::new();
    let root = dir.subdir("disk");
    let shim = Shim::build(&dir, &root);
    let log = dir.join("journal");
    run_child(&shim, "work", &log, seed);
    shim.fail_syncs(0);
    run_child(&shim, "resume", &log, seed);
    let steps = journal(&log, &root);
    let failed = steps.iter().filter(|s| matches!(s, Step::SyncFailed(_))).count();
    let merges = steps.iter().filter(|s| matches!(s, Step::Sync(path) if path == STORE)).count();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let random = fastrand::Rng::with_seed(seed);
    let mut cutter = Cutter { runtime, random, all, dir, images: 0, again: 0, syncs_again: 0 };
    let (syncs, promises) = cutter.cut_everywhere(&Image::new(), &steps, Promises::default(), true);
    println!(
        "{syncs} syncs ({failed} of them failed, {merges} of the database file), {promises} promises; {} images, \
         {} of them cut again at {} syncs of their recovery; {:?}",
        cutter.images,
        cutter.again,
        cutter.syncs_again,
        began.elapsed()
    );
    assert!(syncs > 100 && promises > 100 && merges > 3, "the workload did too little");
    assert!(failed > 3 && cutter.again > 3, "not everything was tried");
}
