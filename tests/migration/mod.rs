//! Stores of any version, looked at without changing what the next start will find.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

/// What made version `n + 1` of version `n`, for all versions before today's.
pub const OLDER: [&str; 5] = [
    include_str!("../schemas/1.sql"),
    include_str!("../schemas/2.sql"),
    include_str!("../schemas/3.sql"),
    include_str!("../schemas/4.sql"),
    include_str!("../schemas/5.sql"),
];
/// From version 5 on chunks are in two tables, and what is marked as dropped is gone to everybody but the
/// store itself, which deletes it a little at a time.
const DROPPED: &str = "
    DELETE FROM chunk WHERE message IN (SELECT message FROM incoming WHERE dropped);
    DELETE FROM older_chunk WHERE message IN (SELECT message FROM incoming WHERE dropped);
    DELETE FROM incoming WHERE dropped;
    INSERT INTO chunk SELECT * FROM older_chunk";
/// All tables.
pub const TABLES: [&str; 6] = ["message", "recipient", "chunk", "incoming", "memo", "tally"];

/// The files of a store, with what SQLite keeps beside them.
#[derive(Clone)]
pub struct Store(pub PathBuf);

/// What is in one.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    pub version: i64,
    /// The text of every table, index and view.
    pub schema: Vec<String>,
    /// Every row, in the columns of version 1.
    pub rows: Vec<String>,
}

impl Store {
    pub fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    pub fn remove(&self) {
        for suffix in ["", "-wal", "-shm", "-journal", ".lock", ".sock"] {
            let _ = fs::remove_file(self.beside(suffix));
        }
    }

    /// Makes it a copy of what is on the disk, not of what only processes know.
    pub fn copy_of(&self, other: &Store) {
        self.remove();
        for suffix in ["", "-wal", "-journal"] {
            if other.beside(suffix).exists() {
                fs::copy(other.beside(suffix), self.beside(suffix)).expect("copy the store");
            }
        }
    }

    pub fn open(&self) -> Connection {
        Connection::open(&self.0).expect("open the store")
    }

    /// Looks at a copy, after `work` on it: the next start is to find what the last one left.
    pub fn after(&self, work: &str) -> Content {
        let copy = Store(self.beside(".copy"));
        copy.copy_of(self);
        let conn = copy.open();
        conn.execute_batch(work).expect(work);
        let version: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0)).expect("a version");
        if version >= 5 {
            conn.execute_batch(DROPPED).expect(DROPPED);
        }
        let list = |query: &str| -> Vec<String> {
            let mut statement = conn.prepare(query).expect(query);
            let rows = statement.query_map([], |row| row.get(0)).expect(query);
            rows.map(|row| row.expect("text")).collect()
        };
        assert_eq!(list("PRAGMA integrity_check"), ["ok"]);
        let schema = list("SELECT concat(type, ' ', name, ' ', sql) FROM sqlite_schema ORDER BY type, name");
        let first = Connection::open_in_memory().expect("a database");
        first.execute_batch(OLDER[0]).expect("version 1");
        let mut rows = Vec::new();
        for table in TABLES.iter().filter(|_| !schema.is_empty()) {
            let quoted: Vec<String> = columns(&first, table).iter().map(|name| format!("quote({name})")).collect();
            rows.extend(list(&format!("SELECT '{table} ' || concat_ws(' ', {}) FROM {table}", quoted.join(", "))));
        }
        rows.sort_unstable();
        drop(conn);
        copy.remove();
        Content { version, schema, rows }
    }

    pub fn content(&self) -> Content {
        self.after("")
    }
}

pub fn columns(conn: &Connection, table: &str) -> Vec<String> {
    let mut statement = conn.prepare("SELECT name FROM pragma_table_info(?1)").expect("a statement");
    let names = statement.query_map([table], |row| row.get(0)).expect("columns");
    names.map(|name| name.expect("a name")).collect()
}

/// What the first start has to make of the leases and unfinished messages of a process that is gone.
pub fn recovered(doubt: &str) -> String {
    let count = |state: u8| format!("(SELECT count(*) FROM recipient WHERE state = {state})");
    format!(
        "DELETE FROM chunk WHERE message IN (SELECT message FROM incoming); DELETE FROM incoming;
         UPDATE recipient SET state = iif({doubt}, 4, 0) WHERE state = 1;
         UPDATE tally SET queued = {}, leased = 0, held = {}, failed = {}, uncertain = {}",
        count(0),
        count(2),
        count(3),
        count(4)
    )
}
