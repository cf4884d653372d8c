//! What operators can do to the relay that runs: [`Operator`], and [`Front`], which stays while one
//! configuration takes the place of another.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use crate::admin::explain::{LaneExplained, explain};
use crate::admin::{Controls, Explanation, FeedbackStatus, LaneStatus, Status, Withdrawn};
use crate::clock::Timestamp;
use crate::config::Store;
use crate::config::report::Setting;
use crate::mail::{Address, LaneName, RecipientKey};
use crate::pipeline::Relay;
use crate::queue::sqlite::Aside;
use crate::queue::{Counts, Operation, Queue, QueueError, Storage};
use crate::schedule::{Job, Lane, Snapshot};

/// Whom a reload answers: what it did, or why it did nothing.
pub(super) type Reloaded = oneshot::Sender<Result<String, String>>;

/// The handles of `relay` for operators.
pub fn controls(
    relay: Arc<Relay>,
    settings: Vec<Setting>,
    file: Option<PathBuf>,
    listening: Vec<SocketAddr>,
) -> Arc<dyn Controls> {
    let started = relay.clock.now();
    Arc::new(Operator { relay, settings: settings.into(), started, file, listening })
}

/// What operators can do to the running relay.
pub(super) struct Operator {
    pub(super) relay: Arc<Relay>,
    pub(super) settings: Arc<[Setting]>,
    pub(super) started: Timestamp,
    pub(super) file: Option<PathBuf>,
    pub(super) listening: Vec<SocketAddr>,
}

#[async_trait]
impl Controls for Operator {
    fn queue(&self) -> Arc<dyn Queue> {
        self.relay.queue.clone()
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn {
        self.withdrawn(self.relay.scheduler.withdraw(keys))
    }

    fn recall(&self, op: Operation, keys: &[RecipientKey]) -> Withdrawn {
        self.withdrawn(self.relay.take_from_workers(op, keys))
    }

    fn wake(&self, lanes: &[LaneName], due: Timestamp) {
        self.relay.forget_failures();
        for name in lanes {
            self.relay.scheduler.note(name, due);
        }
    }

    fn wake_all(&self, due: Timestamp) {
        self.relay.forget_failures();
        self.relay.scheduler.note_all(due);
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        let now = self.relay.clock.now();
        // Lanes that mail only passes through are of interest while there is some.
        let used = |lane: &Arc<Lane>| lane.in_memory() > 0 || self.relay.router.leads_to(&lane.name);
        let status = |lane: &Arc<Lane>| self.with_descriptors(lane, lane_status(lane, now));
        self.relay.scheduler.lanes().iter().filter(|lane| used(lane)).map(status).collect()
    }

    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError> {
        self.relay.pause(&LaneName::from(lane_or_provider), paused).await
    }

    fn status(&self) -> Status {
        let (relay, stats) = (&self.relay, &self.relay.stats);
        let Store::Sqlite(store) = &relay.config.queue.store;
        let aside = Aside::of(store, relay.config.queue.min_free);
        Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            hostname: relay.config.hostname.clone(),
            config: self.file.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            started: self.started.to_string(),
            uptime: relay.clock.now().since(self.started).as_secs(),
            listeners: self.listening.iter().map(ToString::to_string).collect(),
            accepted: stats.accepted.get(),
            delivered: stats.delivered.get(),
            deferred: stats.deferred.get(),
            bounced: stats.bounced.get() + stats.expired.get(),
            queue: Counts::default(),
            storage: Storage::default(),
            set_aside: aside.bytes,
            min_free: aside.wanted,
        }
    }

    async fn explain(
        &self,
        sender: Option<&Address>,
        recipient: &Address,
        priority: i8,
    ) -> Result<Explanation, String> {
        let relay = &self.relay;
        let told = explain(&relay.config, &self.settings, &relay.router, sender, recipient, priority).await;
        let mut told = Explanation { running: true, ..told };
        if !told.route.permanent {
            let name = LaneName::from(told.route.lane.as_str());
            let provider = relay.router.provider_of_lane(&name);
            let time = relay.clock.now();
            // Asking makes no lane: the store knows what replies taught about one that is not here.
            let (status, now, ahead) = match relay.scheduler.known(&name) {
                Some(lane) => (
                    self.with_descriptors(&lane, lane_status(&lane, time)),
                    lane.snapshot(),
                    lane.ahead_of(priority) as u64,
                ),
                None => {
                    let stored = FeedbackStatus::stored(&*relay.queue, name.as_str(), &provider, time).await;
                    let feedback = stored.map_err(|error| error.to_string())?;
                    (LaneStatus { feedback, ..LaneStatus::idle(&name, &provider) }, Snapshot::default(), 0)
                }
            };
            told.feedback = status.feedback.clone();
            let mut state = LaneExplained::new(status, &now, &provider, ahead);
            let counted = state.count_stored(&*relay.queue, &name, priority, &now, &provider).await;
            counted.map_err(|error| error.to_string())?;
            told.lane = Some(state);
        }
        Ok(told)
    }
}

impl Operator {
    fn withdrawn(&self, taken: Vec<(Arc<Lane>, Job)>) -> Withdrawn {
        let scheduler = self.relay.scheduler.clone();
        let of = |job: &Job| job.recipients.iter().map(|held| job.key(held.index)).collect::<Vec<_>>();
        let keys = taken.iter().flat_map(|(_, job)| of(job)).collect();
        // To the lanes they come from, whatever is in force by then.
        Withdrawn::new(keys, move || scheduler.put_back(taken))
    }

    /// Connections that wait for a descriptor stop a lane, too, unless something else does.
    fn with_descriptors(&self, lane: &Lane, status: LaneStatus) -> LaneStatus {
        let waiting = self.relay.connector.descriptors().waiting_of(&lane.name);
        if waiting == 0 || status.paused || !status.stopped.is_empty() {
            return status;
        }
        let stopped = format!("{waiting} connections wait for a file descriptor (limit of open files)");
        LaneStatus { stopped, ..status }
    }
}

fn lane_status(lane: &Lane, time: Timestamp) -> LaneStatus {
    let now = lane.snapshot();
    let held = lane.hold().map(|(left, why)| format!("{why} (for {} s)", left.as_secs()));
    LaneStatus {
        waiting: now.ready as u64,
        in_flight: now.in_flight as u64,
        connections: u64::from(now.workers),
        paused: now.paused,
        stopped: now
            .circuit
            .map(|(reason, left)| format!("{reason} (next try in {} s)", left.as_secs()))
            .or(held)
            .or_else(|| now.held.as_ref().map(ToString::to_string))
            .or_else(|| now.held_aside.first().map(|(held, waiting)| format!("{held} ({waiting} recipients wait)")))
            .unwrap_or_default(),
        feedback: lane.learned(|adapt| FeedbackStatus::of(adapt, &lane.provider, time)),
        last_error: now.last_error.unwrap_or_default(),
        ..LaneStatus::idle(&lane.name, &lane.provider)
    }
}

/// The controls of whatever configuration is in force.
pub(super) struct Front {
    operator: ArcSwap<Operator>,
    reload: mpsc::Sender<Reloaded>,
}

impl Front {
    /// `reload` takes the requests to read the configuration again.
    pub(super) fn new(operator: Operator, reload: mpsc::Sender<Reloaded>) -> Front {
        Front { operator: ArcSwap::from_pointee(operator), reload }
    }

    /// From now on, those of `operator`.
    pub(super) fn put(&self, operator: Operator) {
        self.operator.store(Arc::new(operator));
    }
}

#[async_trait]
impl Controls for Front {
    fn queue(&self) -> Arc<dyn Queue> {
        self.operator.load().queue()
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Withdrawn {
        self.operator.load().withdraw(keys)
    }

    fn recall(&self, op: Operation, keys: &[RecipientKey]) -> Withdrawn {
        self.operator.load().recall(op, keys)
    }

    fn wake(&self, lanes: &[LaneName], due: Timestamp) {
        self.operator.load().wake(lanes, due);
    }

    fn wake_all(&self, due: Timestamp) {
        self.operator.load().wake_all(due);
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        self.operator.load().lanes()
    }

    async fn pause(&self, lane_or_provider: &str, paused: bool) -> Result<bool, QueueError> {
        let operator = self.operator.load_full();
        operator.pause(lane_or_provider, paused).await
    }

    fn status(&self) -> Status {
        self.operator.load().status()
    }

    async fn explain(
        &self,
        sender: Option<&Address>,
        recipient: &Address,
        priority: i8,
    ) -> Result<Explanation, String> {
        self.operator.load_full().explain(sender, recipient, priority).await
    }

    async fn reload(&self) -> Result<String, String> {
        let ended = || "mailweir is stopping".to_string();
        let (reply, told) = oneshot::channel();
        self.reload.send(reply).await.map_err(|_| ended())?;
        told.await.map_err(|_| ended())?
    }
}
