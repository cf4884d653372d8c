//! A relay for the command line to talk to: a queue in memory with six recipients of two messages,
//! and a scheduler that holds one of them and has another in a transaction.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mailweir::admin::{Controls, LaneStatus, Resumed, Status, Withdrawn};
use mailweir::clock::{Clock, Timestamp};
use mailweir::config::units::Pattern;
use mailweir::mail::lifecycle::{Event, Next};
use mailweir::mail::{IdSource, LaneName, NewMessage, Owed, QueueId, RecipientKey, State};
use mailweir::queue::{
    Counts, Debts, Desk, Filter, LaneDue, Lanes, Leased, Leases, Memory, Operation, Page, Queue, QueueError, Row,
    Settlement, Spool, Upkeep,
};
use parking_lot::Mutex;

type Entry = (RecipientKey, State, Row);

pub struct Fake {
    me: Weak<Fake>,
    ids: Vec<String>,
    entries: Mutex<Vec<Entry>>,
    in_memory: Mutex<Vec<RecipientKey>>,
    woken: Mutex<Vec<String>>,
    paused: Mutex<bool>,
    operations_fail: Mutex<bool>,
}

impl Fake {
    pub fn new() -> Arc<Fake> {
        let now = Clock::System.now();
        let hours_ago = |h: i64| Timestamp(now.0 - h * 3_600_000);
        let source = IdSource::new(None);
        let (first, second) = (source.next(hours_ago(3)), source.next(hours_ago(1)));
        let row = |id: QueueId, index: u32, sender: &str, recipient: &str, lane: &str, state: State, reason: &str| {
            let received = if id == first { hours_ago(3) } else { hours_ago(1) };
            let row = Row {
                id: id.to_string(),
                index,
                sender: sender.into(),
                user: String::new(),
                recipient: recipient.into(),
                provider: lane.into(),
                lane: lane.into(),
                state: state.to_string(),
                priority: 0,
                attempts: 1,
                due: now.after(Duration::from_secs(90)).to_string(),
                release: String::new(),
                size: 26,
                received: received.to_string(),
                copy: false,
                requiretls: false,
                reason: reason.into(),
                waits: String::new(),
                report_due: if state == State::Failed {
                    now.after(Duration::from_secs(45)).to_string()
                } else {
                    String::new()
                },
            };
            (RecipientKey { id, index }, state, row)
        };
        let entries = vec![
            row(first, 0, "s@shop.example", "a@x.example", "gmail", State::Queued, ""),
            row(first, 1, "s@shop.example", "b@x.example", "gmail", State::Uncertain, "451 4.3.0 try later\nplease"),
            row(first, 2, "s@shop.example", "c@x.example", "gmail", State::Leased, ""),
            row(second, 0, "", "d@y.example", "@y.example", State::Queued, ""),
            row(second, 1, "", "e@y.example", "@y.example", State::Leased, ""),
            row(second, 2, "", "f@y.example", "@y.example", State::Failed, "550 5.1.1 no such user"),
        ];
        Arc::new_cyclic(|me| Fake {
            me: me.clone(),
            ids: vec![first.to_string(), second.to_string()],
            in_memory: Mutex::new(vec![RecipientKey { id: first, index: 2 }]),
            entries: Mutex::new(entries),
            woken: Mutex::default(),
            paused: Mutex::new(false),
            operations_fail: Mutex::new(false),
        })
    }

    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// States in order of key; `uncertain` counts as `queued`.
    pub fn states(&self) -> Vec<String> {
        let word = |s: State| if s == State::Uncertain { State::Queued } else { s };
        self.entries.lock().iter().map(|(_, state, _)| word(*state).to_string()).collect()
    }

    pub fn woken(&self) -> Vec<String> {
        self.woken.lock().clone()
    }

    pub fn fail_operations(&self, fail: bool) {
        *self.operations_fail.lock() = fail;
    }

    /// What waits in the scheduler's memory.
    pub fn in_memory(&self) -> Vec<RecipientKey> {
        self.in_memory.lock().clone()
    }
}

impl Fake {
    fn matches(entry: &Entry, f: &Filter) -> bool {
        let (_, state, row) = entry;
        let glob =
            |pattern: &Option<String>, text: &str| pattern.as_ref().is_none_or(|p| Pattern::new(p).matches(text));
        let is = |want: &Option<String>, text: &str| want.as_ref().is_none_or(|w| w == text);
        let sender = if row.sender.is_empty() { "<>" } else { &row.sender };
        is(&f.id, &row.id)
            && glob(&f.sender, sender)
            && glob(&f.recipient, &row.recipient)
            && is(&f.domain, row.recipient.rsplit('@').next().unwrap_or_default())
            && is(&f.provider, &row.provider)
            && is(&f.state, state.as_str())
            && f.received_before.is_none_or(|t| row.received <= Timestamp(t).to_string())
            && glob(&f.reason, &row.reason)
    }
}

#[async_trait]
impl Controls for Fake {
    fn queue(&self) -> Arc<dyn Queue> {
        self.me.upgrade().expect("it is alive")
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn {
        let mut mine = self.in_memory.lock();
        let (taken, rest): (Vec<_>, Vec<_>) = mine.drain(..).partition(|key| keys.contains(key));
        *mine = rest;
        let (me, back) = (self.me.upgrade().expect("it is alive"), taken.clone());
        Withdrawn::new(taken, move || me.in_memory.lock().extend(back))
    }

    fn wake(&self, lanes: &[LaneName], _due: Timestamp) {
        self.woken.lock().extend(lanes.iter().map(ToString::to_string));
    }

    fn wake_all(&self, _due: Timestamp) {
        self.woken.lock().push("all".into());
    }

    async fn lanes(&self) -> Vec<LaneStatus> {
        let lane = |name: &str, provider: &str, paused| LaneStatus {
            name: name.into(),
            provider: provider.into(),
            waiting: 7,
            in_flight: 2,
            connections: 2,
            max_connections: 10,
            rate: vec!["20/s".into()],
            paused,
            ..LaneStatus::default()
        };
        vec![lane("gmail", "gmail", *self.paused.lock()), lane("@y.example", "default", false)]
    }

    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError> {
        *self.paused.lock() = paused;
        Ok(lane_or_provider == "gmail")
    }

    async fn resume(&self, lane_or_provider: &str) -> Result<Option<Vec<Resumed>>, QueueError> {
        let still = |told: &str, by_world| Resumed {
            name: lane_or_provider.to_owned(),
            still: vec![told.to_owned()],
            stopped: true,
            by_world,
            ..Resumed::default()
        };
        Ok(match lane_or_provider {
            "hangs" => Some(vec![still("mx.example says nothing", true)]),
            "used-up" => Some(vec![still("quota 5/d used up", false)]),
            name => self.pause(name, false).await?.then(Vec::new),
        })
    }

    fn status(&self) -> Status {
        Status { version: "9.9".into(), pid: 7, hostname: "relay.example".into(), ..Status::default() }
    }
}

#[async_trait]
impl Spool for Fake {
    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        let known = index == 0 && self.ids.contains(&id.to_string());
        Ok(known.then(|| Bytes::from_static(b"Subject: hello\r\n\r\nthe body\r\n")))
    }

    // The command line uses nothing of what follows.

    fn next_id(&self, now: Timestamp) -> QueueId {
        IdSource::new(None).next(now)
    }

    async fn spill(&self, _: QueueId, _: u32, _: Bytes) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    async fn unspill(&self, _: QueueId) {}

    async fn accept(&self, _: NewMessage) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    async fn probe(&self) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Leases for Fake {
    async fn claim_older(&self, _: &LaneName, _: Timestamp, _: usize) -> Result<Vec<Leased>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn settle(&self, _: Vec<Settlement>, _: Vec<Owed>) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    async fn claim(&self, _: &LaneName, _: Timestamp, _: usize) -> Result<Vec<Leased>, QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Lanes for Fake {
    async fn lanes(&self, _: Option<LaneName>, _: usize) -> Result<Vec<LaneDue>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn lane_due(&self, _: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn turns(&self, _: mailweir::queue::turns::Look) -> Result<Vec<mailweir::queue::turns::Turn>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn move_lane(&self, _: &LaneName, _: &LaneName, _: usize) -> Result<usize, QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Debts for Fake {
    async fn owing(
        &self,
        _: Option<mailweir::queue::Owing>,
        _: usize,
    ) -> Result<Vec<mailweir::queue::Owing>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn owed(&self, _: QueueId, _: usize) -> Result<Option<mailweir::queue::Debt>, QueueError> {
        Err(QueueError::Closed)
    }

    async fn is_under_way(&self, _: QueueId, _: Timestamp) -> Result<bool, QueueError> {
        Err(QueueError::Closed)
    }

    async fn report(&self, _: Vec<(RecipientKey, Timestamp)>, _: Option<NewMessage>) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Desk for Fake {
    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError> {
        let entries = self.entries.lock();
        let later = |entry: &&Entry| after.is_none_or(|a| entry.0 > a) && Fake::matches(entry, filter);
        // Small pages, so that paging is at work.
        let limit = limit.min(2);
        let rows: Vec<Entry> = entries.iter().filter(later).take(limit).cloned().collect();
        let next = rows.last().filter(|_| rows.len() == limit).map(|(key, ..)| *key);
        Ok(Page { rows, next })
    }

    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        _now: Timestamp,
    ) -> Result<usize, QueueError> {
        if *self.operations_fail.lock() && !withdrawn.is_empty() {
            return Err(QueueError::Unavailable("disk trouble".into()));
        }
        let event = match op {
            Operation::Retry => Event::Retry,
            Operation::Hold => Event::Hold,
            Operation::Release => Event::Release,
            Operation::Cancel => Event::Cancel,
            Operation::HoldUntil(_) => Event::Postpone,
        };
        let mut changed = 0;
        self.entries.lock().retain_mut(|(key, state, row)| {
            if !keys.contains(key) || (*state == State::Leased && !withdrawn.contains(key)) {
                return true;
            }
            let next = state.on(event);
            changed += usize::from(next.is_some());
            if let Some(Next::To(to)) = next {
                *state = to;
                row.state = to.to_string();
            }
            next != Some(Next::Gone)
        });
        Ok(changed)
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        Ok(Counts { messages: 2, queued: 3, leased: 2, failed: 1, ..Counts::default() })
    }

    async fn forget(&self, _: Timestamp, _: Duration, _: usize) -> Result<usize, QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Memory for Fake {
    async fn remember(&self, _: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        Err(QueueError::Closed)
    }

    async fn swap(&self, _: Vec<mailweir::queue::Swap>) -> Result<bool, QueueError> {
        Err(QueueError::Closed)
    }
    async fn recall(&self, _: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        Err(QueueError::Closed)
    }
}

#[async_trait]
impl Upkeep for Fake {
    async fn close(&self) {}
}
