//! Random operations, with restarts at random points, against a model that is a map in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use mailweir::clock::{Clock, Timestamp};
use mailweir::mail::lifecycle::{Event, Next};
use mailweir::mail::{CHUNK, LaneName, Owed, QueueId, RecipientKey, State};
use mailweir::queue::{Counts, Filter, LaneDue, Operation, Owing, Settlement, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};

use super::debts::owed;
use super::{Rig, T0, letter, list};

const LANES: [&str; 3] = ["gmail", "ses", "@x.example"];
const SENDERS: [&str; 4] = ["", "a@one.example", "b@two.example", "c@three.example"];

#[derive(Clone, Debug)]
enum Step {
    Accept { lanes: Vec<usize>, sender: usize, priority: i8, leased: bool, big: bool, delay: u64 },
    AcceptAgain { nth: usize },
    Claim { lane: usize, limit: usize },
    Settle { picks: Vec<(usize, Fate)>, owes: bool },
    Report { nth: usize, how: Told },
    Operate { op: Operation, picks: Vec<usize>, withdraw: bool },
    Move { from: usize, to: usize, limit: usize },
    Forget,
    Wait { seconds: u64 },
    Reopen { close: bool },
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Delivered,
    Deferred { seconds: u64, counts: bool, uncertain: bool, warned: bool, lane: usize },
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Told {
    /// In a message.
    Dsn,
    /// To nobody.
    WrittenOff,
    /// In a message that cannot be stored.
    Impossible,
    /// And something that is not owed.
    TooMuch,
}

fn step() -> impl Strategy<Value = Step> {
    let fate = prop_oneof![
        3 => Just(Fate::Delivered),
        4 => (0..100u64, any::<bool>(), any::<bool>(), any::<bool>(), 0..3usize).prop_map(
            |(seconds, counts, uncertain, warned, lane)| Fate::Deferred { seconds, counts, uncertain, warned, lane }
        ),
        2 => Just(Fate::Failed),
    ];
    let how = prop::sample::select(vec![Told::Dsn, Told::Dsn, Told::WrittenOff, Told::Impossible, Told::TooMuch]);
    // Some of these times are over by then.
    let until = |seconds| Operation::HoldUntil(T0.after(Duration::from_secs(seconds)));
    let op = prop::sample::select(vec![Operation::Retry, Operation::Hold, Operation::Release, Operation::Cancel]);
    let op = prop_oneof![4 => op, 1 => (0..6000u64).prop_map(until)];
    let lanes = prop::collection::vec(0..3usize, 1..5);
    prop_oneof![
        8 => (lanes, 0..4usize, -9..=9i8, any::<bool>(), prop::bool::weighted(0.05), 0..50u64).prop_map(
            |(lanes, sender, priority, leased, big, delay)| Step::Accept { lanes, sender, priority, leased, big, delay }
        ),
        1 => any::<usize>().prop_map(|nth| Step::AcceptAgain { nth }),
        6 => (0..3usize, 0..12usize).prop_map(|(lane, limit)| Step::Claim { lane, limit }),
        6 => (prop::collection::vec((any::<usize>(), fate), 1..8), any::<bool>())
            .prop_map(|(picks, owes)| Step::Settle { picks, owes }),
        3 => (any::<usize>(), how).prop_map(|(nth, how)| Step::Report { nth, how }),
        4 => (op, prop::collection::vec(any::<usize>(), 1..6), any::<bool>())
            .prop_map(|(op, picks, withdraw)| Step::Operate { op, picks, withdraw }),
        2 => (0..3usize, 0..3usize, 1..10usize).prop_map(|(from, to, limit)| Step::Move { from, to, limit }),
        1 => Just(Step::Forget),
        3 => (1..60u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => any::<bool>().prop_map(|close| Step::Reopen { close }),
    ]
}

#[derive(Clone, Debug)]
struct Entry {
    state: State,
    lane: LaneName,
    due: Timestamp,
    priority: i8,
    attempts: u32,
    warned: bool,
    /// Not before.
    release: Option<Timestamp>,
    /// An attempt ended without the final reply.
    doubt: bool,
    reason: String,
}

impl Entry {
    /// Where it is when its lease ends without a fate.
    fn unleased(&self) -> State {
        if self.doubt { State::Uncertain } else { State::Queued }
    }
}

struct Model {
    rig: Rig,
    now: Timestamp,
    entries: BTreeMap<RecipientKey, Entry>,
    debts: BTreeMap<RecipientKey, Owed>,
    /// What is wanted of recipients that were leased when it was said.
    orders: BTreeMap<RecipientKey, Operation>,
}

pub async fn random_operations_agree_with_a_model(rig: Rig) {
    // The runner only makes the cases: each goes on with the store that the one before left.
    let mut runner = TestRunner::new(Config::default());
    let mut model = Model { rig, now: T0, entries: BTreeMap::new(), debts: BTreeMap::new(), orders: BTreeMap::new() };
    let mut done = Vec::new();
    for _ in 0..24 {
        let steps = prop::collection::vec(step(), 1..80).new_tree(&mut runner).expect("steps").current();
        for step in steps {
            done.push(step.clone());
            if let Err(e) = model.apply(step).await {
                panic!("{e}\nafter {done:#?}");
            }
        }
        if let Err(e) = model.compare().await {
            panic!("{e}\nafter {done:#?}");
        }
    }
    assert!(!model.entries.is_empty(), "the model held something");
}

fn check(agree: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if agree { Ok(()) } else { Err(what()) }
}

impl Model {
    fn pick(&self, n: usize, of: impl Fn(&Entry) -> bool) -> Option<RecipientKey> {
        let keys: Vec<_> = self.entries.iter().filter(|(_, e)| of(e)).map(|(k, _)| *k).collect();
        (!keys.is_empty()).then(|| keys[n % keys.len()])
    }

    fn insert(&mut self, id: QueueId, lanes: &[usize], priority: i8, leased: bool, due: Timestamp) {
        for (index, lane) in (0u32..).zip(lanes) {
            let entry = Entry {
                state: if leased { State::Leased } else { State::Queued },
                lane: LANES[*lane].into(),
                due,
                priority,
                attempts: 0,
                warned: false,
                release: None,
                doubt: false,
                reason: String::new(),
            };
            self.entries.insert(RecipientKey { id, index }, entry);
        }
    }

    /// Whose turn is when is the backend's choice: a new one may be due with one that waits in its lane already.
    async fn adopt(&mut self, id: QueueId) -> Result<(), String> {
        for row in list(&*self.rig.queue, &Filter::default(), 1000).await {
            if row.id != id.to_string() {
                continue;
            }
            let key = RecipientKey { id, index: row.index };
            let entry = &self.entries[&key];
            if entry.state == State::Leased || row.due == entry.due.to_string() {
                continue;
            }
            let received = entry.due;
            let before = self.waiting(&entry.lane).map(|(_, other)| other.due).filter(|due| *due < received);
            let with = before.into_iter().find(|due| row.due == due.to_string());
            let due = with.ok_or_else(|| format!("{row:?} is due with nobody who waits, nor when it came"))?;
            self.entries.get_mut(&key).expect("it is there").due = due;
        }
        Ok(())
    }

    fn waiting(&self, lane: &LaneName) -> impl Iterator<Item = (&RecipientKey, &Entry)> {
        let queued = |e: &Entry| matches!(e.state, State::Queued | State::Uncertain);
        self.entries.iter().filter(move |(_, e)| queued(e) && e.lane == *lane)
    }

    async fn apply(&mut self, step: Step) -> Result<(), String> {
        let queue = std::sync::Arc::clone(&self.rig.queue);
        match step {
            Step::Accept { lanes, sender, priority, leased, big, delay } => {
                let to: Vec<_> = lanes.iter().map(|n| ("r@x.example", LANES[*n])).collect();
                let at = self.now.after(Duration::from_secs(delay));
                let mut post = letter(SENDERS[sender], "").to(&to).priority(priority).received(at);
                post.leased = leased;
                if big {
                    post = post.body(vec![b'b'; CHUNK + 100]);
                }
                let id = post.post(&*queue).await;
                self.insert(id, &lanes, priority, leased, at);
                self.adopt(id).await?;
            }
            Step::AcceptAgain { nth } => {
                let Some(key) = self.pick(nth, |_| true) else { return Ok(()) };
                let again = queue.accept(letter("", "ses").build(key.id)).await;
                check(again.is_err(), || format!("{} was accepted twice", key.id))?;
            }
            Step::Claim { lane, limit } => self.claim(&LANES[lane].into(), limit).await?,
            Step::Settle { picks, owes } => self.settle(picks, owes).await?,
            Step::Report { nth, how } => self.report(nth, how).await?,
            Step::Operate { op, picks, withdraw } => {
                let mut keys: Vec<_> = picks.iter().filter_map(|n| self.pick(*n, |_| true)).collect();
                keys.sort_unstable();
                keys.dedup();
                let leased = |k: &RecipientKey| self.entries[k].state == State::Leased;
                let withdrawn: Vec<_> = keys.iter().copied().filter(|k| withdraw && leased(k)).collect();
                let expected = self.operate(op, &keys, &withdrawn);
                let changed = queue.operate(op, &keys, &withdrawn, self.now).await.map_err(|e| e.to_string())?;
                check(changed == expected, || format!("{op:?} changed {changed}, not {expected}"))?;
            }
            Step::Move { from, to, limit } => {
                let (from, to) = (LaneName::from(LANES[from]), LaneName::from(LANES[to]));
                let expected = if from == to { 0 } else { self.waiting(&from).count().min(limit) };
                let moved = queue.move_lane(&from, &to, limit).await.map_err(|e| e.to_string())?;
                check(moved == expected, || format!("moved {moved}, not {expected}"))?;
                // Which ones is the backend's choice: look.
                for row in list(&*queue, &Filter::default(), 1000).await {
                    let key = RecipientKey { id: row.id.parse().expect("an id"), index: row.index };
                    let entry = self.entries.get_mut(&key).ok_or("an unknown recipient")?;
                    if entry.lane == from && matches!(entry.state, State::Queued | State::Uncertain) {
                        entry.lane = row.provider.as_str().into();
                    }
                }
            }
            Step::Forget => {
                let long_after = Clock::System.now().after(Duration::from_secs(1000));
                let expected = self.entries.values().filter(|e| e.state == State::Failed).count();
                let forgot = queue.forget(long_after, Duration::from_secs(1), 1000).await.map_err(|e| e.to_string())?;
                check(forgot == expected, || format!("forgot {forgot}, not {expected}"))?;
                self.entries.retain(|_, e| e.state != State::Failed);
            }
            Step::Wait { seconds } => self.now = self.now.after(Duration::from_secs(seconds)),
            Step::Reopen { close } => {
                drop(queue);
                if close {
                    self.rig.reopen().await;
                } else {
                    self.rig.drop_and_reopen().await;
                }
                for entry in self.entries.values_mut().filter(|e| e.state == State::Leased) {
                    entry.state = entry.unleased();
                }
                for (key, op) in std::mem::take(&mut self.orders) {
                    if self.entries.contains_key(&key) {
                        self.operate(op, &[key], &[]);
                    }
                }
                self.compare().await?;
            }
        }
        let counts = self.rig.queue.counts().await.map_err(|e| e.to_string())?;
        let expected = self.counts();
        check(counts == expected, || format!("counts are {counts:?}, not {expected:?}"))
    }

    async fn claim(&mut self, lane: &LaneName, limit: usize) -> Result<(), String> {
        let mut due: Vec<i8> = self.waiting(lane).filter(|(_, e)| e.due <= self.now).map(|(_, e)| e.priority).collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        // One of eight is for lower priorities than the one that uses up the others.
        let strict = limit - limit / 8;
        let mut sure: Vec<i8> = due.iter().copied().take(strict).collect();
        if let Some(lower) =
            sure.last().and_then(|last| due.iter().skip(strict).find(|p| *p < last)).filter(|_| strict < limit)
        {
            // Which of the lower ones is left to chance, unless all are alike.
            if due.iter().skip(strict).filter(|p| sure.last().is_some_and(|last| *p < last)).all(|p| p == lower) {
                sure.push(*lower);
            }
        }
        due.truncate(limit);
        let leased = self.rig.queue.claim(lane, self.now, limit).await.map_err(|e| e.to_string())?;
        let got: Vec<i8> = leased.iter().map(|l| l.message.envelope.priority).collect();
        let right = got.len() == due.len() && got.iter().rev().is_sorted();
        let all_in = |p: &i8| got.iter().filter(|g| *g == p).count() >= sure.iter().filter(|s| *s == p).count();
        check(right && sure.iter().all(all_in), || format!("claimed priorities {got:?}, not {due:?}"))?;
        for l in leased {
            let entry = self.entries.get_mut(&l.key).ok_or("claimed an unknown recipient")?;
            let right = entry.due <= self.now && entry.lane == *lane && l.lane == *lane;
            let right = right && (entry.attempts, entry.warned) == (l.attempts, l.warned);
            check(right, || format!("{l:?} is not {entry:?}"))?;
            let Some(Next::To(state)) = entry.state.on(Event::Claim) else {
                return Err(format!("claimed {entry:?}"));
            };
            entry.state = state;
        }
        Ok(())
    }

    async fn report(&mut self, nth: usize, how: Told) -> Result<(), String> {
        let queue = std::sync::Arc::clone(&self.rig.queue);
        let ids: Vec<QueueId> = self.debts.keys().map(|key| key.id).collect();
        let Some(id) = (!ids.is_empty()).then(|| ids[nth % ids.len()]) else { return Ok(()) };
        let items = queue.owed(id, 2).await.map_err(|e| e.to_string())?.ok_or("nothing is owed")?.items;
        let mut told: Vec<_> = items.iter().map(|debt| (debt.key, debt.due)).collect();
        let dsn = queue.next_id(self.now);
        let new = letter("", LANES[0]).received(self.now);
        let new = match how {
            Told::Dsn | Told::TooMuch => Some(new.build(dsn)),
            Told::WrittenOff => None,
            Told::Impossible => Some(new.build(id)),
        };
        if matches!(how, Told::TooMuch) {
            told.push((RecipientKey { id, index: 99 }, self.now));
        }
        let reported = queue.report(told, new).await;
        if matches!(how, Told::Impossible | Told::TooMuch) {
            return check(reported.is_err(), || format!("an impossible report was stored: {how:?}"));
        }
        reported.map_err(|e| e.to_string())?;
        self.debts.retain(|key, _| items.iter().all(|told| told.key != *key));
        if matches!(how, Told::Dsn) {
            self.insert(dsn, &[0], 0, false, self.now);
            self.adopt(dsn).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, picks: Vec<(usize, Fate)>, owes: bool) -> Result<(), String> {
        let queue = std::sync::Arc::clone(&self.rig.queue);
        let mut settlements: Vec<Settlement> = Vec::new();
        for (n, fate) in picks {
            // Mostly what is held; now and then what is not.
            let held = |e: &Entry| n % 7 == 0 || e.state == State::Leased;
            let Some(key) = self.pick(n, held).filter(|k| settlements.iter().all(|s| s.key != *k)) else { continue };
            let verdict = match fate {
                Fate::Delivered => Verdict::Delivered,
                Fate::Failed => Verdict::Failed { reason: "550 no".into() },
                Fate::Deferred { seconds, counts, uncertain, warned, lane } => Verdict::Deferred {
                    due: self.now.after(Duration::from_secs(seconds)),
                    reason: format!("451 {seconds}"),
                    counts,
                    uncertain,
                    warned,
                    lane: LANES[lane].into(),
                },
            };
            settlements.push(Settlement { key, verdict });
        }
        // Of some of them a report is owed.
        let debts: Vec<Owed> = settlements.iter().filter(|_| owes).step_by(2).map(|s| self.debt(s.key)).collect();
        queue.settle(settlements.clone(), debts.clone()).await.map_err(|e| e.to_string())?;
        for debt in debts {
            if self.entries.get(&debt.key).is_some_and(|entry| entry.state == State::Leased) {
                self.debts.insert(debt.key, debt);
            }
        }
        for Settlement { key, verdict } in settlements {
            let entry = self.entries.get_mut(&key).ok_or("settled an unknown recipient")?;
            if entry.state != State::Leased {
                continue;
            }
            match verdict {
                Verdict::Delivered => {
                    self.entries.remove(&key);
                }
                Verdict::Failed { reason } => {
                    entry.state = State::Failed;
                    entry.reason = reason;
                }
                Verdict::Deferred { due, reason, counts, uncertain, warned, lane } => {
                    entry.doubt |= uncertain;
                    entry.state = entry.unleased();
                    entry.attempts += u32::from(counts);
                    entry.warned |= warned;
                    (entry.due, entry.reason, entry.lane) = (due, reason, lane);
                }
            }
        }
        Ok(())
    }

    /// Each with a due time of its own.
    fn debt(&self, key: RecipientKey) -> Owed {
        owed(key, self.now.after(Duration::from_millis(60_000 + self.rig.queue.next_id(self.now).0 as u64 % 1000)))
    }

    fn operate(&mut self, op: Operation, keys: &[RecipientKey], withdrawn: &[RecipientKey]) -> usize {
        let event = match op {
            Operation::Retry => Event::Retry,
            Operation::Hold => Event::Hold,
            Operation::Release => Event::Release,
            Operation::Cancel => Event::Cancel,
            Operation::HoldUntil(_) => Event::Postpone,
        };
        let mut changed = 0;
        for key in keys {
            let entry = self.entries.get_mut(key).expect("picked from the model");
            let given_up = withdrawn.contains(key);
            if entry.state == State::Leased && !given_up {
                if matches!(op, Operation::Hold | Operation::Cancel) {
                    self.orders.insert(*key, op);
                }
                continue;
            }
            if op == Operation::Retry && entry.release.is_some_and(|release| release > self.now) {
                continue;
            }
            self.orders.remove(key);
            match entry.state.on(event) {
                None if given_up => entry.state = entry.unleased(),
                None => continue,
                Some(Next::Gone) => {
                    self.entries.remove(key);
                    changed += 1;
                }
                Some(Next::To(state)) => {
                    entry.state = state;
                    if state == State::Queued {
                        // An operator has looked at it.
                        entry.doubt = false;
                        entry.due = entry.release.map_or(self.now, |release| release.max(self.now));
                    }
                    if let Operation::HoldUntil(until) = op {
                        entry.due = until.max(self.now);
                        (entry.doubt, entry.release) = (false, Some(entry.due));
                    }
                    changed += 1;
                }
            }
        }
        changed
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for entry in self.entries.values() {
            *match entry.state {
                State::Queued => &mut counts.queued,
                State::Leased => &mut counts.leased,
                State::Held => &mut counts.held,
                State::Failed => &mut counts.failed,
                State::Uncertain => &mut counts.uncertain,
            } += 1;
        }
        let mut ids: Vec<_> = self.entries.keys().map(|k| k.id).collect();
        ids.extend(self.debts.keys().map(|key| key.id));
        ids.sort_unstable();
        ids.dedup();
        counts.messages = ids.len() as u64;
        counts.owed = self.debts.len() as u64;
        counts
    }

    /// Everything that can be seen of the store.
    async fn compare(&self) -> Result<(), String> {
        let queue = &*self.rig.queue;
        let rows = list(queue, &Filter::default(), 50).await;
        check(rows.len() == self.entries.len(), || format!("{} rows, not {}", rows.len(), self.entries.len()))?;
        for (row, (key, entry)) in rows.iter().zip(&self.entries) {
            let same = (row.id.as_str(), row.index) == (key.id.to_string().as_str(), key.index)
                && row.state == entry.state.as_str()
                && row.provider == entry.lane.as_str()
                && (entry.state == State::Failed || row.due == entry.due.to_string())
                && row.release == entry.release.map(|at| at.to_string()).unwrap_or_default()
                && (row.attempts, row.priority, &row.reason) == (entry.attempts, entry.priority, &entry.reason);
            check(same, || format!("{row:?} is not {entry:?}"))?;
            let head = queue.chunk(key.id, 0).await.map_err(|e| e.to_string())?;
            check(head.is_some(), || format!("{} has no body", key.id))?;
        }
        let mut owing: Vec<Owing> = self.debts.values().map(|debt| Owing { id: debt.key.id, due: debt.due }).collect();
        owing.sort_unstable_by_key(|owing| (owing.due, owing.id));
        owing.dedup();
        let found = queue.owing(None, 1000).await.map_err(|e| e.to_string())?;
        check(found == owing, || format!("owing are {found:?}, not {owing:?}"))?;
        for id in owing.iter().map(|owing| owing.id) {
            let items = queue.owed(id, 100).await.map_err(|e| e.to_string())?.map(|debt| debt.items);
            let expected: Vec<Owed> = self.debts.values().filter(|debt| debt.key.id == id).cloned().collect();
            check(items.as_ref() == Some(&expected), || format!("{items:?} are owed, not {expected:?}"))?;
            check(queue.chunk(id, 0).await.is_ok_and(|head| head.is_some()), || format!("{id} has no body"))?;
        }
        let mut due: BTreeMap<LaneName, Timestamp> = BTreeMap::new();
        for lane in LANES.map(LaneName::from) {
            let earliest = self.waiting(&lane).map(|(_, e)| e.due).min();
            let told = queue.lane_due(&lane).await.map_err(|e| e.to_string())?;
            check(told == earliest, || format!("{lane} is due {told:?}, not {earliest:?}"))?;
            if let Some(earliest) = earliest {
                due.insert(lane, earliest);
            }
        }
        let expected: Vec<_> = due.into_iter().map(|(lane, due)| LaneDue { lane, due }).collect();
        let lanes = queue.lanes(None, 10).await.map_err(|e| e.to_string())?;
        check(lanes == expected, || format!("lanes are {lanes:?}, not {expected:?}"))
    }
}
