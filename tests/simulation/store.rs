//! The queue of the simulation: the real store, on a disk that is slow, full or broken at times,
//! under a machine that can go off before and after every commit. What is committed is told to the
//! model at that very moment.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use mailweir::clock::Timestamp;
use mailweir::mail::{LaneName, NewMessage, Owed, QueueId, RecipientKey, State};
use mailweir::queue::sqlite::InlineQueue;
use mailweir::queue::turns::{Look, Turn};
use mailweir::queue::{
    Counts, Debt, Debts, Desk, Filter, LaneDue, Lanes, Leased, Leases, Memory, Operation, Owing, Page, QueueError, Row,
    Settlement, Spool, Swap, Upkeep, Verdict,
};
use tokio::sync::Mutex;

use super::plan::Disk;
use super::world::World;

pub struct Store {
    pub queue: Arc<InlineQueue>,
    pub world: Arc<World>,
    /// One write after the other, as with one writer.
    turn: Mutex<()>,
}

impl Store {
    pub fn new(queue: Arc<InlineQueue>, world: Arc<World>) -> Arc<Store> {
        Arc::new(Store { queue, world, turn: Mutex::new(()) })
    }

    /// Does a write, and `then` what follows from its commit.
    async fn write<T>(
        &self,
        what: &str,
        op: impl Future<Output = Result<T, QueueError>>,
        then: impl FnOnce(&T),
    ) -> Result<T, QueueError> {
        let world = &self.world;
        let turn = self.turn.lock().await;
        tokio::time::sleep(Duration::from_millis(world.random(1..=4))).await;
        let failed = match world.disk() {
            None => None,
            Some(Disk::Full) => Some(QueueError::Full("simulated".into())),
            Some(Disk::Unavailable) => Some(QueueError::Unavailable("simulated".into())),
            Some(Disk::Flaky) => world.chance(0.5).then(|| QueueError::Unavailable("simulated".into())),
            Some(Disk::Slow) => {
                tokio::time::sleep(Duration::from_millis(world.random(50..=8000))).await;
                None
            }
        };
        if world.step() {
            return std::future::pending().await;
        }
        if let Some(error) = failed {
            world.note(format_args!("store {what}: {error}"));
            return Err(error);
        }
        let result = op.await;
        if let Ok(done) = &result {
            then(done);
        }
        drop(turn);
        world.note(format_args!("store {what} {}", result.is_ok()));
        if let Err(error) = &result {
            world.wrong([format!("the store refuses {what}: {error}")]);
        }
        // Committed, and perhaps nobody hears of it.
        if world.step() {
            return std::future::pending().await;
        }
        result
    }

    fn read(&self) -> Result<(), QueueError> {
        match self.world.disk() {
            Some(Disk::Unavailable) => Err(QueueError::Unavailable("simulated".into())),
            Some(Disk::Flaky) if self.world.chance(0.5) => Err(QueueError::Unavailable("simulated".into())),
            _ => Ok(()),
        }
    }

    /// Everything that is there.
    pub async fn all(&self, filter: &Filter) -> Vec<(RecipientKey, State, Row)> {
        let (mut rows, mut after) = (Vec::new(), None);
        loop {
            let page = self.queue.inspect(filter, after, 1000).await.expect("the store can be read");
            rows.extend(page.rows);
            match page.next {
                Some(next) => after = Some(next),
                None => return rows,
            }
        }
    }

    /// Invariant 8, and the tally.
    pub async fn audit(&self) {
        let rows = self.all(&Filter::default()).await;
        let counts = self.queue.counts().await.expect("counts");
        let now = self.world.timestamp();
        self.world.model(|model| model.audit(&rows, counts, now));
    }
}

#[async_trait]
impl Spool for Store {
    fn next_id(&self, now: Timestamp) -> QueueId {
        self.queue.next_id(now)
    }

    async fn spill(&self, id: QueueId, index: u32, chunk: Bytes) -> Result<(), QueueError> {
        self.write("spill", self.queue.spill(id, index, chunk), |()| ()).await
    }

    async fn unspill(&self, id: QueueId) {
        self.queue.unspill(id).await;
    }

    async fn accept(&self, message: NewMessage) -> Result<(), QueueError> {
        let what = format!("accept {}", message.message.id);
        let now = self.world.timestamp();
        let then = |(): &()| self.world.model(|model| model.accepted(&message, now));
        self.write(&what, self.queue.accept(message.clone()), then).await
    }

    async fn chunk(&self, id: QueueId, index: u32) -> Result<Option<Bytes>, QueueError> {
        self.read()?;
        self.queue.chunk(id, index).await
    }

    async fn probe(&self) -> Result<(), QueueError> {
        self.write("probe", self.queue.probe(), |()| ()).await
    }
}

#[async_trait]
impl Leases for Store {
    async fn claim(&self, lane: &LaneName, now: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.write(&format!("claim {lane}"), self.queue.claim(lane, now, limit), |_| ()).await
    }

    async fn claim_older(&self, lane: &LaneName, received: Timestamp, limit: usize) -> Result<Vec<Leased>, QueueError> {
        self.write(&format!("claim older {lane}"), self.queue.claim_older(lane, received, limit), |_| ()).await
    }

    async fn settle(&self, settlements: Vec<Settlement>, owed: Vec<Owed>) -> Result<(), QueueError> {
        let shown = |s: &Settlement| match &s.verdict {
            Verdict::Delivered => format!("{} delivered", s.key.id),
            Verdict::Deferred { due, reason, .. } => format!("{} until {due}: {reason}", s.key.id),
            Verdict::Failed { reason } => format!("{} failed: {reason}", s.key.id),
        };
        let what = format!("settle {:?} {}", settlements.iter().map(shown).collect::<Vec<_>>(), owed.len());
        let then = |(): &()| {
            let now = self.world.timestamp();
            self.world.model(|model| model.settled(&settlements, &owed, now));
        };
        self.write(&what, self.queue.settle(settlements.clone(), owed.clone()), then).await
    }
}

#[async_trait]
impl Lanes for Store {
    async fn lanes(&self, after: Option<LaneName>, limit: usize) -> Result<Vec<LaneDue>, QueueError> {
        self.read()?;
        self.queue.lanes(after, limit).await
    }

    async fn lane_due(&self, lane: &LaneName) -> Result<Option<Timestamp>, QueueError> {
        self.read()?;
        self.queue.lane_due(lane).await
    }

    async fn turns(&self, look: Look) -> Result<Vec<Turn>, QueueError> {
        self.read()?;
        self.queue.turns(look).await
    }

    async fn move_lane(&self, from: &LaneName, to: &LaneName, limit: usize) -> Result<usize, QueueError> {
        self.write("move", self.queue.move_lane(from, to, limit), |_| ()).await
    }
}

#[async_trait]
impl Debts for Store {
    async fn owing(&self, after: Option<Owing>, limit: usize) -> Result<Vec<Owing>, QueueError> {
        self.read()?;
        self.queue.owing(after, limit).await
    }

    async fn owed(&self, id: QueueId, limit: usize) -> Result<Option<Debt>, QueueError> {
        self.read()?;
        self.queue.owed(id, limit).await
    }

    async fn is_under_way(&self, id: QueueId, until: Timestamp) -> Result<bool, QueueError> {
        self.read()?;
        self.queue.is_under_way(id, until).await
    }

    async fn report(&self, told: Vec<(RecipientKey, Timestamp)>, report: Option<NewMessage>) -> Result<(), QueueError> {
        let then = |(): &()| {
            let now = self.world.timestamp();
            self.world.model(|model| model.reported(&told, report.as_ref(), now));
        };
        self.write(&format!("report {}", told.len()), self.queue.report(told.clone(), report.clone()), then).await
    }
}

#[async_trait]
impl Desk for Store {
    async fn inspect(&self, filter: &Filter, after: Option<RecipientKey>, limit: usize) -> Result<Page, QueueError> {
        self.read()?;
        self.queue.inspect(filter, after, limit).await
    }

    async fn operate(
        &self,
        op: Operation,
        keys: &[RecipientKey],
        withdrawn: &[RecipientKey],
        now: Timestamp,
    ) -> Result<usize, QueueError> {
        let operate = async {
            let changed = self.queue.operate(op, keys, withdrawn, now).await?;
            let rows = self.all(&Filter::default()).await;
            for key in keys {
                let row = rows.iter().find(|(k, ..)| k == key);
                self.world.model(|model| model.operated(op, *key, row, now));
            }
            Ok(changed)
        };
        self.write(&format!("{op:?} {}", keys.len()), operate, |_| ()).await
    }

    async fn counts(&self) -> Result<Counts, QueueError> {
        self.queue.counts().await
    }

    async fn forget(&self, now: Timestamp, keep: Duration, limit: usize) -> Result<usize, QueueError> {
        // Every minute of every simulated day: only what finds something is worth a wait.
        if self.read().is_err() {
            return Err(QueueError::Unavailable("simulated".into()));
        }
        self.queue.forget(now, keep, limit).await
    }
}

#[async_trait]
impl Memory for Store {
    async fn remember(&self, entries: Vec<(String, Option<Bytes>)>) -> Result<(), QueueError> {
        self.write("remember", self.queue.remember(entries), |()| ()).await
    }

    async fn swap(&self, changes: Vec<Swap>) -> Result<bool, QueueError> {
        self.write("swap", self.queue.swap(changes), |_| ()).await
    }

    async fn recall(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, QueueError> {
        self.read()?;
        self.queue.recall(prefix).await
    }
}

#[async_trait]
impl Upkeep for Store {
    async fn close(&self) {}
}
