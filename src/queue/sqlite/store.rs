//! What each operation does to the tables, inside a transaction that the writer opened.
//!
//! Invariants kept here: a message is there exactly as long as one of its recipients is, or a report
//! is owed on one that was; a recipient changes state only as [`State::on`] allows; the tally is what a count would give.

use std::collections::HashSet;

use rusqlite::{CachedStatement, Connection, OptionalExtension, ToSql, params};

use super::begun::Begun;
use super::neighbours::Neighbours;
use super::{rows, sql};
use crate::clock::Timestamp;
use crate::crash;
use crate::mail::lifecycle::{Event, Next};
use crate::mail::{CHUNK, LaneName, NewMessage, Owed, QueueId, RecipientKey, State};
use crate::queue::{Counts, Operation, QueueError, Retried, Settlement, Swap, Verdict};

/// How far ahead the mark below which no new id may be is set, in ids: 10 s worth of them, so that
/// it is written once in 10 s and not with every message.
const ID_MARGIN: i64 = 10_000 << 20;

/// What a transaction changes of the tally.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Tally {
    messages: i64,
    states: [i64; State::ALL.len()],
    pub(super) owed: i64,
    last_id: i64,
}

impl Tally {
    /// One recipient went from `from` to `to`; `None` is out of the store.
    pub(super) fn moved(&mut self, from: Option<State>, to: Option<State>) {
        for (state, step) in [(from, -1), (to, 1)] {
            if let Some(n) = state.and_then(|s| self.states.get_mut(s as usize)) {
                *n += step;
            }
        }
    }

    fn of(&self, state: State) -> i64 {
        self.states.get(state as usize).copied().unwrap_or(0)
    }

    /// Applies the change to counts in memory.
    pub(super) fn apply(&self, counts: &mut Counts) {
        let add = |n: &mut u64, step: i64| *n = n.saturating_add_signed(step);
        add(&mut counts.messages, self.messages);
        add(&mut counts.queued, self.of(State::Queued));
        add(&mut counts.leased, self.of(State::Leased));
        add(&mut counts.held, self.of(State::Held));
        add(&mut counts.failed, self.of(State::Failed));
        add(&mut counts.uncertain, self.of(State::Uncertain));
        add(&mut counts.owed, self.owed);
    }
}

/// A transaction of the writer and what it changes besides the tables.
pub(super) struct Store<'c> {
    pub(super) tx: Begun<'c>,
    conn: &'c Connection,
    /// Statements in use, with their texts; see [`Store::statement`].
    statements: Vec<(&'static str, CachedStatement<'c>)>,
    /// Messages that one settlement has ended recipients of; reused.
    done: Vec<QueueId>,
    pub(super) neighbours: &'c Neighbours,
    pub(super) tally: Tally,
    /// The stored mark that ids are under.
    pub(super) last_id: i64,
}

impl<'c> Store<'c> {
    /// Begins the transaction.
    pub(super) fn begin(conn: &'c Connection, neighbours: &'c Neighbours, last_id: i64) -> rusqlite::Result<Store<'c>> {
        Ok(Store {
            tx: Begun::new(conn)?,
            conn,
            statements: Vec::new(),
            done: Vec::new(),
            neighbours,
            tally: Tally::default(),
            last_id,
        })
    }

    /// The statement of that text. Taken out of the connection's cache once in a transaction: every
    /// look-up there copies the text.
    pub(super) fn statement(&mut self, text: &'static str) -> rusqlite::Result<&mut CachedStatement<'c>> {
        let at = match self.statements.iter().position(|(known, _)| *known == text) {
            Some(at) => at,
            None => {
                self.statements.push((text, self.conn.prepare_cached(text)?));
                self.statements.len() - 1
            }
        };
        Ok(&mut self.statements[at].1)
    }

    /// Writes the tally and commits: the commit point of everything in the batch. When it
    /// returns, all of it is on stable storage.
    pub(super) fn commit(mut self) -> Result<(Tally, i64), QueueError> {
        let t = self.tally;
        if t.messages != 0 || t.last_id != 0 || t.owed != 0 || t.states.iter().any(|n| *n != 0) {
            self.statement(sql::ADD_TO_TALLY)?.execute(params![
                t.messages,
                t.of(State::Queued),
                t.of(State::Leased),
                t.of(State::Held),
                t.of(State::Failed),
                t.of(State::Uncertain),
                t.owed,
                t.last_id
            ])?;
        }
        crash::point("commit.before");
        self.tx.commit()?;
        crash::point("commit.after");
        Ok((self.tally, self.last_id))
    }

    /// Stores a message whose further chunks are there already.
    pub(super) fn accept(&mut self, new: &NewMessage) -> Result<(), QueueError> {
        let message = &*new.message;
        let id = message.id;
        let invalid = |what: &str| Err(QueueError::Invalid(format!("message {id} {what}")));
        if new.recipients.is_empty() {
            return invalid("has no recipients");
        }
        let head = new.head.len() as u64;
        if head != message.size.min(CHUNK as u64) {
            return invalid("has a first chunk of the wrong length");
        }
        if message.chunks() > 1 {
            let spilled: (u32, u32, i64) =
                self.statement(sql::SPILLED)?.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let last = message.chunks() - 1;
            if spilled != (last, last, rows::signed(message.size - head)) {
                return invalid("has chunks missing or of the wrong length");
            }
            if self.statement(sql::UNMARK_INCOMING)?.execute([id.0])? == 0 {
                return invalid("was dropped before");
            }
        }
        match rows::insert_message(self.statement(sql::INSERT_MESSAGE)?, new) {
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                return invalid("is in the queue already");
            }
            other => other?,
        };
        let bucket = rows::bucket(message);
        let mut turn = None;
        for (index, recipient) in (0u32..).zip(&new.recipients) {
            let due = match &turn {
                _ if recipient.leased => message.received,
                _ if message.envelope.release.is_some() => message.age_from(),
                Some((lane, due)) if *lane == &recipient.lane => *due,
                _ => turn.insert((&recipient.lane, self.turn(message, bucket, &recipient.lane)?)).1,
            };
            rows::insert_recipient(self.statement(sql::INSERT_RECIPIENT)?, message, bucket, due, index, recipient)?;
            self.tally.moved(None, Some(rows::new_state(recipient)));
        }
        self.tally.messages += 1;
        if id.0 > self.last_id {
            self.last_id = id.0.saturating_add(ID_MARGIN);
            self.tally.last_id = self.last_id;
        }
        Ok(())
    }

    /// Stores a chunk of a message that is still coming in.
    pub(super) fn spill(&mut self, id: QueueId, index: u32, chunk: &[u8]) -> Result<(), QueueError> {
        if index == 0 || chunk.is_empty() || chunk.len() > CHUNK {
            return Err(QueueError::Invalid(format!("chunk {index} of {id} has {} bytes", chunk.len())));
        }
        let first = self.statement(sql::MARK_INCOMING)?.execute([id.0])? == 1;
        if first && self.statement(sql::MESSAGE_EXISTS)?.exists([id.0])? {
            return Err(QueueError::Invalid(format!("message {id} is in the queue already")));
        }
        self.statement(sql::INSERT_CHUNK)?.execute(params![id.0, index, chunk])?;
        crash::point("chunk.written");
        Ok(())
    }

    /// Marks a message as dropped, unless it was accepted: its chunks go later, (`dropped`).
    /// False: it has none.
    pub(super) fn unspill(&mut self, id: QueueId) -> Result<bool, QueueError> {
        Ok(self.statement(sql::DROP_INCOMING)?.execute([id.0])? == 1)
    }

    /// Ends leases and stores what is owed for them.
    pub(super) fn settle(
        &mut self,
        settlements: &[Settlement],
        owed: &[Owed],
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let mut done = std::mem::take(&mut self.done);
        // Empty, and so without memory of its own, for most settlements.
        let mut ended: HashSet<RecipientKey> = HashSet::new();
        for Settlement { key, verdict } in settlements {
            let event = match verdict {
                Verdict::Delivered => Event::Deliver,
                Verdict::Deferred { uncertain: false, .. } => Event::Defer,
                Verdict::Deferred { uncertain: true, .. } => Event::DeferUncertain,
                Verdict::Failed { .. } => Event::Fail,
            };
            let (id, index) = (key.id.0, key.index);
            let next = legal(State::Leased, event)?;
            let changed =
                match (verdict, next) {
                    (Verdict::Deferred { due, reason, counts, uncertain, warned, lane }, _) => {
                        let values =
                            params![id, index, uncertain, due.0, rows::cut(reason), counts, warned, lane.as_str()];
                        if self.end_lease(key, *uncertain, sql::DEFER_LEASED, values)? && !owed.is_empty() {
                            ended.insert(*key);
                        }
                        continue;
                    }
                    (Verdict::Failed { reason }, Next::To(state)) => self
                        .statement(sql::FAIL_LEASED)?
                        .execute(params![id, index, state as u8, now.0, rows::cut(reason)])?,
                    _ => self.statement(sql::DELETE_LEASED)?.execute(params![id, index])?,
                };
            if changed == 1 {
                if !owed.is_empty() {
                    ended.insert(*key);
                }
                let to = match next {
                    Next::To(state) => Some(state),
                    Next::Gone => {
                        done.push(key.id);
                        None
                    }
                };
                self.tally.moved(Some(State::Leased), to);
            }
        }
        // Before messages go: those that owe something stay.
        for debt in owed.iter().filter(|debt| ended.contains(&debt.key)) {
            self.owe(debt)?;
        }
        if !owed.is_empty() {
            crash::point("owed.written");
        }
        self.drop_finished(&mut done)?;
        self.done = done;
        Ok(())
    }

    /// Leases that ended without a settlement: their holder gave up before it knew of them.
    pub(super) fn give_back(&mut self, keys: &[RecipientKey]) -> Result<usize, QueueError> {
        let mut given_back = 0;
        for key in keys {
            given_back += usize::from(self.end_lease(key, false, sql::RETURN_LEASED, params![key.id.0, key.index])?);
        }
        Ok(given_back)
    }

    /// Ends all leases, with the due times they had (uncertain where they were so before).
    pub(super) fn end_leases(&mut self) -> Result<usize, QueueError> {
        legal(State::Leased, Event::Recover)?;
        let doubtful =
            self.statement(sql::LEASED_IN_DOUBT)?.query_row([], |row| row.get(0).map(rows::unsigned))? as usize;
        let leases = self.statement(sql::RECOVER)?.execute([])?;
        for n in 0..leases {
            let state = if n < doubtful { State::Uncertain } else { State::Queued };
            self.tally.moved(Some(State::Leased), Some(state));
        }
        self.carry_out_orders()?;
        Ok(leases)
    }

    /// Ends one lease by a statement that makes it queued, or uncertain if it may have arrived in this
    /// attempt (`uncertain`) or an earlier one. False: it was not leased.
    fn end_lease(
        &mut self,
        key: &RecipientKey,
        uncertain: bool,
        text: &'static str,
        values: &[&dyn ToSql],
    ) -> Result<bool, QueueError> {
        let doubt = self.statement(sql::IN_DOUBT)?.query_row(params![key.id.0, key.index], |row| row.get(0));
        let Some(doubt) = doubt.optional()? else { return Ok(false) };
        self.statement(text)?.execute(values)?;
        let state = if doubt || uncertain { State::Uncertain } else { State::Queued };
        self.tally.moved(Some(State::Leased), Some(state));
        Ok(true)
    }

    /// An operator's command.
    pub(super) fn operate(
        &mut self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError> {
        let event = op.event();
        let given_up: HashSet<&RecipientKey> = withdrawn.iter().collect();
        let (mut changed, mut done) = (0, Vec::new());
        let ordered: bool = self.statement(sql::HAS_ORDERS)?.query_row([], |row| row.get(0))?;
        for key in keys {
            let (id, index) = (key.id.0, key.index);
            let row = self
                .statement(sql::STATE)?
                .query_row(params![id, index], |r| Ok((r.get(0)?, r.get::<_, Option<i64>>(1)?)));
            let Some((number, release)) = row.optional()? else {
                if ordered {
                    self.forget_order(key)?;
                }
                continue;
            };
            let (state, release) = (rows::state(number)?, Timestamp(release.unwrap_or(i64::MIN)));
            let waits_for_its_time = op == Operation::Retry && release > now;
            if state == State::Leased && !given_up.contains(key) {
                self.note_order(op, key)?;
                continue;
            }
            if waits_for_its_time {
                continue;
            }
            // The last word counts.
            if ordered {
                self.forget_order(key)?;
            }
            let to = match state.on(event) {
                None => continue,
                Some(Next::Gone) => {
                    self.statement(sql::DELETE_RECIPIENT)?.execute(params![id, index])?;
                    done.push(key.id);
                    None
                }
                Some(Next::To(next)) if let Operation::HoldUntil(until) = op => {
                    let values = params![id, index, next as u8, until.max(now).0];
                    self.statement(sql::SET_STATE_RELEASE)?.execute(values)?;
                    Some(next)
                }
                Some(Next::To(State::Queued)) => {
                    let (number, due) = (State::Queued as u8, release.max(now));
                    self.statement(sql::SET_STATE_DUE)?.execute(params![id, index, number, due.0])?;
                    Some(State::Queued)
                }
                Some(Next::To(next)) => {
                    self.statement(sql::SET_STATE)?.execute(params![id, index, next as u8])?;
                    Some(next)
                }
            };
            self.tally.moved(Some(state), to);
            changed += 1;
        }
        self.drop_finished(&mut done)?;
        self.give_back(withdrawn)?;
        Ok(changed)
    }

    /// What is wanted of a recipient whose transaction is under way: it outlives whoever has that in hand.
    fn note_order(&mut self, op: Operation, key: &RecipientKey) -> Result<(), QueueError> {
        let word = match op {
            Operation::Hold => HOLD,
            Operation::Cancel => CANCEL,
            // Those leave it alone.
            Operation::Retry | Operation::Release | Operation::HoldUntil(_) => return Ok(()),
        };
        self.statement(sql::PUT_MEMO)?.execute(params![order_name(key), word])?;
        Ok(())
    }

    fn forget_order(&mut self, key: &RecipientKey) -> Result<(), QueueError> {
        self.statement(sql::DELETE_MEMO)?.execute([order_name(key)])?;
        Ok(())
    }

    /// Does what was ordered about recipients whose transactions are over, as nobody has any.
    fn carry_out_orders(&mut self) -> Result<(), QueueError> {
        let noted: Vec<(String, Vec<u8>)> = self
            .statement(sql::ORDERS)?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?;
        for (name, word) in noted {
            let op = match &*word {
                HOLD => Some(Operation::Hold),
                CANCEL => Some(Operation::Cancel),
                _ => None,
            };
            match order_key(&name).zip(op) {
                // The time counts for other operations.
                Some((key, op)) => drop(self.operate(op, &[key], &[], Timestamp(0))?),
                None => drop(self.statement(sql::DELETE_MEMO)?.execute([&name])?),
            }
        }
        Ok(())
    }

    /// Everything is due now: a step of that.
    pub(super) fn retry_all(
        &mut self,
        after: Option<RecipientKey>,
        now: Timestamp,
        limit: usize,
    ) -> Result<Retried, QueueError> {
        let from = after.map_or((i64::MIN, 0), |key| (key.id.0, key.index));
        // Ids begin with the time.
        let below = now.0.saturating_add(1).clamp(0, i64::MAX >> 20) << 20;
        let skip = i64::try_from(limit.max(1)).unwrap_or(i64::MAX) - 1;
        let next =
            self.statement(sql::KEYS_ON)?.query_row(params![from.0, from.1, below, skip], rows::key).optional()?;
        let to = match next {
            Some(key) => Some(key),
            None => self.statement(sql::LAST_KEY)?.query_row([below], rows::key).optional()?,
        };
        let Some(to) = to.filter(|to| (to.id.0, to.index) > from) else { return Ok(Retried::default()) };
        let counts: [Option<i64>; 6] = self
            .statement(sql::STATES_BETWEEN)?
            .query_row(params![from.0, from.1, to.id.0, to.index, now.0], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
            })?;
        let count = |at: usize| counts.get(at).copied().flatten().map_or(0, rows::unsigned);
        let of = |state: State| count(state as usize);
        let wait_for_their_time = count(State::ALL.len());
        self.statement(sql::RETRY_BETWEEN)?.execute(params![from.0, from.1, to.id.0, to.index, now.0])?;
        for state in [State::Failed, State::Uncertain] {
            legal(state, Event::Retry)?;
            (0..of(state)).for_each(|_| self.tally.moved(Some(state), Some(State::Queued)));
        }
        Ok(Retried {
            seen: State::ALL.iter().map(|state| of(*state)).sum(),
            changed: of(State::Queued) - wait_for_their_time + of(State::Failed) + of(State::Uncertain),
            leased: of(State::Leased),
            scheduled: wait_for_their_time,
            next,
        })
    }

    /// Moves what is queued from one lane to another.
    pub(super) fn move_lane(&mut self, from: &LaneName, to: &LaneName, limit: i64) -> Result<usize, QueueError> {
        if from == to {
            return Ok(0);
        }
        let keys = self.keys(sql::QUEUED_IN_LANE, params![from.as_str(), limit])?;
        let statement = self.statement(sql::SET_LANE)?;
        for key in &keys {
            statement.execute(params![key.id.0, key.index, to.as_str()])?;
        }
        Ok(keys.len())
    }

    /// Deletes dead letters that failed before `before`.
    pub(super) fn forget(&mut self, before: Timestamp, limit: i64) -> Result<usize, QueueError> {
        let keys = self.keys(sql::FAILED_BEFORE, params![before.0, limit])?;
        for key in &keys {
            self.statement(sql::DELETE_RECIPIENT)?.execute(params![key.id.0, key.index])?;
            self.tally.moved(Some(State::Failed), None);
        }
        self.drop_finished(&mut keys.iter().map(|key| key.id).collect())?;
        Ok(keys.len())
    }

    /// Stores, replaces or removes named values.
    pub(super) fn remember(&mut self, entries: &[(String, Option<bytes::Bytes>)]) -> Result<(), QueueError> {
        for (name, value) in entries {
            self.put(name, value.as_ref())?;
        }
        Ok(())
    }

    /// Changes named values if all of them are what is expected; returns how many, or 0.
    pub(super) fn swap(&mut self, changes: &[Swap]) -> Result<usize, QueueError> {
        let names: HashSet<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        if names.len() < changes.len() {
            return Err(QueueError::Invalid("a name twice among values to change".into()));
        }
        for Swap { name, expected, .. } in changes {
            let found: Option<Vec<u8>> = self.statement(sql::MEMO)?.query_row([name], |row| row.get(0)).optional()?;
            if found.as_deref() != expected.as_deref() {
                return Ok(0);
            }
        }
        for Swap { name, value, .. } in changes {
            self.put(name, value.as_ref())?;
        }
        Ok(changes.len())
    }

    fn put(&mut self, name: &str, value: Option<&bytes::Bytes>) -> Result<(), QueueError> {
        match value {
            Some(value) => self.statement(sql::PUT_MEMO)?.execute(params![name, &value[..]])?,
            None => self.statement(sql::DELETE_MEMO)?.execute([name])?,
        };
        Ok(())
    }

    fn keys(&mut self, text: &'static str, params: impl rusqlite::Params) -> Result<Vec<RecipientKey>, QueueError> {
        Ok(self.statement(text)?.query_map(params, rows::key)?.collect::<Result<_, _>>()?)
    }

    /// Deletes those of these messages that have no recipient left and owe nothing; a trigger deletes their
    /// chunks. Empties `ids`.
    pub(super) fn drop_finished(&mut self, ids: &mut Vec<QueueId>) -> Result<(), QueueError> {
        ids.sort_unstable();
        ids.dedup();
        for id in ids.drain(..) {
            if self.statement(sql::DELETE_MESSAGE_IF_DONE)?.execute([id.0])? == 1 {
                self.tally.messages -= 1;
            }
        }
        Ok(())
    }
}

/// Orders of operators among the named values, see `sql::ORDERS`.
const ORDER: &str = "order/";
const HOLD: &[u8] = b"hold";
const CANCEL: &[u8] = b"cancel";

fn order_name(key: &RecipientKey) -> String {
    format!("{ORDER}{}/{}", key.id.0, key.index)
}

fn order_key(name: &str) -> Option<RecipientKey> {
    let (id, index) = name.strip_prefix(ORDER)?.split_once('/')?;
    Some(RecipientKey { id: QueueId(id.parse().ok()?), index: index.parse().ok()? })
}

/// What start-up learns from the store.
pub(super) struct Recovered {
    pub(super) counts: Counts,
    pub(super) last_id: i64,
    pub(super) leases: usize,
    /// Messages that were never accepted; their chunks are still there (`dropped`).
    pub(super) incoming: usize,
}

/// Puts the store in order after a process that is gone: its leases are queued again with the due
/// time they had (uncertain where they were so before), and what was never accepted is marked as dropped. Costs
/// what that process had in memory.
pub(super) fn recover(conn: &mut Connection) -> Result<Recovered, QueueError> {
    let neighbours = Neighbours::default();
    let mut store = Store::begin(conn, &neighbours, 0)?;
    let leases = store.end_leases()?;
    crash::point("recover");
    let tx = &store.tx;
    let incoming = tx.execute(sql::DROP_ALL_INCOMING, [])?;
    let (mut counts, mark) = tx.query_row(sql::TALLY, [], |row| Ok((rows::counts(row)?, row.get::<_, i64>(7)?)))?;
    let newest: i64 = tx.query_row(sql::LAST_MESSAGE, [], |row| row.get(0))?;
    store.last_id = mark.max(newest);
    let (tally, last_id) = store.commit()?;
    tally.apply(&mut counts);
    Ok(Recovered { counts, last_id, leases, incoming })
}

fn legal(state: State, event: Event) -> Result<Next, QueueError> {
    state.on(event).ok_or_else(|| QueueError::Invalid(format!("{event:?} is not legal for {state}")))
}
