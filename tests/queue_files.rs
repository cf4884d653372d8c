//! The files of a store under a queue that has them open: taken away, replaced, cut, put back; links and
//! owners; and a file that is made smaller.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod contract;

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use contract::{T0, body, delivered, letter};
use mailweir::clock::Clock;
use mailweir::mail::{CHUNK, QueueId, RecipientKey};
use mailweir::queue::sqlite::{Options, SqliteQueue};
use mailweir::queue::{Counts, Desk, Leases, Operation, QueueError, Spool, Upkeep};
use rusqlite::Connection;

struct Store {
    dir: tempfile::TempDir,
    path: PathBuf,
    queue: Arc<SqliteQueue>,
}

impl Store {
    fn new() -> Store {
        Store::with(Options::default())
    }

    fn with(options: Options) -> Store {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let queue = SqliteQueue::open_with(&path, Clock::System, options).unwrap();
        Store { dir, path, queue }
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path.display()))
    }

    async fn accept(&self) -> Result<QueueId, QueueError> {
        let id = self.queue.next_id(T0);
        self.queue.accept(letter("a@here.example", "x").body(vec![b'x'; 20_000]).build(id)).await.map(|()| id)
    }

    /// Nothing is acknowledged, and the reason has these words.
    async fn refuses(&self, words: &[&str]) {
        for _ in 0..3 {
            let said = match self.accept().await {
                Err(e @ QueueError::Unavailable(_)) => e.to_string(),
                other => panic!("acknowledged, or another error: {other:?}"),
            };
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
            assert!(self.queue.probe().await.is_err(), "/healthz says so, too");
            assert!(!self.queue.storage().await.unwrap().trouble.is_empty(), "and the status");
        }
    }

    /// What the files hold now is what a start after a kill would find.
    async fn survives_a_kill(&self, ids: &[QueueId]) {
        let elsewhere = tempfile::tempdir().unwrap();
        let image = elsewhere.path().join("queue.db");
        for suffix in ["", "-wal"] {
            let from = self.beside(suffix);
            if from.exists() {
                fs::copy(&from, format!("{}{suffix}", image.display())).unwrap();
            }
        }
        let queue = SqliteQueue::open(&image, Clock::System).unwrap();
        for id in ids {
            assert!(queue.chunk(*id, 0).await.unwrap().is_some(), "{id} was acknowledged, and is lost");
        }
        queue.close().await;
    }
}

fn cut(path: &Path, to: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
}

#[tokio::test]
async fn nothing_is_acknowledged_while_the_database_has_lost_its_name_and_the_way_out_goes_on() {
    for replaced in [false, true] {
        let store = Store::new();
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(store.accept().await.unwrap());
        }
        let away = store.dir.path().join("away.db");
        fs::rename(&store.path, &away).unwrap();
        if replaced {
            Connection::open(&store.path).unwrap().execute_batch("CREATE TABLE x (a)").unwrap();
        }
        let word = if replaced { "replaced by another file" } else { "removed or moved away" };
        store.refuses(&[word, &store.path.to_string_lossy()]).await;
        // What is queued leaves all the same: claims, bodies, outcomes.
        let leased = store.queue.claim(&"x".into(), T0, 1).await.unwrap();
        assert_eq!(body(&*store.queue, &leased[0].message).await.len(), 20_000);
        store.queue.settle(vec![delivered(leased[0].key)], vec![]).await.unwrap();

        fs::rename(&away, &store.path).unwrap();
        ids.push(store.accept().await.unwrap());
        store.queue.close().await;
        let queue = SqliteQueue::open(&store.path, Clock::System).unwrap();
        assert!(queue.chunk(ids[0], 0).await.unwrap().is_none(), "delivered");
        for id in &ids[1..] {
            assert!(queue.chunk(*id, 0).await.unwrap().is_some());
        }
        let counts = queue.counts().await.unwrap();
        assert_eq!((counts.messages, counts.queued, counts.leased), (4, 4, 0));
    }
}

#[tokio::test]
async fn a_lease_that_is_not_acknowledged_is_given_back() {
    let store = Store::new();
    store.accept().await.unwrap();
    let away = store.dir.path().join("away.db");
    // Both sides of the moment: before the commit, and, for some, while it is under way.
    let moving = tokio::task::spawn_blocking({
        let (path, away) = (store.path.clone(), away.clone());
        move || {
            for _ in 0..500 {
                fs::rename(&path, &away).unwrap();
                fs::rename(&away, &path).unwrap();
            }
        }
    });
    let mut acknowledged = 1;
    while !moving.is_finished() {
        let id = store.queue.next_id(T0);
        let result = store.queue.accept(letter("a@here.example", "x").leased().build(id)).await;
        if result.is_ok() {
            let settled = store.queue.settle(vec![delivered(contract::key(id, 0))], vec![]).await;
            settled.unwrap();
            acknowledged += 1;
        }
    }
    moving.await.unwrap();
    // Another operation, so that what was given back is.
    store.queue.forget(T0, std::time::Duration::ZERO, 1).await.unwrap();
    let counts = store.queue.counts().await.unwrap();
    assert_eq!(counts.leased, 0, "of {acknowledged} acknowledged");
}

#[tokio::test]
async fn a_log_or_an_index_that_lost_its_name_is_begun_anew_and_nothing_is_lost() {
    for suffixes in [&["-wal"][..], &["-shm"], &["-wal", "-shm"]] {
        let store = Store::new();
        let mut ids = Vec::new();
        for round in 0..3 {
            for _ in 0..5 {
                ids.push(store.accept().await.unwrap());
            }
            // Connections of readers are open, too.
            assert!(store.queue.chunk(ids[0], 0).await.unwrap().is_some());
            for suffix in suffixes {
                fs::remove_file(store.beside(suffix)).unwrap();
            }
            ids.push(store.accept().await.unwrap());
            assert!(store.beside("-wal").exists() && store.beside("-shm").exists(), "{suffixes:?}, round {round}");
            store.survives_a_kill(&ids).await;
            for id in &ids {
                assert!(store.queue.chunk(*id, 0).await.unwrap().is_some());
            }
        }
        assert_eq!(store.queue.storage().await.unwrap().trouble, "");
        store.queue.close().await;
        let queue = SqliteQueue::open(&store.path, Clock::System).unwrap();
        assert_eq!(queue.counts().await.unwrap().messages, ids.len() as u64);
        queue.close().await;
        let conn = Connection::open(&store.path).unwrap();
        let sound: String = conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
}

#[tokio::test]
async fn a_file_that_was_cut_is_told_and_takes_nothing_more() {
    for (suffix, to) in [("", 0), ("-wal", 0), ("-wal", 9000)] {
        // So that the database has something, too.
        let store = Store::with(Options { log_pages: 4, ..Options::default() });
        for _ in 0..10 {
            store.accept().await.unwrap();
        }
        // The log is merged behind the answers: whoever is answered next knows that it is done.
        assert!(store.queue.claim(&"nobody".into(), T0, 1).await.unwrap().is_empty());
        cut(&store.beside(suffix), to);
        let name = store.beside(suffix);
        store.refuses(&["was cut from", &format!("to {to} bytes"), &name.to_string_lossy()]).await;
        // What is left is not made worse: neither by an outcome nor by the end.
        let left = fs::read(&store.path).unwrap();
        assert!(store.queue.claim(&"x".into(), T0, 1).await.is_err());
        store.queue.close().await;
        assert!(suffix.is_empty() || fs::read(&store.path).unwrap() == left, "cut to {to}: the holes were merged");
    }
}

/// Nothing was merged before, so the log has all.
#[tokio::test]
async fn a_log_that_is_whole_saves_what_the_database_lost() {
    let store = Store::new();
    for _ in 0..5 {
        store.accept().await.unwrap();
    }
    cut(&store.path, 0);
    store.refuses(&["was cut from"]).await;
    store.queue.close().await;
    let queue = SqliteQueue::open(&store.path, Clock::System).unwrap();
    assert_eq!(queue.counts().await.unwrap().messages, 5);
}

#[tokio::test]
async fn another_program_may_merge_the_log() {
    let store = Store::new();
    let mut ids = vec![store.accept().await.unwrap()];
    for _ in 0..3 {
        let other = Connection::open(&store.path).unwrap();
        let busy: i64 = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).unwrap();
        assert_eq!((busy, fs::metadata(store.beside("-wal")).unwrap().len()), (0, 0));
        ids.push(store.accept().await.unwrap());
        store.survives_a_kill(&ids).await;
    }
}

/// Between the look at the files before a commit and that after it, and at any other moment.
#[tokio::test]
async fn another_program_may_merge_the_log_and_vacuum_while_much_comes_in() {
    let store = Store::new();
    let mut ids = vec![store.accept().await.unwrap()];
    let others = tokio::task::spawn_blocking({
        let path = store.path.clone();
        move || {
            let other = Connection::open(&path).unwrap();
            other.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
            for turn in 0..300 {
                let _ = other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
                if turn % 50 == 49 {
                    let _ = other.execute_batch("VACUUM");
                }
            }
        }
    });
    while !others.is_finished() {
        match store.accept().await {
            Ok(id) => ids.push(id),
            // Another program may have the right to write for a second.
            Err(e) => assert!(e.to_string().contains("locked"), "{e}"),
        }
        let leased = store.queue.claim(&"x".into(), T0, 1).await.unwrap_or_default();
        for one in leased {
            if store.queue.settle(vec![delivered(one.key)], vec![]).await.is_ok() {
                ids.retain(|id| *id != one.key.id);
            }
        }
    }
    others.await.unwrap();
    ids.push(store.accept().await.unwrap());
    assert_eq!(store.queue.storage().await.unwrap().trouble, "");
    store.survives_a_kill(&ids).await;
}

/// Without its mend this ends the test program itself (SIGBUS).
#[tokio::test]
async fn an_index_that_was_cut_does_not_end_the_process() {
    let store = Store::new();
    let mut ids = Vec::new();
    for to in [0, 100, 300, 4096] {
        for _ in 0..5 {
            ids.push(store.accept().await.unwrap());
        }
        cut(&store.beside("-shm"), to);
        // A reader comes upon it first, or the writer.
        if to == 100 {
            assert!(store.queue.chunk(ids[0], 0).await.unwrap().is_some());
        }
        ids.push(store.accept().await.unwrap());
        store.survives_a_kill(&ids).await;
    }
    for id in &ids {
        assert!(store.queue.chunk(*id, 0).await.unwrap().is_some());
    }
    assert_eq!(store.queue.counts().await.unwrap().messages, ids.len() as u64);
}

#[tokio::test]
async fn what_is_still_open_can_be_saved() {
    let store = Store::new();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(store.accept().await.unwrap());
    }
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(store.beside(suffix)).unwrap();
    }
    store.refuses(&["removed or moved away"]).await;
    let copy = store.dir.path().join("saved.db");
    let (bytes, counts) = store.queue.save(copy.clone()).await.unwrap();
    assert_eq!(bytes, fs::metadata(&copy).unwrap().len());
    assert!(counts.messages >= 5);
    let again = store.queue.save(copy.clone()).await.unwrap_err();
    assert!(!again.temporary && again.message.contains("there already"), "{again}");
    store.queue.close().await;
    fs::rename(&copy, &store.path).unwrap();
    let queue = SqliteQueue::open(&store.path, Clock::System).unwrap();
    for id in &ids {
        assert!(queue.chunk(*id, 0).await.unwrap().is_some());
    }
}

#[test]
fn a_store_by_a_link_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (target, path) = (dir.path().join("target.db"), dir.path().join("queue.db"));
    fs::write(&target, b"").unwrap();
    let refused = || match SqliteQueue::open(&path, Clock::System) {
        Err(e @ QueueError::Unavailable(_)) => e.to_string(),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was opened"),
    };
    std::os::unix::fs::symlink(&target, &path).unwrap();
    assert!(refused().contains("queue.db is a symbolic link"));
    fs::remove_file(&path).unwrap();
    fs::hard_link(&target, &path).unwrap();
    assert!(refused().contains("hard link"));
    assert_eq!(fs::metadata(&target).unwrap().len(), 0, "it was written to");
    fs::remove_file(&path).unwrap();
    // A directory by another name is one all the same.
    let other = dir.path().join("other");
    std::os::unix::fs::symlink(dir.path(), &other).unwrap();
    SqliteQueue::open(&other.join("queue.db"), Clock::System).unwrap();
}

/// A journal that another user planted would be played back by whoever opens the file next.
#[tokio::test]
async fn a_journal_that_is_not_the_queues_is_not_played_back() {
    let store = Store::new();
    let id = store.accept().await.unwrap();
    let journal = store.beside("-journal");
    let other = store.dir.path().join("planted");
    fs::write(&other, b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7").unwrap();
    fs::hard_link(&other, &journal).unwrap();
    // The queue that is open goes on, with the connections that it has.
    let second = store.accept().await.unwrap();
    assert!(store.queue.chunk(id, 0).await.unwrap().is_some());
    let copy = store.dir.path().join("copy.db");
    let no_copy = mailweir::queue::sqlite::backup::backup(&store.path, &copy).unwrap_err().to_string();
    assert!(no_copy.contains("-journal") && no_copy.contains("hard link") && !copy.exists(), "{no_copy}");
    store.queue.close().await;
    for opened in [SqliteQueue::open(&store.path, Clock::System), SqliteQueue::open_for_inspection(&store.path)] {
        match opened {
            Err(e @ QueueError::Unavailable(_)) => assert!(e.to_string().contains("-journal"), "{e}"),
            Err(e) => panic!("{e}"),
            Ok(_) => panic!("it was opened"),
        }
    }
    fs::remove_file(&journal).unwrap();
    let queue = SqliteQueue::open(&store.path, Clock::System).unwrap();
    for id in [id, second] {
        assert!(queue.chunk(id, 0).await.unwrap().is_some());
    }
}

/// The lock was removed, and another process was quicker than this one to make it again.
#[tokio::test]
async fn a_queue_whose_lock_another_has_begins_nothing_more_and_ends() {
    for idle in [true, false] {
        let store = Store::new();
        let ids = [store.accept().await.unwrap(), store.accept().await.unwrap()];
        assert_eq!(store.queue.claim(&"x".into(), T0, 1).await.unwrap().len(), 1);
        fs::remove_file(store.beside(".lock")).unwrap();
        let second = SqliteQueue::open(&store.path, Clock::System).unwrap();
        if !idle {
            let refused = store.queue.claim(&"x".into(), T0, 1).await.unwrap_err();
            assert!(matches!(refused, QueueError::InUse(_)), "{refused}");
        }
        let why = store.queue.failed().await;
        assert!(matches!(why, QueueError::InUse(_)), "{why}");
        assert!(store.accept().await.is_err());
        let settled = store.queue.settle(vec![delivered(contract::key(ids[0], 0))], vec![]).await;
        assert!(settled.is_err(), "the lease is the second's");
        assert_eq!(second.claim(&"x".into(), T0, 10).await.unwrap().len(), 2);
        // Its end leaves the other's leases alone.
        store.queue.close().await;
        let other = Connection::open(&store.path).unwrap();
        let leased: i64 =
            other.query_row("SELECT count(*) FROM recipient WHERE state = 1", [], |row| row.get(0)).unwrap();
        assert_eq!(leased, 2);
        assert!(second.chunk(ids[1], 0).await.unwrap().is_some());
        drop(other);
        second.close().await;
    }
}

const FROM: u64 = 1 << 20;

/// Aborted uploads: much is stored, and none of it stays.
async fn swell_and_empty(queue: &SqliteQueue) {
    let ids: Vec<QueueId> = (0..8).map(|_| queue.next_id(T0)).collect();
    for id in &ids {
        for index in 1..5 {
            queue.spill(*id, index, vec![b'x'; CHUNK].into()).await.unwrap();
        }
    }
    for id in ids {
        queue.unspill(id).await;
    }
}

/// Works on until the file is small; the writer looks when nothing waits.
async fn until_small(store: &Store, queue: &SqliteQueue) {
    for _ in 0..3000 {
        queue.forget(T0, std::time::Duration::ZERO, 1).await.unwrap();
        if fs::metadata(&store.path).unwrap().len() < FROM {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("still {:?}", queue.storage().await);
}

#[tokio::test]
async fn a_file_that_is_mostly_free_is_made_smaller_while_nothing_waits() {
    let store = Store::with(Options { shrink_from: FROM, log_pages: 64, ..Options::default() });
    let keep = store.accept().await.unwrap();
    swell_and_empty(&store.queue).await;
    until_small(&store, &store.queue).await;
    let storage = store.queue.storage().await.unwrap();
    assert!(storage.file < FROM && storage.free < FROM, "{storage:?}");
    assert_eq!(storage.trouble, "", "its own cut is none");
    // The log was not merged while the file was cut, and is again: this would add some 20 MiB to it.
    let log = || fs::metadata(store.beside("-wal")).unwrap().len();
    let before = log();
    for _ in 0..400 {
        let id = store.accept().await.unwrap();
        store.queue.operate(Operation::Cancel, &[RecipientKey { id, index: 0 }], &[], T0).await.unwrap();
    }
    assert!(log() < before + (4 << 20), "{before}, then {}", log());
    store.accept().await.unwrap();
    assert!(store.queue.chunk(keep, 0).await.unwrap().is_some());
    assert_eq!(store.queue.counts().await.unwrap(), Counts { messages: 2, queued: 2, ..Counts::default() });
}

/// Earlier versions made files that keep a map of all pages, and before that files without one.
#[tokio::test]
async fn a_file_of_an_earlier_version_is_made_smaller_too() {
    for mode in [0, 2] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.db");
        let old = Connection::open(&path).unwrap();
        let settings = format!("PRAGMA page_size = 8192; PRAGMA auto_vacuum = {mode}; PRAGMA journal_mode = wal;");
        old.execute_batch(&settings).unwrap();
        old.execute_batch(include_str!("schemas/1.sql")).unwrap();
        old.execute_batch("PRAGMA application_id = 1836542322; PRAGMA user_version = 1").unwrap();
        drop(old);
        let options = Options { shrink_from: FROM, log_pages: 64, ..Options::default() };
        let queue = SqliteQueue::open_with(&path, Clock::System, options).unwrap();
        let store = Store { dir, path, queue };
        let keep = store.accept().await.unwrap();
        swell_and_empty(&store.queue).await;
        until_small(&store, &store.queue).await;
        assert!(store.queue.chunk(keep, 0).await.unwrap().is_some());
        assert_eq!(store.queue.storage().await.unwrap().trouble, "");
        store.queue.close().await;
        let conn = Connection::open(&store.path).unwrap();
        let kept: i64 = conn.pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap();
        assert_eq!(kept, 0, "no map of pages, which every commit would pay for");
    }
}

/// To write it anew would take as long as there is something in it.
#[tokio::test]
async fn a_file_with_much_in_it_keeps_its_size() {
    let store = Store::with(Options { shrink_from: FROM, log_pages: 64, ..Options::default() });
    let id = store.queue.next_id(T0);
    let text = vec![b'x'; 8 * CHUNK];
    for index in 1..8 {
        store.queue.spill(id, index, text[..CHUNK].to_vec().into()).await.unwrap();
    }
    store.queue.accept(letter("a@here.example", "x").body(text).build(id)).await.unwrap();
    swell_and_empty(&store.queue).await;
    let mut storage = store.queue.storage().await.unwrap();
    for _ in 0..3000 {
        store.queue.forget(T0, std::time::Duration::ZERO, 1).await.unwrap();
        storage = store.queue.storage().await.unwrap();
        if storage.free > 7 * FROM {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // It is looked at as soon as all of that is free.
    for _ in 0..10 {
        store.queue.forget(T0, std::time::Duration::ZERO, 1).await.unwrap();
    }
    let after = store.queue.storage().await.unwrap();
    assert!(after.free > 7 * FROM && after.file >= storage.file, "{storage:?}, {after:?}");
}

/// What was broken off goes a few chunks at a time, and all of it: in the end, and at the next start.
#[tokio::test]
async fn what_is_dropped_is_gone_at_the_end_and_after_a_kill() {
    let store = Store::new();
    for _ in 0..3 {
        let id = store.queue.next_id(T0);
        for index in 1..20 {
            store.queue.spill(id, index, vec![b'x'; CHUNK].into()).await.unwrap();
        }
        store.queue.unspill(id).await;
        let again = letter("a@here.example", "x").body(vec![b'x'; 20 * CHUNK]).build(id);
        assert!(matches!(store.queue.accept(again).await, Err(QueueError::Invalid(_))), "it was dropped");
    }
    let half = store.queue.next_id(T0);
    store.queue.spill(half, 1, vec![b'x'; CHUNK].into()).await.unwrap();
    store.survives_a_kill(&[]).await;
    let left = |path: &Path| -> i64 {
        let conn = Connection::open(path).unwrap();
        let count = "SELECT (SELECT count(*) FROM chunk) + (SELECT count(*) FROM incoming)";
        conn.query_row(count, [], |row| row.get(0)).unwrap()
    };
    store.queue.close().await;
    assert_eq!(left(&store.path), 0);
}
