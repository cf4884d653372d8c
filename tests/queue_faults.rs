//! What goes wrong around the SQLite store, and what the relay hears of it: a clear error, nothing
//! lost, and service again once the cause is gone.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use contract::{T0, body, deferred, delivered, key, letter, list};
use mailweir::clock::Clock;
use mailweir::mail::CHUNK;
use mailweir::queue::sqlite::{Options, SqliteQueue};
use mailweir::queue::{Counts, Desk, Filter, Lanes, Leases, Operation, QueueError, Spool, Upkeep};
use rusqlite::Connection;

/// Tells the child what to do, and with which file.
const ROLE: &str = "MAILWEIR_TEST_ROLE";
const STORE: &str = "MAILWEIR_TEST_STORE";

fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("var/queue.db");
    (dir, path)
}

fn open(path: &Path) -> Result<Arc<SqliteQueue>, QueueError> {
    SqliteQueue::open(path, Clock::System)
}

fn refused(path: &Path) -> QueueError {
    open(path).err().expect("opening is refused")
}

#[tokio::test]
async fn files_are_for_this_user_only() {
    let (_dir, path) = store();
    let queue = open(&path).unwrap();
    letter("a@here.example", "x").post(&*queue).await;
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    let mut seen = 0;
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        let file = file.unwrap().path();
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        seen += 1;
    }
    assert_eq!(seen, 4, "database, log, its index, lock");
}

#[tokio::test]
async fn a_second_mailweir_on_the_same_file_is_refused_by_name() {
    let (dir, path) = store();
    let queue = open(&path).unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(path.parent().unwrap(), &link).unwrap();
    for name in [&path, &link.join("queue.db")] {
        let e = refused(name);
        assert!(matches!(&e, QueueError::InUse(_)), "{e}");
        assert!(e.to_string().contains(&format!("process {}", std::process::id())), "{e}");
    }
    assert!(matches!(SqliteQueue::open_for_inspection(&path), Err(QueueError::InUse(_))));
    // And the refused attempts did not take the first one's locks away.
    let id = letter("a@here.example", "x").post(&*queue).await;
    queue.close().await;
    let queue = SqliteQueue::open_for_inspection(&path).unwrap();
    assert!(queue.chunk(id, 0).await.unwrap().is_some());
    let missing = SqliteQueue::open_for_inspection(&dir.path().join("none.db"));
    assert!(matches!(missing, Err(QueueError::Unavailable(_))));
    assert!(!dir.path().join("none.db").exists(), "looking does not create");
}

#[tokio::test]
async fn one_bad_message_does_not_fail_its_neighbours() {
    let (_dir, path) = store();
    let queue = open(&path).unwrap();
    let taken = letter("a@here.example", "x").post(&*queue).await;
    let mut calls = Vec::new();
    for n in 0..60 {
        let id = if n % 6 == 3 { taken } else { queue.next_id(T0) };
        let (queue, post) = (Arc::clone(&queue), letter("a@here.example", "x").build(id));
        calls.push((n % 6 == 3, tokio::spawn(async move { queue.accept(post).await })));
    }
    for (bad, call) in calls {
        let result = call.await.unwrap();
        assert_eq!(matches!(result, Err(QueueError::Invalid(_))), bad, "{result:?}");
        assert_eq!(result.is_ok(), !bad);
    }
    assert_eq!(queue.counts().await.unwrap(), Counts { messages: 51, queued: 51, ..Counts::default() });
}

#[tokio::test]
async fn a_full_store_refuses_loses_nothing_and_heals() {
    let (_dir, path) = store();
    let options = Options { max_bytes: Some(2 << 20), ..Options::default() };
    let queue = SqliteQueue::open_with(&path, Clock::System, options).unwrap();
    let post = letter("a@here.example", "x").body(vec![b'x'; 100_000]);
    let mut stored = Vec::new();
    let error = loop {
        let id = queue.next_id(T0);
        match queue.accept(post.build(id)).await {
            Ok(()) => stored.push(id),
            Err(e) => break e,
        }
        assert!(stored.len() < 100, "the limit holds");
    };
    assert!(matches!(error, QueueError::Full(_)), "{error}");
    assert!(stored.len() > 10);
    assert_eq!(queue.counts().await.unwrap().messages, stored.len() as u64);

    // What is in still goes out, which makes room.
    let leased = queue.claim(&"x".into(), T0, 5).await.unwrap();
    assert_eq!(leased.len(), 5);
    assert_eq!(body(&*queue, &leased[0].message).await.len(), 100_000);
    queue.settle(leased.iter().map(|l| delivered(l.key)).collect(), vec![]).await.unwrap();
    for _ in 0..4 {
        post.post(&*queue).await;
    }
    assert_eq!(list(&*queue, &Filter::default(), 100).await.len(), stored.len() - 1);
}

#[tokio::test]
async fn a_store_locked_by_another_program_is_unavailable_then_heals() {
    let (_dir, path) = store();
    let queue = open(&path).unwrap();
    let first = letter("a@here.example", "x").post(&*queue).await;
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let second = letter("a@here.example", "x").build(queue.next_id(T0));
    let refused = queue.accept(second.clone()).await;
    assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
    assert!(queue.chunk(first, 0).await.unwrap().is_some(), "reading goes on");
    assert_eq!(queue.counts().await.unwrap().messages, 1);
    foreign.execute_batch("ROLLBACK").unwrap();
    queue.accept(second).await.unwrap();
    assert_eq!(queue.counts().await.unwrap().messages, 2);

    queue.close().await;
    foreign.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert!(matches!(refused_text(&path), (QueueError::Unavailable(_), text) if text.contains("queue.db")));
    foreign.execute_batch("ROLLBACK").unwrap();
    assert_eq!(open(&path).unwrap().counts().await.unwrap().messages, 2);
}

fn refused_text(path: &Path) -> (QueueError, String) {
    let e = refused(path);
    let text = e.to_string();
    (e, text)
}

#[tokio::test]
async fn what_is_not_a_queue_is_refused() {
    let (dir, path) = store();
    let queue = open(&path).unwrap();
    for n in 0..200 {
        letter(&format!("a{n}@here.example"), "x").body(vec![b'x'; 5000]).post(&*queue).await;
    }
    queue.close().await;
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 1_000_000);

    let cases: [(&str, Vec<u8>, &str); 4] = [
        ("text.db", b"this is not a database, but long enough to be looked at as one ".repeat(20), "not a database"),
        ("cut.db", whole[..whole.len() / 2].to_vec(), "malformed"),
        ("stub.db", whole[..50].to_vec(), "malformed"),
        ("header.db", [&[0xff; 100], &whole[100..]].concat(), "not a database"),
    ];
    for (name, content, expected) in cases {
        let path = dir.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let (e, text) = refused_text(&path);
        assert!(matches!(e, QueueError::Damaged(_)), "{name}: {text}");
        assert!(text.contains(name) && text.contains(expected), "{name}: {text}");
        assert_eq!(std::fs::read(&path).unwrap(), content, "{name} is left as it was");
    }

    let directory = dir.path().join("directory.db");
    std::fs::create_dir(&directory).unwrap();
    let (e, text) = refused_text(&directory);
    assert!(matches!(e, QueueError::Unavailable(_)), "a directory: {text}");
    let (e, text) = refused_text(&path.join("below/a/file.db"));
    assert!(matches!(e, QueueError::Unavailable(_)) && text.contains("file.db"), "{text}");

    // Damage in the middle is found when it is read: an error, never a wrong message.
    let mut holed = whole;
    let middle = holed.len() / 2 / 8192 * 8192;
    holed[middle..middle + 8192 * 20].fill(0);
    std::fs::write(&path, &holed).unwrap();
    let queue = open(&path).unwrap();
    let mut errors = 0;
    let mut page = queue.lanes(None, 10).await.map(drop);
    for _ in 0..100 {
        match queue.claim(&"x".into(), T0, 10).await {
            Ok(leased) if leased.is_empty() => break,
            Ok(leased) => {
                for l in leased {
                    match queue.chunk(l.key.id, 0).await {
                        Ok(chunk) => assert!(chunk.is_none_or(|c| c == vec![b'x'; 5000]), "a wrong body"),
                        Err(e) => page = Err(e),
                    }
                }
            }
            Err(e) => page = Err(e),
        }
        if let Err(e) = std::mem::replace(&mut page, Ok(())) {
            assert!(matches!(e, QueueError::Damaged(_)), "{e}");
            errors += 1;
        }
    }
    let put_aside = queue.counts().await.unwrap().held;
    assert!(errors > 0 || put_aside > 0, "a hole of 20 pages goes unnoticed");
}

#[tokio::test]
async fn an_unreadable_recipient_is_put_aside_and_holds_up_nobody() {
    let (_dir, path) = store();
    let queue = open(&path).unwrap();
    let bad = letter("a@here.example", "x").post(&*queue).await;
    let good = letter("a@here.example", "x").post(&*queue).await;
    let foreign = Connection::open(&path).unwrap();
    let orphan = letter("a@here.example", "x").post(&*queue).await;
    foreign.execute("UPDATE recipient SET address = 'no address' WHERE message = ?1", [bad.0]).unwrap();
    foreign.execute("DELETE FROM message WHERE id = ?1", [orphan.0]).unwrap();
    let mut leased = Vec::new();
    for _ in 0..3 {
        leased.extend(queue.claim(&"x".into(), T0, 1).await.unwrap());
    }
    assert_eq!(leased.iter().map(|l| l.key).collect::<Vec<_>>(), [key(good, 0)]);
    let held = list(&*queue, &Filter { state: Some("held".into()), ..Filter::default() }, 10).await;
    assert_eq!(held.iter().map(|row| &row.id).collect::<Vec<_>>(), [&bad.to_string(), &orphan.to_string()]);
    assert!(held[0].reason.contains("cannot be read") && held[1].reason.contains("missing"), "{held:?}");
    let keys = [key(bad, 0), key(orphan, 0)];
    assert_eq!(queue.operate(Operation::Cancel, &keys, &[], T0).await.unwrap(), 2);
    assert_eq!(list(&*queue, &Filter::default(), 10).await.len(), 1);
}

#[tokio::test]
async fn the_view_for_people_says_what_inspect_says() {
    let (_dir, path) = store();
    let queue = open(&path).unwrap();
    for n in 0..40 {
        let id = letter("a@here.example", "x").leased().post(&*queue).await;
        queue
            .settle(vec![deferred(key(id, 0), mailweir::clock::Timestamp(T0.0 + n * 1001), "y")], vec![])
            .await
            .unwrap();
    }
    let rows = list(&*queue, &Filter::default(), 100).await;
    let conn = Connection::open(&path).unwrap();
    let mut statement =
        conn.prepare("SELECT id, sender, recipient, provider, state, due FROM queue ORDER BY id").unwrap();
    let seen: Vec<[String; 6]> = statement
        .query_map([], |r| Ok([r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?, r.get(4)?, r.get(5)?]))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let expected: Vec<_> =
        rows.into_iter().map(|r| [r.id, r.sender, r.recipient, r.provider, r.state, r.due]).collect();
    assert_eq!(seen, expected);
}

/// Starts this test program once more in a role of [`child`].
fn start(role: &str, path: &Path, program: &mut Command) -> Child {
    program
        .args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(STORE, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

#[test]
#[ignore = "a process of its own for the other tests"]
fn child() {
    let (Ok(role), Ok(path)) = (std::env::var(ROLE), std::env::var(STORE)) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match role.as_str() {
        "load" => runtime.block_on(load(Path::new(&path))),
        "no-space" => runtime.block_on(no_space(Path::new(&path))),
        "full-log" => runtime.block_on(full_log(Path::new(&path))),
        "open" => println!("\nsaid {}", open(Path::new(&path)).err().map_or("nothing".into(), |e| format!("{e:?}"))),
        other => panic!("no role {other}"),
    }
}

/// Accepts and delivers without end; says what was acknowledged.
async fn load(path: &Path) {
    let queue = open(path).unwrap();
    let say = |line: String| {
        // One write a line: a line that is there is whole.
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    let mut tasks = Vec::new();
    for t in 0..8u32 {
        let queue = Arc::clone(&queue);
        tasks.push(tokio::spawn(async move {
            for n in 0..1_000_000u32 {
                let size = if n % 16 == 5 { CHUNK + 99 } else { 1500 };
                let post = letter(&format!("a{t}@here.example"), "x").to(&[("a@x.example", "x"), ("b@x.example", "x")]);
                let id = post.leased().body(vec![b'a' + (n % 26) as u8; size]).post(&*queue).await;
                say(format!("\naccepted {} {} {size}\n", id.0, n % 26));
                if n % 3 == 0 {
                    say(format!("\ndelivering {}\n", id.0));
                    queue.settle(vec![delivered(key(id, 0)), delivered(key(id, 1))], vec![]).await.unwrap();
                    say(format!("\ndelivered {}\n", id.0));
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn killed_at_any_moment_everything_acknowledged_is_there() {
    let (_dir, path) = store();
    let mut accepted = std::collections::BTreeMap::new();
    let (mut settling, mut settled) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    for round in 1..=4 {
        let mut child = start("load", &path, &mut Command::new(std::env::current_exe().unwrap()));
        let mut count = 0;
        for line in lines(&mut child) {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["accepted", id, letter, size] => {
                    let id: i64 = id.parse().unwrap();
                    accepted.insert(id, (letter.parse::<u8>().unwrap(), size.parse::<usize>().unwrap()));
                    count += 1;
                }
                ["delivering", id] => drop(settling.insert(id.parse::<i64>().unwrap())),
                ["delivered", id] => drop(settled.insert(id.parse::<i64>().unwrap())),
                _ => {}
            }
            if count == 60 * round {
                // SIGKILL; what it said before that is still in the pipe, and is read on.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(count >= 60 * round, "the child worked until it was killed");
    }

    let queue = open(&path).unwrap();
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts.leased, counts.failed, counts.held), (0, 0, 0));
    let mut found = std::collections::BTreeMap::new();
    loop {
        let leased = queue.claim(&"x".into(), mailweir::clock::Timestamp(i64::MAX), 500).await.unwrap();
        if leased.is_empty() {
            break;
        }
        for l in leased {
            let (letter, size) = match accepted.get(&l.key.id.0) {
                Some(known) => *known,
                // Committed, and killed before it could say so.
                None => (body(&*queue, &l.message).await[0] - b'a', l.message.size as usize),
            };
            assert!(body(&*queue, &l.message).await == vec![b'a' + letter; size], "{} is as it was sent", l.key.id);
            *found.entry(l.key.id.0).or_insert(0) += 1;
        }
    }
    assert_eq!(counts, Counts { messages: found.len() as u64, queued: 2 * found.len() as u64, ..Counts::default() });
    assert!(found.values().all(|recipients| *recipients == 2), "both recipients, or neither");
    // Gone is only what was being settled.
    let lost: Vec<_> = accepted.keys().filter(|id| !settling.contains(id) && !found.contains_key(id)).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged messages are gone", lost.len(), accepted.len());
    assert!(settled.iter().all(|id| !found.contains_key(id)), "what was delivered stays delivered");
    queue.close().await;
    let conn = Connection::open(&path).unwrap();
    let orphans: i64 = conn
        .query_row("SELECT count(*) FROM chunk WHERE message NOT IN (SELECT id FROM message)", [], |r| r.get(0))
        .unwrap();
    let fine: String = conn.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!((orphans, fine.as_str()), (0, "ok"));
}

/// Runs under a limit on the size of files (and deaf to the signal that goes with it).
async fn no_space(path: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let queue = open(path).unwrap();
    let post = letter("a@here.example", "x").body(vec![b'x'; 50_000]);
    let first = post.post(&*queue).await;
    let generous = getrlimit(Resource::Fsize);
    // Less than one message needs, and more than the index of the log has (32 KiB).
    let tight = Rlimit { current: Some(40_000), maximum: generous.maximum };
    setrlimit(Resource::Fsize, tight).unwrap();
    for _ in 0..3 {
        let result = queue.accept(post.build(queue.next_id(T0))).await;
        assert!(matches!(result, Err(QueueError::Unavailable(_) | QueueError::Full(_))), "{result:?}");
    }
    assert!(queue.chunk(first, 0).await.unwrap().is_some(), "reading goes on");
    assert_eq!(queue.counts().await.unwrap().messages, 1);
    setrlimit(Resource::Fsize, generous).unwrap();
    let second = post.post(&*queue).await;
    queue.close().await;
    let queue = open(path).unwrap();
    let leased = queue.claim(&"x".into(), T0, 10).await.unwrap();
    assert_eq!(leased.iter().map(|l| l.key.id).collect::<Vec<_>>(), [first, second]);
    println!("\nsaid healed");
}

/// The log comes to the limit on the size of files before it is merged, and keeps its size when it is.
async fn full_log(path: &Path) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let queue = open(path).unwrap();
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(8 << 20), maximum }).unwrap();
    let post = letter("a@here.example", "x").body(vec![b'x'; 100_000]);
    for round in 0..3 {
        let mut taken = 0;
        let refused = loop {
            match queue.accept(post.build(queue.next_id(T0))).await {
                Ok(()) => taken += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(refused, QueueError::Full(_)), "{refused}");
        assert!(taken > 40, "round {round}: only {taken} messages of 100 KB before {refused}");
        let leased = queue.claim(&"x".into(), T0, 1000).await.unwrap();
        assert_eq!(leased.len(), taken);
        queue.settle(leased.iter().map(|l| delivered(l.key)).collect(), vec![]).await.unwrap();
    }
    post.post(&*queue).await;
    queue.close().await;
    println!("\nsaid healed");
}

fn said(mut child: Child) -> String {
    // To the end, so that the child never writes into a closed pipe.
    let lines: Vec<String> = lines(&mut child).collect();
    let said = lines.iter().find_map(|line| line.strip_prefix("said ").map(str::to_owned));
    let status = child.wait().unwrap();
    said.unwrap_or_else(|| panic!("the child said nothing ({status})"))
}

#[test]
fn a_disk_that_refuses_writes_is_an_error_and_heals() {
    for role in ["no-space", "full-log"] {
        let (_dir, path) = store();
        let exe = std::env::current_exe().unwrap();
        let mut program = Command::new("sh");
        program.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(exe);
        assert_eq!(said(start(role, &path, &mut program)), "healed", "{role}");
    }
}

#[tokio::test]
async fn a_read_only_file_or_directory_is_refused_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("queue.db");
    open(&path).unwrap().close().await;
    // Root may write anything: then the child is an ordinary user, with a copy of the program that
    // it can reach.
    let root = rustix::process::geteuid().is_root();
    let exe = if root { dir.path().join("program") } else { std::env::current_exe().unwrap() };
    let lock = dir.path().join("queue.db.lock");
    if root {
        std::fs::copy(std::env::current_exe().unwrap(), &exe).unwrap();
        std::fs::set_permissions(&exe, PermissionsExt::from_mode(0o755)).unwrap();
        for file in [dir.path(), &path, &lock] {
            std::os::unix::fs::chown(file, Some(65534), Some(65534)).unwrap();
        }
    }
    let try_it = |directory: u32, file: u32, lock_file: u32| {
        std::fs::set_permissions(&lock, PermissionsExt::from_mode(lock_file)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(file)).unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(directory)).unwrap();
        let mut program = Command::new(&exe);
        if root {
            program.uid(65534).gid(65534);
        }
        let said = said(start("open", &path, &mut program));
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        said
    };
    let said = try_it(0o755, 0o444, 0o600);
    assert!(said.starts_with("Unavailable") && said.contains("read-only") && said.contains("queue.db"), "{said}");
    let said = try_it(0o555, 0o600, 0o444);
    assert!(said.starts_with("Unavailable") && said.contains("Permission denied"), "{said}");
    let said = try_it(0o555, 0o600, 0o600);
    assert!(said.starts_with("Unavailable") && said.contains("queue.db"), "no room for the log: {said}");
    let said = try_it(0o755, 0o644, 0o600);
    assert_eq!(said, "nothing", "with write permission it opens");
}
