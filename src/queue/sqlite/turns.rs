//! Reading what lanes of domains have queued, turn by turn, along the index `recipient_turn`.

use rusqlite::{Connection, OptionalExtension, params};

use super::rows;
use super::sql;
use crate::clock::Timestamp;
use crate::queue::turns::{Look, Place, STEPS, Turn};
use crate::queue::{LaneDue, QueueError};

/// The turns that have anything after the places given, from seek to seek.
pub(super) fn turns(conn: &Connection, look: &Look) -> Result<Vec<Turn>, QueueError> {
    let mut found = Vec::new();
    let mut next = conn.prepare_cached(sql::NEXT_TURN)?;
    let mut after = i64::MIN;
    while let Some(number) = next.query_row(params![look.tried, after], |row| row.get(0)).optional()? {
        after = number;
        if look.without.binary_search(&number).is_err() {
            found.extend(turn(conn, look, number)?);
        }
    }
    Ok(found)
}

/// One turn; `None` if nothing is there after its place.
fn turn(conn: &Connection, look: &Look, number: i64) -> Result<Option<Turn>, QueueError> {
    let start = Place::before(Timestamp(i64::MIN));
    let from = look.from.iter().find(|(turn, _)| *turn == number).map_or(&start, |(_, place)| place);
    let mut turn = Turn { number, due: Vec::new(), read: from.clone(), more: false, next: None };
    let mut statement = conn.prepare_cached(sql::LANES_OF_TURN)?;
    let mut rows = statement.query(params![look.tried, number, from.due.0, from.lane.as_str()])?;
    let mut steps = 0;
    while let Some(row) = rows.next()? {
        let due = Timestamp(row.get(0)?);
        if due > look.now {
            turn.next = Some(due);
            break;
        }
        if turn.due.len() >= look.each || steps >= STEPS {
            turn.more = true;
            break;
        }
        steps += 1;
        // Of a deep lane one is enough.
        if turn.due.last().is_none_or(|last| last.lane.as_str() != rows::text(row, 1).unwrap_or_default()) {
            turn.due.push(LaneDue { lane: rows::lane(row, 1)?, due });
        }
        if let Some(last) = turn.due.last() {
            turn.read = Place { due, lane: last.lane.clone() };
        }
    }
    Ok((steps > 0 || turn.next.is_some()).then_some(turn))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::sqlite::{Options, schema};
    use rusqlite::StatementStatus;

    /// A domain with 100,000 recipients, 20,000 domains with one each, another sender with one, and
    /// a provider, whose mail is none of this.
    fn backlog(dir: &tempfile::TempDir) -> Connection {
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = schema::connect_writer(&path, &Options::default()).unwrap();
        schema::prepare(&mut conn, &path).unwrap();
        conn.pragma_update(None, "synchronous", "off").unwrap();
        conn.execute_batch(
            "BEGIN;
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 120000)
            INSERT INTO recipient SELECT i, 0, 0, iif(i <= 100000, '@deep.example', '@d' || i || '.example'), 580,
                i, 0, 0, 12, 'a@b', NULL, '', 0, NULL FROM n;
            INSERT INTO recipient VALUES (300001, 0, 0, '@other.example', 581, 110000, 0, 0, 12, 'a@b', NULL, '', 0, NULL),
                (300002, 0, 4, '@tried.example', 581, 7, 1, 0, 12, 'a@b', NULL, '', 1, NULL),
                (300003, 0, 1, '@leased.example', 581, 7, 0, 0, 12, 'a@b', NULL, '', 0, NULL),
                (300004, 0, 0, 'provider', 581, 7, 0, 0, 12, 'a@b', NULL, '', 0, NULL);
            COMMIT",
        )
        .unwrap();
        conn
    }

    fn steps(conn: &Connection) -> i64 {
        let of = |text| i64::from(conn.prepare_cached(text).unwrap().reset_status(StatementStatus::VmStep));
        of(sql::NEXT_TURN) + of(sql::LANES_OF_TURN)
    }

    fn look(now: i64, from: Vec<(i64, Place)>) -> Look {
        Look { tried: false, now: Timestamp(now), from, without: Vec::new(), each: 10 }
    }

    #[test]
    fn a_deep_lane_is_passed_by_once_and_the_cost_does_not_grow_with_what_waits() {
        let dir = tempfile::tempdir().unwrap();
        let conn = backlog(&dir);
        let (mut place, mut lanes, mut looks) = (Place::before(Timestamp(0)), Vec::new(), 0);
        steps(&conn);
        loop {
            let found = turns(&conn, &look(119_999, vec![(580, place.clone())])).unwrap();
            let cost = steps(&conn);
            assert!(cost < 20 * STEPS as i64, "{cost} steps for one look");
            let turn = &found[0];
            assert!(turn.number == 580 && turn.read > place);
            place = turn.read.clone();
            lanes.extend(turn.due.iter().map(|due| due.lane.to_string()));
            looks += 1;
            if !turn.more {
                assert_eq!(turn.next, Some(Timestamp(120_000)), "when to look again");
                break;
            }
        }
        assert!(looks < 100_000 / STEPS + 20_000 / 10 + 3, "{looks} looks");
        lanes.dedup();
        assert_eq!(lanes.len(), 20_000, "each once, but for the one that is not due");
    }

    #[test]
    fn every_sender_has_a_turn_and_what_was_tried_is_apart() {
        let dir = tempfile::tempdir().unwrap();
        let conn = backlog(&dir);
        let found = turns(&conn, &look(200_000, Vec::new())).unwrap();
        assert_eq!(found.iter().map(|turn| turn.number).collect::<Vec<_>>(), [580, 581]);
        let other = LaneDue { lane: "@other.example".into(), due: Timestamp(110_000) };
        assert_eq!((&found[1].due, found[1].more, found[1].next), (&vec![other], false, None));
        let tried = turns(&conn, &Look { tried: true, ..look(200_000, Vec::new()) }).unwrap();
        assert_eq!((tried.len(), tried[0].due[0].lane.as_str()), (1, "@tried.example"));
        let without = turns(&conn, &Look { without: vec![580], ..look(200_000, Vec::new()) }).unwrap();
        assert_eq!(without.len(), 1);
    }
}
