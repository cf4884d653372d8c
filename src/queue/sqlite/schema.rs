//! Opening the file: connections and their settings, the schema and its versions.
//!
//! Fatal at open: a file that is not a database, is another program's, is damaged, or was written
//! by a newer mailweir. Nothing here costs more when more is queued.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::error::at_path;
use super::{Options, rows, sql};
use crate::crash;
use crate::queue::QueueError;

/// `PRAGMA application_id`: "mwir".
pub(super) const APPLICATION_ID: i64 = 0x6d77_6972;

/// How long a statement waits for a lock that a foreign process (a backup, an admin's `sqlite3`)
/// holds on the file before the queue reports itself unavailable.
const BUSY: Duration = Duration::from_secs(1);

/// Bytes of a page of a new database: holds three typical messages where 4 KiB holds one.
pub(super) const PAGE: u64 = 8192;

/// Bytes to which SQLite cuts a log that has grown longer.
pub(super) const LOG_KEPT: u64 = 64 << 20;

/// Step `n` makes version `n + 1` of version `n`; version 0 is the empty file. Steps that were
/// released are never edited: a change of the schema is a new step.
pub(super) const LADDER: &[&str] = &[V1, V2, V3, V4, V5, V6];

const V1: &str = "
CREATE TABLE message (
  id        INTEGER PRIMARY KEY,      -- queue id as a number
  received  INTEGER NOT NULL,         -- all times: milliseconds since 1970
  sender    TEXT NOT NULL,            -- reverse-path, '' for <>
  size      INTEGER NOT NULL,         -- bytes of the body
  priority  INTEGER NOT NULL,
  eightbit  INTEGER NOT NULL,         -- BODY=8BITMIME
  smtputf8  INTEGER NOT NULL,
  ret       INTEGER,                  -- RET=: 0 HDRS, 1 FULL
  envid     TEXT,
  origin    INTEGER NOT NULL,         -- 0 client, 1 DSN, 2 local
  ip        TEXT,                     -- of the client
  helo      TEXT,                     -- of the client
  traits    INTEGER NOT NULL,         -- what the body contains, bits
  head      BLOB NOT NULL             -- chunk 0 of the body; last, so that the rest is read without it
) STRICT;

CREATE TABLE recipient (
  message   INTEGER NOT NULL,
  idx       INTEGER NOT NULL,         -- position in the envelope
  state     INTEGER NOT NULL,         -- 0 queued, 1 leased, 2 held, 3 failed, 4 uncertain
  lane      TEXT NOT NULL,
  bucket    INTEGER NOT NULL,         -- (9 - priority) * 64 + slot of the sender
  due       INTEGER NOT NULL,         -- for a dead letter: when it failed
  attempts  INTEGER NOT NULL,
  warned    INTEGER NOT NULL,         -- a delay DSN was sent
  notify    INTEGER NOT NULL,         -- NOTIFY=, bits
  address   TEXT NOT NULL,            -- forward-path
  orcpt     TEXT,                     -- ORCPT=, decoded: type;address
  reason    TEXT NOT NULL,            -- last reply or error
  PRIMARY KEY (message, idx)
) STRICT, WITHOUT ROWID;

-- Partial, so that a message that is delivered at once (stored as leased) touches none but the
-- small index of leases.
CREATE INDEX recipient_ready ON recipient (lane, bucket, due, message, idx) WHERE state IN (0, 4);
CREATE INDEX recipient_leased ON recipient (message, idx) WHERE state = 1;
CREATE INDEX recipient_failed ON recipient (due, message, idx) WHERE state = 3;
CREATE INDEX recipient_lane ON recipient (lane, message, idx) WHERE state <> 1;

-- Chunks 1.. of bodies that are longer than one chunk.
CREATE TABLE chunk (
  message   INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  data      BLOB NOT NULL,
  PRIMARY KEY (message, seq)
) STRICT, WITHOUT ROWID;

-- Messages that have chunks and are not accepted yet: what start-up has to drop.
CREATE TABLE incoming (
  message   INTEGER PRIMARY KEY
) STRICT;

-- Small named values of other parts: quota reservations, feedback state.
CREATE TABLE memo (
  name      TEXT PRIMARY KEY,
  value     BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- One row: what would take a scan to count, and the id below which no new one may be.
CREATE TABLE tally (
  messages  INTEGER NOT NULL,
  queued    INTEGER NOT NULL,
  leased    INTEGER NOT NULL,
  held      INTEGER NOT NULL,
  failed    INTEGER NOT NULL,
  uncertain INTEGER NOT NULL,
  last_id   INTEGER NOT NULL
) STRICT;
INSERT INTO tally VALUES (0, 0, 0, 0, 0, 0, 0);

-- For people with the sqlite3 command.
CREATE VIEW queue AS
WITH abc(a) AS (VALUES ('0123456789abcdefghjkmnpqrstvwxyz'))
SELECT substr(a, 1 + (r.message >> 60 & 31), 1) || substr(a, 1 + (r.message >> 55 & 31), 1)
    || substr(a, 1 + (r.message >> 50 & 31), 1) || substr(a, 1 + (r.message >> 45 & 31), 1)
    || substr(a, 1 + (r.message >> 40 & 31), 1) || substr(a, 1 + (r.message >> 35 & 31), 1)
    || substr(a, 1 + (r.message >> 30 & 31), 1) || substr(a, 1 + (r.message >> 25 & 31), 1)
    || substr(a, 1 + (r.message >> 20 & 31), 1) || substr(a, 1 + (r.message >> 15 & 31), 1)
    || substr(a, 1 + (r.message >> 10 & 31), 1) || substr(a, 1 + (r.message >> 5 & 31), 1)
    || substr(a, 1 + (r.message & 31), 1) AS id,
  r.idx AS idx, m.sender AS sender, r.address AS recipient, r.lane AS provider,
  CASE r.state WHEN 0 THEN 'queued' WHEN 1 THEN 'leased' WHEN 2 THEN 'held' WHEN 3 THEN 'failed'
    ELSE 'uncertain' END AS state,
  m.priority AS priority, r.attempts AS attempts,
  strftime('%Y-%m-%dT%H:%M:%fZ', r.due / 1000.0, 'unixepoch') AS due, m.size AS size,
  strftime('%Y-%m-%dT%H:%M:%fZ', m.received / 1000.0, 'unixepoch') AS received, r.reason AS reason
FROM abc, recipient r JOIN message m ON m.id = r.message;
";

/// `state` says what a recipient does; while it is leased it cannot say too that it may have
/// arrived already. So that is beside it.
const V2: &str = "
ALTER TABLE recipient ADD COLUMN doubt INTEGER NOT NULL DEFAULT 0; -- an attempt ended without the final reply
";

/// What waits and what is put aside apart, so that the oldest that waits in a lane is one seek away
/// however many dead letters the lane has. Each row is still in one of them.
const V3: &str = "
DROP INDEX recipient_lane;
CREATE INDEX recipient_waiting ON recipient (lane, message, idx) WHERE state IN (0, 4);
CREATE INDEX recipient_aside ON recipient (lane, message, idx) WHERE state IN (2, 3);
";

/// The version that has the table `owed` and counts in it: that of [`V4`].
pub(super) const OWES_REPORTS: i64 = 4;

/// The report on a fate is owed from the moment at which the fate is stored, and written later: one
/// for all that a message owes. A debt has what the report says of the recipient, who may be gone.
///
/// `recipient_turn`: what waits in the lanes of domains (`@domain`), first attempts apart from others, by
/// priority and sender, in order of due time: from here a scheduler takes turns without knowing the lanes.
/// `A` follows `@` in the order of bytes. The terms of the condition are those of the statements.
const V4: &str = "
CREATE TABLE owed (
  message   INTEGER NOT NULL,
  idx       INTEGER NOT NULL,         -- of the recipient; at most one debt for each
  due       INTEGER NOT NULL,         -- when it is reported at the latest
  action    INTEGER NOT NULL,         -- 0 failed, 1 delayed, 2 relayed
  status    TEXT NOT NULL,            -- enhanced status code
  replied   INTEGER NOT NULL,         -- the text is the reply of a server
  text      TEXT NOT NULL,            -- why
  mta       TEXT,                     -- the host that was asked
  tried     INTEGER NOT NULL,         -- when it was tried last
  until     INTEGER,                  -- for a delay: when it is given up
  notify    INTEGER NOT NULL,         -- as in recipient, from here on
  address   TEXT NOT NULL,
  orcpt     TEXT,
  PRIMARY KEY (message, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX owed_due ON owed (due, message);
ALTER TABLE tally ADD COLUMN owed INTEGER NOT NULL DEFAULT 0;
CREATE INDEX recipient_turn ON recipient (attempts > 0, bucket, due, lane)
  WHERE state IN (0, 4) AND lane >= '@' AND lane < 'A';
";

/// Chunks in a table with row ids. Without them a chunk is part of its key: whoever looks for one, also
/// for the place of a new one, reads all of those that are compared on the way, 256 KiB each. What an earlier
/// version stored stays where it is until its message is gone: copying it would take as long, and as
/// much of the disk, as there is of it.
///
/// A trigger, so that the end of a short message, which has no chunks, looks for none.
///
/// `dropped`: the message will not be accepted, and its chunks go a few at a time.
const V5: &str = "
ALTER TABLE chunk RENAME TO older_chunk;
CREATE TABLE chunk (
  message   INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  data      BLOB NOT NULL,
  UNIQUE (message, seq)
) STRICT;
CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.size > 262144 BEGIN
  DELETE FROM chunk WHERE message = old.id;
  DELETE FROM older_chunk WHERE message = old.id;
END;
ALTER TABLE incoming ADD COLUMN dropped INTEGER NOT NULL DEFAULT 0;
CREATE INDEX incoming_dropped ON incoming (message) WHERE dropped;
";

/// A time of each recipient before which it does not leave: an operator may name another one for some of them.
const V6: &str = "
ALTER TABLE recipient ADD COLUMN release INTEGER; -- it does not leave before; its age counts from there
";

/// Opens the connection of the writer. `max_bytes` limits the database file (not its WAL).
pub(super) fn connect_writer(path: &Path, options: &Options) -> Result<Connection, QueueError> {
    writer_settings(path, options).map_err(|e| at_path(path, e))
}

fn writer_settings(path: &Path, options: &Options) -> Result<Connection, QueueError> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY)?;
    if conn.is_readonly(MAIN_DB)? {
        return Err(QueueError::Unavailable("the file is read-only for this user".into()));
    }
    // Before anything is changed, the journal mode included.
    version(&conn, LADDER.len())?;
    // Only takes effect on a new file.
    conn.pragma_update(None, "page_size", rows::signed(PAGE))?;
    let mode: String = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(QueueError::Unavailable(format!(
            "this file system cannot keep a write-ahead log (journal mode stays {mode}): use a local one"
        )));
    }
    // FULL: every commit is fsynced before it counts (invariant 1).
    conn.pragma_update(None, "synchronous", "full")?;
    // The writer merges the log itself (`merging`).
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", rows::signed(LOG_KEPT))?;
    conn.pragma_update(None, "cache_size", cache_size(options.cache_bytes))?;
    conn.pragma_update(None, "temp_store", "memory")?;
    keep_statements(&conn, 64)?;
    if let Some(max) = options.max_bytes {
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0))?;
        let pages = i64::try_from(max).unwrap_or(i64::MAX) / page.max(1);
        conn.pragma_update_and_check(None, "max_page_count", pages.max(1), |_| Ok(()))?;
    }
    Ok(conn)
}

/// Opens a connection that only reads. In WAL mode it neither waits for the writer nor holds it up.
/// `cache` is the size of its page cache in bytes.
pub(super) fn connect_reader(path: &Path, cache: u64) -> Result<Connection, QueueError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY)?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "cache_size", cache_size(cache))?;
    keep_statements(&conn, 32)?;
    Ok(conn)
}

/// Keeps so many statements prepared, whatever values they are used with. Else SQLite compares the values
/// with the conditions of partial indexes, and parses a statement anew with each other value of one that a
/// condition might be about: more work than a claim itself.
pub(super) fn keep_statements(conn: &Connection, most: usize) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(most);
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

/// As SQLite has it: below zero, in KiB.
fn cache_size(bytes: u64) -> i64 {
    -rows::signed(bytes / 1024).max(1)
}

/// Brings the file to the version this program knows, each step in a transaction of its own, and
/// checks that every statement fits the schema found.
pub(super) fn prepare(conn: &mut Connection, path: &Path) -> Result<(), QueueError> {
    let climbed = climb(conn, LADDER).and_then(|()| close_temporary(conn));
    climbed.and_then(|()| check_statements(conn)).map_err(|e| at_path(path, e))
}

/// A step that renames a table looks for it among temporary ones, and with that SQLite opens a database for
/// those, which every later transaction would begin and commit, too. A change of where it lies closes it.
fn close_temporary(conn: &Connection) -> Result<(), QueueError> {
    conn.pragma_update(None, "temp_store", "file")?;
    conn.pragma_update(None, "temp_store", "memory")?;
    Ok(())
}

/// The version of the file, unless it is none of ours or newer than the version `known`.
fn version(conn: &Connection, known: usize) -> Result<usize, QueueError> {
    let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let application: i64 = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if objects > 0 && application != APPLICATION_ID {
        return Err(QueueError::Damaged(
            "this SQLite database is not a mailweir queue: set [queue] store to a file of its own".into(),
        ));
    }
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    usize::try_from(found).ok().filter(|v| *v <= known).ok_or_else(|| {
        QueueError::Damaged(format!(
            "schema version {found} is newer than this program knows ({known}): run the mailweir that wrote it, or a later one"
        ))
    })
}

pub(super) fn climb(conn: &mut Connection, ladder: &[&str]) -> Result<(), QueueError> {
    let from = version(conn, ladder.len())?;
    for (step, sql) in ladder.iter().enumerate().skip(from) {
        crash::point("schema.begin");
        let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        tx.execute_batch(sql)?;
        crash::point("schema.changed");
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        crash::point("schema.numbered");
        tx.commit()?;
        crash::point("schema.done");
        if from > 0 {
            tracing::info!(from = step, to = step + 1, "the queue's schema was brought to a newer version");
        }
    }
    Ok(())
}

/// Preparing reads the schema only, so this finds a missing table or column without reading mail.
fn check_statements(conn: &Connection) -> Result<(), QueueError> {
    for text in sql::ALL {
        conn.prepare(text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(conn: &Connection) -> i64 {
        conn.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
    }

    #[test]
    fn climbs_one_step_at_a_time_and_keeps_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = connect_writer(&path, &Options::default()).unwrap();
        climb(&mut conn, &["CREATE TABLE a (x); INSERT INTO a VALUES (7)"]).unwrap();
        assert_eq!(stored(&conn), 1);
        drop(conn);

        let ladder = ["SELECT 'this step is done already' FROM missing", "ALTER TABLE a ADD COLUMN y DEFAULT 8"];
        let mut conn = connect_writer(&path, &Options::default()).unwrap();
        climb(&mut conn, &ladder).unwrap();
        assert_eq!(stored(&conn), 2);
        let row: (i64, i64) = conn.query_row("SELECT x, y FROM a", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        assert_eq!(row, (7, 8));

        // A step that fails leaves the version before it, whole.
        let ladder = [ladder[0], ladder[1], "CREATE TABLE b (z); SELECT * FROM missing"];
        assert!(matches!(climb(&mut conn, &ladder), Err(QueueError::Damaged(_))));
        assert_eq!(stored(&conn), 2);
        assert!(conn.prepare("SELECT z FROM b").is_err());
    }

    #[test]
    fn an_empty_file_of_version_0_becomes_the_current_version() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = connect_writer(&path, &Options::default()).unwrap();
        assert_eq!(stored(&conn), 0);
        prepare(&mut conn, &path).unwrap();
        assert_eq!(stored(&conn), i64::try_from(LADDER.len()).unwrap());
        prepare(&mut conn, &path).unwrap();
        let page: i64 = conn.pragma_query_value(None, "page_size", |row| row.get(0)).unwrap();
        assert_eq!(page, 8192, "was fixed before it was set");
    }

    #[test]
    fn a_new_store_has_no_database_beside_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = connect_writer(&path, &Options::default()).unwrap();
        let databases = |conn: &Connection| {
            let mut list = conn.prepare("SELECT name FROM pragma_database_list").unwrap();
            list.query_map([], |row| row.get::<_, String>(0)).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        climb(&mut conn, LADDER).unwrap();
        assert_eq!(databases(&conn), ["main", "temp"], "what the steps leave behind");
        prepare(&mut conn, &path).unwrap();
        assert_eq!(databases(&conn), ["main"]);
    }

    #[test]
    fn refuses_a_newer_version_and_a_foreign_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = connect_writer(&path, &Options::default()).unwrap();
        prepare(&mut conn, &path).unwrap();
        conn.pragma_update(None, "user_version", 99).unwrap();
        let e = prepare(&mut conn, &path).unwrap_err().to_string();
        assert!(e.contains("schema version 99 is newer") && e.contains("q.db"), "{e}");
        conn.pragma_update(None, "user_version", i64::try_from(LADDER.len()).unwrap()).unwrap();
        conn.execute_batch("DROP INDEX recipient_ready").unwrap();
        assert!(matches!(prepare(&mut conn, &path), Err(QueueError::Damaged(_))));

        let path = dir.path().join("foreign.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        let before = std::fs::read(&path).unwrap();
        let e = connect_writer(&path, &Options::default()).unwrap_err().to_string();
        assert!(e.contains("not a mailweir queue"), "{e}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "another program's file was changed");
    }
}
