//! Taking what is due from a lane, and looking where something is.
//!
//! The index `recipient_ready` orders a lane by bucket (priority, then sender slot) and a bucket
//! by due time. Going from bucket to bucket is one seek each, at most 19 × 64 of them however
//! much is queued; what is not due, and other lanes, are never read (invariant 4).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, Ready, SLOTS};
use super::sql;
use super::store::Store;
use crate::clock::Timestamp;
use crate::mail::lifecycle::{Event, Next};
use crate::mail::{LaneName, Message, QueueId, State};
use crate::queue::{HEADS_EACH, LaneDue, Leased, QueueError};

/// Of so many recipients claimed, one is of a lower priority, if such a one is due.
const ONE_OF: usize = 8;

/// The longest first chunk that comes along: it lies beside what a claim reads anyway, while to read
/// it by itself later costs a switch of threads and a transaction. A longer one is on pages of its
/// own, for which all that waits for the writer would wait, too.
const LONGEST_HEAD: usize = 32 << 10;

/// A message, and its first chunk if that comes along.
type WithHead = (Arc<Message>, Option<Bytes>);

/// What a claim knows while it goes through a lane.
struct Claim<'a, 'c> {
    store: &'a mut Store<'c>,
    lane: &'a LaneName,
    now: Timestamp,
    /// Some of the recipients of a message may have another time.
    messages: HashMap<(QueueId, Option<Timestamp>), WithHead>,
    /// Bytes of first chunks that may still come along.
    heads: usize,
}

/// Leases up to `limit` due recipients of `lane`: highest priority first, but for one of every
/// [`ONE_OF`], which is for lower priorities than the one that uses the others up.
pub(super) fn claim(
    store: &mut Store<'_>,
    lane: &LaneName,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<Leased>, QueueError> {
    let mut claim = Claim { store, lane, now, messages: HashMap::new(), heads: limit.saturating_mul(HEADS_EACH) };
    let mut levels = claim.levels()?;
    let share = limit / ONE_OF;
    let mut room = limit;
    let mut taken: Vec<Leased> = Vec::new();
    while let Some(level) = (!levels.is_empty() && room > 0).then(|| levels.remove(0)) {
        // What a level leaves over goes to the next; the last one need not leave anything.
        let kept = if levels.is_empty() { 0 } else { share.min(room.saturating_sub(1)) };
        let got = claim.take_turns(&level, room - kept, &mut taken)?;
        let full = got == room - kept;
        room -= got;
        if full && kept > 0 {
            let lower = claim.share(&levels, kept)?;
            room -= lower.len();
            // What the lower ones could not use is for the others again.
            claim.take_turns(&level, room, &mut taken)?;
            taken.extend(lower);
            break;
        }
    }
    Ok(taken)
}

/// Leases up to `limit` recipients of `lane`, due or not, of messages received at `received` or
/// before. Ids begin with the time, so what is younger is not read.
pub(super) fn claim_older(
    store: &mut Store<'_>,
    lane: &LaneName,
    received: Timestamp,
    limit: usize,
) -> Result<Vec<Leased>, QueueError> {
    let below = received.0.saturating_add(1).clamp(0, i64::MAX >> 20) << 20;
    // What expires does not leave.
    let mut claim = Claim { store, lane, now: received, messages: HashMap::new(), heads: 0 };
    let statement = claim.store.statement(sql::OLDER_IN_LANE)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let found: Vec<Ready> = statement
        .query_and_then(params![lane.as_str(), below, limit, received.0], rows::ready)?
        .collect::<Result<_, _>>()?;
    let mut taken = Vec::with_capacity(found.len());
    for ready in found {
        // The id is given when the message begins to come in: it may be younger than that.
        match claim.message(ready.key.id, ready.release) {
            Ok((message, _)) if message.received > received => {}
            _ => taken.extend(claim.lease(ready)?),
        }
    }
    Ok(taken)
}

impl Claim<'_, '_> {
    /// The buckets that have something due, by priority, highest first.
    fn levels(&mut self) -> Result<Vec<Vec<i64>>, QueueError> {
        let mut levels: Vec<Vec<i64>> = Vec::new();
        let mut after = -1;
        while let Some((bucket, due)) = next_bucket(&self.store.tx, self.lane, after)? {
            after = bucket;
            if due > self.now {
                continue;
            }
            match levels.last_mut() {
                Some(level) if level.first().is_some_and(|first| first / SLOTS == bucket / SLOTS) => level.push(bucket),
                _ => levels.push(vec![bucket]),
            }
        }
        Ok(levels)
    }

    /// Up to `room` recipients of all these priorities, each its part. Whoever gets the odd ones is
    /// left to chance, so that none of many priorities starves.
    fn share(&mut self, levels: &[Vec<i64>], mut room: usize) -> Result<Vec<Leased>, QueueError> {
        let mut order: Vec<usize> = (0..levels.len()).collect();
        fastrand::shuffle(&mut order);
        let mut shares: Vec<Vec<Leased>> = levels.iter().map(|_| Vec::new()).collect();
        let mut waiting = order.len();
        while room > 0 && !order.is_empty() {
            let mut still = Vec::new();
            for at in order {
                let want = room.div_ceil(waiting.max(1));
                let (Some(level), Some(share)) = (levels.get(at), shares.get_mut(at)) else { continue };
                let got = self.take_turns(level, want, share)?;
                room -= got;
                waiting -= 1;
                if got == want && got > 0 {
                    still.push(at);
                }
            }
            waiting = still.len();
            order = still;
        }
        Ok(shares.into_iter().flatten().collect())
    }

    /// Takes up to `room` recipients from the buckets of one priority, each in its turn; returns how
    /// many were taken.
    fn take_turns(&mut self, buckets: &[i64], mut room: usize, taken: &mut Vec<Leased>) -> Result<usize, QueueError> {
        let before = taken.len();
        let mut queues: Vec<(i64, Vec<Leased>)> = buckets.iter().map(|bucket| (*bucket, Vec::new())).collect();
        // Whoever stands first gets the odd one: not always the same.
        let first = fastrand::usize(..queues.len().max(1));
        queues.rotate_left(first);
        let mut more: Vec<usize> = (0..queues.len()).collect();
        while room > 0 && !more.is_empty() {
            let share = (room / more.len()).max(1);
            let mut still = Vec::new();
            for i in more {
                let Some((bucket, queue)) = queues.get_mut(i) else { continue };
                let want = share.min(room);
                if want == 0 {
                    break;
                }
                let (found, got) = self.take(*bucket, want, queue)?;
                room -= got;
                if found == want {
                    still.push(i);
                }
            }
            more = still;
        }
        let mut queues: Vec<_> = queues.into_iter().map(|(_, queue)| queue.into_iter()).collect();
        while !queues.is_empty() {
            queues.retain_mut(|queue| match queue.next() {
                Some(leased) => {
                    taken.push(leased);
                    true
                }
                None => false,
            });
        }
        Ok(taken.len() - before)
    }

    /// Leases up to `want` of a bucket, in order of due time. Returns how many were found, and how
    /// many of them could be leased.
    fn take(&mut self, bucket: i64, want: usize, out: &mut Vec<Leased>) -> Result<(usize, usize), QueueError> {
        let statement = self.store.statement(sql::DUE_IN_BUCKET)?;
        let limit = i64::try_from(want).unwrap_or(i64::MAX);
        let found: Vec<Ready> = statement
            .query_and_then(params![self.lane.as_str(), bucket, self.now.0, limit], rows::ready)?
            .collect::<Result<_, _>>()?;
        let (count, before) = (found.len(), out.len());
        for ready in found {
            out.extend(self.lease(ready)?);
        }
        Ok((count, out.len() - before))
    }

    fn lease(&mut self, ready: Ready) -> Result<Option<Leased>, QueueError> {
        let Ready { key, state, due, attempts, warned, release, recipient } = ready;
        let (recipient, message, head) = match (recipient, self.message(key.id, release)) {
            (Ok(recipient), Ok((message, head))) => (recipient, message, head),
            (_, Err(e)) if !matches!(e, QueueError::Damaged(_)) => return Err(e),
            (Err(e), _) | (_, Err(e)) => {
                // One unreadable record must not stop its lane: it waits for an operator.
                tracing::error!(id = %key.id, index = key.index, error = %e, "put aside");
                let number = State::Held as u8;
                let reason = format!("put aside: {e}");
                let statement = self.store.statement(sql::SET_STATE_REASON)?;
                statement.execute(params![key.id.0, key.index, number, rows::cut(&reason)])?;
                self.store.tally.moved(Some(state), Some(State::Held));
                return Ok(None);
            }
        };
        let Some(Next::To(leased)) = state.on(Event::Claim) else { return Ok(None) };
        let statement = self.store.statement(sql::SET_STATE)?;
        statement.execute(params![key.id.0, key.index, leased as u8])?;
        self.store.tally.moved(Some(state), Some(leased));
        Ok(Some(Leased { key, message, recipient, lane: self.lane.clone(), due, attempts, warned, head }))
    }

    fn message(
        &mut self,
        id: QueueId,
        release: Option<Timestamp>,
    ) -> Result<(Arc<Message>, Option<Bytes>), QueueError> {
        match self.messages.entry((id, release)) {
            Entry::Occupied(known) => Ok(known.get().clone()),
            Entry::Vacant(slot) => {
                let longest = self.heads.min(LONGEST_HEAD);
                let (mut message, head) = message(self.store, id, longest)?
                    .ok_or_else(|| QueueError::Damaged(format!("message {id} is missing from the store")))?;
                message.envelope.release = release;
                self.heads -= head.as_ref().map_or(0, Bytes::len);
                Ok(slot.insert((Arc::new(message), head)).clone())
            }
        }
    }
}

/// A message, with chunk 0 of its body unless that is longer than `longest`.
fn message(store: &mut Store<'_>, id: QueueId, longest: usize) -> Result<Option<(Message, Option<Bytes>)>, QueueError> {
    let mut found =
        store.statement(sql::MESSAGE_AND_HEAD)?.query(params![id.0, i64::try_from(longest).unwrap_or(0)])?;
    let Some(row) = found.next()? else { return Ok(None) };
    let head: Option<Vec<u8>> = row.get(13)?;
    Ok(Some((rows::message(row)?, head.map(Bytes::from))))
}

fn next_bucket(conn: &Connection, lane: &LaneName, after: i64) -> Result<Option<(i64, Timestamp)>, QueueError> {
    let mut statement = conn.prepare_cached(sql::NEXT_BUCKET)?;
    let next = statement.query_row(params![lane.as_str(), after], |row| Ok((row.get(0)?, Timestamp(row.get(1)?))));
    Ok(next.optional()?)
}

/// The earliest due time in a lane.
pub(super) fn lane_due(conn: &Connection, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
    let (mut earliest, mut after) = (None::<Timestamp>, -1);
    while let Some((bucket, due)) = next_bucket(conn, lane, after)? {
        earliest = Some(earliest.map_or(due, |e| e.min(due)));
        after = bucket;
    }
    Ok(earliest)
}

/// Lanes with something queued, from seek to seek.
pub(super) fn lanes(conn: &Connection, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
    let mut found: Vec<LaneDue> = Vec::new();
    let mut statement = conn.prepare_cached(sql::NEXT_LANE)?;
    while found.len() < limit {
        let after = found.last().map(|l| &l.lane).or(after.as_ref()).map_or("", LaneName::as_str);
        let Some(lane) = statement.query_row([after], |row| rows::lane(row, 0)).optional()? else { break };
        let Some(due) = lane_due(conn, &lane)? else { break };
        found.push(LaneDue { lane, due });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::sqlite::{Options, schema};
    use rusqlite::StatementStatus;

    const DEEP: i64 = 200_000;

    /// 200,000 recipients of one lane: half of them due, of one sender; the rest not due, in every
    /// bucket there is. Beside them one in a lane before and one in a lane after.
    fn backlog(dir: &tempfile::TempDir) -> Connection {
        let path = dir.path().join("q.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = schema::connect_writer(&path, &Options::default()).unwrap();
        schema::prepare(&mut conn, &path).unwrap();
        conn.pragma_update(None, "synchronous", "off").unwrap();
        conn.execute_batch(&format!(
            "BEGIN;
            WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {DEEP})
            INSERT INTO recipient SELECT i, 0, 0, 'm', iif(i % 2, 580, i % (19 * 64)), iif(i % 2, i, 1000000 + i),
                0, 0, 12, 'a@b', NULL, '', 0, NULL FROM n;
            INSERT INTO recipient VALUES (300001, 0, 0, 'a', 580, 7, 0, 0, 12, 'a@b', NULL, '', 0, NULL),
                (300002, 0, 0, 'z', 580, 7, 0, 0, 12, 'a@b', NULL, '', 0, NULL);
            INSERT INTO message SELECT message, 0, 'a@b', 1, 0, 0, 0, NULL, NULL, 1, NULL, NULL, 0, x'00' FROM recipient;
            COMMIT"
        ))
        .unwrap();
        conn
    }

    /// Steps of SQLite's machine since the last call: what was read, whatever time it took.
    fn steps(conn: &Connection) -> i64 {
        let of = |text: &&str| i64::from(conn.prepare_cached(text).unwrap().reset_status(StatementStatus::VmStep));
        sql::ALL.iter().map(of).sum()
    }

    #[test]
    fn no_statement_is_parsed_again_for_other_values() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = backlog(&dir);
        for (lane, limit) in [("m", 3), ("a", 1), ("z", 2), ("m", 7), ("none", 1)] {
            claim_from(&mut conn, lane, limit);
        }
        let neighbours = Default::default();
        let mut store = Store::begin(&conn, &neighbours, 0).unwrap();
        let leased: Vec<(i64, u32)> = store
            .tx
            .prepare("SELECT message, idx FROM recipient WHERE state = 1")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(leased.len() > 5);
        let deferred = |(at, (id, index)): (i64, &(i64, u32))| crate::queue::Settlement {
            key: crate::mail::RecipientKey { id: QueueId(*id), index: *index },
            verdict: crate::queue::Verdict::Deferred {
                due: Timestamp(600_000 + at),
                reason: format!("reason {at}"),
                counts: at % 2 == 0,
                uncertain: at % 3 == 0,
                warned: at % 5 == 0,
                lane: if at % 2 == 0 { "m".into() } else { "@x.example".into() },
            },
        };
        for settlement in (0..).zip(&leased).map(deferred) {
            store.settle(&[settlement], &[], Timestamp(550_000)).unwrap();
        }
        store.commit().unwrap();
        for text in [sql::NEXT_BUCKET, sql::DUE_IN_BUCKET, sql::SET_STATE, sql::IN_DOUBT, sql::DEFER_LEASED] {
            let again = conn.prepare_cached(text).unwrap().get_status(StatementStatus::RePrepare);
            assert_eq!(again, 0, "{text}");
        }
    }

    fn claim_from(conn: &mut Connection, lane: &str, limit: usize) -> usize {
        let neighbours = Default::default();
        let mut store = Store::begin(conn, &neighbours, 0).unwrap();
        let taken = claim(&mut store, &lane.into(), Timestamp(500_000), limit).unwrap();
        store.commit().unwrap();
        taken.len()
    }

    #[test]
    fn a_deep_lane_costs_its_neighbours_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = backlog(&dir);
        steps(&conn);
        for lane in ["a", "z", "no such lane"] {
            let taken = claim_from(&mut conn, lane, 100);
            assert_eq!(taken, usize::from(lane.len() == 1));
            let cost = steps(&conn);
            assert!((1..1000).contains(&cost), "{cost} steps for lane {lane}");
        }
        let found = lanes(&conn, None, 10).unwrap();
        assert_eq!(found, [LaneDue { lane: "m".into(), due: Timestamp(1) }]);
        let cost = steps(&conn);
        assert!(cost < 50 * 19 * SLOTS, "{cost} steps to list lanes: some for each bucket, none for each recipient");
    }

    #[test]
    fn what_is_not_due_costs_one_seek_a_bucket() {
        let dir = tempfile::tempdir().unwrap();
        let mut conn = backlog(&dir);
        steps(&conn);
        assert_eq!(claim_from(&mut conn, "m", 200), 200);
        let cost = steps(&conn);
        assert!(cost < 50 * 19 * SLOTS + 200 * 200, "{cost} steps to claim 200");
    }
}
