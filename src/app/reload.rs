//! SIGHUP and `mailweir reload`: another configuration takes the place of the one in force.
//!
//! All of the relay is built anew on the same queue, so that there is one way to begin and a reload
//! can do nothing that a restart cannot. Invariants:
//! - A configuration that is refused changes nothing: it is read, checked, and its addresses are
//!   bound before anything stops.
//! - Limits hold across it: no worker of the old relay is left when the new one starts, and what
//!   limits must remember is in the queue.
//! - Nobody is refused: clients that connect meanwhile wait in the kernel for at most `drain`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::{self, SignalKind};

use super::StartError;
use super::operator::Operator;
use super::running::{Opened, Parts, Running};
use super::sockets::Sockets;
use crate::clock::{Clock, Timestamp};
use crate::config::report::Setting;
use crate::config::{Config, Loaded};
use crate::crash;

/// Changed values that are told one by one.
const TOLD: usize = 50;

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
}

impl InForce {
    pub(super) fn new(loaded: Loaded) -> InForce {
        InForce { config: Arc::new(loaded.config), settings: loaded.settings.into(), file: loaded.file }
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
}

impl Process {
    /// The controls of what runs.
    pub(super) fn operator(&self, running: &Running, current: &InForce) -> Operator {
        Operator {
            relay: running.relay.clone(),
            settings: current.settings.clone(),
            started: self.started,
            file: current.file.clone(),
            listening: running.listening.clone(),
        }
    }

    /// Reads the configuration again, from the file it came from, and makes sure that it could be
    /// put in force.
    ///
    /// # Errors
    /// Why it could not, for people.
    pub(super) async fn read(&mut self, current: &InForce) -> Result<(Parts, InForce), String> {
        // The file that the values in force came from: if it is gone, that is a fault, not a wish
        // for the built-in values.
        let file = self.named.clone().or_else(|| current.file.clone());
        let loaded = tokio::task::spawn_blocking(move || Loaded::read(file.as_deref())).await;
        let loaded = loaded.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        for warning in &loaded.warnings {
            tracing::warn!(%warning, "reload");
        }
        if loaded.config.queue.store != current.config.queue.store {
            return Err("[queue] store cannot change while mailweir runs: restart it".into());
        }
        let next = InForce::new(loaded);
        let parts = Parts::new(next.config.clone()).await.map_err(|e| e.to_string())?;
        self.sockets.bind(&next.config).map_err(|e| e.to_string())?;
        Ok((parts, next))
    }

    async fn start(&self, parts: Parts) -> Result<Running, StartError> {
        Running::start(Opened::open(parts, self.clock).await?, self.clock, &self.sockets).await
    }

    /// Ends what runs and starts `next`, or else `current` again. Tells what changed, or why the
    /// next one could not be started.
    ///
    /// # Errors
    /// Neither can be started: the process has to end.
    pub(super) async fn replace(
        &mut self,
        running: Running,
        current: &mut InForce,
        parts: Parts,
        next: InForce,
    ) -> anyhow::Result<(Running, Result<String, String>)> {
        tracing::info!(config = %next.shown(), "reload: finishing what is in flight");
        crash::point("reload.begin");
        let before = running.relay.clone();
        running.stop().await?;
        crash::point("reload.stopped");
        match self.start(parts).await {
            Ok(running) => {
                running.relay.stats.go_on_from(&before.stats);
                crash::point("reload.started");
                let mut told = changes(&current.settings, &next.settings);
                for change in &told {
                    tracing::info!(%change, "reload");
                }
                if current.config.log != next.config.log {
                    told.push("[log] holds from the next start on".into());
                }
                *current = next;
                self.sockets.keep(&current.config);
                crash::point("reload.done");
                tracing::info!(changes = told.len(), "reloaded");
                if told.is_empty() {
                    told.push("no value has changed; certificates and secrets were read again".into());
                }
                Ok((running, Ok(told.join("\n"))))
            }
            Err(error) => {
                tracing::error!(%error, "reload: the new configuration could not be started, the old one is taken");
                self.sockets.keep(&current.config);
                let parts = Parts::new(current.config.clone()).await?;
                let running = self.start(parts).await?;
                running.relay.stats.go_on_from(&before.stats);
                Ok((running, Err(error.to_string())))
            }
        }
    }
}

/// What differs, a line for each value; secrets are not shown by [`Setting`].
fn changes(old: &[Setting], new: &[Setting]) -> Vec<String> {
    fn of(settings: &[Setting]) -> Vec<(String, String)> {
        // Tables that may be repeated are told apart by their place.
        let mut seen: HashMap<(&str, &str), u32> = HashMap::new();
        let name = |setting: &'_ Setting, nth: u32| match (setting.table.as_str(), nth) {
            ("", _) => setting.key.clone(),
            (table, 1) => format!("{table} {}", setting.key),
            (table, nth) => format!("{table} (no. {nth}) {}", setting.key),
        };
        let mut all = Vec::with_capacity(settings.len());
        for setting in settings {
            let nth = seen.entry((&setting.table, &setting.key)).and_modify(|n| *n += 1).or_insert(1);
            let value = setting.value.as_ref().map_or("none".into(), |value| value.to_string().trim().to_owned());
            all.push((name(setting, *nth), value));
        }
        all
    }
    let (old, new) = (of(old), of(new));
    let before: HashMap<&str, &str> = old.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let after: HashMap<&str, &str> = new.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut told: Vec<String> = new
        .iter()
        .filter_map(|(name, value)| match before.get(name.as_str()) {
            Some(was) if was == value => None,
            Some(was) => Some(format!("{name}: {was} → {value}")),
            None => Some(format!("{name}: {value} (new)")),
        })
        .collect();
    let gone = old.iter().filter(|(name, _)| !after.contains_key(name.as_str()));
    told.extend(gone.map(|(name, value)| format!("{name}: {value} (gone)")));
    if told.len() > TOLD {
        let more = told.len() - TOLD;
        told.truncate(TOLD);
        told.push(format!("and {more} more; see mailweir check"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Vec<Setting> {
        Loaded::parse(text, "config.toml").expect("a good configuration").settings
    }

    #[test]
    fn tells_what_changed_and_nothing_else() {
        let old = settings("[provider.a]\nmatch = { domains = [\"a.example\"] }\nrate = \"20/s\"\n");
        let new = settings("[provider.a]\nmatch = { domains = [\"a.example\"] }\nrate = \"10/s\"\n");
        assert_eq!(changes(&old, &old), Vec::<String>::new());
        let told = changes(&old, &new);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("[provider.a] rate: ") && told[0].contains("20/s") && told[0].contains("10/s"),
            "{told:?}"
        );
        let fewer = changes(&old, &settings(""));
        assert!(
            fewer.iter().any(|line| line.starts_with("[provider.a] rate: ") && line.ends_with("(gone)")),
            "{fewer:?}"
        );
        assert!(fewer.len() <= TOLD + 1);
    }

    #[test]
    fn a_secret_is_never_told() {
        let with = |password: &str| {
            settings(&format!(
                "[provider.a]\nmatch = {{ domains = [\"a.example\"] }}\nrelay = \"mx.a.example:587\"\nauth = {{ user = \"u\", password = \"{password}\" }}\n"
            ))
        };
        let told = changes(&with("s3cr3t-one"), &with("s3cr3t-two")).join("\n");
        assert!(!told.contains("s3cr3t"), "{told}");
    }
}
