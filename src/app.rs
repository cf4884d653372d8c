//! The only wiring: configuration → parts → run → drain.
//!
//! Order matters. Everything that can refuse to start does so before the first listener is bound;
//! a client that connects finds a relay that works. At shutdown the listeners stop first, then
//! transactions in flight may finish within `drain`; what is left is in the queue anyway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_trait::async_trait;
use tokio::sync::watch;

use crate::admin::control::{ControlServer, socket_path};
use crate::admin::explain::{LaneExplained, explain};
use crate::admin::{Controls, Explanation, FeedbackStatus, LaneStatus, Status, http};
use crate::clock::{Clock, Timestamp};
use crate::config::report::Setting;
use crate::config::{Config, Store};
use crate::deliver::Connector;
use crate::listener::Server;
use crate::mail::{Address, LaneName, RecipientKey};
use crate::observe;
use crate::pipeline::Relay;
use crate::queue::sqlite::SqliteQueue;
use crate::queue::{Counts, Queue, QueueError};
use crate::route::Router;
use crate::schedule::{Lane, Scheduler, Snapshot};

/// How often dead letters are looked through and waits are reported.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Least and greatest time between two searches for what has expired while it is held back.
const EXPIRY_LEAST: Duration = Duration::from_secs(1);
const EXPIRY_MOST: Duration = Duration::from_secs(60);
/// How often records of quotas that count nothing any more are removed.
const SWEEP_QUOTAS: Duration = Duration::from_secs(86_400);
/// How long the last writing of feedback may take at shutdown.
const FEEDBACK_LAST: Duration = Duration::from_secs(2);
/// Dead letters deleted in one transaction.
const FORGET_AT_ONCE: usize = 1000;

/// Why mailweir does not start; the exit code follows from it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Exit 75: it may work later.
    #[error("{0}")]
    Temporary(String),
    /// Exit 69: something it needs cannot be had.
    #[error("{0}")]
    Unavailable(String),
    /// Exit 78: the configuration asks for what cannot be.
    #[error("{0}")]
    Config(String),
}

/// Runs the relay until SIGTERM or SIGINT. `settings`: where each value of `config` came from.
///
/// # Errors
/// A [`StartError`], or an I/O error at start.
pub async fn run(config: Config, settings: Vec<Setting>, config_path: Option<PathBuf>) -> anyhow::Result<()> {
    observe::start_log(&config.log).map_err(StartError::Config)?;
    let file = config_path.as_deref().map_or("none".into(), |p| p.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %file, hostname = %config.hostname, "starting");

    let began = Instant::now();
    let config = Arc::new(config);
    let clock = Clock::System;
    let Store::Sqlite(store) = &config.queue.store;
    let queue = open_queue(store.clone(), clock).await?;
    let counts = queue.counts().await.map_err(|e| StartError::Temporary(e.to_string()))?;
    tracing::info!(
        store = %store.display(),
        messages = counts.messages,
        queued = counts.queued + counts.uncertain,
        held = counts.held,
        failed = counts.failed,
        "queue open"
    );

    let router = Arc::new(Router::new(config.clone()).map_err(|e| StartError::Config(e.to_string()))?);
    let connector = Connector::new(&config.hostname).map_err(|e| StartError::Unavailable(e.to_string()))?;
    let scheduler = Scheduler::new(queue.clone(), clock, config.queue.memory, config.limits.clone(), {
        let router = router.clone();
        move |lane| router.provider_of_lane(lane)
    });
    let (stop, stopping) = watch::channel(false);
    let relay =
        Relay::new(config.clone(), clock, queue.clone(), router, connector, scheduler.clone(), stopping.clone());

    relay.recall_feedback().await.map_err(|e| StartError::Temporary(e.to_string()))?;

    let (mut servers, mut listening) = (Vec::new(), Vec::new());
    for listener in &config.listeners {
        let server = Server::bind(listener.clone(), &config.hostname, relay.clone())
            .map_err(|e| StartError::Unavailable(format!("cannot listen on {}: {e}", listener.address)))?;
        let address = server.local_addr()?;
        listening.push(address);
        servers.push(server);
    }
    let controls: Arc<dyn Controls> =
        Arc::new(Operator { relay: relay.clone(), settings, started: clock.now(), file: config_path, listening });
    let path = socket_path(&config.queue.store);
    let control =
        ControlServer::bind(&path).with_context(|| format!("cannot open the control socket {}", path.display()))?;
    let stop_control = {
        let mut stopping = stopping.clone();
        async move {
            let _ = stopping.wait_for(|stop| *stop).await;
        }
    };
    let control = tokio::spawn(control.run(controls, clock, stop_control));
    if let Some(address) = config.admin {
        let bound = http::bind(address)
            .await
            .map_err(|e| StartError::Unavailable(format!("cannot listen on {address} ([admin] address): {e}")))?;
        tracing::info!(%address, "admin listening");
        tokio::spawn(http::serve(bound, queue.clone(), stopping.clone()));
    }

    let scheduling = tokio::spawn(scheduler.run(stopping.clone()));
    let housekeeping = tokio::spawn(keep_house(relay.clone(), stopping.clone()));
    let expiring = tokio::spawn(keep_expiring(relay.clone(), stopping.clone()));
    let feedback = tokio::spawn(relay.clone().keep_feedback(stopping.clone()));
    let servers: Vec<_> =
        servers.into_iter().map(|server| tokio::spawn(server.run(stopping.clone(), config.drain))).collect();
    tracing::info!(took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");

    let signal = wait_for_signal().await?;
    tracing::info!(signal, drain_s = config.drain.as_secs(), "stopping: no new sessions, finishing what is in flight");
    let _ = stop.send(true);
    let finished = tokio::time::timeout(config.drain, async {
        for task in servers {
            let _ = task.await;
        }
        relay.workers.none().await;
    })
    .await;
    if finished.is_err() {
        tracing::warn!(
            transactions = relay.workers.count(),
            "not all was finished in time: those recipients stay queued and may arrive twice"
        );
    }
    for task in [scheduling, housekeeping, expiring] {
        let _ = task.await;
    }
    // With transactions that did not end in time, what was stored last is good enough.
    let _ = tokio::time::timeout(FEEDBACK_LAST, feedback).await;
    let _ = control.await;
    queue.close().await;
    tracing::info!("stopped");
    Ok(())
}

async fn open_queue(path: PathBuf, clock: Clock) -> Result<Arc<dyn Queue>, StartError> {
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || SqliteQueue::open(&path, clock)).await;
    match opened {
        Ok(Ok(queue)) => Ok(queue),
        Ok(Err(error @ (QueueError::InUse(_) | QueueError::Unavailable(_) | QueueError::Full(_)))) => {
            Err(StartError::Temporary(format!("{error} ([queue] store = \"sqlite:{shown}\")")))
        }
        Ok(Err(error)) => Err(StartError::Unavailable(format!("{error} ([queue] store = \"sqlite:{shown}\")"))),
        Err(error) => Err(StartError::Unavailable(error.to_string())),
    }
}

async fn wait_for_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok("SIGTERM"),
            _ = int.recv() => return Ok("SIGINT"),
            _ = hup.recv() => tracing::warn!("SIGHUP: nothing to do; a changed configuration needs a restart"),
        }
    }
}

/// Forgets old dead letters and tells, once a minute and lane, how long the limiter held mail back.
async fn keep_house(relay: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
    let mut swept = None;
    while !*stopping.borrow() {
        loop {
            match relay.queue.forget(relay.clock.now(), relay.config.queue.keep_failed, FORGET_AT_ONCE).await {
                Ok(0) => break,
                Ok(n) => tracing::info!(recipients = n, "dead letters forgotten: older than [queue] keep_failed"),
                Err(error) => {
                    tracing::warn!(%error, "could not look through the dead letters");
                    break;
                }
            }
        }
        if swept.is_none_or(|at: Instant| at.elapsed() >= SWEEP_QUOTAS) {
            swept = Some(Instant::now());
            if let Err(error) = relay.scheduler.sweep_quotas().await {
                tracing::warn!(%error, "could not look through the records of quotas");
            }
        }
        for lane in relay.scheduler.lanes() {
            if let Some(held) = lane.take_limited() {
                tracing::info!(
                    provider = %lane.name,
                    waits = held.waits,
                    waited_ms = u64::try_from(held.waited.as_millis()).unwrap_or(u64::MAX),
                    "held back by our own limits in the last minute"
                );
            }
        }
        tokio::select! {
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            _ = stopping.changed() => {}
        }
    }
}

/// Ends what expires while it is held back, within a fiftieth of the time it has.
async fn keep_expiring(relay: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
    let providers = relay.config.providers.iter().chain([&relay.config.default]);
    let shortest = providers.map(|provider| provider.retry.expire).min().unwrap_or(EXPIRY_MOST);
    let every = (shortest / 50).clamp(EXPIRY_LEAST, EXPIRY_MOST);
    while !*stopping.borrow() {
        for lane in relay.scheduler.lanes() {
            relay.expire_held(&lane).await;
        }
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            _ = stopping.changed() => {}
        }
    }
}

/// What operators can do to the running relay.
struct Operator {
    relay: Arc<Relay>,
    settings: Vec<Setting>,
    started: Timestamp,
    file: Option<PathBuf>,
    listening: Vec<SocketAddr>,
}

#[async_trait]
impl Controls for Operator {
    fn queue(&self) -> Arc<dyn Queue> {
        self.relay.queue.clone()
    }

    fn withdraw(&self, keys: &[RecipientKey]) -> Vec<RecipientKey> {
        self.relay.scheduler.withdraw(keys)
    }

    fn wake(&self, lanes: &[LaneName]) {
        // An operator who says "now" means it, also for a host that has not answered lately.
        self.relay.connector.forget_dead();
        let now = self.relay.clock.now();
        for name in lanes {
            let lane = self.relay.scheduler.lane(name);
            self.relay.scheduler.note_stored(&lane, now);
        }
    }

    fn lanes(&self) -> Vec<LaneStatus> {
        let now = self.relay.clock.now();
        self.relay.scheduler.lanes().iter().map(|lane| lane_status(lane, now)).collect()
    }

    fn pause(&self, lane_or_provider: &str, paused: bool) -> bool {
        let name = LaneName::from(lane_or_provider);
        let known = self.relay.config.provider(lane_or_provider).is_some() || name.as_domain().is_some();
        if known {
            let lane = self.relay.scheduler.lane(&name);
            let wake = lane.pause(paused);
            self.relay.scheduler.wake(&lane, wake);
            // Whoever resumes a provider has mended what kept it away: no need to wait for a probe.
            if !paused {
                let wake = lane.close_circuit();
                self.relay.scheduler.wake(&lane, wake);
            }
            self.relay.scheduler.attend(&lane);
            tracing::info!(provider = %name, paused, "by an operator");
        }
        known
    }

    fn status(&self) -> Status {
        let (relay, stats) = (&self.relay, &self.relay.stats);
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
                Some(lane) => (lane_status(&lane, time), lane.snapshot(), lane.ahead_of(priority) as u64),
                None => {
                    let stored = FeedbackStatus::stored(&*relay.queue, name.as_str(), &provider, time).await;
                    let feedback = stored.map_err(|error| error.to_string())?;
                    (LaneStatus { feedback, ..LaneStatus::idle(name.as_str(), &provider) }, Snapshot::default(), 0)
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
        ..LaneStatus::idle(lane.name.as_str(), &lane.provider)
    }
}
