//! A transaction of the writer. As `rusqlite::Transaction`, but that the statements that begin and end it are
//! kept prepared: there is one of each with every commit, and to parse them takes longer than to run them.
//!
//! Invariant: what is not committed is rolled back as it is dropped, unless SQLite has done so itself.

use std::ops::Deref;

use rusqlite::Connection;

/// Takes the right to write at once, so that a transaction that reads first need not give up.
const BEGIN: &str = "BEGIN IMMEDIATE";
const COMMIT: &str = "COMMIT";

/// The transaction; what is done with the connection is part of it.
#[derive(Debug)]
pub(super) struct Begun<'c> {
    conn: &'c Connection,
}

impl<'c> Begun<'c> {
    /// Begins one.
    pub(super) fn new(conn: &'c Connection) -> rusqlite::Result<Begun<'c>> {
        conn.prepare_cached(BEGIN)?.execute([])?;
        Ok(Begun { conn })
    }

    /// Commits. After an error nothing of it is stored.
    pub(super) fn commit(self) -> rusqlite::Result<()> {
        self.conn.prepare_cached(COMMIT)?.execute([]).map(drop)
    }
}

impl Deref for Begun<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.conn
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::debug!(%error, "a transaction could not be rolled back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(conn: &Connection) -> i64 {
        conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_is_not_committed_is_rolled_back() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (x UNIQUE)").unwrap();
        for (commit, rows) in [(false, 0), (true, 1), (false, 1), (true, 2)] {
            let begun = Begun::new(&conn).unwrap();
            begun.execute("INSERT INTO t VALUES ((SELECT count(*) FROM t))", []).unwrap();
            if commit {
                begun.commit().unwrap()
            } else {
                drop(begun)
            }
            assert_eq!((count(&conn), conn.is_autocommit()), (rows, true));
        }
    }

    #[test]
    fn what_sqlite_has_rolled_back_itself_is_over() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("CREATE TABLE t (x UNIQUE)").unwrap();
        let begun = Begun::new(&conn).unwrap();
        begun.execute("INSERT INTO t VALUES (1)", []).unwrap();
        begun.execute("INSERT OR ROLLBACK INTO t VALUES (1)", []).unwrap_err();
        assert!(begun.commit().is_err() && conn.is_autocommit());
        Begun::new(&conn).unwrap().commit().unwrap();
        assert_eq!(count(&conn), 0);
    }
}
