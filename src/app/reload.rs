//! SIGHUP and `mailweir reload`: another configuration takes the place of the one in force.
//!
//! All of the relay is built anew on the same queue, so that there is one way to begin and a reload
//! can do nothing that a restart cannot. Invariants:
//! - A configuration that is refused changes nothing: it is read, checked, and its addresses are
//!   bound before anything stops.
//! - What waits is not left behind: the queue is closed only if its file is in place and may be used. That is
//!   asked before anything stops, and again after the drain.
//! - Limits hold across it: no worker of the old relay is left when the new one starts, and what
//!   limits must remember is in the queue.
//! - Nobody is refused: clients that connect meanwhile wait in the kernel for at most `drain`.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{self, SignalKind};

use super::StartError;
use super::changes::{changes, has_lost_all, reached_otherwise, users};
use super::operator::Operator;
use super::running::{Opened, Parts, Running};
use super::sockets::Sockets;
use crate::admin::Refusal;
use crate::clock::{Clock, Timestamp};
use crate::config::report::Setting;
use crate::config::{Config, ConfigError, Loaded};
use crate::crash;
use crate::pipeline::Relay;
use crate::queue::{Queue, QueueError};

/// What a signal asks for.
pub(super) enum Signal {
    /// SIGTERM, SIGINT: its name.
    Stop(&'static str),
    /// SIGHUP.
    Reload,
}

/// The signals that mailweir answers to.
pub(super) struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            term: unix::signal(SignalKind::terminate())?,
            int: unix::signal(SignalKind::interrupt())?,
            hup: unix::signal(SignalKind::hangup())?,
        })
    }

    /// The next one that asks to stop: its name.
    pub(super) async fn stop(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }

    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::Stop("SIGTERM"),
            _ = self.int.recv() => Signal::Stop("SIGINT"),
            _ = self.hup.recv() => Signal::Reload,
        }
    }
}

/// A configuration, and where its values came from.
#[derive(Clone)]
pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    settings: Arc<[Setting]>,
    file: Option<PathBuf>,
    /// Tells the text that was read from what is in the file later.
    read: Option<u64>,
    /// Since when it is in force.
    since: Timestamp,
}

/// Why a configuration was not put in force.
pub(super) struct Refused {
    /// For whoever asked.
    pub(super) told: Refusal,
    /// For the log: without lines of the file.
    pub(super) logged: String,
}

impl Refused {
    fn new(why: impl std::fmt::Display, config: bool) -> Refused {
        let logged = why.to_string();
        Refused { told: Refusal { message: logged.clone(), config }, logged }
    }

    /// The store could not be opened again.
    fn by_queue(why: QueueError) -> Refused {
        Refused::new(format!("the queue could not be opened again: {why}"), false)
    }
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Refused {
        Refused::new(&error, matches!(error, StartError::Config(_)))
    }
}

impl From<ConfigError> for Refused {
    fn from(error: ConfigError) -> Refused {
        Refused { told: Refusal { message: format!("{error:#}"), config: true }, logged: error.to_string() }
    }
}

impl InForce {
    pub(super) fn new(loaded: Loaded, since: Timestamp) -> InForce {
        let Loaded { config, settings, file, read, .. } = loaded;
        InForce { config: Arc::new(config), settings: settings.into(), file, read, since }
    }

    /// The file for people.
    pub(super) fn shown(&self) -> String {
        self.file.as_ref().map_or("none".into(), |path| path.display().to_string())
    }
}

/// What stays for the life of the process.
pub(super) struct Process {
    /// The configuration file of the command line, if one was named.
    pub(super) named: Option<PathBuf>,
    pub(super) clock: Clock,
    pub(super) started: Timestamp,
    pub(super) sockets: Sockets,
    /// How often another configuration was put in force.
    pub(super) reloads: u64,
}

impl Process {
    /// The controls of what runs.
    pub(super) fn operator(&self, running: &Running, current: &InForce) -> Operator {
        Operator {
            relay: running.relay.clone(),
            settings: current.settings.clone(),
            started: self.started,
            file: current.file.clone(),
            read: current.read,
            loaded: current.since,
            reloads: self.reloads,
            listening: running.listening.clone(),
        }
    }

    /// Reads the configuration again, from the file it came from, and makes sure that it could be
    /// put in force.
    ///
    /// # Errors
    /// Why it could not, for people.
    pub(super) async fn read(&mut self, current: &InForce, queue: &dyn Queue) -> Result<(Parts, InForce), Refused> {
        // The file that the values in force came from: if it is gone, that is a fault, not a wish
        // for the built-in values.
        let file = self.named.clone().or_else(|| current.file.clone());
        let loaded = tokio::task::spawn_blocking(move || Loaded::read(file.as_deref())).await;
        let loaded = loaded.map_err(|e| Refused::new(e, false))??;
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "reload");
        }
        if loaded.config.queue.store != current.config.queue.store {
            return Err(Refused::new("[queue] store cannot change while mailweir runs: restart it", true));
        }
        // Without any value all mail would go other ways, or bounce.
        if has_lost_all(&loaded.settings, &current.settings) {
            return Err(Refused::new("the file has no values at all: restart mailweir if that is meant", true));
        }
        // The store is closed and opened again by its name. Where that no longer leads to what is open, everything
        // that waits would go with the close, and an empty queue would begin. A full disk is no such thing.
        queue.may_reopen().await.map_err(Refused::by_queue)?;
        let next = InForce::new(loaded, self.clock.now());
        let parts = Parts::new(next.config.clone()).await?;
        self.sockets.bind(&next.config)?;
        Ok((parts, next))
    }

    async fn start(&self, parts: Parts, before: &Relay) -> Result<Running, StartError> {
        Running::start(Opened::open(parts, self.clock).await?, self.clock, &self.sockets, Some(before)).await
    }

    /// Starts `current` once more, on the queue that the relay before has left open.
    async fn go_on(&mut self, current: &InForce, queue: Arc<dyn Queue>, before: &Relay) -> Result<Running, StartError> {
        self.sockets.keep(&current.config);
        let parts = Parts::new(current.config.clone()).await?;
        Running::start(Opened::again(parts, queue).await?, self.clock, &self.sockets, Some(before)).await
    }

    /// Ends what runs and starts `next`, or else `current` again. Tells what changed, or why the
    /// next one was not taken. `closing` is done when all but the queue has ended.
    ///
    /// # Errors
    /// Neither can be started: the process has to end.
    pub(super) async fn replace(
        &mut self,
        running: Running,
        current: &mut InForce,
        parts: Parts,
        next: InForce,
        closing: impl Future<Output = ()>,
    ) -> anyhow::Result<(Running, Result<String, Refused>)> {
        tracing::info!(config = %next.shown(), "reload: finishing what is in flight");
        crash::point("reload.begin");
        let before = running.relay.clone();
        let drained = running.drain().await;
        // Until here commands have the old relay, which may take `drain`.
        closing.await;
        // The drain may have taken long enough for somebody to move the queue's file.
        if let Err(error) = drained.may_reopen().await {
            let refused = Refused::by_queue(error);
            tracing::error!(error = %refused.logged, "reload: the old configuration goes on with the queue as it is open");
            let running = self.go_on(current, drained.keep().await?, &before).await?;
            running.relay.go_on_from(&before);
            return Ok((running, Err(refused)));
        }
        drained.close().await?;
        crash::point("reload.stopped");
        match self.start(parts, &before).await {
            Ok(running) => {
                running.relay.go_on_from(&before);
                // What waited for other hosts, TLS or logins than these need not wait for its next retry.
                running.relay.wake_providers(&reached_otherwise(&current.config, &next.config));
                crash::point("reload.started");
                let mut told = changes(&current.settings, &next.settings);
                // The same for what goes another way now.
                if !told.is_empty() {
                    running.relay.wake_rerouted(before.router.clone());
                }
                told.extend(users(&current.config, &next.config));
                for change in &told {
                    tracing::info!(%change, "reload");
                }
                if current.config.log != next.config.log {
                    told.push("[log] holds from the next start on".into());
                }
                *current = InForce { since: self.clock.now(), ..next };
                self.reloads += 1;
                let sockets = self.sockets.keep(&current.config);
                crash::point("reload.done");
                tracing::info!(changes = told.len(), "reloaded");
                if told.is_empty() {
                    told.push("no value has changed; the files that it names were read again (certificates, secrets, users, aliases)".into());
                }
                told.extend(sockets);
                Ok((running, Ok(told.join("\n"))))
            }
            Err(error) => {
                tracing::error!(%error, "reload: the new configuration could not be started, the old one is taken");
                self.sockets.keep(&current.config);
                let parts = Parts::new(current.config.clone()).await?;
                let running = self.start(parts, &before).await?;
                running.relay.go_on_from(&before);
                Ok((running, Err(error.into())))
            }
        }
    }
}
