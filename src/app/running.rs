//! One configuration in force: its parts, from their start to their end.
//!
//! Order matters. Everything that can refuse does so before the first session is served; a client
//! that connects finds a relay that works. At the end the listeners stop first, then transactions
//! in flight may finish within `drain`; what is left is in the queue anyway.
//!
//! The sockets outlive it (`sockets`): while one configuration takes the place of another, clients
//! that connect wait in the kernel instead of being refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::changes::reached_otherwise;
use super::sockets::Sockets;
use super::spool::keep_spool;
use super::{StartError, files, keep_expiring, keep_house};
use crate::admin::http;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::crash;
use crate::deliver::Connector;
use crate::descriptors::Descriptors;
use crate::listener::{self, Place, Server};
use crate::pipeline::{Relay, conversion};
use crate::queue::{Queue, QueueError, opening};
use crate::route::{Router, sts};
use crate::schedule::Scheduler;

/// How long the last writing of feedback may take at the end.
const FEEDBACK_LAST: Duration = Duration::from_secs(2);

/// How long connections that are being opened have at the end before they are left: a host that answers needs
/// less, and gets its QUIT.
const LEAVE: Duration = Duration::from_secs(1);

/// How long a host may say nothing to MAIL or RCPT at the end before it is left: its mail is not out.
const SILENT: Duration = Duration::from_secs(3);

/// How long the queue may take to close; it empties its log into the database.
const CLOSE: Duration = Duration::from_secs(15);

/// How long the files of the system may take that every configuration needs.
const PARTS: Duration = Duration::from_secs(15);

/// What can refuse a configuration without the queue.
pub(super) struct Parts {
    config: Arc<Config>,
    router: Arc<Router>,
    connector: Connector,
}

impl Parts {
    /// Makes them on a thread of their own: what the system trusts and which name servers it has are
    /// files too, which may be on a mount whose server is gone.
    ///
    /// # Errors
    /// The configuration asks for what cannot be, or the machine does not have it, or not soon.
    pub(super) async fn new(config: Arc<Config>) -> Result<Parts, StartError> {
        within(PARTS, tokio::task::spawn_blocking(move || Parts::make(config))).await
    }

    fn make(config: Arc<Config>) -> Result<Parts, StartError> {
        let shares = files::raise_limit(&config)?;
        let router = Router::with_queries(config.clone(), shares.queries);
        let router = router.map_err(|e| StartError::Config(e.to_string()))?;
        let router = Arc::new(router.with_sts(Arc::new(sts::Https::default()), Clock::System));
        let connector = Connector::new(&config.hostname).map_err(|e| StartError::Unavailable(e.to_string()))?;
        let connector = connector.with_descriptors(Descriptors::new(shares));
        let connector = connector.with_tokens(&config, router.clone(), Clock::System);
        let connector = match config.tls_report {
            Some(_) => connector.with_tally(Arc::default(), Clock::System),
            None => connector,
        };
        Ok(Parts { config, router, connector })
    }
}

/// What comes of this task, if it does within `limit`; a task that does not is left behind.
async fn within<T>(limit: Duration, task: JoinHandle<Result<T, StartError>>) -> Result<T, StartError> {
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => Err(StartError::Unavailable(error.to_string())),
        Err(_) => Err(StartError::Unavailable(format!(
            "the system's root certificates (SSL_CERT_FILE, SSL_CERT_DIR) or /etc/resolv.conf cannot be read within {} s",
            limit.as_secs()
        ))),
    }
}

/// Parts that have the queue: nobody else runs on it.
pub(super) struct Opened {
    parts: Parts,
    queue: Arc<dyn Queue>,
}

impl Opened {
    /// Opens the queue.
    ///
    /// # Errors
    /// It cannot be had; another mailweir runs on it.
    pub(super) async fn open(parts: Parts, clock: Clock) -> Result<Opened, StartError> {
        if let Some(warning) = opening::aside(&parts.config.queue).warning() {
            tracing::warn!("{warning}");
        }
        let queue = open_queue(parts.config.queue.clone(), clock).await?;
        crash::point("start.opened");
        Ok(Opened { parts, queue })
    }

    /// The same on a queue that is open already: what an earlier relay held of it waits again.
    ///
    /// # Errors
    /// The queue cannot be written.
    pub(super) async fn again(parts: Parts, queue: Arc<dyn Queue>) -> Result<Opened, StartError> {
        queue.end_leases().await.map_err(|e| StartError::Temporary(e.to_string()))?;
        Ok(Opened { parts, queue })
    }

    /// Closes it again: something else that is needed cannot be had.
    pub(super) async fn close(self) {
        // Nothing was written; a disk that hangs need not be waited for.
        let _ = tokio::time::timeout(CLOSE, self.queue.close()).await;
    }
}

/// The relay at work.
pub(super) struct Running {
    pub(super) relay: Arc<Relay>,
    pub(super) listening: Vec<Place>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<std::io::Result<()>>>,
    tasks: Vec<JoinHandle<()>>,
    feedback: JoinHandle<()>,
}

impl Running {
    /// Starts to listen and to deliver. `before`: the relay that ended for this one.
    ///
    /// # Errors
    /// The queue cannot be read, or something else that is needed cannot be had.
    pub(super) async fn start(
        opened: Opened,
        clock: Clock,
        sockets: &Sockets,
        before: Option<&Relay>,
    ) -> Result<Running, StartError> {
        let Opened { parts: Parts { config, router, connector }, queue } = opened;
        let counts = queue.counts().await.map_err(|e| StartError::Temporary(e.to_string()))?;
        tracing::info!(
            store = %config.queue.store.place().display(),
            messages = counts.messages,
            queued = counts.queued + counts.uncertain,
            held = counts.held,
            failed = counts.failed,
            "queue open"
        );
        // The rest is for what comes in ([`crate::listener::memory`]).
        let outgoing = listener::memory::rest_of(config.queue.memory);
        let outgoing = outgoing - conversion::set_aside(outgoing);
        let scheduler = Scheduler::new(queue.clone(), clock, outgoing, config.limits.clone(), {
            let router = router.clone();
            move |lane| router.provider_of_lane(lane)
        });
        let (stop, stopping) = watch::channel(false);
        let relay =
            Relay::new(config.clone(), clock, queue.clone(), router, connector, scheduler.clone(), stopping.clone());
        // Before anything makes a lane.
        relay.recognise_renamed().await.map_err(|e| StartError::Temporary(e.to_string()))?;
        scheduler.begin_rates(counts.messages == 0).await.map_err(StartError::Temporary)?;
        relay.recall().await.map_err(|e| StartError::Temporary(e.to_string()))?;
        if let Some(before) = before {
            let otherwise = reached_otherwise(&before.config, &config);
            scheduler.go_on_from(&before.scheduler, |provider| !otherwise.iter().any(|name| name == provider));
        }
        crash::point("start.recalled");

        let (mut servers, mut listening) = (Vec::new(), Vec::new());
        for listener in &config.listeners {
            let unavailable = |e| StartError::Unavailable(format!("cannot listen on {}: {e}", listener.address));
            let bound = sockets.of_listener(listener)?;
            let server = Server::new(bound, listener.clone(), &config.hostname, relay.clone()).map_err(unavailable)?;
            listening.extend(server.places().map_err(unavailable)?);
            servers.push(server);
        }
        if let Some(address) = config.admin {
            let socket = sockets.of_admin(address)?;
            let bound = tokio::net::TcpListener::from_std(socket)
                .map_err(|e| StartError::Unavailable(format!("cannot listen on {address} ([admin] address): {e}")))?;
            tracing::info!(%address, "admin listening");
            // Not waited for: a client that keeps its connection open must not hold up the end.
            let connections = relay.connector.descriptors().shares().admin;
            tokio::spawn(http::serve(bound, connections, queue, stopping.clone()));
        }
        let tasks = vec![
            tokio::spawn(scheduler.run(stopping.clone())),
            tokio::spawn(keep_house(relay.clone(), stopping.clone())),
            tokio::spawn(keep_expiring(relay.clone(), stopping.clone())),
            tokio::spawn(relay.clone().keep_reporting(stopping.clone())),
            tokio::spawn(relay.clone().keep_watch(stopping.clone())),
            tokio::spawn(relay.clone().keep_policies(stopping.clone())),
            tokio::spawn(relay.clone().keep_tls_reports(stopping.clone())),
            tokio::spawn(keep_spool(relay.clone(), stopping.clone())),
        ];
        let feedback = tokio::spawn(relay.clone().keep_feedback(stopping.clone()));
        let serve = |server: Server| tokio::spawn(server.run(stopping.clone(), config.drain));
        let servers = servers.into_iter().map(serve).collect();
        Ok(Running { relay, listening, stop, servers, tasks, feedback })
    }

    /// No new sessions; what is in flight may finish within `drain`; then the queue is closed.
    ///
    /// # Errors
    /// The queue does not close: nothing may go on beside it but the end of the process.
    pub(super) async fn stop(self) -> Result<(), StartError> {
        self.drain().await.close().await
    }

    /// No new sessions; what is in flight may finish within `drain`.
    pub(super) async fn drain(self) -> Drained {
        let _ = self.stop.send(true);
        let mut servers = self.servers;
        let deadline = Instant::now() + self.relay.config.drain;
        let relay = self.relay.clone();
        // Who had a job in hand when the stop came may begin to open a connection after it.
        let leave_connecting = async move {
            loop {
                tokio::time::sleep(LEAVE).await;
                relay.leave_connecting();
                relay.leave_silent(SILENT);
            }
        };
        let finished = tokio::time::timeout_at(deadline, async {
            let finish = async {
                for task in servers.iter_mut().filter(|task| !task.is_finished()) {
                    let _ = task.await;
                }
                crash::point("drain.sessions");
                self.relay.workers.none().await;
            };
            tokio::select! {
                () = finish => {}
                () = leave_connecting => {}
            }
        })
        .await;
        if finished.is_err() {
            match self.relay.workers.count() {
                0 => tracing::info!("clients that were still sending were sent away: nothing of that was acknowledged"),
                transactions => tracing::warn!(
                    transactions,
                    "not all was finished in time: those recipients stay queued and may arrive twice"
                ),
            }
            // Nothing of this relay may go on beside the next one.
            self.relay.cut_off();
        }
        for task in self.tasks {
            end_by(deadline, task).await;
        }
        // With transactions that did not end in time, what was stored last is good enough.
        end_by(Instant::now() + FEEDBACK_LAST, self.feedback).await;
        crash::point("drain.done");
        Drained { relay: self.relay, servers }
    }
}

/// A relay that has ended but for its queue.
#[must_use = "its queue has to be closed, or used"]
pub(super) struct Drained {
    relay: Arc<Relay>,
    /// Of sessions that did not end in time, which may be about to say so to their clients.
    servers: Vec<JoinHandle<std::io::Result<()>>>,
}

impl Drained {
    /// Whether the queue, once closed, could be opened again: what it was asked before the drain may not
    /// hold after it.
    ///
    /// # Errors
    /// Why it could not.
    pub(super) async fn may_reopen(&self) -> Result<(), QueueError> {
        self.relay.queue.may_reopen().await
    }

    /// Closes the queue.
    ///
    /// # Errors
    /// It does not close: nothing may go on beside it but the end of the process.
    pub(super) async fn close(self) -> Result<(), StartError> {
        self.within(async {
            self.end_rates().await;
            self.relay.queue.close().await;
        })
        .await
    }

    /// The queue as it is open, for another relay.
    ///
    /// # Errors
    /// It takes no more writes: nothing may go on beside it but the end of the process.
    pub(super) async fn keep(self) -> Result<Arc<dyn Queue>, StartError> {
        // What they would have accepted from here on nobody would send before the next start.
        for server in &self.servers {
            server.abort();
        }
        self.within(async {
            self.end_rates().await;
            self.relay.scheduler.end_claims().await;
        })
        .await?;
        Ok(self.relay.queue.clone())
    }

    /// The last act: what is stored holds only if nothing leaves after it.
    async fn end_rates(&self) {
        if let Err(error) = self.relay.scheduler.end_rates().await {
            tracing::warn!(error, "could not store how far the rates were used: the next start begins without bursts");
        }
    }

    async fn within(&self, end: impl Future<Output = ()>) -> Result<(), StartError> {
        tokio::time::timeout(CLOSE, end).await.map_err(|_| {
            let why = format!(
                "the queue {} does not close within {} s: its disk neither takes writes nor refuses them; what was \
                 acknowledged is in it, as after a kill",
                self.relay.config.queue.store.place().display(),
                CLOSE.as_secs()
            );
            tracing::error!("{why}");
            StartError::Temporary(why)
        })
    }
}

/// Waits for a task that was told to end, then ends it where it is: a store that refuses every write
/// would keep it for ever. What it had in hand stays leased until the queue is closed.
async fn end_by(deadline: Instant, mut task: JoinHandle<()>) {
    if tokio::time::timeout_at(deadline, &mut task).await.is_err() {
        task.abort();
        // Nothing of this relay may go on beside the next one.
        let _ = task.await;
    }
}

async fn open_queue(of: config::Queue, clock: Clock) -> Result<Arc<dyn Queue>, StartError> {
    let shown = of.store.to_string();
    let opened = tokio::task::spawn_blocking(move || opening::open(&of, clock)).await;
    match opened {
        Ok(Ok(queue)) => Ok(queue),
        Ok(Err(error @ (QueueError::InUse(_) | QueueError::Unavailable(_) | QueueError::Full(_)))) => {
            Err(StartError::Temporary(format!("{error} ([queue] store = \"{shown}\")")))
        }
        Ok(Err(error)) => Err(StartError::Unavailable(format!("{error} ([queue] store = \"{shown}\")"))),
        Err(error) => Err(StartError::Unavailable(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::mail::LaneName;
    use crate::pipeline::tests::{Faulty, World};

    fn of(world: &World) -> Running {
        let relay = world.relay.clone();
        let stopping = || world.stop.subscribe();
        Running {
            listening: Vec::new(),
            servers: Vec::new(),
            tasks: vec![
                tokio::spawn(keep_house(relay.clone(), stopping())),
                tokio::spawn(keep_expiring(relay.clone(), stopping())),
            ],
            feedback: tokio::spawn(relay.clone().keep_feedback(stopping())),
            stop: world.stop.clone(),
            relay,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_of_the_system_that_do_not_come_are_given_up() {
        let stuck: JoinHandle<Result<(), StartError>> = tokio::spawn(std::future::pending());
        let why = within(PARTS, stuck).await.expect_err("they do not come").to_string();
        assert!(why.contains("cannot be read within 15 s"), "{why}");
    }

    /// A disk that hangs: the relay does not wait for it for ever, and nothing goes on beside it.
    #[tokio::test]
    async fn a_queue_that_does_not_close_ends_the_process_with_the_reason() {
        let dir = tempfile::tempdir().expect("a directory");
        let queue = Faulty::hanging(&dir);
        let world = World::new(dir, queue).await;
        let running = of(&world);
        tokio::time::pause();
        let Err(StartError::Temporary(why)) = running.stop().await else { panic!("it has closed") };
        assert!(why.contains("does not close within 15 s"), "{why}");
    }

    /// Under a full disk nothing that expires can be settled; a stop (and a reload, which waits for one)
    /// ends all the same.
    #[tokio::test]
    async fn a_store_that_refuses_every_write_does_not_keep_the_relay_from_its_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let refused = Arc::new(AtomicUsize::new(0));
        let queue = Faulty::full(&dir, refused.clone());
        let world = World::new(dir, queue).await;
        let relay = world.relay.clone();
        let _ = relay.scheduler.lane(&LaneName::from("host")).pause(true);
        world.accept_old(1, Duration::from_secs(30 * 86_400)).await;
        let running = of(&world);
        let tried = async |times: usize| {
            while refused.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tried(3).await;
        tokio::select! {
            stopped = running.stop() => stopped.expect("the queue closes"),
            () = tried(100) => panic!("it still tries to settle"),
        }
    }
}
