//! The only wiring: configuration → parts → run → drain.
//!
//! - `files`: how many may be open.
//! - `running`: one configuration in force, from start to end.
//! - `reload`: another takes its place.
//! - `changes`: what differs between the two.
//! - `sockets`: where clients connect, whatever configuration is in force.
//! - `spool`: what came while no relay ran.
//! - `operator`: what operators can do to the relay that runs.

mod changes;
mod files;
mod gate;
mod operator;
mod reload;
mod running;
mod sockets;
mod spool;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use crate::admin::control::{ControlServer, socket_path};
use crate::clock::Clock;
use crate::config::{Config, Loaded, certificates, expiring};
use crate::crash;
use crate::observe;
use crate::pipeline::Relay;
use operator::Front;
use reload::{InForce, Process, Signal, Signals};
use running::{Opened, Parts, Running};
use sockets::Sockets;

pub(crate) use files::survive_file_limit;
#[doc(hidden)]
pub use operator::controls as operator;

/// How often dead letters are looked through and waits are reported.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// Least and greatest time between two searches for what has expired while it is held back.
const EXPIRY_LEAST: Duration = Duration::from_secs(1);
const EXPIRY_MOST: Duration = Duration::from_secs(60);
/// How often records of quotas that count nothing any more are removed.
const SWEEP_QUOTAS: Duration = Duration::from_secs(86_400);
/// How often certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(86_400);
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

/// Runs the relay until SIGTERM or SIGINT; SIGHUP and `mailweir reload` read the configuration
/// again, from the file that was `named` on the command line, or else from the one it came from.
///
/// # Errors
/// A [`StartError`], or an I/O error at start.
pub async fn run(loaded: Loaded, named: Option<PathBuf>) -> anyhow::Result<()> {
    let _log = observe::start_log(loaded.config.log.format, &loaded.config.log.level).map_err(StartError::Config)?;
    let began = Instant::now();
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "the configuration");
    }
    let clock = Clock::System;
    let mut current = InForce::new(loaded, clock.now());
    let hostname = &current.config.hostname;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = %current.shown(), %hostname, "starting");
    let mut signals = Signals::new()?;
    survive_file_limit()?;
    let mut process = Process { named, clock, started: clock.now(), sockets: Sockets::default(), reloads: 0 };
    let parts = Parts::new(current.config.clone()).await?;
    // Whoever cannot have the queue or the control socket fails before a client can hand in mail.
    let opened = Opened::open(parts, clock).await?;
    let control = match bind_all(&mut process.sockets, &current.config) {
        Ok(control) => control,
        Err(error) => {
            opened.close().await;
            return Err(error.into());
        }
    };
    let mut running = Running::start(opened, clock, &process.sockets, None).await?;

    let (ask, mut asked) = mpsc::channel(1);
    let front = Arc::new(Front::new(process.operator(&running, &current), ask));
    let (stop_control, mut stopping) = watch::channel(false);
    let control = tokio::spawn(control.run(front.clone(), clock, async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    }));
    tracing::info!(took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");

    crash::point("ready");
    let signal = loop {
        let queue = running.relay.queue.clone();
        let reply = tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop(name) => break name,
                Signal::Reload => None,
            },
            Some(reply) = asked.recv() => Some(reply),
            why = queue.failed() => {
                // Nothing that anybody does from here on would be stored. Another process recovers
                // what this one held, and its clients and hosts are used to connections that break.
                tracing::error!("{why}; exiting at once: another mailweir has to go on");
                return Err(StartError::Temporary(why.to_string()).into());
            }
        };
        // A file that does not come must not keep the relay from its end.
        let read = tokio::select! {
            read = process.read(&current, &*queue) => read,
            signal = signals.stop() => break signal,
        };
        let told = match read {
            Ok((parts, next)) => {
                let (now, told) = process.replace(running, &mut current, parts, next, front.close()).await?;
                running = now;
                front.put(process.operator(&running, &current));
                told
            }
            Err(refused) => {
                let by = if reply.is_some() { "command" } else { "SIGHUP" };
                tracing::error!(error = %refused.logged, by, "reload: the configuration in force stays");
                crash::point("reload.refused");
                Err(refused)
            }
        };
        if let Err(refused) = &told {
            front.refused(clock.now(), &refused.logged);
        }
        if let Some(reply) = reply {
            let _ = reply.send(told.map_err(|refused| refused.told));
        }
    };
    crash::point("drain.begin");
    let drain_s = current.config.drain.as_secs();
    tracing::info!(signal, drain_s, "stopping: no new sessions, finishing what is in flight");
    // Nobody is to wait for a relay that does not come back, nor for another configuration.
    front.stop();
    drop(asked);
    process.sockets = Sockets::default();
    let stopped = running.stop().await;
    let _ = stop_control.send(true);
    let _ = control.await;
    stopped?;
    tracing::info!("stopped");
    Ok(())
}

/// The control socket, which needs the lock of the queue, and then all others.
fn bind_all(sockets: &mut Sockets, config: &Config) -> Result<ControlServer, StartError> {
    let path = socket_path(&config.queue.store);
    let control = ControlServer::bind(&path).map_err(|error| {
        StartError::Unavailable(format!("cannot open the control socket {}: {error}", path.display()))
    })?;
    sockets.bind(config)?;
    Ok(control)
}

/// Forgets old dead letters and tells, once a minute and lane, how long the limiter held mail back.
#[doc(hidden)]
pub async fn keep_house(relay: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
    let mut swept = None;
    // Those of today were told with the configuration.
    let mut looked = tokio::time::Instant::now();
    while !*stopping.borrow() {
        while !*stopping.borrow() {
            match relay.queue.forget(relay.clock.now(), relay.config.queue.keep_failed, FORGET_AT_ONCE).await {
                Ok(0) => break,
                Ok(n) => tracing::info!(recipients = n, "dead letters forgotten: older than [queue] keep_failed"),
                Err(error) => {
                    tracing::warn!(%error, "could not look through the dead letters");
                    break;
                }
            }
        }
        if swept.is_none_or(|at: tokio::time::Instant| at.elapsed() >= SWEEP_QUOTAS) {
            swept = Some(tokio::time::Instant::now());
            if let Err(error) = relay.scheduler.sweep_quotas().await {
                tracing::warn!(%error, "could not look through the records of quotas");
            }
        }
        if looked.elapsed() >= CERTIFICATES {
            looked = tokio::time::Instant::now();
            for (key, message) in certificates::troubles(&relay.config, relay.clock.now()) {
                tracing::warn!(key, "a certificate: {message}");
            }
            for (key, message) in expiring(&relay.config, relay.clock.now()) {
                tracing::warn!(key, "{message}");
            }
        }
        for lane in relay.scheduler.lanes() {
            if let Some(held) = lane.take_limited() {
                tracing::info!(
                    provider = lane.name.as_str(),
                    waits = held.waits,
                    waited_ms = u64::try_from(held.waited.as_millis()).unwrap_or(u64::MAX),
                    "held back by our own limits in the last minute"
                );
            }
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(HOUSEKEEPING) => {}
            _ = stopping.changed() => {}
        }
    }
}

/// Ends what expires while it is held back, within a fiftieth of the time it has.
#[doc(hidden)]
pub async fn keep_expiring(relay: Arc<Relay>, mut stopping: watch::Receiver<bool>) {
    let providers = relay.config.providers.iter().chain([&relay.config.default]);
    let shortest = providers.map(|provider| provider.retry.expire).min().unwrap_or(EXPIRY_MOST);
    let every = (shortest / 50).clamp(EXPIRY_LEAST, EXPIRY_MOST);
    while !*stopping.borrow() {
        for lane in relay.scheduler.lanes() {
            // Looks itself whether the relay stops.
            relay.expire_held(&lane).await;
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(every) => {}
            _ = stopping.changed() => {}
        }
    }
}
