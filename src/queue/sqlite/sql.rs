//! Every statement of the backend, in one place: they are checked against the schema at open, and
//! a test asks SQLite how it would run each, so that none can start to scan or sort unnoticed.
//!
//! `INDEXED BY` is not a hint: SQLite refuses the statement if it cannot use that index.

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident = $text:expr;)*) => {
        $($(#[$doc])* pub(super) const $name: &str = $text;)*
        /// All of them.
        pub(super) const ALL: &[&str] = &[$($name),*];
        #[cfg(test)]
        const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

macro_rules! row_columns {
    () => {
        "SELECT message, idx, state, lane, attempts, due, address, reason, release, notify FROM recipient "
    };
}

statements! {
    INSERT_MESSAGE = "INSERT INTO message (id, received, sender, size, priority, eightbit, smtputf8, ret, envid, origin,
        ip, helo, traits, head) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    INSERT_RECIPIENT = "INSERT INTO recipient (message, idx, state, lane, bucket, due, attempts, warned, notify,
        address, orcpt, reason, release) VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, 0, ?7, ?8, ?9, ?10, ?11)";
    MESSAGE = "SELECT id, received, sender, size, priority, eightbit, smtputf8, ret, envid, origin, ip, helo, traits
        FROM message WHERE id = ?1";
    /// `length` of a blob is in the record's header: a head that is too long is not read.
    MESSAGE_AND_HEAD = "SELECT id, received, sender, size, priority, eightbit, smtputf8, ret, envid, origin, ip, helo,
        traits, iif(length(head) <= ?2, head, NULL) FROM message WHERE id = ?1";
    MESSAGE_EXISTS = "SELECT 1 FROM message WHERE id = ?1";
    HEAD = "SELECT head FROM message WHERE id = ?1";
    CHUNK = "SELECT data FROM chunk WHERE message = ?1 AND seq = ?2
            AND EXISTS (SELECT 1 FROM message WHERE id = ?1)
        UNION ALL SELECT data FROM older_chunk WHERE message = ?1 AND seq = ?2
            AND EXISTS (SELECT 1 FROM message WHERE id = ?1)";

    MARK_INCOMING = "INSERT OR IGNORE INTO incoming (message) VALUES (?1)";
    /// It is accepted now, unless it is dropped.
    UNMARK_INCOMING = "DELETE FROM incoming WHERE message = ?1 AND NOT dropped";
    DROP_INCOMING = "UPDATE incoming SET dropped = 1 WHERE message = ?1 AND NOT dropped";
    DROP_ALL_INCOMING = "UPDATE incoming SET dropped = 1 WHERE NOT dropped";
    NEXT_DROPPED = "SELECT message FROM incoming INDEXED BY incoming_dropped WHERE dropped ORDER BY message LIMIT 1";
    DROPPED = "DELETE FROM incoming WHERE message = ?1";
    /// A few of the chunks of a message that is dropped, the last first: the first is asked for by nobody.
    DROP_CHUNKS = "DELETE FROM chunk WHERE rowid IN
        (SELECT rowid FROM chunk WHERE message = ?1 ORDER BY seq DESC LIMIT ?2)";
    DROP_OLDER_CHUNKS = "DELETE FROM older_chunk WHERE message = ?1";
    INSERT_CHUNK = "INSERT OR REPLACE INTO chunk (message, seq, data) VALUES (?1, ?2, ?3)";
    /// `length` of a blob is in the record's header: no chunk is read.
    SPILLED = "SELECT count(*), coalesce(max(seq), 0), coalesce(sum(length(data)), 0) FROM chunk WHERE message = ?1";

    DELETE_LEASED = "DELETE FROM recipient WHERE message = ?1 AND idx = ?2 AND state = 1";
    /// Uncertain (4) once in doubt, whatever the later attempts say.
    DEFER_LEASED = "UPDATE recipient SET state = iif(doubt OR ?3, 4, 0), doubt = (doubt OR ?3), due = ?4,
        reason = iif(?5 = '', reason, ?5),
        attempts = attempts + ?6, warned = max(warned, ?7), lane = ?8
        WHERE message = ?1 AND idx = ?2 AND state = 1";
    /// Read by itself: for a statement with RETURNING, SQLite keeps copies of the pages that it changes.
    IN_DOUBT = "SELECT doubt FROM recipient WHERE message = ?1 AND idx = ?2 AND state = 1";
    FAIL_LEASED = "UPDATE recipient SET state = ?3, due = ?4, reason = ?5
        WHERE message = ?1 AND idx = ?2 AND state = 1";
    RETURN_LEASED = "UPDATE recipient SET state = iif(doubt, 4, 0) WHERE message = ?1 AND idx = ?2 AND state = 1";
    /// Its chunks go with it, by a trigger.
    DELETE_MESSAGE_IF_DONE = "DELETE FROM message WHERE id = ?1
        AND NOT EXISTS (SELECT 1 FROM recipient WHERE message = ?1)
        AND NOT EXISTS (SELECT 1 FROM owed WHERE message = ?1)";

    INSERT_OWED = "INSERT INTO owed (message, idx, due, action, status, replied, text, mta, tried, until, notify, address,
        orcpt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    DELETE_OWED = "DELETE FROM owed WHERE message = ?1 AND idx = ?2";
    /// Not one that has taken its place since it was read.
    DELETE_OWED_DUE = "DELETE FROM owed WHERE message = ?1 AND idx = ?2 AND due = ?3";
    OWING = "SELECT due, message FROM owed INDEXED BY owed_due WHERE (due, message) > (?1, ?2)
        ORDER BY due, message LIMIT ?3";
    OWED = "SELECT message, idx, due, action, status, notify, address, orcpt, replied, text, mta, tried, until FROM owed
        WHERE message = ?1 ORDER BY idx LIMIT ?2";
    /// When the report on this one is due: with the first of the message.
    REPORT_DUE = "SELECT (SELECT min(due) FROM owed WHERE message = ?1) FROM owed WHERE message = ?1 AND idx = ?2";
    OWES = "SELECT 1 FROM owed WHERE message = ?1 LIMIT 1";
    /// The first walks those of the message that are leased, the second those of it that wait; both stop
    /// at the first of which nothing is owed.
    UNDER_WAY = "SELECT EXISTS (SELECT 1 FROM recipient INDEXED BY recipient_leased WHERE state = 1 AND message = ?1
            AND NOT EXISTS (SELECT 1 FROM owed WHERE message = ?1 AND idx = recipient.idx))
        OR EXISTS (SELECT 1 FROM recipient WHERE message = ?1 AND state IN (0, 4) AND due < ?2
            AND NOT EXISTS (SELECT 1 FROM owed WHERE message = ?1 AND idx = recipient.idx))";

    STATE = "SELECT state, release FROM recipient WHERE message = ?1 AND idx = ?2";
    SET_STATE = "UPDATE recipient SET state = ?3 WHERE message = ?1 AND idx = ?2";
    /// The last of the next so many keys.
    KEYS_ON = "SELECT message, idx FROM recipient WHERE (message, idx) > (?1, ?2) AND message < ?3
        ORDER BY message, idx LIMIT 1 OFFSET ?4";
    LAST_KEY = "SELECT message, idx FROM recipient WHERE message < ?1 ORDER BY message DESC, idx DESC LIMIT 1";
    STATES_BETWEEN = "SELECT sum(state = 0), sum(state = 1), sum(state = 2), sum(state = 3), sum(state = 4),
        sum(state = 0 AND release > ?5) FROM recipient WHERE (message, idx) > (?1, ?2) AND (message, idx) <= (?3, ?4)";
    /// What is due already stays as it is, and so does what waits for its time.
    RETRY_BETWEEN = "UPDATE recipient SET state = 0, doubt = 0, due = ?5
        WHERE (message, idx) > (?1, ?2) AND (message, idx) <= (?3, ?4)
        AND (state = 0 AND due > ?5 AND (release IS NULL OR release <= ?5) OR state IN (3, 4))";
    /// By an operator, who has seen what it was: no longer in doubt.
    SET_STATE_DUE = "UPDATE recipient SET state = ?3, due = ?4, doubt = 0 WHERE message = ?1 AND idx = ?2";
    /// By an operator, too.
    SET_STATE_RELEASE = "UPDATE recipient SET state = ?3, due = ?4, release = ?4, doubt = 0
        WHERE message = ?1 AND idx = ?2";
    SET_STATE_REASON = "UPDATE recipient SET state = ?3, reason = ?4 WHERE message = ?1 AND idx = ?2";
    SET_LANE = "UPDATE recipient SET lane = ?3 WHERE message = ?1 AND idx = ?2";
    DELETE_RECIPIENT = "DELETE FROM recipient WHERE message = ?1 AND idx = ?2";

    /// The next lane with something queued: one seek, whatever lies in between.
    NEXT_LANE = "SELECT lane FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane > ?1 ORDER BY lane LIMIT 1";
    /// The next bucket of a lane and the earliest due time in it: one seek.
    NEXT_BUCKET = "SELECT bucket, due FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane = ?1 AND bucket > ?2 ORDER BY bucket, due LIMIT 1";
    DUE_IN_BUCKET = "SELECT message, idx, state, attempts, warned, notify, address, orcpt, due, release
        FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane = ?1 AND bucket = ?2 AND due <= ?3 ORDER BY due, message, idx LIMIT ?4";
    /// The first that waits in a bucket behind a due time: one seek.
    NEXT_IN_BUCKET = "SELECT due, message FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane = ?1 AND bucket = ?2 AND due > ?3 ORDER BY due LIMIT 1";
    SENDER = "SELECT sender FROM message WHERE id = ?1";
    /// From the oldest id on; the caller stops where it likes.
    OLDER_IN_LANE = "SELECT message, idx, state, attempts, warned, notify, address, orcpt, due, release
        FROM recipient INDEXED BY recipient_waiting
        WHERE state IN (0, 4) AND lane = ?1 AND message < ?2 AND (release IS NULL OR release <= ?4) ORDER BY message, idx LIMIT ?3";
    QUEUED_IN_LANE = "SELECT message, idx FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane = ?1 LIMIT ?2";
    /// One row for each; the caller counts.
    WAITING_IN_LANE = "SELECT 1 FROM recipient INDEXED BY recipient_ready
        WHERE state IN (0, 4) AND lane = ?1 AND bucket < ?2 AND (release IS NULL OR release <= ?4) LIMIT ?3";
    /// The next turn (priority and sender) that has something in lanes of domains: one seek.
    NEXT_TURN = "SELECT bucket FROM recipient INDEXED BY recipient_turn
        WHERE state IN (0, 4) AND lane >= '@' AND lane < 'A' AND (attempts > 0) = ?1 AND bucket > ?2
        ORDER BY bucket LIMIT 1";
    /// What a turn has, due or not, after a place in it; the caller stops where it likes.
    LANES_OF_TURN = "SELECT due, lane FROM recipient INDEXED BY recipient_turn
        WHERE state IN (0, 4) AND lane >= '@' AND lane < 'A' AND (attempts > 0) = ?1 AND bucket = ?2
        AND (due, lane) > (?3, ?4) ORDER BY due, lane";
    FAILED_BEFORE = "SELECT message, idx FROM recipient INDEXED BY recipient_failed
        WHERE state = 3 AND due < ?1 ORDER BY due LIMIT ?2";

    LIST = concat!(row_columns!(), "WHERE (message, idx) > (?1, ?2) ORDER BY message, idx");
    LIST_MESSAGE = concat!(row_columns!(), "WHERE message = ?3 AND (message, idx) > (?1, ?2) ORDER BY message, idx");
    LIST_LEASED = concat!(row_columns!(), "INDEXED BY recipient_leased
        WHERE state = 1 AND (message, idx) > (?1, ?2) ORDER BY message, idx");
    /// Leases are not in the index by lane (the hot path would pay for it); there are few.
    LIST_LANE = concat!(row_columns!(), "INDEXED BY recipient_waiting
        WHERE state IN (0, 4) AND lane = ?3 AND (message, idx) > (?1, ?2) UNION ALL ", row_columns!(),
        "INDEXED BY recipient_aside
        WHERE state IN (2, 3) AND lane = ?3 AND (message, idx) > (?1, ?2) UNION ALL ", row_columns!(),
        "INDEXED BY recipient_leased WHERE state = 1 AND lane = ?3 AND (message, idx) > (?1, ?2)
        ORDER BY message, idx");

    HAS_LANE_BETWEEN = "SELECT EXISTS (SELECT 1 FROM recipient INDEXED BY recipient_waiting
            WHERE state IN (0, 4) AND lane > ?1 AND lane < ?2)
        OR EXISTS (SELECT 1 FROM recipient INDEXED BY recipient_aside
            WHERE state IN (2, 3) AND lane > ?1 AND lane < ?2)
        OR EXISTS (SELECT 1 FROM recipient INDEXED BY recipient_leased
            WHERE state = 1 AND lane > ?1 AND lane < ?2)";

    LEASED_IN_DOUBT = "SELECT count(*) FROM recipient INDEXED BY recipient_leased WHERE state = 1 AND doubt";
    RECOVER = "UPDATE recipient INDEXED BY recipient_leased SET state = iif(doubt, 4, 0) WHERE state = 1";
    LAST_MESSAGE = "SELECT coalesce(max(id), 0) FROM message";
    PUT_MEMO = "INSERT INTO memo (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    DELETE_MEMO = "DELETE FROM memo WHERE name = ?1";
    MEMO = "SELECT value FROM memo WHERE name = ?1";
    MEMOS = "SELECT name, value FROM memo WHERE name >= ?1 ORDER BY name";

    /// What operators want done to recipients whose transactions are under way.
    ORDERS = "SELECT name, value FROM memo WHERE name >= 'order/' AND name < 'order0' ORDER BY name";
    HAS_ORDERS = "SELECT EXISTS (SELECT 1 FROM memo WHERE name >= 'order/' AND name < 'order0')";

    TALLY = "SELECT messages, queued, leased, held, failed, uncertain, owed, last_id FROM tally";
    /// Of a file from before reports were owed.
    OLDER_TALLY = "SELECT messages, queued, leased, held, failed, uncertain, 0, last_id FROM tally";
    /// By its row id, though there is one row: SQLite keeps a copy of the page for a statement that may change
    /// several, in case that fails half way, and this one is in every transaction.
    ADD_TO_TALLY = "UPDATE tally SET messages = messages + ?1, queued = queued + ?2, leased = leased + ?3,
        held = held + ?4, failed = failed + ?5, uncertain = uncertain + ?6, owed = owed + ?7,
        last_id = max(last_id, ?8) WHERE rowid = (SELECT rowid FROM tally)";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::sqlite::{Options, schema};

    #[test]
    fn no_statement_scans_or_sorts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = schema::connect_writer(&path, &Options::default()).unwrap();
        schema::prepare(&mut conn, &path).unwrap();
        // Each reads a table or index that is small by its nature: one row, or what was in memory.
        let small = [
            "SCAN tally",
            "SCAN incoming",
            "SCAN incoming USING INDEX incoming_dropped",
            "SCAN recipient USING INDEX recipient_leased",
        ];
        let mut checked = 0;
        for (name, text) in NAMES.iter().zip(ALL) {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let values = vec![rusqlite::types::Value::Null; statement.parameter_count()];
            let plan: Vec<String> = statement
                .query_map(rusqlite::params_from_iter(values), |row| row.get(3))
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            for line in plan.iter().filter(|line| !small.contains(&line.as_str())) {
                assert!(!line.contains("TEMP B-TREE"), "{name} sorts: {plan:?}");
                assert!(!line.starts_with("SCAN") || line == "SCAN CONSTANT ROW", "{name} scans: {plan:?}");
            }
            checked += 1;
        }
        assert_eq!(checked, ALL.len());
        assert!(checked > 30);
    }

    #[test]
    fn claiming_seeks_by_lane_bucket_and_due_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = schema::connect_writer(&path, &Options::default()).unwrap();
        schema::prepare(&mut conn, &path).unwrap();
        for (text, seek) in [
            (NEXT_LANE, "(lane>?)"),
            (NEXT_BUCKET, "(lane=? AND bucket>?)"),
            (DUE_IN_BUCKET, "(lane=? AND bucket=? AND due<?)"),
            (NEXT_IN_BUCKET, "(lane=? AND bucket=? AND due>?)"),
            (OLDER_IN_LANE, "(lane=? AND message<?)"),
            (QUEUED_IN_LANE, "(lane=?)"),
            (WAITING_IN_LANE, "(lane=? AND bucket<?)"),
            (FAILED_BEFORE, "(due<?)"),
            (NEXT_TURN, "(<expr>=? AND bucket>?)"),
            (LANES_OF_TURN, "(<expr>=? AND bucket=? AND (due,lane)>(?,?))"),
        ] {
            let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            let values = vec![rusqlite::types::Value::Null; statement.parameter_count()];
            let plan: String = statement.query_row(rusqlite::params_from_iter(values), |row| row.get(3)).unwrap();
            assert!(plan.starts_with("SEARCH recipient USING") && plan.ends_with(seek), "{plan}");
        }
    }
}
